"""The repository itself: one list of versions, no pickle, nothing downloaded without being asked."""

import ast
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys

import pytest
from notebook_files import NOTEBOOKS, ROOT, cells_of

from tools.readme import PAGES, updated


def versions(path):
    """The pins of a list of requirements: a dict from name to version."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.split("#")[0].strip()]
    return dict(re.fullmatch(r"([\w.-]+)==(\S+)", line).groups() for line in lines)


REQUIREMENTS = versions(ROOT / "requirements.txt")
OWN = {"helpers", "tools", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
# Packages that another one brings along by definition.
BROUGHT_BY = {"IPython": "ipykernel", "jupyter_client": "nbclient", "coverage": "nbval"}
SOURCES = sorted(p for folder in ("helpers", "tools", "tests") for p in (ROOT / folder).glob("**/*.py"))


def trees():
    """(name, syntax tree) of every Python file and every notebook's code."""
    for path in SOURCES:
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
    for path in NOTEBOOKS:
        source = "\n".join(cell["source"] for _, cell in cells_of(path, "code"))
        yield path.name, ast.parse(source)


def git(*arguments):
    """Output of git, whoever owns the folder; skips in a copy without git."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- versions


def test_requirements_are_the_one_list_of_versions():
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").split("dependencies:")[1].splitlines()
    entries = [line.strip().removeprefix("- ") for line in lines if line.strip()]
    assert "-r requirements.txt" in entries
    assert [e for e in entries if re.search(r"[=<>]", e) and not e.startswith("python=")] == []
    for name in (".ci/run", ".github/workflows/test.yml", ".devcontainer/devcontainer.json", "Makefile"):
        assert not re.search(r"pip install .*==", (ROOT / name).read_text(encoding="utf-8")), name


def test_what_is_imported_is_required():
    required = REQUIREMENTS | versions(ROOT / "tests" / "requirements-mutants.txt")
    known = {name.lower().replace("-", "_") for name in required}
    missing = set()
    for file, tree in trees():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.split(".")[0] for name in names}:
                distribution = BROUGHT_BY.get(top, top).lower()
                if top not in sys.stdlib_module_names | OWN and distribution not in known:
                    missing.add(f"{file}: {top}")
    assert not missing


def test_what_runs_the_project_is_required():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    program = (ROOT / "helpers" / "program" / "setup.py").read_text(encoding="utf-8")
    started = set(re.findall(r"\$\(PY\) -m (\w+)", makefile) + re.findall(r'"-m", "(\w+)"', program))
    assert started >= {"jupyterlab", "pytest", "ruff"}
    for name in started - {"pip", "venv"} - OWN:
        assert name in REQUIREMENTS, name


def test_ruff_of_the_commit_hook_is_the_required_one():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.search(r"rev: v(\S+)", hooks)[1] == REQUIREMENTS["ruff"]


# ---------------------------------------------------------------- safety


def test_no_pickle_and_no_code_from_data():
    faults = []
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {a.name for a in node.names} | {getattr(node, "module", None)}
                if names & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}:
                    faults.append(f"{file}:{node.lineno} imports a pickler")
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
                if name in ("exec", "eval", "compile", "__import__", "os.system"):
                    faults.append(f"{file}:{node.lineno} calls {name}")
                if name == "torch.load" and not safe:
                    faults.append(f"{file}:{node.lineno} calls torch.load without weights_only=True")
                if any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords):
                    faults.append(f"{file}:{node.lineno} allows pickles")
                if any(k.arg == "shell" and ast.unparse(k.value) == "True" for k in node.keywords):
                    faults.append(f"{file}:{node.lineno} starts a shell")
    assert not faults


NETWORK = {
    "aiohttp",
    "ftplib",
    "http",
    "httpx",
    "requests",
    "smtplib",
    "socket",
    "socketserver",
    "ssl",
    "urllib",
}


def test_only_the_download_of_a_corpus_uses_the_network():
    users = set()
    for file, tree in trees():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.split(".")[0] for name in names} & NETWORK and not file.startswith("tests/"):
                users.add(file)
    assert users == {"helpers/files.py"}
    source = (ROOT / "helpers" / "files.py").read_text(encoding="utf-8")
    callers = [
        f.name
        for f in ast.parse(source).body
        if isinstance(f, ast.FunctionDef) and "urllib.request." in ast.unparse(f)
    ]
    assert callers == ["download"], "one place"


def test_nothing_listens_on_anything_but_localhost():
    hosts = set()
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".bind", "Server")):
                addresses = [a for a in node.args[:1] if isinstance(a, ast.Tuple)]  # (host, port)
                hosts |= {(file, ast.unparse(a.elts[0])) for a in addresses}
    assert hosts and {host for _, host in hosts} == {"'127.0.0.1'"}, hosts
    anywhere = ".".join("0000")  # the address that means every network of the machine
    commands = [ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / ".github").rglob("*.yml")]
    for path in [*commands, *SOURCES, *NOTEBOOKS]:
        page = path.read_text(encoding="utf-8")
        assert anywhere not in page and not re.search(r"\bip=(?!127\.0\.0\.1)[\d*'\"]", page), path
    assert '"--ServerApp.ip=127.0.0.1"' in (ROOT / "helpers/program/setup.py").read_text(encoding="utf-8")


IMPORT_ALL = """
import socket, sys, urllib.request
def refuse(*args, **kwargs):
    raise SystemExit("the network was used")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = urllib.request.urlopen = refuse
