"""The benchmark: the course's programs beside a plain baseline, on one machine, in one run.

python -m helpers bench                   the table, and data/runs/bench-cpu.json
python -m helpers bench --only encoding   some rows
python -m helpers bench --nanogpt DIR     with a nanoGPT checkout in place of its restated recipe

The plain baseline stands in plain.py, what runs a nanoGPT checkout in nanogpt.py.

Method: both programs run once to warm up, then in turn, A B A B. The table has medians, in brackets
the smallest and the largest figure, and the ratio of the medians, course / plain. Machines differ
and are busy with other things: the ratio is what carries over.
"""

import argparse
import copy
import dataclasses
import json
import math
import os
import platform
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import helpers.train
from helpers.data import Corpus, get_batch, load_corpus
from helpers.device import bf16_is_fast, hardware, keep_freed_memory, pick_device
from helpers.files import DATA_DIR, RUNS_DIR
from helpers.generate import generate
from helpers.model import GPT, GPTConfig
from helpers.optimizers import make_optimizers, orthogonalise
from helpers.presets import PRESETS
from helpers.program.build import build
from helpers.program.nanogpt import (
    NANOGPT_VAL,
    check_checkout,
    nanogpt_copy,
    nanogpt_rate,
    nanogpt_recipe,
    output_of,
)
from helpers.program.plain import (
    clock,
    plain_generate,
    plain_optimizer,
    plain_orthogonalise,
    plain_train,
    stacked_batch,
    with_list_of_heads,
)
from helpers.program.records import write_record
from helpers.tokenizer import CharTokenizer
from helpers.train import Callbacks, TrainConfig, evaluate, train

ROOT = DATA_DIR.parent
FULL = dict(
    model={}, sprint={}, rounds=5, steps=40, recipe_steps=2000, sweeps=20, seeds=3,
    new_tokens=255, sequences=64, memory_rounds=3, muon_steps=300,
)  # fmt: skip
QUICK = dict(
    model=dict(n_layer=1, n_head=2, n_embd=16, block_size=16), sprint=dict(max_steps=4), rounds=2, steps=2,
    recipe_steps=4, sweeps=2, seeds=2, new_tokens=4, sequences=3, memory_rounds=1, muon_steps=4,
)  # fmt: skip

# ---------------------------------------------------------------- figures, rows, lines


def alternate(plain, course, rounds, warm_up=1):
    """Figures of plain() and course(), called in turn: two lists of `rounds`, after warm_up pairs."""
    figures = [(plain(), course()) for _ in range(warm_up + rounds)]
    return tuple(map(list, zip(*figures[warm_up:])))


def rate_of(work, amount, device):
    """A function that runs work() and returns amount per second."""

    def measure():
        start = clock(device)
        work()
        return amount / (clock(device) - start)

    return measure


def row_of(what, unit, plain, course, note="", target=None):
    """One row of the table as a dictionary: all figures, their medians, the ratio course / plain.

    target is (of, bound, number), such as ("ratio", "at least", 3) or ("course", "at most", 1.55).
    A figure of None stands for a goal that was not reached; then there is no ratio, and no target is met.
    """

    def middle(figures):
        return None if None in figures else statistics.median(figures)

    row = dict(what=what, unit=unit, plain=plain, course=course, note=note, target=None, met=None)
    row["plain_median"], row["course_median"] = middle(plain), middle(course)
    known = None not in (row["plain_median"], row["course_median"])
    row["ratio"] = row["course_median"] / row["plain_median"] if known else None
    if target is not None:
        of, bound, number = target
        value = row["ratio"] if of == "ratio" else row["course_median"]
        row["target"] = f"{bound} {number:.4g}" + ("x" if of == "ratio" else "")
        row["met"] = value is not None and (value >= number if bound == "at least" else value <= number)
    return row


