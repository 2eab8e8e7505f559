"""The pictures of notebook 08: how text is cut, what every piece costs, and what longer tokens buy."""

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from torch.nn import functional as F

from helpers.checks import check_kind, check_whole
from helpers.pictures.style import BLUE, COLOURS, GREY, ORANGE, WIDTH, figure_title, in_title, tint, visible
from helpers.tokenizer import BytePairTokenizer

LINE = 76  # letters on a line of a picture
LONGEST = 160  # letters of a text that a panel draws


def letters_of(raw):
    """A piece as a picture writes it: as text, or as hexadecimal numbers if it is a part of a character."""
    try:
        return in_title(visible(raw.decode("utf-8")))
    except UnicodeDecodeError:
        return raw.hex()


def pieces_of(tokenizer, text):
    """The pieces of a text, bytes, in their order."""
    ids = tokenizer.encode(text).tolist()
    if isinstance(tokenizer, BytePairTokenizer):
        return [tokenizer.pieces[i] for i in ids]
    return [tokenizer.chars[i].encode("utf-8", "surrogatepass") for i in ids]


def check_text_fits(text):
    """Raise ValueError unless a panel can draw the text."""
    check_kind("text", text, str, "a text")
    if not 1 <= len(text) <= LONGEST:
        raise ValueError(f"The text has {len(text)} characters: give 1 to {LONGEST} of them.")


def places_of(pieces):
    """(column, line) of each of several pieces (str): they follow one another, as words on a page do."""
    places, x, line = [], 0, 0
    for piece in pieces:
        if x and x + len(piece) > LINE:
            x, line = 0, line + 1
        places.append((x, line))
        x += len(piece)
    return places


def lines_for(rows):
    """How many lines the longest of several lists of pieces (str) takes."""
    return max(places_of(pieces)[-1][1] for pieces in rows) + 1


def draw_cut(ax, pieces, colours, lines):
    """Pieces (str) as coloured boxes on ax, which has room for so many lines; its frame goes."""
    for piece, colour, (x, line) in zip(pieces, colours, places_of(pieces)):
        box = Rectangle((x, line), len(piece), 0.82, facecolor=colour, edgecolor="white", lw=1.5)
        ax.add_patch(box)
        middle = x + len(piece) / 2
        ax.text(middle, line + 0.44, piece, ha="center", va="center", family="monospace", fontsize=8)
    ax.set(xlim=(0, LINE), ylim=(lines, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_merges(merges, text, tokenizer):
    """The text as the first `merges` merges of a byte-pair tokenizer cut it -> Figure."""
    check_whole("merges", merges, least=0, most=len(tokenizer.merges))
    check_text_fits(text)
    pieces = list(map(letters_of, pieces_of(BytePairTokenizer(tokenizer.merges[:merges]), text)))
    lines = lines_for([pieces])
    fig, ax = plt.subplots(figsize=(WIDTH, 0.8 + 0.28 * lines))
    draw_cut(ax, pieces, [tint(COLOURS[i % 6]) for i in range(len(pieces))], lines)
    ax.set_title(f"{merges:,} merges: {len(text)} characters in {len(pieces)} pieces")
    ax.set_xlabel(f"{len(text) / len(pieces):.2f} characters a piece")
    return fig


# ---------------------------------------------------------------- what every piece costs


@torch.no_grad()
def bits_of(model, tokenizer, text, start="\n"):
    """Bits (N,) that a GPT spends on each token of a text, after `start` and what it sees before."""
    ids = torch.cat([tokenizer.encode(start)[-1:], tokenizer.encode(text)])  # (1 + N,)
    ids, T = ids.to(next(model.parameters()).device), model.config.block_size
    model.eval()
    logits = model(ids[None, :-1][:, :T])[0][0]  # (at most T, V)
    if len(ids) - 1 > T:  # from there on the window moves by one token at a time
        windows = ids[:-1].unfold(0, T, 1)[1:]  # (N - T, T)
        logits = torch.cat([logits, model(windows)[0][:, -1]])
    return F.cross_entropy(logits.float(), ids[1:], reduction="none").cpu() / math.log(2)


def draw_costs(text, models, start="\n"):
    """A text cut by each tokenizer, every piece as red as the bits spent on it -> Figure.

    models: a dict from a name to (model, tokenizer). start: one character, after which the text begins.
    """
    check_text_fits(text)
    rows = [list(map(letters_of, pieces_of(tokenizer, text))) for _, tokenizer in models.values()]
    lines = lines_for(rows)
    size = WIDTH, 0.7 + len(models) * (0.3 + 0.28 * lines)
    fig, axes = plt.subplots(len(models), 1, figsize=size, squeeze=False)
    colours = plt.get_cmap("Reds")
    totals = {}
    for ax, pieces, (name, (model, tokenizer)) in zip(axes[:, 0], rows, models.items()):
        bits = bits_of(model, tokenizer, text, start)
        totals[name] = bits.sum().item()
        draw_cut(ax, pieces, [colours(0.75 * min(b / 16, 1)) for b in bits.tolist()], lines)
        ax.set_title(f"{name}: {len(bits)} tokens, {totals[name]:.0f} bits", fontsize=9)
    axes[-1, 0].set_xlabel("the darker a piece, the more bits: white 0, darkest 16 and more")
    best = min(totals, key=totals.get)
    figure_title(fig, f"Cheapest on this line: {best}, {totals[best] / len(text):.2f} bits per character")
    return fig


# ---------------------------------------------------------------- what longer tokens buy


def plot_bits(rows, live=None):
    """Bits per character against the size of the vocabulary, with the spread over the seeds -> Figure.

    rows: those of a record of program/tokens.py; the title names the best. live: a dict from a vocabulary's
    size to bits measured now.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 3.2))
    for budget, colour in (("equal compute", BLUE), ("equal parameters", ORANGE)):
        shown = [row for row in rows if row["budget"] == budget or row["name"] == "characters"]
        means = list(map(mean_bits, shown))
        points = [[point["bits_per_character"] for point in row["seeds"]] for row in shown]
        below = [mean - min(seeds) for mean, seeds in zip(means, points)]
        above = [max(seeds) - mean for mean, seeds in zip(means, points)]
        sizes = [row["vocab_size"] for row in shown]
        ax.errorbar(sizes, means, [below, above], marker="o", capsize=4, color=colour, label=budget)
    if live:
        ax.plot(list(live), list(live.values()), "x", color=GREY, markersize=9, label="measured here")
    sizes = sorted({row["vocab_size"] for row in rows})
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.set_xticks([], minor=True)
    best = min(rows, key=mean_bits)
    title = f"Fewest bits per character, {mean_bits(best):.2f}: {best['name']}, {best['budget']}"
    ax.set(title=title, xlabel="vocabulary (the smallest: characters)", ylabel="bits per character")
    ax.legend()
    return fig


def mean_bits(row):
    """The bits per character of a row of a record, the mean of its seeds."""
    return sum(point["bits_per_character"] for point in row["seeds"]) / len(row["seeds"])
