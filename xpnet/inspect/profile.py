"""Where the time of a training step goes: seconds, operations and bytes of every layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from xpnet.checks import expect_integer
from xpnet.graph import Graph
from xpnet.inspect.counting import changed
from xpnet.inspect.speed import product_speed, timed
from xpnet.layer import TRAIN, Array
from xpnet.node import Node, layer_of
from xpnet.passes import Hook
from xpnet.tables import html_table, table

WARM_UP = 2             # steps that are not counted: they compile kernels and fill memory pools
PEAK_SECONDS = 0.3      # for the speed of a matrix product, to compare with
HEAD = ("layer", "type", "forward ms", "backward ms", "share", "MB", "GFLOP/s", "of peak")


@dataclass(frozen=True)
class Row:
    """One layer's line.

    `forward`, `backward`: seconds, the median over the steps.
    `operations`: floating-point operations of both passes in convolutions and products, two for
        each multiply-add.
    `bytes`: what both passes have to read and write at least: inputs, outputs, parameters and
        their gradients, each once in each pass that needs it.
    """

    name: str
    kind: str
    forward: float
    backward: float
    operations: int
    bytes: int

    @property
    def seconds(self) -> float:
        return self.forward + self.backward


@dataclass(frozen=True)
class Profile:
    """The time of every layer in a training step, without the loss and the optimizer.

    `peak` is the number of floating-point operations per second of a large matrix product on the
    same backend, measured at the same time. On a GPU each layer is waited for, so that a layer
    shows at least the time of a launch, which a captured step does not spend.
    """

    batch_size: int
    backend: str
    peak: float
    rows: tuple[Row, ...]

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    def _lines(self) -> list[tuple[str, ...]]:
        total = max(self.seconds, 1e-12)
        lines: list[tuple[str, ...]] = []
        for row in self.rows:
            speed = row.operations / max(row.seconds, 1e-12)
            lines.append((row.name, row.kind, f"{1e3 * row.forward:.3f}",
                          f"{1e3 * row.backward:.3f}", f"{row.seconds / total:.1%}",
                          f"{row.bytes / 1e6:.2f}",
                          f"{speed / 1e9:.1f}" if row.operations else "",
                          f"{speed / self.peak:.0%}" if row.operations else ""))
        return lines

    def _totals(self) -> list[str]:
        operations = sum(row.operations for row in self.rows)
        return [f"{1e3 * sum(row.forward for row in self.rows):.3f} ms forward, "
                f"{1e3 * sum(row.backward for row in self.rows):.3f} ms backward, for a batch of "
                f"{self.batch_size:,} on {self.backend}",
                f"{operations / max(self.seconds, 1e-12) / 1e9:.1f} GFLOP/s; a large matrix "
                f"product reaches {self.peak / 1e9:.1f} now"]

    def __str__(self) -> str:
        text = table(HEAD, self._lines(), left=2)
        return "\n".join([*text, text[1], *self._totals()])

    def _repr_html_(self) -> str:
        return html_table(HEAD, self._lines(), left=2, below=self._totals())


def profile(net: Graph, x: Any, *, steps: int = 10) -> Profile:
    """Measure every layer's forward and backward pass, in training mode.

    The gradients with respect to the outputs are ones. Parameters, gradients, state, counters and
    random numbers are afterwards as they were. The network must not be used by another thread
    meanwhile.

    Args:
        net: the network.
        x: a batch of samples (N, ...), batch-first, as for `predict`.
        steps: how often the batch is run; the figures are medians.
    """
    net.expect_whole("profile")
    xs, steps = net.check_inputs(x), expect_integer("profile", "steps", steps)
    backend, N = net.backend, len(xs[0])
    times: dict[tuple[Node, str], list[float]] = {(node, side): [] for node in net.nodes
                                                  for side in ("forward", "backward")}
    needs_dx: dict[Node, bool] = {}

    def watch(side: str) -> Hook:
        def hook(node: Node, compute: Callable[..., Any], arrays: tuple[Array, ...]) -> Any:
            results: list[Any] = []
            times[node, side].append(timed(backend, lambda: results.append(compute(*arrays))))
            needs_dx[node] = layer_of(node).needs_dx
            return results.pop()
        return hook

    with backend.scope(), changed([(node, "kept", None) for node in net.nodes]):
        before = [(a, a.copy()) for a in (net.grads, net.state, net.counters)]
        batch = [backend.gather_batch(net.xp.asarray(a), None, net.dtype) for a in xs]
        try:
            with np.errstate(all="ignore"):
                for _ in range(WARM_UP + steps):
                    ys = net.run(batch, net.outs.nodes, TRAIN, hook=watch("forward"))
                    ones = [net.xp.ones_like(y) for y in ys]
                    del ys
                    net.run_backward(list(zip(net.outs.nodes, ones, strict=True)),
                                     hook=watch("backward"))
        finally:
            for a, values in before:
                a[...] = values
        peak = product_speed(backend, net.dtype, PEAK_SECONDS)
    rows = []
    for node in net.nodes:
        forward, backward = (median(times[node, side][WARM_UP:] or [0.0])
                             for side in ("forward", "backward"))
        rows.append(_row(net, node, N, forward, backward, needs_dx[node]))
    return Profile(N, backend.name, peak, tuple(rows))


def _row(net: Graph, node: Node, N: int, forward: float, backward: float, needs_dx: bool) -> Row:
    layer = layer_of(node)
    inputs = sum(math.prod(parent.shape) for parent in node.parents) * N
    output = math.prod(node.shape) * N
    parameters = sum(p.size for p in layer.parameters)
    moved, passes = inputs + parameters + output, 1
    if backward:                    # dy, the inputs and W are read; dx and dW are written
        moved += output + inputs + 2 * parameters + (inputs if needs_dx else 0)
        passes += bool(parameters) + needs_dx
    return Row(node.name, type(layer).__name__, forward, backward,
               operations=2 * layer.multiply_adds() * N * passes,
               bytes=moved * net.dtype.itemsize)
