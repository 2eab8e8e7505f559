"""Grade handed-in notebooks: which exercises do they solve?

    python tools/grade.py handed-in/*/02_bigram.ipynb --csv grades.csv

Outputs count for nothing. Of each exercise the learner's function is taken from the source of the notebook,
with the imports, constants, functions and classes that it needs, and is called on 20 new random cases in a
process (grade_worker.py) that holds nothing of the course. Only bytes come back from there, and are compared
here with what the slow code of this copy of the course says. So it earns nothing to forge outputs, to print
"Solved", to bring along other `helpers`, to change torch or `check`, to search the memory around the
function, to end the process, or to know the cases of `check`. Who copies the slow code or the solution of
the page has solved the exercise, here as for `check`.

What protects the machine: the worker starts in an empty folder with an empty environment; its time, memory
and output are limited; it may start no process (but root may: never grade as root); and all that was left
running in its group is killed. Where Linux has Landlock (most have it since 5.13), the worker can read the
folders of Python and torch, and can open nothing else, write nowhere, look into no other process and, since
6.7, reach nothing by TCP. Without it, a function can read and write whatever you can, and could search this
folder for the slow code; a line on stderr then says so. It is no prison for an expert: use an account that
can do no harm. A prepared function can also take a few minutes of your time before it is stopped.

A student is the folder of a file or, if that is the same for all, the name of the file. A table says which
exercises are solved, or in a sentence why not. Exit status: 0 if all files could be read, 1 if not.
"""

import argparse
import contextlib
import csv
import functools
import io
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from helpers.checks import check_whole  # noqa: E402
from helpers.exercises import check  # noqa: E402
from helpers.files import write_whole  # noqa: E402
from tools.grade_worker import MAX_ANSWERS, landlock_version, pack, unpack  # noqa: E402

PACKAGES = str(Path(torch.__file__).parents[1])  # the folder that torch is installed in
WORKER = ROOT / "tools" / "grade_worker.py"
MAX_NOTEBOOK = 100_000_000  # bytes; pictures in outputs take most of them
MAX_CODE = 1_000_000  # characters; a page of the course has some ten thousand
START = 60  # seconds to start Python and load torch on a slow machine
SECONDS = 20  # of computing, for the cases of one exercise; three times as long if it sleeps
MEMORY = 1 << 30  # bytes, besides what torch takes
SYSTEM = """/usr /lib /lib64 /etc/ld.so.cache /dev/null /dev/urandom
    /proc/self /proc/cpuinfo /proc/meminfo /sys/devices/system""".split()  # what Python and torch may read
COLUMNS = ("student", "file", "notebook", "exercise", "solved", "sentence", "seed")


# ---------------------------------------------------------------- notebooks


def cells_of(path):
    """The cells of a notebook as pairs (type, source). Raises ValueError if there are none to be read."""
    try:
        with path.open("rb") as file:
            notebook = json.loads(file.read(MAX_NOTEBOOK))
        return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is no notebook: ask for the .ipynb file as Jupyter saves it.") from None


def number_of(path, cells):
    """Which notebook of the course this is, from 0 on: by its title or, without one, by its functions.

    File names do not say: they become "02_bigram (1).ipynb", "Anna 3.ipynb". Raises ValueError if it is none.
    """
    for kind, source in cells:
        title = re.search(r"^# 0?(\d) ·", source, re.MULTILINE) if kind == "markdown" else None
        if title and int(title[1]) < len(check.NOTEBOOKS):
            return int(title[1])
    defined = set(re.findall(r"^def (\w+)", "\n".join(code_of(cells)), re.MULTILINE))
    counts = [len(defined & set(notebook.EXERCISES)) for notebook in check.NOTEBOOKS]
    if not any(counts):
        raise ValueError(f"{path} is no notebook of the course: it has neither a title nor a function of it.")
    return counts.index(max(counts))


def code_of(cells):
    """The sources of the code cells."""
    return [source for kind, source in cells if kind == "code"]


def students_of(paths):
    """The name of each file's student: its folder or, if that is the same for all, the file's own name."""
    folders = [path.absolute().parent.name for path in paths]
    return folders if len(set(folders)) > 1 else [path.stem for path in paths]


