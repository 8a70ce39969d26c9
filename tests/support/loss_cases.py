"""Losses and their expected values: formulas as plain loops, one number after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import xpnet as xn
from xpnet.losses import Loss

REDUCTIONS = "mean", "batchmean", "sum"
W5 = (0.5, 1.0, 2.0, 1.5, 3.0)
W0 = (0.0, 1.0, 2.0, 0.0, 3.0)
P5 = (2.0, 1.0, 0.5, 4.0, 1.0)


# --- the formulas ---------------------------------------------------------------------------------

def each(f: Callable[[float, float], float], divide: str = "mean"
         ) -> Callable[[np.ndarray, np.ndarray], float]:
    """The sum of f(y, t) over all elements of y (..., N), divided."""
    def total(y: np.ndarray, t: np.ndarray) -> float:
        terms = [f(a, b) for a, b in zip(y.ravel().tolist(), t.ravel().tolist(), strict=True)]
        return math.fsum(terms) / {"mean": y.size, "batchmean": y.shape[-1], "sum": 1}[divide]
    return total


def huber(delta: float) -> Callable[[float, float], float]:
    return (lambda y, t: (y - t) ** 2 / 2 if abs(y - t) <= delta
            else delta * (abs(y - t) - delta / 2))


def smooth_l1(beta: float) -> Callable[[float, float], float]:
    return lambda y, t: (y - t) ** 2 / (2 * beta) if abs(y - t) < beta else abs(y - t) - beta / 2


def bernoulli(z: float, t: float) -> float:
    s = 1 / (1 + math.exp(-z))
    return -t * math.log(s) - (1 - t) * math.log(1 - s)


def focal(a: float, g: float) -> Callable[[float, float], float]:
    def one(z: float, t: float) -> float:
        s = 1 / (1 + math.exp(-z))
        return -a * t * (1 - s) ** g * math.log(s) - (1 - a) * (1 - t) * s ** g * math.log(1 - s)
    return one


def many_labels(weight: Any, positive: Any, ignore: int | None, divide: str = "mean"):
    def total(y: np.ndarray, t: np.ndarray) -> float:
        terms = []
        for index in np.ndindex(y.shape):
            s, goal, k = 1 / (1 + math.exp(-y[index])), float(t[index]), index[0]
            if goal != ignore:
                terms.append(
                    -weight[k] * (positive[k] * goal * math.log(s) + (1 - goal) * math.log(1 - s)))
        return math.fsum(terms) / (len(terms) or 1 if divide == "mean" else 1)
    return total


def poisson_rate(eps: float) -> Callable[[float, float], float]:
    return lambda y, t: y - t * math.log(y + eps)


def poisson_full(y: float, t: float) -> float:
    return math.exp(y) - t * y + (t * math.log(t) - t + math.log(2 * math.pi * t) / 2 if t > 1
                                  else 0.0)


def gaussian(eps: float | None = None, full: bool = False, divide: str = "mean"):
    """The outputs are means and then log variances; with eps, variances of at least eps."""
    def total(y: np.ndarray, t: np.ndarray) -> float:
        terms = []
        for index in np.ndindex(t.shape):
            mean, spread = float(y[index]), float(y[(index[0] + len(t), *index[1:])])
            v = math.exp(spread) if eps is None else max(spread, eps)
            density = (math.exp(-(float(t[index]) - mean) ** 2 / (2 * v))
                       / math.sqrt(2 * math.pi * v))
            terms.append(-math.log(density) - (0 if full else math.log(2 * math.pi) / 2))
        return math.fsum(terms) / {"mean": t.size, "batchmean": t.shape[-1]}[divide]
    return total


def cosine_distance(y: np.ndarray, t: np.ndarray) -> float:
    terms = [1 - math.fsum(p * q for p, q in zip(a, b)) / math.hypot(*a) / math.hypot(*b)
             for a, b in zip(columns(y), columns(t), strict=True)]
    return math.fsum(terms) / len(terms)


def embedding(margin: float) -> Callable[[float, float], float]:
    return lambda y, t: y if t == 1 else max(0.0, margin - y)


def label_margins(margin: float):
    def one(y: list[float], there: list[float]) -> float:
        return math.fsum(max(0.0, margin - a + b) for a, i in zip(y, there)
                         for b, j in zip(y, there) if i and not j) / len(y)
    return lambda y, t: math.fsum(map(one, columns(y), columns(t))) / len(columns(y))


def columns(y: np.ndarray) -> list[list[float]]:
    """(K, ..., N) as the list of its positions, K numbers each."""
    return y.reshape(len(y), -1).T.tolist()


def log_softmax(z: list[float]) -> list[float]:
    top = max(z)
    total = math.fsum(math.exp(v - top) for v in z)
    return [v - top - math.log(total) for v in z]


def of_classes(logs: Callable[[list[float]], list[float]], weight: Any = None,
               ignore: int | None = None, smoothing: float = 0.0, divide: str = "mean"):
    """Cross entropy of labels or class probabilities, with weights."""
    def total(y: np.ndarray, t: np.ndarray) -> float:
        K, above, below = len(y), [], []
        w = weight or [1.0] * K
        for z, goal in zip(columns(y), columns(t) if t.ndim == y.ndim else t.ravel().tolist(),
                           strict=True):
            if goal == ignore:
                continue
            shares = goal if isinstance(goal, list) else [float(k == goal) for k in range(K)]
            below.append(1.0 if isinstance(goal, list) else w[goal])
            above += [-w[k] * ((1 - smoothing) * shares[k] + smoothing / K) * log
                      for k, log in enumerate(logs(z))]
        return math.fsum(above) / ((math.fsum(below) or 1.0) if divide == "mean" else 1.0)
    return total


def crammer_singer(margin: float, power: int):
    def one(y: list[float], label: int) -> float:
        return max(0.0, margin - y[label] + max(v for k, v in enumerate(y) if k != label)) ** power
    return lambda y, t: math.fsum(map(one, columns(y), t.ravel().tolist())) / t.size


def weston_watkins(margin: float, power: int):
    def one(y: list[float], label: int) -> float:
        return math.fsum(max(0.0, margin - y[label] + v) ** power for k, v in enumerate(y)
                         if k != label) / len(y)
    return lambda y, t: math.fsum(map(one, columns(y), t.ravel().tolist())) / t.size


def kullback_leibler(y: np.ndarray, t: np.ndarray) -> float:
    pairs = zip(columns(y), columns(t), strict=True)
    return (math.fsum(b * (math.log(b) - a) for p, q in pairs
                      for a, b in zip(p, q, strict=True)) / (y.size // len(y)))


def hellinger(y: np.ndarray, t: np.ndarray) -> float:
    pairs = zip(columns(y), columns(t), strict=True)
    squares = [(math.sqrt(a) - math.sqrt(b)) ** 2 for p, q in pairs
               for a, b in zip(p, q, strict=True)]
    return math.fsum(squares) / 2 / (y.size // len(y))


def overlap(above: Callable[[float, float], float], below: Callable[[float, float], float],
            smooth: float, ignore: int | None = None):
    """The mean over samples and classes of 1 - (sum of above + smooth) / (sum of below +
    smooth)."""
    def total(y: np.ndarray, t: np.ndarray) -> float:
        K, H, W, N = y.shape
        losses = []
        for k in range(K):
            for n in range(N):
                a = b = smooth
                for h in range(H):
                    for w in range(W):
                        goal = float(t[k, h, w, n]) if t.ndim == 4 else int(t[h, w, n])
                        if goal != ignore:
                            share = goal if t.ndim == 4 else float(goal == k)
                            a, b = (a + above(float(y[k, h, w, n]), share),
                                    b + below(float(y[k, h, w, n]), share))
                losses.append(1 - a / b)
        return math.fsum(losses) / len(losses)
    return total


def box_overlap(kind: str):
    """The mean of 1 - overlap of boxes x1, y1, x2, y2."""
    def one(a: list[float], b: list[float]) -> float:
        sides = [max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1)]
        around = [max(a[k + 2], b[k + 2]) - min(a[k], b[k]) for k in (0, 1)]
        inter = math.prod(sides)
        union = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - inter
        apart = sum((a[k] + a[k + 2] - b[k] - b[k + 2]) ** 2 / 4 for k in (0, 1))
        less = {"iou": 0.0, "giou": 1 - union / math.prod(around),
                "diou": apart / math.hypot(*around) ** 2}
        return 1 - inter / union + less[kind]
    return lambda y, t: math.fsum(map(one, columns(y), columns(t))) / len(columns(y))


def known_points(cost: Callable[[float], float]):
    """The mean of cost(y - t) over the coordinates of known points of POINTS."""
    def total(y: np.ndarray, t: np.ndarray) -> float:
        terms = [cost(float(y[2 * m + k, n]) - POINTS[n, m, k]) for n, m, k in np.ndindex(N, 2, 2)
                 if POINTS[n, m, 2] > 0]
        return math.fsum(terms) / len(terms)
    return total


def weighted_entropy(y: np.ndarray, t: np.ndarray) -> float:
    labels, weights = (np.moveaxis(t, -1, 0)[:, k].astype(float) for k in (0, 1))
    terms = [-weights[n, i, j] * log_softmax(y[:, i, j, n].tolist())[int(labels[n, i, j])]
             for n, i, j in np.ndindex(labels.shape)]
    return math.fsum(terms) / len(terms)


def heat_maps(sigma: float):
    """The mean over all positions of the maps of known points of (y - t)^2."""
    def total(y: np.ndarray, t: np.ndarray) -> float:
        M, H, W, _ = y.shape
        terms = []
        for m, i, j, n in np.ndindex(y.shape):
            place_x, place_y, mark = POINTS[n, m]
            d = math.hypot(j + 0.5 - W * place_x, i + 0.5 - H * place_y)
            if mark:
                terms.append((float(y[m, i, j, n]) - math.exp(-d * d / (2 * sigma * sigma))) ** 2)
        return math.fsum(terms) / len(terms)
    return total


# --- the cases ------------------------------------------------------------------------------------

class Case(NamedTuple):
    loss: Loss
    right: Callable[[np.ndarray, np.ndarray], float]
    y: str = "numbers"
    target: str = "numbers"


FIVE, MAP, MASK = (5,), (5, 3, 2), (1, 4, 3)
RNG = np.random.default_rng(7)
N = 6


def shares(shape: tuple[int, ...]) -> np.ndarray:
    t = RNG.random((N, *shape)) + 0.05
    return t / t.sum(axis=1, keepdims=True)


Y = {                       # batch-first
    "numbers": RNG.normal(0, 2, (N, *FIVE)), "map": RNG.normal(0, 2, (N, *MAP)),
    "shares": shares(FIVE), "shares map": shares(MAP), "logs": np.log(shares(FIVE)),
    "logs map": np.log(shares(MAP)),
    "mask": RNG.uniform(0.05, 0.95, (N, *MASK)), "parts": RNG.uniform(0.05, 0.95, (N, *FIVE)),
}
Y |= {"four": RNG.normal(0, 1, (N, 4)), "map of four": RNG.normal(0, 1, (N, 4, 3, 2)),
      "distances": RNG.uniform(0.1, 3, (N, *FIVE)), "four parts": RNG.uniform(0.05, 0.95, (N, 4))}
TARGET = {
    "two": RNG.normal(0, 1, (N, 2)), "map of two": RNG.normal(0, 1, (N, 2, 3, 2)),
    "maps": RNG.normal(0, 1, (N, *MAP)), "plain labels": RNG.integers(0, 2, (N, *FIVE)),
    "plain label map": RNG.integers(0, 2, (N, *MAP)), "numbers": RNG.normal(0, 2, (N, *FIVE)),
    "shares": shares(FIVE), "shares map": shares(MAP), "mask": RNG.random((N, *MASK)),
    "parts": RNG.random((N, *FIVE)), "signs": RNG.choice([-1.0, 1.0], (N, *FIVE)),
    "labels": np.array([0, 4, 2, 1, 3, 0]), "counts": RNG.integers(0, 5, (N, *FIVE)),
    "amounts": RNG.uniform(0, 3, (N, *FIVE)) * (RNG.random((N, *FIVE)) < 0.7),
    "label map": RNG.integers(0, 5, (N, 3, 2)), "some labels": np.array([0, -1, 2, 1, -1, 4]),
    "some label map": RNG.integers(-1, 5, (N, 3, 2)), "plain mask": RNG.integers(0, 2, (N, 4, 3)),
    "some of many": RNG.integers(-1, 2, (N, *FIVE)),
    "some of a mask": RNG.integers(-1, 2, (N, *MASK))}

for spread, place in ((Y, "boxes"), (Y, "map of boxes"), (TARGET, "boxes"),
                      (TARGET, "map of boxes")):
    low = RNG.uniform(0, 2, (N, 2, 3, 2) if "map" in place else (N, 2))
    spread[place] = np.concatenate([low, low + RNG.uniform(0.8, 3, low.shape)], axis=1)

POINTS = np.concatenate([RNG.random((N, 2, 2)), RNG.integers(0, 3, (N, 2, 1))], axis=2)
TARGET["points"] = POINTS
TARGET["weighted label map"] = np.stack([RNG.integers(0, 5, (N, 3, 2)),
                                         RNG.uniform(0, 3, (N, 3, 2))], axis=1)
Y["maps of two"] = RNG.random((N, 2, 4, 3))

CASES = {
    **{f"squared {r}": Case(xn.MeanSquaredError(reduction=r), each(lambda y, t: (y - t) ** 2, r))
       for r in REDUCTIONS},
    **{f"half {r}": Case(xn.HalfSquaredError(reduction=r), each(lambda y, t: (y - t) ** 2 / 2, r))
       for r in REDUCTIONS},
    **{f"absolute {r}": Case(xn.MeanAbsoluteError(reduction=r), each(lambda y, t: abs(y - t), r))
       for r in REDUCTIONS},
    "huber": Case(xn.Huber(), each(huber(1.0))),
    "huber 2.5": Case(xn.Huber(2.5, reduction="batchmean"), each(huber(2.5), "batchmean")),
    "smooth": Case(xn.SmoothL1(), each(smooth_l1(1.0))),
    "smooth 0.3": Case(xn.SmoothL1(0.3), each(smooth_l1(0.3))),
    "log cosh": Case(xn.LogCosh(), each(lambda y, t: math.log(math.cosh(y - t)))),
    "poisson": Case(xn.PoissonLikelihood(), each(lambda y, t: math.exp(y) - t * y),
                    target="counts"),
    "poisson batch": Case(xn.PoissonLikelihood(reduction="batchmean"),
                          each(lambda y, t: math.exp(y) - t * y, "batchmean"), target="counts"),
    "poisson rate": Case(xn.PoissonLikelihood(log_input=False, eps=1e-3), each(poisson_rate(1e-3)),
                         "parts", "counts"),
    "poisson full": Case(xn.PoissonLikelihood(full=True, reduction="sum"),
                         each(poisson_full, "sum"), target="counts"),
    "gaussian": Case(xn.GaussianLikelihood(), gaussian(), "four", "two"),
    "gaussian full": Case(xn.GaussianLikelihood(full=True, reduction="batchmean"),
                          gaussian(full=True, divide="batchmean"), "map of four", "map of two"),
    "gaussian variance": Case(xn.GaussianLikelihood(log_variance=False, eps=0.3),
                              gaussian(eps=0.3), "four parts", "two"),
    "cosine": Case(xn.CosineDistance(), cosine_distance),
    "cosine map": Case(xn.CosineDistance(), cosine_distance, "map", "maps"),
    "embedding": Case(xn.HingeEmbedding(), each(embedding(1.0)), "distances", "signs"),
    "embedding batch": Case(xn.HingeEmbedding(2.0, reduction="batchmean"),
                            each(embedding(2.0), "batchmean"), "distances", "signs"),
    "margins": Case(xn.MultiLabelMargin(), label_margins(1.0), target="plain labels"),
    "margins map": Case(xn.MultiLabelMargin(0.5), label_margins(0.5), "map", "plain label map"),
    "entropy map": Case(xn.CrossEntropy(), of_classes(log_softmax), "map", "label map"),
    "entropy shares map": Case(xn.CrossEntropy(), of_classes(log_softmax), "map", "shares map"),
    "entropy weighted map": Case(xn.WeightedCrossEntropy(), weighted_entropy, "map",
                                 "weighted label map"),
    "entropy sum": Case(xn.CrossEntropy(reduction="sum"), of_classes(log_softmax, divide="sum"),
                        target="labels"),
    "entropy weights": Case(xn.CrossEntropy(weight=W5), of_classes(log_softmax, W5),
                            target="labels"),
    "entropy ignore": Case(xn.CrossEntropy(ignore_index=-1), of_classes(log_softmax, None, -1),
                           target="some labels"),
    "entropy ignore a class": Case(xn.CrossEntropy(ignore_index=0),
                                   of_classes(log_softmax, None, 0), target="labels"),
    "entropy smooth": Case(xn.CrossEntropy(label_smoothing=0.2),
                           of_classes(log_softmax, None, None, 0.2), target="labels"),
    "entropy smooth shares": Case(xn.CrossEntropy(weight=W5, label_smoothing=0.2),
                                  of_classes(log_softmax, W5, None, 0.2), target="shares"),
    "entropy all": Case(xn.CrossEntropy(weight=W5, ignore_index=-1, label_smoothing=0.2),
                        of_classes(log_softmax, W5, -1, 0.2), "map", "some label map"),
    "entropy all sum": Case(
        xn.CrossEntropy(weight=np.array(W5), ignore_index=-1, label_smoothing=0.2, reduction="sum"),
        of_classes(log_softmax, W5, -1, 0.2, "sum"), "map", "some label map"),
    "entropy weight 0": Case(xn.CrossEntropy(weight=W0), of_classes(log_softmax, W0),
                             target="labels"),
    "entropy weight 0 map": Case(xn.CrossEntropy(weight=W0, ignore_index=-1, label_smoothing=0.2),
                                 of_classes(log_softmax, W0, -1, 0.2), "map", "some label map"),
    "entropy amounts": Case(xn.CrossEntropy(), of_classes(log_softmax), target="amounts"),
    "entropy amounts all": Case(xn.CrossEntropy(weight=W0, label_smoothing=0.2),
                                of_classes(log_softmax, W0, None, 0.2), target="amounts"),
    "likelihood amounts": Case(xn.NegativeLogLikelihood(), of_classes(list), "logs", "amounts"),
    "likelihood weight 0": Case(xn.NegativeLogLikelihood(weight=W0), of_classes(list, W0), "logs",
                                "labels"),
    "likelihood": Case(xn.NegativeLogLikelihood(), of_classes(list), "logs", "labels"),
    "likelihood shares": Case(xn.NegativeLogLikelihood(), of_classes(list), "logs map",
                              "shares map"),
    "likelihood all": Case(xn.NegativeLogLikelihood(weight=W5, ignore_index=-1),
                           of_classes(list, W5, -1), "logs map", "some label map"),
    "bounded": Case(xn.BoundedCrossEntropy(1.5),
                    of_classes(lambda z: log_softmax([*z, -1.5])[:-1]), target="labels"),
    "bounded shares": Case(xn.BoundedCrossEntropy(1.5, reduction="sum"),
                           of_classes(lambda z: log_softmax([*z, -1.5])[:-1], divide="sum"),
                           target="shares"),
    "bounded map": Case(xn.BoundedCrossEntropy(0.1),
                        of_classes(lambda z: log_softmax([*z, -0.1])[:-1]), "map", "label map"),
    "binary": Case(xn.BinaryCrossEntropy(), each(bernoulli), target="parts"),
    "binary batch": Case(xn.BinaryCrossEntropy(reduction="batchmean"),
                         each(bernoulli, "batchmean"), target="parts"),
    "binary probabilities": Case(xn.BinaryCrossEntropy(from_logits=False),
                                 each(lambda y, t: -t * math.log(y) - (1 - t) * math.log(1 - y)),
                                 "parts", "parts"),
    "binary mask": Case(xn.BinaryCrossEntropy(from_logits=False),
                        each(lambda y, t: -t * math.log(y) - (1 - t) * math.log(1 - y)), "mask",
                        "plain mask"),
    "many": Case(xn.MultiLabelCrossEntropy(), many_labels([1] * 5, [1] * 5, None), target="parts"),
    "many all": Case(xn.MultiLabelCrossEntropy(weight=W5, pos_weight=P5, ignore_index=-1),
                     many_labels(W5, P5, -1), target="some of many"),
    "many sum": Case(xn.MultiLabelCrossEntropy(pos_weight=P5, ignore_index=-1, reduction="sum"),
                     many_labels([1] * 5, P5, -1, "sum"), target="some of many"),
    "many mask": Case(xn.MultiLabelCrossEntropy(ignore_index=-1), many_labels([1], [1], -1),
                      "mask", "some of a mask"),
    "focal": Case(xn.FocalCrossEntropy(), each(focal(0.25, 2.0)), target="parts"),
    "focal map": Case(xn.FocalCrossEntropy(0.6, 0.5, reduction="batchmean"),
                      each(focal(0.6, 0.5), "batchmean"), "mask", "plain mask"),
    "hinge": Case(xn.Hinge(), each(lambda y, t: max(0.0, 1 - t * y)), target="signs"),
    "hinge squared": Case(xn.Hinge(0.5, power=2, reduction="sum"),
                          each(lambda y, t: max(0.0, 0.5 - t * y) ** 2, "sum"), target="signs"),
    "crammer singer": Case(xn.CrammerSingerHinge(), crammer_singer(1.0, 1), target="labels"),
    "crammer singer map": Case(xn.CrammerSingerHinge(2.0, power=2), crammer_singer(2.0, 2), "map",
                               "label map"),
    "weston watkins": Case(xn.WestonWatkinsHinge(), weston_watkins(1.0, 1), target="labels"),
    "weston watkins map": Case(xn.WestonWatkinsHinge(2.0, power=2), weston_watkins(2.0, 2), "map",
                               "label map"),
    "divergence": Case(xn.KullbackLeibler(), kullback_leibler, "logs", "shares"),
    "divergence map": Case(xn.KullbackLeibler(), kullback_leibler, "logs map", "shares map"),
    "divergence of labels": Case(xn.KullbackLeibler(reduction="sum"),
                                 of_classes(list, divide="sum"), "logs", "labels"),
    "hellinger": Case(xn.Hellinger(), hellinger, "shares", "shares"),
    "hellinger map": Case(xn.Hellinger(), hellinger, "shares map", "shares map"),
    "critic": Case(xn.WassersteinCritic(), each(lambda y, t: y * t), target="signs"),
    "critic sum": Case(xn.WassersteinCritic(reduction="sum"), each(lambda y, t: y * t, "sum"),
                       target="signs"),
    "dice": Case(xn.Dice(), overlap(lambda y, t: 2 * y * t, lambda y, t: y * y + t * t, 1.0),
                 "shares map", "label map"),
    "dice mask": Case(xn.Dice(smooth=0.1),
                      overlap(lambda y, t: 2 * y * t, lambda y, t: y * y + t * t, 0.1), "mask",
                      "mask"),
    "dice of sets": Case(xn.Dice(squared=False),
                         overlap(lambda y, t: 2 * y * t, lambda y, t: y + t, 1.0), "mask", "mask"),
    "dice ignore": Case(xn.Dice(ignore_index=-1),
                        overlap(lambda y, t: 2 * y * t, lambda y, t: y * y + t * t, 1.0, -1),
                        "shares map", "some label map"),
    "jaccard": Case(xn.Jaccard(), overlap(lambda y, t: y * t, lambda y, t: y + t - y * t, 1.0),
                    "shares map", "shares map"),
    "jaccard mask": Case(xn.Jaccard(smooth=0.01, ignore_index=-1),
                         overlap(lambda y, t: y * t, lambda y, t: y + t - y * t, 0.01, -1), "mask",
                         "some of a mask"),
    "tversky": Case(xn.Tversky(0.3, 0.7), overlap(lambda y, t: y * t, lambda y, t: y * t
                                                  + 0.3 * y * (1 - t) + 0.7 * (1 - y) * t, 1.0),
                    "shares map", "label map"),
    "box iou": Case(xn.BoxIoU("iou"), box_overlap("iou"), "map of boxes", "map of boxes"),
    "box giou": Case(xn.BoxIoU(), box_overlap("giou"), "boxes", "boxes"),
    "box diou": Case(xn.BoxIoU("diou"), box_overlap("diou"), "map of boxes", "map of boxes"),
    "landmarks": Case(xn.Landmarks(), known_points(lambda e: e * e), "four", "points"),
    "landmarks absolute": Case(xn.Landmarks("absolute"), known_points(abs), "four", "points"),
    "heat maps": Case(xn.HeatMaps(0.7), heat_maps(0.7), "maps of two", "points"),
    "tversky of dice": Case(xn.Tversky(), overlap(lambda y, t: 2 * y * t, lambda y, t: y + t, 2.0),
                            "mask", "mask"),
    "tversky of jaccard": Case(xn.Tversky(1.0, 1.0, ignore_index=-1),
                               overlap(lambda y, t: y * t, lambda y, t: y + t - y * t, 1.0, -1),
                               "shares map", "some label map"),
}
