"""The competition: processes that take turns, and what comes out of their times."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.contenders import Job

ROOT = str(Path(__file__).parents[1])
COMMAND = (sys.executable, "-m", "benchmarks.worker")
# Whoever multiplies matrices gets the same number of threads.
THREAD_VARIABLES = ("XPNET_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

Row = dict[str, Any]
Say = Callable[[str], None]


class ContenderError(RuntimeError):
    """A contender's process broke down; the message holds what it wrote to stderr."""


@dataclass
class Race:
    """What is run: every contender in every cell (net, batch), `rounds` times."""

    contenders: Sequence[str]
    nets: Sequence[str]
    batches: Sequence[int]
    rounds: int
    job: Job                                                            # what all of them have in common
    about: dict[str, dict[str, Any]] = field(default_factory=dict)      # by contender, as it told

    def run(self, say: Say) -> list[Row]:
        """A row for each net, batch, mode and contender: the median over the rounds, and the ratio to PyTorch.

        Every round visits every cell, and in a cell the contenders follow one another, each round another one first.
        So a machine that slows down or is busy for a while slows all of them down.
        """
        times: dict[tuple[Any, ...], list[float]] = {}
        for number in range(self.rounds):
            first = number % len(self.contenders)
            for net in self.nets:
                for batch in self.batches:
                    for contender in [*self.contenders[first:], *self.contenders[:first]]:
                        answer = ask("measure", replace(self.job, contender=contender, net=net, batch=batch), say)
                        self.about[contender] = answer["about"]
                        for mode, seconds in answer["seconds"].items():
                            times.setdefault((net, batch, mode, contender), []).append(seconds)
                        say(f"round {number + 1}/{self.rounds}  {net} {batch}  {contender}: " + ", ".join(
                            f"{mode} {1000 * seconds:.3g} ms" for mode, seconds in answer["seconds"].items()))
        rows = [{"net": net, "batch": batch, "mode": mode, "contender": contender, "threads": self.job.threads,
                 "seconds": statistics.median(times[net, batch, mode, contender])}
                for net in self.nets for batch in self.batches for mode in self.job.modes for contender in self.contenders]
        return with_ratios(rows)


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows with `ratio`: seconds to those of the fastest PyTorch row of the same net, batch, mode and threads.

    None where no PyTorch took part.
    """
    def cell(row: Row) -> tuple[Any, ...]:
        return row["net"], row["batch"], row["mode"], row["threads"]

    best: dict[tuple[Any, ...], float] = {}
    for row in rows:
        if row["contender"].startswith("torch"):
            best[cell(row)] = min(row["seconds"], best.get(cell(row), row["seconds"]))
    return [row | {"ratio": row["seconds"] / best[cell(row)] if cell(row) in best else None} for row in rows]


def ask(task: str, job: Job, say: Say) -> Any:
    """The answer of a new process to the task; what it wrote to stderr is passed on to `say`."""
    done = subprocess.run(COMMAND, input=json.dumps({"task": task, "job": asdict(job)}), env=environment(job),
                          capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        raise ContenderError(f"{job.contender}: expected its process to {task} ({job.net}, batch {job.batch}). Received: exit "
                             f"status {done.returncode}, and on stderr:\n{done.stderr.strip() or '(nothing)'}")
    for line in done.stderr.splitlines():
        say(f"{job.contender}: {line}")
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise ContenderError(f"{job.contender}: expected an answer in JSON. Received: {done.stdout[:200]!r}.") from None


def environment(job: Job) -> dict[str, str]:
    """Ours, with the same number of threads for all, and with the BLAS kernels that BLAS itself chooses."""
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    env |= dict.fromkeys(THREAD_VARIABLES, str(job.threads))
    env["CUPY_TF32"] = "1" if job.tf32 else "0"
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (ROOT, env.get("PYTHONPATH"))))
    return env
