"""A memory pool that counts the bytes in use, and a training step that uses it."""

from __future__ import annotations

from collections import deque
from typing import Any

import xpnet as xn
from xpnet.backends.cpu.memory import MemoryPool


class Watched(MemoryPool):
    """A pool that counts the bytes in use, now and at most."""

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
    """A returned block is counted when the pool takes it, under its lock, because several threads
    return blocks."""

    def __init__(self, pool: Watched) -> None:
        super().__init__()
        self.pool = pool

    def popleft(self) -> Any:
        block = super().popleft()
        self.pool.lent -= block.size
        return block


def trained_on(net: xn.Network, N: int, optimizer: xn.Optimizer, loss: xn.Loss,
               target: Any) -> xn.TrainStep:
    """Make training steps on N samples, so that kernels are compiled and memory blocks are cut.
    Returns the step."""
    step = xn.TrainStep(net, loss, optimizer, capture=False)
    x = net.backend.empty((*net.input.shape, N), net.dtype)
    x.fill(0)
    for _ in range(2):
        step(x, target)
    return step
