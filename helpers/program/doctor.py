"""Is this machine ready for the course? A few lines, marked OK, !! (worth a look) or NO (stops the course).

python -m helpers doctor

What it imports at its top needs no installation, so that it can report what is missing.
"""

import argparse
import importlib
import importlib.metadata
import math
import os
import re
import shutil
import sys

from helpers.program.setup import OLDEST_PYTHON, ROOT

OK, LOOK, STOP = "OK", "!!", "NO"
INSTALL = f"{sys.executable} -m pip install -r requirements.txt"


def examine():
    """The lines of the report: a list of (mark, subject, sentence)."""
    lines = [python(), packages(), widgets(), disk(), torch_line()]
    if lines[-1][0] != STOP:  # what follows needs torch
        lines += [corpus(), threads(), device()]
    if lines[-1][:2] == (OK, "device"):
        lines += [bfloat16(), *speed()]
    return lines


def required():
    """The versions that the course is tested with: a dict from name to version, from requirements.txt."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def installed(name):
    """The installed version of a package without a local part such as +cpu; None if it is not there."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def python():
    """Is Python new enough?"""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        return (
            STOP,
            "python",
            f"{version} is too old: install Python {needed} or newer, delete .venv, `make lab`",
        )
    return OK, "python", version


def torch_line():
    """Can torch be imported, is it the tested one, and is there a GPU that it cannot use?"""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a library of its own is missing or broken
        reason = str(error).strip().splitlines()[0]
        return STOP, "torch", f"cannot be imported ({reason}): run `{INSTALL}`"
    if not hasattr(torch.optim, "Muon"):
        return STOP, "torch", f"{torch.__version__} has no Muon optimizer and is too old: run `{INSTALL}`"
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        return (
            LOOK,
            "torch",
            (
                f"{torch.__version__} does not see the NVIDIA GPU of this machine: for its speed, "
                "install a build with CUDA from https://pytorch.org/get-started"
            ),
        )
    mark, sentence = compare_versions(["torch"])
    return mark, "torch", sentence


def packages():
    """Is everything else installed that notebooks import?"""
    names = ["numpy", "safetensors", "filelock", "tqdm", "matplotlib", "ipykernel"]
    of_notebook_08 = ["transformers", "tokenizers", "regex"]
    mark, sentence = compare_versions(names + of_notebook_08, can_miss=of_notebook_08)
    return mark, "packages", sentence


def widgets():
    """Are the sliders and JupyterLab the tested ones?"""
    mark, sentence = compare_versions(["ipywidgets", "jupyterlab"], can_miss=["jupyterlab"])
    return mark, "widgets", sentence


def compare_versions(names, can_miss=()):
    """(mark, sentence) for packages: what is installed beside what requirements.txt says."""
    versions = {name: (installed(name), required()[name]) for name in names}
    missing = [name for name, (version, _) in versions.items() if version is None]
    other = [
        f"{name} {version} (tested: {pin})" for name, (version, pin) in versions.items() if version != pin
    ]
    if missing:
        mark = LOOK if set(missing) <= set(can_miss) else STOP
        return mark, f"not installed: {', '.join(missing)}. Run `{INSTALL}`"
    if other:
        return LOOK, f"{', '.join(other)}: if a notebook fails, run `{INSTALL}`"
    return OK, ", ".join(f"{name} {version}" for name, (version, _) in versions.items())


def device():
    """Where does notebook 06 train, and why there?"""
    from helpers.device import hardware, pick_device

    try:
        chosen = pick_device()
    except ValueError as error:
        return STOP, "device", f"{error} (COURSE_DEVICE)"
    why = "the first that is there of cuda, mps and cpu"
    if os.environ.get("COURSE_DEVICE"):
        why = "COURSE_DEVICE asks for it"
    elif chosen.type == "cpu":
        why = "no GPU here, so notebook 06 trains a small model"
    name = chosen if chosen.type != "cuda" else f"{chosen}, {hardware(chosen)}"
    return OK, "device", f"{name}: {why}"


def threads():
    """Does torch use the cores that this process may use?"""
    import torch

    used = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if used > cores:
        return LOOK, "threads", f"{used} on {cores} cores make each other wait: set OMP_NUM_THREADS={cores}"
    return OK, "threads", f"{used} on {cores} cores"


def bfloat16():
    """Has the device bfloat16 in hardware?"""
    from helpers.device import best_precision, bf16_is_fast, pick_device

    chosen = pick_device()
    if bf16_is_fast(chosen):
        return OK, "bfloat16", "in hardware: training uses it"
    return OK, "bfloat16", f"not in hardware: training uses {best_precision(chosen)} and takes longer"


