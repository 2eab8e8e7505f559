"""The pictures of notebook 07: parts of a step, operations, strengths of directions, and gains."""

import textwrap

import matplotlib.pyplot as plt
import torch

from helpers.checks import check_number, check_whole
from helpers.model import GPTConfig, flops_per_token
from helpers.optimizers import orthogonalise
from helpers.pictures.style import BLUE, GREY, ORANGE, WIDTH, figure_title, to_numpy

# What each row of the benchmark compares; the row's name in data/runs/bench-cpu.json comes first. Those
# under WHOLE change several things at once, the others one.
ONE_CHANGE = {
    "precision": "training speed: products in bfloat16 instead of float32",
    "kept-memory": "training speed: memory stays with the program instead of going back to the system",
    "fused-optimizer": "training speed: AdamW in one kernel instead of one call for each parameter",
    "muon": "time to the same loss: Muon for the blocks' matrices instead of AdamW for all",
    "schedule": "time to the same loss: a falling rate (cosine) instead of a constant one",
}
WHOLE = {
    "fused-attention": "training speed at block 256: all heads in one kernel instead of a list of heads",
    "training": "training speed: the course's program and recipe (bfloat16) instead of nanoGPT's (float32)",
    "generation": "writing speed, 10.8 M model: cache, one kernel, fewer bits instead of none of these",
}


def plot_parts(parts, title, xlabel, fmt="%.3g"):
    """One horizontal bar a part: parts maps a name to a number; the largest is orange."""
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.34 * len(parts)))
    largest = max(parts, key=parts.get)
    colours = [ORANGE if name == largest else BLUE for name in parts]
    bars = ax.barh(list(parts), list(parts.values()), color=colours, height=0.7)
    ax.bar_label(bars, fmt=fmt, padding=3)
    ax.invert_yaxis()
    ax.set(title=title, xlabel=xlabel)
    ax.margins(x=0.1)
    return fig


# ---------------------------------------------------------------- operations


def operations_per_token(config):
    """The operations of flops_per_token, by part: a dict that sums to it."""
    C, T, V, L = config.n_embd, config.block_size, config.vocab_size, config.n_layer
    return {
        "attention: projections": 6 * L * 4 * C * C,
        "attention: scores and sums": 12 * L * C * T,
        "feed-forward": 6 * L * 8 * C * C,
        "final layer": 6 * V * C,
    }


def draw_operations(n_layer, n_embd, block_size, rate, vocab_size=65, batch_size=64):
    """The operations of a training step by part, in 10^9, and its time at `rate` operations/s -> Figure."""
    check_number("rate", rate, above=0)
    config = GPTConfig(vocab_size, block_size, n_layer, n_head=1, n_embd=n_embd)
    tokens = batch_size * block_size
    parts = {name: n * tokens / 1e9 for name, n in operations_per_token(config).items()}
    total = flops_per_token(config) * tokens
    speed = f"{rate / 1e9:,.0f} billion a second"
    title = f"{total / 1e9:,.0f} billion operations: {total / rate:.2g} s at {speed}"
    xlabel = f"operations of a step of {batch_size} x {block_size} tokens (billions)"
    return plot_parts(parts, title, xlabel)


# ---------------------------------------------------------------- Muon


def plot_strengths(curves, title, height=2.8):
    """Singular values: curves maps a label to (n,), strongest first; each relative to its strongest."""
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    for (label, s), style in zip(curves.items(), ("-", "--", ":")):
        ax.plot(to_numpy(s) / float(s[0]), style, label=label)
    ax.set(title=title, yscale="log", ylim=(1e-4, 1.5))
    ax.set(xlabel="direction, strongest first", ylabel="strength / strongest")
    ax.legend()
    return fig


def draw_newton_schulz(iterations, weakest, n=64):
    """n strengths that fall evenly to `weakest` of the strongest, before and after -> Figure."""
    check_whole("iterations", iterations, least=0)
    check_number("weakest", weakest, above=0, most=1)
    s = weakest ** (torch.arange(n) / (n - 1))
    before = s / s.norm()
    after = orthogonalise(torch.diag(s)[None], steps=iterations)[0].diagonal()
    fig, ax = plt.subplots(figsize=(WIDTH, 3.0))
    ax.plot(before, "--", color=GREY, label="before: made-up strengths, divided by their length")
    ax.plot(after, color=BLUE, label=f"after {iterations} iterations")
    ax.axhspan(0.5, 1.3, color=ORANGE, alpha=0.15, lw=0, label="0.5 to 1.3")
    arrived = int(((after > 0.5) & (after < 1.3)).sum())
    ax.set(title=f"{arrived} of {n} directions lie between 0.5 and 1.3", yscale="log", ylim=(1e-6, 10))
    ax.set(xlabel="direction, strongest first", ylabel="strength")
    ax.legend(loc="lower left")
    return fig


# ---------------------------------------------------------------- gains


def gains_of(rows):
    """{sentence: how many times better} of the rows of a benchmark that the two lists above name.

    Of several rows with one name it is the first: the whole step. A ratio of times is turned over.
    """
    gains = {}
    for name, sentence in (ONE_CHANGE | WHOLE).items():
        row = next((row for row in rows if row["row"] == name and row["ratio"]), None)
        if row is not None:
            gains[sentence] = 1 / row["ratio"] if row["unit"] == "s" else row["ratio"]
    return gains


def plot_gains(gains):
    """How many times better: gains maps a sentence to a ratio; whole programs are orange.

    The title names the change that gains most alone.
    """
    labels = sorted(gains, key=gains.get)
    fig, ax = plt.subplots(figsize=(WIDTH, 0.5 * len(labels) + 1.0))
    colours = [ORANGE if label in WHOLE.values() else BLUE for label in labels]
    ax.set_xscale("log")
    more = [gains[label] - 1 for label in labels]  # a bar is what is more than no gain
    bars = ax.barh(range(len(labels)), more, left=1, color=colours, height=0.6)
    ax.bar_label(bars, [f"{gains[label]:.3g}x" for label in labels], padding=3)
    ax.axvline(1, color=GREY)
    ax.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    ax.set_xticks([], minor=True)
    ax.set_yticks(range(len(labels)), [textwrap.fill(label, 46) for label in labels], fontsize=8)
    ax.set(xlabel="times as good (orange: several changes at once)")
    best = max((label for label in labels if label in ONE_CHANGE.values()), key=gains.get)
    figure_title(fig, f"The largest gain of a single change: {best.partition(': ')[2]}")
    ax.margins(x=0.15)
    return fig
