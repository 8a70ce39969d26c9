"""Matrix products and convolutions on a real GPU, at the sizes of real layers: many blocks, many
splits, every arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import product_checks
import pytest
import warpgroup_checks
from gpu import gpu_or_skip, skip_module_without_gpu
from parity import distance, normal, same_bits

from xpnet.backends import Backend, Window

pytestmark = pytest.mark.gpu
skip_module_without_gpu()

# (C, H, W, N), filters, window, groups
LAYERS = {
    "3x3": ((64, 32, 32, 32), 64, Window.make(3, padding=1), 1),
    "7x7, stride 2": ((3, 64, 64, 16), 64, Window.make(7, stride=2, padding=3), 1),
    "points": ((256, 14, 14, 32), 512, Window.make(1), 1),
    "points, stride 2": ((256, 14, 14, 32), 512, Window.make(1, stride=2), 1),
    "deep": ((512, 4, 4, 128), 512, Window.make(3, padding=1), 1),
    "32 groups": ((128, 14, 14, 33), 128, Window.make(3, padding=1), 32),
    "depthwise, dilated": ((96, 28, 28, 16), 96, Window.make(3, padding=2, dilation=2), 96),
    "depthwise, stride 2": ((96, 56, 56, 33), 96, Window.make(5, stride=2, padding=2), 96),
    "depthwise, 7x7": ((128, 28, 28, 64), 256, Window.make(7, padding=3), 128),
    "a single sample": ((32, 30, 30, 1), 48, Window.make(5, padding=2), 1),
}
# arithmetic: (type, the backend's tf32, ||a - b|| / ||b|| against float64)
ARITHMETIC: dict[str, tuple[Any, str, float]] = {"float32": (np.float32, "never", 1e-5),
                                                 "tf32": (np.float32, "always", 2e-3),
                                                 "half": (np.float16, "never", 5e-3)}


def results(gpu: Backend, layer: str, dtype: Any) -> list[np.ndarray]:
    """y, dx and dW."""
    shape, F, window, groups = LAYERS[layer]
    OH, OW = window.output_size(*shape[1:3])
    with gpu.scope():
        # no type rounds them any further
        x, W, dy = (gpu.asarray(a.astype(np.float16).astype(dtype)) for a in (
            normal(*shape), normal(F, shape[0] // groups, *window.kernel, seed=1),
            normal(F, OH, OW, shape[3], seed=2)))
        made = (gpu.conv2d(x, W, window, groups=groups, activation="relu"),
                gpu.conv2d_dx(dy, W, shape, window, groups=groups),
                gpu.conv2d_dW(x, dy, window, groups=groups))
        return [gpu.to_numpy(a) for a in made]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("way", ["warpgroups", "image", "columns"])
def test_layers_of_real_networks(way: str, arithmetic: str, layer: str):
    dtype, tf32, tolerance = ARITHMETIC[arithmetic]
    gpu: Any = gpu_or_skip(tf32=tf32)
    right = results(gpu, layer, np.float64)
    with product_checks.columns_by(gpu, way, 1 << 22):
        first, second = results(gpu, layer, dtype), results(gpu, layer, dtype)
    for name, a, b, exact in zip(("y", "dx", "dW"), first, second, right, strict=True):
        error = distance(a, exact)
        assert error <= tolerance, f"{name} is {error:.1e} away in norm"
        assert same_bits(a, b), f"{name} has other bits the second time"


def test_every_instantiation():
    gpu: Any = gpu_or_skip()
    if not gpu.matrix_units:
        pytest.skip("the GPU has no matrix units for TF32")
    with gpu.scope():
        product_checks.every_instantiation(gpu)


def test_convolutions_by_warpgroups():
    """Every problem and every tile, twice: with the same bits."""
    gpu: Any = gpu_or_skip(tf32="always")
    if not gpu._warpgroups:
        pytest.skip("the GPU has no instructions for warpgroups")
    with gpu.scope():
        first, second = [], []
        for made in (first, second):
            with warpgroup_checks.told(gpu):
                made += [warpgroup_checks.check(gpu, name, gpu.asarray)
                         for name in warpgroup_checks.PROBLEMS]
            made += warpgroup_checks.every_instantiation(gpu)
    assert len(first) > len(warpgroup_checks.PROBLEMS)
    for a, b in zip(first, second, strict=True):
        assert all(same_bits(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("layer", ["3x3", "deep", "points, stride 2"])
def test_these_layers_are_computed_by_warpgroups(layer: str):
    gpu: Any = gpu_or_skip(tf32="convolutions")
    if not gpu._warpgroups:
        pytest.skip("the GPU has no instructions for warpgroups")
    asked, faster = [], gpu._faster

    def noted(*about: Any) -> str:
        asked.append(faster(*about))
        return asked[-1]

    gpu._faster = noted
    results(gpu, layer, np.float32)
    assert asked == ["warpgroups"] * 3
