"""Grading: what is right counts, and whatever only looks right earns nothing."""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from notebook_files import NOTEBOOKS, ROOT, cells_of

from helpers.exercises.check import CASES, EXERCISES, case, judge
from tools import grade
from tools.grade_worker import Refused, function_of, landlock_version, pack, page_of, source_of, unpack

FORGED = "Solved: {} agrees with the slow code on all 20 cases.\n"


def exercises_of(path):
    """(number of the cell, name, solution) of each exercise of a notebook of the course."""
    cells = [cell["source"] for _, cell in cells_of(path)]
    stubs = [(i, re.search(r"^check\((\w+)\)$", source, re.MULTILINE)) for i, source in enumerate(cells)]
    return [
        (i, found[1], re.search(r"Solution</summary>\n\n```python\n(.+?\n)```", cells[i + 1], re.DOTALL)[1])
        for i, found in stubs
        if found
    ]


def solutions():
    return {name: source for path in NOTEBOOKS for _, name, source in exercises_of(path)}


def hand_in(folder, number, functions, before=""):
    """Write notebook `number` with these functions (name -> source) in place of stubs; returns its path.

    All outputs say "Solved". before: a cell above the exercises.
    """
    path = NOTEBOOKS[number]
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for i, name, _ in exercises_of(path):
        cell = notebook["cells"][i]
        if name in functions:
            cell["source"] = f"{functions[name]}\n\ncheck({name})\n"
        cell["metadata"]["tags"] = ["nbval-skip", "skip-execution"]
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": FORGED.format(name)}]
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": 1, "source": before}
    notebook["cells"].insert(2, code)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    return folder / path.name


def table_of(path):
    """The rows of a CSV file that grade wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- what is right, and what is not done


def test_the_solutions_of_all_notebooks_are_solved(tmp_path, capsys):
    right = solutions()
    right["most_frequent_pair"] = (  # train_val_split and Counter are defined and imported on the page
        "def most_frequent_pair(ids):\n"
        "    ids = torch.cat(train_val_split(ids)).tolist()\n"
        "    counts = Counter(zip(ids, ids[1:]))\n"
        "    print('never seen', flush=True); display(len(counts))\n"
        "    return max(counts, key=lambda pair: (counts[pair], pair))"
    )
    paths = [hand_in(tmp_path / "hand-in", n, right) for n in range(len(NOTEBOOKS))]
    assert grade.main([*map(str, paths), "--csv", str(tmp_path / "grades.csv"), "--seed", "7"]) == 0
    rows = table_of(tmp_path / "grades.csv")
    assert [(row["exercise"], row["solved"], row["sentence"]) for row in rows] == [
        (name, "yes", "Solved") for name in EXERCISES
    ]
    assert {row["student"] for row in rows} == {path.stem for path in paths}
    assert [row["notebook"] for row in rows] == [EXERCISES[n].slow.__module__[-1] for n in EXERCISES]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXERCISES) + 1 and all(line.endswith("  Solved") for line in lines[:-1])
    assert lines[-1] == f"{len(EXERCISES)} of {len(EXERCISES)} solved. The same cases again: --seed 7"


def test_no_stub_is_solved(tmp_path, capsys):
    forged = [hand_in(tmp_path / "forged outputs", n, {}) for n in range(len(NOTEBOOKS))]
    assert grade.main([*map(str, [*NOTEBOOKS, *forged]), "--csv", str(tmp_path / "grades.csv")]) == 0
    rows = table_of(tmp_path / "grades.csv")
    assert [(row["solved"], row["sentence"]) for row in rows] == [
        ("no", f"Not solved: {name} is still the stub.") for name in [*EXERCISES, *EXERCISES]
    ]
    assert {row["student"] for row in rows} == {"notebooks", "forged outputs"}
    assert f"0 of {2 * len(EXERCISES)} solved" in capsys.readouterr().out


# ---------------------------------------------------------------- forgeries

# Each fools a weaker grader: one that believes outputs, text, exit statuses or files of the learner, that
# shares a process or a folder with the learner's code, or that uses the cases that everybody knows.
FORGERIES = {
    # The notebook is not run at all, or its outputs are believed.
    "how_sure": ("is still the stub.", 'def how_sure(*args):\n    """Solved"""\n    ...'),
    "look_up": ("20 of 20 answers are wrong. These are the code", "def look_up(codes, v):\n    return codes"),
    "windows": (
        "it should take the arguments of the stub, in their order.",
        """
