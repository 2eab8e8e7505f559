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
from tools.notebooks import normalise, write

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


def run_setup(folder, colab=None, repo="", path=None, before=""):
    """Run the setup cell in a new process, in a folder; it prints which helpers would be imported.

    colab: the folder of google.colab, if it runs on Colab. path: a PATH. before: code that runs first.
    """
    enter = f"import sys; sys.path.insert(0, {str(colab)!r}); import google.colab; del sys.path[0]\n"
    setup, places = re.subn(r'^COURSE_REPO = ".*?"', f'COURSE_REPO = "{repo}"', SETUP, flags=re.MULTILINE)
    assert places == 1
    leave = "\nfrom importlib.util import find_spec\nprint(find_spec('helpers').origin)"
    code = f"{enter if colab else ''}{before}\n{setup}{leave}"
    env = clean(folder) | ({"PATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )


def around(folder):
    """Everything in the folder and in the room around it."""
    return {p.relative_to(folder.parent).as_posix() for p in folder.parent.rglob("*")} - {folder.name}


def problem(done):
    """What a cell that failed says is wrong: one sentence, and last, which then says what to do."""
    assert done.returncode == 1
    kind, _, sentence = done.stderr.splitlines()[-1].partition(": ")
    assert kind == "RuntimeError" and sentence.endswith(ASK_AGAIN) and ". " not in sentence
    assert "During handling" not in done.stderr and "direct cause" not in done.stderr, "one error, not two"
    return sentence.removesuffix(ASK_AGAIN).rstrip(": ")


# ---------------------------------------------------------------- the setup cell

MARK = re.search('^MARK = "(.+?)"', SETUP, re.MULTILINE)[1]
COURSE = {"helpers/__init__.py": "", MARK: "", "data/plays.txt": "To be\n"}  # as much as the cell looks at


def pack(path, members):
    """A zip file with {name: text}."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)


def repository(folder, members):
    """The file address of a git repository, made in a folder, with {name: text}."""
    for name, text in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git = ["git", "-c", "user.name=course", "-c", "user.email=course@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--no-verify", "-m", "course"]):
        subprocess.run([*git, *command], cwd=folder, env=clean(folder), check=True)
    return folder.as_uri()


@pytest.fixture
def address(tmp_path):
    return repository(tmp_path / "public", COURSE)


def fake_git(folder, *lines):
    """A PATH with a git that does something else."""
    folder.mkdir(parents=True)
    (folder / "git").write_text("\n".join(["#!/bin/sh", *lines]), encoding="utf-8")
    (folder / "git").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def is_set_up(done, folder):
    """Does the cell find the course in a folder, and say nothing?"""
    return (done.stdout.strip(), done.stderr) == (str(folder / "helpers" / "__init__.py"), "")


def test_only_the_course_has_the_file_that_marks_it(folder):
    assert (ROOT / MARK).is_file()
    (folder / "helpers").mkdir()
    for name in ("__init__.py", "model.py"):  # somebody else's helpers
        (folder / "helpers" / name).touch()
    assert problem(run_setup(folder)) == "The course is not in this folder"


@pytest.mark.parametrize("inside", [".", "notebooks", "my/own notes"])
def test_the_course_is_found_from_a_folder_inside(folder, inside):
    for name in COURSE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / inside).mkdir(parents=True, exist_ok=True)
    (folder / inside / "course.zip").write_text("this is not looked at")
    (folder / inside / "helpers.py").touch()  # nor this, though it is on the path already
    before, earlier = around(folder), f"import sys; sys.path.insert(0, {str(folder / inside)!r})"
    assert is_set_up(run_setup(folder / inside, before=earlier), folder) and around(folder) == before


def test_from_a_git_address_once(folder, colab, address, tmp_path):
    for path in (None, fake_git(tmp_path / "bin", "echo git was called again >&2")):
        assert is_set_up(run_setup(folder, colab, address, path), folder / "course")
        (folder / "course" / "mine.txt").touch()  # would be lost if it were fetched again
    assert (folder / "course" / "mine.txt").exists()
    assert {p.name for p in folder.iterdir()} == {"course"}


@pytest.mark.parametrize("top", ["", "course-main/"])
def test_from_an_uploaded_archive_once(folder, colab, top):
    pack(folder / "course.zip", {top + name: text for name, text in COURSE.items()})
    for _ in range(2):
        done = run_setup(folder, colab, "file:///nowhere")  # the archive comes first
        assert is_set_up(done, folder / "course")
        (folder / "course" / "mine.txt").touch()
    assert (folder / "course" / "mine.txt").exists()
    assert {p.name for p in folder.iterdir()} == {"course", "course.zip"}


def test_with_neither(folder, colab):
    assert problem(run_setup(folder, colab)) == "The course is not in this folder"
    assert around(folder) == set()


def test_a_git_address_is_for_colab_only(folder, address):
    assert problem(run_setup(folder, None, address)) == "The course is not in this folder"
    assert around(folder) == set()


@pytest.mark.parametrize("how", ["no git", "no address", "no network", "half a clone"])
def test_git_fails(folder, colab, tmp_path, how):
    half = f'for to; do :; done; mkdir -p "$to/{MARK}"; exit 128'  # to: the last argument
    repo, path = {
        "no git": ("https://example.org/x", tmp_path),
        "no address": ("file:///nowhere/course", None),
        "no network": ("http://127.0.0.1:9/x", None),
        "half a clone": ("https://example.org/x", fake_git(tmp_path / "bin", half)),
    }[how]
    done = run_setup(folder, colab, repo, path)
    assert problem(done) == f"git is missing, or could not fetch {repo}"
    assert around(folder) == set()


def test_a_repository_that_is_not_the_course(folder, colab, tmp_path):
    other = repository(tmp_path / "other", {"README.md": "something else"})
    assert problem(run_setup(folder, colab, other)) == f"The course is not in {other}"
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
    assert problem(run_setup(folder, colab)).startswith("course.zip is damaged or something else (")
    assert around(folder) == {"content/course.zip"}
    shutil.copy(course_zip, folder)
    assert is_set_up(run_setup(folder, colab), folder / "course")


def test_an_archive_of_something_else(folder, colab):
    pack(folder / "course.zip", {"holiday/photos.txt": "sun", "helpers/model.py": ""})
    assert problem(run_setup(folder, colab)) == "The course is not in course.zip"
    assert around(folder) == {"content/course.zip"}


UNPACKS_NOTHING = "import zipfile; zipfile.ZipFile.extractall = None"  # to call it would be another error
OUTSIDE = ["../evil", "helpers/../../evil", "{}/evil", "//evil", "C:\\evil", "C:evil", "..\\evil"]


@pytest.mark.parametrize("name", [*OUTSIDE, "a link"])
def test_an_archive_that_leads_out_of_its_folder_is_refused_as_a_whole(folder, name):
    pack(folder / "course.zip", COURSE)
    member = zipfile.ZipInfo(name.format(folder.parent))
    if name == "a link":  # to a folder outside; what comes after it would be written through it
        member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "course.zip", "a") as archive:
        archive.writestr(member, str(folder.parent))
    said = problem(run_setup(folder, before=UNPACKS_NOTHING))
    assert said.endswith("(a path or a link in it leads out of its folder)")
    assert around(folder) == {"content/course.zip"}


def test_an_archive_above_200_mb_is_refused_before_it_is_unpacked(folder):
    def add(size):
        with zipfile.ZipFile(folder / "course.zip", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(f"data/{size}", bytes(size))

    pack(folder / "course.zip", COURSE)
    add(200_000_000 - sum(map(len, COURSE.values())))
    assert is_set_up(run_setup(folder), folder / "course"), "200 MB may be"
    shutil.rmtree(folder / "course")
    add(1)
    said = problem(run_setup(folder, before=UNPACKS_NOTHING))
    assert said == "course.zip is damaged or something else (it unpacks to more than 200 MB)"
    assert around(folder) == {"content/course.zip"}


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))"
LOCKED = "import os\ndef mkdir(*args): raise PermissionError(13, 'Permission denied')\nos.mkdir = mkdir"


@pytest.mark.parametrize("before", [FULL, LOCKED], ids=["full", "locked"])
def test_a_folder_that_takes_no_course(folder, before):
    pack(folder / "course.zip", COURSE | {"data/plays.txt": "To be\n" * 20_000})
    said = problem(run_setup(folder, before=before))
    why = "File too large" if before == FULL else "Permission denied"
    assert re.match(rf"\./course cannot be made \(\[Errno \d+\] {why}\): make room or", said)
    assert around(folder) == {"content/course.zip"}


def test_another_folder_of_that_name_stays_as_it_is(folder):
    (folder / "course").mkdir()
    (folder / "course" / "mine.txt").touch()
    pack(folder / "course.zip", COURSE)
    said = problem(run_setup(folder))
    assert said.startswith("./course cannot be made (") and said.endswith("choose another folder, then")
    assert around(folder) == {"content/course", "content/course/mine.txt", "content/course.zip"}


# Dies after the first member, and with it what would have cleaned up.
DIES = """import os, zipfile
def extractall(archive, folder):
    archive.extract(MARK, folder)
    os.kill(os.getpid(), 9)
zipfile.ZipFile.extractall = extractall"""


def test_killed_while_it_clones_or_unpacks(folder, colab, address, tmp_path):
    half = f'for to; do :; done; mkdir -p "$to/{MARK}"'  # to: the last argument
    killer = fake_git(tmp_path / "bin", half, "kill -9 $PPID")
    assert run_setup(folder, colab, address, path=killer).returncode == -9
    pack(folder / "course.zip", COURSE)
    assert run_setup(folder, before=DIES).returncode == -9
    assert len(list(folder.rglob("notebook_01.py"))) == 2, "two halves"
    assert not (folder / "course").exists(), "half a course has not the name of a whole one"
    assert is_set_up(run_setup(folder), folder / "course")


def test_nothing_is_installed_over_what_colab_has():
    for path in NOTEBOOKS:
        for i, cell in cells_of(path, "code"):
            source = cell["source"].replace('packages = "%pip install', "")  # what a sentence of 08 advises
            assert not re.search(r"\bpip\b|\bconda\b|ensurepip", source), f"{path.name}, cell {i}"


# ---------------------------------------------------------------- whole notebooks


def compared(notebook):
    """{cell number: text} of what nbval compares: no pictures, no tagged cells, numbers after ≈ masked."""
    rules = ConfigParser()
    rules.read(ROOT / "tests" / "nbval_sanitize.cfg", encoding="utf-8")
    found = {}
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
            texts = [o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            for name in rules.sections():  # each on its own: a rule takes the rest of a line
                texts = [re.sub(rules[name]["regex"], rules[name]["replace"], text) for text in texts]
            found[i] = "".join(texts)
    return found


def run_on_colab(path, folder, colab, packages="", after_setup=""):
    """Execute a copy of a notebook in a folder as Colab would; returns it, and what its last cell printed.

    packages: a folder of packages that come before the installed ones. after_setup: code that runs when the
    course is found, before the page imports from it.
    """
    notebook = nbformat.read(path, as_version=4)
    asked = nbformat.v4.new_code_cell("import helpers\nprint(helpers.__file__, IN_COLAB)")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs = []
    code[0].source += f"\n{after_setup}"
    notebook.cells.append(asked)
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
        extra_arguments=[
            "--IPKernelApp.log_level=ERROR",
            "--InteractiveShellApp.exec_lines=import google.colab",
        ],
    )
    search = os.pathsep.join(map(str, filter(None, (colab, packages))))
    env = clean(os.environ.get("HOME", folder)) | {"PYTHONPATH": search}
    env |= {"COURSE_DEVICE": "cpu", "COURSE_PRESET": "course-cpu"}
    client.execute(env=env)
    return notebook, notebook.cells.pop().outputs[0].text.split()


@pytest.mark.faults  # minutes; nbval has run the cells once already
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_alone_on_colab_gives_what_is_stored(path, folder, colab, course_zip):
    shutil.copy(course_zip, folder)
    notebook, (imported, in_colab) = run_on_colab(path, folder, colab)
    assert Path(imported).parent == folder / "course" / "helpers" and in_colab == "True"
    assert compared(notebook) == compared(nbformat.read(path, as_version=4))
    assert {p.name for p in folder.iterdir()} == {"course.zip", "course"}, "it writes into the course only"


IPYWIDGETS_7 = ROOT / "build" / "ipywidgets-7"
AS_ON_A_T4 = f"""
import ipywidgets
assert ipywidgets.__version__.startswith("7."), ipywidgets.__version__
sys.path.append({str(ROOT / "tests")!r})
import as_on_a_t4
"""


def panels_in(notebook):
    """{cell number: for each panel that it shows, the forms in which it does}."""
    view, found = "application/vnd.jupyter.widget-view+json", {}
    for i, cell in enumerate(notebook.cells):
        shown = [set(o.data) for o in cell.get("outputs", []) if view in o.get("data", {})]
        found |= {i: shown} if shown else {}
    return found


needs_ipywidgets_7 = pytest.mark.skipif(
    not (IPYWIDGETS_7 / "installed").exists(), reason="make build/ipywidgets-7/installed gets what Colab has"
)


@needs_ipywidgets_7
@pytest.mark.faults
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_with_ipywidgets_7_and_in_float16(path, folder, colab, course_zip):
    shutil.copy(course_zip, folder)
    stored = nbformat.read(path, as_version=4)
    notebook, _ = run_on_colab(path, folder, colab, IPYWIDGETS_7, AS_ON_A_T4)
    assert panels_in(notebook) == panels_in(stored)
    if path.stem[:2] < "06":  # from there on it trains in float16, which only its asserts allow for
        assert compared(notebook) == compared(stored)


@needs_ipywidgets_7
@pytest.mark.faults
def test_the_panels_move_with_ipywidgets_7():
    program = (
        "import ipywidgets, pytest; assert ipywidgets.__version__ < '8'; raise SystemExit(pytest.main())"
    )
    tests = ["-q", "-p", "no:cacheprovider", "tests/test_panels.py", "tests/test_stop_button.py"]
    environment = os.environ | {"PYTHONPATH": str(IPYWIDGETS_7)}
    done = subprocess.run(
        [sys.executable, "-c", program, *tests], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


# ---------------------------------------------------------------- a notebook that was saved on Colab


def saved_on_colab(notebook, minor):
    """The JSON of a notebook, in place, as Colab saves it: nbformat 4.5, or 4.0 without ids of cells."""
    notebook["nbformat_minor"] = minor
    widget = {"model_module": "@jupyter-widgets/controls", "model_name": "VBoxModel", "state": {}}
    notebook["metadata"] = {
        "accelerator": "GPU",
        "colab": {"provenance": [], "gpuType": "T4", "toc_visible": True, "include_colab_link": True},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
        # By model and without the key "state", for which GitHub refuses to show the notebook.
        "widgets": {"application/vnd.jupyter.widget-state+json": {"0342ed73509448aebad7": widget}},
    }
    for i, cell in enumerate(notebook["cells"]):
        cell["metadata"] |= {"id": cell["id"] if minor == 5 else cell.pop("id")}
        if cell["cell_type"] == "code":
            ran = {"status": "ok", "timestamp": 1722608125960 + i, "elapsed": 9, "user_tz": -60}
            cell["metadata"] |= {"executionInfo": ran, "outputId": f"d1c9354e-43db-45ab-c38b-{i:012}"}
            cell["metadata"] |= {"colab": {"base_uri": "https://localhost:8080/", "height": 35}}
            cell["execution_count"] = 100 + i
            cell["outputs"] = [{
                "output_type": "execute_result", "execution_count": 100 + i, "metadata": {},
                "data": {
                    "text/plain": ["'x'"],
                    "application/vnd.google.colaboratory.intrinsic+json": {"type": "string"},
                },
            }]  # fmt: skip
    badge = {"id": "view-in-github", "colab_type": "text"}
    top = {"cell_type": "markdown", "metadata": badge, "source": ['<a href="https://colab.research."></a>']}
    notebook["cells"].insert(0, top | ({"id": "view-in-github"} if minor == 5 else {}))
    return notebook


def without_outputs(path):
    """The text of a notebook's file, but for what its cells gave."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell.update({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})
    return json.dumps(notebook)


@pytest.mark.parametrize("minor", [0, 5])
def test_nothing_that_colab_writes_stays_in_normal_form(tmp_path, minor):
    path, there = NOTEBOOKS[1], tmp_path / "saved.ipynb"
    there.write_text(json.dumps(saved_on_colab(json.loads(path.read_text("utf-8")), minor)), "utf-8")
    write(normalise(nbformat.read(there, as_version=4)), there)
    assert without_outputs(there) == without_outputs(path)
    nbformat.validate(nbformat.read(there, as_version=4))


def test_a_cell_without_an_id_gets_one():
    cells = [nbformat.v4.new_markdown_cell("a"), nbformat.v4.new_code_cell("b")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.nbformat_minor = 0
    for cell in notebook.cells:
        del cell["id"]
    nbformat.validate(normalise(notebook))
    assert notebook.cells[0].id != notebook.cells[1].id


@pytest.mark.faults
def test_a_notebook_saved_on_colab_passes_make_test_after_make_refresh(tmp_path):
    copy, leave = tmp_path / "copy", (".*", "build", "__pycache__", "tinyshakespeare.txt")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*leave))
    path = copy / "notebooks" / NOTEBOOKS[0].name
    path.write_text(json.dumps(saved_on_colab(json.loads(path.read_text("utf-8")), 0), indent=2), "utf-8")
    tests = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg"]
    for command in (
        ["tools/notebooks.py", "refresh", path],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "tests/test_notebooks.py", path],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=copy, env=clean(tmp_path), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert without_outputs(path) == without_outputs(NOTEBOOKS[0])
    assert "vnd.google" not in path.read_text("utf-8")


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
    assert (root / "README.md").read_text(encoding="utf-8").count(opens + NOTEBOOKS[1].name) == 1, (
        "00 is optional"
    )
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
