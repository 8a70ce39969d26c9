"""Data sets: where their files are searched, and downloads, of which a failed one leaves nothing
behind."""

import gzip
import hashlib
import importlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_idx import idx_bytes, save
from xpnet.backends.user_cache import cache_folder
from xpnet.data import Dataset, digits, mnist
from xpnet.data.download import fetch, write_atomically

# The package's attribute `mnist` is the function; this is the module.
mnist_module = importlib.import_module("xpnet.data.datasets")

ROOT = Path(__file__).parents[2]


# --- digits ---------------------------------------------------------------------------------------

def test_digits():
    data = digits()
    assert isinstance(data, Dataset)
    x_train, y_train, x_test, y_test = data.arrays()
    assert data.shape == (1, 8, 8) and data.dtype == np.uint8 and data.scale == 16
    assert x_train.shape == (1437, 1, 8, 8) and x_test.shape == (360, 1, 8, 8)
    for x, y in ((x_train, y_train), (x_test, y_test)):
        assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1
        assert y.dtype == np.int64 and y.shape == (len(x),)
    # Stratified: both parts have the same proportion of every class, to within one image.
    train, test = np.bincount(y_train), np.bincount(y_test)
    assert len(train) == len(test) == 10
    np.testing.assert_allclose(test, (train + test) / 5, atol=1)


def test_digits_split_by_seed():
    first, again, other = (digits(seed=seed).arrays() for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[2], other[2])
    # Another seed gives another split of the same images; no image is in both parts.
    rows = [np.concatenate([d[0], d[2]]).reshape(1797, 64) for d in (first, other)]
    np.testing.assert_array_equal(*(r[np.lexsort(r.T)] for r in rows))


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'expected scikit-learn.*pip install "xpnet\[data\]"'):
        digits()


# --- MNIST ----------------------------------------------------------------------------------------

