"""The time of training while other processes are busy: `python -m benchmarks.busy`.

Each row is a setting of the threads, each column a number of busy loops that run during the
training. A cell shows the shortest, the median and the longest time of several processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.contenders import INPUT_SHAPES
from xpnet.backends.cpu.threads import cores
from xpnet.models import MODELS

SETTINGS: dict[str, dict[str, str]] = {
    "as installed": {},
    "one thread": {"XPNET_NUM_THREADS": "1"},
    "spin count 300000 (GNU's default)": {"GOMP_SPINCOUNT": "300000"},
    "spin count 30000": {"GOMP_SPINCOUNT": "30000"},
    "spin count 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin count 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin count 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin count 0": {"GOMP_SPINCOUNT": "0"},
}
VARIABLES = ("XPNET_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS",
             "NUMBA_NUM_THREADS")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    parser.add_argument("--model", default="numpy_cnn",
                        choices=sorted(INPUT_SHAPES.keys() & MODELS.keys()))
    parser.add_argument("--backend", default="numba", choices=["numba", "numpy"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--loops", type=int, nargs="+", default=[0, cores()],
                        help="numbers of busy loops (default: 0, and one for each core)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds-of", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.seconds_of:
        print(seconds(options.model, options.backend, options.batch, options.steps))
        return 0
    print(f"{options.steps} steps of {options.model}, batch {options.batch}, {options.backend}, "
          f"{cores()} cores: seconds, shortest / median / longest of {options.repeats}\n")
    print(f"{'':30}" + "".join(f"{f'{loops} busy loops':>24}" for loops in options.loops))
    for name, setting in SETTINGS.items():
        print(f"{name:30}", end="", flush=True)
        for loops in options.loops:
            with busy(loops):
                times = [measured(options, setting) for _ in range(options.repeats)]
            cell = f"{min(times):.2f} / {statistics.median(times):.2f} / {max(times):.2f}"
            print(f"{cell:>24}", end="", flush=True)
        print()
    return 0


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Run `loops` other processes that each keep one core busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(options: argparse.Namespace, setting: dict[str, str]) -> float:
    """The seconds that a new process measures; `setting` is all that its environment says about
    threads."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-m", "benchmarks.busy", "--seconds-of", "--model", options.model,
               "--backend", options.backend, "--batch", str(options.batch),
               "--steps", str(options.steps)]
    done = subprocess.run(command, env=environment | setting, text=True, check=True,
                          stdout=subprocess.PIPE)
    return float(done.stdout)


def seconds(model: str, backend: str, batch: int, steps: int) -> float:
    """The time of training steps, after two further steps that compile and load code."""
    from time import perf_counter

    import xpnet as xn

    net = MODELS[model](backend=backend)
    rng = np.random.default_rng(0)
    x = net.batch_last(rng.standard_normal((batch, *INPUT_SHAPES[model]), np.float32))
    labels = rng.integers(0, 10, batch)
    step = xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(1e-3))
    for _ in range(2):
        step(x, labels)
    begin = perf_counter()
    for _ in range(steps):
        step(x, labels)
    return perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
