"""The course's files: where they are, the one way to write them (whole or not at all), the one download."""

import contextlib
import http.client
import os
import secrets
import time
import urllib.request
from pathlib import Path

DATA_DIR = Path(__file__).resolve().parent.parent / "data"
RUNS_DIR = DATA_DIR / "runs"  # the recorded runs


@contextlib.contextmanager
def whole_file(path):
    """Inside, write to the path that this yields; at the end that file gets the name `path`.

    Whoever reads `path` sees the old file or the new one, never a half. The new one is written beside it
    under a name that nobody can guess, reaches the disk before it gets its own (a power cut leaves no
    empty file), and is removed if the block fails. Makes the folder if it is missing. Raises ValueError
    if the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    try:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        open(partial, "xb").close()  # x: never over a file that is there
        mode = partial.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: no name, or a null character in it
        raise cannot_be_written(path, error) from None
    try:
        yield partial
        if partial.stat().st_mode != mode:  # safetensors puts a file of its own there, for its owner alone
            partial.chmod(mode)
        flush(partial)
        partial.replace(path)
        if os.name == "posix":
            flush(path.parent)  # the folder's list of names
    except OSError as error:
        raise cannot_be_written(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_whole(path, raw):
    """Write bytes to a file, whole or not at all; see whole_file."""
    with whole_file(path) as partial:
        partial.write_bytes(raw)


def flush(path):
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_be_written(path, error):
    """The ValueError for a file that an OSError kept from being written."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ValueError(f"{path} cannot be written ({reason}): free some space, or choose another folder.")


def download(url, max_bytes, attempts=3, timeout=20.0, total=120.0, pause=1.0):
    """Bytes at url. Raises OSError if they do not come, or are more than max_bytes.

    timeout, total and pause in seconds: the longest silence, the time for everything, and the wait before
    a second attempt (then twice as long).
    """
    deadline = time.monotonic() + total
    for attempt in range(attempts):
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                raw = read_response(response, max_bytes, deadline)
            break
        # URLError, time-outs and broken connections are OSErrors; an answer that is no HTTP is not.
        except (OSError, http.client.HTTPException) as error:
            wait = pause * 2**attempt
            if attempt + 1 == attempts or time.monotonic() + wait > deadline:
                raise OSError(str(error) or type(error).__name__) from None
            time.sleep(wait)
    if len(raw) > max_bytes:
        raise OSError(f"{url} sent more than {max_bytes} bytes, so it is not the file")
    return raw


def read_response(response, max_bytes, deadline):
    """The bytes of a response, at most one more than max_bytes. deadline: on the clock time.monotonic()."""
    raw = b""
    # read1 returns what has come, where read would wait for more: a slow sender could hold it for hours.
    while len(raw) <= max_bytes and (part := response.read1(1 << 16)):
        raw += part
        if time.monotonic() > deadline:
            raise TimeoutError("it took too long")
    if len(raw) <= max_bytes and getattr(response, "length", None):  # bytes that were promised and not sent
        raise http.client.IncompleteRead(raw)
    return raw[: max_bytes + 1]
