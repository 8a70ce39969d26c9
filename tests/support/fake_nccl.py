"""An NCCL without GPUs: the module cupy.cuda.nccl for ranks that are threads, each of which has a
pretended GPU of its own, see fake_cupy.py.

    with pretended_ranks(folder, 2) as (backends, module): ...

A call puts work into the queue of its stream. When that is run, it waits for the same call of the
other ranks. What NCCL forbids raises: calls that differ between ranks, by whether they were
captured, too; memory that is not that of an array; a stream of another GPU.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from fake_cupy import FakeCupy, installed
from fake_memory import Memory
from fake_streams import Gpus, Stream

from xpnet.backends.cupy.backend import CupyBackend
from xpnet.parallel import Communicator, NCCLCommunicator, in_threads

ID = 128                # bytes
TIMEOUT = 30.0          # seconds that a rank waits for the others
TYPES = {"NCCL_UINT8": (1, np.uint8), "NCCL_INT64": (4, np.int64),
         "NCCL_FLOAT32": (7, np.float32), "NCCL_FLOAT64": (8, np.float64)}
SUM = 0


class NcclError(RuntimeError):
    pass


class Call(NamedTuple):
    """What a rank asks for; `same` has to be equal on all ranks."""

    name: str
    same: tuple[Any, ...]
    source: np.ndarray
    sends: tuple[tuple[int, np.ndarray], ...] = ()      # (peer, bytes)


class World:
    """What the ranks of a unique id share."""

    def __init__(self, size: int) -> None:
        self.calls: list[Call | None] = [None] * size
        self.barrier = threading.Barrier(size, timeout=TIMEOUT)

    def wait(self) -> None:
        try:
            self.barrier.wait()
        except threading.BrokenBarrierError:
            raise NcclError("NCCL_ERROR_INTERNAL_ERROR: the exchange was aborted") from None

    def meet(self, rank: int, call: Call, result: Callable[[list[Call]], list[np.ndarray]],
             places: Sequence[np.ndarray]) -> None:
        """Write the result of the calls of all ranks to places."""
        self.calls[rank] = call
        self.wait()
        calls = [one for one in self.calls if one is not None]
        assert all(one[:2] == call[:2] for one in calls), f"ranks differ: {calls}"
        found = [a.copy() for a in result(calls)]
        self.wait()
        for place, a in zip(places, found, strict=True):
            place[...] = a


class FakeNccl:
    """The module. `gpus` are those of the ranks."""

    def __init__(self, gpus: Sequence[Gpus], version: int = 23007, available: bool = True) -> None:
        self.gpus, self.available, self._version = gpus, available, version
        self.worlds: dict[bytes, World] = {}
        self.group = threading.local()          # .calls: those of a group, by thread
        self.log: list[list[tuple[Any, ...]]] = [[] for _ in gpus]      # calls by rank
        self.NcclError, self.NCCL_SUM = NcclError, SUM
        vars(self).update({name: number for name, (number, _) in TYPES.items()})
        self.NcclCommunicator = type("NcclCommunicator", (NcclCommunicator,), {"module": self})

    def get_version(self) -> int:
        return self._version

    def get_unique_id(self) -> bytes:
        return (b"fake%d" % len(self.worlds)).ljust(ID, b"\xfe")

    def groupStart(self) -> None:       # noqa: N802 - NCCL's name
        assert getattr(self.group, "calls", None) is None, "a group in a group"
        self.group.calls = []

    def groupEnd(self) -> None:         # noqa: N802
        calls, self.group.calls = self.group.calls, None
        if calls:
            calls[0][0].launch_group(calls)


class NcclCommunicator:
    """A rank."""

    module: FakeNccl

    def __init__(self, ndev: int, commId: bytes, rank: int, config: Any = None) -> None:
        assert isinstance(commId, bytes) and len(commId) == ID
        self._rank, self._size, self._gpus = rank, ndev, self.module.gpus[rank]
        self._device = self._gpus.current
        self._world = self.module.worlds.setdefault(commId, World(ndev))
        self._world.wait()

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._peer("send", sendbuf, count, datatype, peer, stream)

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._peer("recv", recvbuf, count, datatype, peer, stream)

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        source, of_source = self._array(sendbuf, count, datatype)
        place, of_place = self._array(recvbuf, count * self._size, datatype)
        self._launch("allGather", (count, datatype), stream, source, [place],
                     lambda calls: [np.concatenate([call.source for call in calls])],
                     [of_source, of_place])

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int,
                  stream: int) -> None:
        assert op == SUM
        source, of_source = self._array(sendbuf, count, datatype)
        place, of_place = self._array(recvbuf, count, datatype)
        self._launch("allReduce", (count, datatype), stream, source, [place],
                     lambda calls: [sum(call.source for call in calls)],    # type: ignore[misc]
                     [of_source, of_place])

    def abort(self) -> None:
        self._world.barrier.abort()

    # --- inside -----------------------------------------------------------------------------------

    def _peer(self, kind: str, address: int, count: int, datatype: int, peer: int, stream: int
              ) -> None:
        assert self.module.group.calls is not None, "alone, it would wait for its peer"
        assert 0 <= peer < self._size
        self.module.group.calls.append((self, kind, peer, *self._array(address, count, datatype),
                                        stream))

    def launch_group(self, calls: Sequence[tuple[Any, ...]]) -> None:
        """One launch of all sends and receives of a group."""
        assert {(call[0], call[-1]) for call in calls} == {(self, calls[0][-1])}
        sends = tuple((peer, a) for _, kind, peer, a, *_ in calls if kind == "send")
        receives = [(peer, a) for _, kind, peer, a, *_ in calls if kind == "recv"]

        def received(calls: list[Call]) -> list[np.ndarray]:
            found = []
            for peer, place in receives:
                a, = (a for to, a in calls[peer].sends if to == self._rank)
                assert a.size == place.size, "a message of another size"
                found.append(a)
            return found

        self._launch("group", tuple((kind, peer) for _, kind, peer, *_ in calls), calls[0][-1],
                     np.empty(0), [a for _, a in receives], received,
                     [call[4] for call in calls], sends)

    def _launch(self, name: str, same: tuple[Any, ...], stream: int, source: np.ndarray,
                places: Sequence[np.ndarray], result: Callable[[list[Call]], list[np.ndarray]],
                memories: list[Memory], sends: tuple[tuple[int, np.ndarray], ...] = ()) -> None:
        there = self._stream(stream)
        captured = there.recording is not None
        call = Call(name, (*same, captured), source, sends)
        self.module.log[self._rank].append((name, same, stream, captured))
        there.do(lambda: self._world.meet(self._rank, call, result, places), memories)

    def _stream(self, number: int) -> Stream:
        stream, = (stream for stream in list(self._gpus.every) if stream.ptr == number)
        assert not number or stream.device_id == self._device, "a stream of another GPU"
        return stream

    def _array(self, address: int, count: int, datatype: int) -> tuple[np.ndarray, Memory]:
        """What lies at an address, and its memory."""
        assert isinstance(address, int) and isinstance(count, int)
        dtype = next(np.dtype(dtype) for number, dtype in TYPES.values() if number == datatype)
        size = count * dtype.itemsize
        for block in list(self._gpus.blocks.values()):
            for memory in list(block.memories):
                start = memory.bytes.ctypes.data
                if start <= address and address + size <= start + memory.size:
                    buffer = (ctypes.c_ubyte * size).from_address(address)
                    return np.frombuffer(buffer, dtype), memory
        raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: no array has this memory")


@contextmanager
def pretended_ranks(folder: Path, size: int, *, late: Callable[[Stream], bool] = lambda _: False,
                    version: int = 23007, available: bool = True, visible: int | None = None
                    ) -> Iterator[tuple[list[CupyBackend], FakeNccl]]:
    """A backend for each rank, all of one machine with `visible` GPUs, by default one for each
    rank; and the module. For ranks that are threads: the garbage collector would give back memory
    of one in the thread of another, so it does not run."""
    gpus = size if visible is None else visible
    cupys = [FakeCupy(folder, gpus, late=late) for _ in range(size)]
    backends = []
    for rank, cupy in enumerate(cupys):
        with installed(cupy):
            backends.append(CupyBackend(rank % gpus, tf32="never"))
    module = FakeNccl([cupy.gpus for cupy in cupys], version, available)
    gc.collect()
    gc.disable()
    before = sys.modules.get("cupy.cuda")
    sys.modules["cupy.cuda"] = SimpleNamespace(nccl=module)     # type: ignore[assignment]
    try:
        yield backends, module
    finally:
        gc.enable()
        del sys.modules["cupy.cuda"]
        if before is not None:
            sys.modules["cupy.cuda"] = before


def in_gpus(backends: list[Any], work: Callable[[NCCLCommunicator], Any]) -> list[Any]:
    """What work(communicator) returns for each rank."""
    def run(communicator: Communicator) -> Any:
        backend = backends[communicator.rank]
        with backend.scope():
            communicator = NCCLCommunicator(communicator, backend=backend)
            try:
                return work(communicator)
            except BaseException as error:
                communicator.abort(error)
                raise

    return in_threads(len(backends), run)
