"""What is known without samples: constants, and arithmetic with shapes.

The size of the batch is not known. In shapes it stands as a `Batch`, in arrays of objects.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.nodes import Operation
from xpnet.io.onnx.read import MOST_AXES

MOST_MADE = 1 << 24         # elements of an array that is made here, and takes memory
MOST_ELEMENTS = 1 << 31     # of a view that repeats one number, which takes none
MOST_BYTES = 48 << 20       # of what is made of a file, besides six times its size
TEMPORARY = 3               # arrays that are needed to compute one, itself included
MOST_INTEGERS = 1 << 12     # of axes and other settings
MOST_SIZES = 1 << 12        # of arrays with the number of samples
LARGEST = 1 << 63
# ONNX's numbers of types
CASTS = {1: "f4", 2: "u1", 3: "i1", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f4", 11: "f8",
         12: "u4", 13: "u8", 16: "f4"}
Function = Callable[..., Any]       # of an operation and arrays (None for an input left out)


class Batch:
    """The number of samples, times a number."""

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def __mul__(self, other: Any) -> Batch:
        if isinstance(other, Batch):
            raise UnsupportedError("it multiplies the number of samples by itself")
        return Batch(self.times * int(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, Batch) and self.times % other.times == 0:
            return self.times // other.times
        if not isinstance(other, Batch) and other and self.times % int(other) == 0:
            return Batch(self.times // int(other))
        raise UnsupportedError("it divides the number of samples")

    __truediv__ = __floordiv__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and other.times == self.times

    __hash__ = None         # type: ignore[assignment]

    def __repr__(self) -> str:
        return "N" if self.times == 1 else f"{self.times} N"


class Room:
    """The memory that may be taken by what is made of a file: arrays that are computed from its
    constants, parameters, and the gradients of these.

    A file of float16 needs six times its size: its numbers become float32, and so do parameters and
    gradients.

    Args:
        size: of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self.left = MOST_BYTES + 6 * size

    def expect(self, size: int) -> None:
        """Raise UnsupportedError if there is no room for this many bytes."""
        if size > self.left:
            raise UnsupportedError(f"it takes {size:,} bytes of memory, more than a file of this "
                                   "size may")

    def take(self, size: int) -> None:
        """Count bytes that are kept. Raises UnsupportedError if there is no room for them."""
        self.expect(size)
        self.left -= size


def new_bytes(results: list[np.ndarray], given: list[np.ndarray]) -> int:
    """The memory of new arrays; views of `given` take none."""
    return sum(array.nbytes for array in results if 0 not in array.strides
               and not any(np.may_share_memory(array, one) for one in given))


def repeats(array: np.ndarray) -> bool:
    """Whether this is a large view that repeats one number, which must not become an array."""
    return 0 in array.strides and array.size > MOST_MADE


def integers(array: np.ndarray, what: str) -> list[int]:
    """An array as ints. Raises UnsupportedError if the number of samples is among them."""
    if array.size > MOST_INTEGERS:
        raise UnsupportedError(f"{what} has {array.size} numbers")
    found = array.reshape(-1).tolist()
    if not all(isinstance(item, int | float) and item == int(item) for item in found):
        raise UnsupportedError(f"{what} depends on the number of samples")
    return [int(item) for item in found]


def made(shape: Any, most: int = MOST_MADE) -> tuple[int, ...]:
    """A shape for a new array, with 1 for the number of samples: such arrays are broadcast."""
    if np.size(shape) > MOST_AXES:
        raise UnsupportedError(f"it makes an array of {np.size(shape)} axes")
    sizes = [1 if isinstance(n, Batch) else int(n) for n in np.reshape(shape, -1).tolist()]
    if any(size < 0 for size in sizes) or math.prod(sizes) > most:
        raise UnsupportedError(f"it makes an array of shape {sizes}")
    return tuple(sizes)


def elementwise(function: Callable[[Any, Any], Any]) -> Function:
    def fold(operation: Operation, a: np.ndarray, b: np.ndarray) -> Any:
        if np.broadcast_shapes(a.shape, b.shape) not in (a.shape, b.shape):
            made(np.broadcast_shapes(a.shape, b.shape))
        result = function(a, b)
        return result if result.dtype == object else result.astype(np.result_type(a, b), copy=False)
    return fold


def comparison(function: Callable[[Any, Any], Any]) -> Function:
    return lambda operation, a, b: np.asarray(function(a, b), bool)


def divide(a: Any, b: Any) -> Any:
    """Integers are rounded towards 0, and stay integers: above 2^53 a float would not be exact."""
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise UnsupportedError("it divides an integer by 0")
    quotient = a // b
    if object in (a.dtype, b.dtype):        # the number of samples, which divides exactly
        return quotient
    return quotient + ((quotient < 0) & (quotient * b != a))


