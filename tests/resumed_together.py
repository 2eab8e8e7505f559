"""Two processes train, are stopped and go on: is their end that of two that were left alone?

torchrun --standalone --nproc_per_node=2 tests/resumed_together.py FOLDER

Each process writes to FOLDER what it found: the names of the tensors that differ.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runs_for_tests import CPU, TRAIN, VAL, run, short

from helpers.device import process_group, rank
from helpers.model import GPT, GPTConfig
from helpers.program.folder import run_folder
from helpers.tokenizer import CharTokenizer


def end_of(folder, stop_after=None):
    """The tensors of a run in folder, stopped by the second process after so many steps of this call."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.3))
    torch.manual_seed(99)  # another program: its chance is in another state
    calls = []

    def should_stop():
        calls.append(True)
        return rank() == 1 and len(calls) == stop_after

    with run_folder(folder, model, CharTokenizer("abcdefghijk"), short(), CPU, TRAIN, VAL) as (history, save):
        history = run(model, history=history, on_save=save, should_stop=should_stop)
    assert history.stopped == (stop_after is not None)
    return model.state_dict() | {"losses": torch.tensor(history.losses)}


def main(folder):
    with process_group(CPU):
        alone = end_of(folder / "alone")
        end_of(folder / "stopped", stop_after=5)
        resumed = end_of(folder / "stopped")
        differ = [name for name in alone if not torch.equal(alone[name], resumed[name])]
        (folder / f"{rank()}.txt").write_text(" ".join(differ))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
