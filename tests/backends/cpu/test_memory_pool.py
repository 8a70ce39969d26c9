"""The memory pool of the CPU backends: freed memory is used again, and never too early."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from xpnet.backends.cpu import memory
from xpnet.backends.cpu.memory import MemoryPool

LARGE = (memory.SMALL // 4,)  # float32: the smallest array that is recycled


def test_memory_is_reused_when_the_last_view_is_deleted():
    pool = MemoryPool()
    a = pool.empty(LARGE, np.float32)
    address, view = a.ctypes.data, a[10:20].reshape(2, 5)
    view[...] = 7
    del a
    b = pool.empty(LARGE, np.float32)
    assert b.ctypes.data != address and pool.idle_bytes() == 0
    b.fill(3)
    assert (view == 7).all()
    del view
    assert pool.idle_bytes() >= b.nbytes
    assert pool.empty(LARGE, np.float32).ctypes.data == address


@pytest.mark.parametrize("keep", [
    lambda a: a.T, lambda a: a[::2], lambda a: memoryview(a), lambda a: a.view(np.uint8),
    lambda a: np.lib.stride_tricks.as_strided(a, (3,), (4,)),
    lambda a: np.ndarray((5,), np.float32, a), lambda a: iter(a),
    lambda a: np.broadcast_to(a, (2, *a.shape)), lambda a: a.base,
], ids=["transpose", "slice", "memoryview", "view", "as_strided", "buffer", "iterator", "broadcast",
        "base"])
def test_every_object_that_refers_to_the_memory_keeps_it(keep):
    pool = MemoryPool()
    kept = keep(pool.empty(LARGE, np.float32))
    assert pool.idle_bytes() == 0
    del kept
    assert pool.idle_bytes() > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex128, np.uint8,
                                   np.int32, np.uint64, bool])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 5), (100_003,), (17, 3, 41, 53),
                                   [400, 300], np.int64(200_000)])
def test_arrays_are_as_numpy_makes_them(shape, dtype):
    shape = (tuple(shape) if isinstance(shape, list) else (shape,) if isinstance(shape, np.integer)
             else shape)
    a, b = MemoryPool().empty(shape, dtype), np.empty(shape, dtype)
    assert (a.shape, a.dtype, a.strides, type(a)) == (b.shape, b.dtype, b.strides, np.ndarray)
    assert a.flags.c_contiguous and a.flags.writeable and a.flags.aligned
    if a.nbytes >= memory.SMALL:
        assert a.ctypes.data % 64 == 0
    a.fill(1)
    assert (a == 1).all()


def test_other_types_and_small_arrays_are_plain_arrays():
    pool = MemoryPool()
    assert pool.empty((100_000,), object)[99_999] is None
    assert pool.empty((50_000,), np.dtype([("a", "f4"), ("b", "i8")])).dtype.names == ("a", "b")
    pool.empty((10,), np.float32)                           # freed at once
    assert pool.idle_bytes() == 0


def test_the_block_returned_last_is_used_again_as_it_is():
    """It is more likely to be in the cache than its neighbour."""
    pool = MemoryPool()
    whole = pool.empty((3 * LARGE[0],), np.float32)
    del whole
    first, second, third = (pool.empty(LARGE, np.float32) for _ in range(3))
    address = second.ctypes.data
    del first, second
    again = pool.empty(LARGE, np.float32)
    assert again.ctypes.data == address != third.ctypes.data


def test_free_neighbours_are_merged_and_cut_again():
    pool, n = MemoryPool(), 1 << 20
    address = pool.empty((n,), np.float32).ctypes.data      # freed at once
    parts = [pool.empty((n // 4,), np.float32) for _ in range(4)]
    assert (sorted(part.ctypes.data for part in parts) == [address + k * n for k in range(4)]
            and pool.idle_bytes() == 0)
    for k in (2, 0, 1, 3):  # neighbours on either side, on both, on none
        parts[k] = None
    assert pool.empty((n,), np.float32).ctypes.data == address


def test_a_small_array_is_not_cut_from_a_large_block():
    pool, n = MemoryPool(), memory.MAX_RATIO * LARGE[0]
    address = pool.empty((n,), np.float32).ctypes.data
    small = pool.empty(LARGE, np.float32)
    assert pool.empty((n,), np.float32).ctypes.data == address != small.ctypes.data


def test_a_pool_holds_little_more_than_is_in_use(monkeypatch):
    """The pattern of a training step: arrays of falling sizes are made and kept, then freed from
    the last to the first, and two arrays of the same size are made for each that is freed."""
    held = [0, 0]                                           # bytes of all chunks, now and at most

    class Counted(memory._Chunk):
        def __init__(self, size):
            super().__init__(size)
            held[0] += size
            held[1] = max(held)

        def __del__(self):
            held[0] -= self.size

    monkeypatch.setattr(memory, "_Chunk", Counted)
    pool, sizes = MemoryPool(), [n for n in (4_000_000, 2_000_000, 1_000_000, 500_000)
                                 for _ in range(4)]
    live = 4 * (sum(sizes) + 2 * max(sizes))                # more than is ever in use
    for _ in range(5):
        kept = [pool.empty((n,), np.float32) for n in sizes]
        while kept:
            gradients = [pool.empty((len(kept[-1]),), np.float32) for _ in range(2)]
            kept.pop()
            del gradients
    assert live / 2 < held[1] < 1.1 * live
    steady = held[0]
    kept = [pool.empty((n,), np.float32) for n in sizes]
    assert held[0] == steady                                # no further chunk is made


def test_unused_blocks_are_given_back():
    pool = MemoryPool()
    pool.empty((1 << 20,), np.float32)                      # freed at once
    assert pool.idle_bytes() >= 1 << 22
    for _ in range(2 * memory.PATIENCE):
        pool.empty(LARGE, np.float32)
    assert 0 < pool.idle_bytes() < 1 << 20                  # the small one is in use all the time
    pool.drop_idle()
    assert pool.idle_bytes() == 0


def test_arrays_outlive_their_pool():
    a = MemoryPool().empty(LARGE, np.float32)
    gc.collect()
    a.fill(5)
    assert (a == 5).all()


def test_arrays_in_use_never_change():
    """Threads make arrays, take views of them, pass them to each other and drop them, in random
    order."""
    pool, shared, lock, errors = MemoryPool(), [], threading.Lock(), []

    def check(view, value):
        if not (view == value).all():
            errors.append(f"expected {value}, found {view.ravel()[:5]}")

    def worker(seed):
        rng, mine = np.random.default_rng(seed), []
        for step in range(1500):
            n = int(rng.choice([16_384, 16_500, 20_000, 70_000]))
            a, value = pool.empty((n // 4, 4), np.float32), np.float32(seed * 10_000 + step)
            a.fill(value)
            view = (a, a[5:-5], a.T[1], a[::3, 1:3], a.reshape(-1)[7:])[rng.integers(5)]
            mine.append((view, value))
            if rng.random() < 0.5:
                with lock:
                    shared.append(mine.pop())
                    if len(shared) > 20:
                        mine.append(shared.pop(int(rng.integers(len(shared)))))
            while len(mine) > 8:
                check(*mine.pop(int(rng.integers(len(mine)))))
        for view, value in mine:
            check(view, value)

    crew = [threading.Thread(target=worker, args=(seed,)) for seed in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    for view, value in shared:
        check(view, value)
    assert not errors
    del view
    shared.clear()
    assert pool.idle_bytes() < 50_000_000  # 6000 arrays of 700 MB together: memory was reused
