"""Checks of the kernels that bring batches and numbers to a step: to the bit like base.py; and
mistakes they must notice."""

from __future__ import annotations

import numpy as np
from kernel_setting import Mutant, Setting, base
from parity import same_bits

from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.batches import LABELS, SOURCES, TARGETS

SAMPLES = 7


def check_gather_batch(s: Setting) -> None:
    """Batches of up to six tiles of the images (C, H, W), in any order and as they stand."""
    samples = s.array((SAMPLES, *s.shape[:3]))
    index = np.random.default_rng(samples.size).integers(0, SAMPLES, 10 * s.shape[3])
    s.agree(s.backend.gather_batch(s.to_device(samples), s.to_device(index), s.dtype),
            base.gather_batch(samples, index, s.dtype))
    s.agree(s.backend.gather_batch(s.to_device(samples), None, s.dtype),
            base.gather_batch(samples, None, s.dtype))
    first, N = s.shape[3], 5 * s.shape[3]                               # in the middle of the order
    out = s.to_device(s.array((*s.shape[:3], N)))
    there = s.backend.asarray(np.array([first]))
    s.backend._gather(s.to_device(samples), s.to_device(index), np.dtype(s.dtype), out, there)
    s.agree(out, base.gather_batch(samples, index[first:first + N], s.dtype))
    first, N = SAMPLES // 2, SAMPLES - SAMPLES // 2
    out = s.to_device(s.array((*s.shape[:3], N)))
    there = s.backend.asarray(np.array([first]))
    s.backend._gather(s.to_device(samples), None, np.dtype(s.dtype), out, there)
    s.agree(out, base.gather_batch(samples[first:], None, s.dtype))


def check_tally(s: Setting) -> None:
    """Hits among outputs with ties and NaNs, by labels and by shares."""
    compare_tally(s, s.shape[0] * s.shape[1] * s.shape[2], 5 * s.shape[3])


def check_tally_in_pieces(s: Setting) -> None:
    """More samples than the largest block has threads: each time several pieces are added."""
    compare_tally(s, 3, 4 * cuda_launch.THREADS + 5 * s.shape[3])


def compare_tally(s: Setting, K: int, N: int) -> None:
    """Sums that are not 0 before, with labels, with shares and without targets."""
    y, shares, loss = s.array((K, N)), s.array((K, N))[:, ::-1].copy(), s.array((1,)).reshape(())
    rng = np.random.default_rng(K)
    labels = np.where(rng.random(N) < 0.5, y.argmax(axis=0), rng.integers(0, K, N))
    for target in (labels, shares, None):
        sums = np.array([0.5, 3, 7])
        there = s.backend.asarray(sums)
        base.tally(sums, loss, y, target)
        s.backend.tally(there, s.to_device(loss), s.to_device(y),
                        None if target is None else s.to_device(target))
        s.agree(there, sums)


GRIDS = {"gather_batch": check_gather_batch, "tally": check_tally,
         "tally_in_pieces": check_tally_in_pieces}


def every_instantiation(backend: CupyBackend) -> None:
    """Asks for each kernel of this family once; the types that the grid has not are compared
    here."""
    for source, target in [*((s, t) for s in SOURCES for t in TARGETS), (LABELS, LABELS)]:
        for D in (1, 3, cuda_launch.ACCESS // source.itemsize, 80):
            for N in (1, 5, 16):
                samples = (np.random.default_rng([D, N]).integers(0, 255, (SAMPLES, D)).astype(
                    source))
                index = np.random.default_rng([N, D]).integers(0, SAMPLES, N)
                batch = backend.gather_batch(backend.asarray(samples), index, target)
                expected = base.gather_batch(samples, index, target)
                case = f"{source} {target} {D} {N}"
                assert same_bits(backend.to_numpy(batch), expected), case
    for dtype in TARGETS:
        for target in (np.array([1, 0]), np.array([[0, 1], [1, 0]], dtype)):
            for times in (1, 800):                          # in one piece and in several
                sums, y = (backend.zeros((3,), np.float64),
                           backend.asarray(np.tile(np.array([[1, 0], [2, 0]], dtype), times)))
                backend.tally(sums, backend.asarray(np.array(0.5, dtype)), y,
                              backend.asarray(np.tile(target, times)))
                assert backend.to_numpy(sums).tolist() == [times, 2 * times, 2 * times]
    steps, position = backend.zeros((1,), np.uint64), backend.zeros((1,), np.int64)
    backend.advance(steps, position, 7)
    backend.advance(steps)
    assert [int(backend.to_numpy(a)[0]) for a in (steps, position)] == [2, 7]
    out = backend.zeros((20,), np.float64)
    backend.assign(out, range(20))
    assert backend.to_numpy(out).tolist() == list(range(20))


MUTANTS: dict[str, Mutant] = {
    "a batch without its order": ("batches", "indexed ? index[start + n0 + n] : start",
                                  "indexed ? index[start] : start", "gather_batch"),
    "every batch in order is the first": ("batches", ": start + n0 + n;", ": n0 + n;",
                                          "gather_batch"),
    "every batch is the first": ("batches", "indexed ? index[start + n0 + n]",
                                 "indexed ? index[n0 + n]", "gather_batch"),
    "a batch of the samples' neighbours": ("batches", "sample * D + d0 + d)", "sample * D + d0 + d "
                                                                              "+ 1)",
                                           "gather_batch"),
    "the first of each access for all": ("batches", "tile[d + k][n] = T(", "tile[d][n] = T(",
                                         "gather_batch"),
    "the next tile of samples is left out": ("batches", "n0 += gridDim.x * TILE",
                                             "n0 += 2 * gridDim.x * TILE", "small_grids"),
    "the next tile of elements is left out": ("batches", "d0 += (i64)gridDim.y * TILE",
                                              "d0 += 2 * (i64)gridDim.y * TILE", "small_grids"),
    "a batch's last sample is left out": ("batches", "d >= depth || n >= width",
                                          "d >= depth || n + 1 >= width", "gather_batch"),
    "a tile is read before it is there": ("batches", "__syncthreads();\n            for",
                                          "\n            for", "gather_batch"),
    "the last of the largest counts": ("totals", "return v > best ||", "return v >= best ||",
                                       "tally"),
    "a NaN is not the largest": ("totals", "(v != v && best == best)", "false", "tally"),
    "of two threads the later one wins": ("totals", "index[other] < at", "index[other] > at",
                                          "tally"),
    "samples after the last one count": ("totals", "n < end && found == right", "found == right",
                                         "tally"),
    "hits of one thread only": ("totals", "all[thread] += all[thread + half]",
                                "all[thread] += 0 * all[thread + half]", "tally"),
    "hits are added before they are there": ("totals", "half /= 2) {\n        __syncthreads();",
                                             "half /= 2) {", "tally"),
    "every piece of the hits is the first one": ("totals", "(i64)piece * length",
                                                 "0 * (i64)piece * length", "tally_in_pieces"),
    "the hits of the first pieces are left out": (
        "totals", "int piece = threadIdx.x;", "int piece = threadIdx.x + 1;", "tally_in_pieces"),
    "winners are read before they are there": ("totals", "index[mine] = at;\n    "
                                                         "__syncthreads();", "index[mine] = "
                                                                             "at;", "tally"),
    "the next column comes too early": ("totals", "    __syncthreads();            // the "
                                                  "next", "// the next", "tally"),
    "a tile is overwritten before it was read": ("batches", "__syncthreads();        // the "
                                                            "next", "// the next", "small_grids"),
}
