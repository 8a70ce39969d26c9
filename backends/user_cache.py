"""The user's cache folder: files that a program can make or download again."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """This user's folder `xpnet` in the system's cache folder; it need not exist yet.

    A relative XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification demands: it would
    depend on the working directory. Raises FileNotFoundError if there is no absolute path to a home
    folder.
    """
    if sys.platform == "win32":
        base = _absolute(os.environ.get("LOCALAPPDATA")) or _home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Caches"
    else:
        base = _absolute(os.environ.get("XDG_CACHE_HOME")) or _home() / ".cache"
    return base / "xpnet"


def _absolute(text: str | None) -> Path | None:
    return Path(text) if text and Path(text).is_absolute() else None


def _home() -> Path:
    try:
        home = Path.home()
    except RuntimeError:            # no HOME, and the system does not know the user
        home = Path()
    if not home.is_absolute():
        raise FileNotFoundError(
            f"cache folder: expected a home folder. Received: HOME={os.environ.get('HOME')!r}. "
            "Remedy: set HOME or XDG_CACHE_HOME to an absolute path")
    return home


class Untrusted(PermissionError):       # noqa: N818 - its text is part of a warning
    """Another user could have written this file or folder."""


class PrivateFolder:
    """A folder of this user that no other user can write to.

    At each use the folder and the file are checked: they belong to this user, no other user may
    write to them, and neither is a link. On Windows nothing is checked: the cache folder is in the
    user's profile, which others cannot write to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, most: int) -> bytes:
        """The content of a file of at most `most` bytes. Raises OSError, or its subclass
        Untrusted."""
        with self._opened() as at:
            file = os.open(self._place(name), _READ, **at)
            with open(file, "rb") as opened:
                found = os.fstat(file)
                if not stat.S_ISREG(found.st_mode) or found.st_size > most:
                    raise OSError(f"expected a file of at most {most} bytes. "
                                  f"Received: {self.path / name}")
                _check(found, self.path / name)
                return opened.read(most)

    def write(self, name: str, content: bytes) -> None:
        """Write a file and move it into place atomically. Raises OSError, or its subclass
        Untrusted."""
        part = f".{name}.{secrets.token_hex(8)}"
        with self._opened(make=True) as at:
            try:
                with open(os.open(self._place(part), _CREATE, 0o600, **at), "wb") as file:
                    file.write(content)
                _replace(self._place(part), self._place(name), at)
            except BaseException:
                with suppress(OSError):
                    os.unlink(self._place(part), **at)
                raise

    def check(self) -> None:
        """Make the folder if it is missing. Raises OSError if it cannot be used."""
        with self._opened(make=True) as at:
            name = f".{secrets.token_hex(8)}"
            os.close(os.open(self._place(name), _CREATE, 0o600, **at))
            os.unlink(self._place(name), **at)

    @contextmanager
    def _opened(self, make: bool = False) -> Iterator[dict[str, Any]]:
        """The folder as an argument for functions of `os`; replacing the folder meanwhile has no
        effect."""
        if make:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        if not _POSIX:
            yield {}
            return
        if self.path.is_symlink():
            raise Untrusted(f"{self.path}, which is a link")
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _check(os.fstat(folder), self.path)
            yield {"dir_fd": folder}
        finally:
            os.close(folder)

    def _place(self, name: str) -> str:
        return name if _POSIX else str(self.path / name)


_POSIX = os.name == "posix"
_OWN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | _OWN | getattr(os, "O_NONBLOCK", 0)       # opening a pipe must not block
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OWN


def _replace(part: str, name: str, at: dict[str, Any]) -> None:
    both = {f"{which}_{key}": fd for key, fd in at.items() for which in ("src", "dst")}
    os.replace(part, name, **both)


def _check(found: os.stat_result, path: Path) -> None:
    if not _POSIX:
        return
    if found.st_uid != os.geteuid():
        raise Untrusted(f"{path}, which belongs to user {found.st_uid}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Untrusted(f"{path}, which others can write to (mode {stat.S_IMODE(found.st_mode):o})")
