"""deepcopy and pickle of networks, which use the bytes that `save` writes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from nets import blobs, branches, same, small, values

import xpnet as xn
from tests.io.test_files import Forgetful, Scale, described


def by_pickle(value):
    return pickle.loads(pickle.dumps(value))


WAYS = pytest.mark.parametrize("way", [copy.deepcopy, by_pickle, copy.copy],
                               ids=["deepcopy", "pickle", "copy"])


@WAYS
@pytest.mark.parametrize("make",
                         [small, branches, lambda: xn.models.lenet5((1, 28, 28), backend="numpy")],
                         ids=["small", "branches", "lenet5"])
def test_a_copy_is_the_same_network_with_new_arrays(way, make):
    net = make()
    net.layers[0].trainable = False
    new = way(net)
    assert (type(new) is type(net) and new.backend.name == net.backend.name
            and (new.seed, new.dtype) == (net.seed, net.dtype))
    assert same(values(new), values(net)) and described(new) == described(net)
    assert not new.layers[0].trainable and new.layers[1].trainable
    assert not np.shares_memory(new.parameters, net.parameters)
    before = values(net)
    new.parameters *= 0
    assert same(values(net), before)


@WAYS
def test_a_copy_continues_the_training(way):
    x, y = blobs()
    net = small()
    net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, verbose=False)
    new = way(net)
    for one in (net, new):
        one.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, verbose=False)
    assert new.epochs == 4 and same(values(new), values(net))


def test_a_copy_stays_on_the_same_backend(plain_backend):
    net = small(plain_backend)
    assert copy.deepcopy(net).backend is plain_backend
    assert copy.deepcopy([net, net])[0] is not net
    first, second = copy.deepcopy([net, net])
    assert first is second


def test_an_unregistered_backend_is_not_pickled():
    with pytest.raises(
            TypeError,
            match="Network: expected a backend that get_backend makes.*Received: 'base'"):
        pickle.dumps(small(xn.Backend()))


class Classifier(xn.Sequential):
    """A network with additional attributes."""

    def __init__(self, labels):
        super().__init__([xn.Linear(4, activation="relu"), Scale(2.0), xn.Linear(len(labels))],
                         input_shape=(2,), backend="numpy")
        self.labels = labels


@WAYS
def test_a_subclass_with_additional_attributes_and_layers(way):
    net = Classifier(["a", "b"])
    net.note = {"run": 3}
    new = way(net)
    assert type(new) is Classifier and new.labels == ["a", "b"] and new.note == {"run": 3}
    assert (new.labels is net.labels) == (way is copy.copy)
    assert isinstance(new.layers[1], Scale) and same(values(new), values(net))
    again = way(new)
    assert again.labels == ["a", "b"] and again.note == {"run": 3}


def test_a_pickle_can_be_read_in_another_process(tmp_path):
    net = small(seed=5)
    (tmp_path / "net.pickle").write_bytes(pickle.dumps(net))
    program = ("import pickle, sys; net = pickle.load(open(sys.argv[1], "
               "'rb'));print(type(net).__name__, net.backend.name, net.parameters.tobytes().hex())")
    run = subprocess.run([sys.executable, "-c", program, tmp_path / "net.pickle"],
                         capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["Sequential", "numpy", net.parameters.tobytes().hex()]


def test_the_pickle_holds_the_saved_bytes(tmp_path):
    net = small()
    net.save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() in pickle.dumps(net)


def test_layers_that_cannot_be_saved_cannot_be_copied():
    net = xn.Sequential([Forgetful()], input_shape=(2,), backend="numpy")
    with pytest.raises(AttributeError,
                       match="expected every argument of the constructor in an attribute"):
        copy.deepcopy(net)


@WAYS
def test_a_layer_is_copied_before_it_is_built_and_not_after(way):
    layer = xn.Conv2d(8, 3, activation="relu")
    new = way(layer)
    assert new is not layer and new.config() == layer.config()
    assert np.array_equal(new.initialize((1, 5, 5)).W.data, layer.initialize((1, 5, 5)).W.data)
    for built in (layer, small().layers[0]):
        with pytest.raises(TypeError,
                           match="(Conv2d|Linear).*expected a network to be copied or pickled"):
            way(built)
    with pytest.raises(TypeError, match="expected a network to be copied"):
        copy.deepcopy(xn.Linear(3)(xn.Input((4,))))
