"""Pictures of the structure: a batch, heads, a block, the GPT, the training loop.

Each is drawn from the code's own shapes and numbers. Orange is what is highlighted or asked for.
"""

from collections import namedtuple
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from matplotlib.path import Path
from torch.nn import functional as F

from helpers.checks import check_choice
from helpers.model import GPT, GPTConfig, count_parameters
from helpers.pictures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, WIDTH, tint, visible

PARTS = {  # what draw_gpt can highlight, and the pale colour that it has otherwise
    "embedding": tint(GREEN), "positions": tint(GREEN), "residual": tint(GREY, 0.5),
    "blocks": tint(GREY, 0.1), "layer norm": tint(SKY), "attention": tint(BLUE),
    "feed-forward": tint(PURPLE), "final layer norm": tint(SKY), "lm_head": tint(GREEN),
}  # fmt: skip
LOOP = ("text", "batch", "model", "loss", "gradients", "step")  # what draw_training can highlight
EXTRAS = ("precision", "clipping", "schedule", "AdamW with decay", "sweep", "best weights")
INK, STREAM = "#333333", 1.45  # the colour of arrows; the x at which the residual stream runs
SMALL, NORMAL, HAIR = 8, 9, 0.72  # points: letters, names, and lines of one pixel, the lightest in a PNG

Edges = namedtuple("Edges", "left right top bottom x y")  # of something drawn; (x, y) is its middle

# ---------------------------------------------------------------- text, boxes, arrows, cells


def canvas(height, title):
    """A figure of WIDTH and its only axes, whose unit is the inch and whose y runs down."""
    above = 0.36  # inches for the title
    fig, ax = plt.subplots(figsize=(WIDTH, height + above))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0), position=[0, 0, 1, height / (height + above)])
    ax.set_axis_off()
    ax.set_title(title, x=0.015)
    return fig, ax


def text(ax, x, y, words, size=SMALL, ha="center", **style):
    """Words whose capitals have their middle at y, on whole pixels: sharp, and light in a PNG."""
    ax.text(x, round(y + 0.36 * size / 72, 2), words, size=size, ha=ha, va="baseline", **style)


def frame(ax, x, y, width, height, colour, part="", **style):
    """A rectangle around (x, y) -> its Edges. Its gid, part, says what it stands for."""
    left, top = x - width / 2, y - height / 2
    ax.add_patch(Rectangle((left, top), width, height, fc=colour, ec=GREY, lw=HAIR, gid=part, **style))
    return Edges(left, left + width, top, top + height, x, y)


def box(ax, x, y, width, height, name, note, colour, part=""):
    """A frame with a name in it, and below the name a note, which may be "" -> its Edges."""
    text(ax, x, y - 0.08 * bool(note), name, NORMAL, weight="bold")
    text(ax, x, y + 0.09, note)
    return frame(ax, x, y, width, height, colour, part or name)


def arrow(ax, *points, colour=INK, lw=1.2, head=11, **style):
    """An arrow along points (x, y), its tip at the last."""
    style |= dict(lw=lw, mutation_scale=head, joinstyle="miter", capstyle="butt")
    ax.add_patch(FancyArrowPatch(path=Path(points), arrowstyle="-|>", fc=colour, ec=colour, **style))


def link(ax, a, b, **style):
    """A straight arrow from one box to another: to the side where both are level, else up or down."""
    if a.y == b.y:
        ends = (a.right, b.left) if a.x < b.x else (a.left, b.right)
        arrow(ax, *[(x, a.y) for x in ends], **style)
    else:
        ends = (a.bottom, b.top) if a.y < b.y else (a.top, b.bottom)
        arrow(ax, *[(b.x, y) for y in ends], **style)


def cells(ax, left, top, rows, width, height, colour="white", gid=None):
    """Rows of words, a word a cell. Each word has the gid."""
    for i, row in enumerate(rows):
        for j, word in enumerate(row):
            cell = frame(ax, left + (j + 0.5) * width, top + (i + 0.5) * height, width, height, colour)
            text(ax, cell.x, cell.y, word, gid=gid)


