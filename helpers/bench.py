"""The benchmark: the course's programs beside a plain baseline, on one machine, in one run.

python -m helpers.bench                   the table, and data/runs/bench-cpu.json
python -m helpers.bench --only encoding   some rows
python -m helpers.bench --nanogpt DIR     with a nanoGPT checkout in place of its restated recipe

The plain baseline is written the way most from-scratch scripts are: a Python list of heads, float32,
no compilation, AdamW as PyTorch chooses it (on a CPU: one parameter after another), batches stacked
from slices, generation that computes the whole context again for every character.

Method: both programs run once to warm up, then in turn, A B A B. The table has medians, in brackets
the smallest and the largest figure, and the ratio of the medians, course / plain. Machines differ
and are busy with other things: the ratio is what carries over.
"""

import argparse
import contextlib
import copy
import dataclasses
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import helpers.train
from helpers.data import DATA_DIR, Corpus, get_batch, load_corpus, write_atomically
from helpers.device import bf16_is_fast, hardware, keep_freed_memory, pick_device, precision_context
from helpers.generate import generate
from helpers.model import GPT, GPTConfig, MultiHeadAttention
from helpers.optimizers import learning_rate_factor
from helpers.presets import PRESETS
from helpers.runs import RUNS_DIR, build
from helpers.tokenizer import CharTokenizer
from helpers.train import TrainConfig, evaluate, train

ROOT = DATA_DIR.parent
FULL = dict(
    model={}, sprint={}, rounds=5, steps=40, recipe_steps=2000, sweeps=20, seeds=3,
    new_tokens=255, sequences=64, memory_rounds=3, muon_steps=300,
)  # fmt: skip
QUICK = dict(
    model=dict(n_layer=1, n_head=2, n_embd=16, block_size=16), sprint=dict(max_steps=4), rounds=2, steps=2,
    recipe_steps=4, sweeps=2, seeds=2, new_tokens=4, sequences=3, memory_rounds=1, muon_steps=4,
)  # fmt: skip
# What nanoGPT's CPU recipe reached on Tiny Shakespeare when the course's goals were set.
NANOGPT_VAL = 1.8857

# ---------------------------------------------------------------- the plain baseline


class ListOfHeads(MultiHeadAttention):
    """MultiHeadAttention in the place of CausalSelfAttention: x (B, T, C) -> (B, T, C), no cache."""

    def forward(self, x, cache=None):
        return super().forward(x)


@torch.no_grad()
def with_list_of_heads(model):
    """Change the attention of a GPT into lists of heads with the same weights; returns the model.

    The function that it computes stays the same. Raises ValueError for query, key and value biases.
    """
    config = model.config
    if config.qkv_bias:
        raise ValueError("qkv_bias=True does not fit a list of heads, which has no such biases: use False.")
    for block in model.blocks:
        heads = ListOfHeads(config.n_embd, config.n_head, config.block_size, config.dropout)
        w = block.attn.qkv.weight.view(3, config.n_head, config.head_size, config.n_embd)
        for h, head in enumerate(heads.heads):
            for i, layer in enumerate((head.query, head.key, head.value)):
                layer.weight.copy_(w[i, h])
        heads.proj = block.attn.proj
        block.attn = heads.to(w.device)
    return model


def stacked_batch(ids, block_size, batch_size, generator=None):
    """get_batch the usual way, slice by slice: x (B, T) and y (B, T), equal to get_batch's."""
    starts = torch.randint(len(ids) - block_size, (batch_size,), generator=generator)
    x = torch.stack([ids[i : i + block_size] for i in starts])
    y = torch.stack([ids[i + 1 : i + 1 + block_size] for i in starts])
    return x, y


def plain_optimizer(model, config, fused=None):
    """AdamW as scripts set it up: matrices decay, vectors do not. fused=None leaves the form to PyTorch."""
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, config.learning_rate, (config.beta1, config.beta2), fused=fused)


def plain_train(model, ids, config, device, steps, draw=stacked_batch, fused=None, precision="float32"):
    """Train for `steps` steps of TrainConfig's schedule in the usual loop; returns the seconds."""
    model.to(device).train()
    optimizer = plain_optimizer(model, config, fused)
    generator = torch.Generator().manual_seed(config.seed)
    start = clock(device)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)
        x, y = draw(ids, model.config.block_size, config.batch_size, generator)
        with precision_context(device, precision):
            _, loss = model(x.to(device), y.to(device))
        loss.backward()
        if config.grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # scripts print it
    return clock(device) - start


