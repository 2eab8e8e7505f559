"""The pictures of notebook 03: one attention head, its scores and its maps."""

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from helpers.checks import check_choice, check_number, check_whole
from helpers.pictures.shared import draw_attention, label_axis
from helpers.pictures.style import GREY, ORANGE, WIDTH, figure_title, written


def plot_attention(weights, tokens, title, size=4.6):
    """One attention map: weights (T, T) over the tokens of a text. Row: who looks. Column: at whom."""
    fig, ax = plt.subplots(figsize=(size * 1.15, size))
    draw_attention(ax, weights, tokens)
    ax.set(title=title, xlabel="key: the character looked at", ylabel="query: the character that looks")
    fig.colorbar(ax.images[0], ax=ax, label="attention weight", shrink=0.8)
    return fig


def plot_against_head_size(sizes, measures, title, log=(), height=3.1):
    """One axis a measure: measures maps its name to {scaling: one value per head size}; log: log axes."""
    fig, axes = plt.subplots(1, len(measures), figsize=(WIDTH, height))
    for ax, (name, curves) in zip(axes, measures.items()):
        for (label, values), marker in zip(curves.items(), "osD^"):
            ax.plot(sizes, values, marker=marker, ms=4, label=label)
        ax.set_xscale("log", base=2)
        if name in log:
            ax.set_yscale("log")
        else:
            ax.set_ylim(0, None)
        ax.set_xlabel("head size $D$")
        ax.set_title(name, fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure_title(fig, title)
    return fig


MOST_CHANNELS = 512  # of a fresh head
DIVISORS = {
    "sqrt(head size)": lambda head_size: head_size**0.5,
    "nothing": lambda head_size: 1.0,
    "sqrt(n_embd), here 512": lambda head_size: MOST_CHANNELS**0.5,
}


def draw_fresh_head(tokens, temperature=1.0, head_size=64, masked=True, divisor="sqrt(head size)"):
    """The attention map of random queries and keys (variance 1), and its middle row as bars -> Figure.

    divisor: what the scores are divided by before the temperature, a key of DIVISORS.
    """
    check_number("temperature", temperature, above=0)
    check_whole("head_size", head_size, most=MOST_CHANNELS)
    check_choice("divisor", divisor, DIVISORS)
    T = len(tokens)
    scores = fresh_scores(T, head_size) / DIVISORS[divisor](head_size) / temperature
    if masked:
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
    weights = F.softmax(scores, dim=-1)
    row = T // 2
    p = weights[row]
    width = torch.special.entr(p).sum().exp().item()  # e to the entropy: how many it looks at
    fig = plt.figure(figsize=(WIDTH, 3.5), layout="none")  # constrained layout would take 0.1 s
    left, right = fig.add_axes([0.09, 0.14, 0.36, 0.76]), fig.add_axes([0.54, 0.14, 0.44, 0.76])
    draw_attention(left, weights, tokens, fontsize=7)
    left.set(title="attention weights", xlabel="key: the character looked at", ylabel="query")
    left.add_patch(plt.Rectangle((-0.5, row - 0.5), T, 1, fill=False, edgecolor=ORANGE, linewidth=2))
    right.bar(range(T), p.numpy(), color=ORANGE)
    right.axhline(1 / (row + 1 if masked else T), color=GREY, linestyle="--", label="the plain mean")
    label_axis(right, "x", tokens, fontsize=7)
    right.set(ylim=(0, 1), xlabel="key", ylabel="weight")
    right.set_title(f"row {row}, “{written(tokens[row])}”: as if evenly over {width:.1f} keys")
    right.legend(loc="upper right")
    return fig


def fresh_scores(T, head_size):
    """Scores (T, T) of random queries and keys of variance 1, before any division; always the same draw."""
    generator = torch.Generator().manual_seed(3)
    q, k = torch.randn(2, T, MOST_CHANNELS, generator=generator)[:, :, :head_size]  # (T, D) each
    return q @ k.T


def plot_attention_row(maps, texts, names, title, cell=1.6):
    """Attention maps (T, T) side by side, each over its own text and under its name."""
    fig, axes = plt.subplots(1, len(maps), figsize=(WIDTH, cell + 0.75), squeeze=False)
    for ax, weights, tokens, name in zip(axes[0], maps, texts, names):
        draw_attention(ax, weights, tokens, fontsize=7)
        ax.set_title(name, fontsize=9, loc="center")
    axes[0, 0].set_ylabel("query", fontsize=9)
    fig.supxlabel("key: the character looked at", fontsize=9)
    fig.colorbar(axes[0, 0].images[0], ax=axes, label="attention weight", shrink=0.7, aspect=15)
    figure_title(fig, title)
    return fig
