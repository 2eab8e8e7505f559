"""The stop button of JupyterLab, in a real kernel: training ends after a step and goes on later."""

from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).resolve().parent.parent
BUILD = """
import torch
from helpers.data import load_corpus
from helpers.program.build import build
from helpers.train import Callbacks, train
small = dict(n_layer=1, n_head=1, n_embd=16, block_size=8)
changes = dict(batch_size=2, max_steps=1_000_000, eval_interval=1_000_000)
model, tokenizer, train_ids, val_ids, config = build("course-cpu", load_corpus("plays"), small, changes)
history = None
"""
TRAIN = """
def running(history):  # says once that training is under way
    if not getattr(history, "said", False):
        history.said = True
        print("running", flush=True)
history = train(model, train_ids, val_ids[:500], config, torch.device("cpu"), history,
                Callbacks(on_step=running), progress=False)
history.said = False
print(history.stopped, history.step > 0, history.step == len(history.losses))
"""


@pytest.fixture
def kernel():
    manager, client = start_new_kernel(cwd=str(ROOT))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(manager, client, code, stop_at=None):
    """Run a cell and return what it printed; at the output `stop_at` press the stop button."""
    printed = []

    def output(message):
        if message["msg_type"] == "error":
            raise AssertionError("\n".join(message["content"]["traceback"]))
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])
            if stop_at and stop_at in printed[-1]:
                manager.interrupt_kernel()

    client.execute_interactive(code, output_hook=output, timeout=60)
    return "".join(printed)


def test_the_stop_button_ends_training_after_a_step_and_it_goes_on(kernel):
    run(*kernel, BUILD)
    assert run(*kernel, TRAIN, stop_at="running").splitlines()[-1] == "True True True"
    first = int(run(*kernel, "print(history.step)"))
    assert run(*kernel, TRAIN, stop_at="running").splitlines()[-1] == "True True True"
    assert int(run(*kernel, "print(history.step)")) > first