@torch.no_grad()
def plain_generate(model, idx, max_new_tokens):
    """idx (B, T) -> (B, T + max_new_tokens): the whole context through the model for every token."""
    model.eval()
    for _ in range(max_new_tokens):
        logits, _ = model(idx[:, -model.config.block_size :])
        probs = F.softmax(logits[:, -1], dim=-1)  # (B, V)
        idx = torch.cat([idx, torch.multinomial(probs, 1)], dim=1)
    return idx


# ---------------------------------------------------------------- measuring and telling


def clock(device):
    """The time in seconds, when the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def rate_of(work, amount, device):
    """A function that runs work() and returns amount per second."""

    def measure():
        start = clock(device)
        work()
        return amount / (clock(device) - start)

    return measure


def alternate(plain, course, rounds):
    """Figures of plain() and course(), called in turn: two lists of `rounds`, without the first pair."""
    figures = [(plain(), course()) for _ in range(rounds + 1)]
    return tuple(map(list, zip(*figures[1:])))


def row_of(what, unit, plain, course, target=None, note=""):
    """One row of the table as a dictionary: all figures, their medians, the ratio course / plain.

    target is (of, bound, number), such as ("ratio", "at least", 3) or ("course", "at most", 1.55).
    A figure of None stands for a goal that was not reached; then there is no ratio, and no target is met.
    """

    def middle(figures):
        return None if None in figures or not figures else statistics.median(figures)

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


def shown(figures):
    """Figures as a cell of the table: the median, and in brackets the smallest and the largest."""
    if not figures:
        return ""
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
    cells = f"{row['what']}, {row['unit']}", shown(row["plain"]), shown(row["course"])
    return f"| {' | '.join((*cells, ratio, row['target'] or '', met))} |"


# ---------------------------------------------------------------- a nanoGPT checkout, as it is

NANOGPT_FILES = (
    "train.py", "model.py", "configurator.py", "config/train_shakespeare_char.py",
    "data/shakespeare_char/prepare.py",
)  # fmt: skip
# The command for a CPU in its README. Of its own, the course adds that the last checkpoint is kept.
NANOGPT_ARGUMENTS = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
    "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 "
    "--lr_decay_iters=2000 --dropout=0.0 --always_save_checkpoint=True"
).split()
NANOGPT_TOKENS = 12 * 64  # a step


@contextlib.contextmanager
def nanogpt_copy(checkout, text):
    """A temporary folder with what training needs of a nanoGPT checkout, and text as its corpus."""
    missing = [name for name in NANOGPT_FILES if not (Path(checkout) / name).is_file()]
    if missing:
        raise ValueError(f"--nanogpt {checkout} has no {missing[0]}: give the folder of a nanoGPT checkout.")
    with tempfile.TemporaryDirectory() as folder:
        for name in NANOGPT_FILES:
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(checkout) / name, Path(folder) / name)
        data = Path(folder) / "data" / "shakespeare_char"
        (data / "input.txt").write_text(text, encoding="utf-8", newline="")
        child([data / "prepare.py"], folder)
        yield folder


def child(arguments, folder):
    """What python prints when run with arguments in folder. Raises ValueError if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, env=os.environ | {"PYTHONUTF8": "1"}, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ValueError(
            f"{Path(arguments[0]).name} ended with an error ({last}): run it by hand to see more."
        )
    return done.stdout


def nanogpt_log(log):
    """The log of nanoGPT's train.py -> ({iteration: milliseconds}, {step: its estimate of the val loss})."""
    times = re.findall(r"^iter (\d+): loss \S+, time ([\d.]+)ms", log, re.MULTILINE)
    evals = re.findall(r"^step (\d+): train loss \S+, val loss ([\d.]+)", log, re.MULTILINE)
    if not times or not evals:
        raise ValueError(
            "The log of train.py has no iterations or no losses: is this nanoGPT's own train.py?"
        )
    return {int(i): float(ms) for i, ms in times}, {int(step): float(loss) for step, loss in evals}


