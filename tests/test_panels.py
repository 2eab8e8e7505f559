"""Pictures and sliders: helpers/pictures/."""

import base64
import html
import inspect
import struct
import time
import warnings
from collections import namedtuple
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import randomise
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from helpers.data import Corpus
from helpers.generate import generate, next_token_probs
from helpers.model import GPT, GPTConfig, attention_maps, flops_per_token
from helpers.pictures import (
    notebook_00,
    notebook_01,
    notebook_02,
    notebook_03,
    notebook_04,
    notebook_05,
    notebook_06,
    notebook_07,
    notebook_08,
    shared,
    style,
)
from helpers.pictures import panel as frame
from helpers.pictures.panel import (
    PANEL_TEXT,
    Panel,
    choice,
    float_slider,
    int_slider,
    log_slider,
    panel,
    text_field,
)
from helpers.program.records import load_records
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import History, TrainConfig


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


# ---------------------------------------------------------------- the panel itself


def draw_line(height=1, name="a", slope=0.5):
    if height > 8:
        raise ValueError("height <9> is too high: at most 8.")
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1], [height, height + slope])
    ax.set_title(name)
    return fig


@pytest.fixture
def made():
    return panel(draw_line, height=int_slider(1, 0, 9, "height"), name=text_field("a", "name"))


def controls_of(made):
    """The controls of a panel by their label."""
    found = {}
    for child in made.children[0].children:
        for widget in [child, *getattr(child, "children", [])]:
            if getattr(widget, "description", ""):
                found[widget.description] = widget
    return found


def message_of(made):
    return html.unescape(made.message.value)


def picture_of(made):
    return bytes(made.image.value)


def is_png(raw):
    return bytes(raw).startswith(b"\x89PNG\r\n\x1a\n")


def test_one_output_serves_all_readers(made):
    bundle = made._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    assert base64.b64decode(bundle["image/png"]) == picture_of(made) and is_png(picture_of(made))
    assert bundle["text/plain"].startswith(f"{PANEL_TEXT}\nPicture: ")


def test_display_shows_the_same_bundle(made, monkeypatch):
    shown = []
    monkeypatch.setattr(frame, "display", lambda data, raw: shown.append((data, raw)))
    made._ipython_display_()
    assert shown == [(made._repr_mimebundle_(), True)]


def test_moving_a_control_changes_the_picture(made):
    pictures = [picture_of(made)]
    controls = controls_of(made)
    controls["height"].value = 5
    pictures.append(picture_of(made))
    controls["name"].value = "b"
    pictures.append(picture_of(made))
    assert len(set(pictures)) == 3 and all(map(is_png, pictures))
    controls["height"].value, controls["name"].value = 1, "a"
    assert picture_of(made) == pictures[0], "the same settings give the same picture"


def test_a_value_error_is_a_sentence_and_the_picture_stays(made):
    before, height = picture_of(made), controls_of(made)["height"]
    height.value = 9
    assert picture_of(made) == before and "&lt;" in made.message.value, "as text, not as HTML"
    assert "height <9> is too high" in message_of(made)
    height.value = 2
    assert message_of(made) == "" and picture_of(made) != before


def test_other_errors_are_not_swallowed():
    def draw(x):
        return {}[x]

    with pytest.raises(KeyError):
        panel(draw, x=int_slider(1, 0, 9, "x"))


def test_the_title_of_the_picture_is_there_for_a_screen_reader(made):
    assert "Picture: a<" in made.spoken.value
    controls_of(made)["name"].value = "b<c"
    assert "Picture: b&lt;c<" in made.spoken.value and "aria-live" in made.spoken.value


def test_titles_are_told_on_one_line():
    fig, axes = plt.subplots(1, 2)
    fig.suptitle("Head 1\nlooks back")  # nbval masks a line, and the web pages read one
    axes[1].set_title("weight 0.5")
    assert repr(fig) == "Picture: Head 1 looks back; weight 0.5"


def test_a_panel_can_pause(made):
    before, made.paused = picture_of(made), True
    controls_of(made)["height"].value = 5
    assert picture_of(made) == before
    made.paused = False
    made.redraw()
    assert picture_of(made) != before


def test_controls_are_as_wide_as_the_page_allows(made):
    for control in controls_of(made).values():
        assert control.layout.width == "min(36em, 100%)" and control.style.description_width == "13em"
    assert made.image.layout.max_width == "100%"


def test_a_panel_leaves_no_figure_open(made):
    controls_of(made)["height"].value = 3
    assert plt.get_fignums() == []


def test_two_panels_are_independent(made):
    other = panel(draw_line, height=int_slider(1, 0, 9, "height"), name=text_field("a", "name"))
    controls_of(other)["height"].value = 7
    assert controls_of(made)["height"].value == 1 and picture_of(made) != picture_of(other)


def test_controls_are_what_they_are_called():
    assert int_slider(3, 1, 9, "n", step=2, live=False).continuous_update is False
    assert float_slider(0.5, 0.0, 1.0, "p").value == 0.5
    slider = log_slider(1e-3, -5, -1, "rate")
    assert slider.value == pytest.approx(1e-3) and (slider.min, slider.max) == (-5, -1)
    assert choice({"shown": 7}, 7, "menu").value == choice([("shown", 7)], 7, "menu").value == 7
    assert text_field("a", "prompt").continuous_update is False


# ---------------------------------------------------------------- every picture


