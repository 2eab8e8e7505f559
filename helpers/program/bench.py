"""The benchmark: the course's programs beside a plain baseline, on one machine, in one run.

python -m helpers bench                   the table, and data/runs/bench-cpu.json
python -m helpers bench --only encoding   some rows; the others stay as they were recorded
python -m helpers bench --nanogpt DIR     with a nanoGPT checkout in place of its restated recipe

The plain baseline stands in plain.py, what runs a nanoGPT checkout in nanogpt.py.

Method: both programs run once to warm up, then in turn, A B A B. The table has medians, in brackets
the smallest and the largest figure, and the ratio of the medians, course / plain. Machines differ
and are busy with other things: the ratio is what carries over. It depends on how much faster the
processor multiplies in bfloat16 than in float32; that is measured first, and decides on the targets.
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
from helpers.device import best_precision, hardware, keep_freed_memory, pick_device, tensor_floats
from helpers.files import DATA_DIR, RUNS_DIR
from helpers.generate import generate
from helpers.model import GPT, GPTConfig, flops_per_token
from helpers.optimizers import make_optimizers, orthogonalise
from helpers.presets import PRESETS
from helpers.program.build import build
from helpers.program.gpt2 import LIBRARY_WORDS, tokenizer_json
from helpers.program.nanogpt import (
    NANOGPT_TOKENS,
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
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import Callbacks, TrainConfig, evaluate, train

ROOT = DATA_DIR.parent
FULL = dict(
    model={}, sprint={}, rounds=5, steps=40, recipe_steps=2000, sweeps=20, seeds=3, new_tokens=255,
    sequences=64, pieces=8192, memory_rounds=3, muon_steps=300, real_rounds=2, real_steps=(1, 2),
    products=(512, 3.0),  # as fast as larger ones, and so short that some meet with no interruption
)  # fmt: skip
QUICK = dict(
    model=dict(n_layer=1, n_head=2, n_embd=16, block_size=16), sprint=dict(max_steps=4), rounds=2, steps=2,
    recipe_steps=4, sweeps=2, seeds=2, new_tokens=4, sequences=3, pieces=300, memory_rounds=1, muon_steps=4,
    real_rounds=1, real_steps=(1, 1), products=(64, 0.01),
)  # fmt: skip
FLAGS = "avx2", "avx512f", "avx512_bf16", "amx_bf16"  # what products of matrices gain from
CLASSES = "Zen 4", "Zen 5", "no bfloat16"  # of processors, see class_of
TARGETS = {  # of a row on a CPU: which of its figures, the bound, and the number of each class that has one
    "training": ("ratio", "at least", 2.2, 3.2),
    "training-real-size": ("ratio", "at least", 3, 4),
    "time-to-loss": ("ratio", "at most", 1 / 11, 1 / 15),
    "loss-in-time": ("course_median", "at most", 1.55, 1.52),  # on Tiny Shakespeare
    "generation": ("ratio", "at least", 13, 13),
    "generation-in-batches": ("ratio", "at least", 8, 8),
    "encoding": ("ratio", "at least", 10, 10, 10),
    "memory": ("ratio", "at most", 0.55, 0.55),
}

# ---------------------------------------------------------------- the machine


def processor(cpuinfo):
    """Vendor, family, model, name and FLAGS of the first processor in a text of /proc/cpuinfo, else None."""
    lines = re.findall(r"^(\S[^:\n]*?)\s*:[ \t]*(.*)$", cpuinfo.partition("\n\n")[0], re.MULTILINE)
    known = {"model name": platform.processor(), "flags": ""} | dict(lines)
    names = dict(vendor="vendor_id", family="cpu family", model="model", name="model name")
    flags = [flag for flag in FLAGS if flag in known["flags"].split()]
    return {key: known.get(name) for key, name in names.items()} | {"flags": flags}


def peak_rates(device, size, seconds):
    """{dtype: operations/s} of products of square matrices, the best of rounds; float32 in tensor_floats."""
    measures = {}
    for kind in ("float32", "bfloat16", best_precision(device)):
        # The result goes to the same place again and again: new memory would cost time.
        a, out = (torch.rand(size, size).to(device, getattr(torch, kind)) for _ in range(2))
        measures[kind] = rate_of(partial(torch.mm, a, a, out=out), 2 * size**3, device)
    peaks, start = dict.fromkeys(measures, 0.0), time.perf_counter()
    with tensor_floats(device):  # as the trainer has them on a GPU
        while 0.0 in peaks.values() or time.perf_counter() - start < seconds:
            peaks = {kind: max(peaks[kind], measure()) for kind, measure in measures.items()}
    return peaks


def class_of(peaks, precision):
    """Which of CLASSES a CPU with these peak_rates is, where the course computes in this precision."""
    if precision != "bfloat16":
        return "no bfloat16"
    return "Zen 5" if peaks["bfloat16"] >= 3 * peaks["float32"] else "Zen 4"


def measured_machine(device, size, seconds):
    """What a device is and its peak_rates, for the record; with the class of a CPU."""
    if device.type == "cuda":
        name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        peaks = peak_rates(device, 16 * size, seconds)  # smaller products leave a GPU idle
        return dict(name=name, capability=capability, peaks=peaks)
    path, peaks = Path("/proc/cpuinfo"), peak_rates(device, size, seconds)
    known = processor(path.read_text(encoding="utf-8") if path.exists() else "")
    return known | {"peaks": peaks, "class": class_of(peaks, best_precision(device))}


def caption_of(record):
    """One line on the machine of a record, to stand above its table."""
    line = f"{record['hardware']}, torch {record['torch']}, corpus {record['corpus']}"
    machine = record["machine"]
    names = [key for key in ("family", "model", "capability", "class") if machine.get(key)]
    known = ", ".join(f"{key} {machine[key]}" for key in names)
    peaks = ", ".join(f"{rate / 1e9:,.0f} Gflop/s in {kind}" for kind, rate in machine["peaks"].items())
    return f"{line}; {machine['name']} ({known}). Products of matrices: {peaks}."


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


def row_of(what, unit, plain, course, note=""):
    """One row of the table as a dictionary: all figures, their medians, the ratio course / plain.

    A figure of None stands for a goal that was not reached; then there is no ratio, and no target is met.
    """
    medians = [None if None in figures else statistics.median(figures) for figures in (plain, course)]
    ratio = None if None in medians else medians[1] / medians[0]
    return dict(
        what=what, unit=unit, plain=plain, course=course, note=note, plain_median=medians[0],
        course_median=medians[1], ratio=ratio, plain_share=None, course_share=None, target=None, met=None,
    )  # fmt: skip


def with_target(row, target, machine_class):
    """A row with what it is to reach on a machine of a class, as in TARGETS, and whether that is met."""
    of, bound, *numbers = target
    value, number = row[of], dict(zip(CLASSES, numbers)).get(machine_class)
    if number is None:
        return row | dict(target="none without bfloat16")
    met = value is not None and (value >= number if bound == "at least" else value <= number)
    return row | dict(target=f"{bound} {number:.3g}" + ("x" if of == "ratio" else ""), met=met)


def figures_cell(figures):
    """Figures as a cell of the table: the median, and in brackets the smallest and the largest."""
    if None in figures:
        return "not reached"

    def digits(x):
        return f"{x:,.0f}" if x >= 1000 else f"{x:.4g}"

    middle = digits(statistics.median(figures))
    return middle if len(figures) == 1 else f"{middle} ({digits(min(figures))} to {digits(max(figures))})"


HEADINGS = (
    "| what | plain | course | ratio | share of peak, plain and course | target | met? |\n|" + 7 * "---|"
)


def line_of(row):
    """A row as a line of a Markdown table."""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}x"
    met = {None: "", True: "yes", False: "no"}[row["met"]]
    shares = [row[f"{side}_share"] for side in ("plain", "course")]
    peak = "" if None in shares else "{:.0%} and {:.0%}".format(*shares)
    cells = f"{row['what']}, {row['unit']}", figures_cell(row["plain"]), figures_cell(row["course"])
    return f"| {' | '.join((*cells, ratio, peak, row['target'] or '', met))} |"


# ---------------------------------------------------------------- what the rows share


@dataclass
class Bench:
    """What every row needs, and what rows leave for later ones."""

    corpus: Corpus
    device: torch.device
    quick: bool = False
    checkout: Path | None = None  # of nanoGPT
    machine: dict | None = None  # see measured_machine; not in the processes of single figures
    trainer_rate: float | None = None  # tokens/s of course-cpu, once it is measured
    recipe: tuple | None = None  # what nanoGPT's whole recipe came to, once it has run

    @property
    def sizes(self):
        return QUICK if self.quick else FULL

    def build(self, preset, model=None, **changes):
        """Model, tokenizer, train_ids, val_ids, TrainConfig of a preset, made tiny in a quick run."""
        return build(preset, self.corpus, (model or {}) | self.sizes["model"], changes)

    def row(self, what, unit, plain, course, note, rounds=None, warm_up=1):
        """The row of two functions that each return a figure, called in turn."""
        return row_of(what, unit, *alternate(plain, course, rounds or self.sizes["rounds"], warm_up), note)

    def training_row(self, what, rates, note, model, precisions, **rounds):
        """The row of two functions that return tokens/s of a GPT, and their shares of the peak."""
        row = self.row(what, "tokens/s", *rates, note, **rounds)
        for side, kind in zip(("plain", "course"), precisions):
            flops = flops_per_token(model.config) * row[f"{side}_median"]
            row[f"{side}_share"] = flops / self.machine["peaks"][kind]
        return row


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


def preset_rate(bench, preset, program, steps, kept=True):
    """Tokens/s after as many steps to warm up; by the "course", "plain", or plain with lists of "heads"."""
    if not kept:
        helpers.train.keep_freed_memory = lambda: None
    model, _, train_ids, _, config = bench.build(preset)
    if program == "heads":
        with_list_of_heads(model)
    rate = course_rate if program == "course" else plain_rate
    measure = rate(model, train_ids, config, bench.device, steps)
    measure()
    return measure()


# ---------------------------------------------------------------- rows: the course beside nanoGPT's recipe


def training(bench):
    """Tokens/s of the course's trainer against nanoGPT's recipe for a CPU, the same shape of model."""
    steps, kind = bench.sizes["steps"], best_precision(bench.device)

    def against(plain, what, program, preset="course-cpu", plain_kind="float32"):
        model, *_, config = bench.build(preset)
        course = partial(in_a_fresh_process, preset_rate, bench, preset, "course", steps)
        note = f"fresh processes; course: preset {preset}, batch {config.batch_size}; plain: {program}"
        return bench.training_row(what, (plain, course), note, model, (plain_kind, kind))

    program = "nanoGPT's CPU recipe restated: batch 12, float32, SDPA, gelu, AdamW unfused"
    plain = partial(in_a_fresh_process, preset_rate, bench, "nanogpt-cpu", "plain", steps)
    row = against(plain, "training, 128/4/4/64", program)
    bench.trainer_rate = row["course_median"]
    yield row
    if bench.checkout:
        # On a GPU the checkout trains its own size, compiled and in bfloat16, and so does the course.
        at_its_size = dict(preset="nanogpt-char", plain_kind=kind) if bench.device.type == "cuda" else {}
        with nanogpt_copy(bench.checkout, bench.corpus.text) as folder:
            plain = partial(nanogpt_rate, folder, 2 * steps, bench.device.type)
            yield against(
                plain, "training against the nanoGPT checkout", "the nanoGPT checkout", **at_its_size
            )


def training_real_size(bench):
    """Tokens/s of the course's trainer against a plain script, at the size that three systems share."""
    preset, kind = "gpt-from-scratch", best_precision(bench.device)
    model, *_, config = bench.build(preset)
    few = bench.sizes["real_steps"] if bench.device.type == "cpu" else [bench.sizes["steps"]] * 2
    call = partial(partial, in_a_fresh_process, preset_rate, bench, preset)
    what = f"preset {preset}, batch {config.batch_size}, dropout {model.config.dropout}, on both sides"
    note = (
        f"{what}; each figure from a fresh process, {few[0]} and {few[1]} steps after as many to warm up; "
        f"plain: a list of heads, float32; course: {kind}"
    )
    name, rounds = "training, 384/6/6/256", dict(rounds=bench.sizes["real_rounds"], warm_up=0)
    rates = call("heads", few[0]), call("course", few[1])
    yield bench.training_row(name, rates, note, model, ("float32", kind), **rounds)


