"""Checks of arguments: one check for each kind of argument.

A check returns the value in its plain form (an int, a float, a bool, ...) or raises an error in the
library's form: `Who: expected X. Received: name=value.` Checks run in constructors and in functions
that users call, never in a training step. The checks that the backends need too are in
xpnet/backends/arguments.py, those of windows in xpnet/backends/window.py.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.backends.arguments import LARGEST as LARGEST
from xpnet.backends.arguments import bare as bare
from xpnet.backends.arguments import expect_choice as expect_choice
from xpnet.backends.arguments import expect_flag as expect_flag
from xpnet.backends.arguments import expect_integer as expect_integer
from xpnet.backends.arguments import is_integer as is_integer
from xpnet.backends.arguments import nearest as nearest
from xpnet.backends.arguments import perhaps as perhaps
from xpnet.backends.arguments import shown as shown
from xpnet.backends.arguments import wrong as wrong
from xpnet.hints import hinted

MOST_AXES = 32  # of a sample: NumPy's arrays have 64 at most
MOST_DIFFERENCES = 4  # that an error names
LONGEST_NAME = 1000  # characters of the name of a class
PREDICT, TRAIN, SAMPLE = "predict", "train", "sample"  # modes; SAMPLE: a prediction with dropout on
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them


def is_number(value: object) -> bool:
    """Whether `value` is a finite real number, and neither a bool nor an array."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def expect_number(who: str, name: str, value: Any, least: float = -math.inf,
                  below: float = math.inf) -> float:
    """A finite number, `least` <= value < `below`."""
    if not is_number(value) or not least <= value < below:
        kind = "a finite number" if least == -math.inf else f"a number, {least:g} or larger"
        bounds = f", below {below:g}" if below < math.inf else ""
        raise wrong(who, f"{name} to be {kind}{bounds}", name, value)
    return float(value)


def expect_positive(who: str, name: str, value: Any) -> float:
    """A finite number above 0."""
    if not is_number(value) or not value > 0:
        raise wrong(who, f"{name} to be a number above 0", name, value)
    return float(value)


def expect_share(who: str, name: str, value: Any) -> float:
    """A number from 0 to 1, below 1."""
    if not is_number(value) or not 0 <= value < 1:
        raise wrong(who, f"{name} to be a number from 0 to 1, below 1", name, value)
    return float(value)


def expect_label(who: str, name: str, value: Any) -> int | None:
    """A class number with a special meaning, such as `ignore_index`: an int, or None."""
    if value is not None and not is_integer(value):
        raise wrong(who, f"{name} to be None or an int", name, value)
    return None if value is None else int(value)


def expect_name(who: str, name: str, value: Any) -> str | None:
    """A name: a string that is not empty, or None."""
    if value is not None and not (isinstance(value, str) and value):
        raise wrong(who, f"{name} to be None or a string that is not empty", name, value)
    return None if value is None else str(value)


def expect_function(who: str, name: str, value: Any, what: str) -> Callable[..., Any]:
    """A function; `what` is how the error calls its arguments."""
    if not callable(value):
        raise TypeError(str(wrong(who, f"{name} to be a function of {what}", name, value)))
    return value


def items(value: Any) -> list[Any] | None:
    """The elements of a list, a tuple or an array of one axis; None for anything else."""
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim == 1 and not isinstance(value, np.ma.MaskedArray) else None
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return list(value)
    return None


