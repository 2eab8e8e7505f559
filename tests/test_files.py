"""The one writer of whole-or-nothing files, and the one download: helpers/files.py."""

import errno
import http.server
import os
import random
import stat
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers import files
from helpers.files import download, whole_file, write_whole

NEEDS_POSIX = pytest.mark.skipif(os.name != "posix", reason="a matter of POSIX")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- whole or not at all


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a new folder" / "record"
    write_whole(path, b"old")
    with whole_file(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old" and partial.parent == path.parent
    assert path.read_bytes() == b"new" and names(path.parent) == ["record"]


def test_nobody_can_guess_the_temporary_name(tmp_path):
    guessed = set()
    for _ in range(20):
        random.seed(1)
        with whole_file(tmp_path / "record") as partial:
            guessed.add(partial.name)
    assert len(guessed) == 20, "neither the process nor a seed decides"


@pytest.mark.parametrize("kind", ["file", pytest.param("link", marks=NEEDS_POSIX)])
def test_a_file_that_has_the_temporary_name_is_not_overwritten(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 2 * size)
    other, theirs = tmp_path / "record.0000000000000000.partial", tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    other.symlink_to(theirs) if kind == "link" else other.write_bytes(b"theirs")
    with pytest.raises(ValueError, match=r"record cannot be written \(File exists\)"):
        write_whole(tmp_path / "record", b"new")
    assert other.read_bytes() == theirs.read_bytes() == b"theirs"
    assert names(tmp_path) == [other.name, "theirs"]


@NEEDS_POSIX
def test_the_contents_reach_the_disk_before_the_name_and_the_name_too(tmp_path, monkeypatch):
    order, replace = [], Path.replace

    def fsync(handle):
        about = os.fstat(handle)
        order.append("names of the folder" if stat.S_ISDIR(about.st_mode) else about.st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda *paths: order.append("renamed") or replace(*paths))
    write_whole(tmp_path / "record", b"12345")
    assert order == [5, "renamed", "names of the folder"]


def failing(error):
    def fail(*args):
        raise error

    return fail


@pytest.mark.parametrize("moment", ["inside", "flush", "rename"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_all_is_as_before(tmp_path, monkeypatch, moment, error):
    path, foreign = tmp_path / "record", tmp_path / "record.0123456789abcdef.partial"
    path.write_bytes(b"old")
    foreign.write_bytes(b"another process is writing this")
    if moment == "flush":
        monkeypatch.setattr(os, "fsync", failing(error))
    if moment == "rename":
        monkeypatch.setattr(Path, "replace", failing(error))
    with pytest.raises((ValueError, KeyboardInterrupt)) as caught, whole_file(path) as partial:
        partial.write_bytes(b"half")
        if moment == "inside":
            raise error
    if isinstance(error, OSError):
        sentence = f"{path} cannot be written (No space left on device): free some space, or choose"
        assert str(caught.value).startswith(sentence)
    else:
        assert caught.value is error
    assert path.read_bytes() == b"old" and foreign.read_bytes() == b"another process is writing this"
    assert names(tmp_path) == ["record", foreign.name]


def test_temporary_files_of_others_stay_when_all_goes_well(tmp_path):
    foreign = tmp_path / "record.0123456789abcdef.partial"
    foreign.write_bytes(b"theirs")
    write_whole(tmp_path / "record", b"new")
    assert names(tmp_path) == ["record", foreign.name] and foreign.read_bytes() == b"theirs"


@NEEDS_POSIX
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o007, 0o660)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "record", b"new")
        with whole_file(tmp_path / "model") as partial:
            save_file({"weight": torch.zeros(3)}, partial)
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("record", "model")] == [mode] * 2


@pytest.mark.parametrize("name", ["file/record", "folder", "nu\0ll", "n" * 250, ""])
def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"no folder")
    Path("folder").mkdir()
    with pytest.raises(ValueError, match=r"^[^\n]* cannot be written \([^\n]+\): free some space, or choose"):
        write_whole(name, b"new")
    assert names(tmp_path) == ["file", "folder"] and not any(Path("folder").iterdir())


