"""check(function): is a learner's function right, and if not, what is likely to be wrong?

The exercises stand in notebook_00.py to notebook_08.py, each with its slow code, which gives the right
answers, its random cases and its typical mistakes. The verdict is printed and never raised, so that an
unsolved exercise stops no notebook.
"""

import contextlib
import dis
import inspect
import itertools
import math
import traceback
from collections import namedtuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.exercises import (
    notebook_00,
    notebook_01,
    notebook_02,
    notebook_03,
    notebook_04,
    notebook_05,
    notebook_06,
    notebook_07,
    notebook_08,
)

NOTEBOOKS = (
    notebook_00, notebook_01, notebook_02, notebook_03,
    notebook_04, notebook_05, notebook_06, notebook_07,
    notebook_08,
)  # fmt: skip
EXERCISES = {name: exercise for notebook in NOTEBOOKS for name, exercise in notebook.EXERCISES.items()}
CASES = 20

Failure = namedtuple("Failure", "seed args expected got")  # a case on which a function gives a wrong answer


def check(function):
    """Print whether a function solves the exercise of its name, on 20 random cases."""
    print(judge(function))


def judge(function):
    """The verdict on a function: "Solved", "Not solved yet", "Not right yet" or "Right, but", and why."""
    name = getattr(function, "__name__", None)
    if name not in EXERCISES:
        return f"Not right yet: {name or _show(function)} is no exercise. Give check the function of a stub."
    exercise, failed = EXERCISES[name], []
    for seed in range(CASES):
        args = case(name, seed)
        fault, got = _call(function, args)
        if fault:
            return _report(exercise, seed, args, fault)
        if got is None and seed == 0:
            return f"Not solved yet: {name} returns nothing. Write your code in place of the three dots."
        expected = exercise.slow(*args)
        if not _same(expected, got) or _dtypes(expected) != _dtypes(got):
            failed.append(Failure(seed, args, expected, got))
    if not failed:
        solved = f"Solved: {name} agrees with the slow code on all {CASES} cases."
        return _what_is_slow(exercise, function) or solved
    seed, args, expected, got = failed[0]
    return _report(exercise, seed, args, _diagnosis(exercise, function, failed), expected, got)


def case(name, seed):
    """The arguments of one case of an exercise; equal seeds (0 to 19) give equal cases, 0 a small one."""
    g = torch.Generator().manual_seed(seed)
    sizes = [torch.randint(1, high, (), generator=g).item() for high in (4, 7, 5)] if seed else (1, 2, 1)
    B, T, C = sizes
    return EXERCISES[name].draw(g, B, T, C + 1)


def _call(function, args, watch=None):
    """(fault or None, answer): the function on a copy of args, without touching the random state."""
    given = [a.clone() if torch.is_tensor(a) else a for a in args]
    try:
        inspect.signature(function).bind(*given)
    except (TypeError, ValueError):  # a built-in function has no signature
        return "It should take the arguments of the stub, in their order.", None
    try:
        with torch.random.fork_rng(devices=[]), watch or contextlib.nullcontext():
            got = function(*given)
    except NotImplementedError:
        return None, None
    except Exception as error:
        line = next((f.line for f in traceback.extract_tb(error.__traceback__)[1:] if f.line), "its code")
        reason = str(error).strip() or "no reason given"
        return f"It raised {type(error).__name__} at `{line}`: {reason}", None
    if not _same(tuple(args), tuple(given)):
        return "It changes its input: work on a copy, x.clone().", None
    return None, None if got is Ellipsis else got


# ---------------------------------------------------------------- right, but slow


