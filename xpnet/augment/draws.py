"""Random numbers of samples: they follow from the seed, the epoch and the number of the sample.

So an image is changed in the same way whatever the batch, the number of workers, and whether the
training was resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any

# Philox 4x32: multipliers and increments of the keys (Salmon et al. 2011, section 4.3)
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
INCREMENTS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = 0xFFFFFFFF        # the low 32 bits


def philox(counter: Sequence[Array | int], key: tuple[int, int]) -> tuple[Array, ...]:
    """Four random words for each counter of four words, all of 32 bits in arrays of uint64.

        (c0, c1, c2, c3) -> (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0))

    ten times, with keys that grow by a constant. The arrays are broadcast; Python's numbers may
    stand for c1 and c3.

    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]        # of 64 bits
        c0, c1 = (second >> 32) ^ c1 ^ k0, second & LOW
        c2, c3 = (first >> 32) ^ c3 ^ k1, first & LOW
        k0, k1 = (k0 + INCREMENTS[0]) & LOW, (k1 + INCREMENTS[1]) & LOW
    return c0, c1, c2, c3


class Draws:
    """The random numbers of one augmentation for the samples of a batch.

    Args:
        seed: of the training.
        epoch: number of the epoch.
        samples: (N,), the numbers of the samples in the data set.
        number: of the augmentation, if there are several; each has numbers of its own.
    """

    def __init__(self, seed: int, epoch: int, samples: Any, number: int = 0) -> None:
        self.samples = np.asarray(samples, np.uint64)
        self._epoch, self._number = epoch & LOW, number
        self._key = seed & LOW, seed >> 32 & LOW

    def __len__(self) -> int:
        return len(self.samples)

    def uniform(self, count: int, xp: Any = np, *, start: int = 0) -> Array:
        """(count, N) float64 numbers, uniform in (0, 1), on the host or computed by `xp`: those
        from number `start` on of the numbers that each sample has."""
        blocks = -(-(start + count) // 4)
        samples = xp.asarray(self.samples)
        words = philox((samples & LOW, (samples >> 32) ^ self._epoch,
                        xp.arange(blocks, dtype=xp.uint64)[:, None], self._number), self._key)
        # Word w of block b is number 4 b + w.
        flat = xp.stack(words, axis=1).reshape(4 * blocks, len(self))[start:start + count]
        return (flat.astype(xp.float64) + 0.5) / 2.0**32

    def normal(self, count: int, xp: Any = np) -> Array:
        """(count, N) float64 numbers with mean 0 and variance 1.

            z = sqrt(-2 ln u) cos(2 pi v)

        Box and Muller 1958.
        """
        u, v = xp.split(self.uniform(2 * count, xp), 2)
        return xp.sqrt(-2 * xp.log(u)) * xp.cos(2 * np.pi * v)
