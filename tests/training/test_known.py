"""What `fit` keeps of a data set, and what evaluation and prediction compare with it."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet as xn
from xpnet.data import Dataset

rng = np.random.default_rng(0)
IMAGES, LABELS = rng.integers(0, 256, (12, 1, 4, 4)).astype(np.uint8), np.arange(12) % 3
NAMES = ("cat", "dog", "frog")
DATA = Dataset(IMAGES, LABELS, classes=NAMES)


def network(outputs: int = 3) -> xn.Sequential:
    return xn.Sequential([xn.Flatten(), xn.Linear(outputs)], input_shape=(1, 4, 4), backend="numpy")


def fitted(data: Dataset = DATA, net: xn.Sequential | None = None, **options) -> xn.Sequential:
    net = network() if net is None else net
    net.fit(data, verbose=False, **options)
    return net


def test_the_history_is_the_one_that_fit_returns():
    net = network()
    first = net.fit(DATA, epochs=2, verbose=False)
    assert net.history is first and net.classes == NAMES and net.scale == 255
    assert net.fit(IMAGES / 255, LABELS, loss="cross_entropy", verbose=False) is net.history
    assert len(net.history.rows) == 1 and net.classes == NAMES and net.scale == 255


def test_a_fit_that_trains_nothing_changes_nothing(tmp_path):
    class Fails(xn.Callback):
        def __init__(self, moment):
            self.moment = moment

        def on_train_begin(self, run):
            if self.moment == "train":
                raise RuntimeError("at the beginning")

        def on_batch_end(self, run):
            raise RuntimeError("in a batch")

    net = fitted()
    before = net.trained
    with pytest.raises(RuntimeError, match="at the beginning"):
        fitted(Dataset(IMAGES, LABELS, scale=16), net, callbacks=[Fails("train")])
    assert net.trained is before
    with pytest.raises(RuntimeError, match="in a batch"):
        fitted(Dataset(IMAGES, LABELS, scale=16), net, callbacks=[Fails("batch")])
    assert net.scale == 16 and net.history.rows == []


def test_a_validation_has_the_same_classes_and_scale():
    swapped = Dataset(IMAGES, LABELS, classes=NAMES[::-1])
    with pytest.raises(ValueError, match="^fit: validation: expected a data set with the classes of"
                                         " the network.*which are the same in another order"):
        network().fit(DATA, validation=swapped, verbose=False)
    with pytest.raises(ValueError, match="^fit: validation: expected a data set with scale=255"):
        network().fit(DATA, validation=Dataset(IMAGES, LABELS, scale=16), verbose=False)


USES = pytest.mark.parametrize("use", ["evaluate", "predict", "predict_proba", "predict_samples"])


@USES
@pytest.mark.parametrize("names, what", [
    (NAMES[::-1], "the same in another order"), (("cat", "dog", "cow"), "others"),
    (("cat", "dog", "frog", "cow"), "others")])
def test_other_classes_are_refused(use, names, what):
    with pytest.raises(ValueError, match=f"^{use}: expected a data set with the classes of the "
                       rf"network, \('cat', 'dog', 'frog'\). Received: .*, which are {what}."):
        getattr(fitted(), use)(Dataset(IMAGES, LABELS, classes=names))


@USES
@pytest.mark.parametrize("scale, message", [(16, "scale=16"), (None, "scale=None")])
def test_another_scale_is_refused(use, scale, message):
    net = fitted()
    with pytest.raises(ValueError, match=f"^{use}: expected a data set with scale=255, as in the "
                                         f"training of the network. Received: {message}"):
        getattr(net, use)(Dataset(IMAGES, LABELS, classes=NAMES, scale=scale))
    net.scale = None
    getattr(net, use)(Dataset(IMAGES, LABELS, classes=NAMES, scale=scale))


def test_what_one_of_them_does_not_know_is_not_compared():
    net, expected = fitted(), fitted().evaluate(DATA)
    assert net.evaluate(Dataset(IMAGES / np.float32(255), LABELS)) == expected
    assert net.evaluate(Dataset(IMAGES, LABELS)) == expected            # numbers are no names
    assert net.evaluate(Dataset(IMAGES[:2], LABELS[:2]))["loss"] > 0
    net.classes = None
    assert net.evaluate(Dataset(IMAGES, LABELS, classes=NAMES[::-1]))["loss"] > 0


def test_whole_numbers_without_a_scale_enter_as_they_are():
    net = fitted(Dataset(IMAGES, LABELS, scale=None))
    assert net.scale == 1 and net.classes == ("0", "1", "2")
    with pytest.raises(ValueError, match="expected a data set with scale=1, .* scale=255"):
        net.evaluate(DATA)
    assert fitted(Dataset(IMAGES / np.float32(255), LABELS)).scale is None


def test_names_replace_numbers_and_numbers_do_not_replace_names():
    net = fitted(Dataset(IMAGES, LABELS))
    assert net.classes == ("0", "1", "2")
    assert fitted(DATA, net).classes == NAMES
    assert fitted(Dataset(IMAGES, LABELS), net).classes == NAMES
    assert fitted(Dataset(IMAGES, LABELS), network(9)).classes is None      # labels are below 9
    assert fitted(Dataset(IMAGES, LABELS, classes=NAMES[::-1]), net).classes == NAMES[::-1]


def test_names_that_do_not_fit_the_outputs():
    with pytest.raises(ValueError, match=r"^fit: expected 9 names of classes, for an output of "
                                         r"shape \(9,\). Received: 3."):
        fitted(DATA, network(9))
    pair = Dataset(IMAGES, LABELS > 0, classes=("no", "yes"))
    assert fitted(pair, network(1), loss="binary_cross_entropy").classes == ("no", "yes")
    with pytest.raises(ValueError, match=r"expected 1 or 2 names of classes"):
        fitted(DATA, network(1), loss="mean_squared_error")
    numbers = fitted(Dataset(IMAGES, LABELS), network(1), loss="mean_squared_error")
    assert numbers.classes is None and numbers.scale == 255


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a", "b"], [1, 2, 3], "abc", 3, ["a", "b", ""],
                                   ["a", "b", "c\x1b[2J"], ["a", "b", "c" * 1001]])
def test_classes_that_cannot_be_assigned(names):
    net = network()
    with pytest.raises(ValueError, match="^Network: expected .*names"):
        net.classes = names
    assert net.classes is None


def test_assignments():
    net = network()
    net.classes, net.scale = np.array(["a", "b", "c"]), 16
    assert net.classes == ("a", "b", "c") and net.scale == 16.0
    net.classes = net.scale = None
    assert net.classes is net.scale is None
    for scale in (0, -1, "255", np.nan, True):
        with pytest.raises(ValueError, match="^Network: expected scale to be a number above 0"):
            net.scale = scale
    for name in ("history", "loss"):
        with pytest.raises(AttributeError, match=f"^Network: expected .*net.fit.*net.{name}"):
            setattr(net, name, None)


def test_several_outputs_have_no_names():
    x = xn.Input((2,))
    net = xn.Network(x, [xn.Linear(2)(x), xn.Linear(2)(x)], backend="numpy")
    with pytest.raises(ValueError, match="^Network: expected a network with one output, for names"):
        net.classes = ["a", "b"]


def test_a_subclass_may_assign_names_after_the_network_is_made():
    class Late(xn.Sequential):
        def __init__(self, names):
            super().__init__([xn.Linear(len(names))], input_shape=(2,), backend="numpy")
            self.classes = names

    class Early(xn.Sequential):
        def __init__(self, names):
            self.classes = names
            super().__init__([xn.Linear(len(names))], input_shape=(2,), backend="numpy")

    assert Late(["a", "b"]).classes == ("a", "b")
    with pytest.raises(AttributeError, match=r"expected super\(\).__init__\(\) before"):
        Early(["a", "b"])


def test_the_networks_of_the_literature_know_their_names():
    net = xn.models.numpy_cnn((1, 28, 28), classes=NAMES, backend="numpy")
    assert net.classes == NAMES and net.output.shape == (3,)
    assert xn.models.numpy_cnn((1, 28, 28), classes=3, backend="numpy").classes is None
