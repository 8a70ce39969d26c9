"""How layers that work element by element, merge or move elements compute one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet import layers as xl
from xpnet.explore.parts import Computed, Part, Region, element, host, region_of
from xpnet.explore.sums import Place, Rule, of_rows


def activation(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    constants = layer.constants
    found = _scaled(layer, xs[0], at, 1.0)
    found.more["constants"] = list(constants)
    return found


def _scaled(layer: Any, x: np.ndarray, at: Place, weight: float, bias: float | None = None,
            formula: str | None = None) -> Computed:
    """w x + b of the element at the same place."""
    values = element(x, at)
    part = Part(0, region_of(at), values, np.full(values.shape, weight))
    return Computed.summed(layer, "elementwise",
                           formula or ("x" if weight == 1 and bias is None else "w x"), [part],
                           bias)


def unchanged(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """Dropout and noise, which are off in a prediction."""
    return _scaled(layer, xs[0], at, 1.0)


def batch_norm(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """gamma (x - mean) / sqrt(var + eps) + beta, as w x + b."""
    c = at[0]
    numbers = {name: float(host(layer, getattr(layer, name).data)[c])
               for name in ("gamma", "beta", "mean", "var")} | {"eps": layer.eps}
    w = numbers["gamma"] / math.sqrt(numbers["var"] + layer.eps)
    found = _scaled(layer, xs[0], at, w, numbers["beta"] - w * numbers["mean"])
    formula = "gamma (x - mean) / sqrt(var + eps) + beta"
    found.formula = formula if layer.activation is None else f"{layer.activation}({formula})"
    found.more["numbers"] = numbers
    return found


def sample_norm(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """As batch_norm, with mean and var of the values of this sample that are normalised together.
    """
    def there(a: np.ndarray) -> float:
        return float(np.broadcast_to(a, rows.shape).reshape(xs[0].shape)[at])

    rows = xs[0].reshape(*layer.rows, -1)       # (groups, elements, rest)
    mean = rows.mean(axis=1, keepdims=True) if layer.centred else np.zeros(1)
    var = np.square(rows - mean).mean(axis=1, keepdims=True)
    gamma, beta = (default if p is None else
                   np.broadcast_to(host(layer, p.data).reshape(1, -1, 1), layer.scaled)
                   .reshape(xs[0].shape)[at]
                   for p, default in ((layer.gamma, 1.0), (layer.beta, 0.0)))
    numbers = ({"gamma": float(gamma), "beta": float(beta), "mean": there(mean), "var": there(var)}
               if layer.centred else {"gamma": float(gamma), "mean of x^2": there(var)})
    std = math.sqrt(there(var) + layer.floor)
    w = gamma / std if std else 0.0             # RMSNorm: 0 / 0 is 0
    found = _scaled(layer, xs[0], at, w, beta - w * there(mean) if layer.centred else None)
    found.formula = ("gamma (x - mean) / sqrt(var + eps) + beta, mean and var" if layer.centred else
                     "gamma x / sqrt(mean of x^2 + eps), the mean") + (
        f" of {layer.rows[1]} values of this sample")
    found.more["numbers"] = numbers | {"eps": layer.floor}
    return found


def swish(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    beta = layer.beta if layer.b is None else float(host(layer, layer.b.data)[0])
    found = _scaled(layer, xs[0], at, 1.0, formula="x")
    found.more |= {"constants": [beta], "numbers": {"beta": beta}}
    return found


def softmax(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """One of the values along the axis; the largest of them is subtracted, so that nothing
    overflows."""
    along: list[Any] = list(at)
    along[layer.axis] = slice(None)
    values, log = xs[0][tuple(along)], isinstance(layer, xl.LogSoftmax)
    T = 1.0 if log else layer.temperature
    m = float(values.max())
    z, terms = (float(xs[0][at]) - m) / T, float(np.exp((values - m) / T).sum())
    e = "x - m" if T == 1 else "(x - m) / T"
    what = f"x - m - log(sum of exp({e}))" if log else f"exp({e}) / sum of exp({e})"
    place = region_of(at)
    place[layer.axis] = [0, len(values)]
    part = Part(0, place, values.reshape([b - a for a, b in place]))
    numbers = {"m": m, f"sum of exp({e})": terms} | ({} if T == 1 else {"T": T})
    return Computed("elementwise", f"{what}, m the largest of {len(values)} values", [part],
                    total=z - math.log(terms) if log else math.exp(z) / terms,
                    more={"numbers": numbers})


def rescaled(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    mean, std = (value[at[0]] if isinstance(value, list) else value
                 for value in (layer.mean, layer.std))
    found = _scaled(layer, xs[0], at, 1 / std, -mean / std)
    found.formula, found.more["numbers"] = "(x - mean) / std", {"mean": mean, "std": std}
    return found


def slope(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    a = host(layer, layer.a.data)
    below = float(a[at[0] if len(a) > 1 else 0])
    return _scaled(layer, xs[0], at, 1.0 if xs[0][at] > 0 else below, formula="x, or a x below 0")


def gain(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    g = np.broadcast_to(host(layer, layer.spread(layer.g))[..., 0], xs[0].shape)
    return _scaled(layer, xs[0], at, float(g[at]))


def shift(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    b = np.broadcast_to(host(layer, layer.spread(layer.b))[..., 0], xs[0].shape)
    return _scaled(layer, xs[0], at, 1.0, float(b[at]), "x")


# --- several inputs -------------------------------------------------------------------------------

def _there(x: np.ndarray, at: Place) -> Place:
    """The same place of an input, of which axes of size 1 are repeated."""
    return tuple(0 if n == 1 else i for i, n in zip(at, x.shape, strict=True))


def _read(xs: Sequence[np.ndarray], at: Place) -> list[Part]:
    places = [_there(x, at) for x in xs]
    return [Part(k, region_of(place), element(x, place))
            for k, (x, place) in enumerate(zip(xs, places, strict=True))]


def _weighted(layer: Any, xs: Sequence[np.ndarray], at: Place, weights: Sequence[float],
              formula: str) -> Computed:
    parts = [Part(part.input, part.region, part.values, np.full(part.values.shape, weight))
             for part, weight in zip(_read(xs, at), weights, strict=True)
             if part.values is not None]
    return Computed.summed(layer, "elementwise", formula, parts)


def added(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    return _weighted(layer, xs, at, [1.0] * len(xs), "sum of x")


def averaged(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    return _weighted(layer, xs, at, [1 / len(xs)] * len(xs), "mean of x")


def subtracted(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    return _weighted(layer, xs, at, [1.0, -1.0], "x1 - x2")


def weighed(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    a = host(layer, layer.weights()[0])
    return _weighted(layer, xs, at, [*(a if a.ndim == 1 else a[:, at[0]])], "sum of w x")


def multiplied(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    parts = _read(xs, at)
    total = math.prod(float(x[_there(x, at)]) for x in xs)
    return Computed("elementwise", "product of x", parts, total=total)


def winning(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """The largest or smallest; the first of equal values wins, and a NaN over everything."""
    parts = _read(xs, at)
    values = np.array([float(x[_there(x, at)]) for x in xs])
    least = isinstance(layer, xl.Minimum)
    best = int(values.argmin() if least else values.argmax())
    parts[best].chosen = [start for start, _ in parts[best].region]
    return Computed("elementwise", f"{'min' if least else 'max'} of x", parts,
                    total=float(values[best]))


# --- elements that move ---------------------------------------------------------------------------

def moved(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """Layers that only move elements: the layer itself moves the numbers 1, 2, ... of the elements
    of its inputs, and the number at this place is the element's. 0 is none of them."""
    starts = np.cumsum([1, *(x.size for x in xs)])
    numbers = [layer.backend.asarray((np.arange(x.size, dtype=np.float64) + start).reshape(
        *x.shape, 1)) for x, start in zip(xs, starts, strict=False)]
    layer.enter(layer.index, False)
    found = int(layer.backend.to_numpy(layer.forward(*numbers))[(*at, 0)])
    if not found:
        return Computed("elementwise", "0", [], total=0.0)
    k = int(np.searchsorted(starts, found, "right")) - 1
    return _one(k, xs[k], np.unravel_index(found - starts[k], xs[k].shape))