def is_plain_name(value: Any) -> bool:
    """Whether a name can be shown in one line: a string, not empty, without control characters."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and not CONTROL.search(value)


def expect_class_names(who: str, classes: Any, name: str = "classes") -> tuple[str, ...]:
    """Names of classes as a tuple; `name` is that of the argument."""
    names = items(classes)
    if not names or not all(map(is_plain_name, names)) or len({*names}) < len(names):
        raise wrong(who, f"{name} to be names, all different, each in one line of at most "
                    f"{LONGEST_NAME} characters", name, classes)
    return tuple(map(str, names))


def expect_no_mask(who: str, a: Any) -> None:
    """Raise ValueError if elements of an array, or of a list of arrays, are masked: the mask would
    be lost."""
    arrays = a if isinstance(a, list | tuple) else (a,)
    if any(isinstance(item, np.ma.MaskedArray) and np.ma.is_masked(item) for item in arrays):
        kind = "masked array" if np.ma.isMA(a) else f"{type(a).__name__} of masked arrays"
        raise ValueError(f"{who}: expected an array without masked elements; a.filled(value) "
                         f"gives them a value. Received: a {kind}.")


def rows_of(value: Any) -> list[Any]:
    """The rows of an array of two axes; an empty list for anything else."""
    return list(value) if isinstance(value, np.ndarray) and value.ndim == 2 else []


def expect_instance(who: str, name: str, value: Any, kind: type | tuple[type, ...],
                    what: str) -> Any:
    """An object of a class; `what` is how the error calls it, e.g. "a Loss"."""
    if not isinstance(value, kind):
        raise TypeError(str(wrong(who, f"{name} to be {what}", name, value)))
    return value


def expect_named(who: str, what: str, value: Any, kind: type,
                 table: Mapping[str, Callable[[], Any]]) -> Any:
    """An object of a class, or the one that `table` makes for this name, with default settings.

    `what` is how the error calls it, e.g. "a Loss".
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value in table:
        return table[value]()
    names = ", ".join(table) + perhaps(value, table)
    raise ValueError(f"{who}: expected {what} or one of {names}. Received: {shown(value)}.")


def real_array(a: Any, who: str) -> np.ndarray:
    """`a` as a NumPy array of real numbers. Raises ValueError or TypeError for anything else."""
    expect_no_mask(who, a)
    if a is None:
        raise TypeError(f"{who}: expected real numbers. Received: None.")
    kind = type(a).__name__
    try:
        a = np.asarray(a)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(f"{who}: expected an array of numbers. Received: {kind} "
                         f"({error}).") from error
    if a.dtype.kind not in "buif":
        names = (a.dtype.kind in "US"
                 or a.dtype.kind == "O" and a.size > 0 and isinstance(a.flat[0], str))
        remedy = ("; classes, y = np.unique(names, return_inverse=True) turns names into numbers"
                  if who.endswith("targets") and names else "")
        raise TypeError(f"{who}: expected real numbers. Received: an array of dtype "
                        f"{a.dtype}{remedy}.")
    return a


def shape_or_type(value: Any) -> str:
    """How an error shows what a method returned: the shape of an array, the type of anything else.
    """
    return f"shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__


def not_finite(a: Any, dtype: Any = None,
               to_numpy: Callable[[Any], np.ndarray] = np.asarray) -> str:
    """Describe the values of `a` that are not finite in `dtype`; "" if all are finite.

    The values are judged after the cast: 1e39 is finite in float64 and infinite in float32.
    """
    if a.dtype.kind != "f" or a.size == 0:
        return ""
    with np.errstate(all="ignore"):
        ends = np.array([to_numpy(a.min()), to_numpy(a.max())])  # a NaN is both
        cast = ends.astype(dtype or ends.dtype)
    if np.isfinite(cast).all():
        return ""
    if not np.isfinite(ends).all():
        return "NaN or infinity among them"
    return f"{ends[~np.isfinite(cast)][0]:g} among them, which is infinite in {cast.dtype}"


def finite_array(a: Any, who: str, dtype: Any = None) -> np.ndarray:
    """`a` as a NumPy array of real numbers that are finite, also after a cast to `dtype`. Raises
    ValueError or TypeError for anything else."""
    a = real_array(a, who)
    received = not_finite(a, dtype)
    if received:
        raise ValueError(f"{who}: expected finite numbers. Received: {received}.")
    return a


DTYPES = np.dtype(np.float32), np.dtype(np.float64)


def expect_dtype(who: str, dtype: Any) -> np.dtype:
    """The dtype that a network computes with: float32 or float64, as NumPy's name, class or
    object."""
    try:
        found = np.dtype(dtype) if isinstance(dtype, str | type | np.dtype) else None
    except (TypeError, ValueError):
        found = None
    if found is None or found not in DTYPES:  # NumPy takes None for float64
        raise wrong(who, "dtype float32 or float64", "dtype", dtype)
    return found


def expect_seed(who: str, seed: Any) -> int:
    """A seed of random numbers."""
    return expect_integer(who, "seed", seed, 0, 2**64 - 1)


