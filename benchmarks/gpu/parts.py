"""The parts of the GPU's benchmarks: they start processes in turn and yield their rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.contenders import Job
from benchmarks.gpu.compiling import PROCESSES
from benchmarks.race import ContenderError, Samples, Say, Turns, stream
from benchmarks.rows import Row

# Seconds that a part may take; the default parts together end within nine minutes.
BUDGET = {"compile": 60, "steps": 250, "bandwidth": 50, "products": 110, "mnist": 60, "cifar": 520,
          "plans": 520}
PATIENCE = 0.4                  # of a part's time, for one process of many
EARLY = 0.85                    # of a process's time, after which it begins nothing new


@dataclass
class Setting:
    """The settings that all parts share."""

    contenders: Sequence[str]
    rounds: int
    deadline: float                     # of time.monotonic
    job: Job
    broken: list[str]
    say: Say

    def end_of(self, part: str) -> float:
        return min(self.deadline, time.monotonic() + BUDGET[part])

    def answers(self, task: str, job: Job, end: float,
                patience: float | None = None) -> Iterator[Any]:
        """The answers of a process. If it fails or takes too long, the error is noted, and another
        process goes on after the item that failed: on a GPU, an error of a kernel spoils everything
        that its process computes afterwards."""
        item: int | None = -1
        while item is not None:
            left = end - time.monotonic()
            if left <= 0:
                self.say(f"{task}: no time left for {job.contender}: see --minutes")
                return
            timeout = min(left, patience or left)
            job, item = replace(job, first=item + 1, limit=EARLY * timeout), None
            try:
                for answer in stream(task, job, self.say, timeout):
                    if "item" in answer:
                        item = answer["item"]
                    else:
                        yield answer
                return
            except ContenderError as error:
                self.broken.append(str(error))
                self.say(str(error))


def compiling(setting: Setting, cores: int) -> None:
    """Compile xpnet's kernels in several processes, and report the time."""
    started, end = time.monotonic(), setting.end_of("compile")
    count = min(cores, PROCESSES)
    jobs = [replace(setting.job, contender="cupy", share=(number, count))
            for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        lists = pool.map(lambda job: list(setting.answers("compile", job, end)), jobs)
        answers = [answer for found in lists for answer in found]
    compiled = sum(answer["compiled"] for answer in answers)
    setting.broken += [error for answer in answers for error in answer["failed"]]
    setting.say(f"compiled {compiled} kernels in {count} processes: "
                f"{time.monotonic() - started:.0f} s")


def steps(setting: Setting, cells: Sequence[tuple[str, int]]) -> Iterator[list[Row]]:
    """Training steps: in every round, one process of each contender measures all networks."""
    end, samples = setting.end_of("steps"), Samples()
    for number, order in Turns(setting.contenders, setting.rounds, end)(setting.say):
        for contender in order:
            job = replace(setting.job, contender=contender, cells=tuple(cells))
            for answer in setting.answers("steps", job, end, PATIENCE * BUDGET["steps"]):
                if "about" in answer:
                    samples.about[contender] = answer["about"]
                    continue
                row = answer["row"]
                samples.add({"part": "steps", "net": row["net"], "batch": row["batch"],
                             "tf32": job.tf32, "contender": contender},
                            {name: row[name] for name in ("seconds", "memory", "reserved",
                                                          "predicted", "warning")})
                setting.say(f"{number}  {contender}: {row['net']} {row['batch']}: "
                            f"{1000 * row['seconds']:.3g} ms")
                yield [found | samples.about.get(found["contender"], {})
                       for found in samples.rows()]


def bandwidth(setting: Setting) -> Iterator[list[Row]]:
    """xpnet's kernels that only move data."""
    if "cupy" not in setting.contenders:
        return
    job = replace(setting.job, contender="cupy")
    yield from _described(setting, "bandwidth", "bandwidth", job, setting.end_of("bandwidth"))


def products(setting: Setting) -> Iterator[list[Row]]:
    """Matrix products and convolutions of xpnet and PyTorch, with TF32 and without."""
    end, rows = setting.end_of("products"), list[Row]()
    names = [name for name in ("cupy", "torch")
             if any(contender.startswith(name) for contender in setting.contenders)]
    for number, (mode, name) in enumerate((mode, name) for mode in ("always", "never")
                                          for name in names):
        job = replace(setting.job, contender=name, tf32=mode)
        fair = (end - time.monotonic()) / (2 * len(names) - number)  # share of the remaining time
        new: list[Row] = []
        for new in _described(setting, "products", "products", job, time.monotonic() + fair,
                              {"tf32": mode, "contender": name}):
            yield rows + new
        rows += new


def until_accurate(part: str, setting: Setting) -> Iterator[list[Row]]:
    """Train on MNIST or CIFAR-10 until an accuracy is reached: MNIST in every round, CIFAR-10 once
    and only by the fastest contender of each side."""
    end, samples = setting.end_of(part), Samples()
    names = [name for name in setting.contenders
             if part == "mnist" or name in ("cupy", "torch-nhwc")]
    turns = Turns(names, setting.rounds if part == "mnist" else 1, end)
    for number, order in turns(setting.say) if names else ():
        for contender in order:
            job = replace(setting.job, contender=contender)
            for answer in setting.answers(part, job, end):
                if "about" in answer:
                    samples.about[contender] = answer["about"]
                    continue
                row = answer["row"]
                about = {name: row[name] for name in ("net", "batch", "goal")}
                samples.add({"part": part, "tf32": job.tf32, "contender": contender} | about,
                            {name: row[name] for name in ("seconds", "accuracy", "epochs")})
                setting.say(f"{number}  {part}  {contender}: {row['accuracy']:.4f} in "
                            f"{row['seconds']:.2f} s")
                yield [found | samples.about.get(found["contender"], {})
                       for found in samples.rows()]


def plans(setting: Setting, cells: Sequence[tuple[str, int]]) -> Iterator[list[Row]]:
    """All alternatives for xpnet's products and convolutions, the largest networks first."""
    if "cupy" in setting.contenders:
        job = replace(setting.job, contender="cupy", cells=tuple(reversed(cells)))
        yield from _described(setting, "plans", "plans", job, setting.end_of("plans"))


def _described(setting: Setting, part: str, task: str, job: Job, end: float,
               more: Row | None = None) -> Iterator[list[Row]]:
    """The rows of one process so far, each with the versions and kernels of the process."""
    rows, about = list[Row](), dict[str, Any]()
    for answer in setting.answers(task, job, end):
        if "about" in answer:
            about = answer["about"]
            continue
        rows.append({"part": part} | answer["row"] | (more or {}) | about)
        yield rows
    setting.say(f"{part}  {job.contender}: {len(rows)} rows")
