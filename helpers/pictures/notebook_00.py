"""The pictures of notebook 00: small tables, a graph of numbers, and walks downhill."""

from collections import namedtuple

import matplotlib.pyplot as plt
import numpy as np
import torch

from helpers.checks import check_whole
from helpers.pictures.structure import arrow, box, canvas, frame, numbers, text
from helpers.pictures.style import BLUE, COLOURS, GREEN, GREY, ORANGE, WIDTH, figure_title, tint, to_numpy

# ---------------------------------------------------------------- tables

Table = namedtuple("Table", "name shape numbers colour")  # colour: a function of (row, column)
STRONG, PALE = 0.55, 0.12  # how much of a colour a cell has


def shape_of(tensor):
    """A shape as it is written: (3, 4)."""
    return str(tuple(tensor.shape))


def plot_row(tables, title, signs=()):
    """Tables side by side, each under its name and a shape, with signs between them -> Figure.

    A tensor with one axis is drawn as one row.
    """
    words = [numbers(torch.atleast_2d(table.numbers).double()) for table in tables]
    columns, gap = sum(len(rows[0]) for rows in words), 0.45
    cell = min(0.45, (WIDTH - 0.3 - gap * (len(tables) - 1)) / columns)
    height = 0.26 * max(map(len, words))
    fig, ax = canvas(0.75 + height, title)
    left = (WIDTH - cell * columns - gap * (len(tables) - 1)) / 2
    for i, (table, rows) in enumerate(zip(tables, words)):
        width, top = cell * len(rows[0]), 0.55 + (height - 0.26 * len(rows)) / 2
        text(ax, left + width / 2, top - 0.31, table.name, family="monospace")
        text(ax, left + width / 2, top - 0.13, table.shape)
        draw_cells(ax, left, top, cell, rows, table.colour)
        if i < len(signs):
            text(ax, left + width + gap / 2, 0.55 + height / 2, signs[i], 14)
        left += width + gap
    return fig


def draw_cells(ax, left, top, width, rows, colour):
    """Rows of words in cells, each in its own colour."""
    for i, row in enumerate(rows):
        for j, word in enumerate(row):
            cell = frame(ax, left + (j + 0.5) * width, top + (i + 0.5) * 0.26, width, 0.26, colour(i, j))
            text(ax, cell.x, cell.y, word)


def plot_picks(x, picks, title):
    """What an index picks of x, whose numbers all differ: picks maps its code to the result -> Figure."""

    def colour_in(picked):
        found = torch.isin(x, picked.contiguous())
        return lambda i, j: tint(ORANGE, STRONG) if found[i, j] else tint(GREY, PALE)

    tables = [Table(name, shape_of(picked), x, colour_in(picked)) for name, picked in picks.items()]
    return plot_row(tables, title)


