"""The memory of a pretended GPU, and pinned memory of the host: see fake_cupy.py.

Addresses are used again, as in CuPy's pools: memory that an array gives back goes to the next array
on the same stream that fits, and holds garbage until something is written. A stale address is then
seen in the results, or raises where the driver has the memory back.
"""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fake_streams import Gpus, Stream

GARBAGE = 0xA5
UNIT = 512                          # bytes: the sizes and addresses of blocks are multiples


class CUDARuntimeError(RuntimeError):
    """An error of CUDA, with the name of its status in front."""


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} "
                         "bytes).")


class Block:
    """What the driver gave, until it is given back to it. A pool cuts it into chunks."""

    def __init__(self, gpus: Gpus, size: int, *, exact: bool) -> None:
        if gpus.reserved + size > gpus.memory and not gpus.without_gaps:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        self.gpus, self.size, self.freed = gpus, size, False
        self.memories: weakref.WeakSet[Memory] = weakref.WeakSet()
        self.root = np.empty(size + (0 if exact else UNIT), np.uint8)
        start = 0 if exact else -self.root.ctypes.data % UNIT
        self.bytes = self.root[start:start + size]
        gpus.reserved += size
        gpus.blocks[id(self.root)] = self
        for hook in gpus.hooks:
            hook.alloc_postprocess(device_id=gpus.current, mem_size=size,
                                   mem_ptr=self.bytes.ctypes.data)

    def free(self, garbage: int = GARBAGE) -> None:
        """Give it back to the driver, which waits for everything that was launched."""
        for stream in list(self.gpus.every):
            stream.run(stream.asked)
        self.freed = True
        self.gpus.reserved -= self.size
        self.bytes[...] = garbage


class Chunk:
    """Part of a block: bytes that one array has, or that are free."""

    def __init__(self, block: Block, start: int, size: int) -> None:
        self.block, self.start, self.size, self.free = block, start, size, False
        self.before: Chunk | None = None
        self.after: Chunk | None = None
        self.bytes = block.bytes[start:start + size]

    def cut(self, size: int) -> Chunk | None:
        """Keep `size` bytes; the rest, if there is one."""
        if size == self.size:
            return None
        rest = Chunk(self.block, self.start + size, self.size - size)
        rest.before, rest.after = self, self.after
        if self.after is not None:
            self.after.before = rest
        self.after, self.size, self.bytes = rest, size, self.bytes[:size]
        return rest

    def join_next(self) -> None:
        """Make this chunk and the next one, which is free, one chunk."""
        rest = self.after
        assert rest is not None
        self.size += rest.size
        self.bytes = self.block.bytes[self.start:self.start + self.size]
        self.after = rest.after
        if rest.after is not None:
            rest.after.before = self


class Memory:
    """A chunk for as long as an array lies in it."""

    def __init__(self, gpus: Gpus, size: int) -> None:
        self.gpus, self.size, self.stream = gpus, size, gpus.stream
        pool = gpus.pool
        if gpus.without_gaps and gpus.used + size > gpus.memory:
            raise OutOfMemoryError(size, gpus.used)
        self.chunk = pool.chunk_of(gpus, size, self.stream)
        self.block, self.bytes = self.chunk.block, self.chunk.bytes
        self.pool = pool.itself
        gpus.used += size
        gpus.allocations += 1
        self.number = gpus.allocations
        pool.memories.add(self)
        self.block.memories.add(self)
        for hook in gpus.hooks:
            hook.malloc_postprocess(device_id=gpus.current, size=size, mem_size=self.chunk.size,
                                    mem_ptr=self.bytes.ctypes.data, pmem_id=id(self))

    def __del__(self, garbage: int = GARBAGE) -> None:      # globals are gone when Python ends
        if not hasattr(self, "number"):             # there was no memory
            return
        self.gpus.used -= self.size
        for hook in self.gpus.hooks:
            hook.free_postprocess(device_id=self.gpus.current, mem_size=self.chunk.size,
                                  mem_ptr=self.bytes.ctypes.data, pmem_id=id(self))
        # What is launched on its stream from now on may write there.
        there = self.bytes
        self.stream.do(lambda: there.fill(garbage), launch=False)
        pool = self.pool()
        if pool is not None:
            pool.take_back(self.chunk, self.stream)
        elif not any(memory is not self for memory in self.block.memories):
            self.block.free()

    def array(self, like: np.ndarray) -> np.ndarray:
        """An array of this type, shape and order of axes in this memory."""
        strides = np.empty_like(like, subok=False).strides
        return np.ndarray(like.shape, like.dtype, self.bytes, 0, strides)


