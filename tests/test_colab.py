"""A simulated Colab: a fresh folder, one notebook, google.colab in its kernel, the course not on the path.

git is called here, on a repository that the tests make in a temporary folder and read by a file address.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from notebook_files import NOTEBOOKS, ROOT, cells_of

from tools.colab import stamp

SETUP = cells_of(NOTEBOOKS[0], "code")[0][1]["source"]
ASK_AGAIN = "upload course.zip next to this notebook, and run this again."


def course_files():
    """What `make zip` packs, as far as a notebook needs it: (path, name in the archive)."""
    skip = {"__pycache__", ".ipynb_checkpoints", "tinyshakespeare.txt"}
    for folder in ("helpers", "data", "notebooks"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT)
            if path.is_file() and not skip & set(name.parts) and path.suffix != ".partial":
                yield path, name.as_posix()


def make_zip(path, top=""):
    """course.zip of the working tree; top: a folder around everything, as in GitHub's own archives."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for source, name in course_files():
            file.write(source, top + name)
    return path


@pytest.fixture(scope="session")
def course_zip(tmp_path_factory):
    return make_zip(tmp_path_factory.mktemp("zip") / "course.zip")


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """The file address of a git repository that holds the working tree."""
    folder = tmp_path_factory.mktemp("public")
    for source, name in course_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name)
    git = ["git", "-c", "user.name=course", "-c", "user.email=course@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--no-verify", "-m", "course"]):
        subprocess.run([*git, *command], cwd=folder, env=clean(folder), check=True)
    return folder.as_uri()


@pytest.fixture
def colab(tmp_path):
    """The package google.colab, which a kernel on Colab imports before the first cell."""
    (tmp_path / "stub" / "google" / "colab").mkdir(parents=True)
    (tmp_path / "stub" / "google" / "colab" / "__init__.py").touch()
    return tmp_path / "stub"


@pytest.fixture
def folder(tmp_path):
    """Where the notebook lies alone, with room around it in which nothing may appear."""
    (tmp_path / "room" / "content").mkdir(parents=True)
    return tmp_path / "room" / "content"


def clean(home):
    """An environment without Python's, git's and the course's own variables."""
    kept = {k: v for k, v in os.environ.items() if not re.match("PYTHON|GIT_|COURSE_|TINYSHAKESPEARE", k)}
    return kept | {"HOME": str(home)}


def run_setup(folder, colab=None, repo="", path=None):
    """Run the setup cell in a folder, then say which helpers would be imported."""
    script = folder / "cell.py"
    enter = f"import sys; sys.path.insert(0, {str(colab)!r}); import google.colab; del sys.path[0]\n"
    leave = "\nfrom importlib.util import find_spec\nprint(find_spec('helpers').origin)"
    script.write_text((enter if colab else "") + with_repo(SETUP, repo) + leave, encoding="utf-8")
    env = clean(folder) | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    done = subprocess.run(
        [sys.executable, "-I", script.name], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )
    script.unlink()
    return done


def with_repo(source, repo):
    changed, places = re.subn(r'^COURSE_REPO = ".*?"', f'COURSE_REPO = "{repo}"', source, flags=re.MULTILINE)
    assert places == 1
    return changed


def around(folder):
    """Everything in the folder and in the room around it."""
    return {p.relative_to(folder.parent).as_posix() for p in folder.parent.rglob("*")} - {folder.name}


def refused(done):
    """The sentence that the cell ends with: one, and last."""
    assert done.returncode == 1
    kind, _, sentence = done.stderr.splitlines()[-1].partition(": ")
    assert kind == "RuntimeError" and sentence.endswith(ASK_AGAIN) and ". " not in sentence
    assert "During handling" not in done.stderr, "one error, not two"
    return sentence


# ---------------------------------------------------------------- the setup cell


