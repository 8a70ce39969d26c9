"""Data parallel training: many processes train one network, to the same bits whatever their number.

`fit(..., parallel=True)` does it, see `xpnet.parallel.ranks`. Processes exchange arrays by MPI, and
those of GPUs by NCCL.
"""

from xpnet.parallel.communicator import Aborted, Communicator
from xpnet.parallel.estimate import Estimate, estimate
from xpnet.parallel.mpi import MPICommunicator, end_all, launched
from xpnet.parallel.nccl import NCCLCommunicator
from xpnet.parallel.ranks import DataParallel
from xpnet.parallel.threads import in_threads

__all__ = ["Aborted", "Communicator", "DataParallel", "Estimate", "MPICommunicator",
           "NCCLCommunicator", "end_all", "estimate", "in_threads", "launched"]
