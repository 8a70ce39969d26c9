"""ONNX operators on our layers and kernels: what test_onnx_cases.py runs ONNX's node tests through.
Its neighbours onnx_*.py have those of other families.

ONNX is batch-first (N, C, H, W): each function converts at its boundary, as an importer would. It
takes (backend, attributes, inputs, number of outputs) and returns the outputs.
"""

from __future__ import annotations

import numpy as np

import xpnet as xn
from xpnet import TRAIN


def batch_last(backend, x):
    return backend.asarray(np.moveaxis(x, 0, -1).copy())


def batch_first(backend, y):
    return np.moveaxis(backend.to_numpy(y), -1, 0)


def run_layer(backend, layer, *xs, mode="predict", **parameters):
    """The output of a layer for batch-first arrays, with its parameters or state set to the values
    given."""
    layer.initialize(*(x.shape[1:] for x in xs), backend=backend, dtype=xs[0].dtype)
    for name, value in parameters.items():
        getattr(layer, name).data[...] = backend.asarray(value)
    return batch_first(backend, layer.forward(*(batch_last(backend, x) for x in xs), mode=mode))


def window_arguments(attributes, x):
    """An operator's attributes as (kernel_size, stride, padding, dilation)."""
    kernel = tuple(attributes["kernel_shape"])
    stride = tuple(attributes.get("strides", (1, 1)))
    dilation = tuple(attributes.get("dilations", (1, 1)))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padding = [top, bottom, left, right]
    auto_pad = attributes.get("auto_pad", b"NOTSET").decode()
    # ceil(size / stride) outputs; which side gets the larger half of an odd padding?
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        padding = []
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            padding += ([total // 2, total - total // 2] if auto_pad == "SAME_UPPER"
                        else [total - total // 2, total // 2])
    return kernel, stride, tuple(padding), dilation


# --- operators ------------------------------------------------------------------------------------

def conv(backend, attributes, inputs, outputs):
    x, W = inputs
    kernel, stride, padding, dilation = window_arguments(attributes, x)
    layer = xn.Conv2d(len(W), kernel, stride=stride, padding=padding, dilation=dilation,
                      groups=attributes.get("group", 1), bias=False)
    return [run_layer(backend, layer, x, W=W)]


def max_pool(backend, attributes, inputs, outputs):
    x, = inputs
    kernel, stride, padding, dilation = window_arguments(attributes, x)
    layer = xn.MaxPool2d(kernel, stride=stride, padding=padding, dilation=dilation,
                         ceil_mode=attributes.get("ceil_mode", 0) == 1)
    y = run_layer(backend, layer, x)
    if outputs == 1:
        return [y]
    # inside the window; ONNX counts over all of x
    _, argmax = backend.max_pool2d(batch_last(backend, x), layer.window)
    n, c, oy, ox = np.indices(y.shape)
    i, j = np.divmod(batch_first(backend, argmax).astype(np.int64), kernel[1])
    row, column = (oy * stride[0] - padding[0] + i * dilation[0],
                   ox * stride[1] - padding[2] + j * dilation[1])
    N, C, H, W = x.shape
    inside = column * H + row if attributes.get("storage_order", 0) else row * W + column
    return [y, (n * C + c) * H * W + inside]


def average_pool(backend, attributes, inputs, outputs):
    x, = inputs
    kernel, stride, padding, dilation = window_arguments(attributes, x)
    layer = xn.AvgPool2d(kernel, stride=stride, padding=padding, dilation=dilation,
                         ceil_mode=attributes.get("ceil_mode", 0) == 1,
                         count_include_pad=attributes.get("count_include_pad", 0) == 1)
    return [run_layer(backend, layer, x)]


def global_average_pool(backend, attributes, inputs, outputs):
    return [run_layer(backend, xn.GlobalAvgPool2d(), inputs[0])[:, :, None, None]]


def batch_normalization(backend, attributes, inputs, outputs):
    x, scale, bias, mean, var = inputs
    eps = attributes.get("epsilon", 1e-5)
    if outputs == 1:
        return [run_layer(backend, xn.BatchNorm2d(eps=eps), x, gamma=scale, beta=bias, mean=mean,
                          var=var)]
    y, *batch = backend.batch_norm(batch_last(backend, x), backend.asarray(scale),
                                   backend.asarray(bias), eps)
    # ONNX keeps the biased variance, BatchNorm2d the unbiased one
    keep = np.float32(attributes.get("momentum", 0.9))
    running = [keep * old + (1 - keep) * backend.to_numpy(new)
               for old, new in zip((mean, var), batch)]
    return [batch_first(backend, y), *running]


def elementwise(name):
    return lambda backend, attributes, inputs, outputs: [
        run_layer(backend, xn.Activation(name), inputs[0][None])[0]]


def softmax(backend, attributes, inputs, outputs):
    x, = inputs
    return [run_layer(backend, xn.Softmax(attributes.get("axis", -1) % x.ndim), x[None])[0]]


def gemm(backend, attributes, inputs, outputs):
    """Y = alpha A B + beta C as a fully connected layer: alpha is multiplied into the weights, beta
    C is its bias."""
    a, b = (x.T if attributes.get(trans, 0) else x
            for x, trans in zip(inputs, ("transA", "transB")))
    W = np.float32(attributes.get("alpha", 1.0)) * b.T
    if len(inputs) == 2:
        return [run_layer(backend, xn.Linear(len(W), bias=False), a, W=W)]
    c = np.float32(attributes.get("beta", 1.0)) * inputs[2]
    if c.ndim == 2 and len(c) > 1:  # a different bias for each sample: added to the output
        out = backend.asarray(c.T.copy())
        return [batch_first(backend, backend.gemm(backend.asarray(W), batch_last(backend, a),
                                                  out=out, accumulate=True))]
    return [run_layer(backend, xn.Linear(len(W)), a, W=W, b=np.broadcast_to(c, (1, len(W)))[0])]


def flatten(backend, attributes, inputs, outputs):
    return [run_layer(backend, xn.Flatten(), inputs[0])]


def add(backend, attributes, inputs, outputs):
    return [run_layer(backend, xn.Add(), *(x[None] for x in inputs))[0]]


def concat(backend, attributes, inputs, outputs):
    axis = attributes["axis"] % inputs[0].ndim
    return [run_layer(backend, xn.Concat(axis), *(x[None] for x in inputs))[0]]


def dropout(backend, attributes, inputs, outputs):
    x, *ratio_and_training = inputs
    # a prediction ignores the ratio
    ratio, training = ratio_and_training if len(ratio_and_training) == 2 else (0.5, False)
    return [run_layer(backend, xn.Dropout(float(ratio)), x[None],
                      mode=TRAIN if training else "predict")[0]]


OPERATORS = {"Conv": conv, "MaxPool": max_pool, "AveragePool": average_pool,
             "GlobalAveragePool": global_average_pool, "BatchNormalization": batch_normalization,
             "Relu": elementwise("relu"), "Sigmoid": elementwise("sigmoid"),
             "Tanh": elementwise("tanh"), "Softmax": softmax, "Gemm": gemm, "Flatten": flatten,
             "Add": add, "Sum": add, "Concat": concat, "Dropout": dropout}

WITH_WINDOWS = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool")

# Cases that cannot pass, by the reason.
REASONS = {
    "Add takes inputs of one shape": ["test_add_bcast"],
    "Add takes two inputs or more": ["test_sum_one_input"],
    "Flatten keeps the batch axis and makes one axis of all others": [
        "test_flatten_axis0", "test_flatten_axis2", "test_flatten_axis3",
        "test_flatten_negative_axis4", "test_flatten_negative_axis2",
        "test_flatten_negative_axis1"],
    "the random bits are Philox's, the same on every backend, not those of NumPy's old generator": [
        "test_training_dropout_default", "test_training_dropout"],
    "Dropout does not return its mask": [
        "test_dropout_default_mask", "test_dropout_default_mask_ratio",
        "test_training_dropout_default_mask", "test_training_dropout_mask",
        "test_training_dropout_zero_ratio_mask"],
}
