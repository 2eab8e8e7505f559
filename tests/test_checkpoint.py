"""Saving and loading: helpers/checkpoint.py."""

import json

import pytest
import torch
from conftest import randomise
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from helpers.checkpoint import load_checkpoint, read_file, save_checkpoint, write_file
from helpers.model import GPT, GPTConfig
from helpers.tokenizer import BytePairTokenizer, CharTokenizer


def model_for(tokenizer, **changes):
    settings = dict(vocab_size=tokenizer.vocab_size, block_size=8, n_layer=1, n_head=2, n_embd=16)
    return randomise(GPT(GPTConfig(**settings | changes))).eval()


@pytest.mark.parametrize("tie_weights", [False, True])
@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
@pytest.mark.parametrize(
    "tokenizer",
    [CharTokenizer.from_text("any text: é😀\n"), BytePairTokenizer.train("any text, any text", 260)],
    ids=["char", "byte-pair"],
)
def test_what_is_loaded_is_what_was_saved(tmp_path, tokenizer, tie_weights, position):
    model = model_for(tokenizer, tie_weights=tie_weights, position=position, dropout=0.5)
    path = tmp_path / "new folder" / "model.safetensors"
    save_checkpoint(path, model, tokenizer, val=1.25, corpus="plays")
    again, tokens, about = load_checkpoint(path)
    assert again.config == model.config and not again.training
    assert about == {"val": 1.25, "corpus": "plays"}
    ids = tokens.encode("any text")
    assert torch.equal(ids, tokenizer.encode("any text"))
    assert torch.equal(again(ids[None, :8])[0], model(ids[None, :8])[0])
    assert (again.lm_head.weight is again.token_embedding.weight) is tie_weights
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"], "no partial file is left"


def test_other_weights_can_be_saved_in_place_of_the_present_ones(tmp_path, tokenizer):
    model = model_for(tokenizer)
    best = {k: v.clone() for k, v in model.state_dict().items()}
    randomise(model)
    save_checkpoint(tmp_path / "m", model, tokenizer, weights=best)
    again, _, _ = load_checkpoint(tmp_path / "m")
    assert all(torch.equal(v, best[k]) for k, v in again.state_dict().items())


def test_loading_leaves_the_randomness_alone(tmp_path, tokenizer):
    save_checkpoint(tmp_path / "m", model_for(tokenizer), tokenizer)
    before = torch.random.get_rng_state()
    load_checkpoint(tmp_path / "m")
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_older_file_survives_a_failed_save(tmp_path, tokenizer, monkeypatch):
    path = tmp_path / "m"
    save_checkpoint(path, model_for(tokenizer), tokenizer, version=1)

    def full(weights, name, metadata):
        name.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("helpers.checkpoint.save_file", full)
    with pytest.raises(ValueError, match=r"cannot be written .*free some space"):
        save_checkpoint(path, model_for(tokenizer), tokenizer, version=2)
    assert load_checkpoint(path)[2] == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_missing_and_damaged_files_are_sentences(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"There is no checkpoint .*train first"):
        load_checkpoint(tmp_path / "nowhere")
    path = tmp_path / "m"
    save_checkpoint(path, model_for(tokenizer), tokenizer)
    whole = path.read_bytes()
    for damaged in (
        whole[:-50],
        whole[: len(whole) // 2],
        b"",
        b"something else entirely",
        b"\x80\x04K\x01.",
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a whole checkpoint of this course"):
            load_checkpoint(path)
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path)


def test_files_of_another_kind_are_refused(tmp_path, tokenizer):
    path = tmp_path / "m"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, model_for(tokenizer), tokenizer)
    weights = load_file(path)
    vocabulary = {"kind": "char", "chars": ["a", "b", "c"]}
    header = {"config": {"vocab_size": 3}, "tokenizer": vocabulary, "about": {}}
    save_file(weights, path, metadata={key: json.dumps(value) for key, value in header.items()})
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "change", [lambda t: t.view(3, 2), lambda t: t.view(torch.int32)], ids=["shape", "type"]
)
def test_the_same_bytes_in_another_shape_or_type_are_damage(tmp_path, change):
    path, tensor = tmp_path / "m", torch.arange(6.0).view(2, 3)
    write_file(path, {"a": tensor}, {"x": 1})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file({"a": tensor}, path, metadata=header)
    assert torch.equal(read_file(path)[0]["a"], tensor)
    save_file({"a": change(tensor)}, path, metadata=header)
    with pytest.raises(ValueError, match="do not match its SHA-256"):
        read_file(path)