def recipe_run(bench):
    """Run nanoGPT's whole CPU recipe, once: seconds of training, loss of the full sweep, what was run."""
    if bench.recipe is None and bench.checkout and bench.device.type == "cpu":
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
    yield row_of("time to the recipe's final validation loss", "s", [seconds], [s for s, _ in runs], note)


def loss_in_time(bench):
    """The validation loss that course-cpu reaches in the time of nanoGPT's whole CPU recipe."""
    if bench.trainer_rate is None:
        next(training(bench))
    seconds, loss, what = recipe_run(bench)
    model, _, train_ids, val_ids, config = bench.build("course-cpu")
    tokens = config.batch_size * model.config.block_size  # a step
    # A little less than fits, so that a slow minute of the machine does not lead past the time.
    steps = max(int(0.88 * seconds * bench.trainer_rate / tokens), 2)
    config = dataclasses.replace(config, max_steps=steps, eval_interval=steps)
    history = course_train(model, train_ids, val_ids, config, bench.device)
    note = (
        f"plain: {what}, {seconds:.1f} s; course: preset course-cpu with max_steps={steps}, "
        f"{history.train_seconds:.1f} s; training alone"
    )
    # Over the time, the loss is not the one that was asked for.
    reached = [history.evals[-1]["val"] if history.train_seconds <= seconds else None]
    yield row_of("validation loss in the recipe's time", "nats", [loss], reached, note)


