"""Other machines: setting up without make, and what Windows and macOS do otherwise, simulated here."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import another_machine
import pytest
import torch
from notebook_files import ROOT

from helpers import data
from helpers.__main__ import COMMANDS
from helpers.checkpoint import read_file, write_file
from helpers.program import setup
from helpers.program.run import check_folder

NEEDS_POSIX = pytest.mark.skipif(os.name != "posix", reason="a matter of POSIX")
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
PROGRAMS = sorted([*(ROOT / "helpers").rglob("*.py"), *(ROOT / "tools").glob("*.py")])
FOLDER = "Kurs für Ägypten ≈"  # blanks, umlauts, and a sign that no Windows code page has

# ---------------------------------------------------------------- setup


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course in a folder of its own, as the module sees it; nothing in it is real."""
    (tmp_path / "requirements.txt").touch()
    for name, value in (("ROOT", tmp_path), ("VENV", tmp_path / ".venv")):
        monkeypatch.setattr(setup, name, value)
    for name in ("PYTHON", "STAMP"):
        monkeypatch.setattr(setup, name, tmp_path / getattr(setup, name).relative_to(ROOT))
    return tmp_path


@pytest.fixture
def calls(course, monkeypatch):
    """What would be run: a list of (words, variables). A pip that is run succeeds, unless .fails is set."""

    class Calls(list):
        fails = ""

    made = Calls()

    def call(command, **variables):
        words = [str(word) for word in command]
        made.append((words, variables))
        if made.fails and made.fails in words:
            return 1
        if "venv" in words:
            setup.PYTHON.parent.mkdir(parents=True, exist_ok=True)
            setup.PYTHON.touch()
        return 0

    monkeypatch.setattr(setup, "call", call)
    monkeypatch.setattr(setup, "is_usable", lambda python: python.exists())
    return made


def what(calls):
    """The module that each call runs."""
    return [words[words.index("-m") + 1] for words, _ in calls]


def test_setup_makes_an_environment_and_installs_into_it_once(calls, capsys):
    assert setup.setup(["--extra-index-url", "there"]) == 0
    assert what(calls) == ["venv", "pip"] and setup.STAMP.exists()
    (venv, _), (pip, _) = calls
    assert venv == [sys.executable, "-m", "venv", "--clear", str(setup.VENV)]
    assert pip[0] == str(setup.PYTHON)
    assert pip[-4:] == ["--extra-index-url", "there", "-r", "requirements.txt"]
    assert "takes minutes" in capsys.readouterr().out
    assert setup.setup() == 0 and len(calls) == 2 and capsys.readouterr().out == "", "it stands"


def test_a_list_that_is_newer_than_the_stamp_is_installed_again(calls, course):
    setup.setup()
    now = setup.STAMP.stat().st_mtime
    os.utime(course / "requirements.txt", (now + 5, now + 5))
    setup.setup()
    assert what(calls) == ["venv", "pip", "pip"]
    setup.PYTHON.unlink()  # the system's Python was updated
    os.utime(setup.STAMP, (now + 9, now + 9))
    setup.setup()
    assert what(calls)[3:] == ["venv", "pip"]


@pytest.mark.parametrize("step, sentence", [("venv", "python3-venv"), ("pip", "with a network and some")])
@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
def test_what_is_not_installed_has_no_stamp(calls, course, step, sentence, before):
    if before:  # an older stamp may not stand for a newer list
        setup.setup()
        os.utime(course / "requirements.txt", (time.time() + 99,) * 2)
        if step == "venv":
            setup.PYTHON.unlink()
    calls.fails = step
    with pytest.raises(SystemExit, match=sentence) as ended:
        setup.setup()
    assert "\n" not in str(ended.value) and "give the same command again" in str(ended.value)
    assert not setup.STAMP.exists()
    calls.fails = ""
    os.utime(course / "requirements.txt", (time.time() - 99,) * 2)
    assert setup.setup() == 0 and setup.STAMP.exists()


