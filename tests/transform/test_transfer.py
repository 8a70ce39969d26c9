"""Parts of a trained network in a new one, and files whose arrays match in part."""

from __future__ import annotations

import numpy as np
import pytest
from nets import branches, untouched, values

import xpnet as xn
from xpnet.io.report import LoadReport


def chain(classes=10, seed=0, **options):
    return xn.Sequential([
        xn.Conv2d(4, 3, activation="relu"), xn.BatchNorm2d(), xn.MaxPool2d(2), xn.Flatten(),
        xn.Linear(8, activation="relu"), xn.Dropout(0.5), xn.Linear(classes), xn.Softmax(),
    ], input_shape=(1, 8, 8), backend="numpy", seed=seed, **options)


def trained():
    net, rng = chain(seed=3), np.random.default_rng(0)
    net.fit(rng.random((16, 1, 8, 8)), rng.integers(0, 10, 16), loss="cross_entropy",
            optimizer="adam", epochs=2, verbose=False)
    return net


X = np.random.default_rng(1).random((5, 1, 8, 8))


@pytest.mark.parametrize("name", ["conv1", "bn1", "flatten1", "linear1", "dropout1", "softmax1"])
def test_up_to_ends_at_the_layer(name):
    net = trained()
    part = net.up_to(name)
    np.testing.assert_array_equal(part.predict(X), net.output_of(name, X))
    assert [*part.layer_names] == [*net.layer_names][:len(part.layers)]
    assert part.layers[-1].name == name and type(part) is xn.Network


def test_up_to_shares_nothing():
    net = trained()
    part = net.up_to("linear1")
    with untouched(net):
        part.parameters[...] = 0
        part.state[...] = 1
        part.layers[0].trainable = False
    assert net.layers[0].trainable
    again = net.up_to("linear1")
    before = again.predict(X)
    net.parameters[...] = 0
    np.testing.assert_array_equal(again.predict(X), before)


@pytest.mark.parametrize("name", ["stem", "norm", "sum", "both", "out"])
def test_up_to_follows_branches(name):
    net = branches()
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 6))
    np.testing.assert_array_equal(net.up_to(name).predict(x), net.output_of(name, x))


def test_up_to_leaves_out_inputs_that_are_not_needed():
    left, right = xn.Input((3,)), xn.Input((2,))
    a, b = xn.Linear(4, name="a")(left), xn.Linear(4, name="b")(right)
    y = {"left": np.ones((2, 3)), "right": np.ones((2, 2))}
    net = xn.Network({"left": left, "right": right}, xn.Add(name="sum")(a, b), backend="numpy")
    part = net.up_to("b")
    np.testing.assert_array_equal(part.predict({"right": y["right"]}), net.output_of("b", y))
    assert net.up_to("sum").ins.keys == ("left", "right")
    left, right = xn.Input((3,)), xn.Input((2,))
    listed = xn.Network([left, right], [xn.Linear(1, name="c")(left), xn.Linear(1)(right)],
                        backend="numpy")
    assert listed.up_to("c").predict([y["left"]]).shape == (2, 1)


def test_shared_layers_and_parts_stay_shared_and_named():
    x = xn.Input((4,))
    encoder = xn.Sequential([xn.Linear(4), xn.ReLU()], input_shape=(4,), backend="numpy",
                            name="encoder")
    twice = xn.Linear(4, name="twice")
    net = xn.Network(x, xn.Linear(3)(twice(twice(encoder(x)))), backend="numpy")
    data = np.random.default_rng(0).standard_normal((3, 4))
    part = net.up_to("twice:2")
    assert [*part.layer_names] == ["encoder.linear1", "encoder.relu1", "twice"]
    np.testing.assert_array_equal(part.predict(data), net.output_of("twice:2", data))


