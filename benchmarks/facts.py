"""Sentences about a measurement, made from its rows: machine, versions, kernels, duration."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import worker
from benchmarks.rows import Row

BUSY = 0.5      # a load average above this means that other processes are running


def facts(rows: Sequence[Row]) -> list[str]:
    """Sentences about all rows: date, machine, versions, kernels, duration."""
    dates = sorted({row["date"] for row in rows})
    threads = sorted({row["threads"] for row in rows if "threads" in row})
    loads = [row["load"] for row in rows if row["load"] is not None]
    pinned = os.environ.get("OPENBLAS_CORETYPE")
    sentences = [
        f"Measured {' to '.join(_ends(dates))} on {', '.join(_values(rows, 'cpu'))}, threads of "
        f"every contender: {' or '.join(map(str, threads))}, OPENBLAS_CORETYPE unset"
        f"{f' (the environment had {pinned})' if pinned else ''}, load average before "
        f"{f'{max(loads):.2f}' if loads else 'unknown'}"
        f"{' at most' if len(set(loads)) > 1 else ''}."]
    versions = {(name, version) for row in rows
                for name, version in row.get("versions", {}).items()}
    adam = ["fused" if flag else "in its default form"
            for flag in sorted({row["fused_adam"] for row in rows})]
    sentences.append(", ".join(f"{name} {version}" for name, version in sorted(versions))
                     + f"; PyTorch's Adam {' and '.join(adam)}.")
    kernels = dict.fromkeys((row["contender"], row["kernels"]) for row in rows if "kernels" in row)
    sentences += [f"{contender}: {kernel}." for contender, kernel in kernels]
    libraries: dict[str, int] = {}
    for row in rows:
        if row.get("libraries"):
            libraries[row["contender"]] = max(row["libraries"], libraries.get(row["contender"], 0))
    if libraries:
        sentences.append("Memory of the libraries alone, after one use, in MB: " + ", ".join(
            f"{contender} {size / 1e6:.0f}" for contender, size in libraries.items()) + ".")
    rounds = sorted({row["rounds"] for row in rows if "rounds" in row})
    times = sorted({row["measured_for"] for row in rows})
    sentences.append(f"Each figure is the median over rounds ({' to '.join(_ends(rounds))}) in "
                     "which the contenders take turns; each process reports the median of the "
                     f"steps in {' or '.join(f'{time:g}' for time in times)} s, at least "
                     f"{worker.FEWEST}, after {worker.WARM_UP + 1} that are not counted.")
    return sentences


def _ends(values: Sequence[Any]) -> list[str]:
    """The first and the last of sorted values, or the only one."""
    return [str(value) for value in dict.fromkeys((values[0], values[-1]))]


def _values(rows: Sequence[Row], key: str) -> list[str]:
    return sorted({row[key] for row in rows if row.get(key)})


def cpu_model() -> str:
    """The processor's name, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (names[0] if names else platform.processor() or platform.machine()
            or "an unknown processor")


def load_average() -> float | None:
    """The load average of the last minute, or None if the system does not report it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
