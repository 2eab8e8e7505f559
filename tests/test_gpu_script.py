"""tools/gpu.py, which only a machine with a GPU can run for real: its words, its limits, its report."""

import json

import pytest

from helpers.__main__ import COMMANDS
from helpers.presets import PRESETS, SYSTEMS
from helpers.program import run
from tools import gpu


def test_every_job_is_a_command_that_exists(tmp_path):
    todo = gpu.jobs(tmp_path, "cuda", tmp_path / "nanoGPT", quick=False)
    assert {*SYSTEMS, "nanogpt-char", "course-gpu", "float16", "tests", "bench"} <= todo.keys()
    trained = []
    for limit, (flag, module, *words) in todo.values():
        assert flag == "-m" and limit <= 1500
        if module == "helpers" and words[0] == "train":
            args = run.parser().parse_args(list(map(str, words[1:])))
            assert args.device == "cuda" and args.preset in PRESETS and words[0] in COMMANDS
            trained.append((args.preset, args.seed, args.out, args.checkpoints))
    assert len({place for *_, place in trained}) == len(trained), "no run finds another one's checkpoints"
    assert len({(preset, out) for preset, _, out, _ in trained}) == len(trained), "nor overwrites its record"
    assert sum(preset == "course-gpu" and out.name != "float16" for preset, _, out, _ in trained) == 3


def test_a_job_that_fails_or_takes_too_long_does_not_stop_the_next(tmp_path, monkeypatch, capsys):
    todo = {
        "fails": (60, ["-c", "print('why it failed'); raise SystemExit(3)"]),
        "hangs": (0.5, ["-c", "import time; time.sleep(60)"]),
        "works": (60, ["-c", "print('fine')"]),
    }
    monkeypatch.setattr(gpu, "jobs", lambda *_: todo)
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--out", str(tmp_path), "--quick"])
    assert ended.value.code == 1
    told = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert [job["ended"] for job in told.values()] == ["exit status 3", "stopped after 0.5 s", "ok"]
    assert (tmp_path / "fails.log").read_text() == "why it failed\n"


def test_the_report_has_mean_and_spread_of_the_seeds_and_every_run(tmp_path):
    def record(folder, name, loss, preset="course-gpu"):
        (tmp_path / folder).mkdir(exist_ok=True)
        rest = dict(best_step=3, train_seconds=2.0, tokens_per_second=5, precision="bfloat16", compiled="")
        told = {"preset": preset, "best_val": loss} | rest
        (tmp_path / folder / f"{name}-tinyshakespeare-cuda.json").write_text(json.dumps(told))

    for folder, loss in (("runs", 1.5), ("seed-1338", 1.4), ("seed-1339", 1.3), ("float16", 9.0)):
        record(folder, "course-gpu", loss)
    record("runs", "neurongpt", 1.6, "neurongpt")
    (tmp_path / "runs" / "bench-cuda.json").write_text("{}")
    told = gpu.summary(tmp_path)
    assert told["course-gpu"]["mean"] == pytest.approx(1.4) and len(told["course-gpu"]["seeds"]) == 3
    assert told["course-gpu"]["stdev"] == pytest.approx(0.1)
    half = told["runs"]["float16/course-gpu-tinyshakespeare-cuda"]
    assert len(told["runs"]) == 5 and half["best_val"] == 9.0


def test_a_quick_run_leaves_a_log_a_record_and_a_report(tmp_path):
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--out", str(tmp_path), "--quick", "--only", "course-gpu"])
    assert ended.value.code == 0, (tmp_path / "course-gpu.log").read_text()
    assert "best validation loss" in (tmp_path / "course-gpu.log").read_text()
    (path,) = (tmp_path / "runs").iterdir()
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["runs"][f"runs/{path.stem}"]["best_val"] == json.loads(path.read_text())["best_val"]
