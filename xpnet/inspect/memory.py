"""The memory that a batch needs: predicted before a run, and explained after memory ran out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import expect_integer
from xpnet.graph import Graph
from xpnet.inspect.counting import changed, counted, free_memory
from xpnet.inspect.summary import readable_bytes
from xpnet.layer import TRAIN, Array, Layer
from xpnet.node import Node
from xpnet.optim import Optimizer, get_optimizer
from xpnet.passes import Hook
from xpnet.tables import table

# The kernels have other code for small batches than for large ones, so batches of 256 and 512
# samples are measured; smaller ones if these took more multiply-adds (about a second on two cores)
# or more bytes of outputs.
PROBE, PROBE_WORK, PROBE_BYTES = 256, 1e11, 1 << 29
UNDER_WAY = 3       # batches that are being copied to a GPU while it computes
# {class of an error: what it says when memory ran out}. The last one is our own handle's.
OUT_OF_MEMORY = {"CUDARuntimeError": ("cudaErrorMemoryAllocation",),
                 "CUDADriverError": ("CUDA_ERROR_OUT_OF_MEMORY",),
                 "CUBLASError": ("CUBLAS_STATUS_ALLOC_FAILED",),
                 "RuntimeError": ("CUBLAS_STATUS_ALLOC_FAILED",)}
MARGIN = 0.8        # of the free memory: pools leave gaps between arrays, and forecasts can err


@dataclass(frozen=True)
class Row:
    """One layer's line, in bytes.

    `kept`: arrays that its forward pass makes and that exist until the backward pass. The layer's
    output is counted here, although the next layer keeps it.
    `forward`, `backward`: the largest number of bytes in use during the pass.
    """

    name: str
    kind: str
    kept: int
    forward: int
    backward: int


@dataclass(frozen=True)
class MemoryReport:
    """The memory that a batch needs, in bytes; `peak` is the largest number in use at once.

    Counted are the arrays of the network and those that its layers and kernels make in a step,
    temporaries of NumPy and CuPy inside an expression included. Not counted are the samples outside
    the batch, temporaries of the loss and of the update, and the copy of parameters and state that
    StopOnNaN keeps in a fit. On the CPU, the report of each network of xpnet.models and of each
    layer is within 10 % of the bytes that a step allocates.
    """

    batch_size: int
    backend: str
    parameters: int
    gradients: int
    optimizer: int
    state: int
    batch: int              # the inputs
    activations: int        # arrays that the forward pass leaves for the backward pass
    transient: int          # further arrays at the moment of the peak
    rows: tuple[Row, ...]

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.parameters + self.gradients + self.optimizer + self.state

    @property
    def peak(self) -> int:
        return self.fixed + self.batch + self.activations + self.transient

    def __str__(self) -> str:
        text = table(("layer", "type", "kept", "most in forward", "most in backward"),
                     [(row.name, row.kind, readable_bytes(row.kept), readable_bytes(row.forward),
                       readable_bytes(row.backward)) for row in self.rows], left=2)
        named = {"parameters": self.parameters, "gradients": self.gradients,
                 "optimizer": self.optimizer, "state": self.state,
                 "batch": self.batch, "activations": self.activations, "transient": self.transient}
        return "\n".join([
            *text, text[1],
            " + ".join(f"{name} {readable_bytes(size)}" for name, size in named.items() if size),
            f"peak of a batch of {self.batch_size:,} on {self.backend}: "
            f"{readable_bytes(self.peak)}"])


def memory_report(net: Graph, batch_size: int, optimizer: str | Optimizer | None = None, *,
                  mode: str = TRAIN) -> MemoryReport:
    """Predict the peak memory of a training step; in another mode, of a forward pass alone.

    Batches of zeros run through the network while every allocation is counted. A small batch is
    measured itself; a larger one is extrapolated linearly from two measured ones. Parameters,
    gradients, state, counters and random numbers do not change. The network must not be used by
    another thread meanwhile. On the CPU, Python's tracemalloc is on during the report, and its
    peak is reset: large arrays that another thread makes meanwhile are counted too.

    Args:
        batch_size: number of samples.
        optimizer: its slots are counted too.
        mode: "train", "predict" or "sample".
    """
    batch_size = expect_integer("memory_report", "batch_size", batch_size)
    optimizer = None if optimizer is None else get_optimizer(optimizer, "memory_report")
    return Forecast(net, optimizer, mode, most=int(batch_size)).report(int(batch_size))


class Forecast:
    """Memory reports for any batch size, from measurements with one or two batches."""

    def __init__(self, net: Graph, optimizer: Optimizer | None = None, mode: str = TRAIN, *,
                 most: int = 1 << 40, room: float = PROBE_BYTES) -> None:
        work = sum(layer.multiply_adds() for layer in net.layers) * (3 if mode == TRAIN else 1)
        size = sum(math.prod(node.shape) for node in net.nodes) * net.dtype.itemsize
        affordable = min(PROBE, PROBE_WORK / max(1, 3 * work), room / (2 * size))
        small = max(1 << int(math.log2(max(1, affordable))),
                    *(layer.smallest_batch for layer in net.layers))
        self.net, self.mode, self.slots = net, mode, optimizer.slots if optimizer is not None else 0
        exact = most <= 2 * small       # this batch itself is measured, and no other is reported
        self.samples = (most, most + 1) if exact else (small, 2 * small)
        traces = [_trace(net, N, mode) for N in self.samples[:1 if exact else 2]]
        self.traces = traces[0], traces[-1]

    def report(self, N: int) -> MemoryReport:
        net, nodes = self.net, len(self.net.nodes)
        (first, second), (a, b) = self.samples, self.traces
        # (passes, 3), see _trace: on the straight line through both measurements
        line = np.maximum(0, b + (b - a) * (N - second) / (second - first))
        bytes_at = line.round().astype(int).tolist()
        forward, (kept, *_), backward = bytes_at[:nodes], bytes_at[nodes], bytes_at[nodes + 1:]
        fixed = {"parameters": net.parameters.nbytes, "gradients": net.grads.nbytes,
                 "optimizer": self.slots * net.parameters.nbytes, "state": net.state.nbytes}
        below, batch = sum(fixed.values()), forward[0][0]
        rows = tuple(Row(node.name, type(node.layer).__name__, forward[i][2],
                         below + forward[i][1], below + backward[i][1] if backward else 0)
                     for i, node in enumerate(net.nodes))
        return MemoryReport(N, net.backend.name, **fixed, batch=batch, activations=kept - batch,
                            transient=max(most for _, most, _ in bytes_at) - kept, rows=rows)

    def largest_batch(self, memory: float) -> int:
        """The largest batch size that needs at most `memory` bytes beyond the fixed ones, or 0."""
        low, high = 0, 1
        while high < 1 << 40 and self._needs(high) <= memory:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._needs(middle) <= memory else (low, middle)
        return low

    def _needs(self, N: int) -> int:
        report = self.report(N)
        under_way = 0 if self.net.backend.xp is np else UNDER_WAY * report.batch
        return report.peak - report.fixed + under_way


def _trace(net: Graph, N: int, mode: str) -> np.ndarray:
    """Bytes of each pass (passes, 3): forward of each node, the loss, backward of each node.

    The columns are the bytes in use at the start of the pass, the most in use during it, and the
    bytes that it leaves for the backward pass.
    """
    passes, beyond = _traced(net, N, mode)
    # What is made once, for example a kernel, is not seen a second time.
    return np.minimum(passes, _traced(net, N, mode)[0]) if beyond else passes


def _traced(net: Graph, N: int, mode: str) -> tuple[np.ndarray, bool]:
    """The bytes of each pass, once, and whether these are more than those of the counted arrays."""
    nodes = len(net.nodes)
    passes = np.zeros((1 + (2 if mode == TRAIN else 1) * nodes, 3))
    rows = {node: row for row, node in enumerate(net.nodes)}
    with net.backend.scope():
        for layer in net.layers:
            layer.make_tables()         # else they would count for the first batch
    with counted(net.backend) as (backend, count):
        largest = max((p.size for layer in net.layers for p in layer.parameters), default=0)
        scratch = backend.empty((largest,), net.dtype)      # all gradients go here and are not read

        def watched(first: int) -> Hook:
            """A hook that fills the rows from number `first` on."""
            def hook(node: Node, compute: Callable[..., Any], arrays: tuple[Array, ...]) -> Any:
                row = first + rows[node]
                passes[row, 0] = count.bytes() - start
                with count.of(row):
                    result = compute(*arrays)
                    count.adopt((result, node.kept))
                passes[row, 1] = count.most - start
                return result
            return hook

        changes: list[tuple[Any, str, Any]] = []
        changes += [(node, "kept", None) for node in net.nodes]
        for layer in net.layers:
            changes += [(part, "backend", backend) for part in _family(layer)]
            changes += [(p, "grad", scratch[:p.size].reshape(p.shape)) for p in layer.parameters]
            changes += [(p, "data", p.data.copy()) for p in layer.states]
        count.adopt((net.parameters, net.counters, [value for _, _, value in changes]))
        start = count.bytes()
        with changed(changes), np.errstate(all="ignore"):
            xs = [_zeros(backend, (*node.shape, N), net.dtype) for node in net.in_nodes]
            for node in net.ins.nodes:          # samples of all steps
                if node.lengths is not None:
                    xs[net.in_nodes.index(node.lengths)].fill(node.shape[-1])
            ys = net.run(xs, net.outs.nodes, mode, hook=watched(0))
            passes[nodes] = count.bytes() - start
            passes[:nodes, 2] = [count.bytes(row) for row in range(nodes)]
            if mode == TRAIN:
                dys = [_zeros(backend, y.shape, y.dtype) for y in ys]
                gradients = [*zip(net.outs.nodes, dys, strict=True)]
                net.run_backward(gradients, hook=watched(nodes + 1))
    return passes, count.beyond


def _zeros(backend: Backend, shape: tuple[int, ...], dtype: Any) -> Array:
    a = backend.empty(shape, dtype)
    a.fill(0)
    return a


def _family(layer: Layer) -> Iterator[Layer]:
    """A layer, its children, and their children."""
    yield layer
    for child in layer.children:
        yield from _family(child)


# --- out of memory --------------------------------------------------------------------------------

class OutOfMemory(MemoryError):     # noqa: N818 - like the built-in MemoryError
    """A batch did not fit into memory.

    `batch_size` is the number of samples in the batch, `fits` the largest number that would fit: 0
    if not even one sample fits, None if unknown.
    """

    def __init__(self, message: str, batch_size: int, fits: int | None) -> None:
        super().__init__(message)
        self.batch_size, self.fits = batch_size, fits


class explained:                    # noqa: N801 - used like a function
    """Turn memory errors of NumPy and CuPy into OutOfMemory, which says what would fit.

    The frames of a traceback keep the arrays of the batch alive, so they are dropped. That is why
    this is a class: contextlib would restore the traceback.
    """

    def __init__(self, net: Graph, who: str, batch_size: int, optimizer: Optimizer | None = None, *,
                 mode: str = TRAIN) -> None:
        self.about = net, who, batch_size, optimizer, mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OutOfMemory):              # of an inner call
            error.__traceback__ = None
        elif isinstance(error, Exception) and _is_about_memory(error):
            raise _explanation(error, *self.about) from error


def _is_about_memory(error: Exception) -> bool:
    """CuPy raises MemoryError if an array does not fit. A graph, a kernel or a library that does
    not fit raises the errors of CUDA's runtime, of its driver, or of cuBLAS."""
    return isinstance(error, MemoryError) or any(mark in str(error) for mark in OUT_OF_MEMORY.get(
        type(error).__name__, ()))


