"""The cases of each exercise, and the mistakes that are often made.

A mistake is a sentence and a function that makes it. Whoever gets the same wrong answers as that
function has made that mistake, so `check` in exercises.py can name it.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn import functional as F

# fmt: off
from helpers.slow import (
    attend,
    attention_entropy,
    beam_search,
    bits_per_character,
    cached_head,
    causal_mean,
    cross_entropy,
    gpt2_parameters,
    grouped_attend,
    head_matrices,
    large_batch_gradient,
    look_up,
    merge_heads,
    most_frequent_pair,
    nucleus,
    perplexity,
    rms_norm,
    rotate,
    sample_ids,
    schedule,
    softmax,
    trigram_probabilities,
    window_attend,
    windows,
)

# fmt: on


@dataclass(frozen=True)
class Exercise:
    """One exercise; it is called what its slow code is called."""

    slow: Callable  # arguments -> the right answer
    draw: Callable  # (generator, B, T, C) -> the arguments of one case
    mistakes: dict  # sentence -> a function of the arguments that makes this mistake
    causal: int = 0  # so many arguments (..., T, C) come first whose later positions must not be seen


EXERCISES = {}


def _add(slow, draw, mistakes, causal=0):
    EXERCISES[slow.__name__] = Exercise(slow, draw, mistakes, causal)


def _normal(g, *shape):
    return torch.randn(shape, generator=g)


def _ints(g, low, high, *shape):
    """Random whole numbers from low to high, both included."""
    return torch.randint(low, high + 1, shape, generator=g)


def _int(g, low, high):
    return _ints(g, low, high).item()


# ---------------------------------------------------------------- notebook 01

_add(
    bits_per_character,
    lambda g, B, T, C: (_int(g, 1, 40) / 8, T + 1, (T + 1) * C + _int(g, 0, C)),
    {
        "These are nats: one nat is 1 / ln 2 bits.": lambda loss, n, m: loss * n / m,
        "Divide by ln 2; do not multiply.": lambda loss, n, m: loss * math.log(2) * n / m,
        "This is bits per token, not per character.": lambda loss, n, m: loss / math.log(2),
        "Tokens and characters are swapped.": lambda loss, n, m: loss / math.log(2) * m / n,
    },
)


def _draw_look_up(g, B, T, C):
    vocabulary = (torch.randperm(60, generator=g)[: 2 * C] + 64).sort().values
    return vocabulary[_ints(g, 0, 2 * C - 1, 3 * T)], vocabulary


_add(
    look_up,
    _draw_look_up,
    {
        "These are ids in the vocabulary of this text alone.": lambda c, v: c.unique(return_inverse=True)[1],
        "The distance from the first code point is no id: the vocabulary has gaps.": lambda c, v: c - v[0],
        "These are the code points themselves.": lambda c, v: c,
    },
)

_add(
    windows,
    lambda g, B, T, C: (_ints(g, 0, 64, T + 2 + _int(g, T, 5 * T)), T, C),
    {
        "A window is missing: the last may end at the very last id.": lambda i, T, s: windows(i[:-1], T, s),
        "A row has block_size + 1 ids: the last target is missing.": lambda i, T, s: i.unfold(0, T, s),
        "The stride is not used.": lambda i, T, s: windows(i, T, 1),
        "The windows lie block_size apart, not stride.": lambda i, T, s: windows(i, T, T),
        "The windows lie block_size + 1 apart, not stride.": lambda i, T, s: windows(i, T, T + 1),
    },
)


def _pairs(ids, step=1):
    return Counter(list(pairwise(ids.tolist()))[::step])


_add(
    most_frequent_pair,
    lambda g, B, T, C: (_ints(g, 0, C, 4 * T),),
    {
        "Of equally frequent pairs take the largest.": lambda i: _pairs(i).most_common(1)[0][0],
        "Of equally frequent pairs take the largest, not the smallest.": lambda i: min(
            (-n, pair) for pair, n in _pairs(i).items()
        )[1],
        "The two ids are in the wrong order.": lambda i: most_frequent_pair(i)[::-1],
        "This is the largest pair, not the most frequent one.": lambda i: max(_pairs(i)),
        "Pairs overlap: every id but the last begins one.": lambda i: max(
            (n, pair) for pair, n in _pairs(i, 2).items()
        )[1],
    },
)


# ---------------------------------------------------------------- notebook 02

_add(
    perplexity,
    lambda g, B, T, C: (_normal(g, T + 1).abs(), _ints(g, 1, 9, T + 1)),
    {
        "A short window counts as much as a long one: weigh by length.": lambda x, n: x.mean().exp(),
        "First the mean of the losses, then the exponential.": lambda x, n: (x.exp() * n).sum() / n.sum(),
        "This is the mean loss: the exponential is missing.": lambda x, n: (x * n).sum() / n.sum(),
        "A loss in nats is undone by e to the power, not 2.": lambda x, n: 2 ** ((x * n).sum() / n.sum()),
    },
)


def _draw_cross_entropy(g, B, T, C):
    logits, targets = _normal(g, T + 1, C) * 10 ** _int(g, 0, 2), _ints(g, 0, C - 1, T + 1)
    targets[1:][_ints(g, 0, 2, T) == 0] = -100
    return logits, targets


_add(
    cross_entropy,
    _draw_cross_entropy,
    {
        "This is the sum; take the mean.": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
        "Divide by how many targets count, not by all.": lambda z, y: (
            F.cross_entropy(z, y, reduction="sum") / len(y)
        ),
        "These are bits; nats use the natural logarithm.": lambda z, y: F.cross_entropy(z, y) / math.log(2),
        "A target of -100 is counted; leave it out.": lambda z, y: F.cross_entropy(z, y.clamp(min=0)),
    },
)


def _triples(ids, V, alpha=0):
    counts = torch.bincount((ids[:-2] * V + ids[1:-1]) * V + ids[2:], minlength=V**3)
    return counts.view(V, V, V) + float(alpha)


_add(
    trigram_probabilities,
    lambda g, B, T, C: (_ints(g, 0, C - 1, 9 * T), C, _int(g, 1, 4) / 2),
    {
        "The whole table sums to 1; each row P[i, j] should.": lambda *args: (
            _triples(*args) / _triples(*args).sum()
        ),
        "alpha goes to all V cells of a row: its sum grows by alpha V.": lambda ids, V, alpha: (
            _triples(ids, V, alpha) / (_triples(ids, V).sum(-1, keepdim=True) + alpha)
        ),
        "alpha is not used.": lambda ids, V, alpha: trigram_probabilities(ids, V, 1),
        "These are counts; divide each row by its sum.": lambda *args: _triples(*args),
        "This sums to 1 over the first character, not the last.": lambda *args: (
            _triples(*args) / _triples(*args).sum(0)
        ),
    },
)


def _draw_sample_ids(g, B, T, C):
    # Sixteenths: sums are exact, ids of probability zero occur, and u often meets a running sum.
    shares = torch.stack([_ints(g, 0, C - 1, 16).bincount(minlength=C) for _ in range(3 * B)])
    return shares / 16, _ints(g, 0, 31, 3 * B) / 32


_add(
    sample_ids,
    _draw_sample_ids,
    {
        "The sum must exceed u, not only reach it: this can draw an id of probability 0.": lambda p, u: (
            p.cumsum(-1) < u[:, None]
        ).sum(-1),
        "This is always the likeliest id: u is not used.": lambda p, u: p.argmax(-1),
        "u is compared with single probabilities, not with their running sum.": lambda p, u: (
            (p > u[:, None]).int().argmax(-1)
        ),
    },
)


# ---------------------------------------------------------------- notebook 03


def _count(x, dim, start=1):
    return torch.arange(start, x.shape[dim] + start).view(-1, *[1] * (x.dim() - 1 - dim))


_add(
    causal_mean,
    lambda g, B, T, C: (_normal(g, B, T, C),),
    {
        "This is the sum; divide by how many positions it holds.": lambda x: x.cumsum(1),
        "Position t is a mean of t + 1 positions, not of T.": lambda x: x.cumsum(1) / x.shape[1],
        "Position t is a mean of t + 1 positions, not of t.": lambda x: x.cumsum(1) / _count(x, 1, start=0),
        "The mean runs over channels; positions are axis 1.": lambda x: x.cumsum(2) / _count(x, 2),
    },
    causal=1,
)


def _draw_softmax(g, B, T, C):
    scores = _normal(g, B, T, C) * 10 ** _int(g, 0, 4)
    scores[..., 1:][_ints(g, 0, 3, B, T, C - 1) == 0] = -math.inf
    return (scores,)


_add(
    softmax,
    _draw_softmax,
    {
        "This sums to 1 over positions; each row, the last axis, should.": lambda s: s.softmax(1),
        "This is the logarithm of softmax.": lambda s: s.log_softmax(-1),
        "All weights together sum to 1; each row should.": lambda s: s.flatten().softmax(0).view(s.shape),
    },
)


def _scale_mistakes(slow):
    """The mistakes of scores that are too large by a power of D, for slow(q, k, ...)."""

    def scaled(power):
        return lambda q, *rest: slow(q * q.shape[-1] ** power, *rest)

    return {
        "The scale is missing: divide the scores by sqrt(D).": scaled(0.5),
        "The scores are divided by D, not by sqrt(D).": scaled(-0.5),
    }


def _masked(q, k):
    """Scores (..., T, T) with -inf for the future."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)


