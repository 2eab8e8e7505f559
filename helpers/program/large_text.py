"""Texts larger than memory: the ids are encoded once into a file, and read from there when needed.

As an int64 tensor a text takes eight bytes a character, and its string is in memory as well. Here
nothing grows with the text: the file is read in pieces, and the ids, two bytes each, are mapped:
the tensor has a place for every id, and the operating system reads from the disk what is touched.
"""

import codecs
import hashlib
import io
import itertools
import json
import mmap
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from helpers.data import check_characters
from helpers.files import whole_file, write_whole
from helpers.tokenizer import CharTokenizer

PIECE_BYTES = 1 << 18  # read at a time; a few megabytes are in use meanwhile, however long the text
MAX_CHARS = 1 << 16  # distinct characters that two bytes can number


def tokens_of_file(path, folder=None):
    """The tokenizer of a UTF-8 text file, and the file's ids: uint16 (N,), mapped, only to be read.

    The same characters and ids as load_corpus and CharTokenizer give. They are written to `folder`
    (where the text is, if None) as NAME.ids.npy with NAME.ids.json beside it, and are used again
    until the text changes. ValueError: the text cannot be read or learned from, or ids not written.
    """
    path = Path(os.path.expanduser(str(path)))
    folder = path.parent if folder is None else Path(os.path.expanduser(str(folder)))
    ids_path, about_path = folder / f"{path.name}.ids.npy", folder / f"{path.name}.ids.json"
    state = _state(path)
    stored = _stored(path, state, ids_path, about_path)
    if stored is None:
        _encode(path, state, ids_path, about_path)
        stored = _stored(path, state, ids_path, about_path)
    if stored is None:
        raise ValueError(f"{ids_path} was changed while it was written: try again.")
    tokenizer, ids = stored
    with warnings.catch_warnings():
        # Mapped so that it could be written to, a file would have to fit into memory after all.
        warnings.filterwarnings("ignore", message=".*not writable")
        return tokenizer, torch.from_numpy(ids)


def _stored(path, state, ids_path, about_path):
    """(tokenizer, ids as an array) of an earlier call; None if the text is another, or a file is damaged."""
    try:
        about = json.loads(about_path.read_text(encoding="utf-8"))
        header = _npy_header(about["tokens"])
        with open(ids_path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if mapped[: len(header)] != header or len(mapped) != len(header) + 2 * about["tokens"]:
            return None
        if about["size"] != state["size"] or about["ids_sha256"] != _sha256(ids_path):
            return None
        # A copy or a checkout has another time, and perhaps the same text.
        if about["mtime_ns"] != state["mtime_ns"] and about["sha256"] != _sha256(path):
            return None
        if hasattr(mapped, "madvise"):  # not on Windows
            # Batches are drawn from anywhere: without this, each window is read with much around it.
            mapped.madvise(mmap.MADV_RANDOM)
        return CharTokenizer(about["chars"]), np.frombuffer(mapped, "<u2", offset=len(header))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _npy_header(tokens):
    """What a .npy file of uint16 (tokens,) begins with, in bytes; numpy.load can read the file too."""
    header = io.BytesIO()
    about = {"descr": "<u2", "fortran_order": False, "shape": (tokens,)}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def _encode(path, state, ids_path, about_path):
    """Write ids_path and about_path, each whole or not at all, in two passes over the text."""
    total, quick = 2 * state["size"], state["size"] < 200 * PIECE_BYTES
    bar = tqdm(total=total, desc=path.name, unit="B", unit_scale=True, leave=False, disable=quick)
    with whole_file(ids_path) as partial:
        # Not mapped: on a full disk a write is an error, where a mapped page ends the program.
        with bar, open(partial, "wb") as file:
            tokenizer, about = _survey(path, state, bar)
            digest = hashlib.sha256()  # by which damage on the disk is noticed
            ids = (tokenizer.encode(piece).numpy().astype("<u2") for piece in _pieces(path, state, bar))
            for part in itertools.chain([_npy_header(about["tokens"])], ids):
                digest.update(part)
                file.write(part)
            about["ids_sha256"] = digest.hexdigest()
        about_path.unlink(missing_ok=True)  # never the old description beside the new ids
    write_whole(about_path, json.dumps(about | state).encode())


def _survey(path, state, bar):
    """The first pass: the tokenizer, and what about_path says of the text besides its state."""
    seen, tokens, digest = np.zeros(sys.maxunicode + 1, dtype=bool), 0, hashlib.sha256()
    for piece in _pieces(path, state, bar, digest):
        seen[np.frombuffer(piece.encode("utf-32-le"), dtype=np.uint32)] = True
        tokens += len(piece)
    chars = [chr(code) for code in np.flatnonzero(seen)]
    check_characters(chars, path)
    if len(chars) > MAX_CHARS:
        raise ValueError(
            f"The corpus {path} has {len(chars)} distinct characters, more than the {MAX_CHARS} "
            "that two bytes can number: remove some, or give another text."
        )
    return CharTokenizer(chars), {"chars": "".join(chars), "tokens": tokens, "sha256": digest.hexdigest()}


def _pieces(path, state, bar, digest=None):
    """The text of a file piece by piece; put together, what load_corpus reads. digest gets the bytes."""
    decoder, at, held, start = codecs.getincrementaldecoder("utf-8")(), 0, "", True
    try:
        with open(path, "rb") as file:
            raw = None
            while raw != b"":
                raw = file.read(PIECE_BYTES)
                if _state(path) != state:
                    raise ValueError(f"The corpus {path} was changed while it was read: try again.")
                if digest is not None:
                    digest.update(raw)
                at += len(raw)
                # The decoder keeps the bytes of a character that the end of a piece cuts in two.
                piece = held + decoder.decode(raw, final=not raw)
                if start and piece:
                    piece, start = piece.removeprefix("\ufeff"), False
                # A \r at the end may belong to a \r\n: it waits for the next piece.
                held = "\r" if raw and piece.endswith("\r") else ""
                yield piece.removesuffix(held).replace("\r\n", "\n")
                bar.update(len(raw))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The corpus {path} is not UTF-8 text (byte {at - len(error.object) + error.start} "
            "cannot be decoded): save it as UTF-8 and try again."
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _state(path):
    """Size in bytes and time of the last change in nanoseconds: if both stay, so did the file."""
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character in it
        raise _unreadable(path, error) from None
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(path, error):
    reason = getattr(error, "strerror", None) or type(error).__name__
    return ValueError(f"The corpus {path} cannot be read ({reason}): give the path of a UTF-8 text file.")
