"""The sections that read the value before them. Each function makes the nodes of one section, which
compute what Darknet computes in a prediction. The other sections are in joins.py.
"""

from __future__ import annotations

from typing import Any

from xpnet.io.darknet.builder import Builder
from xpnet.io.darknet.cfg import MOST
from xpnet.layer import Layer
from xpnet.layers import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Crop2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    LocallyConnected2d,
    MaxPool2d,
    PixelShuffle,
    PixelUnshuffle,
    Rescale,
    Reshape,
    Softmax,
    Upsample2d,
)
from xpnet.node import Node

# The running statistics move by 0.01, and sqrt(variance + 0.00001) divides.
MOMENTUM, EPS = 0.01, 1e-5


# --- layers with weights --------------------------------------------------------------------------

def convolutional(b: Builder) -> Node:
    s = b.section
    filters, groups = s.integer("filters", 1, 1), s.integer("groups", 1, 1)
    size, stride = s.integer("size", 1, 1), s.integer("stride", 1, 1)
    strides = s.integer("stride_y", stride, 1), s.integer("stride_x", stride, 1)
    dilation = 1 if size == 1 else s.integer("dilation", 1, 1)
    padding = size // 2 if s.integer("pad", 0) else s.integer("padding", 0)
    normalized = bool(s.integer("batch_normalize", 0))
    fused, behind = b.split_activation("logistic")
    conv = Conv2d(filters, size, stride=strides, padding=padding, dilation=dilation, groups=groups,
                  bias=not normalized, activation=None if normalized else fused, init=_init(behind))
    bn = BatchNorm2d(momentum=MOMENTUM, eps=EPS, activation=fused) if normalized else None
    x = b.as_map(b.value)
    if "share_index" in s:
        conv, bn = _shared(b, conv, bn)
        y = conv(x) if bn is None else bn(conv(x))
        return b.activate(y, behind)
    y = b.use(conv, "conv", x)
    if bn is None:
        b.store("biases", conv, "b", (filters,))
    else:
        y = b.use(bn, "bn", y)
        _store_norm(b, bn, filters)
    b.store("weights", conv, "W", conv.W.shape)
    b.convolutions[s.index] = conv, bn
    return b.activate(y, behind)


def _init(behind: str | None) -> str | None:
    """The initializer of weights whose product goes through leaky ReLU."""
    return "he_normal" if behind == "leaky" else None


def _shared(b: Builder, *new: Layer | None) -> tuple[Any, ...]:
    """The layers whose weights this section uses, too: those of an earlier section with the same
    options."""
    index = b.number(b.section.integer("share_index", None, -MOST), "share_index")
    known = b.convolutions.get(index, ())
    if [layer and layer.config() | {"name": None} for layer in known] != [
            layer and layer.config() for layer in new]:
        raise b.section.wrong("share_index to name a [convolutional] with these options",
                              "share_index")
    return known


def _store_norm(b: Builder, bn: Layer, units: int) -> None:
    b.store("biases", bn, "beta", (units,))
    _store_statistics(b, bn, units)


def _store_statistics(b: Builder, bn: Layer, units: int) -> None:
    for what, name in (("scales", "gamma"), ("means", "mean"), ("variances", "var")):
        b.store(what, bn, name, (units,))


def connected(b: Builder) -> Node:
    s = b.section
    units, normalized = s.integer("output", 1, 1), bool(s.integer("batch_normalize", 0))
    fused, behind = b.split_activation("logistic")
    linear = Linear(units, bias=not normalized, activation=None if normalized else fused,
                    init=_init(behind))
    y = b.use(linear, "linear", b.as_vector(b.value))
    bn = BatchNorm1d(momentum=MOMENTUM, eps=EPS, activation=fused) if normalized else None
    if bn is None:
        b.store("biases", linear, "b", (units,))
    else:
        y = b.use(bn, "bn", y)
        b.store("biases", bn, "beta", (units,))
    b.store("weights", linear, "W", linear.W.shape, matrix=True)
    if bn is not None:
        _store_statistics(b, bn, units)
    return b.activate(y, behind)


def local(b: Builder) -> Node:
    s = b.section
    filters, size = s.integer("filters", 1, 1), s.integer("size", 1, 1)
    pad = s.integer("pad", 0)
    fused, behind = b.split_activation("logistic")
    if pad and (pad != 1 or size != 3):
        raise s.wrong("pad=1 with size=3, the only padding for which the size of Darknet's output "
                      "fits", "pad")
    layer = LocallyConnected2d(filters, size, stride=s.integer("stride", 1, 1), padding=pad,
                               activation=fused, init=_init(behind))
    y = b.use(layer, "local", b.as_map(b.value))
    b.store("biases", layer, "b", y.shape, (1, 2, 0))
    b.store("weights", layer, "W", layer.W.shape)
    return b.activate(y, behind)


