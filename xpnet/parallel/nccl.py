"""Ranks with a GPU each: they exchange gradients by NCCL, through CuPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends import Backend, BackendError, get_backend
from xpnet.backends.cupy.nccl import Nccl, StreamSender, import_nccl
from xpnet.checks import expect_instance
from xpnet.parallel.communicator import Communicator
from xpnet.parallel.mpi import MPICommunicator

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend

Array = Any             # of NumPy or CuPy


class NCCLCommunicator(Communicator):
    """Ranks that have a GPU each. Arrays of the GPU are exchanged by NCCL, without the host; arrays
    of the host, for checks and predictions, by another communicator.

        communicator = xn.parallel.NCCLCommunicator()
        net = xn.models.resnet18(backend=communicator.backend)
        net.fit(data, parallel=communicator)

    Args:
        communicator: of the processes; all that mpiexec started by default.
        backend: the GPU of this rank, as get_backend returns it. By default the ranks of a machine
            take its GPUs in turn; if a process sees one GPU only, it takes this one.

    Raises:
        BackendError: CuPy, its NCCL or a GPU is missing, or two ranks have the same GPU. All ranks
            raise it.
    """

    backend: CupyBackend

    def __init__(self, communicator: Communicator | None = None, *,
                 backend: Backend | None = None) -> None:
        self.host: Communicator = MPICommunicator() if communicator is None else expect_instance(
            "NCCLCommunicator", "communicator", communicator, Communicator, "a Communicator")
        self.rank, self.size, self.threads = self.host.rank, self.host.size, self.host.threads
        self.local, self.machine = self.host.local, self.host.machine
        facts: dict[str, Any] = {"machine": self.machine}
        failed: BackendError | None = None
        try:
            self.backend = _gpu(self.local) if backend is None else _expect_gpu(backend)
            nccl = import_nccl()
            facts["gpu"] = self.backend.xp.cuda.Device(self.backend.device).pci_bus_id
            facts["id"] = [*nccl.get_unique_id()] if self.rank == 0 else []
        except RuntimeError as error:               # of the backend, of CUDA or of NCCL
            failed = error if isinstance(error, BackendError) else BackendError(
                f"NCCLCommunicator: NCCL cannot begin ({error})",
                "Look for the reason with NCCL_DEBUG=WARN in the environment")
            facts["error"] = str(failed)
        every = self.host.gather_objects(facts)     # all ranks raise an error, or none
        if failed is not None:
            raise failed
        _expect_usable(every)
        self._nccl = Nccl(self.backend, self.size, bytes(every[0]["id"]), self.rank)
        self.captures = self._nccl.captures

    def exchange(self, pieces: Array) -> Array:
        return (self.host if _on_host(pieces) else self._nccl).exchange(pieces)

    def gather(self, a: Array) -> Array:
        return (self.host if _on_host(a) else self._nccl).gather(a)

    def broadcast(self, a: np.ndarray, root: int = 0) -> None:
        self.host.broadcast(a, root)

    def plain_sum(self, a: Array) -> None:
        if _on_host(a):
            self.host.plain_sum(a)
        else:
            self._nccl.sum(a)

    def sender(self) -> StreamSender:
        return StreamSender(self.backend)

    def abort(self, error: BaseException) -> None:
        self.host.abort(error)          # which ends the process if there are several
        self._nccl.abort()


def _on_host(a: Array) -> bool:
    return isinstance(a, np.ndarray)


def _gpu(local: int) -> CupyBackend:
    """The GPU of a rank by its number on the machine. A launcher may show each process a GPU of its
    own, which has the number 0 there."""
    from xpnet.backends.cupy.backend import device_count
    return get_backend(f"cupy:{local % device_count()}")        # type: ignore[return-value]


def _expect_gpu(backend: Backend) -> CupyBackend:
    from xpnet.backends.cupy.backend import CupyBackend
    return expect_instance("NCCLCommunicator", "backend", backend,  # type: ignore[no-any-return]
                           CupyBackend, 'the backend of a GPU, as get_backend("cupy:0") returns it')


def _expect_usable(every: list[dict[str, Any]]) -> None:
    """Raise BackendError if a rank has failed, or if two ranks have the same GPU."""
    owners: dict[tuple[int, str], int] = {}
    for rank, facts in enumerate(every):
        if "error" in facts:
            raise BackendError(f"NCCLCommunicator: rank {rank} failed "
                               f"({facts['error'].partition('. ')[0]})", "All ranks end")
    for rank, facts in enumerate(every):
        gpu = facts["machine"], facts["gpu"]
        other = owners.setdefault(gpu, rank)
        if other != rank:
            ranks = [one["machine"] for one in every].count(facts["machine"])
            gpus = len({one["gpu"] for one in every if one["machine"] == facts["machine"]})
            raise BackendError(
                "NCCLCommunicator: expected a GPU of its own for each rank. Received: the GPU "
                f"{facts['gpu']} for ranks {other} and {rank}, of {ranks} ranks with {gpus} GPUs "
                "on their machine",
                "Start as many processes on each machine as it has GPUs, e.g. mpiexec -n "
                f"{gpus}, and pass no backend")
