"""What the kernels of recurrent layers are made of: parts of a step, and products with them.

Samples do not depend on each other, so a task takes a block of them through all steps. Arrays of
all steps are (P, gates H): step t has the rows starts[t] .. starts[t + 1], the first ones of the
samples. A task copies its part of a step to short arrays, computes there, where everything stays in
the cache, and copies the results back. Only da and ds are (gates H, P), as products and sums of
rows need them.

In a short array each gate is a matrix (width, H) for a block of `width` samples: vectors run along
the units, so the work is proportional to the number of samples, and one sample is not slower than
its share. The sums of a product run in one order, whatever the block is. So a sample has the same
bits alone, in any batch, and whatever the lengths of the other samples are.
"""

from __future__ import annotations

import numpy as np

from xpnet.backends.numba.kernels.instructions import LANES
from xpnet.backends.numba.kernels.jit import inline
from xpnet.backends.numba.kernels.matrix import PANEL, TRANSPOSED, copy_panel, multiply_rows
from xpnet.backends.numba.kernels.micro import FROM_Y, FROM_ZERO
from xpnet.backends.numba.kernels.tiles import transpose_block, transpose_part


@inline
def part_of_step(t, starts, first, samples):
    """(row, width): where the block of `samples` from `first` on is in step t."""
    return starts[t] + first, min(samples, starts[t + 1] - starts[t] - first)


@inline
def transpose(rows, columns, source, source_row, target, target_row):
    """t[j, i] = s[i, j] for rows x columns floats; the arguments are those of transpose_block."""
    for i in range(0, rows, LANES):
        for j in range(0, columns, LANES):
            height, width = min(LANES, rows - i), min(LANES, columns - j)
            s, t = source + i * source_row + 4 * j, target + j * target_row + 4 * i
            if height == LANES and width == LANES:
                transpose_block(s, source_row, t, target_row)
            else:
                transpose_part(height, width, s, source_row, t, target_row)


@inline
def fetch(source, H, row, width, short):  # noqa: N803
    """The short array from source[row:row + width], source (P, gates H)."""
    for sample in range(width):
        for at in range(0, source.shape[1], H):
            start = at * width + sample * H
            part, of_gate = short[start:start + H], source[row + sample, at:at + H]
            for j in range(H):
                part[j] = of_gate[j]


@inline
def fetch_inputs(a, b, H, row, width, z):  # noqa: N803
    """The short array z from a[row:row + width] + b, a (P, gates H), b (gates H,)."""
    for sample in range(width):
        for at in range(0, b.size, H):
            start = at * width + sample * H
            part, of_gate, bias = z[start:start + H], a[row + sample, at:at + H], b[at:at + H]
            for j in range(H):
                part[j] = of_gate[j] + bias[j]


@inline
def bring_back(short, H, target, row, width):  # noqa: N803
    """target[row:row + width], target (P, gates H), from the short array."""
    for sample in range(width):
        for at in range(0, target.shape[1], H):
            start = at * width + sample * H
            part, of_gate = short[start:start + H], target[row + sample, at:at + H]
            for j in range(H):
                of_gate[j] = part[j]


@inline
def bring_back_columns(short, H, target, column, width):  # noqa: N803
    """target[:, column:column + width], target (gates H, P), from the short array."""
    R, P = target.shape
    if width == 1:
        for row in range(R):
            target[row, column] = short[row]
    else:
        for row in range(0, R, H):
            transpose(width, H, short.ctypes.data + 4 * row * width, 4 * H,
                      target.ctypes.data + 4 * (row * P + column), 4 * P)


@inline
def turn(u, turned):
    """The transpose of each H x H matrix of u (gates H, H), in panels (H, PANEL)."""
    G, H = u.shape
    panels, flat, nothing = (H + PANEL - 1) // PANEL, u.reshape(-1), np.empty(0, np.int64)
    for number in range(turned.shape[0]):
        at = number % panels * PANEL
        copy_panel(flat, TRANSPOSED, 0, nothing, 0, H, H, number // panels * H + at,
                   min(PANEL, H - at), turned[number])


@inline
def add_product(turned, offsets, h, width, z):
    """z += U h, for h (width, H) and z (width, H) of each gate; turn(u, turned)."""
    H = offsets.size
    panels = (H + PANEL - 1) // PANEL
    for number in range(turned.shape[0]):
        gate, at = number // panels, number % panels * PANEL
        vectors = (min(PANEL, H - at) + LANES - 1) // LANES
        multiply_rows(turned[number].ctypes.data, offsets.ctypes.data, H, 0, width,
                      h.ctypes.data, 4 * H, 4, z.ctypes.data + 4 * (gate * width * H + at), 4 * H,
                      h.ctypes.data, FROM_Y, 0, vectors,
                      min(PANEL, H - at) - (vectors - 1) * LANES)


@inline
def transposed_product(u, offsets, dz, width, dh):
    """dh = U^T dz, for u (gates H, H), dz (width, H) of each gate, dh (width, H)."""
    G, H = u.shape
    for at in range(0, H, PANEL):
        vectors = (min(PANEL, H - at) + LANES - 1) // LANES
        for row in range(0, G, H):
            multiply_rows(u.ctypes.data + 4 * (row * H + at), offsets.ctypes.data, H, 0, width,
                          dz.ctypes.data + 4 * row * width, 4 * H, 4, dh.ctypes.data + 4 * at,
                          4 * H, dh.ctypes.data, FROM_ZERO if row == 0 else FROM_Y, 0, vectors,
                          min(PANEL, H - at) - (vectors - 1) * LANES)
