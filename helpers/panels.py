"""Sliders over a picture: a panel is live in a running notebook and a picture everywhere else."""

import base64
import html
import textwrap
import threading
import time

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image, display
from torch.nn import functional as F

from helpers.data import get_batch, load_corpus
from helpers.device import hardware
from helpers.generate import generate, next_token_probs
from helpers.model import GPTConfig, count_parameters, flops_per_token, parameter_table, training_memory
from helpers.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    WIDTH,
    draw_attention,
    draw_tiles,
    tint,
    to_png,
    visible,
)
from helpers.presets import PRESETS
from helpers.runs import build
from helpers.train import History, TrainConfig, train

PANEL_TEXT = "Panel: run this cell to move the sliders."


class Panel(widgets.VBox):
    """Controls above one picture.

    One stored output serves all readers: the live widget where a kernel runs; on GitHub and in a
    reopened notebook the picture for the settings at the start; and a fixed line for nbval.
    """

    def __init__(self, controls, image, below=(), **kwargs):
        super().__init__([widgets.VBox(controls), image, *below], **kwargs)
        self.image = image

    def _repr_mimebundle_(self, **kwargs):
        return {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            },
            "image/png": base64.b64encode(self.image.value).decode("ascii"),
            "text/plain": PANEL_TEXT,
        }

    def _ipython_display_(self, **kwargs):  # ipywidgets 7 asks for this one first, on Colab
        display(self._repr_mimebundle_(), raw=True)


def panel(draw, **controls):
    """A Panel that calls draw(**values) -> Figure whenever a control changes.

    controls maps the arguments of draw to ipywidgets. A ValueError from draw is shown as a sentence
    in place of the picture; the last good picture stays behind it.
    """
    image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", width="750px"))
    message = widgets.HTML()
    for control in controls.values():
        control.style.description_width = "11em"
        control.layout.width = "min(34em, 100%)"

    def redraw(change=None):
        try:
            image.value = to_png(draw(**{name: c.value for name, c in controls.items()}))
            message.value = ""
        except ValueError as error:
            message.value = f"<b>Not possible:</b> {html.escape(str(error))}"

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return Panel([*controls.values(), message], image)


def int_slider(value, low, high, label, step=1, live=True):
    """A slider over whole numbers. live=False redraws on release, for what takes over 0.1 s."""
    return widgets.IntSlider(
        value=value, min=low, max=high, step=step, description=label, continuous_update=live
    )


def float_slider(value, low, high, label, step=0.05, live=True):
    """A slider over real numbers. live=False redraws on release, for what takes over 0.1 s."""
    return widgets.FloatSlider(
        value=value, min=low, max=high, step=step, description=label, continuous_update=live
    )


def log_slider(value, low, high, label, live=True, step=0.1):
    """A slider over powers of ten: low, high and step are exponents, value is the number itself."""
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
    """A menu; options is a list, or a dict from what is shown to what is meant."""
    return widgets.Dropdown(options=options, value=value, description=label)


def text_field(value, label):
    """A line of text, read when Enter is pressed or the field is left."""
    return widgets.Text(value=value, description=label, continuous_update=False)


# --- notebook 01


def draw_batch(ids, tokenizer, block_size, batch_size, seed=0):
    """A batch as the model gets it: x and y (B, T) as characters, and where in the text they lie.

    One colour a row. The last target of each row is strong: the only character that x does not hold.
    """
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
    left.get_yticklabels()[row].set_color(ORANGE)
    left.get_yticklabels()[row].set_fontweight("bold")
    right.bar(range(T), p.numpy(), color=ORANGE)
    right.axhline(1 / (row + 1 if masked else T), color=GREY, linestyle="--", label="the plain mean")
    right.set_xticks(range(T), [visible(t) for t in tokens], fontsize=7, family="monospace")
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
        for (name, value), colour in zip(parts.items(), COLOURS):
            ax.barh(0, value / unit, left=left, color=colour, label=name)
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
        "n_layer": int_slider(6, 1, 24, "n_layer", live=False),
        "n_head": int_slider(6, 1, 16, "n_head", live=False),
        "n_embd": int_slider(384, 32, 1024, "n_embd", step=32, live=False),
        "block_size": int_slider(256, 32, 1024, "block_size (tokens)", step=32, live=False),
        "vocab_size": choice(vocabularies, vocab_size, "vocab_size"),
    }
    names = {f"{name}: {preset.summary}": name for name, preset in PRESETS.items()}
    menu = choice({"the sliders below": ""} | names, "", "shape of")

    def follow_preset(change):
        if change["new"]:
            shape = {"vocab_size": vocab_size} | PRESETS[change["new"]].model
            for name, control in controls.items():
                control.value = shape[name]

    menu.observe(follow_preset, names="value")
    menu.style.description_width = "11em"
    menu.layout.width = "min(34em, 100%)"
    made = panel(draw_counts, **controls)
    made.children[0].children = (menu, *made.children[0].children)
    return made


