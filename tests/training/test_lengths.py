"""Training on sequences of different lengths: padding does not count, in losses, gradients and
figures."""

import re
from typing import Any

import numpy as np
import pytest
from gpu_cases import learned, pretended
from nets import padded, same

import xpnet as xn

T, N = 6, 20
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, T + 1, N)
XS = [RNG.standard_normal((2, n)) for n in LENGTHS]
LABELS = [(x[0] > 0).astype(int) + (x[1] > 0) for x in XS]
SETTINGS: dict[str, Any] = {"loss": "cross_entropy", "optimizer": xn.SGD(0.1), "epochs": 3,
                            "batch_size": 8, "verbose": False}


def tagger(backend="numpy", dtype="float64", dropout=0.2, outputs=3):
    """Two layers in both directions, attention, and an output for each step."""
    x = xn.Input((2, T), lengths=True)
    h = xn.LSTM(4, layers=2, bidirectional=True, return_sequences=True)(x)
    h = h + xn.MultiHeadAttention(2, mask="causal")(xn.LayerNorm(axis=0)(h))
    return xn.Network(x, xn.Linear(outputs)(xn.Dropout(dropout)(h)), backend=backend, dtype=dtype,
                      seed=1)


def last(backend="numpy", dtype="float64"):
    return xn.Sequential([xn.GRU(4, bidirectional=True), xn.Linear(3)], input_shape=(2, T),
                         lengths=True, backend=backend, dtype=dtype, seed=1)


def host(net, a):
    return net.backend.to_numpy(a).copy()


# --- the mathematics ------------------------------------------------------------------------------

def gradients(net, xs, ys, loss):
    """Loss and gradients of all parameters of a batch of samples, by one step without an update."""
    step = xn.TrainStep(net, loss, xn.SGD(1e-300))
    x, y, n = padded(xs, 3.5), padded(ys, -9) if ys[0].ndim else np.array(ys), [
        x.shape[1] for x in xs]
    lengths = net.batch_last(np.array(n)[:, None])
    value, _ = step(net.batch_last(x), net.backend.asarray(np.moveaxis(np.maximum(y, 0), 0, -1)),
                    lengths=lengths)
    return float(value), host(net, net.grads)


@pytest.mark.parametrize("make", [tagger, last])
def test_a_batch_is_the_mean_of_its_samples_alone(backend, make):
    """Loss and gradients of a batch with padding are the means of those of each sample alone,
    weighted by its steps: of all layers, in both directions."""
    net = make(backend) if make is last else make(backend, dropout=0.0)
    ys = LABELS if make is tagger else [y[-1] for y in LABELS]
    loss, grads = gradients(net, XS, ys, "cross_entropy")
    alone = [gradients(net, [x], [y], "cross_entropy") for x, y in zip(XS, ys, strict=True)]
    share = LENGTHS / LENGTHS.sum() if make is tagger else np.full(N, 1 / N)
    np.testing.assert_allclose(loss, sum(w * a for w, (a, _) in zip(share, alone, strict=True)),
                               rtol=1e-12)
    np.testing.assert_allclose(grads, sum(w * g for w, (_, g) in zip(share, alone, strict=True)),
                               atol=1e-12)
    assert abs(grads).max() > 1e-3


def test_padding_has_the_gradient_zero():
    net, x = tagger(dropout=0.0), padded(XS, 1.5)
    given = RNG.standard_normal((N, 3, T))
    for dx in (net.input_gradient(x, padded(LABELS, -1), lengths=LENGTHS, loss="cross_entropy"),
               net.input_gradient(x, lengths=LENGTHS, output_gradient=given)):
        for row, n in zip(dx, LENGTHS, strict=True):
            assert not row[:, n:].any() and row[:, :n].all()
    lists = net.input_gradient(XS, LABELS, loss="cross_entropy")
    assert [a.shape for a in lists] == [a.shape for a in XS]


def one_hot(y):
    return np.moveaxis(np.eye(3)[y], -1, 1) if y.ndim > 1 else np.eye(3)[y]


def smoothed(y):
    return 0.8 * one_hot(y) + 0.2 / 3


