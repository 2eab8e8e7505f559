"""Sliders over a picture: a panel is live in a running notebook and a picture everywhere else."""

import base64
import copy
import html
import textwrap
import threading
import time
from collections.abc import Callable

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image, display
from torch.nn import functional as F

from helpers.checks import check_choice, check_kind, check_number, check_whole, shown
from helpers.data import get_batch, load_corpus
from helpers.device import hardware, pick_device
from helpers.generate import generate, next_token_probs, stream_text
from helpers.model import GPT, GPTConfig, count_parameters, flops_per_token, parameter_table, training_memory
from helpers.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    WIDTH,
    check_list,
    check_maps,
    draw_attention,
    draw_tiles,
    label_axis,
    tint,
    to_png,
    visible,
)
from helpers.presets import PRESETS
from helpers.runs import build
from helpers.train import History, TrainConfig, train

PANEL_TEXT = "Panel: run this cell to move the sliders."
# Out of sight, but read aloud: ipywidgets gives an image no alternative text.
SPOKEN = '<span aria-live="polite" style="position:absolute; clip-path:inset(50%)">Picture: {}</span>'


class Panel(widgets.VBox):
    """Controls above one picture; the widgets in `below` come under it.

    One stored output serves all readers: the live widget where a kernel runs; on GitHub and in a
    reopened notebook the picture for the settings at the start; and a fixed line for nbval.
    """

    def __init__(self, controls, below=()):
        for control in controls:
            control.layout.width = "min(36em, 100%)"  # of the page, if that is narrower
            if hasattr(control, "description"):
                control.style.description_width = "13em"
        self.message = widgets.HTML()
        self.image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", width="750px"))
        self.spoken = widgets.HTML(layout=widgets.Layout(height="0", margin="0", overflow="hidden"))
        self.still = None  # a picture for those who only read, where the live one is not enough
        super().__init__([widgets.VBox([*controls, self.message]), self.image, self.spoken, *below])

    def show(self, fig):
        """Put a Figure in place of the picture. Its titles are what a screen reader says."""
        titles = [fig.get_suptitle(), *(ax.get_title("left") or ax.get_title() for ax in fig.axes)]
        self.spoken.value = SPOKEN.format(html.escape("; ".join(filter(None, titles))))
        self.image.value = to_png(fig)

    def say(self, text):
        """Put a sentence between the controls and the picture; an empty one takes it away."""
        self.message.value = f"<b>{html.escape(text)}</b>" if text else ""

    def _repr_mimebundle_(self, **kwargs):
        return {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            },
            "image/png": base64.b64encode(self.still or self.image.value).decode("ascii"),
            "text/plain": PANEL_TEXT,
        }

    def _ipython_display_(self, **kwargs):  # ipywidgets 7 asks for this one first, on Colab
        display(self._repr_mimebundle_(), raw=True)


def panel(draw, then=None, below=(), /, **controls):
    """A Panel that calls draw(**values) -> Figure, then then(**values), whenever a control changes.

    controls maps the arguments of draw to ipywidgets. A ValueError is shown as a sentence above the
    picture, which stays as it was. While .paused is true nothing is drawn; .redraw() makes up for it.
    """
    check_kind("draw", draw, Callable, "a function that returns a Figure")
    for name, control in controls.items():
        check_kind(name, control, widgets.DOMWidget, "a control, such as int_slider(1, 0, 9, 'label')")
    made = Panel(controls.values(), below)

    def redraw(change=None):
        if made.paused:
            return
        values = {name: control.value for name, control in controls.items()}
        try:
            made.show(draw(**values))
            if then is not None:
                then(**values)
            made.say("")
        except (ValueError, FloatingPointError, MemoryError, torch.OutOfMemoryError) as error:
            made.say(f"Not possible: {first_line(error)}")

    made.paused, made.redraw = False, redraw
    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return made