# --- notebook 06


def draw_progress(history, config):
    """Loss of a run so far, its validation sweeps, and the time left -> Figure."""
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
    """The next character's probabilities above, what the model writes after the prompt below -> Figure."""
    if not prompt:
        raise ValueError("The prompt is empty: type at least one character.")
    device = next(model.parameters()).device
    dials = dict(temperature=temperature, top_k=min(top_k, tokenizer.vocab_size), top_p=top_p)
    idx = tokenizer.encode(prompt).view(1, -1).to(device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        logits = model(idx[:, -model.config.block_size :])[0][0, -1].cpu()
    probs = next_token_probs(logits, **dials)
    written = tokenizer.decode(generate(model, idx, length, **dials, generator=generator)[0])
    order = logits.argsort(descending=True)[:24]
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(WIDTH, 5.2), height_ratios=[1, 1.3])
    top.bar(range(len(order)), probs[order], color=BLUE)
    top.set_xticks(range(len(order)), [visible(tokenizer.decode([i])) for i in order], family="monospace")
    candidates = int((probs > 0).sum())
    top.set(
        title=f"after “{visible(prompt[-30:])}”: {candidates} candidates", ylabel="probability", ylim=(0, 1)
    )
    lines = [part for line in written.split("\n") for part in (textwrap.wrap(line, 84) or [""])]
    bottom.text(0, 1, "\n".join(lines[:12]), va="top", family="monospace", fontsize=9, parse_math=False)
    bottom.set_axis_off()
    return fig


def panel_of_sampling(model, tokenizer, prompt):
    """Prompt, temperature, top-k, top-p and length over draw_sampling."""

    def draw(**settings):
        return draw_sampling(model, tokenizer, **settings)

    V = tokenizer.vocab_size
    return panel(
        draw,
        prompt=text_field(prompt, "prompt"),
        temperature=float_slider(0.8, 0.1, 2.0, "temperature", live=False),
        top_k=int_slider(V, 1, V, "top-k (candidates)", live=False),
        top_p=float_slider(1.0, 0.05, 1.0, "top-p (probability)", live=False),
        length=int_slider(200, 20, 600, "length (characters)", step=20, live=False),
    )


