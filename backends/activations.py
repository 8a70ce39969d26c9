"""Activations whose derivative follows from their output, so that they can be fused into the pass that makes it.

Each is a pair of functions of (xp, array): forward f(z), and the derivative f'(z) written with y = f(z).
A NaN goes through every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Function = Callable[[Any, Any], Any]

SCALE, SLOPE = 1.7159, 2.0 / 3.0    # LeCun et al. 1998, appendix A: f(1) = 1, f(-1) = -1


def sigmoid(xp, z):
    """1 / (1 + exp(-z)), through tanh, which cannot overflow."""
    return 0.5 * xp.tanh(0.5 * z) + 0.5


FORWARD: dict[str, Function] = {
    "relu": lambda xp, z: xp.maximum(z, 0),
    "sigmoid": sigmoid,
    "tanh": lambda xp, z: xp.tanh(z),
    "scaled_tanh": lambda xp, z: SCALE * xp.tanh(SLOPE * z),
}

DERIVATIVE: dict[str, Function] = {
    "relu": lambda xp, y: y > 0,
    "sigmoid": lambda xp, y: y * (1 - y),
    "tanh": lambda xp, y: 1 - y * y,
    "scaled_tanh": lambda xp, y: SCALE * SLOPE - (SLOPE / SCALE) * y * y,
}


def check(activation: str | None, who: str) -> str | None:
    """The name itself; an error where it is not one of the fused activations."""
    if activation is not None and activation not in FORWARD:
        raise ValueError(f"{who}: expected activation None or one of {', '.join(FORWARD)}. Received: {activation!r}.")
    return activation
