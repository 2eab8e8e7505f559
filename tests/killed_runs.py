"""Kills a training run again and again, and compares its end with that of a run left alone.

python tests/killed_runs.py FOLDER KILLS SEED          (POSIX only: the children are forked)

A child trains and saves after every step. The parent kills it (SIGKILL) after a random time, every
second time in the next write of a checkpoint, and starts another, which goes on. Prints one line of
JSON: kills, how many of them left a half-written file, and whether the ends are the same.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import helpers.train
from helpers.generate import generate
from helpers.model import GPT, GPTConfig
from helpers.program.folder import newest, run_folder
from helpers.tokenizer import CharTokenizer
from helpers.train import Callbacks, TrainConfig, train

torch.set_num_threads(1)
helpers.train.SAVE_SECONDS = 0.0
TOKENIZER = CharTokenizer("abcdefghijk")
IDS = torch.randint(11, (3000,), generator=torch.Generator().manual_seed(5)).cumsum(0) % 11
CONFIG = TrainConfig(batch_size=4, max_steps=60, eval_interval=20, grad_clip=1.0, optimizer="muon", seed=7)


def child(folder):
    """Train from the last checkpoint in folder, if there is one, to the end."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=64, dropout=0.2))

    def write(model, history):
        generator = torch.Generator().manual_seed(3)
        idx = generate(model, IDS[None, :1], 10, generator=generator)
        history.samples.append({"step": history.step, "text": TOKENIZER.decode(idx[0])})

    cpu = torch.device("cpu")
    place = folder, model, TOKENIZER, CONFIG, cpu, IDS[:2500], IDS[2500:]
    with run_folder(*place) as (history, save):
        callbacks = Callbacks(on_eval=write, on_save=save)
        train(model, IDS[:2500], IDS[2500:], CONFIG, cpu, history, callbacks, progress=False)


def in_a_child(folder, kill_after=None, in_a_write=False):
    """Fork, train, and perhaps kill, then or in the next write; returns whether it was killed."""
    pid = os.fork()
    if pid == 0:
        sys.stdout = sys.stderr
        try:
            child(folder)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        end = time.perf_counter() + 1.0
        while in_a_write and not any(folder.glob("*.partial")) and time.perf_counter() < end:
            pass
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit("a run did not go on after a kill")
    return os.WIFSIGNALED(status)


def end_of(folder):
    """What a run came to: tensors, and its history without the clock."""
    tensors, header = newest(folder)
    history = header["history"]
    history.pop("train_seconds")
    for point in history["evals"]:
        point.pop("seconds")
    return tensors, history


def main(folder, kills, seed):
    chance = random.Random(seed)
    begin = time.perf_counter()
    in_a_child(folder / "alone")
    whole = time.perf_counter() - begin
    killed = halves = 0
    while killed < kills:
        # Long enough to get somewhere now and then, short enough to need many attempts.
        if not in_a_child(folder / "killed", chance.uniform(0.02, 0.5) * whole, killed % 2 == 1):
            for path in (folder / "killed").iterdir():  # it came to its end: begin again
                path.unlink()
            continue
        killed += 1
        halves += any((folder / "killed").glob("*.partial"))
    in_a_child(folder / "killed")
    (wanted, said), (got, told) = end_of(folder / "alone"), end_of(folder / "killed")
    same = wanted.keys() == got.keys() and all(torch.equal(wanted[name], got[name]) for name in wanted)
    print(json.dumps({"kills": killed, "while writing": halves, "same end": same and said == told}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
