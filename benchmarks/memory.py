"""The memory that a step needs in a process of its own, beyond the memory of its libraries.

Counted is resident memory without mapped files: arrays, pools, caches, compiled code. Pages of
libraries are not counted, because the first use of each function loads them, whatever the step.
Only Linux reports all of this.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int | None:
    """Bytes in resident memory now, without mapped files; None if the system does not report it."""
    return _without_files("VmRSS")


def peak() -> int | None:
    """The largest value of `resident` since `reset_peak`. Mapped files only grow here, so their
    present size is subtracted."""
    return _without_files("VmHWM")


def reset_peak() -> bool:
    """Start the peak anew; False if the system does not allow it."""
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True


def hand_back() -> None:
    """Return freed heap to the system, if the C library can; else it would stay resident and be
    counted."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def apart(task: Callable[[], Any]) -> Any:
    """Run `task` in a fork of this process, which separates its memory, and return its result.

    The libraries are imported once for all tasks. The caller must not have started threads, because
    a fork loses them; OpenMP's threads, for example, start with the first parallel loop.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def work() -> None:
        theirs.send_bytes(json.dumps(task()).encode())

    child = fork.Process(target=work)
    with warnings.catch_warnings():
        # Python 3.12 warns about threads, but BLAS stops its threads before a fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    theirs.close()
    try:
        answer = ours.recv_bytes()
    except EOFError:
        child.join()
        raise RuntimeError(f"expected an answer. Received: exit status {child.exitcode} of the "
                           "process; its stderr is above") from None
    child.join()
    return json.loads(answer)


def _without_files(name: str) -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines()
                      if ":" in line)
        return 1024 * (int(fields[name].split()[0]) - int(fields["RssFile"].split()[0]))
    except (OSError, KeyError):
        return None