# ---------------------------------------------------------------- rows: generation, encoding, memory


def writers(bench):
    """gpt-from-scratch twice: with lists of heads in float32, and as the course has it."""
    model = bench.build("gpt-from-scratch")[0].to(bench.device).eval()
    plain = with_list_of_heads(copy.deepcopy(model))
    return plain, model.to(getattr(torch, best_precision(bench.device)))


def writing_rate(bench, write, model, sequences=1):
    """A function that calls write(model, start, new_tokens) and returns characters/s of all sequences."""
    start = torch.zeros(sequences, 1, dtype=torch.int64, device=bench.device)
    n = bench.sizes["new_tokens"]
    return rate_of(lambda: write(model, start, n), n * sequences, bench.device)


def generation(bench):
    """Characters/s of one sequence, cached, against computing the whole context again."""
    plain, course = writers(bench)
    rates = writing_rate(bench, plain_generate, plain), writing_rate(bench, generate, course)
    programs = f"plain: lists of heads, float32, no cache; course: cached, {best_precision(bench.device)}"
    note = f"{bench.sizes['new_tokens']} new characters; {programs}"
    yield bench.row("generation, 384/6/6/256, one sequence", "characters/s", *rates, note)


def generation_in_batches(bench):
    """Characters/s of many sequences at once against one, both cached."""
    _, model = writers(bench)
    B = bench.sizes["sequences"]
    rates = (writing_rate(bench, generate, model, sequences) for sequences in (1, B))
    note = f"the course's cached generation on both sides; plain: one; course: {B} at once, all counted"
    yield bench.row(f"generation, {B} sequences at once", "characters/s", *rates, note)


