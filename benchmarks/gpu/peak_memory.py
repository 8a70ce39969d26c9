"""The peak of a GPU's memory that some work needs with CuPy, in all memory pools."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from xpnet.backends import Backend


def peak_of(backend: Backend, work: Callable[[], object]) -> dict[str, int | None]:
    """{"memory": the most bytes that arrays took at once, "reserved": the most that was taken from
    the GPU at once}.

    CuPy's hooks report every array of this thread, also in the pool of a captured step. What was
    taken before is not counted. Both are None for other backends.
    """
    if not backend.name.startswith("cupy"):
        work()
        return {"memory": None, "reserved": None}
    cupy = backend.xp

    def free() -> int:
        return int(cupy.cuda.runtime.memGetInfo()[0])

    class Count(cupy.cuda.MemoryHook):                  # type: ignore[name-defined,misc]
        name = "benchmarks: the most that arrays take at once"

        def __init__(self) -> None:
            self.sizes: dict[int, int] = {}
            self.now = self.most = self.reserved = 0

        def malloc_postprocess(self, *, mem_size: int, pmem_id: int, **_: Any) -> None:
            if pmem_id:                                 # 0 if there was too little memory
                self.sizes[pmem_id] = mem_size
                self.now += mem_size
                self.most = max(self.most, self.now)

        def free_postprocess(self, *, pmem_id: int, **_: Any) -> None:
            self.now -= self.sizes.pop(pmem_id, 0)

        def alloc_postprocess(self, *, mem_size: int, mem_ptr: int, **_: Any) -> None:
            self.reserved = max(self.reserved, before - free())

    gc.collect()
    # Unused blocks of the pool would be taken instead of new memory of the GPU.
    cupy.get_default_memory_pool().free_all_blocks()
    before = free()
    with Count() as count:
        work()
        backend.synchronize()
    return {"memory": count.most, "reserved": count.reserved}
