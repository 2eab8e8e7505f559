"""Corpora, the split and batches: helpers/data.py."""

import hashlib
import socket
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import data
from helpers.data import Corpus, get_batch, load_corpus, train_val_split
from helpers.ladder import load_ladder
from helpers.program import run

FAKE = b"To be, or not to be, that is the question.\n" * 50


# ---------------------------------------------------------------- load_corpus


def test_plays_are_the_default_and_verified():
    corpus = load_corpus()
    assert (corpus.name, corpus.licence) == ("plays", "CC0 1.0")
    assert len(corpus.text) == 1_178_371 and len(set(corpus.text)) == 65
    assert hashlib.sha256(corpus.text.encode()).hexdigest() == data.PLAYS_SHA256


def test_course_corpus_changes_the_default_but_not_a_given_name(monkeypatch, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("my own text")
    monkeypatch.setenv("COURSE_CORPUS", str(own))
    assert load_corpus().text == "my own text"
    assert load_corpus("plays").name == "plays"
    monkeypatch.setenv("COURSE_CORPUS", "")
    assert load_corpus().name == "plays"


def test_a_path_may_be_that_seen_from_the_folder_of_the_course(monkeypatch, tmp_path):
    """`COURSE_CORPUS=my.txt make lab` is typed there, and the kernel of a notebook runs in notebooks/."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "my.txt").write_text("beside the notebooks")
    monkeypatch.setattr(data, "DATA_DIR", tmp_path / "data")
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("COURSE_CORPUS", "my.txt")
    assert load_corpus().text == "beside the notebooks"
    (tmp_path / "notebooks" / "my.txt").write_text("among them")
    assert load_corpus().text == "among them"
    with pytest.raises(ValueError, match=r"The corpus other\.txt cannot be read"):
        load_corpus("other.txt")


def test_own_text_in_any_language(tmp_path):
    own = tmp_path / "faust.txt"
    own.write_text("Habe nun, ach! Philosophie … 😀\n", encoding="utf-8")
    corpus = load_corpus(own)
    assert corpus.text == "Habe nun, ach! Philosophie … 😀\n"
    assert (corpus.name, corpus.source, corpus.licence) == ("faust.txt", str(own), "yours")


def test_home_folder_is_understood(monkeypatch, tmp_path):
    (tmp_path / "own.txt").write_text("at home")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_corpus("~/own.txt").text == "at home"


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfone\r\ntwo\r\n", b"one\ntwo\n"])
def test_byte_order_mark_and_windows_newlines_vanish(tmp_path, raw):
    own = tmp_path / "own.txt"
    own.write_bytes(raw)
    assert load_corpus(own).text == "one\ntwo\n"


@pytest.mark.parametrize(
    "raw, sentence",
    [
        (b"", "is empty: give a text file"),
        (b" \n\t ", "is empty: give a text file"),
        (b"\xef\xbb\xbf", "is empty: give a text file"),
        (b"aaaa", "single distinct character, 'a'.*give a text with more characters"),
        (b"ab\xff\xfe", r"is not UTF-8 text \(byte 2 cannot be decoded\): save it as UTF-8"),
        (b"\xef\xbb\xbfab\xff", r"is not UTF-8 text \(byte 5 cannot be decoded\)"),
    ],
)
def test_texts_that_cannot_be_learned_from(tmp_path, raw, sentence):
    own = tmp_path / "own.txt"
    own.write_bytes(raw)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_corpus(own)
    assert str(own) in str(caught.value), "the sentence names the file"


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"shakespear cannot be read .*No such file.*plays"):
        load_corpus(tmp_path / "shakespear")
    with pytest.raises(ValueError, match=r"cannot be read .*(directory|Permission)"):
        load_corpus(tmp_path)
    with pytest.raises(ValueError, match=r"~nobody-here/own.txt cannot be read"):
        load_corpus("~nobody-here/own.txt")


def test_tampered_plays_are_refused(monkeypatch, tmp_path):
    raw = bytearray((data.DATA_DIR / "plays.txt").read_bytes())
    raw[1000] ^= 1
    (tmp_path / "plays.txt").write_bytes(raw)
    monkeypatch.setattr(data, "DATA_DIR", tmp_path)
    with pytest.raises(
        ValueError, match=r"SHA-256 \w{12}… in place of \w{12}…\): .*git checkout data/plays\.txt"
    ):
        load_corpus("plays")


# ---------------------------------------------------------------- a text named as a bundled one


@pytest.mark.parametrize("name", ["plays", "tinyshakespeare"])
@pytest.mark.parametrize("large", [False, True])
def test_a_text_of_ones_own_is_never_taken_for_a_bundled_one(tmp_path, monkeypatch, name, large):
    own = tmp_path / name
    own.write_text("not by Shakespeare " * 20)
    assert load_corpus(own).name == f"own-{name}"
    assert load_ladder(load_corpus(own)) == {} != load_ladder(Corpus(name, "", "", ""))
    monkeypatch.setattr(run, "LARGE_TEXT_BYTES", 0 if large else 10**9)
    arguments = run.parser().parse_args(
        ["--preset", "nanogpt-cpu", "--block_size", "8", "--corpus", str(own)]
    )
    assert run.build_from_arguments(arguments)[0] == f"own-{name}", "what its record is named after"
    assert (tmp_path / f"{name}.ids.npy").exists() is large


# ---------------------------------------------------------------- Tiny Shakespeare


@pytest.fixture
def pinned(monkeypatch, tmp_path):
    """Pretend that FAKE is Tiny Shakespeare and that the data folder is empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(data, "DATA_DIR", folder)
    monkeypatch.setattr(data, "TINYSHAKESPEARE_SHA256", hashlib.sha256(FAKE).hexdigest())
    return folder


@pytest.fixture
def network(monkeypatch):
    """In place of the network: .sends, bytes or an error, for every call of download; see .calls."""
    network = SimpleNamespace(sends=FAKE, calls=[])

    def download(*arguments):
        network.calls.append(arguments)
        if isinstance(network.sends, Exception):
            raise network.sends
        return network.sends

    monkeypatch.setattr(data, "download", download)
    return network


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_download_once_then_read_from_disk(network, pinned):
    corpus = load_corpus("tinyshakespeare")
    assert corpus.text == FAKE.decode() and corpus.source == data.TINYSHAKESPEARE_URL
    assert (corpus.name, corpus.licence) == ("tinyshakespeare", "public domain")
    assert files(pinned) == ["tinyshakespeare.txt"]
    assert load_corpus("tinyshakespeare").text == corpus.text
    assert network.calls == [(data.TINYSHAKESPEARE_URL, 4_000_000)], "the second time it is not needed"


def test_a_download_that_is_another_file_leaves_nothing(network, pinned):
    network.sends = FAKE.replace(b"be", b"me")
    with pytest.raises(ValueError, match=r"not the expected file .*try again later"):
        load_corpus("tinyshakespeare")
    assert files(pinned) == []


def test_offline_is_a_sentence_with_remedies(network, pinned):
    network.sends = OSError("no route to host")
    with pytest.raises(ValueError, match=r'no route to host.*go online.*TINYSHAKESPEARE_PATH.*"plays"'):
        load_corpus("tinyshakespeare")
    assert files(pinned) == []


def test_a_file_that_was_changed_on_disk_is_refused(pinned):
    (pinned / "tinyshakespeare.txt").write_bytes(FAKE + b"!")
    with pytest.raises(ValueError, match="delete it and it will be downloaded again"):
        load_corpus("tinyshakespeare")


def test_own_copy_is_verified(pinned, monkeypatch, tmp_path):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(FAKE)
    monkeypatch.setenv("TINYSHAKESPEARE_PATH", str(copy))
    corpus = load_corpus("tinyshakespeare")
    assert corpus.text == FAKE.decode() and corpus.source == "TINYSHAKESPEARE_PATH"
    copy.write_bytes(FAKE[:-1])
    with pytest.raises(ValueError, match=r"not the expected file .*TINYSHAKESPEARE_PATH"):
        load_corpus("tinyshakespeare")
    monkeypatch.setenv("TINYSHAKESPEARE_PATH", str(tmp_path / "nowhere.txt"))
    with pytest.raises(ValueError, match="cannot be read"):
        load_corpus("tinyshakespeare")
    assert files(pinned) == [], "the copy stays where it is"


def test_a_folder_that_cannot_be_written_is_named(network, monkeypatch, tmp_path):
    # Not by permissions: tests may run as root, who may write everywhere.
    (tmp_path / "file").touch()
    monkeypatch.setattr(data, "TINYSHAKESPEARE_SHA256", hashlib.sha256(FAKE).hexdigest())
    monkeypatch.setattr(data, "DATA_DIR", tmp_path / "file")
    with pytest.raises(ValueError, match=r"tinyshakespeare\.txt cannot be written .*choose another folder"):
        load_corpus("tinyshakespeare")


def test_bundled_corpus_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(data, "download", refuse)
    assert load_corpus("plays").name == "plays"


# ---------------------------------------------------------------- the split


@given(n=st.integers(40, 3000), fraction=st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.9]))
def test_split_is_contiguous_and_complete(n, fraction):
    ids = torch.arange(n)
    train_ids, val_ids = train_val_split(ids, fraction)
    torch.testing.assert_close(torch.cat([train_ids, val_ids]), ids)
    assert abs(len(val_ids) - fraction * n) <= 1


