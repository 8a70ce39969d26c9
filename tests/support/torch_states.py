"""A small network, its state in PyTorch, and checks of what `load_torch` does with files of it."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import Tensor, save

import xpnet as xn

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def network() -> xn.Sequential:
    return xn.Sequential([
        xn.Conv2d(3, 2), xn.BatchNorm2d(activation="relu"), xn.Conv2d(3, 2), xn.Flatten(),
        xn.Linear(4)], input_shape=(2, 4, 4), backend="numpy")


def state() -> dict[str, np.ndarray]:
    """What such a network is in PyTorch; its first and last convolution differ in shape."""
    return {"features.0.weight": normal(3, 2, 2, 2), "features.0.bias": normal(3),
            "features.1.weight": normal(3), "features.1.bias": normal(3),
            "features.1.running_mean": normal(3), "features.1.running_var": normal(3)**2,
            "features.1.num_batches_tracked": np.array(7),
            "features.3.weight": normal(3, 3, 2, 2), "features.3.bias": normal(3),
            "head.weight": normal(4, 12), "head.bias": normal(4)}


OURS = {"conv1.W": "features.0.weight", "conv1.b": "features.0.bias",
        "bn1.gamma": "features.1.weight", "bn1.beta": "features.1.bias",
        "bn1.mean": "features.1.running_mean", "bn1.var": "features.1.running_var",
        "conv2.W": "features.3.weight", "conv2.b": "features.3.bias",
        "linear1.W": "head.weight", "linear1.b": "head.bias"}


def tensors(arrays: dict[str, np.ndarray]) -> collections.OrderedDict[str, Any]:
    found = collections.OrderedDict((name, Tensor(array)) for name, array in arrays.items())
    found._metadata = collections.OrderedDict({"": {"version": 1}})     # type: ignore[attr-defined]
    return found


def assert_loaded(net: xn.Network, arrays: dict[str, np.ndarray],
                  names: dict[str, str] = OURS) -> None:
    for ours, theirs in names.items():
        assert np.array_equal(net.arrays[ours].data, arrays[theirs]), ours


def refused(path: Path, net: xn.Network | None = None) -> str:
    """The error, in one line; the network does not change."""
    net = network() if net is None else net
    before = {name: p.data.copy() for name, p in net.arrays.items()}
    with pytest.raises(ValueError, match="load_torch: expected") as caught:
        net.load_torch(path)
    assert all(np.array_equal(p.data, before[name]) for name, p in net.arrays.items())
    assert re.fullmatch(r"load_torch: expected [^\n]+ Received: [^\n]+", str(caught.value))
    return str(caught.value)


def loaded(net: xn.Network, arrays: dict[str, np.ndarray], folder: Path, *options: Any,
           **more: Any) -> Any:
    return net.load_torch(save(tensors(arrays), folder / "a.pth"), *options, **more)
