"""`python -m helpers setup | lab | test`: the environment .venv, JupyterLab in it, and all tests in it.

For a machine on which nothing is installed yet: this file needs the standard library alone, and Python 3.7
can run it, so that an old Python is told in a sentence that it is too old. What runs in .venv is a process
of its own, started by a list of words: no shell is asked what a blank in a path means.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "installed"  # made when all is installed; older than requirements.txt: install again

# ---------------------------------------------------------------- the three commands


def setup(words=()):
    """Make .venv if it is missing, and install requirements.txt into it if that is not done. Returns 0.

    words go to pip, as in --extra-index-url URL. Raises SystemExit with a sentence if it fails; the same
    command then begins where it is needed.
    """
    explain_if_asked("setup", words, "[words for pip ...]", "Make .venv and install the course into it.")
    if is_installed():
        return 0
    try:
        if STAMP.exists():
            STAMP.unlink()
        if not is_usable(PYTHON):
            make_environment()
        print("Installing into .venv, which takes minutes and, on Linux, gigabytes.", flush=True)
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if call([*pip, *words, "-r", "requirements.txt"]):
            raise SystemExit(
                "The packages are not installed, for the reason that pip gives above: with a network and "
                f"some gigabytes on the disk (free now: {free_space()}), give the same command again."
            )
        STAMP.touch()
    except OSError as error:
        raise SystemExit(
            f"{VENV} cannot be written to ({error.strerror}): see who may write there and what is free "
            f"({free_space()}), then give the same command again."
        ) from None
    return 0


def lab(words=()):
    """Set up, ask the doctor, and open the course in JupyterLab, to which the words go: its exit status.

    JupyterLab keeps its token, listens on localhost only and asks nobody for updates. As root (in a
    container) it wants to be told so.
    """
    explain_if_asked("lab", words, "[words for JupyterLab ...]", "Open the course in JupyterLab.")
    setup()
    unwell = call([PYTHON, "-m", "helpers", "doctor"])
    if unwell:
        return unwell
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    command = [
        PYTHON, "-m", "jupyterlab", "--config=tools/jupyter_config.py",
        "--ServerApp.ip=127.0.0.1", "--ServerApp.root_dir=.",
        "--LabApp.default_url=/lab/tree/notebooks/01_data_and_tokenization.ipynb",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        *(["--allow-root"] if root else []),
    ]  # fmt: skip
    return call([*command, *words], **instead_of_home())


def test(words=()):
    """Set up, run every notebook under nbval, then all quick tests: pytest's exit status.

    words go to pytest. A path among them (a notebook, a file of tests) is run in place of all.
    """
    explain_if_asked("test", words, "[paths and words for pytest ...]", "Run all notebooks and quick tests.")
    setup()
    # The longest notebooks first, so that two workers finish together.
    # Two workers with one thread each: more threads than cores make each other wait.
    notebooks = sorted((f"notebooks/{path.name}" for path in ROOT.glob("notebooks/*.ipynb")), reverse=True)
    some = any(os.path.exists(ROOT / word.partition("::")[0]) for word in words)
    command = [
        PYTHON, "-m", "pytest", "-q", "-n", "2", "--dist", "loadscope", "--no-loadscope-reorder",
        "--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg",
    ]  # fmt: skip
    return call(
        [*command, *([] if some else [*notebooks, "tests"]), *words],
        OMP_NUM_THREADS=os.environ.get("THREADS", "1"),
        COURSE_DEVICE="cpu",
        COURSE_CORPUS="",
        COURSE_GPT2="",
        COURSE_PRESET="course-cpu",  # a slow machine would train another, and what is stored is of this one
        PYTHONUTF8="1",  # for the files that tests write; the course's own code names its encodings
        **instead_of_home(),
    )


# ---------------------------------------------------------------- the environment


def is_installed():
    """Is everything of requirements.txt in .venv, as it now stands there?"""
    listed = ROOT / "requirements.txt"
    return PYTHON.exists() and STAMP.exists() and STAMP.stat().st_mtime >= listed.stat().st_mtime


def is_usable(python):
    """Is there a Python that is new enough and has pip? A system that was updated may have removed it."""
    program = f"import pip, sys; sys.exit(sys.version_info[:2] < {OLDEST_PYTHON})"
    try:
        return subprocess.run([python, "-c", program], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def make_environment():
    """Make .venv, anew if one is there, with the Python that runs. Raises SystemExit if that cannot be."""
    version, needed = (".".join(map(str, v)) for v in (sys.version_info[:3], OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise SystemExit(
            f"Python {needed} or newer is needed, and this is {version}: give the command with a newer one, "
            "as in `python3.12 -m helpers lab`, `py -3.12 -m helpers lab` or `make lab PYTHON=python3.12`."
        )
    print(f"Making .venv with Python {version}.", flush=True)
    if call([sys.executable, "-m", "venv", "--clear", VENV]):
        raise SystemExit(
            "The environment .venv cannot be made, for the reason given above: see to it (Debian and Ubuntu "
            "keep what is needed in a package python3-venv), then give the same command again."
        )


def free_space():
    """What is free on the disk of the course, in gigabytes."""
    return f"{shutil.disk_usage(ROOT).free / 1e9:.1f} GB"


# ---------------------------------------------------------------- a process


def call(command, **variables):
    """Run a command in the course's folder, with these variables set; returns its exit status.

    Ctrl-C reaches it from the terminal and is its own business: JupyterLab asks whether it is meant. What
    asks this process alone to end is handed on.
    """
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None)}
    try:
        with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}) as process:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status  # as a shell reports a signal


def instead_of_home():
    """Variables by which Jupyter and Matplotlib keep their files below build/, where home takes none."""
    try:
        tempfile.TemporaryFile(dir=Path.home()).close()
        return {}
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where it is
        names = {"JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "MPLCONFIGDIR"} - os.environ.keys()
        return {name: str(ROOT / "build" / "home" / name.lower()) for name in names}


def explain_if_asked(command, words, takes, purpose):
    """Print how a command is used and end, if the first word asks for it."""
    if words and words[0] in ("-h", "--help"):
        print(f"usage: python -m helpers {command} {takes}\n\n{purpose}")
        raise SystemExit