def nanogpt_seconds(times, evals, steps):
    """Training seconds of the first `steps` iterations of a log, without its evaluations.

    nanoGPT's time for an iteration that begins with an evaluation has that in it; the median of the
    other iterations stands in for those. The checkpoint of step 2000 has seen iterations 0 to 1999.
    """
    kept = [ms for i, ms in times.items() if i < steps and i not in evals]
    return (sum(kept) + (steps - len(kept)) * statistics.median(kept)) / 1000


def nanogpt_weights(weights):
    """nanoGPT's state dict under the names of helpers.model.GPT. Layouts agree: q, k, v one after another."""
    names = {
        "transformer.": "", "wte.": "token_embedding.", "wpe.": "position_embedding.", "h.": "blocks.",
        "attn.c_attn": "attn.qkv", "attn.c_proj": "attn.proj",
        "mlp.c_fc": "ffwd.widen", "mlp.c_proj": "ffwd.narrow",
    }  # fmt: skip
    renamed = {}
    for name, tensor in weights.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    return renamed


# ---------------------------------------------------------------- the rows


@dataclass
class Bench:
    """What every row needs: the text, the device, the sizes, and what earlier rows have found out."""

    corpus: Corpus
    device: torch.device
    sizes: dict
    nanogpt: Path | None = None
    found: dict = field(default_factory=dict)

    def build(self, preset, model=None, **changes):
        """Model, tokenizer, train_ids, val_ids, TrainConfig of a preset, made tiny in a quick run."""
        return build(preset, self.corpus, (model or {}) | self.sizes["model"], changes)

    @property
    def rounds(self):
        return self.sizes["rounds"]


def course_train(*args, **kwargs):
    """helpers.train.train without a bar; Ctrl-C and SIGTERM end the benchmark, not only this training."""
    history = train(*args, progress=False, **kwargs)
    if history.stopped and "should_stop" not in kwargs:
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


def in_a_fresh_process(function, bench, *arguments):
    """What function(corpus, sizes, device, *arguments) returns in a process of its own, as JSON has it.

    helpers.device.keep_freed_memory lasts as long as a process, so the two sides must not share one.
    """
    given = (len(bench.corpus.text), bench.sizes, str(bench.device), *arguments)
    code = f"from helpers import bench as b; b.print_result(b.{function.__name__}, *{given!r})"
    return json.loads(child(["-c", code], ROOT))


def print_result(function, length, sizes, device, *arguments):
    """The other end of in_a_fresh_process."""
    corpus = corpus_at_hand()
    bench = Bench(dataclasses.replace(corpus, text=corpus.text[:length]), torch.device(device), sizes)
    print(json.dumps(function(bench, *arguments)))


def preset_rate(bench, preset, kept=True):
    """Tokens/s of a preset after as many steps to warm up: course-cpu by the course, nanogpt-cpu plainly."""
    if not kept:
        helpers.train.keep_freed_memory = lambda: None
    model, _, train_ids, _, config = bench.build(preset)
    rate = course_rate if preset == "course-cpu" else plain_rate
    measure = rate(model, train_ids, config, bench.device, bench.sizes["steps"])
    measure()
    return measure()


def training(bench):
    """Tokens/s of the course's trainer against nanoGPT's recipe for a CPU, the same shape of model."""
    steps = bench.sizes["steps"]
    config, recipe = (PRESETS[name].train for name in ("course-cpu", "nanogpt-cpu"))
    ours = (
        f"each figure from a fresh process; course: preset course-cpu, batch {config['batch_size']}; plain:"
    )

    def course():
        return in_a_fresh_process(preset_rate, bench, "course-cpu")

    def plain():
        return in_a_fresh_process(preset_rate, bench, "nanogpt-cpu")

    figures = alternate(plain, course, bench.rounds)
    bench.found["course_rate"] = statistics.median(figures[1])
    note = (
        f"{ours} nanoGPT's CPU recipe restated: batch {recipe['batch_size']}, float32, SDPA, gelu, "
        "AdamW unfused"
    )
    target = "ratio", "at least", 3
    rows = [row_of("training, 128/4/4/64", "tokens/s", *figures, target, note)]
    if bench.nanogpt:
        with nanogpt_copy(bench.nanogpt, bench.corpus.text) as folder:
            # Its first iterations warm up; evaluation 0 cannot be turned off and is not counted.
            few = [*NANOGPT_ARGUMENTS, f"--max_iters={10 + 2 * steps}", "--eval_iters=1"]

            def real():
                times, _ = nanogpt_log(child(["train.py", *few], folder))
                kept = [ms for i, ms in times.items() if i >= 10]
                return NANOGPT_TOKENS * len(kept) / sum(kept) * 1000

            figures = alternate(real, course, bench.rounds)
        note = f"{ours} the nanoGPT checkout"
        rows.append(row_of("training against the nanoGPT checkout", "tokens/s", *figures, target, note))
    return rows


