"""How much memory a batch needs: predicted before there is too little of it, and said clearly where
there was."""

from __future__ import annotations

import copy
import math
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.memory import MemoryPool
from xpnet.checks import expect_integer
from xpnet.free_memory import free_memory
from xpnet.layer import TRAIN, Array, Layer
from xpnet.network import Network
from xpnet.optim import Optimizer, get_optimizer
from xpnet.summary import _bytes

# samples that are tried, and twice as many: small batches take other ways through the kernels than
PROBE = 256
# large ones. Fewer where this is more than so many multiply-adds, about a second on two cores,
PROBE_WORK = 1e11
PROBE_BYTES = 1 << 29   # or more than so many bytes of outputs
UNDER_WAY = 3           # batches that travel to a GPU while it computes
BEFORE = -1             # in the place of a pass: what was there before the first one
# of the memory that is free: pools leave gaps between their arrays, and a forecast is none for sure
MARGIN = 0.8


@dataclass(frozen=True)
class Row:
    """One layer's line, in bytes.

    `kept` is what its forward pass makes and the backward pass finds: an output counts here
    although it is the next layer that keeps it. `forward` and `backward` are the most that there is
    in the pass.
    """

    name: str
    kind: str
    kept: int
    forward: int
    backward: int


@dataclass(frozen=True)
class MemoryReport:
    """What a batch needs, in bytes. `peak` is all of it together, at the moment when there is most.

    Arrays of the network count, and those that its layers and kernels make in a step. Those that
    NumPy makes and drops within an expression, the samples that are not in the batch and the loss's
    own temporaries do not.
    """

    batch_size: int
    backend: str
    parameters: int
    gradients: int
    optimizer: int
    state: int
    batch: int              # the input
    activations: int        # what the forward pass leaves for the backward pass
    transient: int          # what comes on top of it at the worst moment
    rows: tuple[Row, ...]

    @property
    def fixed(self) -> int:
        """What does not depend on the batch."""
        return self.parameters + self.gradients + self.optimizer + self.state

    @property
    def peak(self) -> int:
        return self.fixed + self.batch + self.activations + self.transient

    def __str__(self) -> str:
        head = ("layer", "type", "kept", "most in forward", "most in backward")
        lines = ([(row.name, row.kind,
                   *(_bytes(size) for size in (row.kept, row.forward, row.backward)))
                  for row in self.rows])
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        text = ["  ".join(cell.ljust(width) if i < 2 else cell.rjust(width)
                          for i, (cell, width)
                          in enumerate(zip(line, widths, strict=True))).rstrip()
                for line in [head, *lines]]
        text.insert(1, "-" * len(text[0]))
        named = {"parameters": self.parameters, "gradients": self.gradients,
                 "optimizer": self.optimizer, "state": self.state,
                 "batch": self.batch, "activations": self.activations, "transient": self.transient}
        return "\n".join([
            *text, text[1],
            " + ".join(f"{name} {_bytes(size)}" for name, size in named.items() if size),
            f"peak of a batch of {self.batch_size:,} on {self.backend}: {_bytes(self.peak)}"])


def memory_report(net: Network, batch_size: int, optimizer: str | Optimizer | None = None, *,
                  mode: str = TRAIN
                  ) -> MemoryReport:
    """Predict the peak memory of a training step of `batch_size` samples; in another mode, of a
    forward pass alone.

    A batch of zeros goes through the network while every allocation is counted: this one where it
    is small, else two small ones, and what was counted goes on in a straight line. Parameters,
    gradients, state, counters and random numbers stay as they are; meanwhile nobody else may use
    the network.
    """
    batch_size = expect_integer("memory_report", "batch_size", batch_size)
    optimizer = None if optimizer is None else get_optimizer(optimizer, "memory_report")
    return Forecast(net, optimizer, mode, most=int(batch_size)).report(int(batch_size))


