"""Losses for one class out of K: of a sample, or of each place of a map.

y (K, N) or (K, H, W, N); targets are integer labels (N,) or (N, H, W), or shares of the classes
like the output, "one-hot", which are not negative. Each place of a map counts as a sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.base import weighed
from xpnet.checks import finite_array
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss, batch_of, column, one_hot, or_one

LEAST = 1e-7        # of a probability, where something is divided by it


class ClassLoss(Loss):
    """Base class of the losses that take labels, or shares of the classes."""

    counts_hits = True
    sums_to_one = True              # whether shares have to be a distribution

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        target = finite_array(target, f"{self.who}: targets")
        if target.shape[1:] == out_shape[1:] and target.ndim == len(out_shape):
            return check_labels(self, target, out_shape[0])
        if target.shape[1:] != out_shape:
            raise ValueError(f"{self.who}: expected labels of shape {batch_of(out_shape[1:])} or "
                             "probabilities "
                             f"{batch_of(out_shape)}. Received: shape {target.shape}.")
        target = finite_array(target, f"{self.who}: targets", dtype)    # labels become integers
        if (target < 0).any():
            raise ValueError(f"{self.who}: expected shares of the classes, 0 or larger. "
                             f"Received: {target.min()} among the targets.")
        total = target.sum(axis=1)
        if self.sums_to_one and not np.allclose(total, 1, atol=1e-4):
            raise ValueError(f"{self.who}: expected each row of the targets to be a distribution, "
                             "whose sum is 1. "
                             f"Received: sums from {total.min()} to {total.max()}.")
        return target.astype(dtype, copy=False)


def check_labels(loss: Loss, target: np.ndarray, classes: int) -> np.ndarray:
    """Labels as int64; an error where one is neither a class nor the mark of those that are
    ignored."""
    known = target if loss.ignore_index is None else target[target != loss.ignore_index]
    if known.size and (known.min() < 0 or known.max() >= classes):
        mark = ("" if loss.ignore_index is None else f", or {loss.ignore_index} where they are "
                                                     "ignored")
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

    def weighted(self, backend: Backend, y: Array, target: Array, smoothing: float = 0.0
                 ) -> tuple[Array, Any]:
        """w s (K, P), s the smoothed shares of the classes, 0 where ignored, and what their mean
        divides by.

        y (K, P); target (P,) or (K, P).
        """
        K, P = y.shape
        w = column(backend, self.weight, y)  # (K, 1)
        if target.ndim == 2:
            return w * ((1.0 - smoothing) * target + smoothing / K), P
        # (P,)
        known: Any = (1.0 if self.ignore_index is None
                      else (target != self.ignore_index).astype(y.dtype))
        hot = one_hot(backend, target, K).astype(y.dtype) * known  # (K, P)
        shares = (1.0 - smoothing) * hot + (smoothing / K) * known
        return w * shares, or_one((w * hot).sum())


class CrossEntropy(WeightedClassLoss):
    """Softmax and cross entropy in one: L = mean over N of -sum over k of t[k] log softmax(z)[k],
    dz = (softmax(z) - t) / N.

    z (K, N) or (K, H, W, N) are logits; targets are integer labels (N,) or (N, H, W), or shares
    like z ("one-hot", or probabilities); each place of a map counts as a sample. Bridle 1990.

    Shares need not sum to 1. They are used as they are, so that the sum of a sample's shares is a
    weight of this sample: dz = (softmax(z) sum over k of t[k] - t) / N.
    weight: a number for each class, 0 or larger, L = sum of w[k] (-t[k] log softmax(z)[k]) / sum of
    the targets' w. Shares have no single weight: with them the sum is divided by the number of
    samples. ignore_index: the mark of labels that are not known; their samples add nothing to
    either sum. Where the weights of a batch sum to 0, L is 0 and so is dz. label_smoothing: t
    becomes (1 - s) t + s / K (Szegedy et al. 2016). reduction="sum" does not divide. 0 times
    anything is 0: a class may be masked with the logit -infinity where its share or its weight is
    0, and the logits of an ignored sample do not matter. Label smoothing gives each class a share:
    L is then infinite, unless the weight of the masked class is 0. ValueError for labels outside
    0..K-1, for NaN, and for negative shares.
    """

    takes_logits = "softmax"
    label_smoothing = 0.0

    def __init__(self, *, weight: Any = None, ignore_index: int | None = None,
                 label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.label_smoothing = self.expect_share("label_smoothing", label_smoothing)

    def __call__(self, backend: Backend, y: Array, target: Array, sample_weight: Array | None = None
                 ) -> tuple[Array, Array]:
        z = y.reshape(y.shape[0], -1)  # (K, P)
        target = target.reshape(-1) if target.ndim < y.ndim else target.reshape(z.shape)
        plain = (self.weight is None and self.ignore_index is None and not self.label_smoothing
                 and sample_weight is None)
        if plain and self.reduction == "mean":
            loss, dz = backend.softmax_cross_entropy(z, target)
            return loss, dz.reshape(y.shape)
        shares, n = self.weighted(backend, z, target, self.label_smoothing)
        loss, dz = cross_entropy(backend, z, shares, n, self.reduction, sample_weight)
        return loss.reshape(y.shape[1:] if self.reduction == "none" else ()), dz.reshape(y.shape)


def cross_entropy(backend: Backend, z: Array, shares: Array, n: Any, reduction: str,
                  sample_weight: Array | None
                  ) -> tuple[Array, Array]:
    """Cross entropy of shares: of z (K, P), divided by n for "mean", (P,) for "none"; and dz (K,
    P). See Loss.__call__."""
    if sample_weight is not None:
        by_sample = shares.reshape(len(shares), -1, sample_weight.size)  # (K, places, N)
        shares = weighed(backend.xp, sample_weight, by_sample).reshape(shares.shape)
    if reduction != "none":
        loss, dz = backend.softmax_cross_entropy(z, shares)  # divided by P
        scale = z.shape[1] / (n if reduction == "mean" else 1)
        return loss * scale, dz * scale
    xp = backend.xp
    with np.errstate(invalid="ignore"):         # infinity - infinity, perhaps without a weight
        shifted = z - z.max(axis=0)
    e = xp.exp(shifted)
    total = e.sum(axis=0)
    f = weighed(xp, shares, xp.log(total) - shifted).sum(axis=0)
    return f, weighed(xp, shares.sum(axis=0), e / total) - shares


class NegativeLogLikelihood(WeightedClassLoss):
    """Negative log-likelihood: L = mean over N of -y[label], dy = -1 / N at the label (Fisher
    1922).

    y (K, N) or (K, H, W, N) are logarithms of probabilities, as LogSoftmax gives them; the targets,
    `weight`, `ignore_index` and `reduction` are those of CrossEntropy, which is LogSoftmax and this
    loss in one. For shares t, dy = -t / N, whatever their sum is.
    """

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        log_p = y.reshape(y.shape[0], -1)  # (K, P)
        target = target.reshape(-1) if target.ndim < y.ndim else target.reshape(log_p.shape)
        shares, n = self.weighted(backend, log_p, target)
        f = -weighed(backend.xp, shares, log_p).sum(axis=0)
        return f.reshape(y.shape[1:]), -shares.reshape(y.shape), n


class BoundedCrossEntropy(ClassLoss):
    """Cross entropy with one more class: L = mean over N of log(exp(-bound) + sum over k of
    exp(z[k])) - z[label].

    The criterion of LeNet-5 for the penalties -z that RBF gives, LeCun et al. 1998, eq. 9, where
    `bound` is j: the class that is none of the K has the penalty `bound`, so that penalties that
    are larger already are not pushed up any further. z (K, N) or (K, H, W, N), targets are labels
    or shares as for CrossEntropy; dz = (exp(z) / (exp(-bound) + sum over k of exp(z[k])) - t) / N.
    `bound` is above 0. reduction="sum" does not divide.
    """

    def __init__(self, bound: float, *, reduction: str = "mean") -> None:
        self.bound = self.expect_positive("bound", bound)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def __call__(self, backend: Backend, y: Array, target: Array, sample_weight: Array | None = None
                 ) -> tuple[Array, Array]:
        K, P = len(y), y.size // len(y)
        shares = one_hot(backend, target, K) if target.ndim < y.ndim else target
        z, t = backend.empty((K + 1, P), y.dtype), backend.zeros((K + 1, P), y.dtype)
        z[:K], z[K:], t[:K] = y.reshape(K, P), -self.bound, shares.reshape(K, P)
        loss, dz = cross_entropy(backend, z, t, P, self.reduction, sample_weight)
        return (loss.reshape(y.shape[1:] if self.reduction == "none" else ()),
                dz[:K].reshape(y.shape))


class KullbackLeibler(ClassLoss):
    """Kullback-Leibler divergence: L = mean over N of sum over k of t[k] (log t[k] - y[k])
    (Kullback and Leibler 1951).

    y (K, N) or (K, H, W, N) are logarithms of probabilities, as LogSoftmax gives them; targets are
    distributions of that shape, or labels (N,) or (N, H, W), 0 log 0 = 0; each place of a map
    counts as a sample. dy = -t / N. It is NegativeLogLikelihood less the entropy of the targets, so
    that 0 is the least. The mean is what PyTorch calls "batchmean"; its "mean" also divides by K.
    reduction="sum" does not divide.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, zero = backend.xp, y.dtype.type(0)
        if target.ndim < y.ndim:
            target = one_hot(backend, target, len(y)).astype(y.dtype)
        there = target > 0
        # log 0 elsewhere is no matter
        gap = xp.log(xp.where(there, target, y.dtype.type(1))) - xp.where(there, y, zero)
        return (target * gap).sum(axis=0), -target, y[0].size


class Hellinger(ClassLoss):
    """Squared Hellinger distance: L = mean over N of 1/2 sum over k of (sqrt(y[k]) - sqrt(t[k]))^2
    (Hellinger 1909).

    y (K, N) or (K, H, W, N) are probabilities, as Softmax gives them; targets are distributions
    like y, or labels (N,) or (N, H, W); each place of a map counts as a sample. L lies between 0
    and 1. dy = 1/2 (1 - sqrt(t / y)) / N, which is 1/2 / N where t = 0, also at y = 0. Where y = 0
    < t it would be infinite: in the derivative y counts as 1e-7 at least, and y below 0 counts as 0
    in L. The distance itself, the square root of this, has no derivative at y = t. reduction="sum"
    does not divide.
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
