"""Downloads: bounded in bytes and in time, checked, then moved into place in one step.

Not with pooch, which is made for this: it has no bound for bytes and none for the whole time, takes
one address for a file, and compares the hash of the archive, not of its content.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, BinaryIO, NamedTuple

from xpnet.data.idx import unpacked
from xpnet.io.files import atomic_file


class Limits(NamedTuple):
    """How long a download may take: `patience` seconds, and one more for each `rate` bytes
    received."""

    patience: float = 60.0
    rate: float = 10_000.0
    silence: float = 30.0       # seconds without a byte


USUAL = Limits()
STEP = 1 << 16              # bytes that are read at a time


class Content(NamedTuple):
    """What must be downloaded: `size` bytes with this SHA-256, plain or packed with gzip; or, with
    `md5`, a file of at most `size` bytes with the MD5 that its publisher gives.

    The same content can be packed into different archives, so the SHA-256 of the content is better
    where it is known.
    """

    size: int
    sha256: str = ""
    md5: str = ""

    @property
    def most(self) -> int:
        """Upper bound of a download: gzip adds a header, and five bytes for each block that does
        not compress."""
        return self.size if self.md5 else self.size + self.size // 1000 + 4096


def fetch(urls: Sequence[str], path: Path, content: Content, limits: Limits = USUAL) -> None:
    """Download the first of `urls` that delivers the right content, and keep it at `path`.

    Only http and https are followed. If anything fails, `path` is unchanged and no other file is
    left beside it.

    Raises:
        OSError: no address delivered the file; the message has the reason for each.
    """
    reasons = []
    for url in urls:
        print(f"xpnet: downloading {url}", file=sys.stderr)
        try:
            with atomic_file(path) as file:
                _Download(url, file, content.most, limits).finish()
                _check(file, content, path.name)
            return
        except Exception as error:      # Python's http module can raise nearly anything
            reasons.append(f"{url}: {error or type(error).__name__}")
    raise OSError(
        f"fetch '{path.name}': expected one address to deliver the file. Received:\n  "
        + "\n  ".join(reasons)
        + f"\nRemedy: try again, put the file into {path.parent}, or name a folder that has it "
          "(data_dir, --data-dir or XPNET_HOME).")


class _Download:
    """A download in its own thread, so that a server that sends a byte now and then cannot block
    the caller."""

    def __init__(self, url: str, file: BinaryIO, most: int, limits: Limits) -> None:
        self._url, self._file, self._most, self._limits = url, file, most, limits
        self._received = 0
        self._error: Exception | None = None
        self._ended, self._given_up = Event(), False

    def finish(self) -> None:
        begin = monotonic()
        Thread(target=self._run, name="xpnet-download", daemon=True).start()
        try:
            while not self._ended.wait(min(0.1, self._limits.patience)):
                allowed = self._limits.patience + self._received / self._limits.rate
                if monotonic() - begin > allowed:
                    raise TimeoutError(
                        f"expected a file of at most {self._most} bytes in time. Received: "
                        f"{self._received} bytes in {allowed:.1f} seconds")
        finally:
            self._given_up = True       # also after Ctrl-C: the thread ends with its next read
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._receive()
        except Exception as error:
            if hasattr(error, "close"):
                error.close()           # an HTTPError holds the connection
            self._error = error
        finally:
            self._ended.set()

    def _receive(self) -> None:
        with _opener().open(self._url, timeout=self._limits.silence) as response:
            promised = response.length              # None if the server does not say
            if promised is not None and promised > self._most:
                raise OSError(f"expected at most {self._most} bytes. "
                              f"Received: a length of {promised}")
            while not self._given_up and (step := response.read1(STEP)):
                self._received += len(step)
                if self._received > self._most:
                    raise OSError(f"expected at most {self._most} bytes. Received: more")
                self._file.write(step)
            if promised is not None and self._received < promised:
                raise OSError(f"the download broke off ({self._received} of {promised} bytes)")


def _opener():  # type: ignore[no-untyped-def]  # its type would have to be imported
    """An opener that follows http and https, also through the environment's proxies, and nothing
    else."""
    # urllib imports http, email and ssl, which would make `import xpnet` slower
    from urllib import request

    opener = request.OpenerDirector()
    for handler in (request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler,
                    request.HTTPErrorProcessor, request.HTTPDefaultErrorHandler,
                    request.HTTPRedirectHandler, request.UnknownHandler):
        opener.add_handler(handler())
    return opener


def _check(file: BinaryIO, content: Content, name: str) -> None:
    """Raise ValueError unless the file is what was to be downloaded."""
    file.seek(0)
    if content.md5:
        _compare("a file with MD5", content.md5, _digest(file, content.size,
                                                         hashlib.md5(usedforsecurity=False)))
        return
    with unpacked(file, name) as inside:
        _compare("content with SHA-256", content.sha256, _digest(inside, content.size,
                                                                 hashlib.sha256()))


def _digest(file: BinaryIO, size: int, digest: Any) -> str:
    """The digest of a file of at most `size` bytes."""
    left = size
    while step := file.read(min(STEP, left + 1)):       # one more byte, to see the end
        left -= len(step)
        if left < 0:
            raise ValueError(f"expected content of {size} bytes. Received: more")
        digest.update(step)
    return digest.hexdigest()


def _compare(what: str, wanted: str, received: str) -> None:
    if received != wanted:
        raise ValueError(f"expected {what} {wanted}. Received: {received}")
