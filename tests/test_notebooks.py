"""The notebooks as files: one setup cell, clean stored outputs, links that lead somewhere.

That their cells run and give what is stored is what nbval checks; see `make test`.
"""

import ast
import base64
import configparser
import copy
import json
import re
import struct
from itertools import pairwise

import nbformat
import pytest
from notebook_files import NOTEBOOKS, ROOT, cells_of
from questions import ANSWERS

from tools.notebooks import normalise, warnings_in
from tools.readme import minutes

IGNORE, RAISES = "nbval-ignore-output", "raises-exception"
ABSOLUTE = re.compile(r"(?<![\w./:])/(?:home|root|tmp|Users|work|content|var|usr)/\S+|\b[A-Z]:\\\w")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def tags(cell):
    return cell["metadata"].get("tags", [])


def text_of(output):
    """What nbval compares of an output: streams and text, not pictures."""
    parts = [output.get("text", "")] + [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "".join("".join(part) for part in parts)


def has_text(cell):
    return any(text_of(output).strip() for output in cell["outputs"])


def faults(path, check):
    """The code cells of a notebook for which check(cell) says something."""
    found = [(i, check(cell)) for i, cell in cells_of(path, "code")]
    return [f"cell {i}: {what}" for i, what in found if what]


def test_there_are_notebooks_in_an_unbroken_row():
    numbers = [int(path.stem[:2]) for path in NOTEBOOKS]
    assert numbers == list(range(len(NOTEBOOKS))) and len(NOTEBOOKS) >= 8


@every_notebook
def test_the_title_cell_says_how_long_it_takes(path):
    title = next(cell["source"] for _, cell in cells_of(path, "markdown"))
    said = re.search(r"Time: about (\d+) minutes of reading, (\d+) seconds of computing", title)
    assert said and int(said[1]) == minutes(path.stem), "the README says the same, from the same formula"
    prose = "\n".join(cell["source"] for _, cell in cells_of(path, "markdown"))
    parts = re.findall(r"^##.* \((\d+) minutes\)$", prose, re.MULTILINE)
    said = re.search(r"; questions and exercises take (\d+) minutes more\.", title)
    assert said and int(said[1]) == sum(map(int, parts)) and len(parts) >= 5


# ---------------------------------------------------------------- the setup cell
# What it does is tested in test_colab.py.


def test_the_setup_cell_is_the_same_in_all_and_folded():
    first, *others = (cells_of(path, "code")[0][1] for path in NOTEBOOKS)
    for cell in others:
        assert (cell["source"], cell["metadata"]) == (first["source"], first["metadata"])
    # Folded by JupyterLab, and by Colab, which shows the title in place of the code.
    assert first["metadata"] == {"cellView": "form", "jupyter": {"source_hidden": True}}
    assert re.match(r"# @title Setup\b.*\n", first["source"])


def test_the_setup_cell_is_short():
    source = cells_of(NOTEBOOKS[0], "code")[0][1]["source"]
    tree = ast.parse(source)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    assert len(tree.body) <= 12 and len(statements) <= 35, "with those inside its three functions"
    assert len({node.lineno for node in statements}) == len(statements), "one a line"
    assert max(len(line) for line in source.splitlines()) <= 100


# ---------------------------------------------------------------- what is stored


@every_notebook
def test_stored_in_normal_form(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    normal = normalise(copy.deepcopy(notebook))
    assert notebook.metadata == normal.metadata, "metadata.widgets or other settings are stored: make refresh"
    for i, (cell, expected) in enumerate(zip(notebook.cells, normal.cells)):
        assert cell == expected, f"cell {i} is not in normal form: make refresh"


@every_notebook
def test_executed_from_top_to_bottom(path):
    counts = [cell["execution_count"] for _, cell in cells_of(path, "code")]
    assert counts == list(range(1, len(counts) + 1)), "make refresh"


@every_notebook
def test_cells_have_their_own_ids(path):
    ids = [cell.get("id") for _, cell in cells_of(path)]
    assert None not in ids and len(set(ids)) == len(ids)


@every_notebook
def test_no_errors_and_no_warnings_are_stored(path):
    assert warnings_in(nbformat.read(path, as_version=4)) == []
    assert not faults(
        path,
        lambda cell: (
            RAISES not in tags(cell) and [o["ename"] for o in cell["outputs"] if o["output_type"] == "error"]
        ),
    )


@every_notebook
def test_no_absolute_paths_are_stored(path):
    assert not faults(
        path, lambda cell: [m.group() for o in cell["outputs"] for m in ABSOLUTE.finditer(text_of(o))]
    )


@every_notebook
def test_small_enough_to_be_shown(path):
    assert path.stat().st_size < 1_000_000, "GitHub does not show a notebook that is larger"


@every_notebook
def test_pictures_fit_the_page_and_are_seen(path):
    def check(cell):
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/svg+xml" in data:
                return "SVG, which nbval compares as text"
            if "image/png" in data:
                width, height = struct.unpack(">II", base64.b64decode(data["image/png"])[16:24])
                if width > 800 or height > 900:
                    return f"a picture of {width} x {height}"
            elif "application/vnd.jupyter.widget-view+json" in data:
                return "a widget without a picture for those who only read"
            elif re.search(r"<Figure size|<Axes|<matplotlib|object at 0x", text_of(output)):
                return f"a representation that says nothing: {text_of(output)[:60]}"
        return None

    assert not faults(path, check)


@every_notebook
def test_code_is_clean(path):
    def check(cell):
        last = cell["source"].rstrip().splitlines()[-1]
        if last.split("#")[0].rstrip().endswith(";"):
            return "ends with a semicolon, where nbval misses the hidden value"
        if re.search(r"^\s*[%!]", cell["source"], re.MULTILINE):
            return "has a magic or a shell command"
        if re.search(r"NBVAL_", cell["source"]):
            return "has a mark that the reader sees; use a tag"
        return None

    assert not faults(path, check)


# ---------------------------------------------------------------- what is compared


@every_notebook
def test_tags_are_known_and_every_ignored_cell_gives_its_reason_before(path):
    cells = cells_of(path)
    for i, cell in cells:
        assert set(tags(cell)) <= {IGNORE, RAISES}, f"cell {i}: {tags(cell)}"
        if IGNORE in tags(cell):
            assert cells[i - 1][1]["cell_type"] == "markdown", f"cell {i} is ignored and no prose says why"


@every_notebook
def test_two_thirds_of_the_text_outputs_are_compared(path):
    with_text = [cell for _, cell in cells_of(path, "code") if has_text(cell)]
    compared = [cell for cell in with_text if IGNORE not in tags(cell)]
    assert len(with_text) >= 8 and len(compared) >= 2 / 3 * len(with_text)


@every_notebook
def test_a_number_that_is_not_compared_is_asserted_in_its_cell(path):
    def check(cell):
        calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(cell["source"])) if isinstance(n, ast.Call)}
        asserts = any(isinstance(n, ast.Assert) for n in ast.walk(ast.parse(cell["source"])))
        # climb compares a loss with the recorded one.
        asserts = asserts or any(name.endswith(("assert_close", "climb")) for name in calls)
        masked = any(re.search(r"≈ *-?\d", text_of(output)) for output in cell["outputs"])
        if masked and not asserts and IGNORE not in tags(cell):
            return "prints a number after ≈ and asserts nothing"
        return None

    assert not faults(path, check)