def table(ax, x, y, name, shape, words, colour, rows=(), columns=(), cell=0.41):
    """Rows of words in cells, with a name, a shape and labels, in a frame around (x, y) -> its Edges.

    The cells end 0.1 inch from the right and the lower edge; one is 0.26 inch high.
    """
    room, above = 0.2 * bool(rows), 0.17 * bool(columns)  # for the labels
    width, height = cell * len(words[0]), 0.26 * len(words)
    edges = frame(ax, x, y, width + room + 0.2, height + above + 0.36, tint(colour, 0.2))
    left, top = edges.right - 0.1 - width, edges.bottom - 0.1 - height
    text(ax, x, edges.top + 0.13, f"{name} ({shape})", weight="bold")
    cells(ax, left, top, words, cell, 0.26, gid=name)
    for i, label in enumerate(rows):
        text(ax, left - 0.1, top + 0.26 * (i + 0.5), visible(str(label)))
    for j, label in enumerate(columns):
        text(ax, left + cell * (j + 0.5), top - 0.09, visible(str(label)))
    return edges


# ---------------------------------------------------------------- the pictures


def draw_batch(x, y, chars):
    """A batch, and one of the questions in it: x (B, T) and y, one character later in the text -> Figure.

    chars: the list of characters, or a function from an id to its character. Made for B <= 4, T <= 10.
    """
    B, T = x.shape
    name = chars if callable(chars) else chars.__getitem__
    x, y = ([[visible(name(i)) for i in row] for row in ids.tolist()] for ids in (x, y))
    fig, ax = canvas(1.95 + 0.26 * B, f"A batch: {B} pieces of a text, and each again one character later")
    cell, t, last = min(0.34, 3 / T), T // 2, B - 1  # asked is what follows position t of the last row
    left = (WIDTH - (T + 1) * cell) / 2
    for rows, what, shift, top, colour in ((x, "x[0]", 0, 0.08, BLUE), (y, "y[0]", cell, 0.42, GREEN)):
        cells(ax, left + shift, top, rows[:1], cell, 0.26, tint(colour, 0.2), what)
        text(ax, left - 0.1, top + 0.13, what, ha="right")
    text(ax, left + (T + 1) * cell + 0.1, 0.55, "one character later", ha="left")
    middle, shape = 1.15 + 0.13 * B, f"B = {B}, T = {T}"
    for rows, what, centre, colour in ((x, "x", 1.9, BLUE), (y, "y", 5.6, GREEN)):
        edges = table(ax, centre, middle, what, shape, rows, colour, range(B), range(T), cell)
        first, asked = (0, t + 1) if what == "x" else (t, 1)  # the columns of the question, or of the answer
        corner = edges.right - 0.1 - (T - first) * cell, edges.bottom - 0.36
        ax.add_patch(Rectangle(corner, asked * cell, 0.26, fc="none", ec=ORANGE, lw=2.5, zorder=3))
    question = f"One of {B} × {T} = {B * T} questions: what comes after x[{last}, 0] … x[{last}, {t}]?"
    text(ax, WIDTH / 2, edges.bottom + 0.2, f"{question} The answer is y[{last}, {t}].")
    return fig


def numbers(matrix):
    """A matrix -> its words: two decimals, and none for a whole number."""
    rows = (matrix.round(decimals=6) + 0.0).tolist()  # + 0.0: no minus zero
    words = [[f"{v:.2f}" if v % 1 > 0 else f"{v:.0f}" for v in row] for row in rows]
    return [[word.replace("inf", "∞").replace("-", "−") for word in row] for row in words]


