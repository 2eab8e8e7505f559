"""The exercises of notebook 03: means of the past, softmax, and causal heads."""

import math

import torch

from helpers.exercises.exercise import Exercise, causal_scores, integer, integers, normal, scale_mistakes

EXERCISES = {}


def causal_mean(x):
    """x (B, T, C) -> (B, T, C): position t is the mean of positions 0 to t."""
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for s in range(t + 1):
            out[:, t] += x[:, s] / (t + 1)
    return out


EXERCISES["causal_mean"] = Exercise(
    slow=causal_mean,
    draw=lambda g, B, T, C: (normal(g, B, T, C),),
    mistakes={
        "This is the sum; divide by how many positions it holds.": lambda x: x.cumsum(1),
        "Position t is a mean of t + 1 positions, not of T.": lambda x: x.cumsum(1) / x.shape[1],
        "Position t is a mean of t + 1 positions, not of t.": (
            lambda x: x.cumsum(1) / torch.arange(x.shape[1]).unsqueeze(1)
        ),
        "The mean runs over channels; positions are axis 1.": (
            lambda x: x.cumsum(2) / torch.arange(1, x.shape[2] + 1)
        ),
    },
    causal=1,
    no_loop="T",
)


def softmax(scores):
    """scores (B, T, C), some -inf, never a whole row -> (B, T, C): rows of weights that sum to 1."""
    out = torch.zeros_like(scores)
    for b in range(scores.shape[0]):
        for t in range(scores.shape[1]):
            for c, score in enumerate(scores[b, t]):
                if score > float("-inf"):
                    out[b, t, c] = 1 / (scores[b, t] - score).exp().sum()
    return out


def _draw_softmax(g, B, T, C):
    scores = normal(g, B, T, C) * 10 ** integer(g, 0, 4)
    scores[..., 1:][integers(g, 0, 3, B, T, C - 1) == 0] = -math.inf
    return (scores,)


EXERCISES["softmax"] = Exercise(
    slow=softmax,
    draw=_draw_softmax,
    mistakes={
        "This sums to 1 over positions; each row, the last axis, should.": lambda s: s.softmax(1),
        "This is the logarithm of softmax.": lambda s: s.log_softmax(-1),
        "All weights together sum to 1; each row should.": lambda s: s.flatten().softmax(0).view(s.shape),
    },
    no_loop="BT",
)


def attend(q, k, v):
    """One causal head: q, k, v (B, T, D) -> (B, T, D)."""
    out = torch.zeros_like(v)
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            scores = torch.stack([q[b, t] @ k[b, s] for s in range(t + 1)]) / q.shape[-1] ** 0.5
            weights = scores.softmax(0)  # (t + 1,)
            for s in range(t + 1):
                out[b, t] += weights[s] * v[b, s]
    return out


EXERCISES["attend"] = Exercise(
    slow=attend,
    draw=lambda g, B, T, C: normal(g, 3, B, T, C).unbind(0),
    mistakes={
        **scale_mistakes(attend),
        "The scores are divided by sqrt(T), not by sqrt(D).": (
            lambda q, k, v: attend(q * (q.shape[-1] / q.shape[1]) ** 0.5, k, v)
        ),
        "Hidden scores are 0, which softmax makes e^0 = 1, not 0: set them to -inf.": (
            lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).tril().softmax(-1) @ v
        ),
        "The weights no longer sum to 1: set scores to -inf before softmax, not weights to 0 after.": (
            lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril() @ v
        ),
        "Softmax runs over the queries, not over the keys.": (
            lambda q, k, v: causal_scores(q, k).softmax(-2) @ v
        ),
        "Queries and keys are swapped.": lambda q, k, v: attend(k, q, v),
    },
    causal=3,
    no_loop="BT",
)


def look_back(angle, back):
    """angle a step, in radians -> W_q (2, 2): x_t @ W_q is what x was back steps earlier, for every t."""
    steps = (0, 1, -back, 1 - back)
    x = torch.tensor([[math.cos(t * angle), math.sin(t * angle)] for t in steps])  # (4, 2)
    return torch.linalg.solve(x[:2], x[2:])  # the W_q with x[:2] @ W_q = x[2:]


EXERCISES["look_back"] = Exercise(
    slow=look_back,
    draw=lambda g, B, T, C: (integer(g, 4, 28) / 20, integer(g, 1, T + 1)),
    mistakes={
        "It turns the wrong way: position t finds t + back. Change the sign of both sines.": (
            lambda angle, back: look_back(angle, -back)
        ),
        "It turns by one step; back is not used.": lambda angle, back: look_back(angle, 1),
        "It turns by back radians; angle is not used.": lambda angle, back: look_back(1.0, back),
    },
)


def window_attend(q, k, v, window):
    """A head with a short memory: q, k, v (B, T, D) -> (B, T, D); t sees itself and window - 1 before."""
    out = torch.zeros_like(v)
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            near = range(max(0, t - window + 1), t + 1)
            weights = torch.stack([q[b, t] @ k[b, s] / q.shape[-1] ** 0.5 for s in near]).softmax(0)
            for s, weight in zip(near, weights):
                out[b, t] += weight * v[b, s]
    return out


EXERCISES["window_attend"] = Exercise(
    slow=window_attend,
    draw=lambda g, B, T, C: (*normal(g, 3, B, T + 2, C), integer(g, 2, T + 1)),
    mistakes={
        **scale_mistakes(window_attend),
        "Off by one: this window sees window + 1 positions.": (
            lambda q, k, v, window: window_attend(q, k, v, window + 1)
        ),
        "Off by one: this window sees window - 1 positions.": (
            lambda q, k, v, window: window_attend(q, k, v, window - 1)
        ),
        "The whole past is seen: window is not used.": lambda q, k, v, window: attend(q, k, v),
    },
    causal=3,
    no_loop="BT",
)
