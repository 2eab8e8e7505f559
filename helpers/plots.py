"""The pictures of the course. Every plot_ function makes a Figure; show it with plt.show().

The title states the finding, so the caller gives it. Colours are Okabe and Ito's, which differ for
every common form of colour vision; a heat map's colours differ in lightness too.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
import torch

BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY = COLOURS = [
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#777777",
]
WIDTH = 7.5  # inches at 100 dots each: a picture fits a notebook cell
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "legend.frameon": False,
        "image.cmap": "viridis",
    }
)


def to_png(fig):
    """Figure -> PNG bytes; the figure is closed, so that nothing draws it a second time."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=100)
    plt.close(fig)
    return buffer.getvalue()


def visible(token):
    """A token as it can be read on an axis: spaces and line breaks get a sign."""
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def _numpy(values):
    return values.detach().float().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)


def plot_bars(labels, values, title, ylabel, colour=BLUE, height=2.6, highlight=()):
    """One bar a label. Labels in `highlight` are drawn in orange."""
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    colours = [ORANGE if label in highlight else colour for label in labels]
    ax.bar(range(len(labels)), _numpy(values), color=colours)
    ax.set_xticks(range(len(labels)), [visible(label) for label in labels])
    ax.set(title=title, ylabel=ylabel)
    ax.margins(x=0.01)
    return fig


def plot_matrix(
    matrix, title, xlabel="", ylabel="", xticks=None, yticks=None, annotate=False, size=4.0, label="", ax=None
):
    """A heat map of a matrix, row 0 on top. Ticks are tokens; annotate writes each value in its cell."""
    matrix = _numpy(matrix)
    if ax is None:
        _, ax = plt.subplots(figsize=(min(size * 1.2, WIDTH), size))
    image = ax.imshow(matrix, aspect="equal", interpolation="nearest")
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if xticks is not None:
        ax.set_xticks(range(len(xticks)), [visible(t) for t in xticks])
    if yticks is not None:
        ax.set_yticks(range(len(yticks)), [visible(t) for t in yticks])
    if annotate:
        middle = (matrix.min() + matrix.max()) / 2
        for i, j in np.ndindex(matrix.shape):
            colour = "black" if matrix[i, j] > middle else "white"
            ax.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    ax.figure.colorbar(image, ax=ax, label=label, shrink=0.8)
    return ax.figure


def plot_attention(weights, tokens, title, size=4.6):
    """One attention map: weights (T, T) over the tokens of a text. Row: who looks. Column: at whom."""
    fig, ax = plt.subplots(figsize=(size * 1.15, size))
    _draw_attention(ax, _numpy(weights), tokens)
    ax.set(title=title, xlabel="key: the character looked at", ylabel="query: the character that looks")
    fig.colorbar(ax.images[0], ax=ax, label="attention weight", shrink=0.8)
    return fig


def plot_attention_grid(maps, tokens, title, cell=1.9):
    """All heads of a model: maps is a list, one (1, H, T, T) a layer. Heads across, layers down."""
    n_layer, n_head = len(maps), maps[0].shape[1]
    cell = min(cell, 11 / n_head)
    fig, axes = plt.subplots(
        n_layer, n_head, figsize=(cell * n_head + 0.4, cell * n_layer + 0.5), squeeze=False
    )
    for i, layer in enumerate(maps):
        for h in range(n_head):
            ax = axes[i, h]
            _draw_attention(ax, _numpy(layer[0, h]), tokens, fontsize=5 if len(tokens) > 16 else 7)
            ax.set_title(f"layer {i}, head {h}", fontsize=8, loc="center")
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    return fig


def _draw_attention(ax, weights, tokens, fontsize=8):
    # The square root lifts the many small weights to where the eye can tell them apart.
    norm = plt.matplotlib.colors.PowerNorm(0.5, vmin=0, vmax=1)
    ax.imshow(weights, norm=norm, interpolation="nearest")
    labels = [visible(t) for t in tokens]
    ax.set_xticks(range(len(labels)), labels, fontsize=fontsize, family="monospace")
    ax.set_yticks(range(len(labels)), labels, fontsize=fontsize, family="monospace")
    ax.tick_params(length=0, pad=1)
    ax.spines[:].set_visible(False)


def plot_losses(curves, title, smooth=20, height=3.0, reference=None):
    """Training losses step by step: curves maps a label to a list of losses in nats.

    Each point is the mean of `smooth` steps. reference maps labels to losses drawn as dashed lines.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    for label, losses in curves.items():
        losses = np.asarray(losses, dtype=float)
        width = max(1, min(smooth, len(losses) // 4))
        means = np.convolve(losses, np.ones(width) / width, mode="valid")
        ax.plot(np.arange(len(means)) + width, means, label=label)
    for i, (label, value) in enumerate((reference or {}).items()):
        ax.axhline(value, color=GREY, linestyle=["--", ":", "-."][i % 3], label=label)
    ax.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    ax.legend()
    return fig


def plot_evals(evals, title, best_step=None, height=3.0, claimed=None):
    """Training and validation loss at each sweep: evals is a list of dicts with step, train, val."""
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    steps = [point["step"] for point in evals]
    for split, colour, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
        name = {"train": "training text", "val": "validation text"}[split]
        ax.plot(steps, [p[split] for p in evals], color=colour, marker=marker, ms=4, label=name)
    if best_step is not None:
        ax.axvline(best_step, color=GREY, linestyle=":", label=f"best validation: step {best_step}")
    if claimed is not None:
        ax.axhline(claimed, color=GREY, linestyle="--", label=f"claimed: {claimed}")
    ax.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    ax.legend()
    return fig


def plot_ladder(rungs, title, highlight=None):
    """The ladder: rungs maps a name to a validation loss in nats; the highlighted rung is orange."""
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.32 * len(rungs)))
    names, losses = list(rungs), list(rungs.values())
    bars = ax.barh(names, losses, color=[ORANGE if n == highlight else BLUE for n in names], height=0.7)
    ax.bar_label(bars, [f" {loss:.2f}" for loss in losses])
    ax.invert_yaxis()
    ax.set(title=title, xlabel="validation loss (nats per character; shorter is better)")
    ax.margins(x=0.1)
    return fig