CASES = {
    "labels": (xn.CrossEntropy(), lambda y: y),
    "weights": (xn.CrossEntropy(weight=[1, 2, 3]), lambda y: y),
    "ignored": (xn.CrossEntropy(ignore_index=1, weight=[1, 2, 3]), lambda y: y),
    "smoothing": (xn.CrossEntropy(label_smoothing=0.1), lambda y: y),
    "sum": (xn.CrossEntropy(reduction="sum"), lambda y: y),
    "probabilities": (xn.CrossEntropy(), smoothed),
    "likelihood": (xn.NegativeLogLikelihood(weight=[1, 2, 3]), lambda y: y),
    "likelihood of probabilities": (xn.NegativeLogLikelihood(), smoothed),
    "bounded": (xn.BoundedCrossEntropy(0.5), lambda y: y),
    "divergence": (xn.KullbackLeibler(), smoothed),
    "hinge": (xn.CrammerSingerHinge(), lambda y: y),
    "binary": (xn.BinaryCrossEntropy(), one_hot),
    "many labels": (xn.MultiLabelCrossEntropy(ignore_index=0, pos_weight=[1, 2, 3]), one_hot),
    "squared": (xn.MeanSquaredError(), one_hot),
    "signs": (xn.Hinge(), lambda y: 2 * one_hot(y) - 1),
    "gaussian": (xn.GaussianLikelihood(), lambda y: one_hot(y)[:, :2]),
    "cosine": (xn.CosineDistance(), one_hot),
}


@pytest.mark.parametrize("name", CASES)
def test_the_loss_of_every_kind_is_that_of_the_real_steps(backend, name):
    """As of the same steps, one after another, without padding."""
    loss, targets = CASES[name]
    K, dtype = 4 if name == "gaussian" else 3, np.dtype(np.float64)
    rows = [np.random.default_rng(n).standard_normal((K, n)) for n in LENGTHS]
    y, y_real = padded(rows, 50.0), np.concatenate([row.T for row in rows])
    mask = np.arange(T)[:, None] < LENGTHS
    labels = padded(LABELS, 2)
    t = loss.targets(targets(labels), (K, T), dtype)
    t_real = loss.targets(targets(np.concatenate(LABELS)), (K,), dtype)
    to, back = backend.asarray, backend.to_numpy
    value, dy = loss(backend, *(to(np.ascontiguousarray(np.moveaxis(a, 0, -1))) for a in (y, t)),
                     mask=to(mask))
    expected, dy_real = loss(backend, *(to(np.ascontiguousarray(np.moveaxis(a, 0, -1)))
                                        for a in (y_real, t_real)))
    np.testing.assert_allclose(float(value), float(expected), rtol=1e-12)
    dy = np.moveaxis(back(dy), -1, 0)                                       # (N, K, T)
    np.testing.assert_allclose(np.moveaxis(dy, 1, -1)[mask.T], back(dy_real).T, atol=1e-14)
    assert not np.moveaxis(dy, 1, -1)[~mask.T].any()


def test_without_a_real_step_a_loss_is_zero():
    """As in a memory report, or in a batch that a mask of one's own leaves empty."""
    numpy, y = xn.get_backend("numpy"), np.ones((3, 2, 4))
    for loss in (xn.CrossEntropy(), xn.MeanSquaredError(), xn.NegativeLogLikelihood()):
        t = np.zeros((2, 4), int) if loss.counts_hits else np.zeros((3, 2, 4))
        value, dy = loss(numpy, y, t, mask=np.zeros((2, 4), bool))
        assert value == 0 and not dy.any()


# --- fit, evaluate, predict -----------------------------------------------------------------------

def fitted(make, x, y, backend="numpy", **settings):
    net = make(backend)
    history = net.fit(x, y, **SETTINGS | settings)
    for row in history.rows:
        del row["seconds"]
    return net, history.rows


@pytest.mark.parametrize("make", [tagger, last])
@pytest.mark.parametrize("settings", [
    {"validation": 0.25}, {"accumulate": 2, "sample_weight": np.linspace(0, 1, N)}], ids=list)
def test_lists_and_padded_arrays_train_to_the_same_bits(backend, make, settings):
    """Whatever the padding is, that of targets too."""
    y = LABELS if make is tagger else [y[-1] for y in LABELS]
    net, rows = fitted(make, XS, y, backend, **settings)
    for x_padding, y_padding in ((0.0, 0), (-3.0, -100), (1e30, 99)):
        y_padded = padded(LABELS, y_padding) if make is tagger else y
        other, other_rows = fitted(make, padded(XS, x_padding), y_padded, backend,
                                   lengths=LENGTHS, **settings)
        assert rows == other_rows and same(learned(net), learned(other))