def first_line(error):
    """What an error says, for a panel: its first line, or its name if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def check_range(label, value, low, high):
    """Raise ValueError unless value lies from low to high, all three finite numbers."""
    for name, number in (("low", low), ("high", high)):
        check_number(f"{name} of {label!r}", number)
    check_number(f"value of {label!r}", value, least=low, most=high)


def int_slider(value, low, high, label, step=1, live=True):
    """A slider over whole numbers. live=False redraws on release, for what takes over 0.1 s."""
    check_range(label, value, low, high)
    return widgets.IntSlider(
        value=value, min=low, max=high, step=step, description=label, continuous_update=live
    )


def float_slider(value, low, high, label, step=0.05, live=True):
    """A slider over real numbers. live=False redraws on release, for what takes over 0.1 s."""
    check_range(label, value, low, high)
    return widgets.FloatSlider(
        value=value, min=low, max=high, step=step, description=label, continuous_update=live
    )


def log_slider(value, low, high, label, live=True, step=0.1):
    """A slider over powers of ten: low, high and step are exponents, value is the number itself."""
    check_range(label, value, 10**low, 10**high)
    return widgets.FloatLogSlider(
        value=value,
        min=low,
        max=high,
        step=step,
        description=label,
        continuous_update=live,
        readout_format=".2g",
    )


def choice(options, value, label):
    """A menu; options is a list of values or of pairs (shown, value), or a dict from shown to value."""
    check_kind("options", options, list | dict, "a list, or a dict from what is shown to what is meant")
    pairs = options.items() if isinstance(options, dict) else options
    meant = [option[1] if isinstance(option, tuple) else option for option in pairs]
    if value not in meant:
        raise ValueError(f"value={shown(value)} of {label!r} must be among the options, {shown(meant)}.")
    return widgets.Dropdown(options=options, value=value, description=label)


def text_field(value, label):
    """A line of text, read when Enter is pressed or the field is left."""
    check_kind("value", value, str, "a text")
    return widgets.Text(value=value, description=label, continuous_update=False)


# --- notebook 01


def draw_batch(ids, tokenizer, block_size, batch_size, seed=0):
    """A batch as the model gets it: x and y (B, T) as characters, and where in the text they lie.

    One colour a row. The last target of each row is strong: the only character that x does not hold.
    """
    check_whole("seed", seed, least=0, most=2**63 - 1)
    x, y = get_batch(ids, block_size, batch_size, torch.Generator().manual_seed(seed))
    # The same seed draws the same offsets again.
    starts = torch.randint(
        len(ids) - block_size, (batch_size,), generator=torch.Generator().manual_seed(seed)
    )
    fig = plt.figure(figsize=(WIDTH, 0.3 * batch_size + 1.45), layout="none")
    high = fig.get_figheight()
    strip = fig.add_axes([0.06, 1 - 0.48 / high, 0.92, 0.16 / high])
    strip.axvspan(0, len(ids), color=tint(GREY, 0.2))
    for b, start in enumerate(starts.tolist()):
        strip.axvline(start, color=COLOURS[b % 6], lw=3)
    strip.set(xlim=(0, len(ids)), yticks=[], xticks=[0, len(ids)])
    strip.set_xticklabels(["character 0", f"{len(ids):,}"], fontsize=8)
    for label, side in zip(strip.get_xticklabels(), ("left", "right")):
        label.set_ha(side)
    strip.tick_params(length=0)
    strip.spines[:].set_visible(False)
    strip.set_title(f"{batch_size} windows of {block_size} characters, drawn from the training text")
    for left, name, part in ((0.06, "x: what the model sees", x), (0.54, "y: what comes next", y)):
        ax = fig.add_axes([left, 0.32 / high, 0.44, 0.3 * batch_size / high])
        rows = []
        for b, row in enumerate(part.tolist()):
            strengths = [0.35] * block_size
            if part is y:
                strengths[-1] = 0.75
            rows.append([(c, tint(COLOURS[b % 6], s)) for c, s in zip(tokenizer.decode(row), strengths)])
        draw_tiles(ax, rows, fontsize=min(11, 170 / block_size))
        ax.set(yticks=range(batch_size), xticks=sorted({0, block_size - 1}))
        ax.set_yticklabels(range(batch_size), fontsize=8)
        ax.set_xticklabels([f"t = {t}" for t in sorted({0, block_size - 1})], fontsize=8)
        ax.set_title(f"{name}   ({batch_size}, {block_size})", fontsize=10)
    return fig


# --- notebook 03


def draw_fresh_head(tokens, temperature=1.0, head_size=64, masked=True, divisor="sqrt(head size)"):
    """The attention map of random queries and keys (variance 1), and its middle row as bars -> Figure.

    divisor: what the scores are divided by before the temperature, a key of DIVISORS.
    """
    check_list("tokens", tokens)
    check_number("temperature", temperature, above=0)
    check_whole("head_size", head_size, most=512)
    check_choice("divisor", divisor, DIVISORS)
    T = len(tokens)
    generator = torch.Generator().manual_seed(3)
    q, k = torch.randn(2, T, 512, generator=generator)[:, :, :head_size]  # (T, D) each
    scores = q @ k.T / DIVISORS[divisor](head_size) / temperature
    if masked:
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
    weights = F.softmax(scores, dim=-1)
    row = T // 2
    p = weights[row]
    width = torch.special.entr(p).sum().exp().item()  # e to the entropy: how many it looks at
    fig = plt.figure(figsize=(WIDTH, 3.5), layout="none")  # constrained layout would take 0.1 s
    left, right = fig.add_axes([0.07, 0.14, 0.38, 0.76]), fig.add_axes([0.54, 0.14, 0.44, 0.76])
    draw_attention(left, weights.numpy(), tokens, fontsize=7)
    left.set(title="attention weights", xlabel="key: the character looked at", ylabel="query")
    left.add_patch(plt.Rectangle((-0.5, row - 0.5), T, 1, fill=False, edgecolor=ORANGE, linewidth=2))
    right.bar(range(T), p.numpy(), color=ORANGE)
    right.axhline(1 / (row + 1 if masked else T), color=GREY, linestyle="--", label="the plain mean")
    label_axis(right, "x", tokens, fontsize=7)
    right.set(ylim=(0, 1), xlabel="key", ylabel="weight")
    right.set_title(f"row {row}, {visible(tokens[row])!r}, spreads over {width:.1f} characters")
    right.legend(loc="upper right")
    return fig


DIVISORS = {
    "sqrt(head size)": lambda head_size: head_size**0.5,
    "nothing": lambda head_size: 1.0,
    "sqrt(n_embd), here 512": lambda head_size: 512**0.5,
}


# --- notebook 05

HATCHES = ["", "//", "", "\\\\", "", ".."]  # neighbours differ in more than colour


def draw_counts(n_layer, n_head, n_embd, block_size, vocab_size=65, batch_size=64):
    """Parameters, training memory and FLOPs of a GPT, each as one bar in parts -> Figure.

    Raises ValueError if n_head does not divide n_embd.
    """
    config = GPTConfig(vocab_size, block_size, n_layer, n_head, n_embd)
    parameters = parameter_table(config)
    memory = training_memory(config, batch_size)
    flops = flops_per_token(config)
    scores = 12 * n_layer * n_embd * block_size
    work = {"weights": flops - scores, "attention scores": scores}
    tokens = batch_size * block_size
    a_step = f"{flops * tokens / 1e12:.2f} TFLOP a step of {tokens:,} tokens"
    rows = [
        (f"{sum(parameters.values()):,} parameters", parameters, 1e6, "millions of parameters"),
        (
            f"{sum(memory.values()) / 2**30:.2f} GiB to train on {batch_size} sequences of {block_size}",
            memory,
            2**30,
            "GiB in float32, without dropout",
        ),
        (f"{flops / 1e6:,.1f} MFLOP a token, {a_step}", work, 1e6, "MFLOP a token, forward and backward"),
    ]
    fig = plt.figure(figsize=(WIDTH, 4.8), layout="none")
    for i, (title, parts, unit, xlabel) in enumerate(rows):
        ax = fig.add_axes([0.03, 0.845 - 0.335 * i, 0.94, 0.09])
        left = 0
        for (name, value), colour, hatch in zip(parts.items(), COLOURS, HATCHES):
            ax.barh(0, value / unit, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
            left += value / unit
        ax.set(title=title, xlabel=xlabel, yticks=[], xlim=(0, left))
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
    return fig


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
    made = panel(draw_counts, None, (), **controls)

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


# --- notebook 06


def draw_progress(history, config):
    """Loss of a run so far, its validation sweeps, and the time left -> Figure."""
    check_kind("history", history, History, "what train returned")
    check_kind("config", config, TrainConfig, "a TrainConfig, such as TrainConfig(max_steps=100)")
    fig = plt.Figure(figsize=(WIDTH, 3.2))  # not pyplot's: this one may be drawn in a thread
    ax = fig.subplots()
    losses = history.losses
    width = max(1, min(20, len(losses) // 4))
    if losses:
        means = np.convolve(losses, np.ones(width) / width, mode="valid")
        ax.plot(np.arange(len(means)) + width, means, color=SKY, label="training batches")
    evals = history.evals
    steps, vals = [p["step"] for p in evals], [p["val"] for p in evals]
    ax.plot(steps, vals, "s-", color=ORANGE, ms=4, label="validation text")
    done = history.step / config.max_steps
    left = history.train_seconds * (1 - done) / max(done, 1e-9)
    when = "finished" if done == 1 else "stopped" if history.stopped else f"about {left:.0f} s left"
    if not done:
        when = "not begun"
    ax.set_title(f"step {history.step} of {config.max_steps}, {when}")
    ax.set(xlabel="step", ylabel="loss (nats per token)", xlim=(0, config.max_steps))
    ax.axhline(0, xmax=done, color=GREEN, linewidth=6, clip_on=False)  # the progress bar
    ax.set_ylim(0, max([*losses[:1], *(p["val"] for p in evals), 1.0]) * 1.05)
    ax.legend(loc="upper right")
    return fig


def live_curve(config, every=2.0):
    """An on_step for train() that shows draw_progress in the cell, at most each `every` seconds."""
    handle = display(_as_image(draw_progress(History(), config)), display_id=True)
    last = time.monotonic()

    def on_step(history):
        nonlocal last
        over = history.step == config.max_steps or history.stopped
        if over or time.monotonic() - last > every:
            handle.update(_as_image(draw_progress(history, config)))
            last = time.monotonic()

    return on_step


def _as_image(fig):
    return Image(data=to_png(fig), format="png")


def draw_sampling(model, tokenizer, prompt, temperature=1.0, top_k=65, top_p=1.0, length=200):
    """The next character's probabilities above, what the model writes after the prompt below -> Figure.

    length=0 draws the probabilities alone. Raises ValueError for a prompt that cannot be encoded.
    """
    check_gpt(model, tokenizer)
    check_whole("top_k", top_k)
    check_whole("length", length, least=0)
    if not prompt:
        raise ValueError("The prompt is empty: type at least one character.")
    device = next(model.parameters()).device
    dials = dict(temperature=temperature, top_k=min(top_k, tokenizer.vocab_size), top_p=top_p)
    idx = tokenizer.encode(prompt).view(1, -1).to(device)
    with torch.no_grad():
        logits = model(idx[:, -model.config.block_size :])[0][0, -1].float().cpu()
    probs = next_token_probs(logits, **dials)
    order = logits.argsort(descending=True)[:24]
    high = 5.2 if length else 2.4
    fig = plt.figure(figsize=(WIDTH, high), layout="none")
    ax = fig.add_axes([0.08, 1 - 2.0 / high, 0.9, 1.6 / high])
    ax.bar(range(len(order)), probs[order], color=BLUE)
    label_axis(ax, "x", [tokenizer.decode([i]) for i in order])
    candidates = int((probs > 0).sum())
    ax.set_title(f"after “{visible(prompt[-30:])}”: {candidates} candidates")
    ax.set(ylabel="probability", ylim=(0, 1))
    ax.margins(x=0.01)
    if length:
        generator = torch.Generator(device).manual_seed(0)
        written = prompt + "".join(
            stream_text(model, tokenizer, prompt, length, **dials, generator=generator)
        )
        lines = [part for line in written.split("\n") for part in (textwrap.wrap(line, 84) or [""])]
        text = dict(va="top", family="monospace", fontsize=9, parse_math=False)
        fig.text(0.08, 1 - 2.5 / high, "\n".join(lines[:14]), **text)
    return fig


def check_gpt(model, tokenizer):
    """Raise ValueError unless model is a GPT, and tokenizer can encode for it."""
    check_kind("model", model, GPT, "a GPT")
    if not hasattr(tokenizer, "vocab_size"):
        raise ValueError(f"tokenizer={shown(tokenizer)} cannot encode: give the one of the model's text.")


def panel_of_sampling(model, tokenizer, prompt):
    """Prompt, temperature, top-k, top-p and length: the bars answer at once, the text streams in below.

    It samples from a copy of the model as it is now, in a thread, so that the next move is heard.
    """
    check_gpt(model, tokenizer)
    model = copy.deepcopy(model).float().eval()
    V, device = tokenizer.vocab_size, next(model.parameters()).device
    text = widgets.HTML()
    stop, writer = threading.Event(), threading.Thread()

    def draw(length, **dials):
        return draw_sampling(model, tokenizer, **dials, length=0)

    def write(prompt, length, **dials):
        generator = torch.Generator(device).manual_seed(0)
        pieces = stream_text(model, tokenizer, prompt, length, **dials, generator=generator)
        written, shown = prompt, 0.0
        for piece in pieces:
            if stop.is_set():
                return
            written += piece
            if time.monotonic() - shown > 0.05:  # the page cannot follow every character
                text.value, shown = preformatted(written), time.monotonic()
        text.value = preformatted(written)

    def begin_to_write(**settings):
        nonlocal writer
        if made is None:
            write(**settings)  # the first text is there before the next cell runs
            return
        if writer.is_alive():
            stop.set()
            writer.join()
        stop.clear()
        writer = threading.Thread(target=write, kwargs=settings, daemon=True)
        writer.start()

    controls = dict(
        prompt=text_field(prompt, "prompt"),
        temperature=float_slider(0.8, 0.1, 2.0, "temperature"),
        top_k=int_slider(V, 1, V, "top-k (candidates)"),
        top_p=float_slider(1.0, 0.05, 1.0, "top-p (probability)"),
        length=int_slider(200, 20, 600, "length (characters)", step=20),
    )
    made = None
    made = panel(draw, begin_to_write, [text], **controls)
    made.still = to_png(draw_sampling(model, tokenizer, **{n: c.value for n, c in controls.items()}))
    return made


def preformatted(text):
    """Text as HTML that keeps its line breaks, and wraps where the page ends."""
    return f'<pre style="white-space:pre-wrap; overflow-wrap:anywhere">{html.escape(text)}</pre>'


def panel_of_training(device, corpora=("plays", "tinyshakespeare")):
    """A training program to click: text, preset and sizes; Train, Stop, Continue; curve, sample, time left.

    It trains in a thread, so that Stop is heard. Train begins anew with the settings in view; Continue
    goes on with the run that was stopped, as it was set.
    """
    device = pick_device(device)
    start = "course-gpu" if device.type == "cuda" else "course-cpu"
    at_start = PRESETS[start].model | PRESETS[start].train
    small = [name for name in PRESETS if PRESETS[name].tokenizer == "char"]
    of_train = {
        "max_steps": int_slider(at_start["max_steps"], 50, 5000, "max_steps", step=50),
        "batch_size": int_slider(at_start["batch_size"], 4, 128, "batch_size (sequences)", step=4),
        "learning_rate": log_slider(at_start["learning_rate"], -5, -1, "learning_rate", step=0.001),
    }
    of_model = {
        "n_layer": int_slider(at_start["n_layer"], 1, 12, "n_layer (blocks)"),
        "n_head": int_slider(at_start["n_head"], 1, 12, "n_head (heads)"),
        "n_embd": int_slider(at_start["n_embd"], 16, 768, "n_embd (channels)", step=16),
        "block_size": int_slider(at_start["block_size"], 8, 256, "block_size (tokens)", step=8),
        "dropout": float_slider(at_start.get("dropout", 0.0), 0.0, 0.5, "dropout (share)"),
    }
    text, preset = choice(list(corpora), corpora[0], "text"), choice(small, start, "preset")
    go = widgets.Button(description="Train", button_style="primary")
    stop = widgets.Button(description="Stop", disabled=True)
    go_on = widgets.Button(description="Continue", disabled=True)
    sample = widgets.HTML()
    controls = [text, preset, *of_train.values(), *of_model.values(), widgets.HBox([go, stop, go_on])]
    made = Panel(controls, [sample])
    made.show(draw_progress(History(), TrainConfig(**PRESETS[start].train)))
    asked, run = threading.Event(), {}  # run: what build makes, by name, and the history

    def follow_preset(change):
        settings = {"dropout": 0.0} | PRESETS[change["new"]].model | PRESETS[change["new"]].train
        for name, control in (of_train | of_model).items():
            control.value = settings[name]

    def new_run():
        recipe = PRESETS[preset.value].train
        changes = {name: control.value for name, control in of_train.items()}
        # Muon's rate moves along with AdamW's.
        faster = changes["learning_rate"] / recipe["learning_rate"]
        changes["muon_learning_rate"] = TrainConfig(**recipe).muon_learning_rate * faster
        shape = {name: control.value for name, control in of_model.items()}
        parts = build(preset.value, load_corpus(text.value), shape, changes)
        return dict(zip(("model", "tokenizer", "train", "val", "config"), parts), history=None)

    def work(fresh):
        nonlocal run
        try:
            if fresh:
                run = new_run()
            drawn = 0.0

            def on_step(history):
                nonlocal drawn
                over = history.stopped or history.step == run["config"].max_steps
                if over or time.monotonic() - drawn > 1.0:
                    made.show(draw_progress(history, run["config"]))
                    drawn = time.monotonic()

            def on_eval(model, history):
                begin = run["train"][:1].view(1, 1).to(device)
                written = generate(model, begin, 200, top_p=0.9)[0]
                sample.value = preformatted(run["tokenizer"].decode(written).strip())

            made.say(f"{count_parameters(run['model']):,} parameters on {hardware(device)}")
            run["history"] = history = train(
                run["model"],
                run["train"],
                run["val"],
                run["config"],
                device,
                run["history"],
                on_step=on_step,
                on_eval=on_eval,
                should_stop=asked.is_set,
                progress=False,
            )
            state = "Stopped" if history.stopped else "Finished"
            made.say(
                f"{state} at step {history.step}: training loss {history.losses[-1]:.3f} nats; "
                f"validation loss {history.best_val:.3f} at step {history.best_step}."
            )
        except (ValueError, FloatingPointError, OSError, torch.OutOfMemoryError) as error:
            made.say(first_line(error))
            run = {}
        finally:
            stopped = run.get("history") is not None and run["history"].stopped
            go.disabled, stop.disabled, go_on.disabled = False, True, not stopped

    def begin(fresh):
        go.disabled, stop.disabled, go_on.disabled = True, False, True
        asked.clear()
        threading.Thread(target=work, args=(fresh,), daemon=True).start()

    go.on_click(lambda _: begin(fresh=True))
    go_on.on_click(lambda _: begin(fresh=False))
    stop.on_click(lambda _: asked.set())
    preset.observe(follow_preset, names="value")
    return made


# --- notebook 04


def draw_attention_explorer(maps, tokens, layer, head):
    """One attention map, large, beside small ones of all heads; maps is a list, one (1, H, T, T) a layer."""
    check_maps(maps)
    check_list("tokens", tokens, maps[0].shape[2])
    check_whole("layer", layer, least=0, most=len(maps) - 1)
    check_whole("head", head, least=0, most=maps[0].shape[1] - 1)
    weights = maps[layer][0, head].cpu().numpy()  # (T, T)
    n_layer, n_head, T = len(maps), maps[0].shape[1], len(tokens)
    fig = plt.figure(figsize=(WIDTH, 4.8), layout="none")  # constrained layout would take 0.1 s
    ax, small = fig.add_axes([0.07, 0.1, 0.5, 0.78]), fig.add_axes([0.69, 0.1, 0.29, 0.78])
    draw_attention(ax, weights, tokens, fontsize=8 if T > 20 else 9)
    best = int(weights[-1].argmax())
    ax.set_title(
        f"Layer {layer}, head {head}: the last “{visible(tokens[-1])}” looks most\n"
        f"at “{visible(tokens[best])}”, {T - 1 - best} back, with weight {weights[-1, best]:.2f}"
    )
    ax.set(xlabel="key: the character looked at", ylabel="query: the character that looks")
    gap = T / 12  # between the small maps
    for i in range(n_layer):
        for h in range(n_head):
            left, top = i * (T + gap), h * (T + gap)
            small.imshow(
                maps[i][0, h].cpu().numpy() ** 0.5,
                vmin=0,
                vmax=1,
                extent=(left, left + T, top + T, top),
                interpolation="nearest",
            )
    corner = layer * (T + gap), head * (T + gap)
    small.add_patch(plt.Rectangle(corner, T, T, fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False))
    small.set(xlim=(0, n_layer * (T + gap) - gap), ylim=(n_head * (T + gap) - gap, 0), title="All heads")
    small.set_xticks([i * (T + gap) + T / 2 for i in range(n_layer)], [f"layer {i}" for i in range(n_layer)])
    small.set_yticks([h * (T + gap) + T / 2 for h in range(n_head)], [f"head {h}" for h in range(n_head)])
    small.tick_params(length=0, labelsize=8)
    small.spines[:].set_visible(False)
    return fig