def expect_shape(who: str, expected: str, shape: Any) -> tuple[int, ...]:
    """The shape of one sample: ints, 1 or larger, without the batch axis."""
    sizes = items(shape)
    if not sizes or len(sizes) > MOST_AXES or not all(is_integer(size, 1) for size in sizes):
        raise ValueError(f"{who}: expected {expected}. Received: {shown(shape)}.")
    return tuple(map(int, sizes))


def expect_sides(who: str, size: Any, most: int) -> tuple[int, int]:
    """(H, W) of an image, from such a pair or from one int for both."""
    sides = [size, size] if is_integer(size) else items(size)
    if not sides or len(sides) != 2 or not all(is_integer(side, 1, most) for side in sides):
        raise wrong(who, f"size to be a number of pixels from 1 to {most}, or (H, W)", "size", size)
    return int(sides[0]), int(sides[1])


def different_facts(facts: Mapping[str, Any], wanted: Mapping[str, Any], where: str = ""
                    ) -> list[str]:
    """For each name whose values differ: "batch_size 20 instead of 10", or with where=" on rank 1"
    "batch_size 20 on rank 1 instead of 10"."""
    return [f"{name} {shown(facts.get(name))}{where} instead of {shown(wanted.get(name))}"
            for name in sorted(facts.keys() | wanted.keys())
            if facts.get(name) != wanted.get(name)]


def listed_differences(found: Sequence[str]) -> str:
    """The first differences and how many more there are, for an error."""
    more = [f"and {len(found) - MOST_DIFFERENCES} more"] * (len(found) > MOST_DIFFERENCES)
    return ", ".join([*found[:MOST_DIFFERENCES], *more])


def warn_caller(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """Warn at the line outside xpnet that called the library, however deep the call is."""
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == "xpnet":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def described(thing: object) -> str:
    """The call of the constructor that makes an object like this one: Conv2d(8, 3, stride=2).

    Arguments that have their default are left out, and so are those that the object does not keep
    in an attribute of the same name.
    """
    arguments = []
    for p in inspect.signature(type(thing)).parameters.values():
        if p.name not in vars(thing) and not hasattr(type(thing), p.name):
            continue
        value = getattr(thing, p.name, p.default)
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD:
            arguments.append(_brief(value))
        elif not _equal(value, p.default):
            arguments.append(f"{p.name}={_brief(value)}")
    return f"{type(thing).__name__}({', '.join(arguments)})"


def _brief(value: Any) -> str:
    """An argument for `described`; a function by its name."""
    if inspect.isfunction(value):
        return str(value.__qualname__).partition(".<")[0]
    return shown(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _equal(value: Any, default: Any) -> bool:
    """Whether an argument has its default; 3 and (3, 3) are the same kernel size."""
    if isinstance(value, tuple) and value and is_number(default):
        return all(_equal(one, default) for one in value)
    plain = bool, int, float, str, tuple, type(None)
    return value is default or bool(isinstance(value, plain) and value == default)


class Checked:
    """Base class of objects with settings: the checks as methods, whose errors name the object."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__init__ = hinted(cls.__init__)     # type: ignore[method-assign]

    @property
    def who(self) -> str:
        """How errors name the object."""
        return type(self).__name__

    def __repr__(self) -> str:
        return described(self)

    def expect_flag(self, name: str, value: Any) -> bool:
        return expect_flag(self.who, name, value)

    def expect_integer(self, name: str, value: Any, least: int = 1, most: int = LARGEST) -> int:
        return expect_integer(self.who, name, value, least, most)

    def expect_number(self, name: str, value: Any, least: float = -math.inf,
                      below: float = math.inf) -> float:
        return expect_number(self.who, name, value, least, below)

    def expect_positive(self, name: str, value: Any) -> float:
        return expect_positive(self.who, name, value)

    def expect_share(self, name: str, value: Any) -> float:
        return expect_share(self.who, name, value)

    def expect_label(self, name: str, value: Any) -> int | None:
        return expect_label(self.who, name, value)

    def expect_choice(self, name: str, value: Any, choices: Iterable[Any]) -> Any:
        return expect_choice(self.who, name, value, choices)