def recipe_run(bench):
    """Run nanoGPT's whole CPU recipe once: seconds of training, loss of the full sweep, what was run."""
    if "recipe" in bench.found:
        return bench.found["recipe"]
    steps = bench.sizes["recipe_steps"]
    if bench.nanogpt:
        model, _, _, val_ids, _ = build("nanogpt-cpu", bench.corpus)
        with nanogpt_copy(bench.nanogpt, bench.corpus.text) as folder:
            arguments = [*NANOGPT_ARGUMENTS, f"--max_iters={steps}", f"--lr_decay_iters={steps}"]
            arguments.append(f"--eval_interval={min(steps, 250)}")
            start = time.perf_counter()
            times, evals = nanogpt_log(child(["train.py", *arguments], folder))
            wall = time.perf_counter() - start
            path = Path(folder) / "out-shakespeare-char" / "ckpt.pt"
            saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(nanogpt_weights(saved["model"]))
        loss = evaluate(model, val_ids, model.config.block_size)
        seconds = nanogpt_seconds(times, evals, steps)
        what = (
            f"the nanoGPT checkout ({wall:.0f} s with start and evaluations; its own estimate of its loss, "
            f"{evals[steps]:.4f}; the sweep over its last checkpoint is the course's)"
        )
    else:
        seconds, loss = in_a_fresh_process(restated_recipe, bench, steps)
        what = "nanoGPT's CPU recipe restated"
    bench.found["recipe"] = seconds, loss, what
    return bench.found["recipe"]


def restated_recipe(bench, steps):
    """nanoGPT's CPU recipe by plain_train: its seconds and the loss of a full sweep."""
    model, _, train_ids, val_ids, config = bench.build("nanogpt-cpu", max_steps=steps)
    plain_train(copy.deepcopy(model), train_ids, config, bench.device, min(steps, 10))  # warm-up
    seconds = plain_train(model, train_ids, config, bench.device, steps)
    return seconds, evaluate(model, val_ids, model.config.block_size)


def until(goal, bench, preset, val_tokens=None, **changes):
    """Train until a sweep is at goal or below: (seconds or None, steps, best loss)."""
    model, _, train_ids, val_ids, config = bench.build(preset, **changes)
    interval = max(config.max_steps // bench.sizes["sweeps"], 1)
    config = dataclasses.replace(config, eval_interval=interval)
    reached = []

    def look(model, history):
        if history.evals[-1]["val"] <= goal:
            reached.append(history.evals[-1]["seconds"])

    history = course_train(
        model, train_ids, val_ids[:val_tokens], config, bench.device,
        on_eval=look, should_stop=lambda: bool(reached),
    )  # fmt: skip
    if history.stopped and not reached:
        raise KeyboardInterrupt
    return (reached or [None])[0], history.evals[-1]["step"], history.best_val


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
        f"steps {[n for _, n, _ in runs]}; training alone, without evaluation, on both sides"
    )
    target = "ratio", "at most", 1 / 8
    name = "time to the recipe's final validation loss"
    return [row_of(name, "s", [seconds], [s for s, _, _ in runs], target, note)]


