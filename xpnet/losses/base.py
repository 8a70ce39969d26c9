"""Losses: a scalar for a batch, and its gradient with respect to the network's output.

A loss is called with (backend, y, target), where y (D, ..., N) and the target are batch-last. It
returns the loss as a scalar array on the backend (without host synchronisation), and dy like y.
`targets` checks what users pass, before any work.

A subclass writes `terms`, the losses before they are summed. The rest is the same for all:

    reduction   "mean"            "batchmean"   "sum"     "none"
    L           sum of w f / n    ... / N       ... / 1   w f itself, not summed
    dy          w df/dy / n       ... / N       ... / 1   the gradient of the sum of w f

w are the weights of the samples (N,), 1 by default. They are not part of n. Of sequences of
different lengths only the real steps count, in the sums and in n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.base import weighed
from xpnet.checks import Checked, finite_array, is_number, items, wrong
from xpnet.layer import Array, Shape


class Loss(Checked):
    """Base class of the losses."""

    takes_logits = ""               # "softmax" or "sigmoid": the function that is part of the loss
    of_logits: Loss | None = None   # used instead if the last layer is a Sigmoid
    counts_hits = False             # True: the largest output is the predicted class
    ignore_index: int | None = None             # marks unknown targets
    reduction = "mean"
    of_places = True                # each step or pixel has terms of its own, which may be left out

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        """The target on the host, batch-first and checked: (N,) + out_shape.

        If there is a single channel, the target may leave out its axis.
        """
        target = finite_array(target, f"{self.who}: targets", dtype)
        if (target.shape[1:] != out_shape
                and not (target.ndim and out_shape == (1, *target.shape[1:]))):
            raise ValueError(f"{self.who}: expected targets of shape {batch_of(out_shape)}. "
                             f"Received: shape {target.shape}.")
        return target.reshape(-1, *out_shape).astype(dtype, copy=False)

    def __call__(self, backend: Backend, y: Array, target: Array,
                 sample_weight: Array | None = None, *, mask: Array | None = None
                 ) -> tuple[Array, Array]:
        """The loss and dy.

        Args:
            sample_weight: (N,), a factor for each sample's part of the loss and of dy.
            mask: (T, N), which steps of a sequence count. The others are padding: they add nothing
                to the loss and to n, and their dy is 0.
        """
        f, dy, n = self.terms(backend, y, target)
        if mask is not None:
            self._expect_steps(f, n, mask)
            f, dy = masked(backend.xp, mask, f), masked(backend.xp, mask, dy)
        if sample_weight is not None:
            f, dy = (weighed(backend.xp, sample_weight, a) for a in (f, dy))
        if self.reduction == "none":
            return f, dy
        d = {"mean": divisor(backend.xp, n, mask, y.dtype), "batchmean": y.shape[-1],
             "sum": 1}[self.reduction]
        return f.sum() / d, dy * (1.0 / d)

    def _expect_steps(self, f: Array, n: Any, mask: Array) -> None:
        """Raise TypeError if the losses, or what is added to the divisor, are not those of single
        steps."""
        for a in (f, n):
            if hasattr(a, "shape") and a.shape[-2:] != mask.shape:
                raise TypeError(f"{self.who}: expected terms of each step, (..., T, N), for an "
                                f"output with lengths. Received: shape {a.shape} for {mask.shape}.")

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        """(f (..., N), the gradient of the sum of f with respect to y, n): the losses, and the
        divisor of their mean: a number, or an array (..., N) of what each place adds to it."""
        raise NotImplementedError(f"{self.who}: expected a method terms(backend, y, target), or "
                                  "__call__(backend, y, target).")

    def divisors(self, target: np.ndarray, out_shape: Shape) -> np.ndarray | None:
        """What each place adds to the divisor n of the mean, (N, ...); None if all add the same.

        `fit` needs it to make one batch of several, see training/groups.py. `target` is what
        `targets` returns.
        """
        return None

    def checked(self, backend: Backend, y: Array, target: Array, sample_weight: Array | None = None,
                *, mask: Array | None = None) -> tuple[Array, Array]:
        """The loss and dy. Raises TypeError if the loss does not return a pair of a loss and a
        gradient of y's shape."""
        options = {"sample_weight": sample_weight, "mask": mask}
        found = self(backend, y, target, **{name: a for name, a in options.items()  # type: ignore[arg-type]
                                            if a is not None})
        if (isinstance(found, tuple) and len(found) == 2 and getattr(found[1], "shape", None)
            == y.shape):
            return found
        received = ([getattr(value, "shape", type(value).__name__) for value in found]
                    if isinstance(found, tuple) else type(found).__name__)
        raise TypeError(f"{self.who}: expected __call__ to return a pair, the loss and its "
                        f"gradient of shape {y.shape}. Received: {received}.")

    # --- help for subclasses ----------------------------------------------------------------------

    def expect_reduction(self, reduction: Any, *, batch: bool = True) -> str:
        """`reduction`; "batchmean" is for losses that have a term for each output."""
        choices = ("mean", "batchmean", "sum", "none") if batch else ("mean", "sum", "none")
        return self.expect_choice("reduction", reduction, choices)

    def expect_weights(self, name: str, values: Any) -> tuple[float, ...] | None:
        """A number for each class, 0 or larger, or None; the number of classes is checked with the
        targets."""
        if values is None:
            return None
        weights = items(values)
        if not weights or not all(is_number(weight) and weight >= 0 for weight in weights):
            raise wrong(self.who, f"{name} to be a number, 0 or larger, for each class", name,
                        values)
        return tuple(map(float, weights))

    def check_weights(self, name: str, values: tuple[float, ...] | None, out_shape: Shape) -> None:
        """Raises ValueError if there are weights, but not one for each class."""
        if values is not None and len(values) != out_shape[0]:
            raise ValueError(f"{self.who}: expected {name} to have {out_shape[0]} numbers, one for "
                             f"each class. Received: {len(values)}.")


