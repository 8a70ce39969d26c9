"""One process of the benchmarks: reads a task as JSON from stdin and answers as JSON on stdout.

{"task": one of TASKS, "job": {...}} -> what the function of the task returns; for an iterator, one
line for each element. Separate processes keep the contenders apart: their thread pools, their
memory, and their failures.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks import memory
from benchmarks.contenders import Job, Runner
from benchmarks.peak import peak_flops
from benchmarks.sides import load, missing, runner

WARM_UP = 2             # steps that are not counted: they fill caches and pools
FEWEST, MOST = 3, 2000  # limits of the number of measurements


def median_seconds(step: Callable[[], Any], synchronize: Callable[[], None],
                   seconds: float) -> tuple[float, Any]:
    """The median time of a step, measured for about `seconds`, and the result of the last step."""
    for _ in range(WARM_UP):
        value = step()
    synchronize()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < FEWEST or (len(times) < MOST and time.perf_counter() < end):
        start = time.perf_counter()
        value = step()
        synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times), value


def measure(job: Job) -> dict[str, Any]:
    """{"rows": one for each batch and mode, "about": versions and kernels of the contender}."""
    load(job)
    separate = memory.apart if sys.platform == "linux" else lambda task: task()
    if job.contender == "numba":
        separate(partial(rehearse, job, max(job.batches), job.modes))
    answers = [separate(partial(measure_one, job, batch, mode)) for batch in job.batches
               for mode in job.modes]
    return {"rows": [answer["row"] for answer in answers], "about": answers[-1]["about"]}


def rehearse(job: Job, batch: int, modes: tuple[str, ...]) -> None:
    """Run one step in each mode, so that libraries allocate what they keep, and kernels are cached
    on disk."""
    for mode in modes:
        runner(job, batch).step(mode)()
    gc.collect()
    memory.hand_back()


def measure_one(job: Job, batch: int, mode: str) -> dict[str, Any]:
    """{"row": time and memory of a step, "about": ...}.

    Memory is counted from the moment when the libraries have been used once, with a batch of 1, and
    before the network and the batch are made.
    """
    rehearse(job, 1, (mode,))
    before = memory.resident()
    contestant = runner(job, batch)
    seconds, needed = figures(job, contestant, mode, before)
    row = {"batch": batch, "mode": mode, "seconds": seconds, "memory": needed, "libraries": before}
    return {"row": row, "about": contestant.about()}


def figures(job: Job, at_work: Runner, mode: str, before: int | None) -> tuple[float, int | None]:
    """(seconds, bytes) of a step. The first step, which allocates memory and compiles code, is not
    counted."""
    step = at_work.step(mode)
    step()
    at_work.synchronize()
    memory.hand_back()
    known = memory.reset_peak()
    seconds, value = median_seconds(step, at_work.synchronize, job.seconds)
    peak = memory.peak() if known else None
    if not at_work.finite(value):
        raise RuntimeError(f"{job.contender}: expected finite numbers from the {mode} step of "
                           f"{job.net}. Received: NaN or infinity.")
    return seconds, None if peak is None or before is None else peak - before


def convolutions(job: Job) -> dict[str, Any]:
    from benchmarks.convolutions import measure_convolutions
    from benchmarks.xpnet_side import about
    from xpnet import get_backend
    backend = get_backend(job.contender)

    def seconds_of(call: Callable[[], object]) -> float:
        return median_seconds(call, backend.synchronize, job.seconds)[0]

    rows = measure_convolutions(backend, job.batches, seconds_of)
    return {"rows": rows, "about": about(backend)}


def recurrent(job: Job) -> dict[str, Any]:
    from benchmarks.recurrent import cases_of
    step: Callable[[Any], Callable[[], Any]]
    if job.contender.startswith("torch"):
        from benchmarks import torch_recurrent
        from benchmarks.torch_side import about_pytorch
        step, about = partial(torch_recurrent.step, threads=job.threads), about_pytorch("cpu")
    else:
        from benchmarks.recurrent import step as step_on
        from benchmarks.xpnet_side import about as about_xpnet
        from xpnet import get_backend
        backend = get_backend(job.contender)
        step, about = partial(step_on, backend=backend), about_xpnet(backend)
    rows = [{"layer": case.layer, "mode": case.mode, "batch": case.batch,
             "seconds": median_seconds(step(case), lambda: None, job.seconds)[0]}
            for case in cases_of(job.contender)]
    return {"rows": rows, "about": about}


def lines_of(module: str, function: str = "measure") -> Callable[[Job], Iterator[Any]]:
    """A task of the GPU's benchmarks: a generator function of benchmarks.gpu, imported when it is
    called."""
    return lambda job: getattr(import_module(f"benchmarks.gpu.{module}"), function)(job)


TASKS: dict[str, Callable[[Job], Any]] = {
    "missing": missing, "measure": measure, "convolutions": convolutions,
    "recurrent": recurrent,
    "peak": lambda job: peak_flops(job.threads),
    "compile": lines_of("compiling"), "steps": lines_of("steps"),
    "bandwidth": lines_of("bandwidth"), "products": lines_of("products"),
    "plans": lines_of("plans"), "mnist": lines_of("accuracy", "mnist"),
    "cifar": lines_of("accuracy", "cifar"),
}


def main() -> None:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)   # what libraries print goes to stderr, not into the answer
    request = json.load(sys.stdin)
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                              for name, value in request["job"].items()}
    found = TASKS[request["task"]](Job(**fields))
    with answer:
        if not isinstance(found, Iterator):
            json.dump(found, answer)
            return
        for item in found:
            print(json.dumps(item), file=answer, flush=True)


if __name__ == "__main__":
    main()
