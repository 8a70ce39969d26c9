"""Compiles xpnet's kernels in several processes before they are timed or tested; CuPy caches them
on disk.

    python -m benchmarks.gpu.compiling          compiles all kernels
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from benchmarks.contenders import Job
from benchmarks.xpnet_side import backend_of
from xpnet.backends import Backend, BackendError

OTHER_TYPES = ("half", "double")        # the benchmarks compute in float32 only
PROCESSES = 14                          # at most, because each needs some memory of the GPU


def measure(job: Job) -> Iterator[dict[str, Any]]:
    """Yield {"compiled": number of float32 kernels in this process's share, "failed": [errors of
    the compiler]}."""
    mine = share(*job.share, without=OTHER_TYPES)
    yield {"compiled": len(mine), "failed": compile_kernels(backend_of(job), mine)}


def share(number: int, of: int, without: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(family, kernel) of every `of`-th kernel from `number` on, without those whose names contain
    one of these words."""
    from xpnet.backends.cupy.backend import kernels
    wanted = [(family, kernel) for family, names in kernels().items() for kernel in names
              if not any(word in kernel.lower() for word in without)]
    return wanted[number::of]


def compile_kernels(backend: Backend, wanted: list[tuple[str, str]]) -> list[str]:
    """Compile kernels as the backend does before their first launch, and return the errors."""
    failed = []
    if backend.name.startswith("cupy"):
        from xpnet.backends.cupy import launch as cuda_launch
        for family, kernel in wanted:
            try:
                backend.xp.RawModule(code=cuda_launch.source(family), options=cuda_launch.OPTIONS,
                                     name_expressions=(kernel,)).get_function(kernel)
            except Exception as error:  # of the compiler or driver: go on with the other kernels
                failed.append(f"{kernel}: {type(error).__name__}: "
                              f"{' '.join(str(error).split())[:500]}")
    return failed


def compile_share(number: int, of: int) -> tuple[int, list[str]]:
    """Compile a share of the kernels for all types on the first GPU; return number and errors."""
    mine = share(number, of)
    try:
        return len(mine), compile_kernels(backend_of(Job("gpu", "cupy", 1)), mine)
    except BackendError as error:
        return 0, [str(error)]


def main() -> None:
    from xpnet.backends.cpu.threads import cores
    started, count = time.perf_counter(), min(cores(), PROCESSES)
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(partial(compile_share, of=count), range(count)))
    failed = [line for _, lines in found for line in lines]
    compiled = sum(number for number, _ in found) - len(failed)
    print(f"compiled {compiled} kernels in {count} processes: "
          f"{time.perf_counter() - started:.0f} s", *failed, sep="\n")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
