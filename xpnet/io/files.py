"""Atomic writing: a file has either its old content or the complete new content, whatever
happens."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

try:
    import fcntl
except ImportError:         # Windows has no such locks: temporary files are never swept there
    fcntl = None            # type: ignore[assignment]

Path = str | os.PathLike[str]

PART, COMPLETE = ".part", ".complete"
LONGEST = 32767         # characters of a path on Windows; most systems allow fewer
LEFTOVER = re.compile(r"\.xpnet-[0-9a-f]{16}\.part")
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFCHR: "a character device",
         stat.S_IFBLK: "a block device", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def write_atomically(path: Path, content: bytes | Sequence[bytes | memoryview], *,
                     who: str = "save") -> None:
    """Write `content` to the file at `path`, which keeps its old content until all of the new
    content is on the disk.

    The content is written to a temporary file in the same folder, .xpnet-RANDOM.part, which is
    flushed to the disk and renamed; then the folder is flushed. The new file gets the mode and the
    owner of the old one, and a symbolic link is followed.

    A rename would break hard links, and it would change the owner if this process must not set it.
    In these two cases the content is copied into the old file instead. Until the copy is on the
    disk, .xpnet-RANDOM.complete holds the complete new content; it remains there if the process is
    killed during the copy. Temporary files that a killed process left in the folder are removed.

    Args:
        content: bytes, or pieces of bytes that are written one after another.
        who: the caller, for errors.

    Raises:
        FileNotFoundError: the folder does not exist.
        FileExistsError: the path is not that of a regular file, but of a folder, a pipe, ...
        PermissionError: the file is read-only (also for root).
        OSError: the system refuses.
    """
    name = name_of(path, who)
    old = _old_file(name, who)
    target = os.path.realpath(name) if old is None or os.path.islink(name) else name
    folder = os.path.dirname(target) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{who}: expected the name of a file in a folder that exists. "
                                f"Received: {name}.")
    try:
        _replace(target, folder, old, [content] if isinstance(content, bytes) else content, who)
        _flush(folder)
    except OSError as error:
        if error.errno is None:         # raised here, with a message of its own
            raise
        raise OSError(error.errno, f"{who}: expected to write {name}. Received: {error.strerror}, "
                                   f"in {folder}") from error
    _sweep(folder)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for reading and writing, that is moved to `path` if the block ends without
    an error: for content that does not fit into memory.

    For files of our own, in a folder that is made if it is missing: links and modes of an old file
    are not kept. Temporary files of killed processes are removed.
    """
    name = os.fspath(path)
    folder = os.path.dirname(name) or "."
    os.makedirs(folder, exist_ok=True)
    _sweep(folder)                      # before a large file is written: they may fill the disk
    descriptor, temporary = _create(folder, 0o600)
    with open(descriptor, "w+b") as file:
        try:
            yield file
            file.flush()
            os.fsync(descriptor)
            if fcntl is None:           # as in _replace
                file.close()
            os.replace(temporary, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    _flush(folder)


def append(path: Path, content: bytes) -> None:
    """Append content to a file: all of it, or nothing if that fails."""
    with open(path, "ab", 0) as file:           # a buffer would be written when the file is closed
        before, rest = file.tell(), memoryview(content)
        try:
            while rest:
                rest = rest[file.write(rest):]
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise


def make_folder(who: str, folder: str | os.PathLike[str]) -> None:
    """Make a folder if it is missing. Raises OSError if that is impossible."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise type(error)(f"{who}: expected a folder, or a name for a new one. Received: "
                          f"{os.fspath(folder)} ({error.strerror}).") from error


@contextmanager
def exclusive(folder: Path, who: str) -> Iterator[None]:
    """A folder, made if it is missing, that no other process uses in such a block at the same time.

    Raises RuntimeError if one does. Where the system has no locks (Windows), nothing is checked.
    """
    name = os.fspath(folder)
    make_folder(who, name)
    file = os.open(os.path.join(name, ".xpnet-lock"), os.O_RDWR | os.O_CREAT | FLAGS, 0o666)
    try:
        if fcntl is not None and not _lock(file):
            raise RuntimeError(f"{who}: expected a folder that no other training uses. Received: "
                               f"{name}, in which another process writes.")
        yield
    finally:
        os.close(file)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Processes run this block one after another for the same folder. They may run it at the same
    time if there are no locks (on Windows and on some file systems) or if there is no such
    folder."""
    file = None
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        _lock(file, wait=True)
    try:
        yield
    finally:
        if file is not None:
            os.close(file)


def expect_room(folder: Path, who: str) -> None:
    """Raise OSError if no file can be written in a folder: before hours of work, not after.
    Temporary files of killed processes are removed."""
    name = os.fspath(folder)
    try:
        file, path = _create(name, 0o600)
        try:
            os.write(file, b"x")
            os.fsync(file)
        finally:
            os.close(file)
            os.unlink(path)
    except OSError as error:
        raise OSError(error.errno, f"{who}: expected a folder in which files can be written. "
                                   f"Received: {error.strerror}, in {name}") from error
    _sweep(name)


def name_of(path: Path, who: str) -> str:
    """A path as a string. Raises TypeError or ValueError if it cannot be a name."""
    if not isinstance(path, str | os.PathLike):         # os.open also takes ints: open files
        raise TypeError(f"{who}: expected the name of a file. Received: {type(path).__name__}.")
    name = os.fsdecode(os.fspath(path))
    if not name or "\0" in name or len(name) > LONGEST:
        raise ValueError(f"{who}: expected the name of a file. Received: {name!r:.80}.")
    return name


def existing(path: Path, who: str, what: str) -> str:
    """The path of a file as a string. Raises FileNotFoundError, which expects `what`, if there is
    no such file."""
    name = name_of(path, who)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{who}: expected {what}. Received: {name}, which is not a file.")
    return name


def _old_file(name: str, who: str) -> os.stat_result | None:
    """os.stat of the file to replace, or None if there is none. Raises OSError if it must not be
    replaced."""
    try:
        old = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:    # a loop of links, too long a name, a folder without permission
        raise OSError(error.errno, f"{who}: expected the name of a file. Received: {name!r:.300} "
                                   f"({error.strerror})") from error
    if not stat.S_ISREG(old.st_mode):
        kind = KINDS.get(stat.S_IFMT(old.st_mode), "no file")
        raise FileExistsError(f"{who}: expected the name of a file. Received: {name}, which is "
                              f"{kind}.")
    if not old.st_mode & 0o222 or not os.access(name, os.W_OK):
        raise PermissionError(f"{who}: expected a file that may be written. Received: {name}, "
                              "which is read-only.")
    return old


def _replace(target: str, folder: str, old: os.stat_result | None,
             content: Sequence[bytes | memoryview], who: str) -> None:
    descriptor, temporary = _create(folder, 0o666 if old is None else 0o600)
    with open(descriptor, "wb") as file:
        try:
            for piece in content:
                file.write(piece)
            file.flush()
            os.fsync(descriptor)        # or the file could be empty after a power cut
            if old is not None and not _like(old, descriptor):
                _copy_into(target, old, content, temporary, who)
                return
            # Windows cannot rename an open file. On other systems, closing it would end the lock.
            if fcntl is None:
                file.close()
            os.replace(temporary, target)
        except BaseException:           # Ctrl-C too
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _create(folder: str, mode: int) -> tuple[int, str]:
    """Descriptor and path of a new file in `folder`, locked to show that its process is alive."""
    for _ in range(100):
        # A short random name: the final name with a suffix could be too long for the file system.
        path = os.path.join(folder, f".xpnet-{secrets.token_hex(8)}{PART}")
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, mode)
        except FileExistsError:
            continue
        _lock(file, wait=True)
        try:
            if os.fstat(file).st_nlink:     # else another process swept it before it was locked
                return file, path
        except OSError:
            os.close(file)
            os.unlink(path)
            raise
        os.close(file)
    raise FileExistsError(f"save: expected that a temporary file can be made in {folder}. "
                          "Received: 100 failures.")


