"""The loop of the lessons, the sweep over a text, and the full training program: helpers/train.py."""

import copy
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import randomise
from torch import nn
from torch.testing import assert_close

import helpers.train as program
from helpers.data import Corpus, get_batch, train_val_split
from helpers.generate import generate
from helpers.model import GPT, BigramLanguageModel, GPTConfig
from helpers.presets import PRESETS
from helpers.train import (
    TrainConfig,
    bf16_is_fast,
    build,
    compiled_if_possible,
    evaluate,
    fit,
    learning_rate_factor,
    make_optimizers,
    orthogonalise,
    pick_device,
    train,
)

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
IDS = torch.randint(11, (600,), generator=torch.Generator().manual_seed(5)).cumsum(0) % 11
TRAIN, VAL = train_val_split(IDS)


def short(**changes):
    """A run of a few steps, with everything in it that a run can have."""
    settings = dict(
        batch_size=4, max_steps=12, learning_rate=3e-3, min_learning_rate_ratio=0.1, warmup_steps=3,
        weight_decay=0.1, grad_clip=1.0, eval_interval=4, precision="float32", seed=7,
    )  # fmt: skip
    return TrainConfig(**settings | changes)


def run(model, config=None, train_ids=TRAIN, val_ids=VAL, **kwargs):
    return train(model, train_ids, val_ids, config or short(), CPU, progress=False, **kwargs)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# ---------------------------------------------------------------- fit


def test_fit_is_reproducible_and_learns(splits, tokenizer):
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        model = BigramLanguageModel(tokenizer.vocab_size)
        losses = fit(model, splits[0], 16, 16, 60, 0.1, seed)
        assert len(losses) == 60 and abs(losses[0] - math.log(tokenizer.vocab_size)) < 0.2
        assert sum(losses[-10:]) / 10 < losses[0] - 1
        results.append((losses, weights_of(model)))
    assert results[0][0] == results[1][0] != results[2][0]
    assert_same_weights(results[0][1], results[1][1])


def test_a_bigram_reaches_the_optimum_that_counting_gives():
    # A chain over four tokens whose best possible loss is known from counts.
    chain = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.25] * 4, [0.4, 0.1, 0.1, 0.4]])
    generator, walk = torch.Generator().manual_seed(0), [0]
    for _ in range(2000):
        walk.append(torch.multinomial(chain[walk[-1]], 1, generator=generator).item())
    ids = torch.tensor(walk)
    counts = torch.zeros(4, 4, dtype=torch.float64)
    counts.index_put_((ids[:-1], ids[1:]), torch.ones(2000, dtype=torch.float64), accumulate=True)
    optimum = -(counts * (counts / counts.sum(1, keepdim=True)).log()).sum().item() / 2000
    model = BigramLanguageModel(4)
    fit(model, ids, 64, 32, 150, 0.05)
    assert optimum - 1e-6 <= evaluate(model, ids, 64) < optimum + 0.005
    assert_close(
        model.next_token_logits.weight.softmax(-1), (counts / counts.sum(1, True)).float(), rtol=0, atol=0.06
    )


# ---------------------------------------------------------------- evaluate


@pytest.mark.parametrize("n", [2, 7, 8, 9, 16, 17, 18, 41])
@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_the_sweep_meets_every_target_once(tiny_gpt, n, batch_size):
    model = randomise(tiny_gpt(dropout=0.5)).eval()
    ids = torch.randint(11, (n,))
    total = 0.0
    for target in range(1, n):
        window = ids[(target - 1) // 8 * 8 : target]
        total -= model(window[None])[0][0, -1].double().log_softmax(-1)[ids[target]].item()
    model.train()
    assert evaluate(model, ids, 8, batch_size) == pytest.approx(total / (n - 1), abs=1e-5)
    assert model.training, "the mode is as before"


def test_the_sweep_needs_no_gradient_and_no_chance(tiny_gpt):
    model = tiny_gpt(dropout=0.5).train()
    before = torch.random.get_rng_state()
    assert evaluate(model, VAL, 8) == evaluate(model, VAL, 8)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    evaluate(model, VAL, 8)
    assert not model.training


def test_the_sweep_over_too_little_is_a_sentence(tiny_gpt):
    with pytest.raises(ValueError, match="1 tokens are too few to evaluate on"):
        evaluate(tiny_gpt(), torch.tensor([1]), 8)


# ---------------------------------------------------------------- learning rate and optimizers


def test_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine():
    config = short(max_steps=110, warmup_steps=10, learning_rate=1.0, min_learning_rate_ratio=0.1)
    factors = [learning_rate_factor(step, config) for step in range(130)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    for step in range(10, 111):
        half_cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 10) / 100)) / 2
        assert factors[step] == pytest.approx(half_cosine)
    assert max(factors) == factors[10] == 1.0 and factors[60] == pytest.approx(0.55)
    assert factors[110:] == [pytest.approx(0.1)] * 20