def test_the_sign_for_measured_masks_the_number_and_nothing_else():
    rules = configparser.ConfigParser()
    rules.read(ROOT / "tests" / "nbval_sanitize.cfg", encoding="utf-8")

    def sanitize(text):
        for name in rules.sections():
            text = re.sub(rules[name]["regex"], rules[name]["replace"], text)
        return text

    assert sanitize("loss ≈ 2.259 nats") == sanitize("loss ≈ 2.261 nats") != "loss ≈ 2.259 nats"
    assert sanitize("≈ -0.5, 3 ≈ 1,234.5") == sanitize("≈ 0.7, 3 ≈ 99")
    assert sanitize("≈ 3.1e+09") == sanitize("≈ 8e+10")
    assert sanitize("step 10: ≈ 2.25") != sanitize("step 11: ≈ 2.25")
    assert sanitize("shape (2, 8, 65), loss 4.174") == "shape (2, 8, 65), loss 4.174"


# ---------------------------------------------------------------- links


def anchors_of(path):
    """What GitHub and Jupyter call the headings of a notebook."""
    headings = []
    for _, cell in cells_of(path, "markdown"):
        headings += re.findall(r"^#{1,6} (.+?)\s*$", cell["source"], re.MULTILINE)
    github = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    jupyter = [heading.replace(" ", "-") for heading in headings]
    return {*github, *jupyter}