# ---------------------------------------------------------------- the download

BODY = b"To be, or not to be, that is the question.\n" * 50


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine: .url; .answers, one function a request, the last one for all others."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked += 1
            server.answers[min(server.asked, len(server.answers)) - 1](self)

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args):  # whoever asked has hung up
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.url, server.asked, server.answers = f"http://127.0.0.1:{server.server_port}/text", 0, [send()]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()


def send(body=BODY, length=None):
    """An answer with that body, of a length that may not be the true one; -1 says nothing of it."""

    def answer(handler):
        handler.send_response(200)
        if length != -1:
            handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def drip(part, times, seconds):
    """An answer that promises much and sends one part after another, with a pause after each."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(part) * times))
        handler.end_headers()
        for _ in range(times):
            handler.wfile.write(part)
            time.sleep(seconds)
            handler.server.sent = getattr(handler.server, "sent", 0) + len(part)

    return answer


@pytest.mark.parametrize("length", [None, -1], ids=["length", "no length"])
def test_all_bytes_arrive_up_to_the_limit_itself(server, length):
    server.answers = [send(length=length)]
    assert download(server.url, len(BODY)) == BODY and server.asked == 1


@pytest.mark.parametrize(
    "fault",
    [
        send(BODY[:100], length=len(BODY)),
        lambda handler: handler.send_error(503),
        lambda handler: handler.wfile.write(b"this is not HTTP at all\r\n\r\n"),
        lambda handler: None,
    ],
    ids=["cut short", "503", "no HTTP", "nothing"],
)
def test_a_fault_is_noticed_and_the_download_tried_again(server, fault):
    server.answers = [fault, send()]
    assert download(server.url, 10**6, pause=0) == BODY and server.asked == 2
    server.answers, server.asked = [fault], 0
    with pytest.raises(OSError, match=r"\w"):  # a reason, for the sentence that ends with it
        download(server.url, 10**6, pause=0)
    assert server.asked == 3


def test_more_than_the_limit_is_refused_without_reading_it_all(server):
    server.answers = [send()]
    with pytest.raises(OSError, match=f"sent more than {len(BODY) - 1} bytes, so it is not the file"):
        download(server.url, len(BODY) - 1)
    server.answers = [drip(bytes(1 << 16), times=2000, seconds=0)]
    with pytest.raises(OSError, match="sent more than 1000 bytes"):
        download(server.url, 1000)
    assert getattr(server, "sent", 0) < 50 << 20, "of 125 MB"


def seconds_until_refused(server, **limits):
    began = time.monotonic()
    with pytest.raises(OSError):
        download(server.url, 10**6, **limits)
    return time.monotonic() - began


def test_bytes_that_trickle_in_end_with_the_total_time(server):
    server.answers = [drip(b".", times=200, seconds=0.05)]  # never silent for long; 10 seconds in all
    assert seconds_until_refused(server, timeout=5, total=0.5, pause=0) < 3
    assert server.asked == 1, "no time is left for a second attempt"


def test_silence_ends_each_attempt_and_the_total_time_all(server):
    server.answers = [drip(b".", times=2, seconds=10)]
    assert seconds_until_refused(server, timeout=0.2, total=60, pause=0) < 5
    assert server.asked == 3
    server.answers, server.asked = [lambda handler: handler.send_error(503)], 0
    assert seconds_until_refused(server, attempts=100, total=0.5, pause=0.1) < 3
    assert server.asked < 10


def test_a_download_has_limits_without_being_told(monkeypatch):
    waited, clock = [], [0.0]

    def silent(url, timeout=None):
        waited.append(timeout)
        clock[0] += 50
        raise TimeoutError("silence")

    monkeypatch.setattr("urllib.request.urlopen", silent)
    monkeypatch.setattr(files.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match="silence"):
        download("http://127.0.0.1/text", 10, attempts=9)
    assert waited == [20.0] * 3, "20 seconds of silence, 120 in all"
