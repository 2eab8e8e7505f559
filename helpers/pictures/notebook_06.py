"""The pictures of notebook 06: a run and its losses; the panels that sample from a model and train one."""

import copy
import textwrap
import threading
import time
from dataclasses import dataclass

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from IPython.display import Image, display

from helpers.checks import check_whole, out_of_memory_as
from helpers.data import load_corpus
from helpers.device import hardware, pick_device
from helpers.generate import check_sampling, generate, next_token_probs, stream_text
from helpers.model import GPT, count_parameters
from helpers.pictures.panel import (
    Panel,
    choice,
    first_line,
    float_slider,
    int_slider,
    log_slider,
    panel,
    preformatted,
    text_field,
)
from helpers.pictures.shared import draw_attention, label_axis, running_mean
from helpers.pictures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    WIDTH,
    figure_title,
    in_title,
    tint,
    to_png,
    written,
)
from helpers.presets import PRESETS
from helpers.program.build import build, check_batch_fits, too_large
from helpers.program.records import load_records
from helpers.train import Callbacks, History, TrainConfig, train

# ---------------------------------------------------------------- a run while it trains, and afterwards


def draw_progress(history, config):
    """Loss of a run so far, its validation sweeps, and the time left -> Figure."""
    fig = plt.Figure(figsize=(WIDTH, 3.2))  # not pyplot's: this one may be drawn in a thread
    ax = fig.subplots()
    losses, evals = history.losses, history.evals
    if losses:
        ax.plot(*running_mean(losses, 20), color=SKY, label="training batches")
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
    ax.set_ylim(0, max([*losses[:1], *vals, 1.0]) * 1.05)
    ax.legend(loc="upper right")
    return fig


def live_curve(config, every=2.0):
    """An on_step for train() that shows draw_progress in the cell, at most each `every` seconds."""
    handle = display(_as_image(draw_progress(History(), config)), display_id=True)

    def show(history):
        handle.update(_as_image(draw_progress(history, config)))

    return now_and_then(show, config, every, last=time.monotonic())


def now_and_then(show, config, every, last=0.0):
    """An on_step that calls show(history) at most each `every` seconds, and at the end of the run.

    last: when it was last shown, by time.monotonic(); by default long ago.
    """

    def on_step(history):
        nonlocal last
        over = history.step == config.max_steps or history.stopped
        if over or time.monotonic() - last > every:
            show(history)
            last = time.monotonic()

    return on_step


def _as_image(fig):
    return Image(data=to_png(fig), format="png")


def plot_evals(evals, title, best_step=None, height=3.0):
    """Training and validation loss at each sweep: evals is a list of dicts with step, train, val."""
    fig, ax = plt.subplots(figsize=(WIDTH, height))
    steps = [point["step"] for point in evals]
    for split, colour, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
        name = {"train": "training text", "val": "validation text"}[split]
        ax.plot(steps, [p[split] for p in evals], color=colour, marker=marker, ms=4, label=name)
    if best_step is not None:
        ax.axvline(best_step, color=GREY, linestyle=":", label=f"best validation: step {best_step}")
    ax.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    ax.legend()
    return fig


# ---------------------------------------------------------------- sampling


def draw_sampling(model, tokenizer, prompt, temperature=1.0, top_k=65, top_p=1.0, length=200):
    """The next character's probabilities above, what the model writes after the prompt below -> Figure.

    length=0 draws the probabilities alone. Raises ValueError for a prompt that cannot be encoded, and for
    a temperature, top_k or top_p that makes no sense.
    """
    check_whole("top_k", top_k)
    check_whole("length", length, least=0)
    if not prompt:
        raise ValueError("The prompt is empty: type at least one character.")
    dials = dict(temperature=temperature, top_k=min(top_k, tokenizer.vocab_size), top_p=top_p)
    logits = next_logits(model, tokenizer, prompt)
    check_sampling(logits, **dials)
    probs = next_token_probs(logits, **dials)
    high = 5.2 if length else 2.4
    fig = plt.figure(figsize=(WIDTH, high), layout="none")
    ax = fig.add_axes([0.08, 1 - 2.0 / high, 0.9, 1.6 / high])
    order = logits.argsort(descending=True)[:24]
    ax.bar(range(len(order)), probs[order], color=BLUE)
    label_axis(ax, "x", [tokenizer.decode([i]) for i in order])
    candidates = int((probs > 0).sum())
    shown = "".join(map(written, prompt[-30:]))
    ax.set_title(f"after “{shown[-60:]}”: {candidates} candidates")
    ax.set(ylabel="probability", ylim=(0, 1))
    ax.margins(x=0.01)
    if length:
        text = prompt + "".join(same_text(model, tokenizer, prompt, length, **dials))
        text = "".join(c if c.isspace() else written(c) for c in text)
        lines = [part for line in text.split("\n") for part in (textwrap.wrap(line, 84) or [""])]
        font = dict(family=["monospace", *plt.rcParams["font.family"]], fontsize=9)
        fig.text(0.08, 1 - 2.5 / high, "\n".join(lines[:14]), va="top", parse_math=False, **font)
    return fig


