"""The pictures of the course. Every plot_ function makes a Figure; show it with plt.show().

The title states the finding, so the caller gives it. Colours are Okabe and Ito's, which differ for
every common form of colour vision; a heat map's colours differ in lightness too.
"""

import functools
import io
import textwrap
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, ScaledTranslation

from helpers.checks import check_kind, check_number, check_whole, shown

COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#777777"]
BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY = COLOURS
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
    check_kind("fig", fig, Figure, "a Figure, such as a plot_ function returns")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=100)
    plt.close(fig)
    return buffer.getvalue()


def visible(token):
    """A token as it can be read on an axis: spaces and line breaks get a sign."""
    check_kind("token", token, str, "a text of one token")
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def _numpy(values):
    return values.detach().float().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)


def numbers_of(name, values, *shape):
    """values as an array. Raises ValueError unless they are numbers of that shape; None: any length but 0."""
    try:
        array = _numpy(values)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    same = all(n == wanted or (wanted is None and n) for n, wanted in zip(array.shape, shape))
    if array.dtype.kind not in "biuf" or array.ndim != len(shape) or not same:
        wanted = " by ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}={shown(values)} must be numbers, {wanted}: one for each thing to draw.")
    return array


def check_dict(name, value):
    """Raise ValueError unless value is a dict that holds something to draw."""
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f'{name}={shown(value)} must be a dict of one or more entries: give {{"name": ...}}.'
        )


def check_list(name, value, length=None):
    """Raise ValueError unless value is a str, list, tuple or row that is not empty, and of that length."""
    row = torch.is_tensor(value) and value.dim() == 1
    listed = (row or isinstance(value, str | list | tuple)) and len(value) > 0
    if not listed or (length is not None and len(value) != length):
        wanted = (
            "of one or more entries" if length is None else f"of length {length}, one for each thing drawn"
        )
        raise ValueError(f"{name}={shown(value)} must be a list {wanted}.")


def check_maps(maps):
    """Raise ValueError unless maps is a list with a tensor (B, H, T, T) a layer."""
    check_list("maps", maps)
    for layer in maps:
        if not torch.is_tensor(layer) or layer.dim() != 4 or layer.shape[2] != layer.shape[3]:
            raise ValueError(f"maps holds {shown(layer)}, not (B, H, T, T): take them from attention_maps.")


def plot_bars(labels, values, title, ylabel, colour=BLUE, height=2.6, highlight=()):
    """One bar a label. Labels in `highlight` are drawn in orange."""
    values = numbers_of("values", values, len(labels))
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    colours = [ORANGE if label in highlight else colour for label in labels]
    ax.bar(range(len(labels)), values, color=colours)
    ax.set_xticks(range(len(labels)), [visible(label) for label in labels])
    ax.set(title=title, ylabel=ylabel)
    ax.margins(x=0.01)
    return fig


def plot_gains(rows, title):
    """How many times better the course is than a plain program: rows as in data/runs/bench-*.json.

    Losses are left out; of times and memory less is better, so their ratio is turned over.
    """
    check_list("rows", rows)
    if not all(isinstance(row, dict) and {"what", "unit", "ratio"} <= row.keys() for row in rows):
        raise ValueError(f"rows={shown(rows)} must be dicts of what, unit and ratio, as in a bench record.")
    gains = {}
    for row in rows:
        if row["ratio"] and row["unit"] != "nats":
            gains[row["what"]] = 1 / row["ratio"] if row["unit"] in ("s", "MiB") else row["ratio"]
    labels = sorted(gains, key=gains.get)
    size = WIDTH, 0.4 * len(labels) + 0.9
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    bars = ax.barh(range(len(labels)), [gains[label] for label in labels], color=BLUE)
    ax.bar_label(bars, fmt="%.3gx", padding=3)
    ax.axvline(1, color=GREY, linestyle="--")
    ax.set_xscale("log")
    ax.set_yticks(range(len(labels)), [textwrap.fill(label, 34) for label in labels], fontsize=8)
    ax.set(xlabel="times as good as the plain program (logarithmic; 1 = no gain)")
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    ax.margins(x=0.15)
    return fig


def plot_matrix(
    matrix, title, xlabel="", ylabel="", xticks=None, yticks=None, annotate=False, size=4.0, label="", ax=None
):
    """A heat map of a matrix, row 0 on top. Ticks are tokens; annotate writes each value in its cell."""
    matrix = numbers_of("matrix", matrix, None, None)
    for name, ticks, n in (("xticks", xticks, matrix.shape[1]), ("yticks", yticks, matrix.shape[0])):
        if ticks is not None:
            check_list(name, ticks, n)
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
    check_list("tokens", tokens)
    weights = numbers_of("weights", weights, len(tokens), len(tokens))
    fig, ax = plt.subplots(figsize=(size * 1.15, size))
    draw_attention(ax, weights, tokens)
    ax.set(title=title, xlabel="key: the character looked at", ylabel="query: the character that looks")
    fig.colorbar(ax.images[0], ax=ax, label="attention weight", shrink=0.8)
    return fig


