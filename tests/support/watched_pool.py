"""A memory pool that counts what it has lent, and a training step that uses it."""

from __future__ import annotations

from collections import deque
from typing import Any

import xpnet as xn
from xpnet.backends.cpu.memory import MemoryPool


class Watched(MemoryPool):
    """A pool that knows how much it has lent, and how much it ever had."""

    def __init__(self) -> None:
        super().__init__()
        self.lent = self.most = 0
        self._returned = Returned(self)

    def _take(self, size: int) -> Any:
        block = super()._take(size)
        self.lent += size
        self.most = max(self.most, self.lent)
        return block


class Returned(deque):
    """What came back counts when the pool takes it, under its lock: blocks come from several
    threads."""

    def __init__(self, pool: Watched) -> None:
        super().__init__()
        self.pool = pool

    def popleft(self) -> Any:
        block = super().popleft()
        self.pool.lent -= block.size
        return block


def trained_on(net: xn.Network, N: int, optimizer: xn.Optimizer, loss: xn.Loss,
               target: Any) -> xn.TrainStep:
    """A step that was made on N samples, after others: kernels are compiled, and blocks of memory
    cut."""
    step = xn.TrainStep(net, loss, optimizer, capture=False)
    x = net.backend.empty((*net.input.shape, N), net.dtype)
    x.fill(0)
    for _ in range(2):
        step(x, target)
    return step
