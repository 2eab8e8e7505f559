"""What teachers are told: copies of a notebook side by side."""

import nbformat
import pytest

from tools.classroom import rehearse


@pytest.mark.faults  # it starts kernels
@pytest.mark.parametrize("stored, status", [("2\n", 0), ("3\n", 1)])
def test_copies_are_compared_with_what_is_stored(tmp_path, capfd, stored, status):
    output = nbformat.v4.new_output("stream", name="stdout", text=stored)
    cell = nbformat.v4.new_code_cell("print(1 + 1)", outputs=[output], execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "sum.ipynb")
    assert rehearse(tmp_path / "sum.ipynb", 2, tmp_path / "class") == status
    assert f"2 {'failed' if status else 'passed'}" in capfd.readouterr().out
    assert len(list((tmp_path / "class").glob("*/sum.ipynb"))) == 2
