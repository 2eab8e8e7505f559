"""What an exercise is made of, and what the exercises of several notebooks share.

Shapes: B sequences, T positions, C channels, D the size of a head, H heads, V tokens in the vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Exercise:
    """One exercise; it is called what its slow code is called.

    A mistake is a sentence and a function that makes it. Whoever gets the same wrong answers as that
    function has made that mistake, so `check` can name it; where several fit, it names the first.
    """

    slow: Callable  # arguments -> the right answer, by loops that say what is wanted
    draw: Callable  # (generator, B, T, C) -> the arguments of one random case, a tuple; B, T >= 1, C >= 2
    mistakes: dict[str, Callable]  # sentence -> a function of the arguments that makes this mistake
    causal: int = 0  # so many arguments (..., T, C) come first whose later positions must not be seen
    no_loop: str = ""  # sizes of draw, of "BTC", that a right answer can double without more operations


# ---------------------------------------------------------------- drawing random cases


def normal(g, *shape):
    """Standard normal numbers of this shape."""
    return torch.randn(shape, generator=g)


def integers(g, low, high, *shape):
    """Whole numbers from low to high, both included, of this shape, int64."""
    return torch.randint(low, high + 1, shape, generator=g)


def integer(g, low, high):
    """One whole number from low to high, both included, as an int."""
    return integers(g, low, high).item()


# ---------------------------------------------------------------- mistakes with attention


def causal_scores(q, k):
    """q (..., T, D), k (..., S, D) -> scores (..., T, S), with -inf where a key comes after its query."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)


def scale_mistakes(slow):
    """The mistakes of scores that are too large or too small, for slow(q, k, ...) with q (..., T, D)."""

    def scaled(power):
        return lambda q, *rest: slow(q * q.shape[-1] ** power, *rest)

    return {
        "The scale is missing: divide the scores by sqrt(D).": scaled(0.5),
        "The scores are divided by D, not by sqrt(D).": scaled(-0.5),
    }
