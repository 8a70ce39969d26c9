"""Assignments to attributes of a network, a layer and a parameter copy the values, or raise."""

from __future__ import annotations

import numpy as np
import pytest
from nets import branches, pictures, same, small, values

import xpnet as xn


def test_an_assignment_to_a_parameter_copies(backend):
    net = small(backend)
    W = net.layers[0].W
    data, grad, wanted = W.data, W.grad, np.arange(32.0).reshape(16, 2)
    W.data = wanted                                             # float64, on the host
    W.grad = wanted.astype(np.int64).tolist()
    assert W.data is data and W.grad is grad and W.data.dtype == np.float32
    assert (np.array_equal(backend.to_numpy(W.data), wanted)
            and np.array_equal(backend.to_numpy(W.grad), wanted))
    wanted[...] = 0
    assert backend.to_numpy(W.data).any()                       # a copy
    held = {float(v) for v in backend.to_numpy(net.parameters)}
    assert held >= set(range(32)) and net.parameters[:1] is not None
    W.data += 1
    W.data = W.data[::-1]
    assert W.data is data and np.array_equal(backend.to_numpy(W.data),
                                             np.arange(1.0, 33).reshape(16, 2)[::-1])


def test_an_assigned_weight_is_the_one_that_trains_and_is_saved(tmp_path):
    x, net = np.ones((4, 2), np.float32), small()
    net.layers[0].W.data = np.full((16, 2), 3.0)
    net.save(tmp_path / "file")
    assert (xn.load(tmp_path / "file", backend="numpy").layers[0].W.data == 3).all()
    net.fit(x, [0, 1, 2, 0], loss="cross_entropy", optimizer=xn.SGD(0.5), verbose=False)
    assert not (net.layers[0].W.data == 3).all()
    assert np.shares_memory(net.layers[0].W.data, net.parameters)


@pytest.mark.parametrize("name", ["parameters", "grads", "state", "counters"])
def test_an_assignment_to_a_flat_buffer_copies(name, backend):
    net = branches(backend, "float32")
    net.fit(*pictures(4, (2, 6, 6), classes=5), loss="cross_entropy", optimizer=xn.SGD(0.1),
            verbose=False)
    array = getattr(net, name)
    assert array.size
    wanted = backend.to_numpy(array) + np.ones(1, array.dtype)
    setattr(net, name, wanted.astype(np.float64))
    assert getattr(net, name) is array and np.array_equal(backend.to_numpy(array), wanted)
    assert backend.to_numpy(net.layers[0].W.data).ravel()[0] in backend.to_numpy(net.parameters)
    setattr(net, name, array)
    assert getattr(net, name) is array


def test_assigned_values_move_to_another_backend():
    net = small()
    net.parameters = np.arange(net.parameters.size)
    before = values(net)
    other = xn.Backend()
    assert net.to(other) is net and net.backend is other
    assert same(values(net), before) and np.shares_memory(net.layers[0].W.data, net.parameters)


@pytest.mark.parametrize("value, error, message", [
    (np.ones((2, 16)), ValueError,
     r"Parameter 'W': expected data of shape \(16, 2\). Received: shape \(2, 16\)"),
    # no broadcasting
    (np.ones(2), ValueError, r"expected data of shape \(16, 2\). Received: shape \(2,\)"),
    (0, ValueError, r"expected data of shape \(16, 2\). Received: shape \(\)"),
    (None, TypeError, "Parameter 'W': data: expected real numbers"),
    ("text", TypeError, "Parameter 'W': data: expected real numbers"),
    (np.ones((16, 2)) * 1j, TypeError, "Parameter 'W': data: expected real numbers"),
    ([[1, 2], [3]], ValueError, "Parameter 'W': data: expected an array of numbers"),
])
def test_assignments_that_do_not_fit(value, error, message):
    net = small()
    before, data = values(net), net.layers[0].W.data
    with pytest.raises(error, match=message):
        net.layers[0].W.data = value
    assert net.layers[0].W.data is data and same(values(net), before)
    with pytest.raises((ValueError, TypeError),
                       match="Network: |Network: expected parameters of shape"):
        net.parameters = value


def test_an_array_that_does_not_exist_cannot_be_assigned():
    layer = xn.BatchNorm1d()
    layer.connect((3,))
    with pytest.raises(
            ValueError,
            match="Parameter 'gamma': expected an assignment to data once there is such an array"):
        layer.gamma.data = np.ones(3)
    layer = xn.BatchNorm1d().initialize((3,))
    with pytest.raises(
            ValueError,
            match="Parameter 'mean': expected an assignment to grad once there is such an array"):
        layer.mean.grad = np.ones(3)


def test_an_array_cannot_replace_a_parameter():
    net = small()
    W = net.layers[0].W
    with pytest.raises(
            AttributeError,
            match="Linear 'linear1': expected an assignment to W.data.*Received: ndarray for W"):
        net.layers[0].W = np.zeros((16, 2))
    assert net.layers[0].W is W
    net.layers[0].note = np.zeros(3)                            # other attributes may be set


@pytest.mark.parametrize("name, value, message", [
    ("backend", "numpy",
     r"expected net.to\(backend\) to move the network. Received: an assignment to net.backend"),
    ("backend", xn.Backend(), r"expected net.to\(backend\)"),
    ("dtype", np.dtype("float64"), "a new Network with this dtype"),
    ("seed", 1, "a new Network with this seed"), ("layers", [], "a new Network of these layers"),
    ("nodes", (), "a new Network"), ("input", None, "a new Network"),
    ("output", None, "a new Network")])
def test_attributes_that_others_depend_on_cannot_be_assigned(name, value, message):
    net = small()
    before = getattr(net, name)
    with pytest.raises(AttributeError, match=f"Network: .*{message}"):
        setattr(net, name, value)
    assert getattr(net, name) is before


def test_a_subclass_may_keep_its_arguments_under_these_names():
    class Mine(xn.Sequential):
        def __init__(self, layers, seed):
            self.layers, self.seed, self.backend = layers, seed, "numpy"
            super().__init__(self.layers, input_shape=(2,), backend=self.backend, seed=self.seed)

    net = Mine([xn.Linear(3)], 5)
    assert isinstance(net.layers, tuple) and net.seed == 5 and net.backend.name == "numpy"
    with pytest.raises(AttributeError, match="Network: expected a new Network with this seed"):
        net.seed = 6


def test_the_list_of_layers_cannot_be_changed():
    net = small()
    with pytest.raises(AttributeError):
        net.layers.append(xn.ReLU())
    with pytest.raises(TypeError):
        net.layers[0] = xn.Linear(3)


def test_a_memory_report_does_not_replace_the_parameters():
    net = branches()
    before, data = values(net), [p.data for p in net.buffers.arrays.values()]
    net.memory_report(2)
    assert same(values(net), before)
    assert all(p.data is array for p, array in zip(net.buffers.arrays.values(), data, strict=True))


# --- the repr of nodes ----------------------------------------------------------------------------

def test_the_repr_of_a_node_does_not_contain_its_parents():
    x = h = xn.Input((4,))
    assert repr(x) == "<Input: a value of shape (4,) per sample>"
    assert repr(xn.Linear(3, name="a")(x)) == "<Linear 'a': a value of shape (3,) per sample>"
    for _ in range(3000):  # or each repr would contain that of its parent twice
        h = xn.Add()(h, h)
    assert len(repr(h)) < 100 and len(str([h])) < 100
    with pytest.raises(TypeError) as caught:
        xn.Sequential([h], input_shape=(4,))
    assert len(str(caught.value)) < 200
