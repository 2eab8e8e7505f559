"""How fast is this machine? From it follow the times that the doctor tells, and what notebook 06 trains."""

import functools
import math
import os
import re
import time
from itertools import pairwise

import torch

from helpers.checks import shown
from helpers.device import pick_device
from helpers.files import DATA_DIR
from helpers.model import GPT, GPTConfig
from helpers.presets import PRESETS
from helpers.train import Callbacks, TrainConfig, train

FOR_A_LAPTOP = "course-cpu", "course-sprint"
WANTED_SECONDS = 120  # of training, in notebook 06
# A training step of course-cpu on the machine whose times the notebooks state: two cores of an AMD EPYC
# (Zen 4, with bfloat16), from data/runs/course-cpu-plays-cpu.json and the row "precision" of bench-cpu.json.
STATED_STEP = {"auto": 0.140, "float32": 0.251}  # seconds


@functools.cache
def step_seconds(preset_name, device, precision, steps=7):
    """The time of a training step of a preset: the shortest of a few, as other programs disturb some.

    Measured once in a process.
    """
    preset = PRESETS[preset_name]
    settings = dict(precision=precision, max_steps=steps, warmup_steps=0, eval_interval=steps)
    config = TrainConfig(**preset.train | settings)
    moments, ids = [], torch.arange(4096) % 65
    callbacks = Callbacks(on_step=lambda history: moments.append(time.perf_counter()))
    with torch.random.fork_rng():  # what is drawn here must not change what a notebook draws
        model = GPT(GPTConfig(vocab_size=65, **preset.model))
        train(model, ids, ids[:1000], config, device, callbacks=callbacks, progress=False)
    return min(end - begin for begin, end in pairwise(moments[:-1]))  # the last step ends with a sweep


def training_seconds(preset_name, device):
    """How long a preset trains here, sweeps apart."""
    return PRESETS[preset_name].train["max_steps"] * step_seconds(preset_name, device, "auto")


def preset_for(device=None):
    """The name of the preset that notebook 06 trains: COURSE_PRESET, else course-gpu where there is CUDA.

    On other devices it is the one of FOR_A_LAPTOP that trains nearer to two minutes, which takes seconds to
    measure. Raises ValueError for a COURSE_PRESET that is none of the course's own presets.
    """
    device, asked = device or pick_device(), os.environ.get("COURSE_PRESET")
    if asked:
        own = [name for name in PRESETS if name.startswith("course-")]
        if asked not in own:
            raise ValueError(f"COURSE_PRESET={shown(asked)} is not there: choose one of {', '.join(own)}.")
        return asked
    if device.type == "cuda":
        return "course-gpu"
    seconds = {name: training_seconds(name, device) for name in FOR_A_LAPTOP}
    return min(seconds, key=lambda name: abs(math.log(seconds[name] / WANTED_SECONDS)))


def slowness(device, precision="auto"):
    """How many times as long a training step takes here as where the stated times were measured.

    precision: "auto", the fastest of either machine, or "float32" for both.
    """
    return step_seconds("course-cpu", device, precision) / STATED_STEP[precision]


def seconds_of_notebooks(slow, slow_in_float32):
    """{"00": seconds, ...} of computing here: what the title cells state, times the slowness of this machine.

    Up to 05 the notebooks compute in float32; from 06 on they train in the fastest precision. A notebook of
    the reader's own, or one whose title was rewritten, is left out.
    """
    seconds = {}
    for path in sorted((DATA_DIR.parent / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if said := re.search(r"(\d+) seconds of computing", text):
            times = slow_in_float32 if path.stem[:2] <= "05" else slow
            seconds[path.stem[:2]] = times * int(said[1])
    return seconds