def test_a_new_head_keeps_the_values_below():
    net = trained()
    new = net.with_head([xn.Linear(3), xn.Softmax()])
    # The last layer with parameters, linear2, and what follows it are gone; their names are free.
    assert [*new.layer_names] == ["conv1", "bn1", "pool1", "flatten1", "linear1", "dropout1",
                                  "linear2", "softmax1"]
    np.testing.assert_array_equal(new.output_of("dropout1", X), net.output_of("dropout1", X))
    assert new.predict(X).shape == (5, 3) and new.epochs == 0
    fresh = chain(classes=3, seed=3)
    np.testing.assert_array_equal(new.arrays["linear2.W"].data, fresh.arrays["linear2.W"].data)
    assert all(layer.trainable for layer in new.layers)


def test_a_new_head_of_the_same_size_has_new_values():
    net = trained()
    new = net.with_head([xn.Linear(10)])
    assert (new.arrays["linear2.W"].data != net.arrays["linear2.W"].data).any()


def test_a_head_after_a_layer_with_names_of_its_own():
    net = trained()
    new = net.with_head([xn.Linear(6), xn.Linear(5), xn.Linear(2, name="classes")],
                        after="linear1")
    assert [*new.layer_names][4:] == ["linear1", "linear2", "linear3", "classes"]
    with pytest.raises(ValueError, match=r"name of its own\. Received: conv1 twice"):
        net.with_head([xn.Linear(6, name="conv1")])
    part = xn.Sequential([xn.Linear(6), xn.Linear(2)], input_shape=(8,), backend="numpy")
    assert [*net.with_head([part]).layer_names][-2:] == ["sequential1.linear1",
                                                         "sequential1.linear2"]


def test_a_frozen_part_does_not_change_in_training():
    net = trained()
    new = net.with_head([xn.Linear(3)], frozen=True)
    assert [layer.trainable for layer in new.layers] == [False] * 6 + [True]
    before = {name: np.array(p.data) for name, p in new.arrays.items()}
    new.fit(X, [0, 1, 2, 0, 1], loss="cross_entropy", optimizer=xn.SGD(0.1),
            epochs=2, verbose=False)
    changed = {name for name, p in new.arrays.items() if (p.data != before[name]).any()}
    assert changed == {"linear2.W", "linear2.b"}
    layer = net.layers[0]
    layer.trainable = False         # what was frozen stays frozen
    assert not net.with_head([xn.Linear(3)]).layers[0].trainable


def test_heads_of_networks_that_branch():
    net = branches()
    assert [*net.with_head([xn.Linear(2)]).layer_names][-2:] == ["flat", "linear1"]
    x = xn.Input((3,))
    both = xn.Network(x, [xn.Linear(2, name="a")(x), xn.Linear(2, name="b")(x)], backend="numpy")
    with pytest.raises(ValueError, match="with_head: expected after"):
        both.with_head([xn.Linear(2)])
    assert [*both.with_head([xn.ReLU()], after="b").layer_names] == ["b", "relu1"]


def test_what_is_refused():
    net = chain()
    for call, message in (
            (lambda: net.up_to("no"), "expected name to be that of a layer"),
            (lambda: net.up_to("input"), "up_to: expected at least one layer"),
            (lambda: net.with_head([xn.Linear(1)], after="no"), "that of a layer"),
            (lambda: xn.Sequential([xn.Linear(1)], input_shape=(2,), backend="numpy").with_head(
                [xn.Linear(2)]), "with_head: expected at least one layer"),
            (lambda: xn.Sequential([xn.ReLU()], input_shape=(2,), backend="numpy").with_head(
                [xn.Linear(2)]), "with_head: expected after"),
            (lambda: net.with_head([xn.Linear(1)], frozen=1), "frozen")):
        with pytest.raises(ValueError, match=message):
            call()
    for layers in (xn.Linear(1), "linear", [xn.Linear], [3]):
        with pytest.raises(TypeError, match="with_head: expected"):
            net.with_head(layers)


class KeepsNothing(xn.Identity):
    def __init__(self, size, *, name=None):
        super().__init__(name=name)


def test_a_layer_that_cannot_be_copied_is_named():
    net = xn.Sequential([KeepsNothing(3), xn.Linear(2)], input_shape=(3,), backend="numpy")
    for call in (lambda: net.with_head([xn.Linear(1)]), net.folded):
        with pytest.raises(AttributeError, match=r"KeepsNothing .*: expected every argument .* "
                                                 r"Received: a layer without size\."):
            call()