class Operations(TorchDispatchMode):
    """Inside `with Operations() as made:` the operations on tensors are counted, in made.count."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


def _what_is_slow(exercise, function):
    """What keeps a right answer from being solved, as a sentence; "" if nothing does."""
    if _instructions(function) == _instructions(exercise.slow):
        return "Right, but this is the slow code itself: find a way that needs no loop."
    if exercise.no_loop:
        (_, few), (fault, many) = (count_operations(exercise, function, factor) for factor in (1, 2))
        if fault:
            return f"Not right yet: it fails on larger tensors. {fault}"
        if many > few:
            return (
                f"Right, but with a loop: on twice as much data {many} operations on tensors in place of "
                f"{few}. Without a loop their number stays the same."
            )
    return ""


def count_operations(exercise, function, factor):
    """(fault or None, operations on tensors) of one call; the sizes in no_loop are `factor` times as large.

    A loop in Python takes more operations on larger tensors; code without one always the same number.
    """
    sizes = [n * factor if size in exercise.no_loop else n for size, n in zip("BTC", (2, 4, 3))]
    made = Operations()
    fault, _ = _call(function, exercise.draw(torch.Generator().manual_seed(0), *sizes), made)
    return fault, made.count


def _instructions(function):
    """What a function does, instruction by instruction: code that was copied has the same ones."""
    code = getattr(function, "__code__", None)  # None: a class or an object that can be called
    steps = dis.get_instructions(code) if code else ()
    return [(step.opname, not inspect.iscode(step.argval) and step.argval) for step in steps]


def _report(exercise, seed, args, diagnosis, *answers):
    """Which case, what went in, what should come out and what did, and the diagnosis."""
    name = exercise.slow.__name__
    lines = [f'Not right yet: {name}(*case("{name}", {seed}))']
    for argument, value in zip(inspect.signature(exercise.slow).parameters, args):
        lines.append(f"  {argument:13} {_show(value)}")
    for title, answer in zip(("expected", "got"), answers):
        lines.append(f"  {title:13} {_show(answer)}")
    if answers:
        lines += _largest_difference(*answers)
    return "\n".join([*lines, f"  {'diagnosis':13} {diagnosis}"])


def _show(value):
    """A value in one line: numbers in full if they are few, otherwise kind and shape."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_show, value))})"
    if isinstance(value, float):
        return f"{value:.6g}"
    if not torch.is_tensor(value):
        return repr(value) if len(repr(value)) <= 60 else type(value).__name__
    kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if value.numel() > 12 or value.is_complex():
        return kind
    return f"{kind} {_rounded(value.tolist())}"


def _rounded(numbers):
    """Nested lists of numbers as text, with four decimals."""
    if isinstance(numbers, list):
        return f"[{', '.join(map(_rounded, numbers))}]"
    return f"{numbers:.4f}" if isinstance(numbers, float) else str(numbers)


# ---------------------------------------------------------------- comparing


def _parts(answer):
    """The tensors of an answer: numbers become tensors without axes. None if there is something else."""
    parts = []
    for part in answer if isinstance(answer, tuple) else (answer,):
        if torch.is_tensor(part) and not part.is_complex():
            parts.append(part.detach().double())
        elif isinstance(part, int | float):
            parts.append(torch.tensor(part, dtype=torch.float64))
        else:
            return None
    return parts or None


def _dtypes(answer):
    """The dtypes of an answer; for a number any will do."""
    parts = answer if isinstance(answer, tuple) else (answer,)
    return [part.dtype if torch.is_tensor(part) and part.dim() else None for part in parts]


def _same(expected, got):
    """Same shapes, and the same values up to rounding, whole numbers exactly; NaN equals NaN."""
    es, gs = _parts(expected), _parts(got)
    if es is None or gs is None or len(es) != len(gs):
        return False

    def close(e, g):
        return torch.allclose(e, g, 0 if torch.equal(e, e.round()) else 1e-4, 1e-5, equal_nan=True)

    return all(e.shape == g.shape and close(e, g) for e, g in zip(es, gs))


def _largest_difference(expected, got):
    es, gs = _parts(expected), _parts(got)
    if gs is None or [e.shape for e in es] != [g.shape for g in gs]:
        return []
    differences = [(e - g).abs().nan_to_num(math.inf, math.inf) for e, g in zip(es, gs)]
    part = max(range(len(es)), key=lambda n: differences[n].max())
    at = tuple(int(i) for i in torch.unravel_index(differences[part].argmax(), differences[part].shape))
    of = f" of part {part}" if len(es) > 1 else ""
    off, e, g = (parts[part][at].item() for parts in (differences, es, gs))
    return [f"  {'difference':13} at most {off:.4g}, at {list(at)}{of}: expected {e:.6g}, got {g:.6g}"]


# ---------------------------------------------------------------- what is likely to be wrong


def _diagnosis(exercise, function, failed):
    """One sentence that fits all failures: a mistake of the list if one does, else what they share."""
    expected, got = failed[0].expected, failed[0].got
    n = len(_parts(expected))
    if len(_parts(got) or []) != n:
        return f"It should return {_kind(expected)}, not {_kind(got)}."
    failed = [f for f in failed if len(_parts(f.got) or []) == n]
    for sentence, mistake in exercise.mistakes.items():
        if all(_same(mistake(*f.args), f.got) for f in failed):
            return sentence
    for part in range(n):
        if not _same(_parts(expected)[part], _parts(got)[part]):
            pairs = [(_parts(f.expected)[part], _parts(f.got)[part]) for f in failed]
            sentences = itertools.chain(_misshapen(pairs), _leaks(exercise, function, failed), _likely(pairs))
            return next(sentences, "None that I know. Follow the slow code on this case, step by step.")
    wrong, right = next((g, e) for g, e in zip(_dtypes(got), _dtypes(expected)) if g != e)
    return f"The values are right, but the dtype is {wrong}; it should be {right}."


