"""What other systems lack, taken away from this one; then modules run, as `python -m` runs them.

    python tests/another_machine.py helpers doctor
    python tests/another_machine.py pytest -q tests/test_resume.py + helpers doctor

No fcntl, no mallopt, no fork, and a file that is open or mapped into memory can neither be replaced nor
deleted, as on Windows. (A + ends one command and begins the next. Linux only: it looks into /proc.)
"""

import ctypes
import multiprocessing
import os
import runpy
import sys

MODULES = "fcntl", "resource", "grp", "termios"
FUNCTIONS = "fork", "forkpty", "killpg", "mkfifo", "sched_getaffinity"


def take_away():
    """Make this process one on another machine. It cannot be undone."""
    for name in MODULES:
        sys.modules[name] = None
    for name in FUNCTIONS:
        delattr(os, name)
    for name in ("remove", "rename", "replace", "unlink"):
        setattr(os, name, refusing(getattr(os, name)))
    ctypes.CDLL = OtherLibraries
    multiprocessing.set_start_method("spawn")


class OtherLibraries(ctypes.CDLL):
    """ctypes.CDLL, which on Windows cannot open what is loaded already, and so finds no mallopt."""

    def __init__(self, name, *args, **kwargs):
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        super().__init__(name, *args, **kwargs)


def refusing(function):
    """A function that renames or deletes files, but none that this process uses."""

    def on_windows(*paths, **kwargs):
        for path in paths:
            if in_use(path):
                raise PermissionError(13, "The process cannot access the file", str(path))
        return function(*paths, **kwargs)

    return on_windows


def in_use(path):
    """Does this process have a file open, or mapped?"""
    if not os.path.isfile(path):
        return False
    numbers = os.listdir("/proc/self/fd")
    used = {os.path.realpath(f"/proc/self/fd/{number}") for number in numbers}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        used |= {line.rstrip("\n").split(maxsplit=5)[-1] for line in file}
    return os.path.realpath(path) in used


def main(words):
    """Run the commands one after another; the exit status of the first that fails."""
    take_away()
    sys.path[0] = os.getcwd()
    while words:
        end = words.index("+") if "+" in words else len(words)
        sys.argv, words = words[:end], words[end + 1 :]
        try:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if ended.code:
                raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
