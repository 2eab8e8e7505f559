"""The exercises of notebook 07: learning rates, gradients of parts, strengths, traffic, and a cache."""

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
    no_loop="T",
    mistakes={
        "This is the sum, but every gradient is that of a mean.": lambda d, n: d.sum(0),
        "A small batch counts as much as a large one: weigh by size.": lambda d, n: d.mean(0),
        "Divide by the number of examples, not of batches.": lambda d, n: (d * n[:, None]).mean(0),
        "Divide by the number of examples.": lambda d, n: (d * n[:, None]).sum(0),
    },
)


def strengths_after(G, steps):
    """G (rows, columns), float64 -> strengths after Newton-Schulz, largest first: (min(rows, columns),)."""
    a, b, c = 3.4445, -4.775, 2.0315
    X = G / G.norm()
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return torch.linalg.svdvals(X)


def _iterated(s, steps, coefficients=(3.4445, -4.775, 2.0315)):
    """The polynomial a s + b s^3 + c s^5 on each strength s, so many times."""
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


def _norm_then(G, steps, sort=True, length=None, **changes):
    """strengths_after on the strengths alone, with a mistake: unsorted, or divided by another length."""
    s = torch.linalg.svdvals(G)
    s = _iterated(s / (s.norm() if length is None else length(s)), steps, **changes)
    return s.sort(descending=True).values if sort else s


EXERCISES["strengths_after"] = Exercise(
    slow=strengths_after,
    draw=lambda g, B, T, C: (normal(g, T + 1, C + 1).double(), integer(g, 1, 5)),
    mistakes={
        "Largest first: the polynomial does not keep the order.": lambda G, n: _norm_then(G, n, sort=False),
        "Divide by the length of the whole matrix, not by its strongest direction.": (
            lambda G, n: _norm_then(G, n, length=torch.max)
        ),
        "G must be divided by its length first.": lambda G, n: _norm_then(G, n, length=lambda s: 1.0),
        "These are the strengths before the iteration.": lambda G, n: _norm_then(G, 0),
        "steps is not used.": lambda G, n: _norm_then(G, 1),
    },
)


def bytes_sent(numbers, processes):
    """Bytes that the busiest process sends for float32 gradients: (int, int), by a collector, in a ring."""
    collector = ring = 0
    for _ in range(processes - 1):
        collector += 4 * numbers  # it has all gradients, and sends their mean to each of the others
    piece = 4 * numbers // processes
    for _ in range(2):  # the pieces go round twice, first to be added up, then to be handed on
        for _ in range(processes - 1):
            ring += piece
    return collector, ring


EXERCISES["bytes_sent"] = Exercise(
    slow=bytes_sent,
    # The pieces of a ring are equal: the numbers are a multiple of the processes.
    draw=lambda g, B, T, C: ((n := integer(g, 2, 9)) * integer(g, 1, 1000), n),
    mistakes={
        "A float32 takes 4 bytes.": lambda n, p: ((p - 1) * n, 2 * (p - 1) * (n // p)),
        "The ring goes round twice: once to add up, once to hand the sums on.": (
            lambda n, p: (4 * (p - 1) * n, 4 * (p - 1) * (n // p))
        ),
        "Nobody sends anything to itself: processes - 1 turns.": lambda n, p: (4 * p * n, 8 * n),
        "In a ring a process sends one piece in a turn, not all its numbers.": (
            lambda n, p: (4 * (p - 1) * n, 8 * (p - 1) * n)
        ),
        "The two numbers are swapped.": lambda n, p: bytes_sent(n, p)[::-1],
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
    no_loop="BT",
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
