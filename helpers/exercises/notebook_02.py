"""The exercises of notebook 02: losses from a table, cross-entropy, sampling, and a longer context."""

import math

import torch
from torch.nn import functional as F

from helpers.exercises.exercise import Exercise, integer, integers, normal

EXERCISES = {}


def best_losses(N):
    """N (V, V) int64, N[i, j]: how often j follows i -> two numbers, in nats: unigram, bigram."""
    pairs = [(i, j) for i, row in enumerate(N.tolist()) for j, n in enumerate(row) for _ in range(n)]
    came = [j for _, j in pairs]
    unigram, bigram = 0.0, 0.0
    for i, j in pairs:
        after_i = [b for a, b in pairs if a == i]
        unigram -= math.log(came.count(j) / len(came))
        bigram -= math.log(after_i.count(j) / len(after_i))
    return unigram / len(pairs), bigram / len(pairs)


def _draw_counts(g, B, T, C):
    N = integers(g, 0, T, C, C)
    N[:-1][integers(g, 0, 3, C - 1) == 0] = 0  # rows that are never asked
    N[-1, 0] += 1
    return (N,)


def _entropy(counts):
    """The entropy in nats of each row of counts (..., V); of an empty one 0."""
    return torch.special.entr(counts / counts.sum(-1, keepdim=True).clamp(min=1)).sum(-1)


def _best(N, share=lambda N: N.sum(1) / N.sum()):
    """What best_losses gives, if row i of N counts as much as share says."""
    return _entropy(N.sum(0)), share(N) @ _entropy(N)


EXERCISES["best_losses"] = Exercise(
    slow=best_losses,
    draw=_draw_counts,
    mistakes={
        "A row that is asked more often counts more: weigh its entropy by its share of the pairs.": (
            lambda N: _best(N, lambda N: torch.full((len(N),), 1 / len(N)))
        ),
        "A unigram is surprised by what comes: that is counted in the columns, N.sum(0), not in the rows.": (
            lambda N: (_entropy(N.sum(1)), _best(N)[1])
        ),
        "The two are swapped: the unigram's loss comes first.": lambda N: _best(N)[::-1],
        "These are bits; nats use the natural logarithm.": (
            lambda N: tuple(loss / math.log(2) for loss in _best(N))
        ),
        "These are perplexities, e to the loss.": lambda N: tuple(loss.exp() for loss in _best(N)),
        "This is the entropy of the pairs: a row's chances sum to 1 by themselves.": (
            lambda N: (_best(N)[0], _entropy(N.flatten()))
        ),
    },
)


def cross_entropy(logits, targets):
    """logits (B, V), targets (B,) int64, where -100 is not counted -> the mean loss in nats, a number."""
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
    no_loop="TC",
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
    """probs (B, V), u (B,) in [0, 1) -> (B,) int64: the first id whose end lies beyond u of the whole."""
    ids = []
    for p, number in zip(probs, u):
        aim = number * sum(p)
        i, running = 0, p[0]
        while running <= aim:
            i += 1
            running = running + p[i]
        ids.append(i)
    return torch.tensor(ids)


def _draw_sample_ids(g, B, T, C):
    # Sixteenths: sums are exact, ids of probability zero occur, and u often meets a running sum.
    shares = torch.stack([integers(g, 0, C - 1, 16).bincount(minlength=C) for _ in range(3 * B)]) / 16
    # Rows as rounding makes them: the sum ends below 1, the last id has no share, and u lies above the sum.
    short = torch.stack([integers(g, 0, C - 2, 16).bincount(minlength=C) for _ in range(B)]) / 16
    short[range(B), short.argmax(-1)] -= 2**-23
    u = torch.cat([integers(g, 0, 31, 3 * B) / 32, torch.full((B,), 1 - 2**-24)])
    return torch.cat([shares, short]), u


EXERCISES["sample_ids"] = Exercise(
    slow=sample_ids,
    draw=_draw_sample_ids,
    no_loop="BC",
    mistakes={
        "A row may sum to a little less than 1; where u lies above its sum this gives V, which is no id.": (
            lambda p, u: (p.cumsum(-1) <= u[:, None]).sum(-1)
        ),
        "Where the row's sum ends below u, the last id may have probability 0: clamping draws it.": (
            lambda p, u: (p.cumsum(-1) <= u[:, None]).sum(-1).clamp(max=p.shape[-1] - 1)
        ),
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
    """ids (n,) int64, alpha > 0 -> P (V, V, V) float32: P[i, j, k] is the probability of k after i, j."""
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
    no_loop="TC",
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
