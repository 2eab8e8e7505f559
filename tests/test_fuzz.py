"""Files with anything in them, and properties on random input. The long versions: make test-faults."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_for_tests import CPU, TRAIN, VAL, run, short
from safetensors.torch import save, save_file

from helpers.checkpoint import digest, load_checkpoint, read_file, save_checkpoint
from helpers.data import get_batch, load_corpus
from helpers.generate import next_token_probs
from helpers.model import GPT, GPTConfig
from helpers.program.folder import checkpoints, run_folder
from helpers.program.large_text import tokens_of_file
from helpers.tokenizer import BytePairTokenizer, CharTokenizer

LETTERS = CharTokenizer("abcdefghijk")
SMALL = dict(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16)


def one_line(error):
    """A sentence that a reader gets: one line that ends with a full stop and is not torch's or Python's."""
    said = str(error)
    assert "\n" not in said and said.endswith(".") and len(said) < 600, said
    return said


# ---------------------------------------------------------------- corpora

# Bytes that are mostly a text, with all kinds of line ends, and sometimes just not.
TEXT = st.text("ab \r\n\0\ufeffé日😀", max_size=12).map(str.encode)
BREAK = st.sampled_from([b"", b"", b"\r\n", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80"]) | st.binary(
    max_size=3
)
BYTES = st.tuples(TEXT, BREAK, TEXT).map(b"".join)


def check_corpus(folder, raw):
    """Both readers take the bytes as the same text, or refuse them with the same sentence."""
    path, found = folder / "own.txt", []
    path.write_bytes(raw)
    for read in (lambda: load_corpus(path).text, lambda: whole_text(*tokens_of_file(path))):
        try:
            found.append(read())
        except ValueError as error:
            found.append(one_line(error))
    assert found[0] == found[1]
    for made in folder.glob("own.txt.*"):
        made.unlink()


def whole_text(tokenizer, ids):
    return tokenizer.decode(ids.long())


@given(BYTES)
def test_any_bytes_are_a_text_or_one_sentence(tmp_path_factory, raw):
    check_corpus(tmp_path_factory.getbasetemp(), raw)


@pytest.mark.faults
@settings(max_examples=3000)
@given(BYTES)
def test_any_bytes_are_a_text_or_one_sentence_at_length(tmp_path_factory, raw):
    check_corpus(tmp_path_factory.getbasetemp(), raw)


# ---------------------------------------------------------------- checkpoints


def edited(raw, chance):
    """raw after one random edit: flip, cut, insert, overwrite, double, or other bytes altogether."""
    raw, at = bytearray(raw), chance.randrange(len(raw))
    kind = chance.randrange(7)
    if kind == 0:
        raw[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del raw[at:]
    elif kind == 2:
        del raw[at : at + chance.randrange(1, 50)]
    elif kind == 3:
        raw[at:at] = chance.randbytes(chance.randrange(1, 50))
    elif kind == 4:
        raw[at : at + 8] = chance.choice([b"\xff" * 8, bytes(8), b"[[[[[[[[", b"99999999"])
    elif kind == 5:
        raw = raw * 2
    else:
        raw = bytearray(chance.randbytes(chance.randrange(200)))
    return bytes(raw)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The bytes of a model's file and of a run's file."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    model = GPT(GPTConfig(**SMALL))
    with run_folder(folder / "run", model, LETTERS, short(max_steps=2), CPU, TRAIN, VAL) as (history, save):
        run(model, short(max_steps=2), history=history, on_save=save)
    save_checkpoint(folder / "model", model, LETTERS, val=1.0)
    return (folder / "model").read_bytes(), checkpoints(folder / "run")[0].read_bytes()


def go_on(folder, config=None):
    """Go on with the run in a folder, as the command line does."""
    with run_folder(folder, GPT(GPTConfig(**SMALL)), LETTERS, config or short(max_steps=2), CPU, TRAIN, VAL):
        return True


def damage_files(tmp_path, trained, edits, seed):
    chance = random.Random(seed)
    model, step = tmp_path / "model", tmp_path / "run" / "step-00000002.safetensors"
    step.parent.mkdir()
    for _ in range(edits):
        for path, raw, read in ((model, trained[0], load_checkpoint), (step, trained[1], go_on)):
            changed = edited(raw, chance)
            path.write_bytes(changed)
            with pytest.raises(ValueError) as caught:
                read(path if path == model else path.parent)
                assert changed == raw, "an edit went unnoticed"
                raise ValueError("Unchanged.")
            one_line(caught.value)
    return 2 * edits


def test_edited_checkpoints_end_in_a_sentence(tmp_path, trained, capsys):
    damage_files(tmp_path, trained, 60, seed=1)


@pytest.mark.faults
def test_edited_checkpoints_end_in_a_sentence_at_length(tmp_path, trained, capsys):
    tried = damage_files(tmp_path, trained, 5000, seed=2)
    with capsys.disabled():
        print(f" {tried} edits of checkpoints ", end="")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["config", "tokenizer", "about", "model", "train", "text", "torch", "history", "scaler"]


def whole_file(tensors, header):
    """A file with the right checksum, whatever its header says."""
    header = {key: json.dumps(value) for key, value in header.items()}
    return save(tensors, header | {"sha256": digest(tensors, header)})


def check_header(folder, trained, changes):
    """Made-up headers behind a right checksum: read as what they are, or refused in a sentence."""
    for kind, raw in zip(("model", "run"), trained):
        path = folder / kind / "step-00000002.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
        tensors, header = read_file(path)
        for place, value in changes:
            at, inside = place.split("."), header
            for key in at[:-1]:
                inside = inside[key] if isinstance(inside, dict) and key in inside else {}
            if isinstance(inside, dict):
                inside[at[-1]] = value
        path.write_bytes(whole_file(tensors, header))
        for read in (load_checkpoint, lambda path: go_on(path.parent)):
            try:
                read(path)
            except ValueError as error:
                one_line(error)


PLACES = [
    *KEYS, "config.n_layer", "config.n_embd", "config.vocab_size", "config.block_size", "config.n_head",
    "config.position", "tokenizer.chars", "tokenizer.merges", "history.step", "history.best_val",
    "history.evals", "model.n_layer", "train.seed", "scaler.scale",
]  # fmt: skip
CHANGES = st.lists(st.tuples(st.sampled_from(PLACES), JSON | st.sampled_from([10**9, "abc"])), max_size=3)


@given(CHANGES)
def test_made_up_headers_end_in_a_sentence(tmp_path_factory, trained, changes):
    check_header(tmp_path_factory.getbasetemp(), trained, changes)


@pytest.mark.faults
@settings(max_examples=1500)
@given(CHANGES)
def test_made_up_headers_end_in_a_sentence_at_length(tmp_path_factory, trained, changes):
    check_header(tmp_path_factory.getbasetemp(), trained, changes)


def test_a_header_cannot_ask_for_more_memory_than_its_file_has(tmp_path, trained):
    (tmp_path / "m").write_bytes(trained[0])
    tensors, header = read_file(tmp_path / "m")
    doubling = [[97, 97], *([i, i] for i in range(256, 320))]  # the last piece would have 2**65 bytes
    for place, value in [("config", SMALL | {"n_layer": 10**9}), ("tokenizer", {"merges": doubling})]:
        (tmp_path / "m").write_bytes(whole_file(tensors, header | {place: value}))
        with pytest.raises(ValueError, match="not a whole checkpoint"):
            load_checkpoint(tmp_path / "m")


def test_a_model_larger_than_its_file_is_not_even_built(tmp_path, trained, monkeypatch):
    (tmp_path / "m").write_bytes(trained[0])
    tensors, header = read_file(tmp_path / "m")
    (tmp_path / "m").write_bytes(whole_file(tensors, header | {"config": SMALL | {"n_layer": 2}}))
    monkeypatch.setattr("helpers.checkpoint.GPT", lambda config: pytest.fail("it was built"))
    with pytest.raises(ValueError, match="larger model than its weights"):
        load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("missing", ["rng.batches", "losses", "model.lm_head.bias"])
def test_a_run_without_all_its_parts_is_refused(tmp_path, trained, missing):
    path = tmp_path / "step-00000002.safetensors"
    path.write_bytes(trained[1])
    tensors, header = read_file(path)
    del tensors[missing]
    path.write_bytes(whole_file(tensors, header))
    with pytest.raises(ValueError, match=r"The newest checkpoint in .* is not a whole checkpoint") as caught:
        go_on(tmp_path)
    one_line(caught.value)


@given(st.dictionaries(st.text("ab.01", min_size=1, max_size=6), st.lists(st.floats(width=32), max_size=4)))
def test_other_files_of_tensors_are_refused(tmp_path_factory, tensors):
    folder = tmp_path_factory.getbasetemp() / "other"
    folder.mkdir(exist_ok=True)
    path = folder / "step-00000001.safetensors"
    tensors = {name: torch.tensor(values) for name, values in tensors.items()}
    save_file(tensors, path)
    bodies = [path.read_bytes(), whole_file(tensors, {})]
    for body in bodies:
        path.write_bytes(body)
        for read in (load_checkpoint, lambda path: go_on(path.parent)):
            with pytest.raises(ValueError) as caught:
                read(path)
            one_line(caught.value)


# ---------------------------------------------------------------- properties

LONE = st.sampled_from(["", "\ud800", "a\udfff\ud800 "])  # half characters, which a str can hold
ANY_TEXT = st.tuples(st.text(max_size=30), LONE, st.text("ab \n", max_size=30)).map("".join)


@settings(max_examples=60)
@given(ANY_TEXT.filter(bool), st.data())
def test_tokenizers_give_back_every_text(text, data):
    tokenizer = CharTokenizer.from_text(text)
    part = data.draw(st.text(sorted(set(text)), max_size=20))
    pairs = BytePairTokenizer.train(text, 256 + data.draw(st.integers(0, 12)))
    for known, wanted in ((tokenizer, text), (tokenizer, part), (pairs, text), (pairs, part)):
        ids = known.encode(wanted)
        assert known.decode(ids) == wanted and ids.dtype == torch.int64
        assert all(0 <= i < known.vocab_size for i in ids.tolist())
    again = BytePairTokenizer([list(pair) for pair in pairs.merges])
    assert again.encode(text).tolist() == pairs.encode(text).tolist()


FIELDS = dict(
    vocab_size=st.integers(1, 9), block_size=st.integers(1, 6), n_layer=st.integers(1, 2),
    n_head=st.integers(1, 3), n_embd=st.integers(1, 12), dropout=st.floats(0, 0.9),
    activation=st.sampled_from(["relu", "gelu", "gelu_tanh"]),
    position=st.sampled_from(["learned", "sinusoidal"]), bias=st.booleans(), qkv_bias=st.booleans(),
    head_bias=st.booleans(), tie_weights=st.booleans(),
)  # fmt: skip
WRONG = st.sampled_from([None, 0, -1, 1.5, "4", "", [4], float("nan"), float("inf"), 10**400])


@given(st.fixed_dictionaries(FIELDS), st.integers(1, 3), st.data())
def test_a_config_is_refused_or_builds_a_model_that_runs(fields, batch, data):
    possible = fields["n_embd"] % fields["n_head"] == 0
    possible &= fields["position"] == "learned" or fields["n_embd"] % 2 == 0
    if not possible:
        with pytest.raises(ValueError, match="n_embd") as caught:
            GPTConfig(**fields)
        one_line(caught.value)
        return
    config = GPTConfig(**fields)
    idx = torch.randint(config.vocab_size, (batch, data.draw(st.integers(1, config.block_size))))
    logits, loss = GPT(config)(idx, idx)
    assert logits.shape == (*idx.shape, config.vocab_size) and torch.isfinite(loss)


@settings(max_examples=100)
@given(st.sampled_from(sorted(FIELDS)), WRONG)
def test_a_wrong_field_is_named(name, value):
    if name == "dropout" and value == 0:
        return
    if name in ("bias", "qkv_bias", "head_bias", "tie_weights", "activation", "position") or value != 10**400:
        with pytest.raises(ValueError, match=f"{name}=") as caught:
            GPTConfig(**dict(SMALL) | {name: value})
        one_line(caught.value)


@given(
    ids=st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=60),
    block_size=st.integers(1, 20), batch_size=st.integers(1, 5), seed=st.integers(0, 2**63 - 1),
    stored=st.sampled_from([torch.int64, torch.int32, torch.uint16]),
)  # fmt: skip
def test_batches_are_windows_of_the_text_and_targets_the_next_token(
    ids, block_size, batch_size, seed, stored
):
    generator, tensor = torch.Generator().manual_seed(seed), torch.tensor(ids).to(stored)
    if len(ids) <= block_size:
        with pytest.raises(ValueError, match=f"too short for block_size={block_size}"):
            get_batch(tensor, block_size, batch_size, generator)
        return
    x, y = get_batch(tensor, block_size, batch_size, generator)
    assert x.shape == y.shape == (batch_size, block_size) and x.dtype == y.dtype == torch.int64
    windows = [ids[i : i + block_size + 1] for i in range(len(ids) - block_size)]
    for b in range(batch_size):
        assert x[b].tolist() + y[b, -1:].tolist() in windows
        assert x[b, 1:].tolist() == y[b, :-1].tolist()


@settings(max_examples=100)
@given(
    logits=st.lists(st.integers(-30, 30).map(lambda n: n / 10), min_size=1, max_size=12),
    temperature=st.floats(0.01, 100), top_k=st.none() | st.integers(1, 6),
    top_p=st.none() | st.floats(1e-6, 1),
)  # fmt: skip
def test_probabilities_sum_to_one_and_keep_to_top_k_and_top_p(logits, temperature, top_k, top_p):
    z = torch.tensor(logits)
    top_k = top_k and min(top_k, len(logits))
    probs = next_token_probs(z, temperature, top_k, top_p)
    assert probs.sum().item() == pytest.approx(1, abs=1e-5) and (probs >= 0).all()
    kept = probs > 0
    assert probs[z.argmax()] == probs.max(), "the likeliest stays the likeliest"
    if top_k is not None:
        assert kept.sum() <= top_k and all((z > z[i]).sum() < top_k for i in kept.nonzero().flatten())
    if top_p is not None:
        before = next_token_probs(z, temperature, top_k)
        order = z.argsort(descending=True, stable=True)
        reached = (before[order].cumsum(0) - before[order]).numpy()  # by those before each token
        assert not kept[order].numpy()[reached > top_p + 1e-4].any(), "the smallest set that reaches p"
        assert np.all(kept[order].numpy()[(reached < top_p - 1e-4) & (before[order].numpy() > 0)])
