"""The ladder that every notebook ends on: helpers/ladder.py."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from helpers import ladder
from helpers.data import Corpus, load_corpus
from helpers.ladder import RUNGS, TOLERANCE, build_rung, climb, load_ladder, train_rung, unigram_loss
from helpers.model import BigramLanguageModel

OWN = Corpus("own.txt", "any text", "", "")
PLAYS = Corpus("plays", "", "", "")


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """A record for "plays" alone: 4.0 for the first rung, 3.9 for the second, and so on."""
    record = {rung: 4 - 0.1 * i for i, rung in enumerate(RUNGS)}
    (tmp_path / "ladder-plays.json").write_text(json.dumps(record))
    monkeypatch.setattr(ladder, "RUNS_DIR", tmp_path)
    return record


def test_climbing_shows_the_recorded_rungs_up_to_ones_own(recorded):
    assert load_ladder(PLAYS) == recorded
    rungs = climb(PLAYS, {"one head": 3.71})
    assert list(rungs) == ["uniform", "unigram", "bigram", "one head"]
    assert rungs["one head"] == 3.71 and rungs["bigram"] == recorded["bigram"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_loss_that_leaves_the_record_is_an_error(recorded, sign):
    climb(PLAYS, {"bigram": recorded["bigram"] + sign * 0.9 * TOLERANCE})
    with pytest.raises(AssertionError, match=r"bigram: .* nats, but the record says 3\.8000"):
        climb(PLAYS, {"bigram": recorded["bigram"] + sign * 1.1 * TOLERANCE})
    assert climb(PLAYS, {"bigram": 9.0}, check=False)["bigram"] == 9.0, "unless it is asked for"


def test_the_full_run_may_be_better_than_its_record_but_not_worse(recorded):
    assert climb(PLAYS, {"full": 1.0})["full"] == 1.0
    with pytest.raises(AssertionError, match="full"):
        climb(PLAYS, {"full": recorded["full"] + 1.1 * TOLERANCE})


def test_a_text_without_a_record_shows_what_was_measured(recorded):
    assert load_ladder(OWN) == {}
    assert list(climb(OWN, {"one head": 2.0, "uniform": 3.0})) == ["uniform", "one head"]


def test_unigram_loss_is_the_cross_entropy_of_the_frequencies():
    train_ids, val_ids = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2])
    # one added to each of three counts: 4/7, 2/7, 1/7
    expected = -(math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 3
    assert unigram_loss(train_ids, val_ids, 3) == pytest.approx(expected)


def test_rungs_begin_from_the_seed_and_grow():
    sizes = []
    for rung in RUNGS[2:-1]:
        one, again = build_rung(rung, 11), build_rung(rung, 11)
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values()))
        sizes.append(sum(p.numel() for p in one.parameters()))
    assert sizes[1:] == sorted(sizes[1:]), "each rung holds what the one before holds"


def test_every_rung_is_trained_under_the_budget(monkeypatch):
    asked = []
    monkeypatch.setattr(ladder, "fit", lambda model, ids, **budget: asked.append(budget))
    ids = torch.randint(11, (100,))
    for rung in ("bigram", "one head"):
        train_rung(build_rung(rung, 11), ids, ids)
    assert asked[1] == ladder.BUDGET
    assert asked[0] == ladder.BUDGET | {"learning_rate": 10 * ladder.BUDGET["learning_rate"]}
    assert isinstance(build_rung("bigram", 11), BigramLanguageModel)


def test_every_ladder_that_is_shown_is_measured_by_the_one_command(monkeypatch, tmp_path):
    page = Path(ladder.__file__).parent.parent / "docs" / "measurements.md"
    shown = re.search(r"\n\| rung \| (.*?) \|\n", page.read_text(encoding="utf-8"))[1].split(" | ")
    measured = []
    monkeypatch.setattr(ladder, "load_corpus", lambda name: Corpus(name, "", "", ""))
    monkeypatch.setattr(ladder, "RUNS_DIR", tmp_path)
    monkeypatch.setattr(
        ladder, "measure", lambda corpus: measured.append(corpus.name) or {"uniform": 4.17437}
    )
    ladder.main([])
    assert measured == shown
    for name in shown:
        assert json.loads((tmp_path / f"ladder-{name}.json").read_text()) == {"uniform": 4.1744}


def test_a_file_named_like_the_plays_is_not_compared_with_their_record(recorded, tmp_path):
    (tmp_path / "plays").write_text("somebody else's plays")
    own = load_corpus(tmp_path / "plays")
    assert load_ladder(own) == {}
    climb(own, {"bigram": 9.0})  # and not: "bigram: 9.0 nats, but the record says ..."
