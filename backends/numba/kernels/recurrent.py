"""All steps of a recurrent layer in one call: the formulas are those of cells.py, for the blocks of
samples of blocks.py.

Each loop over elements has few arrays, no two of them the same, because the compiler vectorises a
loop only for arrays that do not overlap. The states, or the gradients with respect to them, are
(N, H): those before the first step that is computed, and afterwards those after the last one.
Without `keep`, the arrays for the backward pass are not written. dy is (P, H), or (0, H) for 0.
`scratch` has a row for each block of samples. The other arguments are those of blocks.py.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.blocks import (
    add_product,
    bring_back,
    bring_back_columns,
    fetch,
    fetch_inputs,
    part_of_step,
    transpose,
    transposed_product,
    turn,
)
from xpnet.backends.numba.kernels.curves import ONE, TWO, ZERO, logistic
from xpnet.backends.numba.kernels.exponential import exponential, polynomial
from xpnet.backends.numba.kernels.instructions import LANES
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


@kernel
def transposed(m, out):
    """out = m^T."""
    R, C = m.shape
    for band in prange(-(-R // LANES)):
        row = band * LANES
        transpose(min(LANES, R - row), C, m.ctypes.data + 4 * row * C, 4 * C,
                  out.ctypes.data + 4 * row, 4 * R)


@kernel
def lstm(a, b, u, turned, offsets, h, c, starts, firsts, size, scratch, reverse, y, h_before,
         c_before, gates, tanh_c, keep):
    (N, H), steps, most = h.shape, starts.size - 1, h.shape[1] * size
    turn(u, turned)
    for block in prange(firsts.size):
        short, first = scratch[block], firsts[block]
        all_h, all_c, all_t = short[4 * most:5 * most], short[5 * most:6 * most], short[6 * most:]
        samples = min(size, N - first)
        fetch(h, H, first, samples, all_h)
        fetch(c, H, first, samples, all_c)
        for k in range(steps):
            row, width = part_of_step(steps - 1 - k if reverse else k, starts, first, samples)
            if width <= 0:
                continue
            n = H * width
            z, new_h, new_c, t = short[:4 * n], all_h[:n], all_c[:n], all_t[:n]
            i, f, g, o = z[:n], z[n:2 * n], z[2 * n:3 * n], z[3 * n:]
            fetch_inputs(a, b, H, row, width, z)
            if keep:
                bring_back(new_h, H, h_before, row, width)
                bring_back(new_c, H, c_before, row, width)
            add_product(turned, offsets, new_h, width, z)
            sigmoids(z[:2 * n])
            tangents(g)
            sigmoids(o)
            for j in range(n):
                new_c[j] = f[j] * new_c[j] + i[j] * g[j]
            for j in range(n):
                t[j] = new_c[j]
            tangents(t)
            for j in range(n):
                new_h[j] = o[j] * t[j]
            bring_back(new_h, H, y, row, width)
            if keep:
                bring_back(z, H, gates, row, width)
                bring_back(t, H, tanh_c, row, width)
        bring_back(all_h, H, h, first, samples)
        bring_back(all_c, H, c, first, samples)


@kernel
def lstm_backward(dy, u, offsets, dh, dc, starts, firsts, size, scratch, reverse, c_before, gates,
                  tanh_c, da):
    (N, H), steps, most = dh.shape, starts.size - 1, dh.shape[1] * size
    for block in prange(firsts.size):
        short, first = scratch[block], firsts[block]
        all_h, all_c, rest = short[4 * most:5 * most], short[5 * most:6 * most], short[6 * most:]
        samples = min(size, N - first)
        fetch(dh, H, first, samples, all_h)
        fetch(dc, H, first, samples, all_c)
        for k in range(steps):
            row, width = part_of_step(k if reverse else steps - 1 - k, starts, first, samples)
            if width <= 0:
                continue
            n = H * width
            z, d_h, d_c, t, before = short[:4 * n], all_h[:n], all_c[:n], rest[:n], rest[n:2 * n]
            di, df, dg, do = z[:n], z[n:2 * n], z[2 * n:3 * n], z[3 * n:]
            if dy.size:
                fetch(dy, H, row, width, t)
                for j in range(n):
                    d_h[j] = t[j] + d_h[j]
            fetch(gates, H, row, width, z)
            fetch(tanh_c, H, row, width, t)
            fetch(c_before, H, row, width, before)
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
            bring_back_columns(z, H, da, row, width)
            transposed_product(u, offsets, z, width, d_h)
        bring_back(all_h, H, dh, first, samples)
        bring_back(all_c, H, dc, first, samples)


@kernel
def gru(a, b, u, turned, offsets, h, bias, starts, firsts, size, scratch, reverse, y, h_before,
        gates, kept_m, keep):
    (N, H), steps, most = h.shape, starts.size - 1, h.shape[1] * size
    turn(u, turned)
    for block in prange(firsts.size):
        short, first = scratch[block], firsts[block]
        all_s, all_h, samples = short[3 * most:6 * most], short[6 * most:], min(size, N - first)
        fetch(h, H, first, samples, all_h)
        for k in range(steps):
            row, width = part_of_step(steps - 1 - k if reverse else k, starts, first, samples)
            if width <= 0:
                continue
            n = H * width
            z, s, new_h = short[:3 * n], all_s[:3 * n], all_h[:n]
            r, update, new, m = z[:n], z[n:2 * n], z[2 * n:], s[2 * n:]
            r_z, s_r_z = z[:2 * n], s[:2 * n]
            fetch_inputs(a, b, H, row, width, z)
            if keep:
                bring_back(new_h, H, h_before, row, width)
            for j in range(2 * n):
                s_r_z[j] = ZERO
            for sample in range(width):         # s_n + bias
                part = m[sample * H:(sample + 1) * H]
                for j in range(H):
                    part[j] = bias[j]
            add_product(turned, offsets, new_h, width, s)
            for j in range(2 * n):
                r_z[j] = r_z[j] + s_r_z[j]
            sigmoids(r_z)
            for j in range(n):
                new[j] = new[j] + r[j] * m[j]
            tangents(new)
            for j in range(n):
                new_h[j] = new[j] + update[j] * (new_h[j] - new[j])
            bring_back(new_h, H, y, row, width)
            if keep:
                bring_back(z, H, gates, row, width)
                bring_back(m, H, kept_m, row, width)
        bring_back(all_h, H, h, first, samples)


@kernel
def gru_backward(dy, u, offsets, dh, starts, firsts, size, scratch, reverse, h_before, gates,
                 kept_m, da, ds):
    (N, H), steps, most = dh.shape, starts.size - 1, dh.shape[1] * size
    for block in prange(firsts.size):
        short, first = scratch[block], firsts[block]
        all_h, rest, samples = short[3 * most:4 * most], short[4 * most:], min(size, N - first)
        fetch(dh, H, first, samples, all_h)
        for k in range(steps):
            row, width = part_of_step(k if reverse else steps - 1 - k, starts, first, samples)
            if width <= 0:
                continue
            n = H * width
            z, d_h, m, before = short[:3 * n], all_h[:n], rest[:n], rest[n:2 * n]
            through_z, dr, dz, dn = rest[2 * n:3 * n], z[:n], z[n:2 * n], z[2 * n:]
            if dy.size:
                fetch(dy, H, row, width, m)
                for j in range(n):
                    d_h[j] = m[j] + d_h[j]
            fetch(gates, H, row, width, z)
            fetch(h_before, H, row, width, before)
            fetch(kept_m, H, row, width, m)
            for j in range(n):
                update, new = dz[j], dn[j]
                dn[j] = d_h[j] * (ONE - update) * (ONE - new * new)
                dz[j] = d_h[j] * (before[j] - new) * update * (ONE - update)
                through_z[j] = d_h[j] * update
            for j in range(n):
                r = dr[j]
                dr[j] = dn[j] * m[j] * r * (ONE - r)
                m[j] = dn[j] * r
            bring_back_columns(z, H, da, row, width)
            for j in range(n):
                dn[j] = m[j]
            bring_back_columns(z, H, ds, row, width)
            transposed_product(u, offsets, z, width, d_h)
            for j in range(n):
                d_h[j] = through_z[j] + d_h[j]
        bring_back(all_h, H, dh, first, samples)


@kernel
def simple(a, b, u, turned, offsets, h, which, starts, firsts, size, scratch, reverse, y, h_before,
           kept_y, keep):
    (N, H), steps, most = h.shape, starts.size - 1, h.shape[1] * size
    turn(u, turned)
    for block in prange(firsts.size):
        short, first = scratch[block], firsts[block]
        all_h, samples = short[most:], min(size, N - first)
        fetch(h, H, first, samples, all_h)
        for k in range(steps):
            row, width = part_of_step(steps - 1 - k if reverse else k, starts, first, samples)
            if width <= 0:
                continue
            n = H * width
            z, new_h = short[:n], all_h[:n]
            fetch_inputs(a, b, H, row, width, z)
            if keep:
                bring_back(new_h, H, h_before, row, width)
            add_product(turned, offsets, new_h, width, z)
            if which == TANH:
                tangents(z)
            elif which == SIGMOID:
                sigmoids(z)
            else:
                for j in range(n):
                    z[j] = ZERO if z[j] <= ZERO else z[j]       # a NaN is not <= 0
            for j in range(n):
                new_h[j] = z[j]
            bring_back(z, H, y, row, width)
            if keep:
                bring_back(z, H, kept_y, row, width)
        bring_back(all_h, H, h, first, samples)


@kernel
def simple_backward(dy, u, offsets, dh, which, starts, firsts, size, scratch, reverse, kept_y, da):
    (N, H), steps, most = dh.shape, starts.size - 1, dh.shape[1] * size
    for block in prange(firsts.size):
        short, first = scratch[block], firsts[block]
        all_h, samples = short[most:], min(size, N - first)
        fetch(dh, H, first, samples, all_h)
        for k in range(steps):
            row, width = part_of_step(k if reverse else steps - 1 - k, starts, first, samples)
            if width <= 0:
                continue
            n = H * width
            z, d_h = short[:n], all_h[:n]
            if dy.size:
                fetch(dy, H, row, width, z)
                for j in range(n):
                    d_h[j] = z[j] + d_h[j]
            fetch(kept_y, H, row, width, z)
            if which == TANH:
                for j in range(n):
                    z[j] = d_h[j] * ((ONE + z[j]) * (ONE - z[j]))
            elif which == SIGMOID:
                for j in range(n):
                    z[j] = d_h[j] * (z[j] * (ONE - z[j]))
            else:
                for j in range(n):
                    z[j] = d_h[j] * (ONE if z[j] > ZERO else ZERO)
            bring_back_columns(z, H, da, row, width)
            transposed_product(u, offsets, z, width, d_h)
        bring_back(all_h, H, dh, first, samples)
