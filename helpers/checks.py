"""Bad input in one sentence: what is wrong, which value, and what to do."""

import math
from numbers import Integral, Real

import torch


def shown(value):
    """value as an error names it, in one short line; of a tensor only its shape and dtype."""
    if torch.is_tensor(value):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    line = " ".join(repr(value).split())
    return line if len(line) <= 80 else f"{line[:77]}..."


def check_whole(name, value, least=1, most=None):
    """Raise ValueError unless value is a whole number from least to most (None: no limit)."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        range_ = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}={shown(value)} must be a whole number {range_}.")


def check_number(name, value, least=None, above=None, most=None, below=None):
    """Raise ValueError unless value is a finite number within the limits that are given."""
    limits = [
        ("at least", least, lambda limit: value >= limit),
        ("above", above, lambda limit: value > limit),
        ("at most", most, lambda limit: value <= limit),
        ("below", below, lambda limit: value < limit),
    ]
    limits = [(words, limit, holds) for words, limit, holds in limits if limit is not None]
    # Compared, not math.isfinite, which fails on whole numbers that no float can hold.
    number = isinstance(value, Real) and not isinstance(value, bool) and -math.inf < value < math.inf
    if not number or not all(holds(limit) for _, limit, holds in limits):
        wanted = " and ".join(f"{words} {limit}" for words, limit, _ in limits)
        raise ValueError(f"{name}={shown(value)} must be a number {wanted or 'that is finite'}.")


def check_choice(name, value, choices):
    """Raise ValueError unless value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={shown(value)} must be one of {', '.join(choices)}.")


def check_flag(name, value):
    """Raise ValueError unless value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={shown(value)} must be True or False.")


def check_kind(name, value, kind, example):
    """Raise ValueError unless value is an instance of kind (a class or several)."""
    if not isinstance(value, kind):
        raise ValueError(f"{name}={shown(value)} is of another kind: give {example}.")


def check_ids(name, ids):
    """Raise ValueError unless ids is a tensor (N,) of integers. Looks at no id."""
    if not torch.is_tensor(ids) or ids.dim() != 1 or not holds_integers(ids):
        raise ValueError(f"{name}={shown(ids)} must be one row of integers (N,): encode a text.")


def check_batch(idx, targets=None):
    """Raise ValueError unless idx and targets (or None) are integers (B, T). Looks at no id."""
    for name, value in (("idx", idx), ("targets", idx if targets is None else targets)):
        if not torch.is_tensor(value) or value.dim() != 2 or value.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"{name}={shown(value)} must be integers (B, T): take them from get_batch.")
    if targets is not None and (targets.shape != idx.shape or targets.dtype != torch.int64):
        raise ValueError(
            f"targets={shown(targets)} must be int64 and of the shape of idx, {tuple(idx.shape)}: "
            "take both from one call of get_batch."
        )


def holds_integers(tensor):
    """Are the numbers of a tensor integers? True and False are not."""
    dtype = tensor.dtype
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