def encoding(bench):
    """Characters/s of CharTokenizer.encode against a list comprehension over a dictionary."""
    text = bench.corpus.text
    tokenizer = CharTokenizer.from_text(text)
    stoi = {c: i for i, c in enumerate(tokenizer.chars)}
    forms = (lambda: torch.tensor([stoi[c] for c in text])), (lambda: tokenizer.encode(text))
    rates = (rate_of(form, len(text), bench.device) for form in forms)
    note = f"{len(text):,} characters; plain: torch.tensor([stoi[c] for c in text])"
    rounds = 2 * bench.sizes["rounds"] + 1  # more than elsewhere: they are short
    yield bench.row("encoding", "characters/s", *rates, note, rounds)


def byte_pairs(bench):
    """Characters/s of learning byte pairs and of encoding by them, against Hugging Face."""
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers  # of this row alone
    except ImportError:
        print("byte-pairs: left out, it needs the package tokenizers.", file=sys.stderr)
        return
    text, size = bench.corpus.text, bench.sizes["pieces"]
    ours = BytePairTokenizer.train(text, size)
    theirs = Tokenizer.from_str(json.dumps(tokenizer_json(ours)))
    if theirs.encode(text).ids != ours.encode(text).tolist():
        raise ValueError("The two tokenizers cut the text differently: their speeds do not compare.")

    def learn():
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(LIBRARY_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])  # fmt: skip
        letters = pre_tokenizers.ByteLevel.alphabet()
        settings = dict(vocab_size=size, min_frequency=2, initial_alphabet=letters, show_progress=False)
        made.train_from_iterator([text], trainers.BpeTrainer(**settings))

    library = "plain: tokenizers of Hugging Face, written in Rust; course: Python"
    for what, *forms in (
        (
            f"learning {size:,} byte pairs, Hugging Face's tokenizers and ours",
            learn,
            lambda: BytePairTokenizer.train(text, size),
        ),
        (
            f"encoding by {size:,} byte pairs, the same two",
            lambda: theirs.encode(text),
            lambda: ours.encode(text),
        ),
    ):
        rates = (rate_of(form, len(text), bench.device) for form in forms)
        yield bench.row(what, "characters/s", *rates, f"{len(text):,} characters; {library}")