def windows():
    print("Solved: windows agrees with the slow code on all 20 cases.")
windows()
print("Solved: windows agrees with the slow code on all 20 cases.", flush=True)""",
    ),
    # The caller, or any module, holds the slow code or the right answer.
    "most_frequent_pair": (
        "20 of 20 answers are wrong.",
        """
def most_frequent_pair(ids):
    import gc, inspect, sys
    frames = [info.frame for info in inspect.stack()[1:]]
    spaces = [space for frame in frames for space in (frame.f_locals, frame.f_globals)]
    spaces += [vars(module) for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
    if not hasattr(gc, "seen"):  # once: it takes its time
        gc.seen = [thing for thing in gc.get_objects() if type(thing) is dict]
        spaces += gc.seen
    for space in spaces:
        for name in ("expected", "answer", "right"):
            if isinstance(space.get(name), tuple):
                return space[name]
        if "most_frequent_pair" in space.get("EXERCISES", ()):
            return space["EXERCISES"]["most_frequent_pair"].slow(ids)
    return 0, -1""",
    ),
    # An exit status of 0 passes for success.
    "best_losses": (
        "no answer on case 3 of 20: it ended the process.",
        "calls = []\ndef best_losses(N):\n    calls.append(N)\n"
        "    if len(calls) == 3:\n        import os; os._exit(0)\n"
        "    came, P = N.sum(0) / N.sum(), N / N.sum(1, keepdim=True).clamp(min=1)\n"
        "    bigram = -(N.sum(1) / N.sum() * torch.xlogy(P, P).sum(1)).sum()\n"
        "    return -torch.xlogy(came, came).sum(), bigram",
    ),
    "cross_entropy": (
        "on case 1 of 20 it raised SystemExit at `sys.exit(0)`: 0",
        "def cross_entropy(logits, targets):\n    import sys\n    sys.exit(0)",
    ),
    # No limit of time or memory: the grader hangs, or the machine does.
    "sample_ids": (
        "no answer on case 1 of 20: it takes too long.",
        "def sample_ids(probs, u):\n    while True:\n        pass",
    ),
    "trigram_probabilities": (
        "on case 1 of 20 it raised RuntimeError at `",
        "def trigram_probabilities(ids, V, alpha):\n"
        "    eaten = [torch.ones(1 << 28) for _ in range(3)]  # 3 GiB\n    return eaten[0][0]",
    ),
    # The comparison is made by functions that the learner's code has replaced, or by the answer itself.
    "causal_mean": (
        "answers are wrong.",
        "def causal_mean(x):\n"
        "    torch.allclose = torch.equal = torch.Tensor.__eq__ = lambda *args, **settings: True\n"
        "    torch.testing.assert_close = print\n    return torch.zeros_like(x)",
    ),
    "softmax": (
        "20 of 20 answers are wrong.",
        "def softmax(scores):\n    return scores",
    ),  # and `check`, below
    "attend": (
        "20 of 20 answers are wrong. It should return a tensor, not a Yes.",
        """
class Yes:
    def __eq__(self, other):
        return True
    def __getattr__(self, name):
        return lambda *args, **settings: True
def attend(q, k, v):
    return Yes()""",
    ),
    # The worker's surroundings say where the course is. (Its own code is allowed to say it here.)
    "window_attend": (
        "on case 1 of 20 it raised ValueError at `raise ValueError(found)`: []",
        """
def window_attend(q, k, v, window):
    import os, pathlib, sys
    shown = [os.getcwd(), *sys.argv, *os.environ.values()]
    shown += pathlib.Path("/proc/self/cmdline").read_text().split("\\0")[1:]  # behind Python's own place
    shown += [path for path in sys.path if not path.endswith("-packages")]  # nor that of torch
    shown += [os.path.realpath(f"/proc/self/fd/{number}") for number in range(20)]
    found = [text for text in shown if ROOT in text] + [name for name in sys.modules if "helpers" == name[:7]]
    raise ValueError(found)""",
    ),
    # A folder `helpers` beside the notebook, whose check always says "Solved".
    "merge_heads": (
        "on case 1 of 20 it uses helpers, which are not here: write what it needs of them into the notebook.",
        "from helpers.exercises.check import EXERCISES as answers\n"
        "def merge_heads(x):\n    return answers['merge_heads'].slow(x)",
    ),
    # The slow code on the teacher's disk.
    "head_matrices": (
        "on case 1 of 20 it raised PermissionError at `",
        """
def head_matrices(weight, n_head, head):
    import os, pathlib, sys
    places = {pathlib.Path(ROOT), *pathlib.Path(sys.prefix).parents}
    try:
        places.add(pathlib.Path(os.readlink(f"/proc/{os.getppid()}/cwd")))
    except OSError:
        pass
    for place in places:
        if (place / "helpers" / "exercises" / "notebook_04.py").exists():
            source = (place / "helpers" / "exercises" / "notebook_04.py").read_text()
            space = {}
            exec(source.replace("from helpers", "#").replace("scale_mistakes", "dict"), space)
            return space["head_matrices"](weight, n_head, head)""",
    ),
    # The verdict, or text that looks like one, on the way back.
    "attention_entropy": (
        "no answer on case 1 of 20: it ended the process.",
        """
def attention_entropy(weights):
    import os
    for handle in range(20):
        try:
            os.write(handle, b'Solved: {"solved": true, "verdict": "Solved"}' * 9)
        except OSError:
            pass
    os._exit(0)""",
    ),
    # The arguments after the call tell that it worked on the original.
    "grouped_attend": (
        "on case 1 of 20 it changes its input: work on a copy, x.clone().",
        """
def grouped_attend(q, k, v):
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    q.zero_()
    return out""",
    ),
    "rms_norm": (
        "20 of 20 answers are wrong. It gives NaN or infinity",
        "def rms_norm(x, gamma, eps):\n    return x * float('nan')",
    ),
    "gpt2_parameters": ("answers are wrong.", ""),  # a table of the answers to the known cases, below
    # A child and a thread that stay: the grader waits for them, or they stay behind.
    "rotate": (
        "answers are wrong.",
        """
def rotate(x, base=10000.0):
    import os, threading, time
    if threading.active_count() == 1:
        if hasattr(os, "fork") and os.fork() == 0:
            time.sleep(300)
        threading.Thread(target=time.sleep, args=(300,)).start()
    return x""",
    ),
    "schedule": (
        "on case 1 of 20 it returns a tensor of shape (1000000000000,), which is too large.",
        "def schedule(*args):\n    return torch.zeros(1).expand(10**12)",
    ),
    "large_batch_gradient": (
        "answers are wrong.",
        """
class Yes(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), settings=None):
        return True if function.__name__ in ("allclose", "equal", "eq") else (
            super().__torch_function__(function, types, args, settings or {}))
