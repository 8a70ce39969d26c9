"""The comparison: processes of the contenders that take turns, and the medians of their times."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, Job
from benchmarks.rows import Row

ROOT = str(Path(__file__).parents[1])
COMMAND = (sys.executable, "-m", "benchmarks.worker")
# Every library that multiplies matrices gets the same number of threads.
THREAD_VARIABLES = ("XPNET_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                    "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

Say = Callable[[str], None]


class ContenderError(RuntimeError):
    """A contender's process failed; the message contains its stderr."""


@dataclass(frozen=True)
class Cell:
    """What each contender measures in one turn: a network with some batch sizes and a number of
    threads."""

    net: str
    batches: tuple[int, ...]
    threads: int
    width: float = 1


class Samples:
    """The figures of each round by what was measured, and the versions of the contenders."""

    def __init__(self) -> None:
        self.figures: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
        self.about: dict[str, Row] = {}

    def add(self, what: Row, figures: Row) -> None:
        self.figures.setdefault(tuple(what.items()), []).append(figures)

    def rows(self) -> list[Row]:
        """A row for each thing measured: the median of `seconds`, `spread` (the time of the slowest
        round divided by that of the fastest), and the minimum of all other figures."""
        rows = []
        for what, figures in self.figures.items():
            seconds = [figure["seconds"] for figure in figures]
            least = {key: min((figure[key] for figure in figures if figure[key] is not None),
                              default=None)
                     for key in figures[0] if key != "seconds"}
            rows.append(dict(what) | {"seconds": statistics.median(seconds),
                                      "spread": max(seconds) / min(seconds),
                                      "rounds": len(seconds)} | least)
        return rows


@dataclass
class Turns:
    """Rounds in which the contenders take turns, as long as there is time; each round starts with
    another contender.

    So a machine that is slow or busy for a while affects all contenders alike.
    """

    contenders: Sequence[str]
    rounds: int
    deadline: float = math.inf      # of time.monotonic: no round begins that would end later
    broken: list[str] = field(default_factory=list)     # errors of processes that failed

    def ask(self, task: str, job: Job, say: Say) -> Any:
        """The answer of a new process, or None if it failed, so that the other rows are kept."""
        try:
            return ask(task, job, say)
        except ContenderError as error:
            self.broken.append(str(error))
            say(str(error))
            return None

    def __call__(self, say: Say) -> Iterator[tuple[str, list[str]]]:
        """("round 1/3", the contenders in the order of this round), for each round."""
        longest = 0.0
        for number in range(self.rounds):
            start = time.monotonic()
            if number > 0 and start + longest > self.deadline:
                say(f"no time left for round {number + 1} of {self.rounds}: see --minutes")
                return
            first = number % len(self.contenders)
            order = [*self.contenders[first:], *self.contenders[:first]]
            yield f"round {number + 1}/{self.rounds}", order
            longest = max(longest, time.monotonic() - start)


def race(part: str, cells: Sequence[Cell], turns: Turns, job: Job, say: Say) -> Samples:
    """Measure every contender in every cell and round, with one process for all batches and modes
    of a cell."""
    samples = Samples()
    for number, order in turns(say):
        for cell in cells:
            for contender in order:
                answer = turns.ask("measure", replace(job, contender=contender, **asdict(cell)),
                                   say)
                if answer is None:
                    continue
                samples.about[contender] = answer["about"]
                for row in answer["rows"]:
                    samples.add({"part": part, "net": cell.net, "width": cell.width,
                                 "batch": row["batch"], "mode": row["mode"],
                                 "threads": cell.threads, "contender": contender},
                                {key: row[key] for key in ("seconds", "memory", "libraries")})
                width = "" if cell.width == 1 else f" width {cell.width:g}"
                times = ", ".join(f"{row['mode']} {row['batch']}: {1000 * row['seconds']:.3g} ms"
                                  for row in answer["rows"])
                say(f"{number}  {cell.net}{width} threads {cell.threads}  {contender}: {times}")
    return samples


