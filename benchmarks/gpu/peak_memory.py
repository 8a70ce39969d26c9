"""How much of a GPU's memory work needs with CuPy, whichever pools it is taken from."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from xpnet.backends import Backend


def peak_of(backend: Backend, work: Callable[[], object]) -> dict[str, int | None]:
    """{"memory": the most that arrays took at once, "reserved": what pools took from the GPU for
    them} in bytes.

    CuPy's hooks tell of every array of this thread, those of a captured step's own pool too. What
    was there before counts for nothing. None where the arrays are not CuPy's.
    """
    if not backend.name.startswith("cupy"):
        work()
        return {"memory": None, "reserved": None}
    cupy = backend.xp

    class Count(cupy.cuda.MemoryHook):                  # type: ignore[name-defined,misc]
        name = "benchmarks: the most that arrays take at once"

        def __init__(self) -> None:
            self.sizes: dict[int, int] = {}
            self.now = self.most = self.reserved = 0

        def malloc_postprocess(self, *, mem_size: int, pmem_id: int, **_: Any) -> None:
            if pmem_id:                                 # 0 where there was not enough
                self.sizes[pmem_id] = mem_size
                self.now += mem_size
                self.most = max(self.most, self.now)

        def free_postprocess(self, *, pmem_id: int, **_: Any) -> None:
            self.now -= self.sizes.pop(pmem_id, 0)

        def alloc_postprocess(self, *, mem_size: int, mem_ptr: int, **_: Any) -> None:
            self.reserved += mem_size if mem_ptr else 0

    gc.collect()
    # else what lies in the pool would not be asked of the GPU
    cupy.get_default_memory_pool().free_all_blocks()
    with Count() as count:
        work()
        backend.synchronize()
    return {"memory": count.most, "reserved": count.reserved}
