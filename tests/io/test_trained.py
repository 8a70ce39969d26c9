"""What a network knows of its training is in its file: losses, classes, scale, history."""

from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pytest
from nets import blobs, same, small, untouched, values

import xpnet as xn
from tests.io.test_damaged_files import parts, write
from xpnet.catalogue import FAMILIES
from xpnet.data import Dataset
from xpnet.io.trained import from_json, to_json
from xpnet.trained import Trained

rng = np.random.default_rng(0)
IMAGES, LABELS = rng.integers(0, 256, (12, 1, 4, 4)).astype(np.uint8), np.arange(12) % 3
NAMES = ("cat", "dog", "frog")


def of_images(**options) -> xn.Sequential:
    return xn.Sequential([xn.Flatten(), xn.Dropout(0.2), xn.Linear(3)], input_shape=(1, 4, 4),
                         backend="numpy", **options)


def trained(**options) -> xn.Sequential:
    """Two epochs on a data set with names."""
    net = of_images()
    net.fit(Dataset(IMAGES, LABELS, classes=NAMES), epochs=2, verbose=False, **options)
    return net


def reloaded(net, path):
    net.save(path / "file")
    return xn.load(path / "file", backend="numpy")


class Own(xn.MeanSquaredError):
    """A loss that is not part of xpnet."""


def facts(net) -> tuple:
    rows = None if net.history is None else repr([
        {name: value for name, value in row.items() if not name.endswith("seconds")}
        for row in net.history.rows])
    return (net.classes, net.scale, net.trained.image_fit, repr(net.trained.losses),
            net.trained.loss_weights, rows)


def test_a_loaded_network_needs_to_be_told_nothing(tmp_path):
    net, data = trained(loss=xn.CrossEntropy(weight=[1, 2, 3], label_smoothing=0.1)), Dataset(
        IMAGES, LABELS, classes=NAMES)
    back = reloaded(net, tmp_path)
    assert facts(back) == facts(net)
    assert back.classes == NAMES and back.scale == 255 and len(back.history["loss"]) == 2
    assert repr(back.loss) == "CrossEntropy(weight=(1.0, 2.0, 3.0), label_smoothing=0.1)"
    assert back.evaluate(data) == net.evaluate(data)
    for read in ("predict_proba", "predict_samples"):
        assert np.array_equal(getattr(back, read)(data), getattr(net, read)(data))
    assert np.array_equal(back.predict_proba(data), net.predict_proba(data.scaled(IMAGES)))


def test_several_outputs(tmp_path):
    x = xn.Input((2,))
    net = xn.Network(x, {"class": xn.Linear(3)(x), "sure": xn.Sigmoid()(xn.Linear(1)(x))},
                     backend="numpy")
    assert net.loss is None and net.history is None
    X, y = blobs(12)
    targets = {"class": y, "sure": (y == 0)[:, None]}
    weights = {"class": 1, "sure": 0.25}
    net.fit(X, targets, loss={"class": xn.CrossEntropy(), "sure": xn.BinaryCrossEntropy()},
            loss_weights=weights, verbose=False)
    back = reloaded(net, tmp_path)
    assert repr(back.loss) == repr({"class": xn.CrossEntropy(), "sure": xn.BinaryCrossEntropy()})
    assert back.evaluate(X, targets) == net.evaluate(X, targets, loss=net.loss,
                                                     loss_weights=weights)
    other = {"class": 1, "sure": 2}
    assert back.evaluate(X, targets, loss_weights=other) == net.evaluate(
        X, targets, loss=net.loss, loss_weights=other) != net.evaluate(X, targets)


@pytest.mark.parametrize("loss", [item.make() for items in FAMILIES.values() for item in items
                                  if item.make and isinstance(item.make(), xn.Loss)], ids=repr)
def test_every_loss_keeps_its_arguments(loss):
    entry = json.loads(json.dumps(to_json(Trained(losses=(loss,), loss_weights=(0.5,)))))
    back = from_json(entry, [(3,)], "file")
    assert vars(back.losses[0]).keys() == vars(loss).keys() and back.loss_weights == (0.5,)
    assert type(back.losses[0]) is type(loss) and repr(back.losses[0]) == repr(loss)


