"""Every layer's forward pass as plain loops: slow, obvious, written to be read next to the formula.

Arrays are batch-last, as inside a network: feature maps (C, H, W, N), features (D, N). Everything
is computed in float64.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}       # ||a - b|| / ||b||


def assert_close(actual: np.ndarray, expected: Any, scale: float = 1.0) -> None:
    """Fails if `actual` differs from `expected` in shape, in the positions of NaNs and infinities,
    or in norm."""
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    distance = np.linalg.norm(actual[finite] - expected[finite])
    bound = scale * TOLERANCE[actual.dtype] * max(np.linalg.norm(expected[finite]), 1e-30)
    assert distance <= bound, f"{distance:.1e} away in norm, more than {bound:.1e}"


# --- windows --------------------------------------------------------------------------------------

def starts(size: int, before: int, after: int, kernel: int, stride: int, dilation: int,
           ceil: bool = False) -> list[int]:
    """Where the windows begin along one axis of `size` elements; below 0 is padding.

    With `ceil` one more window counts, which extends beyond the end, if it begins before the end of
    the input.
    """
    found, start = [], -before
    while start + dilation * (kernel - 1) < size + after:
        found.append(start)
        start += stride
    last = found[-1] + dilation * (kernel - 1)
    if ceil and last < size + after - 1 and start < size:
        found.append(start)
    return found


def taps(x: np.ndarray, row: int, column: int, kernel: tuple[int, int], dilation: tuple[int, int]):
    """The taps (i, j) of the window that begins at (row, column), each with its element; None on
    padding."""
    height, width = x.shape
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            r, c = row + i * dilation[0], column + j * dilation[1]
            yield i, j, (r, c) if 0 <= r < height and 0 <= c < width else None


def windows(x: np.ndarray, kernel: tuple[int, int], stride: tuple[int, int],
            padding: tuple[int, int, int, int],
            dilation: tuple[int, int] = (1, 1), ceil: bool = False) -> tuple[list[int], list[int]]:
    """The first row of each row of windows, and the first column of each column of windows, of x
    (C, H, W, N)."""
    top, bottom, left, right = padding
    return (starts(x.shape[1], top, bottom, kernel[0], stride[0], dilation[0], ceil),
            starts(x.shape[2], left, right, kernel[1], stride[1], dilation[1], ceil))


def conv2d(x: np.ndarray, W: np.ndarray, b: np.ndarray, stride=(1, 1), padding=(0, 0, 0, 0),
           dilation=(1, 1), groups: int = 1) -> np.ndarray:
    """x (C, H, W, N), W (F, C/groups, KH, KW), b (F,) -> (F, OH, OW, N). Filter f reads the
    channels of its group."""
    F, per_group, kernel = W.shape[0], W.shape[1], W.shape[2:]
    rows, columns = windows(x, kernel, stride, padding, dilation)
    y = np.zeros((F, len(rows), len(columns), x.shape[3]))
    for f, (oy, row), (ox, column), n in itertools.product(
            range(F), enumerate(rows), enumerate(columns), range(x.shape[3])):
        first_channel = f // (F // groups) * per_group
        total = float(b[f])
        for c in range(per_group):
            image = x[first_channel + c, :, :, n]
            for i, j, at in taps(image, row, column, kernel, dilation):
                if at is not None:
                    total += float(W[f, c, i, j]) * float(image[at])
        y[f, oy, ox, n] = total
    return y


def conv_transpose2d(x: np.ndarray, W: np.ndarray, b: np.ndarray, size: tuple[int, int],
                     stride=(1, 1), padding=(0, 0, 0, 0),
                     dilation=(1, 1), groups: int = 1) -> np.ndarray:
    """Each x (C, H, W, N) adds its filter, of W (C, F/groups, KH, KW), to y (F, OH, OW, N); OH x OW
    is `size`."""
    (C, H, width, N), (_, per_group, KH, KW) = x.shape, W.shape
    y = np.zeros((per_group * groups, *size, N)) + np.asarray(b, np.float64)[:, None, None, None]
    for c, iy, ix, n, k, i, j in itertools.product(
            *map(range, (C, H, width, N, per_group, KH, KW))):
        row = iy * stride[0] - padding[0] + i * dilation[0]
        column = ix * stride[1] - padding[2] + j * dilation[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            y[c // (C // groups) * per_group + k, row, column, n] += float(W[c, k, i, j]) * float(
                x[c, iy, ix, n])
    return y


def table_conv2d(x: np.ndarray, W: np.ndarray, b: np.ndarray, table: list[list[int]], stride=(1, 1),
                 padding=(0, 0, 0, 0)) -> np.ndarray:
    """A sum of convolutions of one channel each: W (connections, KH, KW) in the order of the rows
    of the table."""
    filters = iter(W)
    maps = []
    for f, channels in enumerate(table):
        parts = [conv2d(x[c:c + 1], next(filters)[None, None], np.zeros(1), stride, padding)
                 for c in channels]
        maps.append(sum(parts)[0] + float(b[f]))
    return np.stack(maps)


def max_pool2d(x: np.ndarray, kernel, stride, padding=(0, 0, 0, 0), dilation=(1, 1),
               ceil: bool = False
               ) -> tuple[np.ndarray, dict[tuple[int, ...], tuple[int, ...]]]:
    """The largest element of each window, and which input element (c, row, column, n) won each
    output element.

    The first of equal values wins. A NaN wins over every number, and the first NaN over the others.
    """
    rows, columns = windows(x, kernel, stride, padding, dilation, ceil)
    y = np.zeros((x.shape[0], len(rows), len(columns), x.shape[3]))
    winners = {}
    for c, (oy, row), (ox, column), n in itertools.product(
            range(x.shape[0]), enumerate(rows), enumerate(columns), range(x.shape[3])):
        image = x[c, :, :, n]
        best = None
        for _, _, at in taps(image, row, column, kernel, dilation):
            if at is None:
                continue
            if (best is None or image[at] > image[best]
                or (math.isnan(image[at]) and not math.isnan(image[best]))):
                best = at
        y[c, oy, ox, n] = image[best]
        winners[c, oy, ox, n] = (c, *best, n)
    return y, winners


def avg_pool2d(x: np.ndarray, kernel, stride, padding=(0, 0, 0, 0), count_include_pad: bool = True
               ) -> np.ndarray:
    """The mean of each window, over all its taps or over those inside the input."""
    rows, columns = windows(x, kernel, stride, padding)
    y = np.zeros((x.shape[0], len(rows), len(columns), x.shape[3]))
    for c, (oy, row), (ox, column), n in itertools.product(
            range(x.shape[0]), enumerate(rows), enumerate(columns), range(x.shape[3])):
        image = x[c, :, :, n]
        values = [float(image[at]) for _, _, at in taps(image, row, column, kernel, (1, 1))
                  if at is not None]
        y[c, oy, ox, n] = sum(values) / (kernel[0] * kernel[1] if count_include_pad
                                         else len(values))
    return y


def global_avg_pool2d(x: np.ndarray) -> np.ndarray:
    C, H, W, N = x.shape
    return np.array([[sum(float(x[c, h, w, n]) for h in range(H) for w in range(W)) / (H * W)
                      for n in range(N)]
                     for c in range(C)])


def subsampling2d(x: np.ndarray, a: np.ndarray, b: np.ndarray, kernel) -> np.ndarray:
    """a[c] times the window's sum, plus b[c]; the windows do not overlap."""
    y = avg_pool2d(x, kernel, stride=kernel) * (kernel[0] * kernel[1])
    return np.stack([float(a[c]) * y[c] + float(b[c]) for c in range(x.shape[0])])


