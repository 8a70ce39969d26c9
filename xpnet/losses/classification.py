"""Losses for one class out of K: of a sample, or of each position of a feature map.

y (K, N) or (K, H, W, N). Targets are integer labels (N,) or (N, H, W), or class probabilities
("one-hot" or soft labels) with the shape of the output. Each position of a feature map counts as a
sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.base import weighed
from xpnet.checks import finite_array
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss, batch_of, column, divisor, masked, one_hot

LEAST = 1e-7        # lower bound of a probability that something is divided by


class ClassLoss(Loss):
    """Base class of the losses whose targets are labels or class probabilities."""

    counts_hits = True
    sums_to_one = True              # whether class probabilities have to sum to 1

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        target = finite_array(target, f"{self.who}: targets")
        if target.shape[1:] == out_shape[1:] and target.ndim == len(out_shape):
            return check_labels(self, target, out_shape[0])
        if target.shape[1:] != out_shape:
            raise ValueError(f"{self.who}: expected labels of shape {batch_of(out_shape[1:])} or "
                             f"probabilities {batch_of(out_shape)}. "
                             f"Received: shape {target.shape}.")
        target = finite_array(target, f"{self.who}: targets", dtype)    # finite as float32, too
        if (target < 0).any():
            raise ValueError(f"{self.who}: expected class probabilities, 0 or larger. "
                             f"Received: {target.min()} among the targets.")
        total = target.sum(axis=1)
        if self.sums_to_one and not np.allclose(total, 1, atol=1e-4):
            raise ValueError(f"{self.who}: expected each row of the targets to be a distribution, "
                             f"whose sum is 1. Received: sums from {total.min()} to {total.max()}.")
        return target.astype(dtype, copy=False)


def check_labels(loss: Loss, target: np.ndarray, classes: int) -> np.ndarray:
    """Labels as int64. Raises ValueError if one is neither a class nor `ignore_index`."""
    known = target if loss.ignore_index is None else target[target != loss.ignore_index]
    if known.size and (known.min() < 0 or known.max() >= classes):
        mark = "" if loss.ignore_index is None else f", or {loss.ignore_index} to be ignored"
        raise ValueError(f"{loss.who}: expected labels from 0 to {classes - 1}{mark}. "
                         f"Received: labels from {known.min()} to {known.max()}.")
    labels = target.astype(np.int64)
    if (labels != target).any():
        raise ValueError(f"{loss.who}: expected labels to be whole numbers. "
                         f"Received: {target[labels != target][0]} among {target.dtype} labels.")
    return labels


class WeightedClassLoss(ClassLoss):
    """Base class of the losses that weigh the classes and ignore labels."""

    sums_to_one = False
    weight: tuple[float, ...] | None = None

    def __init__(self, *, weight: Any = None, ignore_index: int | None = None,
                 reduction: str = "mean"
                 ) -> None:
        self.weight = self.expect_weights("weight", weight)
        self.ignore_index = self.expect_label("ignore_index", ignore_index)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        self.check_weights("weight", self.weight, out_shape)
        return super().targets(target, out_shape, dtype)

    def divisors(self, target: np.ndarray, out_shape: Shape) -> np.ndarray | None:
        labels = target.ndim == len(out_shape)
        if not labels or self.weight is None and self.ignore_index is None:
            return None
        known = np.ones(target.shape, bool) if self.ignore_index is None else (
            target != self.ignore_index)
        return known if self.weight is None else known * np.array(self.weight)[target * known]

    def weighted(self, backend: Backend, y: Array, target: Array, smoothing: float = 0.0
                 ) -> tuple[Array, Any]:
        """w t (K, P), with t the smoothed targets, 0 where ignored; and the divisor of the mean, or
        what each place adds to it.

        y (K, P); target (P,) or (K, P).
        """
        K, P = y.shape
        w = column(backend, self.weight, y)  # (K, 1)
        if target.ndim == 2:
            return w * ((1.0 - smoothing) * target + smoothing / K), P
        known: Any = (1.0 if self.ignore_index is None
                      else (target != self.ignore_index).astype(y.dtype))
        hot = one_hot(backend, target, K).astype(y.dtype) * known  # (K, P)
        t = (1.0 - smoothing) * hot + (smoothing / K) * known
        return w * t, w * hot


class CrossEntropy(WeightedClassLoss):
    """Softmax and cross entropy in one: L = mean over N of -sum over k of t[k] log softmax(z)[k],
    dz = (softmax(z) - t) / N (Bridle 1990).

    z (K, N) or (K, H, W, N) are logits. Targets are integer labels (N,) or (N, H, W), or class
    probabilities t with z's shape. Each position of a feature map counts as a sample.

    Class probabilities need not sum to 1. They are used as they are, so their sum is a weight of
    the sample: dz = (softmax(z) sum over k of t[k] - t) / N. 0 times anything is 0: a class may be
    masked with the logit -infinity if its target or its weight is 0, and the logits of an ignored
    sample do not matter. Label smoothing gives each class a probability above 0: L is then
    infinite, unless the weight of the masked class is 0.

    Args:
        weight: a number for each class, 0 or larger: L = sum of w[k] (-t[k] log softmax(z)[k]) /
            sum of the w of the labels. With class probabilities, which have no single weight, the
            sum is divided by the number of samples. If the weights of a batch sum to 0, L and dz
            are 0.
        ignore_index: marks unknown labels; their samples add nothing to either sum.
        label_smoothing: s, with which t becomes (1 - s) t + s / K (Szegedy et al. 2016).
        reduction: "sum" does not divide.

    Raises:
        ValueError: a label is outside 0..K-1, or a target is NaN or negative.
    """

    takes_logits = "softmax"
    label_smoothing = 0.0

    def __init__(self, *, weight: Any = None, ignore_index: int | None = None,
                 label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.label_smoothing = self.expect_share("label_smoothing", label_smoothing)

    def __call__(self, backend: Backend, y: Array, target: Array,
                 sample_weight: Array | None = None, *, mask: Array | None = None
                 ) -> tuple[Array, Array]:
        z = y.reshape(y.shape[0], -1)  # (K, P)
        target = target.reshape(-1) if target.ndim < y.ndim else target.reshape(z.shape)
        plain = (self.weight is None and self.ignore_index is None and not self.label_smoothing
                 and sample_weight is None and mask is None)
        if plain and self.reduction == "mean":
            loss, dz = backend.softmax_cross_entropy(z, target)
            return loss, dz.reshape(y.shape)
        t, n = self.weighted(backend, z, target, self.label_smoothing)
        return cross_entropy(backend, y, t, n, self.reduction, sample_weight, mask)


def cross_entropy(backend: Backend, y: Array, t: Array, n: Any, reduction: str,
                  sample_weight: Array | None, mask: Array | None) -> tuple[Array, Array]:
    """Cross entropy of the logits y (K, ..., N) with targets t, of this shape or (K, P), divided by
    n for "mean", (..., N) for "none"; and dy. See Loss.__call__."""
    z = y.reshape(len(y), -1)  # (K, P)
    t = t.reshape(z.shape)
    if mask is not None:
        mask = mask.reshape(-1)  # (P,)
        t = masked(backend.xp, mask, t)
    n = divisor(backend.xp, n, mask, z.dtype)
    if sample_weight is not None:
        by_sample = t.reshape(len(t), -1, sample_weight.size)  # (K, positions, N)
        t = weighed(backend.xp, sample_weight, by_sample).reshape(t.shape)
    if reduction != "none":
        loss, dz = backend.softmax_cross_entropy(z, t)  # divided by P
        scale = z.shape[1] / (n if reduction == "mean" else 1)
        return (loss * scale).reshape(()), (dz * scale).reshape(y.shape)
    xp = backend.xp
    with np.errstate(invalid="ignore"):         # infinity - infinity, perhaps of weight 0
        shifted = z - z.max(axis=0)
    e = xp.exp(shifted)
    total = e.sum(axis=0)
    f = weighed(xp, t, xp.log(total) - shifted).sum(axis=0)
    dz = weighed(xp, t.sum(axis=0), e / total) - t
    return f.reshape(y.shape[1:]), dz.reshape(y.shape)


class WeightedCrossEntropy(Loss):
    """Cross entropy with a weight for each position: L = mean over positions of -w log
    softmax(z)[label], dz = w (softmax(z) - t) / number of positions (Ronneberger et al. 2015, eq.
    1).

    z (K, H, W, N) or (K, T, N) are logits, t is 1 at the label and 0 elsewhere. Targets are (N, 2,
    H, W) or (N, 2, T): labels, and weights w, 0 or larger, for example those of
    xpnet.vision.boundary_weights. Weights are not part of the divisor. The loss of a position with
    weight 0 is 0, whatever its label.

    Args:
        reduction: "sum" does not divide.
    """

    takes_logits = "softmax"

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        target = finite_array(target, f"{self.who}: targets", dtype)
        if len(out_shape) < 2 or target.shape[1:] != (2, *out_shape[1:]):
            raise ValueError(f"{self.who}: expected labels and weights of shape "
                             f"{batch_of((2, *out_shape[1:]))}. Received: shape {target.shape}.")
        if target.size and target[:, 1].min() < 0:
            raise ValueError(f"{self.who}: expected weights, 0 or larger. "
                             f"Received: {target[:, 1].min():g} among them.")
        check_labels(self, target[:, 0], out_shape[0])
        return target.astype(dtype, copy=False)

    def __call__(self, backend: Backend, y: Array, target: Array,
                 sample_weight: Array | None = None, *, mask: Array | None = None
                 ) -> tuple[Array, Array]:
        t = target[1] * one_hot(backend, target[0], len(y))             # (K, H, W, N)
        return cross_entropy(backend, y, t.astype(y.dtype), y[0].size, self.reduction,
                             sample_weight, mask)


class NegativeLogLikelihood(WeightedClassLoss):
    """Negative log-likelihood: L = mean over N of -y[label], dy = -1 / N at the label (Fisher
    1922).

    y (K, N) or (K, H, W, N) are logarithms of probabilities, the output of LogSoftmax. Targets and
    arguments are those of CrossEntropy, which is LogSoftmax and this loss in one. For class
    probabilities t, dy = -t / N, whatever their sum is.
    """

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        log_p = y.reshape(y.shape[0], -1)  # (K, P)
        target = target.reshape(-1) if target.ndim < y.ndim else target.reshape(log_p.shape)
        t, n = self.weighted(backend, log_p, target)
        f = -weighed(backend.xp, t, log_p).sum(axis=0)
        return (f.reshape(y.shape[1:]), -t.reshape(y.shape),
                n.reshape(y.shape) if target.ndim == 1 else n)


class BoundedCrossEntropy(ClassLoss):
    """Cross entropy with one more class: L = mean over N of log(exp(-bound) + sum over k of
    exp(z[k])) - z[label].

    z (K, N) or (K, H, W, N); targets are those of CrossEntropy. dz = (exp(z) / (exp(-bound) + sum
    over k of exp(z[k])) - t) / N. This is the criterion of LeNet-5 for the penalties -z that RBF
    gives: the class "none of the K" has the penalty `bound`, so that penalties that are already
    larger are not pushed up any further.

    Args:
        bound: above 0; j in the paper.
        reduction: "sum" does not divide.

    LeCun et al. 1998, eq. 9.
    """

    def __init__(self, bound: float, *, reduction: str = "mean") -> None:
        self.bound = self.expect_positive("bound", bound)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def __call__(self, backend: Backend, y: Array, target: Array,
                 sample_weight: Array | None = None, *, mask: Array | None = None
                 ) -> tuple[Array, Array]:
        K, shape = len(y), (len(y) + 1, *y.shape[1:])
        z, t = backend.empty(shape, y.dtype), backend.zeros(shape, y.dtype)
        z[:K], z[K:] = y, -self.bound
        t[:K] = one_hot(backend, target, K) if target.ndim < y.ndim else target
        loss, dz = cross_entropy(backend, z, t, y[0].size, self.reduction, sample_weight, mask)
        return loss, dz[:K]


class KullbackLeibler(ClassLoss):
    """Kullback-Leibler divergence: L = mean over N of sum over k of t[k] (log t[k] - y[k])
    (Kullback and Leibler 1951).

    y (K, N) or (K, H, W, N) are logarithms of probabilities, the output of LogSoftmax; dy = -t / N.
    Targets are distributions of that shape, or labels (N,) or (N, H, W), 0 log 0 = 0; each position
    of a feature map counts as a sample. It is NegativeLogLikelihood minus the entropy of the
    targets, so that its minimum is 0.

    Args:
        reduction: "mean" is what PyTorch calls "batchmean"; its "mean" also divides by K. "sum"
            does not divide.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, zero = backend.xp, y.dtype.type(0)
        if target.ndim < y.ndim:
            target = one_hot(backend, target, len(y)).astype(y.dtype)
        present = target > 0                # elsewhere y may be log 0
        gap = xp.log(xp.where(present, target, y.dtype.type(1))) - xp.where(present, y, zero)
        return (target * gap).sum(axis=0), -target, y[0].size


class Hellinger(ClassLoss):
    """Squared Hellinger distance: L = mean over N of 1/2 sum over k of (sqrt(y[k]) - sqrt(t[k]))^2
    (Hellinger 1909).

    y (K, N) or (K, H, W, N) are probabilities, the output of Softmax; targets are distributions
    like y, or labels (N,) or (N, H, W). Each position of a feature map counts as a sample. L is
    between 0 and 1. dy = 1/2 (1 - sqrt(t / y)) / N, which is 1/2 / N where t = 0, also at y = 0. It
    would be infinite where y = 0 < t, so y counts as at least 1e-7 in the derivative; y below 0
    counts as 0 in L. The distance itself, the square root of L, has no derivative at y = t.

    Args:
        reduction: "sum" does not divide.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp = backend.xp
        if target.ndim < y.ndim:
            target = one_hot(backend, target, len(y)).astype(y.dtype)
        difference = xp.sqrt(xp.maximum(y, 0)) - xp.sqrt(target)
        f = 0.5 * (difference * difference).sum(axis=0)
        return f, 0.5 - 0.5 * xp.sqrt(target / xp.maximum(y, LEAST)), y[0].size
