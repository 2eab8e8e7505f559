"""The exercises of notebook 06: what AdamW does and remembers, clipping, and two ways to choose text."""

import torch

from helpers.exercises.exercise import Exercise, integer, normal

EXERCISES = {}


def first_step(w, g, lr, decay):
    """Weights w (P,) after the first step of AdamW with gradient g (P,), far from zero -> (P,).

    Source: Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2, with decay times lr.
    """
    out = torch.zeros_like(w)
    for i in range(len(w)):
        m = (1 - 0.9) * g[i]  # both means began at 0
        v = (1 - 0.999) * g[i] ** 2
        m_hat, v_hat = m / (1 - 0.9), v / (1 - 0.999)
        out[i] = w[i] - lr * decay * w[i] - lr * m_hat / v_hat.sqrt()
    return out


EXERCISES["first_step"] = Exercise(
    slow=first_step,
    draw=lambda g, B, T, C: (
        normal(g, T + C),
        normal(g, T + C).mul(9).sign() * (0.1 + normal(g, T + C).square()),
        integer(g, 1, 9) / 10,
        integer(g, 1, 5) / 10,
    ),
    no_loop="TC",
    mistakes={
        "The step has the size of the gradient; the first step of AdamW has the size lr.": (
            lambda w, g, lr, decay: w - lr * decay * w - lr * g
        ),
        "The decay is missing.": lambda w, g, lr, decay: w - lr * g.sign(),
        "The decay is lr * decay of the weight, not decay of it.": (
            lambda w, g, lr, decay: w - decay * w - lr * g.sign()
        ),
        "The step goes along the gradient; go against it.": (
            lambda w, g, lr, decay: w - lr * decay * w + lr * g.sign()
        ),
    },
)


def clipped_mean(G, longest):
    """Gradients G (N, P), one of each example -> (P,): their mean, each first clipped to the length longest.

    Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1, without its noise.
    """
    total = torch.zeros(G.shape[1])
    for g in G:
        length = g.square().sum().sqrt().item()
        total += g * min(1.0, longest / length)
    return total / len(G)


def _clip(g, longest):
    return g * min(1.0, longest / g.norm().item())


EXERCISES["clipped_mean"] = Exercise(
    slow=clipped_mean,
    draw=lambda g, B, T, C: (normal(g, T + 1, C) * integer(g, 1, 4), integer(g, 1, 6) ** 2 / 4),
    no_loop="T",
    mistakes={
        "The mean is clipped; clip every example before the mean.": (
            lambda G, longest: _clip(G.mean(0), longest)
        ),
        "All together are clipped as one gradient; each has a length of its own.": (
            lambda G, longest: _clip(G, longest).mean(0)
        ),
        "A gradient shorter than longest stays as it is.": (
            lambda G, longest: (G * longest / G.norm(dim=1, keepdim=True)).mean(0)
        ),
        "Single numbers are limited; that changes the direction.": (
            lambda G, longest: G.clamp(-longest, longest).mean(0)
        ),
        "This is the sum; divide by the number of examples.": (
            lambda G, longest: clipped_mean(G, longest) * len(G)
        ),
    },
)


def moving_average(g, beta):
    """g (T,), one number a step -> (T,): what AdamW's m_hat is after each step.

    Source: Kingma and Ba 2015 (arXiv:1412.6980), section 3.
    """
    out, m = torch.zeros_like(g), 0.0
    for t, number in enumerate(g.tolist(), start=1):
        m = beta * m + (1 - beta) * number
        out[t - 1] = m / (1 - beta**t)
    return out


def _weighted(g, beta, corrected=True):
    """Row t weighs the past by beta to the age; without correction the rows do not add up to 1."""
    age = (torch.arange(len(g))[:, None] - torch.arange(len(g))).float()
    weights = (beta**age).tril()
    return (weights / weights.sum(1, keepdim=True) if corrected else (1 - beta) * weights) @ g


EXERCISES["moving_average"] = Exercise(
    slow=moving_average,
    draw=lambda g, B, T, C: (normal(g, T + C), integer(g, 1, 9) / 10),
    no_loop="TC",
    mistakes={
        "The division by 1 - beta ** t is missing.": lambda g, beta: _weighted(g, beta, corrected=False),
        "beta is the share of the past, 1 - beta that of the new number.": (
            lambda g, beta: _weighted(g, 1 - beta)
        ),
        "Off by one: at the first step t is 1.": (
            lambda g, beta: (
                _weighted(g, beta, corrected=False)
                / (1 - beta ** torch.arange(2, len(g) + 2, dtype=torch.float32))
            )
        ),
        "This is the plain mean; older numbers should count less.": (
            lambda g, beta: g.cumsum(0) / torch.arange(1, len(g) + 1)
        ),
        "Every number is weighed by its place, not by its age.": (
            lambda g, beta: (
                (g * beta ** torch.arange(len(g))).cumsum(0) / (beta ** torch.arange(len(g))).cumsum(0)
            )
        ),
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
    no_loop="BC",
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
