"""Texts larger than memory: helpers/program/large_text.py."""

import errno
import hashlib
import json
import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.data import get_batch, load_corpus, train_val_split
from helpers.program import build, large_text
from helpers.program.large_text import tokens_of_file
from helpers.tokenizer import CharTokenizer

SAMPLE = "Ein Lied:\r\nélève № 7 😀\rohne Ende\n" * 30


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(SAMPLE.encode())
    return path


@pytest.fixture
def encodings(monkeypatch):
    """A list that grows by one name each time a text is encoded anew."""
    done, encode = [], large_text._encode

    def counted(path, *rest):
        done.append(path.name)
        encode(path, *rest)

    monkeypatch.setattr(large_text, "_encode", counted)
    return done


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def in_memory(path):
    """What the course does with a text of the usual size: (tokenizer, int64 ids)."""
    text = load_corpus(path).text
    tokenizer = CharTokenizer.from_text(text)
    return tokenizer, tokenizer.encode(text)


# ---------------------------------------------------------------- the same ids


# Few different characters, of one to four bytes, so that every border falls everywhere.
SOME = st.lists(st.sampled_from(["a", "\r", "\n", "é", "№", "😀", "\ufeff"]), max_size=9).map("".join)
STRAY = st.sampled_from([b"", b"", b"", b"\xf0", b"\xe2\x84"])  # bytes that are no UTF-8, sometimes


@example(bom="", before="a\r\n", stray=b"", after="b\r", piece=2)  # both kinds of \r at a border
@settings(max_examples=80)
@given(bom=st.sampled_from(["", "\ufeff"]), before=SOME, stray=STRAY, after=SOME, piece=st.integers(1, 7))
def test_ids_or_the_sentence_are_those_of_a_text_in_memory(
    tmp_path_factory, bom, before, stray, after, piece
):
    path = tmp_path_factory.mktemp("text") / "any.txt"
    path.write_bytes((bom + before).encode() + stray + after.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_text, "PIECE_BYTES", piece)
        try:
            expected, expected_ids = in_memory(path)
        except ValueError as sentence:
            with pytest.raises(ValueError) as caught:
                tokens_of_file(path)
            assert str(caught.value) == str(sentence)
            assert files(path.parent) == ["any.txt"]
            return
        tokenizer, ids = tokens_of_file(path)
    assert tokenizer.chars == expected.chars
    assert ids.dtype == torch.uint16
    torch.testing.assert_close(ids.long(), expected_ids)


