"""The exercises of notebook 05: a norm, a sum taken apart, the size of GPT-2, and rotary positions."""

import math

import torch
from torch.nn import functional as F

from helpers.exercises.exercise import Exercise, integer, normal

EXERCISES = {}


def rms_norm(x, gamma, eps):
    """x (B, T, C), gamma (C,) -> (B, T, C): each vector over its root mean square, times gamma.

    Source: Zhang and Sennrich 2019 (arXiv:1910.07467), equation 4, with eps added to the mean square.
    """
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            square = sum(number**2 for number in x[b, t].tolist()) / x.shape[2]
            out[b, t] = gamma * x[b, t] / math.sqrt(square + eps)
    return out


def _mean_square(x):
    return x.square().mean(-1, keepdim=True)


EXERCISES["rms_norm"] = Exercise(
    slow=rms_norm,
    draw=lambda g, B, T, C: (normal(g, B, T, C) + 1, normal(g, C), integer(g, 1, 9) / 10),
    no_loop="BTC",
    mistakes={
        "The mean is subtracted: this is layer norm.": lambda x, *rest: rms_norm(x - x.mean(-1, True), *rest),
        "gamma is not used.": lambda x, gamma, eps: rms_norm(x, torch.ones_like(gamma), eps),
        "eps is not used.": lambda x, gamma, eps: rms_norm(x, gamma, 0),
        "eps belongs under the root.": lambda x, gamma, eps: gamma * x / (_mean_square(x).sqrt() + eps),
        "The squares are summed; take their mean.": (
            lambda x, gamma, eps: gamma * x / (_mean_square(x) * len(gamma) + eps).sqrt()
        ),
        "The root is missing.": lambda x, gamma, eps: gamma * x / (_mean_square(x) + eps),
    },
    causal=1,
)


def who_wrote(parts, w, gamma, sigma):
    """parts (N, C), what was added to the stream; w and gamma (C,); sigma, a number -> (N,).

    What the logit w . LN(sum of the parts) would lose without each part, if the layer norm went on to
    divide by sigma, the deviation of the whole sum.
    """

    def logit(x):
        return w @ (gamma * (x - x.mean()) / sigma)

    out = torch.zeros(len(parts))
    for i in range(len(parts)):
        whole = parts.sum(0)
        out[i] = logit(whole) - logit(whole - parts[i])
    return out


EXERCISES["who_wrote"] = Exercise(
    slow=who_wrote,
    draw=lambda g, B, T, C: (normal(g, T + 1, C) + 1, normal(g, C), normal(g, C), integer(g, 2, 9) / 4),
    no_loop="T",
    mistakes={
        "The mean of each part is still in it; layer norm takes it away.": (
            lambda parts, w, gamma, sigma: parts @ (w * gamma) / sigma
        ),
        "These are running sums; each part counts by itself.": (lambda *args: who_wrote(*args).cumsum(0)),
        "This is the logit without the part; what is missing then is the part's.": (
            lambda *args: who_wrote(*args).sum() - who_wrote(*args)
        ),
        "These are shares of the logit; leave them in its unit.": (
            lambda *args: who_wrote(*args) / who_wrote(*args).sum()
        ),
        "gamma is not used.": (lambda parts, w, gamma, sigma: who_wrote(parts, w, torch.ones_like(w), sigma)),
        "sigma is not used.": lambda parts, w, gamma, sigma: who_wrote(parts, w, gamma, 1.0),
        "Every part is divided by its own deviation; there is one for all.": (
            lambda parts, w, gamma, sigma: (
                (parts - parts.mean(1, True)) / parts.std(1, correction=0, keepdim=True) @ (w * gamma)
            )
        ),
    },
)


def gpt2_parameters(vocab_size, block_size, n_layer, n_embd):
    """How many numbers GPT-2 learns, an int: biases everywhere but in the last layer, which is tied."""
    V, T, C = vocab_size, block_size, n_embd
    norm = [(C,), (C,)]
    attention = [(3 * C, C), (3 * C,), (C, C), (C,)]
    feed_forward = [(4 * C, C), (4 * C,), (C, 4 * C), (C,)]
    shapes = [(V, C), (T, C), *norm]
    for _ in range(n_layer):
        shapes += norm + attention + norm + feed_forward
    return sum(math.prod(shape) for shape in shapes)


EXERCISES["gpt2_parameters"] = Exercise(
    slow=gpt2_parameters,
    draw=lambda g, B, T, C: (integer(g, 2, 99), 8 * T, integer(g, 1, 9), 8 * C),
    mistakes={
        "The final layer is the token embedding: count it once.": (
            lambda V, T, L, C: gpt2_parameters(V, T, L, C) + V * C
        ),
        "The last layer norm is missing.": lambda V, T, L, C: gpt2_parameters(V, T, L, C) - 2 * C,
        "Query, key and value have biases too.": lambda V, T, L, C: gpt2_parameters(V, T, L, C) - 3 * L * C,
        "The biases of the linear layers are missing.": (
            lambda V, T, L, C: gpt2_parameters(V, T, L, C) - 9 * L * C
        ),
        "The position embedding is missing.": lambda V, T, L, C: gpt2_parameters(V, T, L, C) - T * C,
        "A block has two layer norms.": lambda V, T, L, C: gpt2_parameters(V, T, L, C) - 2 * L * C,
    },
)


def rotate(x, base=10000.0):
    """Rotary positions: x (B, H, T, D), D even -> (B, H, T, D).

    At position t channels 2 i and 2 i + 1 turn by the angle t base^(-2 i / D).
    Source: Su et al. 2021 (arXiv:2104.09864), equation 15.
    """
    out = torch.zeros_like(x)
    T, D = x.shape[2:]
    for t in range(T):
        for i in range(D // 2):
            angle = t * base ** (-2 * i / D)
            a, b = x[:, :, t, 2 * i], x[:, :, t, 2 * i + 1]
            out[:, :, t, 2 * i] = a * math.cos(angle) - b * math.sin(angle)
            out[:, :, t, 2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def _reordered(x, order):
    """Rotate with the channels in another order, then put them back."""
    order = order(torch.arange(x.shape[-1]))
    return rotate(x[..., order])[..., order.argsort()]


EXERCISES["rotate"] = Exercise(
    slow=rotate,
    draw=lambda g, B, T, C: (normal(g, B, 2, T + 1, 2 * C),),
    no_loop="BTC",
    mistakes={
        "The pairs turn the other way: check the signs of the sines.": (
            lambda x: _reordered(x, lambda n: n.view(-1, 2).flip(1).flatten())
        ),
        "Pairs are neighbours, 2 i and 2 i + 1, not i and i + D / 2.": (
            lambda x: _reordered(x, lambda n: n.view(2, -1).T.flatten())
        ),
        "Off by one: position 0 does not turn.": lambda x: rotate(F.pad(x, (0, 0, 1, 0)))[:, :, 1:],
        "The exponent is -2 i / D; here it is -i / D.": lambda x: rotate(x, base=100.0),
        "All pairs turn alike; the angle should fall with i.": lambda x: rotate(x, base=1.0),
    },
    causal=1,
)