def test_without_warm_up_and_decay_the_learning_rate_is_constant():
    config = short(warmup_steps=0, min_learning_rate_ratio=1.0, max_steps=1)
    assert [learning_rate_factor(step, config) for step in range(3)] == [1.0] * 3


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_schedule_is_what_the_optimizers_are_given(tiny_gpt, optimizer):
    config, seen = short(optimizer=optimizer), []
    run(
        tiny_gpt(),
        config,
        on_step=lambda h: seen.append([g["lr"] for o in h.optimizers for g in o.param_groups]),
    )
    peaks = [3e-3, 3e-3] + [0.02] * (optimizer == "muon")
    for step, rates in enumerate(seen):
        assert rates == pytest.approx([peak * learning_rate_factor(step, config) for peak in peaks])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"tie_weights": True}, {"position": "sinusoidal"}, {"bias": False}])
def test_who_decays_and_who_goes_to_muon(tiny_gpt, optimizer, changes):
    model = tiny_gpt(**changes)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    optimizers = make_optimizers(model, short(optimizer=optimizer, weight_decay=0.3, beta1=0.8, beta2=0.95))
    where, decay = {}, {}
    for o in optimizers:
        for group in o.param_groups:
            for p in group["params"]:
                assert id(p) not in where, "once each"
                where[id(p)], decay[id(p)] = type(o).__name__, group["weight_decay"]
    assert where.keys() == names.keys(), "every trained parameter has an optimizer"
    for key, name in names.items():
        matrix = not name.endswith(".bias") and ".ln_" not in f".{name}"
        in_muon = optimizer == "muon" and name.startswith("blocks.") and matrix
        assert where[key] == ("Muon" if in_muon else "AdamW"), name
        assert decay[key] == (0.3 if matrix else 0.0), name
    assert optimizers[0].param_groups[0]["betas"] == (0.8, 0.95)


# ---------------------------------------------------------------- train


def test_training_learns_and_tells_what_it_did(tiny_gpt):
    model = tiny_gpt()
    steps, sweeps = [], []
    history = run(
        model, short(max_steps=150, learning_rate=1e-2, eval_interval=60),
        torch.arange(400) % 7, torch.arange(50) % 7,
        on_step=lambda h: steps.append(h.step), on_eval=lambda m, h: sweeps.append((m, h.step)),
    )  # fmt: skip
    assert history.losses[0] > 2 and history.losses[-1] < 0.5 and len(history.losses) == 150
    assert steps == list(range(1, 151))
    assert [step for _, step in sweeps] == [p["step"] for p in history.evals] == [0, 60, 120, 150]
    assert all(m is model for m, _ in sweeps) and not history.stopped and model.training
    assert history.evals[-1]["val"] == pytest.approx(evaluate(model, torch.arange(50) % 7, 8))
    assert history.evals[-1]["train"] == pytest.approx(evaluate(model, (torch.arange(400) % 7)[:50], 8))
    assert 0 < history.evals[1]["seconds"] <= history.train_seconds


