"""The pictures of notebook 05: the parts of a block, and the panel that counts what a GPT costs."""

import matplotlib.pyplot as plt
import torch

from helpers.checks import check_whole
from helpers.model import GPTConfig, flops_per_token, parameter_table, training_memory
from helpers.pictures.panel import choice, int_slider, panel
from helpers.pictures.style import COLOURS, GREY, WIDTH, figure_title, to_numpy
from helpers.presets import PRESETS


def plot_functions(functions, title, low=-4.0, high=4.0):
    """Functions of one number: functions maps a label to a map of tensors."""
    x = torch.linspace(low, high, 201)
    fig, ax = plt.subplots(figsize=(WIDTH * 0.6, 2.6))
    for (label, function), style in zip(functions.items(), ("-", "--", ":")):
        ax.plot(x, to_numpy(function(x)), style, label=label)
    ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    ax.set(title=title, xlabel="before", ylabel="after")
    ax.legend()
    return fig


def plot_by_layer(curves, title, ylabel, logarithmic=True, height=2.9):
    """One value a layer: curves maps a label to a list, layer 0 next to the input."""
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
    fig, axes = plt.subplots(2, len(tables), figsize=(WIDTH, 5.6), height_ratios=[1, 1.7], squeeze=False)
    for (top, bottom), (name, table) in zip(axes.T, tables.items()):
        table = table.detach().float()
        unit = table / table.norm(dim=1, keepdim=True)
        top.imshow(to_numpy(table), aspect="auto", cmap="viridis", interpolation="nearest")
        top.set(title=f"{name}: the table", xlabel="channel", ylabel="position")
        cosines = to_numpy(unit @ unit.T)
        image = bottom.imshow(cosines, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        bottom.set(title=f"{name}: how alike two are", xlabel="position", ylabel="position")
    fig.colorbar(image, ax=axes[1, :], label="cosine", shrink=0.8)
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
    work = {"weights": flops - scores, "attention scores": scores}
    tokens = batch_size * block_size
    gib = f"{sum(memory.values()) / 2**30:.2f} GiB to train on {batch_size} sequences of {block_size}"
    a_step = f"{flops * tokens / 1e12:.2f} TFLOP a step of {tokens:,} tokens"
    rows = [
        (parameters, 1e6, f"{sum(parameters.values()):,} parameters", "millions of parameters"),
        (memory, 2**30, gib, "GiB in float32, without dropout"),
        (work, 1e6, f"{flops / 1e6:,.1f} MFLOP a token, {a_step}", "MFLOP a token, forward and backward"),
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