def test_all_two_byte_ids_are_used_and_one_character_more_is_refused(tmp_path):
    path = tmp_path / "many.txt"
    chars = [chr(c) for c in range(0x1000, 0x1000 + 70_000) if not 0xD800 <= c < 0xE000]
    path.write_text("".join(chars[:65_536]), encoding="utf-8")
    tokenizer, ids = tokens_of_file(path)
    torch.testing.assert_close(ids.long(), torch.arange(65_536))
    assert tokenizer.decode(ids) == "".join(chars[:65_536])
    path.write_text("".join(chars[:65_537]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"65537 distinct characters, more than the 65536 .*remove some"):
        tokens_of_file(path)


def test_texts_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(ValueError, match=r"cannot be read \(.*give the path of a UTF-8 text") as caught:
            tokens_of_file(path, tmp_path / "ids")
        assert str(path) in str(caught.value)
    assert not any((tmp_path / "ids").glob("*"))


# ---------------------------------------------------------------- written once


def test_ids_are_used_again_while_the_text_stays(book, encodings):
    first, ids = tokens_of_file(book)
    assert files(book.parent) == ["book.txt", "book.txt.ids.json", "book.txt.ids.npy"]
    again, same = tokens_of_file(str(book))
    os.utime(book, ns=(1, 1))  # another time, the same text: a copy, or a fresh checkout
    touched, equal = tokens_of_file(book)
    assert encodings == ["book.txt"]
    assert first.chars == again.chars == touched.chars
    assert torch.equal(ids, same) and torch.equal(ids, equal)
    assert np.load(book.parent / "book.txt.ids.npy").tolist() == ids.tolist()
    about = json.loads((book.parent / "book.txt.ids.json").read_text())
    assert about["sha256"] == hashlib.sha256(book.read_bytes()).hexdigest() and about["tokens"] == len(ids)


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that is mapped, and a sentence says so")
@pytest.mark.parametrize("word, same_time", [("Leid", False), ("Lieder", True)])
def test_a_text_that_changed_is_encoded_again(book, encodings, word, same_time):
    _, before = tokens_of_file(book)
    time = book.stat().st_mtime_ns if same_time else 1
    book.write_bytes(SAMPLE.replace("Lied", word).encode())
    os.utime(book, ns=(time, time))
    tokenizer, ids = tokens_of_file(book)
    assert tokenizer.decode(ids) == load_corpus(book).text != SAMPLE
    assert len(encodings) == 2
    assert len(before) == len(SAMPLE.replace("\r\n", "\n")), "ids that are in use stay what they were"


DAMAGE = {
    "cut off": lambda ids, about: ids.write_bytes(ids.read_bytes()[:-1]),
    "too long": lambda ids, about: ids.write_bytes(ids.read_bytes() + b"\0\0"),
    "empty": lambda ids, about: ids.write_bytes(b""),
    "another shape": lambda ids, about: np.save(ids, np.load(ids)[None]),
    "another type": lambda ids, about: np.save(ids, np.load(ids).astype(np.int16)),
    "one bit of the header": lambda ids, about: ids.write_bytes(ids.read_bytes().replace(b"}", b"y", 1)),
    "one bit of an id": lambda ids, about: ids.write_bytes(ids.read_bytes()[:-2] + b"\1\0"),
    "gone": lambda ids, about: ids.unlink(),
    "no description": lambda ids, about: about.unlink(),
    "half a description": lambda ids, about: about.write_text(about.read_text()[:40]),
    "an empty description": lambda ids, about: about.write_text("{}"),
    "a strange description": lambda ids, about: about.write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_written_again(book, encodings, damage):
    tokens_of_file(book)
    folder = book.parent
    DAMAGE[damage](folder / "book.txt.ids.npy", folder / "book.txt.ids.json")
    tokenizer, ids = tokens_of_file(book)
    assert tokenizer.decode(ids) == load_corpus(book).text
    assert len(encodings) == 2
    tokens_of_file(book)
    assert len(encodings) == 2, "and whole again"


def test_ids_can_be_kept_in_another_folder(book, tmp_path, encodings):
    folder = tmp_path / "new" / "place"
    _, ids = tokens_of_file(book, folder)
    assert torch.equal(ids, tokens_of_file(book, str(folder))[1]) and len(encodings) == 1
    assert files(folder) == ["book.txt.ids.json", "book.txt.ids.npy"]
    assert files(tmp_path) == ["book.txt", "new"]


# ---------------------------------------------------------------- faults


def broken(error):
    def fail(*args):
        raise error

    return fail


@pytest.mark.parametrize("moment", ["_npy_header", "the flush"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_a_stop_leaves_the_old_ids_and_nothing_half_written(book, monkeypatch, moment, error):
    tokens_of_file(book)
    ids = book.parent / "book.txt.ids.npy"
    old = ids.read_bytes()
    book.write_bytes(SAMPLE.encode() * 2)
    with monkeypatch.context() as patch, pytest.raises((ValueError, KeyboardInterrupt)) as caught:
        if moment == "the flush":  # the last moment before the renaming
            patch.setattr(os, "fsync", broken(error))
        else:
            patch.setattr(large_text, moment, broken(error))
        tokens_of_file(book)
    if isinstance(error, OSError):
        assert f"{ids} cannot be written (No space left on device): free some space" in str(caught.value)
    assert ids.read_bytes() == old
    assert set(files(book.parent)) <= {"book.txt", "book.txt.ids.json", "book.txt.ids.npy"}
    tokenizer, new = tokens_of_file(book)
    assert tokenizer.decode(new) == load_corpus(book).text, "with room on the disk it works again"


def test_a_folder_that_cannot_be_written_is_named(book):
    # A file in the place of the folder: not by permissions, for root may write everywhere.
    with pytest.raises(
        ValueError, match=r"book\.txt/ids/book\.txt\.ids\.npy cannot be written .*another folder"
    ):
        tokens_of_file(book, book / "ids")
    assert files(book.parent) == ["book.txt"]


def test_new_ids_never_stand_beside_the_old_description(book, monkeypatch):
    tokens_of_file(book)
    book.write_bytes(SAMPLE.encode() * 2)
    monkeypatch.setattr(large_text, "write_whole", broken(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        tokens_of_file(book)
    assert files(book.parent) == ["book.txt", "book.txt.ids.npy"]


@pytest.mark.parametrize("change", [b"", SAMPLE.encode() + b"!", SAMPLE.replace("Lied", "Tanz!").encode()])
@pytest.mark.parametrize("when", ["first", "second"])
def test_a_text_that_changes_while_it_is_read_is_refused(book, monkeypatch, change, when):
    real, passes = large_text._pieces, []

    def pieces(*arguments):
        passes.append(1)
        if len(passes) == (1 if when == "first" else 2):
            book.write_bytes(change)
        yield from real(*arguments)

    monkeypatch.setattr(large_text, "_pieces", pieces)
    with pytest.raises(ValueError, match=r"book\.txt was changed while it was read: try again"):
        tokens_of_file(book)
    assert files(book.parent) == ["book.txt"]


def test_ids_that_another_program_changes_while_they_are_written_are_refused(book, monkeypatch):
    ids, write = book.parent / "book.txt.ids.npy", large_text.write_whole
    monkeypatch.setattr(large_text, "write_whole", lambda *a: (write(*a), ids.write_bytes(b"theirs")))
    with pytest.raises(ValueError, match=r"book\.txt\.ids\.npy was changed while it was written: try again"):
        tokens_of_file(book)


# ---------------------------------------------------------------- bounded memory


def test_encoding_takes_less_memory_than_the_text_has(tmp_path, monkeypatch):
    path, size = tmp_path / "long.txt", 6_000_000
    path.write_bytes((SAMPLE.encode() * (size // len(SAMPLE)))[:size])
    monkeypatch.setattr(large_text, "PIECE_BYTES", 1 << 16)
    tracemalloc.start()
    try:
        _, ids = tokens_of_file(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(ids) > size / 2
    assert peak < size / 2


def test_ids_are_mapped_not_read(book):
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, ids = tokens_of_file(book)
    finally:
        torch.set_warn_always(False)
    with open(book.parent / "book.txt.ids.npy", "r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write((777).to_bytes(2, "little"))
    assert ids[-1].item() == 777


def test_windows_are_read_without_what_stands_around_them(book):
    if not Path("/proc/self/smaps").exists():
        pytest.skip("only Linux tells how a file is mapped")
    _, ids = tokens_of_file(book)
    about_map = Path("/proc/self/smaps").read_text().split(str(book.parent / "book.txt.ids.npy"))[1]
    flags = about_map.split("VmFlags:")[1].split("\n")[0].split()
    assert "rr" in flags, "advised: random reads"
    assert "wr" not in flags, "a mapping that can be written to counts as memory, and must fit into it"
    assert len(ids)


class LargestCopy(TorchDispatchMode):
    """Inside, .bytes is the size of the largest storage that an operation made anew."""

    def __init__(self, ids):
        super().__init__()
        self.known, self.bytes = ids.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if torch.is_tensor(tensor) and tensor.untyped_storage().data_ptr() != self.known:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def test_batches_of_mapped_ids_are_the_same_and_touch_only_their_windows(book):
    _, ids = tokens_of_file(book)
    expected = in_memory(book)[1]
    for split, reference in zip(train_val_split(ids), train_val_split(expected)):
        with LargestCopy(ids) as copies:
            batch = get_batch(split, 8, 4, torch.Generator().manual_seed(1))
        assert copies.bytes == 4 * 9 * 8, "four windows of nine, as int64"
        torch.testing.assert_close(batch, get_batch(reference, 8, 4, torch.Generator().manual_seed(1)))


def test_of_a_large_text_only_so_much_is_kept_to_be_swept(book, monkeypatch):
    sizes, small = [], dict(n_layer=1, n_embd=16, block_size=8)
    for largest in (10**6, 50):
        monkeypatch.setattr(build, "LARGEST_SWEEP", largest)
        _, _, train_ids, val_ids, _ = build.build_from_file("nanogpt-cpu", book, small)
        sizes.append((len(train_ids) + len(val_ids), len(val_ids)))
    (whole, tenth), (again, few) = sizes
    assert whole == again and tenth == pytest.approx(whole / 10, abs=1) and few == pytest.approx(50, abs=1)