def draw_head(x, W_q, W_k, W_v, labels):
    """One causal head with all its numbers: x (T, C), each W (C, D), T labels -> Figure.

    Made for T = 3, C = D = 2. The formulas are those of helpers.model.Head, which holds each W transposed.
    """
    q, k, v = x @ W_q, x @ W_k, x @ W_v  # (T, D) each
    scores = q @ k.T * k.shape[-1] ** -0.5  # (T, T)
    masked = scores.masked_fill(~torch.ones_like(scores).tril().bool(), float("-inf"))
    weights = F.softmax(masked, dim=-1)
    fig, ax = canvas(4.5, "One causal head in numbers")
    upper, middle, lower = levels = 0.7, 2.2, 3.6
    source, made = table(ax, 0.72, middle, "x", "T, C", numbers(x), GREY, labels), {}
    for y, W, matrix, name, colour in zip(levels, (W_q, W_k, W_v), (q, k, v), "qkv", (BLUE, PURPLE, GREEN)):
        weight = table(ax, 2.1, y, f"W_{name}", "C, D", numbers(W), GREY)
        arrow(ax, (source.right, middle), (1.43, middle), (1.43, y), (weight.left, y))
        made[name] = table(ax, 3.5, y, name, "T, D", numbers(matrix), colour, labels)
        link(ax, weight, made[name])
    first = table(ax, 5.15, upper, "scores", "T, T", numbers(scores), SKY, labels, labels)
    second = table(ax, 5.15, middle, "masked", "T, T", numbers(masked), SKY, labels)
    third = table(ax, 5.15, lower, "weights", "T, T", numbers(weights), SKY, labels)
    out = table(ax, 6.8, lower, "out", "T, D", numbers(weights @ v), GREEN, labels)
    q, k, v = made.values()
    for a, b in ((q, first), (first, second), (second, third), (third, out)):
        link(ax, a, b)
    arrow(ax, (k.right, middle), (4.22, middle), (4.22, upper + 0.3), (first.left, upper + 0.3))
    arrow(ax, (v.x, v.bottom), (v.x, 4.3), (out.x, 4.3), (out.x, out.bottom))
    text(ax, first.right + 0.1, upper, "q kᵀ / √D", ha="left")
    text(ax, first.x + 0.1, (first.bottom + second.top) / 2, "mask", ha="left")
    text(ax, first.x + 0.1, (second.bottom + third.top) / 2, "softmax", ha="left")
    text(ax, first.x, 4.4, "weights @ v")
    return fig


def draw_heads(n_embd, n_head):
    """H heads side by side, joined and projected -> Figure. Of more than eight, those between are one box."""
    C, D = n_embd, GPTConfig(1, n_head=n_head, n_embd=n_embd).head_size
    heads = [*range(n_head)] if n_head <= 8 else [0, 1, 2, "…", n_head - 1]
    fig, ax = canvas(3.75, f"Heads side by side: each of {n_head} reads all {C} channels and writes {D}")
    middle, width, grey = WIDTH / 2, 7.1, tint(GREY, 0.2)
    slot = width / len(heads)
    x = box(ax, middle, 0.26, width, 0.42, "x", f"(B, T, C = {C})", grey)
    for i, head in enumerate(heads):
        centre = (WIDTH - width) / 2 + (i + 0.5) * slot
        colour = tint((BLUE, GREEN, PURPLE, SKY)[i % 4])
        note = "q, k, v, weights" if slot > 1.2 else ""
        made = box(ax, centre, 1.15, slot - 0.12, 0.6, f"head {head}", note, colour)
        joined = frame(ax, centre, 1.98, slot, 0.36, colour)
        text(ax, centre, 1.98, f"(B, T, D = {D})" if slot > 1.2 else f"D = {D}")
        link(ax, x, made)
        link(ax, made, joined)
    proj = box(ax, middle, 2.72, width, 0.42, "projection", f"{C} × {C} weights mix the heads", grey)
    link(ax, joined, proj)
    link(ax, proj, box(ax, middle, 3.46, width, 0.42, "out", f"(B, T, C = {C})", grey))
    text(ax, middle + 0.1, (joined.bottom + proj.top) / 2, f"joined: (B, T, C = {n_head} × {D})", ha="left")
    return fig