def _lock(file: int, wait: bool = False) -> bool:
    """Lock the file until it is closed or the process ends; False if that is not possible."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):   # another process has locked it, or there are no locks
        return False
    return True


def _like(old: os.stat_result, file: int) -> bool:
    """Give the new file the owner and the mode of the old one; False if a rename would lose the
    owner or a hard link."""
    if old.st_nlink > 1:
        return False
    if hasattr(os, "fchown"):
        new = os.fstat(file)
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            try:
                os.fchown(file, old.st_uid, old.st_gid)
            except OSError:
                return False
        os.fchmod(file, stat.S_IMODE(old.st_mode))
    return True


def _copy_into(target: str, old: os.stat_result, content: Sequence[bytes | memoryview],
               temporary: str, who: str) -> None:
    """Copy the content into the old file, which keeps its links and its owner; `temporary` is the
    complete new file."""
    complete = temporary.removesuffix(PART) + COMPLETE
    file = os.open(target, os.O_RDWR | FLAGS)
    try:
        before = os.fstat(file)
        if (before.st_dev, before.st_ino) != (old.st_dev, old.st_ino):
            raise OSError(f"{who}: expected a file that no other process replaces. Received: "
                          f"{target}, which was replaced meanwhile.")
        os.rename(temporary, complete)
        _flush(os.path.dirname(target) or ".")
        try:
            _reserve(file, before.st_size, sum(map(len, content)))
        except OSError:
            os.unlink(complete)
            raise
        try:
            try:
                _overwrite(file, content)
            except BaseException:       # Ctrl-C: do not leave a mixture of old and new content
                _overwrite(file, content)
                os.unlink(complete)
                raise
        except OSError as error:
            kept = f"; all of the new content is in {complete}" if os.path.exists(complete) else ""
            raise OSError(f"{who}: expected to write {target}. Received: "
                          f"{error.strerror or error}{kept}.") from error
        os.unlink(complete)
    finally:
        os.close(file)


def _reserve(file: int, before: int, size: int) -> None:
    """Enlarge the file to its new size, so that a full disk is noticed before its old content is
    overwritten."""
    if size <= before or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, before, size - before)
    except OSError as error:
        os.ftruncate(file, before)
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):     # here the system cannot reserve
            raise


def _overwrite(file: int, content: Sequence[bytes | memoryview]) -> None:
    os.lseek(file, 0, os.SEEK_SET)
    for piece in content:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(file, rest):]
    os.ftruncate(file, sum(map(len, content)))
    os.fsync(file)


def _flush(folder: str) -> None:
    """Flush the folder's names to the disk, if the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    except OSError as error:
        # Some file systems cannot flush a folder.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(file)


def _sweep(folder: str) -> None:
    """Remove temporary files of killed processes: files of this user with our form of name that no
    process has locked."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in entries if LEFTOVER.fullmatch(entry.name)]:
            with suppress(OSError):
                file = os.open(path, os.O_RDWR | os.O_NONBLOCK | FLAGS)
                try:
                    found = os.fstat(file)
                    if (stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
                        and found.st_nlink == 1 and _lock(file)):
                        os.unlink(path)
                finally:
                    os.close(file)