# --- features and elements ------------------------------------------------------------------------

def linear(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    units, D = W.shape
    y = np.zeros((units, x.shape[1]))
    for u in range(units):
        for n in range(x.shape[1]):
            y[u, n] = float(b[u]) + sum(float(W[u, d]) * float(x[d, n]) for d in range(D))
    return y


def rbf(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The negative squared distance of every sample from every code."""
    return np.array([[-sum((float(x[d, n]) - float(code[d])) ** 2 for d in range(len(code)))
                      for n in range(x.shape[1])] for code in codes])


def activation(z: np.ndarray, name: str | None) -> np.ndarray:
    """One element at a time. A comparison with NaN is False, so relu returns the NaN itself."""
    functions = {
        None: lambda v: v,
        "relu": lambda v: 0.0 if v < 0 else v,
        "sigmoid": lambda v: 1 / (1 + math.exp(-v)) if v > -700 or math.isnan(v) else 0.0,
        "tanh": math.tanh,
        "scaled_tanh": lambda v: 1.7159 * math.tanh(2 / 3 * v),
    }
    return np.array([functions[name](float(v)) for v in z.flat]).reshape(z.shape)


def softmax(z: np.ndarray) -> np.ndarray:
    """Over the first axis, sample by sample."""
    columns = z.reshape(z.shape[0], -1)
    y = np.zeros(columns.shape)
    for n in range(columns.shape[1]):
        largest = max(float(v) for v in columns[:, n])
        e = [math.exp(float(v) - largest) for v in columns[:, n]]
        y[:, n] = [v / sum(e) for v in e]
    return y.reshape(z.shape)


def batch_norm(x: np.ndarray, gamma, beta, mean, var, eps: float) -> np.ndarray:
    """gamma (x - mean) / sqrt(var + eps) + beta, channel by channel, with the given statistics."""
    return np.stack([float(gamma[c]) * (x[c].astype(np.float64) - float(mean[c]))
                     / math.sqrt(float(var[c]) + eps) + float(beta[c]) for c in range(x.shape[0])])


def channel_statistics(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and variance (divisor n) of each channel over all other axes."""
    means, variances = [], []
    for channel in x:
        values = [float(v) for v in channel.flat]
        mean = math.fsum(values) / len(values)
        means.append(mean)
        variances.append(math.fsum((v - mean) ** 2 for v in values) / len(values))
    return means, variances


# --- dropout --------------------------------------------------------------------------------------

def philox(counter: int, key: tuple[int, int]) -> list[int]:
    """Four 64-bit words from a 256-bit counter: Philox 4x64 with 10 rounds (Salmon et al. 2011,
    section 4.3)."""
    low = 2**64 - 1
    c = [counter >> shift & low for shift in (0, 64, 128, 192)]
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [b >> 64 ^ c[1] ^ k0, b & low, a >> 64 ^ c[3] ^ k1, a & low]
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & low, k1 + 0xBB67AE8584CAA73B & low
    return c


def dropout_keep(shape: tuple[int, ...], p: float, seed: int, layer: int, step: int,
                 use: int) -> np.ndarray:
    """Which elements are kept: element i (C order) takes the 32-bit half i, low half first, of the
    words of the blocks counter + 1, counter + 2, ... with counter = (0, 0, step, use), and is kept
    if it is at least round(p 2^32)."""
    counter = (use << 192) + (step << 128)
    keep = []
    for i in range(math.prod(shape)):
        block, half = divmod(i, 8)
        word = philox(counter + 1 + block, (seed, layer))[half // 2]
        bits = word >> 32 if half % 2 else word & 0xFFFFFFFF
        keep.append(bits >= round(p * 2**32))
    return np.array(keep).reshape(shape)