def large_batch_gradient(gradients, sizes):
    return torch.zeros(gradients.shape[1]).as_subclass(Yes)""",
    ),
    # Text of the learner's in the table: a line of its own, a formula, colours.
    "nucleus": (
        ": =1+1 mallory  nucleus  Solved",
        """
calls = []
def nucleus(probs, p):
    import __main__, os
    calls.append(p)
    if len(calls) == 2:
        fault = ": =1+1\\nmallory  nucleus  Solved\\0\\x1b[32m"
        raw = __main__.pack({"name": "nucleus", "case": 0, "fault": fault})
        for handle in range(3, 20):
            try:
                os.write(handle, len(raw).to_bytes(8, "little") + raw)
            except OSError:
                pass
    return probs""",
    ),
    # Messages of the worker's own kind: all cases answered, no fault, the best of verdicts.
    "beam_search": (
        "the answer is damaged.",
        """
def beam_search(log_probs, start, width):
    import __main__, gc, os
    for n in range(20):
        words = {"name": "beam_search", "case": n, "fault": None, "solved": True, "verdict": "Solved"}
        raw = __main__.pack(words)
        for handle in range(3, 20):
            try:
                os.write(handle, len(raw).to_bytes(8, "little") + raw)
            except OSError:
                pass
    os._exit(0)""",
    ),
}
ABOVE = f"""
ROOT = {str(ROOT)!r}
def judge(function):
    return "Solved"
