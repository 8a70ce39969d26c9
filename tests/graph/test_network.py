"""Networks as graphs: order, gradients of values read several times, memory, flat buffers, initial
values, refusals."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from nets import branches, pictures, same, small, values

import xpnet as xn
from xpnet.layer import TRAIN


def check_network_gradients(net: xn.Network, x: np.ndarray, seed: int = 0) -> float:
    """The relative error of the network's gradient along one random direction against finite
    differences."""
    rng = np.random.default_rng(seed)
    batch = net.batch_last(x)
    before = net.parameters.copy()
    # biases of 0 would hide mistakes
    net.parameters += net.backend.asarray(0.1 * rng.normal(size=before.shape))
    weight = rng.normal(size=net.forward(batch, TRAIN).shape)
    net.forward(batch, TRAIN)
    net.backward(net.backend.asarray(weight))
    gradient = net.backend.to_numpy(net.grads).copy()
    start = net.backend.to_numpy(net.parameters).copy()
    direction = rng.normal(size=start.shape)
    direction /= np.linalg.norm(direction)

    def objective(h: float) -> float:
        net.parameters[...] = net.backend.asarray(start + h * direction)
        return float((net.backend.to_numpy(net.forward(batch, TRAIN)) * weight).sum())

    h = 1e-5
    numeric, analytic = (objective(h) - objective(-h)) / (2 * h), float(gradient @ direction)
    net.parameters[...] = before
    return abs(numeric - analytic) / max(abs(numeric), abs(analytic))


# --- gradients ------------------------------------------------------------------------------------

def test_gradient_of_a_graph_with_branches(plain_backend):
    net = branches(plain_backend)
    assert check_network_gradients(net, np.random.default_rng(0).normal(size=(3, 2, 6, 6))) < 1e-6


@pytest.mark.parametrize("readers", [1, 2, 3, 4])
def test_gradients_of_a_value_read_several_times_are_summed(readers):
    """h feeds `readers` layers whose outputs are added: dh is the sum of their input gradients."""
    x = xn.Input((3,))
    h = xn.Linear(4, activation="tanh", name="h")(x)
    ends = [xn.Linear(2, activation="tanh", name=f"end{i}")(h) for i in range(readers)]
    net = xn.Network(x, xn.Add(name="sum")(*ends) if readers > 1 else ends[0], backend="numpy",
                     dtype="float64")
    data = np.random.default_rng(1).normal(size=(5, 3))
    assert check_network_gradients(net, data) < 1e-7

    # and by hand: dW of h is (sum of W_i^T dz_i) (1 - h^2) x^T
    net.forward(net.batch_last(data), TRAIN)
    dy = np.random.default_rng(2).normal(size=(2, 5))
    net.backward(dy)
    arrays = net.buffers.arrays
    hidden = np.tanh(arrays["h.W"].data @ data.T)
    dh = sum(arrays[f"end{i}.W"].data.T
             @ (dy * (1 - np.tanh(arrays[f"end{i}.W"].data @ hidden) ** 2)) for i in range(readers))
    np.testing.assert_allclose(arrays["h.W"].grad, (dh * (1 - hidden**2)) @ data, rtol=1e-12)


@pytest.mark.parametrize("merge", [xn.Add, xn.Concat])
@pytest.mark.parametrize("times", [2, 3])
def test_one_layer_that_reads_a_value_twice(merge, times):
    x = xn.Input((3,))
    h = xn.Linear(4, activation="tanh")(x)
    net = xn.Network(x, xn.Linear(2)(merge()(*[h] * times)), backend="numpy", dtype="float64")
    assert check_network_gradients(net, np.random.default_rng(1).normal(size=(5, 3))) < 1e-7


def test_the_input_itself_can_be_a_branch():
    x = xn.Input((3,))
    net = xn.Network(x, xn.Linear(2)(xn.Add()(xn.Linear(3, activation="tanh")(x), x)),
                     backend="numpy", dtype="float64")
    assert check_network_gradients(net, np.random.default_rng(1).normal(size=(5, 3))) < 1e-7


def test_gradients_accumulate_on_request():
    net, x = branches(), np.random.default_rng(0).normal(size=(3, 2, 6, 6))
    dy = np.random.default_rng(1).normal(size=(5, 3))
    batch = net.batch_last(x)
    net.forward(batch, TRAIN)
    net.backward(dy)
    once = net.grads.copy()
    net.forward(batch, TRAIN)
    net.backward(dy, accumulate=True)
    np.testing.assert_allclose(net.grads, 2 * once, rtol=1e-12)
    net.forward(batch, TRAIN)
    net.backward(dy)
    np.testing.assert_array_equal(net.grads, once)


class Watch(xn.Layer):
    """The identity. It keeps its input and output arrays, so that writes into them are seen."""

    def build(self, in_shape):
        self.seen = []
        return in_shape

    def forward(self, x, mode="predict"):
        self.remember(mode)
        return x

    def backward(self, dy, accumulate=False):
        self.recall()
        dx = dy + 1  # an array of its own, which the network must not use for its sums
        self.seen += [(dy, dy.copy()), (dx, dx.copy())]
        return dx


def test_sums_of_gradients_never_overwrite_a_layers_arrays():
    x = xn.Input((3,))
    h = xn.Linear(3)(x)
    watches = [Watch(name=f"watch{i}") for i in range(4)]
    net = xn.Network(x, xn.Add()(*[watch(h) for watch in watches]), backend="numpy")
    net.forward(net.batch_last(np.ones((2, 3))), TRAIN)
    dy = np.ones((3, 2), np.float32)
    dy.flags.writeable = False          # Add passes this same array to all four
    net.backward(dy)
    for watch in watches:
        assert all(np.array_equal(now, then) for now, then in watch.seen) and watch.seen
    # 4 readers, (1 + 1) each, 2 samples
    np.testing.assert_array_equal(net.buffers.arrays["linear1.b"].grad, [16, 16, 16])


# --- order and memory -----------------------------------------------------------------------------

class Trace(xn.Layer):
    """The identity, or the sum of its inputs. It appends its name to a list when it runs."""

    def __init__(self, log, *, name=None):
        super().__init__(name=name)
        self.log = log

    def build(self, *in_shapes):
        return in_shapes[0]

    def forward(self, *xs, mode="predict"):
        self.log.append(self.name)
        self.remember(mode)
        return sum(xs[1:], start=xs[0] * 1)

    def backward(self, dy, accumulate=False):
        self.recall()
        self.log.append(self.name)
        return (dy,) * len(self.in_shapes)


def test_every_layer_runs_once_after_its_inputs_and_backward_in_reverse_order():
    log: list[str] = []
    x = xn.Input((2,))
    a = Trace(log, name="a")(xn.Linear(2, name="linear")(x))
    b = Trace(log, name="b")(a)
    c = Trace(log, name="c")(a)
    d = Trace(log, name="d")(c, b, a)
    unread = Trace(log, name="unread")(b)
    net = xn.Network(x, Trace(log, name="e")(d, c), backend="numpy")
    assert unread.layer not in net.layers
    net.forward(net.batch_last(np.ones((1, 2))), TRAIN)
    forward = log.copy()
    assert sorted(forward) == ["a", "b", "c", "d", "e"]
    for first, second in ("ab", "ac", "bd", "cd", "de"):
        assert forward.index(first) < forward.index(second)
    log.clear()
    net.backward(np.ones((2, 1), np.float32))
    assert log == forward[::-1]


def test_a_graph_deeper_than_pythons_stack():
    x = h = xn.Input((2,))
    for _ in range(3000):
        h = xn.ReLU()(h)
    net = xn.Network(x, h, backend="numpy")
    assert net(np.ones((1, 2))).tolist() == [[1, 1]]


def test_backward_frees_what_forward_kept():
    net = branches()
    batch = net.batch_last(np.random.default_rng(0).normal(size=(3, 2, 6, 6)))
    y = net.forward(batch, TRAIN)
    assert all(node.kept is not None for node in net.nodes)
    net.backward(y)
    assert all(node.kept is None for node in net.nodes)


def test_a_prediction_between_forward_and_backward_changes_nothing():
    net, alone = branches(), branches()
    batch = net.batch_last(np.random.default_rng(0).normal(size=(3, 2, 6, 6)))
    for network in (net, alone):
        y = network.forward(batch, TRAIN)
        if network is net:
            net.predict(np.ones((2, 2, 6, 6)))
        network.backward(y)
    np.testing.assert_array_equal(net.grads, alone.grads)


def test_layers_that_need_no_backward_pass_keep_nothing():
    net = xn.Sequential([xn.MaxPool2d(2), xn.ReLU(), xn.Flatten(), xn.Linear(2)],
                        input_shape=(1, 4, 4), backend="numpy")
    net.backward(net.forward(net.batch_last(np.ones((2, 1, 4, 4))), TRAIN))
    assert [node.name for node in net.nodes if node.kept is not None] == []


@pytest.mark.parametrize("mode", ["predict", "sample"])
def test_nothing_is_kept_outside_training(mode):
    net = branches()
    net(np.ones((3, 2, 6, 6)), mode=mode)
    assert all(node.kept is None for node in net.nodes)


def test_gradients_that_are_not_needed_are_not_computed():
    net = xn.Sequential([xn.Flatten(), xn.Linear(3), xn.Linear(2)], input_shape=(2, 2, 2),
                        backend="numpy")
    assert [layer.needs_dx for layer in net.layers] == [False, False, True]
    x = xn.Input((2, 4, 4))
    pooled, convolved = xn.MaxPool2d(2)(x), xn.Conv2d(2, 3, stride=2, padding=1)(x)
    net = xn.Network(x, xn.Conv2d(1, 1)(xn.Add()(pooled, convolved)), backend="numpy")
    assert {layer.name: layer.needs_dx for layer in net.layers} == {
        "pool1": False, "conv1": False, "add1": True, "conv2": True}


# --- Sequential -----------------------------------------------------------------------------------

def test_sequential_is_the_straight_line():
    def layers():
        return [xn.Conv2d(3, 3), xn.ReLU(), xn.Flatten(), xn.Linear(4)]

    line = xn.Sequential(layers(), input_shape=(1, 6, 6), backend="numpy", seed=3)
    x = h = xn.Input((1, 6, 6))
    for layer in layers():
        h = layer(h)
    graph = xn.Network(x, h, backend="numpy", seed=3)
    assert isinstance(line, xn.Network) and same(values(line), values(graph))
    assert [layer.name for layer in line.layers] == ["conv1", "relu1", "flatten1", "linear1"]
    samples, labels = pictures(8, (1, 6, 6), 4)
    for net in (line, graph):
        net.fit(samples, labels, loss="cross_entropy", optimizer=xn.SGD(0.1), verbose=False)
    assert same(values(line), values(graph)) and np.array_equal(line(samples), graph(samples))


def test_sequential_takes_any_iterable_of_layers():
    assert len(xn.Sequential((xn.Linear(2) for _ in range(3)), input_shape=(2,),
                             backend="numpy").layers) == 3


def test_networks_convert_between_batch_first_and_batch_last():
    net = xn.Sequential([xn.Conv2d(4, 3, padding=1)], input_shape=(2, 5, 7), backend="numpy")
    x = pictures(3, (2, 5, 7))[0]
    assert net.batch_last(x).shape == (2, 5, 7, 3) and net.batch_last(x).flags.c_contiguous
    y = net(x)
    assert y.shape == (3, 4, 5, 7) and y.flags.c_contiguous and y.dtype == np.float32
    np.testing.assert_allclose(y[1], net(x[1:2])[0], rtol=1e-5, atol=1e-6)  # one sample at a time


# --- refusals -------------------------------------------------------------------------------------

def unreached():
    return xn.Network(xn.Input((2,)), xn.Linear(3)(xn.Input((2,))), backend="numpy")


def used_twice():
    layer = xn.Linear(2, name="twice")
    return layer(layer(xn.Input((3,))))


def same_name():
    x = xn.Input((2,))
    return xn.Network(x, xn.Linear(2, name="a")(xn.Linear(2, name="a")(x)), backend="numpy")


def from_another_network():
    x = xn.Input((2,))
    h = xn.Linear(2, name="shared")(x)
    xn.Network(x, xn.Linear(3)(h), backend="numpy")
    return xn.Network(x, xn.Linear(4)(h), backend="numpy")


def outside_the_network():
    return xn.Sequential([xn.Linear(2, name="alone").initialize((2,))], input_shape=(2,),
                         backend="numpy")


def no_layer():
    x = xn.Input((2,))
    return xn.Network(x, x, backend="numpy")


def sequential(*layers, **settings):
    return xn.Sequential(layers, **{"input_shape": (2,), "backend": "numpy"} | settings)


@pytest.mark.parametrize("make, error, message", [
    (unreached, ValueError,
     "Network: expected outputs that depend on the given Inputs, and on no others"),
    (used_twice, ValueError,
     r"Linear 'twice': expected inputs of the shapes of its first use, \(\(3,\),\)"),
    (same_name, ValueError,
     "Network: expected every layer to have a name of its own. Received: a twice"),
    (from_another_network, ValueError, "Linear 'shared': expected a layer of no other network"),
    (outside_the_network, ValueError, "Linear 'alone': expected a layer of no other network"),
    (no_layer, ValueError, "Network: expected at least one layer"),
    (lambda: sequential(), ValueError, "Network: expected at least one layer"),
    (lambda: sequential(xn.Linear), TypeError,
     r"Sequential: expected layers, e.g. Linear\(...\). Received: the class Linear"),
    (lambda: sequential(3), TypeError, r"Sequential: expected layers\. Received: 3"),
    (lambda: sequential(xn.GaussianNoise(0.1)), TypeError,
     r"Sequential: expected layers; augmentations are passed to fit, and the layer .* is "
     r"AdditiveNoise\. Received: GaussianNoise\("),
    (lambda: xn.Linear(2)(np.ones((3, 2))), TypeError,
     r"Linear: expected symbolic inputs, .* Received: ndarray"),
    (lambda: xn.Linear(2)(), TypeError, "Linear: expected symbolic inputs, .* Received: nothing"),
    (lambda: xn.Network(np.ones(2), np.ones(2)), TypeError,
     r"Network: expected each Input to be a node.* Received: array"),
    (lambda: xn.Network(xn.Linear(2)(xn.Input((2,))), xn.Input((2,))), TypeError,
     "Network: expected each Input to be made by Input.* Received: the output of Linear 'linear1'"),
    (lambda: xn.Network([xn.Input((2,)), 3], xn.Input((2,))), TypeError,
     "Network: expected each Input to be a node.* Received: a list of Node, int"),
    (lambda: sequential(xn.Linear(2), dtype="float16"), ValueError,
     "expected dtype float32 or float64. Received: dtype='float16'"),
    (lambda: sequential(xn.Linear(2), dtype="foo"), ValueError,
     "expected dtype float32 or float64. Received: dtype='foo'"),
    (lambda: sequential(xn.Linear(2), dtype=None), ValueError,
     "expected dtype float32 or float64. Received: dtype=None"),
    (lambda: sequential(xn.Linear(2), dtype=">f4"), ValueError,
     "expected dtype float32 or float64"),
    (lambda: sequential(xn.Linear(2), seed=-1), ValueError,
     "expected seed to be an int from 0 to 2^64 - 1. Received: seed=-1"),
    (lambda: sequential(xn.Linear(2), seed=2**64), ValueError, "expected seed to be an int"),
    (lambda: sequential(xn.Linear(2), seed=1.0), ValueError, "expected seed to be an int"),
    (lambda: sequential(xn.Linear(2), seed=None), ValueError, "expected seed to be an int"),
    (lambda: sequential(xn.Linear(2), backend="tpu"), ValueError, "get_backend: expected"),
    (lambda: sequential(xn.Linear(2), bakend="numpy"), TypeError, "bakend"),
    (lambda: sequential(xn.Conv2d(2, 3)), ValueError, r"Conv2d 'conv1': expected .*\(2,\)"),
])
def test_refusals(make, error, message):
    with pytest.raises(error, match=re.compile(message.replace("2^64", r"2\^64"))):
        make()


@pytest.mark.parametrize("shape", [(), (0, 28, 28), (1, -2), (1, 28.0), "28", 28, None, (True, 2),
                                   [[1, 2]]])
def test_refusals_of_input(shape):
    with pytest.raises(
            ValueError,
            match=r"Input: expected the shape of one sample, e.g. \(1, 28, 28\). Received"):
        xn.Input(shape)


def test_names_of_dtypes():
    for dtype in ("float64", np.float64, np.dtype("float64"), float, "f8"):
        assert small(dtype=dtype).parameters.dtype == np.float64


@pytest.mark.parametrize("mode", ["train", "Predict", None])
def test_a_call_predicts_or_samples(mode):
    with pytest.raises(ValueError, match="Network: expected mode to be 'predict' or 'sample'"):
        small()(np.ones((1, 2)), mode=mode)


def test_the_largest_seed_works():
    net = small(seed=2**64 - 1)
    assert (np.isfinite(net(np.ones((3, 2)), mode="sample")).all()
            and math.isfinite(net.parameters.sum()))


# --- intermediate values --------------------------------------------------------------------------

def test_the_output_of_a_layer_by_its_name():
    net = xn.Sequential([xn.Linear(4, activation="relu", name="hidden"), xn.Linear(2)],
                        input_shape=(3,), backend="numpy")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    layer = net.layers[0]
    expected = np.maximum(x @ layer.W.data.T + layer.b.data, 0)
    np.testing.assert_allclose(net.output_of("hidden", x, batch_size=2), expected, rtol=1e-6)
    np.testing.assert_array_equal(net.output_of("linear1", x), net.predict(x))
    np.testing.assert_array_equal(net.output_of("input", x), x)


@pytest.mark.parametrize("name, message", [
    ("hiden", "expected name to be that of a layer, perhaps \"hidden\". Received: name='hiden'"),
    (3, "Received: name=3"), (None, "Received: name=None")])
def test_the_name_of_a_missing_layer(name, message):
    net = xn.Sequential([xn.Linear(4, name="hidden")], input_shape=(3,), backend="numpy")
    with pytest.raises(ValueError, match=message):
        net.output_of(name, np.ones((1, 3)))
