"""Nothing is lost: runs that are interrupted, in every way, end as if they had not been."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs_for_tests import CPU, TRAIN, VAL, assert_same_weights, run, short, weights_of

from helpers import files
from helpers.__main__ import main as command_line
from helpers.checkpoint import (
    load_checkpoint,
    plain,
    read_file,
    restore,
    save_checkpoint,
    state_of,
    write_file,
)
from helpers.model import GPT, GPTConfig
from helpers.program.folder import bytes_needed, checkpoints, run_folder
from helpers.tokenizer import CharTokenizer
from helpers.train import begin

TOKENIZER = CharTokenizer("abcdefghijk")
HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def every_sweep_saves(monkeypatch):
    """These runs are over in less than the shortest time between two saves."""
    monkeypatch.setattr("helpers.train.SAVE_AT_MOST_EVERY", 0.0)


def fresh(**changes):
    torch.manual_seed(0)
    settings = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.2)
    return GPT(GPTConfig(**settings | changes))


def train_in(folder, config, model=None, ids=TRAIN, **callbacks):
    """Train in a folder, going on if there is something there: model and history."""
    model = model or fresh()
    with run_folder(folder, model, TOKENIZER, config, CPU, ids, VAL) as (history, save):
        history = run(model, config, ids, history=history, on_save=save, **callbacks)
    return model, history


def same_end(one, other):
    """Two pairs of model and history: bit for bit the same, but for the clock."""
    assert_same_weights(weights_of(one[0]), weights_of(other[0]))
    assert one[1].losses == other[1].losses
    timeless = [[{k: v for k, v in p.items() if k != "seconds"} for p in h[1].evals] for h in (one, other)]
    assert timeless[0] == timeless[1]
    assert (one[1].best_val, one[1].best_step) == (other[1].best_val, other[1].best_step)
    assert_same_weights(one[1].best_weights, other[1].best_weights)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("stop_after", [1, 4, 7, 11])
def test_a_stopped_run_goes_on_exactly(tmp_path, optimizer, precision, stop_after):
    config = short(optimizer=optimizer, precision=precision)
    whole = train_in(tmp_path / "whole", config)
    steps = []
    _, history = train_in(
        tmp_path / "parts", config,
        on_step=lambda h: steps.append(h.step), should_stop=lambda: len(steps) == stop_after - 1,
    )  # fmt: skip
    assert history.stopped and history.step == stop_after
    torch.manual_seed(99)  # another process: its chance is in another state
    torch.rand(5)
    same_end(train_in(tmp_path / "parts", config), whole)


@pytest.mark.parametrize("error", [RuntimeError("power cut"), KeyboardInterrupt()])
def test_a_run_that_broke_goes_on_from_its_last_checkpoint(tmp_path, error):
    def breaks(history):
        if history.step == 7:
            raise error

    whole = train_in(tmp_path / "whole", short())
    with pytest.raises(type(error)):
        train_in(tmp_path / "parts", short(), on_step=breaks)
    assert checkpoints(tmp_path / "parts")[0].name == "step-00000004.safetensors"
    same_end(train_in(tmp_path / "parts", short()), whole)


def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(tmp_path):
    class Breaks(GPT):
        def forward(self, idx, targets=None, cache=None):
            logits, loss = super().forward(idx, targets, cache)
            return logits, loss * (float("nan") if len(checkpoints(tmp_path)) == 2 else 1)

    torch.manual_seed(0)
    with pytest.raises(FloatingPointError, match="step 9: start again with a learning_rate below"):
        train_in(tmp_path, short(), Breaks(fresh().config))
    assert [p.name for p in checkpoints(tmp_path)] == [
        "step-00000008.safetensors",
        "step-00000004.safetensors",
    ]
    tensors, _ = read_file(checkpoints(tmp_path)[0])
    assert all(t.isfinite().all() for name, t in tensors.items() if name.startswith("model."))


def test_the_last_two_and_the_best_are_kept(tmp_path):
    _, history = train_in(tmp_path, short(max_steps=20))
    names = sorted(p.name for p in tmp_path.iterdir() if p.name != "lock")
    assert names == ["best.safetensors", "step-00000016.safetensors", "step-00000020.safetensors"]
    best, _, about = load_checkpoint(tmp_path / "best.safetensors")
    assert_same_weights(weights_of(best), history.best_weights)
    assert about == {"val": history.best_val, "step": history.best_step, "saved_by": "run_folder"}


def test_a_finished_run_is_only_read(tmp_path):
    whole = train_in(tmp_path, short())
    same_end(train_in(tmp_path, short(), on_step=lambda h: pytest.fail("trained again")), whole)


def test_the_best_weights_stand_there_once_at_a_late_step_too():
    """Small numbers are one object in Python, so `is` in place of == would show at step 300 only."""
    model = fresh()
    history = begin(model, short(), CPU)
    history.step, history.best_step = int("300"), int("300")
    history.best_weights = weights_of(model)
    assert not any(name.startswith("best.") for name in state_of(model, history, CPU)[0])


def test_a_run_of_a_gpu_goes_on_without_one(monkeypatch):
    # Without a GPU PyTorch only notes the call, for the day when there is one.
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *args: pytest.fail("a GPU's state on a CPU"))
    model = fresh()
    history = begin(model, short(), CPU)
    tensors, header = state_of(model, history, CPU)
    tensors["rng.cuda"] = tensors["rng.dropout"].clone()
    restore(model, history, CPU, tensors, header)


def best_at_4(model, history):
    """An on_eval for which the sweep after step 4 is the best, whatever it found."""
    history.best_val = {0: math.inf, 4: -1.0}.get(history.step, history.best_val)


@pytest.mark.parametrize("steps", [4, 8], ids=["best now", "best before"])
def test_the_best_weights_stand_in_a_checkpoint_once_and_come_back(tmp_path, steps):
    config = short(max_steps=steps)
    model, history = train_in(tmp_path, config, on_eval=best_at_4)
    best_is_now = all(torch.equal(model.state_dict()[k], v) for k, v in history.best_weights.items())
    tensors, _ = read_file(checkpoints(tmp_path)[0])
    assert any(name.startswith("best.") for name in tensors) == (steps == 8) == (not best_is_now)
    same_end(train_in(tmp_path, config), (model, history))


# ---------------------------------------------------------------- signals


PROGRAM = (
    "train --preset nanogpt-cpu --n_layer 1 --n_head 2 --n_embd 16 --block_size 8 "
    "--max_steps 600 --eval_interval 300 --dropout 0.2 --sample 5 --device cpu"
).split()


def arguments(folder):
    return [*PROGRAM, "--out", str(folder), "--checkpoints", str(folder)]


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "helpers", *arguments(folder)], cwd=HERE.parent, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COURSE_CORPUS": ""},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    stopped = start(tmp_path / "run")
    assert any(line.startswith("step     0") for line in stopped.stdout)  # it has begun
    time.sleep(0.1)
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=60)
    if stopped.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert "the same command goes on from there" in said and "Traceback" not in said
    (kept, *_) = checkpoints(tmp_path / "run")
    assert 0 < read_file(kept)[1]["history"]["step"] < 600
    for folder in ("run", "whole"):
        command_line(arguments(tmp_path / folder))
    ends = [read_file(checkpoints(tmp_path / folder)[0])[0] for folder in ("run", "whole")]
    assert_same_weights(*ends)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_25_times_ends_as_one_left_alone(tmp_path, capsys):
    kills, seed = 25, 1
    command = [sys.executable, HERE / "killed_runs.py", tmp_path, kills, seed]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == kills and report["same end"], report
    assert report["while writing"] > 0, "some must fall into the writing of a checkpoint"
    with capsys.disabled():
        print(f"\n{report}")


# ---------------------------------------------------------------- what does not fit is refused


def test_two_programs_do_not_train_in_one_folder(tmp_path):
    with run_folder(tmp_path, fresh(), TOKENIZER, short(), CPU, TRAIN, VAL):
        with pytest.raises(ValueError, match="Another program is training in"):
            train_in(tmp_path, short())
    train_in(tmp_path, short())
    kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    place = tmp_path, fresh(), TOKENIZER, short(), CPU, TRAIN, VAL
    with run_folder(*place):
        with pytest.raises(ValueError, match="Another program is training in"):
            with run_folder(*place, fresh=True):
                pytest.fail("it should not begin")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == kept, "nothing of the other's is removed"
    with run_folder(*place, fresh=True) as (history, _):
        assert history is None and [p.name for p in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(model=dict(n_layer=1)), "n_layer=2 there, 1 here"),
        (dict(model=dict(n_layer=1, dropout=0.0)), "n_layer=2 there, 1 here; dropout=0.2 there, 0.0 here"),
        (dict(config=dict(learning_rate=0.1)), "learning_rate=0.003 there, 0.1 here"),
        (dict(config=dict(max_steps=99)), "max_steps=12 there, 99 here"),
        (dict(tokenizer=CharTokenizer("abcdefghijz")), "another vocabulary"),
        (dict(ids=TRAIN.flip(0)), "another text, or the file has changed"),
        (dict(ids=TRAIN[:-1]), "another text, or the file has changed"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_another_run_is_refused_and_told_what_differs(tmp_path, changes, words):
    train_in(tmp_path, short())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    place = (
        fresh(**changes.get("model", {})), changes.get("tokenizer", TOKENIZER),
        short(**changes.get("config", {})), CPU, changes.get("ids", TRAIN), VAL,
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"is not this one .{words}"):
        with run_folder(tmp_path, *place):
            pytest.fail("it should not begin")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("before, after", [("float16", "float32"), ("float32", "float16")])
def test_a_run_goes_on_in_another_precision_and_says_so(tmp_path, capsys, before, after):
    train_in(tmp_path, short(precision=before), should_stop=lambda: len(checkpoints(tmp_path)) == 1)
    weights = read_file(checkpoints(tmp_path)[0])[0]
    model = fresh()
    begun = []  # the weights with which it goes on
    model.register_forward_pre_hook(lambda m, inputs: None if begun else begun.append(weights_of(m)))
    _, history = train_in(tmp_path, short(precision=after), model)
    assert f"This run began in {before} and goes on in {after}" in capsys.readouterr().out
    assert history.step == 12 and all(map(math.isfinite, history.losses))
    assert history.scaler.is_enabled() == (after == "float16")
    assert_same_weights(begun[0], {k[6:]: v for k, v in weights.items() if k.startswith("model.")})
    train_in(tmp_path, short(precision=after))
    assert "goes on in" not in capsys.readouterr().out, "once"


def test_the_scale_of_float16_goes_on_where_it_was(tmp_path):
    def lower(history):
        if history.step == 6:
            history.scaler.update(64.0)  # as after losses that were too large

    config = short(precision="float16")
    _, history = train_in(tmp_path, config, on_step=lower)
    _, again = train_in(tmp_path, config)
    assert again.scaler.state_dict() == history.scaler.state_dict() and again.scaler.get_scale() == 64


def test_files_of_others_in_the_folder_are_left_alone(tmp_path):
    ours = tmp_path / "step-00000003.safetensors.0123456789abcdef.partial"  # of a killed run
    names = "film.mp4.partial", "step-00000003.safetensors.77.partial", "step-by-step.safetensors"
    others = [tmp_path / name for name in names]
    for path in (ours, *others):
        path.write_text("half")
    train_in(tmp_path, short())
    with run_folder(tmp_path, fresh(), TOKENIZER, short(), CPU, TRAIN, VAL, fresh=True):
        assert not checkpoints(tmp_path) and not (tmp_path / "best.safetensors").exists()
    assert not ours.exists() and all(path.read_text() == "half" for path in others)


def test_a_best_file_that_was_moved_away_is_written_again(tmp_path):
    train_in(tmp_path, short(), should_stop=lambda: len(checkpoints(tmp_path)) == 2)
    (tmp_path / "best.safetensors").rename(tmp_path / "mine")
    _, history = train_in(tmp_path, short())
    assert_same_weights(weights_of(load_checkpoint(tmp_path / "best.safetensors")[0]), history.best_weights)


@pytest.mark.parametrize("kind", ["a text", "a model"])
@pytest.mark.parametrize("again", [False, True])
def test_a_best_file_of_somebody_else_is_never_replaced(tmp_path, kind, again):
    best = tmp_path / "best.safetensors"
    best.write_text("my best recipe")
    if kind == "a model":
        save_checkpoint(best, fresh(), TOKENIZER, val=0.1)
    raw = best.read_bytes()
    with pytest.raises(ValueError, match=r"best.safetensors is not of a run in this folder, or damaged"):
        with run_folder(tmp_path, fresh(), TOKENIZER, short(), CPU, TRAIN, VAL, fresh=again):
            pytest.fail("it should not begin")
    assert best.read_bytes() == raw


def test_compiled_and_distributed_models_are_saved_as_plain_ones(tmp_path):
    model = fresh()

    class Wrapper(torch.nn.Module):
        def __init__(self, inside, name):
            super().__init__()
            setattr(self, name, inside)

    for wrapped in (
        torch.compile(model),
        Wrapper(model, "module"),  # as DistributedDataParallel holds it
        Wrapper(Wrapper(model, "module"), "_orig_mod"),
        Wrapper(Wrapper(model, "_orig_mod"), "module"),
    ):
        assert plain(wrapped) is model
        save_checkpoint(tmp_path / "m", wrapped, TOKENIZER)
        assert_same_weights(weights_of(load_checkpoint(tmp_path / "m")[0]), weights_of(model))


# ---------------------------------------------------------------- damage


def flips(path, n, seed):
    """Flip n random bits of a file, one at a time, in its length, its header and its numbers alike."""
    raw = path.read_bytes()
    header_end = 8 + int.from_bytes(raw[:8], "little")
    regions = [(0, 8), (8, header_end), (header_end, len(raw))]
    chance, noticed = random.Random(seed), 0
    wanted = read_file(path)
    for i in range(n):
        at = chance.randrange(*regions[i % 3])
        broken = bytearray(raw)
        broken[at] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        try:
            tensors, header = read_file(path)
        except ValueError as error:
            assert "is not a whole checkpoint of this course" in str(error) and "\n" not in str(error)
            noticed += 1
        else:  # a blank in the header became another blank
            assert header == wanted[1]
            assert_same_weights(tensors, wanted[0])
    path.write_bytes(raw)
    return noticed


def test_every_flipped_bit_is_noticed(tmp_path):
    train_in(tmp_path, short())
    assert flips(checkpoints(tmp_path)[0], 300, seed=0) > 290


@pytest.mark.slow
def test_thousands_of_flipped_bits_are_noticed(tmp_path, capsys):
    train_in(tmp_path, short())
    noticed = flips(checkpoints(tmp_path)[0], 6000, seed=1)
    assert noticed > 5900
    with capsys.disabled():
        print(f"\n6000 flips, {noticed} noticed, the rest changed nothing")


def test_every_truncated_file_is_noticed(tmp_path):
    save_checkpoint(tmp_path / "m", fresh(), TOKENIZER)
    raw = (tmp_path / "m").read_bytes()
    for length in [*range(20), *range(20, len(raw), 997), len(raw) - 1]:
        (tmp_path / "m").write_bytes(raw[:length])
        with pytest.raises(ValueError, match="is not a whole checkpoint"):
            load_checkpoint(tmp_path / "m")


def test_a_damaged_checkpoint_is_announced_and_the_one_before_is_used(tmp_path, capsys):
    whole = train_in(tmp_path / "whole", short())
    train_in(tmp_path / "run", short())
    newest, _ = checkpoints(tmp_path / "run")
    newest.write_bytes(newest.read_bytes()[:-1])
    same_end(train_in(tmp_path / "run", short()), whole)
    said = capsys.readouterr().out
    assert newest.name in said and "The checkpoint before it is used." in said
    for path in checkpoints(tmp_path / "run"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"No checkpoint in .* can be used: choose another folder"):
        train_in(tmp_path / "run", short())


# ---------------------------------------------------------------- disks


def limited(size, body):
    """Run body (source code) in a child whose files cannot grow beyond size bytes: real failing writes."""
    code = f"""
