"""Bad input in one sentence: what is wrong, which value, and what to do."""

import math
from numbers import Integral, Real


def check_whole(name, value, least=1, most=None):
    """Raise ValueError unless value is a whole number from least to most (None: no limit)."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        range_ = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}={value!r} must be a whole number {range_}.")


def check_number(name, value, least=None, above=None, most=None, below=None):
    """Raise ValueError unless value is a finite number within the limits that are given."""
    limits = [
        ("at least", least, lambda limit: value >= limit),
        ("above", above, lambda limit: value > limit),
        ("at most", most, lambda limit: value <= limit),
        ("below", below, lambda limit: value < limit),
    ]
    limits = [(words, limit, holds) for words, limit, holds in limits if limit is not None]
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not all(holds(limit) for _, limit, holds in limits):
        wanted = " and ".join(f"{words} {limit}" for words, limit, _ in limits)
        raise ValueError(f"{name}={value!r} must be a number {wanted}.")


def check_choice(name, value, choices):
    """Raise ValueError unless value is one of the choices."""
    if value not in list(choices):
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(str, choices))}.")


def check_flag(name, value):
    """Raise ValueError unless value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be True or False.")