def memory(bench):
    """Peak memory of training gpt-from-scratch at batch 8, each time in a fresh process."""
    if not Path("/proc/self/clear_refs").exists():
        print("memory: left out, only Linux tells a process its peak.", file=sys.stderr)
        return
    peaks = (partial(in_a_fresh_process, training_peak, bench, kind) for kind in ("plain", "course"))
    note = (
        "peak resident memory minus that just before the model is built; 3 steps at batch 8 and evaluation, "
        "on the CPU, a fresh process each time"
    )
    name = "peak memory, gpt-from-scratch at batch 8"
    yield bench.row(name, "MiB", *peaks, note, bench.sizes["memory_rounds"], warm_up=0)


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
    model, kind = bench.build("course-cpu")[0], best_precision(bench.device)
    call = in_a_fresh_process, preset_rate, bench, "course-cpu", "course", bench.sizes["steps"]
    rates = (partial(*call, kept) for kept in (False, True))
    note = "the course's trainer and preset course-cpu on both sides, each figure from a fresh process"
    yield bench.training_row("freed memory kept against handed back", rates, note, model, (kind, kind))


def precision(bench):
    """Tokens/s of the course's trainer in bfloat16 against float32."""
    # Batches in one part: the trainer might cut those of one side more finely.
    model, _, train_ids, _, config = bench.build("course-cpu", accumulation_steps=1)
    kinds = "float32", "bfloat16"
    configs = (dataclasses.replace(config, precision=kind) for kind in kinds)
    rates = (course_rate(model, train_ids, c, bench.device, bench.sizes["steps"]) for c in configs)
    note = "the course's trainer and preset course-cpu on both sides, batches in one part"
    yield bench.training_row("bfloat16 against float32", rates, note, model, kinds)


