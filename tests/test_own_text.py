"""A learner's own text with 7,000 different characters, as Chinese has them, on every page.

Long: at that size of a vocabulary a page computes for minutes, and says so.
"""

import os
import random
import re
import subprocess
import sys

import nbformat
import pytest
from notebook_files import NOTEBOOKS, ROOT

DIFFERENT = 7000


def text_of_many_characters():
    """120,000 characters in short lines: 7,000 different ones, each of them at least once."""
    draw = random.Random(1)
    characters = [chr(0x4E00 + i) for i in range(DIFFERENT)]
    rest = draw.choices(characters, [1 / (i + 5) for i in range(DIFFERENT)], k=113_000)
    text = draw.sample(characters, DIFFERENT) + rest
    lines = []
    while text:
        length = draw.randint(4, 20)
        lines.append("".join(text[:length]))
        text = text[length:]
    return "\n".join(lines) + "\n"


def test_the_text_has_many_characters_in_short_lines():
    text = text_of_many_characters()
    assert len(set(text) - {"\n"}) == DIFFERENT and max(map(len, text.splitlines())) <= 20


@pytest.mark.faults
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_runs_on_a_text_of_7000_characters(path, tmp_path):
    text, run = tmp_path / "own.txt", ROOT / "build" / path.name
    text.write_text(text_of_many_characters(), encoding="utf-8")
    run.unlink(missing_ok=True)
    command = [sys.executable, "tools/notebooks.py", "run", str(path)]
    environment = os.environ | {"COURSE_CORPUS": str(text), "COURSE_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [o for cell in nbformat.read(run, 4).cells for o in cell.get("outputs", ())]
    streams = [o.text for o in outputs if o.output_type == "stream"]
    assert [o.text for o in outputs if o.get("name") == "stderr"] == [], "such as letters without a font"
    lines = max(text.count("\n") for text in streams)  # of what is written, some dozens: its lines are short
    assert lines <= 200, "tables show the commonest characters"
    if path.stem[:2] in ("03", "04", "05", "06", "07", "08"):
        slow = r"different characters .*(minutes|an hour)"
        assert any(re.search(slow, text) for text in streams[:2]), "what takes minutes says so"
