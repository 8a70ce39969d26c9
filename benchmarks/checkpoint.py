"""The cost of a checkpoint: `python -m benchmarks.checkpoint`.

Networks are trained for a few steps with Adam, and saved after each step. A checkpoint has three
arrays of the size of the parameters: the parameters and the two slots of Adam. The last columns
show what the disk needs for as many bytes, written and flushed by plain Python.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import xpnet as xn
from benchmarks.contenders import INPUT_SHAPES
from benchmarks.facts import cpu_model, load_average
from benchmarks.xpnet_side import NETS

Times = list[tuple[float, float]]       # wall and CPU seconds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__)
    parser.add_argument("--nets", nargs="+", default=["vgg_small", "resnet18"], choices=NETS)
    parser.add_argument("--saves", type=int, default=9)
    parser.add_argument("--folder", help="on the disk to measure (default: the temporary folder)")
    options = parser.parse_args(arguments)
    print(f"{cpu_model()}, load average {load_average()}, the median of {options.saves} saves\n")
    print(f"{'net':12}{'parameters':>12}{'MB':>8}{'save':>10}{'CPU':>10}{'of a minute':>13}"
          f"{'disk':>10}{'CPU':>10}")
    for name in options.nets:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            parameters, size, saves = saving(name, options.saves, Path(folder))
            disk = [timed(plain, Path(folder) / "plain", size) for _ in range(options.saves)]
        wall, cpu = medians(saves)
        print(f"{name:12}{parameters:12,}{size / 1e6:8.1f}{wall:8.3f} s{cpu:8.3f} s"
              f"{wall / 60:12.2%} " + "".join(f"{value:8.3f} s" for value in medians(disk)))
    return 0


def saving(name: str, saves: int, folder: Path) -> tuple[int, int, Times]:
    """Number of parameters, bytes of a checkpoint, and the time of each save, but the first two,
    after which old files are removed, too."""
    times: Times = []

    class Timed(xn.Checkpoint):
        def _save(self, run: xn.Run) -> None:
            times.append(timed(super()._save, run))

    shape = INPUT_SHAPES[name]
    net = NETS[name](shape, backend="numpy")
    count = saves + 2
    x = np.random.default_rng(0).standard_normal((2 * count, *shape), np.float32)
    net.fit(x, np.arange(2 * count) % 10, loss="cross_entropy", optimizer="adam", batch_size=2,
            checkpoint=Timed(folder, steps=1, keep=2), verbose=False)
    size = max(file.stat().st_size for file in folder.glob("step-*"))
    return int(net.parameters.size), size, times[2:]


def plain(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(*arguments)
    return time.perf_counter() - wall, time.process_time() - cpu


def medians(times: Times) -> tuple[float, ...]:
    return tuple(map(statistics.median, zip(*times)))


if __name__ == "__main__":
    sys.exit(main())