def plot_attention_grid(maps, tokens, title, cell=1.9):
    """All heads of a model: maps is a list, one (1, H, T, T) a layer. Heads across, layers down."""
    check_maps(maps)
    check_list("tokens", tokens, maps[0].shape[2])
    n_layer, n_head = len(maps), maps[0].shape[1]
    cell = min(cell, 11 / n_head)
    fig, axes = plt.subplots(
        n_layer, n_head, figsize=(cell * n_head + 0.4, cell * n_layer + 0.5), squeeze=False
    )
    for i, layer in enumerate(maps):
        for h in range(n_head):
            ax = axes[i, h]
            draw_attention(ax, _numpy(layer[0, h]), tokens, fontsize=5 if len(tokens) > 16 else 7)
            ax.set_title(f"layer {i}, head {h}", fontsize=8, loc="center")
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    return fig


def draw_attention(ax, weights, tokens, fontsize=8):
    """Draw attention weights (T, T) on ax: row t is the token that looks, columns those looked at."""
    # The square root lifts the many small weights to where the eye can tell them apart.
    norm = plt.matplotlib.colors.PowerNorm(0.5, vmin=0, vmax=1)
    ax.imshow(weights, norm=norm, interpolation="nearest")
    label_axis(ax, "x", tokens, fontsize)
    label_axis(ax, "y", tokens, fontsize)
    ax.spines[:].set_visible(False)


def label_axis(ax, side, tokens, fontsize=10):
    """Write tokens at 0, 1, 2, ... along an axis, side "x" or "y"."""
    axis, labels = getattr(ax, f"{side}axis"), [visible(t) for t in tokens]
    ax.tick_params(axis=side, length=0, pad=1)
    if any(len(label) != 1 for label in labels):
        axis.set_ticks(range(len(labels)), labels, fontsize=fontsize, family="monospace")
        return
    axis.set_ticks([0], [" "], fontsize=fontsize, family="monospace")  # keeps the place for the letters
    away = -(0.6 * fontsize + 1) / 72  # inches from the axis to the middle of a letter
    if side == "x":
        places, along = [(i, 0) for i in range(len(labels))], ax.get_xaxis_transform()
        shift = ScaledTranslation(0, away, ax.figure.dpi_scale_trans)
    else:
        places, along = [(0, i) for i in range(len(labels))], ax.get_yaxis_transform()
        shift = ScaledTranslation(away, 0, ax.figure.dpi_scale_trans)
    draw_letters(ax, labels, places, along + shift, fontsize)


def draw_letters(ax, characters, places, transform, fontsize):
    """Characters in the middle of places, given in the coordinates of transform.

    One collection of outlines is drawn several times faster than a text object for each character.
    """
    letters = PathCollection(
        [_glyph(c) for c in characters],
        offsets=places or [(0, 0)],
        offset_transform=transform,
        color="black",
        lw=0,
        snap=False,
        clip_on=False,
    )
    letters.set_transform(Affine2D().scale(fontsize) + ax.figure.dpi_scale_trans.frozen().scale(1 / 72))
    ax.add_collection(letters, autolim=False)


def plot_losses(curves, title, smooth=20, height=3.0, reference=None):
    """Training losses step by step: curves maps a label to a list of losses in nats.

    Each point is the mean of `smooth` steps. reference maps labels to losses drawn as dashed lines.
    """
    check_dict("curves", curves)
    check_whole("smooth", smooth)
    curves = {label: numbers_of(f"curves[{label!r}]", losses, None) for label, losses in curves.items()}
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    for label, losses in curves.items():
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
    check_list("evals", evals)
    if not all(isinstance(point, dict) and {"step", "train", "val"} <= point.keys() for point in evals):
        raise ValueError(f"evals={shown(evals)} must be dicts of step, train and val, as in History.evals.")
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
    check_dict("rungs", rungs)
    for name, loss in rungs.items():
        check_number(f"rungs[{name!r}]", loss)
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.32 * len(rungs)))
    names, losses = list(rungs), list(rungs.values())
    bars = ax.barh(names, losses, color=[ORANGE if n == highlight else BLUE for n in names], height=0.7)
    ax.bar_label(bars, [f" {loss:.2f}" for loss in losses])
    ax.invert_yaxis()
    ax.set(title=title, xlabel="validation loss (nats per character; shorter is better)")
    ax.margins(x=0.1)
    return fig


# --- notebook 01


