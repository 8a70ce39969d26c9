"""Activations: their curves and derivatives, and what they do to a photograph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backends.activations import ACTIVATIONS
from xpnet.checks import described, expect_number, shown, wrong
from xpnet.layer import TRAIN, Layer
from xpnet.layers.activations import Activation
from xpnet.viz.figure import axes_for, bare, colour, new_figure
from xpnet.viz.images import between_0_and_1, draw_image, expect_image

POINTS = 2001       # of a curve
JUMP = 0.05         # the smallest jump from one point to the next that interrupts a curve
STEEP = 4           # times the steps beside it: a smaller step belongs to a steep curve

Function = str | Layer


def curve(layer: Layer, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f(x) and f'(x) of an elementwise layer at x (n,), in float64.

    The layer is not used itself but a new one with the same arguments.
    """
    layer = type(layer)(**layer.config())
    layer.initialize((1,), backend="numpy", dtype="float64")
    if layer.out_shape != (1,):
        raise ValueError("curve: expected an elementwise layer. Received: "
                         f"{layer.who}, with output shape {layer.out_shape} for one value.")
    y = layer.forward(x[None], mode=TRAIN)  # (1, n)
    return y[0], layer.backward(np.ones_like(y))[0]


def without_jumps(y: np.ndarray) -> np.ndarray:
    """y with NaN where it jumps, so that no line is drawn there.

    A step is compared with the steps two points before and after it, because a jump with a point
    in its middle, such as that of the sign function, takes two steps.
    """
    steps = np.abs(np.diff(y, append=y[-1]))
    beside = np.pad(steps, 2)
    jumps = (steps > JUMP) & (steps > STEEP * np.maximum(beside[:-4], beside[4:]))
    return np.where(jumps, np.nan, y)


def show_activations(activations: Function | Sequence[Function], *, low: float = -5.0,
                     high: float = 5.0, ax: Any = None) -> Any:
    """A figure of activations y = f(z) and of their derivatives f'(z), computed in float64.

    One activation is drawn with its derivative (dashed) in the same axes. Several, e.g. a family
    `[xn.Softplus(k) for k in (1, 2, 4)]`, have the functions in one axes and the derivatives in a
    second one.

    Args:
        activations: the name of an activation, or an elementwise layer, e.g. xn.LeakyReLU(0.1);
            or a list of them.
        low: the smallest z.
        high: the largest z.
        ax: axes of matplotlib, in which everything is drawn; by default those of a new figure.

    Raises:
        ValueError: an activation is unknown.
        ImportError: matplotlib is not installed.
    """
    who = "show_activations"
    layers = _layers(who, activations)
    z = np.linspace(*_range(who, low, high), POINTS)
    curves = [curve(layer, z) for layer in layers]
    together = ax is not None or len(layers) == 1
    if together:
        all_axes = [axes_for(who, ax, 5, 3.5)]
    else:
        all_axes = list(new_figure(who, 10, 3.5).subplots(1, 2))
    for k, (layer, (y, slope)) in enumerate(zip(layers, curves, strict=True)):
        text = _text(layer)
        all_axes[0].plot(z, without_jumps(y), color=colour(k), label=text)
        last = {"color": colour(1 if len(layers) == 1 else k),
                "linestyle": "--" if together else "-"}
        all_axes[-1].plot(z, without_jumps(slope), **last,
                          label=f"derivative of {text}" if together else text)
    for number, axes in enumerate(all_axes):
        _cross(axes)
        axes.set_xlabel("z")
        axes.set_ylabel("f(z), f'(z)" if together else ("f(z)", "f'(z)")[number])
        axes.legend(fontsize=8)
    return all_axes[0].figure


def show_activations_on(image: Any, activations: Function | Sequence[Function], *,
                        low: float = -3.0, high: float = 3.0) -> Any:
    """A figure of what activations make of a photograph: f(z), and below it f'(z).

    The pixels p from 0 to 1 become z = low + (high - low) p. Each result is drawn from its smallest
    value (black) to its largest (white); the title says which they are. NumPyNet shows its
    activations in this way.

    Args:
        image: (H, W) or (C, H, W) with 1 or 3 channels: uint8, or floats from 0 to 1.
        activations: as in `show_activations`.
        low: z of a black pixel.
        high: z of a white pixel.

    Raises:
        ValueError: an activation is unknown, or the image has another shape.
        ImportError: matplotlib is not installed.
    """
    who = "show_activations_on"
    layers = _layers(who, activations)
    low, high = _range(who, low, high)
    pixels = expect_image(who, image)
    z = low + (high - low) * pixels
    _, H, W = z.shape
    columns = 1 + len(layers)
    figure = new_figure(who, 2.6 * columns, 2 * (2.6 * H / W + 0.3))
    axes = figure.subplots(2, columns)
    draw_image(axes[0, 0], pixels, f"z: {z.min():.2g} to {z.max():.2g}")
    bare(axes[1, 0])
    for column, layer in enumerate(layers, 1):
        text = _text(layer)
        for ax, values, head in zip(axes[:, column], curve(layer, z.ravel()),
                                    (text, f"derivative of {text}")):
            draw_image(ax, between_0_and_1(values.reshape(z.shape)),
                       f"{head}: {values.min():.2g} to {values.max():.2g}")
    return figure


def _layers(who: str, activations: Any) -> list[Layer]:
    """Layers for names and layers."""
    several = activations if isinstance(activations, list | tuple) else [activations]
    if not several:
        raise wrong(who, "activations to be one activation or more", "activations", activations)
    layers: list[Layer] = []
    for one in several:
        if isinstance(one, str):
            layers.append(Activation(one))
        elif isinstance(one, Layer):
            layers.append(one)
        else:
            raise TypeError(f"{who}: expected names of activations, or layers. Received: "
                            f"{shown(one)}.")
    return layers


def _range(who: str, low: Any, high: Any) -> tuple[float, float]:
    low, high = expect_number(who, "low", low), expect_number(who, "high", high)
    if low >= high:
        raise wrong(who, f"high to be larger than low, {low:g}", "high", high)
    return low, high


def _text(layer: Layer) -> str:
    """The name of an activation with its constants: "softplus, k = 2"."""
    if not isinstance(layer, Activation):
        return described(layer)
    names = ACTIVATIONS[layer.activation].constants
    return ", ".join([layer.activation, *(f"{name} = {value:g}" for name, value
                                          in zip(names, layer.constants, strict=True))])


def _cross(axes: Any) -> None:
    """Grey lines at z = 0 and y = 0."""
    axes.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.85", linewidth=0.8, zorder=0)