def test_split_is_ninety_to_ten_by_default():
    train_ids, val_ids = train_val_split(torch.arange(1000))
    assert (len(train_ids), len(val_ids)) == (900, 100)


@pytest.mark.parametrize("n", [0, 1, 3, 10])
def test_split_refuses_texts_that_are_too_short(n):
    with pytest.raises(ValueError, match=f"{n} tokens cannot be split.*use a longer text"):
        train_val_split(torch.arange(n))


# ---------------------------------------------------------------- batches


@given(
    ids=st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=60),
    block_size=st.integers(1, 20),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
    stored=st.sampled_from([torch.int64, torch.uint16]),
)
def test_batches_are_windows_of_the_text_and_targets_the_next_token(
    ids, block_size, batch_size, seed, stored
):
    block_size = min(block_size, len(ids) - 1)
    generator = torch.Generator().manual_seed(seed)
    x, y = get_batch(torch.tensor(ids).to(stored), block_size, batch_size, generator)
    assert x.shape == y.shape == (batch_size, block_size) and x.dtype == y.dtype == torch.int64
    windows = [ids[i : i + block_size + 1] for i in range(len(ids) - block_size)]
    for b in range(batch_size):
        assert x[b].tolist() + y[b, -1:].tolist() in windows
        assert x[b, 1:].tolist() == y[b, :-1].tolist()


