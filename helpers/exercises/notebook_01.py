"""The exercises of notebook 01: an honest chance, ids, windows and pairs."""

import math
from collections import Counter

import torch

from helpers.exercises.exercise import Exercise, integer, integers

EXERCISES = {}


def how_sure(right, wrong, V):
    """How many guesses were right and how many wrong -> (their best chance, the loss with it)."""
    best_chance, least = None, math.inf
    for thousandth in range(1, 1000):
        chance = thousandth / 1000  # of the guess; the V - 1 others share the rest evenly
        cost_right = -math.log(chance)
        cost_wrong = -math.log((1 - chance) / (V - 1))
        loss = (right * cost_right + wrong * cost_wrong) / (right + wrong)
        if loss < least:
            best_chance, least = chance, loss
    return best_chance, least


def _draw_how_sure(g, B, T, C):
    places = (10, 20, 25, 40, 50, 100)[integer(g, 0, 5)]  # the best chance is a whole number of thousandths
    right = integer(g, 1, places - 1)
    return right, places - right, integer(g, 3, 70)


def _loss(chance, right, wrong, others):
    """The loss in nats of a guess with this chance, where each other character gets its share of the rest."""
    return -(right * math.log(chance) + wrong * math.log((1 - chance) / others)) / (right + wrong)


EXERCISES["how_sure"] = Exercise(
    slow=how_sure,
    draw=_draw_how_sure,
    mistakes={
        "So sure is too sure: look at what the wrong places cost.": (
            lambda r, w, V: (0.999, _loss(0.999, r, w, V - 1))
        ),
        "This chance is the share of the wrong places.": (
            lambda r, w, V: (w / (r + w), how_sure(r, w, V)[1])
        ),
        "This is the chance that is best here, with the loss of a model that knows nothing.": (
            lambda r, w, V: (r / (r + w), math.log(V))
        ),
        "The chance is right. The V - 1 other characters share what is left of it.": (
            lambda r, w, V: (r / (r + w), _loss(r / (r + w), r, w, 1))
        ),
        "The chance is right. There are only V - 1 other characters.": (
            lambda r, w, V: (r / (r + w), _loss(r / (r + w), r, w, V))
        ),
        "The chance is right. The loss is the mean surprise, not the sum.": (
            lambda r, w, V: (r / (r + w), how_sure(r, w, V)[1] * (r + w))
        ),
        "The chance is right. The loss is in bits; one bit is ln 2 nats.": (
            lambda r, w, V: (r / (r + w), how_sure(r, w, V)[1] / math.log(2))
        ),
    },
)


def look_up(codes, vocabulary):
    """codes (N,), all of them in vocabulary (V,), which is sorted; int64 code points -> ids (N,) int64."""
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
    no_loop="TC",
    mistakes={
        "These are ids in the vocabulary of this text alone.": lambda c, v: c.unique(return_inverse=True)[1],
        "The distance from the first code point is no id: the vocabulary has gaps.": lambda c, v: c - v[0],
        "These are the code points themselves.": lambda c, v: c,
    },
)


def windows(ids, block_size, stride):
    """ids (N,) -> (number of windows, block_size + 1): inputs, and one id more for the last target."""
    rows, start = [], 0
    while start + block_size + 1 <= len(ids):
        rows.append(ids[start : start + block_size + 1])
        start += stride
    return torch.stack(rows)


EXERCISES["windows"] = Exercise(
    slow=windows,
    draw=lambda g, B, T, C: (integers(g, 0, 64, T + 2 + integer(g, T, 5 * T)), T, C),
    no_loop="T",
    mistakes={
        "A window is missing: the last may end at the very last id.": lambda i, T, s: windows(i[:-1], T, s),
        "A row has block_size + 1 ids: the last target is missing.": lambda i, T, s: i.unfold(0, T, s),
        "The stride is not used.": lambda i, T, s: windows(i, T, 1),
        "The windows lie block_size apart, not stride.": lambda i, T, s: windows(i, T, T),
        "The windows lie block_size + 1 apart, not stride.": lambda i, T, s: windows(i, T, T + 1),
    },
)


def most_frequent_pair(ids):
    """ids (N,) int64 -> two ints: the most frequent pair of neighbours; of equals, the largest."""
    pairs = list(zip(ids.tolist(), ids.tolist()[1:]))
    best, most = None, 0
    for pair in pairs:
        times = sum(pair == other for other in pairs)
        if (times, pair) > (most, best):
            best, most = pair, times
    return best


def _counts(ids, step=1):
    """How often each pair of neighbours occurs, in the order of the text; of every step-th pair only."""
    return Counter(list(zip(ids.tolist(), ids.tolist()[1:]))[::step])


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