def column(backend: Backend, values: tuple[float, ...] | None, y: Array) -> Array | float:
    """`values`, one for each class, as an array (K, 1, ..., 1) that multiplies y (K, ..., N); 1 for
    None.

    They are passed as arguments of a kernel: a step that is being captured takes no arrays from the
    host.
    """
    if values is None:
        return 1.0
    out = backend.empty((len(values),), np.float64)
    backend.assign(out, values)
    return out.astype(y.dtype).reshape(-1, *(1,) * (y.ndim - 1))


def masked(xp: Any, mask: Array, a: Array) -> Array:
    """a (..., T, N) where the mask (T, N) is true, and 0 elsewhere."""
    return xp.where(mask, a, a.dtype.type(0))


def divisor(xp: Any, n: Any, mask: Array | None, dtype: Any) -> Any:
    """The divisor of a mean: n, or the sum of n if it has what each place adds. With a mask only
    its places count, which all add the same if n is a number.

    Where a sum is 0 it is 1: the mean of nothing is 0, and so is its gradient.
    """
    if not getattr(n, "ndim", 0):
        if mask is None:
            return n
        n = mask.astype(dtype) * (n / mask.size)
    elif mask is not None:
        n = masked(xp, mask, n)
    return or_one(n.sum())


def or_one(total: Array) -> Array:
    """`total`, or 1 where it is 0."""
    return total + (total == 0)


def one_hot(backend: Backend, labels: Array, classes: int) -> Array:
    """Labels (...) -> bool (classes, ...), True at the label."""
    return backend.xp.arange(classes).reshape(-1, *(1,) * labels.ndim) == labels


def batch_of(shape: Shape) -> str:
    """The shape of a batch as errors write it."""
    return f"({', '.join(['N', *map(str, shape)])})" if shape else "(N,)"