def maps(n_layer=2, n_head=2, T=5):
    return [
        torch.randn(1, n_head, T, T).masked_fill(torch.ones(T, T).triu(1) > 0, -1e9).softmax(-1)
    ] * n_layer


def a_model(dropout=0.0):
    return randomise(GPT(GPTConfig(9, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=dropout)))


TABLE = torch.arange(12).view(3, 4)
Number = namedtuple("Number", "number grad parts slopes", defaults=[(), ()])


def a_square():
    """What plot_graph draws, of (3 - 1) squared: name -> number with its grad, parts and slopes."""
    x, y = Number(3.0, 4.0), Number(1.0, -4.0)
    error = Number(2.0, 4.0, (x, y), (1.0, -1.0))
    return {"x": x, "y": y, "error": error, "loss": Number(4.0, 1.0, (error, error), (2.0, 2.0))}


TOKENIZER = CharTokenizer("\n abcdefg")
ROWS = [
    dict(name=name, budget=budget, vocab_size=V, seeds=[dict(bits_per_character=b) for b in bits])
    for name, budget, V, bits in (
        ("characters", "equal compute", 65, (2.5, 2.6, 2.7)),
        ("512 pieces", "equal compute", 512, (2.2, 2.3, 2.7)),
        ("512 pieces", "equal parameters", 512, (2.1, 2.2, 2.6)),
    )
]  # fmt: skip
EVALS = [dict(step=0, train=2.5, val=2.6, seconds=0), dict(step=50, train=1.9, val=2.1, seconds=1)]
# One call for every function of helpers/pictures/ that makes a Figure.
EXAMPLES = {
    "plot_row": lambda: notebook_00.plot_row(
        [notebook_00.stretched("x", TABLE, (3, 4), style.BLUE)], "title"
    ),
    "plot_picks": lambda: notebook_00.plot_picks(TABLE, {"x[1]": TABLE[1]}, "title"),
    "plot_tables": lambda: notebook_00.plot_tables({"x": TABLE, "x.T": TABLE.T}, "title"),
    "plot_product": lambda: notebook_00.plot_product(TABLE, TABLE.T, 1, 0),
    "plot_sum": lambda: notebook_00.plot_sum(TABLE, TABLE[0]),
    "draw_broadcast": lambda: notebook_00.draw_broadcast(3, 1, 1, 4),
    "plot_graph": lambda: notebook_00.plot_graph(a_square(), "title"),
    "plot_descent": lambda: notebook_00.plot_descent({"walk": torch.rand(5, 2)}, (1, 10), "title"),
    "plot_bars": lambda: shared.plot_bars(["a", " "], [1, 2], "title", "count"),
    "plot_matrix": lambda: shared.plot_matrix(torch.eye(3), "title", "x", "y", "abc", "abc", annotate=True),
    "plot_attention": lambda: notebook_03.plot_attention(maps()[0][0, 0], "abcde", "title"),
    "plot_attention_grid": lambda: shared.plot_attention_grid(maps(), "abcde", "title"),
    "plot_attention_row": lambda: notebook_03.plot_attention_row(
        [maps()[0][0, 0], maps(T=3)[0][0, 0]], ["abcde", "abc"], ["one", "two"], "title"
    ),
    "plot_losses": lambda: shared.plot_losses({"run": [3.0, 2.0, 1.0]}, "title", reference={"ln V": 4.17}),
    "plot_evals": lambda: notebook_06.plot_evals(EVALS, "title", best_step=50),
    "plot_ladder": lambda: shared.plot_ladder({"uniform": 4.17, "bigram": 2.4}, "title", "bigram"),
    "plot_examples": lambda: notebook_01.plot_examples("abcd", "bcde", "title"),
    "plot_characters": lambda: shared.plot_characters(["a", " "], [1, 2], "title", "count", [0]),
    "plot_leak": lambda: notebook_01.plot_leak("abcdefghijkl", 5, 3, [True, False] * 5, "title"),
    "plot_against_head_size": lambda: notebook_03.plot_against_head_size(
        [4, 16],
        {"std": {"with": [1, 1], "without": [2, 4]}, "entropy": {"with": [1, 1]}},
        "title",
        log=("std",),
    ),
    "plot_bigram_tables": lambda: notebook_02.plot_bigram_tables(
        {"counts": torch.eye(3)}, "abc", "title", "pairs"
    ),
    "plot_next_token": lambda: notebook_02.plot_next_token(torch.arange(4.0), 0.5, "abcd", "title"),
    "plot_by_layer": lambda: notebook_05.plot_by_layer({"with": [1.0, 2.0]}, "title", "norm"),
    "plot_positions": lambda: notebook_05.plot_positions(torch.randn(8, 4), "title"),
    "plot_gains": lambda: notebook_07.plot_gains({notebook_07.ONE_CHANGE["muon"]: 2.0}),
    "plot_dials": lambda: notebook_06.plot_dials({"a place": torch.arange(9.0)}, next_token_probs, TOKENIZER),
    "plot_strongest_heads": lambda: notebook_06.plot_strongest_heads(
        torch.rand(2, 3, 5, 5), {"the line break": (1, 2, 0.5)}, "ab\ncd"
    ),
    "draw_batch": lambda: notebook_01.draw_batch(torch.eye(3).long(), torch.eye(3).long(), TOKENIZER),
    "draw_random_batch": lambda: notebook_01.draw_random_batch(torch.arange(50) % 9, TOKENIZER, 8, 3),
    "draw_look_up": lambda: notebook_01.draw_look_up(torch.eye(3)[[1, 0, 2]], torch.ones(3, 2), "bac", "abc"),
    "draw_fresh_head": lambda: notebook_03.draw_fresh_head("abcd", 2.0, 16, False, "nothing"),
    "draw_counts": lambda: notebook_05.draw_counts(6, 6, 384, 256),
    "draw_progress": lambda: notebook_06.draw_progress(History(50, 1.0, [2.5] * 50, EVALS), TrainConfig()),
    "draw_sampling": lambda: notebook_06.draw_sampling(a_model(), TOKENIZER, "abc", top_k=5, length=20),
    "plot_parts": lambda: notebook_07.plot_parts({"forward": 1.0, "backward": 2.0}, "title", "ms"),
    "draw_operations": lambda: notebook_07.draw_operations(6, 384, 256, 1e11),
    "plot_strengths": lambda: notebook_07.plot_strengths({"gradient": torch.tensor([2.0, 1.0])}, "title"),
    "draw_newton_schulz": lambda: notebook_07.draw_newton_schulz(5, 0.01),
    "draw_merges": lambda: notebook_08.draw_merges(1, "abab é", BytePairTokenizer([(97, 98)])),
    "draw_costs": lambda: notebook_08.draw_costs("abc", {"one": (a_model(), TOKENIZER)}),
    "plot_bits": lambda: notebook_08.plot_bits(ROWS, {512: 2.5}),
    "draw_attention_explorer": lambda: notebook_04.draw_attention_explorer(maps(), "abcde", 1, 0),
}


