"""Sampling: helpers/generate.py."""

import copy
import math

import pytest
import torch
from conftest import randomise
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from helpers import generate as module
from helpers.generate import (
    KVCache,
    draw_token,
    generate,
    next_token_probs,
    overlap,
    stream,
    stream_text,
    window_start,
    without_onednn,
)
from helpers.model import BigramLanguageModel, Head, LanguageModel
from helpers.tokenizer import BytePairTokenizer, CharTokenizer

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


@pytest.mark.parametrize(
    "top_k, kept", [(1, [1]), (2, [1, 2]), (3, [1, 2, 4]), (4, [0, 1, 2, 4]), (5, [0, 1, 2, 3, 4])]
)
def test_top_k_keeps_exactly_k_and_of_equal_ones_those_with_the_lower_ids(top_k, kept):
    logits = torch.tensor([1.0, 3.0, 3.0, 1.0, 3.0, 1.0])
    expected = torch.zeros(6)
    expected[kept] = logits[kept].softmax(0)
    assert_close(next_token_probs(logits, top_k=top_k), expected)


# In 16 bits many of these are equal; those in 64 bits are all equal in 32, where probabilities are computed;
# and of those in 32 bits nothing is left after a division by 1e30.
CLOSE = {
    torch.float64: lambda r: 1 + 1e-9 * r,
    torch.float32: lambda r: 1e-20 * r,
    torch.bfloat16: lambda r: r,
    torch.float16: lambda r: r,
}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("temperature", [1e-6, 1.0, 1e30])
def test_top_k_of_one_is_argmax(dtype, temperature):
    logits = CLOSE[dtype](torch.rand(50, 3000, dtype=torch.float64)).to(dtype)
    probs = next_token_probs(logits, temperature, top_k=1)
    assert torch.equal(probs, F.one_hot(logits.argmax(-1), 3000).float())


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


def probs_by_definition(logits, temperature, top_k, top_p):
    """next_token_probs for a list of numbers, in plain Python; None if it is a matter of rounding."""
    powers = [math.exp((z - max(logits)) / temperature) for z in logits]
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top_k]
    total, reached, kept = sum(powers[i] for i in order), 0.0, []
    for i in order:
        if abs(reached - top_p) < 1e-5:
            return None
        if reached < top_p:
            kept.append(i)
        reached += powers[i] / total
    total = sum(powers[i] for i in kept)
    return torch.tensor([powers[i] / total if i in kept else 0.0 for i in range(len(logits))])


@settings(max_examples=100)
@given(
    logits=st.lists(st.integers(-20, 20).map(lambda n: n / 10), min_size=1, max_size=12),
    temperature=st.floats(0.05, 20),
    top_k=st.none() | st.integers(1, 15),
    top_p=st.none() | st.floats(0.01, 0.99),
)
def test_probabilities_are_those_of_the_definition(logits, temperature, top_k, top_p):
    expected = probs_by_definition(logits, temperature, top_k, math.inf if top_p is None else top_p)
    assume(expected is not None)
    assert_close(next_token_probs(torch.tensor(logits), temperature, top_k, top_p), expected)


def test_top_p_of_one_keeps_everything():
    logits = torch.tensor([20.0, 0.0, -5.0])
    for top_k in (None, 3):
        assert (next_token_probs(logits, top_k=top_k, top_p=1.0) > 0).all()


def test_top_k_comes_before_top_p():
    # Of all tokens it takes two to reach 0.6; of the two that are left after top_k=2 the first has 2/3.
    assert (next_token_probs(LOGITS, top_p=0.6) > 0).tolist() == [False, True, False, True]
    assert (next_token_probs(LOGITS, top_k=2, top_p=0.6) > 0).tolist() == [False, True, False, False]


def test_rows_and_leading_dimensions_are_separate():
    logits = torch.randn(2, 3, 7)
    together = next_token_probs(logits, 0.8, 5, 0.9)
    for b in range(2):
        for t in range(3):
            assert_close(together[b, t], next_token_probs(logits[b, t], 0.8, 5, 0.9))


