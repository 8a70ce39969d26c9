"""All steps of a recurrent layer in one call: the formulas are those of cells.py, for the blocks of
samples of blocks.py.

Each loop over elements has few arrays, no two of them the same, because the compiler vectorises a
loop only for arrays that do not overlap. The states, or the gradients with respect to them, are
(H, N): those before the first step that is computed, and afterwards those after the last one.
Without `keep`, the arrays for the backward pass are not written. dy is (H, P), or (H, 0) for 0.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.blocks import (
    BLOCK,
    DOT_ROWS,
    add_product,
    bring_back,
    fetch,
    part_of_step,
    tables,
    transposed_product,
)
from xpnet.backends.numba.kernels.curves import ONE, TWO, ZERO, logistic
from xpnet.backends.numba.kernels.exponential import exponential, polynomial
from xpnet.backends.numba.kernels.jit import inline, kernel

NEAR = np.float32(0.5)      # below, 1 - exp(-2x) would lose digits
# tanh(x) / x in x^2, the start of its Taylor series; the next term is below 1e-8 of it
tanh_series = polynomial([1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075,
                          -929569 / 638512875])
TANH, RELU, SIGMOID = range(3)
NUMBERS = {"tanh": TANH, "relu": RELU, "sigmoid": SIGMOID}      # f of a simple cell


@inline
def tangent(x):
    """tanh(x) = (1 - exp(-2|x|)) / (1 + exp(-2|x|)), with the sign of x."""
    t = exponential(-TWO * abs(x))
    far = (ONE - t) / (ONE + t)
    return x * tanh_series(x * x) if abs(x) < NEAR else -far if x < ZERO else far


@inline
def sigmoids(z):
    for j in range(z.size):
        z[j] = logistic(z[j])[0]


@inline
def tangents(z):
    for j in range(z.size):
        z[j] = tangent(z[j])


@inline
def short(rows):
    """An array for `rows` rows of a block."""
    return np.empty(rows * BLOCK, np.float32)


@kernel
def lstm(a, u, h, c, starts, reverse, y, h_before, c_before, gates, tanh_c, keep):
    (H, N), steps = h.shape, starts.size - 1
    for block in prange(-(-N // BLOCK)):
        all_z, all_h, all_c, all_t = short(4 * H + DOT_ROWS), short(H), short(H), short(H)
        scratch, first = tables(u), block * BLOCK
        for k in range(steps):
            column, width = part_of_step(steps - 1 - k if reverse else k, starts, first, N)
            if width <= 0:
                continue
            n = H * width
            i, f, g, o = all_z[:n], all_z[n:2 * n], all_z[2 * n:3 * n], all_z[3 * n:4 * n]
            new_h, new_c, t = all_h[:n], all_c[:n], all_t[:n]
            fetch(a, column, width, all_z)
            fetch(h, first, width, new_h)
            fetch(c, first, width, new_c)
            if keep:
                bring_back(new_h, h_before, column, width)
                bring_back(new_c, c_before, column, width)
            add_product(u, new_h, width, all_z, scratch)
            sigmoids(all_z[:2 * n])
            tangents(g)
            sigmoids(o)
            for j in range(n):
                new_c[j] = f[j] * new_c[j] + i[j] * g[j]
            for j in range(n):
                t[j] = new_c[j]
            tangents(t)
            for j in range(n):
                new_h[j] = o[j] * t[j]
            bring_back(new_h, h, first, width)
            bring_back(new_c, c, first, width)
            bring_back(new_h, y, column, width)
            if keep:
                bring_back(all_z, gates, column, width)
                bring_back(t, tanh_c, column, width)


@kernel
def lstm_backward(dy, u, dh, dc, starts, reverse, c_before, gates, tanh_c, da):
    (H, N), steps = dh.shape, starts.size - 1
    for block in prange(-(-N // BLOCK)):
        all_z, all_h, all_c, all_t = short(4 * H), short(H), short(H), short(H)
        all_g, all_d, table, first = short(H), short(H), np.empty(4 * H, np.int64), block * BLOCK
        for k in range(steps):
            column, width = part_of_step(k if reverse else steps - 1 - k, starts, first, N)
            if width <= 0:
                continue
            n = H * width
            di, df, dg, do = all_z[:n], all_z[n:2 * n], all_z[2 * n:3 * n], all_z[3 * n:4 * n]
            d_h, d_c, before, t, d_y = all_h[:n], all_d[:n], all_c[:n], all_t[:n], all_g[:n]
            fetch(gates, column, width, all_z)
            fetch(dh, first, width, d_h)
            fetch(dc, first, width, d_c)
            fetch(c_before, column, width, before)
            fetch(tanh_c, column, width, t)
            if dy.size:
                fetch(dy, column, width, d_y)
                for j in range(n):
                    d_h[j] = d_y[j] + d_h[j]
            for j in range(n):
                d_c[j] = d_c[j] + d_h[j] * do[j] * (ONE - t[j] * t[j])
            for j in range(n):
                do[j] = d_h[j] * t[j] * do[j] * (ONE - do[j])
            for j in range(n):
                i, g = di[j], dg[j]
                di[j] = d_c[j] * g * i * (ONE - i)
                dg[j] = d_c[j] * i * (ONE - g * g)
            for j in range(n):
                f = df[j]
                df[j] = d_c[j] * before[j] * f * (ONE - f)
                d_c[j] = d_c[j] * f
            bring_back(all_z, da, column, width)
            bring_back(d_c, dc, first, width)
            transposed_product(u, all_z, width, d_h, table)
            bring_back(d_h, dh, first, width)


@kernel
def gru(a, u, h, bias, starts, reverse, y, h_before, gates, kept_m, keep):
    (H, N), steps = h.shape, starts.size - 1
    for block in prange(-(-N // BLOCK)):
        all_a, all_s, all_h = short(3 * H), short(3 * H + DOT_ROWS), short(H)
        scratch, first = tables(u), block * BLOCK
        for k in range(steps):
            column, width = part_of_step(steps - 1 - k if reverse else k, starts, first, N)
            if width <= 0:
                continue
            n = H * width
            r_z, r, z, new = all_a[:2 * n], all_a[:n], all_a[n:2 * n], all_a[2 * n:3 * n]
            s, m, new_h = all_s[:2 * n], all_s[2 * n:3 * n], all_h[:n]
            fetch(a, column, width, all_a)
            fetch(h, first, width, new_h)
            if keep:
                bring_back(new_h, h_before, column, width)
            for j in range(2 * n):
                s[j] = ZERO
            for row in range(H):            # s_n + bias
                part = m[row * width:(row + 1) * width]
                for j in range(part.size):
                    part[j] = bias[row]
            add_product(u, new_h, width, all_s, scratch)
            for j in range(2 * n):
                r_z[j] = r_z[j] + s[j]
            sigmoids(r_z)
            for j in range(n):
                new[j] = new[j] + r[j] * m[j]
            tangents(new)
            for j in range(n):
                new_h[j] = new[j] + z[j] * (new_h[j] - new[j])
            bring_back(new_h, h, first, width)
            bring_back(new_h, y, column, width)
            if keep:
                bring_back(all_a, gates, column, width)
                bring_back(m, kept_m, column, width)


@kernel
def gru_backward(dy, u, dh, starts, reverse, h_before, gates, kept_m, da, ds):
    (H, N), steps = dh.shape, starts.size - 1
    for block in prange(-(-N // BLOCK)):
        all_z, all_m, all_h = short(3 * H), short(H), short(H)
        all_g, all_d, table, first = short(H), short(H), np.empty(3 * H, np.int64), block * BLOCK
        for k in range(steps):
            column, width = part_of_step(k if reverse else steps - 1 - k, starts, first, N)
            if width <= 0:
                continue
            n = H * width
            dr, dz, dn = all_z[:n], all_z[n:2 * n], all_z[2 * n:3 * n]
            d_h, through_z, before, m, d_y = all_d[:n], all_g[:n], all_h[:n], all_m[:n], all_g[:n]
            fetch(gates, column, width, all_z)
            fetch(dh, first, width, d_h)
            fetch(h_before, column, width, before)
            fetch(kept_m, column, width, m)
            if dy.size:
                fetch(dy, column, width, d_y)
                for j in range(n):
                    d_h[j] = d_y[j] + d_h[j]
            for j in range(n):
                z, new = dz[j], dn[j]
                dn[j] = d_h[j] * (ONE - z) * (ONE - new * new)
                dz[j] = d_h[j] * (before[j] - new) * z * (ONE - z)
                through_z[j] = d_h[j] * z
            for j in range(n):
                r = dr[j]
                dr[j] = dn[j] * m[j] * r * (ONE - r)
                m[j] = dn[j] * r
            bring_back(all_z, da, column, width)
            for j in range(n):
                dn[j] = m[j]
            bring_back(all_z, ds, column, width)
            transposed_product(u, all_z, width, d_h, table)
            for j in range(n):
                d_h[j] = through_z[j] + d_h[j]
            bring_back(d_h, dh, first, width)


@kernel
def simple(a, u, h, which, starts, reverse, y, h_before, kept_y, keep):
    (H, N), steps = h.shape, starts.size - 1
    for block in prange(-(-N // BLOCK)):
        all_z, all_h = short(H + DOT_ROWS), short(H)
        scratch, first = tables(u), block * BLOCK
        for k in range(steps):
            column, width = part_of_step(steps - 1 - k if reverse else k, starts, first, N)
            if width <= 0:
                continue
            z = all_z[:H * width]
            fetch(a, column, width, all_z)
            fetch(h, first, width, all_h)
            if keep:
                bring_back(all_h, h_before, column, width)
            add_product(u, all_h, width, all_z, scratch)
            if which == TANH:
                tangents(z)
            elif which == SIGMOID:
                sigmoids(z)
            else:
                for j in range(z.size):
                    z[j] = ZERO if z[j] <= ZERO else z[j]       # a NaN is not <= 0
            bring_back(z, h, first, width)
            bring_back(z, y, column, width)
            if keep:
                bring_back(z, kept_y, column, width)


@kernel
def simple_backward(dy, u, dh, which, starts, reverse, kept_y, da):
    (H, N), steps = dh.shape, starts.size - 1
    for block in prange(-(-N // BLOCK)):
        all_z, all_g, all_d = short(H), short(H), short(H)
        table, first = np.empty(H, np.int64), block * BLOCK
        for k in range(steps):
            column, width = part_of_step(k if reverse else steps - 1 - k, starts, first, N)
            if width <= 0:
                continue
            n = H * width
            z, d_y, d_h = all_z[:n], all_g[:n], all_d[:n]
            fetch(kept_y, column, width, z)
            fetch(dh, first, width, d_h)
            if dy.size:
                fetch(dy, column, width, d_y)
                for j in range(n):
                    d_h[j] = d_y[j] + d_h[j]
            if which == TANH:
                for j in range(n):
                    z[j] = d_h[j] * ((ONE + z[j]) * (ONE - z[j]))
            elif which == SIGMOID:
                for j in range(n):
                    z[j] = d_h[j] * (z[j] * (ONE - z[j]))
            else:
                for j in range(n):
                    z[j] = d_h[j] * (ONE if z[j] > ZERO else ZERO)
            bring_back(z, da, column, width)
            transposed_product(u, z, width, d_h, table)
            bring_back(d_h, dh, first, width)
