"""A table of layers, with at least one row for each class, for the tests of the common contract.

The catalogue contributes one row for each layer; the rows here have more settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import xpnet as xn
from xpnet.catalogue import FAMILIES, Item
from xpnet.layer import Layer, Shape


@dataclass(frozen=True)
class LayerCase:
    label: str
    make: Callable[[], Layer]
    in_shapes: tuple[Shape, ...]        # without the batch axis
    # if normally distributed numbers do not fit
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, ...]] | None = None

    def __str__(self) -> str:
        return self.label

    def inputs(self, dtype: str, batch: int = 3, seed: int = 0) -> list[np.ndarray]:
        """Batch-last arrays for the layer, on the host."""
        rng = np.random.default_rng(seed)
        drawn = self.draw(rng, batch) if self.draw else [
            rng.standard_normal((*shape, batch)) for shape in self.in_shapes]
        return [x.astype(dtype) for x in drawn]

    def layer(self, backend: xn.Backend, dtype: str) -> Layer:
        return initialized(self.make(), *self.in_shapes, backend=backend, dtype=dtype)


def initialized(layer: Layer, *in_shapes: Shape, backend: xn.Backend, dtype: str) -> Layer:
    """The initialized layer, with random numbers added to all parameters, so that biases are not
    0."""
    layer.initialize(*in_shapes, backend=backend, dtype=dtype, seed=1)
    rng = np.random.default_rng(2)
    for parameter in layer.parameters:
        parameter.data += backend.asarray(0.1 * rng.standard_normal(parameter.shape), dtype)
    return layer


def of_catalogue() -> list[LayerCase]:
    """A case for each layer of the catalogue."""
    items: list[Item] = [item for items in FAMILIES.values() for item in items
                         if isinstance(item.what, type) and issubclass(item.what, Layer)]
    return [LayerCase(f"{item.name}-of-catalogue", item.make, item.shapes, item.inputs)
            for item in items]


MAPS = ((4, 7, 6),)
CASES = of_catalogue() + [
    LayerCase("Conv2d",
              lambda: xn.Conv2d(5, 3, padding="half", activation="tanh", init="lecun_normal"),
              MAPS),
    LayerCase("Conv2d-pointwise", lambda: xn.Conv2d(6, 1, bias=False), MAPS),
    LayerCase("Conv2d-bias-map",
              lambda: xn.Conv2d(5, 3, stride=(2, 1), padding=1, bias="map", activation="relu"),
              MAPS),
    LayerCase("Conv1d-bias-map",
              lambda: xn.Conv1d(5, 3, padding=1, bias="map", activation="gelu"), ((4, 9),)),
    LayerCase("ConvTranspose2d-bias-map",
              lambda: xn.ConvTranspose2d(3, 3, stride=2, bias="map", activation="tanh"), MAPS),
    LayerCase("Conv2d-strided",
              lambda: xn.Conv2d(3, (3, 2), stride=(2, 3), padding=(2, 1, 0, 1), activation="relu"),
              MAPS),
    LayerCase("Conv2d-grouped",
              lambda: xn.Conv2d(6, 3, dilation=(2, 1), padding=1, groups=2, name="g"), MAPS),
    LayerCase("Conv2d-depthwise", lambda: xn.Conv2d(8, 3, groups=4, activation="sigmoid"), MAPS),
    LayerCase("TableConv2d", lambda: xn.TableConv2d([[0, 1], [3], [0, 2, 3]], 3, padding=1,
                                                    activation="scaled_tanh"), MAPS),
    LayerCase("ConvTranspose2d-grouped",
              lambda: xn.ConvTranspose2d(6, 3, padding=1, dilation=2, groups=2, bias=False), MAPS),
    LayerCase("MaxPool2d", lambda: xn.MaxPool2d(2), MAPS),
    LayerCase("MaxPool2d-ceil", lambda: xn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), MAPS),
    LayerCase("MaxPool2d-overlapping", lambda: xn.MaxPool2d((3, 2), stride=1, dilation=2), MAPS),
    LayerCase("AvgPool2d", lambda: xn.AvgPool2d(2), MAPS),
    LayerCase("AvgPool2d-inside",
              lambda: xn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), MAPS),
    LayerCase("AvgPool2d-ceil",
              lambda: xn.AvgPool2d(3, stride=2, padding=1, dilation=(1, 2), ceil_mode=True),
              ((4, 8, 9),)),
    LayerCase("GaussianPool2d-inside",
              lambda: xn.GaussianPool2d(3, 1, stride=2, padding=1, count_include_pad=False), MAPS),
    LayerCase("GlobalAvgPool2d", lambda: xn.GlobalAvgPool2d(), MAPS),
    LayerCase("Subsampling2d",
              lambda: xn.Subsampling2d(2, activation="scaled_tanh", init="lecun_uniform"), MAPS),
    LayerCase("BatchNorm2d", lambda: xn.BatchNorm2d(momentum=0.2, eps=1e-3), MAPS),
    LayerCase("BatchNorm2d-relu", lambda: xn.BatchNorm2d(activation="relu"), MAPS),
    LayerCase("BatchNorm2d-cumulative", lambda: xn.BatchNorm2d(momentum=None), MAPS),
    LayerCase("Linear", lambda: xn.Linear(5, activation="relu", init="he_normal", name="first"),
              ((7,),)),
    LayerCase("BatchNorm1d-signals", lambda: xn.BatchNorm1d(activation="relu"), ((4, 6),)),
    LayerCase("Linear-steps", lambda: xn.Linear(5, activation="tanh"), ((7, 6),)),
    LayerCase("Linear-no-bias", lambda: xn.Linear(4, bias=False), ((7,),)),
    LayerCase("DropConnect-steps", lambda: xn.DropConnect(5, 0.4, activation="gelu"), ((7, 6),)),
    LayerCase("RBF", lambda: xn.RBF([[1, -1, 1], [-1, 1, 1], [0.5, 0, -2], [2, 0, 1]]), ((3,),)),
    LayerCase("Activation", lambda: xn.Activation("scaled_tanh"), MAPS),
    LayerCase("ReLU", lambda: xn.ReLU(), MAPS),
    LayerCase("Sigmoid", lambda: xn.Sigmoid(name="s"), ((5,),)),
    LayerCase("Tanh", lambda: xn.Tanh(), MAPS),
    LayerCase("ScaledTanh", lambda: xn.ScaledTanh(), ((5,),)),
    LayerCase("Softmax", lambda: xn.Softmax(), ((5,),)),
    LayerCase("Softmax-maps", lambda: xn.Softmax(), MAPS),
    LayerCase("Dropout", lambda: xn.Dropout(0.3), MAPS),
    LayerCase("Rescale", lambda: xn.Rescale(0.5, 0.25), MAPS),
    LayerCase("Rescale-channels",
              lambda: xn.Rescale([0.1, 0.2, 0.3, 0.4], np.array([1, 2, 3, -4]), name="r"), MAPS),
    LayerCase("Rescale-features", lambda: xn.Rescale(mean=[1, 2, 3, 4, 5]), ((5,),)),
    LayerCase("Flatten", lambda: xn.Flatten(), MAPS),
    LayerCase("Add", lambda: xn.Add(), 2 * MAPS),
    LayerCase("Add-three", lambda: xn.Add(), ((5,), (5,), (5,))),
    LayerCase("Add-relu", lambda: xn.Add(activation="relu"), 2 * MAPS),
    LayerCase("Add-three-tanh", lambda: xn.Add(activation="tanh", name="s"), 3 * MAPS),
    LayerCase("Add-gelu", lambda: xn.Add(activation="gelu"), 2 * MAPS),
    LayerCase("Concat", lambda: xn.Concat(), ((1, 4, 5), (3, 4, 5), (2, 4, 5))),
    LayerCase("Slice-last-step", lambda: xn.Slice(-1, axis=1), ((4, 6),)),
    LayerCase("LocalResponseNorm-all", lambda: xn.LocalResponseNorm(None, alpha=0.5), MAPS),
    LayerCase("LayerNorm-channels", lambda: xn.LayerNorm(axis=0), MAPS),
    LayerCase("RMSNorm-rows", lambda: xn.RMSNorm(axis=(0, 1), eps=0.1), MAPS),
    LayerCase("MultiHeadAttention-memory",
              lambda: xn.MultiHeadAttention(3, dropout=0.3, bias=False), ((6, 4), (5, 7))),
    LayerCase("MultiHeadAttention-three", lambda: xn.MultiHeadAttention(2, init="lecun_normal"),
              ((8, 3), (5, 6), (6, 6))),   # of fewer features the gradients cancel in TF32
    LayerCase("MultiHeadAttention-lengths",
              lambda: xn.MultiHeadAttention(2, lengths=True, mask="causal"), ((6, 5), (1,)),
              lambda rng, N: (rng.standard_normal((6, 5, N)), rng.integers(1, 6, (1, N)))),
    LayerCase("GRU-reset-before", lambda: xn.GRU(4, reset="before", bidirectional=True),
              ((3, 5), (2, 4))),
    LayerCase("Gain-columns", lambda: xn.Gain((1, 1, 6)), MAPS),
    LayerCase("Shift-channels", lambda: xn.Shift(), MAPS),
    LayerCase("Shift-elements", lambda: xn.Shift((4, 7, 6)), MAPS),
    LayerCase("MatMul-vector", lambda: xn.MatMul(), ((1, 5), (5, 3))),
    LayerCase("Multiply-gate", lambda: xn.Multiply(), (*MAPS, (4, 1, 1), (1, 7, 6))),
    LayerCase("Add-repeated-relu", lambda: xn.Add(activation="relu"), ((4, 1, 6), (4, 7, 1))),
    LayerCase("Average-repeated", lambda: xn.Average(), ((4, 7), (4, 1), (1, 1))),
    LayerCase("Subtract-repeated", lambda: xn.Subtract(), ((1, 7), (4, 1))),
    LayerCase("Maximum-repeated", lambda: xn.Maximum(), ((4, 1), (4, 7), (1, 7))),
    LayerCase("Concat-rows", lambda: xn.Concat(1), ((3, 4, 5), (3, 1, 5), (3, 2, 5))),
]