def test_half_precision_logits_are_sampled_in_full_precision():
    for dials in ({}, {"top_k": 3}, {"top_p": 0.9}):
        assert next_token_probs(LOGITS.bfloat16(), 0.8, **dials).dtype == torch.float32


def test_the_smallest_temperatures_that_are_allowed_work(tiny_gpt):
    model, start = randomise(tiny_gpt()), torch.randint(11, (2, 3))
    for temperature in (1e-6, 1e-20):
        assert torch.equal(generate(model, start, 5, temperature), generate(model, start, 5, top_k=1))
    assert_close(next_token_probs(1e10 * LOGITS, 1e-20), F.one_hot(torch.tensor(1), 4).float())


def test_settings_are_checked_once_not_at_every_token(tiny_gpt, monkeypatch):
    checked = []
    for name in ("check_prompt", "check_sampling"):
        monkeypatch.setattr(module, name, lambda *args, name=name: checked.append(name))
    generate(tiny_gpt(), torch.zeros(1, 1, dtype=torch.int64), 20)
    assert checked == ["check_prompt", "check_sampling"]


def test_the_race_draws_what_multinomial_draws():
    probs = torch.rand(200, 13).softmax(-1)
    for seed in range(5):
        ours, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
        drawn = draw_token(probs, ours)
        assert drawn.shape == (200, 1) and drawn.dtype == torch.int64
        assert torch.equal(drawn, torch.multinomial(probs, 1, generator=theirs))
        assert torch.equal(ours.get_state(), theirs.get_state())


def test_what_cannot_be_is_never_drawn():
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5]).expand(20_000, 4)
    assert torch.bincount(draw_token(probs)[:, 0], minlength=4)[[0, 2]].sum() == 0


# ---------------------------------------------------------------- the cache


@pytest.fixture
def recorded(monkeypatch):
    """The last-position logits of every step of sampling."""
    seen = []

    def record(logits, *args):
        seen.append(logits.clone())
        return next_token_probs(logits, *args)

    monkeypatch.setattr(module, "next_token_probs", record)
    return seen


def test_the_cache_returns_all_that_was_appended_from_memory_taken_once():
    k, v = torch.randn(2, 3, 2, 8, 4, dtype=torch.bfloat16)  # (B, H, T, D) each
    cache, layer, other = KVCache(8), object(), object()
    assert cache.memory == {}
    for begin, end in ((0, 3), (3, 4), (4, 8)):
        got = cache.append(layer, k[:, :, begin:end], v[:, :, begin:end])
        again = cache.append(other, v[:, :, begin:end], k[:, :, begin:end])
        assert torch.equal(torch.stack(got), torch.stack([k, v])[:, :, :, :end])
        assert torch.equal(torch.stack(again), torch.stack([v, k])[:, :, :, :end])
        if begin == 0:
            address = cache.memory[layer].data_ptr()
        cache.length = end
    memory = cache.memory[layer]
    assert memory.shape == (2, 3, 2, 8, 4) and memory.dtype == k.dtype
    assert memory.data_ptr() == address == got[0].data_ptr(), "a view of the first memory, no copy"


def test_new_tokens_may_come_in_pieces_of_any_size(tiny_gpt):
    model, idx = randomise(tiny_gpt()).eval(), torch.randint(11, (2, 8))
    whole, cache = model(idx)[0], KVCache(8)
    pieces = [model(piece, cache=cache)[0] for piece in idx.split([2, 3, 1, 2], dim=1)]
    assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_one_cache_serves_the_whole_text_also_when_the_view_moves(tiny_gpt, monkeypatch):
    made = []
    monkeypatch.setattr(module, "KVCache", lambda size: made.append(KVCache(size)) or made[-1])
    model = tiny_gpt()
    generate(model, torch.zeros(3, 2, dtype=torch.int64), 40)
    assert len(made) == 1 and len(made[0].memory) == 2
    assert all(memory.shape == (2, 3, 2, 8, 8) for memory in made[0].memory.values())


