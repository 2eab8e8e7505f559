"""The pictures of notebook 02: tables of pairs, and what may come next."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm, PowerNorm

from helpers.checks import check_number
from helpers.pictures.shared import label_axis
from helpers.pictures.style import BLUE, GREY, WIDTH, figure_title, to_numpy


def plot_bigram_tables(tables, chars, title, label, logarithmic=False):
    """Tables (V, V) of pairs, in two columns: tables maps a heading to a matrix.

    Row: the character now; column: the next one. A table on its own is large, with its characters as ticks.
    logarithmic suits counts, and leaves zeros white; otherwise the values are probabilities on a square-root
    scale from 0 to 1, and those below 0.001 stay white.
    """
    tables = {heading: to_numpy(table) for heading, table in tables.items()}
    single = len(tables) == 1
    n_rows, n_columns = -(-len(tables) // 2), 1 if single else 2
    size = WIDTH, 8.0 if single else 3.4 * n_rows + 0.4
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    norm, white_below = PowerNorm(0.5, vmin=0, vmax=1), 0.001
    if logarithmic:
        highest = max(2, *(table.max() for table in tables.values()))
        norm, white_below = LogNorm(vmin=1, vmax=highest), 1
    for ax in axes.flat[len(tables) :]:
        ax.remove()
    for ax, (heading, table) in zip(axes.flat, tables.items()):
        cells = np.ma.masked_less(table, white_below)
        ax.imshow(cells, norm=norm, interpolation="nearest", cmap="viridis_r")
        ax.set_title(heading, fontsize=10)
        ax.set(xticks=[], yticks=[])
    if single and len(chars) <= 120:  # more would be unreadable
        for side in "xy":
            label_axis(axes[0, 0], side, chars, fontsize=min(8, 440 / len(chars)))
    axes[-1, 0].set(xlabel="the next character", ylabel="the character now")
    bar = dict(location="bottom", pad=0.01) if single else {}
    drawn = list(axes.flat[: len(tables)])
    fig.colorbar(drawn[0].images[0], ax=drawn, label=label, shrink=0.6, aspect=30, **bar)
    figure_title(fig, title)
    return fig


def plot_next_token(logits, temperature, tokens, title, top=30, height=3.0):
    """The likeliest next tokens for logits (V,) at a temperature; the grey outline is temperature 1.

    The order of the bars and the axis stay the same at every temperature, so that only the shape moves.
    Raises ValueError unless the temperature is above 0.
    """
    check_number("temperature", temperature, above=0)  # at 0 there would be no bars, and no word about it
    logits = to_numpy(logits).astype(float)
    order = np.argsort(-logits, kind="stable")[:top]

    def softmax(z):
        p = np.exp(z - z.max())
        return p / p.sum()

    fig, ax = plt.subplots(figsize=(WIDTH, height))
    ax.bar(range(len(order)), softmax(logits / temperature)[order], color=BLUE, width=0.8)
    edges = np.arange(len(order) + 1) - 0.5
    ax.stairs(softmax(logits)[order], edges, color=GREY, linewidth=1.2, label="temperature 1")
    label_axis(ax, "x", [tokens[i] for i in order], fontsize=10)
    ax.set(title=title, ylim=(0, 1))
    ax.set(ylabel="probability", xlabel=f"the {len(order)} likeliest next characters")
    ax.margins(x=0.01)
    ax.legend(loc="upper right")
    return fig