def _one(k: int, x: np.ndarray, place: Sequence[Any]) -> Computed:
    values = element(x, place)
    part = Part(k, region_of(place), values, np.ones(values.shape))
    return Computed("elementwise", "x", [part], total=float(values.sum()))


@of_rows
def framed(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """A border of one number, or a border that is cut off."""
    x, (c, y, q) = xs[0], at
    top, _, left, _ = layer.sides
    sign = 1 if isinstance(layer, xl.Crop2d) else -1
    place = c, y + sign * top, q + sign * left
    if all(0 <= i < n for i, n in zip(place, x.shape, strict=True)):
        return _one(0, x, place)
    region: Region = region_of(place)
    return Computed("elementwise", "the border", [Part(0, region)], total=float(layer.value))


def embedded(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    feature, *place = at
    token = int(xs[0][tuple(place)])
    w = float(host(layer, layer.W.data[token])[feature])
    part = Part(0, region_of(place), element(xs[0], place))
    return Computed("elementwise", f"w of token {token}", [part], total=w)


def activation_classes() -> list[type]:
    """Those whose function is in the table with the constants of the layer."""
    return [kind for name in xl.__all__ if isinstance(kind := getattr(xl, name), type)
            and issubclass(kind, xl.Activation) and kind is not xl.Swish]


RULES: dict[type, Rule] = (
    dict.fromkeys(activation_classes(), activation)
    | dict.fromkeys((xl.Dropout, xl.Dropout1d, xl.Dropout2d, xl.GaussianDropout, xl.AdditiveNoise,
                     xl.AlphaDropout), unchanged)
    | dict.fromkeys((xl.BatchNorm1d, xl.BatchNorm2d), batch_norm)
    | dict.fromkeys((xl.LayerNorm, xl.RMSNorm, xl.GroupNorm, xl.InstanceNorm1d, xl.InstanceNorm2d),
                    sample_norm)
    | dict.fromkeys((xl.Softmax, xl.LogSoftmax), softmax)
    | dict.fromkeys((xl.Maximum, xl.Minimum), winning)
    | dict.fromkeys((xl.Flatten, xl.Reshape, xl.Permute, xl.Slice, xl.ChannelShuffle,
                     xl.PixelShuffle, xl.PixelUnshuffle, xl.Concat, xl.SkipSampling2d,
                     xl.PadChannels), moved)
    | dict.fromkeys((xl.ConstantPad2d, xl.ConstantPad1d, xl.ZeroPad2d, xl.ZeroPad1d, xl.Crop2d,
                     xl.Crop1d), framed)
    | {xl.Swish: swish, xl.Rescale: rescaled, xl.PReLU: slope, xl.Gain: gain, xl.Shift: shift,
       xl.Add: added, xl.Average: averaged, xl.Subtract: subtracted, xl.Multiply: multiplied,
       xl.WeightedSum: weighed, xl.Embedding: embedded})