def test_figures_are_those_of_the_real_steps(backend):
    """Also over batches of different numbers of real steps, and of ignored labels."""
    net = tagger(backend, dropout=0.0)
    logits = np.concatenate([z.T for z in net.predict(XS)])                 # (P, 3)
    labels = np.concatenate(LABELS)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    f, hits = -log_p[np.arange(len(labels)), labels], logits.argmax(axis=1) == labels
    for loss, known in (("cross_entropy", labels >= 0), (xn.CrossEntropy(ignore_index=1),
                                                         labels != 1)):
        size = 7 if loss == "cross_entropy" else N      # of unequal batches the mean differs
        for arguments in ((XS, LABELS, None), (padded(XS, 5.0), padded(LABELS, 1), LENGTHS)):
            x, y, n = arguments
            figures = net.evaluate(x, y, lengths=n, loss=loss, batch_size=size)
            assert figures["loss"] == pytest.approx(f[known].mean(), rel=1e-12)
            assert figures["accuracy"] == hits[known].mean()
    squared = net.evaluate(XS, [z * 0 for z in net.predict(XS)], loss=xn.MeanSquaredError(),
                           batch_size=7)
    assert squared == {"loss": pytest.approx((logits ** 2).mean(), rel=1e-12)}
    shares = net.evaluate(XS, [np.eye(3)[y].T for y in LABELS], loss="cross_entropy")
    assert shares["accuracy"] == hits.mean()


def test_metrics_get_the_real_steps():
    net = tagger()
    seen = {}

    def metric(y, t):
        seen["y"], seen["t"] = y, t
        return xn.metrics.accuracy(y, t)

    figures = net.evaluate(padded(XS, 2.0), padded(LABELS, 7), lengths=LENGTHS,
                           loss="cross_entropy", metrics={"again": metric})
    assert figures["again"] == pytest.approx(figures["accuracy"])
    np.testing.assert_array_equal(seen["t"], np.concatenate(LABELS))
    np.testing.assert_array_equal(seen["y"], np.concatenate([z.T for z in net.predict(XS)]))


def test_validation_takes_lengths():
    """As lists, or as (x, y, lengths); the figures are those of evaluate."""
    x, y = padded(XS, 9.0), padded(LABELS, 9)
    for validation in ((XS[:9], LABELS[:9]), (x[:9], y[:9], LENGTHS[:9])):
        net, rows = fitted(tagger, XS, LABELS, validation=validation)
        assert net.evaluate(XS[:9], LABELS[:9]) == {"loss": rows[-1]["val_loss"],
                                                    "accuracy": rows[-1]["val_accuracy"]}