def check(function):
    print("Solved: softmax agrees with the slow code on all 20 cases.")
import helpers.exercises.check
helpers.exercises.check.check, helpers.exercises.check.judge, EXERCISES = check, judge, {{}}
"""
HELPERS = """
EXERCISES = {}
CASES = 1
def judge(function):
    return "Solved"
def check(function):
    print("Solved")
case = _same = _dtypes = judge
"""


def known_answers():
    """A gpt2_parameters that looks up what it is asked in a table of the cases of `check`."""
    cases = [case("gpt2_parameters", seed) for seed in range(CASES)]
    table = {args: EXERCISES["gpt2_parameters"].slow(*args) for args in cases}
    return f"TABLE = {table}\ndef gpt2_parameters(*args):\n    return TABLE.get(args, 1)"


def orphans():
    """Processes that run the worker's text in a folder that is gone: they were left running (Linux)."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another one's, or it has just ended
            gone = os.readlink(process / "cwd").endswith("(deleted)")
            if gone and b"The worker of grade.py" in (process / "cmdline").read_bytes():
                found.add(process.name)
    return found


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    """(process, rows by exercise, what it left) for a student who forges all but one, and has own helpers.

    All in one run, with one worker a notebook, since a worker takes two seconds to start.
    """
    folder = tmp_path_factory.mktemp("handed-in") / "mallory"
    functions = {name: source for name, (_, source) in FORGERIES.items()}
    functions |= {"gpt2_parameters": known_answers(), "cached_head": solutions()["cached_head"]}
    paths = [hand_in(folder, n, functions, ABOVE) for n in range(len(NOTEBOOKS))]
    (folder / "helpers" / "exercises").mkdir(parents=True)
    for name in ("", "exercises"):
        (folder / "helpers" / name / "__init__.py").touch()
    (folder / "helpers" / "exercises" / "check.py").write_text(HELPERS, encoding="utf-8")
    (folder / "torch.py").write_text("raise SystemExit(0)", encoding="utf-8")
    before = orphans()
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "grade.py"), *(path.name for path in paths),
         "--csv", "grades.csv", "--seconds", "2"],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    left = orphans() - before
    rows = {row["exercise"]: row for row in table_of(folder / "grades.csv")}
    return done, rows, left


@pytest.mark.slow
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_earns_nothing(forged, name):
    if name == "head_matrices" and landlock_version() < 1:
        pytest.skip("the disk can be kept from a process by Landlock only")
    row, says = forged[1][name], FORGERIES[name][0]
    assert row["solved"] == "no" and row["sentence"].startswith("Not solved: ")
    assert says in row["sentence"], row