def test_a_block_of_one_can_be_generated_from(tiny_gpt, recorded):
    model, start = randomise(tiny_gpt(block_size=1)), torch.randint(11, (2, 3))
    assert torch.equal(*(generate(model, start, 6, top_k=1, use_cache=c) for c in (True, False)))
    for cached, plain in zip(recorded[:6], recorded[6:]):
        assert_close(cached, plain)


# ---------------------------------------------------------------- many steps


@pytest.mark.parametrize("prompt", [1, 5, 8, 13, 30])
def test_with_and_without_cache_every_logit_is_equal_past_the_block_too(tiny_gpt, recorded, prompt):
    model = randomise(tiny_gpt(dropout=0.3), std=0.8)  # far from constant logits
    start = torch.randint(11, (2, prompt))
    results = []
    for use_cache in (True, False):
        seed = torch.Generator().manual_seed(3)
        results.append(generate(model, start, 25, 0.9, 8, 0.95, seed, use_cache))
    assert results[0].shape == (2, prompt + 25) and torch.equal(*results)
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
    widths.clear()
    generate(model, torch.zeros(1, 3, dtype=torch.int64), 5, use_cache=False)
    assert widths == [3, 4, 5, 6, 7], "the plain loop of the lessons"


def test_past_the_block_most_tokens_cost_one_position(tiny_gpt):
    """The view moves on by half a block; by one token, it would be read anew for every token."""
    model, widths = tiny_gpt(), []
    model.register_forward_pre_hook(lambda m, inputs: widths.append(inputs[0].shape[1]))
    generate(model, torch.zeros(1, 6, dtype=torch.int64), 12)
    assert widths == [6, 1, 1, 5, 1, 1, 1, 5, 1, 1, 1, 5], "block_size is 8"