def fake_git(folder, *lines):
    """A folder for the front of PATH, with a git that does something else."""
    folder.mkdir(parents=True)
    (folder / "git").write_text("\n".join(["#!/bin/sh", *lines]), encoding="utf-8")
    (folder / "git").chmod(0o755)
    return folder


def test_from_a_git_address_once(folder, colab, address, tmp_path):
    for path in (None, fake_git(tmp_path / "bin", "echo git was called again >&2")):
        done = run_setup(folder, colab, address, path)
        assert done.stdout.strip() == str(folder / "course" / "helpers" / "__init__.py"), done.stderr
        assert done.stderr == ""
        (folder / "course" / "mine.txt").touch()  # would be lost if it were fetched again
    assert (folder / "course" / "mine.txt").exists()
    assert {p.name for p in folder.iterdir()} == {"course"}


@pytest.mark.parametrize("top", ["", "course-main/"])
def test_from_an_uploaded_archive_once(folder, colab, top):
    make_zip(folder / "course.zip", top)
    for _ in range(2):
        done = run_setup(folder, colab, "file:///nowhere")  # the archive comes first
        assert done.stdout.strip() == str(folder / "course" / "helpers" / "__init__.py"), done.stderr
        (folder / "course" / "mine.txt").touch()
    assert {p.name for p in folder.iterdir()} == {"course", "course.zip"}


def test_with_neither(folder, colab):
    assert refused(run_setup(folder, colab)) == f"The course is not here: {ASK_AGAIN}"
    assert around(folder) == set()


def test_a_git_address_is_for_colab_only(folder, address):
    assert refused(run_setup(folder, None, address)).startswith("The course is not here")
    assert around(folder) == set()


@pytest.mark.parametrize("repo", ["file:///nowhere/course", "nonsense://x"])
def test_a_broken_address(folder, colab, repo):
    assert f"could not be fetched from {repo} (CalledProcessError): " in refused(
        run_setup(folder, colab, repo)
    )
    assert around(folder) == set()


def test_a_repository_that_is_not_the_course(folder, colab, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for command in (
        ["init", "-q"],
        ["-c", "user.name=o", "-c", "user.email=o", "commit", "-qm", "o", "--allow-empty"],
    ):
        subprocess.run(["git", *command], cwd=other, env=clean(other), check=True)
    assert "could not be fetched from file:" in refused(run_setup(folder, colab, other.as_uri()))
    assert around(folder) == set()


def damaged(raw, how):
    if how == "cut":
        return raw[: len(raw) // 2]
    if how == "flipped":
        at = len(raw) // 3
        return raw[:at] + bytes(b ^ 255 for b in raw[at : at + 100]) + raw[at + 100 :]
    return b"" if how == "empty" else b"this is no archive"


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "text"])
def test_a_damaged_archive_and_then_a_good_one(folder, colab, course_zip, how):
    (folder / "course.zip").write_bytes(damaged(course_zip.read_bytes(), how))
    assert "could not be fetched from course.zip (" in refused(run_setup(folder, colab))
    assert around(folder) == {"content/course.zip"}
    shutil.copy(course_zip, folder)
    assert run_setup(folder, colab).returncode == 0


def test_an_archive_of_something_else(folder, colab):
    with zipfile.ZipFile(folder / "course.zip", "w") as file:
        file.writestr("holiday/photos.txt", "sun")
    assert "could not be fetched from course.zip (" in refused(run_setup(folder, colab))
    assert around(folder) == {"content/course.zip"}


def test_an_archive_cannot_write_elsewhere(folder, colab, course_zip):
    shutil.copy(course_zip, folder)
    outside = folder.parent / "outside"
    with zipfile.ZipFile(folder / "course.zip", "a") as file:
        for name in ("../evil.txt", "../../evil.txt", "../../../evil.txt", f"{outside}/evil.txt"):
            file.writestr(name, "evil")
    assert run_setup(folder, colab).returncode == 0
    assert {
        name for name in around(folder) if "evil" in name and not name.startswith("content/course/")
    } == set()
    assert not list(folder.parent.parent.glob("evil*"))


