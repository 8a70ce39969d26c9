"""Metrics against loops, closed forms and the libraries that are installed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpnet as xn
from xpnet import metrics

RNG = np.random.default_rng(3)
LABELS, FOUND = RNG.integers(0, 4, 60), RNG.integers(0, 4, 60)
# targets, some of them unknown; scores
MAPS = RNG.integers(-1, 4, (5, 3, 4)), RNG.normal(size=(5, 4, 3, 4))


def counted(found: Any, right: Any, k: int) -> tuple[int, int, int]:
    """TP, FP, FN of class k, counted one by one."""
    pairs = list(zip(np.ravel(found).tolist(), np.ravel(right).tolist(), strict=True))
    return (sum(f == k and r == k for f, r in pairs), sum(f == k and r != k for f, r in pairs),
            sum(f != k and r == k for f, r in pairs))


# --- classes --------------------------------------------------------------------------------------

def test_confusion_is_counted():
    C = metrics.confusion_matrix(FOUND, LABELS)
    assert C.dtype == np.int64 and C.sum() == 60
    assert all(C[i, j] == sum((FOUND == j) & (LABELS == i)) for i in range(4) for j in range(4))
    assert (metrics.confusion_matrix([0], [1], classes=3).tolist()
            == [[0, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert (metrics.confusion_matrix([[1.0, 2.0, 0.0]], [2]).tolist()
            == [[0, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert metrics.confusion_matrix(np.array([True, False]), [1, 1]).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("metric, share", [
    (metrics.precision, lambda tp, fp, fn: tp / (tp + fp)),
    (metrics.recall, lambda tp, fp, fn: tp / (tp + fn)),
    (metrics.f1_score, lambda tp, fp, fn: 2 / ((tp + fp) / tp + (tp + fn) / tp)),
    (metrics.mean_iou, lambda tp, fp, fn: tp / (tp + fp + fn)),
], ids=lambda value: value.__name__)
def test_fractions_of_classes(metric: Any, share: Any):
    counts = [counted(FOUND, LABELS, k) for k in range(4)]
    each = [share(*c) for c in counts]
    assert metric(FOUND, LABELS, average=None) == pytest.approx(each)
    assert metric(FOUND, LABELS) == pytest.approx(sum(each) / 4)
    assert metric(FOUND, LABELS, average="micro") == pytest.approx(
        share(*(sum(c) for c in zip(*counts, strict=True))))
    assert isinstance(metric(FOUND, LABELS), float)


@pytest.mark.parametrize("metric", [metrics.precision, metrics.recall, metrics.f1_score,
                                    metrics.mean_iou])
def test_classes_that_are_missing(metric: Any):
    """0 has one hit, 1 is only predicted, 2 is only a target, 3 is neither."""
    each = metric([0, 1, 0], [0, 0, 2], average=None, classes=4)
    assert each[0] == {"precision": 1 / 2, "recall": 1 / 2, "f1_score": 1 / 2,
                       "mean_iou": 1 / 3}[metric.__name__]
    assert each[1] == each[2] == 0 and math.isnan(each[3])
    # the mean leaves out class 3
    assert metric([0, 1, 0], [0, 0, 2], classes=4) == pytest.approx(each[0] / 3)
    assert math.isnan(metric([5], [7], ignore_index=7)) and math.isnan(
        metric([5], [7], ignore_index=7, average="micro"))
    assert (np.isnan(metric([5], [7], ignore_index=7, average=None, classes=2)).tolist()
            == [True, True])


def test_positions_of_maps_count_and_unknown_ones_do_not():
    right, scores = MAPS
    known, found = right >= 0, scores.argmax(axis=1)
    assert metrics.accuracy(scores, right, ignore_index=-1) == (found == right)[known].mean()
    assert (metrics.mean_iou(scores, right, ignore_index=-1)
            == metrics.mean_iou(found[known], right[known]))
    assert metrics.confusion_matrix(scores, right, ignore_index=-1).sum() == known.sum()
    assert metrics.top_k_accuracy(scores, right, 4, ignore_index=-1) == 1
    assert (metrics.top_k_accuracy(scores, right, 1, ignore_index=-1)
            == metrics.accuracy(scores, right, ignore_index=-1))


def test_accuracy_of_nothing_is_not_a_number():
    assert math.isnan(metrics.accuracy([1], [9], ignore_index=9))
    assert math.isnan(metrics.top_k_accuracy([[1.0, 2.0]], [9], 1, ignore_index=9))
    assert metrics.accuracy([1, 2], [1, 1]) == 0.5


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_top_k_against_sorting(k: int):
    """Many scores are equal: of these, the first class comes first."""
    scores, labels = RNG.integers(0, 3, (50, 6)).astype(float), RNG.integers(0, 6, 50)
    hits = [label in sorted(range(6), key=lambda c, row=row: (-row[c], c))[:k]
            for row, label in zip(scores, labels)]
    assert metrics.top_k_accuracy(scores, labels, k) == sum(hits) / 50


def test_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    scores, labels = RNG.normal(size=(60, 4)), RNG.integers(0, 4, 60)
    # 4 and 5 are only predicted
    found = np.where(RNG.random(60) < 0.5, labels, RNG.integers(0, 6, 60))
    names = {"precision": "precision_score", "recall": "recall_score", "f1_score": "f1_score",
             "mean_iou": "jaccard_score"}
    for name, theirs in names.items():
        for average in ("macro", "micro", None):
            expected = getattr(sklearn, theirs)(labels, found, average=average, zero_division=0)
            np.testing.assert_allclose(getattr(metrics, name)(found, labels, average=average),
                                       expected)
    assert (metrics.confusion_matrix(found, labels).tolist()
            == sklearn.confusion_matrix(labels, found).tolist())
    assert (metrics.top_k_accuracy(scores, labels, 2)
            == sklearn.top_k_accuracy_score(labels, scores, k=2))


@pytest.mark.parametrize("call, error, message", [
    (lambda: metrics.accuracy([1, 2], [1]), ValueError,
     r"accuracy: expected labels like the targets, or scores.*\(2,\).*\(1,\)"),
    (lambda: metrics.accuracy(1, 1), ValueError, "accuracy: expected labels like the targets"),
    (lambda: metrics.accuracy([[0.3], [0.7]], [0, 1]), ValueError,
     r"expected scores of two classes or more.*y\[:, 0\] > 0"),
    (lambda: metrics.accuracy([[0.3, math.nan]], [0]), ValueError,
     "accuracy: expected predictions that are numbers"),
    (lambda: metrics.accuracy([0.5], [0]), ValueError,
     "accuracy: expected predictions to be labels"),
    (lambda: metrics.recall([0], [-1]), ValueError,
     "expected targets to be labels, whole numbers from 0 on. .* from -1"),
    (lambda: metrics.accuracy([0], [math.inf]), ValueError,
     "accuracy: targets: expected finite numbers"),
    (lambda: metrics.accuracy(["a"], [0]), TypeError, "accuracy: y: expected real numbers"),
    (lambda: metrics.accuracy([[0.3, 0.7]], [2]), ValueError,
     "accuracy: expected targets from 0 to 1. Received: 2"),
    (lambda: metrics.confusion_matrix([3], [1], classes=3), ValueError,
     "expected classes to be an int from 4 to 16384"),
    (lambda: metrics.f1_score([1], [1], average="mean"), ValueError,
     "f1_score: expected average to be 'macro', 'micro' or None"),
    (lambda: metrics.top_k_accuracy([[1.0, 2.0]], [0], 3), ValueError,
     "top_k_accuracy: expected k to be an int from 1 to 2"),
    (lambda: metrics.top_k_accuracy([1], [1], 1), ValueError,
     r"top_k_accuracy: expected scores of shape \(N, K, ...\)"),
])
def test_refusals_of_classes(call: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()


# --- images ---------------------------------------------------------------------------------------

def pictures(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images from 0 to 1, and the same with noise."""
    clean = np.cumsum(RNG.random(shape), axis=-1) / shape[-1]
    return np.clip(clean + RNG.normal(0, 0.05, shape), 0, 1), clean