def test_accumulated_batches_are_one_batch():
    """The share of each batch is that of its real steps, or of their weights."""
    for loss in (xn.CrossEntropy(), xn.CrossEntropy(weight=[1, 5, 2], ignore_index=2),
                 xn.MeanSquaredError(), xn.HalfSquaredError()):
        y = LABELS if loss.counts_hits else [np.eye(3)[y].T for y in LABELS]
        whole, parts = (fitted(lambda backend: tagger(backend, dropout=0.0), XS, y, loss=loss,
                               batch_size=size, accumulate=20 // size, epochs=2, shuffle=False)[0]
                        for size in (20, 5))
        np.testing.assert_allclose(parts.parameters, whole.parameters, atol=1e-12)


def test_probabilities_samples_and_rates():
    net, _ = fitted(tagger, XS, LABELS)
    for p, z in zip(net.predict_proba(XS), net.predict(XS), strict=True):
        np.testing.assert_allclose(p, np.exp(z) / np.exp(z).sum(axis=0), rtol=1e-9)
    p = net.predict_proba(padded(XS, 2.0), lengths=LENGTHS)
    assert all(not row[:, n:].any() for row, n in zip(p, LENGTHS, strict=True))
    mean, spread = net.predict_samples(XS, 3)
    assert [a.shape for a in mean] == [a.shape for a in spread] == [(3, n) for n in LENGTHS]
    mean, spread = net.predict_samples(padded(XS, 2.0), 3, lengths=LENGTHS)
    assert mean.shape == (N, 3, T) and not spread[LENGTHS < T, :, -1].any()
    assert len(net.find_lr(XS, LABELS, loss="cross_entropy", steps=4).rates) == 4


class Killed(xn.Callback):
    """Ends the training by an error after a batch of this number."""

    def __init__(self, step):
        self.step = step

    def on_batch_end(self, run):
        if run.steps == self.step:
            raise RuntimeError("killed")


def test_a_training_is_resumed_in_the_middle_of_an_epoch(tmp_path):
    """To the same bits and figures: the sums of an epoch are saved, with the padding."""
    whole, rows = fitted(tagger, XS, LABELS, callbacks=[Killed(0)])
    with pytest.raises(RuntimeError, match="killed"):
        fitted(tagger, XS, LABELS, callbacks=[Killed(5)],
               checkpoint=xn.Checkpoint(tmp_path, steps=2))
    resumed, resumed_rows = fitted(tagger, XS, LABELS, callbacks=[Killed(0)], resume=tmp_path)
    assert same(learned(whole), learned(resumed)) and rows == resumed_rows
    shorter = [x[:, :-1] if x.shape[1] == T else x for x in XS]
    with pytest.raises(ValueError, match="expected the training of"):
        fitted(tagger, shorter, [y[:x.shape[1]] for x, y in zip(shorter, LABELS, strict=True)],
               callbacks=[Killed(0)], resume=tmp_path)


def test_captured_steps_give_the_bits_of_others(folder):
    """On an emulated GPU: the masks follow the lengths of each batch, and nothing waits."""
    def small(backend):
        return xn.Sequential([xn.GRU(3, return_sequences=True), xn.Linear(3)], input_shape=(2, T),
                             lengths=True, backend=backend, seed=1)

    settings = SETTINGS | {"batch_size": 5, "epochs": 2, "validation": (XS, LABELS)}
    results = []
    for capture in (False, True):
        with pretended(folder) as (backend, gpus):
            net = small(backend)
            history = net.fit(XS, LABELS, capture=capture, **settings)
            results.append(learned(net) | {"loss": np.array(history["val_loss"])})
            assert (gpus.launches > 0) is capture
            before, figures = gpus.graphs, net.evaluate(XS, LABELS)
            assert net.evaluate(XS, LABELS, batch_size=2) == pytest.approx(figures, rel=1e-5)
            for a, b in zip(net.predict(XS, batch_size=2), net.predict(XS), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
            assert gpus.graphs == before + 2            # of evaluate and of predict
    assert same(*results)
    cpu = small("numpy").fit(XS, LABELS, **settings)
    for figure in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert history[figure] == pytest.approx(cpu[figure], rel=1e-4)


# --- refusals -------------------------------------------------------------------------------------

class Old(xn.Loss):
    """A loss of one's own that takes no mask."""

    def __call__(self, backend, y, target):
        return (y * target).sum(), target


class OfSamples(xn.Loss):
    """A loss of one's own with a term for each sample, or a divisor of its own."""

    def __init__(self, divisor):
        self.divisor = divisor

    def terms(self, backend, y, target):
        f = y * target
        return (f, target, f.sum()) if self.divisor else (f.sum(axis=(0, 1)), target, y.shape[-1])


@pytest.mark.parametrize("divisor, shape", [(False, "(8,)"), (True, "()")])
def test_terms_that_are_not_of_single_steps_are_refused(divisor, shape):
    y = [np.eye(3)[y].T for y in LABELS]
    text = (r"OfSamples: expected terms of each step, \(\.\.\., T, N\), for an output with "
            rf"lengths\. Received: shape {re.escape(shape)} for \(6, 8\)\.")
    with pytest.raises(TypeError, match=text):
        tagger().fit(XS, y, **SETTINGS | {"loss": OfSamples(divisor)})


@pytest.mark.parametrize("arguments, error, text", [
    ({"y": LABELS[:-1]}, ValueError, "fit: targets: expected as many targets as samples. Received: "
     "20 samples, 19 targets"),
    ({"y": [y[:1] for y in LABELS]}, ValueError, r"targets for each step, .* Received: shape \(1,\)"
     r" of sample \d+, which has \d steps\."),
    ({"y": [np.ones((3, n)) if n > 1 else np.ones(n) for n in LENGTHS]}, ValueError,
     "of one shape otherwise"),
    ({"y": [y + 1 for y in LABELS]}, ValueError, "expected labels from 0 to 2"),
    ({"y": np.zeros((N, 5), int)}, ValueError, "expected labels of shape"),
    ({"y": 3}, ValueError, "expected labels of shape"),
    ({"lengths": LENGTHS}, ValueError, "pass the list without lengths"),
    ({"x": padded(XS, 0.0)}, ValueError, "expected lengths, the number of steps"),
    ({"x": padded(XS, 0.0), "lengths": LENGTHS - 1}, ValueError, "expected lengths from 1 to 6"),
    ({"loss": "dice"}, ValueError, "fit: expected a loss with terms of each step, which takes a "
     "mask, for an output with lengths. Received: Dice"),
    ({"loss": Old()}, ValueError, "Received: Old"),
    ({"validation": (XS, LABELS, LENGTHS, 1)}, TypeError, r"a pair \(x, y\) or \(x, y, lengths\)"),
    ({"validation": (XS, LABELS, LENGTHS)}, ValueError, "pass the list without lengths"),
    ({"class_weight": "balanced"}, ValueError, "a label for each sample, for class_weight"),
], ids=range(14))
def test_errors(arguments, error, text):
    net = tagger()
    with pytest.raises(error, match=text):
        net.fit(**{"x": XS, "y": LABELS} | SETTINGS | arguments)
    assert net.step is None


def test_three_values_for_the_validation_need_an_input_with_lengths():
    net = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy")
    x, y = np.ones((4, 2)), np.zeros(4, int)
    with pytest.raises(TypeError, match=r"to be a pair \(x, y\), a Dataset"):
        net.fit(x, y, validation=(x, y, y), **SETTINGS)