def test_a_folder_that_takes_no_file_is_one_sentence(calls, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    monkeypatch.setattr(setup, "is_usable", lambda python: True)
    with pytest.raises(SystemExit, match=r"cannot be written to \(No space left on device\): see who may"):
        setup.setup()


def test_an_old_python_is_refused_but_can_start_what_stands(calls, monkeypatch):
    monkeypatch.setattr(setup, "OLDEST_PYTHON", (sys.version_info[0], sys.version_info[1] + 1))
    with pytest.raises(SystemExit, match=r"^Python 3\.\d+ or newer is needed, and this is 3\.[^\n]+$"):
        setup.setup()
    assert calls == []
    setup.PYTHON.parent.mkdir(parents=True)
    for path in (setup.PYTHON, setup.STAMP):
        path.touch()
    assert setup.test() == 0 and what(calls) == ["pytest"]


def test_an_old_python_can_read_what_refuses_it():
    for name in ("__init__.py", "__main__.py", "program/__init__.py", "program/setup.py"):
        source = (ROOT / "helpers" / name).read_text(encoding="utf-8")
        tree = ast.parse(source, feature_version=(3, 7))
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        imported |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        assert {module.split(".")[0] for module in imported} <= sys.stdlib_module_names, name


def test_only_a_new_python_with_pip_is_usable(tmp_path, monkeypatch):
    assert setup.is_usable(Path(sys.executable))
    assert not setup.is_usable(tmp_path / "python"), "there is none"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    bare = tmp_path / "env" / setup.PYTHON.relative_to(setup.VENV)
    assert bare.exists() and not setup.is_usable(bare), "as Debian leaves it behind"
    monkeypatch.setattr(setup, "OLDEST_PYTHON", (9, 0))
    assert not setup.is_usable(Path(sys.executable))


@pytest.mark.parametrize("made", [True, pytest.param(False, marks=pytest.mark.faults)])
def test_a_real_environment_below_a_folder_with_blanks_and_umlauts(tmp_path, made):
    folder = tmp_path / FOLDER
    if made:  # to be quick: one that borrows the pip of this one
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
        (packages,) = [p for p in (folder / ".venv").rglob("site-packages") if not p.is_symlink()]
        (packages / "pip.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (folder / "helpers" / "program").mkdir(parents=True)
    for name in ("__init__.py", "__main__.py", "program/__init__.py", "program/setup.py"):
        shutil.copy(ROOT / "helpers" / name, folder / "helpers" / name)

    def run(requirements, python=sys.executable):
        if requirements:
            (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
        return subprocess.run(
            [python, "-m", "helpers", "setup", "--no-index"],
            cwd=folder, capture_output=True, encoding="utf-8", timeout=120,
            env={k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | {"PYTHONUTF8": "1"},
        )  # fmt: skip

    done = run("no-such-package==1\n")
    assert done.returncode == 1 and "No matching distribution" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("The packages are not installed"), "last, and in one line"
    assert not (folder / ".venv" / "installed").exists()
    done = run("# nothing\n")
    assert (done.returncode, done.stderr) == (0, "") and (folder / ".venv" / "installed").exists()
    own = folder / setup.PYTHON.relative_to(ROOT)
    for python in (sys.executable, own):
        done = run("", python)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "it stands"


# ---------------------------------------------------------------- lab and test


@pytest.fixture
def stands(calls):
    """An environment that is installed; yields what is run in it."""
    setup.setup()
    calls.clear()
    return calls


def test_lab_asks_the_doctor_first_and_hands_its_words_on(stands):
    assert setup.lab(["--no-browser", "--ServerApp.port=9"]) == 0
    assert what(stands) == ["helpers", "jupyterlab"] and stands[0][0][-1] == "doctor"
    words, _ = stands[1]
    assert words[0] == str(setup.PYTHON) and words[-2:] == ["--no-browser", "--ServerApp.port=9"]
    assert {"--ServerApp.ip=127.0.0.1", "--config=tools/jupyter_config.py"} <= set(words)
    assert not [word for word in words if ".token" in word], "JupyterLab keeps its own"
    assert ("--allow-root" in words) is (hasattr(os, "geteuid") and os.geteuid() == 0)
    stands.clear()
    stands.fails = "doctor"
    assert setup.lab() == 1 and what(stands) == ["helpers"], "what stops the course stops the lab"


def test_test_runs_all_or_the_paths_that_it_is_given(stands, course, monkeypatch):
    (course / "notebooks").mkdir()
    for name in ("notebooks/01_a.ipynb", "notebooks/02_b.ipynb", "test_c.py"):
        (course / name).touch()
    monkeypatch.delenv("THREADS", raising=False)
    setup.test(["-k", "x" * 300])  # no path can be as long
    words, variables = stands[0]
    assert words[-5:] == ["notebooks/02_b.ipynb", "notebooks/01_a.ipynb", "tests", "-k", "x" * 300]
    given = dict(OMP_NUM_THREADS="1", COURSE_DEVICE="cpu", COURSE_CORPUS="", PYTHONUTF8="1")
    given["COURSE_PRESET"] = "course-cpu"
    assert given.items() <= variables.items()
    monkeypatch.setenv("THREADS", "3")
    setup.test(["test_c.py::test_d", "-x"])
    words, variables = stands[1]
    assert words[-2:] == ["test_c.py::test_d", "-x"] and "tests" not in words
    assert variables["OMP_NUM_THREADS"] == "3"


def test_every_command_says_what_it_takes(calls, capsys):
    for name in ("setup", "lab", "test"):
        with pytest.raises(SystemExit):
            getattr(setup, name)(["--help"])
        assert f"usage: python -m helpers {name} [" in capsys.readouterr().out
    assert calls == []


CHILD = """
import signal, sys, time
def end(number, frame): print("ends", number, flush=True); sys.exit(7)
signal.signal(signal.SIGINT, end); signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from helpers.program.setup import call
sys.exit(call([sys.executable, "-c", sys.argv[1]]))
"""


@NEEDS_POSIX
@pytest.mark.parametrize("key", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_end_with_the_status_of_what_is_run(key):
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding="utf-8", start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    # A terminal sends Ctrl-C to all; `kill` reaches the parent alone.
    os.killpg(process.pid, key) if key == signal.SIGINT else process.send_signal(key)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (7, f"ends {int(key)}\n", "")


@NEEDS_POSIX
def test_a_signal_is_reported_as_a_shell_does_and_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert setup.call([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# ---------------------------------------------------------------- one definition


def test_make_calls_these_commands():
    if shutil.which("make") is None:
        pytest.skip("no make")

    def said(*words):
        command = ["make", "-n", "-o", ".venv/installed", *words, "PYTHON=py"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}  # no make around
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8", check=True
        ).stdout

    assert said("test", "THREADS=3", "TEST_ARGS=-x") == "THREADS=3 py -m helpers test -x\n"
    assert said("lab", "LAB_ARGS=--no-browser") == "py -m helpers lab --no-browser\n"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert ".venv/installed: requirements.txt\n\t$(PYTHON) -m helpers setup $(PIP_ARGS)\n" in makefile


def test_codespaces_and_the_workflow_do_what_people_are_told():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    told = (ROOT / "docs" / "elsewhere.md").read_text(encoding="utf-8")
    assert f"\n{container['postCreateCommand']} " in told, "the same command, with a remark behind it"
    *command, index = shlex.split(container["postCreateCommand"])
    assert command == ["python3", "-m", "helpers", "setup", "--extra-index-url"]
    own = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert own == "${containerWorkspaceFolder}/.venv/bin/python"
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    versions = re.search(r"python: \[(.*)\]", workflow)[1].replace('"', "").split(", ")
    *some, last = versions
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python {', '.join(some)} or {last}" in readme
    assert re.search(r":3\.\d+$", container["image"])[0].removeprefix(":") in versions
    systems = re.search(r"system: \[(.*)\]", workflow)[1]
    assert systems == "ubuntu-latest, windows-latest, macos-latest"
    assert f"PIP_EXTRA_INDEX_URL: {index}\n" in workflow, "both take the builds without CUDA"
    for name in ("setup", "lab", "test"):
        assert name in COMMANDS and f"python3 -m helpers {name}" in told


# ---------------------------------------------------------------- other encodings and newlines


def unnamed_encodings(tree):
    """The lines that open a text without saying how it is encoded: a system may have another opinion."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called, keys = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        name = called.rpartition(".")[2]
        modes = [keys.get("mode", ""), *map(ast.unparse, node.args[:2])]  # it comes first in path.open
        text = {
            "open": called != "os.open" and not any(re.fullmatch("'[rwax+]*b[rwax+]*'", m) for m in modes),
            "fdopen": True,
            "read_text": not node.args,
            "write_text": len(node.args) < 2,
        }.get(name, "True" in (keys.get("text"), keys.get("universal_newlines")))
        if text and "encoding" not in keys:
            yield node.lineno


@pytest.mark.parametrize(
    "line, found",
    [
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("p.open()", True),
        ("p.read_text()", True),
        ("p.write_text(t)", True),
        ("subprocess.run(c, text=True)", True),
        ("open(p, 'rb')", False),
        ("p.open('xb')", False),
        ("os.open(p, os.O_RDONLY)", False),
        ("p.read_text('utf-8')", False),
        ("p.write_text(t, encoding='utf-8')", False),
        ("subprocess.run(c, text=True, encoding='utf-8')", False),
    ],
)
def test_what_names_no_encoding_is_found(line, found):
    assert list(unnamed_encodings(ast.parse(line))) == [1] * found


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_program_is_the_same_on_every_system(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert list(unnamed_encodings(tree)) == [], "lines that leave the encoding to the system"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if path.parent.name == "tools":  # what they write, git compares
        texts = [c for c in calls if ast.unparse(c.func).endswith(".write_text")]
        assert all("newline" in {k.arg for k in c.keywords} for c in texts)
        assert "nbformat.write" not in {ast.unparse(c.func) for c in calls}, "it takes the system's newlines"
    if "__name__ ==" in source and path.name != "grade_worker.py":  # which prints nothing
        assert 'sys.stdout.reconfigure(errors="replace")' in source
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top for alias in node.names} | {getattr(n, "module", "") for n in top}
    assert not names & {*another_machine.MODULES, "pwd", "pty", "tty", "msvcrt", "winreg"}


@pytest.mark.parametrize("name", ["plays", "tinyshakespeare"])
def test_a_checkout_with_the_newlines_of_windows_is_the_same_text(monkeypatch, tmp_path, name):
    text = data.load_corpus("plays").text
    raw = text.replace("\n", "\r\n").encode()
    (tmp_path / f"{name}.txt").write_bytes(raw)
    monkeypatch.setattr(data, "DATA_DIR", tmp_path)
    monkeypatch.setattr(data, "TINYSHAKESPEARE_SHA256", data.PLAYS_SHA256)
    assert data.load_corpus(name).text == text
    (tmp_path / f"{name}.txt").write_bytes(raw.replace(b"\r\n", b"\r"))
    with pytest.raises(ValueError, match="is not the expected file"):
        data.load_corpus(name)


def test_what_nbval_reads_is_the_same_in_every_encoding():
    assert (ROOT / "tests" / "nbval_sanitize.cfg").read_bytes().isascii(), "it does not say which it takes"
    assert (ROOT / "requirements.txt").read_bytes().isascii()


def test_the_names_of_all_files_are_names_on_every_system():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-s", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    files = [line.split("\t") for line in listed.split("\0") if line]
    names = [name for _, name in files]
    assert len({name.lower() for name in names}) == len(names) > 100, "capitals do not tell two files apart"
    assert all(mode.startswith("100") for mode, _ in files), "no links"
    for name in names:
        assert re.fullmatch(r"[\w./-]+", name, re.ASCII) and len(name) < 100, name
        for part in name.lower().split("/"):
            assert not part.endswith(".") and not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", part), name


# ---------------------------------------------------------------- another machine


@NEEDS_PROC
def test_what_is_read_from_a_checkpoint_lies_not_in_its_file(tmp_path):
    """Windows replaces and deletes no file that is mapped, and a run reads what it will soon replace."""
    path = tmp_path / "step.safetensors"
    write_file(path, {"a": torch.arange(3.0)}, {})
    tensors, _ = read_file(path)
    assert not another_machine.in_use(path) and tensors["a"].tolist() == [0, 1, 2]
    mapped = torch.from_file(str(path), shared=False, size=1)
    assert another_machine.in_use(path) and len(mapped), "else this test could not fail"


SMALL = (
    "--preset nanogpt-cpu --device cpu --n_layer 1 --n_head 2 --n_embd 16 --block_size 8 --batch_size 4 "
    "--max_steps 2 --eval_interval 2 --sample 20"
).split()


@pytest.mark.slow
@NEEDS_PROC
def test_the_command_line_on_another_machine(tmp_path, monkeypatch):
    """Umlauts in all paths, the terminal of Windows, no locale, a home that takes nothing, no fcntl."""
    folder = tmp_path / FOLDER
    for name in ("helpers", "tools", "notebooks", "data/runs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data/plays.txt", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "Märchen ≈.txt").write_bytes("Es war einmal … ≈\r\n".encode() * 200)
    paths = (path.relative_to(ROOT).with_suffix("") for path in PROGRAMS if not path.stem.startswith("__"))
    imports = "\n".join("import " + ".".join(path.parts) for path in paths)
    (folder / "all_modules.py").write_text(imports, encoding="utf-8")
    places = ["--corpus", "Märchen ≈.txt", "--checkpoints", "Läufe", "--out", "Läufe"]
    train = ["helpers", "train", *SMALL, *places]
    words = ["helpers", "doctor", "+", *train, "+", *train, "+", "all_modules"]

    own = "PYTHON|COURSE|LC_|LANG|XDG|MPL|JUPY|IPYTHON"
    kept = {name: value for name, value in os.environ.items() if not re.match(own, name)}
    monkeypatch.setattr(os, "environ", kept | {"HOME": os.devnull})
    monkeypatch.setattr(setup, "ROOT", folder)
    locale = "C" if torch.__file__.isascii() else "C.UTF-8"  # from elsewhere PyTorch itself is not imported
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "another_machine.py", *words], cwd=folder, capture_output=True,
        encoding="cp1252", timeout=120,
        env=os.environ | setup.instead_of_home() | {"LC_ALL": locale, "PYTHONUTF8": "0"}
        | {"PYTHONIOENCODING": "cp1252", "COURSE_DEVICE": "cpu", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "OK  text      plays: 1,178,371 characters, verified" in done.stdout
    assert done.stdout.count("best validation loss") == 2 and done.stdout.count("it goes on from there") == 1
    assert "Matplotlib created" not in done.stderr, "it has a place for its files"
    (record,) = (folder / "Läufe").glob("*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["preset"] == "nanogpt-cpu"


def test_jupyter_and_matplotlib_move_where_the_home_takes_nothing(tmp_path, monkeypatch):
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    assert setup.instead_of_home() == {} and not list(tmp_path.iterdir())
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path / "none"))
    monkeypatch.setenv("IPYTHONDIR", "mine")
    assert setup.instead_of_home() == {
        name: str(ROOT / "build" / "home" / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR")
    }


def test_a_drive_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(ValueError, match=r"cannot be used for records, as .* choose another folder"):
        check_folder("records", Path("Z:/runs"))


@NEEDS_PROC
@pytest.mark.faults
def test_files_and_runs_are_kept_on_another_machine():
    tests = [f"tests/test_{name}.py" for name in ("files", "checkpoint", "data", "large_text", "resume")]
    not_there = [  # a text that changes while its ids are mapped; a child that has fcntl, where this has none
        "test_large_text.py::test_a_text_that_changed_is_encoded_again",
        "test_resume.py::test_sigterm_saves_and_the_same_command_goes_on",
    ]
    command = [sys.executable, "tests/another_machine.py", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    command += [f"--deselect=tests/{name}" for name in not_there]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:]