class MemoryPool:
    """Where arrays come from. Its memory is kept while the pool lives, also what no array needs at
    the moment."""

    OF_THE_FAKE = {"itself", "memories", "free", "total", "reuses", "chunk_of", "take_back"}
    reuses = True

    def __init__(self, allocator: Callable[[int], Any] | None = None) -> None:
        self._allocator = allocator
        # Kept here: Python clears a weak reference that is garbage before it calls __del__.
        self.itself = weakref.ref(self)
        self.memories: weakref.WeakSet[Memory] = weakref.WeakSet()
        # {(size, the stream that may have it): chunks}
        self.free: dict[tuple[int, int], list[Chunk]] = defaultdict(list)
        self.total = 0

    def chunk_of(self, gpus: Gpus, size: int, stream: Stream) -> Chunk:
        if not (self.reuses and gpus.reuses):
            return Chunk(self._block(gpus, size, exact=True), 0, size)
        size = max(-(-size // UNIT), 1) * UNIT
        large = [wide for (wide, there), chunks in self.free.items()
                 if chunks and wide >= size and there == stream.ptr]
        if not large:
            return Chunk(self._block(gpus, size, exact=False), 0, size)
        chunk = self.free[min(large), stream.ptr].pop()
        chunk.free = False
        rest = chunk.cut(size)
        if rest is not None:
            self._put(rest, stream)
        return chunk

    def _block(self, gpus: Gpus, size: int, *, exact: bool) -> Block:
        for remedy in (self.free_all_blocks, gc.collect, None):
            try:
                block = (Block(gpus, size, exact=exact) if self._allocator is None
                         else self._allocator(size).mem)
            except CUDARuntimeError:
                if remedy is None:
                    raise OutOfMemoryError(size, self.total) from None
                remedy()
                self.free_all_blocks()
            else:
                self.total += size
                return block
        raise AssertionError("the loop ends with a block or an error")

    def take_back(self, chunk: Chunk, stream: Stream) -> None:
        if not (self.reuses and chunk.block.gpus.reuses):
            self.total -= chunk.size
            chunk.block.free()
            return
        # Again: Python has cleared this weak reference if the block, too, was garbage.
        chunk.block.gpus.blocks[id(chunk.block.root)] = chunk.block
        after, before = chunk.after, chunk.before
        if after is not None and after.free:
            self.free[after.size, stream.ptr].remove(after)
            chunk.join_next()
        if before is not None and before.free:
            self.free[before.size, stream.ptr].remove(before)
            before.join_next()
            chunk = before
        self._put(chunk, stream)

    def _put(self, chunk: Chunk, stream: Stream) -> None:
        chunk.free = True
        self.free[chunk.size, stream.ptr].append(chunk)

    def malloc(self, size: int) -> Any:
        raise NotImplementedError("the fake only asks to which pool this method belongs")

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        for (_, there), chunks in self.free.items():
            for chunk in list(chunks):
                whole = chunk.before is None and chunk.after is None
                if whole and (stream is None or stream.ptr == there):
                    chunks.remove(chunk)
                    self.total -= chunk.size
                    chunk.block.free()

    def free_bytes(self) -> int:
        return sum(size * len(chunks) for (size, _), chunks in self.free.items())

    def used_bytes(self) -> int:
        return self.total - self.free_bytes()

    def total_bytes(self) -> int:
        return self.total

    def __del__(self) -> None:
        self.free_all_blocks()


class NoPool(MemoryPool):
    """Every array has memory of the driver: `cupy.cuda.set_allocator(None)`."""

    reuses = False


class PinnedMemoryPool:
    """Pinned memory that an array gave back holds garbage, and is what the next one gets, at once:
    a copy that still reads it is seen."""

    OF_THE_FAKE = {"blocks", "free", "find"}

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.free: dict[int, list[np.ndarray]] = defaultdict(list)

    def malloc(self, size: int) -> ctypes.Array[Any]:
        free = self.free[size]
        block = free.pop() if free else np.empty(size, np.uint8)
        if not any(block is other for other in self.blocks):
            self.blocks.append(block)
        # An object that numpy.frombuffer keeps for as long as its array lives.
        pinned = (ctypes.c_ubyte * size).from_address(block.ctypes.data)
        weakref.finalize(pinned, self._take_back, block).atexit = False
        return pinned

    def _take_back(self, block: np.ndarray) -> None:
        block[...] = GARBAGE
        self.free[block.size].append(block)

    def find(self, address: int, size: int) -> np.ndarray:
        for block in self.blocks:
            start = block.ctypes.data
            if start <= address and address + size <= start + block.size:
                return block[address - start:address - start + size]
        raise AssertionError("an asynchronous copy out of memory that is not pinned waits for it, "
                             "or reads what is there later")


def overwrite(a: np.ndarray) -> None:
    """Garbage, as memory has it that nobody wrote to."""
    if a.dtype == bool:
        a[...] = True
    else:
        a[...] = np.frombuffer(bytes([GARBAGE]) * a.itemsize, a.dtype)[0]


def memory_of(gpus: Gpus, a: np.ndarray) -> Memory | None:
    """Where a view of an array of the GPU lies; None for an array of the host."""
    root = a
    while isinstance(root.base, np.ndarray):
        root = root.base
    block = gpus.blocks.get(id(root))
    if block is None or block.root is not root:
        return None
    address = a.ctypes.data
    return next((memory for memory in block.memories
                 if 0 <= address - memory.bytes.ctypes.data < max(memory.bytes.size, 1)), None)
