"""`python -m benchmarks.gpu.host`: the host's work for a step on a GPU, counted without one.

The tests' pretended CuPy runs the real CuPy backend. Here its kernels do nothing, and everything
that it does itself is left out. What remains for each step:

- launches: of our kernels, of captured graphs, and calls of CuPy's own kernels (`a + b`, `fill`);
- arrays: calls of CuPy that make an array or a view;
- Python: microseconds of xpnet's own code under cProfile, which slows it down: for comparisons.
  Of each function the median over the steps counts, so that it does not matter what else runs;
- arguments: microseconds in which the installed CuPy wraps the arguments of the launches, arrays
  left out, measured with CuPy's own classes.

What CuPy and the driver need for a launch itself comes on top. It needs CuPy, but no driver.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import timeit
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import xpnet as xn
from benchmarks.race import ROOT
from xpnet import models

SUPPORT = Path(ROOT) / "tests" / "support"
OWN = tuple(str(Path(ROOT) / name) for name in ("xpnet", "backends"))
OTHERS = str(SUPPORT), __file__
WARM_UP = 6             # steps that are not counted: they compile and capture
NETS: dict[str, tuple[Callable[..., xn.Network], tuple[int, ...], int]] = {
    "numpy_cnn": (models.numpy_cnn, (1, 28, 28), 32), "lenet5": (models.lenet5, (1, 32, 32), 32),
    "resnet18": (models.resnet18, (3, 32, 32), 8)}


class Count(xn.Callback):
    """Counts and profiles the steps of a fit after the first ones, or what is between `begin` and
    `end`."""

    def __init__(self) -> None:
        self.profile, self.calls = cProfile.Profile(), Counter[str]()
        self.seconds: list[dict[Any, float]] = []           # of each function, in each step
        self.counting = False
        self.arguments: list[tuple[Any, ...]] = []

    def on_batch_begin(self, run: Any) -> None:
        if run.batch > WARM_UP:
            self.begin()

    def on_batch_end(self, run: Any) -> None:
        if self.counting:
            self.end()

    def begin(self) -> None:
        self.counting, self.profile = True, cProfile.Profile()
        self.profile.enable()

    def end(self) -> None:
        self.profile.disable()
        self.counting = False
        self.seconds.append(own_seconds(self.profile))

    def add(self, what: str, arguments: tuple[Any, ...] = ()) -> None:
        if self.counting:
            self.calls[what] += 1
            if what == "kernels":
                self.arguments.append(tuple(a.copy() if isinstance(a, np.ndarray) else a
                                            for a in arguments
                                            if isinstance(a, np.ndarray | np.generic)))

    def per_step(self, batches: int = 1) -> dict[str, float]:
        """The figures of a step; of a batch, if there were several between `begin` and `end`."""
        steps = len(self.seconds) * batches
        counts = {what: self.calls[what] / steps
                  for what in ("kernels", "graphs", "of CuPy", "arrays")}
        functions = {function for step in self.seconds for function in step}
        own = sum(statistics.median(step.get(function, 0.0) for step in self.seconds)
                  for function in functions)
        return counts | {"Python": 1e6 * own / batches,
                         "arguments": 1e6 * packing_seconds(self.arguments) / steps}


def own_seconds(profile: cProfile.Profile) -> dict[Any, float]:
    """Seconds in each of xpnet's functions, and in functions of NumPy and built-in ones that they
    call."""
    def is_own(function: tuple[str, int, str]) -> bool:
        return function[0].startswith(OWN)

    seconds = {}
    for function, (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if is_own(function):
            seconds[function] = own
        elif not function[0].startswith(OTHERS):
            seconds[function] = sum(times[2] for caller, times in callers.items() if is_own(caller))
    return seconds


def packing_seconds(launches: list[tuple[Any, ...]]) -> float:
    """Seconds in which CuPy wraps these arguments: a NumPy array is a struct, the rest is one
    number or a struct."""
    from cupy._core._scalar import CScalar
    from cupy.cuda.function import CNumpyArray
    wrapped = [(CNumpyArray if isinstance(a, np.ndarray) else CScalar, a)
               for arguments in launches for a in arguments]

    def wrap() -> None:
        for kind, a in wrapped:
            kind(a)
    return min(timeit.repeat(wrap, number=1, repeat=5))


@contextmanager
def pretended() -> Iterator[tuple[Any, Count]]:
    """A CupyBackend whose kernels do nothing, and what counts its calls."""
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))
    import fake_cupy
    import fake_streams
    import shim

    class Nothing:
        """A compiled family of kernels."""

        def __init__(self, code: str, names: Any, *_: Any) -> None:
            self.numbers = dict.fromkeys(names)

        def __call__(self, *_: Any) -> None:
            pass

    class Counting(fake_cupy.FakeCupy):
        """Knows who launches: a kernel, or CuPy itself."""

        def new(self, *args: Any, **options: Any) -> Any:
            count.add("of CuPy")
            return super().new(*args, **options)

        def change(self, function: Any, *involved: Any) -> None:
            launch = getattr(function, "__qualname__", "").startswith("RawKernel.")
            count.add("kernels" if launch else "of CuPy", involved)
            super().change(function, *involved)

        def empty(self, *args: Any, **options: Any) -> Any:
            count.add("arrays")
            return super().empty(*args, **options)

    class CountingGraph(fake_streams.Graph):
        def launch(self, stream: Any = None) -> None:
            count.add("graphs")
            super().launch(stream)

    before = shim.Library, fake_streams.Graph
    shim.Library, fake_streams.Graph = Nothing, CountingGraph       # type: ignore[misc, assignment]
    try:
        with fake_cupy.installed(Counting(Path("."))):
            count = Count()
            from xpnet.backends.cupy.backend import CupyBackend
            yield CupyBackend(), count
    finally:
        shim.Library, fake_streams.Graph = before                   # type: ignore[misc]


def training(name: str, capture: bool, steps: int) -> dict[str, float]:
    """The figures of a step of `fit`."""
    make, shape, batch = NETS[name]
    samples = batch * (steps + WARM_UP)
    x, y = np.zeros((samples, *shape), np.uint8), np.arange(samples) % 10
    with pretended() as (backend, count), np.errstate(all="ignore"):
        make(shape, backend=backend).fit(x, y, loss="cross_entropy", optimizer="adam",
                                         batch_size=batch, capture=capture, callbacks=[count],
                                         verbose=False)
    return count.per_step()


def prediction(name: str, steps: int) -> dict[str, float]:
    """The figures of a batch of `predict`, of ten batches."""
    make, shape, batch = NETS[name]
    x = np.zeros((10 * batch, *shape), np.uint8)
    with pretended() as (backend, count), np.errstate(all="ignore"):
        net = make(shape, backend=backend)
        net.predict(x, batch_size=batch)
        for _ in range(max(steps // 10, 3)):
            count.begin()
            net.predict(x, batch_size=batch)
            count.end()
    return count.per_step(10)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.host",
                                     description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--steps", type=int, default=20, help="steps that are counted")
    options = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)         # the losses are not numbers
    print("| network, batch | what | kernels | graphs | calls of CuPy | Python, us | "
          "arguments, us |\n|---|---|---|---|---|---|---|")
    for name in options.nets:
        rows = {"eager step": training(name, False, options.steps),
                "captured step": training(name, True, options.steps),
                "prediction": prediction(name, options.steps)}
        for what, row in rows.items():
            print(f"| {name}, {NETS[name][2]} | {what} | {row['kernels']:.1f} | "
                  f"{row['graphs']:.1f} | {row['of CuPy']:.1f} | {row['Python']:.0f} | "
                  f"{row['arguments']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
