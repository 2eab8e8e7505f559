"""The doctor: one line for each thing, the right mark, and a remedy where something is wrong."""

import importlib
import re
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from notebook_files import ROOT

from helpers.model import GPTConfig
from helpers.presets import PRESETS
from helpers.program import doctor
from helpers.program.doctor import LOOK, OK, STOP, examine, main, required
from helpers.program.folder import bytes_needed
from helpers.train import TrainConfig

PINS = required()


@pytest.fixture(autouse=True)
def fast_machine(monkeypatch):
    """In place of seconds of measuring: {"slow": 1.0}; change it to pretend."""
    pretended = {"slow": 1.0}
    monkeypatch.delenv("COURSE_PRESET")  # which tests/conftest.py sets
    monkeypatch.setattr("helpers.program.pace.slowness", lambda device, *precision: pretended["slow"])
    recorded = {"course-cpu": 112, "course-sprint": 10}
    monkeypatch.setattr(
        "helpers.program.pace.training_seconds", lambda name, device: pretended["slow"] * recorded[name]
    )
    rates = {"float32": 200e9, "bfloat16": 400e9}
    monkeypatch.setattr("helpers.program.bench.peak_rates", lambda device, size, seconds: rates)
    return pretended


@pytest.fixture
def versions(monkeypatch):
    """What is installed, as the doctor sees it; change it to pretend."""
    pretended = dict(PINS)
    monkeypatch.setattr(doctor, "installed", pretended.get)
    return pretended


def test_a_good_machine_is_ready(versions, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    subjects = ["python", "packages", "widgets", "disk", "torch", "text", "threads", "device", "bfloat16"]
    subjects += ["speed", "times"]
    assert [line.split()[1] for line in lines[:-1]] == subjects
    assert {line.split()[0] for line in lines[:-1]} == {OK} and lines[-1] == "Ready."


def test_versions_are_read_from_the_one_list():
    assert PINS["torch"] == doctor.installed("torch"), "without +cpu"
    assert PINS["jupyterlab"] == doctor.installed("jupyterlab")
    assert doctor.installed("no-such-package") is None


def test_an_old_python_stops_the_course(monkeypatch):
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (sys.version_info[0], sys.version_info[1] + 1))
    mark, _, sentence = doctor.python()
    assert mark == STOP and "too old: install Python" in sentence
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", sys.version_info[:2])
    assert doctor.python()[0] == OK


@pytest.mark.parametrize(
    "name, line, version, mark",
    [
        ("numpy", doctor.packages, None, STOP),
        ("numpy", doctor.packages, "1.0", LOOK),
        ("transformers", doctor.packages, None, LOOK),  # notebook 08 alone needs it
        ("ipywidgets", doctor.widgets, None, STOP),
        ("ipywidgets", doctor.widgets, "7.7.1", LOOK),
        ("jupyterlab", doctor.widgets, None, LOOK),  # VS Code and Colab do without
        ("torch", doctor.torch_line, "2.9.0", LOOK),
    ],
)
def test_a_wrong_version_says_what_to_do(versions, monkeypatch, name, line, version, mark):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    versions[name] = version
    given, _, sentence = line()
    assert given == mark and f"{sys.executable} -m pip install -r requirements.txt" in sentence
    assert name in sentence and (version is None or f"{name} {version} (tested: {PINS[name]})" in sentence)


def test_a_torch_that_cannot_be_imported_stops_the_course(monkeypatch, capsys):
    def broken(name):
        raise OSError("libc10.so: cannot open shared object file\nmore")

    monkeypatch.setattr(importlib, "import_module", broken)
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "NO  torch     cannot be imported (libc10.so: cannot open shared object file): run" in out
    assert out.splitlines()[-1] == "The course cannot run yet: first see to what is marked NO."