def speed():
    """Two lines: how fast is this machine, in a few seconds, and how long does each notebook take on it?"""
    from helpers.device import best_precision, pick_device
    from helpers.program import pace
    from helpers.program.bench import peak_rates

    chosen = pick_device()
    if chosen.type == "cuda":
        return [(OK, "times", "of the notebooks on a GPU: none has been measured yet")]
    slow, products = pace.slowness(chosen), ""
    if chosen.type == "cpu":
        rates = peak_rates(chosen, 512, 1.0)
        kinds = dict.fromkeys(["float32", best_precision(chosen)])
        products = ", ".join(f"{rates[kind] / 1e9:.0f} Gflop/s in {kind}" for kind in kinds)
        products = f"products of matrices {products}; "
    mark = LOOK if slow > 3 else OK
    line = mark, "speed", f"{products}training takes {slow:.1f} times as long as the notebooks state"
    try:
        name = pace.preset_for(chosen)
    except ValueError as error:
        return [line, (STOP, "times", str(error))]
    seconds, in_time = pace.seconds_of_notebooks(slow, pace.slowness(chosen, "float32")), ""
    of_06 = seconds.pop("06", None)
    if name in pace.FOR_A_LAPTOP:
        trains = pace.training_seconds(name, chosen)
        in_time = f" in {in_words(trains)}"
        if of_06 is not None:  # the title speaks of course-cpu
            seconds["06"] = of_06 + trains - pace.training_seconds("course-cpu", chosen)
    times = ", ".join(f"{number} {in_words(of)}" for number, of in sorted(seconds.items()))
    return [line, (OK, "times", f"of computing: {times}; notebook 06 trains {name}{in_time}")]


def in_words(seconds):
    """A time as a learner wants it: seconds in tens, from 90 on minutes."""
    return f"{10 * math.ceil(seconds / 10)} s" if seconds < 90 else f"{round(seconds / 60)} min"


def disk():
    """Is there room for the checkpoints of notebook 06's preset, and of the largest one?"""
    free = shutil.disk_usage(ROOT).free
    try:
        from helpers.program.folder import in_units

        needs = room_of_presets()
        own = own_preset()
    except (ImportError, OSError, AttributeError):  # no torch, a broken one, or one that is too old
        return OK, "disk", f"{free / 1e9:.1f} GB free"
    largest = max(needs, key=needs.get)
    there, enough, most = in_units(free), in_units(needs[own]), in_units(needs[largest])
    if free < needs[own]:
        sentence = f"the checkpoints of {own} need {enough}, so free some space before you train it"
        return LOOK, "disk", f"{there} free: {sentence}"
    if free < needs[largest]:
        sentence = f"enough for the checkpoints of {own} ({enough}), not for the largest preset's"
        return OK, "disk", f"{there} free: {sentence} ({largest}, {most})"
    sentence = f"the checkpoints of {own} need {enough}, the largest preset's {most} ({largest})"
    return OK, "disk", f"{there} free: {sentence}"


def room_of_presets():
    """The bytes that a run of each preset needs for its checkpoints: a dict from name to number."""
    from helpers.model import GPTConfig
    from helpers.presets import PRESETS
    from helpers.program.folder import bytes_needed
    from helpers.train import TrainConfig

    characters = {"vocab_size": 65}  # of the course's texts; a preset can say otherwise
    return {
        name: bytes_needed(GPTConfig(**characters | preset.model), TrainConfig(**preset.train))
        for name, preset in PRESETS.items()
    }


def own_preset():
    """The name of the preset that notebook 06 trains on this machine."""
    from helpers.device import pick_device

    try:
        return "course-gpu" if pick_device().type == "cuda" else "course-cpu"
    except ValueError:  # the line about the device tells
        return "course-cpu"


def corpus():
    """Can the text be read that load_corpus() gives, and is it the one that was verified?"""
    from helpers.data import load_corpus
    from helpers.files import DATA_DIR

    asked = os.environ.get("COURSE_CORPUS") or "plays"
    here = os.environ.get("TINYSHAKESPEARE_PATH") or (DATA_DIR / "tinyshakespeare.txt").exists()
    if asked == "tinyshakespeare" and not here:
        return LOOK, "text", "tinyshakespeare is not here yet: the first notebook downloads it (1.1 MB)"
    try:
        text = load_corpus().text
    except ValueError as error:
        return STOP, "text", str(error)
    checked = ", verified" if asked in ("plays", "tinyshakespeare") else ", your own (COURSE_CORPUS)"
    return OK, "text", f"{asked}: {len(text):,} characters{checked}"


def main(arguments=None):
    """Print the report; returns the exit status: 1 if something stops the course, else 0."""
    argparse.ArgumentParser(
        prog="python -m helpers doctor", description="Is this machine ready for the course?"
    ).parse_args(arguments)
    lines = examine()
    for mark, subject, sentence in lines:
        print(f"{mark}  {subject:9} {sentence}")
    marks = [mark for mark, _, _ in lines]
    if STOP in marks:
        print(f"The course cannot run yet: first see to what is marked {STOP}.")
    elif LOOK in marks:
        print(f"The course runs. What is marked {LOOK} is worth a look.")
    else:
        print("Ready.")
    return 1 if STOP in marks else 0