class Forecast:
    """Reports for any batch size, from what two batches needed."""

    def __init__(self, net: Network, optimizer: Optimizer | None = None, mode: str = TRAIN, *,
                 most: int = 1 << 40, room: float = PROBE_BYTES) -> None:
        work = sum(layer.multiply_adds() for layer in net.layers) * (3 if mode == TRAIN else 1)
        size = sum(math.prod(node.shape) for node in net.nodes) * net.dtype.itemsize
        affordable = min(PROBE, PROBE_WORK / max(1, 3 * work), room / (2 * size))
        small = max(1 << int(math.log2(max(1, affordable))),
                    *(layer.smallest_batch for layer in net.layers))
        self.net, self.mode, self.slots = net, mode, optimizer.slots if optimizer is not None else 0
        exact = most <= 2 * small       # it is tried itself, and only that is asked for
        self.samples = (most, most + 1) if exact else (small, 2 * small)
        traces = [_trace(net, N, mode) for N in self.samples[:1 if exact else 2]]
        self.traces = traces[0], traces[-1]

    def report(self, N: int) -> MemoryReport:
        net, layers = self.net, len(self.net.layers)
        (first, second), (a, b) = self.samples, self.traces
        # (passes, 3): bytes at the start of each pass, the most in it, and those it leaves; on a
        # straight line through both
        bytes_at = (np.maximum(0, b + (b - a) * (N - second) / (second - first)).round().astype(
            int).tolist())
        forward, (kept, *_), backward = bytes_at[:layers], bytes_at[layers], bytes_at[layers + 1:]
        fixed = {"parameters": net.parameters.nbytes, "gradients": net.grads.nbytes,
                 "optimizer": self.slots * net.parameters.nbytes, "state": net.state.nbytes}
        below, batch = sum(fixed.values()), forward[0][0]
        rows = tuple(Row(str(layer.name), type(layer).__name__, forward[i][2],
                         below + forward[i][1], below + backward[i][1] if backward else 0)
                     for i, layer in enumerate(net.layers))
        return MemoryReport(N, net.backend.name, **fixed, batch=batch, activations=kept - batch,
                            transient=max(most for _, most, _ in bytes_at) - kept, rows=rows)

    def largest_batch(self, memory: float) -> int:
        """The largest batch that needs at most so many bytes beside what does not depend on it; 0
        where none does."""
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


def _trace(net: Network, N: int, mode: str) -> np.ndarray:
    """Bytes of each pass (passes, 3): forward by layer, the loss, backward by layer.

    The columns are what there is at the start of the pass, the most there is in it, and what it
    leaves for the backward pass.
    """
    layers = len(net.layers)
    passes = np.zeros((1 + (2 if mode == TRAIN else 1) * layers, 3))
    with net.backend.scope():
        for layer in net.layers:
            layer.make_tables()         # or the first batch that is tried would count them
    with _counted(net.backend) as (backend, count):
        scratch = (backend.empty((max((p.size for layer in net.layers for p in layer.parameters),
                                      default=0),), net.dtype))
        start = most = 0

        def look() -> int:
            nonlocal most
            most = max(most, count.bytes() - start)
            return count.bytes() - start

        def allocate(shape: tuple[int, ...], dtype: Any, empty: Callable[..., Array] = backend.empty
                     ) -> Array:
            a = empty(shape, dtype)
            look()
            return a

        def watched(layer: Layer, function: Callable[..., Any], row: int) -> Callable[..., Any]:
            def run(*args: Any, **options: Any) -> Any:
                nonlocal most
                most = 0
                passes[row, 0] = look()
                with count.of(row):
                    result = function(*args, **options)
                    count.adopt((result, layer._cache))
                    look()
                passes[row, 1] = most
                return result
            return run

        changes: list[tuple[Any, str, Any]] = [(backend, "empty", allocate)]
        for i, layer in enumerate(net.layers):
            changes += [(layer, "backend", backend), (layer, "_cache", None),
                        (layer, "forward", watched(layer, layer.forward, i)),
                        (layer, "backward", watched(layer, layer.backward, i + 1 + layers))]
            # nobody reads them
            changes += [(p, "grad", scratch[:p.size].reshape(p.shape)) for p in layer.parameters]
            changes += [(p, "data", p.data.copy()) for p in layer.states]
        count.adopt((net.parameters, net.counters, [value for _, _, value in changes]))
        start = count.bytes()
        with _changed(changes), np.errstate(all="ignore"):
            x = backend.empty((*net.input.shape, N), net.dtype)
            x.fill(0)
            y = net.forward(x, mode)
            passes[layers] = look()
            passes[:layers, 2] = [count.bytes(row) for row in range(layers)]
            if mode == TRAIN:
                dy = backend.empty(y.shape, y.dtype)
                dy.fill(0)
                net.backward(dy)
    return passes


