"""docs/glossary.md: in order, and every symbol and term stands in the notebook that it points to."""

import re

import pytest
from notebook_files import NOTEBOOKS, ROOT, cells_of

PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
LINK = r"\[(\d\d)\]\(\.\./notebooks/(\S+?)\)"
SYMBOLS = re.findall(rf"^\| (\w) \| (.+) \| {LINK} \|$", PAGE, re.MULTILINE)
TERMS = re.findall(rf"^- \*\*(.+?)\*\*: (.+) {LINK}$", PAGE, re.MULTILINE)


def test_every_line_is_an_entry():
    assert [symbol for symbol, *_ in SYMBOLS] == list("BTCHDV")
    assert len(TERMS) == len(re.findall(r"^- ", PAGE, re.MULTILINE)) >= 60
    assert len(SYMBOLS) + len(TERMS) == PAGE.count("](")


def test_terms_are_in_order_and_none_comes_twice():
    names = [term.lower() for term, *_ in TERMS]
    assert names == sorted(set(names))


def test_entries_are_short():
    assert [term for term, text, *_ in TERMS if not text.endswith(".") or len(text.split()) > 45] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_entries_stand_in_the_notebook_that_they_point_to(path):
    whole = "\n".join(cell["source"] for _, cell in cells_of(path))  # prose and code
    pointing = [(name, file) for name, _, number, file in SYMBOLS + TERMS if number == path.stem[:2]]
    assert {file for _, file in pointing} == {path.name}

    def found(name):
        if len(name) == 1:  # a symbol stands alone
            return re.search(rf"(?<![^\W_]){name}(?![^\W_])", whole)
        return re.search(rf"(?<![^\W_]){re.escape(name)}", whole, re.IGNORECASE)  # a term may go on: "nats"

    assert [name for name, _ in pointing if not found(name)] == []


def prose_of(path):
    """What a page says before its questions: no headings, no links, no code."""
    cells = [cell["source"] for _, cell in cells_of(path, "markdown")]
    end = next(i for i, text in enumerate(cells) if text.startswith("## Five questions"))
    text = "\n\n".join(cells[:end]).partition("In this notebook:")
    text = text[0] + re.sub(r"\A.*?\n\n", "", text[2], flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.sub(r"`[^`]*`|^(?:#|\[[^]]*\]\(.*·).*$|\[[^]]*\]\([^)]*\)", "", text, flags=re.MULTILINE)


PROSE = {path.stem[:2]: prose_of(path) for path in NOTEBOOKS}


@pytest.mark.parametrize("name, page", [(name, page) for name, _, page, _ in TERMS])
def test_a_term_is_explained_where_it_first_stands(name, page):
    longer = [term for term, *_ in TERMS if name.lower() in term.lower() and term != name]
    for number, prose in PROSE.items():
        if number == page:
            return
        if number == "00":  # optional: nobody has to have read it
            continue
        for term in longer:  # "block size" is no block
            prose = re.sub(re.escape(term), "", prose, flags=re.IGNORECASE)
        for sentence in re.split(r"(?<=[.?!:])\s", prose):
            if re.search(rf"(?<![^\W_]){re.escape(name)}", sentence, re.IGNORECASE):
                points = re.search(rf"\b{page}\b|(the|a subject of the) next page", sentence)
                assert points, f"{number} says {name} before {page}: {sentence}"
                break


@pytest.mark.parametrize("number", PROSE)
def test_what_a_page_prints_bold_is_in_the_glossary(number):
    """A word in bold is a new word; bold sentences, and those that begin a paragraph, are something else."""
    bold = re.findall(r"(?<!\A)(?<!\n)\*\*([^*\n]+)\*\*", PROSE[number])
    words = [text for text in bold if len(text.split()) <= 3 and text[-1] != "."]
    names = [term.lower() for term, *_ in TERMS]
    unknown = [w for w in words if not any(w.lower().startswith(n) or n.startswith(w.lower()) for n in names)]
    assert set(unknown) <= {"Train", "Stop", "Continue", "stop button"}, "names of buttons"


def test_every_entry_points_to_a_notebook():
    assert {number for *_, number, _ in SYMBOLS + TERMS} == {path.stem[:2] for path in NOTEBOOKS}