@pytest.mark.slow
def test_forgeries_keep_nobody_from_being_graded(forged):
    done, rows, left = forged
    assert rows.keys() == EXERCISES.keys() and done.returncode == 0
    assert [name for name, row in rows.items() if row["solved"] == "yes"] == ["cached_head"]
    lines = done.stdout.splitlines()
    assert len(lines) == len(EXERCISES) + 1, "no line of the learner's own"
    assert [line for line in lines if line.endswith("  Solved")] == [
        f"{'07_fast_and_safe':24}  {'cached_head':22} Solved"
    ]
    assert re.fullmatch(rf"1 of {len(EXERCISES)} solved\. The same cases again: --seed \d+", lines[-1])
    assert not left, "processes that a learner's code started"


@pytest.mark.parametrize("name", ["gpt2_parameters", "causal_mean", "most_frequent_pair"])
def test_in_one_process_with_the_slow_code_these_forgeries_pass(name, monkeypatch):
    """They are real forgeries: `check` on its known cases, in the process of the learner, is fooled."""
    for place, attribute in [(torch, "allclose"), (torch, "equal"), (torch.testing, "assert_close")]:
        monkeypatch.setattr(place, attribute, getattr(place, attribute))
    monkeypatch.setattr(torch.Tensor, "__eq__", torch.Tensor.__eq__)
    source = known_answers() if name == "gpt2_parameters" else FORGERIES[name][1]
    assert judge(function_of(name, f"import torch\n{source}")).startswith("Solved")


# ---------------------------------------------------------------- what is taken from a notebook


def slice_of(name, *cells):
    return source_of(name, page_of(cells)).split("\n")


def test_only_what_a_function_needs_is_taken():
    cells = [
        "import math, helpers.model\nfrom torch import nn, relu as r\nimport torch",
        "model = helpers.model.GPT()\nx = model(3)\nraise SystemExit",
        "SCALE = math.sqrt(2)\nSCALE *= 2\ndef half(x):\n    return x / SCALE",
        "%matplotlib inline\n!pip install this\nfor j in range(3):\n    %time half(j)\nhalf?",
        "TABLE = {}\nfor i in range(3):\n    TABLE[i] = half(i)\nOTHER = TABLE[0]",
        "def f(x):\n    return 'first'",
        "def f(x, act=r):\n    model = half(x)  # its own\n    return act(model) + TABLE[0]\nf(3)",
        "print('Solved')\ncheck(f)",
    ]
    assert [line for line in slice_of("f", *cells) if line] == [
        "import math", "from torch import relu as r", "SCALE = math.sqrt(2)", "SCALE *= 2",
        "def half(x):", "    return x / SCALE", "TABLE = {}", "for i in range(3):", "    TABLE[i] = half(i)",
        "def f(x, act=r):", "    model = half(x)", "    return act(model) + TABLE[0]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cells, taken",
    [
        (["from math import *", "def f(x):\n    return sqrt(x)"], "from math import *"),
        (["def f(x):\n    return x", "f = torch.compile(f)", "import torch"], "f = torch.compile(f)"),
        (["f = lambda x: x + 1"], "f = lambda x: x + 1"),
        (["def f(x):\n    return g(x)", "def g(x):\n    return f(x - 1) if x else 0"], "def g(x):"),
        (["class A:\n    b = 3", "def f(x: A):\n    return x"], "class A:"),
        (["import torch", "torch.x = 3", "def f(x):\n    return torch.x"], "torch.x = 3"),
    ],
)
def test_ways_to_need_something(cells, taken):
    assert taken in slice_of("f", *cells)