# ---------------------------------------------------------------- the worker


def readable():
    """The files and folders that Python and torch are loaded from; none that holds the course."""
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {PACKAGES, f"{sys.base_prefix}/lib", *os.environ.get("LD_LIBRARY_PATH", "").split(":")}
    folders = (folders | set(SYSTEM)) - {""}
    return sorted(folder for folder in folders if not ROOT.is_relative_to(Path(folder).resolve()))


def answers_of(names, code, start, seconds):
    """(answers, how it ended): run the functions of these exercises in a worker.

    answers is a dict from (exercise, number of the case) to (fault or None, values). What the worker left is
    its own word, perhaps a forged one: good for being compared, not for being believed. Raises ValueError if
    the worker ended before any of the learner's code was run.
    """
    words = dict(names=names, cells=code, seconds=seconds, memory=MEMORY)
    words |= dict(packages=PACKAGES, readable=readable())
    raw, ended = run_worker(
        pack(words, [tuple(args for args, _ in cases_of(name, start)) for name in names]),
        START + 3 * seconds * len(names),
    )
    answers = {}
    file = io.BytesIO(raw)
    with contextlib.suppress(Exception):  # damage can surface anywhere in the reading, and is its end
        while head := file.read(8):
            words, values = unpack(file.read(int.from_bytes(head, "little")))
            answers[words["name"], words["case"]] = words.get("fault"), values
    if (None, None) not in answers:
        raise ValueError(f"the worker could not start: {ended}. Does python -I -c 'import torch' work?")
    return answers, ended


def run_worker(task, seconds):
    """(what a worker wrote, in bytes, and how it ended, in words) on a task in bytes, in so many seconds."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as written,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        given.write(task)
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", "-c", WORKER.read_text(encoding="utf-8")],
            stdin=given, stdout=written, stderr=subprocess.DEVNULL, cwd=folder, start_new_session=True,
            env=kept | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(OSError):  # nothing is left of it
                os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
            process.wait()
        written.seek(0)
        return written.read(MAX_ANSWERS), how_it_ended(status)


def how_it_ended(status):
    """Words for the exit status of a worker; None if it did not end by itself."""
    if status in (None, -14, -24, -27):  # the numbers of SIGALRM, SIGXCPU and SIGPROF
        return "it takes too long"
    if status == -9:  # SIGKILL: by a limit, or by a system without memory
        return "it takes too long, or too much memory"
    return f"the process died of signal {-status}" if status < 0 else "it ended the process"


# ---------------------------------------------------------------- the verdict


@functools.cache
def cases_of(name, start):
    """The cases of an exercise as pairs (arguments, right answer); equal starts give equal cases.

    None of them is one of `check`, whose seeds are 0 to 19 and known to everybody.
    """
    seeds = random.Random(f"{start} {name}").sample(range(1000, 1 << 48), check.CASES)
    cases = [check.case(name, seed) for seed in seeds]
    return [(args, check.EXERCISES[name].slow(*args)) for args in cases]


def verdicts(code, names, start, seconds):
    """Pairs (exercise, what is wrong, empty if it is solved) for the code cells of a notebook.

    All exercises share one worker. If one of them ends it, another worker goes on behind that one.
    """
    names = list(names)
    while names:
        answers, ended = answers_of(names, code, start, seconds)
        known = {name for name, _ in answers}  # a fault of the notebook, or that it was begun
        go_on = True
        while names and go_on:
            name = names.pop(0)
            got = [answers.get((name, n)) for n in range(check.CASES)]
            finished = None not in got or any(message and message[0] for message in got)
            yield name, wrong_with(name, start, got, ended)
            go_on = finished and names and names[0] in known


def wrong_with(name, start, got, ended):
    """What is wrong with the messages got on the cases of an exercise (None: missing); "" if nothing."""
    failed = []
    for n, (message, (args, expected)) in enumerate(zip(got, cases_of(name, start))):
        if message is None:
            return f"no answer on case {n + 1} of {check.CASES}: {ended}."
        fault, values = message
        if fault or len(values) != 2:
            return str(fault or "the answer is damaged.")
        answer, args_after = values
        if not agree(args, args_after):
            return f"on case {n + 1} of {check.CASES} it changes its input: work on a copy, x.clone()."
        if not agree(expected, answer):
            failed.append(check.Failure(n, args, expected, answer))
    return f"{len(failed)} of {check.CASES} answers are wrong. {diagnosis(name, failed)}" if failed else ""


def agree(expected, got):
    """Is an answer right? In values and dtype, as for `check`; what cannot be compared is wrong."""
    try:
        return check._same(expected, got) and check._dtypes(expected) == check._dtypes(got)
    except Exception:  # a whole number that no float can hold, a dtype that has no double
        return False


def diagnosis(name, failed):
    """What `check` would say of these failures; the learner's function is not called for it."""
    try:
        sentence = check._diagnosis(check.EXERCISES[name], lambda *args: None, failed)
    except Exception:  # a mistake that cannot be made on these cases
        return ""
    return "" if sentence.startswith("None that I know") else sentence


