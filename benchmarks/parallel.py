"""Several processes that train one network: `python -m benchmarks parallel`.

All cores are shared by 1 process with as many threads, and by 2, 4, ... processes with fewer
threads each. The processes add gradients in a fixed order, or do so in pieces during the backward
pass, or by MPI's own sum. The table has the time of a step of the same batch, its speed relative to
1 process without shards, the time of the exchange alone, and what `xpnet.parallel.estimate`
computes from the first row and from the exchange.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import xpnet as xn
from benchmarks.contenders import INPUT_SHAPES
from benchmarks.facts import cpu_model, load_average
from benchmarks.race import ContenderError
from benchmarks.xpnet_side import NETS
from xpnet.backends.cpu.threads import cores
from xpnet.parallel import DataParallel, estimate
from xpnet.parallel.sums import Sums

WARM_UP = 3             # steps that are not counted
EXCHANGES = 20
SMALL = 256             # values of an exchange whose time is that of its messages


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--net", default="vgg_small", choices=NETS)
    parser.add_argument("--batch", type=int, default=128, help="samples of a step (default: 128)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2], metavar="P",
                        help="numbers of processes, powers of two (default: 2)")
    parser.add_argument("--shards", type=int, default=4, help="of each batch (default: 4)")
    parser.add_argument("--pieces", type=int, default=4,
                        help="of the gradients, in the rows named so (default: 4)")
    parser.add_argument("--steps", type=int, default=8, help="in each round (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="of all rows in turn (default: 3)")
    parser.add_argument("--backend", default="auto")


def run(options: argparse.Namespace) -> None:
    rows: list[tuple[int, str]] = [(1, "alone"), (1, "fixed")]
    rows += [(ranks, way) for ranks in options.ranks for way in ("fixed", "pieces", "plain")]
    found: dict[tuple[int, str], list[dict[str, float]]] = {row: [] for row in rows}
    for _ in range(options.rounds):
        for ranks, way in rows:
            found[ranks, way].append(_measured(options, ranks, way))
    print(f"{options.net}, {options.batch} samples in {options.shards} shards, "
          f"{cpu_model()}, {cores()} cores, load average {load_average()}; medians of "
          f"{options.rounds} rounds of {options.steps} steps\n")
    print(f"{'ranks':>6}{'order':>7}{'step':>12}{'speed':>8}{'exchange':>12}{'estimate':>12}")
    alone = _median(found[1, "alone"], "step")
    net = NETS[options.net](INPUT_SHAPES[options.net], backend="numpy")
    for (ranks, way), results in found.items():
        step = _median(results, "step")
        cells = f"{ranks:6}{way:>7}{1e3 * step:9.1f} ms{alone / step:8.1%}"
        if ranks > 1:
            exchange, small = _median(results, "exchange"), _median(results, "small")
            latency = small / (2 * (ranks - 1))
            size = 2 * (ranks - 1) / ranks * (net.grads.nbytes + net.state.nbytes)
            bandwidth = size / max(exchange - small, 1e-9)
            # The cores are shared: p ranks compute as long as one rank with all of them.
            computed = estimate(net, options.batch, ranks, bandwidth, latency,
                                seconds=ranks * alone)
            cells += f"{1e3 * exchange:9.2f} ms{1e3 * computed.seconds:9.1f} ms"
        print(cells)


def _median(results: list[dict[str, float]], name: str) -> float:
    return statistics.median(result[name] for result in results)


def _measured(options: argparse.Namespace, ranks: int, way: str) -> dict[str, float]:
    """What rank 0 of some processes prints."""
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if mpiexec is None:
        raise ContenderError("mpiexec is missing; pip install mpi4py mpich")
    names = "net", "batch", "shards", "pieces", "steps", "backend"
    job = {name: getattr(options, name) for name in names}
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", "benchmarks.parallel",
         json.dumps(job | {"way": way})], capture_output=True, text=True,
        env=os.environ | {"XPNET_NUM_THREADS": str(max(1, cores() // ranks))})
    if done.returncode:
        raise ContenderError(f"{ranks} ranks: {done.stderr.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Times(xn.Callback):
    """The times between the ends of batches."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_batch_end(self, run: xn.Run) -> None:
        self.ends.append(time.perf_counter())


def worker(job: dict[str, Any]) -> None:
    """Measure in one of the processes."""
    parallel = DataParallel(shards=job["shards"], deterministic=job["way"] != "plain",
                            pieces=job["pieces"] if job["way"] == "pieces" else 1)
    shape, times = INPUT_SHAPES[job["net"]], Times()
    net = NETS[job["net"]](shape, backend=job["backend"])
    steps, rng = WARM_UP + job["steps"], np.random.default_rng(0)
    x = rng.standard_normal((4 * job["batch"], *shape), np.float32)
    net.fit(x, np.arange(len(x)) % 10, loss="cross_entropy", optimizer="adam", verbose=False,
            steps=steps, batch_size=job["batch"], callbacks=[times],
            parallel=None if job["way"] == "alone" else parallel)
    found = {"step": statistics.median(np.diff(times.ends[WARM_UP - 1:]).tolist())}
    size = net.grads.size + net.state.size
    found |= {"exchange": exchange_time(parallel, size),
              "small": exchange_time(parallel, SMALL)}
    if parallel.leads:
        print(json.dumps(found), flush=True)


def exchange_time(parallel: DataParallel, values: int) -> float:
    """Seconds of a sum of float32 values over the ranks."""
    sums, times = Sums(values, 8, np.float32, parallel.size), list[float]()
    for _ in range(EXCHANGES):
        parallel.communicator.wait()                # all begin together
        start = time.perf_counter()
        parallel.add_ranks(sums)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    worker(json.loads(sys.argv[1]))
