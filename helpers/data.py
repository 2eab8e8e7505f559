"""Corpora, the train/validation split, and batches: from a text file to tensors (B, T)."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from helpers.checks import check_kind, check_number
from helpers.files import DATA_DIR, download, write_whole

PLAYS_SHA256 = "4c9fb113a1082df249db994ed2a343bfd13893ef7ca4a12269b06c738f01faea"
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINYSHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
NAMED = ("plays", "tinyshakespeare")  # texts that load_corpus knows by name
MAX_DOWNLOAD_BYTES = 4_000_000  # the file has 1.1 MB; anything much larger is not it

# ---------------------------------------------------------------- texts


@dataclass(frozen=True)
class Corpus:
    """One text and where it came from."""

    name: str
    text: str
    source: str
    licence: str


def load_corpus(name_or_path=None):
    """Load a text: "plays" (bundled), "tinyshakespeare" (downloaded once), or a path to your own.

    Without an argument, the environment variable COURSE_CORPUS decides, and "plays" if it is unset.
    Raises ValueError with the remedy if the text cannot be found, read, verified or learned from.
    """
    check_kind("name_or_path", name_or_path, str | os.PathLike | None, '"plays", or the path of a text file')
    name = str(name_or_path or os.environ.get("COURSE_CORPUS") or "plays")
    if name == "plays":
        path = DATA_DIR / "plays.txt"
        raw = _read_bytes(path)
        _verify(raw, PLAYS_SHA256, path, "restore it with `git checkout data/plays.txt`")
        return Corpus("plays", _decode(raw, path), "bundled with the course", "CC0 1.0")
    if name == "tinyshakespeare":
        raw, source = _tinyshakespeare()
        return Corpus("tinyshakespeare", _decode(raw, source), source, "public domain")
    path = seen_from_the_course(os.path.expanduser(name))  # a home that is not there stays in the path
    text = _decode(_read_bytes(path), path)
    check_characters(set(text), path)
    return Corpus(name_of_own(path), text, str(path), "yours")


def seen_from_the_course(path):
    """The Path of a file; if it is not there, the same seen from the folder in which `make lab` was typed.

    A notebook runs in notebooks/, and what was typed before it began means the course's folder.
    """
    from_course = DATA_DIR.parent / path  # an absolute path stays what it is
    return from_course if os.path.exists(from_course) and not os.path.exists(path) else Path(path)


def name_of_own(path):
    """The name of a text of one's own: its file's. A file called "plays" is still not the plays."""
    name = Path(path).name
    return f"own-{name}" if name in NAMED else name


def check_characters(chars, path):
    """Raise ValueError unless a text of these distinct characters has something to predict."""
    if not "".join(chars).strip():
        raise ValueError(f"The corpus {path} is empty: give a text file with some text in it.")
    if len(chars) < 2:
        raise ValueError(
            f"The corpus {path} has a single distinct character, {next(iter(chars))!r}: "
            "there is nothing to predict; give a text with more characters."
        )


def _read_bytes(path):
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character in it
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ValueError(
            f"The corpus {path} cannot be read ({reason}): "
            'give "plays", "tinyshakespeare" or the path of a UTF-8 text file.'
        ) from None


def _decode(raw, path):
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")  # a byte-order mark, which some editors add
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The corpus {path} is not UTF-8 text (byte {error.start} cannot be decoded): "
            "save it as UTF-8 and try again."
        ) from None
    return text.replace("\r\n", "\n")


def _verify(raw, sha256, path, remedy):
    actual = hashlib.sha256(raw.replace(b"\r\n", b"\n")).hexdigest()  # on Windows a line may end so
    if actual != sha256:
        raise ValueError(
            f"{path} is not the expected file (SHA-256 {actual[:12]}… in place of {sha256[:12]}…): {remedy}."
        )


def _tinyshakespeare():
    """Bytes and source of Tiny Shakespeare: TINYSHAKESPEARE_PATH, else data/, else the network."""
    given = os.path.expanduser(os.environ.get("TINYSHAKESPEARE_PATH", ""))
    if given:
        raw = _read_bytes(seen_from_the_course(given))
        _verify(raw, TINYSHAKESPEARE_SHA256, given, "point TINYSHAKESPEARE_PATH at the original")
        return raw, "TINYSHAKESPEARE_PATH"
    path = DATA_DIR / "tinyshakespeare.txt"
    if not path.exists():
        try:
            raw = download(TINYSHAKESPEARE_URL, MAX_DOWNLOAD_BYTES)
        except OSError as error:
            raise ValueError(
                f"Tiny Shakespeare could not be downloaded ({error}): go online, or set "
                'TINYSHAKESPEARE_PATH to a copy, or use the bundled corpus "plays".'
            ) from None
        _verify(raw, TINYSHAKESPEARE_SHA256, TINYSHAKESPEARE_URL, "try again later")
        write_whole(path, raw)
        return raw, TINYSHAKESPEARE_URL
    raw = _read_bytes(path)
    _verify(raw, TINYSHAKESPEARE_SHA256, path, "delete it and it will be downloaded again")
    return raw, TINYSHAKESPEARE_URL


# ---------------------------------------------------------------- ids to batches


def train_val_split(ids, val_fraction=0.1):
    """Cut ids (N,) in two: the first part to learn from, the last to validate on. No shuffling.

    Neighbouring characters belong together: shuffled windows of one text overlap, and a validation
    set that overlaps the training set measures memory. Raises ValueError if a side would be empty.
    """
    check_number("val_fraction", val_fraction, above=0, below=1)
    n_train = int((1 - val_fraction) * len(ids))
    if n_train < 2 or len(ids) - n_train < 2:
        raise ValueError(
            f"{len(ids)} tokens cannot be split with val_fraction={val_fraction}: "
            "each side needs at least two; use a longer text."
        )
    return ids[:n_train], ids[n_train:]


def get_batch(ids, block_size, batch_size, generator=None, device=None):
    """Draw random windows of ids (N,): inputs x (B, T) and targets y (B, T), both int64.

    y is x moved on by one token, so y[b, t] is what follows x[b, : t + 1]. The offsets come from
    `generator`; equal seeds give equal batches. ids may be int64, or uint16 and mapped from a file
    (program/large_text.py). Raises ValueError if the text is too short.
    """
    check_block_fits(ids, block_size)
    draw_on = generator.device if generator is not None else ids.device
    starts = torch.randint(len(ids) - block_size, (batch_size,), generator=generator, device=draw_on)
    # unfold is a view of every window; indexing copies only the B windows that were drawn.
    windows = ids.unfold(0, block_size + 1, 1)[moved(starts, ids.device)].long()  # (B, T + 1)
    windows = moved(windows, windows.device if device is None else torch.device(device))
    return windows[:, :-1], windows[:, 1:]


def moved(values, device):
    """A tensor on a device. To a GPU it travels while the program goes on: nothing has to wait for it."""
    to_gpu = device.type == "cuda" and values.device.type == "cpu"
    return (values.pin_memory() if to_gpu else values).to(device, non_blocking=to_gpu)


def check_block_fits(ids, block_size):
    """Raise ValueError unless ids (N,) holds at least one window of block_size tokens and a target."""
    if len(ids) <= block_size:
        raise ValueError(
            f"A split of {len(ids)} tokens is too short for block_size={block_size}: "
            f"use a longer text or a block_size of at most {max(len(ids) - 1, 1)}."
        )