def test_killed_while_it_fetches(folder, colab, address, tmp_path):
    half = 'for to; do :; done; mkdir -p "$to/helpers"; touch "$to/helpers/model.py"'  # to: the last argument
    killer = fake_git(tmp_path / "bin", half, "kill -9 $PPID")
    assert run_setup(folder, colab, address, path=killer).returncode < 0
    assert not (folder / "course").exists(), "half a course has not the name of a whole one"
    done = run_setup(folder, colab, address)
    assert done.stdout.strip() == str(folder / "course" / "helpers" / "__init__.py"), done.stderr


def test_nothing_is_installed_over_what_colab_has():
    for path in NOTEBOOKS:
        for i, cell in cells_of(path, "code"):
            assert not re.search(r"\bpip\b|\bconda\b|ensurepip", cell["source"]), f"{path.name}, cell {i}"


# ---------------------------------------------------------------- whole notebooks


def compared(notebook):
    """{cell number: text} of what nbval compares: no pictures, no tagged cells, numbers after ≈ masked."""
    rules = ConfigParser()
    rules.read(ROOT / "tests" / "nbval_sanitize.cfg", encoding="utf-8")
    found = {}
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
            text = "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in cell.outputs)
            for name in rules.sections():
                text = re.sub(rules[name]["regex"], rules[name]["replace"], text)
            found[i] = text
    return found


def run_on_colab(path, folder, colab):
    """Execute a copy of a notebook in a folder as Colab would; returns it, and what its last cell printed."""
    notebook = nbformat.read(path, as_version=4)
    asked = nbformat.v4.new_code_cell("import helpers\nprint(helpers.__file__, IN_COLAB)")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    notebook.cells.append(asked)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
        extra_arguments=[
            "--IPKernelApp.log_level=ERROR",
            "--InteractiveShellApp.exec_lines=import google.colab",
        ],
    )
    env = clean(os.environ.get("HOME", folder)) | {"PYTHONPATH": str(colab), "COURSE_DEVICE": "cpu"}
    client.execute(env=env)
    return notebook, notebook.cells.pop().outputs[0].text.split()


# All six take minutes; they run with the fault tests.
@pytest.mark.parametrize(
    "path",
    [NOTEBOOKS[0]] + [pytest.param(path, marks=pytest.mark.faults) for path in NOTEBOOKS[1:]],
    ids=lambda path: path.stem,
)
def test_a_notebook_alone_on_colab_gives_what_is_stored(path, folder, colab, course_zip):
    shutil.copy(course_zip, folder)
    notebook, (imported, in_colab) = run_on_colab(path, folder, colab)
    assert Path(imported).parent == folder / "course" / "helpers" and in_colab == "True"
    assert compared(notebook) == compared(nbformat.read(path, as_version=4))
    assert {p.name for p in folder.iterdir()} == {"course.zip", "course"}, "it writes into the course only"


# ---------------------------------------------------------------- make colab, and Binder


@pytest.fixture
def copy_of_the_course(tmp_path):
    for path in (ROOT / "README.md", *NOTEBOOKS):
        to = tmp_path / "copy" / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    stamp(tmp_path / "copy", "")
    return tmp_path / "copy"