def similarity(y: np.ndarray, t: np.ndarray, peak: float, size: int, sigma: float) -> float:
    """The mean over windows of two images (H, W), pixel after pixel: Wang et al. 2004, eq. 13 to
    17."""
    half = size // 2
    weight = {(i, j): math.exp(-((i - half) ** 2 + (j - half) ** 2) / (2 * sigma ** 2))
              for i in range(size) for j in range(size)}
    total = math.fsum(weight.values())
    a, b, found = (0.01 * peak) ** 2, (0.03 * peak) ** 2, []
    for r in range(y.shape[0] - size + 1):
        for c in range(y.shape[1] - size + 1):
            window = [(w / total, float(y[r + i, c + j]), float(t[r + i, c + j]))
                      for (i, j), w in weight.items()]
            m, n = math.fsum(w * p for w, p, _ in window), math.fsum(w * q for w, _, q in window)
            mm, nn = (math.fsum(w * (p - m) ** 2 for w, p, _ in window),
                      math.fsum(w * (q - n) ** 2 for w, _, q in window))
            mn = math.fsum(w * (p - m) * (q - n) for w, p, q in window)
            found.append((2 * m * n + a) * (2 * mn + b) / ((m * m + n * n + a) * (mm + nn + b)))
    return math.fsum(found) / len(found)


