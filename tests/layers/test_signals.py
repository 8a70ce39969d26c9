"""Layers of signals (C, T, N): against loops over the steps, against the layers of feature maps,
and in networks."""

import copy
import functools

import numpy as np
import pytest
from layer_cases import initialized
from oracles import assert_close
from tiers import full

import xpnet as xn
from xpnet.catalogue import FAMILIES
from xpnet.losses import Loss

CONVOLUTIONS = [
    {}, {"padding": (4, 0), "dilation": 2}, {"stride": 2, "padding": "half"}, {"padding": "full"}]
POOLS = [{}, {"stride": 1, "padding": (1, 2)}, {"stride": 2, "ceil_mode": True}, {"dilation": 2}]

every_float = pytest.mark.parametrize("dtype", ["float32", "float64"])


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def host(layer, *arrays):
    return [layer.backend.to_numpy(a) for a in arrays]


def taps(T, K, stride=1, padding=0, dilation=1):
    """For each window the steps that it reads; None is padding."""
    extent = dilation * (K - 1) + 1
    named = {"half": ((extent - 1) // 2, extent // 2), "full": (extent - 1, extent - 1)}
    before, after = named[padding] if isinstance(padding, str) else (
        padding if isinstance(padding, tuple) else (padding, padding))
    starts = range(-before, T + after - extent + 1, stride)
    return [[t if 0 <= (t := start + k * dilation) < T else None for k in range(K)]
            for start in starts]


# --- against loops --------------------------------------------------------------------------------

@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@every_float
def test_conv1d(backend, options, dtype):
    layer = initialized(xn.Conv1d(6, 3, groups=2, **options), (4, 9), backend=backend, dtype=dtype)
    x = normal((4, 9, 3), dtype)
    (W, b), (y,) = host(layer, layer.W.data, layer.b.data), host(layer, layer.forward(
        backend.asarray(x)))
    assert W.shape == (6, 2, 3)
    expected = np.zeros(y.shape) + b[:, None, None]
    for f in range(6):
        for out, window in enumerate(taps(9, 3, **options)):
            for k, t in enumerate(window):
                for c in range(2) if t is not None else ():
                    expected[f, out] += W[f, c, k].astype(float) * x[f // 3 * 2 + c, t]
    assert_close(y, expected)


@every_float
def test_conv_transpose1d(backend, dtype):
    options = {"stride": 2, "padding": (1, 0), "output_padding": 1, "dilation": 2}
    layer = initialized(xn.ConvTranspose1d(2, 3, **options), (3, 5), backend=backend, dtype=dtype)
    x = normal((3, 5, 4), dtype)
    (W, b), (y,) = host(layer, layer.W.data, layer.b.data), host(layer, layer.forward(
        backend.asarray(x)))
    assert W.shape == (3, 2, 3) and y.shape == (2, 13, 4)
    expected = np.zeros(y.shape) + b[:, None, None]
    for c, f, k, t in np.ndindex(3, 2, 3, 5):
        if 0 <= t * 2 - 1 + k * 2 < 13:
            expected[f, t * 2 - 1 + k * 2] += W[c, f, k].astype(float) * x[c, t]
    assert_close(y, expected)


@pytest.mark.parametrize("options", POOLS, ids=str)
@every_float
def test_max_and_avg_pool1d(backend, options, dtype):
    x = normal((2, 8, 3), dtype)
    read = {"stride": 3} | options
    if read.pop("ceil_mode", False):        # one more window of 3 with stride 2 on 8 steps
        read["padding"] = (0, 1)
    elements = [[t for t in window if t is not None] for window in taps(8, 3, **read)]
    largest = xn.MaxPool1d(3, **options).initialize((2, 8), backend=backend, dtype=dtype)
    y, = host(largest, largest.forward(backend.asarray(x)))
    assert_close(y, np.stack([x[:, window].max(axis=1) for window in elements], axis=1))
    if "dilation" not in options:
        mean = xn.AvgPool1d(3, count_include_pad=False, **options)
        mean.initialize((2, 8), backend=backend, dtype=dtype)
        y, = host(mean, mean.forward(backend.asarray(x)))
        assert_close(y, np.stack([x[:, window].mean(axis=1) for window in elements], axis=1))


def test_resizing_and_global_pooling(backend):
    x = normal((2, 4, 3))

    def output(layer):
        layer.initialize((2, 4), backend=backend, dtype="float64")
        return host(layer, layer.forward(backend.asarray(x)))[0]

    assert_close(output(xn.ZeroPad1d((1, 2))), np.pad(x, ((0, 0), (1, 2), (0, 0))))
    for kind, mode in ((xn.ReflectionPad1d, "reflect"), (xn.ReplicationPad1d, "edge"),
                       (xn.CircularPad1d, "wrap")):
        assert_close(output(kind((2, 3))), np.pad(x, ((0, 0), (2, 3), (0, 0)), mode=mode))
    assert_close(output(xn.ConstantPad1d((1, 2), -0.5)),
                 np.pad(x, ((0, 0), (1, 2), (0, 0)), constant_values=-0.5))
    assert_close(output(xn.Crop1d((2, 1))), x[:, 2:3])
    parts = (0, 2), (1, 3), (2, 4)          # of four steps, for an output of three
    for kind, reduce in ((xn.AdaptiveAvgPool1d, np.mean), (xn.AdaptiveMaxPool1d, np.max)):
        assert_close(output(kind(3)), np.stack([reduce(x[:, start:stop], axis=1)
                                                for start, stop in parts], axis=1))
    assert_close(output(xn.GlobalAvgPool1d()), x.mean(axis=1))
    assert_close(output(xn.GlobalMaxPool1d()), x.max(axis=1))
    assert_close(output(xn.Upsample1d(2)), x.repeat(2, axis=1))
    assert_close(output(xn.Upsample1d(size=7, mode="linear", align_corners=True)),
                 np.stack([(x[:, k // 2] + x[:, (k + 1) // 2]) / 2 for k in range(7)], axis=1))
    keep = output(xn.Dropout1d(0.5)) == x
    assert keep.all()                       # a prediction


def test_dropout1d_drops_whole_channels(backend):
    layer = xn.Dropout1d(0.5).initialize((8, 5), backend=backend)
    y, = host(layer, layer.forward(backend.asarray(np.ones((8, 5, 16), np.float32)), mode=xn.TRAIN))
    assert (y == y[:, :1]).all() and 0 < (y[:, 0] == 0).sum() < 128 and set(y.ravel()) == {0, 2}


def test_statistics_of_signals(backend):
    """Batch norm over the steps and the batch; instance norm over the steps of each sample."""
    x = normal((3, 5, 4))
    for layer, axes in ((xn.BatchNorm1d(eps=0), (1, 2)), (xn.InstanceNorm1d(eps=0), 1),
                        (xn.GroupNorm(3, eps=0), 1), (xn.LayerNorm(eps=0), (0, 1))):
        layer.initialize((3, 5), backend=backend, dtype="float64")
        y, = host(layer, layer.forward(backend.asarray(x), mode=xn.TRAIN))
        mean, std = (f(x, axis=axes, keepdims=True) for f in (np.mean, np.std))
        assert_close(y, (x - mean) / std)


@pytest.mark.parametrize("kind", [xn.Linear, xn.DropConnect])
def test_linear_acts_on_each_step(backend, kind):
    layer = initialized(kind(5, activation="tanh"), (7, 6), backend=backend, dtype="float64")
    x, dy = normal((7, 6, 3)), normal((5, 6, 3), seed=1)
    y = layer.forward(backend.asarray(x))
    (W, b), (y,) = host(layer, layer.W.data, layer.b.data), host(layer, y)
    assert_close(y, np.stack([np.tanh(W @ x[:, t] + b[:, None]) for t in range(6)], axis=1))
    layer.forward(backend.asarray(x), mode=xn.TRAIN)
    # its values: test_layer_contract
    assert layer.backward(backend.asarray(dy)).shape == x.shape
    assert layer.multiply_adds() == 7 * 5 * 6


# --- against the layers of feature maps -----------------------------------------------------------

PAIRS = [
    (xn.Conv1d(6, 3, stride=2, padding=(2, 1), activation="relu"),
     xn.Conv2d(6, (1, 3), stride=(1, 2), padding=(0, 0, 2, 1), activation="relu")),
    (xn.ConvTranspose1d(6, 3, stride=2), xn.ConvTranspose2d(6, (1, 3), stride=(1, 2))),
    (xn.MaxPool1d(3, stride=2, ceil_mode=True),
     xn.MaxPool2d((1, 3), stride=(1, 2), ceil_mode=True)),
    (xn.AvgPool1d(3, padding=1), xn.AvgPool2d((1, 3), padding=(0, 1))),
    (xn.Upsample1d(1.5, "cubic"), xn.Upsample2d((1, 1.5), "bicubic")),
    (xn.AdaptiveAvgPool1d(4), xn.AdaptiveAvgPool2d((1, 4))),
    (xn.AdaptiveMaxPool1d(4), xn.AdaptiveMaxPool2d((1, 4))),
    (xn.ConstantPad1d((1, 2), 0.5), xn.ConstantPad2d((0, 0, 1, 2), 0.5)),
    (xn.ReflectionPad1d((9, 2)), xn.ReflectionPad2d((0, 0, 9, 2))),
    (xn.ReplicationPad1d((1, 12)), xn.ReplicationPad2d((0, 0, 1, 12))),
    (xn.CircularPad1d((0, 10)), xn.CircularPad2d((0, 0, 0, 10))),
    (xn.Crop1d((3, 1)), xn.Crop2d((0, 0, 3, 1))),
]


@pytest.mark.parametrize(("signals", "maps"), PAIRS, ids=lambda layer: type(layer).__name__)
def test_the_same_bits_as_on_maps_of_one_row(backend, signals, maps):
    mine, other = (type(layer)(**layer.config()) for layer in (signals, maps))
    mine.initialize((4, 10), backend=backend)
    other.initialize((4, 1, 10), backend=backend)
    for p, q in zip(mine.parameters, other.parameters, strict=True):
        p.data[...] = q.data.reshape(p.shape)
        assert (p.fan_in, p.fan_out) == (q.fan_in, q.fan_out)
    x = normal((4, 10, 3), "float32")
    y, y2 = (layer.forward(backend.asarray(a), mode=xn.TRAIN)
             for layer, a in ((mine, x), (other, x[:, None])))
    dy = normal(y.shape, "float32", seed=1)
    dx, dx2 = mine.backward(backend.asarray(dy)), other.backward(backend.asarray(dy[:, None]))
    for a, b in [(y, y2), (dx, dx2), *((p.grad, q.grad) for p, q in
                                       zip(mine.parameters, other.parameters))]:
        np.testing.assert_array_equal(*host(mine, a, b.reshape(a.shape)))
    assert mine.multiply_adds() == other.multiply_adds()


class Recorded:
    """A copy of a backend, and the calls of its methods: their names and arguments, of arrays what
    a kernel's time depends on."""

    def __init__(self, backend):
        self.calls, self.twin = [], copy.copy(backend)
        for name in dir(type(backend)):
            if not name.startswith("_") and callable(getattr(type(backend), name)):
                setattr(self.twin, name, functools.partial(self._called, name,
                                                           getattr(backend, name)))

    def _called(self, name, method, *args, **options):
        self.calls.append((name, [self._shown(arg) for arg in (*args, *options.values())]))
        return method(*args, **options)

    def _shown(self, arg):
        return ((arg.shape, arg.strides, str(arg.dtype))
                if isinstance(arg, (np.ndarray, self.twin.xp.ndarray)) else repr(arg))


@pytest.mark.parametrize(("signals", "maps"), PAIRS, ids=lambda layer: type(layer).__name__)
def test_the_kernels_have_the_same_work_as_on_maps_of_one_row(plain_backend, signals, maps):
    """So a signal costs what a map of one row costs."""
    calls = []
    for layer, shape in ((signals, (4, 10)), (maps, (4, 1, 10))):
        recorded = Recorded(plain_backend)
        layer = type(layer)(**layer.config()).initialize(shape, backend=recorded.twin)
        recorded.calls.clear()
        y = layer.forward(plain_backend.asarray(normal((*shape, 3), "float32")), mode=xn.TRAIN)
        layer.backward(plain_backend.asarray(normal(y.shape, "float32", seed=1)))
        calls.append(recorded.calls)
    assert calls[0] == calls[1] and calls[0]


def test_nothing_is_copied(monkeypatch):
    """The kernels read the memory of the input, and the output is the memory that they wrote."""
    backend, seen = xn.get_backend("numpy"), []
    monkeypatch.setattr(backend, "conv2d", lambda x, W, *args, **options: seen.append((x, W)) or (
        np.zeros((2, 1, 4, 3), np.float32)))
    layer = xn.Conv1d(2, 3).initialize((4, 6), backend=backend)
    x = np.zeros((4, 6, 3), np.float32)
    y = layer.forward(x)
    (read, W), = seen
    assert np.shares_memory(read, x) and np.shares_memory(W, layer.W.data)
    assert y.base is not None and y.shape == (2, 4, 3) and y.flags.c_contiguous


# --- in networks ----------------------------------------------------------------------------------

def of_signals(backend):
    return xn.Sequential([
        xn.Conv1d(6, 3, padding=1, groups=2), xn.BatchNorm1d(activation="relu"), xn.MaxPool1d(2),
        xn.ConvTranspose1d(6, 2, stride=2, groups=3, bias=False), xn.BatchNorm1d(), xn.Tanh(),
        xn.Linear(4), xn.BatchNorm1d(), xn.Upsample1d(1.5), xn.ZeroPad1d(1), xn.Softmax(),
    ], input_shape=(4, 8), backend=backend)


def test_networks_of_signals_train_fold_and_are_saved(backend, tmp_path):
    """Labels for each step; the folded network predicts the same, and so does the loaded one."""
    net = of_signals(backend)
    x, y = normal((12, 4, 8), "float32"), np.random.default_rng(1).integers(0, 4, (12, 14))
    history = net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(0.01), epochs=10, batch_size=6,
                      verbose=False)
    assert history["loss"][-1] < history["loss"][0]
    folded = net.folded()
    assert not any(isinstance(layer, xn.BatchNorm1d) for layer in folded.layers)
    np.testing.assert_allclose(folded.predict(x), net.predict(x), atol=1e-5)
    net.save(tmp_path / "net.safetensors")
    loaded = xn.load(tmp_path / "net.safetensors", backend=backend)
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
    assert loaded.layers[0].W.data.shape == (6, 2, 3)


def test_the_summary_of_signals():
    """The receptive field of a step, of one row; a Linear acts on each step, so it adds nothing."""
    rows = of_signals("numpy").summary().rows
    assert [row.receptive_field for row in rows[:4]] == [(1, 3), (1, 3), (1, 4), (1, 4)]
    assert rows[6].receptive_field == (1, 4) and rows[6].multiply_adds == 8 * 6 * 4
    assert rows[0].multiply_adds == 8 * 6 * 2 * 3
    assert of_signals("numpy").memory_report(4).activations > 0


LOSSES = [item for item in FAMILIES["Losses"] if isinstance(item.what, type)
          and issubclass(item.what, Loss) and item.what.of_places and item.shapes
          and len(item.shapes[0]) == 1]


@pytest.mark.parametrize("item", LOSSES, ids=lambda item: item.name)
def test_every_loss_of_sequences_is_the_sum_over_their_steps(item, backend):
    loss, rng = item.make(), np.random.default_rng(0)
    loss.reduction = "sum"
    (K,), N, T = item.shapes[0], 4, 3
    y = np.stack([item.inputs(rng, N)[0] if item.inputs else rng.standard_normal((K, N))
                  for _ in range(T)], axis=1)                               # (K, T, N)
    targets = [item.target(rng, N) for _ in range(T)]                       # (N,) or (N, K) each
    known = loss.targets(np.stack(targets, axis=-1), (K, T), np.dtype(float))
    value, dy = loss(backend, backend.asarray(y), backend.asarray(np.moveaxis(known, 0, -1).copy()))
    steps = [loss(backend, backend.asarray(y[:, t].copy()), backend.asarray(
        np.moveaxis(loss.targets(target, (K,), np.dtype(float)), 0, -1).copy()))
        for t, target in enumerate(targets)]
    assert float(value) == pytest.approx(sum(float(one) for one, _ in steps), rel=1e-12)
    assert_close(backend.to_numpy(dy), np.stack([backend.to_numpy(d) for _, d in steps], axis=1))


@full
@pytest.mark.parametrize("loss", [xn.Dice(), xn.Jaccard(), xn.Tversky(0.3, 0.7)], ids=repr)
def test_overlaps_of_signals_are_those_of_maps_of_one_row(loss, backend):
    y, t = np.random.default_rng(0).random((3, 6, 4)), np.random.default_rng(1).random((4, 3, 6))
    one, dy = loss(backend, backend.asarray(y), backend.asarray(
        np.moveaxis(loss.targets(t, (3, 6), np.dtype(float)), 0, -1).copy()))
    two, dy2 = loss(backend, backend.asarray(y[:, None].copy()), backend.asarray(
        np.moveaxis(t, 0, -1)[:, None].copy()))
    assert float(one) == float(two)
    np.testing.assert_array_equal(backend.to_numpy(dy), backend.to_numpy(dy2)[:, 0])


# --- errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize(("make", "message"), [
    (lambda: xn.Conv1d(2, (1, 3)),
     "Conv1d: expected kernel_size to be an int, 1 or larger. Received: kernel_size=(1, 3)."),
    (lambda: xn.Conv1d(2, 3, padding=(1, 2, 3, 4)),
     "Conv1d: expected padding to be an int or a pair of ints, 0 or larger. "
     "Received: padding=(1, 2, 3, 4)."),
    (lambda: xn.Conv1d(2, 3).initialize((2, 5, 5)),
     "Conv1d: expected an input of shape (channels, steps) per sample. "
     "Received: input shape (2, 5, 5)."),
    (lambda: xn.Conv1d(2, 3, padding="causal"), 'expected padding "valid", "half"'),
    (lambda: xn.ConvTranspose1d(2, 3, output_padding=(0, 1)),
     "ConvTranspose1d: expected output_padding to be an int, 0 or larger."),
    (lambda: xn.ConvTranspose1d(2, 3, stride=2, output_padding=2),
     "ConvTranspose1d: expected output_padding smaller than the stride or the dilation. Received: "
     "output_padding=2, stride=2, dilation=1."),
    (lambda: xn.AdaptiveAvgPool1d((1, 3)),
     "AdaptiveAvgPool1d: expected output_size to be an int, 1 or larger."),
    (lambda: xn.ReflectionPad1d((1, 2, 3, 4)),
     "ReflectionPad1d: expected padding to be an int or a pair of ints, 0 or larger."),
    (lambda: xn.ReflectionPad1d((0, 5)), "expected padding of at most 4 steps. Received: padding="
                                         "(0, 5) for an input of 5 steps."),
    (lambda: xn.CircularPad1d(6), "expected padding of at most 5 steps."),
    (lambda: xn.Crop1d((2, 3)), "expected a cropping that leaves at least 1 step. Received: "
                                "cropping=(2, 3) of an input of 5 steps."),
    (lambda: xn.Upsample1d(0.1), "expected an output of at least 1 step. Received: an input of 5 "
                                 "steps with scale_factor=0.1."),
    (lambda: xn.Conv1d(2, 4, dilation=3, padding=(1, 0)),
     "expected an input at least as large as the window, 10 steps. Received: 5 steps, padded to 6 "
     "steps."),
    (lambda: xn.ConvTranspose1d(2, 3, padding=(4, 3)),
     "expected an output of 1 step at least. Received: 5 steps with padding (4, 3), which leaves 0 "
     "steps."),
    (lambda: xn.MaxPool1d(2, padding=2), "expected padding smaller than the 2 steps that the "
     "window spans, so that no window is wholly in padding. Received: padding=2."),
    (lambda: xn.MaxPool1d(2, dilation=9, padding=(8, 6)),
     "expected every window to contain at least one element of the input. Received: 5 steps with "
     "kernel 2, dilation 9, padding (8, 6)."),
    (lambda: xn.InstanceNorm1d().initialize((2, 1)), "Received: input shape (2, 1)."),
    (lambda: xn.Upsample1d((1, 2)), "Upsample1d: expected scale_factor to be a number"),
    (lambda: xn.Upsample1d(2, "bilinear"), "Upsample1d: expected mode to be "),
    (lambda: xn.Upsample1d(2, align_corners=True),
     'expected mode "linear" or "cubic" with align_corners.'),
    (lambda: xn.BatchNorm1d().initialize((2, 3, 4)),
     "expected an input of shape (features) or (channels, steps) per sample."),
    (lambda: xn.Linear(2).initialize((2, 3, 4)), "expected a vector of features per sample"),
    (lambda: xn.Dice().targets(np.zeros(3), (2,), np.dtype(float)),
     "expected a network whose output is (classes, height, width) or (classes, steps)."),
])
def test_errors(make, message):
    with pytest.raises(ValueError) as error:
        layer = make()
        if isinstance(layer, xn.Layer):     # the size of the input decides
            layer.initialize((2, 5))
    assert message in str(error.value) and "\n" not in str(error.value)
