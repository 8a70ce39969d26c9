"""The parts of the CPU's benchmarks: functions that measure and return rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks import convolutions
from benchmarks.contenders import Job
from benchmarks.race import Cell, Samples, Say, Turns, ask, race
from benchmarks.rows import Row

PARTS = ("steps", "convolutions", "recurrent", "growth")
# For the part "growth": training steps with larger and larger batches, and with other widths.
GROWING_NETS = ("numpy_cnn", "vgg_small")
GROWING_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WIDTHS, WIDE_BATCH = (0.5, 1, 2, 4), 32


def steps(nets: Sequence[str], batches: Sequence[int], threads: Sequence[int], turns: Turns,
          job: Job, say: Say) -> list[Row]:
    """Training steps and predictions of every contender."""
    cells = [Cell(net, tuple(batches), count) for net in nets for count in threads]
    return described(race("steps", cells, turns, job, say))


def growth(threads: int, turns: Turns, job: Job, say: Say) -> list[Row]:
    """Training steps over batches and over widths."""
    cells = [cell for net in GROWING_NETS for cell in (
        Cell(net, GROWING_BATCHES, threads),
        *(Cell(net, (WIDE_BATCH,), threads, width) for width in WIDTHS if width != 1))]
    return described(race("growth", cells, turns, replace(job, modes=("train",)), say))


def single_convolutions(threads: Sequence[int], turns: Turns, job: Job, say: Say) -> list[Row]:
    """xpnet's contenders on single convolutions, compared with the machine's peak."""
    turns = replace(turns, contenders=[contender for contender in turns.contenders
                                       if not contender.startswith("torch")])
    if not turns.contenders:
        say("convolutions: left out, because neither numpy nor numba takes part")
        return []
    samples, peaks = Samples(), dict[int, float]()
    for number, order in turns(say):
        for count in threads:
            answer = ask("peak", replace(job, contender="numba", threads=count), say)
            if answer["flops_per_second"] is None:
                say(f"convolutions: no peak to compare with: {answer['reason']}")
            else:
                peaks[count] = max(peaks.get(count, 0.0), answer["flops_per_second"])
            ours = replace(job, threads=count, batches=convolutions.BATCHES)
            _ask_each("convolutions", number, order, turns, ours, samples, say)
    rows = []
    for row in described(samples):
        rate, peak = row["operations"] / row["seconds"], peaks.get(row["threads"])
        rows.append(row | {"flops_per_second": rate, "peak_flops_per_second": peak,
                           "of_peak": peak and rate / peak})
    return rows


def recurrent(threads: Sequence[int], turns: Turns, job: Job, say: Say) -> list[Row]:
    """Recurrent layers of every contender, PyTorch's once: it has one layout for them."""
    turns = replace(turns, contenders=[contender for contender in turns.contenders
                                       if contender != "torch-nhwc"])
    samples = Samples()
    for number, order in turns(say):
        for count in threads:
            _ask_each("recurrent", number, order, turns, replace(job, threads=count), samples, say)
    return described(samples)


def _ask_each(part: str, number: str, order: Sequence[str], turns: Turns, job: Job,
              samples: Samples, say: Say) -> None:
    """Add the seconds of each contender in a part to the samples; `number` is that of the round."""
    for contender in order:
        answer = turns.ask(part, replace(job, contender=contender), say)
        if answer is None:
            continue
        samples.about[contender] = answer["about"]
        for row in answer["rows"]:
            seconds = row.pop("seconds")
            samples.add({"part": part} | row | {"threads": job.threads, "contender": contender},
                        {"seconds": seconds})
        say(f"{number}  {part} threads {job.threads}  {contender}")


def described(samples: Samples) -> list[Row]:
    """The rows, each with the versions and kernels of its contender."""
    def about(row: Row) -> dict[str, Any]:
        return samples.about[row["contender"]]
    return [row | about(row) for row in samples.rows()]
