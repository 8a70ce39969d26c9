"""Rows: what was measured, where and when. Single rows of a file can be measured again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, INPUT_SHAPES, MODES
from benchmarks.convolutions import CONVOLUTIONS, DIRECTIONS

Row = dict[str, Any]

STEP = ("net", "width", "batch", "mode", "threads", "contender")
IDENTITY = {            # the keys that identify a row, for each part of the benchmarks
    "steps": STEP, "growth": STEP,
    "convolutions": ("convolution", "batch", "direction", "threads", "contender"),
    "recurrent": ("layer", "mode", "batch", "threads", "contender"),
}
ORDER = CONTENDERS["cpu"]       # of the columns
DISTURBED = 1.3                 # a spread of rounds that an idle machine does not reach


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """The old and the new rows; a new row replaces the old one that it measures again."""
    rows = {identity(row): row for row in old}
    return list((rows | {identity(row): row for row in new}).values())


def identity(row: Row) -> tuple[Any, ...]:
    return row["part"], *(str(row[name]) for name in IDENTITY[row["part"]])


def of_part(rows: Iterable[Row], part: str) -> list[Row]:
    """The rows of one part, in the order of its table."""
    return sorted((row for row in rows if row["part"] == part), key=_place)


def _place(row: Row) -> tuple[float, ...]:
    contender = ORDER.index(row["contender"])
    if row["part"] == "convolutions":
        names = [convolution.name for convolution in CONVOLUTIONS]
        return (names.index(row["convolution"]), row["batch"], row["threads"], contender,
                DIRECTIONS.index(row["direction"]))
    if row["part"] == "recurrent":
        return row["threads"], contender
    return (list(INPUT_SHAPES).index(row["net"]), row["width"], row["batch"],
            MODES.index(row["mode"]), row["threads"], contender)


def cell(row: Row) -> tuple[Any, ...]:
    """What is compared between contenders: network, width, batch, mode and threads."""
    return tuple(row[name] for name in STEP[:-1])


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of steps with `ratio` and `memory_ratio` to the better PyTorch contender of
    the same cell; None if there is none, or if the system does not report memory.
    """
    best: dict[tuple[Any, ...], float] = {}
    for row in rows:
        if "net" in row and row["contender"].startswith("torch"):
            for figure in ("seconds", "memory"):
                if row[figure] is not None:
                    key = row["part"], figure, cell(row)
                    best[key] = min(row[figure], best.get(key, row[figure]))

    def ratio(row: Row, figure: str) -> float | None:
        least = best.get((row["part"], figure, cell(row)))
        return row[figure] / least if least and row[figure] is not None else None

    return [row | {"ratio": ratio(row, "seconds"), "memory_ratio": ratio(row, "memory")}
            if "net" in row else row
            for row in rows]


def read(file: str, cpu: str) -> list[Row]:
    """The rows of a file that an earlier run wrote. Raises ValueError if they are from another
    processor."""
    rows = json.loads(Path(file).read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get("part") in IDENTITY
                                             and {"cpu", *IDENTITY[row["part"]]} <= set(row)
                                             for row in rows):
        raise ValueError("--json: expected rows that this version of the benchmarks wrote. "
                         f"Received: other content in {file}.")
    others = sorted({row["cpu"] for row in rows} - {cpu})
    if others:
        raise ValueError(f"--merge: expected rows that were measured on {cpu}. Received: {file} "
                         f"with rows of {', '.join(others)}.")
    return rows


def above_pytorch(rows: Sequence[Row], contender: str = "numba") -> list[str]:
    """A line for each step in which the contender needs more time or memory than the better PyTorch
    contender, or a line that there is none."""
    ours = [row for row in of_part(rows, "steps") if row["contender"] == contender]
    lines = []
    for figure, what in (("ratio", "the time"), ("memory_ratio", "the memory")):
        compared = [row for row in ours if row[figure] is not None]
        above = [row for row in compared if row[figure] > 1]
        than = f"times {what} of the better PyTorch"
        lines += [f"{contender} above 1.0: {describe(row)}: {row[figure]:.2f} {than}"
                  for row in above]
        if compared and not above:
            lines.append(f"{contender}: none of {len(compared)} lines above 1.0 {than}")
    return lines or [f"{contender}: no line to compare with PyTorch"]


def disturbed(rows: Sequence[Row]) -> list[str]:
    """A line for each row whose rounds differ too much; they can be measured again with --merge."""
    return [f"rounds differ {row['spread']:.2f} times: {row['part']}: {describe(row)}, "
            f"{row['contender']}"
            for row in rows if row.get("spread", 1) > DISTURBED]


def describe(row: Row) -> str:
    """A row in words, e.g. "numpy_cnn batch 32 train threads 2"."""
    if "convolution" in row:
        return (f"{row['convolution']} batch {row['batch']} {row['direction']} threads "
                f"{row['threads']}")
    if "layer" in row:
        return f"{row['layer']} batch {row['batch']} {row['mode']} threads {row['threads']}"
    width = "" if row["width"] == 1 else f" width {row['width']:g}"
    return f"{row['net']}{width} batch {row['batch']} {row['mode']} threads {row['threads']}"
