"""Compiled kernels on disk, in a folder that only this user can write to, each with a checksum.

Numba's own cache unpickles every file in its folder, and a pickle can run any code. Here a file is
read only if this user owns it and its folder and no other user may write to either. To detect
flipped bits and half-written files, it begins with a SHA-256 of its content, of the sources of all
kernels, and of the kernel's target and types. Nothing is unpickled before this was compared.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from xpnet.backends.user_cache import PrivateFolder, Untrusted, cache_folder

MOST = 1 << 26              # bytes of a file; the largest kernels have about 200,000
DIGEST = hashlib.sha256().digest_size


@functools.cache
def sources() -> str:
    """A stamp of everything besides types and processor that compiled code depends on."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {sys.version}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def folder() -> PrivateFolder:
    """`kernels` in NUMBA_CACHE_DIR if that is an absolute path, else in this user's cache folder.

    A relative path would depend on the working directory, which may be a downloaded folder.
    """
    chosen = Path(config.CACHE_DIR or "")
    return PrivateFolder((chosen if chosen.is_absolute() else cache_folder()) / "kernels")


class KernelCache(NullCache):
    """The cache in which Numba's dispatcher looks up and stores the compiled forms of one function.

    If the folder cannot be used, or the disk is full, each process compiles its kernels.
    """

    said: set[str] = set()      # messages that this process has printed

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def cache_path(self) -> str | None:
        try:
            return str(folder().path)
        except OSError:
            return None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled form for the types `sig`, or None."""
        target_context.refresh()
        name, about = self._about(sig, target_context.codegen())
        with suppress(Exception):  # if Numba cannot read the file, the kernel is compiled again
            content = folder().read(name, MOST)
            digest, payload = content[:DIGEST], content[DIGEST:]
            if digest == hashlib.sha256(about + payload).digest():
                return CompileResult._rebuild(target_context, *pickle.loads(payload))
        self._announce()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if data.library.has_dynamic_globals:            # an address of this process
            return
        name, about = self._about(sig, data.codegen)
        payload = dumps(data._reduce())
        with suppress(OSError):
            folder().write(name, hashlib.sha256(about + payload).digest() + payload)

    def _about(self, sig: Any, codegen: Any) -> tuple[str, bytes]:
        """The name of the file, and everything that the compiled form depends on.

        The name depends on the path of the sources, so that several installations do not overwrite
        each other's files, but not on their content, so that a new version overwrites the old
        one's.
        """
        code = self._function.__code__
        place = (code.co_filename, code.co_firstlineno, sig, codegen.magic_tuple())
        short = hashlib.sha256(repr(place).encode()).hexdigest()[:16]
        name = f"{Path(code.co_filename).stem}.{self._function.__name__}-{short}.kernel"
        return name, repr((place, sources(), code.co_code)).encode()

    def _announce(self) -> None:
        """One line when a process begins to compile, and one for each file of kernels."""
        if "kept" not in self.said:
            self.said.add("kept")
            _say(f"xpnet: compiling CPU kernels for this machine, 10 to 20 seconds; {self._kept()}")
        family = Path(self._function.__code__.co_filename).stem
        if family not in self.said:
            self.said.add(family)
            _say(f"xpnet: compiling {family}")

    def _kept(self) -> str:
        try:
            folder().check()
        except Untrusted as error:
            warnings.warn("compiled kernels: expected a folder that only this user can write to. "
                          f"Received: {error}. It is not used, and each process compiles for "
                          "itself. Remedy: remove it, or set NUMBA_CACHE_DIR to a folder of your "
                          "own",
                          RuntimeWarning, stacklevel=2)
            return "they are not kept"
        except OSError as error:
            return f"they cannot be kept ({error})"
        return f"they are kept in {folder().path}"


def _say(line: str) -> None:
    if sys.stderr is not None:          # it is None in pythonw
        from tqdm import tqdm  # only here: most processes compile nothing
        tqdm.write(line, sys.stderr)    # above a progress bar, if there is one