def loss_in_time(bench):
    """The validation loss that course-cpu reaches in the time of nanoGPT's whole CPU recipe."""
    if "course_rate" not in bench.found:
        training(dataclasses.replace(bench, nanogpt=None))
    seconds, loss, what = recipe_run(bench)
    _, _, _, _, config = bench.build("course-cpu")
    tokens = config.batch_size * (bench.sizes["model"] or PRESETS["course-cpu"].model)["block_size"]
    # A little less than fits, so that a slow minute of the machine does not lead past the time.
    steps = max(int(0.88 * seconds * bench.found["course_rate"] / tokens), 2)
    model, _, train_ids, val_ids, config = bench.build("course-cpu", max_steps=steps, eval_interval=steps)
    history = course_train(model, train_ids, val_ids, config, bench.device)
    final = history.evals[-1]["val"]
    note = (
        f"plain: {what}, {seconds:.1f} s; course: preset course-cpu with max_steps={steps}, "
        f"{history.train_seconds:.1f} s; training alone"
    )
    shakespeare = bench.corpus.name == "tinyshakespeare"
    # Over the time, the loss is not the one that was asked for.
    reached = [final if history.train_seconds <= seconds else None]
    target = ("course", "at most", 1.55) if shakespeare else None
    return [row_of("validation loss in the recipe's time", "nats", [loss], reached, target, note)]


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
    figures = alternate(
        rate_of(lambda: plain_generate(plain, start, n), n, bench.device),
        rate_of(lambda: generate(course, start, n), n, bench.device),
        bench.rounds,
    )
    kind = "bfloat16" if bf16_is_fast(bench.device) else "float32"
    note = f"{n} new characters; plain: lists of heads, float32, no cache; course: cached, {kind}"
    target = "ratio", "at least", 10
    return [row_of("generation, 384/6/6/256, one sequence", "characters/s", *figures, target, note)]


def generation_in_batches(bench):
    """Characters/s of many sequences at once against one, both cached."""
    _, model, start = writers(bench)
    n, B = bench.sizes["new_tokens"], bench.sizes["sequences"]
    figures = alternate(
        rate_of(lambda: generate(model, start, n), n, bench.device),
        rate_of(lambda: generate(model, start.expand(B, 1), n), n * B, bench.device),
        bench.rounds,
    )
    note = (
        f"plain: one sequence at a time, the course's cached generation too; course: {B} at once, all counted"
    )
    target = "ratio", "at least", 6
    return [row_of(f"generation, {B} sequences at once", "characters/s", *figures, target, note)]


def encoding(bench):
    """Characters/s of CharTokenizer.encode against a list comprehension over a dictionary."""
    text = bench.corpus.text
    tokenizer = CharTokenizer.from_text(text)
    stoi = {c: i for i, c in enumerate(tokenizer.chars)}
    figures = alternate(
        rate_of(lambda: torch.tensor([stoi[c] for c in text]), len(text), bench.device),
        rate_of(lambda: tokenizer.encode(text), len(text), bench.device),
        2 * bench.rounds + 1,
    )
    note = f"{len(text):,} characters; plain: torch.tensor([stoi[c] for c in text])"
    return [row_of("encoding", "characters/s", *figures, ("ratio", "at least", 10), note)]


def resident(field_name):
    """Bytes of this process by /proc (Linux): VmRSS, in memory now; VmHWM, the most so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"^{field_name}:\s+(\d+) kB", status, re.MULTILINE)[1])


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


def print_training_memory(kind, changes, batch_size=8, steps=3):
    """Print how many bytes training gpt-from-scratch takes at its peak in this process (Linux).

    A tiny model goes first: what PyTorch loads when it trains for the first time is no part of it.
    """
    settings = {"vocab_size": 65} | PRESETS["gpt-from-scratch"].model | changes
    train_and_evaluate(kind, settings | QUICK["model"], 1, 1)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew here
    train_and_evaluate(kind, settings, batch_size, steps)
    print(resident("VmHWM") - before)


def memory(bench):
    """Peak memory of training gpt-from-scratch at batch 8, each time in a fresh process."""
    if not Path("/proc/self/clear_refs").exists():
        print("memory: left out, only Linux tells a process its peak.", file=sys.stderr)
        return []

    def peak(kind):
        code = "from helpers.bench import print_training_memory as f; f"
        return int(child(["-c", f"{code}({kind!r}, {bench.sizes['model']!r})"], ROOT)) / 2**20

    rounds = [(peak("plain"), peak("course")) for _ in range(bench.sizes["memory_rounds"])]
    note = (
        "peak resident memory minus that just before the model is built; 3 steps at batch 8 and evaluation, "
        "on the CPU, a fresh process each time"
    )
    target = "ratio", "at most", 0.6
    return [row_of("peak memory, gpt-from-scratch at batch 8", "MiB", *map(list, zip(*rounds)), target, note)]


def kept_memory(bench):
    """Tokens/s of the course's trainer where freed memory stays with the process against handing it back."""

    def measure(kept):
        return in_a_fresh_process(preset_rate, bench, "course-cpu", kept)

    note = "the course's trainer and preset course-cpu on both sides, each figure from a fresh process"
    figures = alternate(lambda: measure(False), lambda: measure(True), bench.rounds)
    return [row_of("freed memory kept against handed back", "tokens/s", *figures, None, note)]