@torch.no_grad()
def next_logits(model, tokenizer, prompt):
    """The logits (V,) of what comes after the prompt, float32 on the CPU."""
    idx = tokenizer.encode(prompt).view(1, -1).to(device_of(model))
    return model(idx[:, -model.config.block_size :])[0][0, -1].float().cpu()


def same_text(model, tokenizer, prompt, length, **dials):
    """stream_text with the same random numbers at every call: a text changes only with its settings."""
    generator = torch.Generator(device_of(model)).manual_seed(0)
    return stream_text(model, tokenizer, prompt, length, **dials, generator=generator)


def device_of(model):
    """Where the weights of a model are."""
    return next(model.parameters()).device


def panel_of_sampling(model, tokenizer, prompt):
    """Prompt, temperature, top-k, top-p and length: the bars answer at once, the text streams in below.

    It samples from a copy of the model as it is now, in a thread, so that the next move is heard.
    """
    model = copy.deepcopy(model).float().eval()
    V = tokenizer.vocab_size
    writer = Writer(model, tokenizer)

    def draw(length, **dials):
        return draw_sampling(model, tokenizer, **dials, length=0)

    controls = dict(
        prompt=text_field(prompt, "prompt"),
        temperature=float_slider(0.8, 0.1, 2.0, "temperature"),
        top_k=int_slider(V, 1, V, "top-k (candidates)"),
        top_p=float_slider(1.0, 0.05, 1.0, "top-p (probability)"),
        length=int_slider(200, 20, 600, "length (characters)", step=20),
    )
    made = panel(draw, writer.begin, [writer.text], **controls)
    made.keep(draw_sampling(model, tokenizer, **{n: c.value for n, c in controls.items()}))
    return made