NOTEBOOKS = (
    notebook_00, notebook_01, notebook_02, notebook_03,
    notebook_04, notebook_05, notebook_06, notebook_07,
    notebook_08,
)  # fmt: skip


def makers():
    """The public functions of helpers/pictures/ that make a whole Figure."""
    return [
        name
        for module in (shared, *NOTEBOOKS)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and name.startswith(("plot_", "draw_"))
        and next(iter(inspect.signature(function).parameters)) != "ax"
    ]


@pytest.mark.parametrize("name", makers())
def test_every_picture_has_a_title_and_labels_and_fits(name):
    assert name in EXAMPLES, f"add an example of {name} to tests/test_panels.py"
    fig = EXAMPLES[name]()
    assert isinstance(fig, Figure)
    titles = [fig.get_suptitle()] + [ax.get_title(loc) for ax in fig.axes for loc in ("left", "center")]
    assert any(titles), "a title that states the finding"
    labels = [fig.get_supxlabel()] + [
        label for ax in fig.axes for label in (ax.get_xlabel(), ax.get_ylabel())
    ]
    ticks = [t.get_text() for ax in fig.axes for t in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    assert any(labels) or any(t and not t.isdigit() for t in ticks), "axes that say what they show"
    raw = style.to_png(fig)
    width, height = struct.unpack(">II", raw[16:24])
    assert is_png(raw) and 200 <= width <= 760 and 100 <= height <= 900


def test_to_png_closes_the_figure_and_repeats_itself():
    first, again = (style.to_png(EXAMPLES["plot_bars"]()) for _ in range(2))
    assert first == again and plt.get_fignums() == []


def test_bars_show_the_values_and_the_highlight():
    ax = shared.plot_bars(["a", "\n"], torch.tensor([1.0, 3.0]), "title", "count", highlight=("a",)).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [1.0, 3.0]
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [style.ORANGE, style.BLUE]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "↵"]
    assert (ax.get_title("left"), ax.get_ylabel()) == ("title", "count")


@pytest.mark.parametrize("side", ["x", "y"])
def test_letters_stand_beside_their_axis_in_their_order(side):
    fig, ax = plt.subplots()
    ax.set(xlim=(-0.5, 2.5), ylim=(-0.5, 2.5))
    shared.label_axis(ax, side, "ab\n", fontsize=8)
    fig.canvas.draw()
    letters = ax.collections[-1]
    assert [path is shared._glyph(c) for path, c in zip(letters.get_paths(), "ab↵")] == [True] * 3
    axis = "xy".index(side)
    places = letters.get_offset_transform().transform(letters.get_offsets())
    wanted = ax.transData.transform([(i, i) for i in range(3)])
    assert places[:, axis] == pytest.approx(wanted[:, axis])
    edge, half = (ax.bbox.x0, ax.bbox.y0)[1 - axis], 4 / 72 * fig.dpi
    assert (half < places[:, 1 - axis]).all() and (places[:, 1 - axis] < edge - half).all()


def test_tokens_of_several_characters_are_the_labels_of_ticks():
    _, ax = plt.subplots()
    shared.label_axis(ax, "y", ["to", "\n"])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["to", "↵"] and not ax.collections
    shared.label_axis(ax, "x", ["a", "\ufffe"])  # which no font has
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "FFFE"]
    assert ax.xaxis.get_ticklabels()[0].get_rotation() == 90, "or numbers would stand in each other"


def test_a_heat_map_shows_the_matrix_with_row_zero_on_top():
    matrix = torch.arange(6.0).view(2, 3)
    ax = shared.plot_matrix(matrix, "title", annotate=True).axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix)
    assert ax.yaxis_inverted()
    assert [t.get_text() for t in ax.texts] == [f"{v:.2f}" for v in range(6)]


