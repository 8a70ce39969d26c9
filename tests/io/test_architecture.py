"""net.load compares the architecture in the file, and refuses arrays of a network that computes
something else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nets import branches, same, small, untouched, values

import xpnet as xn
from tests.io.test_damaged_files import parts, write


def net(hidden=None, *, units=8, shape=(1, 6, 6), dtype="float32", seed=0,
        **options) -> xn.Sequential:
    conv = {"kernel_size": 3, "padding": 1, "init": None} | options
    return xn.Sequential([xn.Conv2d(4, **conv, name="a"), hidden or xn.ReLU(name="f"),
                          xn.Flatten(name="flat"),
                          xn.Linear(units, name="out")], input_shape=shape, backend="numpy",
                         dtype=dtype, seed=seed)


@pytest.mark.parametrize("other, difference", [
    (lambda: net(xn.Tanh(name="f")), "f is of type Tanh and not ReLU"),
    (lambda: net(xn.LeakyReLU(0.3, name="f")), "f is of type LeakyReLU and not ReLU"),
    (lambda: net(units=9), "out has units=9 and not 8"),
    (lambda: net(padding=(1, 0, 1, 2)), r"a has padding=\[1, 0, 1, 2\] and not 1"),
    (lambda: net(activation="relu"), "a has activation='relu' and not None"),
    (lambda: net(kernel_size=5, padding=2),
     "a has kernel_size=5 and not 3, a has padding=2 and not 1"),
    (lambda: net(shape=(1, 4, 9)),
     r"there is input of shape \[1, 4, 9\] and not input of shape \[1, 6, 6\]"),
    (lambda: net(xn.ReLU(name="g")),
     "there is no layer f, flat reads \\['g'\\] and not \\['f'\\], there is a layer g"),
    (lambda: xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy"),
     r"there is input of shape \[2\] and not input of shape \[1, 6, 6\], there is no layer a, "
     r"there is no layer f, there is no layer flat, and 3 more"),
])
def test_another_architecture_is_refused(other, difference, tmp_path):
    other().save(tmp_path / "file")
    mine = net()
    with untouched(mine), pytest.raises(
            ValueError,
            match=f"^load: expected a file of a network of this architecture. Received: .*file, "
                  f"where {difference}. .*architecture=False") as caught:
        mine.load(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_without_the_architecture(tmp_path):
    other, mine = net(xn.Tanh(name="f"), seed=1), net()
    other.save(tmp_path / "file")
    assert (mine.load(tmp_path / "file", architecture=False) is mine
            and same(values(mine), values(other)))
    net(units=9).save(tmp_path / "file")
    with untouched(mine), pytest.raises(
            ValueError, match=r"expected out.W to be floating-point numbers of shape \(8, 144\)"):
        mine.load(tmp_path / "file", architecture=False)
    with pytest.raises(ValueError, match="load: expected architecture to be True or False"):
        mine.load(tmp_path / "file", architecture="no")


def test_irrelevant_settings_may_differ(tmp_path):
    """Initializers, dtype, seed, frozen layers, and two forms of the same argument."""
    other = net(seed=3, dtype="float64", padding=(1, 1), kernel_size=(np.int64(3), 3),
                init="he_normal")
    other.layers[0].trainable = False
    other.save(tmp_path / "file")
    mine = net()
    mine.load(tmp_path / "file")
    np.testing.assert_array_equal(mine.layers[0].W.data, other.layers[0].W.data.astype(np.float32))
    assert mine.seed == 0 and mine.layers[0].trainable


def test_an_argument_that_an_older_file_lacks_has_its_default(tmp_path):
    mine = net()
    mine.save(tmp_path / "file")
    header, data = parts(tmp_path / "file")
    about = json.loads(header["__metadata__"]["xpnet"])
    del about["architecture"]["layers"][0]["config"]["dilation"]
    write(tmp_path / "file", header | {"__metadata__": {"xpnet": json.dumps(about)}}, data)
    mine.load(tmp_path / "file")
    with pytest.raises(ValueError, match="a has dilation=1 and not 2"):
        net(dilation=2, padding=2).load(tmp_path / "file")


def test_the_order_of_branches_does_not_matter_but_what_a_layer_reads_does(tmp_path):
    def graph(swapped):
        x = xn.Input((3,))
        a, b = xn.Linear(4, name="a")(x), xn.Linear(4, name="b")(x)
        return xn.Network(x, xn.Subtract(name="minus")(*((b, a) if swapped else (a, b))),
                          backend="numpy")
    graph(True).save(tmp_path / "file")
    with pytest.raises(ValueError, match=r"minus reads \['b', 'a'\] and not \['a', 'b'\]"):
        graph(False).load(tmp_path / "file")
    branches().save(tmp_path / "file")
    branches(seed=4).load(tmp_path / "file")


def test_renamed_layers_are_saved_under_their_names(tmp_path):
    mine = small()
    mine.layers[0].name = "first"
    mine.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", backend="numpy")
    assert ([layer.name for layer in back.layers] == ["first", "dropout1", "linear2"]
            and same(values(back), values(mine)))
    mine.layers[0].name = "linear2"
    with pytest.raises(ValueError, match="save: expected every layer to have a name of its own"):
        mine.save(tmp_path / "file")