def figures_cell(figures):
    """Figures as a cell of the table: the median, and in brackets the smallest and the largest."""
    if None in figures:
        return "not reached"

    def digits(x):
        return f"{x:,.0f}" if x >= 1000 else f"{x:.4g}"

    middle = digits(statistics.median(figures))
    return middle if len(figures) == 1 else f"{middle} ({digits(min(figures))} to {digits(max(figures))})"


HEADINGS = "| what | plain | course | ratio | target | met? |\n|---|---|---|---|---|---|"


def line_of(row):
    """A row as a line of a Markdown table."""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}x"
    met = {None: "", True: "yes", False: "no"}[row["met"]]
    cells = f"{row['what']}, {row['unit']}", figures_cell(row["plain"]), figures_cell(row["course"])
    return f"| {' | '.join((*cells, ratio, row['target'] or '', met))} |"


# ---------------------------------------------------------------- what the rows share


@dataclass
class Bench:
    """What every row needs, and what rows leave for later ones."""

    corpus: Corpus
    device: torch.device
    quick: bool = False
    checkout: Path | None = None  # of nanoGPT
    trainer_rate: float | None = None  # tokens/s of course-cpu, once it is measured
    recipe: tuple | None = None  # what nanoGPT's whole recipe came to, once it has run

    @property
    def sizes(self):
        return QUICK if self.quick else FULL

    def build(self, preset, model=None, **changes):
        """Model, tokenizer, train_ids, val_ids, TrainConfig of a preset, made tiny in a quick run."""
        return build(preset, self.corpus, (model or {}) | self.sizes["model"], changes)

    def row(self, what, unit, plain, course, note, target=None):
        """The row of two functions that each return a figure, called in turn."""
        return row_of(what, unit, *alternate(plain, course, self.sizes["rounds"]), note, target)


def bench_at_hand(device, quick=False, checkout=None):
    """A Bench on Tiny Shakespeare if a copy is here, else on the bundled plays: nothing is downloaded."""
    here = os.environ.get("TINYSHAKESPEARE_PATH") or (DATA_DIR / "tinyshakespeare.txt").exists()
    corpus = load_corpus("tinyshakespeare" if here else "plays")
    if quick:
        corpus = dataclasses.replace(corpus, text=corpus.text[:20_000])
    return Bench(corpus, device, quick, checkout)


def in_a_fresh_process(function, bench, *arguments):
    """What function(bench, *arguments) returns in a process of its own, as JSON has it.

    helpers.device.keep_freed_memory lasts as long as a process, so the two sides must not share one.
    """
    call = (function.__name__, str(bench.device), bench.quick, *arguments)
    code = f"from helpers.program import bench; bench.print_result(*{call!r})"
    return json.loads(output_of(["-c", code], ROOT))


def print_result(name, device, quick, *arguments):
    """The other end of in_a_fresh_process."""
    print(json.dumps(globals()[name](bench_at_hand(torch.device(device), quick), *arguments)))


def course_train(model, train_ids, val_ids, config, device, goal=-math.inf):
    """helpers.train.train without a bar, until a sweep is at goal or below.

    Ctrl-C and SIGTERM end the benchmark, not only this training.
    """
    reached = []

    def compare(model, history):
        if history.evals[-1]["val"] <= goal:
            reached.append(history.step)

    callbacks = Callbacks(on_eval=compare, should_stop=lambda: bool(reached))
    history = train(model, train_ids, val_ids, config, device, callbacks=callbacks, progress=False)
    if history.stopped and not reached:
        raise KeyboardInterrupt
    return history


def course_rate(model, train_ids, config, device, steps):
    """A function that trains with the course's trainer for `steps` steps and returns tokens/s."""
    config = dataclasses.replace(config, max_steps=steps, eval_interval=steps)
    T = model.config.block_size

    def measure():  # the sweeps before and after do not count; a short text keeps them short
        history = course_train(model, train_ids, train_ids[: 2 * T], config, device)
        return len(history.losses) * config.batch_size * T / history.train_seconds

    return measure


