"""Variants of dropout against masks and numbers made element by element from Philox; sampled
predictions."""

import math

import numpy as np
import pytest
from gpu_cases import learned, pretended, samples
from nets import same, untouched
from oracles import dropout_keep, philox

import xpnet as xn
from tests.layers.test_dropout import bound
from xpnet import SAMPLE, TRAIN
from xpnet.testing import check_gradients

every_float = pytest.mark.parametrize("dtype", ["float32", "float64"])
NEAR = {"float32": 1e-5, "float64": 1e-12}
MAPS = (3, 5, 4)


def passes(layer, x, dy):
    """Output and input gradient of a training pass, on the host."""
    backend = layer.backend
    y = layer.forward(backend.asarray(x), mode=TRAIN)
    return backend.to_numpy(y), backend.to_numpy(layer.backward(backend.asarray(dy)))


def drawn(dtype, *shape):
    return np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)


# --- whole maps -----------------------------------------------------------------------------------

@every_float
def test_spatial_dropout_keeps_or_drops_whole_maps(backend, dtype):
    layer = bound(0.4, backend, layer=xn.Dropout2d, seed=3, index=2, step=5, dtype=dtype)
    x, dy = drawn(dtype, *MAPS, 6)
    keep = dropout_keep((3, 6), 0.4, 3, 2, 5, 0)[:, None, None, :]
    assert 0 < keep.sum() < keep.size
    y, dx = passes(layer, x, dy)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_allclose(y, np.where(keep, x / 0.6, 0), rtol=NEAR[dtype])
    np.testing.assert_allclose(dx, np.where(keep, dy / 0.6, 0), rtol=NEAR[dtype])


def test_a_dropped_map_of_nans_is_zero(backend):
    layer = bound(0.5, backend, layer=xn.Dropout2d)
    y = backend.to_numpy(
        layer.forward(backend.asarray(np.full((*MAPS, 6), np.nan, np.float32)), mode=SAMPLE))
    keep = np.broadcast_to(dropout_keep((3, 6), 0.5, 0, 0, 0, 0)[:, None, None, :], y.shape)
    assert np.isnan(y[keep]).all() and not y[~keep].any()


def test_spatial_dropout_is_about_maps():
    with pytest.raises(
            ValueError,
            match=r"Dropout2d: expected an input of shape \(channels, height, width\).*\(5,\)"):
        xn.Dropout2d().initialize((5,))


# --- noise ----------------------------------------------------------------------------------------

