"""Compiled kernels on disk: a damaged file, or a file of another user, is never unpickled."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from tiers import first

from xpnet.backends.user_cache import PrivateFolder, Untrusted, cache_folder

pytest.importorskip("numba", reason="Numba is not installed")

from numba import prange  # noqa: E402 - only where Numba is installed
from numba.core import config  # noqa: E402

from xpnet.backends.numba.kernels import jit, kept  # noqa: E402

posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0,
                             reason="only root can give files away")


def add_one(x, y):
    """y = x + 1"""
    for i in prange(x.size):
        y[i] = x[i] + 1


def call() -> bool:
    """Make the kernel as a new process would, and call it. Returns whether it was found on disk."""
    kernel, x, y = jit.kernel(add_one), np.arange(5, dtype=np.float32), np.empty(5, np.float32)
    kernel(1, x, y)
    assert y.tolist() == [1, 2, 3, 4, 5]
    return bool(kernel.compiled.stats.cache_hits)


class Trap:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled kernels, with one kernel in it."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kept.KernelCache, "said", set())
    assert not call()
    return tmp_path / "kernels"


def cached() -> tuple[kept.KernelCache, tuple, jit.Kernel]:
    """The cache of the kernel, the types that `call` gives it, and the kernel."""
    kernel = jit.kernel(add_one)
    kernel(1, np.zeros(5, np.float32), np.zeros(5, np.float32))
    return kernel.compiled._cache, kernel.compiled.signatures[0], kernel


@pytest.fixture
def trap(kernels: Path) -> Path:
    """The kernel's file, replaced by a pickle that creates the file `sprung` when it is loaded.

    Its checksum is right, because anyone can compute it.
    """
    cache, types, kernel = cached()
    name, about = cache._about(types, kernel.compiled.targetctx.codegen())
    payload = pickle.dumps(Trap(kernels.parent / "sprung"))
    file = kernels / name
    assert file.is_file()
    file.write_bytes(hashlib.sha256(about + payload).digest() + payload)
    return file


# --- damage ---------------------------------------------------------------------------------------


def test_no_flipped_bit_reaches_the_unpickler(kernels: Path, monkeypatch: pytest.MonkeyPatch):
    cache, types, kernel = cached()
    unpickled: list[bytes] = []
    monkeypatch.setattr(kept.pickle, "loads", unpickled.append)
    file = next(kernels.iterdir())
    sound = file.read_bytes()
    cache.load_overload(types, kernel.compiled.targetctx)
    assert unpickled == [
        sound[kept.DIGEST :]
    ]  # an undamaged file is loaded, so this test changes the right one
    unpickled.clear()
    rng = np.random.default_rng(0)
    for place in [0, kept.DIGEST - 1, kept.DIGEST, len(sound) - 1,
                  *rng.integers(0, len(sound), 200)]:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        assert cache.load_overload(types, kernel.compiled.targetctx) is None
    for data in (b"", sound[: kept.DIGEST], sound[:-1], sound + b"\0", sound[:-9] + bytes(9)):
        file.write_bytes(data)
        assert cache.load_overload(types, kernel.compiled.targetctx) is None
    assert unpickled == []


def test_a_damaged_kernel_is_compiled_and_kept_again(kernels: Path):
    file = next(kernels.iterdir())
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    file.write_bytes(damaged)
    assert not call() and call()


def test_files_of_numbas_own_cache_are_not_read(kernels: Path):
    """The index files of Numba's cache are pickles."""
    file, sprung = next(kernels.iterdir()), kernels.parent / "sprung"
    for name in (f"{file.stem}.nbi", "test_kept_kernels.add_one-31.py311.nbi"):
        (kernels / name).write_bytes(pickle.dumps(Trap(sprung)))
    assert call() and not sprung.exists()


# --- files of other users -------------------------------------------------------------------------


def test_the_trap_works(kernels: Path, trap: Path):
    """In a folder that only this user can write to, this user's file is trusted."""
    assert not call() and (kernels.parent / "sprung").exists()


@posix
@pytest.mark.parametrize("mode", first([0o770, 0o707, 0o777], 0o770, 0o707))
def test_a_folder_that_others_can_write_to(mode: int, kernels: Path, trap: Path):
    kept.KernelCache.said.clear()
    kernels.chmod(mode)
    with pytest.warns(RuntimeWarning,
                      match=f"(?s)compiled kernels: expected a folder that only this user can "
                            f"write to. Received: .*others can write to .mode {mode:o}"):
        assert not call()
    assert not (kernels.parent / "sprung").exists()


