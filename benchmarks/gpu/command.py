"""The command `python -m benchmarks gpu`: the most important parts first; every row is written as
soon as it is measured."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import table
from benchmarks.contenders import Job
from benchmarks.facts import cpu_model, load_average
from benchmarks.gpu import parts, plans, tables
from benchmarks.gpu.rows import compared, merge, of_part, read
from benchmarks.gpu.steps import CELLS
from benchmarks.race import ROOT, ContenderError, present
from benchmarks.rows import Row
from xpnet.io.files import write_atomically

RESULTS = Path(ROOT) / "benchmarks" / "results"
# A folder in the tree that git ignores, for machines to which only the tree is copied.
DATA = Path(ROOT) / ".data"
PLANS = ".plans"                        # suffix instead of ".json"
NOTHING = ("Not measured yet. `make bench-gpu` measures on a machine with an NVIDIA GPU; `make "
           "bench-gpu-tables` writes the tables here.")


def run(options: argparse.Namespace) -> None:
    """Measure, print and write. Raises ValueError, OSError or ContenderError."""
    check(options)
    if options.tables_only:
        show(options, old_rows(options))
        return
    started = time.monotonic()
    job = Job("gpu", "", options.threads, seconds=options.seconds, tf32=options.tf32,
              fused_adam=options.fused_adam,
              data=options.data or (str(DATA) if DATA.is_dir() else ""))
    contenders, _ = present(options.contenders, job, say)
    deadline = started + 60 * options.minutes
    setting = parts.Setting(contenders, options.rounds, deadline, job, [], say)
    keeper = Keeper(options, old_rows(options) if options.merge else [])
    if "cupy" in contenders or "cupy-eager" in contenders:
        parts.compiling(setting, options.threads)
    cells = [(net, batch) for net in options.nets for batch in options.batches or CELLS[net]]
    measured: dict[str, Callable[[], Iterator[list[Row]]]] = {  # the most important first
        "steps": lambda: parts.steps(setting, cells), "bandwidth": lambda: parts.bandwidth(setting),
        "products": lambda: parts.products(setting),
        "mnist": lambda: parts.until_accurate("mnist", setting),
        "cifar": lambda: parts.until_accurate("cifar", setting),
        "plans": lambda: parts.plans(setting, cells),
    }
    for part, measure in measured.items():
        if (part in options.parts and part in ("mnist", "cifar")
            and not (job.data or os.environ.get("XPNET_HOME"))):
            say(f"{part}: left out: expected a folder with its images: --data, .data in this tree, "
                "or XPNET_HOME")
        elif part in options.parts:
            for rows in measure():
                keeper.keep(rows)
    say(f"measured for {time.monotonic() - started:.0f} s")
    show(options, keeper.rows)
    if keeper.file:
        say(f"rows written to {keeper.file}")
    if keeper.file and "plans" in options.parts:
        file = Path(keeper.file).with_suffix(PLANS)
        plans.write(file, of_part(keeper.rows, "plans"))
        say(f"plans written to {file}: backends/cupy/plans.json, updated with those measured")
    if setting.broken:
        raise ContenderError("\n".join([f"{len(setting.broken)} processes failed, so rows may be "
                                        "missing:", *setting.broken]))


def check(options: argparse.Namespace) -> None:
    """Refuse options that would fail only after the measurement."""
    if options.merge and not options.json:
        raise ValueError("--merge: expected --json FILE with the rows of an earlier run. Received: "
                         "no --json.")
    if (options.json and (not Path(options.json).absolute().parent.is_dir()
                          or Path(options.json).is_dir())):
        raise ValueError("--json: expected a file in a folder that exists. Received: "
                         f"{options.json}.")
    if options.data and not Path(options.data).is_dir():
        raise ValueError(f"--data: expected a folder. Received: {options.data}.")
    if options.markdown:
        table.between_markers(Path(options.markdown).read_text(encoding="utf-8"), "gpu", "",
                              options.markdown)


def old_rows(options: argparse.Namespace) -> list[Row]:
    """The rows of --json FILE; by default those of the newest file of each GPU in RESULTS."""
    if options.json:
        return read(options.json) if Path(options.json).exists() or options.tables_only else []
    newest: dict[str, list[Row]] = {}
    for file in sorted(RESULTS.glob("*.json"), key=lambda file: file.name):
        rows = read(file)
        if rows:
            newest[rows[0]["device"]] = rows
    return [row for rows in newest.values() for row in rows]


class Keeper:
    """The rows measured so far, in a file that is rewritten for each new row, so that nothing is
    lost if the run is stopped."""

    def __init__(self, options: argparse.Namespace, rows: list[Row]) -> None:
        self.rows, self.file = rows, options.json
        self.where: Row = {"date": datetime.now(UTC).isoformat(timespec="seconds"),
                           "cpu": cpu_model(), "load": load_average(), "driver": driver(),
                           "measured_for": options.seconds, "fused_adam": options.fused_adam}

    def keep(self, rows: list[Row]) -> None:
        new = [row | self.where | {"device": row.get("device", "unknown")} for row in rows]
        self.rows = compared(merge(self.rows, new))
        if not self.file:
            RESULTS.mkdir(exist_ok=True)
            name = f"{slug(new[0]['device'])}-{self.where['date'][:10]}.json"
            self.file = str(RESULTS / name)
        write_atomically(self.file, (json.dumps(self.rows, indent=1) + "\n").encode())


def slug(device: str) -> str:
    """The name of a GPU for a file: "NVIDIA H200" becomes "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def driver() -> str | None:
    """The version of NVIDIA's driver, if nvidia-smi reports it."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def show(options: argparse.Namespace, rows: list[Row]) -> None:
    """Print the tables and the missed targets, and replace the tables in the page."""
    rows = compared(rows)
    devices = dict.fromkeys(row["device"] for row in rows)
    groups = [[row for row in rows if row["device"] == device] for device in devices]
    for group in groups:
        print("\n".join(tables.facts(group)), *tables.blocks(group, table.as_text), sep="\n\n")
        better = tables.plan_table(group)
        print("", *([table.as_text(better), ""] if len(better) > 1 else []), *tables.missed(group),
              sep="\n")
    if not groups:
        say("no rows, so no tables")
    if options.markdown:
        content = "\n\n".join(
            "\n\n".join(["\n".join(f"- {sentence}" for sentence in tables.facts(group)),
                         *tables.blocks(group, table.as_markdown)])
            for group in groups) or NOTHING
        document = Path(options.markdown).read_text(encoding="utf-8")
        write_atomically(options.markdown,
                         table.between_markers(document, "gpu", content, options.markdown).encode())


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
