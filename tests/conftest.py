"""Fixtures and settings that several test files share."""

import os
import shutil

import pytest
import torch
from hypothesis import settings

from helpers.data import load_corpus, train_val_split
from helpers.model import GPT, GPTConfig
from helpers.tokenizer import CharTokenizer

# The same examples in every run: the suite is a regression test, and must not fail by chance.
settings.register_profile("course", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("course")
if os.name == "nt":  # Colab is a Linux machine, and a class is graded on one; their tests use its shell
    collect_ignore = ["test_colab.py", "test_grade.py"]
# A slow machine would have notebook 06 train another preset than the one whose outputs are stored.
os.environ["COURSE_PRESET"] = "course-cpu"
# The models here are so small that a second thread costs more than it brings, and pytest-xdist
# already runs one worker a core.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_start(monkeypatch):
    """Every test begins with the same seed and without the user's own settings."""
    for name in ("COURSE_CORPUS", "COURSE_DEVICE", "COURSE_GPT2", "TINYSHAKESPEARE_PATH"):
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def chromium_path():
    """Where Chromium is. Without it what asks for it is skipped, or fails with COURSE_BROWSER=required."""
    path = shutil.which("chromium")
    if path is None and os.environ.get("COURSE_BROWSER") == "required":
        pytest.fail("COURSE_BROWSER=required, but there is no chromium on the path: install it.")
    if path is None:
        pytest.skip("no chromium on the path: install it (apt install chromium) to test in a browser")
    return path


@pytest.fixture(scope="session")
def text():
    """The first 20,000 characters of the bundled plays."""
    return load_corpus("plays").text[:20_000]


@pytest.fixture(scope="session")
def tokenizer(text):
    return CharTokenizer.from_text(text)


@pytest.fixture(scope="session")
def ids(text, tokenizer):
    return tokenizer.encode(text)


@pytest.fixture(scope="session")
def splits(ids):
    return train_val_split(ids)


@pytest.fixture
def tiny_gpt():
    """tiny_gpt(**changes): a GPT of two layers, two heads, 16 channels, 8 positions, 11 tokens."""

    def make(**changes):
        settings = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16) | changes
        return GPT(GPTConfig(**settings))

    return make


def randomise(module, std=0.3):
    """Give every parameter a random value: a start at zero or one would hide faults."""
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=std)
    return module