def test_training_is_the_loop_of_the_lessons_with_schedule_and_clipping(tiny_gpt):
    config = short(grad_clip=0.5)
    model = tiny_gpt()
    by_hand = copy.deepcopy(model)
    history = run(model, config)
    generator, losses = torch.Generator().manual_seed(config.seed), []
    (optimizer,) = make_optimizers(by_hand, config)
    for step in range(config.max_steps):
        by_hand.zero_grad()
        loss = by_hand(*get_batch(TRAIN, 8, config.batch_size, generator))[1]
        loss.backward()
        norm = sum(p.grad.square().sum() for p in by_hand.parameters()).sqrt()
        for p in by_hand.parameters():
            p.grad.mul_(min(1.0, 0.5 / norm.item()))
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * learning_rate_factor(step, config)
        optimizer.step()
        losses.append(loss.item())
    assert history.losses == pytest.approx(losses, abs=1e-4)
    assert_close(dict(model.state_dict()), dict(by_hand.state_dict()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_is_the_same_for_the_same_seed(tiny_gpt, optimizer):
    def write(model, history):  # as the program does at every sweep
        generate(model, TRAIN[None, :4], 5, generator=torch.Generator().manual_seed(1))

    results = []
    for seed, watched in ((7, False), (7, True), (8, False)):
        torch.manual_seed(0)
        model = tiny_gpt(dropout=0.2)
        torch.manual_seed(99 + watched)  # what was drawn before does not matter
        on_eval = write if watched else None
        history = run(model, short(optimizer=optimizer, seed=seed), on_eval=on_eval)
        results.append((history.losses, weights_of(model)))
    assert results[0][0] == results[1][0] != results[2][0]
    assert_same_weights(results[0][1], results[1][1])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_stopped_and_continued_is_as_never_stopped(tiny_gpt, optimizer, stop_after):
    config = short(optimizer=optimizer)
    torch.manual_seed(0)
    whole, parts = tiny_gpt(dropout=0.2), tiny_gpt(dropout=0.2)
    parts.load_state_dict(whole.state_dict())
    uninterrupted = run(whole, config)
    steps = []
    history = run(
        parts,
        config,
        on_step=lambda h: steps.append(h.step),
        should_stop=lambda: len(steps) == stop_after - 1,
    )
    assert history.stopped and history.step == len(history.losses) == stop_after
    history = run(parts, config, history=history)
    assert not history.stopped and history.step == 12
    assert history.losses == uninterrupted.losses
    assert_same_weights(weights_of(parts), weights_of(whole))
    timeless = [
        [{k: v for k, v in p.items() if k != "seconds"} for p in h.evals] for h in (history, uninterrupted)
    ]
    assert timeless[0] == timeless[1], "no sweep is missing, none is done twice"
    assert history.best_step == uninterrupted.best_step
    assert_same_weights(history.best_weights, uninterrupted.best_weights)


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach only the main thread"
)
def test_ctrl_c_ends_after_a_whole_step_and_training_goes_on(tiny_gpt):
    config = short(max_steps=100_000, eval_interval=100_000)
    model, before = tiny_gpt(), signal.getsignal(signal.SIGINT)
    third_step = threading.Event()

    def press():
        third_step.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    history = run(model, config, on_step=lambda h: third_step.set() if h.step == 3 else None)
    thread.join()
    assert history.stopped and 3 <= history.step == len(history.losses) < 50_000
    assert signal.getsignal(signal.SIGINT) is before, "Ctrl-C is what it was before"
    reached, weights = history.step, weights_of(model)
    history = run(model, config, history=history, should_stop=lambda: history.step >= reached + 2)
    assert history.step == reached + 2 == len(history.losses)
    assert any(not torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_training_works_outside_the_main_thread(tiny_gpt):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(tiny_gpt(), short(max_steps=2))))
    thread.start()
    thread.join(30)
    assert results and results[0].step == 2


def test_a_loss_that_is_no_number_names_step_and_learning_rate(tiny_gpt):
    class Breaks(GPT):
        calls = 0

        def forward(self, idx, targets=None, cache=None):
            logits, loss = super().forward(idx, targets, cache)
            self.calls += self.training
            return logits, loss * (math.nan if self.training and self.calls == 5 else 1)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(FloatingPointError, match=r"step 5: start again with a learning_rate below 0\.003"):
        run(Breaks(tiny_gpt().config))
    assert signal.getsignal(signal.SIGINT) is before, "Ctrl-C works again after an error too"


def test_a_learning_rate_that_is_far_too_high_is_noticed(tiny_gpt):
    config = short(learning_rate=1e30, warmup_steps=0, grad_clip=0.0)
    with pytest.raises(FloatingPointError, match=r"learning_rate below 1e\+30"):
        run(tiny_gpt(), config)


