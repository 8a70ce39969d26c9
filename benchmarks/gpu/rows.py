"""Rows of the GPU's benchmarks: figures, ratios to PyTorch, and targets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

IDENTITY = {            # the keys that identify a row, for each part
    "steps": ("net", "batch", "tf32", "contender"),
    "bandwidth": ("kernel", "megabytes"),
    "products": ("product", "batch", "direction", "tf32", "contender"),
    "mnist": ("tf32", "contender"), "cifar": ("tf32", "contender"), "plans": ("key",),
}
PARTS = tuple(IDENTITY)
EAGER, GRAPH = ("torch-nchw", "torch-nhwc"), ("torch-graph",)

# Targets for the time of a step of "cupy", divided by that of PyTorch: eager in its better layout,
# or as a CUDA graph.
SMALL, RESIDUAL = {"of_eager": 0.25, "of_graph": 0.8}, {"of_eager": 1.0}
STEP_TARGETS = {"numpy_cnn": SMALL, "bilici": SMALL, "lenet5": SMALL, "resnet18": RESIDUAL,
                "resnet50": RESIDUAL}
# Target for the bandwidth of a kernel, divided by that of a copy, for arrays from this size (MB).
COPY_TARGET, COPY_FROM = 0.85, 256


def identity(row: Row) -> tuple[Any, ...]:
    return row["part"], *(row[name] for name in IDENTITY[row["part"]])


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """The old and the new rows; a new row replaces the old one that it measures again."""
    rows = {identity(row): row for row in old}
    return list((rows | {identity(row): row for row in new}).values())


def of_part(rows: Iterable[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part]


def compared(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of xpnet with `of_eager`, `of_graph` or `of_torch`: the time divided by that
    of PyTorch for the same thing, or None.

    `targets` has the target of each figure that has one.
    """
    times = {identity(row): row["seconds"] for row in rows}

    def ratio(row: Row, others: Sequence[str]) -> float | None:
        about = identity(row)[:-1]  # without the contender, which is last
        theirs = [times[(*about, other)] for other in others if (*about, other) in times]
        return row["seconds"] / min(theirs) if theirs else None

    def one(row: Row) -> Row:
        if row["part"] == "bandwidth":
            targets = {"of_copy": COPY_TARGET} if row["megabytes"] >= COPY_FROM else {}
            return row | {"targets": targets}
        if row["part"] == "plans" or row["contender"].startswith("torch"):
            return row
        if row["part"] == "products":
            return row | {"of_torch": ratio(row, ("torch",)), "targets": {}}
        is_step = row["part"] == "steps" and row["contender"] == "cupy"
        wanted = STEP_TARGETS.get(row["net"], {}) if is_step else {}
        return row | {"of_eager": ratio(row, EAGER), "of_graph": ratio(row, GRAPH),
                      "targets": dict(wanted)}
    return [one(row) for row in rows]


def gap(row: Row, figure: str) -> float | None:
    """The factor, above 1, by which a figure misses its target; None if it reaches it, or if figure
    or target is missing."""
    value, target = row.get(figure), row.get("targets", {}).get(figure)
    if value is None or target is None:
        return None
    past = target / value if figure == "of_copy" else value / target
    return past if past > 1 else None


def read(file: str | Path) -> list[Row]:
    """The rows of a file that an earlier run wrote."""
    rows = json.loads(Path(file).read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(row, dict)
                                             and {"part", "date", "device"} <= set(row)
                                             and set(IDENTITY.get(row["part"], ["?"])) <= set(row)
                                             for row in rows):
        raise ValueError(f"--json: expected rows that this version of the GPU's benchmarks wrote. "
                         f"Received: other content in {file}.")
    return rows