def tint(colour, strength=0.35):
    """A colour mixed with white: light enough to write on in black."""
    rgb = np.array(plt.matplotlib.colors.to_rgb(colour))
    return tuple(1 - strength * (1 - rgb))


@functools.lru_cache(maxsize=1024)
def _glyph(character):
    """The outline of a character, centred, at 1 point to the em."""
    path = TextPath((0, 0), character, size=1, prop=FontProperties(family="monospace"))
    return plt.matplotlib.path.Path(path.vertices - (0.3, 0.3), path.codes)


def draw_tiles(ax, rows, fontsize=10, gap=1.2):
    """Characters as coloured tiles. rows: lists of (character, colour); None leaves a tile empty."""
    width = max(map(len, rows))
    face = np.ones((len(rows), width, 3))
    characters, places = [], []
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile is not None:
                face[i, j] = plt.matplotlib.colors.to_rgb(tile[1])
                characters.append(visible(tile[0]))
                places.append((j, i))
    edges = dict(edgecolors="white", linewidth=gap) if gap else {}
    ax.pcolormesh(np.arange(width + 1) - 0.5, np.arange(len(rows) + 1) - 0.5, face, **edges)
    draw_letters(ax, characters, places, ax.transData, fontsize)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def plot_examples(x, y, title):
    """The T examples of one block: row t is the context x[: t + 1] and its target y[t]; both are strings."""
    check_list("x", x)
    check_list("y", y, len(x))
    fig, ax = plt.subplots(figsize=(min(0.35 * len(x) + 2.2, WIDTH), 0.27 * len(x) + 0.9))
    blue, orange = tint(BLUE), tint(ORANGE, 0.8)
    rows = [[(c, blue) for c in x[: t + 1]] + [(y[t], orange)] for t in range(len(x))]
    draw_tiles(ax, rows)
    ax.set_yticks(range(len(x)), [f"t = {t}" for t in range(len(x))])
    ax.set_xticks([])
    ax.set(title=title, xlabel="blue: the context     orange: the target")
    return fig


def plot_pieces(cuts, title, columns=60):
    """A text cut into pieces, by several tokenizers: cuts maps a name to the list of pieces (strings).

    Neighbouring pieces differ in colour. All cuts must be of the same text.
    """
    check_dict("cuts", cuts)
    for name, pieces in cuts.items():
        check_kind(f"cuts[{name!r}]", pieces, list | tuple, "a list of texts")
    check_whole("columns", columns)
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
    check_list("text", text)
    check_whole("block_size", block_size, most=len(text))
    check_list("is_train", is_train)
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


# --- notebook 03


def plot_attention_row(maps, tokens, names, title, cell=1.85):
    """Attention maps (T, T) over the same tokens side by side, each under its name."""
    check_list("tokens", tokens)
    maps = [numbers_of("A map", weights, len(tokens), len(tokens)) for weights in maps]
    check_list("names", names, len(maps))
    fig, axes = plt.subplots(1, len(maps), figsize=(WIDTH, cell + 0.75), squeeze=False)
    for ax, weights, name in zip(axes[0], maps, names):
        draw_attention(ax, weights, tokens, fontsize=7)
        ax.set_title(name, fontsize=9, loc="center")
    axes[0, 0].set_ylabel("query")
    fig.supxlabel("key: the character looked at", fontsize=9)
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    return fig


def plot_against_head_size(sizes, measures, title, log=(), height=3.1):
    """One axis a measure: measures maps its name to {scaling: one value per head size}; log: log axes."""
    check_dict("measures", measures)
    for name, curves in measures.items():
        check_dict(f"measures[{name!r}]", curves)
        for label, values in curves.items():
            numbers_of(f"measures[{name!r}][{label!r}]", values, len(sizes))
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
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    return fig


# --- notebook 02


