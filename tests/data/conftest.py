"""Fixtures of the tests of data sets: a server on 127.0.0.1, and no data sets anywhere."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from xpnet.backends.user_cache import cache_folder


class Mirror(ThreadingHTTPServer):
    """A mirror on 127.0.0.1: path -> (bytes sent, bytes promised)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, tuple[bytes, int]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def put(self, name: str, content: bytes, promised: int | None = None) -> None:
        self.contents["/" + name] = content, len(content) if promised is None else promised


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path not in self.server.contents:
            self.send_error(404)
            return
        content, promised = self.server.contents[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def nowhere(monkeypatch, tmp_path) -> Path:
    """No XPNET_HOME, and an empty cache folder, which is returned."""
    monkeypatch.delenv("XPNET_HOME", raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    return cache_folder()