def test_attention_pictures_show_the_weights_of_their_head():
    model = a_model()
    weights = attention_maps(model, torch.randint(9, (1, 5)))
    grid = shared.plot_attention_grid(weights, "abcde", "title")
    for i, h in np.ndindex(2, 2):
        ax = grid.axes[2 * i + h]
        assert ax.get_title("center") == f"layer {i}, head {h}"
        np.testing.assert_allclose(ax.images[0].get_array(), weights[i][0, h])
    single = notebook_03.plot_attention(weights[1][0, 0], "abcde", "title").axes[0]
    np.testing.assert_allclose(single.images[0].get_array(), weights[1][0, 0])
    assert "key" in single.get_xlabel() and "query" in single.get_ylabel()


def test_the_explorer_says_where_the_last_letter_looks():
    weights = torch.eye(3)
    for last, says in (([0.1, 0.2, 0.7], "at itself, with weight 0.70"), ([0.8, 0.1, 0.1], "at “a”, 2 back")):
        weights[2] = torch.tensor(last)
        fig = notebook_04.draw_attention_explorer([weights.view(1, 1, 3, 3)], "ab ", 0, 0)
        title = fig.axes[0].get_title("left")
        assert "head 0: the last “␣” looks most" in title and says in title


def test_loss_curves_are_running_means_with_references():
    losses = np.linspace(4, 2, 101)
    ax = shared.plot_losses({"run": losses}, "title", smooth=11, reference={"optimum": 2.4}).axes[0]
    x, y = ax.lines[0].get_data()
    assert len(x) == 91 and y[0] == pytest.approx(losses[:11].mean()) and x[-1] == 101
    assert ax.lines[1].get_ydata()[0] == 2.4
    assert "nats" in ax.get_ylabel() and ax.get_xlabel() == "step"


def test_sweeps_are_drawn_where_they_were_made():
    ax = notebook_06.plot_evals(EVALS, "title", best_step=50).axes[0]
    assert [line.get_ydata().tolist() for line in ax.lines[:2]] == [[2.5, 1.9], [2.6, 2.1]]
    assert ax.lines[0].get_xdata().tolist() == [0, 50]
    assert [t.get_text() for t in ax.get_legend().get_texts()][-1] == "best validation: step 50"


def words_and_colours(fig):
    """What stands in a picture of tables, and the colours of its cells, in their order."""
    ax = fig.axes[0]
    return [t.get_text() for t in ax.texts], [to_hex(patch.get_facecolor()) for patch in ax.patches]


def cells_in(colour, *strong):
    """Cells in a strong colour where strong is true, else pale."""
    return [to_hex(style.tint(colour, notebook_00.STRONG if s else notebook_00.PALE)) for s in strong]


def test_a_sum_is_drawn_with_its_copies_in_pale():
    words, colours = words_and_colours(notebook_00.draw_broadcast(3, 1, 1, 4))
    assert colours[:12] == cells_in(style.BLUE, *[1, 0, 0, 0] * 3)
    assert colours[12:24] == cells_in(style.ORANGE, *[1] * 4, *[0] * 8)
    assert words[2:14] == ["10"] * 4 + ["20"] * 4 + ["30"] * 4 and words[1] == "(3, 1)"
    assert words[-12:] == [str(10 * i + j) for i in (1, 2, 3) for j in (1, 2, 3, 4)]


@pytest.mark.parametrize("sizes", [(3, 1, 1, 4), (3, 2, 2, 1), (2, 3, 2, 3), (1, 1, 4, 4), (4, 1, 3, 4)])
def test_a_sum_is_refused_where_torch_refuses_it(sizes):
    left, right = torch.zeros(sizes[:2]), torch.zeros(sizes[2:])
    title = notebook_00.draw_broadcast(*sizes).axes[0].get_title("left")
    try:
        assert f"make {tuple((left + right).shape)}" in title
    except RuntimeError:
        assert "do not fit" in title
    assert ("copies" in title) == ("make" in title and left.shape != right.shape)


def test_an_index_and_a_product_are_drawn_in_orange():
    _, colours = words_and_colours(EXAMPLES["plot_picks"]())
    orange = to_hex(style.tint(style.ORANGE, notebook_00.STRONG))
    assert [colour == orange for colour in colours] == [False] * 4 + [True] * 4 + [False] * 4
    fig = EXAMPLES["plot_product"]()  # (3, 4) @ (4, 3)
    _, colours = words_and_colours(fig)
    places = [k for k, colour in enumerate(colours) if colour == orange]
    assert places == [4, 5, 6, 7, 12, 15, 18, 21, 24 + 3]
    assert fig.axes[0].get_title("left") == "Entry [1, 0]: 4 · 0 + 5 · 1 + 6 · 2 + 7 · 3 = 38"


def test_a_permutation_keeps_the_colours_of_rows_together():
    _, colours = words_and_colours(EXAMPLES["plot_tables"]())
    assert colours[:4] == colours[:1] * 4 and colours[0] != colours[4]
    assert colours[12:] == [colours[0], colours[4], colours[8]] * 4


def test_a_graph_has_a_box_for_every_number_and_an_arrow_for_every_slope():
    fig = EXAMPLES["plot_graph"]()
    words, _ = words_and_colours(fig)
    left = {patch.get_gid(): patch.get_x() for patch in fig.axes[0].patches if patch.get_gid()}
    assert left["x"] == left["y"] < left["error"] < left["loss"], "parts stand to the left"
    assert sorted(word for word in words if word[0] == "×") == ["×1", "×2", "×2", "×−1"]
    assert {"x", "y", "error", "loss", "3   grad 4", "1   grad −4"} <= set(words)