def test_a_loss_of_ones_own_is_only_a_name(tmp_path):
    X, _ = blobs(12)
    net = small()
    net.fit(X, np.zeros((12, 3)), loss=Own(), verbose=False)
    for back in (reloaded(net, tmp_path), pickle.loads(pickle.dumps(net)),
                 reloaded(reloaded(net, tmp_path), tmp_path)):
        assert back.loss == "Own"
        with pytest.raises(ValueError, match=r"^evaluate: expected loss=\.\.\., because the network"
                                             r" was trained with a loss .* Own, and a file holds"):
            back.evaluate(X, np.zeros((12, 3)))
        assert back.evaluate(X, np.zeros((12, 3)), loss=Own()) == net.evaluate(X, np.zeros((12, 3)))
    assert copy.deepcopy(net).loss is net.loss
    assert copy.deepcopy(net).history is not net.history


def test_equal_trainings_give_equal_files(tmp_path):
    for name in "ab":
        trained(callbacks=[xn.Timing()]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back = xn.load(tmp_path / "a", backend="numpy")
    assert back.history.keys() == ["epoch", "loss", "accuracy", "lr"]
    back.save(tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_the_history_with_numbers_that_json_does_not_have(tmp_path):
    net = trained()
    net.history.rows.append({"epoch": 3, "loss": math.inf, "accuracy": math.nan, "lr": 0.5,
                             "": 1.0, "seconds": 1.0})
    net.history.stopped = True
    back = reloaded(net, tmp_path).history
    assert "NaN" not in parts(tmp_path / "file")[0]["__metadata__"]["xpnet"]
    assert back.rows[0]["loss"] == net.history.rows[0]["loss"] and back["epoch"] == [1, 2, 3]
    assert math.isnan(back["loss"][2]) and back.stopped and not back.interrupted
    assert repr(back) == repr(net.history) and "" not in back


def test_a_network_without_training_has_no_such_entry(tmp_path):
    small().save(tmp_path / "file")
    assert "trained" not in json.loads(parts(tmp_path / "file")[0]["__metadata__"]["xpnet"])
    back = xn.load(tmp_path / "file", backend="numpy")
    assert back.trained == Trained() and back.loss is back.history is back.classes is None


# --- into a network, and out of it ----------------------------------------------------------------

def test_net_load_takes_what_the_file_says(tmp_path):
    trained().save(tmp_path / "file")
    net = of_images()
    net.scale, net.classes = 16, NAMES[::-1]
    net.load(tmp_path / "file")
    assert facts(net) == facts(xn.load(tmp_path / "file", backend="numpy"))
    of_images(seed=1).save(tmp_path / "old")
    net.load(tmp_path / "old")
    assert (net.classes, net.scale, net.history) == (NAMES, 255, None) and net.loss is not None


@pytest.mark.parametrize("options", [{"strict": False}, {"architecture": False}])
def test_the_weights_alone(options, tmp_path):
    trained().save(tmp_path / "file")
    net = of_images()
    net.load(tmp_path / "file", **options)
    assert net.trained == Trained() and np.array_equal(
        net.parameters, xn.load(tmp_path / "file", backend="numpy").parameters)


def test_what_other_networks_keep():
    net = trained()
    for new in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.folded()):
        assert facts(new) == facts(net)
        assert new.evaluate(IMAGES / 255, LABELS) == net.evaluate(IMAGES / 255, LABELS)
    for new in (net.up_to("flatten1"), net.with_head([xn.Linear(2)])):
        assert new.trained == Trained(scale=255.0)
    part = trained()
    whole = xn.Sequential([part, xn.ReLU()], input_shape=(1, 4, 4), backend="numpy")
    assert whole.trained == Trained() and facts(part) == facts(net)
    assert net.to(xn.Backend()).classes == NAMES


def test_checkpoints_hold_it_too(tmp_path):
    net = trained(checkpoint=xn.Checkpoint(tmp_path, best="loss"))
    for name, epochs in (("best.safetensors", 2), ("step-000000001.safetensors", 1)):
        back = xn.load(tmp_path / name, backend="numpy")
        assert (back.classes, back.scale, repr(back.loss)) == (NAMES, 255, "CrossEntropy()")
        assert back.history["loss"] == net.history["loss"][:epochs]


# --- hostile files --------------------------------------------------------------------------------

DEEP = json.loads("[" * 200 + "]" * 200)
HOSTILE = [
    ("", 3, "trained to be a dict"), ("", [], "trained to be a dict"),
    *(("scale", value, "a scale above 0") for value in (
        0, -1, math.nan, math.inf, "255", [255], True, 10**400)),
    *(("image_fit", value, "image_fit to be one of crop, stretch") for value in (
        "pad", 3, ["crop"], {}, "x" * 10**6)),
    *(("classes", value, "classes that fit the outputs") for value in (
        ["a", "b"], ["a"] * 3, [1, 2, 3], "abc", {}, 3, ["a", "b", None], ["a", "b", "x" * 10**6],
        ["a", "b", "\x1b[2J"], ["a", "b", "c\n"], [["a"], ["b"], ["c"]], ["a", "b", ""],
        list(map(str, range(10**5))), DEEP)),
    *(("losses", value, "losses and loss_weights of 1 outputs") for value in (
        3, "x", {}, [], [{"type": "CrossEntropy", "config": {}}] * 2)),
    *(("losses", [value], "losses that can be made") for value in (
        3, None, {}, {"type": 3}, {"type": ["CrossEntropy"]}, {"type": "x" * 10**6},
        {"type": "CrossEntropy", "config": 3}, {"type": "CrossEntropy", "config": {"self": 3}},
        {"type": "CrossEntropy", "config": {"surprise": 3}},
        {"type": "CrossEntropy", "config": {"weight": DEEP}},
        {"type": "CrossEntropy", "config": {"weight": [math.nan]}},
        {"type": "Huber", "config": {"delta": "x" * 10**6}})),
    *(("loss_weights", value, "losses and loss_weights of 1 outputs") for value in (
        3, [], [1, 1], [-1], [math.nan], ["1"], [True], None)),
    *(("history", value, "a history of rows of numbers") for value in (
        3, [], {}, {"rows": []}, {"rows": 3} | dict.fromkeys(("interrupted", "stopped", "diverged"),
                                                               False))),
    *(("history", {"rows": value, "interrupted": False, "stopped": False, "diverged": False},
       "a history of rows of numbers") for value in (
        3, [3], [{"loss": "x"}], [{"loss": math.nan}], [{"loss": 10**400}], [{"loss": True}],
        [{"loss": [1]}], [{"": 1}], [{"x" * 10**6: 1}], [{"a\x00": 1}], [{"loss": DEEP}])),
    ("history", {"rows": [], "interrupted": 0, "stopped": False, "diverged": False},
     "a history of rows of numbers"),
]


@pytest.mark.parametrize("key, value, message", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_entries_are_refused_in_one_line(key, value, message, tmp_path):
    net, path = trained(), tmp_path / "file"
    net.save(path)
    header, data = parts(path)
    about = json.loads(header["__metadata__"]["xpnet"])
    if key:
        about["trained"][key] = value
    else:
        about["trained"] = value
    header["__metadata__"]["xpnet"] = json.dumps(about)
    write(path, header, data)
    before = facts(net)
    for read in (lambda: xn.load(path, backend="numpy"), lambda: net.load(path)):
        with untouched(net), pytest.raises(ValueError, match=f"^load: expected {message}") as error:
            read()
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        assert len(str(error.value)) < 1000 and facts(net) == before


@pytest.mark.parametrize("name", ["Missing", "Loss", "os.system", "__import__", "Conv2d", "LOSSES"])
def test_a_loss_that_is_none_of_the_library_is_a_name(name, tmp_path):
    """Nothing is imported or called; a loss of a later xpnet is such a name, too."""
    entry = {"losses": [{"type": name, "config": {"a": 1}}], "loss_weights": [1.0]}
    assert from_json(entry, [(3,)], "file").losses == (name,)


@pytest.mark.parametrize("outputs, count", [(1, 2), (2, 1), (2, 3)])
def test_losses_for_another_number_of_outputs(outputs, count):
    losses = [{"type": "CrossEntropy", "config": {}}] * count
    entry = {"losses": losses, "loss_weights": [1] * count}
    with pytest.raises(ValueError, match=f"expected losses and loss_weights of {outputs} outputs"):
        from_json(entry, [(3,)] * outputs, "file")


def test_entries_of_later_versions_are_passed_over():
    assert from_json({"surprise": 3, "scale": 2}, [(3,)], "file") == Trained(scale=2.0)


def test_a_copy_trains_on_like_the_original():
    net = trained()
    new = copy.deepcopy(net)
    for one in (net, new):
        one.fit(IMAGES / 255, LABELS, loss="cross_entropy", verbose=False)
    assert same(values(new), values(net)) and facts(new) == facts(net)
