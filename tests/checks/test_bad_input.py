"""Bad input raises a clear error before any work, and changes nothing."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from nets import blobs, branches, pictures, same, untouched, values

import xpnet as xn

SETTINGS = {"loss": "cross_entropy", "verbose": False}


@pytest.fixture(scope="module")
def net() -> xn.Network:
    """A network in the middle of its training, with running statistics and dropout."""
    net = xn.Sequential([xn.Conv2d(2, 3), xn.BatchNorm2d(activation="relu"), xn.Flatten(),
                         xn.Dropout(0.2), xn.Linear(3)],
                        input_shape=(1, 6, 6), backend="numpy")
    net.fit(*pictures(20, (1, 6, 6), 3), **SETTINGS, optimizer=xn.Adam(1e-2))
    return net


X, Y = pictures(10, (1, 6, 6), 3)

INPUTS = [      # arrays that are no batch of samples for the network
    (X[0], ValueError,
     r"Network: expected input of shape \(N, 1, 6, 6\). Received: shape \(1, 6, 6\)"),
    (X[None], ValueError,
     r"Network: expected input of shape \(N, 1, 6, 6\). Received: shape \(1, 10, 1, 6, 6\)"),
    (X[:, 0], ValueError, r"Received: shape \(10, 6, 6\)"),
    (X.transpose(0, 2, 3, 1), ValueError, r"Received: shape \(10, 6, 6, 1\)"),
    (np.repeat(X, 3, axis=1), ValueError, r"Received: shape \(10, 3, 6, 6\)"),
    (X[..., :5], ValueError, r"Received: shape \(10, 1, 6, 5\)"),
    (X.reshape(10, 36), ValueError, r"Received: shape \(10, 36\)"),
    (1.0, ValueError, r"Network: expected input of shape .* Received: shape \(\)"),
    (X[:0], ValueError, r"Network: expected at least one sample. Received: shape \(0, 1, 6, 6\)"),
    ([], ValueError, r"Network: expected input of shape .* Received: shape \(0,\)"),
    (X.astype(object), TypeError,
     "Network: input: expected real numbers. Received: an array of dtype object"),
    (X.astype(complex), TypeError,
     "Network: input: expected real numbers. Received: an array of dtype complex128"),
    (X.astype(str), TypeError,
     "Network: input: expected real numbers. Received: an array of dtype <U"),
    (np.zeros(10, [("a", float)]), TypeError, "Network: input: expected real numbers"),
    (X.astype("M8[s]"), TypeError, "Network: input: expected real numbers"),
    (None, TypeError, "Network: input: expected real numbers. Received: None."),
    ("pictures", TypeError, "Network: input: expected real numbers"),
    ({"x": X}, TypeError, "Network: input: expected real numbers"),
    ([[1.0, 2.0], [3.0]], ValueError,
     "Network: input: expected an array of numbers. Received: list"),
]


@pytest.mark.parametrize("x, error, message", INPUTS)
def test_samples_that_are_refused(net, x, error, message):
    y = Y[:len(x)] if isinstance(x, np.ndarray) else Y
    optimizer = xn.SGD(0.1)
    for call in (lambda: net(x), lambda: net(x, mode="sample"), lambda: net.predict(x),
                 lambda: net.evaluate(x, y, loss="cross_entropy"),
                 lambda: net.fit(x, y, **SETTINGS, optimizer=optimizer),
                 lambda: net.fit(X, Y, **SETTINGS, optimizer=optimizer, validation=(x, y))):
        with untouched(net), pytest.raises(error, match=message):
            call()


def test_samples_with_nan_do_not_reach_the_parameters(net):
    x = X.astype(float)
    x[3, 0] = math.nan
    for call in (lambda: net.fit(x, Y, **SETTINGS, optimizer=xn.SGD(0.1)),
                 lambda: net.evaluate(x, Y, loss="cross_entropy")):
        with untouched(net), pytest.raises(ValueError, match="expected finite samples"):
            call()
    assert np.isnan(net.predict(x)).any()       # a prediction returns the NaN


@pytest.mark.parametrize("y, error, message", [
    ([0, 1, 3] + [0] * 7, ValueError,
     "CrossEntropy: expected labels from 0 to 2. Received: labels from 0 to 3"),
    ([0, 1, -1] + [0] * 7, ValueError,
     "CrossEntropy: expected labels from 0 to 2. Received: labels from -1 to 1"),
    ([0, 1, math.nan] + [0] * 7, ValueError,
     "CrossEntropy: targets: expected finite numbers. Received: NaN or infinity"),
    ([0, 1, 0.5] + [0] * 7, ValueError,
     "CrossEntropy: expected labels to be whole numbers. Received: 0.5"),
    (Y.astype(object), TypeError,
     "CrossEntropy: targets: expected real numbers. Received: an array of dtype object"),
    (Y.astype(complex), TypeError, "CrossEntropy: targets: expected real numbers"),
    (Y.astype(str), TypeError, "CrossEntropy: targets: expected real numbers"),
    (Y[:, None], ValueError,
     r"expected labels of shape \(N,\) or probabilities \(N, 3\). Received: shape \(10, 1\)"),
    (np.eye(4)[Y], ValueError, "CrossEntropy: expected labels of shape"),
    (-np.eye(3)[Y], ValueError, "CrossEntropy: expected class probabilities, 0 or larger"),
    (Y[:9], ValueError, "expected as many targets as samples. Received: 10 samples, 9 targets"),
    (np.concatenate([Y, Y]), ValueError,
     "expected as many targets as samples. Received: 10 samples, 20 targets"),
    ([], ValueError, "expected as many targets as samples. Received: 10 samples, 0 targets"),
    (0, ValueError, "CrossEntropy: expected labels of shape"),
    (None, TypeError, "CrossEntropy: targets: expected real numbers"),
])
def test_targets_that_are_refused(net, y, error, message):
    optimizer = xn.SGD(0.1)
    for call in (lambda: net.evaluate(X, y, loss="cross_entropy"),
                 lambda: net.fit(X, y, **SETTINGS, optimizer=optimizer),
                 lambda: net.fit(X, Y, **SETTINGS, optimizer=optimizer, validation=(X, y))):
        with untouched(net), pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("change, error, message", [
    ({"epochs": 0}, ValueError,
     "fit: expected epochs to be an int, 1 or larger. Received: epochs=0"),
    ({"epochs": 1.0}, ValueError, "fit: expected epochs to be an int"),
    ({"epochs": True}, ValueError, "fit: expected epochs to be an int"),
    ({"batch_size": 0}, ValueError,
     "fit: expected batch_size to be an int, 1 or larger. Received: batch_size=0"),
    ({"batch_size": -5}, ValueError, "fit: expected batch_size to be an int"),
    ({"batch_size": 2.5}, ValueError,
     "fit: expected batch_size to be an int, 1 or larger. Received: batch_size=2.5"),
    ({"batch_size": None}, ValueError, "fit: expected batch_size to be an int"),
    ({"loss": "entropy"}, ValueError,
     "get_loss: expected a Loss or one of cross_entropy, .* Received: 'entropy'"),
    ({"loss": None}, ValueError, "get_loss: expected a Loss"),
    ({"optimizer": "adamax2"}, ValueError, r"fit: expected an Optimizer, e.g. Adam\(1e-3\), or one "
                                           r"of sgd, .*, perhaps \"adamax\". Received: 'adamax2'"),
    ({"optimizer": xn.Adam}, ValueError, "fit: expected an Optimizer"),
    ({"schedule": "up"}, ValueError,
     "get_schedule: expected a Schedule or one of constant, .*one_cycle, .* Received: 'up'"),
    ({"validation": X}, TypeError,
     r"fit: expected validation to be a pair \(x, y\), a Dataset, or a share .*Received: ndarray"),
    ({"validation": (X,)}, TypeError, "fit: expected validation to be a pair .*Received: tuple"),
    ({"validation": 2}, ValueError, "fit: expected validation to be a number from 0 to 1"),
    ({"validation": (X, Y[:3])}, ValueError,
     "fit: validation: expected as many targets as samples. Received: 10 samples, 3"),
    ({"learning_rate": 0.1}, TypeError, "learning_rate"),
])
def test_settings_of_fit(net, change, error, message, capsys):
    settings = {"loss": "cross_entropy", "optimizer": xn.SGD(0.1)} | change
    with untouched(net), pytest.raises(error, match=message):
        net.fit(X, Y, **settings)
    assert capsys.readouterr() == ("", "")              # not even the first line of the progress


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "7", None])
def test_batch_sizes(net, batch_size):
    for who, call in (("predict", lambda: net.predict(X, batch_size=batch_size)),
                      ("evaluate", lambda: net.evaluate(X, Y, batch_size=batch_size))):
        with untouched(net), pytest.raises(
                ValueError, match=f"{who}: expected batch_size to be an int, 1 or larger"):
            call()


def test_evaluate_without_a_loss_before_any_training():
    with pytest.raises(ValueError, match='evaluate: expected loss, e.g. "cross_entropy", for a '
                                         'network that was not trained'):
        branches().evaluate(np.zeros((1, 2, 6, 6)), [0])


def test_an_error_does_not_disturb_a_running_training():
    """The optimizer's state is not changed either: the bits are those of a training without the
    failing calls."""
    x, y = blobs()
    nets = [xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy") for _ in range(2)]
    optimizers = [xn.Adam(1e-2), xn.Adam(1e-2)]
    for _ in range(2):
        for one, optimizer in zip(nets, optimizers, strict=True):
            one.fit(x, y, **SETTINGS, optimizer=optimizer)
        for bad_x, bad_y, other in ((x, y + 1, xn.SGD(0.1)), (x[:, :1], y, xn.SGD(0.1)),
                                    (x, y, "adan")):
            with pytest.raises((ValueError, TypeError)):
                nets[0].fit(bad_x, bad_y, **SETTINGS, optimizer=other)
    assert same(values(nets[0]), values(nets[1]))


# --- refused layers -------------------------------------------------------------------------------

@pytest.mark.parametrize("layers, message", [
    ([lambda: xn.Conv2d(2, 7)],
     "Conv2d 'conv1': expected an input at least as large as the window, 7x7. Received: 6x6"),
    ([lambda: xn.Conv2d(2, 3, dilation=3)],
     "Conv2d 'conv1': expected an input at least as large as the window, 7x7"),
    ([lambda: xn.MaxPool2d(7)],
     "MaxPool2d 'pool1': expected an input at least as large as the window"),
    ([lambda: xn.Conv2d(2, 3, stride=0)],
     "Conv2d: expected stride to be an int or a pair of ints, 1 or larger.*stride=0"),
    ([lambda: xn.AvgPool2d(2, stride=(1, 0))], "AvgPool2d: expected stride to be"),
    ([lambda: xn.Conv2d(2, 0)], "Conv2d: expected kernel_size to be"),
    ([lambda: xn.Conv2d(2, 3, dilation=0)], "Conv2d: expected dilation to be"),
    ([lambda: xn.Conv2d(4, 3, groups=3)],
     "Conv2d 'conv1': expected groups=3 to divide the channels and the filters"),
    ([lambda: xn.Conv2d(4, 1), lambda: xn.Conv2d(6, 3, groups=4)],
     "Conv2d 'conv2': expected groups=4 to divide"),
    ([lambda: xn.Conv2d(2, 3, groups=0)], "Conv2d: expected groups to be an int, 1 or larger"),
    ([lambda: xn.AvgPool2d(3, padding=3)],
     "AvgPool2d: expected padding smaller than the 3 rows that the window spans"),
    ([lambda: xn.MaxPool2d(2, padding=2)], "MaxPool2d: expected padding smaller than the 2 rows"),
    ([lambda: xn.MaxPool2d(3, padding=(0, 0, 0, 3))],
     "MaxPool2d: expected padding smaller than the 3 columns"),
    ([lambda: xn.Conv2d(2, 3, padding=-1)], "Conv2d: expected padding to be"),
    ([lambda: xn.Conv2d(2, 3, padding="big")],
     'Conv2d: expected padding "valid", "half", "same" or "full", or ints'),
    ([xn.GlobalAvgPool2d, xn.GlobalAvgPool2d],
     "GlobalAvgPool2d 'pool2': expected an input of shape"),
    ([lambda: xn.Linear(3)],
     "Linear 'linear1': expected a vector of features per sample; put Flatten"),
    ([xn.Flatten, lambda: xn.Conv2d(2, 3)],
     r"Conv2d 'conv1': expected .*Received: input shape \(36,\)"),
    ([xn.Flatten, xn.BatchNorm2d], r"BatchNorm2d 'bn1': expected .*Received: input shape \(36,\)"),
    ([lambda: xn.Dropout(1.0)], "Dropout: expected p"),
    ([xn.Flatten, xn.Softmax, xn.Softmax],
     "Softmax 'softmax2': expected softmax to be applied once"),
])
def test_layers_that_are_refused(layers, message):
    with pytest.raises(ValueError, match=re.compile(message)):
        xn.Sequential([layer() for layer in layers], input_shape=(1, 6, 6), backend="numpy")


def test_a_dilated_window_that_contains_only_padding():
    with pytest.raises(
            ValueError,
            match="MaxPool2d 'pool1': expected every window to contain at least one element"):
        xn.Sequential([xn.MaxPool2d(2, dilation=4, padding=2, stride=1)], input_shape=(1, 1, 1),
                      backend="numpy")


# --- batches of one -------------------------------------------------------------------------------

def test_a_batch_of_one_is_fine():
    net = xn.Sequential([xn.Conv2d(2, 3), xn.BatchNorm2d(), xn.Flatten(), xn.Linear(3)],
                        input_shape=(1, 6, 6), backend="numpy")
    before = values(net)
    net.fit(X[:1], Y[:1], **SETTINGS, optimizer=xn.SGD(0.1))
    assert (not same(values(net), before) and np.isfinite(net.parameters).all()
            and np.isfinite(net.state).all())
    assert net.predict(X[:1]).shape == (1, 3)


@pytest.mark.parametrize("samples, batch_size", [(1, 32), (5, 1), (5, 4), (9, 2)])
def test_a_batch_of_one_without_a_variance(samples, batch_size):
    """Batch norm on 1x1 maps then has one element per channel. The short last batch is checked
    too."""
    net = xn.Sequential([xn.Conv2d(2, 6), xn.BatchNorm2d(), xn.Flatten(), xn.Linear(3)],
                        input_shape=(1, 6, 6), backend="numpy")
    with untouched(net), pytest.raises(
            ValueError, match=f"BatchNorm2d 'bn1': expected batches of at least 2 in "
                              f"training.*Received: {samples} samples in batches of {batch_size}"):
        net.fit(X[:samples], Y[:samples], **SETTINGS, optimizer=xn.SGD(0.1), batch_size=batch_size)
    net.fit(X, Y, **SETTINGS, optimizer=xn.SGD(0.1), batch_size=5)
    assert net.predict(X[:1]).shape == (1, 3)           # a prediction needs no variance
