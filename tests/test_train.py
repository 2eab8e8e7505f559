"""The loop of the lessons, the sweep over a text, and the full training program: helpers/train.py."""

import contextlib
import copy
import math
import re
import shutil
import signal
import subprocess
import threading
from types import SimpleNamespace

import pytest
import torch
from conftest import randomise
from runs_for_tests import CPU, TRAIN, VAL, assert_same_weights, run, short, weights_of
from torch import nn
from torch._inductor import exc
from torch.testing import assert_close

from helpers.data import get_batch
from helpers.device import compiled_if_possible
from helpers.generate import generate
from helpers.model import GPT, BigramLanguageModel, GPTConfig
from helpers.optimizers import learning_rate_factor, make_optimizers
from helpers.train import (
    History,
    TrainConfig,
    batch_in_parts,
    begin,
    evaluate,
    fit,
    one_step,
    parts_of,
    prepare,
    show_progress,
    steps_to_the_next_reading,
    train,
)

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


def test_the_sweep_sends_thousands_of_tokens_through_at_once(tiny_gpt):
    model, batches = tiny_gpt(), []
    model.register_forward_pre_hook(lambda m, inputs: batches.append(tuple(inputs[0].shape)))
    evaluate(model, torch.zeros(9000, dtype=torch.int64), 8)
    assert batches == [(1024, 8), (100, 8), (1, 7)]


def test_the_sweep_needs_no_gradient_and_no_chance(tiny_gpt):
    model = tiny_gpt(dropout=0.5).train()
    before = torch.random.get_rng_state()
    assert evaluate(model, VAL, 8) == evaluate(model, VAL, 8)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    evaluate(model, VAL, 8)
    assert not model.training


def test_the_sweep_restores_the_mode_after_an_error(tiny_gpt):
    model = tiny_gpt().train()
    with pytest.raises(IndexError):
        evaluate(model, torch.tensor([1, 2, 99]), 8)
    assert model.training


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
        watch = {"on_eval": write} if watched else {}
        history = run(model, short(optimizer=optimizer, seed=seed), **watch)
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
        signal.raise_signal(signal.SIGINT)

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
        ({"muon_learning_rate": 0}, "muon_learning_rate=0"),
        ({"min_learning_rate_ratio": 1.1}, "min_learning_rate_ratio=1.1"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"weight_decay": math.nan}, "weight_decay=nan"),
        ({"grad_clip": -1}, "grad_clip=-1"),
        ({"beta1": 1.0}, r"beta1=1\.0"),
        ({"beta2": -0.1}, r"beta2=-0\.1"),
        ({"optimizer": "sgd"}, "optimizer='sgd' must be one of adamw, muon"),
        ({"precision": "float64"}, "precision='float64'"),
        ({"accumulation_steps": 0}, "accumulation_steps=0"),
        ({"accumulation_steps": 3}, "batch_size=64 does not divide into accumulation_steps=3 equal parts"),
    ],
)
def test_impossible_settings_name_argument_and_value(changes, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**changes)


def test_the_largest_seed_is_allowed():
    assert TrainConfig(seed=2**63 - 1).seed == 2**63 - 1


@pytest.fixture
def passes(tiny_gpt, monkeypatch):
    """passes(compile): compiled_if_possible of a model's loss, with that in place of torch.compile."""

    def make(compile):
        model = tiny_gpt(dropout=0.2)
        x = torch.randint(11, (2, 8))
        monkeypatch.setattr(torch, "compile", compile)
        before = torch.random.get_rng_state()
        made = compiled_if_possible(lambda x, y: model(x, y)[1], model, [(x, x)], CPU)
        assert torch.equal(torch.random.get_rng_state(), before), "the run's own dropout is as before"
        assert all(p.grad is None for p in model.parameters())
        return made

    return make


def test_gradients_are_gone_before_a_compiled_model_runs_again(passes):
    """A CUDA graph raises if it has to add to gradients that lie in its own memory (pytorch issue 169545)."""

    def compile(loss_of, **options):
        if not options:  # the line on which it is tried
            return loss_of

        def graph(x, y):
            parameters = [p for cell in loss_of.__closure__ for p in cell.cell_contents.parameters()]
            assert all(p.grad is None for p in parameters)
            return loss_of(x, y)

        assert options == {"mode": "default", "dynamic": False}, "no CUDA graph on a CPU, sizes as they are"
        return graph

    assert passes(compile)[1] == "inductor"


