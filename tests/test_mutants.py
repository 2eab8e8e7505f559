"""The known mutants still apply: tests/mutants.py, which `make mutants` runs."""

import ast

import pytest
from mutants import COPIED, MUTANTS, ROOT
from test_project import LESSONS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_a_mutant_applies_and_the_tests_that_should_notice_are_there(mutant):
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    trees = [ast.dump(ast.parse(text)) for text in (source, mutant.applied(source))]
    assert trees[0] != trees[1], "more than a comment"
    for test in mutant.tests.split():
        file, _, name = test.partition("::")
        page = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"\ndef {name.split('[')[0]}(" in page if name else page, test


def test_every_lesson_has_its_mutants():
    assert {mutant.file for mutant in MUTANTS} >= {f"{lesson}.py" for lesson in LESSONS}
    assert len({mutant.fault for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.path.split("/")[0] for mutant in MUTANTS} <= set(COPIED)
