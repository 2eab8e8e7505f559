"""The exercises of notebook 06: learning rates, gradients of small batches, sampling, and a cache."""

import math

import torch

from helpers.exercises.exercise import Exercise, causal_scores, integer, integers, normal

EXERCISES = {}


def schedule(max_steps, warmup_steps, peak, floor):
    """Learning rates (max_steps,) float32: up in a line to peak, then half a cosine towards floor."""
    rates = []
    for step in range(max_steps):
        if step < warmup_steps:
            rates.append(peak * (step + 1) / warmup_steps)
        else:
            done = (step - warmup_steps) / (max_steps - warmup_steps)
            rates.append(floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2)
    return torch.tensor(rates)


def _rates(n, w, peak, floor, start=1, begin=None, end=None):
    """The schedule with a warm-up that starts at start / w, and a cosine from step begin to step end."""
    step, begin, end = torch.arange(n), w if begin is None else begin, n if end is None else end
    done = (step - begin) / (end - begin)
    cosine = floor + (peak - floor) * (1 + (math.pi * done).cos()) / 2
    return torch.where(step < w, peak * (step + start) / w, cosine)


EXERCISES["schedule"] = Exercise(
    slow=schedule,
    draw=lambda g, B, T, C: (4 * T + C, T + 1, integer(g, 2, 9) / 10, integer(g, 1, 3) / 20),
    mistakes={
        "The warm-up begins at 0: step 0 has the rate peak / warmup_steps.": (
            lambda *args: _rates(*args, start=0)
        ),
        "The cosine should begin after the warm-up, not at step 0.": lambda *args: _rates(*args, begin=0),
        "Off by one: floor belongs to step max_steps, after the last.": (
            lambda n, *rest: _rates(n, *rest, end=n - 1)
        ),
        "The cosine falls to 0, not to floor.": lambda n, w, peak, floor: schedule(n, w, peak, 0.0),
        "The warm-up is missing.": lambda n, w, peak, floor: schedule(n, 0, peak, floor),
    },
)


def large_batch_gradient(gradients, sizes):
    """gradients (n, P), of the mean loss of n small batches of sizes (n,) -> (P,), of the large batch."""
    total = torch.zeros(gradients.shape[1])
    for gradient, size in zip(gradients, sizes.tolist()):
        for _ in range(size):
            total += gradient
    return total / sizes.sum()


EXERCISES["large_batch_gradient"] = Exercise(
    slow=large_batch_gradient,
    draw=lambda g, B, T, C: (normal(g, T + 1, C), integers(g, 1, 9, T + 1)),
    mistakes={
        "This is the sum, but every gradient is that of a mean.": lambda d, n: d.sum(0),
        "A small batch counts as much as a large one: weigh by size.": lambda d, n: d.mean(0),
        "Divide by the number of examples, not of batches.": lambda d, n: (d * n[:, None]).mean(0),
        "Divide by the number of examples.": lambda d, n: (d * n[:, None]).sum(0),
    },
)


def nucleus(probs, p):
    """probs (B, V), 0 < p < 1 -> (B, V): the fewest likeliest ids that reach p together, as probabilities.

    Source: Holtzman et al. 2019 (arXiv:1904.09751), section 3.1.
    """
    out = torch.zeros_like(probs)
    for row, kept in zip(probs, out):
        for i in row.argsort(descending=True):
            if kept.sum() < p:
                kept[i] = row[i]
        kept /= kept.sum()
    return out


def _keep(probs, p, extra):
    """The nucleus with so many ids more, or fewer."""
    n = (nucleus(probs, p) > 0).sum(-1, keepdim=True) + extra  # (B, 1)
    kept = probs * (probs.argsort(descending=True).argsort(-1) < n)
    return kept / kept.sum(-1, keepdim=True)


EXERCISES["nucleus"] = Exercise(
    slow=nucleus,
    draw=lambda g, B, T, C: (normal(g, B, 2 * C).mul(2).softmax(-1), integer(g, 1, 9) / 10),
    mistakes={
        "The id that reaches p is dropped; it belongs to the nucleus.": lambda probs, p: _keep(probs, p, -1),
        "One id too many is kept.": lambda probs, p: _keep(probs, p, 1),
        "What is kept must sum to 1 again.": lambda probs, p: probs * (nucleus(probs, p) > 0),
        "The ids are ranked; put them back in their places.": (
            lambda probs, p: nucleus(probs, p).sort(descending=True).values
        ),
    },
)


def beam_search(log_probs, start, width):
    """log_probs (n, V, V): at step t, row i is for what follows id i -> (1 + n,) int64: the best ids found.

    After each step the width best continuations of all beams are kept.
    """
    beams = [(0.0, [start])]
    for table in log_probs:
        longer = []
        for total, ids in beams:
            longer += [(total + x, [*ids, i]) for i, x in enumerate(table[ids[-1]].tolist())]
        beams = sorted(longer, reverse=True)[:width]
    return torch.tensor(beams[0][1])


EXERCISES["beam_search"] = Exercise(
    slow=beam_search,
    # A table for each step: with one for all, paths that visit the same pairs in another order would tie.
    draw=lambda g, B, T, C: (
        normal(g, T + 1, C + 1, C + 1).log_softmax(-1),
        integer(g, 0, C),
        integer(g, 2, 3),
    ),
    mistakes={
        "This is greedy: width is not used.": lambda z, start, width: beam_search(z, start, 1),
        "Log-probabilities add up; probabilities do not.": lambda z, *rest: beam_search(z.exp(), *rest),
        "The least likely continuations are kept.": lambda z, *rest: beam_search(-z, *rest),
        "start is missing.": lambda *args: beam_search(*args)[1:],
    },
)


def cached_head(x, w_q, w_k, w_v, k, v):
    """A causal head on n new positions x (B, n, C), given k, v (B, P, D) of the P before -> (out, k, v).

    w_q, w_k and w_v are (D, C). out (B, n, D) is for the new positions; k, v (B, P + n, D) hold all.
    """
    k, v = torch.cat([k, x @ w_k.T], dim=1), torch.cat([v, x @ w_v.T], dim=1)
    out = torch.zeros_like(v[:, : x.shape[1]])
    past = k.shape[1] - x.shape[1]
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            q, seen = w_q @ x[b, i], past + i + 1
            weights = (k[b, :seen] @ q / len(q) ** 0.5).softmax(0)  # (seen,)
            out[b, i] = weights @ v[b, :seen]
    return out, k, v


def _masked_from_0(x, w_q, w_k, w_v, k, v):
    """New position i sees the first i + 1 keys, as if nothing came before."""
    _, k, v = cached_head(x, w_q, w_k, w_v, k, v)
    return causal_scores(x @ w_q.T, k).softmax(-1) @ v, k, v


EXERCISES["cached_head"] = Exercise(
    slow=cached_head,
    draw=lambda g, B, T, C: (
        normal(g, B, T, C),
        *normal(g, 3, C + 1, C),
        *normal(g, 2, B, integer(g, 0, 4), C + 1),
    ),
    mistakes={
        "The scale is missing: divide the scores by sqrt(D).": (
            lambda x, w_q, *rest: cached_head(x, w_q * len(w_q) ** 0.5, *rest)
        ),
        "New position i may see the P old positions and i + 1 new ones.": _masked_from_0,
        "The old positions are not used.": (
            lambda x, w_q, w_k, w_v, k, v: cached_head(x, w_q, w_k, w_v, k[:, :0], v[:, :0])
        ),
        "k and v come back without the new positions.": lambda *args: (cached_head(*args)[0], *args[4:]),
    },
    causal=1,
)