def test_ssim_is_its_formula():
    y, t = pictures(2, 2, 13, 12)
    expected = [similarity(y[n, c], t[n, c], 1, 11, 1.5) for n in range(2) for c in range(2)]
    assert metrics.ssim(y, t) == pytest.approx(sum(expected) / 4, rel=1e-10)
    assert metrics.ssim(y[:, 0], t[:, 0], kernel_size=5, sigma=0.8,
                        data_range=2.0) == pytest.approx(
        sum(similarity(y[n, 0], t[n, 0], 2.0, 5, 0.8) for n in range(2)) / 2, rel=1e-10)
    assert metrics.ssim(t, t) == 1.0 == metrics.ssim(np.zeros((1, 11, 11)), np.zeros((1, 11, 11)))


def test_psnr_is_its_formula():
    y, t = pictures(3, 1, 4, 5)
    each = [10 * math.log10(1 / ((a - b) ** 2).mean()) for a, b in zip(y, t)]
    assert metrics.psnr(y, t) == pytest.approx(sum(each) / 3)
    assert metrics.psnr(y * 7, t * 7, data_range=7) == pytest.approx(sum(each) / 3)
    # one of four bytes differs by one
    assert metrics.psnr(
        np.array([[0, 9, 255, 3]], np.uint8),
        np.array([[1, 9, 255, 3]], np.uint8)) == pytest.approx(10 * math.log10(255 ** 2 * 4))
    assert metrics.psnr(t, t) == math.inf


def test_the_range_of_floats_is_known_or_must_be_given():
    """Float images from 0 to 255 gave -20 dB when their data_range was assumed to be 1."""
    y, t = (np.rint(255 * a) for a in pictures(2, 20, 23))
    right = metrics.psnr(y.astype(np.uint8), t.astype(np.uint8))
    for dtype in (np.float16, np.float32, np.float64):
        a, b = y.astype(dtype), t.astype(dtype)
        assert metrics.psnr(a, b, data_range=255) == pytest.approx(right)
        assert metrics.psnr(a / 255, b / 255) == pytest.approx(right, rel=1e-3)
        for measure in (metrics.psnr, metrics.ssim):
            for images in (b, b / 127.5 - 1):
                with pytest.raises(ValueError,
                                   match=r"expected data_range, the largest value that a pixel can "
                                         r"have, for targets beyond 0 to 1. Received: "
                                         r"data_range=None for targets from -?\d+\.?\d* to \d+"):
                    measure(images, images)
    low, high = np.zeros((1, 11, 11)), np.ones((1, 11, 11))
    assert metrics.psnr(high, low) == metrics.psnr(low, high) == 0      # both ends are in the range
    # predictions may be outside of it
    assert metrics.psnr(np.full((1, 4), 1.5), np.ones((1, 4))) == pytest.approx(10 * math.log10(4))


def test_against_scikit_image():
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    y, t = (np.rint(255 * a).astype(np.uint8) for a in pictures(2, 20, 23))
    theirs = [skimage.structural_similarity(a, b, gaussian_weights=True, sigma=1.5,
                                            use_sample_covariance=False, data_range=255)
              for a, b in zip(t, y)]
    assert metrics.ssim(y, t) == pytest.approx(np.mean(theirs), rel=1e-9)
    assert metrics.psnr(y, t) == pytest.approx(
        np.mean([skimage.peak_signal_noise_ratio(a, b) for a, b in zip(t, y)]))


