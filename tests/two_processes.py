"""What two processes do together, in one start of them: their findings go to FOLDER, where the tests look.

torchrun --standalone --nproc_per_node=2 tests/two_processes.py FOLDER

resumed-RANK.txt   the tensors in which a run that was stopped and went on differs from one left alone
encoded-RANK.txt   whether process RANK found what process 0 leaves behind in rank_0_first
parts-RANK.txt     the losses of a run whose batches come in two parts, separated by blanks
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runs_for_tests import CPU, TRAIN, VAL, run, short

from helpers.device import end_at_once, process_group, rank, rank_0_first
from helpers.model import GPT, GPTConfig
from helpers.program.folder import run_folder
from helpers.tokenizer import CharTokenizer


def model_of(**changes):
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16, **changes))
    torch.manual_seed(99)  # another program: its chance is in another state
    return model


def end_of(folder, stop_after=None):
    """The tensors of a run in folder, stopped by the second process after so many steps of this call."""
    model, calls = model_of(dropout=0.3), []

    def should_stop():
        calls.append(True)
        return rank() == 1 and len(calls) == stop_after

    with run_folder(folder, model, CharTokenizer("abcdefghijk"), short(), CPU, TRAIN, VAL) as (history, save):
        history = run(model, history=history, on_save=save, should_stop=should_stop)
    assert history.stopped == (stop_after is not None)
    return model.state_dict() | {"losses": torch.tensor(history.losses)}


def main(folder):
    def tell(name, finding):
        (folder / f"{name}-{rank()}.txt").write_text(finding)

    with process_group(CPU):
        with rank_0_first():
            tell("encoded", str((folder / "mark").exists()))
            (folder / "mark").touch()
        alone = end_of(folder / "alone")
        end_of(folder / "stopped", stop_after=5)
        resumed = end_of(folder / "stopped")
        tell("resumed", " ".join(name for name in alone if not torch.equal(alone[name], resumed[name])))
        losses = run(model_of(), short(accumulation_steps=2)).losses
        tell("parts", " ".join(map(str, losses)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    end_at_once()
