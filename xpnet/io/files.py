"""Files that are either the old ones or the new ones, whatever happens in between."""

from __future__ import annotations

import os
from contextlib import suppress
from threading import get_ident


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, then rename: no reader ever sees half a file."""
    folder, name = os.path.split(os.fspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder or "."):
        raise FileNotFoundError(f"save: expected the name of a file in a folder that exists. Received: {path}.")
    # In the same folder, because a rename is one step only within a file system; a name of this thread's own.
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{get_ident()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())     # or a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    except BaseException:               # Ctrl-C too
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