@contextmanager
def _counted(backend: Backend) -> Iterator[tuple[Backend, _Count]]:
    """A copy of the backend whose arrays lie apart from all others, and the count of their
    bytes."""
    twin: Any = copy.copy(backend)
    if backend.xp is not np:
        twin.autotune = False           # nothing is timed for a report
        pools = _DeviceCount(backend)
        with backend.scope(), pools.of(BEFORE):
            yield twin, pools
        return
    pool, count = MemoryPool(), _HostCount()
    if hasattr(backend, "threads"):
        twin.threads = _Together(backend.threads.size)

    def empty(shape: tuple[int, ...], dtype: Any) -> Array:
        a = pool.empty(shape, dtype)
        count.add(a)
        if getattr(twin, "threads", None) and twin.threads.held:
            twin.threads.held[-1].append(a)
        return a

    twin.empty = empty
    try:
        yield twin, count
    finally:
        # it holds the twin and the pool: as a cycle their memory would stay for a while
        del twin.empty


class _Count:
    """How many bytes arrays take up, together and by the pass that made them."""

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        """What is made in the block belongs to pass number `row`."""
        raise NotImplementedError

    def adopt(self, arrays: Any) -> None:
        """Count what a layer returns or keeps, in tuples, lists and dicts, if it was not counted
        when it was made."""

    def bytes(self, row: int | None = None) -> int:
        """Bytes of all arrays that there are, or of those that one pass made."""
        raise NotImplementedError


class _DeviceCount(_Count):
    """Everything on a GPU comes from a memory pool: each pass has one of its own."""

    def __init__(self, backend: Backend) -> None:
        self.cuda, self.pools = backend.xp.cuda, dict[int, Any]()

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        pool = self.pools.setdefault(row, self.cuda.MemoryPool())
        with self.cuda.using_allocator(pool.malloc):
            yield
        pool.free_all_blocks()          # what is free in one pool is of no use to another

    def bytes(self, row: int | None = None) -> int:
        pools = (self.pools.values() if row is None else [self.pools[row]] if row in self.pools
                 else [])
        return sum(pool.used_bytes() for pool in pools)


class _HostCount(_Count):
    """Arrays are counted when the backend makes them, and those that NumPy made when a layer
    returns or keeps them."""

    def __init__(self) -> None:
        self.row = BEFORE
        self._sizes: Counter[int] = Counter()
        self._known: set[int] = set()           # ids of the arrays that are counted and still there
        # Bytes that came and, negative, went, with their row. An append needs no lock, whatever
        # thread it is in.
        self._changes: deque[tuple[int, int]] = deque()

    def add(self, a: np.ndarray) -> None:
        self._known.add(id(a))
        self._changes.append((self.row, a.nbytes))
        # views keep the array alive that they are of
        weakref.finalize(a, self._gone, id(a), self.row, a.nbytes)

    def _gone(self, number: int, row: int, size: int) -> None:
        self._known.discard(number)
        self._changes.append((row, -size))

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        self.row = row
        yield
        self.row = BEFORE

    def adopt(self, arrays: Any) -> None:
        if isinstance(arrays, dict):
            arrays = list(arrays.values())
        if isinstance(arrays, tuple | list):
            for a in arrays:
                self.adopt(a)
        elif isinstance(arrays, np.ndarray):
            while isinstance(arrays.base, np.ndarray):
                arrays = arrays.base
            if id(arrays) not in self._known:
                self.add(arrays)

    def bytes(self, row: int | None = None) -> int:
        while self._changes:
            of, size = self._changes.popleft()
            self._sizes[of] += size
        return sum(self._sizes.values()) if row is None else self._sizes[row]


