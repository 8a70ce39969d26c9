"""write_atomically: at every moment the path is a whole file, and only files are replaced."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from failing import ERRORS, FailingDisk
from tiers import full

from xpnet.io import files
from xpnet.io.files import write_atomically

OLD, NEW = b"old content" * 100, b"the new content" * 1000
pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, modes and locks as Unix has them")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def refused(path: Path | str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        write_atomically(path, NEW)
    assert "\n" not in str(caught.value)


# --- what is no file ------------------------------------------------------------------------------

def test_folders_pipes_sockets_and_devices_are_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    kinds = {"folder": "a folder", "pipe": "a pipe"}
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(tmp_path)                                          # names of sockets are short
    try:
        listening.bind("socket")
    finally:
        os.chdir(here)
    kinds["socket"] = "a socket"
    if ROOT:
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        kinds["null"] = "a character device"
    for name, kind in kinds.items():
        (tmp_path / f"link to {name}").symlink_to(name)
        before = os.stat(tmp_path / name)
        for given in (name, f"link to {name}"):
            refused(tmp_path / given, FileExistsError,
                    f"^save: expected the name of a file. Received: .*, which is {kind}.$")
        after = os.stat(tmp_path / name)
        assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    listening.close()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_an_open_pipe_is_not_replaced():
    reading, writing = os.pipe()
    try:
        refused(f"/proc/self/fd/{writing}" if os.path.isdir("/proc/self/fd")
                else f"/dev/fd/{writing}", FileExistsError, "a pipe")
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("name, error", [("", ValueError), ("a\0b", ValueError), (3, TypeError),
                                         (None, TypeError),
                                         (b"bytes", TypeError), ("n" * 300, OSError),
                                         ("loop", OSError)])
def test_names_that_are_refused(name, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    refused(name, error, "^(\\[Errno [0-9]+\\] )?save: expected the name of a file. Received: ")
    assert os.listdir(tmp_path) == ["loop"]


# --- what stays as it was -------------------------------------------------------------------------

@pytest.mark.parametrize("absolute", [True, False])
def test_links_are_followed(path, absolute):
    (path.parent / "elsewhere").mkdir()
    first, second = path.parent / "elsewhere" / "first", path.parent / "second"
    first.symlink_to(path if absolute else "../file")
    second.symlink_to(first if absolute else "elsewhere/first")
    write_atomically(second, NEW)
    assert path.read_bytes() == NEW and first.is_symlink() and second.is_symlink()
    assert sorted(os.listdir(path.parent)) == ["elsewhere", "file", "second"]
    path.unlink()  # a link to nothing makes the file that it names
    write_atomically(second, OLD)
    assert path.read_bytes() == OLD and second.is_symlink() and not path.is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755, 0o200])
def test_the_mode_stays(path, mode):
    path.chmod(mode)
    if mode & 0o400 or ROOT:
        write_atomically(path, NEW)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_the_mode_of_a_new_file_follows_from_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "new", NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_the_owner_stays(path):
    os.chown(path, 12345, 54321)
    write_atomically(path, NEW)
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (12345, 54321, NEW)


@pytest.mark.parametrize("mode", [0o444, 0o400, 0o555, 0])
def test_read_only_files_are_refused_for_root_too(path, mode):
    path.chmod(mode)
    refused(path, PermissionError,
            "^save: expected a file that may be written. Received: .*file, which is read-only.$")
    link = path.parent / "link"
    link.symlink_to(path)
    refused(link, PermissionError, "which is read-only")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    path.chmod(0o600)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("content", [NEW, OLD[:50], b""], ids=["longer", "shorter", "empty"])
def test_hard_links_stay(path, content):
    other = path.parent / "other"
    other.hardlink_to(path)
    inode = path.stat().st_ino
    write_atomically(path, content)
    assert (path.read_bytes() == other.read_bytes() == content
            and path.stat().st_ino == other.stat().st_ino == inode)
    assert sorted(os.listdir(path.parent)) == ["file", "other"]


def test_a_file_of_another_owner_is_overwritten(path, monkeypatch):
    """A writable file of another user, in a folder where we may rename: the content is copied into
    the file."""
    def chown(*_):
        raise PermissionError(errno.EPERM, "not yours")
    real, inode = os.fstat, path.stat().st_ino
    if not hasattr(os, "fchown"):
        pytest.skip("no owners here")

    def of_another(file):
        found = list(real(file))
        found[4] += 1                                           # the user
        return os.stat_result(found)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fchown", chown)
        patch.setattr(files.os, "fstat", of_another)
        write_atomically(path, NEW)
    assert (path.read_bytes() == NEW and path.stat().st_ino == inode
            and os.listdir(path.parent) == ["file"])


# --- names ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["n" * 250, "n" * 255, "ü" * 120, ".hidden", "-dash", " space "])
def test_long_and_odd_names(tmp_path, name):
    for content in (OLD, NEW):
        write_atomically(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content and os.listdir(tmp_path) == [name]


def test_relative_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically("file", OLD)
    write_atomically("file", NEW)
    assert os.listdir(tmp_path) == ["file"] and Path("file").read_bytes() == NEW


# --- the temporary file ---------------------------------------------------------------------------

def test_a_planted_name_is_neither_followed_nor_opened(path, monkeypatch):
    """The first random name is taken, by a link to a file that must not change."""
    victim = path.parent / "victim"
    victim.write_bytes(b"precious")
    names = iter(["0" * 16, "1" * 16, "2" * 16])
    (path.parent / f".xpnet-{'0' * 16}.part").symlink_to(victim)
    (path.parent / f".xpnet-{'1' * 16}.part").write_bytes(b"another's")
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: next(names))
    write_atomically(path, NEW)
    assert path.read_bytes() == NEW and victim.read_bytes() == b"precious" and not path.is_symlink()
    assert (path.parent / f".xpnet-{'0' * 16}.part").is_symlink()


def test_temporary_names_are_not_the_same_twice(path, monkeypatch):
    seen, real = [], os.open
    monkeypatch.setattr(files.os, "open", lambda name, flags, *mode: seen.append((name, flags))
                        or real(name, flags, *mode))
    write_atomically(path, NEW)
    write_atomically(path, NEW)
    made = [(name, flags) for name, flags in seen if flags & os.O_CREAT]
    assert len({name for name, _ in made}) == len(made) == 2
    assert all(flags & os.O_EXCL and flags & os.O_NOFOLLOW for _, flags in made)
    assert all(os.path.dirname(name) == str(path.parent) for name, _ in made)


def test_the_folder_is_flushed_after_the_rename(path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace

    def noted(file):
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        sync(file)
    monkeypatch.setattr(files.os, "fsync", noted)
    monkeypatch.setattr(files.os, "replace", lambda *names: done.append("rename")
                        or replace(*names))
    write_atomically(path, NEW)
    assert done == ["file", "rename", "folder"]


LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def test_only_our_leftovers_of_dead_processes_are_removed(path):
    folder = path.parent
    kept = {"file", ".xpnet-0123.part", ".xpnet-0123456789abcdeg.part",
            "xpnet-0123456789abcdef.part", ".other.part",
            ".xpnet-0123456789abcdef.complete", ".xpnet-1111111111111111.part",
            ".xpnet-2222222222222222.part",
            ".xpnet-3333333333333333.part"}
    for name in kept - {"file", ".xpnet-1111111111111111.part", ".xpnet-2222222222222222.part"}:
        (folder / name).write_bytes(b"x")
    (folder / ".xpnet-1111111111111111.part").symlink_to("file")
    (folder / ".xpnet-2222222222222222.part").mkdir()
    (folder / ".xpnet-4444444444444444.part").write_bytes(b"of a process that was killed")
    if ROOT:
        somebody_elses = folder / ".xpnet-5555555555555555.part"
        somebody_elses.write_bytes(b"x")
        os.chown(somebody_elses, 12345, 12345)
        kept.add(somebody_elses.name)
    living = subprocess.Popen([sys.executable, "-c", LOCKER,
                               folder / ".xpnet-3333333333333333.part"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert living.stdout.readline() == b"locked\n"
    write_atomically(path, NEW)
    assert set(os.listdir(folder)) == kept
    living.communicate()
    write_atomically(path, NEW)
    assert set(os.listdir(folder)) == kept - {".xpnet-3333333333333333.part"}


# --- failures -------------------------------------------------------------------------------------

@pytest.mark.parametrize("linked", [False, True], ids=["renamed", "copied"])
@pytest.mark.parametrize("broken", ["fsync", "replace", "posix_fallocate", "rename"])
def test_a_full_disk_raises_a_clear_error_and_keeps_the_old_file(path, linked, broken, monkeypatch):
    if linked == (broken == "replace") or not linked and broken in ("posix_fallocate", "rename"):
        return                                                  # this way has no such step
    if linked:
        (path.parent / "other").hardlink_to(path)
    there = sorted(os.listdir(path.parent))

    def full(*arguments):
        if broken == "posix_fallocate":                         # a part of it was written
            os.ftruncate(arguments[0], len(OLD) + 10)
        raise OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, broken, full)
        refused(path, OSError,
                r"^\[Errno 28\] save: expected to write .*file. Received: No space left on device")
    assert path.read_bytes() == OLD and sorted(os.listdir(path.parent)) == there


def test_ctrl_c_while_a_linked_file_is_overwritten(path, monkeypatch):
    """The copy is finished first, or the file would be half old and half new."""
    (path.parent / "other").hardlink_to(path)
    calls, real = [], os.ftruncate

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "ftruncate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, OLD[:50])
    assert path.read_bytes() == OLD[:50] and sorted(os.listdir(path.parent)) == ["file", "other"]


def test_content_that_cannot_be_copied_stays_in_a_file_that_the_error_names(path, monkeypatch):
    (path.parent / "other").hardlink_to(path)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "ftruncate", broken)
        refused(path, OSError, "^save: expected to write .*file. Received: Input/output error; "
                               "all of the new content is in .*complete.$")
    complete, = (name for name in os.listdir(path.parent) if name.startswith("."))
    assert (path.parent / complete).read_bytes() == NEW
    write_atomically(path, OLD)                                 # the next save does not remove it
    assert sorted(os.listdir(path.parent)) == sorted([complete, "file", "other"])


@pytest.mark.parametrize("linked", [False, True], ids=["renamed", "copied"])
@pytest.mark.parametrize("kind", ERRORS)
def test_a_failure_at_each_call(path, linked, kind):
    """The file is old or new, and if it was overwritten in place and is neither, a whole copy is
    next to it; nothing else stays, and no file stays open."""
    if linked:
        (path.parent / "other").hardlink_to(path)
    there, fds = sorted(os.listdir(path.parent)), Path("/proc/self/fd")
    opened = len(os.listdir(fds)) if fds.is_dir() else 0
    with FailingDisk() as disk:
        write_atomically(path, NEW)
    failed = []
    for at, name in enumerate(disk.calls, 1):
        with open(path, "wb") as file:
            file.write(OLD)
        try:
            with FailingDisk(kind, at):
                write_atomically(path, [NEW[:77], memoryview(NEW)[77:]])
        except OSError as error:
            failed.append(name)
            assert error.errno == ERRORS[kind] or os.strerror(ERRORS[kind]) in str(error)
        else:
            assert path.read_bytes() == NEW, name
        left = [name for name in os.listdir(path.parent) if name not in there]
        if path.read_bytes() not in (OLD, NEW):
            assert linked and len(left) == 1 and left[0].endswith(".complete"), name
            assert (path.parent / left[0]).read_bytes() == NEW
        for name in left:
            assert name.endswith(".complete"), f"{name} stays after {at}"
            (path.parent / name).unlink()
        assert not opened or len(os.listdir(fds)) == opened, name
    assert {"file.write", "fsync", "rename" if linked else "replace"} <= set(failed)


WRITER = """
import sys
from xpnet.io.files import write_atomically
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        write_atomically(sys.argv[1], letter * (1 << 20))
"""


@pytest.mark.parametrize("linked", [False, pytest.param(True, marks=full)],
                         ids=["renamed", "copied"])
def test_a_killed_process_leaves_a_whole_file(path, linked):
    """kill -9 at twelve moments: the file is whole, or, if it is overwritten in place, a whole one
    is next to it."""
    content = {letter * (1 << 20) for letter in (b"a", b"b")}
    write_atomically(path, b"a" * (1 << 20))
    if linked:
        (path.parent / "other").hardlink_to(path)
    for attempt in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.003 * attempt)
        writer.kill()
        writer.communicate()
        complete = [p.read_bytes() for p in path.parent.glob(".*.complete")]
        assert path.read_bytes() in content or (linked and complete and complete[-1] in content)
        for left in path.parent.glob(".*.complete"):
            left.unlink()
    write_atomically(path, NEW)
    assert sorted(os.listdir(path.parent)) == (["file", "other"] if linked else ["file"])