before = set(sys.modules)
import {modules}
from helpers.data import load_corpus
assert len(load_corpus("plays").text) == 1178371
"""


def test_everything_can_be_imported_offline_and_in_silence():
    modules = ", ".join(module_of(name) for name in HELPERS if name != "__main__.py")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", IMPORT_ALL.format(modules=modules)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_download_in_what_git_holds():
    tracked = git("ls-files").splitlines()
    assert tracked and not [name for name in tracked if "tinyshakespeare.txt" in name.lower()]
    assert "data/tinyshakespeare.txt" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    large = [n for n in tracked if (ROOT / n).is_file() and (ROOT / n).stat().st_size > 1_200_000]
    assert large == [], "a repository that is quick to clone"


# ---------------------------------------------------------------- data


def test_the_bundled_plays_are_the_ones_that_the_readme_of_the_data_describes():
    raw = (ROOT / "data" / "plays.txt").read_bytes()
    described = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert (
        hashlib.sha256(raw).hexdigest() == "4c9fb113a1082df249db994ed2a343bfd13893ef7ca4a12269b06c738f01faea"
    )
    assert hashlib.sha256(raw).hexdigest() in described
    text = raw.decode("ascii")
    assert len(text) == 1_178_371 and "1,178,371" in described
    assert len(set(text)) == 65 and "65" in described
    assert "CC0 1.0" in described


def test_newlines_are_never_converted():
    rules = (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
    assert rules.index("* text=auto eol=lf") < rules.index("data/*.txt -text"), "the last that fits counts"
    for path in [*SOURCES, *NOTEBOOKS, ROOT / "data" / "plays.txt", ROOT / "Makefile", ROOT / ".ci" / "run"]:
        assert b"\r" not in path.read_bytes(), path
    attributes = git(
        "check-attr", "text", "eol", "--", "data/plays.txt", "notebooks/02_bigram.ipynb", "Makefile"
    )
    assert "data/plays.txt: text: unset" in attributes
    assert attributes.count("eol: lf") == 3 and attributes.count("text: auto") == 2


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "runs").glob("*.json")), ids=lambda path: path.stem)
def test_records_are_whole(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    described = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    if path.stem.startswith("ladder-"):
        from helpers.ladder import RUNGS

        assert list(record) == [rung for rung in RUNGS if rung in record] and len(record) >= 9
        assert list(record.values()) == sorted(record.values(), reverse=True), "each idea is worth something"
        assert "python -m helpers ladder" in described
    elif "preset" in record:
        from helpers.presets import PRESETS

        assert record["preset"] in PRESETS
        assert {
            "corpus",
            "hardware",
            "torch",
            "python",
            "model",
            "train",
            "evals",
            "samples",
        } <= record.keys()
        assert record["best_val"] == min(point["val"] for point in record["evals"])
        assert path.stem.startswith(f"{record['preset']}-{record['corpus']}-")
        assert "python -m helpers train" in described


# ---------------------------------------------------------------- what people are told


def test_continuous_integration_runs_what_the_readme_says():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.name != "posix" or (ROOT / ".ci" / "run").stat().st_mode & 0o111, ".ci/run is executable"
    assert ci.startswith("#!") and "set -euo pipefail" in ci
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert "make test\n" in ci
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    assert re.search(r"run: python -m helpers test$", workflow, re.MULTILINE), "where make is not at hand"
    pages = [ROOT / name for name in (".ci/run", "CONTRIBUTING.md", "README.md", "data/README.md")]
    for path in [*pages, *(ROOT / "docs").glob("*.md")]:
        commands = re.findall(r"(?:^|`|\n)(?:\$ )?make ([a-z-]+)", path.read_text(encoding="utf-8"))
        assert set(commands) <= targets, f"{path.name}: {set(commands) - targets}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make test" in readme and "python3 -m helpers test" in readme


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_numbers_of_a_page_are_what_was_measured(path):
    page = path.read_text(encoding="utf-8")
    assert updated(page) == page, "make readme"


def test_the_readme_is_one_look():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 70
    assert all(f"(notebooks/{path.name})" in readme for path in NOTEBOOKS)
    behind = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert behind <= set(re.findall(r"\]\(([\w/.]+)", readme)), "nothing is hidden behind it"


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md", *(ROOT / "docs").glob("*.md")],
    ids=lambda path: path.name,
)
def test_pages_link_to_what_is_there(page):
    for target in re.findall(r"\]\(([^()\s#]+)[^()\s]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://", target):
            assert (page.parent / target).exists(), target


# ---------------------------------------------------------------- the house

HELPERS = sorted(
    path.relative_to(ROOT / "helpers").as_posix()
    for path in (ROOT / "helpers").rglob("*.py")
    if path.name != "__init__.py"
)
LESSONS = "device data tokenizer model generate optimizers train checkpoint presets".split()


def module_of(name):
    """The module in a file of helpers/, such as helpers.program.run for program/run.py."""
    return "helpers." + name.removesuffix(".py").replace("/", ".")


def overview():
    """The files of helpers/ in the order in which the overview lists them."""
    return re.findall(r"^    ([\w/]+\.py)", importlib.import_module("helpers").__doc__, re.MULTILINE)


def imports_of(name):
    """The modules of helpers/ that a file imports, anywhere in it."""
    imported = set()
    for node in ast.walk(ast.parse((ROOT / "helpers" / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: whole names are easier to follow"
            # `from helpers.program import bench` names a module, `from helpers.data import get_batch` none.
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {other for other in HELPERS if module_of(other) in imported}


def test_every_helper_stands_in_the_overview_once():
    assert sorted(overview()) == HELPERS
    lessons = [name.removesuffix(".py") for name in overview() if name.removesuffix(".py") in LESSONS]
    assert lessons == LESSONS


@pytest.mark.parametrize("name", HELPERS)
def test_a_helper_imports_only_from_those_above_it(name):
    above = overview()[: overview().index(name)]
    assert imports_of(name) <= set(above)


def test_the_lessons_need_nothing_of_what_surrounds_them():
    around = {name for name in HELPERS if "/" in name or name in ("ladder.py", "__main__.py")}
    for lesson in LESSONS:
        assert not imports_of(f"{lesson}.py") & around, lesson


def test_a_notebook_uses_its_own_pictures_and_no_other_notebooks():
    for file, tree in trees():
        modules = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        own = {m for m in modules if re.fullmatch(r"helpers\.(pictures|exercises)\.notebook_\d\d", m)}
        if file.endswith(".ipynb"):
            assert {m[-2:] for m in own} <= {file[:2]}, file


@pytest.mark.parametrize("name", HELPERS)
def test_a_helper_can_be_read(name):
    """Public things say what they are for; a function fits on a screen, and a line on a page."""
    source = (ROOT / "helpers" / name).read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree)
    assert max(map(len, source.splitlines())) <= 110
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 45, f"{node.name} is too long for a screen"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def test_what_a_page_of_the_course_tells_to_run_is_there():
    from helpers.__main__ import COMMANDS

    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "Makefile")]
    for path in [*pages, *(ROOT / "docs").glob("*.md"), *NOTEBOOKS, *SOURCES]:
        page = path.read_text(encoding="utf-8")
        for module, word in re.findall(r"-m (helpers[\w.]*) ?([a-z]*)", page):
            assert module == "helpers" and word in (*COMMANDS, ""), f"{path.name}: -m {module} {word}"
