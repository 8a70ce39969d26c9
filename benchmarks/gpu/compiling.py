"""Compiling of our kernels before anything is timed, by several processes at once: CuPy keeps the results on the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.contenders import Job
from benchmarks.gpu.ours import backend_of

OTHER_TYPES = ("half", "double")        # no part of the benchmarks computes in these


def measure(job: Job) -> Iterator[dict[str, Any]]:
    """{"compiled": how many of the kernels were this process's share, "seconds": ...}."""
    backend = backend_of(job)
    mine, started = share(job), time.perf_counter()
    if backend.name.startswith("cupy"):
        from xpnet.backends import cuda_launch
        for family, kernel in mine:
            backend.xp.RawModule(code=cuda_launch.source(family), options=cuda_launch.OPTIONS,
                                 name_expressions=(kernel,)).get_function(kernel)
    yield {"compiled": len(mine), "seconds": time.perf_counter() - started}


def share(job: Job) -> list[tuple[str, str]]:
    """(family, kernel) of every so-manieth kernel for float32."""
    from xpnet.backends.cupy_backend import kernels
    number, of = job.share
    wanted = [(family, kernel) for family, names in kernels().items() for kernel in names
              if not any(other in kernel.lower() for other in OTHER_TYPES)]
    return wanted[number::of]