@pytest.fixture
def tiny(monkeypatch):
    """An MNIST of 12 + 5 images under the same names: name -> content."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (12, 28, 28), np.uint8), rng.integers(0, 10, 12, np.uint8),
              rng.integers(0, 256, (5, 28, 28), np.uint8), rng.integers(0, 10, 5, np.uint8)]
    contents = {file.name: idx_bytes(a) for file, a in zip(mnist_module.FILES, arrays, strict=True)}
    files = tuple(
        file._replace(shape=a.shape, sha256=hashlib.sha256(contents[file.name]).hexdigest())
        for file, a in zip(mnist_module.FILES, arrays, strict=True))
    monkeypatch.setattr(mnist_module, "FILES", files)
    return contents


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No XPNET_HOME, an empty cache folder (returned), and mirrors that must not be used."""
    monkeypatch.delenv("XPNET_HOME", raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setattr(mnist_module, "MIRRORS", ())
    return cache_folder()


@pytest.mark.parametrize("subfolder", ["", "mnist"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("way", ["data_dir", "XPNET_HOME", "cache"])
def test_the_folders_where_mnist_is_searched(tmp_path, monkeypatch, tiny, nowhere, way, packed,
                                             subfolder):
    folder = nowhere if way == "cache" else tmp_path / "here"
    for name, content in tiny.items():
        save(folder / subfolder / (f"{name}.gz" if packed else name),
             gzip.compress(content, mtime=0) if packed else content)
    if way == "XPNET_HOME":
        monkeypatch.setenv("XPNET_HOME", str(folder))
    data = mnist(folder if way == "data_dir" else None)
    x_train, y_train, x_test, y_test = data.arrays()
    assert x_train.shape == (12, 1, 28, 28) and x_test.shape == (5, 1, 28, 28)
    assert x_train.dtype == x_test.dtype == np.float32 and y_train.dtype == y_test.dtype == np.int64
    pixels = np.frombuffer(tiny["train-images-idx3-ubyte"], np.uint8,
                           offset=16).reshape(12, 1, 28, 28)
    np.testing.assert_allclose(x_train, pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(y_test,
                                  np.frombuffer(tiny["t10k-labels-idx1-ubyte"], np.uint8, offset=8))


def test_data_dir_comes_before_xpnet_home_before_the_cache(tmp_path, monkeypatch, tiny, nowhere):
    places = [tmp_path / "named", tmp_path / "home", nowhere]
    for label, place in enumerate(places):
        for name, content in tiny.items():
            save(place / name, content[:8] + bytes([label]) * 5 if name == "t10k-labels-idx1-ubyte"
                 else content)
    monkeypatch.setenv("XPNET_HOME", str(places[1]))
    assert mnist(places[0]).test.labels[0] == 0
    assert mnist().test.labels[0] == 1
    monkeypatch.setenv("XPNET_HOME", "")
    assert mnist().test.labels[0] == 2


def test_a_named_folder_must_have_the_files(tmp_path, monkeypatch, tiny, nowhere):
    home = tmp_path / "home"
    for name, content in tiny.items():
        save(home / name, content)
    monkeypatch.setenv("XPNET_HOME", str(home))  # it it contains the files, but must not be used
    with pytest.raises(FileNotFoundError,
                       match="mnist '.*absent': expected the files .* Received: no such folder"):
        mnist(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="Received: a folder that has none of them"):
        mnist(tmp_path / "empty")
    (home / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(FileNotFoundError,
                       match="a folder that has train-im.*, train-la.*, t10k-labels-idx1-ubyte"):
        mnist(home)


def test_files_of_two_folders_are_not_mixed(tmp_path, tiny, nowhere):
    for i, (name, content) in enumerate(tiny.items()):
        save(tmp_path / ("data/mnist" if i % 2 else "data") / name, content)
    with pytest.raises(FileNotFoundError, match="expected the files"):
        mnist(tmp_path / "data")


@pytest.mark.parametrize(("name", "array", "message"), [
    ("train-images-idx3-ubyte", np.zeros((11, 28, 28), np.uint8),
     r"expected shape \(12, 28, 28\) of uint8"),
    ("t10k-images-idx3-ubyte", np.zeros((5, 28, 28), np.int8), r"Received: \(5, 28, 28\) of int8"),
    ("train-labels-idx1-ubyte", np.full(12, 10, np.uint8),
     r"expected labels from 0 to 9. Received: a label 10"),
])
def test_files_that_are_not_mnist(tmp_path, tiny, name, array, message):
    for file, content in tiny.items():
        save(tmp_path / file, idx_bytes(array) if file == name else content)
    with pytest.raises(ValueError, match=f"mnist '.*{name}': .*{message}"):
        mnist(tmp_path)


def test_the_real_mnist():
    home = os.environ.get("XPNET_HOME")
    if not home or mnist_module._in_folder(Path(home)) is None:
        pytest.skip("MNIST is not there: XPNET_HOME names no folder that has it")
    x_train, y_train, x_test, y_test = mnist().arrays()
    assert x_train.shape == (60000, 1, 28, 28) and x_test.shape == (10000, 1, 28, 28)
    assert x_train.min() == 0 and x_train.max() == 1
    # the published mean of MNIST
    assert x_train.mean(dtype=np.float64) == pytest.approx(0.13066, abs=1e-5)
    np.testing.assert_array_equal(y_train[:5], [5, 0, 4, 1, 9])
    np.testing.assert_array_equal(y_test[:5], [7, 2, 1, 0, 4])
    for file, path in zip(mnist_module.FILES, mnist_module._in_folder(Path(home)), strict=True):
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        assert hashlib.sha256(raw).hexdigest() == file.sha256


# --- downloads ------------------------------------------------------------------------------------

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


CONTENT = b"what was packed" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_fetch_checks_the_unpacked_content(tmp_path, mirror, capsys):
    packings = [gzip.compress(CONTENT, level, mtime=level) for level in (1, 9)]
    assert packings[0] != packings[1]
    for packing in (*packings, CONTENT):
        mirror.put("file", packing)
        fetch([mirror.url + "file"], tmp_path / "new" / "file", SHA256, len(CONTENT))
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
        fetch([mirror.url + "file"], path, SHA256, len(CONTENT))
    assert os.listdir(tmp_path) == ([] if before is None else ["file"])
    assert before is None or path.read_bytes() == before


def test_a_mirror_that_does_not_answer(tmp_path, mirror):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_address[1]}/"
    with pytest.raises(OSError, match="(?s)expected one address .*refused"):
        fetch([url], tmp_path / "file", SHA256, len(CONTENT))
    mirror.put("file", CONTENT)
    # the next mirror is used
    fetch([url + "file", mirror.url + "file"], tmp_path / "file", SHA256, len(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


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


def test_mnist_is_downloaded_once(monkeypatch, tiny, nowhere, mirror):
    for name, content in tiny.items():
        mirror.put(f"{name}.gz", gzip.compress(content, mtime=0))
    monkeypatch.setattr(mnist_module, "MIRRORS", (mirror.url,))
    first, again = mnist(), mnist()
    assert mirror.asked == [f"/{name}.gz" for name in tiny]
    assert sorted(os.listdir(nowhere / "mnist")) == sorted(f"{name}.gz" for name in tiny)
    for a, b in zip(first.arrays(), again.arrays(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_after_a_failed_download_only_the_missing_files_are_fetched(
        monkeypatch, tiny, nowhere, mirror):
    names = list(tiny)
    for name in names:
        mirror.put(f"{name}.gz", gzip.compress(tiny[name] if name != names[2] else b"another file"))
    monkeypatch.setattr(mnist_module, "MIRRORS", (mirror.url,))
    with pytest.raises(OSError, match=f"fetch '{names[2]}.gz'"):
        mnist()
    assert sorted(os.listdir(nowhere / "mnist")) == sorted(f"{name}.gz" for name in names[:2])
    mirror.put(f"{names[2]}.gz", gzip.compress(tiny[names[2]]))
    assert len(mnist().test) == 5
    # a file that exists is not downloaded again
    assert mirror.asked == [f"/{names[i]}.gz" for i in (0, 1, 2, 2, 3)]


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