def _explanation(error: Exception, net: Graph, who: str, batch_size: int,
                 optimizer: Optimizer | None, mode: str) -> OutOfMemory:
    cause: BaseException | None = error
    while cause is not None:
        link, cause.__traceback__ = cause.__traceback__, None
        while link is not None:         # the interpreter still holds the first one
            link.tb_next, link = None, link.tb_next
        cause = cause.__context__
    net.forget()
    received = f"Received: batch_size={batch_size}"
    try:
        free = _free_memory(net.backend)
        room = min(PROBE_BYTES, (PROBE_BYTES if free is None else free) / 2)
        forecast = _affordable(net, optimizer, mode, room)
        report = forecast.report(batch_size)
        fits = None if free is None else min(forecast.largest_batch(MARGIN * free), batch_size - 1)
    except Exception:       # too little memory to measure: report the first error only
        free = fits = None
    if free is None:
        return OutOfMemory(f"{who}: expected a batch that fits into the memory of "
                           f"{net.backend.name}. {received}.", batch_size, None)
    needed = (f"about {readable_bytes(report.peak - report.fixed)} beside the network's "
              f"{readable_bytes(report.fixed)}")
    advice = f"batch_size={fits} would fit" if fits else "Not even one sample fits"
    return OutOfMemory(f"{who}: expected a batch that fits into the {readable_bytes(free)} that "
                       f"are free on {net.backend.name}. {received}, which needs {needed}. "
                       f"{advice}.", batch_size, fits)


def _affordable(net: Graph, optimizer: Optimizer | None, mode: str, room: float) -> Forecast:
    """A forecast from batches whose outputs take at most `room` bytes, or less if memory runs
    out."""
    while True:
        try:
            return Forecast(net, optimizer, mode, room=room)
        except MemoryError:
            if room < 1:
                raise
            room = room / 8 if room > 1 << 12 else 0.0


def _free_memory(backend: Backend) -> int | None:
    """Bytes that are free for new arrays, after the backend's pool returned its unused blocks."""
    if backend.xp is not np:
        with backend.scope():
            backend.xp.get_default_memory_pool().free_all_blocks()
            return int(backend.xp.cuda.Device(backend.device).mem_info[0])       # type: ignore[attr-defined]
    if hasattr(backend, "memory"):
        backend.memory.drop_idle()
    return free_memory()