@pytest.mark.parametrize("call, message", [
    (lambda: metrics.psnr(np.zeros((2, 3)), np.zeros((2, 4))),
     r"expected images of the targets' shape.*\(2, 3\).*\(2, 4\)"),
    (lambda: metrics.psnr(np.zeros(3), np.zeros(3)), "psnr: expected images"),
    (lambda: metrics.psnr(np.zeros((0, 3)), np.zeros((0, 3))), "psnr: expected images"),
    (lambda: metrics.psnr(np.full((1, 3), math.nan), np.zeros((1, 3))),
     "psnr: y: expected finite numbers"),
    (lambda: metrics.psnr(np.zeros((1, 3)), np.zeros((1, 3), int)),
     "psnr: expected data_range, the largest value.*data_range=None.*int64"),
    (lambda: metrics.psnr(np.zeros((1, 3)), np.zeros((1, 3)), data_range=0),
     "psnr: expected data_range"),
    (lambda: metrics.ssim(np.zeros((1, 10, 11)), np.zeros((1, 10, 11))),
     r"ssim: expected images .* of 11 x 11 pixels or more"),
    (lambda: metrics.ssim(np.zeros((11, 11)), np.zeros((11, 11))), "ssim: expected images"),
    (lambda: metrics.ssim(np.zeros((1, 9, 9)), np.zeros((1, 9, 9)), kernel_size=4),
     "ssim: expected kernel_size to be an odd int"),
    (lambda: metrics.ssim(np.zeros((1, 11, 11)), np.zeros((1, 11, 11)), sigma=0),
     "ssim: expected sigma to be a number above 0"),
])
def test_refusals_of_images(call: Any, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_all_are_listed():
    assert all(callable(getattr(xn.metrics, name)) for name in metrics.__all__)


# --- of a network ---------------------------------------------------------------------------------

@pytest.mark.parametrize("last", [[], [xn.Softmax]], ids=["logits", "softmax"])
def test_evaluate_applies_them_to_the_results_of_predict(last: list[Any], plain_backend):
    x, labels = RNG.normal(size=(23, 4)), RNG.integers(0, 3, 23)
    net = xn.Sequential([xn.Linear(3), *(layer() for layer in last)], input_shape=(4,),
                        backend=plain_backend, dtype="float64")
    plain = net.evaluate(x, labels, loss="cross_entropy", batch_size=10)
    given = net.evaluate(x, labels.tolist(), loss="cross_entropy", batch_size=10, metrics={
        "right": metrics.accuracy, "top": lambda y, t: metrics.top_k_accuracy(y, t, 2),
        "outputs": lambda y, t: y})
    assert list(given) == ["loss", "accuracy", "right", "top", "outputs"]
    assert (given["right"] == given["accuracy"] == plain["accuracy"]
            and given["loss"] == plain["loss"])
    assert given["top"] == metrics.top_k_accuracy(net.predict(x), labels, 2)
    np.testing.assert_allclose(given["outputs"], net.predict(x), rtol=1e-14)


@pytest.mark.parametrize("wrong", [[metrics.accuracy], {"accuracy": "accuracy"}, metrics.accuracy])
def test_evaluate_takes_names_and_functions(wrong: Any):
    net = xn.Sequential([xn.Linear(3)], input_shape=(4,), backend="numpy")
    with pytest.raises(
            TypeError,
            match="evaluate: expected metrics to be a dict of names and functions. Received"):
        net.evaluate(np.zeros((2, 4)), [0, 1], loss="cross_entropy", metrics=wrong)


# --- the report -----------------------------------------------------------------------------------

def test_report_against_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support
    rng = np.random.default_rng(0)
    scores, target = rng.random((300, 5)), rng.integers(0, 5, 300)
    found = metrics.report(scores, target, names=["a", "b", "c", "d", "e<f"])
    right = precision_recall_fscore_support(target, scores.argmax(1))
    for mine, theirs in zip((found.precision, found.recall, found.f1_score, found.support), right):
        np.testing.assert_allclose(mine, theirs)
    means = precision_recall_fscore_support(target, scores.argmax(1), average="macro")
    weighted = precision_recall_fscore_support(target, scores.argmax(1), average="weighted")
    lines = str(found).splitlines()
    assert lines[0].split() == ["class", "precision", "recall", "F1", "targets"]
    assert lines[-3].split()[-4:] == [f"{value:.3f}" for value in means[:3]] + ["300"]
    assert lines[-2].split()[-4:] == [f"{value:.3f}" for value in weighted[:3]] + ["300"]
    assert lines[-1] == f"accuracy: {metrics.accuracy(scores, target):.4f}"
    assert "e&lt;f" in found._repr_html_()


def test_report_of_a_class_that_is_nowhere():
    found = metrics.report([0, 0, 2], [0, 2, 2])
    assert found.names == ("0", "1", "2") and np.isnan(found.precision[1])
    lines = str(found).splitlines()
    assert lines[3].split() == ["1", "nan", "nan", "nan", "0"]
    assert lines[5].split() == ["mean", "0.750", "0.750", "0.667", "3"]


@pytest.mark.parametrize("names", [["a"], "ab", 3, []])
def test_report_with_wrong_names(names):
    message = "expected classes" if names == ["a"] else "report: expected names to be a list"
    with pytest.raises(ValueError, match=message):
        metrics.report([0, 1, 2], [0, 1, 2], names=names)