@every_notebook
def test_links_lead_somewhere(path):
    for i, cell in cells_of(path, "markdown"):
        prose = re.sub(r"`[^`]*`", "", re.sub(r"\$[^$]*\$", "", cell["source"]))
        for target in re.findall(r"\]\(([^()\s]+)\)", prose):
            if re.match(r"https?://", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            assert file.exists() and file.is_relative_to(ROOT), f"cell {i}: {target}"
            if anchor and file.suffix == ".ipynb":
                assert anchor in anchors_of(file), f"cell {i}: {target} is no heading"


@every_notebook
def test_neighbours_are_linked_at_the_top_and_at_the_end(path):
    at = NOTEBOOKS.index(path)
    prose = [cell["source"] for _, cell in cells_of(path, "markdown")]
    top, end = "\n".join(prose[:3]), prose[-1]
    for neighbour in NOTEBOOKS[max(at - 1, 0) : at + 2]:
        if neighbour != path:
            assert f"({neighbour.name})" in top and f"({neighbour.name})" in end, neighbour.name


@every_notebook
def test_the_frame_of_a_lesson(path):
    prose = [cell["source"] for _, cell in cells_of(path, "markdown")]
    number = int(path.stem[:2])
    assert re.search(rf"^# {number:02} · \S", prose[0], re.MULTILINE), "the title"
    whole = "\n".join(prose)
    assert re.search(r"(?i)time: about", whole), "what it takes"
    assert len(re.findall(r"^## \d+\. ", whole, re.MULTILINE)) >= 4, "numbered sections"
    assert re.search(r"(?i)before you run", whole), "a question before the answer"
    assert re.search(r"(?i)break it", whole), "a thing to break"
    end = re.findall(r"^## ([A-Z].*)$", whole, re.MULTILINE)
    order = ["What you built", "Five questions (5 minutes)", "Exercises", "Experiments", "For the curious"]
    assert end in (order, order[:-1])
    questions = next(text for text in prose if text.startswith("## Five questions"))
    assert re.findall(r"<details><summary>(\d)\. [^\n]*</summary>\n\n", questions) == list("12345")
    assert whole.count("<summary>Solution</summary>") >= 4, "exercises with hints and solutions"


# ---------------------------------------------------------------- how a page is written


def before_the_questions(path):
    cells = [cell for _, cell in cells_of(path)]
    return cells[: next(i for i, c in enumerate(cells) if c["source"].startswith("## Five questions"))]


@every_notebook
def test_a_page_is_no_longer_than_an_evening_allows(path):
    prose = [c["source"] for c in before_the_questions(path) if c["cell_type"] == "markdown"]
    sections = re.findall(r"^## \d+\. ", "\n".join(prose), re.MULTILINE)
    assert len(sections) <= 11
    assert sum(len(text.split()) for text in prose) <= 2200


@every_notebook
def test_no_cell_asserts_in_silence(path):
    def check(cell):
        asserts = re.search(r"^\s*(assert\b|.*assert_close\()", cell["source"], re.MULTILINE)
        return "asserts and shows nothing" if asserts and not cell["outputs"] else None

    assert not faults(path, check)


@every_notebook
def test_every_question_is_answered_soon(path):
    cells = before_the_questions(path)
    asked = []
    for i, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            found = re.findall(r"(?<!\*)\*([^*]*\?[^*]*)\*(?!\*)", cell["source"])
            asked += [(i, question) for question in found]
    answers = ANSWERS[path.stem]
    assert len(asked) == len(answers), "every question, with its answer, stands in tests/questions.py"
    for (i, question), (last_words, answer) in zip(asked, answers.items()):
        assert question.endswith(last_words), f"cell {i}"
        rest = cells[i]["source"].partition(question)[2]
        after = [rest] + [
            c["source"] + "".join(map(text_of, c.get("outputs", ()))) for c in cells[i + 1 : i + 8]
        ]
        assert answer in "\n".join(after), f"cell {i}: {question} is not answered by {answer!r}"


# ---------------------------------------------------------------- tools/notebooks.py


def test_normal_form_drops_what_changes_and_what_harms():
    cell = nbformat.v4.new_code_cell("1", metadata={"tags": [IGNORE], "execution": {"iopub": "12:00"}})
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="a"),
        nbformat.v4.new_output("stream", name="stdout", text="b"),
        nbformat.v4.new_output("stream", name="stderr", text="c"),
        nbformat.v4.new_output("display_data", {"text/plain": "x"}, metadata={"needs_background": "light"}),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[cell], metadata={"widgets": {"state": 1}, "language_info": {"name": "python", "version": "3"}}
    )
    assert warnings_in(notebook) == ["c"]
    once = normalise(copy.deepcopy(notebook))
    assert once == normalise(copy.deepcopy(once)), "normal form is stable"
    assert "widgets" not in once.metadata and "version" not in once.metadata.language_info
    assert once.cells[0].metadata == {"tags": [IGNORE]}
    assert [o.get("text") for o in once.cells[0].outputs] == ["ab", "c", None]
    assert once.cells[0].outputs[2].metadata == {}
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}}
    once.cells[0].metadata = nbformat.from_dict(folded | {"collapsed": True, "id": "Xy7"})
    assert normalise(once).cells[0].metadata == folded, "a folded cell stays folded"
    json.dumps(once)


