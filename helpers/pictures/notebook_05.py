"""The pictures of notebook 05: the parts of a block, and the panel that counts what a GPT costs."""

import matplotlib.pyplot as plt
from torch.nn import functional as F

from helpers.checks import check_whole
from helpers.model import GPTConfig, flops_per_token, parameter_table, training_memory
from helpers.pictures.panel import choice, int_slider, panel
from helpers.pictures.style import COLOURS, GREY, WIDTH, figure_title, to_numpy
from helpers.presets import PRESETS


def plot_by_layer(curves, title, ylabel):
    """One value a block, on a logarithmic axis: curves maps a label to a list, block 0 next to the input."""
    fig, ax = plt.subplots(figsize=(WIDTH, 2.9))
    for (label, values), marker in zip(curves.items(), "osD^v"):
        ax.plot(range(len(values)), values, marker=marker, ms=5, label=label)
    ax.set(yscale="log", title=title, xlabel="block (0 is next to the input)", ylabel=ylabel)
    ax.set_xticks(range(len(values)))
    ax.legend()
    return fig


def plot_positions(table, title):
    """A table of position vectors (T, C): the cosine of every two, and its mean at each distance."""
    unit = F.normalize(table.detach().float(), dim=1)
    cosines = unit @ unit.T  # (T, T)
    distances = range(1, len(cosines))
    means = [cosines.diagonal(distance).mean().item() for distance in distances]
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.3))
    image = left.imshow(to_numpy(cosines), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
    left.set(xlabel="position", ylabel="position")
    fig.colorbar(image, ax=left, label="cosine", shrink=0.9)
    right.plot(distances, means, marker="o", ms=3)
    right.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    right.set(xlabel="distance (positions)", ylabel="mean cosine")
    figure_title(fig, title)
    return fig


# ---------------------------------------------------------------- what a GPT costs

HATCHES = ["", "//", "", "\\\\", "", ".."]  # neighbours differ in more than colour


def draw_counts(n_layer, n_head, n_embd, block_size, vocab_size=65, batch_size=64):
    """Parameters, training memory and FLOPs of a GPT, each as one bar in parts -> Figure.

    Raises ValueError if n_head does not divide n_embd.
    """
    check_whole("batch_size", batch_size)
    config = GPTConfig(vocab_size, block_size, n_layer, n_head, n_embd)
    parameters = parameter_table(config)
    memory = training_memory(config, batch_size)
    flops = flops_per_token(config)
    scores = 12 * n_layer * n_embd * block_size
    work = {"weights": flops - scores, "scores and weighted sums": scores}
    tokens = batch_size * block_size
    gib = f"{sum(memory.values()) / 2**30:.2f} GiB to train on {batch_size} sequences of {block_size}"
    a_step = f"{flops * tokens / 1e9:,.0f} billion a step of {tokens:,} tokens"
    rows = [
        (parameters, 1e6, f"{sum(parameters.values()):,} parameters", "millions of parameters"),
        (memory, 2**30, gib, "GiB in float32, without dropout"),
        (
            work,
            1e6,
            f"{flops / 1e6:,.1f} million operations a token, {a_step}",
            "millions of operations a token",
        ),
    ]
    fig = plt.figure(figsize=(WIDTH, 4.8), layout="none")
    for i, (parts, unit, title, xlabel) in enumerate(rows):
        ax = fig.add_axes([0.03, 0.845 - 0.335 * i, 0.94, 0.09])
        draw_parts(ax, parts, unit)
        ax.set(title=title, xlabel=xlabel)
    return fig


def draw_parts(ax, parts, unit):
    """One bar cut into parts: parts maps a name to a number, which is drawn divided by unit."""
    left = 0
    for (name, value), colour, hatch in zip(parts.items(), COLOURS, HATCHES):
        ax.barh(0, value / unit, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
        left += value / unit
    ax.set(yticks=[], xlim=(0, left))
    ax.xaxis.labelpad = 1
    ax.spines["left"].set_visible(False)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(-0.01, -0.95),
        ncols=6,
        fontsize=8,
        handlelength=1,
        handletextpad=0.4,
        columnspacing=0.9,
        borderpad=0,
    )


def panel_of_counts(vocab_size=65):
    """Sliders for the shape of a GPT over draw_counts, and a menu of presets that sets them."""
    vocabularies = {f"{vocab_size} characters": vocab_size, "1,024 byte pairs": 1024, "50,257 (GPT-2)": 50257}
    controls = {
        "n_layer": int_slider(6, 1, 24, "n_layer (blocks)"),
        "n_head": int_slider(6, 1, 16, "n_head (heads)"),
        "n_embd": int_slider(384, 32, 1024, "n_embd (channels)", step=32),
        "block_size": int_slider(256, 32, 1024, "block_size (tokens)", step=32),
        "vocab_size": choice(vocabularies, vocab_size, "vocab_size (tokens)"),
    }
    names = {f"{name}: {preset.summary}": name for name, preset in PRESETS.items()}
    menu = choice({"the sliders below": ""} | names, "", "shape of")
    made = panel(draw_counts, **controls)

    def follow_preset(change):
        if change["new"]:
            shape = {"vocab_size": vocab_size} | PRESETS[change["new"]].model
            made.paused = True  # one picture for five controls
            for name, control in controls.items():
                control.value = shape[name]
            made.paused = False
            made.redraw()

    def moved_by_hand(change):
        if not made.paused:
            menu.value = ""

    menu.observe(follow_preset, names="value")
    for control in controls.values():
        control.observe(moved_by_hand, names="value")
    menu.style, menu.layout = controls["vocab_size"].style, controls["vocab_size"].layout
    made.children[0].children = (menu, *made.children[0].children)
    return made
