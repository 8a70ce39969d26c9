"""Layers that are made of layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpnet as xn
from xpnet.testing import check_gradients


class Block(xn.Layer):
    """Y = f(X) + X, f a Linear, a batch norm and a dropout."""

    kind = "block"

    def __init__(self, p: float = 0.0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.p = p

    def build(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.linear, self.norm, self.drop = (xn.Linear(in_shape[0]), xn.BatchNorm1d(),
                                             xn.Dropout(self.p))
        shape = self.child("linear", self.linear, in_shape)
        return self.child("drop", self.drop, self.child("norm", self.norm, shape))

    def forward(self, x: Any, mode: str = "predict") -> Any:
        self.remember(mode)
        y = x
        for layer in (self.linear, self.norm, self.drop):
            y = layer.forward(y, mode=mode)
        return y + x

    def backward(self, dy: Any, accumulate: bool = False) -> Any:
        self.recall()
        dx = dy
        for layer in (self.drop, self.norm, self.linear):
            dx = layer.backward(dx, accumulate)
        return dx + dy


class Outer(xn.Layer):
    """Two blocks, one after the other."""

    def build(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.first, self.second = Block(0.5), Block(0.5)
        return self.child("second", self.second, self.child("first", self.first, in_shape))

    def forward(self, x: Any, mode: str = "predict") -> Any:
        self.remember(mode)
        return self.second.forward(self.first.forward(x, mode=mode), mode=mode)

    def backward(self, dy: Any, accumulate: bool = False) -> Any:
        self.recall()
        return self.first.backward(self.second.backward(dy, accumulate), accumulate)


def test_the_gradient():
    assert check_gradients(Block(), (4,), batch=5) < 1e-6


def test_parameters_and_states_have_the_names_of_the_children():
    net = xn.Sequential([Block(), Outer(name="outer")], input_shape=(4,), backend="numpy")
    names = ["linear.W", "linear.b", "norm.gamma", "norm.beta", "norm.mean", "norm.var"]
    assert list(net.arrays)[:6] == [f"block1.{name}" for name in names]
    assert "outer.second.norm.mean" in net.arrays and len(net.arrays) == 18
    assert len(net.layers) == 2


def test_it_trains_saves_and_moves(tmp_path):
    net = xn.Sequential([Block(0.2), xn.Linear(3)], input_shape=(4,), backend="numpy")
    x, y = np.random.default_rng(0).random((20, 4)), np.arange(20) % 3
    net.fit(x, y, loss="cross_entropy", optimizer="adam", epochs=2, verbose=False)
    net.save(tmp_path / "file")
    again = xn.load(tmp_path / "file", backend="numpy", layers=[Block])
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    np.testing.assert_allclose(net.to(xn.Backend()).predict(x), again.predict(x), rtol=1e-5,
                               atol=1e-6)
    assert (net.memory_report(10).peak > 0
            and net.layers[0].backend is net.backend is net.layers[0].norm.backend)


def test_each_use_keeps_its_own_values():
    a = xn.Input((4,))
    block = Block()
    net = xn.Network(a, block(block(a)), backend="numpy", dtype="float64")
    x = np.random.default_rng(0).random((4, 5))
    net.forward(x, "train")
    assert all(node.kept is not None for node in net.nodes) and block.linear.kept is None
    net.backward(np.ones((4, 5)))
    two = xn.Sequential([Block(), Block()], input_shape=(4,), backend="numpy", dtype="float64")
    for layer in two.layers:
        for p, q in zip(layer.parameters, block.parameters, strict=True):
            p.data[...] = q.data
    two.forward(x, "train")
    two.backward(np.ones((4, 5)))
    for p, q, r in zip(block.parameters, *(layer.parameters for layer in two.layers), strict=True):
        np.testing.assert_allclose(p.grad, q.grad + r.grad, rtol=1e-12, atol=1e-12)


def test_children_have_different_random_numbers():
    net = xn.Sequential([Outer(), Outer()], input_shape=(500,), backend="numpy")
    net.forward(np.ones((500, 2), np.float32), "train")
    drops = [block.drop for outer in net.layers for block in (outer.first, outer.second)]
    assert len({drop.index for drop in drops}) == 4


def test_the_input_gradient_of_a_prediction():
    net = xn.Sequential([Block(0.5)], input_shape=(4,), backend="numpy", dtype="float64")
    rng = np.random.default_rng(0)
    x, d, h = rng.random((3, 4)), rng.random((3, 4)), 1e-6
    dx = net.input_gradient(x, output_gradient=np.ones((3, 4)))
    numeric = (net.predict(x + h * d).sum() - net.predict(x - h * d).sum()) / (2 * h)
    assert numeric == pytest.approx((dx * d).sum(), rel=1e-6)