def test_a_walk_is_drawn_where_it_went_with_its_last_loss():
    points = torch.tensor([[8.0, 2.0], [4.0, 1.0], [2.0, -0.5]])
    ax = notebook_00.plot_descent({"walk": points}, (1, 10), "title").axes[0]
    np.testing.assert_allclose(np.column_stack(ax.lines[0].get_data()), points)
    assert ax.get_title("left") == "walk: last loss 3.2"


def test_the_ladder_shows_every_rung_from_top_to_bottom():
    ax = shared.plot_ladder({"uniform": 4.17, "bigram": 2.4}, "title", "bigram").axes[0]
    assert [bar.get_width() for bar in ax.patches] == [4.17, 2.4] and ax.yaxis_inverted()
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [style.BLUE, style.ORANGE]
    assert [t.get_text().strip() for t in ax.texts] == ["4.17", "2.40"]


def test_a_dial_is_drawn_with_what_it_keeps_and_what_it_cuts():
    logits = torch.tensor([0.93, 0.02, 0.02, 0.01, 0.01, 0.005, 0.003, 0.001, 0.001]).log()
    fig = notebook_06.plot_dials({"a": logits, "b": logits.flip(0)}, next_token_probs, TOKENIZER)
    top_k, top_p = fig.axes[4], fig.axes[6]
    assert [ax.get_title("right") for ax in (top_k, top_p)] == [
        "top-k 5: 5 candidates",
        "top-p 0.9: 1 candidate",
    ]
    assert [ax.lines[0].get_xdata()[0] for ax in (top_k, top_p)] == [4.5, 0.5]
    grey, blue = np.split(np.array([bar.get_height() for bar in top_k.patches]), 2)
    np.testing.assert_allclose(grey, logits.exp()[: len(grey)] / logits.exp().sum(), rtol=1e-5)
    np.testing.assert_allclose(blue, next_token_probs(logits, top_k=5)[: len(blue)], rtol=1e-5)


def test_of_many_candidates_a_dial_draws_sixty_and_names_what_no_font_has(monkeypatch):
    monkeypatch.setattr(style, "has_font", str.isascii)
    tokenizer = CharTokenizer([chr(0x4E00 + i) for i in range(100)])
    fig = notebook_06.plot_dials({"after \u4e07:\n": torch.zeros(100)}, next_token_probs, tokenizer)
    assert fig.axes[0].get_title("left") == "after U+4E07:\n"
    assert len(fig.axes[0].patches) == 2 * 60 and len(fig.axes[0].get_xticks()) == 60


def test_the_strongest_heads_are_those_that_were_found():
    weights = torch.rand(2, 3, 5, 5)
    fig = notebook_06.plot_strongest_heads(weights, {"x": (1, 2, 0.25), "y": (0, 1, 1.0)}, "abcde")
    assert [ax.get_title("center") for ax in fig.axes] == [
        "layer 1, head 2: 25% on x", "layer 0, head 1: 100% on y",
    ]  # fmt: skip
    np.testing.assert_allclose(fig.axes[1].images[0].get_array(), weights[0, 1])


def test_the_operations_of_the_parts_are_those_of_the_model():
    for shape in ((65, 64, 4, 4, 128), (65, 256, 6, 6, 384), (11, 8, 1, 1, 16)):
        config = GPTConfig(*shape)
        assert sum(notebook_07.operations_per_token(config).values()) == flops_per_token(config)
    ax = notebook_07.draw_operations(6, 384, 256, rate=1e9).axes[0]
    config = GPTConfig(65, 256, n_layer=6, n_head=1, n_embd=384)
    assert f"{flops_per_token(config) * 64 * 256 / 1e9:.2g} s at 1 billion a second" in ax.get_title("left")


def test_the_polynomial_brings_strengths_near_one():
    def near(iterations):
        title = notebook_07.draw_newton_schulz(iterations, weakest=0.001).axes[0].get_title("left")
        return int(title.split()[0])

    assert near(0) < near(3) < near(6) == 64


def test_gains_are_longer_where_the_course_is_better():
    rows = [
        dict(row="muon", ratio=0.5, unit="s"), dict(row="precision", ratio=3.0, unit="tokens/s"),
        dict(row="precision", ratio=9.0, unit="tokens/s"), dict(row="nobody's", ratio=2.0, unit="s"),
    ]  # fmt: skip
    gains = notebook_07.gains_of(rows)
    assert sorted(gains.values()) == [2.0, 3.0]
    assert notebook_07.plot_gains(gains).get_suptitle().endswith(": products in bfloat16 instead of float32")


@torch.no_grad()
def test_every_token_costs_what_the_model_gives_it():
    model, text = a_model().eval(), "abcdefgabcdefg abc"  # longer than the block of 8
    ids = TOKENIZER.encode("\n" + text)
    slow = [
        -model(ids[None, max(t - 8, 0) : t])[0][0, -1].log_softmax(-1)[ids[t]] / np.log(2)
        for t in range(1, len(ids))
    ]
    for n in (1, 7, 8, 9, len(text)):
        bits = notebook_08.bits_of(model, TOKENIZER, text[:n])
        torch.testing.assert_close(bits, torch.stack(slow[:n]), rtol=1e-4, atol=1e-4)
    other = notebook_08.bits_of(model, TOKENIZER, text, start="g")
    assert not torch.allclose(other[0], slow[0]), "the first depends on what stands before it"