import resource, sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
import test_resume as t
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
{body}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "changes",
    [dict(n_layer=1), dict(tie_weights=True, vocab_size=500), dict(position="sinusoidal", block_size=80)],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_takes_the_room_that_it_was_said_to_need(tmp_path, monkeypatch, changes, optimizer):
    taken, flush = [], files.flush

    def seen(path):  # a file is written, and not yet in the place of another
        taken.append(sum(p.stat().st_size for p in tmp_path.iterdir()))
        flush(path)

    monkeypatch.setattr("helpers.files.flush", seen)
    model = fresh(**dict(n_embd=64) | changes)
    config = short(max_steps=20, optimizer=optimizer, grad_clip=0.0)
    tokenizer = CharTokenizer("".join(map(chr, range(1000, 1000 + model.config.vocab_size))))
    with run_folder(tmp_path, model, tokenizer, config, CPU, TRAIN, VAL) as (history, save):
        run(model, config, history=history, on_save=save, on_eval=best_at_4)
    needed = bytes_needed(model.config, config)
    assert max(taken) <= needed <= 1.1 * max(taken) + 10_000


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_full_disk_does_not_end_training_and_leaves_nothing_half_written(tmp_path):
    said = limited(
        9000,
        f"""
model, history = t.train_in(Path({str(tmp_path)!r}), t.short())
print(history.step, len(history.losses))
try:
    t.save_checkpoint(Path({str(tmp_path)!r}) / "m", model, t.TOKENIZER)
except ValueError as error:
    print(error)
""",
    )
    assert "12 12" in said and "Training goes on; the checkpoint before stays." in said
    assert "m cannot be written" in said and "free some space, or choose another folder" in said
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def disk_with(monkeypatch, free):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.mark.parametrize("again", [False, True], ids=["new", "fresh"])
def test_a_disk_without_room_is_refused_before_anything_is_done(tmp_path, monkeypatch, again):
    place = tmp_path, fresh(), TOKENIZER, short(), CPU, TRAIN, VAL
    if again:
        train_in(tmp_path, short())

    def contents():
        return {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != "lock"}  # on Windows it goes

    there = contents()
    needed = bytes_needed(fresh().config, short()) - sum(map(len, there.values()))
    disk_with(monkeypatch, needed - 1)
    with pytest.raises(ValueError, match=r"need up to 0\.\d MB, .* has 0\.\d MB for them: free some space"):
        with run_folder(*place, fresh=again):
            pytest.fail("it should not begin")
    assert contents() == there
    disk_with(monkeypatch, needed)  # what it will replace counts as free
    with run_folder(*place, fresh=again):
        pass