def contents(root):
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_address_is_stamped_everywhere_and_taken_away_again(copy_of_the_course):
    root = copy_of_the_course
    before = contents(root)
    assert not [name for name, raw in before.items() if b"[![Open in Colab]" in raw]
    for path in (root / "notebooks").glob("*.ipynb"):
        assert 'COURSE_REPO = ""  #' in cells_of(path, "code")[0][1]["source"]
    assert len(stamp(root, "someone/old-course")) == 1 + len(NOTEBOOKS)
    stamp(root, "ada/gpt.course")
    stamped = contents(root)
    assert stamp(root, "ada/gpt.course") == [] and contents(root) == stamped, "again changes nothing"
    opens = "https://colab.research.google.com/github/ada/gpt.course/blob/main/notebooks/"
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        nbformat.validate(nbformat.read(path, as_version=4))
        title = cells_of(path, "markdown")[0][1]["source"]
        assert re.findall(r"\[!\[Open in Colab\]\(\S+?\)\]\((\S+?)\)", title) == [opens + path.name]
        assert re.search(r"^# \d\d · .+\n\n\[!\[", title, re.MULTILINE), "below the title"
        setup = cells_of(path, "code")[0][1]["source"]
        assert setup.count('COURSE_REPO = "https://github.com/ada/gpt.course"  #') == 1
        kept = [c for _, c in cells_of(path)][2:]
        assert kept == [c for _, c in cells_of(ROOT / "notebooks" / path.name)][2:], "nothing else changed"
    assert (root / "README.md").read_text(encoding="utf-8").count(opens + NOTEBOOKS[0].name) == 1
    assert b"old-course" not in b"".join(stamped.values())
    stamp(root, "")
    assert contents(root) == before
    own = re.search(r'COURSE_REPO = "(?:https://github\.com/)?(.*?)"', SETUP)[1]
    stamp(root, own)
    originals = {path.name: path.read_bytes() for path in (ROOT / "README.md", *NOTEBOOKS)}
    assert contents(root) == originals, "to the byte, so that git shows no other change"


@pytest.mark.parametrize(
    "repo", ["ada", "ada/", "https://github.com/ada/course", 'ada/x"y', "ada/a b", "-a/b\n"]
)
def test_what_is_no_repository_is_refused(copy_of_the_course, repo):
    before = contents(copy_of_the_course)
    with pytest.raises(ValueError, match="is no GitHub repository: give owner/name"):
        stamp(copy_of_the_course, repo)
    assert contents(copy_of_the_course) == before


@pytest.mark.parametrize("broken", ["title", "setup"])
def test_nothing_is_written_if_one_notebook_has_no_place_for_it(copy_of_the_course, broken):
    path = copy_of_the_course / "notebooks" / NOTEBOOKS[-1].name
    notebook = json.loads(path.read_text(encoding="utf-8"))
    kind = {"title": "markdown", "setup": "code"}[broken]
    next(cell for cell in notebook["cells"] if cell["cell_type"] == kind)["source"] = ["nothing here\n"]
    path.write_text(json.dumps(notebook), encoding="utf-8")
    before = contents(copy_of_the_course)
    with pytest.raises(ValueError, match=path.name):
        stamp(copy_of_the_course, "ada/course")
    assert contents(copy_of_the_course) == before


def test_the_course_points_to_one_address_or_to_none():
    addresses = set()
    for path in NOTEBOOKS:
        setup = cells_of(path, "code")[0][1]["source"]
        addresses.add(re.search(r'COURSE_REPO = "(?:https://github\.com/)?(.*?)"', setup)[1])
        badges = re.findall(
            r"colab\.research\.google\.com/github/([^/]+/[^/]+)/blob", path.read_text("utf-8")
        )
        addresses |= set(badges) or {""}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    addresses |= set(re.findall(r"colab\.research\.google\.com/github/([^/]+/[^/]+)/blob", readme)) or {""}
    assert len(addresses) == 1, "make colab REPO=owner/name"


def test_binder_takes_environment_yml_and_does_nothing_more():
    # Each of these would come before environment.yml, or run after it.
    others = [
        "binder",
        ".binder",
        "Dockerfile",
        "postBuild",
        "start",
        "apt.txt",
        "runtime.txt",
        "environment.yaml",
    ]
    assert [name for name in others if (ROOT / name).exists()] == []
    yml = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert re.findall(r"^  - (.*)$", yml, re.MULTILINE) == ["conda-forge", "python=3.11", "pip", "pip:"]
    assert re.findall(r"^      - (.*)$", yml, re.MULTILINE) == ["-r requirements.txt"]
