"""Normalisation from ONNX's operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.io.onnx.build import Reading, Value
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.patterns import without_ones
from xpnet.io.onnx.read_activations import Read

LEAST = 1e-30           # eps of a division by a norm, which ONNX does not have


def batch_norm(op: Reading) -> Value:
    """ONNX's momentum is the part that stays, ours the part that moves."""
    op.expect_one_output()
    if op.attribute("training_mode", 0) or not op.attribute("spatial", 1):
        raise UnsupportedError("it uses the statistics of the batch, or those of each position")
    value = op.batch_first(0, 1, 2, 3)
    options = {"momentum": min(1.0, max(0.0, 1 - op.attribute("momentum", 0.9))),
               "eps": op.attribute("epsilon", 1e-5)}
    layer = (L.BatchNorm2d if len(value.shape) == 3 else L.BatchNorm1d)(**options)
    layer.trainable = not op.builder.freeze
    names = ("gamma", "scale"), ("beta", "shift"), ("mean", "mean"), ("var", "variance")
    arrays = {name: op.numbers(number, what).reshape(-1)
              for number, (name, what) in enumerate(names, 1)}
    return op.add(layer, value, arrays=arrays, key=op.key(1, 2, 3, 4))


def _scales(op: Reading, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """gamma and beta, inputs 1 and 2, of this shape; 1 and 0 if they are left out."""
    found = {"gamma": op.numbers(1, "scale") if op.given(1) else np.ones((), np.float32)}
    found["beta"] = (op.numbers(2, "shift") if op.given(2)
                     else np.zeros((), found["gamma"].dtype))
    return {name: np.broadcast_to(array.reshape(without_ones(array.shape)), shape)
            for name, array in found.items()}


def instance_norm(op: Reading) -> Value:
    value = op.batch_first(0, 2, 3)
    layer = L.InstanceNorm2d if len(value.shape) == 3 else L.InstanceNorm1d
    return op.add(layer(eps=op.attribute("epsilon", 1e-5), affine=True), value,
                  arrays=_scales(op, value.shape[:1]), key=op.key(1, 2))


def layer_norm(op: Reading) -> Value:
    """Over the last axes: from `axis` on, or those that a pattern found."""
    op.expect_one_output()
    value = op.value()
    axes = op.attribute("axes")
    if axes is None:
        axes = range(op.attribute("axis", -1) % value.axes, value.axes)
    along = sorted(value.sample_axis(axis) for axis in axes)
    if along != [*range(along[0], along[0] + len(along))]:
        raise UnsupportedError("it normalises axes that are not neighbours")
    shape = value.shape[along[0]:along[-1] + 1]
    eps, arrays = op.attribute("epsilon", 1e-5), _scales(op, shape)
    affine = op.given(1) or op.given(2)
    if op.kind == "RMSNormalization":
        if op.given(2):
            raise UnsupportedError("it has a shift")
        del arrays["beta"]
        layer: Any = L.RMSNorm(axis=along, eps=eps, affine=affine)
    else:
        layer = L.LayerNorm(axis=along, eps=eps, affine=affine)
    return op.add(layer, value, arrays=arrays if affine else None, key=op.key(1, 2))


def group_norm(op: Reading) -> Value:
    """Before opset 21 scale and shift are those of groups."""
    value = op.batch_first()
    groups, C = op.attribute("num_groups", 1), value.shape[0]
    arrays = {name: op.numbers(number, what) for number, name, what in (
        (1, "gamma", "scale"), (2, "beta", "shift"))}
    op.expect_room(C)
    arrays = {name: np.repeat(array, C // groups) if array.size == groups != C else array
              for name, array in arrays.items()}
    return op.add(L.GroupNorm(groups, eps=op.attribute("epsilon", 1e-5)), value, arrays=arrays,
                  key=op.key(1, 2))


def local_response_norm(op: Reading) -> Value:
    size = op.attribute("size")
    if size % 2 == 0:
        raise UnsupportedError("its size is even: it has one more neighbour behind the channel, "
                               "the layer before it")
    return op.add(L.LocalResponseNorm(size, alpha=op.attribute("alpha", 1e-4),
                                      beta=op.attribute("beta", 0.75),
                                      k=op.attribute("bias", 1.0)), op.batch_first())


def lp_normalize(op: Reading) -> Value:
    value = op.value()
    axis = value.sample_axis(op.attribute("axis", -1))
    return op.add(L.LpNormalize(op.attribute("p", 2), axis=axis, eps=LEAST), value)


READ: dict[str, Read] = {
    "BatchNormalization": batch_norm, "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm, "RMSNormalization": layer_norm,
    "GroupNormalization": group_norm, "LRN": local_response_norm,
    "LpNormalization": lp_normalize,
}