def test_pieces_are_drawn_in_their_order_and_parts_of_characters_as_numbers():
    pairs = BytePairTokenizer([(97, 98), (32, 256)])
    ax = notebook_08.draw_merges(2, "ab ab é", pairs).axes[0]
    assert [t.get_text() for t in ax.texts] == ["ab", "␣ab", "␣", "c3", "a9"]
    assert ax.get_title("left") == "2 merges: 7 characters in 5 pieces"
    assert notebook_08.draw_merges(0, "ab ab é", pairs).axes[0].get_title("left").endswith("in 8 pieces")
    boxes = [(box.get_x(), box.get_y(), box.get_width()) for box in ax.patches]
    assert boxes == [(0, 0, 2), (2, 0, 3), (5, 0, 1), (6, 0, 2), (8, 0, 2)]
    with pytest.raises(ValueError, match="merges=3 must be a whole number from 0 to 2"):
        notebook_08.draw_merges(3, "ab", pairs)
    long = notebook_08.draw_merges(0, "a" * 160, pairs).axes[0]
    assert {box.get_y() for box in long.patches} == {0, 1, 2} and len(long.patches) == 160


@pytest.mark.parametrize("text", ["", "a" * 161])
def test_a_text_that_is_too_long_is_refused(text):
    with pytest.raises(ValueError, match="give 1 to 160 of them"):
        notebook_08.draw_costs(text, {"one": (a_model(), TOKENIZER)})


def test_the_spread_is_that_of_the_seeds():
    ax = notebook_08.plot_bits([*ROWS, ROWS[1] | dict(vocab_size=99, seeds=ROWS[1]["seeds"][:1])]).axes[0]
    assert ax.get_title("left") == "Fewest bits per character, 2.20: 512 pieces, equal compute"
    ends = [bar.get_segments()[1][:, 1].tolist() for bar in ax.collections]  # of each line's second point
    assert ends == [pytest.approx([2.2, 2.7]), pytest.approx([2.1, 2.6])]
    live = notebook_08.plot_bits(ROWS, {512: 2.5}).axes[0].lines[-1]
    assert (live.get_xdata().tolist(), live.get_ydata().tolist()) == ([512], [2.5])


def test_a_piece_is_as_dark_as_it_is_dear(monkeypatch):
    monkeypatch.setattr(notebook_08, "bits_of", lambda *args: torch.tensor([0.0, 8.0, 17.0, 30.0]))
    ax = notebook_08.draw_costs("abcd", {"one": (a_model(), TOKENIZER)}).axes[0]
    light = [sum(box.get_facecolor()[:3]) for box in ax.patches]
    assert light[0] > light[1] > light[2] == light[3]


def test_a_passage_has_a_line_break_in_its_middle_if_there_is_one():
    text = "a\nbcdef\nghijkl\nm\n"
    piece = notebook_06.passage_with_line_break(text, 12)
    assert piece in text and piece.count("\n") == 1 and piece.index("\n") in (4, 5)
    assert notebook_06.passage_with_line_break("abcdef" * 3, 4) == "abcd"


def test_an_odd_number_of_tables_fits_too():
    tables = {name: torch.eye(3) for name in ("first", "second", "third")}
    fig = notebook_02.plot_bigram_tables(tables, "abc", "title", "pairs")
    assert [ax.get_title("left") for ax in fig.axes] == [*tables, ""], "three tables and the colour bar"


def test_tables_and_bars_write_the_number_of_a_letter_without_a_font(monkeypatch):
    monkeypatch.setattr(shared, "in_cell", {"a": "a", "一": "4E00"}.get)
    table = notebook_02.plot_bigram_tables({"": torch.eye(2)}, "a一", "title", "pairs").axes[0]
    bars = notebook_02.plot_next_token(torch.tensor([0.0, 1.0]), 1.0, "a一", "title").axes[0]
    for axis, words in ((table.xaxis, "a 4E00"), (table.yaxis, "a 4E00"), (bars.xaxis, "4E00 a")):
        assert [t.get_text() for t in axis.get_ticklabels()] == words.split()


def test_a_window_that_is_not_in_the_text_is_not_drawn():
    for start in (-1, 10):
        with pytest.raises(ValueError, match=f"start={start} must be a whole number from 0 to 9"):
            notebook_01.plot_leak("abcdefghijkl", start, 3, [True, False] * 5, "title")


