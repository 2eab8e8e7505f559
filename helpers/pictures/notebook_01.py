"""The pictures of notebook 01: characters as coloured tiles, in pieces, windows and batches."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from helpers.checks import check_whole
from helpers.data import get_batch
from helpers.pictures.shared import draw_letters
from helpers.pictures.style import BLUE, COLOURS, GREEN, GREY, ORANGE, PURPLE, WIDTH, tint, visible


def draw_tiles(ax, rows, fontsize=10, gap=1.2):
    """Characters as coloured tiles. rows: lists of (character, colour); None leaves a tile empty."""
    width = max(map(len, rows))
    face = np.ones((len(rows), width, 3))
    characters, centres = [], []
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile is not None:
                face[i, j] = plt.matplotlib.colors.to_rgb(tile[1])
                characters.append(visible(tile[0]))
                centres.append((j, i))
    edges = dict(edgecolors="white", linewidth=gap) if gap else {}
    ax.pcolormesh(np.arange(width + 1) - 0.5, np.arange(len(rows) + 1) - 0.5, face, **edges)
    draw_letters(ax, characters, centres, ax.transData, fontsize)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def plot_pieces(cuts, title, columns=60):
    """A text cut into pieces, by several tokenizers: cuts maps a name to the list of pieces (strings).

    Neighbouring pieces differ in colour. All cuts must be of the same text.
    """
    palette = [tint(colour, 0.45) for colour in (BLUE, ORANGE, GREEN, PURPLE)]
    rows, ticks = [], {}
    for name, pieces in cuts.items():
        tiles = [(c, palette[i % 4]) for i, piece in enumerate(pieces) for c in piece]
        ticks[len(rows)] = f"{name}\n{len(pieces)} tokens"
        rows += [tiles[k : k + columns] for k in range(0, len(tiles), columns)] or [[None]]
    fig, ax = plt.subplots(figsize=(WIDTH, 0.36 * len(rows) + 0.4))
    draw_tiles(ax, rows, gap=0)
    ax.hlines(np.arange(len(rows) + 1) - 0.5, -0.5, max(map(len, rows)) - 0.5, color="white", lw=6)
    ax.set_xlim(-0.5, max(columns, *map(len, rows)) - 0.5)
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    ax.set_xticks([])
    ax.set(title=title)
    return fig


def plot_leak(text, start, block_size, is_train, title):
    """The validation window of text at start (orange), and the training windows that share its characters.

    is_train tells of each window, by where it starts, whether the split put it on the training side.
    """
    # A slice of the text would take any start, and show another window.
    check_whole("start", start, least=0, most=min(len(text) - block_size, len(is_train) - 1))
    first, last = max(start - block_size + 1, 0), min(start + block_size - 1, len(is_train) - 1)
    others = [s for s in range(first, last + 1) if s != start]
    orange, blue, pale = tint(ORANGE, 0.8), tint(BLUE, 0.5), tint(GREY, 0.15)
    rows = [[None] * (start - first) + [(c, orange) for c in text[start : start + block_size]]]
    for s in others:
        window = text[s : s + block_size]
        inside = [is_train[s] and 0 <= s + k - start < block_size for k in range(block_size)]
        shared = [blue if both else pale for both in inside]
        rows.append([None] * (s - first) + list(zip(window, shared)))
    fig, ax = plt.subplots(figsize=(WIDTH, 0.24 * len(rows) + 0.9))
    draw_tiles(ax, rows, fontsize=9)
    names = [f"{'training' if is_train[s] else 'validation'}, from {s:,}" for s in others]
    ax.set_yticks(range(len(rows)), [f"this validation window, from {start:,}", *names], fontsize=8)
    ax.set_xticks([])
    ax.set(title=title, xlabel="blue: validation characters that a training window also holds")
    return fig


def plot_examples(x, y, title):
    """The T examples of one block: row t is the context x[: t + 1] and its target y[t]; both are strings."""
    fig, ax = plt.subplots(figsize=(min(0.35 * len(x) + 2.2, WIDTH), 0.27 * len(x) + 0.9))
    blue, orange = tint(BLUE), tint(ORANGE, 0.8)
    rows = [[(c, blue) for c in x[: t + 1]] + [(y[t], orange)] for t in range(len(x))]
    draw_tiles(ax, rows)
    ax.set_yticks(range(len(x)), [f"t = {t}" for t in range(len(x))])
    ax.set_xticks([])
    ax.set(title=title, xlabel="blue: the context     orange: the target")
    return fig


def draw_batch(ids, tokenizer, block_size, batch_size, seed=0):
    """A batch as the model gets it: x and y (B, T) as characters, and where in the text they lie.

    One colour a row. The last target of each row is strong: the only character that x does not hold.
    Raises ValueError for a block_size that does not fit into ids (N,).
    """
    check_whole("block_size", block_size)
    check_whole("batch_size", batch_size)
    x, y = get_batch(ids, block_size, batch_size, torch.Generator().manual_seed(seed))
    # The same seed draws the same offsets again.
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(ids) - block_size, (batch_size,), generator=generator)
    fig = plt.figure(figsize=(WIDTH, 0.3 * batch_size + 1.45), layout="none")
    high = fig.get_figheight()
    strip = fig.add_axes([0.06, 1 - 0.48 / high, 0.92, 0.16 / high])
    draw_offsets(strip, starts.tolist(), len(ids))
    strip.set_title(f"{batch_size} windows of {block_size} characters, drawn from the training text")
    weak = [0.35] * block_size
    for left, name, part, strengths in (
        (0.06, "x: what the model sees", x, weak),
        (0.54, "y: what comes next", y, [*weak[:-1], 0.75]),
    ):
        ax = fig.add_axes([left, 0.32 / high, 0.44, 0.3 * batch_size / high])
        draw_rows(ax, [tokenizer.decode(row) for row in part.tolist()], strengths)
        ax.set_title(f"{name}   ({batch_size}, {block_size})", fontsize=10)
    return fig


def draw_offsets(ax, starts, length):
    """A text of that length as a strip, and a stroke where each window starts, in the colour of its row."""
    ax.axvspan(0, length, color=tint(GREY, 0.2))
    for b, start in enumerate(starts):
        ax.axvline(start, color=COLOURS[b % 6], lw=3)
    ax.set(xlim=(0, length), yticks=[], xticks=[0, length])
    ax.set_xticklabels(["character 0", f"{length:,}"], fontsize=8)
    for label, side in zip(ax.get_xticklabels(), ("left", "right")):
        label.set_ha(side)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def draw_rows(ax, texts, strengths):
    """B texts of T characters as tiles: one colour a row, and how strong it is at each position."""
    B, T = len(texts), len(strengths)
    rows = [
        [(c, tint(COLOURS[b % 6], strength)) for c, strength in zip(text, strengths)]
        for b, text in enumerate(texts)
    ]
    draw_tiles(ax, rows, fontsize=min(11, 170 / T))
    ends = sorted({0, T - 1})
    ax.set(yticks=range(B), xticks=ends)
    ax.set_yticklabels(range(B), fontsize=8)
    ax.set_xticklabels([f"t = {t}" for t in ends], fontsize=8)
