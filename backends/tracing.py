"""Which implementation ran in each call of a backend: its own, or one that it fell back to."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from xpnet.backends.base import Backend

# Methods that move or allocate memory, or wait: they compute nothing that could be faster.
BOOKKEEPING = {"argmax_dtype", "asarray", "assign", "capture", "empty", "feed", "scope", "store",
               "stream", "synchronize", "to_numpy", "zeros"}


def computing_methods() -> set[str]:
    """Names of the methods of the contract that compute something."""
    public = {name for name in dir(Backend)
              if not name.startswith("_") and callable(getattr(Backend, name))}
    return public - BOOKKEEPING


def implementations(backend: type[Backend]) -> dict[CodeType, tuple[str, str]]:
    """{code: (method, implementation)} of every version of a method that the class has, including
    inherited ones.

    The implementation is the backend that the code was written for, "numpy", "numba" or "cupy", or
    "plain" for the reference that every backend inherits.
    """
    return {vars(cls)[name].__code__: (name, _written_for(cls))
            for cls in backend.__mro__ for name in computing_methods() & vars(cls).keys()}


def _written_for(cls: type) -> str:
    name = cls.__module__.removeprefix("xpnet.backends.").split(".")[0]
    return name if name in ("numpy", "numba", "cupy") else "plain"


@contextmanager
def trace(backend: Backend) -> Iterator[Counter[tuple[str, str]]]:
    """`with trace(backend) as ran:` counts in `ran` which implementations ran in the calls of this
    thread.

    Its keys are (method, implementation). If a version calls another version of the same method,
    only the latter is counted. Calls that one method makes of another count as well; `activate`
    without an activation does not.
    """
    known = implementations(type(backend))
    ran: Counter[tuple[str, str]] = Counter()
    handed_on: set[FrameType] = set()  # calls in progress that call another version

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        version = known.get(frame.f_code)
        if (version is None or event not in ("call", "return") or frame.f_locals.get("self") is
            not backend):
            return
        if event == "call":
            caller = frame.f_back
            if caller is not None and known.get(caller.f_code, ("",))[0] == version[0] \
                    and caller.f_code is not frame.f_code:
                handed_on.add(caller)
        elif frame in handed_on:
            handed_on.remove(frame)
        elif version[0] != "activate" or frame.f_locals["activation"] is not None:
            ran[version] += 1

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield ran
    finally:
        sys.setprofile(before)
