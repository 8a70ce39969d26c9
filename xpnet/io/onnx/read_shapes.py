"""Layers that move, look up or interpolate elements from ONNX's operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.io.onnx.build import Reading, Value
from xpnet.io.onnx.fold import Batch, slices
from xpnet.io.onnx.interpolation import upsample_like
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.read_activations import Read

# --- views ----------------------------------------------------------------------------------------

def reshape(op: Reading) -> Value:
    value, wanted = op.value(), op.few(1, "shape")
    if not op.attribute("allowzero", 0):
        full = value.full_shape
        if any(n == 0 for n in wanted[len(full):]):
            raise UnsupportedError("its shape has more axes than its input where it has a 0")
        wanted = [full[axis] if isinstance(n, int | float) and n == 0 else n
                  for axis, n in enumerate(wanted)]
    shape, batch = new_shape(value, wanted, op.builder.batch)
    return op.viewed(value, shape, batch)


def new_shape(value: Value, wanted: Sequence[Any], size: int | None) -> tuple[tuple[int, ...], int]:
    """The shape of a sample and the position of the batch, for a shape in which one number may be
    -1. The batch is where the shape says N, or where -1 has to be N, or a number that is the size
    of the batch in the file. As many elements as before are in front of it."""
    elements, before = math.prod(value.shape), math.prod(value.shape[:value.batch])
    places = [axis for axis, n in enumerate(wanted) if isinstance(n, Batch)]
    if places:
        candidates = places if len(places) == 1 and wanted[places[0]].times == 1 else []
    else:
        numbers = size or 1
        same = [axis for axis, n in enumerate(wanted) if n == numbers]
        free = [axis for axis, n in enumerate(wanted) if n == -1]
        near = [axis for axis in same if axis == value.batch]
        # of a file with a batch of fixed size its number comes first, else -1
        candidates = [*near, *free, *same] if size is not None else [*free, *near, *same]
    for batch in candidates:
        rest = [n for axis, n in enumerate(wanted) if axis != batch]
        known = math.prod(n for n in rest if n != -1)
        if -1 in rest and known > 0 and elements % known == 0:
            rest = [elements // known if n == -1 else n for n in rest]
        if (math.prod(rest) == elements and all(n > 0 for n in rest)
                and math.prod(rest[:batch]) == before):
            return tuple(int(n) for n in rest), batch
    raise UnsupportedError(f"the shape {list(wanted)} mixes the batch with other axes of "
                           f"{value.full_shape}")


def flatten(op: Reading) -> Value:
    value, axis = op.batch_first(), op.attribute("axis", 1)
    axis = axis + value.axes if axis < 0 else axis
    if axis < 1 or math.prod(value.shape[:axis - 1]) != 1:
        raise UnsupportedError("it merges the batch with other axes")
    return op.viewed(value, (math.prod(value.shape),))


def squeeze(op: Reading) -> Value:
    value, axes = op.value(), op.ints(1, "axes")
    if axes is None:
        gone = {axis for axis, n in enumerate(value.shape) if n == 1}
    else:
        gone = {value.sample_axis(axis) for axis in axes}
    if any(value.shape[axis] != 1 for axis in gone):
        raise UnsupportedError("it removes an axis that is larger than 1")
    shape = tuple(n for axis, n in enumerate(value.shape) if axis not in gone)
    return op.viewed(value, shape, value.batch - sum(axis < value.batch for axis in gone))


def unsqueeze(op: Reading) -> Value:
    value, axes = op.value(), op.ints(1, "axes") or []
    total = value.axes + len(axes)
    new = {axis % total for axis in axes}
    if len(new) < len(axes):
        raise UnsupportedError("its axes name one twice")
    old = iter(value.full_shape)
    full = [1 if axis in new else next(old) for axis in range(total)]
    batch = next(axis for axis, n in enumerate(full) if isinstance(n, Batch))
    return op.viewed(value, tuple(full[:batch] + full[batch + 1:]), batch)


def transpose(op: Reading) -> Value:
    """The batch may move; the other axes are those of a sample."""
    value = op.value()
    perm = list(op.attribute("perm") or range(value.axes)[::-1])
    if sorted(perm) != [*range(value.axes)]:
        raise UnsupportedError(f"its perm does not have the {value.axes} axes of its input")
    axes = [value.sample_axis(axis) for axis in perm if axis != value.batch]
    batch = perm.index(value.batch)
    if axes == sorted(axes):
        return Value(value.node, value.shape, batch, value.name, value.integer)
    return op.permuted(value, axes, batch)


# --- parts ----------------------------------------------------------------------------------------

def part(op: Reading, value: Value, axis: int, start: int, stop: int, suffix: str = "") -> Value:
    """Elements start to stop - 1 along an axis of a sample."""
    if (start, stop) == (0, value.shape[axis]):
        return value
    return op.add(L.Slice(start, stop, axis=axis), value, suffix=suffix)


def cut(op: Reading) -> Value:
    value = op.value()
    full = tuple(n if isinstance(n, int) else 2**31 for n in value.full_shape)
    more = [op.array(number, "range") if op.given(number) else None for number in range(1, 5)]
    cuts = slices(full, *more)
    whole = cuts.pop(value.batch)
    if whole.indices(2**31) != (0, 2**31, 1):
        raise UnsupportedError("it takes a part of the batch")
    ranges = [range(n)[one] for one, n in zip(cuts, value.shape)]
    if any(len(taken) == 0 for taken in ranges):
        raise UnsupportedError("it takes no elements")
    steps = [taken.step if len(taken) > 1 else 1 for taken in ranges]
    if min(steps) < 0:
        raise UnsupportedError("it takes elements in reverse")
    suffixes = (f":{number}" if number else "" for number in range(len(steps)))
    if max(steps) > 1:
        value = _skipped(op, value, ranges, steps)
        ranges = [range(n) if step > 1 else taken
                  for n, step, taken in zip(value.shape, steps, ranges)]
    for axis, taken in enumerate(ranges):
        if len(taken) < value.shape[axis]:
            value = part(op, value, axis, taken[0], taken[-1] + 1, next(suffixes))
    return value


def _skipped(op: Reading, value: Value, ranges: Sequence[range], steps: Sequence[int]) -> Value:
    """Every second row, ...: all elements of rows and columns from the first one on."""
    for n, step, taken in zip(value.shape, steps, ranges):
        if step > 1 and (taken[0] >= step or len(taken) != len(range(taken[0], n, step))):
            raise UnsupportedError("it takes elements in steps, and not from the first to the last")
    if len(value.shape) != 3 or steps[0] > 1:
        raise UnsupportedError("it takes elements in steps of another axis than rows and columns")
    offset: Any = tuple(taken[0] if step > 1 else 0 for step, taken in zip(steps[1:], ranges[1:]))
    stride: Any = tuple(steps[1:])
    return op.add(L.SkipSampling2d(stride, offset=offset), value, suffix=":steps")


def split(op: Reading) -> list[Value]:
    value = op.value()
    axis, count = value.sample_axis(op.attribute("axis", 0)), len(op.operation.outputs)
    size, sizes = value.shape[axis], op.ints(1, "parts")
    if op.attribute("num_outputs", count) != count:
        raise UnsupportedError(f"its num_outputs is not {count}, the number of its outputs")
    if sizes is None:
        each = -(-size // count)
        sizes = [min(each, size - start) for start in range(0, size, each)]
    if sum(sizes) != size or len(sizes) < count:
        raise UnsupportedError(f"its parts are not {count} parts of {size} elements")
    stops = np.cumsum(sizes).tolist()
    return [part(op, value, axis, stop - n, stop, f":{number}")
            for number, (n, stop) in enumerate(zip(sizes, stops), 1)][:count]


def gather(op: Reading) -> Value:
    """Rows of a matrix for tokens; or neighbouring elements of a value."""
    if not isinstance(op.inputs[0], Value):
        return embedding(op)
    value, indices = op.value(), op.array(1, "indices")
    axis = value.sample_axis(op.attribute("axis", 0))
    if indices.ndim > 1 or not 0 < indices.size <= value.shape[axis]:
        raise UnsupportedError("its elements are not neighbours")
    op.expect_room(indices.size)
    taken = indices.reshape(-1) % value.shape[axis]
    start, stop = int(taken[0]), int(taken[0]) + len(taken)
    if not np.array_equal(taken, np.arange(start, stop)):
        raise UnsupportedError("its elements are not neighbours")
    found = part(op, value, axis, start, stop)
    if indices.ndim == 1:
        return found
    shape = found.shape[:axis] + found.shape[axis + 1:]
    return op.viewed(found, shape, value.batch - (axis < value.batch))


def embedding(op: Reading) -> Value:
    W, value = op.numbers(0, "matrix"), op.value(1)
    if W.ndim != 2 or op.attribute("axis", 0) != 0 or not value.integer:
        raise UnsupportedError("it looks up something else than rows of a matrix by tokens")
    found = op.add(L.Embedding(*W.shape), value, arrays={"W": W}, key=op.key(0))
    count = len(found.shape)
    return op.permuted(found, [*range(1, count), 0])        # the features are ONNX's last axis


def as_maps(op: Reading, value: Value) -> Value:
    """A signal (C, T) as maps of one row, (C, 1, T); maps as they are."""
    if len(value.shape) == 3:
        return value
    C, T = value.shape
    return op.viewed(value, (C, 1, T))


def as_signal(op: Reading, maps: Value) -> Value:
    """Maps of one row, (C, 1, T), as a signal (C, T)."""
    C, _, T = maps.shape
    return op.viewed(maps, (C, T))


# --- borders --------------------------------------------------------------------------------------

def pad(op: Reading) -> Value:
    value, mode = op.value(), op.attribute("mode", "constant")
    pads = op.ints(1, "pads") or []
    axes = op.ints(3, "axes") if op.given(3) else [*range(value.axes)]
    assert axes is not None
    around = [(0, 0)] * len(value.shape)
    for axis, before, after in zip(axes, pads[:len(axes)], pads[len(axes):], strict=True):
        if (before, after) != (0, 0):
            around[value.sample_axis(axis)] = before, after
    fill = op.number(2, "value") or 0.0
    if around[0][0] == 0 < around[0][1] and (mode, fill) == ("constant", 0.0):
        value = op.add(L.PadChannels(value.shape[0] + around[0][1]), value, suffix=(
            ":channels" if any(map(any, around[1:])) else ""))
        around[0] = 0, 0
    if not any(map(any, around)):
        return value
    if len(value.shape) == 1 and value.batch == 0:          # features, as a signal of one channel
        value = op.viewed(value, (1, *value.shape))
        found = _bordered(op, value, [(0, 0), *around], mode, fill)
        return op.viewed(found, found.shape[1:])
    return _bordered(op, value, around, mode, fill)


def _bordered(op: Reading, value: Value, around: Sequence[tuple[int, int]], mode: str, fill: float
              ) -> Value:
    """Maps or signals with a border, or without some of their elements."""
    if len(value.shape) not in (2, 3) or any(around[0]):
        raise UnsupportedError("it pads other axes than rows and columns or steps")
    rows = [(0, 0)] * (3 - len(around))
    sides: Any = tuple(n for pair in (*rows, *around[1:]) for n in pair)
    row = len(value.shape) == 2
    if row and mode == "constant" and fill == 0 and min(sides) >= 0:
        return op.add(L.ZeroPad1d(sides[2:]), value)
    maps = as_maps(op, value)
    if min(sides) < 0:
        cropping: Any = tuple(max(0, -n) for n in sides)
        maps = op.add(L.Crop2d(cropping), maps, suffix=":crop")
        sides = tuple(max(0, n) for n in sides)
    found = op.add(_border(mode, sides, fill), maps) if any(sides) else maps
    return as_signal(op, found) if row else found


def _border(mode: str, sides: Any, fill: float) -> Any:
    if mode == "constant":
        return L.ConstantPad2d(sides, fill) if fill else L.ZeroPad2d(sides)
    kinds: dict[str, Any] = {"reflect": L.ReflectionPad2d, "edge": L.ReplicationPad2d,
                             "wrap": L.CircularPad2d}
    if mode not in kinds:
        raise UnsupportedError(f"its mode is {mode}")
    return kinds[mode](sides)


# --- blocks and interpolation ---------------------------------------------------------------------

def blocks(layer: type[L.PixelShuffle] | type[L.PixelUnshuffle]) -> Read:
    """Channels become blocks of pixels, or the reverse."""
    def read(op: Reading) -> Value:
        return op.add(layer(op.attribute("blocksize"), op.attribute("mode", "DCR")),
                      op.batch_first(0, 3))
    return read


def resize(op: Reading) -> Value:
    value = op.batch_first(0, 2, 3)
    sizes: list[int] | None = None
    if op.kind == "Upsample":
        scales = op.few(1, "scales")
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor",
               "mode": op.attribute("mode", "nearest")}
        axes = [*range(value.axes)]
    else:
        # opset 10 has no region of interest
        scales_at = 1 if op.opset < 11 else 2
        how = dict(op.attributes)
        if op.opset < 11:
            how |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        axes = [axis % value.axes for axis in op.attribute("axes", range(value.axes))]
        given = op.given(scales_at) and op.array(scales_at, "scales").size > 0
        if given:
            scales = op.few(scales_at, "scales")
        else:
            sizes, scales = _sizes(op, value, axes, how), []
    by_axis = dict(zip(axes, scales if sizes is None else sizes, strict=True))
    rest = range(1, value.axes)
    if sizes is None:
        if by_axis.get(0, 1) != 1 or by_axis.get(1, 1) != 1:
            raise UnsupportedError("it changes the batch or the channels")
        factors = [by_axis.get(axis, 1.0) for axis in rest][1:]
        outs = [int(math.floor(n * s)) for n, s in zip(value.shape[1:], factors)]
    else:
        outs = [by_axis.get(axis, value.shape[axis - 1]) for axis in rest][1:]
        if by_axis.get(1, value.shape[0]) != value.shape[0]:
            raise UnsupportedError("it changes the channels")
        factors = [out / n for out, n in zip(outs, value.shape[1:])]
    if outs == [*value.shape[1:]]:
        return value
    row, maps = len(value.shape) == 2, as_maps(op, value)
    if row:
        outs, factors = [1, *outs], [1.0, *factors]
    layer = upsample_like(maps.shape[1:], outs, factors, how, op.builder.room)
    found = op.add(layer, maps)
    return as_signal(op, found) if row else found


def _sizes(op: Reading, value: Value, axes: list[int], how: dict[str, Any]) -> list[int]:
    """The sizes of the output along the axes; that of the batch is ignored."""
    wanted = op.few(3, "sizes")
    full = value.full_shape
    found = [1 if axis == value.batch else int(n) for axis, n in zip(axes, wanted, strict=True)]
    policy = how.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return found
    scales = [n / full[axis] for axis, n in zip(axes, found)]
    kept = (min if policy == "not_larger" else max)(scales)
    return [int(kept * full[axis] + 0.5) for axis in axes]


READ: dict[str, Read] = {
    "Reshape": reshape, "Flatten": flatten, "Squeeze": squeeze, "Unsqueeze": unsqueeze,
    "Transpose": transpose, "Slice": cut, "Split": split, "Gather": gather, "Pad": pad,
    "DepthToSpace": blocks(L.PixelShuffle), "SpaceToDepth": blocks(L.PixelUnshuffle),
    "Resize": resize, "Upsample": resize,
}
