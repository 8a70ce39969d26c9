"""Servers that misbehave, and files that unpack to more than they should: time and memory stay
bounded."""

from __future__ import annotations

import gc
import gzip
import hashlib
import itertools
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path

import numpy as np
import pytest
from tiers import first

from xpnet.data import read_idx
from xpnet.data.download import Content, Limits, fetch
from xpnet.data.idx import unpacked

# After some responses Python's http module leaves a socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

CONTENT = b"what was packed" * 100
PACKED = gzip.compress(CONTENT, mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WANTED = Content(len(CONTENT), SHA256)
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
SHORT = Limits(patience=0.4, rate=1e5, silence=0.3)
ZEROS = 64 << 20  # the unpacked size of a small archive

Answer = Callable[[socket.socket], None]


class Server:
    """A server on 127.0.0.1: /good is the right file, and every other request gets `answer`."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.closing = answer, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            asked = connection.recv(1 << 16)
            good = asked.startswith(b"GET /good ")
            try:
                (sends(OK + length(len(PACKED)) + PACKED) if good else self.answer)(connection)
            except OSError:  # the client has closed the connection
                pass

    def close(self) -> None:
        self.listener.close()


def length(count: object) -> bytes:
    return f"Content-Length: {count}\r\n\r\n".encode()


def sends(*parts: bytes, pause: float = 0.0) -> Answer:
    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return answer


def endless(start: bytes, part: bytes, pause: float = 0.0) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(part)
            time.sleep(pause)

    return answer


def chunked(part: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(part), part)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """serve(answer): the address of a server that sends this answer."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers: list[Server] = []

    def start(answer: Answer) -> str:
        servers.append(Server(answer))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()
    gc.collect()


CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MISBEHAVIOUR: dict[str, tuple[Answer, str]] = {
    "an endless stream": (endless(OK + b"\r\n", bytes(1 << 16)),
                          "expected at most 5597 bytes. Received: more"),
    "an endless stream of chunks": (endless(CHUNKS, chunked(bytes(1 << 16))),
                                    "expected at most 5597 bytes"),
    "a huge length": (sends(OK + length(10**15) + PACKED),
                      f"expected at most 5597 bytes. Received: a length of {10**15}"),
    "a length of 5000 digits": (sends(OK + length("9" * 5000) + PACKED[:-1]),
                                "truncated|broke off|length"),
    "a negative length": (sends(OK + length(-1) + PACKED[:-1]), "truncated"),
    "a length that is none": (sends(OK + length("many") + PACKED[:-1]), "truncated"),
    "a length that is too small": (sends(OK + length(len(PACKED) - 3) + PACKED), "truncated"),
    "a length that is too large": (sends(OK + length(len(PACKED) + 3) + PACKED),
                                   "the download broke off"),
    "a byte now and then": (endless(OK + b"\r\n", b"x", 0.05),
                            "expected a file .* in time. Received: .* bytes in 0.4"),
    "a header byte now and then": (endless(OK + b"X-Slow: ", b"x", 0.05),
                                   "in time. Received: 0 bytes in 0.4"),
    "silence": (endless(b"", b"", 10.0), "timed out|in time"),
    "silence in the middle": (lambda to: (to.sendall(OK + length(len(PACKED)) + PACKED[:9]),
                                          time.sleep(10)), "timed out|in time"),
    "no answer": (sends(b""), "without response|RemoteDisconnected|reset"),
    "no HTTP": (sends(b"\0\1\2\3 garbage\r\n\r\n"), "garbage"),
    "an endless header line": (endless(OK + b"X: ", bytes(1 << 16)), "header line|LineTooLong"),
    "endless headers": (endless(OK, b"X: 1\r\n"), "more than 100 headers"),
    "a broken chunk": (sends(CHUNKS + b"zz\r\nxxxx\r\n"), "zz|IncompleteRead|invalid"),
    "a redirect to a file": (sends(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\n"
                                   + length(0)), "not allowed"),
    "a redirect to ftp": (sends(b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\n"
                                + length(0)), "unknown url type: ftp"),
    "a redirect in a circle": (sends(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n" + length(0)),
                               "infinite loop"),
    "a redirect to no address": (sends(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n"
                                       + length(0)), "Invalid IPv6"),
    "an error": (sends(b"HTTP/1.1 503 Busy\r\n" + length(0)), "503"),
    "an archive of zeros": (sends(OK + b"\r\n" + gzip.compress(bytes(1 << 21))),
                            "expected content of 1500 bytes. Received: more"),
}


@pytest.mark.parametrize("kind", first(
    MISBEHAVIOUR, "an endless stream", "a huge length", "a length that is too small",
    "a byte now and then", "no HTTP", "a redirect to a file", "an error"))
def test_a_server_that_misbehaves_is_left_and_the_next_one_is_used(
        kind: str, serve, tmp_path: Path):
    answer, message = MISBEHAVIOUR[kind]
    url, path = serve(answer), tmp_path / "file"
    path.write_bytes(b"an older file")
    with pytest.raises(OSError,
                       match=f"(?s)fetch 'file': expected one address .*({message}).*Remedy: "):
        fetch([url + "bad"], path, WANTED, SHORT)
    assert path.read_bytes() == b"an older file" and len(list(tmp_path.iterdir())) == 1
    fetch([url + "bad", url + "good"], path, WANTED, SHORT)
    assert path.read_bytes() == PACKED


@pytest.mark.parametrize("error", [AttributeError("'NoneType' object has no attribute 'readline'"),
                                   ValueError("no number"), IndexError("no such header"),
                                   RecursionError()])
def test_errors_from_inside_the_http_module(error: Exception, serve, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch):
    url, begin, calls = serve(sends(b"")), HTTPResponse.begin, itertools.count()

    def fail(self: HTTPResponse) -> None:
        if next(calls) == 0:
            raise error
        begin(self)

    monkeypatch.setattr(HTTPResponse, "begin", fail)
    fetch([url + "bad", url + "good"], tmp_path / "file", WANTED, SHORT)
    assert (tmp_path / "file").read_bytes() == PACKED


@pytest.mark.parametrize("address", ["file://{}", "ftp://127.0.0.1/file", "data:,x", "{}", ""])
def test_addresses_other_than_http(address: str, tmp_path: Path):
    """A file is refused even if it is the right one."""
    (tmp_path / "right").write_bytes(PACKED)
    with pytest.raises(OSError, match="unknown url type"):
        fetch([address.format(tmp_path / "right")], tmp_path / "file", WANTED, SHORT)
    assert not (tmp_path / "file").exists()


def test_a_slow_download_at_the_minimum_rate_is_not_stopped(serve, tmp_path: Path):
    """It takes longer than `patience` alone allows."""
    step = -(-len(PACKED) // 8)
    parts = [PACKED[k : k + step] for k in range(0, len(PACKED), step)]
    fetch([serve(sends(OK + length(len(PACKED)), *parts, pause=0.05))], tmp_path / "file", WANTED,
          Limits(patience=0.2, rate=len(PACKED) / 100, silence=5.0))
    assert (tmp_path / "file").read_bytes() == PACKED


def test_incompressible_content_is_not_too_long(serve, tmp_path: Path):
    content = np.random.default_rng(0).bytes(1 << 20)
    for packed in (gzip.compress(content, 0), gzip.compress(content, 9), content):
        fetch([serve(sends(OK + length(len(packed)) + packed))], tmp_path / "file",
              Content(len(content), hashlib.sha256(content).hexdigest()))
        assert (tmp_path / "file").read_bytes() == packed


# --- unpacking ------------------------------------------------------------------------------------


def peak(task: Callable[[], object]) -> int:
    """The largest number of bytes that Python allocates during the call."""
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def header(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


@pytest.mark.parametrize("raw, message", [
    (gzip.compress(header(2, 3) + bytes(ZEROS), 1, mtime=0),
     "expected 6 bytes .* Received: more than 6 bytes; the file is too long"),
    (gzip.compress(bytes(4) + bytes(ZEROS), 1, mtime=0), "expected a type code"),
    (gzip.compress(header(1 << 31) + bytes(100), mtime=0),
     "expected 2147483648 bytes .* Received: 100 bytes; the file is truncated"),
    (header(1 << 31, 1 << 31) + bytes(100), "Received: 100 bytes; the file is truncated"),
], ids=["more than it declares", "no header", "less than it declares", "far less"])
def test_no_more_is_unpacked_than_the_header_declares(raw: bytes, message: str, tmp_path: Path):
    (tmp_path / "file").write_bytes(raw)

    def read() -> None:
        with pytest.raises(ValueError, match=message):
            read_idx(tmp_path / "file")

    assert peak(read) < 8 << 20


def test_no_more_is_unpacked_than_the_expected_size(serve, tmp_path: Path):
    bomb = gzip.compress(bytes(ZEROS), 9)
    url = serve(sends(OK + length(len(bomb)) + bomb))

    def download() -> None:
        with pytest.raises(OSError, match="expected content of 100000 bytes. Received: more"):
            fetch([url], tmp_path / "file", Content(100_000, SHA256))

    assert len(bomb) < 100_000 and peak(download) < 8 << 20


@pytest.mark.parametrize("shape", [(1,) * 65, (1,) * 255, (0, *[2**32 - 1] * 3)],
                         ids=["65 axes", "255 axes", "empty but huge"])
def test_shapes_that_no_array_can_have(shape: tuple[int, ...], tmp_path: Path):
    (tmp_path / "file").write_bytes(header(*shape) + bytes(int(np.prod(shape[:2]))))
    with pytest.raises(ValueError, match=r"^read_idx '.*file': expected (at most 64 axes|the shape "
                                         r"of an array)\. Received: "):
        read_idx(tmp_path / "file")


def test_an_error_of_the_disk_is_not_reported_as_a_damaged_archive(tmp_path: Path):
    (tmp_path / "file").write_bytes(PACKED)
    with (open(tmp_path / "file", "rb") as file, pytest.raises(OSError, match="the disk"),
          unpacked(file, "who")):
        raise OSError("the disk")