@pytest.mark.parametrize(
    "settings",
    [dict(temperature=0), dict(temperature=1e-30), dict(top_p=0.0), dict(top_k=0)],
    ids=["zero", "tiny", "top_p", "top_k"],
)
def test_settings_that_cannot_be_drawn_from_are_a_sentence(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        notebook_06.draw_sampling(a_model(), TOKENIZER, "abc", **settings, length=0)


def test_a_letter_without_a_font_is_written_as_its_number(monkeypatch):
    assert not style.has_font("\ufffe"), "no character, so no font has it"
    assert [style.written(c) for c in "a\n\ufffe"] == ["a", "↵", "U+FFFE"]
    monkeypatch.setattr(style, "has_font", lambda c: c < "一")
    ax = shared.plot_characters("a一", [2, 1], "title", "count", [0]).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "U+4E00"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [style.ORANGE, style.BLUE]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a letter that is missing from a font
        figures = [
            notebook_01.plot_examples("a一", "一b", "title"),
            notebook_01.draw_random_batch(torch.arange(50) % 2, CharTokenizer("a一"), 8, 3),
            notebook_01.draw_batch(torch.eye(2).long(), torch.eye(2).long(), CharTokenizer("a一")),
        ]
        for fig in figures:
            style.to_png(fig)
    assert "4E\n00" in [t.get_text() for t in figures[0].axes[0].texts]


def test_another_installed_font_helps_out(monkeypatch):
    font = next(font for font in fontManager.ttflist if font.name == "STIXGeneral")
    monkeypatch.setattr(style, "code_points", lambda path: {0x4E00} if path == font.fname else set())
    style.has_font.cache_clear()
    with plt.rc_context():
        assert style.written("一") == "一" and plt.rcParams["font.family"][-1] == "STIXGeneral"
        assert style.written("二") == "U+4E8C"
    style.has_font.cache_clear()


def test_white_space_can_be_seen():
    assert style.visible("a b\n\t") == "a␣b↵⇥"


def test_neighbouring_parts_differ_in_more_than_colour():
    bars = [container.patches[0] for container in notebook_05.draw_counts(6, 6, 384, 256).axes[0].containers]
    hatches = [bar.get_hatch() or "" for bar in bars]
    assert len(bars) == 6 and all(one != two for one, two in pairwise(hatches))


def test_impossible_counts_are_a_sentence():
    with pytest.raises(ValueError, match="n_embd=100 does not divide into n_head=3"):
        notebook_05.draw_counts(2, 3, 100, 64)


def test_sampling_pictures_refuse_what_cannot_be_sampled():
    with pytest.raises(ValueError, match="The prompt is empty"):
        notebook_06.draw_sampling(a_model(), TOKENIZER, "")
    with pytest.raises(ValueError, match="'z' at position 0"):
        notebook_06.draw_sampling(a_model(), TOKENIZER, "z")


# ---------------------------------------------------------------- panels of the course


def test_the_panel_of_counts_follows_sliders_and_presets(monkeypatch):
    made = notebook_05.panel_of_counts()
    before, controls = picture_of(made), controls_of(made)
    controls["n_layer (blocks)"].value = 3
    assert picture_of(made) != before
    menu = controls["shape of"]
    drawn, draw = [], notebook_05.draw_counts
    monkeypatch.setattr(frame, "to_png", lambda fig: drawn.append(fig) or style.to_png(fig))
    menu.value = "nanogpt-cpu"
    assert (controls["n_embd (channels)"].value, controls["block_size (tokens)"].value) == (128, 64)
    assert len(drawn) == 1, "one picture for all that a preset sets"
    assert picture_of(made) == style.to_png(draw(4, 4, 128, 64)) and menu.value == "nanogpt-cpu"
    controls["n_head (heads)"].value = 7
    assert "n_embd=128 does not divide into n_head=7" in message_of(made)
    assert menu.value == "", "moved by hand, the shape is no preset's any more"


def text_below(made):
    return html.unescape(made.children[-1].value)


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_the_panel_of_sampling_answers_its_controls():
    made = notebook_06.panel_of_sampling(a_model(), TOKENIZER, "abc")
    seen = {picture_of(made)}
    for label, value in (("prompt", "cab"), ("temperature", 1.5), ("top-k (candidates)", 2)):
        controls_of(made)[label].value = value
        seen.add(picture_of(made))
    assert len(seen) == 4
    controls_of(made)["prompt"].value = "x<y"
    assert "'x' at position 0" in message_of(made) and picture_of(made) in seen


def test_the_panel_of_sampling_writes_what_generate_writes():
    model = a_model(dropout=0.5)  # in training mode: the panel must not sample with dropout
    made = notebook_06.panel_of_sampling(model, TOKENIZER, "abc")

    def expected(length, **dials):
        idx, generator = TOKENIZER.encode("abc")[None], torch.Generator().manual_seed(0)
        return TOKENIZER.decode(generate(model, idx, length, **dials, generator=generator)[0])

    assert f">{expected(200, temperature=0.8)}</pre>" in text_below(made), "the first text is there at once"
    first = text_below(made)
    assert model.training, "the learner's own model stays as it is"
    controls_of(made)["top-k (candidates)"].value = 3
    controls_of(made)["length (characters)"].value = 40  # ends the text before
    wait_for(lambda: f">{expected(40, temperature=0.8, top_k=3)}</pre>" in text_below(made))
    assert text_below(made) != first


def test_a_text_streams_in_and_the_next_move_ends_it(monkeypatch):
    started, pieces = [], []

    def slow_text(model, tokenizer, prompt, max_new_tokens, **dials):
        started.append(max_new_tokens)
        for _ in range(max_new_tokens):
            if len(started) > 2:  # not the first picture and the first text
                time.sleep(0.03)
            pieces.append("a")
            yield "a"

    monkeypatch.setattr(notebook_06, "stream_text", slow_text)
    made = notebook_06.panel_of_sampling(a_model(), TOKENIZER, "b")
    length = controls_of(made)["length (characters)"]
    length.value = 600
    wait_for(lambda: "baa" in text_below(made) and text_below(made).count("a") < 150)
    length.value = 20
    wait_for(lambda: f"b{'a' * 20}</pre>" in text_below(made))
    assert started == [200, 200, 600, 20] and len(pieces) < 1000, "the long text was not written to its end"


def test_the_still_of_the_sampling_panel_holds_the_text_too():
    made = notebook_06.panel_of_sampling(a_model(), TOKENIZER, "abc")
    still = base64.b64decode(made._repr_mimebundle_()["image/png"])
    heights = [struct.unpack(">I", raw[20:24])[0] for raw in (still, picture_of(made))]
    assert is_png(still) and heights[0] > heights[1] + 100


@pytest.fixture
def trainer(monkeypatch, text):
    monkeypatch.setattr(notebook_06, "load_corpus", lambda name: Corpus("own", text, "", ""))
    made = notebook_06.panel_of_training(torch.device("cpu"))
    controls = controls_of(made)
    for label, value in (("n_layer (blocks)", 1), ("n_head (heads)", 1), ("n_embd (channels)", 16)):
        controls[label].value = value
    controls["block_size (tokens)"].value, controls["batch_size (sequences)"].value = 8, 4
    controls["max_steps"].value = 5000
    return made


def test_who_only_reads_sees_the_recorded_run(trainer, monkeypatch):
    bundle = trainer._repr_mimebundle_()
    still = base64.b64decode(bundle["image/png"])
    assert is_png(still) and still != picture_of(trainer), "not the empty axes of a run that has not begun"
    fig = notebook_06.recorded_progress("course-cpu")
    assert bundle["text/plain"].endswith(f"\n{fig!r}"), "what stands there as text is of the same picture"
    (run,) = [r for r in load_records("plays") if r["preset"] == "course-cpu"]
    (ax,) = fig.axes
    assert list(ax.lines[0].get_ydata()) == [point["val"] for point in run["evals"]]
    assert f"{run['train_seconds']:.0f} s" in ax.get_title("left")
    assert style.to_png(fig) == still
    monkeypatch.setattr(notebook_06, "load_records", lambda corpus: [])
    assert notebook_06.recorded_progress("course-cpu") is None


def step_of(made):
    """The step that the message of a training panel names."""
    return int(message_of(made).split("at step ")[1].split(":")[0])


def test_the_panel_of_training_trains_stops_and_continues(trainer):
    controls, before = controls_of(trainer), picture_of(trainer)
    train, stop, go_on = (controls[name] for name in ("Train", "Stop", "Continue"))
    assert (train.disabled, stop.disabled, go_on.disabled) == (False, True, True)
    train.click()
    wait_for(lambda: picture_of(trainer) != before)
    assert (train.disabled, stop.disabled, go_on.disabled) == (True, False, True)
    stop.click()
    wait_for(lambda: not train.disabled)
    assert (stop.disabled, go_on.disabled) == (True, False) and "Stopped at step" in message_of(trainer)
    stopped_at = step_of(trainer)
    assert 0 < stopped_at < 5000 and "<pre" in trainer.children[-1].value, "a sample was written"
    go_on.click()
    wait_for(lambda: "parameters on" in message_of(trainer))
    stop.click()
    wait_for(lambda: not train.disabled)
    assert step_of(trainer) > stopped_at, "Continue goes on where Stop ended"
    train.click()
    stop.click()
    wait_for(lambda: not train.disabled)
    assert step_of(trainer) < stopped_at, "Train begins anew"


def test_what_cannot_be_trained_is_a_sentence(trainer):
    controls = controls_of(trainer)
    controls["n_embd (channels)"].value, controls["n_head (heads)"].value = 32, 3
    controls["Train"].click()
    wait_for(lambda: not controls["Train"].disabled)
    assert "n_embd=32 does not divide into n_head=3" in message_of(trainer)
    assert controls["Continue"].disabled


def test_a_preset_sets_the_sliders_of_the_training_panel(trainer):
    controls = controls_of(trainer)
    controls["preset"].value = "nanogpt-char"
    labels = ("n_embd (channels)", "dropout (share)", "batch_size (sequences)", "max_steps")
    assert [controls[label].value for label in labels] == [384, 0.2, 64, 5000]
    assert controls["learning_rate"].value == pytest.approx(1e-3)


def test_the_live_curve_is_shown_once_and_then_updated(monkeypatch):
    shown = []

    class Handle:
        def update(self, image):
            shown.append(image)

    monkeypatch.setattr(notebook_06, "display", lambda image, display_id: shown.append(image) or Handle())
    on_step = notebook_06.live_curve(TrainConfig(max_steps=3), every=1000.0)
    for step in (1, 2, 3):
        on_step(History(step, 0.1, [2.0] * step, EVALS[:1]))
    assert len(shown) == 2, "once at the start, once at the end; not at every step"
    assert all(is_png(image.data) for image in shown) and shown[0].data != shown[1].data


def test_panels_can_be_built_without_a_kernel(made):
    assert isinstance(made, Panel) and made.layout is not None


@pytest.mark.parametrize("preset", ["course-cpu", "nanogpt-cpu"])
def test_muons_rate_moves_along_with_adamws(trainer, preset, text, monkeypatch):
    programs, program = [], notebook_06.TrainingProgram
    monkeypatch.setattr(
        notebook_06, "TrainingProgram", lambda *args: programs.append(program(*args)) or programs[0]
    )
    controls = controls_of(notebook_06.panel_of_training(torch.device("cpu")))
    controls["preset"].value, controls["block_size (tokens)"].value = preset, 8
    recipe = TrainConfig(**notebook_06.PRESETS[preset].train)
    controls["learning_rate"].value = recipe.learning_rate / 2
    config = programs[0].new_run().config
    assert config.learning_rate == pytest.approx(recipe.learning_rate / 2, rel=0.01)
    assert config.muon_learning_rate == pytest.approx(recipe.muon_learning_rate / 2, rel=0.01)