class Writer:
    """Writes a model's text into the widget .text, in a thread that the next text ends."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.text = widgets.HTML()
        self.stop = threading.Event()
        self.thread = None

    def begin(self, **settings):
        """Write a text with these settings, in place of the one that is being written."""
        if self.thread is None:  # the first text is there before the next cell runs
            self.thread = threading.Thread()
            self.write(**settings)
            return
        if self.thread.is_alive():
            self.stop.set()
            self.thread.join()
        self.stop.clear()
        self.thread = threading.Thread(target=self.write, kwargs=settings, daemon=True)
        self.thread.start()

    def write(self, prompt, length, **dials):
        """Write to the end, unless .stop is set."""
        written, last = prompt, 0.0
        for piece in same_text(self.model, self.tokenizer, prompt, length, **dials):
            if self.stop.is_set():
                return
            written += piece
            if time.monotonic() - last > 0.05:  # the page cannot follow every character
                self.text.value, last = preformatted(written), time.monotonic()
        self.text.value = preformatted(written)


def plot_dials(places, next_probs, tokenizer):
    """What temperature, top-k and top-p keep and cut: places maps a title to logits (V,).

    next_probs(logits, **dials) gives probabilities (V,). What a dial cuts is drawn pale.
    """
    dials = {"plain": {}, "temperature 0.5": dict(temperature=0.5)}
    dials |= {"top-k 5": dict(top_k=5), "top-p 0.9": dict(top_p=0.9)}
    fig, axes = plt.subplots(len(dials), len(places), figsize=(WIDTH, 5.6), squeeze=False, sharey="col")
    for column, (title, logits) in zip(axes.T, places.items()):
        plain = next_probs(logits)
        shown = min(int((next_probs(logits, top_p=0.9) > 0).sum()) + 6, tokenizer.vocab_size, 60)
        order = logits.argsort(descending=True)[:shown]
        for ax, (label, settings) in zip(column, dials.items()):
            probs = next_probs(logits, **settings)
            ax.bar(range(shown), plain[order], color=tint(GREY))
            ax.bar(range(shown), probs[order], color=BLUE)
            kept = int((probs > 0).sum())
            if kept < shown:
                ax.axvline(kept - 0.5, color=ORANGE, linestyle="--")
            ax.set_title(f"{label}: {kept} candidate{'s' * (kept > 1)}", loc="right", fontsize=9)
            label_axis(ax, "x", [tokenizer.decode([i]) for i in order.tolist()], fontsize=8)
            ax.margins(x=0.01)
        column[0].set_title(in_title(title), fontsize=9)
        column[0].set_title("plain", loc="right", fontsize=9)
    for ax in axes[:, 0]:
        ax.set_ylabel("probability")
    figure_title(fig, "Blue: after the dial. Grey: before it. Dashed: where it cuts")
    return fig


# ---------------------------------------------------------------- what a trained model looks at


def passage_with_line_break(text, length):
    """The first `length` characters of text, a line's beginning on, with a line break near their middle.

    Where there is none, the first characters of all.
    """
    for start in range(len(text) - length):
        piece = text[start : start + length]
        middle = piece[length // 3 : length // 2]
        if text[start - 1 : start] == "\n" and piece.count("\n") == 1 and "\n" in middle:
            return piece
    return text[:length]


def plot_strongest_heads(weights, found, text):
    """A map for each kind of looking back: weights (L, H, T, T); found has (layer, head, share) by kind."""
    rows = -(-len(found) // 2)
    fig, axes = plt.subplots(rows, 2, figsize=(WIDTH, 3.6 * rows), squeeze=False)
    for ax in axes.flat[len(found) :]:
        ax.remove()
    for ax, (what, (layer, head, share)) in zip(axes.flat, found.items()):
        draw_attention(ax, weights[layer, head], text, fontsize=8)
        ax.set_title(f"layer {layer}, head {head}: {share:.0%} on {what}", fontsize=9, loc="center")
    figure_title(fig, "The strongest head of each kind (colours on a square-root scale)")
    return fig


# ---------------------------------------------------------------- training


def panel_of_training(device, corpora=("plays", "tinyshakespeare")):
    """A training program to click: text, preset and sizes; Train, Stop, Continue; curve, sample, time left.

    It trains in a thread, so that Stop is heard. Train begins anew with the settings in view; Continue
    goes on with the run that was stopped, as it was set.
    """
    return TrainingProgram(pick_device(device), corpora).panel


@dataclass
class Run:
    """What build makes, in its order, and how far training has come."""

    model: GPT
    tokenizer: object
    train_ids: torch.Tensor
    val_ids: torch.Tensor
    config: TrainConfig
    history: History | None = None


class TrainingProgram:
    """The .panel of panel_of_training, and behind it the .run that its thread trains."""

    def __init__(self, device, corpora):
        self.device = device
        self.run = None
        self.asked_to_stop = threading.Event()
        start = "course-gpu" if device.type == "cuda" else "course-cpu"
        character_presets = [name for name in PRESETS if PRESETS[name].tokenizer == "char"]
        self.text = choice(list(corpora), corpora[0], "text")
        self.preset = choice(character_presets, start, "preset")
        self.of_train, self.of_model = sliders_of_training(settings_of(start))
        self.train_button = widgets.Button(description="Train", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.continue_button = widgets.Button(description="Continue", disabled=True)
        self.sample = widgets.HTML()
        sliders = *self.of_train.values(), *self.of_model.values()
        buttons = widgets.HBox([self.train_button, self.stop_button, self.continue_button])
        self.panel = Panel([self.text, self.preset, *sliders, buttons], [self.sample])
        self.panel.show(draw_progress(History(), TrainConfig(**PRESETS[start].train)))
        if recorded := recorded_progress(start):
            self.panel.keep(recorded)
        self.preset.observe(self.follow_preset, names="value")
        self.train_button.on_click(lambda _: self.begin(fresh=True))
        self.continue_button.on_click(lambda _: self.begin(fresh=False))
        self.stop_button.on_click(lambda _: self.asked_to_stop.set())

    def follow_preset(self, change):
        """Move every slider to where the chosen preset has it."""
        settings = settings_of(change["new"])
        for name, control in (self.of_train | self.of_model).items():
            control.value = settings[name]

    def begin(self, fresh):
        """Train in a thread: a new run, or the one that was stopped."""
        self.set_buttons(training=True)
        self.asked_to_stop.clear()
        threading.Thread(target=self.work, args=(fresh,), daemon=True).start()

    def work(self, fresh):
        """What the thread does: train until the end or Stop, and say how it went."""
        try:
            if fresh:
                self.run = self.new_run()
            self.panel.say(f"{count_parameters(self.run.model):,} parameters on {hardware(self.device)}")
            history = self.run.history = self.trained()
            state = "Stopped" if history.stopped else "Finished"
            self.panel.say(
                f"{state} at step {history.step}: training loss {history.losses[-1]:.3f} nats; "
                f"validation loss {history.best_val:.3f} at step {history.best_step}."
            )
        except Exception as error:  # a thread's errors reach nobody but through the panel
            self.panel.say(first_line(error))
            self.run = None
        finally:
            self.set_buttons(training=False)

    def set_buttons(self, training):
        """Enable what can be clicked: Stop while it trains; then Train, and Continue if it was stopped."""
        history = self.run and self.run.history
        stopped = history is not None and history.stopped
        self.stop_button.disabled = not training
        self.continue_button.disabled = training or not stopped
        self.train_button.disabled = training

    def new_run(self):
        """A Run with the settings in view, before its first step."""
        recipe = PRESETS[self.preset.value].train
        changes = {name: control.value for name, control in self.of_train.items()}
        # Muon's rate moves along with AdamW's.
        faster = changes["learning_rate"] / recipe["learning_rate"]
        changes["muon_learning_rate"] = TrainConfig(**recipe).muon_learning_rate * faster
        shape = {name: control.value for name, control in self.of_model.items()}
        run = Run(*build(self.preset.value, load_corpus(self.text.value), shape, changes))
        check_batch_fits(run.model, run.config, self.device)
        return run

    def trained(self):
        """Train the run on from where it is: its History at the end or at Stop."""
        run = self.run
        callbacks = Callbacks(
            on_step=now_and_then(self.show_progress, run.config, every=1.0),
            on_eval=self.show_sample,
            should_stop=self.asked_to_stop.is_set,
        )
        parts = run.model, run.train_ids, run.val_ids, run.config, self.device, run.history
        with out_of_memory_as(too_large(run.model, run.config, self.device)):
            return train(*parts, callbacks=callbacks, progress=False)

    def show_progress(self, history):
        """Redraw the curve of the run."""
        self.panel.show(draw_progress(history, self.run.config))

    def show_sample(self, model, history):
        """Put 200 characters that the model writes under the curve."""
        start = self.run.train_ids[:1].view(1, 1).to(self.device)
        written = generate(model, start, 200, top_p=0.9)[0]
        self.sample.value = preformatted(self.run.tokenizer.decode(written).strip())


def recorded_progress(preset_name):
    """The sweeps of the recorded run of a preset on the plays, as a Figure; None if there is none."""
    run = next((r for r in load_records("plays") if r["preset"] == preset_name), None)
    if run is None:
        return None
    config = TrainConfig(**run["train"])
    history = History(config.max_steps, run["train_seconds"], evals=run["evals"])
    fig = draw_progress(history, config)
    fig.axes[0].set_title(
        f"A run of {preset_name} that was recorded: {run['train_seconds']:.0f} s of training"
    )
    return fig


def settings_of(preset_name):
    """What a preset says of the model and of its training, with dropout 0 unless it says otherwise."""
    return {"dropout": 0.0} | PRESETS[preset_name].model | PRESETS[preset_name].train


def sliders_of_training(settings):
    """The sliders of a TrainConfig and those of a GPTConfig, by the name of what they set."""
    of_train = {
        "max_steps": int_slider(settings["max_steps"], 50, 5000, "max_steps", step=50),
        "batch_size": int_slider(settings["batch_size"], 4, 128, "batch_size (sequences)", step=4),
        "learning_rate": log_slider(settings["learning_rate"], -5, -1, "learning_rate", step=0.001),
    }
    of_model = {
        "n_layer": int_slider(settings["n_layer"], 1, 12, "n_layer (blocks)"),
        "n_head": int_slider(settings["n_head"], 1, 12, "n_head (heads)"),
        "n_embd": int_slider(settings["n_embd"], 16, 768, "n_embd (channels)", step=16),
        "block_size": int_slider(settings["block_size"], 8, 256, "block_size (tokens)", step=8),
        "dropout": float_slider(settings["dropout"], 0.0, 0.5, "dropout (share)"),
    }
    return of_train, of_model