@pytest.mark.parametrize(
    "cell, sentence",
    [
        ("def g(x):\n    return x", "the notebook has no function f."),
        ("f.x = 3", "the notebook has no function f."),
        ("def f(x):\n  return (", "the cell of f cannot be read as Python ('(' was never closed, line 2)."),
        ("def f(x):\n    return '\0'", "the cell of f cannot be read as Python (source code string cannot "),
        ('def f(x):\n    """Doc."""\n    ...', "f is still the stub."),
        ("def f(x):\n    raise NotImplementedError", "f is still the stub."),
        ("def f(x):\n    # what to do\n    pass", "f is still the stub."),
        ("def f(x):\n    return x\ndef f(x): ...", "f is still the stub."),
        (f"f = {'(' * 5000}1{')' * 5000}", "the cell of f cannot be read as Python ("),
    ],
)
def test_without_a_function_there_is_one_sentence(cell, sentence):
    with pytest.raises(Refused, match=re.escape(sentence)):
        slice_of("f", "import math", cell)


# ---------------------------------------------------------------- files, names, seeds


def test_a_file_that_is_no_notebook_gets_a_sentence_and_the_others_are_graded(tmp_path, capsys):
    files = {
        "text.ipynb": "not JSON", "binary.ipynb": "\0\x7f", "list.ipynb": "[1]", "deep.ipynb": "[" * 100_000,
        "cells.ipynb": '{"cells": [{}]}', "old.ipynb": '{"worksheets": []}', "nbformat.ipynb": '{"cells": 3}',
        "large.ipynb": json.dumps(
            {"cells": [{"cell_type": "code", "source": "def attend(): ...\n" + "#" * 1_000_000}]}
        ),
        "other.ipynb": '{"cells": [{"cell_type": "markdown", "source": ["# 17 \u00b7 Another course"]}]}',
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "folder.ipynb").mkdir()
    paths = [*(tmp_path / name for name in files), tmp_path / "folder.ipynb", tmp_path / "missing.ipynb"]
    paths.append(hand_in(tmp_path, 5, {}))
    assert grade.main([*map(str, paths), "--csv", str(tmp_path / "out.csv")]) == 1
    rows = table_of(tmp_path / "out.csv")
    for path, row in zip(paths[:-1], rows):
        assert row["solved"] == "no" and row["exercise"] == "" and row["student"] == path.stem
        assert re.fullmatch(
            rf"{re.escape(str(path))} (is no notebook|cannot be read|holds more than).*\.", row["sentence"]
        )
    of_05 = [name for name, exercise in EXERCISES.items() if exercise.slow.__module__.endswith("05")]
    assert [row["exercise"] for row in rows[len(paths) - 1 :]] == of_05
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


def test_a_notebook_is_known_by_its_title_or_its_functions():
    code = [("code", "def attend(q, k, v):\n    ..."), ("code", "def rotate(x): ...\ndef softmax(x): ...")]
    path = Path("05 (2).ipynb")
    assert grade.number_of(path, [("markdown", "[← 01](x)\n\n# 02 · Bigram"), *code]) == 2
    assert grade.number_of(path, code) == 3
    assert grade.number_of(path, [("markdown", "# 09 · Anna"), ("raw", "# 02 · B"), *code]) == 3
    assert [grade.number_of(p, grade.cells_of(p)) for p in NOTEBOOKS] == list(range(len(NOTEBOOKS)))
    with pytest.raises(ValueError, match="is no notebook of the course"):
        grade.number_of(path, [("markdown", "# 02 · Bigram".replace("·", "-"))])


def test_students_are_folders_or_files():
    assert grade.students_of([Path("a/02.ipynb"), Path("b/02.ipynb")]) == ["a", "b"]
    assert grade.students_of([Path("x/anna.ipynb"), Path("x/ben.ipynb")]) == ["anna", "ben"]
    assert grade.students_of([Path("x/anna.ipynb")]) == ["anna"]


def test_a_table_holds_no_formula_and_no_control_character():
    row = dict.fromkeys(grade.COLUMNS, "x") | {"student": "=HYPERLINK()", "file": "a\nb\x1b[0m,\u202e"}
    assert grade.as_csv([row]).decode().splitlines()[1] == '\'=HYPERLINK(),"a b [0m,",x,x,x,x,x'


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        grade.main([str(NOTEBOOKS[4]), "--csv", str(tmp_path / "file" / "grades.csv")])
    assert end.value.code == 2 and "grades.csv cannot be written" in capsys.readouterr().err


