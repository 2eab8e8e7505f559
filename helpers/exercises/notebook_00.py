"""The exercises of notebook 00: broadcasting, views, a gradient by hand, a backward pass, a learning rate."""

import torch

from helpers.exercises.exercise import Exercise, integer, normal

EXERCISES = {}


def squared_distances(a, b):
    """Points a (N, C) and b (M, C) -> (N, M): the squared distance of each point of a from each of b."""
    out = torch.zeros(len(a), len(b))
    for i in range(len(a)):
        for j in range(len(b)):
            for k in range(a.shape[1]):
                out[i, j] += (a[i, k] - b[j, k]) ** 2
    return out


def _differences(a, b):
    return a.unsqueeze(1) - b  # (N, M, C)


EXERCISES["squared_distances"] = Exercise(
    slow=squared_distances,
    draw=lambda g, B, T, C: (normal(g, T + 1, C), normal(g, B + 1, C)),
    mistakes={
        "The root is too much: squared distances are wanted.": lambda a, b: _differences(a, b).norm(dim=-1),
        "Take the sum over the coordinates, not their mean.": (
            lambda a, b: _differences(a, b).square().mean(-1)
        ),
        "Square first, then add up.": lambda a, b: _differences(a, b).sum(-1).square(),
        "These are dot products; take differences.": lambda a, b: a @ b.T,
    },
    no_loop="BTC",
)


def tiles(x, height, width):
    """x (rows * height, columns * width) -> (rows * columns, height, width): its tiles, row by row."""
    columns = x.shape[1] // width
    out = torch.zeros(x.shape[0] // height * columns, height, width)
    for n in range(len(out)):
        top, left = n // columns * height, n % columns * width
        out[n] = x[top : top + height, left : left + width]
    return out


def _cut(x, height, width, *order):
    """x with its axes cut in two, (rows, height, columns, width), and permuted."""
    return x.view(x.shape[0] // height, height, -1, width).permute(order).reshape(-1, height, width)


def _draw_tiles(g, B, T, C):
    height, width = integer(g, 2, 3), integer(g, 1, 3)
    return normal(g, (B + 1) * height, C * width), height, width


EXERCISES["tiles"] = Exercise(
    slow=tiles,
    draw=_draw_tiles,
    mistakes={
        "Only the row of numbers is cut anew: a permute is missing.": (
            lambda x, height, width: x.reshape(-1, height, width)
        ),
        "The tiles are counted down the columns; count them row by row.": (
            lambda x, height, width: _cut(x, height, width, 2, 0, 1, 3)
        ),
        "The numbers of each tile are mixed up: height before width, after the permute.": (
            lambda x, height, width: _cut(x, height, width, 0, 2, 3, 1)
        ),
    },
    no_loop="BC",
)


def gradient_of_fit(x, y, w):
    """x (N, C), y (N,), w (C,), float64 -> (C,): how fast the mean squared error grows with each w."""

    def loss(w):
        return ((x @ w - y) ** 2).mean()

    out = torch.zeros_like(w)
    for k in range(len(w)):
        nudge = torch.zeros_like(w)
        nudge[k] = 0.001
        out[k] = (loss(w + nudge) - loss(w - nudge)) / 0.002
    return out


def _by_formula(x, y, w):
    return 2 * (x @ w - y) @ x / len(y)


EXERCISES["gradient_of_fit"] = Exercise(
    slow=gradient_of_fit,
    draw=lambda g, B, T, C: (normal(g, T + 1, C).double(), normal(g, T + 1).double(), normal(g, C).double()),
    mistakes={
        "The 2 is missing: a square grows twice as fast as its error, times the error.": (
            lambda x, y, w: _by_formula(x, y, w) / 2
        ),
        "This is for the sum of the squares; the loss is their mean.": (
            lambda x, y, w: _by_formula(x, y, w) * len(y)
        ),
        "The sign is wrong: the error is the prediction minus y.": lambda x, y, w: -_by_formula(x, y, w),
        "These are the errors alone: each grows with w as fast as x says.": (
            lambda x, y, w: 2 * (x @ w - y) / len(y)
        ),
    },
    no_loop="TC",
)


def gradients(local):
    """local (N, N), at [i, j] how fast number i grows with its part j < i -> (N,): the last with each."""
    last = len(local) - 1

    def over_all_paths(j):
        if j == last:
            return 1.0
        return sum(local[i, j].item() * over_all_paths(i) for i in range(j + 1, last + 1))

    return torch.tensor([over_all_paths(j) for j in range(last + 1)])


def _one_pass(local, start=1.0, forget=False):
    """Backwards over the numbers; with forget a later contribution takes the place of those before."""
    out = torch.zeros(len(local))
    out[-1] = start
    for i in reversed(range(len(local))):
        out[:i] = out[i] * local[i, :i] + (0 if forget else out[:i])
    return out


def _forwards(local):
    """How fast each number grows with the first."""
    out = torch.zeros(len(local))
    out[0] = 1
    for i in range(1, len(local)):
        out[i] = local[i] @ out
    return out


EXERCISES["gradients"] = Exercise(
    slow=gradients,
    draw=lambda g, B, T, C: (normal(g, T + 1, T + 1).tril(-1),),
    mistakes={
        "Slopes of several paths add up: += where you have =.": lambda local: _one_pass(local, forget=True),
        "The last number grows with itself at slope 1: begin with that.": (
            lambda local: _one_pass(local, start=0.0)
        ),
        "Only the parts of the last number are reached; go on to their parts.": (
            lambda local: torch.cat([local[-1, :-1], torch.ones(1)])
        ),
        "This is how fast each number grows with the first; wanted is the last with each.": _forwards,
    },
)


def largest_rate(steepness):
    """steepness (C,) > 0 of the valley sum(steepness * w**2) / 2 -> the largest rate, a number."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        rate = (low + high) / 2
        w = torch.ones_like(steepness)
        if ((w - rate * steepness * w).abs() <= 1).all():
            low = rate
        else:
            high = rate
    return low


EXERCISES["largest_rate"] = Exercise(
    slow=largest_rate,
    draw=lambda g, B, T, C: (normal(g, C).square() + integer(g, 1, 9) / 10,),
    mistakes={
        "At this rate the steepest number lands on 0; it may go as far again.": (
            lambda steepness: 1 / steepness.max()
        ),
        "The steepest direction decides, not the flattest.": lambda steepness: 2 / steepness.min(),
        "The steepest direction decides, not their mean.": lambda steepness: 2 / steepness.mean(),
        "The steepest direction decides, not their sum.": lambda steepness: 2 / steepness.sum(),
    },
)