@given(length=st.integers(1, 400), block_size=st.integers(1, 40))
def test_the_view_never_leaves_the_block_and_never_moves_back(length, block_size):
    start = window_start(length, block_size)
    assert 1 <= length - start <= block_size
    assert start >= window_start(length - 1, block_size) or length == 1
    assert length <= block_size or length - start >= block_size // 2, "at least half a block to look at"
    assert start == 0 or length > block_size
    assert start % max(block_size // 2, 1) == 0, "rarely: each move makes what is cached stale"


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


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_of_a_batch_do_not_see_each_other(tiny_gpt, use_cache):
    model = randomise(tiny_gpt())
    start = torch.randint(11, (5, 4))
    start[4] = start[0]
    together = generate(model, start, 20, top_k=1, use_cache=use_cache)
    assert torch.equal(together[0], together[4]) and len(together.unique(dim=0)) == 4
    for row in range(5):
        alone = generate(model, start[row : row + 1], 20, top_k=1, use_cache=use_cache)
        assert torch.equal(together[row], alone[0])


def test_equal_prompts_get_draws_of_their_own(tiny_gpt):
    idx = generate(tiny_gpt(), torch.zeros(8, 1, dtype=torch.int64), 20)
    assert len(idx.unique(dim=0)) == 8


def test_top_k_of_one_is_greedy_and_prompts_stay(tiny_gpt):
    model = randomise(tiny_gpt()).eval()
    start = torch.randint(11, (2, 3))
    idx = generate(model, start, 5, top_k=1, generator=torch.Generator().manual_seed(9))
    assert idx.shape == (2, 8) and idx.dtype == torch.int64 and torch.equal(idx[:, :3], start)
    for t in range(3, 8):
        assert torch.equal(idx[:, t], model(idx[:, :t])[0][:, -1].argmax(-1))


def test_lesson_models_are_sampled_too():
    views = []
    for model in (BigramLanguageModel(11), LanguageModel(11, 8, 16, Head(16, 16, 8))):
        model.register_forward_pre_hook(lambda m, inputs: views.append(inputs[0].shape[1]))
        assert generate(model, torch.zeros(2, 1, dtype=torch.int64), 20).shape == (2, 21)
    assert views[:20] == [1] * 20, "a bigram needs the last token only"
    assert max(views[20:]) == 8


def test_no_tokens_asked_for_none_written(tiny_gpt):
    start = torch.randint(11, (2, 3))
    assert torch.equal(generate(tiny_gpt(), start, 0), start)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_as_before_also_after_an_error(tiny_gpt, training):
    model = tiny_gpt(dropout=0.5).train(training)
    start = torch.zeros(1, 1, dtype=torch.int64)
    modes = []
    model.register_forward_pre_hook(lambda m, inputs: modes.append((m.training, torch.is_grad_enabled())))
    generate(model, start, 3)
    assert model.training is training and modes == [(False, False)] * 3
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


# ---------------------------------------------------------------- bfloat16


@pytest.mark.parametrize("rows", [1, 3])
def test_a_bfloat16_copy_writes_too(tiny_gpt, recorded, rows):
    model = randomise(tiny_gpt(block_size=16), std=0.1).eval()
    start = torch.randint(11, (rows, 20))
    written = generate(copy.deepcopy(model).bfloat16(), start, 30)
    assert written.shape == (rows, 50) and len(recorded) == 30
    for step, logits in enumerate(recorded):
        assert logits.dtype == torch.bfloat16
        length = 20 + step
        exact = model(written[:, window_start(length, 16) : length])[0][:, -1]
        # 8 bits of precision: the largest error is some percent of the largest logit.
        assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_probabilities_are_float32_whatever_the_model(tiny_gpt, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "draw_token", lambda probs, g: seen.append(probs) or draw_token(probs, g))
    generate(tiny_gpt().bfloat16(), torch.zeros(2, 1, dtype=torch.int64), 3, top_k=5, top_p=0.9)
    assert [probs.dtype for probs in seen] == [torch.float32] * 3


def test_onednn_rests_for_single_bfloat16_rows_only(tiny_gpt, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)

    def states(model, start, steps):
        seen = []
        hook = model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.mkldnn.enabled))
        for _ in stream(model, start, steps):
            assert torch.backends.mkldnn.enabled, "while the reader has the token, all is as before"
        hook.remove()
        return seen

    one, two = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64)
    half, single = tiny_gpt().bfloat16(), tiny_gpt()
    assert states(half, one, 4) == [True, False, False, False], "a prompt has many rows"
    assert states(half, two, 3) == states(single, one, 3) == [True] * 3
    with pytest.raises(RuntimeError), without_onednn():
        assert not torch.backends.mkldnn.enabled
        raise RuntimeError
    assert torch.backends.mkldnn.enabled
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    for switch in (False, True):
        with without_onednn(switch):
            assert not torch.backends.mkldnn.enabled, "who had it off keeps it off"
        assert not torch.backends.mkldnn.enabled


# ---------------------------------------------------------------- text, as it is written


class Parrot(nn.Module):
    """A model that writes the given ids one after another, whatever it reads."""

    def __init__(self, ids, vocab_size):
        super().__init__()
        self.unused, self.vocab_size = nn.Parameter(torch.zeros(1)), vocab_size
        self.ids = [int(i) for i in ids]

    def forward(self, idx):
        logits = torch.full((*idx.shape, self.vocab_size), float("-inf"))
        logits[:, :, self.ids.pop(0)] = 0
        return logits, None


LETTERS = CharTokenizer.from_text("ab\n ")


def pieces(text, stop=None, tokenizer=LETTERS):
    """What stream_text yields while the model writes `text` (str, or ids)."""
    ids = tokenizer.encode(text) if isinstance(text, str) else text
    return list(stream_text(Parrot(ids, tokenizer.vocab_size), tokenizer, "a", len(ids), stop=stop))


def test_text_is_streamed_character_by_character(tiny_gpt):
    assert pieces("ab ba") == ["a", "b", " ", "b", "a"] and pieces("") == []
    model, letters = randomise(tiny_gpt()), CharTokenizer("abcdefghijk")
    idx = letters.encode("bad").view(1, -1)
    whole = generate(model, idx, 40, 0.7, 5, 0.9, torch.Generator().manual_seed(2))
    for use_cache in (True, False):
        seed = torch.Generator().manual_seed(2)
        dials = dict(temperature=0.7, top_k=5, top_p=0.9, generator=seed, use_cache=use_cache)
        streamed = stream_text(model, letters, "bad", 40, **dials)
        assert "".join(streamed) == letters.decode(whole[0, 3:])