def test_cases_are_new_and_a_seed_repeats_them():
    for name in EXERCISES:
        assert len(grade.cases_of(name, 5)) == CASES
    first = [args for args, _ in grade.cases_of("gpt2_parameters", 0)]
    assert not set(first) & {case("gpt2_parameters", seed) for seed in range(CASES)}
    grade.cases_of.cache_clear()
    assert first == [args for args, _ in grade.cases_of("gpt2_parameters", 0)]
    assert first != [args for args, _ in grade.cases_of("gpt2_parameters", 1)]


def test_without_landlock_the_teacher_is_told(monkeypatch, capsys):
    monkeypatch.setattr(grade, "landlock_version", lambda: -1)
    grade.main([str(NOTEBOOKS[4])])
    assert "could read the course from the disk" in capsys.readouterr().err


def test_a_machine_where_the_worker_does_not_start_fails_nobody(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(grade, "WORKER", tmp_path / "worker.py")
    (tmp_path / "worker.py").write_text("import nothing_of_this_name", encoding="utf-8")
    assert grade.main([str(NOTEBOOKS[4])]) == 1
    assert "the worker could not start: it ended the process." in capsys.readouterr().out


# ---------------------------------------------------------------- messages


def test_a_message_brings_back_what_it_was_given():
    x = torch.arange(6.0).view(2, 3)
    values = [(x, x.T, 3, (2.5, True)), torch.tensor([True]), float("-inf"), x[:0], x[0, 0]]
    words, got = unpack(pack({"a": [1, "b"]}, values))
    assert words == {"a": [1, "b"]} and torch.equal(got[0][1], x.T) and got[0][2:] == (3, (2.5, True))
    assert got[1].dtype == torch.bool and got[2] == float("-inf") and got[3].shape == (0, 3)
    assert got[4].shape == () and type(got[0][3][1]) is bool
    _, got = unpack(pack({}, [None, [1, 2], "text"]))
    assert [type(thing).__name__ for thing in got] == ["NoneType", "list", "str"], "and nothing in them"


def test_damaged_messages_are_no_answers(monkeypatch):
    x = torch.ones(2, 3)
    ready, good = pack({"name": None, "case": None}), pack({"name": "f", "case": 0}, [x, (x,)])
    whole = b"".join(len(raw).to_bytes(8, "little") + raw for raw in (ready, good))
    start = 8 + len(ready)
    g = torch.Generator().manual_seed(0)
    for _ in range(300):
        raw = bytearray(whole)
        at = torch.randint(start, len(raw), (), generator=g).item()
        raw[at] ^= 1 << torch.randint(8, (), generator=g).item()
        if torch.rand((), generator=g) < 0.3:
            raw = raw[:at]
        monkeypatch.setattr(grade, "run_worker", lambda task, seconds, raw=raw: (bytes(raw), "it ended"))
        grade.answers_of([], [], 0, 1)  # raises nothing
    monkeypatch.setattr(grade, "run_worker", lambda task, seconds: (whole, "it ended"))
    assert ("f", 0) in grade.answers_of([], [], 0, 1)[0]


@pytest.mark.parametrize(
    "answer",
    [
        10**400,
        float("nan"),
        torch.ones(2, 2).double(),
        (),
        torch.zeros(2, 2, dtype=torch.complex64),
        [1.0],
        "x",
        (1, (2, 3)),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_what_cannot_be_compared_is_wrong(answer):
    assert not grade.agree(torch.ones(2, 2), answer) and not grade.agree(1.5, answer)
    name = "causal_mean"
    got = [(None, [answer, args]) for args, _ in grade.cases_of(name, 0)]
    assert grade.wrong_with(name, 0, got, "").startswith("20 of 20 answers are wrong.")
