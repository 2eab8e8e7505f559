"""Files and configurations with anything in them. The long versions: make test-faults."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_for_tests import CPU, TRAIN, VAL, run, short
from safetensors.torch import save, save_file

from helpers.checkpoint import digest, load_checkpoint, read_file, save_checkpoint
from helpers.data import load_corpus
from helpers.model import GPT, GPTConfig
from helpers.program.folder import checkpoints, run_folder
from helpers.program.large_text import tokens_of_file
from helpers.tokenizer import CharTokenizer

LETTERS = CharTokenizer("abcdefghijk")
SMALL = dict(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16)


def one_line(error):
    """A sentence that a reader gets: one line that ends with a full stop and is not torch's or Python's."""
    sentence = str(error)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 600, sentence
    return sentence


# ---------------------------------------------------------------- corpora

# Bytes that are mostly a text, with all kinds of line ends, and sometimes just not.
TEXT = st.text("ab \r\n\0\ufeffé日😀", max_size=12).map(str.encode)
BREAK = st.sampled_from([b"", b"", b"\r\n", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80"]) | st.binary(
    max_size=3
)
BYTES = st.tuples(TEXT, BREAK, TEXT).map(b"".join)


def check_corpus(folder, raw):
    """Both readers take the bytes as the same text, or refuse them with the same sentence."""
    path, results = folder / "own.txt", []
    path.write_bytes(raw)
    for read in (lambda: load_corpus(path).text, lambda: whole_text(*tokens_of_file(path))):
        try:
            results.append(read())
        except ValueError as error:
            results.append(one_line(error))
    assert results[0] == results[1]
    for made in folder.glob("own.txt.*"):
        made.unlink()


def whole_text(tokenizer, ids):
    return tokenizer.decode(ids.long())


@given(BYTES)
def test_any_bytes_are_a_text_or_one_sentence(tmp_path_factory, raw):
    check_corpus(tmp_path_factory.getbasetemp(), raw)


@pytest.mark.slow
@settings(max_examples=3000)
@given(BYTES)
def test_any_bytes_are_a_text_or_one_sentence_at_length(tmp_path_factory, raw):
    check_corpus(tmp_path_factory.getbasetemp(), raw)


# ---------------------------------------------------------------- checkpoints


def edited(raw, rng):
    """raw after one random edit: flip, cut, insert, overwrite, double, or other bytes altogether."""
    raw, at = bytearray(raw), rng.randrange(len(raw))
    kind = rng.randrange(7)
    if kind == 0:
        raw[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del raw[at:]
    elif kind == 2:
        del raw[at : at + rng.randrange(1, 50)]
    elif kind == 3:
        raw[at:at] = rng.randbytes(rng.randrange(1, 50))
    elif kind == 4:
        raw[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"[[[[[[[[", b"99999999"])
    elif kind == 5:
        raw = raw * 2
    else:
        raw = bytearray(rng.randbytes(rng.randrange(200)))
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
    rng = random.Random(seed)
    model, step = tmp_path / "model", tmp_path / "run" / "step-00000002.safetensors"
    step.parent.mkdir()
    for _ in range(edits):
        for path, raw, read in ((model, trained[0], load_checkpoint), (step, trained[1], go_on)):
            changed = edited(raw, rng)
            path.write_bytes(changed)
            with pytest.raises(ValueError) as caught:
                read(path if path == model else path.parent)
                assert changed == raw, "an edit went unnoticed"
                raise ValueError("Unchanged.")
            one_line(caught.value)
    return 2 * edits


def test_edited_checkpoints_end_in_a_sentence(tmp_path, trained, capsys):
    damage_files(tmp_path, trained, 60, seed=1)


@pytest.mark.slow
def test_edited_checkpoints_end_in_a_sentence_at_length(tmp_path, trained, capsys):
    tried = damage_files(tmp_path, trained, 5000, seed=2)
    with capsys.disabled():
        print(f" {tried} edits of checkpoints ", end="")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def signed(tensors, header):
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
        for name, value in changes:
            at, inside = name.split("."), header
            for key in at[:-1]:
                inside = inside[key] if isinstance(inside, dict) and key in inside else {}
            if isinstance(inside, dict):
                inside[at[-1]] = value
        path.write_bytes(signed(tensors, header))
        for read in (load_checkpoint, lambda path: go_on(path.parent)):
            try:
                read(path)
            except ValueError as error:
                one_line(error)


KEYS = [
    "config", "tokenizer", "about", "model", "train", "text", "precision", "torch", "history", "scaler",
    "config.n_layer", "config.n_embd", "config.vocab_size", "config.block_size", "config.n_head",
    "config.position", "tokenizer.chars", "tokenizer.merges", "history.step", "history.best_val",
    "history.evals", "model.n_layer", "train.seed", "scaler.scale",
]  # fmt: skip
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), JSON | st.sampled_from([10**9, "abc"])), max_size=3)


@given(CHANGES)
def test_made_up_headers_end_in_a_sentence(tmp_path_factory, trained, changes):
    check_header(tmp_path_factory.getbasetemp(), trained, changes)


@pytest.mark.slow
@settings(max_examples=1500)
@given(CHANGES)
def test_made_up_headers_end_in_a_sentence_at_length(tmp_path_factory, trained, changes):
    check_header(tmp_path_factory.getbasetemp(), trained, changes)


def test_a_header_cannot_ask_for_more_than_its_file_has(tmp_path, trained):
    (tmp_path / "m").write_bytes(trained[0])
    tensors, header = read_file(tmp_path / "m")
    doubling = [[97, 97], *([i, i] for i in range(256, 320))]  # the last piece would have 2**65 bytes
    wide = [*doubling[:20], *[[275, 97]] * 200]  # of 1 MiB each, and as many as one likes
    for name, value, reason in [
        ("config", SMALL | {"n_layer": 10**9}, "a larger model than its weights"),
        ("tokenizer", {"merges": doubling}, "which makes no piece"),
        ("tokenizer", {"merges": wide}, "which makes no piece"),
        ("tokenizer", {"chars": "abcdefghijkl"}, "vocabulary is larger than its model's"),
    ]:
        (tmp_path / "m").write_bytes(signed(tensors, header | {name: value}))
        with pytest.raises(ValueError, match=f"not a whole checkpoint .*{reason}"):
            load_checkpoint(tmp_path / "m")


def test_a_file_that_may_not_be_read_is_not_called_damaged(monkeypatch):
    def forbidden(*args, **kwargs):  # not by permissions: root may read everywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("helpers.checkpoint.safe_open", forbidden)
    with pytest.raises(
        ValueError, match=r"^best cannot be read \(Permission denied\): see who may read it\.$"
    ):
        load_checkpoint("best")


def test_a_model_larger_than_its_file_is_not_even_built(tmp_path, trained, monkeypatch):
    (tmp_path / "m").write_bytes(trained[0])
    tensors, header = read_file(tmp_path / "m")
    (tmp_path / "m").write_bytes(signed(tensors, header | {"config": SMALL | {"n_layer": 2}}))
    monkeypatch.setattr("helpers.checkpoint.GPT", lambda config: pytest.fail("it was built"))
    with pytest.raises(ValueError, match="larger model than its weights"):
        load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("missing", ["rng.batches", "losses", "model.lm_head.bias"])
def test_a_run_without_all_its_parts_is_refused(tmp_path, trained, missing):
    path = tmp_path / "step-00000002.safetensors"
    path.write_bytes(trained[1])
    tensors, header = read_file(path)
    del tensors[missing]
    path.write_bytes(signed(tensors, header))
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
    bodies = [path.read_bytes(), signed(tensors, {})]
    for body in bodies:
        path.write_bytes(body)
        for read in (load_checkpoint, lambda path: go_on(path.parent)):
            with pytest.raises(ValueError) as caught:
                read(path)
            one_line(caught.value)


# ---------------------------------------------------------------- configurations

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