@pytest.mark.parametrize(
    "error, falls_back",
    [
        (exc.InductorError(RuntimeError("Failed to find C compiler. Please specify via CC"), None), True),
        (exc.InductorError(subprocess.CalledProcessError(1, "gcc"), None), True),
        (exc.InvalidCxxCompiler(), True),
        (exc.TritonMissing(None), True),
        (exc.InductorError(torch.OutOfMemoryError("CUDA out of memory"), None), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (RuntimeError("a fault of the course"), False),
    ],
    ids=lambda value: type(getattr(value, "inner_exception", value)).__name__,
)
def test_only_a_machine_that_cannot_compile_trains_without(passes, capsys, error, falls_back):
    def compile(loss_of, **options):
        def refuses(*_):
            raise error

        return refuses

    if falls_back:
        assert passes(compile)[1] == ""
        assert f"does not work here ({type(error).__name__})" in capsys.readouterr().out
    else:
        with pytest.raises(type(error)):
            passes(compile)


def test_if_one_process_cannot_compile_none_does(passes, monkeypatch):
    """A process that trains without would wait for other sums than those that compile."""
    tried = []

    def compile(function, **options):
        tried.append(options)
        return function

    monkeypatch.setattr("helpers.device.any_process", lambda device, fails: [True])
    assert passes(compile)[1] == "" and tried == [{}], "this one could"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on a CPU")
@pytest.mark.skipif(" " in torch.__file__, reason="inductor does not find headers in a path with a space")
def test_inductor_compiles_the_real_loss_once_for_three_passes(tiny_gpt):
    model, x = tiny_gpt(n_layer=1), torch.randint(11, (2, 8))

    def loss_of(x, y):
        return model(x, y)[1]

    fast, how = compiled_if_possible(loss_of, model, [(x, x)], CPU)
    assert how == "inductor"
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_close(fast(x, x), loss_of(x, x), rtol=1e-4, atol=1e-5)


def test_a_model_is_compiled_under_the_settings_that_it_trains_under(tiny_gpt, monkeypatch):
    """torch.compile begins anew where TF32 was switched in between: its warm-up would be for nothing."""
    inside, seen = [], []

    @contextlib.contextmanager
    def floats(device):
        inside.append(device)
        yield
        inside.pop()

    def note(function):
        return lambda *args: seen.append((function.__name__, *inside)) or function(*args)

    monkeypatch.setattr("helpers.train.tensor_floats", floats)
    for function in (prepare, one_step):
        monkeypatch.setattr(f"helpers.train.{function.__name__}", note(function))
    run(tiny_gpt(), short(max_steps=1))
    assert seen == [("prepare", CPU), ("one_step", CPU)] and not inside


# ---------------------------------------------------------------- a batch in parts


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_same_batch(tiny_gpt, optimizer, parts):
    torch.manual_seed(0)
    whole, in_parts = tiny_gpt(), tiny_gpt()
    in_parts.load_state_dict(whole.state_dict())
    sizes = []
    in_parts.register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None
    )
    one = run(whole, short(optimizer=optimizer))
    other = run(in_parts, short(optimizer=optimizer, accumulation_steps=parts))
    assert sizes == [4 // parts] * parts * 12, "no more than a part is in memory at once"
    assert other.losses == pytest.approx(one.losses, abs=1e-3)
    if optimizer == "adamw":  # Muon turns rounding in small directions into whole steps
        assert_close(dict(in_parts.state_dict()), dict(whole.state_dict()), rtol=1e-3, atol=1e-3)


def test_a_batch_may_be_cut_into_unequal_parts(tiny_gpt, monkeypatch):
    torch.manual_seed(0)
    whole, in_parts = tiny_gpt(), tiny_gpt()
    in_parts.load_state_dict(whole.state_dict())
    one = run(whole, short(batch_size=5))
    monkeypatch.setattr("helpers.train.parts_of", lambda *args: 2)  # 3 sequences and 2
    assert run(in_parts, short(batch_size=5)).losses == pytest.approx(one.losses, rel=1e-5)


def test_on_a_cpu_a_batch_is_cut_so_that_a_layer_fits_into_the_cache(monkeypatch):
    small, real = (GPTConfig(65, n_embd=n, block_size=T, n_head=1) for n, T in ((128, 64), (384, 256)))
    config, gpu = TrainConfig(batch_size=64), torch.device("cuda")
    assert [parts_of(config, shape, CPU) for shape in (small, real)] == [1, 6]
    for shape in (small, real):
        assert parts_of(config, shape, gpu) == 1
        assert parts_of(TrainConfig(batch_size=64, accumulation_steps=2), shape, CPU) == 2
    huge = GPTConfig(65, n_embd=128, block_size=10**6)
    assert parts_of(config, huge, CPU) == 64, "a part has at least one sequence"
    monkeypatch.setattr("helpers.train.world_size", lambda: 2)
    assert parts_of(config, huge, CPU) == 32


# ---------------------------------------------------------------- float16


def test_float16_trains_like_float32_and_scales_its_losses(tiny_gpt):
    results = {}
    for precision in ("float32", "float16"):
        torch.manual_seed(0)
        results[precision] = run(tiny_gpt(), short(precision=precision))
    assert results["float16"].losses == pytest.approx(results["float32"].losses, abs=0.02)
    assert results["float16"].losses != results["float32"].losses
    assert results["float16"].scaler.get_scale() > 1 and results["float32"].scaler.get_scale() == 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_gradients_are_clipped_at_their_true_length_in_float16(tiny_gpt, monkeypatch, optimizer):
    norms = []
    clip = nn.utils.clip_grad_norm_

    def note(params, limit):
        norms.append(clip(params, limit).item())

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", note)
    for precision in ("float32", "float16"):
        torch.manual_seed(0)
        run(tiny_gpt(), short(precision=precision, max_steps=3, optimizer=optimizer))
    assert norms[3:] == pytest.approx(norms[:3], rel=0.05)


@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_a_step_that_overflows_in_float16_is_skipped_by_both_optimizers(tiny_gpt, grad_clip):
    model, config = tiny_gpt(), short(precision="float16", optimizer="muon", grad_clip=grad_clip)
    moved = []

    def overflow(grad):  # of a matrix of Muon's; AdamW's own gradients are finite
        return grad * math.inf if len(moved) == 3 else grad

    model.blocks[0].ffwd.widen.weight.register_hook(overflow)
    weights = weights_of(model)

    def compare(history):
        now = weights_of(model)
        moved.append(sum(not torch.equal(now[name], weights[name]) for name in now))
        weights.update(now)

    history = run(model, config, on_step=compare)
    assert len(history.optimizers) == 2 and moved[3] == 0, moved
    assert all(n == len(weights) for i, n in enumerate(moved) if i != 3), moved
    assert all(map(math.isfinite, history.losses)) and history.step == 12


# ---------------------------------------------------------------- saving


def test_a_run_of_seconds_is_saved_at_its_end_and_at_a_stop(tiny_gpt):
    saved, steps = [], []
    run(tiny_gpt(), on_save=lambda h: saved.append(h.step))
    assert saved == [12]
    run(
        tiny_gpt(),
        on_step=lambda h: steps.append(h.step),
        should_stop=lambda: len(steps) == 5,
        on_save=lambda h: saved.append(h.step),
    )
    assert saved == [12, 6]


def test_saves_come_at_sweeps_a_minute_apart_and_when_it_has_been_long(tiny_gpt, monkeypatch):
    clock, saved = [0.0], []

    def a_step_takes_20_seconds():
        clock[0] += 20
        return False

    monkeypatch.setattr("helpers.train.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    how = dict(should_stop=a_step_takes_20_seconds, on_save=lambda h: saved.append(h.step))
    run(tiny_gpt(), short(max_steps=14, eval_interval=2), **how)
    assert saved == [4, 8, 12, 14], "40 seconds after a save are too soon, but for the end"
    saved.clear()
    run(tiny_gpt(), short(max_steps=40, eval_interval=37), **how)
    assert saved == [16, 32, 37, 40], "each 320 seconds after the last, or at a sweep after 100"


# ---------------------------------------------------------------- large texts


def test_ids_of_16_bits_train_as_those_of_64(tiny_gpt):
    results = []
    for kind in (torch.int64, torch.uint16):
        torch.manual_seed(0)
        model = tiny_gpt()
        history = run(model, train_ids=TRAIN.to(kind), val_ids=VAL.to(kind))
        results.append((history.losses, history.evals[-1]["val"]))
    assert results[0] == results[1]


def test_the_bar_says_loss_speed_and_time_left(tiny_gpt, capsys):
    ids = torch.arange(60) % 11
    config = TrainConfig(batch_size=2, max_steps=3)
    history = train(tiny_gpt(), ids, ids, config, CPU)
    bar = capsys.readouterr().err
    assert f"loss {history.losses[-1]:.3f}" in bar and re.search(r"[\d,]+ tokens/s", bar)
    assert re.search(r"3/3 \[\d\d:\d\d<", bar)


def test_the_bar_counts_tokens_not_sequences(tiny_gpt):
    said, moved = [], []
    bar = SimpleNamespace(n=4, update=moved.append, set_postfix_str=said.append)
    history = History(step=10, losses=[2.5] * 10, train_seconds=2.0)
    show_progress(bar, tiny_gpt(), short(batch_size=4), history)
    assert said == ["loss 2.500, 160 tokens/s"], "10 steps of 4 sequences of 8 tokens in 2 seconds"
    assert moved == [6]


# ---------------------------------------------------------------- modes, readings and saves


def test_a_model_in_evaluation_mode_is_trained_with_dropout(tiny_gpt):
    """load_checkpoint returns one in that mode."""
    losses = []
    for training in (True, False):
        torch.manual_seed(0)
        losses.append(run(tiny_gpt(dropout=0.5).train(training)).losses)
    assert losses[0] == losses[1]


def test_losses_are_read_every_50_steps_on_a_gpu_and_before_a_sweep_or_the_end():
    cpu, gpu = CPU, torch.device("cuda")
    config = TrainConfig(max_steps=1010, eval_interval=200)
    for step, on_gpu in ((0, 50), (1, 50), (150, 50), (170, 30), (199, 1), (1000, 10)):
        assert steps_to_the_next_reading(History(step=step), config, gpu) == on_gpu
        assert steps_to_the_next_reading(History(step=step), config, cpu) == 1


# ---------------------------------------------------------------- one of two processes


@pytest.fixture
def one_of_two(monkeypatch):
    """one_of_two(rank) makes helpers.train believe that it is that process of two."""

    def become(rank):
        monkeypatch.setattr("helpers.train.rank", lambda: rank)
        monkeypatch.setattr("helpers.train.world_size", lambda: 2)

    return become


def test_two_processes_draw_their_own_dropout_and_share_the_batches(tiny_gpt, one_of_two):
    config, dropout, rows = short(), [], []
    for rank in (0, 1):
        one_of_two(rank)
        history = begin(tiny_gpt(), config, CPU)
        dropout.append(torch.rand(4))
        rows.append(batch_in_parts(TRAIN, tiny_gpt(), config, CPU, history)[0])
    assert not torch.equal(*dropout)
    x, y = get_batch(TRAIN, 8, config.batch_size, torch.Generator().manual_seed(config.seed))
    for rank, (own_x, own_y) in enumerate(rows):
        assert torch.equal(own_x, x[rank::2]) and torch.equal(own_y, y[rank::2])


def test_two_processes_meet_once_a_batch_after_its_last_part(tiny_gpt, one_of_two):
    one_of_two(0)
    model, config = tiny_gpt(), short(batch_size=6, accumulation_steps=3)
    history, apart, met = begin(model, config, CPU), [], []

    @contextlib.contextmanager
    def no_sync():  # as DistributedDataParallel has it
        apart.append(True)
        yield
        apart.pop()

    model.no_sync = no_sync
    model.lm_head.weight.register_hook(lambda grad: met.append(not apart))
    batch = batch_in_parts(TRAIN, model, config, CPU, history)
    one_step(model, lambda x, y: model(x, y)[1], batch, config, history)
    assert met == [False, False, True]


def test_a_stop_at_the_last_step_is_the_end(tiny_gpt):
    history = run(tiny_gpt(), short(max_steps=3), should_stop=lambda: True)
    assert history.stopped and history.step == 1
    assert not run(tiny_gpt(), short(max_steps=1), should_stop=lambda: True).stopped
