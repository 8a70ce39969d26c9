"""Errors name what the user wrote, not internals, in one line: who, expected, received."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from nets import blobs, same, small, values

import xpnet as xn
from xpnet import cli
from xpnet.backends.arguments import LONGEST, nearest, shown
from xpnet.data import mnist
from xpnet.hints import METHODS
from xpnet.layer import Layer
from xpnet.optim import OPTIMIZERS, get_optimizer

QUIET: dict[str, Any] = {"loss": "cross_entropy", "verbose": False}
X, Y = blobs(12)


def refused(call, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


def sequential(*layers: Layer) -> xn.Sequential:
    return xn.Sequential(layers, input_shape=(2,), backend="numpy")


# --- layers and losses of the user ----------------------------------------------------------------


class Double(Layer):
    """A correct layer. The tests below break it."""

    kind = "double"

    def build(self, in_shape):
        return in_shape

    def forward(self, x, mode="predict"):
        self.remember(mode)
        return 2 * x

    def backward(self, dy, accumulate=False):
        self.recall()
        return 2 * dy


class NoSuper(Double):
    def __init__(self):
        self.factor = 2


class WrongShape(Double):
    def forward(self, x, mode="predict"):
        return super().forward(x, mode)[:1]


class NoArray(Double):
    def forward(self, x, mode="predict"):
        return None


class WrongGradient(Double):
    def backward(self, dy, accumulate=False):
        return super().backward(dy)[:, :1].T


class TooManyGradients(Double):
    def backward(self, dy, accumulate=False):
        return super().backward(dy), dy


class NoShape(Double):
    def build(self, in_shape):
        return in_shape[0]


def test_a_users_layer_works():
    net = sequential(xn.Linear(4), Double(), xn.Linear(3))
    net.fit(X, Y, optimizer="sgd", **QUIET)
    assert net.predict(X).shape == (12, 3)


def test_a_layer_without_super_init():
    text = ("NoSuper: expected its __init__ to call super().__init__(name=name). Received: a layer "
            "that did not call it.")
    refused(lambda: NoSuper()(xn.Input((2,))), TypeError, text)
    refused(lambda: sequential(NoSuper()), TypeError, text)
    refused(lambda: NoSuper().initialize((2,)), TypeError, text)


def test_a_layer_whose_output_has_another_shape_than_build_said():
    for layer, received in ((WrongShape, r"shape \(1, 12\)"), (NoArray, "NoneType")):
        net = sequential(xn.Linear(4), layer(), xn.Linear(3))
        text = (rf"{layer.__name__} 'double1': expected forward to return an array of shape \(4, "
                rf"N\), as build said. "
                f"Received: {received}\\.")
        for call in (lambda net=net: net(X), lambda net=net: net.predict(X),
                     lambda net=net: net.fit(X, Y, optimizer="sgd", **QUIET)):
            with pytest.raises(ValueError, match=f"^{text}$"):
                call()


def test_gradients_of_another_shape_or_number():
    for layer, text in ((WrongGradient, r"expected backward to return an array of its input's "
                                        r"shape, \(4, N\). Received: shape \(1, 4\)\."),
                        (TooManyGradients, r"expected backward to return a gradient for each of 1 "
                                           r"inputs. Received: 2\.")):
        net = sequential(xn.Linear(4), layer(), xn.Linear(3))
        with pytest.raises(ValueError, match=f"^{layer.__name__} 'double1': {text}$"):
            net.fit(X, Y, optimizer="sgd", **QUIET)


def test_a_build_that_returns_no_shape():
    refused(lambda: sequential(NoShape()), ValueError,
            "NoShape 'double1': expected build to return the shape of one output sample, e.g. (8, "
            "26, 26). Received: 2.")


@pytest.mark.parametrize("result, received", [
    (lambda y: 0.5, "float"), (lambda y: (0.5, 0.5), "['float', 'float']"),
    (lambda y: (y.sum(), y[:1]), "[(), (1, 12)]"),
    (lambda y: (y.sum(), y, y), "[(), (3, 12), (3, 12)]"), (lambda y: None, "NoneType")])
def test_a_loss_that_does_not_return_a_pair(result, received):
    class Own(xn.MeanSquaredError):
        def __call__(self, backend, y, target):
            return result(y)

    net, text = (small(), (f"Own: expected __call__ to return a pair, the loss and its gradient of "
                           f"shape (3, 12). Received: {received}."))
    target = np.eye(3)[Y]
    refused(lambda: net.fit(X, target, loss=Own(), optimizer="sgd", verbose=False), TypeError, text)
    refused(lambda: net.evaluate(X, target, loss=Own()), TypeError, text)


# --- arguments ------------------------------------------------------------------------------------


def test_a_dict_of_class_weights():
    refused(lambda: xn.CrossEntropy(weight={0: 1.0, 1: 2.0}), ValueError,
            "CrossEntropy: expected weight to be a number, 0 or larger, for each class. Received: "
            "weight={0: 1.0, 1: 2.0}.")


def test_labels_that_are_names():
    names = np.array(["cat", "dog", "cow"])[Y]
    for labels in (names, names.tolist(), names.astype(object)):
        with pytest.raises(TypeError,
                           match=r"^CrossEntropy: targets: expected real numbers\. Received: an "
                                 r"array of dtype \S+; classes, y = np\.unique\(names, "
                                 r"return_inverse=True\) turns names into numbers\.$"):
            small().fit(X, labels, optimizer="sgd", **QUIET)
    classes, y = np.unique(names, return_inverse=True)
    small().fit(X, y, optimizer="sgd", **QUIET)  # the remedy in the message works
    with pytest.raises(TypeError, match="object.$"):  # and is not given for other arrays
        small().fit(X, Y.astype(object), optimizer="sgd", **QUIET)


@pytest.mark.parametrize("value", [3, 0.5, b"folder", ["folder"], True], ids=repr)
def test_a_folder_that_is_not_a_name(value):
    refused(lambda: mnist(value), TypeError,
            f"mnist: expected the name of a file. Received: {type(value).__name__}.")


def test_a_class_in_place_of_a_layer():
    refused(lambda: sequential(xn.ReLU), TypeError,
            "Sequential: expected layers, e.g. ReLU(...). Received: the class ReLU.")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, here", [
    ("Conv2D", "its name here is Conv2d"),
    ("Dense", "its name here is Linear"),
    ("MaxPooling2D", "its name here is MaxPool2d"),
    ("BatchNormalization", "its name here is BatchNorm2d or BatchNorm1d"),
    ("relu", "its name here is ReLU"),
    ("BCELoss", "its name here is BinaryCrossEntropy"),
    ("psnr", "its name here is xpnet.metrics.psnr"),
    ("Model", "its name here is Network"), ("DataLoader", "its name here is xpnet.data.Dataset"),
    ("ModelCheckpoint", "its name here is Checkpoint"),
    ("EMA", "its name here is ExponentialMovingAverage"),
    ("MLPClassifier", "its name here is xpnet.sklearn.Classifier"),
    ("Sequentail", "perhaps Sequential is meant"),
    ("Denes", "perhaps Linear is meant"),
    ("Zebra", "docs/catalogue.md lists what there is"),
])
def test_names_of_other_libraries(name, here):
    refused(lambda: getattr(xn, name), AttributeError, f"xpnet has no {name}; {here}")


@pytest.mark.parametrize("name, here", [
    ("compile", "; here it is net.fit(..., loss=..., optimizer=...)"),
    ("state_dict", "; here it is net.arrays, all arrays by name"),
    ("predikt", "; perhaps predict is meant"), ("zebra", ""), ("_arrays", ""),
])
def test_methods_of_other_libraries(name, here):
    with pytest.raises(AttributeError, match=f"^{re.escape(f'Sequential has no {name}{here}')}$"):
        getattr(small(), name)
    assert not hasattr(small(), name)


def test_the_methods_that_hints_name_exist():
    net = small()
    for name, here in METHODS.items():
        assert not hasattr(net, name)
        for where, attribute in re.findall(r"(net|xn)\.(\w+)", here):
            assert hasattr({"net": net, "xn": xn}[where], attribute)


def test_a_property_that_raises_an_attribute_error_keeps_its_message():
    class Own(xn.Sequential):
        @property
        def wrong(self):
            return np.zeros(1).no_such_attribute

    net = Own([xn.Flatten()], input_shape=(1, 2, 2), backend="numpy")
    with pytest.raises(AttributeError, match="ndarray.* has no attribute 'no_such_attribute'"):
        print(net.wrong)


def test_names_that_python_looks_up_itself():
    for name in ("__wrapped__", "_private"):
        with pytest.raises(AttributeError, match=f"^xpnet has no {name}$"):
            xn.__getattr__(name)
    with pytest.raises(AttributeError, match="^xpnet has no cli before .*: import xpnet.cli$"):
        xn.__getattr__("cli")
    assert not hasattr(xn, "Dense")


def test_every_optimizer_has_a_name():
    named = {cls.__name__ for cls in OPTIMIZERS.values()}
    assert named == set(xn.optim.__all__) - {"Optimizer", "Regularized"}
    for name, cls in OPTIMIZERS.items():
        assert name == cls.__name__.lower() and vars(get_optimizer(name)) == vars(cls())
    own = xn.Adam(0.5)
    assert get_optimizer(own) is own


def test_an_optimizer_by_name_is_one_with_default_settings():
    nets = small(), small()
    for net, optimizer in zip(nets, ("adamw", xn.AdamW()), strict=True):
        net.fit(X, Y, optimizer=optimizer, **QUIET)
    assert same(*map(values, nets))
    for net, second in zip(
        nets, ("adamw", xn.AdamW()), strict=True
    ):  # a name starts without state, as a new object does
        net.fit(X, Y, optimizer=second, **QUIET)
    assert same(*map(values, nets))
    assert xn.Regularized("adam", l1=1e-3).optimizer.lr == xn.Adam().lr
    assert small().memory_report(4, "adam") == small().memory_report(4, xn.Adam())


def test_an_optimizer_without_a_learning_rate():
    class Own(xn.Optimizer):
        pass

    refused(lambda: small().fit(X, Y, optimizer=Own(), **QUIET), ValueError,
            "fit: expected an optimizer whose learning rate `lr` is a number. Received: "
            "Own with lr=None.")


@pytest.mark.parametrize("call, near", [
    (lambda: xn.Linear(2, activation="rleu"), "relu"),
    (lambda: small().fit(X, Y, optimizer="Adam W", **QUIET), "adamw"),
    (lambda: small().fit(X, Y, loss="crossentropy", optimizer="sgd"), "cross_entropy"),
    (lambda: small().fit(X, Y, optimizer="sgd", schedule="onecycle", **QUIET), "one_cycle"),
])
def test_the_nearest_name(call, near):
    with pytest.raises(ValueError,
                       match=f'^[^\n]+: expected [^\n]+, perhaps "{near}". Received: [^\n]+$'):
        call()


def test_nearest():
    names = "relu", "leaky_relu", "one_cycle", "resnet18"
    assert [nearest(name, names) for name in ("ReLU", "OneCycle", "resnt18", "one-cycle")] == [
        "relu", "one_cycle", "resnet18", "one_cycle"]
    assert nearest("zebra", names) is nearest(3, names) is nearest("", names) is None


def test_summary_of_a_misspelled_model(capsys):
    assert cli.main(["summary", "resnt18"]) == 2
    assert re.fullmatch(
        r"xpnet: summary: expected a file, or one of mlp, .*, perhaps \"resnet18\"\. "
        r"Received: 'resnt18', which is neither\.\n", capsys.readouterr().err)


# --- the form of errors ---------------------------------------------------------------------------


def test_a_backend_that_cannot_be_used_has_a_short_traceback():
    code = 'import sys; sys.modules["cupy"] = None; import xpnet as xn; xn.get_backend("cupy")'
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1 and len(run.stderr.splitlines()) < 10, run.stderr
    assert run.stderr.splitlines()[-1].startswith(
        "xpnet.backends.BackendError: cupy: CuPy is not installed")


class Bad:
    def __repr__(self):
        raise RuntimeError


class Long:
    def __repr__(self):
        return "x\n" * 10**5


@pytest.mark.parametrize("value, expected", [
    (1.5, "1.5"), ("no", "'no'"), (None, "None"), ([1, 2], "[1, 2]"),
    (np.array([1, 2]), "array([1, 2])"),
    (np.arange(1000), "an array of shape (1000,) and dtype int64"), (Bad(), "<Bad instance at"),
    ([10**10000], "[an int of 33220 bits]"), ("x" * 10**6, "'xxx"),
    (list(range(10**5)), "[0, 1, 2, 3, 4, 5, ...]"), (Long(), "x x"), ({"a": Long()}, "{'a': x x"),
    (np.ones((2, 2)), "array([[1., 1.], [1., 1.]])")])
def test_received_values_are_shown_in_one_line(value, expected):
    text = shown(value)
    assert text.startswith(expected) and len(text) <= LONGEST and "\n" not in text


def test_numbers_of_numpy_count_as_numbers():
    layer = xn.Conv2d(np.int8(3), (np.int64(3), 3), bias=np.True_)
    assert ((layer.filters, layer.bias) == (3, True) and type(layer.bias) is bool
            and type(layer.window.kernel[0]) is int)
    assert (xn.Dropout(np.float32(0.5)).p == 0.5
            and xn.Linear(2, activation=np.str_("relu")).activation == "relu")


@pytest.mark.parametrize("value", [2**70, 10**400], ids=["2**70", "10**400"])
def test_integers_that_are_no_index(value):
    with pytest.raises(
            ValueError,
            match=r"^Linear: expected units to be an int from 1 to 2\^63 - 1\. Received: units="):
        xn.Linear(value)
