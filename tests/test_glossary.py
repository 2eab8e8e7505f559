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


def test_every_entry_points_to_a_notebook():
    assert {number for *_, number, _ in SYMBOLS + TERMS} == {path.stem[:2] for path in NOTEBOOKS}