def fused_attention(bench):
    """Tokens/s with fused attention against a list of heads, both float32, at block 256."""
    changes = dict(batch_size=8, precision="float32", accumulation_steps=1)
    model, _, train_ids, _, config = bench.build("course-cpu", dict(block_size=256), **changes)
    models = with_list_of_heads(copy.deepcopy(model)), model
    steps = max(bench.sizes["steps"] // 4, 2)
    rates = (course_rate(m, train_ids, config, bench.device, steps) for m in models)
    note = (
        f"128/4/4/{model.config.block_size}, batch 8 in one part, float32, the course's trainer on both sides"
    )
    name, kinds = "fused attention against a list of heads", ("float32", "float32")
    yield bench.training_row(name, rates, note, model, kinds)


def in_whole_steps(bench, what, plain, course, note):
    """A row in tokens/s: the plain loop in best_precision, with these arguments of plain_train."""
    model, _, train_ids, _, config = bench.build("course-cpu")
    kind, steps = best_precision(bench.device), bench.sizes["steps"]
    rate = partial(plain_rate, model, train_ids, config, bench.device, steps, precision=kind)
    note = f"whole steps of preset course-cpu's model and batch in {kind}{note}"
    return bench.training_row(what, (rate(**plain), rate(**course)), note, model, (kind, kind))


def alone(bench, what, unit, plain, course, n, note):
    """A row of how many times a second plain() and course() run, each called n times in turn."""
    rates = (rate_of(lambda w=w: [w() for _ in range(n)], n, bench.device) for w in (plain, course))
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
    dtype = getattr(torch, best_precision(bench.device))
    # As Muon stacks them; what is in them makes no difference to the time.
    stacks = [torch.randn(n, *shape).to(bench.device, dtype) for shape, n in shapes.items()]
    forms = (lambda form=form: [form(s) for s in stacks] for form in (plain_orthogonalise, orthogonalise))
    note = f"Newton-Schulz on the matrices of preset course-cpu's blocks in {best_precision(bench.device)}"
    name = "baddbmm against @ and + in Muon, the products alone"
    yield alone(bench, name, "steps/s", *forms, bench.sizes["steps"], note)


def time_to_same_loss(bench, what, **plain_changes):
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


ROWS = {
    function.__name__.replace("_", "-"): function
    for function in (
        training, training_real_size, time_to_loss, loss_in_time, generation, generation_in_batches,
        encoding, byte_pairs, memory, kept_memory, precision, fused_attention, fused_optimizer,
        gathered_batches, muon_products,
    )
} | {
    "muon": partial(time_to_same_loss, what="Muon against AdamW", optimizer="adamw"),
    "schedule": partial(time_to_same_loss, what="cosine against a constant rate", min_learning_rate_ratio=1),
}  # fmt: skip

# ---------------------------------------------------------------- the program


def run(names, device, quick=False, checkout=None):
    """Measure the named rows, print the table as it grows, and return the record as a dictionary."""
    bench = bench_at_hand(device, quick, checkout)
    keep_freed_memory()  # as every training run does, so that no row depends on those before it
    start = time.perf_counter()
    bench.machine = measured_machine(device, *bench.sizes["products"])
    record = dict(
        corpus=bench.corpus.name, device=device.type, hardware=hardware(device), machine=bench.machine,
        torch=torch.__version__, numpy=np.__version__, python=platform.python_version(), quick=quick,
        sizes=bench.sizes, seconds=0.0, rows=[],
    )  # fmt: skip
    print(f"{caption_of(record)}\n\n{HEADINGS}", flush=True)
    targets = TARGETS if device.type == "cpu" and not quick else {}  # they were set for the real sizes
    if bench.corpus.name != "tinyshakespeare":
        targets = {name: target for name, target in targets.items() if target[0] == "ratio"}
    for name in names:
        for row in ROWS[name](bench):
            if name in targets:
                row = with_target(row, targets[name], bench.machine["class"])
            record["rows"].append({"row": name} | row)
            print(line_of(row), flush=True)
    record["seconds"] = round(time.perf_counter() - start, 1)
    print("", *(f"- {row['what']}: {row['note']}." for row in record["rows"]), sep="\n")
    return record


def with_earlier_rows(record, earlier):
    """A record of some rows, joined with an earlier one of the same machine, in the order of ROWS.

    Each row compares two programs that ran in turn, so it may stand beside rows of another hour.
    """
    record = json.loads(json.dumps(record))  # as a file has it
    same = ("corpus", "hardware", "torch", "numpy", "python", "quick")
    if any(record[key] != earlier.get(key) for key in same):
        return record
    if record["machine"]["name"] != earlier["machine"]["name"] or not fits(earlier["sizes"], record["sizes"]):
        return record
    names = {row["row"] for row in record["rows"]}
    kept = [row for row in earlier["rows"] if row["row"] in ROWS.keys() - names]
    rows = sorted(kept + record["rows"], key=lambda row: list(ROWS).index(row["row"]))
    seconds = round(earlier["seconds"] + record["seconds"], 1)
    return record | {"machine": earlier["machine"], "rows": rows, "seconds": seconds}


def fits(part, whole):
    """Does everything in the dict `part` stand in the dict `whole` as well?"""
    return all(whole.get(key) == value for key, value in part.items())


def main(arguments=None):
    """The command line: measure, print the table, write the record. Raises SystemExit for what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers bench", description="Measure the course's programs beside a plain baseline."
    )
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a nanoGPT checkout to run as it is")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps; chosen if not given")
    parser.add_argument("--out", type=Path, default=RUNS_DIR, help="folder of the JSON record")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which measure nothing: a test")
    args = parser.parse_args(arguments)
    try:
        device = pick_device(args.device)
        if args.nanogpt and device.type not in NANOGPT_TOKENS:
            raise ValueError(f"nanoGPT's recipes are not for {device.type}: add --device cpu.")
        if args.nanogpt:
            check_checkout(args.nanogpt)
        args.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is noticed now
        path = args.out / f"bench-{device.type}.json"
        earlier = json.loads(path.read_text(encoding="utf-8")) if args.only and path.exists() else None
        record = run(args.only or list(ROWS), device, args.quick, args.nanogpt)
        write_record(path, with_earlier_rows(record, earlier) if earlier else record)
    except (ValueError, FloatingPointError, OSError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: nothing was recorded.") from None
    print(f"\n{record['seconds']} s in all -> {path}")
