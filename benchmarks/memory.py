"""The memory of a step: how much of it a process of its own needs beyond what its libraries take.

What counts is resident memory that is no mapped file: arrays, pools, caches, compiled code. Pages
of libraries are left out, because they come with the first use of each function and belong to no
step. Only Linux tells all of this.
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
    """Bytes in resident memory now, mapped files apart; None where the system does not tell."""
    return _without_files("VmRSS")


def peak() -> int | None:
    """The most that `resident` was since `reset_peak`. Mapped files only grow here, so those of now
    are taken off."""
    return _without_files("VmHWM")


def reset_peak() -> bool:
    """Let the peak start from now; False where that is not allowed."""
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True


def hand_back() -> None:
    """Give freed heap back to the system, where the C library can: it would stay resident and pass
    for memory in use."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def apart(task: Callable[[], Any]) -> Any:
    """The answer of `task`, which runs in a fork of this process: what it takes and leaves behind
    is its own.

    The libraries are imported once for all of them, yet each starts from their memory alone. The
    caller must not have started threads that a fork loses: OpenMP's, for one, start with the first
    parallel loop.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def work() -> None:
        theirs.send_bytes(json.dumps(task()).encode())

    child = fork.Process(target=work)
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; BLAS stops its own to fork
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    theirs.close()
    try:
        answer = ours.recv_bytes()
    except EOFError:
        child.join()
        raise RuntimeError(f"expected an answer. Received: exit status {child.exitcode} of the "
                           "process; "
                           "its stderr stands above") from None
    child.join()
    return json.loads(answer)


def _without_files(name: str) -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines()
                      if ":" in line)
        return 1024 * (int(fields[name].split()[0]) - int(fields["RssFile"].split()[0]))
    except (OSError, KeyError):
        return None