def plot_bigram_tables(tables, chars, title, label, logarithmic=False):
    """Tables (V, V) of pairs, in two columns: tables maps a heading to a matrix.

    Row: the character now; column: the next one. A table on its own is large, with its characters as ticks.
    logarithmic suits counts, and leaves zeros white; otherwise the values are probabilities on a square-root
    scale from 0 to 1, and those below 0.001 stay white.
    """
    check_dict("tables", tables)
    check_list("chars", chars)
    V = len(chars)
    tables = {heading: numbers_of(f"tables[{heading!r}]", table, V, V) for heading, table in tables.items()}
    single = len(tables) == 1
    n_rows = -(-len(tables) // 2)
    fig, axes = plt.subplots(
        n_rows,
        1 if single else 2,
        figsize=(WIDTH, 8.0 if single else 3.4 * n_rows + 0.4),
        squeeze=False,
        layout="constrained",
    )
    if logarithmic:
        highest = max(2, *(table.max() for table in tables.values()))
        norm = plt.matplotlib.colors.LogNorm(vmin=1, vmax=highest)
    else:
        norm = plt.matplotlib.colors.PowerNorm(0.5, vmin=0, vmax=1)
    for ax in axes.flat[len(tables) :]:
        ax.remove()
    for ax, (heading, table) in zip(axes.flat, tables.items()):
        white = np.ma.masked_less(table, 1 if logarithmic else 0.001)
        ax.imshow(white, norm=norm, interpolation="nearest", cmap="viridis_r")
        ax.set_title(heading, fontsize=10)
        ax.set(xticks=[], yticks=[])
        if single and len(chars) <= 120:  # more would be unreadable
            small = dict(fontsize=min(8, 440 / len(chars)), family="monospace")
            ax.set_xticks(range(len(chars)), [visible(c) for c in chars], **small)
            ax.set_yticks(range(len(chars)), [visible(c) for c in chars], **small)
            ax.tick_params(length=0, pad=2)
        if ax is axes[-1, 0] or single:
            ax.set_xlabel("the next character")
            ax.set_ylabel("the character now")
    bar = dict(location="bottom", pad=0.01) if single else {}
    fig.colorbar(axes[0, 0].images[0], ax=axes, label=label, shrink=0.6, aspect=30, **bar)
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    return fig


def plot_next_token(logits, temperature, tokens, title, top=30, height=3.0):
    """The likeliest next tokens for logits (V,) at a temperature; the grey outline is temperature 1.

    The order of the bars and the axis stay the same at every temperature, so that only the shape moves.
    """
    check_number("temperature", temperature, above=0)
    check_whole("top", top)
    logits = numbers_of("logits", logits, len(tokens)).astype(float)
    order = np.argsort(-logits, kind="stable")[:top]

    def softmax(z):
        p = np.exp(z - z.max())
        return p / p.sum()

    fig, ax = plt.subplots(figsize=(WIDTH, height))
    ax.bar(range(len(order)), softmax(logits / temperature)[order], color=BLUE, width=0.8)
    edges = np.arange(len(order) + 1) - 0.5
    ax.stairs(softmax(logits)[order], edges, color=GREY, linewidth=1.2, label="temperature 1")
    label_axis(ax, "x", [tokens[i] for i in order])
    ax.set(title=title, ylim=(0, 1))
    ax.set(ylabel="probability", xlabel=f"the {len(order)} likeliest next characters")
    ax.margins(x=0.01)
    ax.legend(loc="upper right")
    return fig


# --- notebook 05


def plot_functions(functions, title, low=-4.0, high=4.0):
    """Functions of one number: functions maps a label to a map of tensors."""
    check_dict("functions", functions)
    for label, function in functions.items():
        check_kind(f"functions[{label!r}]", function, Callable, "a function from tensor to tensor")
    x = torch.linspace(low, high, 201)
    fig, ax = plt.subplots(figsize=(WIDTH * 0.6, 2.6))
    for (label, function), style in zip(functions.items(), ("-", "--", ":")):
        ax.plot(x, _numpy(function(x)), style, label=label)
    ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    ax.set(title=title, xlabel="before", ylabel="after")
    ax.legend()
    return fig


def plot_by_layer(curves, title, ylabel, logarithmic=True, height=2.9):
    """One value a layer: curves maps a label to a list, layer 0 next to the input."""
    check_dict("curves", curves)
    for label, values in curves.items():
        numbers_of(f"curves[{label!r}]", values, None)
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    for (label, values), marker in zip(curves.items(), "osD^v"):
        ax.plot(range(len(values)), values, marker=marker, ms=5, label=label)
    if logarithmic:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    ax.set(title=title, xlabel="block (0 is next to the input)", ylabel=ylabel)
    ax.set_xticks(range(len(values)))
    ax.legend()
    return fig


def plot_positions(tables, title):
    """Position tables (T, C) above, the cosine of every two positions below: tables maps a name to one."""
    check_dict("tables", tables)
    for name, table in tables.items():
        check_kind(f"tables[{name!r}]", table, torch.Tensor, "a tensor (T, C)")
        numbers_of(f"tables[{name!r}]", table, None, None)
    fig, axes = plt.subplots(2, len(tables), figsize=(WIDTH, 5.6), height_ratios=[1, 1.7], squeeze=False)
    for (top, bottom), (name, table) in zip(axes.T, tables.items()):
        table = table.detach().float()
        unit = table / table.norm(dim=1, keepdim=True)
        top.imshow(_numpy(table), aspect="auto", cmap="viridis", interpolation="nearest")
        top.set(title=f"{name}: the table", xlabel="channel", ylabel="position")
        image = bottom.imshow(_numpy(unit @ unit.T), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        bottom.set(title=f"{name}: how alike two are", xlabel="position", ylabel="position")
    fig.colorbar(image, ax=axes[1, :], label="cosine", shrink=0.8)
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    return fig
