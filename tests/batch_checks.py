"""Checks of the kernels that bring batches and numbers to a step: to the bit like base.py; and mistakes they must notice."""

from __future__ import annotations

import numpy as np
from kernel_setting import Mutant, Setting, base
from parity_cases import same_bits

from xpnet.backends import cuda_launch
from xpnet.backends.cupy_backend import CupyBackend
from xpnet.backends.cupy_batches import LABELS, SOURCES, TARGETS

SAMPLES = 7


def check_gather_batch(s: Setting) -> None:
    """Batches of up to three tiles of the pictures (C, H, W), in any order and as they stand."""
    samples = s.array((SAMPLES, *s.shape[:3]))
    index = np.random.default_rng(samples.size).integers(0, SAMPLES, 5 * s.shape[3])
    s.agree(s.backend.gather_batch(s.to_device(samples), s.to_device(index), s.dtype),
            base.gather_batch(samples, index, s.dtype))
    s.agree(s.backend.gather_batch(s.to_device(samples), None, s.dtype), base.gather_batch(samples, None, s.dtype))


GRIDS = {"gather_batch": check_gather_batch}


def every_instantiation(backend: CupyBackend) -> None:
    """Asks for each kernel of this family once; the types that the grid has not are compared here."""
    for source, target in [*((s, t) for s in SOURCES for t in TARGETS), (LABELS, LABELS)]:
        for D in (1, 3, cuda_launch.ACCESS // source.itemsize, 80):
            for N in (1, 5, 16):
                samples = np.random.default_rng([D, N]).integers(0, 255, (SAMPLES, D)).astype(source)
                index = np.random.default_rng([N, D]).integers(0, SAMPLES, N)
                batch = backend.gather_batch(backend.asarray(samples), index, target)
                assert same_bits(backend.to_numpy(batch), base.gather_batch(samples, index, target)), f"{source} {target} {D} {N}"
    out = backend.zeros((20,), np.float64)
    backend.assign(out, range(20))
    assert backend.to_numpy(out).tolist() == list(range(20))


MUTANTS: dict[str, Mutant] = {
    "a batch without its order": ("batches", "indexed ? index[n0 + n] : n0 + n", "n0 + n", "gather_batch"),
    "a batch of the samples' neighbours": ("batches", "sample * D + d0 + d)", "sample * D + d0 + d + 1)", "gather_batch"),
    "the first of each access for all": ("batches", "tile[d + k][n] = T(", "tile[d][n] = T(", "gather_batch"),
    "the next tile of samples is left out": ("batches", "n0 += gridDim.y * TILE", "n0 += 2 * gridDim.y * TILE", "small_grids"),
    "the next tile of elements is left out": ("batches", "d0 += (i64)gridDim.x * TILE", "d0 += 2 * (i64)gridDim.x * TILE",
                                              "small_grids"),
    "a batch's last sample is left out": ("batches", "d >= depth || n >= width", "d >= depth || n + 1 >= width",
                                          "gather_batch"),
    "a tile is read before it is there": ("batches", "__syncthreads();\n            for", "\n            for", "gather_batch"),
    "a tile is overwritten before it was read": ("batches", "__syncthreads();        // the next", "// the next", "small_grids"),
}