def plain_rate(model, train_ids, config, device, steps, **parts):
    """A function that trains with plain_train for `steps` steps and returns tokens/s."""
    tokens = steps * config.batch_size * model.config.block_size
    return lambda: tokens / plain_train(model, train_ids, config, device, steps, **parts)


def preset_rate(bench, preset, kept=True):
    """Tokens/s of a preset after as many steps to warm up: course-cpu by the course, nanogpt-cpu plainly."""
    if not kept:
        helpers.train.keep_freed_memory = lambda: None
    model, _, train_ids, _, config = bench.build(preset)
    rate = course_rate if preset == "course-cpu" else plain_rate
    measure = rate(model, train_ids, config, bench.device, bench.sizes["steps"])
    measure()
    return measure()


def fast_precision(device):
    """The name of the dtype in which the course computes on a device."""
    return "bfloat16" if bf16_is_fast(device) else "float32"


# ---------------------------------------------------------------- rows: the course beside nanoGPT's recipe


def training(bench):
    """Tokens/s of the course's trainer against nanoGPT's recipe for a CPU, the same shape of model."""
    config, recipe = (PRESETS[name].train for name in ("course-cpu", "nanogpt-cpu"))
    course = partial(in_a_fresh_process, preset_rate, bench, "course-cpu")

    def against(plain, what, program):
        note = (
            "each figure from a fresh process; course: preset course-cpu, "
            f"batch {config['batch_size']}; plain: {program}"
        )
        return bench.row(what, "tokens/s", plain, course, note, ("ratio", "at least", 3))

    program = (
        f"nanoGPT's CPU recipe restated: batch {recipe['batch_size']}, float32, SDPA, gelu, AdamW unfused"
    )
    plain = partial(in_a_fresh_process, preset_rate, bench, "nanogpt-cpu")
    row = against(plain, "training, 128/4/4/64", program)
    bench.trainer_rate = row["course_median"]
    yield row
    if bench.checkout:
        with nanogpt_copy(bench.checkout, bench.corpus.text) as folder:
            plain = partial(nanogpt_rate, folder, 2 * bench.sizes["steps"])
            yield against(plain, "training against the nanoGPT checkout", "the nanoGPT checkout")


def recipe_run(bench):
    """Run nanoGPT's whole CPU recipe, once: seconds of training, loss of the full sweep, what was run."""
    if bench.recipe is None and bench.checkout:
        model, _, _, val_ids, _ = build("nanogpt-cpu", bench.corpus)  # no tiny one: the checkout has none
        with nanogpt_copy(bench.checkout, bench.corpus.text) as folder:
            bench.recipe = nanogpt_recipe(folder, bench.sizes["recipe_steps"], model, val_ids)
    elif bench.recipe is None:
        seconds, loss = in_a_fresh_process(restated_recipe, bench)
        bench.recipe = seconds, loss, "nanoGPT's CPU recipe restated"
    return bench.recipe


def restated_recipe(bench):
    """nanoGPT's CPU recipe by plain_train: its seconds and the loss of a full sweep."""
    steps = bench.sizes["recipe_steps"]
    model, _, train_ids, val_ids, config = bench.build("nanogpt-cpu", max_steps=steps)
    plain_train(copy.deepcopy(model), train_ids, config, bench.device, min(steps, 10))  # warm-up
    seconds = plain_train(model, train_ids, config, bench.device, steps)
    return seconds, evaluate(model, val_ids, model.config.block_size)


