"""The pictures of the structure: helpers/pictures/structure.py."""

import re
from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Patch, Rectangle
from torch.testing import assert_close

from helpers.data import get_batch
from helpers.model import GPT, Block, CausalSelfAttention, FeedForward, GPTConfig, Head, count_parameters
from helpers.pictures.structure import (
    EXTRAS,
    LOOP,
    PARTS,
    draw_batch,
    draw_block,
    draw_gpt,
    draw_head,
    draw_heads,
    draw_training,
)
from helpers.pictures.style import ORANGE, to_png

CONFIG = GPTConfig(65, n_layer=4, n_head=4, n_embd=128, block_size=64, bias=False, head_bias=False)
GPT2 = GPTConfig(
    50257,
    n_layer=12,
    n_head=12,
    n_embd=768,
    block_size=1024,
    qkv_bias=True,
    head_bias=False,
    tie_weights=True,
)
WAVES = GPTConfig(65, n_layer=1, n_head=2, n_embd=32, block_size=16, position="sinusoidal")
X = torch.tensor([[1, 0], [0, 1], [1, 0.5]])  # (T, C)
WEIGHTS = torch.tensor([[[0, 1], [2, 0]], [[1, 0], [0, 1.5]], [[1, -1], [0.5, 1]]])  # q, k, v: (C, D) each
IDS = torch.arange(40) * 7 % 26
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def some_batch(B=4, T=10):
    return get_batch(IDS, T, B, torch.Generator().manual_seed(0))


PICTURES = {
    "batch": lambda: draw_batch(*some_batch(), ALPHABET),
    "small batch": lambda: draw_batch(*some_batch(2, 4), ALPHABET),
    "head": lambda: draw_head(X, *WEIGHTS, "cat"),
    "1 head": lambda: draw_heads(32, 1),
    "4 heads": lambda: draw_heads(128, 4),
    "8 heads": lambda: draw_heads(512, 8),
    "12 heads": lambda: draw_heads(768, 12),
    "block": draw_block,
    "block of GPT-2": lambda: draw_block(GPT2),
    "GPT": lambda: draw_gpt(CONFIG, PARTS),
    "GPT-2": lambda: draw_gpt(GPT2),
    "loop": lambda: draw_training(extras=False),
    "program": lambda: draw_training(LOOP),
}


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


def texts(fig, gid=None):
    """The words of a figure, all or those of one table, from left to right and top to bottom as drawn."""
    found = [t for t in fig.findobj(plt.Text) if t.get_text() and t.get_visible()]
    ticks = {t for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for t in axis.findobj(plt.Text)}
    return [t for t in found if t not in ticks and (gid is None or t.get_gid() == gid)]


def words(fig, gid=None):
    return [t.get_text() for t in texts(fig, gid)]


# ---------------------------------------------------------------- what they show is what the code does


def test_batch_shows_both_tensors_and_their_shift():
    x, y = some_batch(B=3, T=6)
    for chars in (ALPHABET, list(ALPHABET), ALPHABET.__getitem__):
        fig = draw_batch(x, y, chars)
        assert words(fig, "x") == [ALPHABET[i] for i in x.flatten()]
        assert words(fig, "y") == [ALPHABET[i] for i in y.flatten()]
        # Equal letters stand above each other: the strip of y is one cell further right, and ends one later.
        above, below = texts(fig, "x[0]"), texts(fig, "y[0]")
        for a, b in zip(above[1:], below):
            assert a.get_text() == b.get_text() and a.get_position()[0] == pytest.approx(b.get_position()[0])


def test_batch_answers_the_question_that_it_asks():
    x, y = some_batch(B=3, T=6)
    fig = draw_batch(x, y, ALPHABET)
    assert any("after x[2, 0] … x[2, 3]? The answer is y[2, 3]." in line for line in words(fig))
    (asked, answer) = [p for p in fig.findobj(Patch) if to_hex(p.get_edgecolor()) == ORANGE.lower()]
    inside = {"x": [], "y": []}
    for name, patch in (("x", asked), ("y", answer)):
        for t in texts(fig, name):
            if patch.get_bbox().contains(*t.get_position()):
                inside[name].append(t.get_text())
    assert inside == {"x": [ALPHABET[i] for i in x[2, :4]], "y": [ALPHABET[y[2, 3]]]}


def test_head_shows_the_numbers_of_the_models_head():
    head = Head(n_embd=2, head_size=2, block_size=3)
    with torch.no_grad():
        for layer, W in zip((head.query, head.key, head.value), WEIGHTS):
            layer.weight.copy_(W.T)
        q, k, v, w, out = (
            head.query(X),
            head.key(X),
            head.value(X),
            head.weights(X[None])[0],
            head(X[None])[0],
        )
    scores = q @ k.T / 2**0.5
    masked = torch.where(torch.ones(3, 3).tril() == 1, scores, -torch.inf)
    expected = dict(x=X, W_q=WEIGHTS[0], W_k=WEIGHTS[1], W_v=WEIGHTS[2], q=q, k=k, v=v, scores=scores)
    fig = draw_head(X, *WEIGHTS, "cat")
    for name, matrix in (expected | dict(masked=masked, weights=w, out=out)).items():
        shown = [float(word.replace("−", "-").replace("∞", "inf")) for word in words(fig, name)]
        assert_close(torch.tensor(shown).view(matrix.shape), matrix, atol=0.0051, rtol=0)


