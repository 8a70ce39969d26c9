"""Downloads: bounded in bytes and in time, checked, then moved into place in one step."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import NamedTuple

from xpnet.data.idx import read_at_most, unpacked
from xpnet.io.files import write_atomically


class Limits(NamedTuple):
    """How long a download may take: `patience` seconds, and one more for each `rate` bytes
    received."""

    patience: float = 60.0
    rate: float = 10_000.0
    silence: float = 30.0       # seconds without a byte


USUAL = Limits()


def fetch(urls: Sequence[str], path: Path, sha256: str, size: int, limits: Limits = USUAL) -> None:
    """Download the first of `urls` that delivers the right file, and keep it at `path`.

    Only http and https are followed. If anything fails, `path` is unchanged and no other file is
    left beside it.

    Args:
        sha256: hash of the unpacked content; the same content can be packed into different
            archives.
        size: number of bytes of the unpacked content. No more is ever unpacked, and little more is
            downloaded.

    Raises:
        OSError: no address delivered the file; the message has the reason for each.
    """
    reasons = []
    for url in urls:
        print(f"xpnet: downloading {url}", file=sys.stderr)
        try:
            content = _Download(url, _most_packed(size), limits).result()
            _check(content, sha256, size, path.name)
        except Exception as error:      # Python's http module can raise nearly anything
            reasons.append(f"{url}: {error or type(error).__name__}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        return
    raise OSError(
        f"fetch '{path.name}': expected one address to deliver the file. Received:\n  "
        + "\n  ".join(reasons)
        + "\nRemedy: try again, or name a folder that has the file (data_dir, --data-dir or "
          "XPNET_HOME).")


def _most_packed(size: int) -> int:
    """Upper bound of a packed size: gzip adds a header, and five bytes for each block that does not
    compress."""
    return size + size // 1000 + 4096


class _Download:
    """A download in its own thread, so that a server that sends a byte now and then cannot block
    the caller."""

    def __init__(self, url: str, most: int, limits: Limits) -> None:
        self._url, self._most, self._limits = url, most, limits
        self._content = bytearray()
        self._error: Exception | None = None
        self._ended, self._given_up = Event(), False

    def result(self) -> bytes:
        begin = monotonic()
        Thread(target=self._run, name="xpnet-download", daemon=True).start()
        try:
            while not self._ended.wait(min(0.1, self._limits.patience)):
                allowed = self._limits.patience + len(self._content) / self._limits.rate
                if monotonic() - begin > allowed:
                    received = len(self._content)
                    raise TimeoutError(f"expected a file of at most {self._most} bytes in time. "
                                       f"Received: {received} bytes in {allowed:.1f} seconds")
        finally:
            self._given_up = True       # also after Ctrl-C: the thread ends with its next read
        if self._error is not None:
            raise self._error
        return bytes(self._content)

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
            while not self._given_up and (step := response.read1(1 << 16)):
                self._content += step
                if len(self._content) > self._most:
                    raise OSError(f"expected at most {self._most} bytes. Received: more")
            if promised is not None and len(self._content) < promised:
                received = len(self._content)
                raise OSError(f"the download broke off ({received} of {promised} bytes)")


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


def _check(content: bytes, sha256: str, size: int, name: str) -> None:
    """Raises ValueError unless the content, unpacked, has this size and this hash."""
    with unpacked(io.BytesIO(content), name) as file:
        data = read_at_most(file, size + 1)         # one more byte, to see the end
    if len(data) > size:
        raise ValueError(f"expected content of {size} bytes. Received: more")
    received = hashlib.sha256(data).hexdigest()
    if received != sha256:
        raise ValueError(f"expected content with SHA-256 {sha256}. Received: {received}")