def precision(bench):
    """Tokens/s of the course's trainer in bfloat16 against float32."""
    model, _, train_ids, _, config = bench.build("course-cpu")
    plain, course = (
        course_rate(
            model, train_ids, dataclasses.replace(config, precision=kind), bench.device, bench.sizes["steps"]
        )
        for kind in ("float32", "bfloat16")
    )
    note = "the course's trainer and preset course-cpu on both sides"
    figures = alternate(plain, course, bench.rounds)
    return [row_of("bfloat16 against float32", "tokens/s", *figures, None, note)]


def fused_attention(bench):
    """Tokens/s with fused attention against a list of heads, both float32, at block 256."""
    changes = dict(batch_size=8, precision="float32")
    model, _, train_ids, _, config = bench.build("course-cpu", dict(block_size=256), **changes)
    plain, course = (
        course_rate(m, train_ids, config, bench.device, max(bench.sizes["steps"] // 4, 2))
        for m in (with_list_of_heads(copy.deepcopy(model)), model)
    )
    note = f"128/4/4/{model.config.block_size}, batch 8, float32, else the course's trainer on both sides"
    figures = alternate(plain, course, bench.rounds)
    return [row_of("fused attention against a list of heads", "tokens/s", *figures, None, note)]


def fused_optimizer(bench):
    """Tokens/s with fused AdamW against the form that goes from parameter to parameter; and steps/s alone."""
    steps = bench.sizes["steps"]
    model, _, train_ids, _, config = bench.build("course-cpu")
    kind = "bfloat16" if bf16_is_fast(bench.device) else "float32"
    plain, course = (
        plain_rate(model, train_ids, config, bench.device, steps, draw=get_batch, fused=f, precision=kind)
        for f in (None, True)
    )
    note = f"whole steps of preset course-cpu's model and batch in {kind}; plain: AdamW as PyTorch chooses it"
    name = "fused AdamW against unfused"
    rows = [row_of(name, "tokens/s", *alternate(plain, course, bench.rounds), None, note)]
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e-3)
    unfused, fused = (plain_optimizer(model, config, f) for f in (None, True))
    plain = rate_of(lambda: [unfused.step() for _ in range(steps)], steps, bench.device)
    course = rate_of(lambda: [fused.step() for _ in range(steps)], steps, bench.device)
    note = "AdamW on the parameters of preset course-cpu, nothing else in the loop"
    figures = alternate(plain, course, bench.rounds)
    return [*rows, row_of(f"{name}, the optimizer alone", "steps/s", *figures, None, note)]


def gathered_batches(bench):
    """Tokens/s with batches gathered from one tensor against stacks of slices; and batches/s alone."""
    steps = bench.sizes["steps"]
    model, _, train_ids, _, config = bench.build("course-cpu")
    kind = "bfloat16" if bf16_is_fast(bench.device) else "float32"
    plain, course = (
        plain_rate(model, train_ids, config, bench.device, steps, draw=d, fused=True, precision=kind)
        for d in (stacked_batch, get_batch)
    )
    note = f"whole steps of preset course-cpu's model and batch in {kind}, fused AdamW"
    name = "gathered batches against stacked"
    rows = [row_of(name, "tokens/s", *alternate(plain, course, bench.rounds), None, note)]
    T, B, n = model.config.block_size, config.batch_size, 10 * steps
    plain, course = (
        rate_of(lambda d=d: [d(train_ids, T, B) for _ in range(n)], n, bench.device)
        for d in (stacked_batch, get_batch)
    )
    note = f"batches of {B} x {T}, nothing else in the loop"
    figures = alternate(plain, course, bench.rounds)
    return [*rows, row_of(f"{name}, drawing alone", "batches/s", *figures, None, note)]


def time_to_the_same_loss(bench, what, **plain_changes):
    """Seconds of preset course-cpu to the loss that it ends on with plain_changes, one pair a seed."""
    budget = dict(max_steps=bench.sizes["muon_steps"])
    few = 20_000  # validation tokens: short sweeps, since there are many
    seconds, steps = ([], []), []
    for seed in range(1337, 1337 + bench.sizes["seeds"]):
        changes = budget | plain_changes | {"seed": seed}
        model, _, train_ids, val_ids, config = bench.build("course-cpu", **changes)
        config = dataclasses.replace(config, eval_interval=config.max_steps)
        history = course_train(model, train_ids, val_ids[:few], config, bench.device)
        took, n, _ = until(history.evals[-1]["val"], bench, "course-cpu", few, seed=seed, **budget)
        seconds[0].append(history.train_seconds)
        seconds[1].append(took)
        steps.append(n)
    note = (
        f"plain: {budget['max_steps']} steps of preset course-cpu with {plain_changes}; course: the preset "
        f"as it is, until its loss is the same, after {steps} steps"
    )
    return [row_of(f"{what}: time to the same loss", "s", *seconds, None, note)]


def muon(bench):
    """Seconds to the same validation loss with Muon for the matrices against AdamW alone."""
    return time_to_the_same_loss(bench, "Muon against AdamW", optimizer="adamw")


def schedule(bench):
    """Seconds to the same validation loss with a cosine down to zero against a constant rate."""
    return time_to_the_same_loss(bench, "cosine against a constant rate", min_learning_rate_ratio=1.0)


ROWS = {
    "training": training,
    "time-to-loss": time_to_loss,
    "loss-in-time": loss_in_time,
    "generation": generation,
    "generation-in-batches": generation_in_batches,
    "encoding": encoding,
    "memory": memory,
    "kept-memory": kept_memory,
    "precision": precision,
    "fused-attention": fused_attention,
    "fused-optimizer": fused_optimizer,
    "gathered-batches": gathered_batches,
    "muon": muon,
    "schedule": schedule,
}

# ---------------------------------------------------------------- the program


def corpus_at_hand():
    """Tiny Shakespeare if a copy is here, else the bundled plays: nothing is downloaded for a benchmark."""
    here = os.environ.get("TINYSHAKESPEARE_PATH") or (DATA_DIR / "tinyshakespeare.txt").exists()
    return load_corpus("tinyshakespeare" if here else "plays")


def run(names, device, quick=False, nanogpt=None):
    """Measure the named rows, print the table as it grows, and return the record as a dictionary."""
    corpus = corpus_at_hand()
    if quick:
        corpus = dataclasses.replace(corpus, text=corpus.text[:20_000])
    bench = Bench(corpus, device, QUICK if quick else FULL, nanogpt)
    record = {
        "corpus": corpus.name,
        "device": device.type,
        "hardware": hardware(device),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "quick": quick,
        "nanogpt": nanogpt is not None,
        "sizes": bench.sizes,
        "seconds": 0.0,
        "rows": [],
    }
    print(f"{record['hardware']}, torch {record['torch']}, corpus {corpus.name}\n\n{HEADINGS}", flush=True)
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


def main():
    parser = argparse.ArgumentParser(description="Measure the course's programs beside a plain baseline.")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a nanoGPT checkout to run as it is")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps; chosen if not given")
    parser.add_argument("--out", type=Path, default=RUNS_DIR, help="folder of the JSON record")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: tests the program, measures nothing"
    )
    args = parser.parse_args()
    try:
        device = pick_device(args.device)
        if args.nanogpt and device.type != "cpu":
            raise ValueError(f"--nanogpt runs a recipe for the CPU, not for {device.type}: add --device cpu.")
        args.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is noticed now
        record = run(args.only or list(ROWS), device, args.quick, args.nanogpt)
        path = args.out / f"bench-{device.type}.json"
        write_atomically(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    except (ValueError, FloatingPointError, OSError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: nothing was recorded.") from None
    print(f"\n{record['seconds']} s in all -> {path}")


if __name__ == "__main__":
    main()