def _kind(answer):
    if isinstance(answer, tuple):
        return f"a tuple of {len(answer)}"
    if torch.is_tensor(answer):
        return "a complex tensor" if answer.is_complex() else "a tensor"
    return "a number" if type(answer) in (int, float) else f"a {type(answer).__name__}"


def _leaks(exercise, function, failed):
    """Does a position see a later one? Change the last position of the input, look at the earlier ones."""
    for f in failed if exercise.causal else []:
        touched = [a.clone() if torch.is_tensor(a) else a for a in f.args]
        for a in touched[: exercise.causal]:
            a[..., -1, :] += 1
        answers = [_parts(_call(function, args)[1]) for args in (f.args, touched)]
        if None in answers or any(parts[0].shape[:-1] != f.args[0].shape[:-1] for parts in answers):
            continue
        before, after = (parts[0] for parts in answers)  # (..., T, C)
        moved = ~torch.isclose(before, after, 1e-4, 1e-5, equal_nan=True).all(-1)  # (..., T)
        if moved[..., :-1].any():
            t = moved.nonzero()[:, -1].min().item()
            yield f"The future leaks in: position {t} changes with the input at {moved.shape[-1] - 1}."


def _misshapen(pairs):
    """Sentences on the shape that fit all pairs (expected, got) of tensors."""
    e, g = pairs[0]
    for i, j in itertools.combinations(range(min(e.dim() for e, _ in pairs)), 2):
        if all(_same(e.transpose(i, j), g) for e, g in pairs):
            yield f"Axes {i} and {j} are swapped: a transpose is missing, or one too many."
    if e.shape != g.shape:
        if all(e.numel() == g.numel() and _same(e.flatten(), g.flatten()) for e, g in pairs):
            yield f"The numbers are right, but the shape is {tuple(g.shape)}; it should be {tuple(e.shape)}."
        yield f"The shape is {tuple(g.shape)}; it should be {tuple(e.shape)}."


def _likely(pairs):
    """Sentences that fit all pairs (expected, got) of tensors of equal shape, the likeliest first."""
    pairs = [(e, g) for e, g in pairs if e.shape == g.shape]
    e, _ = pairs[0]
    if any(not g.isfinite().all() and e.isfinite().all() for e, g in pairs):
        yield (
            "It gives NaN or infinity: look for exp of a large number, a logarithm of 0, a division by 0, "
            "or a row that is masked whole."
        )
    whole = all(torch.equal(e, e.round()) for e, _ in pairs)
    if not whole and all((e - g).abs().max() <= 1e-2 * e.abs().max() for e, g in pairs):
        yield "Right up to rounding: something loses precision, or adds a small number."
    for i in range(e.dim()):
        if all(_same(e.flip(i), g) for e, g in pairs):
            yield f"The order along axis {i} is reversed."
        most, least = slice(None, -1), slice(1, None)
        for way, to, of in (("late", least, most), ("early", most, least)):
            moved = [(e.movedim(i, 0)[of], g.movedim(i, 0)[to]) for e, g in pairs if e.shape[i] > 1]
            if moved and all(_same(e, g) for e, g in moved):
                yield f"Off by one along axis {i}: everything stands one place too {way}."
    es, gs = torch.cat([e.flatten() for e, _ in pairs]), torch.cat([g.flatten() for _, g in pairs])
    ratio, offset = (gs @ es) / (es @ es), (gs - es).mean()
    if len(es) > 2 and _same(es * ratio, gs):
        yield f"Every number is {ratio:.4g} times the right one."
    if len(es) > 2 and _same(es + offset, gs):
        yield f"Every number is {abs(offset):.4g} too {'large' if offset > 0 else 'small'}."
    if e.dim() and all(torch.allclose(e.sum(-1), torch.ones(()).double()) for e, _ in pairs):
        low, high = (torch.stack([f(g.sum(-1)) for _, g in pairs]) for f in (torch.min, torch.max))
        if max(high.max() - 1, 1 - low.min()) > 1e-3:
            yield f"The rows should sum to 1; yours sum to {low.min():.3g} to {high.max():.3g}."
