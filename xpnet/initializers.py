"""Initial values of parameters, drawn on the host so that every backend starts from the same bits.

An initializer is a function of (generator, shape, fan_in, fan_out) that returns a float64 array.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xpnet.backends.activations import ACTIVATIONS
from xpnet.checks import expect_choice, expect_number

Shape = tuple[int, ...]
Initializer = Callable[["np.random.Generator", Shape, int, int], np.ndarray]


def zeros(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """All elements are 0."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """All elements are 1."""
    return np.ones(shape)


def constant(value: float) -> Initializer:
    """All elements are the same number."""
    value = expect_number("constant", "value", value)
    return lambda rng, shape, fan_in, fan_out: np.full(shape, value)


def he_normal(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """N(0, 2 / fan_in): preserves the variance through ReLU (He et al. 2015, eq. 10)."""
    return rng.standard_normal(shape) * (2.0 / fan_in) ** 0.5


def lecun_normal(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """N(0, 1 / fan_in): preserves the variance through a linear or tanh-like unit (LeCun et al.
    1998b, eq. 16)."""
    return rng.standard_normal(shape) * (1.0 / fan_in) ** 0.5


def glorot_uniform(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)): a compromise between the forward and the backward
    pass (Glorot and Bengio 2010, eq. 16)."""
    limit = (6.0 / (fan_in + fan_out)) ** 0.5
    return rng.uniform(-limit, limit, shape)


def lecun_uniform(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """U(-2.4 / fan_in, 2.4 / fan_in): the initial weights of LeNet-5 (LeCun et al. 1998, appendix
    A)."""
    return rng.uniform(-2.4 / fan_in, 2.4 / fan_in, shape)


INITIALIZERS: dict[str, Initializer] = {
    "zeros": zeros, "ones": ones, "he_normal": he_normal, "lecun_normal": lecun_normal,
    "glorot_uniform": glorot_uniform, "lecun_uniform": lecun_uniform,
}


def for_activation(init: str | None, activation: str | None, who: str) -> Initializer:
    """The initializer called `init`; None: the default for the activation that follows.

    The table of activations has the defaults: "he_normal" for ReLU and similar ones, "lecun_normal"
    for SELU (Klambauer et al. 2017), "glorot_uniform" for the others and without an activation.
    """
    if init is None:
        init = ACTIVATIONS[activation].init if activation is not None else "glorot_uniform"
    return INITIALIZERS[expect_choice(who, "init", init, [None, *INITIALIZERS])]


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers that depend on (seed, parameter name) only: adding a layer does not change
    those of other layers."""
    return np.random.default_rng(np.random.SeedSequence([seed, *name.encode()]))