def draw_block(config=None):
    """A block beside its residual stream -> Figure. With a GPTConfig it holds sizes and parameters."""
    notes = {"layer norm": "", "attention": "H heads of size D", "feed-forward": "C → 4C → C"}
    size, shape = "", "x (B, T, C)"
    if config:
        notes, shape = notes_of(config), f"x (B, T, C = {config.n_embd:,})"
        size = f" of {notes['blocks']} parameters"
    fig, ax = canvas(2.75, f"A block{size} reads the residual stream twice, and twice adds to it")
    block(ax, 0.6, 0.25, 2.5, PARTS, notes)
    text(ax, STREAM, 0.12, shape)
    text(ax, STREAM, 2.62, shape)
    text(ax, 3.2, 1.0, "x = x + attn(ln_1(x))", family="monospace")
    text(ax, 3.2, 2.0, "x = x + ffwd(ln_2(x))", family="monospace")
    return fig


def block(ax, y, top, bottom, colours, notes):
    """The residual stream from top to bottom, and the two branches of a block, the first of them at y."""
    style = dict(colour=colours["residual"], lw=6, head=20, gid="residual", zorder=0.5)
    arrow(ax, (STREAM, top), (STREAM, bottom), **style)
    for part in ("attention", "feed-forward"):
        norm = box(ax, 3.2, y, 1.5, 0.46, "layer norm", notes["layer norm"], colours["layer norm"])
        made = box(ax, 5.9, y, 2.2, 0.46, part, notes[part], colours[part])
        arrow(ax, (STREAM + 0.04, y), (norm.left, y))
        link(ax, norm, made)
        add_from(ax, made, y + 0.52, colours)
        y += 1


def add_from(ax, edges, y, colours):
    """From the bottom of a box to a plus sign on the stream at y."""
    arrow(ax, (edges.x, edges.bottom), (edges.x, y), (STREAM + 0.12, y))
    ax.add_patch(Circle((STREAM, y), 0.12, fc=colours["residual"], lw=0, gid="residual", zorder=2))
    text(ax, STREAM, y, "+", 12)


def notes_of(config):
    """What stands in the boxes of GPT(config), {part: note}: sizes, a colon, and how many parameters."""
    with torch.device("meta"):  # shapes without numbers: immediate at any size
        model = GPT(config)
    T, C, V = (f"{size:,}" for size in (config.block_size, config.n_embd, config.vocab_size))
    modules = {
        "embedding": (model.token_embedding, f"{V} × {C}: "),
        "positions": (model.position_embedding, f"{T} × {C}: "),
        "layer norm": (model.blocks[0].ln_1, ""),
        "attention": (model.blocks[0].attn, f"H = {config.n_head}, D = {config.head_size}: "),
        "feed-forward": (model.blocks[0].ffwd, f"{C} → {4 * config.n_embd:,} → {C}: "),
        "blocks": (model.blocks[0], ""),  # one of them
        "final layer norm": (model.ln_f, ""),
        "lm_head": (model.lm_head, f"{C} × {V}{f' + {V}' * config.head_bias}: "),
        "all": (model, ""),
    }
    counts = {part: count_parameters(module) for part, (module, _) in modules.items()}
    counts["lm_head"] -= counts["embedding"] * config.tie_weights  # the same numbers, counted once
    words = {part: f"{n:,}" if n else "0 more" for part, n in counts.items()}  # 0: tied, or not trained
    return {part: sizes + words[part] for part, (_, sizes) in modules.items()}