def test_heads_share_out_the_channels():
    shown = words(draw_heads(128, 4))
    assert shown.count("(B, T, D = 32)") == 4
    assert [w for w in shown if w.startswith("head ")] == [f"head {h}" for h in range(4)]
    assert "joined: (B, T, C = 12 × 64)" in words(draw_heads(768, 12))
    with pytest.raises(ValueError, match="does not divide"):
        draw_heads(100, 3)


def counts(fig):
    """The parameters that a picture of a GPT shows: {name in its box: number}."""
    shown = words(fig)
    found = {}
    for name, note in pairwise(shown):
        number = re.fullmatch(r"(?:.*: )?([\d,]+)(?: more)?", note)
        if number:
            found[name] = int(number[1].replace(",", ""))
    return found


@pytest.mark.parametrize("config", [CONFIG, GPT2, WAVES], ids=["course", "tied", "waves"])
def test_gpt_shows_the_parameters_of_the_model(config):
    fig, block = draw_gpt(config), Block(config)
    shown = counts(fig)
    assert shown["layer norm"] == count_parameters(block.ln_1)
    assert shown["attention"] == count_parameters(CausalSelfAttention(config))
    assert shown["feed-forward"] == count_parameters(FeedForward(config))
    of_block = 2 * shown["layer norm"] + shown["attention"] + shown["feed-forward"]
    assert f"{config.n_layer} blocks of {of_block:,} parameters" in words(fig)
    outside = ("token embedding", "position embedding", "final layer norm", "lm_head")
    total = sum(shown[name] for name in outside) + config.n_layer * of_block
    with torch.device("meta"):
        assert total == count_parameters(GPT(config))
    assert f"A GPT of {total:,} parameters, counted box by box" in [ax.get_title("left") for ax in fig.axes]
    assert counts(draw_block(config)).items() <= shown.items()


def test_gpt_shows_the_shapes_of_the_model():
    model, fig = GPT(CONFIG), draw_gpt(CONFIG)
    logits, _ = model(torch.zeros(2, CONFIG.block_size, dtype=torch.long))
    B, T, V = logits.shape
    C = model.token_embedding(torch.zeros(B, T, dtype=torch.long)).shape[-1]
    D = model.blocks[0].attn.split_heads(torch.zeros(B, T, C))[0].shape[-1]
    wide = model.blocks[0].ffwd.widen.out_features
    line = " | ".join(words(fig))
    for shape in (f"ids (B, T = {T})", f"x (B, T, C = {C})", f"logits (B, T, V = {V})", f"D = {D}:"):
        assert shape in line
    assert f"{C} → {wide} → {C}:" in line


# ---------------------------------------------------------------- highlighting


def faces(fig):
    """The colours of each part: {gid: set of colours}."""
    found = {}
    for patch in fig.findobj(Patch):
        if patch.get_gid():
            found.setdefault(patch.get_gid(), set()).add(to_hex(patch.get_facecolor()))
    return found


@pytest.fixture(scope="module")
def plain():
    return {draw: faces(draw()) for draw in (draw_course, draw_training)}


def draw_course(highlight=()):
    return draw_gpt(CONFIG, highlight)


def test_without_a_highlight_every_part_is_pale(plain):
    assert set(plain[draw_course]) == set(PARTS) and set(plain[draw_training]) == {*LOOP, *EXTRAS}
    for parts in plain.values():
        assert all(min(to_rgb(colour)) > 0.5 for colours in parts.values() for colour in colours)


@pytest.mark.parametrize("part", [*PARTS, *LOOP, *EXTRAS])
def test_highlight_colours_its_part_and_no_other(part, plain):
    draw = draw_course if part in PARTS else draw_training
    assert faces(draw((part,))) == plain[draw] | {part: {ORANGE.lower()}}


def test_unknown_parts_are_refused_in_one_sentence():
    with pytest.raises(
        ValueError, match=r"highlight='heads' must be one of embedding, positions, .*, lm_head\.$"
    ):
        draw_gpt(CONFIG, ("attention", "heads"))
    with pytest.raises(ValueError, match=r"highlight='clipping' must be one of text, .*, step\.$"):
        draw_training("clipping", extras=False)


# ---------------------------------------------------------------- every picture can be read


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_fit_a_page_and_no_text_meets_another(name):
    fig = PICTURES[name]()
    png = to_png(fig)
    width, height = (int.from_bytes(png[i : i + 4]) for i in (16, 20))
    assert width <= 800 and height <= 900 and len(png) < 40_000
    boxes = {t: t.get_window_extent() for t in texts(fig)}
    assert len(boxes) > 5 and all(t.get_fontsize() >= 8 for t in boxes)
    for (a, box_a), (b, box_b) in combinations(boxes.items(), 2):
        apart = box_a.x1 <= box_b.x0 or box_b.x1 <= box_a.x0 or box_a.y1 <= box_b.y0 or box_b.y1 <= box_a.y0
        assert apart, f"{a.get_text()!r} overlaps {b.get_text()!r}"
    frames = [p.get_window_extent() for p in fig.findobj(Rectangle) if p.get_gid() is not None]
    for t, box in boxes.items():
        around = [frame for frame in frames if frame.contains(*(box.min + box.max) / 2)]
        for frame in [fig.bbox, *around]:
            assert frame.x0 <= box.x0 and box.x1 <= frame.x1, f"{t.get_text()!r} is too wide for its box"
            assert frame.y0 <= box.y0 and box.y1 <= frame.y1, f"{t.get_text()!r} is too high for its box"


def test_pictures_can_be_drawn_twice_without_a_warning(recwarn):
    fig = draw_training(extras=False)
    assert to_png(fig) == to_png(fig) and not recwarn.list
