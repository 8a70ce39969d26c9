"""A batch-last batch of batch-first samples: gathered, transposed and converted in one pass; and
columns of matrices."""

from __future__ import annotations

from numba import prange

from xpnet.backends.numba.kernels.jit import kernel

# values of each sample in a task: cache lines of the result are filled before they are evicted
VALUES = 128


@kernel
def gather(samples, index, out):
    """out[d, n] = samples[index[n], d], samples (S, D), index (N,), out (D, N). Returns False if an
    index is out of range."""
    D, N = out.shape
    for n in range(N):
        if not 0 <= index[n] < samples.shape[0]:
            return False
    groups = -(-N // 4)
    for item in prange(groups * -(-D // VALUES)):
        first, start, stop = (item % groups * 4, item // groups * VALUES,
                              min(D, (item // groups + 1) * VALUES))
        if first + 4 <= N:  # four at a time, so that a vector is written
            a, b = samples[index[first], start:stop], samples[index[first + 1], start:stop]
            c, d = samples[index[first + 2], start:stop], samples[index[first + 3], start:stop]
            for i in range(stop - start):
                line = out[start + i, first:first + 4]
                line[0], line[1], line[2], line[3] = a[i], b[i], c[i], d[i]
        else:
            for n in range(first, N):
                for i in range(start, stop):
                    out[i, n] = samples[index[n], i]
    return True


@kernel
def take(m, index, out):
    """out[:, j] = m[:, index[j]]."""
    for row in prange(out.shape[0]):
        source, target = m[row], out[row]
        for j in range(index.size):
            target[j] = source[index[j]]


@kernel
def put(m, index, out):
    """out[:, index[j]] = m[:, j], and 0 elsewhere."""
    for row in prange(out.shape[0]):
        source, target = m[row], out[row]
        for j in range(target.size):
            target[j] = 0
        for j in range(index.size):
            target[index[j]] = source[j]
