"""Dropout that computes its random bits in the same pass: Philox 4x64, 10 rounds (Salmon et al.
2011).

`state` (4,) uint64 is (key, key, step, use). Block b, four words of 64 bits, belongs to the counter
(b + 1, 0, step, use).
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.jit import inline, kernel

BLOCKS = 128                # computed together, in vectors
BITS = 8 * BLOCKS           # 32-bit numbers in BLOCKS blocks
CHUNK = 8 * BITS            # elements of a task
HALF, LOW_HALF, ONE = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(1)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
HIGH_0, LOW_0, HIGH_1, LOW_1 = (MULTIPLIER_0 >> HALF, MULTIPLIER_0 & LOW_HALF, MULTIPLIER_1 >> HALF,
                                MULTIPLIER_1 & LOW_HALF)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)


@inline
def high_product(high, low, b):
    """The upper 64 bits of (2^32 high + low) b. (In this form LLVM does not recognise a 128-bit
    product, which has no vector instructions.)"""
    b_high, b_low = b >> HALF, b & LOW_HALF
    middle = high * b_low + ((low * b_low) >> HALF)
    return high * b_high + (middle >> HALF) + ((low * b_high + (middle & LOW_HALF)) >> HALF)


@inline
def philox(first, state, lanes, words):
    """The words of the blocks from `first` on; lanes (4, BLOCKS) is scratch, words (4 BLOCKS,)."""
    a, b, c, d = lanes[0], lanes[1], lanes[2], lanes[3]
    key_0, key_1 = state[0], state[1]
    for i in range(BLOCKS):
        a[i], b[i], c[i], d[i] = np.uint64(first + i) + ONE, np.uint64(0), state[2], state[3]
    for _ in range(10):
        for i in range(BLOCKS):
            p, q = a[i], c[i]
            a[i], b[i] = high_product(HIGH_1, LOW_1, q) ^ b[i] ^ key_0, MULTIPLIER_1 * q
            c[i], d[i] = high_product(HIGH_0, LOW_0, p) ^ d[i] ^ key_1, MULTIPLIER_0 * p
        key_0, key_1 = key_0 + WEYL_0, key_1 + WEYL_1
    for i in range(BLOCKS):
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = a[i], b[i], c[i], d[i]


@kernel
def dropout(x, state, threshold, scale, y, keep):
    """keep = bits >= threshold, y = x keep scale; x, y, keep (n,), threshold from 0 to 2^32."""
    n, limit, factor = x.size, np.uint64(threshold), np.float32(scale)
    for chunk in prange(-(-n // CHUNK)):
        lanes, words = np.empty((4, BLOCKS), np.uint64), np.empty(4 * BLOCKS, np.uint64)
        bits = words.view(np.uint32)
        for start in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK), BITS):
            philox(start // 8, state, lanes, words)
            values, out, kept = (x[start:start + BITS], y[start:start + BITS],
                                 keep[start:start + BITS])
            for i in range(out.size):
                kept[i] = bits[i] >= limit
                out[i] = values[i] * factor if bits[i] >= limit else np.float32(0)


@kernel
def dropout_dx(dy, keep, scale, dx):
    """dx = dy keep scale; dy, keep, dx (n,)."""
    factor = np.float32(scale)
    for chunk in prange(-(-dy.size // CHUNK)):
        start, stop = chunk * CHUNK, (chunk + 1) * CHUNK
        g, kept, out = dy[start:stop], keep[start:stop], dx[start:stop]
        for i in range(out.size):
            out[i] = g[i] * factor if kept[i] else np.float32(0)


@kernel
def random_words(state, words):
    """The first words (tasks, 4 BLOCKS) of a state."""
    for task in prange(words.shape[0]):
        philox(task * BLOCKS, state, np.empty((4, BLOCKS), np.uint64), words[task])
