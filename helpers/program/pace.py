"""How fast is this machine? From it follow the times that the doctor tells, and what notebook 06 trains."""

import json
import math
import os
import re
import time
from itertools import pairwise

import torch

from helpers.checks import shown
from helpers.device import pick_device
from helpers.files import DATA_DIR, RUNS_DIR
from helpers.model import GPT, GPTConfig
from helpers.presets import PRESETS
from helpers.program.records import load_bench, load_record
from helpers.train import Callbacks, TrainConfig, train

WANTED_SECONDS = 120  # of training, in notebook 06


def step_seconds(device, precision="auto", steps=7):
    """The time of a training step of course-cpu: the shortest of a few, as other programs disturb some."""
    preset = PRESETS["course-cpu"]
    settings = dict(precision=precision, max_steps=steps, warmup_steps=0, eval_interval=steps)
    config = TrainConfig(**preset.train | settings)
    moments, ids = [], torch.arange(4096) % 65
    callbacks = Callbacks(on_step=lambda history: moments.append(time.perf_counter()))
    with torch.random.fork_rng():  # what is drawn here must not change what a notebook draws
        model = GPT(GPTConfig(vocab_size=65, **preset.model))
        train(model, ids, ids[:1000], config, device, callbacks=callbacks, progress=False)
    return min(end - begin for begin, end in pairwise(moments[:-1]))  # the last step ends with a sweep


def recorded_run(preset_name):
    """The record of a preset's run on the CPU of the stated times, a dict; None if there is none."""
    names = sorted(path.stem for path in RUNS_DIR.glob(f"{preset_name}-*-cpu.json"))
    return load_record(names[0]) if names else None


def slowness(device, precision="auto"):
    """How many times as long a training step takes here as on the CPU of the stated times (with bfloat16).

    precision: "auto", the fastest of either, or "float32" for both.
    """
    run, of_bench = recorded_run("course-cpu"), load_bench()["rows"]
    there = run["train_seconds"] / run["train"]["max_steps"]
    if precision == "float32":
        (rate,) = (row["plain_median"] for row in of_bench if row["row"] == "precision")  # tokens a second
        there = run["train"]["batch_size"] * run["model"]["block_size"] / rate
    return step_seconds(device, precision) / there


def preset_for(device=None, slow=None):
    """The name of the preset that notebook 06 trains: COURSE_PRESET, else course-gpu where there is CUDA.

    On other devices it is course-cpu or course-sprint, whichever trains nearer to two minutes. slow: the
    slowness of this one; without it three seconds of training are measured. Raises ValueError for a
    COURSE_PRESET that is none of the course's own presets.
    """
    device, asked = device or pick_device(), os.environ.get("COURSE_PRESET")
    if asked:
        own = [name for name in PRESETS if name.startswith("course-")]
        if asked not in own:
            raise ValueError(f"COURSE_PRESET={shown(asked)} is not there: choose one of {', '.join(own)}.")
        return asked
    if device.type == "cuda":
        return "course-gpu"
    slow = slow or slowness(device)
    seconds = {name: slow * recorded_run(name)["train_seconds"] for name in ("course-cpu", "course-sprint")}
    return min(seconds, key=lambda name: abs(math.log(seconds[name] / WANTED_SECONDS)))


def seconds_of_notebooks(slow, slow_in_float32, preset_name):
    """{"00": seconds, ...} of computing here: what the title cells state, times the slowness of this machine.

    Up to 05 the notebooks compute in float32. The title of 06 states the time with course-cpu: with another
    preset it trains longer or shorter, and with one of which no run on a CPU was recorded it is left out.
    """
    seconds = {}
    for path in sorted((DATA_DIR.parent / "notebooks").glob("*.ipynb")):
        title = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        times = slow_in_float32 if path.stem[:2] <= "05" else slow
        seconds[path.stem[:2]] = times * int(re.search(r"(\d+) seconds of computing", title)[1])
    run = recorded_run(preset_name)
    if run is None:
        del seconds["06"]
    else:
        seconds["06"] += slow * (run["train_seconds"] - recorded_run("course-cpu")["train_seconds"])
    return seconds