# ---------------------------------------------------------------- the table


def rows_of(path, student, start, seconds):
    """The rows of one file, as dicts by COLUMNS. Raises ValueError if it is no notebook of the course."""
    cells = cells_of(path)
    number = number_of(path, cells)
    names, code = check.NOTEBOOKS[number].EXERCISES, code_of(cells)
    if sum(map(len, code)) > MAX_CODE:
        raise ValueError(f"{path} holds more than {MAX_CODE:,} characters of code: look at it yourself.")
    for name, wrong in verdicts(code, names, start, seconds):
        sentence = f"Not solved: {wrong}" if wrong else "Solved"
        values = (student, str(path), number, name, "no" if wrong else "yes", sentence, start)
        yield dict(zip(COLUMNS, values))


def plain(value):
    """A value for a line or a cell of a table: without control characters, and never a formula."""
    text = "".join(c if c.isprintable() else " " for c in str(value)).strip()
    text = text if len(text) <= 300 else f"{text[:297]}..."
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def as_csv(rows):
    """Rows as the bytes of a CSV file."""
    page = io.StringIO()
    writer = csv.DictWriter(page, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: plain(value) for key, value in row.items()} for row in rows)
    return page.getvalue().encode("utf-8")


def grade(paths, start, seconds=SECONDS):
    """Print the table line by line; returns its rows, and whether all files could be read."""
    students = students_of(paths)
    width = min(30, max(map(len, students)))
    rows, all_read = [], True
    for path, student in zip(paths, students):
        try:
            for row in rows_of(path, student, start, seconds):
                rows.append(row)
                line = f"{plain(student):{width}}  {row['exercise']:22} {plain(row['sentence'])}"
                print(line, flush=True)
        except ValueError as error:
            all_read = False
            rows.append(
                dict.fromkeys(COLUMNS, "") | dict(student=student, file=path, solved="no", seed=start)
            )
            rows[-1]["sentence"] = str(error)
            print(f"{plain(student):{width}}  {'':22} {plain(error)}", flush=True)
    return rows, all_read


def main(arguments=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--csv", type=Path, help="write the table to this file too")
    parser.add_argument("--seed", type=int, help="repeat the cases of an earlier table")
    parser.add_argument(
        "--seconds", type=int, default=SECONDS, help="of computing, for one exercise (%(default)s)"
    )
    args = parser.parse_args(arguments)
    start = secrets.randbelow(10**9) if args.seed is None else args.seed
    if landlock_version() < 1:
        print(
            "This machine has no Landlock: a function could read the course from the disk.", file=sys.stderr
        )
    try:
        check_whole("seconds", args.seconds)
        check_whole("seed", start, least=0)
        rows, all_read = grade(args.files, start, args.seconds)
        if args.csv:
            write_whole(args.csv, as_csv(rows))
    except ValueError as error:
        parser.error(str(error))
    solved = sum(row["solved"] == "yes" for row in rows)
    print(f"{solved} of {len(rows)} solved. The same cases again: --seed {start}")
    return 0 if all_read else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show is no reason to end
    sys.exit(main())