def test_a_run_that_has_ended_needs_no_room(tmp_path, monkeypatch):
    train_in(tmp_path / "parts", short(), should_stop=lambda: True)
    whole = train_in(tmp_path / "whole", short())
    disk_with(monkeypatch, 0)
    same_end(train_in(tmp_path / "whole", short()), whole)
    with pytest.raises(ValueError, match="free some space"):
        train_in(tmp_path / "parts", short())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting needs root")
def test_a_small_tmpfs_that_fills_up(tmp_path, capsys):
    needed = bytes_needed(fresh().config, short(max_steps=40))
    options = ["-t", "tmpfs", "-o", f"size={needed + 50_000}", "tmpfs"]
    if subprocess.run(["mount", *options, tmp_path], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")

    def fill(history):  # another program
        if history.step == 6:
            (tmp_path / "other").write_bytes(bytes(shutil.disk_usage(tmp_path).free - 20_000))

    try:
        _, history = train_in(tmp_path, short(max_steps=40), on_step=fill)
        said = capsys.readouterr().out
        assert history.step == 40 and "Training goes on; the checkpoint before stays." in said
        assert [p.name for p in checkpoints(tmp_path)] == ["step-00000004.safetensors"]
        assert not list(tmp_path.glob("*.partial"))
        with pytest.raises(ValueError, match="free some space"):
            train_in(tmp_path, short(max_steps=40))
        (tmp_path / "other").unlink()
        assert train_in(tmp_path, short(max_steps=40))[1].losses == history.losses
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot be used for checkpoints"):
        train_in(tmp_path / "run", short())
    tmp_path.chmod(0o700)


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file cannot be used for checkpoints"):
        train_in(tmp_path / "file", short())


def test_a_write_that_fails_keeps_the_older_file(tmp_path, monkeypatch):
    write_file(tmp_path / "m", {"a": torch.ones(3)}, {"x": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helpers.files.flush", full)
    with pytest.raises(ValueError, match="No space left on device"):
        write_file(tmp_path / "m", {"a": torch.zeros(3)}, {"x": 2})
    assert read_file(tmp_path / "m")[1] == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
