"""Downloads are checked, and one that fails leaves nothing behind."""

import gzip
import hashlib
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.data.test_idx import save
from xpnet.backends.user_cache import cache_folder
from xpnet.data.download import Content, fetch
from xpnet.io.files import atomic_file, write_atomically

ROOT = Path(__file__).parents[2]
CONTENT = b"what was packed" * 100
WANTED = Content(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_fetch_checks_the_unpacked_content(tmp_path, mirror, capsys):
    packings = [gzip.compress(CONTENT, level, mtime=level) for level in (1, 9)]
    assert packings[0] != packings[1]
    for packing in (*packings, CONTENT):
        mirror.put("file", packing)
        fetch([mirror.url + "file"], tmp_path / "new" / "file", WANTED)
        assert (tmp_path / "new" / "file").read_bytes() == packing
    assert os.listdir(tmp_path / "new") == ["file"]
    assert f"downloading {mirror.url}file" in capsys.readouterr().err


PACKING = gzip.compress(CONTENT, mtime=0)


@pytest.mark.parametrize("before", [None, b"an older file"])
@pytest.mark.parametrize(("content", "promised", "message"), [
    (gzip.compress(CONTENT[:-1] + b"!", mtime=0), None,
     "expected content with SHA-256 .* Received: "),
    (gzip.compress(CONTENT + b"!", mtime=0), None,
     "expected content of 1500 bytes. Received: more"),
    (b"<html>please log in</html>", None, "expected content with SHA-256 .* Received: "),
    (PACKING[:-20], None, "the file is truncated"),
    (PACKING[:-20], len(PACKING), "the download broke off"),
    (PACKING[:20] + bytes([PACKING[20] ^ 0xFF]) + PACKING[21:], None,
     "expected a sound gzip file|SHA-256"),
    (None, None, "404"),
])
def test_a_bad_download_leaves_nothing_behind(tmp_path, mirror, content, promised, message, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    if content is not None:
        mirror.put("file", content, promised)
    with pytest.raises(OSError, match=f"(?s)fetch 'file': .*{message}.*Remedy: "):
        fetch([mirror.url + "file"], path, WANTED)
    assert os.listdir(tmp_path) == ([] if before is None else ["file"])
    assert before is None or path.read_bytes() == before


def test_a_mirror_that_does_not_answer(tmp_path, mirror):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        url = f"http://127.0.0.1:{closed.server_address[1]}/"
    with pytest.raises(OSError, match="(?s)expected one address .*refused"):
        fetch([url], tmp_path / "file", WANTED)
    mirror.put("file", CONTENT)
    # the next mirror is used
    fetch([url + "file", mirror.url + "file"], tmp_path / "file", WANTED)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_fetch_checks_the_published_md5_of_a_file(tmp_path, mirror):
    mirror.put("file", PACKING)
    md5 = hashlib.md5(PACKING).hexdigest()
    fetch([mirror.url + "file"], tmp_path / "file", Content(len(PACKING), md5=md5))
    assert (tmp_path / "file").read_bytes() == PACKING
    for content, message in ((PACKING[:-1] + b"x", "a file with MD5"),
                             (PACKING + b"x", "expected at most")):
        mirror.put("other", content)
        with pytest.raises(OSError, match=f"(?s)expected one address .*{message}"):
            fetch([mirror.url + "other"], tmp_path / "new", Content(len(PACKING), md5=md5))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_file_that_is_not_completed_leaves_nothing_behind(tmp_path, error):
    path = save(tmp_path / "new" / "file", b"before")
    with pytest.raises(type(error)), atomic_file(path) as file:
        file.write(b"after")
        raise error
    assert os.listdir(tmp_path / "new") == ["file"] and path.read_bytes() == b"before"
    (tmp_path / "new" / f".xpnet-{'0' * 16}.part").write_bytes(b"of a process that was killed")
    with atomic_file(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
        assert file.seek(0) == 0 and file.read() == b"after"
    assert os.listdir(tmp_path / "new") == ["file"] and path.read_bytes() == b"after"


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch, where, error):
    def fail(*args):
        raise error

    path = save(tmp_path / "file", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, where, fail)
        with pytest.raises(type(error)):
            write_atomically(path, b"after")
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"before"
    write_atomically(path, b"after")
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"after"


@pytest.mark.parametrize(("platform", "environment", "expected"), [
    ("linux", {"XDG_CACHE_HOME": "/c"}, "/c/xpnet"),
    ("linux", {"XDG_CACHE_HOME": ""}, "/h/.cache/xpnet"),
    ("darwin", {}, "/h/Library/Caches/xpnet"),
    ("win32", {"LOCALAPPDATA": "/l"}, "/l/xpnet"),
    ("win32", {"LOCALAPPDATA": ""}, "/h/AppData/Local/xpnet"),
])
def test_cache_folder(monkeypatch, platform, environment, expected):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/h"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_importing_the_data_sets_is_light():
    code = ("import sys, xpnet.data; print([m for m in ('sklearn', 'urllib.request', 'ssl') if m "
            "in sys.modules])")
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert run.stdout.strip() == "[]"
