"""Which convolutions the kernels of warpgroups.py take, and their tiles: no kernel runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy, installed

from xpnet.backends import Window
from xpnet.backends.cupy import warpgroups
from xpnet.backends.cupy.backend import CupyBackend

SHAPE, FILTERS = (64, 8, 8, 128), (64, 64, 3, 3)


@pytest.fixture
def backend(folder: Path) -> Any:
    with installed(FakeCupy(folder, 1)):
        yield CupyBackend(tf32="convolutions")


def takes(backend: Any, shape: tuple[int, ...] = SHAPE, filters: tuple[int, ...] = FILTERS,
          groups: int = 1, dtype: Any = np.float32) -> bool:
    return warpgroups.takes(backend, backend.empty(shape, dtype), filters, shape,
                            Window.make(filters[2], padding=filters[2] // 2), groups)


def test_the_conditions(backend: Any, monkeypatch: pytest.MonkeyPatch):
    assert takes(backend)
    assert takes(backend, (128, *SHAPE[1:]), (128, 64, 3, 3), groups=2)
    for why, answer in {
        "lines of samples": takes(backend, (64, 8, 8, 130)),
        "few channels": takes(backend, (15, 16, 16, 128), (256, 15, 3, 3)),
        "few filters": takes(backend, (256, 16, 16, 128), (15, 256, 3, 3)),
        "groups that share a box": takes(backend, (96, *SHAPE[1:]), (96, 48, 3, 3), groups=2),
        "too little work": takes(backend, (64, 1, 1, 128)),
        "double": takes(backend, dtype=np.float64), "half": takes(backend, dtype=np.float16),
    }.items():
        assert not answer, why
    monkeypatch.setattr(backend, "tf32", "never")
    assert not takes(backend)


@pytest.mark.parametrize("capability, version, usable", [
    ("90", (13, 0), True), ("90", (12, 9), False), ("80", (13, 0), False),
    ("100", (13, 0), False)])
def test_gpu_and_compiler(capability: str, version: tuple[int, int], usable: bool, backend: Any,
                          monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend.xp.cuda.Device, "compute_capability", capability)
    monkeypatch.setattr(backend.xp.cuda.nvrtc, "getVersion", lambda: version)
    assert takes(backend) == usable


def test_an_image_at_an_address_that_no_map_can_have(backend: Any):
    odd = backend.empty((64 * 8 * 8 * 128 + 1,), np.float32)[1:].reshape(SHAPE)
    assert not warpgroups.takes(backend, odd, FILTERS, SHAPE, Window.make(3, padding=1), 1)


def test_tiles_are_those_that_were_the_fastest():
    """On an H200: (filters, pixels and samples) of layers of ResNets."""
    tiles = {(M, P): warpgroups.plan_convolution(M, P, 1)[:2] for M, P in (
        (64, 32 * 32 * 512), (64, 56 * 56 * 64), (256, 8 * 8 * 512), (512, 4 * 4 * 512),
        (256, 14 * 14 * 64), (512, 7 * 7 * 64))}
    assert list(tiles.values()) == [(64, 128)] * 2 + [(128, 256)] * 3 + [(128, 128)]


@pytest.mark.parametrize("F, C, P", [(64, 64, 32 * 32 * 512), (512, 512, 4 * 4 * 512),
                                     (96, 48, 32), (16, 16, 64)])
def test_splits_of_a_filter_gradient(F: int, C: int, P: int):
    tile, plan = warpgroups.plan_gradient(F, C, 9, P, 1)
    steps = P // warpgroups.LANES
    assert tile == (warpgroups.NARROW if F <= 64 else warpgroups.BROAD)
    assert (plan.splits - 1) * plan.steps < steps <= plan.splits * plan.steps
    assert plan.splits == 1 or plan.steps >= 8
