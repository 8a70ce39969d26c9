"""The machine's float32 peak, measured with a loop of fused multiply-adds whose operands stay in
registers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

# Multiply-adds between a load and a store: enough to hide both, and few enough that chains overlap.
CHAIN = 6
LENGTH = 2048               # numbers of each thread: 8 kB, so that they stay in the L1 cache
MULTIPLY_ADDS = 2e8         # of each thread in one measurement: about 2 ms on a fast core
SAMPLES = 50


def peak_flops(threads: int) -> dict[str, Any]:
    """{"flops_per_second": the best of many short runs on all threads, or None, "reason": why it is
    None}.

    Every number of an array is replaced CHAIN times by m x + c. The numbers are independent, so the
    compiler fills whole vector registers, and the processor works on several of them at once.
    """
    try:
        import numba
    except ImportError as error:
        return {"flops_per_second": None, "reason": "the peak is measured with Numba, which "
                                                    f"cannot be imported ({error})"}

    # "contract" allows one instruction for m x + c, and nothing else.
    @numba.njit(parallel=True, fastmath={"contract"})
    def chains(x: np.ndarray, times: int) -> None:              # x (threads, LENGTH)
        m, c = np.float32(0.5), np.float32(0.5)
        for thread in numba.prange(x.shape[0]):
            mine = x[thread]
            for _ in range(times):
                for i in range(LENGTH):
                    y = mine[i]
                    for _ in range(CHAIN):
                        y = m * y + c
                    mine[i] = y

    x = np.ones((threads, LENGTH), np.float32)
    times = int(MULTIPLY_ADDS / (LENGTH * CHAIN))
    chains(x, times)                                            # compiles, and starts the threads
    seconds = []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        chains(x, times)
        seconds.append(time.perf_counter() - start)
    return {"flops_per_second": 2 * threads * times * LENGTH * CHAIN / min(seconds), "reason": None}
