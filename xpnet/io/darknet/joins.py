"""The sections that read the outputs of earlier layers: route, shortcut, scale_channels, sam."""

from __future__ import annotations

from xpnet.io.darknet.builder import Builder
from xpnet.layers import (
    Add,
    Concat,
    Multiply,
    PadChannels,
    Permute,
    SkipSampling2d,
    Slice,
    Upsample2d,
    WeightedSum,
)
from xpnet.node import Node

WEIGHTS = {"none": None, "per_feature": False, "per_layer": False, "per_channel": True}
NORMALIZATIONS = {"none": None, "relu": "relu", "avg_relu": "relu", "softmax": "softmax"}


def route(b: Builder) -> Node:
    """The channels of several layers, one after another; with groups a part of those of each."""
    s = b.section
    values, groups = b.read("layers"), s.integer("groups", 1, 1)
    part = s.integer("group_id", 0)
    if part >= groups:
        raise s.wrong(f"group_id below groups={groups}", "group_id")
    if any(len(value.shape) == 3 for value in values):
        values = [b.as_map(value) for value in values]
    if groups > 1:
        values = [_part(b, value, part, groups) for value in values]
    return values[0] if len(values) == 1 else b.use(Concat(), "route", *values)


def _part(b: Builder, value: Node, part: int, groups: int) -> Node:
    channels, rest = divmod(value.shape[0], groups)
    if rest:
        raise b.section.wrong(f"groups to divide the {value.shape[0]} channels of each layer",
                              "groups")
    return b.use(Slice(part * channels, (part + 1) * channels), "group", value)


def shortcut(b: Builder) -> Node:
    """The sum of the value before and those of other layers, weighted with weights_type."""
    s = b.section
    values = b.read("from")
    per_channel = WEIGHTS[s.choice("weights_type", "none", WEIGHTS)]
    rule = NORMALIZATIONS[s.choice("weights_normalization", "none", NORMALIZATIONS)]
    if any(len(value.shape) == 3 for value in (b.value, *values)):
        values = [b.as_map(value) for value in values]
        b.value = b.as_map(b.value)
    if len(values) == 1 and per_channel is None:
        values = [_fitting(b, values[0])]
    if per_channel is None:
        fused, behind = b.split_activation("linear")
        y = b.use(Add(activation=fused), "shortcut", b.value, *values)
        return b.activate(y, behind)
    layer = WeightedSum(per_channel=per_channel, normalization=rule)
    y = b.use(layer, "shortcut", b.value, *values)
    b.store("weights", layer, "w", layer.w.shape)
    return b.activate(y, b.activation("linear"))


def _fitting(b: Builder, value: Node) -> Node:
    """The value in the shape of the one before: every second, third, ... row and column if it has
    more of them, the first channels if it has more, and zeros for channels that it lacks."""
    if value.shape == b.value.shape or len(value.shape) != 3:
        return value
    C, H, W = b.value.shape
    stride = value.shape[1] // H
    if (stride * H, stride * W) != value.shape[1:]:
        raise b.section.wrong(f"from to name a layer whose rows and columns are a multiple of "
                              f"{H}x{W}", "from")
    if stride > 1:
        value = b.use(SkipSampling2d(stride), "skip", value)
    if value.shape[0] > C:
        return b.use(Slice(0, C), "first", value)
    return value if value.shape[0] == C else b.use(PadChannels(C), "channels", value)


def scale_channels(b: Builder) -> Node:
    """Another layer's maps, each times one number of the value before; with scale_wh=1 each pixel
    times one number."""
    s = b.section
    of, factors = _one(b), b.as_map(b.value)
    C, H, W = of.shape
    by_pixel = bool(s.integer("scale_wh", 0))
    expected = (1, H, W) if by_pixel else (C, 1, 1)
    if factors.shape != expected:
        raise s.wrong(f"a value of shape {expected} before it", received=f"shape {factors.shape}")
    if by_pixel and C > 1:              # (1, H, W) as (H, W, 1), repeated to (H, W, C)
        rows = b.use(Permute((1, 2, 0)), "rows", factors)
        factors = b.use(Permute((2, 0, 1)), "factors",
                        b.use(Upsample2d(size=(W, C)), "repeated", rows))
    if not by_pixel and (H, W) != (1, 1):
        factors = b.use(Upsample2d(size=(H, W)), "factors", factors)
    return b.activate(b.use(Multiply(), "scaled", factors, of), b.activation("linear"))


def sam(b: Builder) -> Node:
    """The value before, times that of another layer of the same shape."""
    of = _one(b)
    return b.activate(b.use(Multiply(), "scaled", b.as_map(b.value), of), b.activation("linear"))


def _one(b: Builder) -> Node:
    values = b.read("from")
    if len(values) != 1:
        raise b.section.wrong("from to name one layer", "from")
    return b.as_map(values[0])
