"""A file system that fails at a call of our choice: for what xpnet.io.files does with `os` and with
open files."""

from __future__ import annotations

import errno
import os
import signal
from types import SimpleNamespace
from typing import Any

from xpnet.io import files

CALLS = ("open", "write", "fsync", "fstat", "stat", "fchown", "fchmod", "replace", "rename",
         "unlink", "close", "lseek", "ftruncate", "posix_fallocate", "makedirs", "scandir")
ERRORS = {"no space": errno.ENOSPC, "no permission": errno.EACCES, "broken disk": errno.EIO}


class FailingDisk:
    """Counts the calls, and fails number `at` of them in the way `kind`: a name in ERRORS, or
    "kill", which ends the process. A write that fails has written half of its bytes."""

    def __init__(self, kind: str = "", at: int = 0) -> None:
        self.kind, self.at, self.calls = kind, at, list[str]()

    def __enter__(self) -> FailingDisk:
        names = {name: getattr(os, name) for name in dir(os)}
        ours = {name: self._watched(name, names[name]) for name in CALLS if name in names}
        files.os = SimpleNamespace(**names | ours)              # type: ignore[attr-defined]
        files.open = self._open                                 # type: ignore[attr-defined]
        return self

    def __exit__(self, *error: object) -> None:
        files.os = os                                           # type: ignore[attr-defined]
        del files.open                                          # type: ignore[attr-defined]

    def _fails(self, name: str) -> bool:
        self.calls.append(name)
        return len(self.calls) == self.at

    def _fail(self) -> None:
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = ERRORS[self.kind]
        raise OSError(number, os.strerror(number))

    def _watched(self, name: str, real: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            if self._fails(name):
                if name == "close":             # also then, the system has closed the file
                    real(*arguments)
                self._fail()
            return real(*arguments, **more)
        return call

    def _open(self, *arguments: Any) -> OpenFile:
        return OpenFile(self, open(*arguments))                     # noqa: SIM115


class OpenFile:
    """A file whose `write`, `flush` and `close` may fail."""

    def __init__(self, disk: FailingDisk, file: Any) -> None:
        self.disk, self.file = disk, file

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        if self.disk._fails("file.write"):
            self.file.write(memoryview(content)[:len(content) // 2])
            self.file.flush()
            self.disk._fail()
        written: int = self.file.write(content)
        return written

    def flush(self) -> None:
        if self.disk._fails("file.flush"):
            self.disk._fail()
        self.file.flush()

    def close(self) -> None:
        failing = self.disk._fails("file.close")
        self.file.close()
        if failing:
            self.disk._fail()
