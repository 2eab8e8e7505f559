"""Presets, records and the command line: helpers/program/ and helpers/__main__.py."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import two_processes
from runs_for_tests import assert_same_weights, run, short

from helpers.__main__ import COMMANDS
from helpers.__main__ import main as command_line
from helpers.checkpoint import load_checkpoint, read_file
from helpers.data import Corpus
from helpers.model import GPT, GPTConfig
from helpers.presets import PRESETS
from helpers.program import records
from helpers.program import run as program
from helpers.program.build import build, check_batch_fits
from helpers.program.folder import checkpoints
from helpers.program.records import bits_per_character
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import TrainConfig

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_takes_a_step(name, text):
    preset, text = PRESETS[name], text + text[:3000]  # longer than the shortest max_chars
    small = dict(n_layer=1, block_size=8, n_embd=2 * preset.model["n_head"])
    changes = dict(max_steps=1, batch_size=2, compile=False)
    model, tokenizer, train_ids, val_ids, config = build(name, Corpus("own", text, "", ""), small, changes)
    assert config == TrainConfig(**preset.train | changes)
    assert model.config == GPTConfig(**{"vocab_size": tokenizer.vocab_size} | preset.model | small)
    assert torch.cat([train_ids, val_ids]).tolist() == tokenizer.encode(text[: preset.max_chars]).tolist()
    assert len(val_ids) == pytest.approx(len(train_ids) / 9, abs=2)
    assert int(max(train_ids.max(), val_ids.max())) < model.config.vocab_size
    x = train_ids[None, :8]
    assert model(x, x)[1].item() == pytest.approx(math.log(model.config.vocab_size), abs=0.15)
    assert run(model, config, train_ids[:100], val_ids[:30]).step == 1


def test_records_are_found_by_corpus_in_the_order_of_the_presets(monkeypatch, tmp_path):
    for name, corpus in (("nanogpt-cpu", "plays"), ("course-cpu", "plays"), ("course-cpu", "plays-2")):
        record = {"preset": name, "corpus": corpus, "device": "cpu"}
        (tmp_path / f"{name}-{corpus}-cpu.json").write_text(json.dumps(record))
    (tmp_path / "ladder-plays.json").write_text("{}")
    monkeypatch.setattr(records, "RUNS_DIR", tmp_path)
    assert [r["preset"] for r in records.load_records("plays")] == ["course-cpu", "nanogpt-cpu"]
    assert records.load_records("elsewhere") == []


def test_the_best_run_of_its_very_model_stands_for_a_system(monkeypatch):
    def record(preset, corpus, best_val, **changes):
        size = {"vocab_size": 65 if PRESETS[preset].tokenizer == "char" else 1024}
        model = dataclasses.asdict(GPTConfig(**size | PRESETS[preset].model | changes))
        return {"preset": preset, "corpus": corpus, "best_val": best_val, "model": model}

    runs = [
        record("neurongpt", "tinyshakespeare", 1.6),
        record("course-six-layers", "tinyshakespeare", 1.5),
        record("course-six-layers", "tinyshakespeare", 1.2, dropout=0.0),
        record("course-six-layers", "plays", 1.1),
        record("course-gpu", "tinyshakespeare", 1.3),
    ]
    monkeypatch.setattr(records, "load_records", lambda corpus: [r for r in runs if r["corpus"] == corpus])
    assert records.record_of_system("neurongpt") is records.record_of_system("char-gpt") is runs[1]
    assert records.record_of_system("gptiny") is None, "three layers"
    runs.append(record("gpt2-style", "plays", 5.6))
    assert records.record_of_system("gpt2-style") is runs[-1], "of the text that its claim is about"


def test_a_record_says_what_of_the_corpus_it_is_about():
    told = {records.part_of_corpus(preset) for preset in PRESETS.values()}
    assert told == {
        "all of it",
        "the first 20,480 characters: it trains and validates on these alone, and its byte pairs are "
        "learned from all of them",
    }


@pytest.mark.parametrize("corpus", ["plays", "tinyshakespeare"])
def test_recorded_runs_are_of_the_presets_as_they_are(corpus):
    for record in records.load_records(corpus):
        preset, size = PRESETS[record["preset"]], {"vocab_size": record["model"]["vocab_size"]}
        assert record["train"] == dataclasses.asdict(TrainConfig(**preset.train)), record["preset"]
        assert record["model"] == dataclasses.asdict(GPTConfig(**size | preset.model)), record["preset"]


def test_presets_build_the_same_model_every_time(text):
    corpus, small = Corpus("own", text, "", ""), dict(n_layer=1, n_embd=16)
    one, other = (build("nanogpt-cpu", corpus, small)[0] for _ in range(2))
    assert_same_weights(one.state_dict(), other.state_dict())


def test_an_unknown_preset_is_a_sentence_with_the_choice():
    with pytest.raises(ValueError, match=r"no preset 'gpt-5': choose one of course-cpu"):
        build("gpt-5", Corpus("own", "abc" * 100, "", ""))


SMALL = (
    "--preset nanogpt-cpu --n_layer 1 --n_head 2 --n_embd 16 --block_size 8 --max_steps 2 --eval_interval 1"
).split()


@pytest.fixture
def own(tmp_path, text):
    path = tmp_path / "own.txt"
    path.write_text(text[:5000], encoding="utf-8")
    return path


@pytest.fixture
def call(tmp_path):
    """Calls `python -m helpers train` with arguments; its checkpoints go to tmp_path."""

    def call(*arguments):
        fixed = ["--device", "cpu", "--checkpoints", tmp_path / "kept"]
        command_line(["train", *map(str, [*fixed, *arguments])])

    return call


def test_the_program_writes_a_valid_record(call, own, tmp_path, capsys):
    out = tmp_path / "new" / "runs"
    call(*SMALL, "--corpus", own, "--out", out, "--sample", 20, "--bias", "true")
    (path,) = out.iterdir()
    assert path.name == "nanogpt-cpu-own.txt-cpu.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert (record["preset"], record["corpus"], record["best_step"]) == ("nanogpt-cpu", "own.txt", 2)
    assert [p["step"] for p in record["evals"]] == [s["step"] for s in record["samples"]] == [0, 1, 2]
    assert record["best_val"] == min(p["val"] for p in record["evals"])
    assert all(len(s["text"]) == 21 for s in record["samples"]), "one character to begin with, 20 more"
    assert record["model"]["n_embd"] == 16 and record["model"]["bias"] is True
    assert record["train"]["max_steps"] == 2 and record["train"]["seed"] == 1337
    model = GPT(GPTConfig(**record["model"]))
    assert record["parameters"] == sum(p.numel() for p in model.parameters())
    assert record["perplexity"] == pytest.approx(math.exp(record["best_val"]), rel=1e-3)
    assert record["bits_per_character"] == pytest.approx(record["best_val"] / math.log(2), abs=1e-3)
    assert record["torch"] == torch.__version__ and record["hardware"] and record["python"]
    assert record["tokens_per_second"] > 0 and record["train_seconds"] >= 0
    output = capsys.readouterr().out
    assert str(path) in output and f"{record['parameters']:,} parameters" in output


def test_bits_per_character_do_not_depend_on_the_tokenizer():
    text = "the cat and the hat and the cat" * 4
    characters, pairs = CharTokenizer.from_text(text), BytePairTokenizer.train(text, 270)
    for tokenizer in (characters, pairs):
        ids = tokenizer.encode(text)
        # A model that gives the whole text a probability of one in a million, whatever the tokens.
        nats_per_token = math.log(1e6) / len(ids)
        bits = bits_per_character(nats_per_token, tokenizer, ids)
        assert bits == pytest.approx(math.log2(1e6) / len(text))


def test_the_program_goes_on_where_it_was_stopped_and_can_begin_anew(
    call, own, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("helpers.train.SAVE_AT_MOST_EVERY", 0.0)  # a save at every sweep
    steps = [*SMALL, "--corpus", own, "--out", tmp_path, "--sample", 5, "--dropout", 0.2]
    call(*steps)
    path = tmp_path / "nanogpt-cpu-own.txt-cpu.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    kept = checkpoints(tmp_path / "kept")
    assert [p.name for p in kept] == ["step-00000002.safetensors", "step-00000001.safetensors"]
    kept[0].unlink()  # as if it had been killed after the first step
    call(*steps)
    assert "has this run up to step 1: it goes on from there" in capsys.readouterr().out
    again = json.loads(path.read_text(encoding="utf-8"))
    assert timeless(again) == timeless(whole)
    call(*steps, "--fresh")
    assert "goes on" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"is not this one \(n_layer=1 there, 2 here\)"):
        call(*steps, "--n_layer", "2")


def timeless(record):
    """A record without what the clock says."""
    evals = [{k: v for k, v in point.items() if k != "seconds"} for point in record["evals"]]
    return record | {"evals": evals, "train_seconds": 0, "tokens_per_second": 0}


def test_a_text_too_large_for_memory_gives_the_same_run(call, own, tmp_path, monkeypatch):
    arguments = [*SMALL, "--corpus", own, "--out", tmp_path, "--sample", 5]
    call(*arguments)
    path = tmp_path / "nanogpt-cpu-own.txt-cpu.json"
    in_memory = json.loads(path.read_text(encoding="utf-8"))
    monkeypatch.setattr(program, "LARGE_TEXT_BYTES", 1000)
    call(*arguments, "--checkpoints", tmp_path / "other")
    assert (tmp_path / "own.txt.ids.npy").exists()
    assert timeless(json.loads(path.read_text(encoding="utf-8"))) == timeless(in_memory)
    with pytest.raises(SystemExit, match="choose a character preset"):
        call(*arguments, "--preset", "gpt2-style")


def test_a_model_with_more_ids_than_its_tokenizer_has_samples_too(call, own, tmp_path):
    call(*SMALL, "--corpus", own, "--out", tmp_path, "--checkpoints", tmp_path / "run", "--vocab_size", 5000)
    record = json.loads((tmp_path / "nanogpt-cpu-own.txt-cpu.json").read_text(encoding="utf-8"))
    assert record["model"]["vocab_size"] == 5000 and record["samples"][0]["text"]


def torchrun(*arguments):
    """Start two processes on this machine and wait for both: what they said."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        *arguments,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_two_processes_share_a_batch_and_get_the_losses_of_one(call, own, tmp_path):
    steps = [*SMALL, "--max_steps", 6, "--eval_interval", 3, "--batch_size", 8, "--sample", 5]
    steps += ["--corpus", own, "--out", tmp_path, "--device", "cpu"]
    losses, records = {}, {}
    for name, start in (("one", call), ("two", partial(torchrun, "-m", "helpers", "train"))):
        said = start(*steps, "--checkpoints", tmp_path / name)
        losses[name] = read_file(checkpoints(tmp_path / name)[0])[0]["losses"].tolist()
        records[name] = json.loads((tmp_path / "nanogpt-cpu-own.txt-cpu.json").read_text(encoding="utf-8"))
    assert len(losses["one"]) == 6
    assert losses["two"] == pytest.approx(losses["one"], abs=2e-3)
    assert records["two"]["processes"] == 2 and "2 x cpu" in records["two"]["hardware"]
    assert len(records["two"]["samples"]) == 3, "one process reports"
    assert said.count("best validation loss") == 1
    # A checkpoint of two processes is one of a plain model.
    _, _, about = load_checkpoint(tmp_path / "two" / "best.safetensors")
    assert about["val"] == pytest.approx(records["one"]["best_val"], abs=2e-3)


