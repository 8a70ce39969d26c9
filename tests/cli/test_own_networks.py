"""The command with Python files that have networks, and with augmentations by name."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import xpnet as xn
from xpnet.augment.mixing import Mixing
from xpnet.cli import main, networks
from xpnet.cli.augmentations import AUGMENTATIONS, augmentations, form

# --- networks -------------------------------------------------------------------------------------

@pytest.mark.parametrize("code, message", [
    ("x = 1", r"train: expected a function build\(input_shape, classes\) in net.py. Received: "
              "none."),
    ("build = 3", r"train: expected a function build\(input_shape, classes\) .* Received: 3."),
    ("def build(width): ...", "train: expected build in net.py to take some of input_shape, "
                              "classes, backend, seed, and other parameters with a default alone. "
                              "Received: width."),
    ("def build(classes, /): ...", "train: .* Received: classes."),
    ("def build(): ...", "train: expected build in net.py to return a Network. Received: None."),
    ("def build(classes): ...", "train: expected build in net.py to take seed, because of --seed"),
])
def test_wrong_python_files(code, message, said):
    Path("net.py").write_text(code)
    more = ["--seed", "1"] if "to take seed" in message else []
    assert main(["train", "--model", "net.py", "--backend", "numpy", *more]) == 2
    assert re.match(f"xpnet: {message}", said())


@pytest.mark.parametrize("code, line, message", [
    ("def build(:", 'File "[^"]*net.py", line 1', "SyntaxError"),
    ("import xpnet as xn\ndef build(classes):\n    xn.Linear(0)\n", "line 3, in build",
     "ValueError"),
    ("1 / 0", "line 1, in <module>", "ZeroDivisionError"),
])
def test_an_error_in_a_python_file_has_a_traceback_from_there(code, line, message, capsys):
    Path("net.py").write_text(code)
    assert main(["train", "--model", "net.py", "--backend", "numpy"]) == 2
    err = capsys.readouterr().err
    first = err.splitlines()[1 if err.startswith("Traceback") else 0]
    assert re.search(line, first) and "net.py" in first
    assert err.endswith(f"\nxpnet: train: expected net.py to run. Received: {message}, see above."
                        "\n")


def test_what_build_gets():
    def network(function, seed=None):
        return networks.build("train", "net.py", function, input_shape=(1, 4, 4), classes=3,
                              backend="numpy", seed=seed)

    def some(classes, units=7, *more):
        return xn.Sequential([xn.Flatten(), xn.Linear(units), xn.Linear(classes)],
                             input_shape=(1, 4, 4))

    def everything(**given):
        assert given == {"input_shape": (1, 4, 4), "classes": 3, "backend": "numpy", "seed": 5}
        return some(given["classes"])

    net = network(some)
    assert net.backend.name == "numpy" and net.output.shape == (3,) and net.layers[1].units == 7
    assert network(everything, 5).output.shape == (3,)


@pytest.mark.parametrize("name, message", [
    ("nothing.py", "Received: nothing.py, which does not exist."), (".", "one of mlp"),
    ("resnet19", '.*perhaps "resnet18". Received: .resnet19.')])
def test_no_such_network(name, message, said):
    assert main(["train", "--model", name]) == 2
    assert re.match(f"xpnet: train: expected --model to be a Python file.*{message}", said())


# --- augmentations --------------------------------------------------------------------------------

def test_every_augmentation_has_a_name():
    classes = {kind for kind in vars(xn.augment).values() if inspect.isclass(kind)
               and issubclass(kind, xn.Augmentation)} - {xn.Augmentation, xn.augment.RandomAffine}
    made = augmentations("train", list(AUGMENTATIONS))
    assert {type(one) for one in made} == classes and Mixing not in classes
    # What the help shows is what the name alone gives.
    assert list(map(repr, augmentations("train", map(form, AUGMENTATIONS)))) == list(map(repr,
                                                                                         made))


def test_numbers_of_augmentations():
    assert repr(augmentations("train", ["crop:2", "scale:0.5:2", "color:0.1:0.02"])) == repr(
        [xn.RandomCrop(2), xn.RandomScale(0.5, 2), xn.ColorJitter(0.1, hue=0.02)])
