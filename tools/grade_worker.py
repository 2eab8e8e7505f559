"""The worker of grade.py: it runs a learner's functions, and holds nothing but them and their arguments.

    python -I -c "the text of this file"        the task comes in by stdin, the answers leave by stdout

It starts from its text, so that not even its command line says where the course is. A message is the bytes
of a safetensors file: the tensors as such, everything else as JSON in its header. The answer to a case is
written before the next case begins. Nothing here is trusted by grade.py once a learner's code has run: it
takes from this process only bytes, and compares them elsewhere.
"""

import ast
import builtins
import contextlib
import ctypes
import importlib.abc
import importlib.util
import inspect
import json
import linecache
import math
import os
import re
import signal
import struct
import symtable
import sys
import time
import traceback
from collections import namedtuple

MAX_TENSOR, MAX_ANSWERS = 1 << 20, 16 << 20  # bytes, of one tensor and of all; right ones take thousands
# What IPython allows and Python does not: %magic, !command, ?help and help?
MAGIC = re.compile(r"^([ \t]*)(?:[%!?].*|[\w.]+\?{1,2}[ \t]*)$", re.MULTILINE)


# ---------------------------------------------------------------- messages


def pack(words, values=()):
    """words (JSON) and values (tensors, numbers, tuples of them) as one message, in bytes."""
    from safetensors import serialize  # torch, and with it safetensors.torch, takes a second to load

    tensors = {}
    metadata = {"json": json.dumps([words, [_form(value, tensors) for value in values]])}
    if not tensors:
        return serialize({}, metadata)
    from safetensors.torch import save

    return save(tensors, metadata)


def unpack(raw):
    """words and values of a message. Whatever is wrong with it is raised: it may be damaged or forged."""
    from safetensors.torch import load

    tensors = load(raw)
    words, forms = _header(raw)
    return words, [_value(form, tensors) for form in forms]


def _header(raw):
    """[words, forms] of a message, without its tensors."""
    header = raw[8 : 8 + int.from_bytes(raw[:8], "little")]
    return json.loads(json.loads(header)["__metadata__"]["json"])


def _form(value, tensors):
    """A value as JSON, its tensors into the dict `tensors`; what fits neither leaves the name of its type."""
    import torch

    if isinstance(value, tuple):
        return [_form(part, tensors) for part in value]
    if isinstance(value, int | float):
        return value
    if not torch.is_tensor(value):
        return {"kind": type(value).__name__}
    if value.numel() * value.element_size() > MAX_TENSOR:  # an expanded tensor takes no memory until copied
        raise Refused(f"it returns a tensor of shape {tuple(value.shape)}, which is too large.")
    key = str(len(tensors))
    # clone: safetensors refuses tensors that share memory
    tensors[key] = value.detach().as_subclass(torch.Tensor).cpu().contiguous().clone()
    return {"tensor": key}


def _value(form, tensors):
    """The value of a form; in place of a list, a dict and the like an empty object of that type's name."""
    if isinstance(form, list):
        return tuple(_value(part, tensors) for part in form)
    if isinstance(form, int | float):
        return form
    return tensors[form["tensor"]] if "tensor" in form else type(form["kind"], (), {})()


# ---------------------------------------------------------------- what a function needs of its notebook


class Refused(Exception):
    """A sentence that says why a function is not run, or its answer not taken."""


# The top-level statements of code cells in order, names_of each, and (source, error) of what is no Python.
Page = namedtuple("Page", "statements names broken")