def present(asked: Sequence[str] | None, job: Job, say: Say) -> tuple[list[str], dict[str, str]]:
    """The contenders that can run here, and why the others cannot. Raises ValueError if a requested
    one cannot run, or if none can."""
    found, left_out, known = list[str](), dict[str, str](), dict[str, str | None]()
    for contender in asked or CONTENDERS[job.device]:
        library = contender.split("-")[0]   # checked once, because importing PyTorch takes seconds
        if library not in known:
            known[library] = ask("missing", replace(job, contender=contender), say)
        reason = known[library]
        if reason is None:
            found.append(contender)
        elif asked:
            raise ValueError("--contenders: expected contenders that can run here. Received: "
                             f"{contender}: {reason}")
        else:
            left_out[contender] = reason
    reasons = "\n".join(f"  {name}: {reason}" for name, reason in left_out.items())
    if not found:
        raise ValueError(f"{job.device}: expected at least one contender that can run here. "
                         f"Received: none.\n{reasons}")
    if left_out:
        say(f"left out:\n{reasons}")
    return found, left_out


def ask(task: str, job: Job, say: Say) -> Any:
    """The answer of a new process to the task; its stderr is passed to `say`."""
    done = subprocess.run(COMMAND, input=json.dumps({"task": task, "job": asdict(job)}),
                          env=environment(job), capture_output=True, encoding="utf-8",
                          errors="replace")
    if done.returncode != 0:
        batches = ", ".join(map(str, job.batches))
        raise ContenderError(f"{job.contender}: expected its process to run the task {task} "
                             f"({job.net}, batches {batches}). Received: exit status "
                             f"{done.returncode}, and on stderr:\n"
                             f"{done.stderr.strip() or '(nothing)'}")
    for line in done.stderr.splitlines():
        say(f"{job.contender}: {line}")
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise ContenderError(f"{job.contender}: expected an answer in JSON. Received: "
                             f"{done.stdout[:200]!r}.") from None


def stream(task: str, job: Job, say: Say, timeout: float) -> Iterator[Any]:
    """The answers of a new process, each as soon as it is written; the process is killed after
    `timeout` seconds.

    So the rows that were measured before a process fails or runs out of time are not lost.
    """
    command = json.dumps({"task": task, "job": asdict(replace(job, started=time.time()))})
    late = threading.Event()
    with (tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
          subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                           env=environment(job), encoding="utf-8") as process):
        assert process.stdin is not None and process.stdout is not None

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(max(timeout, 0.0), stop)
        timer.start()
        try:
            process.stdin.write(command)
            process.stdin.close()
            for line in process.stdout:
                yield json.loads(line)
            process.wait()
        except (BrokenPipeError, ValueError) as error:
            process.kill()
            raise ContenderError(f"{job.contender}: expected lines of JSON from its process. "
                                 f"Received: {error}.") from None
        finally:
            timer.cancel()
            if process.poll() is None:          # the caller stopped reading before the end
                process.kill()
        errors.seek(0)
        said = errors.read().strip()
    if late.is_set():
        stderr = f" On stderr:\n{said[-2000:]}" if said else ""
        raise ContenderError(f"{job.contender}: expected its process to finish the task {task} "
                             f"within {timeout:.0f} s. Received: no end.{stderr}")
    if process.returncode != 0:
        raise ContenderError(f"{job.contender}: expected its process to run the task {task}. "
                             f"Received: exit status {process.returncode}, and on stderr:\n"
                             f"{said or '(nothing)'}")
    for line in said.splitlines():
        say(f"{job.contender}: {line}")


def environment(job: Job) -> dict[str, str]:
    """The environment of a contender: the same number of threads for all, and the kernels that BLAS
    chooses by default."""
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    env |= dict.fromkeys(THREAD_VARIABLES, str(job.threads))
    env["CUPY_TF32"] = "1" if job.tf32 == "always" else "0"
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (ROOT, env.get("PYTHONPATH"))))
    return env
