"""ONNX operators on our layers and kernels: convolution, shapes and padding."""

from __future__ import annotations

from onnx_operators import run_layer

import xpnet as xn


def transposed_arguments(attributes, x, W):
    """The attributes of ConvTranspose as options. ONNX also lets the output's shape say what the padding is."""
    stride, dilation = (tuple(attributes.get(name, (1, 1))) for name in ("strides", "dilations"))
    extra = tuple(attributes.get("output_padding", (0, 0)))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    wanted = attributes.get("output_shape")
    same = attributes.get("auto_pad", b"NOTSET").decode()
    if wanted or same in ("SAME_UPPER", "SAME_LOWER"):
        wanted = wanted[-2:] if wanted else [n * s for n, s in zip(x.shape[2:], stride)]
        total = [s * (n - 1) + e + d * (k - 1) + 1 - size
                 for s, n, e, d, k, size in zip(stride, x.shape[2:], extra, dilation, W.shape[2:], wanted)]
        extra = tuple(e + max(-t, 0) for e, t in zip(extra, total))     # more than all of it: rows that nothing reaches
        less, more = [max(t, 0) // 2 for t in total], [max(t, 0) - max(t, 0) // 2 for t in total]
        # The odd one: with SAME_UPPER at the end, and otherwise at the beginning.
        (top, left), (bottom, right) = (less, more) if same == "SAME_UPPER" else (more, less)
    return {"stride": stride, "padding": (top, bottom, left, right), "output_padding": extra, "dilation": dilation,
            "groups": attributes.get("group", 1)}


def conv_transpose(backend, attributes, inputs, outputs):
    x, W, *bias = inputs
    options = transposed_arguments(attributes, x, W)
    layer = xn.ConvTranspose2d(W.shape[1] * options["groups"], W.shape[2:], bias=bool(bias), **options)
    return [run_layer(backend, layer, x, W=W, **dict(zip(["b"], bias)))]


OPERATORS = {"ConvTranspose": conv_transpose}
WITH_WINDOWS = ("ConvTranspose",)       # the operators whose cases count only where they have two spatial axes
REASONS: dict[str, list[str]] = {}        # why cases cannot pass