_add(
    attend,
    lambda g, B, T, C: _normal(g, 3, B, T, C).unbind(0),
    _scale_mistakes(attend)
    | {
        "The weights no longer sum to 1: set scores to -inf before softmax, not weights to 0 after.": (
            lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril() @ v
        ),
        "Softmax runs over the queries, not over the keys.": lambda q, k, v: _masked(q, k).softmax(-2) @ v,
        "Queries and keys are swapped.": lambda q, k, v: attend(k, q, v),
    },
    causal=3,
)

_add(
    window_attend,
    lambda g, B, T, C: (*_normal(g, 3, B, T + 2, C), _int(g, 2, T + 1)),
    _scale_mistakes(window_attend)
    | {
        "Off by one: this window sees window + 1 positions.": lambda *a: window_attend(*a[:3], a[3] + 1),
        "Off by one: this window sees window - 1 positions.": lambda *a: window_attend(*a[:3], a[3] - 1),
        "The whole past is seen: window is not used.": lambda *a: attend(*a[:3]),
    },
    causal=3,
)


# ---------------------------------------------------------------- notebook 04

_add(
    merge_heads,
    lambda g, B, T, C: (_normal(g, B, _int(g, 2, 4), T, C),),
    {
        "Heads and time are mixed: a transpose is missing before the reshape.": lambda x: x.reshape(
            len(x), x.shape[2], -1
        ),
        "The channels of one head should stand together.": lambda x: x.permute(0, 2, 3, 1).flatten(2),
        "This is the mean of the heads; they should stand side by side.": lambda x: x.mean(1),
    },
)