@pytest.fixture(scope="module")
def found_by_two(tmp_path_factory):
    """found_by_two(name): what each of two processes wrote under that name, see two_processes.py."""
    folder = tmp_path_factory.mktemp("two")
    torchrun("tests/two_processes.py", folder)
    return lambda name: [(folder / f"{name}-{rank}.txt").read_text() for rank in (0, 1)]


def test_two_processes_go_on_exactly_with_dropout(found_by_two):
    assert found_by_two("resumed") == ["", ""]


def test_only_the_first_of_two_processes_encodes_a_large_text(found_by_two):
    assert found_by_two("encoded") == ["False", "True"]


def test_two_processes_and_two_parts_get_the_losses_of_one(found_by_two):
    alone = run(two_processes.model_of(), short()).losses
    for losses in found_by_two("parts"):
        assert list(map(float, losses.split())) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--preset", "gpt-5"], r"no preset 'gpt-5': choose one of course-cpu"),
        (["--max_steps", "many"], r"invalid int value: 'many'"),
        (["--max_steps", "0"], r"max_steps=0 must be a whole number"),
        (["--n_head", "3"], r"n_embd=16 does not divide into n_head=3"),
        (["--learning_rate", "-1"], r"learning_rate=-1\.0 must be a number above 0"),
        (["--bias", "perhaps"], r"perhaps"),
        (["--device", "abacus"], r"The device 'abacus' is not there"),
        (["--corpus", "nowhere.txt"], r"nowhere\.txt cannot be read"),
        (["--block_size", "5000"], r"too short for block_size=5000"),
        (["--sample", "-1"], r"sample=-1 must be a whole number of at least 0"),
        (["--accumulation_steps", "5"], r"batch_size=12 does not divide into accumulation_steps=5"),
        (["--batch_size", "1" + 12 * "0"], r"does not fit into the memory"),
        (
            ["--learning_rate", "1e30", "--grad_clip", "0", "--warmup_steps", "0", "--max_steps", "9"],
            "learning_rate below",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_arguments_are_one_sentence(call, capsys, own, tmp_path, arguments, sentence):
    with pytest.raises(SystemExit) as stopped:
        call(*SMALL, "--corpus", own, "--out", tmp_path, *arguments)
    assert stopped.value.code not in (0, None)
    said = capsys.readouterr().err.splitlines()[-1] if stopped.value.code == 2 else str(stopped.value.code)
    assert re.search(sentence, said), said
    assert "\n" not in said
    assert list(tmp_path.glob("*.json")) == []


def test_a_folder_that_cannot_be_written_is_said_before_training(call, monkeypatch, own, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(program, "train", lambda *args, **kwargs: pytest.fail("trained for nothing"))
    with pytest.raises(SystemExit, match="file"):
        call(*SMALL, "--corpus", own, "--out", tmp_path / "file")
    with pytest.raises(SystemExit, match="cannot be used for checkpoints"):
        call(*SMALL, "--corpus", own, "--out", tmp_path, "--checkpoints", tmp_path / "file")


def test_the_help_explains_every_setting(call, capsys):
    with pytest.raises(SystemExit):
        call("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for kind in (GPTConfig, TrainConfig):
        for f in dataclasses.fields(kind):
            assert f"--{f.name}" in shown and f.metadata["help"] in shown, f.name


# ---------------------------------------------------------------- what cannot work


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 3 GiB")]
)
def test_a_full_memory_names_the_settings_to_lower(call, own, tmp_path, monkeypatch, error):
    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(program, "train", full)
    words = "batch_size=12 in accumulation_steps=1 with block_size=8 does not fit into the memory"
    with pytest.raises(SystemExit, match=words):
        call(*SMALL, "--corpus", own, "--out", tmp_path)


def test_other_errors_keep_their_name(call, own, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "train", lambda *args, **kwargs: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        call(*SMALL, "--corpus", own, "--out", tmp_path)


def test_a_batch_is_measured_against_the_memory_of_the_device_that_holds_it(tiny_gpt, monkeypatch):
    monkeypatch.setattr("helpers.program.build.machine_memory", lambda: 1000)
    check_batch_fits(tiny_gpt(), TrainConfig(), torch.device("cuda"))  # has a memory of its own
    with pytest.raises(ValueError, match=r"batch_size=64 .* does not fit into the memory"):
        check_batch_fits(tiny_gpt(), TrainConfig(), torch.device("cpu"))


def test_a_batch_is_shared_out_among_processes_evenly(text, monkeypatch):
    monkeypatch.setattr("helpers.program.build.world_size", lambda: 5)
    with pytest.raises(ValueError, match="batch_size=12 does not divide among 5 processes"):
        build("nanogpt-cpu", Corpus("own", text, "", ""), dict(n_layer=1))


# ---------------------------------------------------------------- the one command line


def test_the_command_line_needs_nothing_installed_and_imports_what_is_called():
    """-S: without site-packages, as on a machine where nothing is installed yet."""

    def run_it(*words):
        return subprocess.run(
            [sys.executable, "-S", "-m", "helpers", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    for words in ((), ("--help",)):
        done = run_it(*words)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        assert re.findall(r"^  (\w+) ", done.stdout, re.MULTILINE) == list(COMMANDS)
    done = run_it("fly")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"There is no command 'fly': choose one of {', '.join(COMMANDS)}.\n"
    assert "NO  torch" in run_it("doctor").stdout, "the doctor can say what is missing"


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"doctor"}))  # which has no options
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line([command, "--help"])
    assert not stopped.value.code and f"usage: python -m helpers {command} " in capsys.readouterr().out
