"""ReLU, softmax and cross entropy, with their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.functional.call import Array, Call
from xpnet.losses import CrossEntropy


def relu(x: Array, *, layout: str = "NCHW", backend: str | Backend = "auto") -> Array:
    """Rectified linear unit: y = max(x, 0), of any shape; a NaN stays one. `layout` makes no
    difference here."""
    call = _any_shape("relu", layout, backend, {"x": x})
    with call.backend.scope():
        return call.backend.activate(call.ready(x), "relu")


def relu_backward(dy: Array, y: Array, *, layout: str = "NCHW", backend: str | Backend = "auto"
                  ) -> Array:
    """Gradient of relu: dx = dy where y > 0, else 0. y is what relu gave; its input does as
    well."""
    call = _any_shape("relu_backward", layout, backend, {"dy": dy, "y": y})
    call.expect("dy", dy, y.shape)
    with call.backend.scope():
        return call.backend.activation_backward(call.ready(dy), call.ready(y), "relu")


def softmax(z: Array, *, layout: str = "NCHW", backend: str | Backend = "auto") -> Array:
    """Softmax over the classes: y[n, k] = exp(z[n, k]) / sum over j of exp(z[n, j]), shifted so
    that nothing overflows.

    z (N, K), or (N, K, H, W) with a softmax at each place -> y like z.
    """
    call = _classes("softmax", layout, backend, {"z": z})
    with call.backend.scope():
        return call.outward(call.backend.softmax(call.inward(z)))


def softmax_backward(dy: Array, y: Array, *, layout: str = "NCHW", backend: str | Backend = "auto"
                     ) -> Array:
    """Gradient of softmax: dz[n, k] = y[n, k] (dy[n, k] - sum over j of dy[n, j] y[n, j]); y is
    what softmax gave."""
    call = _classes("softmax_backward", layout, backend, {"dy": dy, "y": y})
    call.expect("dy", dy, y.shape)
    with call.backend.scope():
        return call.outward(call.backend.softmax_backward(call.inward(dy), call.inward(y)))


def cross_entropy(z: Array, target: Array, sample_weight: Array | None = None, *,
                  weight: Any = None, ignore: int | None = None, label_smoothing: float = 0.0,
                  reduction: str = "mean", layout: str = "NCHW", backend: str | Backend = "auto"
                  ) -> tuple[Array, Array]:
    """Cross entropy of softmax(z), and its gradient: loss = mean of -sum over k of t[n, k] log
    softmax(z)[n, k], dz = (softmax(z) sum over k of t[n, k] - t) / N. Both come from one pass over
    z.

    z (N, K) or (N, K, H, W), target labels (N,) or (N, H, W) of an integer type, or shares t like
    z, 0 or larger; sample_weight (N,) -> loss (), dz like z. weight, ignore, label_smoothing and
    reduction are those of xpnet.CrossEntropy; with reduction="none" the loss is (N,) or (N, H, W),
    and dz the gradient of its sum. Targets in the memory of a GPU are not looked at: there a label
    that is no class counts as one that is ignored. Bridle 1990.
    """
    others = ({"target": (target, "")} | ({} if sample_weight is None
                                          else {"sample_weight": (sample_weight, "N")}))
    call = _classes("cross_entropy", layout, backend, {"z": z}, others)
    loss = CrossEntropy(weight=weight, ignore=ignore, label_smoothing=label_smoothing,
                        reduction=reduction)
    *shape, N = call.sizes(z)
    loss.check_weights("weight", loss.weight, tuple(shape))
    labels = target.ndim == len(shape)
    if tuple(target.shape) not in (call.outer((*shape[1:], N)), tuple(z.shape)):
        raise ValueError(f"{call.who}: expected labels of shape {call.outer((*shape[1:], N))} or "
                         f"shares {tuple(z.shape)}. "
                         f"Received: target of shape {tuple(target.shape)}.")
    if target.dtype.kind not in "iu" if labels else target.dtype != z.dtype:
        raise TypeError(f"{call.who}: expected labels of an integer type, or shares of {z.dtype}. "
                        f"Received: target of {target.dtype}.")
    call.expect("sample_weight", sample_weight, (N,))
    xp = call.backend.xp
    with call.backend.scope():
        t = xp.ascontiguousarray(xp.moveaxis(target, 0, -1) if call.batch_first else target)
        if xp is np:
            loss.targets(np.moveaxis(t, -1, 0), tuple(shape), z.dtype)
        value, dz = loss(call.backend, call.inward(z), t, call.ready(sample_weight))
        return call.outward(value) if reduction == "none" else xp.asarray(value), call.outward(dz)


def _any_shape(who: str, layout: str, backend: str | Backend, images: dict[str, Array]) -> Call:
    ndim = max(getattr(next(iter(images.values())), "ndim", 1), 1)
    return Call(who, layout, backend, images, {}, axes=", ".join(["..."] * (ndim - 1)))


def _classes(who: str, layout: str, backend: str | Backend, images: dict[str, Array],
             others: Any = None) -> Call:
    maps = getattr(next(iter(images.values())), "ndim", 2) == 4
    return Call(who, layout, backend, images, others or {}, axes="K, H, W" if maps else "K")