def test_the_best_weights_are_those_of_the_best_sweep(tiny_gpt):
    seen = {}
    model = tiny_gpt()
    # First towards the validation text, then away from it: the mixture of the texts changes.
    ids = torch.cat([torch.arange(300) % 7, torch.randint(11, (20,))])
    history = run(
        model, short(max_steps=120, eval_interval=10, learning_rate=2e-2, min_learning_rate_ratio=1.0),
        torch.cat([ids[-20:]] * 10), ids[:60],
        on_eval=lambda m, h: seen.update({h.step: weights_of(m)}),
    )  # fmt: skip
    vals = {p["step"]: p["val"] for p in history.evals}
    assert history.best_val == min(vals.values()) == vals[history.best_step]
    assert history.best_step < 120, "this run is made to overfit"
    assert_same_weights(history.best_weights, seen[history.best_step])
    model.load_state_dict(history.best_weights)
    assert evaluate(model, ids[:60], 8) == pytest.approx(history.best_val, abs=1e-6)


def test_validation_text_is_never_trained_on(tiny_gpt):
    zeros, ones = torch.zeros(200, dtype=torch.int64), torch.ones(40, dtype=torch.int64)
    model = tiny_gpt()
    history = run(model, short(max_steps=40), zeros, ones)
    assert history.losses[-1] < 1.5 < history.losses[0]
    first, last = history.evals[0], history.evals[-1]
    assert last["val"] > first["val"] + 0.3, "what is never seen becomes less likely"
    assert last["train"] < 1.5, "the training curve is of the training text"


def test_texts_shorter_than_a_block_are_a_sentence_before_anything_is_computed(tiny_gpt):
    for train_ids, val_ids in ((TRAIN[:8], VAL), (TRAIN, VAL[:8])):
        with pytest.raises(ValueError, match="8 tokens is too short for block_size=8"):
            run(tiny_gpt(), None, train_ids, val_ids)


def test_gradients_are_clipped_when_asked(tiny_gpt, monkeypatch):
    asked = []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda params, norm: asked.append(norm))
    run(tiny_gpt(), short(max_steps=3, grad_clip=0.5))
    run(tiny_gpt(), short(max_steps=3, grad_clip=0.0))
    assert asked == [0.5] * 3


def test_bfloat16_trains_like_float32(tiny_gpt):
    losses = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        history = run(tiny_gpt(), short(precision=precision, max_steps=30))
        losses.append(torch.tensor(history.losses))
    assert not torch.equal(*losses)
    assert (losses[0] - losses[1]).abs().max() < 0.05


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_steps": 1.5}, r"max_steps=1\.5"),
        ({"eval_interval": True}, "eval_interval=True"),
        ({"learning_rate": 0}, "learning_rate=0"),
        ({"learning_rate": math.inf}, "learning_rate=inf"),
        ({"muon_learning_rate": -1}, "muon_learning_rate=-1"),
        ({"min_learning_rate_ratio": 1.1}, "min_learning_rate_ratio=1.1"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"weight_decay": math.nan}, "weight_decay=nan"),
        ({"grad_clip": -1}, "grad_clip=-1"),
        ({"beta1": 1.0}, r"beta1=1\.0"),
        ({"beta2": -0.1}, r"beta2=-0\.1"),
        ({"optimizer": "sgd"}, "optimizer='sgd' must be adamw or muon"),
        ({"precision": "float16"}, "precision='float16'"),
    ],
)
def test_impossible_settings_name_argument_and_value(changes, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**changes)


# ---------------------------------------------------------------- devices


def test_the_device_can_be_chosen_and_a_missing_one_is_a_sentence(monkeypatch):
    assert pick_device("cpu") == CPU
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert pick_device() == CPU
    for name in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"The device '{name}' is not there on this machine"):
            pick_device(name)


def test_an_empty_course_device_chooses_by_itself(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "")
    assert pick_device().type in ("cpu", "cuda", "mps")


def test_an_older_processor_gets_no_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    assert bf16_is_fast(CPU)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert not bf16_is_fast(CPU)
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not bf16_is_fast(CPU)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not bf16_is_fast(CPU)