def modulo(operation: Operation, a: np.ndarray, b: np.ndarray) -> Any:
    """The remainder has the sign of b, or with the attribute fmod that of a."""
    if b.dtype.kind in "iu" and not np.all(b):
        raise UnsupportedError("it divides an integer by 0")
    return elementwise(np.fmod if operation.attributes.get("fmod", 0) else np.mod)(operation, a, b)


def constant(operation: Operation) -> np.ndarray:
    (name, value), = operation.attributes.items()
    kind = np.float32 if "float" in name else np.int64 if "int" in name else None
    if "string" in name or value is None:
        raise UnsupportedError("it is not a number")
    return np.asarray(value, kind)


def constant_of_shape(operation: Operation, shape: np.ndarray) -> np.ndarray:
    value = operation.attributes.get("value", np.zeros(1, np.float32))
    return np.broadcast_to(value.reshape(-1)[0], made(shape, MOST_ELEMENTS))


def cast(operation: Operation, x: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Shapes stay exact; real numbers of few bits become float32."""
    if x.dtype == object:
        return x
    to = CASTS.get(operation.attributes.get("to", 0)) if like is None else like.dtype
    if to is None:
        raise UnsupportedError("it casts to another type of number")
    return x.astype(to)


def gather(operation: Operation, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(x, indices.astype(np.int64), axis=operation.attributes.get("axis", 0))


def slices(shape: tuple[int, ...], starts: Any, ends: Any, axes: Any = None, steps: Any = None
           ) -> list[slice]:
    """A slice for each axis, from ONNX's inputs."""
    firsts, lasts = integers(starts, "its start"), integers(ends, "its end")
    along = integers(axes, "its axes") if axes is not None else [*range(len(firsts))]
    strides = integers(steps, "its steps") if steps is not None else [1] * len(firsts)
    found = [slice(None)] * len(shape)
    for axis, first, last, step in zip(along, firsts, lasts, strides, strict=True):
        # below -size, Python's slice stops before the first element, too
        low = -shape[axis] - 1
        found[axis] = slice(first, None if step < 0 and last <= low else last, step)
    return found


def cut(operation: Operation, x: np.ndarray, *more: Any) -> np.ndarray:
    return x[tuple(slices(x.shape, *more))]


def squeeze(operation: Operation, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.squeeze(x, None if axes is None else tuple(integers(axes, "its axes")))


def unsqueeze(operation: Operation, x: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.expand_dims(x, tuple(integers(axes, "its axes")))


def reshape(operation: Operation, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    sizes = integers(shape, "its shape")
    if not operation.attributes.get("allowzero", 0):
        sizes = [x.shape[axis] if n == 0 else n for axis, n in enumerate(sizes)]
    return x.reshape(sizes)


def expand(operation: Operation, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    sizes = made(shape, MOST_ELEMENTS)
    return np.broadcast_to(x, made(np.broadcast_shapes(x.shape, sizes), MOST_ELEMENTS))


def arange(operation: Operation, start: np.ndarray, limit: np.ndarray, delta: np.ndarray
           ) -> np.ndarray:
    first, last, step = (integers(a, "its range")[0] for a in (start, limit, delta))
    made([max(0, -((first - last) // step))] if step else [-1])
    return np.arange(first, last, step)


def split(operation: Operation, x: np.ndarray, sizes: np.ndarray | None = None) -> list[np.ndarray]:
    axis, count = operation.attributes.get("axis", 0), len(operation.outputs)
    each = -(-x.shape[axis] // count)
    stops = (np.cumsum(integers(sizes, "its parts"))[:-1] if sizes is not None
             else range(each, x.shape[axis], each))
    return np.split(x, list(stops), axis)


def reduction(function: Callable[..., Any]) -> Function:
    def fold(operation: Operation, x: np.ndarray, axes: np.ndarray | None = None) -> Any:
        along = None if axes is None else tuple(integers(axes, "its axes"))
        return np.asarray(function(x, axis=along,
                                   keepdims=bool(operation.attributes.get("keepdims", 1))))
    return fold


def unary(function: Callable[[Any], Any]) -> Function:
    return lambda operation, x: np.asarray(function(x), x.dtype)


FOLD: dict[str, Function] = {
    "Constant": constant, "ConstantOfShape": constant_of_shape, "Cast": cast, "CastLike": cast,
    "Identity": lambda operation, x: x, "Gather": gather, "Slice": cut, "Squeeze": squeeze,
    "Unsqueeze": unsqueeze, "Reshape": reshape, "Expand": expand, "Range": arange, "Split": split,
    "Shape": lambda operation, x: np.array(
        x.shape[operation.attributes.get("start", 0):operation.attributes.get("end")], np.int64),
    "Size": lambda operation, x: np.array(x.size),
    "Concat": lambda operation, *xs: np.concatenate(xs, operation.attributes["axis"]),
    "Transpose": lambda operation, x: x.transpose(operation.attributes.get("perm")),
    "Flatten": lambda operation, x: x.reshape(
        math.prod(x.shape[:operation.attributes.get("axis", 1)]), -1),
    "Add": elementwise(operator.add), "Sub": elementwise(operator.sub),
    "Mul": elementwise(operator.mul), "Div": elementwise(divide), "Pow": elementwise(np.power),
    "Mod": modulo, "Min": elementwise(np.minimum), "Max": elementwise(np.maximum),
    "Equal": comparison(operator.eq), "Greater": comparison(operator.gt),
    "Less": comparison(operator.lt), "And": comparison(np.logical_and),
    "Or": comparison(np.logical_or), "Not": lambda operation, x: ~x,
    "Where": lambda operation, condition, a, b: np.where(condition, a, b),
    "Neg": unary(np.negative), "Abs": unary(np.abs), "Sqrt": unary(np.sqrt),
    "Reciprocal": unary(np.reciprocal), "Exp": unary(np.exp), "Log": unary(np.log),
    "Floor": unary(np.floor), "Ceil": unary(np.ceil), "ReduceProd": reduction(np.prod),
    "ReduceSum": reduction(np.sum), "ReduceMean": reduction(np.mean),
    "ReduceMax": reduction(np.max), "ReduceMin": reduction(np.min),
}


COPIES = "Cast", "CastLike", "Reshape", "Flatten", "Concat", "Gather"
VIEWS = ("Constant", "ConstantOfShape", "Identity", "Squeeze", "Unsqueeze", "Expand", "Split",
         "Shape", "Size", "Transpose", "Slice")


def bytes_of(operation: Operation, arrays: list[np.ndarray]) -> int:
    """An upper limit of the memory that is needed to compute the outputs of an operation."""
    kind = operation.kind
    if kind in VIEWS or not arrays:
        return 0
    if kind in ("Reshape", "Flatten"):
        elements = 0 if arrays[0].flags.c_contiguous else arrays[0].size
    elif kind == "Concat":
        elements = sum(array.size for array in arrays)
    elif kind == "Gather":
        x, indices = arrays
        elements = indices.size * x.size // max(1, x.shape[operation.attributes.get("axis", 0)])
    elif kind == "Range":
        start, stop, step = (float(array.reshape(-1)[0]) for array in arrays)
        elements = max(0, math.ceil((stop - start) / step)) if step else 0
    elif kind.startswith("Reduce") or kind == "CastLike":
        elements = arrays[0].size
    else:
        elements = math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    item = max(array.itemsize for array in arrays)
    if kind == "Cast":
        item = np.dtype(CASTS.get(operation.attributes.get("to", 0), "f8")).itemsize
    return elements * item * (1 if kind in COPIES else TEMPORARY)


def fold(operation: Operation, arrays: list[np.ndarray | None], room: Room) -> list[np.ndarray]:
    """The outputs of an operation whose inputs are all known. Raises UnsupportedError."""
    if operation.kind not in FOLD:
        raise UnsupportedError("nothing here computes it with constants")
    while arrays and arrays[-1] is None:
        arrays = arrays[:-1]
    known = [a for a in arrays if a is not None]
    if any(map(repeats, known)):
        raise UnsupportedError("it makes an array of one repeated number")
    if operation.kind == "Pow" and any(a.dtype == object for a in known):
        raise UnsupportedError("nothing here computes it with the number of samples")
    try:
        room.expect(bytes_of(operation, known))
        with np.errstate(all="ignore"):
            found = FOLD[operation.kind](operation, *arrays)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise UnsupportedError(f"it cannot be computed ({' '.join(str(error).split())})") from error
    # NumPy returns an element of an array of objects, and not an array of no axes
    results = [np.asarray(one) for one in (found if isinstance(found, list) else [found])]
    room.take(new_bytes(results, known))
    sizes = [array for array in results if array.dtype == object]
    if any(array.size > MOST_SIZES or not all(map(_moderate, array.flat)) for array in sizes):
        raise UnsupportedError("its numbers are too large or too many")
    return results


def _moderate(size: Any) -> bool:
    """Whether a size has 64 bits: Python's ints have any number of them."""
    number = size.times if isinstance(size, Batch) else size
    return not isinstance(number, int) or -LARGEST <= number < LARGEST


def fold_constants(operations: list[Operation], constants: dict[str, np.ndarray], room: Room
                   ) -> list[Operation]:
    """The operations that depend on samples or on shapes; the results of the others are added to
    `constants`."""
    left = []
    for operation in operations:
        known = all(name in constants or not name for name in operation.inputs)
        if known and operation.kind in FOLD:
            try:
                results = fold(operation, [constants.get(name) for name in operation.inputs], room)
            except UnsupportedError:        # said when the layers are built
                left.append(operation)
                continue
            constants.update(zip(operation.outputs, results, strict=False))
        else:
            left.append(operation)
    return left