@posix
def test_a_folder_that_is_a_link(kernels: Path, trap: Path):
    kept.KernelCache.said.clear()
    kernels.rename(kernels.with_name("elsewhere"))
    kernels.symlink_to(kernels.with_name("elsewhere"))
    with pytest.warns(RuntimeWarning, match="kernels, which is a link"):
        assert not call()
    assert not (kernels.parent / "sprung").exists()


@as_root
def test_a_folder_of_another_user(kernels: Path, trap: Path):
    kept.KernelCache.said.clear()
    os.chown(kernels, 12345, 12345)
    with pytest.warns(RuntimeWarning, match="kernels, which belongs to user 12345"):
        assert not call()
    assert not (kernels.parent / "sprung").exists()


@posix
@pytest.mark.parametrize("kind", first(["another's", "writable", "link", "pipe"],
                                       "writable", "link"))
def test_a_file_that_others_can_write_to_is_replaced(kind: str, kernels: Path, trap: Path):
    if kind == "another's":
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(trap, 12345, 12345)
    elif kind == "writable":
        trap.chmod(0o622)
    elif kind == "link":
        trap.rename(kernels.parent / "elsewhere")
        trap.symlink_to(kernels.parent / "elsewhere")
    else:
        trap.unlink()
        os.mkfifo(trap)
    assert not call() and not (kernels.parent / "sprung").exists()
    found = trap.lstat()
    assert (found.st_uid, found.st_mode) == (
        os.geteuid(),
        0o100600,
    )  # now it is a file of this user
    assert call()


@posix
def test_only_this_user_can_read_and_write_what_is_kept(kernels: Path):
    assert kernels.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in kernels.iterdir()] == [0o600]


# --- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["a file", "no place"])
def test_a_folder_that_cannot_be_made(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys):
    (tmp_path / "file").write_text("not a folder")
    place = tmp_path / "file" if base == "a file" else Path("/proc/xpnet")
    if base == "no place" and not sys.platform.startswith("linux"):
        pytest.skip("a folder in which even root can make nothing")
    monkeypatch.setattr(config, "CACHE_DIR", str(place))
    monkeypatch.setattr(kept.KernelCache, "said", set())
    assert not call()
    assert "they cannot be kept (" in capsys.readouterr().err


def test_relative_folders_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They would depend on the working folder, which could be a downloaded one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(config, "CACHE_DIR", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("relative", "./relative", "", "~"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / "home" / ".cache" / "xpnet"
    assert kept.folder().path == cache_folder() / "kernels"


@pytest.mark.parametrize("home", ["relative", "unknown"])
def test_without_a_home_nothing_is_kept(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys):
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", unknown if home == "unknown" else lambda: Path("relative"))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(kept.KernelCache, "said", set())
    with pytest.raises(FileNotFoundError,
                       match="^cache folder: expected a home folder. Received: HOME="):
        cache_folder()
    assert not call() and "they cannot be kept (cache folder: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_process_without_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kept.KernelCache, "said", set())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert not call()
    assert capsys.readouterr() == ("", "")


def test_a_file_is_written_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = PrivateFolder(tmp_path / "private")
    folder.write("name", b"before")

    def fail(*args: object, **options: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            folder.write("name", b"after")
    assert folder.read("name", 100) == b"before" and os.listdir(folder.path) == ["name"]
    with pytest.raises(OSError, match="expected a file of at most 5 bytes"):
        folder.read("name", 5)


@posix
def test_a_folder_that_is_replaced_after_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder is replaced between its check and the opening of the file. The file is still read
    from the folder that was checked."""
    folder = PrivateFolder(tmp_path / "private")
    folder.write("name", b"ours")
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "name").write_bytes(b"theirs")
    place = folder._place

    def exchange(name: str) -> str:
        folder.path.rename(tmp_path / "away")
        (tmp_path / "planted").rename(folder.path)
        return place(name)

    monkeypatch.setattr(folder, "_place", exchange)
    assert folder.read("name", 100) == b"ours"
    monkeypatch.setattr(folder, "_place", place)
    folder.path.chmod(0o777)
    with pytest.raises(Untrusted):
        folder.read("name", 100)