@pytest.mark.parametrize(
    "text, stop, expected",
    [
        ("ab\n\nba", "\n\n", ["a", "b"]),
        ("a\nb\n\na", "\n\n", ["a", "\nb"]),  # a single newline was held back until the b
        ("aab", "aab", []),
        ("aaab", "aab", ["a"]),  # the beginning may overlap with itself
        ("abab b", "abb", ["ab", "ab ", "b"]),
        ("ba", "ab", ["b", "a"]),  # never completed: what was held back is text after all
        ("abba", "z", ["a", "b", "b", "a"]),
    ],
)
def test_text_ends_before_the_stop_string(text, stop, expected):
    assert pieces(text, stop) == expected


@given(text=st.text("ab", max_size=12), stop=st.text("ab", min_size=1, max_size=4))
def test_the_stop_string_is_where_find_finds_it(text, stop):
    assert "".join(pieces(text, stop)) == text.partition(stop)[0]


@given(text=st.text("ab", max_size=8), stop=st.text("ab", min_size=1, max_size=4))
def test_overlap_is_the_longest_end_that_begins_the_stop_string(text, stop):
    fits = [n for n in range(len(stop)) if n <= len(text) and text[len(text) - n :] == stop[:n]]
    assert overlap(text, stop) == max(fits)


def test_after_the_stop_string_the_model_rests():
    parrot = Parrot(LETTERS.encode("ab aaaa"), 4)
    assert "".join(stream_text(parrot, LETTERS, "a", 7, stop="b ")) == "a"
    assert len(parrot.ids) == 4 and parrot.training


BYTES = BytePairTokenizer.train("the thé the thé 日本 日本 ", 262)  # its tokens cut some characters in two


@given(st.text("thé 日本🙂", max_size=12), st.integers(0, 3))
def test_only_whole_characters_of_byte_pairs_are_yielded(text, cut):
    ids = [*text.encode("utf-8")]  # one token a byte, whatever the merges
    ids = ids[: max(len(ids) - cut, 0)]
    whole = bytes(ids).decode("utf-8", "ignore")
    assert pieces(ids, tokenizer=BYTES) == list(whole)
    assert "".join(pieces(text, tokenizer=BYTES)) == text


def test_a_stop_string_may_begin_inside_a_token():
    long = next(i for i, piece in enumerate(BYTES.pieces) if len(piece) > 2)
    written = BYTES.pieces[long].decode()
    assert pieces([long], stop=written[1:], tokenizer=BYTES) == [written[0]]
    assert "".join(pieces("x日本y", "本y", BYTES)) == "x日"
    twice = BytePairTokenizer([(ord("a"), ord("b")), (256, 256)])
    assert pieces("abab", "b", twice) == ["a"], "the first of two in one token"
    assert pieces("abab", "ba", twice) == ["a"], "in the middle of one"


def test_bytes_that_are_no_text_show_as_decode_shows_them():
    ids = [0x61, 0xFF, 0x62, 0xE6, 0x97, 0x63]
    assert "".join(pieces(ids, tokenizer=BYTES)) == BYTES.decode(ids) == "a\ufffdb\ufffdc"


@pytest.mark.parametrize("tokenizer, text", [(LETTERS, "ab\n "), (BYTES, "the thé 日本")])
def test_ids_beyond_those_of_the_tokenizer_are_skipped(tokenizer, text):
    ids, beyond = tokenizer.encode(text).tolist(), tokenizer.vocab_size
    written = [beyond, *(i for id in ids for i in (id, beyond + 1)), beyond]
    parrot = Parrot(written, beyond + 2)
    assert "".join(stream_text(parrot, tokenizer, "a", len(written))) == text