def until(goal, bench, preset, val_tokens=None, **changes):
    """Train until a sweep is at goal or below: (seconds, or None if none was; steps)."""
    model, _, train_ids, val_ids, config = bench.build(preset, **changes)
    interval = max(config.max_steps // bench.sizes["sweeps"], 1)
    config = dataclasses.replace(config, eval_interval=interval)
    evals = course_train(model, train_ids, val_ids[:val_tokens], config, bench.device, goal).evals
    # The trainer ends one step after the sweep, which may be followed by one more sweep.
    first = next((point for point in evals if point["val"] <= goal), None)
    return (first["seconds"], first["step"]) if first else (None, evals[-1]["step"])


def time_to_loss(bench):
    """Seconds of training to the final loss of nanoGPT's CPU recipe, against all seconds of that."""
    seconds, loss, what = recipe_run(bench)
    shakespeare = bench.corpus.name == "tinyshakespeare"
    goal = min(loss, NANOGPT_VAL) if shakespeare else loss  # whatever the machine made of it today
    seeds = range(1337, 1337 + bench.sizes["seeds"])
    runs = [until(goal, bench, "course-sprint", seed=seed, **bench.sizes["sprint"]) for seed in seeds]
    note = (
        f"plain: {what}, loss {loss:.4f} after {bench.sizes['recipe_steps']} steps; course: preset "
        f"course-sprint until a full sweep is at {goal:.4f} or below, one run a seed, "
        f"steps {[n for _, n in runs]}; training alone, without evaluation, on both sides"
    )
    name = "time to the recipe's final validation loss"
    yield row_of(name, "s", [seconds], [s for s, _ in runs], note, ("ratio", "at most", 1 / 8))


def loss_in_time(bench):
    """The validation loss that course-cpu reaches in the time of nanoGPT's whole CPU recipe."""
    if bench.trainer_rate is None:
        next(training(bench))
    seconds, loss, what = recipe_run(bench)
    model, _, _, _, config = bench.build("course-cpu")
    tokens = config.batch_size * model.config.block_size  # a step
    # A little less than fits, so that a slow minute of the machine does not lead past the time.
    steps = max(int(0.88 * seconds * bench.trainer_rate / tokens), 2)
    model, _, train_ids, val_ids, config = bench.build("course-cpu", max_steps=steps, eval_interval=steps)
    history = course_train(model, train_ids, val_ids, config, bench.device)
    note = (
        f"plain: {what}, {seconds:.1f} s; course: preset course-cpu with max_steps={steps}, "
        f"{history.train_seconds:.1f} s; training alone"
    )
    # Over the time, the loss is not the one that was asked for.
    reached = [history.evals[-1]["val"] if history.train_seconds <= seconds else None]
    target = ("course", "at most", 1.55) if bench.corpus.name == "tinyshakespeare" else None
    yield row_of("validation loss in the recipe's time", "nats", [loss], reached, note, target)


# ---------------------------------------------------------------- rows: generation, encoding, memory


def writers(bench):
    """gpt-from-scratch three ways: lists of heads, float32; the course's; and a start token (1, 1)."""
    model = bench.build("gpt-from-scratch")[0].to(bench.device).eval()
    plain = with_list_of_heads(copy.deepcopy(model))
    course = model.bfloat16() if bf16_is_fast(bench.device) else model
    return plain, course, torch.zeros(1, 1, dtype=torch.int64, device=bench.device)


def generation(bench):
    """Characters/s of one sequence, cached, against computing the whole context again."""
    plain, course, start = writers(bench)
    n = bench.sizes["new_tokens"]
    yield bench.row(
        "generation, 384/6/6/256, one sequence",
        "characters/s",
        rate_of(lambda: plain_generate(plain, start, n), n, bench.device),
        rate_of(lambda: generate(course, start, n), n, bench.device),
        f"{n} new characters; plain: lists of heads, float32, no cache; course: cached, "
        f"{fast_precision(bench.device)}",
        ("ratio", "at least", 10),
    )


def generation_in_batches(bench):
    """Characters/s of many sequences at once against one, both cached."""
    _, model, start = writers(bench)
    n, B = bench.sizes["new_tokens"], bench.sizes["sequences"]
    yield bench.row(
        f"generation, {B} sequences at once",
        "characters/s",
        rate_of(lambda: generate(model, start, n), n, bench.device),
        rate_of(lambda: generate(model, start.expand(B, 1), n), n * B, bench.device),
        "plain: one sequence at a time, the course's cached generation too; "
        f"course: {B} at once, all counted",
        ("ratio", "at least", 6),
    )


def encoding(bench):
    """Characters/s of CharTokenizer.encode against a list comprehension over a dictionary."""
    text = bench.corpus.text
    tokenizer = CharTokenizer.from_text(text)
    stoi = {c: i for i, c in enumerate(tokenizer.chars)}
    figures = alternate(
        rate_of(lambda: torch.tensor([stoi[c] for c in text]), len(text), bench.device),
        rate_of(lambda: tokenizer.encode(text), len(text), bench.device),
        2 * bench.sizes["rounds"] + 1,  # more than elsewhere: they are short
    )
    note = f"{len(text):,} characters; plain: torch.tensor([stoi[c] for c in text])"
    yield row_of("encoding", "characters/s", *figures, note, ("ratio", "at least", 10))


def memory(bench):
    """Peak memory of training gpt-from-scratch at batch 8, each time in a fresh process."""
    if not Path("/proc/self/clear_refs").exists():
        print("memory: left out, only Linux tells a process its peak.", file=sys.stderr)
        return
    plain, course = (partial(in_a_fresh_process, training_peak, bench, kind) for kind in ("plain", "course"))
    figures = alternate(plain, course, bench.sizes["memory_rounds"], warm_up=0)
    note = (
        "peak resident memory minus that just before the model is built; 3 steps at batch 8 and evaluation, "
        "on the CPU, a fresh process each time"
    )
    name = "peak memory, gpt-from-scratch at batch 8"
    yield row_of(name, "MiB", *figures, note, ("ratio", "at most", 0.6))


def training_peak(bench, kind):
    """MiB that training gpt-from-scratch takes at its peak in this process (Linux).

    A tiny model goes first: what PyTorch loads when it trains for the first time is no part of it.
    """
    settings = {"vocab_size": 65} | PRESETS["gpt-from-scratch"].model | bench.sizes["model"]
    train_and_evaluate(kind, settings | QUICK["model"], batch_size=1, steps=1)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew here
    train_and_evaluate(kind, settings, batch_size=8, steps=3)
    return (resident("VmHWM") - before) / 2**20


def train_and_evaluate(kind, settings, batch_size, steps):
    """Train GPT(**settings) on random tokens and evaluate it, as a real run does. kind: "plain" or "course".

    The plain script evaluates in batches of its own size, the course in those of its sweep.
    """
    device, T = torch.device("cpu"), settings["block_size"]
    ids = torch.randint(65, (128 * T + 1,))  # one batch of the sweep
    config = TrainConfig(batch_size=batch_size, max_steps=steps, eval_interval=steps)
    model = GPT(GPTConfig(**settings))
    if kind == "plain":
        plain_train(with_list_of_heads(model), ids, config, device, steps)
        evaluate(model, ids, T, batch_size)
    else:
        course_train(model, ids[: 8 * T], ids, config, device)


def resident(field_name):
    """Bytes of this process by /proc (Linux): VmRSS, in memory now; VmHWM, the most so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"^{field_name}:\s+(\d+) kB", status, re.MULTILINE)[1])


# ---------------------------------------------------------------- rows: one part exchanged, the rest the same


def kept_memory(bench):
    """Tokens/s of the course's trainer where freed memory stays with the process against handing it back."""
    rates = (partial(in_a_fresh_process, preset_rate, bench, "course-cpu", kept) for kept in (False, True))
    note = "the course's trainer and preset course-cpu on both sides, each figure from a fresh process"
    yield bench.row("freed memory kept against handed back", "tokens/s", *rates, note)


def precision(bench):
    """Tokens/s of the course's trainer in bfloat16 against float32."""
    model, _, train_ids, _, config = bench.build("course-cpu")
    configs = (dataclasses.replace(config, precision=kind) for kind in ("float32", "bfloat16"))
    rates = (course_rate(model, train_ids, c, bench.device, bench.sizes["steps"]) for c in configs)
    note = "the course's trainer and preset course-cpu on both sides"
    yield bench.row("bfloat16 against float32", "tokens/s", *rates, note)


def fused_attention(bench):
    """Tokens/s with fused attention against a list of heads, both float32, at block 256."""
    changes = dict(batch_size=8, precision="float32")
    model, _, train_ids, _, config = bench.build("course-cpu", dict(block_size=256), **changes)
    models = with_list_of_heads(copy.deepcopy(model)), model
    steps = max(bench.sizes["steps"] // 4, 2)
    rates = (course_rate(m, train_ids, config, bench.device, steps) for m in models)
    note = f"128/4/4/{model.config.block_size}, batch 8, float32, else the course's trainer on both sides"
    yield bench.row("fused attention against a list of heads", "tokens/s", *rates, note)


def in_whole_steps(bench, what, plain, course, note):
    """A row in tokens/s: the plain loop in fast_precision, with these arguments of plain_train."""
    model, _, train_ids, _, config = bench.build("course-cpu")
    kind, steps = fast_precision(bench.device), bench.sizes["steps"]
    rates = (
        plain_rate(model, train_ids, config, bench.device, steps, precision=kind, **parts)
        for parts in (plain, course)
    )
    return bench.row(
        what, "tokens/s", *rates, f"whole steps of preset course-cpu's model and batch in {kind}{note}"
    )


def alone(bench, what, unit, plain, course, times, note):
    """A row of how many times a second plain() and course() run, each called so many times in turn."""
    rates = (
        rate_of(lambda work=work: [work() for _ in range(times)], times, bench.device)
        for work in (plain, course)
    )
    return bench.row(what, unit, *rates, f"{note}, nothing else in the loop")


def fused_optimizer(bench):
    """Tokens/s with fused AdamW against the form that goes from parameter to parameter; and steps/s alone."""
    name = "fused AdamW against unfused"
    parts = (dict(draw=get_batch, fused=fused) for fused in (None, True))
    yield in_whole_steps(bench, name, *parts, "; plain: AdamW as PyTorch chooses it")
    model, _, _, _, config = bench.build("course-cpu")
    for p in model.to(bench.device).parameters():
        p.grad = torch.full_like(p, 1e-3)
    steps = (plain_optimizer(model, config, fused).step for fused in (None, True))
    note = "AdamW on the parameters of preset course-cpu"
    yield alone(bench, f"{name}, the optimizer alone", "steps/s", *steps, bench.sizes["steps"], note)


def gathered_batches(bench):
    """Tokens/s with batches gathered from one tensor against stacks of slices; and batches/s alone."""
    name = "gathered batches against stacked"
    draws = stacked_batch, get_batch
    yield in_whole_steps(bench, name, *(dict(draw=draw, fused=True) for draw in draws), ", fused AdamW")
    model, _, train_ids, _, config = bench.build("course-cpu")
    T, B, n = model.config.block_size, config.batch_size, 10 * bench.sizes["steps"]
    batches = (partial(draw, train_ids, T, B) for draw in draws)
    note = f"batches of {B} x {T}"
    yield alone(bench, f"{name}, drawing alone", "batches/s", *batches, n, note)


def muon_products(bench):
    """Steps/s of Muon's products, with additions inside the products against written one after another."""
    model, _, _, _, config = bench.build("course-cpu")
    _, optimizer = make_optimizers(model, config)
    shapes = Counter(p.shape for group in optimizer.param_groups for p in group["params"])
    dtype = getattr(torch, fast_precision(bench.device))
    # As Muon stacks them; what is in them makes no difference to the time.
    stacks = [torch.randn(n, *shape).to(bench.device, dtype) for shape, n in shapes.items()]

    def steps(form):
        return lambda: [form(stack) for stack in stacks]

    note = f"Newton-Schulz on the matrices of preset course-cpu's blocks in {fast_precision(bench.device)}"
    name = "baddbmm against @ and + in Muon, the products alone"
    forms = steps(plain_orthogonalise), steps(orthogonalise)
    yield alone(bench, name, "steps/s", *forms, bench.sizes["steps"], note)


def time_to_the_same_loss(bench, what, **plain_changes):
    """Seconds of preset course-cpu to the loss that it ends on with plain_changes, one pair a seed."""
    budget = dict(max_steps=bench.sizes["muon_steps"])
    few = 20_000  # validation tokens: short sweeps, since there are many
    plain, course = [], []
    for seed in range(1337, 1337 + bench.sizes["seeds"]):
        changes = budget | plain_changes | {"seed": seed, "eval_interval": budget["max_steps"]}
        model, _, train_ids, val_ids, config = bench.build("course-cpu", **changes)
        history = course_train(model, train_ids, val_ids[:few], config, bench.device)
        plain.append(history.train_seconds)
        course.append(until(history.evals[-1]["val"], bench, "course-cpu", few, seed=seed, **budget))
    seconds, steps = map(list, zip(*course))
    note = (
        f"plain: {budget['max_steps']} steps of preset course-cpu with {plain_changes}; course: the preset "
        f"as it is, until its loss is the same, after {steps} steps"
    )
    yield row_of(f"{what}: time to the same loss", "s", plain, seconds, note)


def muon(bench):
    """Seconds to the same validation loss with Muon for the matrices against AdamW alone."""
    return time_to_the_same_loss(bench, "Muon against AdamW", optimizer="adamw")


def schedule(bench):
    """Seconds to the same validation loss with a cosine down to zero against a constant rate."""
    return time_to_the_same_loss(bench, "cosine against a constant rate", min_learning_rate_ratio=1.0)


ROWS = {
    function.__name__.replace("_", "-"): function
    for function in (
        training, time_to_loss, loss_in_time, generation, generation_in_batches, encoding, memory,
        kept_memory, precision, fused_attention, fused_optimizer, gathered_batches,
        muon_products, muon, schedule,
    )
}  # fmt: skip

# ---------------------------------------------------------------- the program


def run(names, device, quick=False, checkout=None):
    """Measure the named rows, print the table as it grows, and return the record as a dictionary."""
    bench = bench_at_hand(device, quick, checkout)
    record = {
        "corpus": bench.corpus.name,
        "device": device.type,
        "hardware": hardware(device),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "quick": quick,
        "nanogpt": checkout is not None,
        "sizes": bench.sizes,
        "seconds": 0.0,
        "rows": [],
    }
    print(
        f"{record['hardware']}, torch {record['torch']}, corpus {bench.corpus.name}\n\n{HEADINGS}", flush=True
    )
    keep_freed_memory()  # as every training run does, so that no row depends on those before it
    start = time.perf_counter()
    for name in names:
        for row in ROWS[name](bench):
            if device.type != "cpu" or quick:  # the goals were set for the real sizes on a CPU
                row["target"] = row["met"] = None
            record["rows"].append({"row": name} | row)
            print(line_of(row), flush=True)
    record["seconds"] = round(time.perf_counter() - start, 1)
    print()
    for row in record["rows"]:
        print(f"- {row['what']}: {row['note']}.")
    return record


def main(arguments=None):
    """The command line: measure, print the table, write the record. Raises SystemExit for what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers bench", description="Measure the course's programs beside a plain baseline."
    )
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a nanoGPT checkout to run as it is")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps; chosen if not given")
    parser.add_argument("--out", type=Path, default=RUNS_DIR, help="folder of the JSON record")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: tests the program, measures nothing"
    )
    args = parser.parse_args(arguments)
    try:
        device = pick_device(args.device)
        if args.nanogpt and device.type != "cpu":
            raise ValueError(f"--nanogpt runs a recipe for the CPU, not for {device.type}: add --device cpu.")
        if args.nanogpt:
            check_checkout(args.nanogpt)
        args.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is noticed now
        record = run(args.only or list(ROWS), device, args.quick, args.nanogpt)
        path = args.out / f"bench-{device.type}.json"
        write_record(path, record)
    except (ValueError, FloatingPointError, OSError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: nothing was recorded.") from None
    print(f"\n{record['seconds']} s in all -> {path}")