# ---------------------------------------------------------------- prose that is read elsewhere

PAGES = [*NOTEBOOKS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def prose_of(path):
    """The prose of a notebook or of a page, without code."""
    parts = [path.read_text(encoding="utf-8")]
    if path.suffix == ".ipynb":
        parts = [cell["source"] for _, cell in cells_of(path, "markdown")]
    return re.sub(r"```.*?```|`[^`\n]*`", "", "\n\n".join(parts), flags=re.DOTALL)


@every_page
def test_headings_are_in_order(path):
    levels = [len(marks) for marks in re.findall(r"^(#{1,6}) ", prose_of(path), re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1, "one title, at the top"
    assert all(after <= before + 1 for before, after in pairwise(levels)), "no level is left out"


@every_page
def test_pictures_in_prose_have_alternative_texts(path):
    prose = prose_of(path)
    for text, target in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", prose):
        # A badge says what it is in a word or two; a picture needs a sentence.
        assert len(text) >= (5 if "badge" in target else 30), f"{target}: {text!r}"
    assert all(re.search(r'\balt="[^"]{5,}"', tag) for tag in re.findall(r"<img[^>]*>", prose))


@every_page
def test_github_understands_the_mathematics(path):
    prose = prose_of(path)
    # GitHub shows $ and $$ alone, and refuses what defines or loads something.
    unknown = r"\\[(\[]|\\(?:newcommand|renewcommand|def|require|operatorname|label|eqref|usepackage|bm)\b"
    assert re.findall(unknown, prose) == []
    for block in re.split(r"\n\s*\n", prose):
        assert len(re.findall(r"(?<!\\)\$", block)) % 2 == 0, f"a $ without its partner: {block[:80]}"
