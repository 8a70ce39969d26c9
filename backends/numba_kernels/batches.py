"""From batch-first samples to a batch-last batch: gathered, transposed and converted in one move."""

from __future__ import annotations

from numba import prange

from xpnet.backends.numba_kernels.jit import kernel

SAMPLES = 16        # samples whose next values stay in the cache while they are written side by side: a cache line
VALUES = 128        # values of each sample in a task


@kernel
def gather(samples, index, out):
    """out[d, n] = samples[index[n], d]; samples (S, D), index (N,), out (D, N)."""
    D, N = out.shape
    blocks = -(-D // VALUES)
    for item in prange(blocks * -(-N // SAMPLES)):
        first, start = item // blocks * SAMPLES, item % blocks * VALUES
        for d in range(start, min(D, start + VALUES)):
            line = out[d, first:first + SAMPLES]
            for n in range(line.size):
                line[n] = samples[index[first + n], d]
