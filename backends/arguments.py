"""Checks of arguments that the backends need too, and the form of every error about an argument.

An error is one line: `Who: expected X. Received: name=value.`
The checks that only layers, losses and networks need are in xpnet/checks.py.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np

TF32 = ("never", "convolutions", "always")  # in which operations a GPU may use TF32
LARGEST = 2**63 - 1  # the largest index of an array
LONGEST = 160  # characters of a value in an error message


class _Short(reprlib.Repr):
    """A short repr: long containers, strings and arrays are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 60, 100, 60

    def repr_int(self, x: int, level: int) -> str:
        # Python raises an error for more than 4300 digits.
        return f"an int of {x.bit_length()} bits" if x.bit_length() > 256 else repr(x)

    def repr_ndarray(self, x: np.ndarray, level: int) -> str:
        if x.size <= 6 and x.dtype.kind in "biuf":
            return repr(x)
        return f"an array of shape {x.shape} and dtype {x.dtype}"

    repr_MaskedArray = repr_ndarray  # reprlib looks for the name of the class


def shown(value: object) -> str:
    """repr of `value` for an error: one line of at most LONGEST characters."""
    try:
        text = _Short().repr(value)
    except Exception:  # a user's __repr__ may raise anything
        text = f"an instance of {type(value).__name__}"
    if "\n" in text:
        text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def bare(value: object) -> str:
    """A string without its quotes; any other value as errors show it."""
    return shown(value)[1:-1] if isinstance(value, str) else shown(value)


def wrong(who: str, expected: str, name: str, value: object) -> ValueError:
    """The error about the argument `name`: `Who: expected X. Received: name=value.`"""
    return ValueError(f"{who}: expected {expected}. Received: {name}={shown(value)}.")


def expect_flag(who: str, name: str, value: Any) -> bool:
    """Return True or False. Raises ValueError for anything else: the string "no" would count as
    true."""
    if not isinstance(value, bool | np.bool_):
        raise wrong(who, f"{name} to be True or False", name, value)
    return bool(value)


def is_integer(value: object, least: int = -LARGEST, most: int = LARGEST) -> bool:
    return (isinstance(value, int | np.integer) and not isinstance(value, bool)
            and bool(least <= value <= most))


def expect_integer(who: str, name: str, value: Any, least: int = 1, most: int = LARGEST) -> int:
    """Return an int from `least` to `most`. Raises ValueError for anything else, floats and bools
    too."""
    if not is_integer(value, least, most):
        too_large = isinstance(value, int) and value > most
        bounds = (f", {least} or larger" if most == LARGEST and not too_large
                  else f" from {least} to {_power(most)}")
        raise wrong(who, f"{name} to be an int{bounds}", name, value)
    return int(value)


def _power(n: int) -> str:
    """n as text, a large power of two less 1 as `2^k - 1`."""
    return f"2^{n.bit_length()} - 1" if n >= 2**32 - 1 and n & n + 1 == 0 else str(n)


def expect_choice(who: str, name: str, value: Any, choices: Iterable[Any]) -> Any:
    """Return the element of `choices` that equals `value` and has its type. Raises ValueError if
    there is none; the message lists the choices and the nearest one."""
    known = list(choices)
    for one in known:
        if (isinstance(value, type(one)) and isinstance(value, bool) == isinstance(one, bool)
            and value == one):
            return one
    if len(known) > 6:
        listed = (f"one of {', '.join(map(str, known))}"
                  + perhaps(value, [one for one in known if isinstance(one, str)]))
    else:
        *others, last = map(repr, known)
        listed = f"{', '.join(others)} or {last}" if others else last
    raise wrong(who, f"{name} to be {listed}", name, value)


def nearest(value: object, names: Iterable[str]) -> str | None:
    """The one of `names` that `value` probably misspells, in any case; None if there is none."""
    if not isinstance(value, str):
        return None
    plain = {name.lower().replace("_", "").replace("-", ""): name for name in names}
    found = difflib.get_close_matches(value[:60].lower().replace("_", "").replace("-", ""), plain,
                                      n=1, cutoff=0.7)
    return plain[found[0]] if found else None


def perhaps(value: object, names: Iterable[str]) -> str:
    """', perhaps "relu"' for an error if `value` probably misspells "relu"; "" if it misspells none
    of `names`."""
    near = nearest(value, names)
    return f', perhaps "{near}"' if near else ""
