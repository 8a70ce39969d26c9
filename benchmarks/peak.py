"""The machine's float32 peak: what a loop of fused multiply-adds reaches whose operands stay in
registers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

# multiply-adds between a load and a store: long enough to hide both, short enough to overlap
CHAIN = 6
LENGTH = 2048               # numbers of each thread: 8 kB, so that they stay in the first cache
MULTIPLY_ADDS = 2e8         # of each thread in one measurement: some 2 ms on a fast core
SAMPLES = 50


def peak_flops(threads: int) -> dict[str, Any]:
    """{"flops_per_second": the best of many short runs on all threads, or None, "reason": why there
    is none}.

    Every number of an array goes through x = m x + c, CHAIN times. The numbers know nothing of each
    other, so the compiler works on as many at once as a register holds, and the processor on
    several registers at once.
    """
    try:
        import numba
    except ImportError as error:
        return {"flops_per_second": None, "reason": "the peak is measured with Numba, which "
                                                    f"cannot be imported ({error})"}

    # contract: m x + c may become one instruction, no more
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
    chains(x, times)                                            # compiles, and wakes the threads
    seconds = []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        chains(x, times)
        seconds.append(time.perf_counter() - start)
    return {"flops_per_second": 2 * threads * times * LENGTH * CHAIN / min(seconds), "reason": None}
