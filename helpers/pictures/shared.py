"""The pictures that several notebooks use: bars, matrices, attention maps, loss curves, the ladder.

Every plot_ function makes a Figure; show it with plt.show(). The title states the finding, so the caller
gives it. Every draw_ function that begins with `ax` draws on axes that are there.
"""

import functools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, ScaledTranslation

from helpers.pictures.style import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    code_points,
    figure_title,
    in_cell,
    to_numpy,
    visible,
    written,
)


def plot_bars(labels, values, title, ylabel, colour=BLUE, height=2.6, highlight=()):
    """One bar a label. Labels in `highlight` are drawn in orange."""
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    colours = [ORANGE if label in highlight else colour for label in labels]
    ax.bar(range(len(labels)), to_numpy(values), color=colours)
    ax.set_xticks(range(len(labels)), [visible(label) for label in labels])
    ax.set(title=title, ylabel=ylabel)
    ax.margins(x=0.01)
    return fig


def plot_characters(characters, values, title, ylabel, highlight=()):
    """A bar for each character; those at the places in `highlight` are orange."""
    fig = plot_bars([written(c) for c in characters], values, title, ylabel)
    ax = fig.axes[0]
    for i, bar in enumerate(ax.patches):
        bar.set_facecolor(ORANGE if i in highlight else BLUE)
    numbers = any(len(written(c)) > 1 for c in characters)
    ax.tick_params(axis="x", length=0, labelsize=7, labelrotation=90 if numbers else 0)
    return fig


def plot_matrix(
    matrix, title, xlabel="", ylabel="", xticks=None, yticks=None, annotate=False, size=4.0, label="", ax=None
):
    """A heat map of a matrix, row 0 on top. Ticks are tokens; annotate writes each value in its cell."""
    matrix = to_numpy(matrix)
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


# ---------------------------------------------------------------- attention maps


def plot_attention_grid(maps, tokens, title, cell=1.9):
    """All heads of a model: maps is a list, one (1, H, T, T) a layer. Heads across, layers down."""
    n_layer, n_head = len(maps), maps[0].shape[1]
    cell = min(cell, 11 / n_head)
    size = cell * n_head + 0.4, cell * n_layer + 0.5
    fig, axes = plt.subplots(n_layer, n_head, figsize=size, squeeze=False)
    for i, layer in enumerate(maps):
        for h in range(n_head):
            ax = axes[i, h]
            draw_attention(ax, layer[0, h], tokens, fontsize=5 if len(tokens) > 16 else 7)
            ax.set_title(f"layer {i}, head {h}", fontsize=8, loc="center")
    figure_title(fig, title)
    return fig


def draw_attention(ax, weights, tokens, fontsize=8):
    """Draw attention weights (T, T) on ax: row t is the token that looks, columns those looked at."""
    # The square root lifts the many small weights to where the eye can tell them apart.
    norm = plt.matplotlib.colors.PowerNorm(0.5, vmin=0, vmax=1)
    ax.imshow(to_numpy(weights), norm=norm, interpolation="nearest")
    label_axis(ax, "x", tokens, fontsize)
    label_axis(ax, "y", tokens, fontsize)
    ax.spines[:].set_visible(False)


# ---------------------------------------------------------------- letters along axes


def label_axis(ax, side, tokens, fontsize=10):
    """Write tokens at 0, 1, 2, ... along an axis, side "x" or "y"; of a letter without a font its number."""
    labels = [in_cell(t) if len(t) == 1 else visible(t) for t in tokens]
    axis, long = getattr(ax, f"{side}axis"), any(len(label) != 1 for label in labels)
    ax.tick_params(axis=side, length=0, pad=1)
    usual = code_points(findfont(FontProperties(family=["monospace"])))
    if long or not usual.issuperset(map(ord, labels)):
        family = ["monospace", *plt.rcParams["font.family"]]  # in_cell may have added a font
        axis.set_ticks(range(len(labels)), labels, fontsize=fontsize, family=family)
        if long and side == "x":
            ax.tick_params(axis="x", labelrotation=90, labelsize=min(fontsize, 7))
        return
    axis.set_ticks([0], [" "], fontsize=fontsize, family="monospace")  # keeps room for the letters
    away = -(0.6 * fontsize + 1) / 72  # inches from the axis to the middle of a letter
    if side == "x":
        centres, along = [(i, 0) for i in range(len(labels))], ax.get_xaxis_transform()
        shift = ScaledTranslation(0, away, ax.figure.dpi_scale_trans)
    else:
        centres, along = [(0, i) for i in range(len(labels))], ax.get_yaxis_transform()
        shift = ScaledTranslation(away, 0, ax.figure.dpi_scale_trans)
    draw_letters(ax, labels, centres, along + shift, fontsize)


def draw_letters(ax, characters, centres, transform, fontsize):
    """Characters around their centres (x, y), which are given in the coordinates of transform.

    One collection of outlines is drawn several times faster than a text object for each character.
    """
    letters = PathCollection(
        [_glyph(c) for c in characters],
        offsets=centres or [(0, 0)],
        offset_transform=transform,
        color="black",
        lw=0,
        snap=False,
        clip_on=False,
    )
    letters.set_transform(Affine2D().scale(fontsize) + ax.figure.dpi_scale_trans.frozen().scale(1 / 72))
    ax.add_collection(letters, autolim=False)


@functools.lru_cache(maxsize=1024)
def _glyph(character):
    """The outline of a character, centred, at 1 point to the em."""
    path = TextPath((0, 0), character, size=1, prop=FontProperties(family="monospace"))
    return plt.matplotlib.path.Path(path.vertices - (0.3, 0.3), path.codes)


# ---------------------------------------------------------------- losses


def plot_losses(curves, title, smooth=20, height=3.0, reference=None):
    """Training losses step by step: curves maps a label to a list of losses in nats.

    Each point is the mean of `smooth` steps. reference maps labels to losses drawn as dashed lines.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    for label, losses in curves.items():
        ax.plot(*running_mean(losses, smooth), label=label)
    for i, (label, value) in enumerate((reference or {}).items()):
        ax.axhline(value, color=GREY, linestyle=["--", ":", "-."][i % 3], label=label)
    ax.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    ax.legend()
    return fig


def running_mean(losses, smooth):
    """Steps and the mean loss of the `smooth` steps up to each; of fewer where there are few losses."""
    width = max(1, min(smooth, len(losses) // 4))
    means = np.convolve(to_numpy(losses), np.ones(width) / width, mode="valid")
    return np.arange(len(means)) + width, means


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
