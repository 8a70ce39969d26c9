"""The flat buffers of a network's parameters, and their initial values."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from nets import LAYERS, around, branches, small

import xpnet as xn
from xpnet.buffers import ALIGNMENT
from xpnet.initializers import glorot_uniform, he_normal, zeros

# --- flat buffers ---------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_are_views_of_flat_buffers(dtype):
    net = branches(dtype=dtype)
    start, end = {}, {}
    for flat, views in ((net.parameters, "data"), (net.grads, "grad")):
        assert flat.ndim == 1 and flat.dtype == dtype and flat.flags.c_contiguous
        for layer, p in net.buffers.placed:
            view = getattr(p, views)
            offset = view.__array_interface__["data"][0] - flat.__array_interface__["data"][0]
            assert (np.shares_memory(view, flat) and view.flags.c_contiguous
                    and view.shape == p.shape)
            assert offset % ALIGNMENT == 0 and ALIGNMENT == 256
            start[layer.name, p.name], end[layer.name, p.name] = offset, offset + view.nbytes
    spans = sorted((start[key], end[key]) for key in start)
    # no two overlap
    assert all(stop <= begin for (_, stop), (begin, _) in itertools.pairwise(spans))
    boundary = net.buffers.decayed * net.dtype.itemsize
    for layer, p in net.buffers.placed:
        # weights, not biases
        assert (start[layer.name, p.name] < boundary) == p.decay == (p.name == "W")
    for layer in net.layers:
        for p in layer.states:
            assert np.shares_memory(p.data, net.state) and p.grad is None


def test_an_operation_on_the_flat_buffer_changes_every_layer():
    net = small()
    net.parameters *= 0
    assert not net(np.ones((1, 2))).any()
    net.parameters += 1
    assert all((p.data == 1).all() for layer in net.layers for p in layer.parameters)


# --- initial values -------------------------------------------------------------------------------

def test_initial_values_follow_from_seed_and_name(plain_backend):
    first, again, other = branches(plain_backend), branches("numpy"), branches("numpy", seed=1)
    assert set(first.buffers.arrays) == set(other.buffers.arrays)
    for name, p in first.buffers.arrays.items():
        assert np.array_equal(plain_backend.to_numpy(p.data), again.buffers.arrays[name].data)
        if name.endswith(".W"):
            assert not np.array_equal(again.buffers.arrays[name].data,
                                      other.buffers.arrays[name].data)


def test_another_layer_does_not_change_the_initial_values_of_others():
    short = xn.Sequential([xn.Linear(4, name="a"), xn.Linear(3, name="c")], input_shape=(4,),
                          backend="numpy")
    long = xn.Sequential([xn.Linear(4, name="a"), xn.Linear(4, name="b"), xn.Dropout(),
                          xn.Linear(3, name="c")],
                         input_shape=(4,), backend="numpy")
    for name, p in short.buffers.arrays.items():
        np.testing.assert_array_equal(p.data, long.buffers.arrays[name].data)
    assert not np.array_equal(long.buffers.arrays["a.W"].data, long.buffers.arrays["b.W"].data)


def test_initial_values_are_the_same_in_another_process():
    program = ("import xpnet as xn; net = xn.Sequential([xn.Linear(3)], input_shape=(4,), "
               "backend='numpy', seed=7);print(net.parameters.tobytes().hex())")
    here = xn.Sequential([xn.Linear(3)], input_shape=(4,), backend="numpy",
                         seed=7).parameters.tobytes().hex()
    for hash_seed in ("0", "1"):        # Python's own hash() of a name differs between them
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                             check=True,
                             env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)})
        assert run.stdout.strip() == here


def test_initial_values_in_float64_and_float32_are_the_same():
    wide, narrow = small(dtype="float64"), small(dtype="float32")
    for name, p in wide.buffers.arrays.items():
        np.testing.assert_array_equal(p.data.astype(np.float32), narrow.buffers.arrays[name].data)


class Declared(xn.Layer):
    """A user's layer that declares its array W with a shape and an initializer only."""

    def __init__(self, shape, init, **options):
        super().__init__()
        self.shape, self.init, self.options = shape, init, options

    def build(self, in_shape):
        self.W = self.parameter("W", self.shape, self.init, **self.options)
        return in_shape


@pytest.mark.parametrize("shape, fan_in, fan_out, decay", [
    ((400, 1000), 1000, 400, True), ((8, 3, 5, 4), 60, 160, True), ([8, 3, 5, 4], 60, 160, True),
    ((7,), 1, 1, False),
    ((), 1, 1, False)])
def test_fans_and_decay_follow_from_the_shape(shape, fan_in, fan_out, decay):
    W = Declared(shape, zeros).initialize((2,)).W
    assert (W.fan_in, W.fan_out, W.decay) == (fan_in, fan_out, decay)
    named = Declared(shape, zeros, fan_in=3, fan_out=4, decay=not decay).initialize((2,)).W
    assert (named.fan_in, named.fan_out, named.decay) == (3, 4, not decay)


def test_fans_of_weights_whose_outputs_have_several_axes():
    # different filters for each of 4 x 5 positions
    W = Declared((4, 5, 8, 3, 2, 2), zeros, units=3).initialize((2,)).W
    assert (W.fan_in, W.fan_out) == (12, 4 * 5 * 8 * 4)


@pytest.mark.parametrize("init, name",
                         [(he_normal, "he_normal"), (glorot_uniform, "glorot_uniform")])
def test_a_users_layer_has_the_initial_values_of_the_librarys(init, name):
    for theirs, in_shape in ((xn.Linear(40, init=name), (100,)),
                             (xn.Conv2d(8, (3, 2), init=name), (5, 6, 6))):
        theirs.name = "same"
        theirs.initialize(in_shape, seed=3)
        ours = Declared(theirs.W.shape, init)
        ours.name = "same"
        ours.initialize((2,), seed=3)
        assert np.array_equal(ours.W.data, theirs.W.data)


def test_weight_decay_applies_to_weights_alone():
    """Biases and the scales of normalisations do not decay, however many axes they have."""
    decayed = {f"{item.name}.{p.name}" for item in LAYERS for layer in around(item).layers
               for p in layer.parameters if p.decay}
    assert decayed and {name.rpartition(".")[2] for name in decayed} <= {"W", "U", "a"}
