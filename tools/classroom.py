"""Run many copies of one notebook, two at a time, and compare the outputs of each with what is stored.

    python tools/classroom.py notebooks/02_bigram.ipynb 30

A rehearsal for a class on one machine: every copy has a folder and a kernel of its own. The copies stay
in build/classroom/.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def rehearse(notebook, copies, folder):
    """The exit status of nbval over the copies of a notebook, made anew in folder: 0 if all are equal."""
    shutil.rmtree(folder, ignore_errors=True)
    names = []
    for i in range(1, copies + 1):
        names.append(folder / f"{i:02}" / notebook.name)
        names[-1].parent.mkdir(parents=True)
        shutil.copy(notebook, names[-1])
    # loadscope: one notebook stays with one worker, so two run at a time. rootdir: nbval names cells by
    # their path below it, and would take the copies for one notebook if they lay outside.
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadscope",
         "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "--nbval", "--nbval-current-env",
         "--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg"), *map(str, names)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COURSE_DEVICE": "cpu", "COURSE_CORPUS": ""}
        | {"COURSE_GPT2": "", "COURSE_PRESET": "course-cpu"},  # as stored, however slow the machine
    ).returncode  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("copies", type=int, nargs="?", default=30)
    args = parser.parse_args()
    status = rehearse(args.notebook.resolve(), args.copies, ROOT / "build" / "classroom")
    print(f"{args.copies} copies:", "not all alike" if status else "all gave the outputs that are stored")
    return status


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show is no reason to end
    sys.exit(main())
