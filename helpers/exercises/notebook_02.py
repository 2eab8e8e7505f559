"""The exercises of notebook 02: the loss in other words, sampling, and a table with a longer memory."""

import math

import torch
from torch.nn import functional as F

from helpers.exercises.exercise import Exercise, integer, integers, normal

EXERCISES = {}


def perplexity(losses, lengths):
    """losses (n,), the mean loss of each window in nats; lengths (n,), its tokens -> a number."""
    total, tokens = 0.0, 0
    for loss, length in zip(losses.tolist(), lengths.tolist()):
        for _ in range(length):
            total += loss
            tokens += 1
    return math.exp(total / tokens)


EXERCISES["perplexity"] = Exercise(
    slow=perplexity,
    draw=lambda g, B, T, C: (normal(g, T + 1).abs(), integers(g, 1, 9, T + 1)),
    mistakes={
        "A short window counts as much as a long one: weigh by length.": lambda x, n: x.mean().exp(),
        "First the mean of the losses, then the exponential.": lambda x, n: (x.exp() * n).sum() / n.sum(),
        "This is the mean loss: the exponential is missing.": lambda x, n: (x * n).sum() / n.sum(),
        "A loss in nats is undone by e to the power, not 2.": lambda x, n: 2 ** ((x * n).sum() / n.sum()),
    },
)


def cross_entropy(logits, targets):
    """logits (N, V), targets (N,) int64, where -100 is not counted -> the mean loss in nats, a number."""
    total, counted = 0.0, 0
    for row, target in zip(logits.double(), targets.tolist()):
        if target != -100:
            total += (row - row[target]).exp().sum().log().item()
            counted += 1
    return total / counted


def _draw_cross_entropy(g, B, T, C):
    logits, targets = normal(g, T + 1, C) * 10 ** integer(g, 0, 2), integers(g, 0, C - 1, T + 1)
    targets[1:][integers(g, 0, 2, T) == 0] = -100
    return logits, targets


EXERCISES["cross_entropy"] = Exercise(
    slow=cross_entropy,
    draw=_draw_cross_entropy,
    mistakes={
        "This is the sum; take the mean.": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
        "Divide by how many targets count, not by all.": (
            lambda z, y: F.cross_entropy(z, y, reduction="sum") / len(y)
        ),
        "These are bits; nats use the natural logarithm.": lambda z, y: F.cross_entropy(z, y) / math.log(2),
        "A target of -100 is counted; leave it out.": lambda z, y: F.cross_entropy(z, y.clamp(min=0)),
    },
)


def sample_ids(probs, u):
    """probs (B, V), u (B,) in [0, 1) -> (B,) int64: the first id where the running sum exceeds u."""
    ids = []
    for p, number in zip(probs, u):
        i, running = 0, p[0]
        while running <= number:
            i += 1
            running = running + p[i]
        ids.append(i)
    return torch.tensor(ids)


def _draw_sample_ids(g, B, T, C):
    # Sixteenths: sums are exact, ids of probability zero occur, and u often meets a running sum.
    shares = torch.stack([integers(g, 0, C - 1, 16).bincount(minlength=C) for _ in range(3 * B)])
    return shares / 16, integers(g, 0, 31, 3 * B) / 32


EXERCISES["sample_ids"] = Exercise(
    slow=sample_ids,
    draw=_draw_sample_ids,
    mistakes={
        "The sum must exceed u, not only reach it: this can draw an id of probability 0.": (
            lambda p, u: (p.cumsum(-1) < u[:, None]).sum(-1)
        ),
        "This is always the likeliest id: u is not used.": lambda p, u: p.argmax(-1),
        "u is compared with single probabilities, not with their running sum.": (
            lambda p, u: (p > u[:, None]).int().argmax(-1)
        ),
    },
)


def trigram_probabilities(ids, vocab_size, alpha):
    """ids (N,), alpha > 0 -> P (V, V, V) float32: P[i, j, k] is the chance of k after i, j."""
    P = torch.full((vocab_size, vocab_size, vocab_size), float(alpha))
    for i, j, k in zip(ids[:-2], ids[1:-1], ids[2:]):
        P[i, j, k] += 1
    for i in range(vocab_size):
        for j in range(vocab_size):
            P[i, j] /= P[i, j].sum()
    return P


def _triples(ids, V, alpha=0):
    """How often k comes after i, j, plus alpha, float32 (V, V, V)."""
    counts = torch.bincount((ids[:-2] * V + ids[1:-1]) * V + ids[2:], minlength=V**3)
    return counts.view(V, V, V) + float(alpha)


EXERCISES["trigram_probabilities"] = Exercise(
    slow=trigram_probabilities,
    draw=lambda g, B, T, C: (integers(g, 0, C - 1, 9 * T), C, integer(g, 1, 4) / 2),
    mistakes={
        "The whole table sums to 1; each row P[i, j] should.": (
            lambda *args: _triples(*args) / _triples(*args).sum()
        ),
        "alpha goes to all V cells of a row: its sum grows by alpha V.": (
            lambda ids, V, alpha: _triples(ids, V, alpha) / (_triples(ids, V).sum(-1, keepdim=True) + alpha)
        ),
        "alpha is not used.": lambda ids, V, alpha: trigram_probabilities(ids, V, 1),
        "These are counts; divide each row by its sum.": _triples,
        "This sums to 1 over the first character, not the last.": (
            lambda *args: _triples(*args) / _triples(*args).sum(0)
        ),
    },
)