class _Together:
    """Runs tasks one after another, and holds their arrays as if `size` threads worked at once: the
    most there can be."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: deque[list[Array]] = deque()

    def run(self, task: Callable[[int], object], count: int) -> None:
        around, self.held = self.held, deque(maxlen=self.size)
        try:
            for index in range(count):
                self.held.append([])
                task(index)
        finally:
            self.held = around


@contextmanager
def _changed(changes: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes (of, name, value) that have other values while the block lasts."""
    missing = object()
    before = [(of, name, vars(of).get(name, missing)) for of, name, _ in changes]
    try:
        for of, name, value in changes:
            vars(of)[name] = value  # an assignment to a parameter's array would copy into it
        yield
    finally:
        for of, name, value in before:
            if value is missing:
                del vars(of)[name]
            else:
                vars(of)[name] = value


# --- out of memory --------------------------------------------------------------------------------

class OutOfMemory(MemoryError):     # noqa: N818 - a MemoryError that says more
    """A batch did not fit: `batch_size` samples were tried, `fits` would (0 for none, None where
    nobody can tell)."""

    def __init__(self, message: str, batch_size: int, fits: int | None) -> None:
        super().__init__(message)
        self.batch_size, self.fits = batch_size, fits


@contextmanager
def explained(net: Network, who: str, batch_size: int, optimizer: Optimizer | None = None, *,
              mode: str = TRAIN
              ) -> Iterator[None]:
    """Errors of NumPy and CuPy that there is too little memory become an OutOfMemory, which says
    what would fit."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory):
            # of what is inside, no frame may hold its arrays
            raise error.with_traceback(None) from error.__cause__
        if not _is_about_memory(error):
            raise
        raise _explanation(error, net, who, batch_size, optimizer, mode) from error


def _is_about_memory(error: Exception) -> bool:
    """CuPy raises a MemoryError where arrays do not fit, CUDA's own where a graph or a kernel does
    not."""
    return (isinstance(error, MemoryError)
            or (type(error).__name__ == "CUDARuntimeError" and "MemoryAllocation" in str(error)))


def _explanation(error: Exception, net: Network, who: str, batch_size: int,
                 optimizer: Optimizer | None, mode: str
                 ) -> OutOfMemory:
    cause: BaseException | None = error
    while cause is not None:  # the frames of its traceback hold the arrays of the batch that failed
        link = cause.__traceback__
        while link is not None:
            link.tb_next, link = None, link.tb_next
        cause = cause.__context__
    for layer in net.layers:
        layer._cache = None
    received = f"Received: batch_size={batch_size}"
    try:
        free = _free_memory(net.backend)
        forecast = (_affordable(net, optimizer, mode,
                                min(PROBE_BYTES, (PROBE_BYTES if free is None else free) / 2)))
        report = forecast.report(batch_size)
        fits = (min(forecast.largest_batch(MARGIN * free), batch_size - 1) if free is not None
                else None)
    except Exception:  # not even enough to look: the first error is the one to know
        free = fits = None
    if free is None:
        return OutOfMemory(f"{who}: expected a batch that fits into the memory of "
                           f"{net.backend.name}. {received}.",
                           batch_size, None)
    needed = (f"about {_bytes(report.peak - report.fixed)} beside the network's "
              f"{_bytes(report.fixed)}")
    advice = f"batch_size={fits} would fit" if fits else "Not even one sample fits"
    return OutOfMemory(f"{who}: expected a batch that fits into the {_bytes(free)} that are free "
                       f"on {net.backend.name}. "
                       f"{received}, which needs {needed}. {advice}.", batch_size, fits)


def _affordable(net: Network, optimizer: Optimizer | None, mode: str, room: float) -> Forecast:
    """A forecast made with so many bytes of outputs, or with fewer where they are too many."""
    while True:
        try:
            return Forecast(net, optimizer, mode, room=room)
        except MemoryError:
            if room < 1:
                raise
            room = room / 8 if room > 1 << 12 else 0.0


def _free_memory(backend: Backend) -> int | None:
    """Bytes that new arrays can have, when the backend's pool has given back what it keeps for
    them."""
    if backend.xp is not np:
        with backend.scope():
            backend.xp.get_default_memory_pool().free_all_blocks()
            return int(backend.xp.cuda.Device(backend.device).mem_info[0])       # type: ignore[attr-defined]
    if hasattr(backend, "memory"):
        backend.memory.drop_idle()
    return free_memory()