def _draw_head_matrices(g, B, T, C):
    n_head = _int(g, 2, 4)
    return _normal(g, 3 * n_head * C, n_head * C), n_head, _int(g, 0, n_head - 1)


_add(
    head_matrices,
    _draw_head_matrices,
    {
        "These rows are consecutive; a head has D in each of three places.": lambda w, H, h: w.view(
            H, 3, -1, w.shape[1]
        )[h],
        "These rows lie H apart; the D rows of a head stand together.": lambda w, H, h: w.view(
            3, -1, H, w.shape[1]
        )[:, :, h],
        "This is the next head: count from 0.": lambda w, H, h: head_matrices(w, H, (h + 1) % H),
        "This is the head before: count from 0.": lambda w, H, h: head_matrices(w, H, (h - 1) % H),
    },
)

_add(
    attention_entropy,
    lambda g, B, T, C: (_masked(*_normal(g, 2, B, C, T + 1, 4)).softmax(-1),),
    {
        "These are bits; nats use the natural logarithm.": lambda w: attention_entropy(w) / math.log(2),
        "This is the entropy of the mean row; take the entropy first.": lambda w: torch.special.entr(
            w.mean((0, 2))
        ).sum(-1),
        "This is the sum over rows; take the mean.": lambda w: torch.special.entr(w).sum((0, 2, 3)),
        "Sum each row, then take the mean over rows.": lambda w: torch.special.entr(w).mean((0, 2, 3)),
        "This is one number per sequence, not per head.": lambda w: (
            torch.special.entr(w).sum(-1).mean((1, 2))
        ),
    },
)