def test_equal_seeds_give_equal_batches(ids):
    first, again, other = (
        get_batch(ids, 16, 8, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again)
    assert not torch.equal(first, other)


def test_a_generator_leaves_the_global_randomness_alone(ids):
    before = torch.random.get_rng_state()
    get_batch(ids, 16, 8, torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_window_is_drawn_equally_often_the_last_one_too():
    x, y = get_batch(torch.arange(12), 4, 80_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(x[:, 0])
    assert len(counts) == 8, "starts 0 to 7, so that the last target is the last id"
    assert y.max() == 11
    assert (counts / 10_000 - 1).abs().max() < 0.05


def test_windows_never_cross_the_split():
    train_ids, val_ids = train_val_split(torch.arange(100))
    for split, low, high in ((train_ids, 0, 89), (val_ids, 90, 99)):
        x, y = get_batch(split, 8, 2000, torch.Generator().manual_seed(0))
        assert x.min() == low and y.max() == high


def test_a_block_needs_its_tokens_and_one_more():
    ids = torch.arange(10)
    assert get_batch(ids, 9, 1)[1].tolist() == [list(range(1, 10))]
    with pytest.raises(ValueError, match=r"10 tokens is too short for block_size=10.*at most 9"):
        get_batch(ids, 10, 1)


def test_batches_move_to_the_device_asked_for(ids):
    x, y = get_batch(ids, 4, 2, device="meta")
    assert x.device.type == y.device.type == "meta"
