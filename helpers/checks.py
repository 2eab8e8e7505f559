"""Bad input in one sentence: what is wrong, which value, and what to do.

These checks stand where values come in: in configurations, on the command line, where files are loaded, and
in panels. Further inside, the code trusts its callers, and PyTorch's own messages are good enough.
"""

import contextlib
import dataclasses
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


def setting(default, explanation, choices=None, **limits):
    """A field of a configuration: default, the line that --help shows, and what check_settings allows.

    limits: least and most for a whole number; least, above, most and below for a real one.
    """
    metadata = {"help": explanation, "choices": choices, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


def check_settings(config):
    """Raise ValueError unless every field of a configuration is of its type and within its limits."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value is None and f.default is None:
            continue
        if f.type is bool:
            check_flag(f.name, value)
        elif f.type is str:
            check_choice(f.name, value, f.metadata["choices"])
        else:
            check = check_number if f.type is float else check_whole
            check(f.name, value, **f.metadata["limits"])


@contextlib.contextmanager
def out_of_memory_as(sentence):
    """Inside, the many errors of a memory that is full become a ValueError with this sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        full = ("out of memory", "not enough memory", "can't allocate memory", "Cannot allocate memory")
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in full):
            raise
        raise ValueError(sentence) from None
