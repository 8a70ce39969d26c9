"""The package onnx, which the extra `onnx` brings, and what a layer or an operator lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LISTED = 20         # layers or nodes that an error lists
LONGEST = 400       # characters about each
MOST_TEXT = 8000    # characters of an error


class UnsupportedError(Exception):
    """Why a layer cannot be written, or a node cannot be read."""


def library(who: str) -> Any:
    """The package onnx. Raises ImportError, which names the extra, if it is missing."""
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError(f"{who}: expected the package onnx. Received: {error}. "
                          'Remedy: pip install "xpnet[onnx]"') from error
    return onnx


def listed(reasons: Sequence[str]) -> str:
    """What could not be done, in one line of printable characters, whatever a file contains."""
    more = [f"and {len(reasons) - LISTED} more"] * (len(reasons) > LISTED)
    return printable("; ".join([*(f"{reason:.{LONGEST}}" for reason in reasons[:LISTED]), *more]))


def printable(text: str) -> str:
    """A text from a file, for an error."""
    return "".join(mark if mark.isprintable() else "?" for mark in text[:MOST_TEXT])