def test_a_torch_without_muon_stops_the_course(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    mark, _, sentence = doctor.torch_line()
    assert mark == STOP and "has no Muon optimizer" in sentence


def test_a_gpu_that_torch_does_not_see_is_worth_a_look(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    mark, _, sentence = doctor.torch_line()
    assert mark == LOOK and "install a build with CUDA" in sentence
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "does not see" not in doctor.torch_line()[2]


def test_the_device_and_why(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert doctor.device() == (OK, "device", "cpu: COURSE_DEVICE asks for it")
    monkeypatch.setenv("COURSE_DEVICE", "banana")
    mark, _, sentence = doctor.device()
    assert mark == STOP and "'banana'" in sentence and "use cpu" in sentence
    assert "bfloat16" not in [subject for _, subject, _ in examine()], "it depends on the device"
    monkeypatch.delenv("COURSE_DEVICE")
    monkeypatch.setattr("helpers.device.pick_device", lambda: torch.device("cpu"))
    assert "no GPU here, so notebook 06 trains a small model" in doctor.device()[2]


def test_more_threads_than_cores_are_worth_a_look(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    mark, _, sentence = doctor.threads()
    assert mark == LOOK and "set OMP_NUM_THREADS=" in sentence


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_told(monkeypatch, fast):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setattr("helpers.device.bf16_is_fast", lambda device: fast)
    mark, _, sentence = doctor.bfloat16()
    slow = "not in hardware: training uses float32 and takes longer"
    assert (mark, sentence) == (OK, "in hardware: training uses it" if fast else slow)


SLOW = "training takes 4.0 times as long as the notebooks state"


@pytest.mark.parametrize(
    "slow, fast, mark, speed, end",
    [
        (1.0, True, OK, "200 Gflop/s in float32, 400 Gflop/s in bfloat16; training takes 1.0 times as long",
         "05 3 min, 06 4 min, 07 60 s, 08 70 s; notebook 06 trains course-cpu in 2 min"),
        (4.0, False, LOOK, f"200 Gflop/s in float32; {SLOW}",
         "06 7 min, 07 4 min, 08 5 min; notebook 06 trains course-sprint in 40 s"),
    ],
)  # fmt: skip
def test_speed_and_times(fast_machine, monkeypatch, slow, fast, mark, speed, end):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setattr("helpers.device.bf16_is_fast", lambda device: fast)
    fast_machine["slow"] = slow
    (first, _, said), (second, _, times) = doctor.speed()
    assert (first, second) == (mark, OK) and speed in said and times.endswith(end)
    assert times.startswith(f"of computing: 00 {10 * slow:.0f} s, 01 ")


def test_a_preset_that_is_not_there_stops_the_course(monkeypatch):
    monkeypatch.setenv("COURSE_PRESET", "banana")
    mark, _, sentence = doctor.speed()[-1]
    assert mark == STOP and "COURSE_PRESET='banana' is not there: choose one of course-cpu" in sentence
    monkeypatch.setenv("COURSE_PRESET", "course-gpu")
    assert doctor.speed()[-1][2].endswith("notebook 06 trains course-gpu"), "no time is known"


def test_of_a_gpu_no_time_is_made_up(monkeypatch):
    monkeypatch.setattr("helpers.device.pick_device", lambda: torch.device("cuda", 0))
    assert doctor.speed() == [(OK, "times", "of the notebooks on a GPU: none has been measured yet")]


NEEDS = {"course-cpu": 30e6, "course-gpu": 600e6, "gpt2-style": 8e9}


@pytest.mark.parametrize(
    "device, free, mark, sentence",
    [
        ("cpu", 29e6, LOOK, "29.0 MB free: the checkpoints of course-cpu need 30.0 MB, so free some space"),
        ("cpu", 30e6, OK, "30.0 MB free: enough for the checkpoints of course-cpu (30.0 MB), not for"),
        ("cuda", 30e6, LOOK, "30.0 MB free: the checkpoints of course-gpu need 600.0 MB, so free some"),
        ("cpu", 7e9, OK, "not for the largest preset's (gpt2-style, 8.00 GB)"),
        ("cpu", 8e9, OK, "8.00 GB free: the checkpoints of course-cpu need 30.0 MB, the largest preset's 8"),
    ],
)
def test_the_disk_is_compared_with_what_runs_need(monkeypatch, device, free, mark, sentence):
    monkeypatch.setattr(doctor, "room_of_presets", lambda: NEEDS)
    monkeypatch.setattr("helpers.device.pick_device", lambda: torch.device(device))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(free))
    given, _, said = doctor.disk()
    assert given == mark and sentence in said


def test_the_room_of_a_preset_is_that_of_a_run():
    needs = doctor.room_of_presets()
    gpt2 = GPTConfig(**PRESETS["gpt2-style"].model)
    assert needs["gpt2-style"] == bytes_needed(gpt2, TrainConfig(**PRESETS["gpt2-style"].train))
    assert max(needs, key=needs.get) == "gpt2-style" and needs.keys() == PRESETS.keys()


@pytest.mark.parametrize("error", [ImportError, OSError, AttributeError])
def test_without_torch_the_disk_says_what_is_free(monkeypatch, error):
    def broken():
        raise error("no torch")

    monkeypatch.setattr(doctor, "room_of_presets", broken)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(123_456_789_012))
    assert doctor.disk() == (OK, "disk", "123.5 GB free")


def test_the_text(monkeypatch, tmp_path):
    assert doctor.corpus() == (OK, "text", "plays: 1,178,371 characters, verified")
    monkeypatch.setattr("helpers.data.DATA_DIR", tmp_path)
    (tmp_path / "plays.txt").write_text("not the plays")
    mark, _, sentence = doctor.corpus()
    assert mark == STOP and "git checkout data/plays.txt" in sentence
    mine = tmp_path / "mine.txt"
    mine.write_text("abc" * 50)
    monkeypatch.setenv("COURSE_CORPUS", str(mine))
    assert doctor.corpus() == (OK, "text", f"{mine}: 150 characters, your own (COURSE_CORPUS)")
    mine.unlink()
    assert doctor.corpus()[0] == STOP


def test_it_downloads_nothing(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr("helpers.data.download", refuse)
    monkeypatch.setattr("helpers.data.DATA_DIR", tmp_path)
    monkeypatch.setattr("helpers.files.DATA_DIR", tmp_path)  # where the doctor looks
    monkeypatch.setenv("COURSE_CORPUS", "tinyshakespeare")
    mark, _, sentence = doctor.corpus()
    assert mark == LOOK and "downloads it" in sentence


def test_something_worth_a_look_does_not_stop_jupyterlab(versions, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    versions["jupyterlab"] = "3.0"
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "The course runs. What is marked !! is worth a look."


def test_without_any_package_it_still_says_what_is_missing():
    # -S leaves out site-packages: a bare Python.
    command = [sys.executable, "-S", "-m", "helpers", "doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == ""
    assert "NO  torch     cannot be imported (No module named 'torch'): run" in done.stdout
    assert re.search(r"^OK  disk      [\d.]+ GB free$", done.stdout, re.MULTILINE)