def plot_tables(tables, title):
    """Tables that hold 0, 1, 2, ... -> Figure. Equal colours: numbers in one row of the first of them."""
    columns = next(iter(tables.values())).shape[1]

    def colour_in(table):
        return lambda i, j: tint(COLOURS[int(table[i, j]) // columns % len(COLOURS)], 0.4)

    return plot_row([Table(name, shape_of(t), t, colour_in(t)) for name, t in tables.items()], title)


def plot_product(left, right, row, column):
    """A matrix product, with the row and the column that make one entry of it -> Figure."""
    terms = [f"{x:g} · {y:g}" for x, y in zip(left[row].tolist(), right[:, column].tolist())]
    whole = left @ right
    title = f"Entry [{row}, {column}]: {' + '.join(terms)} = {whole[row, column].item():g}"
    strong, pale = tint(ORANGE, STRONG), tint(GREY, PALE)
    tables = [
        Table("left", shape_of(left), left, lambda i, j: strong if i == row else pale),
        Table("right", shape_of(right), right, lambda i, j: strong if j == column else pale),
        Table("left @ right", shape_of(whole), whole,
              lambda i, j: strong if (i, j) == (row, column) else pale),
    ]  # fmt: skip
    return plot_row(tables, title, "@=")


def plot_sum(left, right):
    """left + right, of one or two axes each, with the copies that broadcasting makes in pale -> Figure."""
    shapes = f"{shape_of(left)} and {shape_of(right)}"
    try:
        shape = torch.broadcast_shapes(left.shape, right.shape)
    except RuntimeError:
        tables = stretched("left", left, left.shape, BLUE), stretched("right", right, right.shape, ORANGE)
        return plot_row(tables, f"{shapes} do not fit: along one axis they differ, and neither has 1")
    whole = left + right
    title = f"{shapes} make {shape_of(whole)}"
    if min(left.numel(), right.numel()) < whole.numel():
        title += ": the pale cells are copies"
    tables = [
        stretched("left", left, shape, BLUE),
        stretched("right", right, shape, ORANGE),
        Table("left + right", shape_of(whole), whole, lambda i, j: tint(GREEN)),
    ]
    return plot_row(tables, title, "+=")


def stretched(name, tensor, shape, colour):
    """The Table of a tensor expanded to shape: strong where its own cells are, pale in the copies."""
    own = torch.zeros(shape)
    padded = (1,) * (len(shape) - tensor.dim()) + tensor.shape
    own[tuple(slice(size) for size in padded)] = 1
    own = torch.atleast_2d(own)

    def paint(i, j):
        return tint(colour, STRONG if own[i, j] else PALE)

    return Table(name, shape_of(tensor), tensor.expand(shape), paint)


def draw_broadcast(rows_left, columns_left, rows_right, columns_right):
    """The sum of two tables of these sizes, or that there is none -> Figure. Sizes are 1 to 4."""
    sizes = dict(
        rows_left=rows_left, columns_left=columns_left, rows_right=rows_right, columns_right=columns_right
    )
    for name, size in sizes.items():
        check_whole(name, size, most=4)
    left = 10 * torch.arange(1, rows_left * columns_left + 1).view(rows_left, columns_left)
    right = torch.arange(1, rows_right * columns_right + 1).view(rows_right, columns_right)
    return plot_sum(left, right)


# ---------------------------------------------------------------- the graph of a computation


def plot_graph(names, title):
    """What the last of the named numbers was made of, and every slope -> Figure.

    names maps a name to an object with .number, .grad, .parts and .slopes. It holds all numbers that
    the last is made of, parts before wholes, as they were computed.
    """
    values = list(names.values())
    depth = dict.fromkeys(values, 0)  # of the longest way to the last number
    for value in reversed(values):
        for part in value.parts:
            depth[part] = max(depth[part], depth[value] + 1)
    columns = [[v for v in values if depth[v] == d] for d in range(max(depth.values()), -1, -1)]
    step, rows = WIDTH / len(columns), max(map(len, columns))
    fig, ax = canvas(0.2 + 0.95 * rows, title)
    made, name_of = {}, {value: name for name, value in names.items()}
    for c, column in enumerate(columns):
        for r, value in enumerate(column):
            y = 0.1 + 0.95 * rows * (r + 0.5) / len(column)
            note = f"{value.number:g}   grad {value.grad:g}".replace("-", "−")
            colour = tint(GREEN if not value.parts else BLUE, 0.3)
            made[value] = box(ax, (c + 0.5) * step, y, step - 0.5, 0.5, name_of[value], note, colour)
    for value in values:
        for k, (part, slope) in enumerate(zip(value.parts, value.slopes)):
            shift = 0.26 * (k - 0.5) if len(set(value.parts)) < len(value.parts) else 0  # side by side
            a, b = made[part], made[value]
            arrow(ax, (a.right, a.y + shift), (b.left, b.y + shift))
            where = (a.right + b.left) / 2, (a.y + b.y) / 2 + shift
            text(ax, *where, f"×{slope:g}".replace("-", "−"), color=COLOURS[3], zorder=4,
                 bbox=dict(fc="white", ec="none", pad=0.5))  # fmt: skip
    return fig


# ---------------------------------------------------------------- downhill


def plot_descent(paths, steepness, title):
    """Walks over the valley sum(steepness * w**2) / 2, seen from above, to scale -> Figure.

    paths maps a name to the points (steps + 1, 2) that were visited; steepness has two numbers.
    """
    height = 0.9 + min(2.8, 4.3 / len(paths))
    fig, axes = plt.subplots(1, len(paths), figsize=(WIDTH, height), squeeze=False, sharey=True)
    x, y = np.meshgrid(np.linspace(-4.6, 4.6, 120), np.linspace(-3, 3, 80))
    hill = (steepness[0] * x**2 + steepness[1] * y**2) / 2
    levels = 0.5 * np.arange(1, 10) ** 2
    for ax, (name, points) in zip(axes[0], paths.items()):
        points = to_numpy(points)
        ax.contour(x, y, hill, levels=levels, colors=[tint(GREY, 0.5)], linewidths=0.8)
        draw_walk(ax, points)
        end = (points[-1] ** 2 * to_numpy(steepness)).sum() / 2
        ax.set_title(f"{name}: last loss {end:.2g}", fontsize=9)
        ax.set(xlim=(-4.6, 4.6), ylim=(-3, 3), aspect="equal", xlabel="w[0]")
    axes[0, 0].set_ylabel("w[1]")
    axes[0, 0].legend(fontsize=8, loc="upper left", ncols=2)
    figure_title(fig, title)
    return fig


def draw_walk(ax, points):
    """Points joined by lines, the first and the last marked."""
    ax.plot(*points.T, "o-", color=BLUE, ms=3, lw=1)
    ax.plot(*points[0], "s", color=GREEN, ms=8, label="start")
    ax.plot(*points[-1], "*", color=ORANGE, ms=13, label="end")
