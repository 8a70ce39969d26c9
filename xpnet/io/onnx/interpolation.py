"""The layer that interpolates as ONNX's Resize does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.io.onnx.fold import Room
from xpnet.io.onnx.library import UnsupportedError
from xpnet.layers.gathered import Sparse

CLOSE = 1e-5            # of weights
READS = {"nearest": 1, "linear": 2, "cubic": 4}     # elements that an output reads
BYTES = 160             # of memory for each element, while matrices are made and compared
ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda a: np.ceil(a - 0.5),
    "round_prefer_ceil": lambda a: np.floor(a + 0.5), "floor": np.floor, "ceil": np.ceil}


def upsample_like(sizes: Sequence[int], outs: Sequence[int], scales: Sequence[float],
                  how: Mapping[str, Any], room: Room) -> L.Upsample2d:
    """The Upsample2d whose matrices are those of a Resize.

    Args:
        sizes: rows and columns of the input.
        outs: those of the output.
        scales: the factors that the file gives, or outs / sizes.
        how: the attributes of Resize.
        room: for the matrices.

    Raises:
        UnsupportedError: there is none, or too little room. Resize has many ways to count
            positions.
    """
    mode = str(how.get("mode", "nearest"))
    if how.get("antialias", 0):
        raise UnsupportedError("it averages (antialias)")
    if mode not in READS or min(outs) < 1:
        raise UnsupportedError(f"it makes {outs[0]} x {outs[1]} pixels with mode {mode}")
    room.take(BYTES * READS[mode] * sum(outs))
    wanted = [_matrix(n, out, s, how) for n, out, s in zip(sizes, outs, scales, strict=True)]
    for layer in _candidates(outs, scales, mode):
        try:
            if layer.sizes(*sizes) != tuple(outs):
                continue
        except ValueError:
            continue
        if all(map(_equal, layer.matrices(*sizes), wanted)):
            return layer
    raise UnsupportedError("no Upsample2d computes the positions of "
                           f"{how.get('coordinate_transformation_mode', 'half_pixel')} with mode "
                           f"{mode}")


def _equal(a: Sparse, b: Sparse) -> bool:
    places = np.concatenate([matrix.row * matrix.shape[1] + matrix.column for matrix in (a, b)])
    _, place = np.unique(places, return_inverse=True)
    differences = np.bincount(place, np.concatenate([a.weight, -b.weight]))
    return bool(abs(differences).max() < CLOSE)


def _candidates(outs: Sequence[int], scales: Sequence[float], mode: str) -> Iterator[L.Upsample2d]:
    modes = {"nearest": ("nearest", "nearest-exact"), "linear": ("bilinear",),
             "cubic": ("bicubic",)}
    factor: Any = tuple(scales) if len({*scales}) > 1 else scales[0]
    for name in modes[mode]:
        for corners in (False, True) if mode != "nearest" else (False,):
            yield L.Upsample2d(factor, name, corners)
            yield L.Upsample2d(None, name, corners, size=(outs[0], outs[1]))


def _matrix(size: int, out: int, scale: float, how: Mapping[str, Any]) -> Sparse:
    """Weights (out, size) of the elements in each output of ONNX's Resize, along one axis."""
    if size == out and scale == 1:
        return Sparse.taking(size, np.arange(size)[:, None])
    at = _positions(size, out, scale, str(how.get("coordinate_transformation_mode", "half_pixel")))
    if how.get("mode", "nearest") == "nearest":
        rounded = _rounded(at, str(how.get("nearest_mode", "round_prefer_floor")))
        return Sparse.taking(size, np.clip(rounded, 0, size - 1)[:, None])
    below = np.floor(at).astype(int)
    if how["mode"] == "linear":
        taps = {k: np.maximum(0, 1 - abs(at - below - k)) for k in (0, 1)}
    else:
        a = how.get("cubic_coeff_a", -0.75)
        taps = {k: _cubic(abs(at - below - k), a) for k in range(-1, 3)}
    if how.get("exclude_outside", 0):
        taps = {k: np.where((below + k >= 0) & (below + k < size), w, 0)
                for k, w in taps.items()}
        total = sum(taps.values())
        taps = {k: w / total for k, w in taps.items()}
    taken = np.stack([np.clip(below + k, 0, size - 1) for k in taps], axis=1)
    return Sparse.taking(size, taken, np.stack([*taps.values()], axis=1))


def _positions(size: int, out: int, scale: float, mode: str) -> np.ndarray:
    """Where each output is in the input."""
    y = np.arange(out)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and out > 1):
        return (y + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros(1)
    if mode == "half_pixel_symmetric":
        exact = scale * size
        return size / 2 * (1 - out / exact) + (y + 0.5) / scale - 0.5
    if mode == "align_corners":
        exact = scale * size
        return y * (size - 1) / (exact - 1) if exact > 1 else np.zeros(out)
    if mode == "asymmetric":
        return y / scale
    raise UnsupportedError(f"its coordinate_transformation_mode is {mode}")


def _rounded(at: np.ndarray, mode: str) -> np.ndarray:
    if mode not in ROUNDED:
        raise UnsupportedError(f"its nearest_mode is {mode}")
    rounded: np.ndarray = ROUNDED[mode](at).astype(int)
    return rounded


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    inner = (a + 2) * t**3 - (a + 3) * t**2 + 1
    outer = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0))
