"""Elementwise activations: each with its derivative, as functions of (xp, array, *constants).

A derivative is written with y = f(z) where it follows from the output (`of` is "y"), else with the input z (`of` is "z").
A NaN goes through every one of them. Those in FUSED are also part of the kernels that make z: products, convolutions,
batch normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Function = Callable[..., Any]

SCALE, SLOPE = 1.7159, 2.0 / 3.0    # LeCun et al. 1998, appendix A: f(1) = 1, f(-1) = -1


class Activation(NamedTuple):
    """An activation, its derivative, what the derivative is written with, and the constants that both take, by name."""

    forward: Function
    derivative: Function
    of: str = "y"
    constants: dict[str, float] = {}


def sigmoid(xp, z):
    """1 / (1 + exp(-z)), through tanh, which cannot overflow."""
    return 0.5 * xp.tanh(0.5 * z) + 0.5


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda xp, z: xp.maximum(z, 0), lambda xp, y: y > 0),
    "sigmoid": Activation(sigmoid, lambda xp, y: y * (1 - y)),
    "tanh": Activation(lambda xp, z: xp.tanh(z), lambda xp, y: 1 - y * y),
    "scaled_tanh": Activation(lambda xp, z: SCALE * xp.tanh(SLOPE * z), lambda xp, y: SCALE * SLOPE - (SLOPE / SCALE) * y * y),
}

FUSED = ("relu", "sigmoid", "tanh", "scaled_tanh")


def check(activation: str | None, who: str) -> str | None:
    """The name itself; an error where it is not one of the activations."""
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"{who}: expected activation None or one of {', '.join(ACTIVATIONS)}. Received: {activation!r}.")
    return activation


def of_input(activation: str | None) -> bool:
    """Whether the derivative is written with the input z, so that z has to be kept for it."""
    return activation is not None and ACTIVATIONS[activation].of == "z"


def forward(xp: Any, z: Any, activation: str, constants: tuple[float, ...] = ()) -> Any:
    """f(z), with the activation's own constants where none are given."""
    f = ACTIVATIONS[activation]
    return f.forward(xp, z, *(constants or f.constants.values()))


def derivative(xp: Any, y: Any, activation: str, constants: tuple[float, ...] = ()) -> Any:
    """f' where y, or z for those whose derivative is of z, is this."""
    f = ACTIVATIONS[activation]
    return f.derivative(xp, y, *(constants or f.constants.values()))