def _draw_grouped(g, B, T, C):
    G, share = _int(g, 1, 2), _int(g, 1, 3)
    return _normal(g, B, G * share, T, C), *_normal(g, 2, B, G, T, C)


def _tiled(q, x):
    """Groups 0 1 0 1 in place of 0 0 1 1."""
    return x.repeat(1, q.shape[1] // x.shape[1], 1, 1)


_add(
    grouped_attend,
    _draw_grouped,
    _scale_mistakes(grouped_attend)
    | {
        "The heads that share a key are neighbours: groups 0 0 1 1, not 0 1 0 1.": lambda q, k, v: (
            grouped_attend(q, _tiled(q, k), _tiled(q, v))
        ),
        "All heads use the first group.": lambda q, k, v: grouped_attend(q, k[:, :1], v[:, :1]),
        "The groups are averaged.": lambda q, k, v: grouped_attend(q, k.mean(1, True), v.mean(1, True)),
    },
    causal=3,
)


# ---------------------------------------------------------------- notebook 05


def _square(x):
    return x.square().mean(-1, keepdim=True)


_add(
    rms_norm,
    lambda g, B, T, C: (_normal(g, B, T, C) + 1, _normal(g, C), _int(g, 1, 9) / 10),
    {
        "The mean is subtracted: this is layer norm.": lambda x, *a: rms_norm(x - x.mean(-1, True), *a),
        "gamma is not used.": lambda x, gamma, eps: rms_norm(x, torch.ones_like(gamma), eps),
        "eps is not used.": lambda x, gamma, eps: rms_norm(x, gamma, 0),
        "eps belongs under the root.": lambda x, gamma, eps: gamma * x / (_square(x).sqrt() + eps),
        "The squares are summed; take their mean.": lambda x, gamma, eps: (
            gamma * x / (_square(x) * len(gamma) + eps).sqrt()
        ),
        "The root is missing.": lambda x, gamma, eps: gamma * x / (_square(x) + eps),
    },
    causal=1,
)

_add(
    gpt2_parameters,
    lambda g, B, T, C: (_int(g, 2, 99), 8 * T, _int(g, 1, 9), 8 * C),
    {
        "The final layer is the token embedding: count it once.": lambda *a: (
            gpt2_parameters(*a) + a[0] * a[3]
        ),
        "The last layer norm is missing.": lambda *a: gpt2_parameters(*a) - 2 * a[3],
        "Query, key and value have biases too.": lambda *a: gpt2_parameters(*a) - 3 * a[2] * a[3],
        "The biases of the linear layers are missing.": lambda *a: gpt2_parameters(*a) - 9 * a[2] * a[3],
        "The position embedding is missing.": lambda *a: gpt2_parameters(*a) - a[1] * a[3],
        "A block has two layer norms.": lambda *a: gpt2_parameters(*a) - 2 * a[2] * a[3],
    },
)


def _reordered(x, order):
    """Rotate with the channels in another order, then put them back."""
    order = order(torch.arange(x.shape[-1]))
    return rotate(x[..., order])[..., order.argsort()]


_add(
    rotate,
    lambda g, B, T, C: (_normal(g, B, 2, T + 1, 2 * C),),
    {
        "The pairs turn the other way: check the signs of the sines.": lambda x: _reordered(
            x, lambda n: n.view(-1, 2).flip(1).flatten()
        ),
        "Pairs are neighbours, 2 i and 2 i + 1, not i and i + D / 2.": lambda x: _reordered(
            x, lambda n: n.view(2, -1).T.flatten()
        ),
        "Off by one: position 0 does not turn.": lambda x: rotate(F.pad(x, (0, 0, 1, 0)))[:, :, 1:],
        "The exponent is -2 i / D; here it is -i / D.": lambda x: rotate(x, base=100.0),
        "All pairs turn alike; the angle should fall with i.": lambda x: rotate(x, base=1.0),
    },
    causal=1,
)


# ---------------------------------------------------------------- notebook 06


def _rates(n, w, peak, floor, start=1, begin=None, end=None):
    """The schedule with a warm-up that starts at start / w, and a cosine from step begin to step end."""
    step, begin, end = torch.arange(n), w if begin is None else begin, n if end is None else end
    done = (step - begin) / (end - begin)
    cosine = floor + (peak - floor) * (1 + (math.pi * done).cos()) / 2
    return torch.where(step < w, peak * (step + start) / w, cosine)


_add(
    schedule,
    lambda g, B, T, C: (4 * T + C, T + 1, _int(g, 2, 9) / 10, _int(g, 1, 3) / 20),
    {
        "The warm-up begins at 0: step 0 has the rate peak / warmup_steps.": lambda *a: _rates(*a, start=0),
        "The cosine should begin after the warm-up, not at step 0.": lambda *a: _rates(*a, begin=0),
        "Off by one: floor belongs to step max_steps, after the last.": lambda n, *a: _rates(
            n, *a, end=n - 1
        ),
        "The cosine falls to 0, not to floor.": lambda n, w, peak, floor: schedule(n, w, peak, 0.0),
        "The warm-up is missing.": lambda n, w, peak, floor: schedule(n, 0, peak, floor),
    },
)

_add(
    large_batch_gradient,
    lambda g, B, T, C: (_normal(g, T + 1, C), _ints(g, 1, 9, T + 1)),
    {
        "This is the sum, but every gradient is that of a mean.": lambda d, n: d.sum(0),
        "A small batch counts as much as a large one: weigh by size.": lambda d, n: d.mean(0),
        "Divide by the number of examples, not of batches.": lambda d, n: (d * n[:, None]).mean(0),
        "Divide by the number of examples.": lambda d, n: (d * n[:, None]).sum(0),
    },
)


def _keep(probs, p, extra):
    """The nucleus with so many ids more, or fewer."""
    n = (nucleus(probs, p) > 0).sum(-1, keepdim=True) + extra  # (B, 1)
    kept = probs * (probs.argsort(descending=True).argsort(-1) < n)
    return kept / kept.sum(-1, keepdim=True)


_add(
    nucleus,
    lambda g, B, T, C: (_normal(g, B, 2 * C).mul(2).softmax(-1), _int(g, 1, 9) / 10),
    {
        "The id that reaches p is dropped; it belongs to the nucleus.": lambda probs, p: _keep(probs, p, -1),
        "One id too many is kept.": lambda probs, p: _keep(probs, p, 1),
        "What is kept must sum to 1 again.": lambda probs, p: probs * (nucleus(probs, p) > 0),
        "The ids are ranked; put them back in their places.": lambda probs, p: (
            nucleus(probs, p).sort(descending=True).values
        ),
    },
)

_add(
    beam_search,
    # A table for each step: with one for all, paths that visit the same pairs in another order would tie.
    lambda g, B, T, C: (_normal(g, T + 1, C + 1, C + 1).log_softmax(-1), _int(g, 0, C), _int(g, 2, 3)),
    {
        "This is greedy: width is not used.": lambda z, start, width: beam_search(z, start, 1),
        "Log-probabilities add up; probabilities do not.": lambda z, *rest: beam_search(z.exp(), *rest),
        "The least likely continuations are kept.": lambda z, *rest: beam_search(-z, *rest),
        "start is missing.": lambda *args: beam_search(*args)[1:],
    },
)


def _masked_from_0(x, w_q, w_k, w_v, k, v):
    """New position i sees the first i + 1 keys, as if nothing came before."""
    _, k, v = cached_head(x, w_q, w_k, w_v, k, v)
    scores = x @ w_q.T @ k.mT / len(w_q) ** 0.5  # (B, n, P + n)
    scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
    return scores.softmax(-1) @ v, k, v


def _draw_cached(g, B, T, C):
    return _normal(g, B, T, C), *_normal(g, 3, C + 1, C), *_normal(g, 2, B, _int(g, 0, 4), C + 1)


_add(
    cached_head,
    _draw_cached,
    {
        "The scale is missing: divide the scores by sqrt(D).": lambda x, w_q, *rest: cached_head(
            x, w_q * len(w_q) ** 0.5, *rest
        ),
        "New position i may see the P old positions and i + 1 new ones.": _masked_from_0,
        "The old positions are not used.": lambda x, w_q, w_k, w_v, k, v: cached_head(
            x, w_q, w_k, w_v, k[:, :0], v[:, :0]
        ),
        "k and v come back without the new positions.": lambda *args: (cached_head(*args)[0], *args[4:]),
    },
    causal=1,
)
