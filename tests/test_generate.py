"""Sampling: helpers/generate.py."""

import pytest
import torch
from conftest import randomise
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from helpers import generate as module
from helpers.generate import check_sampling, generate, next_token_probs, stream, window_start
from helpers.model import BigramLanguageModel, Head, LanguageModel

PROBS = torch.tensor([0.125, 0.5, 0.125, 0.25])
LOGITS = PROBS.log()

# ---------------------------------------------------------------- one step: temperature, top-k, top-p


def test_plain_sampling_is_the_softmax():
    assert_close(next_token_probs(LOGITS), PROBS)
    assert_close(next_token_probs(LOGITS + 7), PROBS, msg="only differences of logits count")


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 2.0, 100.0])
def test_temperature_is_a_power_of_the_probabilities(temperature):
    powers = PROBS ** (1 / temperature)
    assert_close(next_token_probs(LOGITS, temperature), powers / powers.sum())


@pytest.mark.parametrize("top_k, kept", [(1, [1]), (2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3])])
def test_top_k_keeps_the_k_likeliest(top_k, kept):
    probs = torch.tensor([0.15, 0.5, 0.1, 0.25])
    expected = torch.zeros(4)
    expected[kept] = probs[kept] / probs[kept].sum()
    assert_close(next_token_probs(probs.log(), top_k=top_k), expected)


