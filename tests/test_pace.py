"""How fast is this machine, and what does notebook 06 train on it?"""

import pytest
import torch

from helpers.presets import PRESETS
from helpers.program import pace
from helpers.program.pace import preset_for, seconds_of_notebooks, slowness, step_seconds, training_seconds

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def step_of(monkeypatch):
    """{preset: seconds a step}, in place of measuring; change it to pretend."""
    pretended = {"course-cpu": 0.14, "course-sprint": 0.034}
    monkeypatch.delenv("COURSE_PRESET")  # which tests/conftest.py sets
    monkeypatch.setattr(pace, "step_seconds", lambda name, device, precision: pretended[name])
    return pretended


def test_a_step_is_timed_and_nothing_else_changes(monkeypatch):
    moments = iter([0.0, 9.0, 11.0, 16.0, 16.5])  # the last step ends with a sweep, and does not count
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(moments))
    before = torch.random.get_rng_state()

    def five_steps(model, train_ids, val_ids, config, device, callbacks, progress):
        assert (config.max_steps, config.batch_size, model.config.n_layer) == (5, 64, 2) and not progress
        assert config.precision == "float32"
        torch.rand(1)
        for _ in range(5):
            callbacks.on_step(None)

    monkeypatch.setattr(pace, "train", five_steps)
    assert step_seconds.__wrapped__("course-sprint", CPU, "float32", steps=5) == 2.0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_takes_all_its_steps(step_of):
    assert training_seconds("course-cpu", CPU) == 0.14 * PRESETS["course-cpu"].train["max_steps"]


@pytest.mark.parametrize("slow, preset", [(0.2, "course-cpu"), (1, "course-cpu"), (3, "course-cpu"),
                                          (4, "course-sprint"), (50, "course-sprint")])  # fmt: skip
def test_a_slow_cpu_gets_what_trains_in_two_minutes(step_of, slow, preset):
    step_of.update({name: slow * seconds for name, seconds in step_of.items()})
    assert preset_for(CPU) == preset


def test_a_gpu_and_what_the_reader_asks_for(step_of, monkeypatch):
    step_of.clear()
    assert preset_for(CUDA) == "course-gpu", "and nothing is measured"
    monkeypatch.setenv("COURSE_PRESET", "course-long")
    assert preset_for(CUDA) == preset_for(CPU) == "course-long"
    monkeypatch.setenv("COURSE_PRESET", "gpt2-style")  # has another tokenizer than the notebook
    with pytest.raises(ValueError, match="COURSE_PRESET='gpt2-style' is not there: choose one of course-"):
        preset_for(CPU)


def test_a_step_is_measured_once(monkeypatch):
    """Two measurements on a machine that others use can differ by much, and the doctor's lines with them."""
    measured = []

    def two_steps(model, train_ids, val_ids, config, device, callbacks, progress):
        measured.append(config.precision)
        [callbacks.on_step(None) for _ in range(3)]

    monkeypatch.setattr(pace, "train", two_steps)
    step_seconds.cache_clear()
    seconds = training_seconds("course-cpu", CPU)
    assert slowness(CPU) * pace.STATED_STEP["auto"] * 800 == pytest.approx(seconds)
    assert measured == ["auto"]
    step_seconds.cache_clear()


def test_slowness_is_that_of_a_step_in_the_same_precision(step_of):
    step_of["course-cpu"] = 0.502
    assert slowness(CPU, "float32") == pytest.approx(2) and slowness(CPU) == pytest.approx(0.502 / 0.14)


def test_the_seconds_of_the_titles_times_slowness():
    once, more = seconds_of_notebooks(1, 1), seconds_of_notebooks(2, 3)
    assert once["06"] == 210 and once.keys() >= {"00", "05", "07"}
    assert more == {name: (3 if name < "06" else 2) * seconds for name, seconds in once.items()}


def test_what_a_reader_puts_beside_the_notebooks_stops_nothing(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(pace, "DATA_DIR", tmp_path / "data")
    assert seconds_of_notebooks(1, 1) == {}
    for name, text in {
        "Untitled.ipynb": '{"cells": []}', "08_mine.ipynb": "", "07_x.ipynb": "Time: 60 seconds of computing",
        "02_other.ipynb": '{"cells": [{"source": "another title"}]}',
    }.items():  # fmt: skip
        (tmp_path / "notebooks" / name).write_text(text)
    (tmp_path / "notebooks" / "03_damaged.ipynb").write_bytes(b"\xff\xfe{")
    assert seconds_of_notebooks(1, 2) == {"07": 60}