def page_of(cells):
    """The Page of code cells; an import of several names becomes several, so that each can be taken alone."""
    statements, broken = [], []
    for source in cells:
        try:
            body = _parsed(source)
        except (
            SyntaxError,
            ValueError,
            RecursionError,
            MemoryError,
        ) as error:  # ValueError: a null character
            broken.append((source, error))
            continue
        for node in body:
            if isinstance(node, ast.Import):
                statements += [ast.Import([alias]) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                statements += [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names]
            else:
                statements.append(node)
    return Page(statements, [names_of(node) for node in statements], broken)


def _parsed(source):
    """The statements of a cell; those lines that only IPython understands are left out, if there are any."""
    try:
        return ast.parse(source).body
    except SyntaxError:
        return ast.parse(MAGIC.sub(r"\1pass", source)).body


def names_of(node):
    """(binds, needs, later): names that a statement sets or alters, reads at once, and reads when called."""
    try:
        top = symtable.symtable(ast.unparse(node), "notebook", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return set(), set(), set()
    binds = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    needs = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        altered = {_altered(part) for part in ast.walk(node)} - {None}
        binds, needs = binds | altered, needs | altered
    later, waiting = set(), top.get_children()
    while waiting:
        table = waiting.pop()
        later |= {s.get_name() for s in table.get_symbols() if s.is_global()}
        waiting += table.get_children()
    return binds, needs, later


def _altered(node):
    """x, for a node that is x += ..., or sets x[...] or x.name; otherwise None."""
    if isinstance(node, ast.AugAssign):
        node = node.target
    elif not isinstance(node, ast.Subscript | ast.Attribute) or not isinstance(node.ctx, ast.Store):
        return None
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def source_of(name, page):
    """The source of a function and of what it needs of the page, in its order; nothing else.

    The last definition of a name counts, as for who runs the notebook from top to bottom. What is done to a
    value by its methods (`table.append(...)`) is not seen. Raises Refused if there is no such function, or
    only the stub.
    """
    statements, names, broken = page
    chosen, waiting, unknown = set(), [(name, len(names))], set()
    while waiting:
        wanted, before = waiting.pop()
        at = next((i for i in reversed(range(before)) if wanted in names[i][0]), None)
        if at is None:
            unknown |= {wanted} - set(dir(builtins))
        elif at not in chosen:
            chosen.add(at)
            waiting += [(n, at) for n in names[at][1]] + [(n, len(names)) for n in names[at][2]]
    if name in unknown:
        raise Refused(_missing(name, broken))
    if _is_stub(statements[max(i for i in chosen if name in names[i][0])]):
        raise Refused(f"{name} is still the stub.")
    if unknown:  # they may come from `from math import *`
        chosen |= {i for i, (binds, _, _) in enumerate(names) if not binds and _is_star(statements[i])}
    return "\n\n".join(ast.unparse(statements[i]) for i in sorted(chosen)) + "\n"


def _missing(name, broken):
    for source, error in broken:
        if re.search(rf"\b{name}\b", source):
            reason = f"{error.msg}, line {error.lineno}" if isinstance(error, SyntaxError) else error
            return f"the cell of {name} cannot be read as Python ({reason})."
    return f"the notebook has no function {name}."


def _is_star(node):
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*"


def _is_stub(node):
    """Does a function consist of nothing but a docstring, dots, pass and NotImplementedError?"""
    raises = ("raise NotImplementedError", "raise NotImplementedError()")
    return isinstance(node, ast.FunctionDef) and all(
        isinstance(part, ast.Pass)
        or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        or ast.unparse(part) in raises
        for part in node.body
    )


# ---------------------------------------------------------------- limits


def landlock(number, *args):
    """A system call of Landlock, with which a Linux program gives up rights; -1 if that is not to be had."""
    if sys.platform != "linux":
        return -1
    return ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *args)


def landlock_version():
    """The version of Landlock that this machine has; below 1 if it has none."""
    return landlock(444, None, 0, 1)


def forbid_files(readable):
    """From here on this process and what it starts can read these files and folders, and open nothing else.

    Nor reach other processes or, from version 4 on, TCP. It cannot be undone; without Landlock it is nothing.
    """
    version = landlock_version()
    if version < 1:
        return
    file_rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    # All rights on files; to bind and connect (TCP); to reach outside by abstract sockets and signals.
    rights = struct.pack("QQQ", file_rights, 3 * (version >= 4), 3 * (version >= 6))
    ruleset = landlock(444, rights, len(rights), 0)
    for path in filter(os.path.exists, readable):
        handle = os.open(path, os.O_PATH)
        read = 0b1100 if os.path.isdir(path) else 0b0100  # files, and the lists of folders
        landlock(445, ruleset, 1, struct.pack("=Qi", read, handle), 0)
        os.close(handle)
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which Landlock may not be used
    if landlock(446, ruleset, 0):
        raise OSError(ctypes.get_errno(), "Landlock is there and does not work")
    os.close(ruleset)


def limit(seconds, memory):
    """From here on: so many more seconds of computing and bytes of memory, one small file, no new process."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        resource.RLIMIT_CPU: math.ceil(time.process_time()) + seconds,
        resource.RLIMIT_FSIZE: MAX_ANSWERS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,  # without effect for root
    }
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        limits[resource.RLIMIT_AS] = int(file.read().split()[0]) * resource.getpagesize() + memory
    for what, most in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def set_alarms(seconds):
    """End this process after so many seconds of computing, or three times as many of waiting.

    A learner's code can turn that off, and then meets the limits of all exercises together.
    """
    if hasattr(signal, "setitimer"):  # not on Windows
        for timer, number, time_left in (
            (signal.ITIMER_PROF, signal.SIGPROF, seconds),
            (signal.ITIMER_REAL, signal.SIGALRM, 3 * seconds),
        ):
            signal.signal(number, signal.SIG_DFL)
            signal.setitimer(timer, time_left)


# ---------------------------------------------------------------- running


class Loader(importlib.abc.InspectLoader):
    """Imports a text as if it stood in a file that is called "page"."""

    def __init__(self, text):
        self.text = text
        linecache.cache["page"] = (len(text), None, text.splitlines(keepends=True), "page")  # for tracebacks

    def get_source(self, fullname):
        return self.text

    def get_code(self, fullname):
        return self.source_to_code(self.text, "page")


def function_of(name, source):
    """The function of this name of a text, which is run for it."""
    loader = Loader(source)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("page", loader))
    module.display = print  # which is there in a notebook
    sys.modules["page"] = module
    loader.exec_module(module)
    return getattr(module, name)


def answer_to(function, args):
    """What a function returns for args. Raises Refused if it cannot take them, or returns nothing."""
    try:
        inspect.signature(function).bind(*args)
    except (TypeError, ValueError):  # something built in has no signature
        raise Refused("it should take the arguments of the stub, in their order.") from None
    got = function(*args)
    if got is None or got is Ellipsis:
        raise Refused("it returns nothing.")
    return got


def fault_of(error):
    """What was raised, as a sentence."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and str(error.name).split(".")[0] == "helpers":
        return "it uses helpers, which are not here: write what it needs of them into the notebook."
    lines = [f.line for f in traceback.extract_tb(error.__traceback__) if f.filename == "page" and f.line]
    with_line = f" at `{lines[-1]}`" if lines else ""
    return f"it raised {type(error).__name__}{with_line}: {' '.join(str(error).split()) or 'no reason given'}"


def run(name, source, cases, send):
    """Call the function `name` on each case, and send each answer with what became of its arguments."""
    case = 0
    try:
        function = function_of(name, source)
        for case, args in enumerate(cases):
            got = answer_to(function, args)
            send({"name": name, "case": case}, (got, args))
    except BaseException as error:  # sys.exit() too
        try:
            fault = fault_of(error)
        except BaseException:  # an error that cannot even be shown
            fault = "it raised something that cannot be shown."
        send({"name": name, "case": case, "fault": f"on case {case + 1} of {len(cases)} {fault}"})


def main():
    """Read the task, give up all rights, take the functions out of the notebook, and run them."""
    out, task = os.dup(1), sys.stdin.buffer.read()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):  # what a learner prints goes nowhere
        os.dup2(nowhere, handle)

    def send(words, values=()):
        raw = pack(words, values)
        os.write(out, len(raw).to_bytes(8, "little") + raw)

    words, _ = _header(task)
    sys.path.append(words["packages"])
    forbid_files(words["readable"])
    page, sources = page_of(words["cells"]), {}
    for name in words["names"]:
        try:
            sources[name] = source_of(name, page)
        except Refused as error:
            send({"name": name, "case": 0, "fault": str(error)})
    if sources:  # torch is loaded for them only
        import torch

        torch.set_num_threads(1)
        _, cases = unpack(task)
        limit(words["seconds"] * len(sources) + 1, words["memory"])
    send({"name": None, "case": None})  # from here on whatever happens is the learner's doing
    for n, name in enumerate(words["names"]):
        if name in sources:
            send({"name": name, "case": None})
            set_alarms(words["seconds"])
            run(name, sources[name], cases[n], send)
    os._exit(0)  # at once: no thread, no atexit and no __del__ of the learner is waited for


if __name__ == "__main__":
    main()