# ---------------------------------------------------------------- presets and the program


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
    for name, corpus in (("nanogpt-cpu", "plays"), ("course-cpu", "plays"), ("course-cpu", "own.txt")):
        record = {"preset": name, "corpus": corpus, "device": "cpu"}
        (tmp_path / f"{name}-{corpus}-cpu.json").write_text(json.dumps(record))
    (tmp_path / "ladder-plays.json").write_text("{}")
    monkeypatch.setattr(program, "RUNS_DIR", tmp_path)
    assert [r["preset"] for r in program.load_records("plays")] == ["course-cpu", "nanogpt-cpu"]
    assert program.load_records("elsewhere") == []


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


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    program.main()


def test_the_program_writes_a_valid_record(monkeypatch, own, tmp_path, capsys):
    out = tmp_path / "new" / "runs"
    call(
        monkeypatch,
        *SMALL,
        "--corpus",
        own,
        "--out",
        out,
        "--device",
        "cpu",
        "--sample",
        20,
        "--bias",
        "true",
    )
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
    assert record["torch"] == torch.__version__ and record["hardware"] and record["python"]
    assert record["tokens_per_second"] > 0 and record["train_seconds"] >= 0
    output = capsys.readouterr().out
    assert str(path) in output and f"{record['parameters']:,} parameters" in output


def test_the_program_runs_from_a_shell(own, tmp_path):
    command = [
        sys.executable,
        "-m",
        "helpers.train",
        *SMALL,
        "--corpus",
        own,
        "--out",
        tmp_path,
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert json.loads((tmp_path / "nanogpt-cpu-own.txt-cpu.json").read_text(encoding="utf-8"))["evals"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--preset", "gpt-5"], r"invalid choice: 'gpt-5'"),
        (["--max_steps", "many"], r"invalid int value: 'many'"),
        (["--max_steps", "0"], r"max_steps=0 must be a whole number"),
        (["--n_head", "3"], r"n_embd=16 does not divide into n_head=3"),
        (["--learning_rate", "-1"], r"learning_rate=-1\.0 must be above 0"),
        (["--bias", "perhaps"], r"perhaps"),
        (["--device", "abacus"], r"The device 'abacus' is not there"),
        (["--corpus", "nowhere.txt"], r"nowhere\.txt cannot be read"),
        (["--block_size", "5000"], r"too short for block_size=5000"),
        (["--sample", "-1"], r"sample.*-1|-1.*at least 0"),
        (
            ["--learning_rate", "1e30", "--grad_clip", "0", "--warmup_steps", "0", "--max_steps", "9"],
            "learning_rate below",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_arguments_are_one_sentence(monkeypatch, capsys, own, tmp_path, arguments, sentence):
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *SMALL, "--corpus", own, "--out", tmp_path, "--device", "cpu", *arguments)
    assert stopped.value.code not in (0, None)
    said = capsys.readouterr().err.splitlines()[-1] if stopped.value.code == 2 else str(stopped.value.code)
    assert re.search(sentence, said), said
    assert "\n" not in said
    assert list(tmp_path.glob("*.json")) == []


def test_a_folder_that_cannot_be_written_is_said_before_training(monkeypatch, own, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(program, "train", lambda *args, **kwargs: pytest.fail("trained for nothing"))
    with pytest.raises(SystemExit, match="file"):
        call(monkeypatch, *SMALL, "--corpus", own, "--out", tmp_path / "file", "--device", "cpu")


def test_where_nothing_can_be_compiled_training_goes_on_without(monkeypatch, capsys):
    def refuses(function):
        def compiled(x, y):
            raise RuntimeError("no compiler")

        return compiled

    weight = torch.ones(1, requires_grad=True)

    def loss_of(x, y):
        return (weight * x - y).square().sum()

    monkeypatch.setattr(torch, "compile", refuses)
    x, y = torch.tensor([2.0]), torch.tensor([0.0])
    assert compiled_if_possible(loss_of, x, y) is loss_of
    assert "does not work here (RuntimeError)" in capsys.readouterr().out
    monkeypatch.setattr(torch, "compile", lambda function: lambda x, y: function(x, y) * 1)
    assert compiled_if_possible(loss_of, x, y) is not loss_of


@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_muon_in_float32_is_pytorchs_muon_up_to_rounding(shape):
    settings = ((3.4445, -4.775, 2.0315), 5, 1e-7)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    theirs = torch.optim._muon._zeropower_via_newtonschulz(grad, *settings).float()
    torch.testing.assert_close(orthogonalise(grad, *settings), theirs, rtol=0, atol=0.03)