def panel_of_training(device, corpora=("plays", "tinyshakespeare")):
    """A training program to click: text, preset and sizes; Train, Stop, and Train again to go on.

    It trains in a thread, so that Stop is heard. Changing a setting begins a new run.
    """
    start = "course-gpu" if device.type == "cuda" else "course-cpu"
    at_start = PRESETS[start].model | PRESETS[start].train
    small = [name for name in PRESETS if PRESETS[name].tokenizer == "char"]
    controls = {
        "corpus": choice(list(corpora), corpora[0], "text"),
        "preset": choice(small, start, "preset"),
        "max_steps": int_slider(at_start["max_steps"], 50, 5000, "steps", step=50),
        "batch_size": int_slider(at_start["batch_size"], 4, 128, "batch_size", step=4),
        "learning_rate": log_slider(at_start["learning_rate"], -5, -1, "learning_rate", step=0.001),
        "n_layer": int_slider(at_start["n_layer"], 1, 12, "n_layer"),
        "n_head": int_slider(at_start["n_head"], 1, 12, "n_head"),
        "n_embd": int_slider(at_start["n_embd"], 16, 768, "n_embd", step=16),
        "block_size": int_slider(at_start["block_size"], 8, 256, "block_size", step=8),
        "dropout": float_slider(0.0, 0.0, 0.5, "dropout"),
    }
    for control in controls.values():
        control.style.description_width = "11em"
        control.layout.width = "min(34em, 100%)"
    go = widgets.Button(description="Train", button_style="primary")
    stop = widgets.Button(description="Stop", disabled=True)
    message, sample = widgets.HTML(), widgets.HTML()
    image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", width="750px"))
    config = TrainConfig(**PRESETS[start].train)
    image.value = to_png(draw_progress(History(), config))
    run = {"stop": threading.Event(), "settings": None, "history": None}

    def settings():
        return {name: control.value for name, control in controls.items()}

    def follow_preset(change):
        preset = PRESETS[change["new"]]
        for name, value in ({"dropout": 0.0} | preset.model | preset.train).items():
            if name in controls:
                controls[name].value = value

    def tell(text):
        message.value = f"<b>{html.escape(text)}</b>"

    def work():
        try:
            now = settings()
            if now != run["settings"]:
                corpus = load_corpus(now["corpus"])
                model_names = ("n_layer", "n_head", "n_embd", "block_size", "dropout")
                changes = {name: now[name] for name in model_names}
                train_changes = {name: now[name] for name in ("max_steps", "batch_size", "learning_rate")}
                # Muon's rate moves along with AdamW's.
                recipe = TrainConfig(**PRESETS[now["preset"]].train)
                faster = now["learning_rate"] / recipe.learning_rate
                train_changes["muon_learning_rate"] = recipe.muon_learning_rate * faster
                run.update(
                    zip(
                        ("model", "tokenizer", "train", "val", "config"),
                        build(now["preset"], corpus, changes, train_changes),
                    )
                )
                run.update(settings=now, history=None)
            model, tokenizer, config = run["model"], run["tokenizer"], run["config"]
            last = 0.0

            def on_step(history):
                nonlocal last
                run["history"] = history
                if time.monotonic() - last > 1.0 or history.stopped or history.step == config.max_steps:
                    image.value = to_png(draw_progress(history, config))
                    last = time.monotonic()

            def on_eval(model, history):
                run["history"] = history
                begin = run["train"][:1].view(1, 1).to(device)
                idx = generate(model, begin, 200, top_p=0.9)
                sample.value = f"<pre>{html.escape(tokenizer.decode(idx[0]).strip())}</pre>"

            tell(f"{count_parameters(model):,} parameters on {hardware(device)}")
            history = train(
                model,
                run["train"],
                run["val"],
                config,
                device,
                run["history"],
                on_step=on_step,
                on_eval=on_eval,
                should_stop=run["stop"].is_set,
                progress=False,
            )
            run["history"] = history
            state = "Stopped" if history.stopped else "Finished"
            tell(
                f"{state} at step {history.step}: training loss {history.losses[-1]:.3f} nats; "
                f"validation loss {history.best_val:.3f} at step {history.best_step}."
            )
        except (ValueError, FloatingPointError, torch.OutOfMemoryError) as error:
            tell(str(error).splitlines()[0])
            run["settings"] = None
        finally:
            go.disabled, stop.disabled = False, True

    def on_train(_):
        go.disabled, stop.disabled = True, False
        run["stop"].clear()
        threading.Thread(target=work, daemon=True).start()

    go.on_click(on_train)
    stop.on_click(lambda _: run["stop"].set())
    controls["preset"].observe(follow_preset, names="value")
    return Panel([*controls.values(), widgets.HBox([go, stop]), message], image, [sample])


# --- notebook 04


def draw_attention_explorer(maps, tokens, layer, head):
    """One attention map, large, beside small ones of all heads; maps is a list, one (1, H, T, T) a layer."""
    weights = maps[layer][0, head].cpu().numpy()  # (T, T)
    n_layer, n_head, T = len(maps), maps[0].shape[1], len(tokens)
    fig, (ax, small) = plt.subplots(1, 2, figsize=(WIDTH, 4.6), width_ratios=[4.4, 2.4])
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