def test_parts_of_a_part():
    """A network that is a part of another one can still be copied from."""
    x = xn.Input((4,))
    part = xn.Sequential([xn.Linear(4), xn.Linear(3)], input_shape=(4,), backend="numpy")
    xn.Network(x, xn.Linear(2)(part(x)), backend="numpy")
    data = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(part.up_to("linear1").predict(data),
                                  part.output_of("linear1", data))
    assert [*part.with_head([xn.Linear(7)]).layer_names] == ["linear1", "linear2"]


# --- files that match in part ---------------------------------------------------------------------

@pytest.fixture()
def file(tmp_path):
    trained().save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def other():
    net = xn.Sequential([
        xn.Conv2d(4, 3, activation="relu"), xn.BatchNorm2d(), xn.MaxPool2d(2), xn.Flatten(),
        xn.Linear(8, activation="relu"), xn.Linear(3), xn.Linear(2),
    ], input_shape=(1, 8, 8), backend="numpy")
    net.epochs = 7
    return net


def test_what_matches_is_loaded_and_reported(file):
    net, source = other(), trained()
    before = {name: np.array(p.data) for name, p in net.arrays.items()}
    report = net.load(file, strict=False)
    assert report.written and not report.complete
    assert report.matched == ("conv1.W", "conv1.b", "bn1.gamma", "bn1.beta", "bn1.mean", "bn1.var",
                              "linear1.W", "linear1.b")
    assert report.missing == ("linear3.W", "linear3.b") and report.unused == ()
    assert report.shapes == {"linear2.W": ((10, 8), (3, 8)), "linear2.b": ((10,), (3,))}
    for name, p in net.arrays.items():
        expected = source.arrays[name].data if name in report.matched else before[name]
        np.testing.assert_array_equal(p.data, expected)
    assert net.epochs == 7 and not net.counters.any()


def test_compare_writes_nothing(file):
    net = other()
    with untouched(net):
        report = net.compare(file)
    assert not report.written
    assert report == LoadReport(report.path, report.matched, report.missing, report.unused,
                                report.shapes, False)
    assert chain().compare(file).complete


def test_the_report_reads_well(file):
    text = str(other().load(file, strict=False)).replace(str(file), "net.safetensors")
    assert text.splitlines() == [
        "array",
        "-----------------------------------------------------------------",
        "conv1.W    copied",
        "conv1.b    copied",
        "bn1.gamma  copied",
        "bn1.beta   copied",
        "bn1.mean   copied",
        "bn1.var    copied",
        "linear1.W  copied",
        "linear1.b  copied",
        "linear2.W  not copied: (10, 8) in the file, (3, 8) in the network",
        "linear2.b  not copied: (10,) in the file, (3,) in the network",
        "linear3.W  not in the file",
        "linear3.b  not in the file",
        "8 of the network's 12 arrays were copied from net.safetensors",
    ]
    part = chain().up_to("conv1").compare(file)
    assert "linear2.b  not in the network" in str(part)
    assert "2 of the network's 2 arrays match" in str(part)
    assert "<td" in part._repr_html_() and "not in the network" in part._repr_html_()


def test_strict_loading_stays_as_it_was(file):
    net = other()
    with untouched(net):
        for options in ({}, {"architecture": False}, {"strict": True}):
            with pytest.raises(ValueError, match="load: expected"):
                net.load(file, **options)
        with pytest.raises(ValueError, match="strict"):
            net.load(file, strict=0)
    same = chain()
    assert same.load(file) is same and values(same)["epochs"] == 2


def test_a_damaged_file_changes_nothing(file):
    content = file.read_bytes()
    file.write_bytes(content[:len(content) - 20])
    net = other()
    with untouched(net), pytest.raises(ValueError, match="load: expected a complete"):
        net.load(file, strict=False)


def test_the_dtype_of_the_file_may_differ(file):
    net = chain(dtype="float64")
    assert net.load(file, strict=False).complete
    np.testing.assert_array_equal(net.arrays["conv1.W"].data, trained().arrays["conv1.W"].data)
