"""Files that hold either what they held before or the new content, whatever happens in between."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from contextlib import suppress

try:
    import fcntl
except ImportError:         # Windows: no locks, and no leftovers are recognised
    fcntl = None            # type: ignore[assignment]

Path = str | os.PathLike[str]

PART, COMPLETE = ".part", ".complete"
LONGEST = 32767         # characters of a path, on Windows; most systems take fewer
LEFTOVER = re.compile(r"\.xpnet-[0-9a-f]{16}\.part")
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFCHR: "a character device",
         stat.S_IFBLK: "a block device",
         stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def write_atomically(path: Path, content: bytes, *, who: str = "save") -> None:
    """Make `content` the file at `path`; until all of it is on the disk, the old file stays as it
    is.

    The content goes to a temporary file in the same folder, .xpnet-RANDOM.part, which is flushed to
    the disk and renamed, and then the folder is flushed. The new file keeps the mode and the owner
    of the old one, and a symbolic link is followed. Where a rename would lose something, hard links
    or an owner that cannot be given, the content is then copied into the old file itself, while the
    complete new content stays in .xpnet-RANDOM.complete until the copy is on the disk: a process
    that is killed during the copy leaves it there. Temporary files that a dead process left in the
    folder are removed.

    FileNotFoundError for a folder that does not exist, FileExistsError for a path where something
    else than a file is, PermissionError for a file that is read-only, for root too; OSError where
    the system refuses. `who` names the caller.
    """
    name = name_of(path, who)
    old = _old_file(name, who)
    target = os.path.realpath(name) if old is None or os.path.islink(name) else name
    folder = os.path.dirname(target) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{who}: expected the name of a file in a folder that exists. "
                                f"Received: {name}.")
    try:
        _replace(target, folder, old, content, who)
        _flush(folder)
    except OSError as error:
        if error.errno is None:         # it says so itself
            raise
        raise OSError(error.errno, f"{who}: expected to write {name}. Received: {error.strerror}, "
                                   f"in {folder}") from error
    _sweep(folder)


def name_of(path: Path, who: str) -> str:
    """A path as a string; an error for what is no name of a file or a folder."""
    if not isinstance(path, str | os.PathLike):         # an int would be an open file
        raise TypeError(f"{who}: expected the name of a file. Received: {type(path).__name__}.")
    name = os.fsdecode(os.fspath(path))
    if not name or "\0" in name or len(name) > LONGEST:
        raise ValueError(f"{who}: expected the name of a file. Received: {name!r:.80}.")
    return name


def _old_file(name: str, who: str) -> os.stat_result | None:
    """What is known of the file that is there, None where there is none; an error for what must not
    be replaced."""
    try:
        old = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    # a loop of links, a name that is too long, a folder that may not be entered
    except OSError as error:
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


def _replace(target: str, folder: str, old: os.stat_result | None, content: bytes,
             who: str) -> None:
    descriptor, temporary = _create(folder, 0o666 if old is None else 0o600)
    with open(descriptor, "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(descriptor)        # or a power cut could leave the new name on an empty file
            if old is not None and not _like(old, descriptor):
                _copy_into(target, old, content, temporary, who)
                return
            # Windows renames no file that is open; elsewhere closing it ends the lock
            if fcntl is None:
                file.close()
            os.replace(temporary, target)
        except BaseException:           # Ctrl-C too
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _create(folder: str, mode: int) -> tuple[int, str]:
    """A new file in `folder`, locked so that others see that its process lives: an open descriptor,
    and its path."""
    for _ in range(100):
        # The name is random, and of a length that every file system takes, whatever the name of the
        # file will be.
        path = os.path.join(folder, f".xpnet-{secrets.token_hex(8)}{PART}")
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, mode)
        except FileExistsError:
            continue
        _lock(file, wait=True)
        if os.fstat(file).st_nlink:     # else it was swept before it had its lock
            return file, path
        os.close(file)
    raise FileExistsError(f"save: expected that a temporary file can be made in {folder}. "
                          "Received: 100 failures.")


def _lock(file: int, wait: bool = False) -> bool:
    """Whether the file is locked now: until it is closed or the process ends, and only if nobody
    else has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    # locked by another process, or a file system or a system without locks
    except (OSError, AttributeError):
        return False
    return True


def _like(old: os.stat_result, file: int) -> bool:
    """Whether a rename of `file` onto the old one keeps all of it: gives the new file its owner and
    its mode."""
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


def _copy_into(target: str, old: os.stat_result, content: bytes, temporary: str, who: str) -> None:
    """The content into the old file itself, which keeps its links and its owner; `temporary` is the
    complete new file."""
    complete = temporary.removesuffix(PART) + COMPLETE
    file = os.open(target, os.O_RDWR | FLAGS)
    try:
        before = os.fstat(file)
        if (before.st_dev, before.st_ino) != (old.st_dev, old.st_ino):
            raise OSError(f"{who}: expected a file that stays in its place. Received: {target}, "
                          "which was replaced meanwhile.")
        os.rename(temporary, complete)
        _flush(os.path.dirname(target) or ".")
        try:
            _reserve(file, before.st_size, len(content))
        except OSError:
            os.unlink(complete)
            raise
        try:
            try:
                _overwrite(file, content)
            except BaseException:       # Ctrl-C: a file that is half old and half new is neither
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
    """Make the file as large as it will be, so that a full disk is found while its old content is
    whole."""
    if size <= before or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, before, size - before)
    except OSError as error:
        os.ftruncate(file, before)
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not every file system can reserve
            raise


def _overwrite(file: int, content: bytes) -> None:
    os.lseek(file, 0, os.SEEK_SET)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest):]
    os.ftruncate(file, len(content))
    os.fsync(file)


def _flush(folder: str) -> None:
    """Bring the folder's names to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    except OSError as error:
        # file systems that have nothing to flush
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(file)


def _sweep(folder: str) -> None:
    """Remove temporary files of processes that were killed: files by our name, our own, that no
    living process has locked."""
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
