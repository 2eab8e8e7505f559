"""How fast is this machine, and what does notebook 06 train on it?"""

import pytest
import torch

from helpers.program import pace
from helpers.program.pace import preset_for, recorded_run, seconds_of_notebooks, slowness, step_seconds

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def not_asked(monkeypatch):
    monkeypatch.delenv("COURSE_PRESET")  # which tests/conftest.py sets


def test_a_step_is_timed_and_nothing_else_changes(monkeypatch):
    moments = iter([0.0, 9.0, 11.0, 16.0, 16.5])  # the last step ends with a sweep, and does not count
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(moments))
    before = torch.random.get_rng_state()

    def five_steps(model, train_ids, val_ids, config, device, callbacks, progress):
        assert (config.max_steps, config.batch_size, model.config.n_layer) == (5, 64, 4) and not progress
        torch.rand(1)
        for _ in range(5):
            callbacks.on_step(None)

    monkeypatch.setattr(pace, "train", five_steps)
    assert step_seconds(CPU, steps=5) == 2.0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_slowness_is_that_of_what_was_recorded(monkeypatch):
    run = recorded_run("course-cpu")
    assert (run["device"], run["preset"], run["precision"]) == ("cpu", "course-cpu", "bfloat16")
    here = {"auto": 3 * run["train_seconds"] / 800, "float32": 1.0}
    monkeypatch.setattr(pace, "step_seconds", lambda device, precision: here[precision])
    assert slowness(CPU) == pytest.approx(3)
    monkeypatch.setattr(
        pace, "load_bench", lambda: {"rows": [dict(row="precision", plain_median=2 * 64 * 64)]}
    )
    assert slowness(CPU, "float32") == pytest.approx(2), "0.5 s a step of 64 windows of 64 characters"
    assert recorded_run("course-gpu") is None, "if one was recorded on a CPU, this says nothing any more"


@pytest.mark.parametrize("slow, preset", [(0.2, "course-cpu"), (1, "course-cpu"), (3, "course-cpu"),
                                          (4, "course-sprint"), (50, "course-sprint")])  # fmt: skip
def test_a_slow_cpu_gets_what_trains_in_two_minutes(not_asked, monkeypatch, slow, preset):
    assert preset_for(CPU, slow) == preset
    monkeypatch.setattr(pace, "slowness", lambda device: slow)
    assert preset_for(CPU) == preset, "it is measured if it is not given"


def test_a_gpu_and_what_the_reader_asks_for(not_asked, monkeypatch):
    assert preset_for(CUDA) == "course-gpu", "and nothing is measured"
    monkeypatch.setenv("COURSE_PRESET", "course-long")
    assert preset_for(CUDA) == preset_for(CPU, 50) == "course-long"
    monkeypatch.setenv("COURSE_PRESET", "gpt2-style")  # has another tokenizer than the notebook
    with pytest.raises(ValueError, match="COURSE_PRESET='gpt2-style' is not there: choose one of course-"):
        preset_for(CPU)


def test_the_seconds_of_the_titles_times_slowness():
    once, twice = seconds_of_notebooks(1, 1, "course-cpu"), seconds_of_notebooks(2, 3, "course-cpu")
    assert once["06"] == 210 and once.keys() >= {"00", "05", "07"}
    assert twice == {name: (3 if name < "06" else 2) * seconds for name, seconds in once.items()}
    saved = recorded_run("course-cpu")["train_seconds"] - recorded_run("course-sprint")["train_seconds"]
    assert seconds_of_notebooks(2, 3, "course-sprint") == twice | {"06": twice["06"] - 2 * saved}
    assert "06" not in seconds_of_notebooks(1, 1, "course-gpu"), "no run of it on a CPU tells the time"
