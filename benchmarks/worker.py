"""One process of the competition: reads a task as JSON from stdin, answers as JSON on stdout.

{"task": "missing" | "measure" | "bandwidth", "job": {...}} -> a reason or null | {"seconds", "about"} | rows.
Processes of their own keep contenders apart: their thread pools, their memory, and what one of them breaks.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import Job, missing, runners

WARM_UP = 3             # steps that are not counted: they fill caches and pools, and compile
FEWEST, MOST = 5, 2000  # measurements, whatever the time
GPU_BLOCK = 10          # steps between two waits for the GPU; training does not wait for it after each step either


def median_seconds(step: Callable[[], Any], synchronize: Callable[[], None], seconds: float, block: int) -> float:
    """The median time of a step, measured in blocks of steps for about `seconds`."""
    for _ in range(WARM_UP):
        step()
    synchronize()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < FEWEST or (len(times) < MOST and time.perf_counter() < end):
        start = time.perf_counter()
        for _ in range(block):
            step()
        synchronize()
        times.append((time.perf_counter() - start) / block)
    return statistics.median(times)


def measure(job: Job) -> dict[str, Any]:
    """{"seconds": {mode: median}, "about": versions and kernels} of the contender; the best of its runners."""
    block = GPU_BLOCK if job.device == "gpu" else 1
    contestants = runners(job)
    seconds = {}
    for mode in job.modes:
        times = []
        for runner in contestants:
            step = runner.step(mode)
            times.append(median_seconds(step, runner.synchronize, job.seconds, block))
            if not runner.finite(step()):
                raise RuntimeError(f"{job.contender}: expected numbers from {job.net}'s {mode} step. Received: NaN or infinity.")
        seconds[mode] = min(times)
    return {"seconds": seconds, "about": contestants[0].about()}


def bandwidth(job: Job) -> list[dict[str, Any]]:
    from benchmarks.bandwidth import copy_on_device, event_timer, measure_kernels
    from xpnet import get_backend
    backend = get_backend(job.contender)
    return measure_kernels(backend, event_timer(backend), copy_on_device)


TASKS: dict[str, Callable[[Job], Any]] = {"missing": missing, "measure": measure, "bandwidth": bandwidth}


def main() -> None:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                       # what libraries print goes to stderr and cannot spoil the answer
    request = json.load(sys.stdin)
    job = Job(**{**request["job"], "modes": tuple(request["job"]["modes"])})
    with answer:
        json.dump(TASKS[request["task"]](job), answer)


if __name__ == "__main__":
    main()
