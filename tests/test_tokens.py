"""What longer tokens buy: helpers/program/tokens.py, with tiny models."""

import json

import pytest
import torch

from helpers.data import Corpus, train_val_split
from helpers.model import GPTConfig, flops_per_token, parameter_table
from helpers.program import tokens
from helpers.program.tokens import BUDGETS, config_of, measure, steps_of, tokenizers_of, train_point
from helpers.tokenizer import BytePairTokenizer

TINY = dict(block_size=8, n_layer=1, n_head=2, n_embd=16, bias=False, head_bias=False, tie_weights=True)
PIECES = 280, 400


def test_pieces_are_learned_from_the_training_part_alone(text):
    train_text, val_text = train_val_split(text)
    made = tokenizers_of(text + "é", train_text, PIECES)
    assert list(made) == ["characters", "280 pieces", "400 pieces"]
    assert made["characters"].chars[-1] == "é", "characters are those of the whole text, as in notebook 01"
    for n in PIECES:
        assert made[f"{n} pieces"].merges == BytePairTokenizer.train(train_text, n).merges
    assert made["400 pieces"].merges != BytePairTokenizer.train(text, 400).merges
    assert made["400 pieces"].decode(made["400 pieces"].encode(val_text)) == val_text


@pytest.mark.parametrize("pieces", [512, 2048, 8192])
def test_equal_means_equal(pieces):
    like = GPTConfig(vocab_size=65, **tokens.SHAPE)
    same_body, as_many = (config_of(pieces, budget, 65) for budget in BUDGETS)
    assert same_body == GPTConfig(vocab_size=pieces, **tokens.SHAPE)
    wanted, got = (sum(parameter_table(config).values()) for config in (like, as_many))
    assert abs(got / wanted - 1) < 0.06 and as_many.n_embd < like.n_embd
    for config in (same_body, as_many):
        operations = steps_of(config, 65) * flops_per_token(config)
        assert operations == pytest.approx(tokens.STEPS * flops_per_token(like), rel=0.005)
    assert steps_of(like, 65) == tokens.STEPS and steps_of(same_body, 65, steps=1) == 1


def test_a_record_holds_every_point_with_its_seeds(text):
    record = measure(Corpus("part", text, "", ""), 4, (1, 2), PIECES, TINY, "cpu")
    assert json.loads(json.dumps(record)) == record
    names = [(row["name"], row["budget"]) for row in record["rows"]]
    assert names == [
        ("characters", BUDGETS[0]),
        *[(f"{n} pieces", budget) for n in PIECES for budget in BUDGETS],
    ]
    val_text = train_val_split(text)[1]
    for row in record["rows"]:
        assert [point["seed"] for point in row["seeds"]] == [1, 2]
        assert sum(row["parts"].values()) == row["parameters"] and len(row["sample"]) > 4
        for point in row["seeds"]:
            per_token = point["bits_per_character"] * row["characters_per_token"] * 0.6931
            assert per_token == pytest.approx(point["nats_per_token"], rel=0.01)
            ratio = point["train_nats_per_token"] / point["nats_per_token"]
            bits = point["bits_per_character"] * ratio  # if tokens were as long in both parts
            assert point["train_bits_per_character"] == pytest.approx(bits, rel=0.15)
        assert row["sees"] == round(row["characters_per_token"] * 8)
    assert record["rows"][0]["characters_per_token"] == 1 and len(val_text) == 2000
    for row in record["rows"]:
        assert row["seeds"][0]["nats_per_token"] != row["seeds"][1]["nats_per_token"]


def test_a_text_without_a_line_break_is_measured_too(text):
    one_line = " ".join(text[:6000].split())
    record = measure(Corpus("a line", one_line, "", ""), 2, (1,), (280,), TINY, "cpu")
    assert all(row["sample"] for row in record["rows"])


def test_a_point_is_the_same_again(text):
    parts = train_val_split(text)
    tokenizer = BytePairTokenizer.train(parts[0], 280)
    config = config_of(280, BUDGETS[0], 65, TINY)
    again = [train_point(parts, tokenizer, config, 5, 3, "cpu") for _ in range(2)]
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model, _ in again]
    assert torch.equal(*weights)
    assert again[0][1] | {"seconds": 0} == again[1][1] | {"seconds": 0}


def test_the_command_writes_a_record(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tokens, "measure", lambda corpus: {"corpus": corpus.name})
    monkeypatch.setattr(tokens, "RUNS_DIR", tmp_path)
    tokens.main([])
    assert json.loads((tmp_path / "tokens-plays.json").read_text(encoding="utf-8")) == {"corpus": "plays"}
    assert "tokens-plays.json" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="cannot be read"):
        tokens.main(["nowhere.txt"])
