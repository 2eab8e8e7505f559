"""The ladder: what each idea of the course is worth, as validation loss under one budget and one seed.

Each notebook trains its own rung live; the rungs of the others come from a record that this program
writes:    python -m helpers ladder
"""

import argparse
import json
import math
from dataclasses import replace

import torch
from torch import nn

from helpers.data import NAMED, load_corpus, train_val_split
from helpers.files import RUNS_DIR, write_whole
from helpers.model import (
    GPT,
    BigramLanguageModel,
    Block,
    CausalSelfAttention,
    FeedForward,
    GPTConfig,
    Head,
    LanguageModel,
    MultiHeadAttention,
)
from helpers.tokenizer import CharTokenizer
from helpers.train import evaluate, fit

SEED = 1337
BLOCK_SIZE, N_EMBD, N_HEAD, N_LAYER = 32, 64, 4, 3
BUDGET = dict(block_size=BLOCK_SIZE, batch_size=32, steps=1500, learning_rate=3e-3, seed=SEED)
TOLERANCE = 0.04  # nats: processors round differently, and 1,500 steps of training amplify that
# fmt: off
RUNGS = [
    "uniform", "unigram", "bigram", "one head", "multi-head", "+ feed-forward", "+ residual",
    "+ layer norm", "deeper", "full",
]
# fmt: on


class ResidualBlock(nn.Module):
    """A Block without layer norm: what the residual stream is worth alone."""

    def __init__(self, config):
        super().__init__()
        self.attn = CausalSelfAttention(config)
        self.ffwd = FeedForward(config)

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.ffwd(x)


def bodies(config):
    """The body of each rung between "one head" and "+ layer norm", by name; see LanguageModel."""
    C, T = config.n_embd, config.block_size
    return {
        "one head": lambda: Head(C, C, T),
        "multi-head": lambda: MultiHeadAttention(C, config.n_head, T),
        "+ feed-forward": lambda: nn.Sequential(MultiHeadAttention(C, config.n_head, T), FeedForward(config)),
        "+ residual": lambda: ResidualBlock(config),
        "+ layer norm": lambda: nn.Sequential(Block(config), nn.LayerNorm(C)),
    }


def build_rung(rung, vocab_size):
    """The untrained model of a rung that is trained, from "bigram" to "deeper", from SEED."""
    config = GPTConfig(vocab_size, BLOCK_SIZE, n_layer=1, n_head=N_HEAD, n_embd=N_EMBD)
    torch.manual_seed(SEED)
    if rung == "bigram":
        return BigramLanguageModel(vocab_size)
    if rung == "deeper":
        return GPT(replace(config, n_layer=N_LAYER))
    return LanguageModel(vocab_size, BLOCK_SIZE, N_EMBD, bodies(config)[rung]())


def train_rung(model, train_ids, val_ids):
    """Train a model under the budget of the ladder; returns its validation loss in nats."""
    # A table of counts has no depth to protect, and learns best at ten times the rate.
    faster = 10 if isinstance(model, BigramLanguageModel) else 1
    fit(model, train_ids, **BUDGET | {"learning_rate": BUDGET["learning_rate"] * faster})
    return evaluate(model, val_ids, BLOCK_SIZE)


def unigram_loss(train_ids, val_ids, vocab_size):
    """Cross-entropy in nats of val_ids under the character frequencies of train_ids, one added each."""
    counts = torch.bincount(train_ids, minlength=vocab_size) + 1.0
    return -(counts / counts.sum()).log()[val_ids].mean().item()


def measure(corpus):
    """Train every rung on a corpus: a dict from rung to validation loss in nats."""
    tokenizer = CharTokenizer.from_text(corpus.text)
    train_ids, val_ids = train_val_split(tokenizer.encode(corpus.text))
    V = tokenizer.vocab_size
    rungs = {"uniform": math.log(V), "unigram": unigram_loss(train_ids, val_ids, V)}
    for rung in RUNGS[2:-1]:
        rungs[rung] = train_rung(build_rung(rung, V), train_ids, val_ids)
        print(f"{corpus.name}: {rung:16} {rungs[rung]:.4f}", flush=True)
    return rungs


def load_ladder(corpus):
    """The recorded rungs for a corpus, a dict from name to nats; empty for a text without a record."""
    path = RUNS_DIR / f"ladder-{corpus.name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def climb(corpus, measured, check=True):
    """The ladder up to the rungs measured here, in order: recorded ones first, then these.

    measured maps rung to loss. Raises AssertionError if a loss differs from its record by more than
    TOLERANCE: then the code has changed, not the weather. check=False leaves that out, for a run with
    settings of one's own. The last rung may be better than its record: on a GPU it is a larger model.
    """
    recorded = load_ladder(corpus)
    for rung, loss in measured.items():
        off = loss - recorded.get(rung, loss)
        if check and (off > TOLERANCE or (off < -TOLERANCE and rung != "full")):
            raise AssertionError(
                f"{rung}: {loss:.4f} nats, but the record says {recorded[rung]:.4f}. Was a cell above "
                "changed or left out?"
            )
    last = max(RUNGS.index(rung) for rung in measured)
    known = recorded | measured
    return {rung: known[rung] for rung in RUNGS[: last + 1] if rung in known}


def main(arguments=None):
    """The subcommand: measure the ladder on texts and write the records that climb compares with."""
    parser = argparse.ArgumentParser(prog="python -m helpers ladder", description="Measure every rung.")
    parser.add_argument("texts", nargs="*", default=NAMED, help="names or paths, by default both corpora")
    try:
        for name in parser.parse_args(arguments).texts:
            print(record_ladder(load_corpus(name)))
    except ValueError as error:
        raise SystemExit(str(error)) from None


def record_ladder(corpus):
    """Measure the ladder on a corpus and write its record; returns the path."""
    rungs = {rung: round(loss, 4) for rung, loss in measure(corpus).items()}
    run = RUNS_DIR / f"course-cpu-{corpus.name}-cpu.json"
    if run.exists():  # the last rung is the full run of notebook 06
        rungs["full"] = json.loads(run.read_text(encoding="utf-8"))["best_val"]
    path = RUNS_DIR / f"ladder-{corpus.name}.json"
    write_whole(path, (json.dumps(rungs, indent=1) + "\n").encode())
    return path