def gaussian(n, seed, layer, step):
    """Box and Muller 1958, two numbers from two 32-bit words at a time."""
    words = []
    for block in range(-(-n // 8) + 1):
        for word in philox((step << 128) + 1 + block, (seed, layer)):
            words += [word & 0xFFFFFFFF, word >> 32]
    numbers = []
    for first, second in zip(words[::2], words[1::2]):
        radius, angle = (math.sqrt(-2 * math.log((first + 0.5) / 2**32)),
                         2 * math.pi * (second + 0.5) / 2**32)
        numbers += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(numbers[:n])


@every_float
@pytest.mark.parametrize("batch", [2, 3])       # an even and an odd number of elements
def test_gaussian_dropout_multiplies_with_numbers_from_philox(backend, dtype, batch):
    layer = bound(0.2, backend, layer=xn.GaussianDropout, seed=3, index=2, step=5, shape=(5, 3),
                  dtype=dtype)
    x, dy = drawn(dtype, 5, 3, batch)
    noise = 1 + 0.5 * gaussian(x.size, 3, 2, 5).reshape(x.shape)        # sqrt(0.2 / 0.8)
    y, dx = passes(layer, x, dy)
    assert y.dtype == dx.dtype == dtype
    for found, expected in ((y, x * noise), (dx, dy * noise)):
        np.testing.assert_allclose(found, expected, rtol=NEAR[dtype], atol=NEAR[dtype])


@every_float
def test_gaussian_noise_has_the_moments_of_dropout(backend, dtype):
    """100,000 numbers: within four standard errors of mean 1, variance p / (1 - p), no skewness,
    and kurtosis 3."""
    n, p = 100_000, 0.3
    layer = bound(p, backend, layer=xn.GaussianDropout, shape=(100,), dtype=dtype)
    noise = backend.to_numpy(
        layer.forward(backend.asarray(np.ones((100, n // 100), dtype)), mode=SAMPLE)).astype(float)
    z = (noise - 1) / math.sqrt(p / (1 - p))
    assert abs(z.mean()) < 4 * n**-0.5 and abs((z**2).mean() - 1) < 4 * (2 / n) ** 0.5
    assert abs((z**3).mean()) < 4 * (15 / n) ** 0.5 and abs((z**4).mean() - 3) < 4 * (96 / n) ** 0.5


@every_float
def test_additive_noise_adds_numbers_from_philox(backend, dtype):
    layer = bound(0.5, backend, layer=xn.AdditiveNoise, seed=3, index=2, step=5, shape=(5, 3),
                  dtype=dtype)
    x, dy = drawn(dtype, 5, 3, 3)
    y, dx = passes(layer, x, dy)
    assert y.dtype == dx.dtype == dtype
    expected = x + 0.5 * gaussian(x.size, 3, 2, 5).reshape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=NEAR[dtype], atol=NEAR[dtype])
    np.testing.assert_array_equal(dx, dy)
    sampled = backend.to_numpy(layer.forward(backend.asarray(x), mode=SAMPLE))
    np.testing.assert_array_equal(sampled, y)
    np.testing.assert_array_equal(backend.to_numpy(layer.forward(backend.asarray(x))), x)


def test_training_with_noise_on_the_input_is_ridge_regression():
    """Sietsma and Dow's noise, in Bishop's closed form: the mean squared error of a linear layer
    grows by std^2 times the sum of the squared weights."""
    std, x = 0.3, np.zeros((20_000, 5), np.float32)
    net = xn.Sequential([xn.AdditiveNoise(std), xn.Linear(1)], input_shape=(5,), backend="numpy",
                        seed=2)
    y = net(x, mode=SAMPLE)
    expected = std**2 * float((net.layers[1].W.data.astype(float) ** 2).sum())
    assert abs((y.astype(float) ** 2).mean() / expected - 1) < 4 * (2 / len(x)) ** 0.5


@pytest.mark.parametrize("std", [-0.1, None, "1", math.nan, True])
def test_a_wrong_standard_deviation_is_refused(std):
    with pytest.raises(ValueError, match="AdditiveNoise: expected std to be a .*number"):
        xn.AdditiveNoise(std)


def test_words_at_the_ends_give_finite_numbers():
    """In float32 the largest words are rounded to 1, and the smallest are not 0."""
    from xpnet.layers.dropout import normal_numbers

    class Ends(xn.Backend):
        def random_bits(self, n, key, counter):
            return np.array([0, 0, 2**32 - 1, 2**32 - 1, 0, 2**32 - 1], np.uint32)[:n]

    for dtype in (np.float32, np.float64):
        numbers = normal_numbers(Ends(), 6, dtype, (0, 0), None)
        assert numbers.dtype == dtype and np.isfinite(numbers).all()
        assert np.abs(numbers).max() == pytest.approx(math.sqrt(-2 * math.log(2.0**-33)))


# --- alpha dropout --------------------------------------------------------------------------------

@every_float
def test_alpha_dropout_replaces_dropped_elements_by_selus_limit(backend, dtype):
    p, floor = 0.3, -1.7580993408473766
    layer = bound(p, backend, layer=xn.AlphaDropout, seed=3, index=2, step=5, dtype=dtype)
    x, dy = drawn(dtype, *MAPS, 6)
    keep = dropout_keep(x.shape, p, 3, 2, 5, 0)
    a = (1 - p + floor**2 * p * (1 - p)) ** -0.5
    y, dx = passes(layer, x, dy)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_allclose(y, a * (np.where(keep, x, floor) - p * floor), rtol=10 * NEAR[dtype],
                               atol=NEAR[dtype])
    np.testing.assert_allclose(dx, np.where(keep, a * dy, 0), rtol=NEAR[dtype])


def test_alpha_dropout_keeps_mean_and_variance(backend):
    x = np.random.default_rng(0).standard_normal((100, 1000))
    layer = bound(0.4, backend, layer=xn.AlphaDropout, shape=(100,), dtype="float64")
    y = backend.to_numpy(layer.forward(backend.asarray(x), mode=SAMPLE))
    assert abs(y.mean()) < 0.015 and abs(y.var() - 1) < 0.02


# --- weights --------------------------------------------------------------------------------------

@every_float
@pytest.mark.parametrize("activation, f, slope",
                         [(None, lambda z: z, lambda y: 1.0),
                          ("tanh", np.tanh, lambda y: 1 - y**2)])
def test_drop_connect_drops_weights(backend, dtype, activation, f, slope):
    layer = xn.DropConnect(4, 0.3, activation=activation).initialize(
        (5,), backend=backend, dtype=dtype, seed=1)
    layer.bind(backend, 3, backend.asarray(np.array([7, 0], np.uint64)))
    layer.enter(2)
    x, dy = np.random.default_rng(0).standard_normal((5, 6)).astype(dtype), drawn(dtype, 4, 6)[0]
    layer.b.data[...] = 0.5
    keep = dropout_keep((4, 5), 0.3, 3, 2, 7, 0)
    W = np.where(keep, backend.to_numpy(layer.W.data).astype(float) / 0.7, 0)
    y, dx = passes(layer, x, dy)
    expected = f(W @ x + 0.5)
    dz = dy * slope(expected)
    close = {"rtol": 10 * NEAR[dtype], "atol": 10 * NEAR[dtype]}
    np.testing.assert_allclose(y, expected, **close)
    np.testing.assert_allclose(dx, W.T @ dz, **close)
    np.testing.assert_allclose(backend.to_numpy(layer.W.grad), np.where(keep, dz @ x.T / 0.7, 0),
                               **close)
    np.testing.assert_allclose(backend.to_numpy(layer.b.grad), dz.sum(axis=1), **close)
    mean = backend.to_numpy(layer.forward(backend.asarray(x)))
    np.testing.assert_allclose(mean, f(backend.to_numpy(layer.W.data) @ x + 0.5), **close)


@pytest.mark.parametrize("settings", [{"bias": False}, {"activation": "gelu"},
                                      {"activation": "sigmoid", "init": "he_normal"}])
def test_gradients_of_drop_connect(backend, settings):
    check_gradients(xn.DropConnect(4, 0.3, **settings), (5,), backend=backend)


def test_drop_connect_is_a_linear_layer():
    with pytest.raises(ValueError, match="DropConnect: expected a vector of features per sample"):
        xn.DropConnect(4).initialize(MAPS)
    assert xn.DropConnect(4, name="d").config() == {
        "units": 4, "p": 0.5, "bias": True, "activation": None, "init": None, "name": "d"}


@pytest.mark.parametrize("kind", [xn.Dropout, xn.Dropout2d, xn.GaussianDropout, xn.AlphaDropout,
                                  lambda p: xn.DropConnect(3, p)])
@pytest.mark.parametrize("p", [1, -0.1, "0.5", None, math.nan])
def test_a_wrong_probability_is_refused(kind, p):
    with pytest.raises(ValueError,
                       match="expected p to be a number, 0 or larger, below 1. Received: p="):
        kind(p)


@pytest.mark.parametrize("kind", [xn.Dropout2d, xn.GaussianDropout, xn.AdditiveNoise,
                                  xn.AlphaDropout])
def test_each_step_has_another_mask(backend, kind):
    x = backend.asarray(np.ones((*MAPS, 6), np.float32))
    layer = bound(0.5, backend, layer=kind)
    first = backend.to_numpy(layer.forward(x, mode=SAMPLE)).copy()
    np.testing.assert_array_equal(backend.to_numpy(layer.forward(x, mode=SAMPLE)), first)
    layer.counters[0] += 1
    assert (backend.to_numpy(layer.forward(x, mode=SAMPLE)) != first).any()


def test_captured_steps_draw_new_masks(folder):
    """On an emulated GPU, where a captured step would repeat every value that comes from the
    host."""
    x, y = samples(40)
    results = []
    for capture in (False, True):
        with pretended(folder) as (backend, gpus):
            net = xn.Sequential([xn.AdditiveNoise(0.1), xn.Conv2d(3, 3, activation="relu"),
                                 xn.Dropout2d(0.3), xn.Flatten(), xn.GaussianDropout(0.2),
                                 xn.AlphaDropout(0.1), xn.DropConnect(6, 0.3), xn.Linear(4)],
                                input_shape=(1, 4, 4), backend=backend, seed=3)
            net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=3, batch_size=8,
                    capture=capture, verbose=False)
            assert gpus.graphs == capture
            results.append(learned(net) | {"drawn": np.array(net.predict_samples(x, 3))})
    assert same(*results)


# --- sampled predictions --------------------------------------------------------------------------

PLAIN = {"loss": "mean_squared_error"}      # the outputs unchanged


def noisy(backend, dtype="float32", layers=None, seed=4):
    """One linear layer after a dropout layer, or other layers, on 5 features."""
    layers = layers or [xn.Dropout(0.3), xn.Linear(2)]
    return xn.Sequential(layers, input_shape=(5,), backend=backend, dtype=dtype, seed=seed)


@every_float
def test_mean_and_standard_deviation_are_those_of_the_outputs(backend, dtype):
    """Three batches, the last of one sample, compared with all outputs."""
    net, x = noisy(backend, dtype), np.random.default_rng(0).standard_normal((7, 5))
    mean, spread = net.predict_samples(x, 20, batch_size=3, **PLAIN)
    outputs = []
    for start in (0, 3, 6):
        outputs.append([backend.to_numpy(net(x[start:start + 3], mode=SAMPLE)).copy()
                        for _ in range(20)])
    # (samples, N, 2)
    every = np.concatenate([np.array(batch) for batch in outputs], axis=1).astype(np.float64)
    assert mean.shape == spread.shape == (7, 2) and mean.dtype == spread.dtype == np.float64
    np.testing.assert_allclose(mean, every.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(spread, every.std(axis=0), rtol=1e-9)


def test_the_same_on_every_backend(backend):
    x = np.random.default_rng(0).standard_normal((7, 5))
    layers = [lambda: xn.Linear(6, activation="relu"), lambda: xn.GaussianDropout(0.3),
              lambda: xn.DropConnect(3, 0.2)]
    results = [noisy(b, layers=[make() for make in layers]).predict_samples(x, 10, **PLAIN)
               for b in (backend, xn.Backend())]
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_one_linear_layer_in_closed_form():
    """y = sum of w x keep / (1 - p) + b: the mean is w x + b, the variance the sum of (w x)^2 p /
    (1 - p)."""
    net, x, samples = (noisy("numpy", "float64"), np.random.default_rng(0).standard_normal((4, 5)),
                       4000)
    mean, spread = net.predict_samples(x, samples, **PLAIN)
    W = net.layers[1].W.data
    right = np.sqrt((W**2) @ (x**2).T * 0.3 / 0.7).T
    assert (np.abs(mean - net.predict(x)) < 4 * right / samples**0.5).all()
    np.testing.assert_allclose(spread, right, rtol=0.06)


def test_without_dropout_the_standard_deviation_is_zero(backend):
    net = noisy(backend, layers=[xn.Linear(3, activation="tanh"), xn.Dropout(0.0), xn.Linear(2)])
    x = np.random.default_rng(0).standard_normal((7, 5))
    mean, spread = net.predict_samples(x, 5, **PLAIN)
    np.testing.assert_allclose(mean, net.predict(x), rtol=1e-6)
    assert not spread.any()


def test_the_same_call_gives_the_same_and_changes_nothing(backend):
    net, x = noisy(backend), np.random.default_rng(0).standard_normal((7, 5))
    with untouched(net):
        first = net.predict_samples(x, 5, **PLAIN)
        again = net.predict_samples(x, 5, **PLAIN)
        longer = net.predict_samples(x, 6, **PLAIN)
        one, none = net.predict_samples(x, 1, **PLAIN)
    np.testing.assert_array_equal(first, again)
    assert (first[1] != longer[1]).all() and not none.any()
    np.testing.assert_array_equal(one, backend.to_numpy(net(x, mode=SAMPLE)))
    assert (net.predict_samples(x, 1, **PLAIN)[0] != one).any()                  # another use


def test_batch_norm_is_as_in_a_prediction():
    net = xn.Sequential([xn.BatchNorm2d(), xn.Flatten()], input_shape=(2, 3, 3), backend="numpy")
    x = np.random.default_rng(0).standard_normal((4, 2, 3, 3)) + 5
    with untouched(net):
        mean, spread = net.predict_samples(x, 3, **PLAIN)
    np.testing.assert_allclose(mean, net.predict(x), rtol=1e-6)
    assert not spread.any()


def test_after_an_error_the_counters_are_restored():
    class Fails(xn.Dropout):
        def forward(self, x, mode="predict"):
            if int(self.counters[1]) == 2:
                raise RuntimeError("the third sample")
            return super().forward(x, mode)

    net = noisy("numpy", layers=[Fails(0.5), xn.Linear(2)])
    with untouched(net), pytest.raises(RuntimeError, match="the third sample"):
        net.predict_samples(np.ones((3, 5)), 5, **PLAIN)


@pytest.mark.parametrize("loss, function", [
    ("cross_entropy", "softmax"), (xn.BoundedCrossEntropy(5.0), None),
    ("binary_cross_entropy", "sigmoid"),
    (xn.FocalCrossEntropy(), "sigmoid"), (xn.BinaryCrossEntropy(from_logits=False), None),
    ("hinge", None)])
@pytest.mark.parametrize("last", ["logits", "softmax", "sigmoid", "log_softmax"])
def test_predictions_are_probabilities_if_the_loss_contains_the_softmax(
        loss, function, last, backend):
    """Each draw goes through softmax or sigmoid before averaging, unless the last layer of the
    network is one."""
    layers = {"logits": [], "softmax": [xn.Softmax()], "sigmoid": [xn.Activation("sigmoid")],
              "log_softmax": [xn.LogSoftmax()]}
    net = noisy(backend, layers=[xn.Dropout(0.4), xn.Linear(3), *layers[last]])
    x = 3 * np.random.default_rng(0).standard_normal((7, 5))
    every = []
    before = net.counters.copy()
    for _ in range(20):
        every.append(backend.to_numpy(net(x, mode=SAMPLE)).astype(np.float64))
    net.counters[...] = before
    every = np.array(every)
    if last != function and function == "softmax":
        every = np.exp(every) / np.exp(every).sum(axis=2, keepdims=True)
    elif last != function and function == "sigmoid":
        every = 1 / (1 + np.exp(-every))
    mean, spread = net.predict_samples(x, 20, loss=loss)
    np.testing.assert_allclose(mean, every.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(spread, every.std(axis=0), rtol=1e-4, atol=1e-6)


def test_probabilities_of_maps_sum_to_one(backend):
    net = xn.Sequential([xn.Dropout(0.4), xn.Conv2d(3, 1)], input_shape=(2, 4, 5), backend=backend)
    mean, _ = net.predict_samples(np.random.default_rng(0).random((6, 2, 4, 5)), 4,
                                  loss="cross_entropy")
    assert mean.shape == (6, 3, 4, 5)
    np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=1e-6)


def test_the_loss_is_that_of_the_last_fit():
    net, x = noisy("numpy"), np.random.default_rng(0).standard_normal((8, 5))
    with pytest.raises(ValueError,
                       match='predict_samples: expected loss, e.g. "cross_entropy", for a network '
                             'that was not trained. Received: loss=None'):
        net.predict_samples(x)
    net.fit(x, np.arange(8) % 2, loss="cross_entropy", optimizer=xn.SGD(0.1), verbose=False)
    mean, _ = net.predict_samples(x)
    np.testing.assert_array_equal(mean, net.predict_samples(x, loss="cross_entropy")[0])
    np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=1e-6)
    assert (net.predict_samples(x, **PLAIN)[0] != mean).any()


@pytest.mark.parametrize("settings, message", [
    ({"samples": 0},
     "predict_samples: expected samples to be an int, 1 or larger. Received: samples=0"),
    ({"samples": 2.0}, "predict_samples: expected samples to be an int"),
    ({"batch_size": True},
     "predict_samples: expected batch_size to be an int, 1 or larger. Received: batch_size=True"),
])
def test_refusals_of_predict_samples(settings, message):
    with pytest.raises(ValueError, match=message):
        noisy("numpy").predict_samples(np.ones((3, 5)), **PLAIN | settings)
    with pytest.raises(ValueError, match=r"Network: expected input of shape \(N, 5\)"):
        noisy("numpy").predict_samples(np.ones((3, 4)), **PLAIN)


def test_too_little_memory_is_explained():
    class Full(xn.Dropout):
        def forward(self, x, mode="predict"):
            if x.shape[-1] > 100:
                raise MemoryError
            return super().forward(x, mode)

    with pytest.raises(
            xn.OutOfMemory,
            match="predict_samples: expected a batch that fits.*batch_size=256") as caught:
        noisy("numpy", layers=[Full(0.5), xn.Linear(2)]).predict_samples(
            np.ones((300, 5)), 2, **PLAIN)
    assert caught.value.batch_size == 256