@pytest.mark.parametrize(
    "top_p, kept",
    [
        (1e-9, [1]),  # the likeliest always stays
        (0.49, [1]),
        (0.51, [1, 3]),
        (0.74, [1, 3]),
        (0.76, [0, 1, 3]),
        (0.89, [0, 1, 3]),
        (0.91, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, kept):
    probs = torch.tensor([0.15, 0.5, 0.1, 0.25])
    expected = torch.zeros(4)
    expected[kept] = probs[kept] / probs[kept].sum()
    assert_close(next_token_probs(probs.log(), top_p=top_p), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_top_p_that_is_reached_exactly_needs_nothing_more(n):
    probs = next_token_probs(torch.zeros(4), top_p=n / 4)  # quarters: no rounding anywhere
    assert sorted(probs.tolist()) == [0.0] * (4 - n) + [pytest.approx(1 / n)] * n


@given(st.lists(st.floats(-12, 12), min_size=1, max_size=20), st.floats(0.01, 0.99))
def test_top_p_equals_the_definition(values, top_p):
    logits = torch.tensor(values, dtype=torch.float64).float()
    probs = logits.softmax(-1)
    order = probs.argsort(descending=True, stable=True)
    total, n = 0.0, 0
    while total < top_p - 1e-6 and n < len(values):
        total += probs[order[n]].item()
        n += 1
    if abs(total - top_p) < 1e-5:
        return  # a matter of rounding
    got = next_token_probs(logits, top_p=top_p)
    assert (got > 0).sum() == n or probs.sort().values.diff().min() < 1e-7
    assert_close(got.sum(), torch.tensor(1.0))


def test_top_p_of_one_keeps_everything():
    logits = torch.tensor([20.0, 0.0, -5.0])
    assert (next_token_probs(logits, top_p=1.0) > 0).all()


def test_temperature_comes_before_top_k_and_top_k_before_top_p():
    # Flattened by temperature, 0.6 takes two tokens; of the unchanged probabilities also two, but
    # after top_k=2 the likeliest alone has 2/3.
    assert (next_token_probs(LOGITS, top_k=2, top_p=0.6) > 0).tolist() == [False, True, False, False]
    flat = next_token_probs(LOGITS, temperature=50.0, top_p=0.7)
    assert (flat > 0).sum() == 3
    assert_close(next_token_probs(LOGITS, 2.0, top_k=2), (PROBS.sqrt() * (PROBS > 0.2)) / (0.5 + 0.5**0.5))


def test_rows_and_leading_dimensions_are_separate():
    logits = torch.randn(2, 3, 7)
    together = next_token_probs(logits, 0.8, 5, 0.9)
    for b in range(2):
        for t in range(3):
            assert_close(together[b, t], next_token_probs(logits[b, t], 0.8, 5, 0.9))


def test_half_precision_logits_are_sampled_in_full_precision():
    assert next_token_probs(LOGITS.bfloat16(), top_p=0.9).dtype == torch.float32


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (dict(temperature=0), r"temperature=0 must be above 0.*top_k=1"),
        (dict(temperature=-1.0), r"temperature=-1\.0 must be above 0"),
        (dict(temperature=float("nan")), "temperature=nan"),
        (dict(temperature=float("inf")), "temperature=inf"),
        (dict(top_k=0), r"top_k=0 must lie between 1 and the vocabulary size, 4"),
        (dict(top_k=5), r"top_k=5 must lie between 1"),
        (dict(top_p=0), r"top_p=0 must be above 0 and at most 1"),
        (dict(top_p=1.01), r"top_p=1\.01"),
        (dict(top_p=float("nan")), "top_p=nan"),
    ],
)
def test_impossible_settings_name_argument_and_remedy(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        next_token_probs(LOGITS, **settings)
    with pytest.raises(ValueError, match=sentence):
        generate(BigramLanguageModel(4), torch.zeros(1, 1, dtype=torch.int64), 3, **settings)
    check_sampling(4, 1.0, None, None)


# ---------------------------------------------------------------- many steps


@pytest.fixture
def recorded(monkeypatch):
    """The last-position logits of every step of sampling."""
    seen = []

    def record(logits, *args):
        seen.append(logits.clone())
        return next_token_probs(logits, *args)

    monkeypatch.setattr(module, "next_token_probs", record)
    return seen


@pytest.mark.parametrize("prompt", [1, 5, 8, 13, 30])
def test_with_and_without_cache_every_logit_is_equal_past_the_block_too(tiny_gpt, recorded, prompt):
    model = randomise(tiny_gpt(dropout=0.3))
    start = torch.randint(11, (2, prompt))
    results = []
    for use_cache in (True, False):
        seed = torch.Generator().manual_seed(3)
        results.append(generate(model, start, 25, 0.9, 8, 0.95, seed, use_cache))
    assert torch.equal(*results)
    assert len(recorded) == 50
    for cached, plain in zip(recorded[:25], recorded[25:]):
        assert_close(cached, plain, rtol=1e-4, atol=1e-4)
    model.eval()
    for step, logits in enumerate(recorded[:25]):  # and each is what the model says of its view
        length = prompt + step
        view = results[0][:, window_start(length, 8) : length]
        assert 1 <= view.shape[1] <= 8 and (length > 8 or view.shape[1] == length)
        assert_close(logits, model(view)[0][:, -1], rtol=1e-4, atol=1e-4)


def test_the_cache_saves_work(tiny_gpt):
    model, widths = tiny_gpt(), []
    model.register_forward_pre_hook(lambda m, inputs: widths.append(inputs[0].shape[1]))
    generate(model, torch.zeros(1, 3, dtype=torch.int64), 5)
    assert widths == [3, 1, 1, 1, 1]


@given(length=st.integers(1, 400), block_size=st.integers(1, 40))
def test_the_view_never_leaves_the_block_and_never_moves_back(length, block_size):
    start = window_start(length, block_size)
    assert 1 <= length - start <= block_size
    assert start >= window_start(length - 1, block_size) or length == 1
    assert length <= block_size or length - start >= block_size // 2, "at least half a block to look at"
    assert start == 0 or length > block_size


def test_sampling_draws_from_the_probabilities():
    model = BigramLanguageModel(4)
    with torch.no_grad():
        model.next_token_logits.weight.copy_(LOGITS.expand(4, 4))
    start = torch.zeros(40_000, 1, dtype=torch.int64)
    new = generate(model, start, 1, temperature=0.5, generator=torch.Generator().manual_seed(0))[:, 1]
    shares = torch.bincount(new, minlength=4) / len(new)
    assert_close(shares, PROBS**2 / (PROBS**2).sum(), rtol=0, atol=0.01)


def test_equal_seeds_write_equal_text(tiny_gpt):
    model, start = randomise(tiny_gpt()), torch.zeros(2, 1, dtype=torch.int64)
    first, again, other = (
        generate(model, start, 30, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_rows_of_a_batch_do_not_see_each_other(tiny_gpt):
    model = randomise(tiny_gpt())
    start = torch.randint(11, (3, 4))
    together = generate(model, start, 20, top_k=1)
    for row in range(3):
        assert torch.equal(together[row], generate(model, start[row : row + 1], 20, top_k=1)[0])


def test_top_k_of_one_is_greedy_and_prompts_stay(tiny_gpt):
    model = randomise(tiny_gpt()).eval()
    start = torch.randint(11, (2, 3))
    idx = generate(model, start, 5, top_k=1, generator=torch.Generator().manual_seed(9))
    assert idx.shape == (2, 8) and idx.dtype == torch.int64 and torch.equal(idx[:, :3], start)
    for t in range(3, 8):
        assert torch.equal(idx[:, t], model(idx[:, :t])[0][:, -1].argmax(-1))


def test_lesson_models_are_sampled_too():
    for model in (BigramLanguageModel(11), LanguageModel(11, 8, 16, Head(16, 16, 8))):
        assert generate(model, torch.zeros(2, 1, dtype=torch.int64), 20).shape == (2, 21)


def test_no_tokens_asked_for_none_written(tiny_gpt):
    start = torch.randint(11, (2, 3))
    assert torch.equal(generate(tiny_gpt(), start, 0), start)
    with pytest.raises(ValueError, match="max_new_tokens=-1 must be at least 0"):
        generate(tiny_gpt(), start, -1)


@pytest.mark.parametrize("shape", [(1, 0), (5,), (0,), (1, 2, 3)])
def test_empty_prompts_are_a_sentence(tiny_gpt, shape):
    with pytest.raises(ValueError, match=r"must be \(B, T\) with T of at least 1: encode a prompt"):
        generate(tiny_gpt(), torch.zeros(shape, dtype=torch.int64), 3)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_as_before_also_after_an_error(tiny_gpt, training):
    model = tiny_gpt(dropout=0.5).train(training)
    start = torch.zeros(1, 1, dtype=torch.int64)
    modes = []
    model.register_forward_pre_hook(lambda m, inputs: modes.append(m.training))
    generate(model, start, 3)
    assert model.training is training and modes == [False] * 3
    with pytest.raises(ValueError):
        generate(model, start, 3, top_k=99)
    assert model.training is training


def test_a_stream_works_only_as_long_as_it_is_read(tiny_gpt):
    model, calls = tiny_gpt().train(), []
    model.register_forward_pre_hook(lambda m, inputs: calls.append(1))
    tokens = stream(model, torch.zeros(2, 1, dtype=torch.int64), 1000)
    assert calls == []
    for n, token in enumerate(tokens, 1):
        assert token.shape == (2,) and not token.requires_grad
        if n == 3:
            break
    tokens.close()
    assert len(calls) == 3 and model.training, "no step too many, and the mode is restored"


def test_a_stream_is_what_generate_returns(tiny_gpt):
    model, start = randomise(tiny_gpt()), torch.zeros(2, 1, dtype=torch.int64)
    tokens = torch.stack(list(stream(model, start, 12, generator=torch.Generator().manual_seed(4))), 1)
    assert torch.equal(
        torch.cat([start, tokens], 1), generate(model, start, 12, generator=torch.Generator().manual_seed(4))
    )
    assert torch.is_grad_enabled()
