"""A nanoGPT checkout run as it is: copied, trained by its own train.py, its log and its weights read.

Nothing is written into the checkout: its files and the text go into a temporary folder.
"""

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from helpers.program.gpt2 import renamed
from helpers.train import evaluate

NANOGPT_FILES = (
    "train.py", "model.py", "configurator.py", "config/train_shakespeare_char.py",
    "data/shakespeare_char/prepare.py",
)  # fmt: skip
# The command for a CPU in its README. Of its own, the course adds that the last checkpoint is kept.
NANOGPT_ARGUMENTS = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
    "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 "
    "--lr_decay_iters=2000 --dropout=0.0 --always_save_checkpoint=True"
).split()
# Its own settings for this text, for a GPU: a model of 384/6/6/256, compiled.
NANOGPT_ON_A_GPU = "config/train_shakespeare_char.py --device=cuda --eval_iters=1 --log_interval=1".split()
NANOGPT_TOKENS = {"cpu": 12 * 64, "cuda": 64 * 256}  # a step
NANOGPT_VAL = 1.8857  # what this reached on Tiny Shakespeare when the course's goals were set
WARM_UP = 10  # iterations that do not count in a rate


def check_checkout(checkout):
    """Raise ValueError unless the folder has all that training needs."""
    missing = [name for name in NANOGPT_FILES if not (Path(checkout) / name).is_file()]
    if missing:
        raise ValueError(f"--nanogpt {checkout} has no {missing[0]}: give the folder of a nanoGPT checkout.")


@contextlib.contextmanager
def nanogpt_copy(checkout, text):
    """A temporary folder with what training needs of a nanoGPT checkout, and text as its corpus.

    Raises ValueError if the text cannot be prepared.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in NANOGPT_FILES:
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(checkout) / name, Path(folder) / name)
        data = Path(folder) / "data" / "shakespeare_char"
        (data / "input.txt").write_text(text, encoding="utf-8", newline="")
        output_of([data / "prepare.py"], folder)
        yield folder


def output_of(arguments, folder):
    """What python prints when run with arguments in folder. Raises ValueError if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, env=os.environ | {"PYTHONUTF8": "1"}, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ValueError(
            f"{Path(arguments[0]).name} ended with an error ({last}): run it by hand to see more."
        )
    return done.stdout


def nanogpt_log(log):
    """The log of nanoGPT's train.py -> ({iteration: milliseconds}, {step: its estimate of the val loss})."""
    times = re.findall(r"^iter (\d+): loss \S+, time ([\d.]+)ms", log, re.MULTILINE)
    evals = re.findall(r"^step (\d+): train loss \S+, val loss ([\d.]+)", log, re.MULTILINE)
    if not times or not evals:
        raise ValueError(
            "The log of train.py has no iterations or no losses: is this nanoGPT's own train.py?"
        )
    return {int(i): float(ms) for i, ms in times}, {int(step): float(loss) for step, loss in evals}


def nanogpt_rate(folder, iterations, device_type="cpu"):
    """Tokens/s of nanoGPT's train.py in a copy; evaluation 0 cannot be turned off and is not counted."""
    arguments = NANOGPT_ON_A_GPU if device_type == "cuda" else NANOGPT_ARGUMENTS
    short = [f"--max_iters={WARM_UP + iterations}", "--eval_iters=1"]
    times, _ = nanogpt_log(output_of(["train.py", *arguments, *short], folder))
    counted = [ms for i, ms in times.items() if i >= WARM_UP]
    return NANOGPT_TOKENS[device_type] * len(counted) / sum(counted) * 1000


def nanogpt_recipe(folder, steps, model, val_ids):
    """Run the whole recipe in a copy: (seconds of training, loss of the course's full sweep, what was run).

    The last checkpoint is loaded into `model`, a GPT of preset nanogpt-cpu, and swept over val_ids.
    """
    whole = [f"--max_iters={steps}", f"--lr_decay_iters={steps}", f"--eval_interval={min(steps, 250)}"]
    start = time.perf_counter()
    times, evals = nanogpt_log(output_of(["train.py", *NANOGPT_ARGUMENTS, *whole], folder))
    wall = time.perf_counter() - start
    path = Path(folder) / "out-shakespeare-char" / "ckpt.pt"
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(nanogpt_weights(saved["model"]))
    loss = evaluate(model, val_ids, model.config.block_size)
    what = (
        f"the nanoGPT checkout ({wall:.0f} s with start and evaluations; its own estimate of its loss, "
        f"{evals[steps]:.4f}; the sweep over its last checkpoint is the course's)"
    )
    return nanogpt_seconds(times, evals, steps), loss, what


def nanogpt_seconds(times, evals, steps):
    """Training seconds of the first `steps` iterations of a log, without its evaluations.

    nanoGPT's time for an iteration that begins with an evaluation has that in it; the median of the
    other iterations stands in for those. The checkpoint of step 2000 has seen iterations 0 to 1999.
    """
    kept = [ms for i, ms in times.items() if i < steps and i not in evals]
    return (sum(kept) + (steps - len(kept)) * statistics.median(kept)) / 1000


def nanogpt_weights(weights):
    """nanoGPT's state dict under the names of helpers.model.GPT. Layouts agree: q, k, v one after another."""
    return {renamed(name): tensor for name, tensor in weights.items()}
