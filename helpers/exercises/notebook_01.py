"""The exercises of notebook 01: losses per character, ids, windows and pairs."""

import math
from collections import Counter
from itertools import pairwise

import torch

from helpers.exercises.exercise import Exercise, integer, integers

EXERCISES = {}


def bits_per_character(loss, n_tokens, n_characters):
    """loss in nats per token, for n_tokens that spell n_characters -> bits per character, a number."""
    bits = 0.0
    for _ in range(n_tokens):
        bits += loss / math.log(2)
    return bits / n_characters


EXERCISES["bits_per_character"] = Exercise(
    slow=bits_per_character,
    draw=lambda g, B, T, C: (integer(g, 1, 40) / 8, T + 1, (T + 1) * C + integer(g, 0, C)),
    mistakes={
        "These are nats: one nat is 1 / ln 2 bits.": lambda loss, n, m: loss * n / m,
        "Divide by ln 2; do not multiply.": lambda loss, n, m: loss * math.log(2) * n / m,
        "This is bits per token, not per character.": lambda loss, n, m: loss / math.log(2),
        "Tokens and characters are swapped.": lambda loss, n, m: loss / math.log(2) * m / n,
    },
)


def look_up(codes, vocabulary):
    """codes (N,) and vocabulary (V,), sorted, both int64 code points -> ids (N,) int64."""
    ids = torch.zeros_like(codes)
    for n in range(len(codes)):
        for i in range(len(vocabulary)):
            if vocabulary[i] == codes[n]:
                ids[n] = i
    return ids


def _draw_look_up(g, B, T, C):
    vocabulary = (torch.randperm(60, generator=g)[: 2 * C] + 64).sort().values
    return vocabulary[integers(g, 0, 2 * C - 1, 3 * T)], vocabulary


EXERCISES["look_up"] = Exercise(
    slow=look_up,
    draw=_draw_look_up,
    mistakes={
        "These are ids in the vocabulary of this text alone.": lambda c, v: c.unique(return_inverse=True)[1],
        "The distance from the first code point is no id: the vocabulary has gaps.": lambda c, v: c - v[0],
        "These are the code points themselves.": lambda c, v: c,
    },
)


def windows(ids, block_size, stride):
    """ids (N,) -> (number of windows, block_size + 1): the inputs, and one more id for the last target."""
    rows, start = [], 0
    while start + block_size + 1 <= len(ids):
        rows.append(ids[start : start + block_size + 1])
        start += stride
    return torch.stack(rows)


EXERCISES["windows"] = Exercise(
    slow=windows,
    draw=lambda g, B, T, C: (integers(g, 0, 64, T + 2 + integer(g, T, 5 * T)), T, C),
    mistakes={
        "A window is missing: the last may end at the very last id.": lambda i, T, s: windows(i[:-1], T, s),
        "A row has block_size + 1 ids: the last target is missing.": lambda i, T, s: i.unfold(0, T, s),
        "The stride is not used.": lambda i, T, s: windows(i, T, 1),
        "The windows lie block_size apart, not stride.": lambda i, T, s: windows(i, T, T),
        "The windows lie block_size + 1 apart, not stride.": lambda i, T, s: windows(i, T, T + 1),
    },
)


def most_frequent_pair(ids):
    """ids (N,) int64 -> two ints: the pair of neighbours that occurs most often; of equals, the largest."""
    best, most = None, 0
    for pair in pairwise(ids.tolist()):
        times = sum(pair == other for other in pairwise(ids.tolist()))
        if (times, pair) > (most, best):
            best, most = pair, times
    return best


def _counts(ids, step=1):
    """How often each pair of neighbours occurs, in the order of the text; of every step-th pair only."""
    return Counter(list(pairwise(ids.tolist()))[::step])


EXERCISES["most_frequent_pair"] = Exercise(
    slow=most_frequent_pair,
    draw=lambda g, B, T, C: (integers(g, 0, C, 4 * T),),
    mistakes={
        "Of equally frequent pairs take the largest.": lambda ids: _counts(ids).most_common(1)[0][0],
        "Of equally frequent pairs take the largest, not the smallest.": (
            lambda ids: min((-n, pair) for pair, n in _counts(ids).items())[1]
        ),
        "The two ids are in the wrong order.": lambda ids: most_frequent_pair(ids)[::-1],
        "This is the largest pair, not the most frequent one.": lambda ids: max(_counts(ids)),
        "Pairs overlap: every id but the last begins one.": (
            lambda ids: max((n, pair) for pair, n in _counts(ids, step=2).items())[1]
        ),
    },
)