def batchnorm(b: Builder) -> Node:
    layer = (BatchNorm2d if len(b.value.shape) == 3 else BatchNorm1d)(momentum=MOMENTUM, eps=EPS)
    y = b.use(layer, "bn", b.value)
    _store_norm(b, layer, y.shape[0])
    return y


# --- layers without weights -----------------------------------------------------------------------

def _window(b: Builder) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """Size, stride and padding of pooling. The padding is a total, size - 1 by default: half of it,
    rounded down, is before the first row and column."""
    s = b.section
    stride = s.integer("stride", 1, 1)
    size = s.integer("size", stride, 1)
    padding = s.integer("padding", size - 1)
    before, after = padding // 2, padding - padding // 2
    return ((size, size), (s.integer("stride_y", stride, 1), s.integer("stride_x", stride, 1)),
            (before, after, before, after))


def maxpool(b: Builder) -> Node:
    size, stride, padding = _window(b)
    return b.use(MaxPool2d(size, stride=stride, padding=padding), "pool", b.as_map(b.value))


def local_avgpool(b: Builder) -> Node:
    size, stride, padding = _window(b)
    return b.use(AvgPool2d(size, stride=stride, padding=padding, count_include_pad=False), "pool",
                 b.as_map(b.value))


def avgpool(b: Builder) -> Node:
    return b.use(GlobalAvgPool2d(), "pool", b.as_map(b.value))


def upsample(b: Builder) -> Node:
    return b.use(Upsample2d(b.section.integer("stride", 2, 1)), "upsample", b.as_map(b.value))


def reorg(b: Builder) -> Node:
    """Blocks of pixels become channels, in an order of Darknet's own: it reads the memory of the
    maps (C, H, W) as if they were maps (C / r^2, H r, W r)."""
    r = b.section.integer("stride", 1, 1)
    x = b.as_map(b.value)
    C, H, W = x.shape
    if b.section.integer("reverse", 0):
        return b.use(PixelShuffle(r, "DCR"), "reorg", x)
    if C % (r * r) or H % r or W % r:
        raise b.section.wrong("stride^2 to divide the channels, and stride the rows and columns, "
                              f"of {x.shape}", "stride")
    y = b.use(Reshape((C // (r * r), H * r, W * r)), "read", x)
    y = b.use(PixelUnshuffle(r, "DCR"), "reorg", y)
    return b.use(Reshape((C * r * r, H // r, W // r)), "written", y)


def reorg3d(b: Builder) -> Node:
    r, reverse = b.section.integer("stride", 1, 1), b.section.integer("reverse", 0)
    return b.use((PixelShuffle if reverse else PixelUnshuffle)(r, "DCR"), "reorg",
                 b.as_map(b.value))


def softmax(b: Builder) -> Node:
    s = b.section
    groups, temperature = s.integer("groups", 1, 1), s.number("temperature", 1)
    if s.integer("spatial", 0):
        return b.use(Softmax(0, temperature), "softmax", b.as_map(b.value))
    x = b.as_vector(b.value)
    if groups == 1:
        return b.use(Softmax(0, temperature), "softmax", x)
    if len(x.shape) > 1:
        raise s.wrong("groups=1 for a sequence", "groups")
    if x.shape[0] % groups:
        raise s.wrong(f"groups to divide the {x.shape[0]} inputs", "groups")
    y = b.use(Softmax(1, temperature), "softmax", b.use(Reshape((groups, -1)), "groups", x))
    return b.use(Flatten(), "flat", y)


def dropout(b: Builder) -> Node:
    s = b.section
    if "probability" not in s:      # 0.5 in the first Darknet, 0.2 in later ones
        raise s.wrong("probability to be given, because Darknets have different defaults",
                      "probability")
    return b.use(Dropout(s.number("probability")), "dropout", b.value)


def crop(b: Builder) -> Node:
    """The middle, as in a prediction; and 2 x - 1, if not noadjust=1."""
    s = b.section
    rows, columns = s.integer("crop_height", None, 1), s.integer("crop_width", None, 1)
    y = b.as_map(b.value)
    _, H, W = y.shape
    if rows > H or columns > W:
        raise s.wrong(f"a crop of at most {H}x{W}", "crop_height" if rows > H else "crop_width")
    if (rows, columns) != (H, W):
        top, left = (H - rows) // 2, (W - columns) // 2
        y = b.use(Crop2d((top, H - rows - top, left, W - columns - left)), "crop", y)
    return y if s.integer("noadjust", 0) else b.use(Rescale(0.5, 0.5), "rescale", y)


def activation(b: Builder) -> Node:
    return b.activate(b.value, b.activation("linear"))


def cost(b: Builder) -> Node:
    """A loss, which a prediction does not compute."""
    return b.value
