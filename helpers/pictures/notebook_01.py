"""The pictures of notebook 01: characters as bars and as coloured tiles, windows, batches, a look-up."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.patches import Rectangle

from helpers.checks import check_whole
from helpers.data import get_batch
from helpers.pictures import structure
from helpers.pictures.shared import draw_letters
from helpers.pictures.style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    WIDTH,
    code_points,
    in_cell,
    tint,
    visible,
)

# ---------------------------------------------------------------- tiles


def draw_tiles(ax, rows, fontsize=10):
    """Characters as coloured tiles. rows: lists of (character, colour); None leaves a tile empty."""
    width = max(map(len, rows))
    face = np.ones((len(rows), width, 3))
    usual, characters, centres = code_points(findfont(FontProperties(family=["monospace"]))), [], []
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile is None:
                continue
            face[i, j] = plt.matplotlib.colors.to_rgb(tile[1])
            if ord(visible(tile[0])) in usual:
                characters.append(visible(tile[0]))
                centres.append((j, i))
            else:
                words = in_cell(tile[0])  # a number in two lines
                if len(words) > 1:
                    words = f"{words[:-2]}\n{words[-2:]}"
                size = fontsize if len(words) == 1 else 0.55 * fontsize
                ax.text(j, i, words, size=size, ha="center", va="center", linespacing=0.9)
    edges = np.arange(width + 1) - 0.5, np.arange(len(rows) + 1) - 0.5
    ax.pcolormesh(*edges, face, edgecolors="white", linewidth=1.2)
    draw_letters(ax, characters, centres, ax.transData, fontsize)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def plot_leak(text, start, size, is_train, title):
    """The validation window of text at start (orange), and all windows that overlap it, of `size` tiles.

    is_train tells of each window, by where it starts, whether the split put it on the training side.
    """
    # A slice of the text would take any start, and show another window.
    check_whole("start", start, least=0, most=min(len(text) - size, len(is_train) - 1))
    first, last = max(start - size + 1, 0), min(start + size - 1, len(is_train) - 1)
    others = [s for s in range(first, last + 1) if s != start]
    orange, blue, pale = tint(ORANGE, 0.8), tint(BLUE, 0.5), tint(GREY, 0.15)
    rows = [[None] * (start - first) + [(c, orange) for c in text[start : start + size]]]
    for s in others:
        window = text[s : s + size]
        inside = [is_train[s] and 0 <= s + k - start < size for k in range(size)]
        shared = [blue if both else pale for both in inside]
        rows.append([None] * (s - first) + list(zip(window, shared)))
    fig, ax = plt.subplots(figsize=(WIDTH, 0.24 * len(rows) + 0.9))
    draw_tiles(ax, rows, fontsize=9)
    names = [f"{'training' if is_train[s] else 'validation'}, from {s:,}" for s in others]
    ax.set_yticks(range(len(rows)), [f"this validation window, from {start:,}", *names], fontsize=8)
    ax.set_xticks([])
    ax.set(title=title, xlabel="blue: places of the validation window that a training window holds too")
    return fig


def plot_examples(x, y, title):
    """The T questions in one window, from strings x and y: row t is the context x[: t + 1] and y[t]."""
    fig, ax = plt.subplots(figsize=(min(0.35 * len(x) + 2.2, WIDTH), 0.27 * len(x) + 0.9))
    blue, orange = tint(BLUE), tint(ORANGE, 0.8)
    rows = [[(c, blue) for c in x[: t + 1]] + [(y[t], orange)] for t in range(len(x))]
    draw_tiles(ax, rows)
    ax.set_yticks(range(len(x)), [f"t = {t}" for t in range(len(x))])
    ax.set_xticks([])
    ax.set(title=title, xlabel="blue: the context     orange: the target")
    return fig


def draw_batch(x, y, tokenizer):
    """A batch x, y (B, T) of ids, and one of the questions in it -> Figure. Made for B <= 4, T <= 10."""
    return structure.draw_batch(x, y, lambda i: in_cell(tokenizer.chars[i]))


def draw_random_batch(ids, tokenizer, block_size, batch_size, seed=0):
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
    strip.set_title(f"{batch_size} windows of {block_size} + 1 characters, drawn from the training text")
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


# ---------------------------------------------------------------- from ids to vectors


def draw_look_up(one_hot, table, tokens, vocabulary):
    """One-hot rows (T, V) times a table (V, C) is a row of the table for each of T tokens -> Figure."""
    (T, V), C = one_hot.shape, table.shape[1]
    title = "A one-hot row times the table is the row that the 1 points to"
    fig, ax = structure.canvas(0.75 + 0.26 * max(T, V), title)
    middle, cell = 0.4 + 0.13 * max(T, V), min(0.41, 3 / (V + 2 * C))
    rows, names = [in_cell(c) for c in tokens], [in_cell(c) for c in vocabulary]
    parts = (
        (1.85, "one-hot", "T, V", one_hot, GREY, rows, names, 1),
        (4.3, "table", "V, C", table, GREEN, names, (), int(one_hot[1].argmax()) if T > 1 else 0),
        (6.1, "vectors", "T, C", one_hot @ table, GREEN, rows, (), 1),
    )
    for x, name, shape, matrix, colour, labels, columns, asked in parts:
        words = structure.numbers(matrix)
        edges = structure.table(ax, x, middle, name, shape, words, colour, labels, columns, cell)
        width, top = cell * len(words[0]), edges.bottom - 0.1 - 0.26 * (len(words) - min(asked, T - 1))
        ax.add_patch(Rectangle((edges.right - 0.1 - width, top), width, 0.26, fc="none", ec=ORANGE, lw=2.5))
    structure.text(ax, 3.2, middle, "times", structure.NORMAL)
    structure.text(ax, 5.2, middle, "=", structure.NORMAL)
    return fig