def draw_gpt(config, highlight=()):
    """GPT(config) with its sizes and parameters -> Figure. highlight: names in PARTS, else ValueError."""
    colours, notes = colours_of(PARTS, highlight), notes_of(config)
    fig, ax = canvas(4.8, f"A GPT of {notes['all']} parameters, counted box by box")

    def part(name, label, x, y):
        return box(ax, x, y, 2.2, 0.46, label, notes[name], colours[name], name)

    tokens = part("embedding", "token embedding", STREAM, 0.6)
    places = part("positions", "position embedding", 4.2, 0.6)
    norm = part("final layer norm", "final layer norm", STREAM, 4.52)
    head = part("lm_head", "lm_head", 4.2, 4.52)
    for edges, words in ((tokens, f"ids (B, T = {config.block_size:,})"), (places, "positions (T)")):
        text(ax, edges.x, 0.09, words)
        arrow(ax, (edges.x, 0.17), (edges.x, edges.top))
    for shift in (0.1, 0.05, 0)[-config.n_layer :]:  # one frame a block, at most three
        frame(ax, 3.69 + shift, 2.6 + shift, 7.0, 2.4, colours["blocks"], "blocks", zorder=0.2)
    block(ax, 2.0, tokens.bottom, norm.top, colours, notes)
    add_from(ax, places, 1.04, colours)
    text(ax, 1.6, 1.24, f"x (B, T, C = {config.n_embd:,})", ha="left")
    text(ax, 1.6, 1.57, f"{config.n_layer} blocks of {notes['blocks']} parameters", ha="left", weight="bold")
    link(ax, norm, head)
    arrow(ax, (head.right, head.y), (5.7, head.y))
    text(ax, 5.75, head.y, f"logits (B, T, V = {config.vocab_size:,})", ha="left")
    return fig


def colours_of(pale, highlight):
    """pale, {name: colour}, with the highlighted name or names in orange. ValueError if one is not there."""
    names = [highlight] if isinstance(highlight, str) else highlight
    for name in names:
        check_choice("highlight", name, pale)
    return pale | dict.fromkeys(names, ORANGE)


def draw_training(highlight=(), extras=True):
    """The training loop, with extras that of a full program -> Figure. highlight: names in LOOP or EXTRAS."""
    pale = dict.fromkeys(LOOP, tint(BLUE)) | dict.fromkeys(EXTRAS if extras else (), tint(GREEN))
    colours = colours_of(pale, highlight)
    top, bottom = (1.5, 3.25) if extras else (0.4, 2.15)  # the two rows of the loop
    title = "The training loop, and in green what a full program adds" if extras else "The training loop"
    fig, ax = canvas(bottom + (0.7 if extras else 0.4), title)
    places = {  # a box's note, its middle, its width
        "text": ("train_ids", 0.75, top, 1.15),
        "batch": ("x, y (B, T)", 2.2, top, 1.15),
        "model": ("logits (B, T, V)", 4.0, top, 1.5),
        "loss": ("in nats", 6.75, top, 1.3),
        "gradients": ("loss.backward()", 6.75, bottom, 1.3),
        "step": ("optimizer.step()", 4.0, bottom, 1.5),
        "precision": ("products in bfloat16", 2.2, 0.35, 1.5),
        "clipping": ("", 5.42, bottom, 0.8),
        "schedule": ("the rate of this step", 1.75, bottom - 0.33, 1.7),
        "AdamW with decay": ("a rate for each weight", 1.75, bottom + 0.33, 1.7),
        "sweep": ("loss on val_ids", 4.5, 0.35, 1.2),
        "best weights": ("lowest loss so far", 6.75, 0.35, 1.3),
    }
    made = {}
    for name, colour in colours.items():
        note, x, y, width = places[name]
        made[name] = box(ax, x, y, width, 0.55, name, note, colour)
    way = ("text", "batch", "model", "loss", "gradients", "clipping", "step", "model")
    for a, b in pairwise(name for name in way if name in made):
        link(ax, made[a], made[b], lw=2, head=15)
    text(ax, 4.1, (top + bottom) / 2, "new weights", ha="left")
    text(ax, 5.8, (top + bottom) / 2, "every step", NORMAL, weight="bold")
    if extras:
        thin = dict(colour=GREEN, lw=1.5)
        for a in (made["schedule"], made["AdamW with decay"]):
            arrow(ax, (a.right, a.y), (2.9, a.y), (2.9, bottom), (made["step"].left, bottom), **thin)
        arrow(ax, (made["precision"].right, 0.35), (3.55, 0.35), (3.55, made["model"].top), **thin)
        link(ax, made["model"], made["sweep"], ls="--", **thin)
        link(ax, made["sweep"], made["best weights"], **thin)
        text(ax, 4.6, 0.92, "now and then", ha="left")
    return fig
