"""The command with images, networks and augmentations of users."""

from __future__ import annotations

import csv
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import xpnet as xn
from xpnet.augment.mixing import Mixing
from xpnet.cli import main, networks, sources, train
from xpnet.cli.augmentations import AUGMENTATIONS, augmentations, form
from xpnet.cli.options import parser

QUICK = ["--backend", "numpy", "--batch-size", "16", "--schedule", "constant", "--lr", "0.01",
         "--save", "net.safetensors"]


def said(capsys) -> str:
    """The last line of stderr."""
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(autouse=True)
def imports_as_before(monkeypatch):
    """The folders of Python files, which stay in the path as long as the command runs."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in (networks.MODULE, "sizes_of_mine"):
        sys.modules.pop(name, None)


# --- data -----------------------------------------------------------------------------------------

def test_a_folder_of_images(photos, capsys):
    """It is trained, a fifth is kept for validation, and evaluate finds the same fifth."""
    assert main(["train", "--data", "photos", "--size", "8", "--epochs", "6", *QUICK,
                 "--augment", "crop:1", "flip", "--class-weight", "balanced"]) == 0
    out = capsys.readouterr().out
    assert "(3, 8, 8) uint8; 3 classes (daisy, poppy, thistle); validation 6>" in out
    assert "evaluate net.safetensors --data photos" in out
    last = out.splitlines()[-1]
    assert re.fullmatch(r"validation accuracy: \d+\.\d\d%", last)

    assert main(["evaluate", "net.safetensors", "--data", "photos", "--validation", "0.2",
                 "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("6 validation images of photos\n") and out.splitlines()[-1] == last
    assert [line.split()[::4] for line in out.splitlines() if line.startswith(("dai", "pop", "th"))
            ] == [["daisy", "2"], ["poppy", "2"], ["thistle", "2"]]

    assert main(["evaluate", "net.safetensors", "--data", "photos", "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("30 images of photos\n") and "\naccuracy: " in out


def test_parts_of_a_folder(photos, capsys):
    """A part for validation is used as it is; the last line is about the part for testing."""
    for part in ("val", "test"):
        for name in ("daisy", "poppy", "thistle"):
            Path("parts", part, name).mkdir(parents=True)
            for number in range(2):
                (photos / name / f"{number + 2 * (part == 'test')}.png").rename(
                    Path("parts", part, name, f"{number}.png"))
    photos.rename(Path("parts", "train"))
    assert main(["train", "--data", "parts", "--size", "8x6", "--channels", "1", "--epochs", "1",
                 "--until-accuracy", "100", *QUICK]) in (0, 1)
    out = capsys.readouterr().out
    assert "18 samples (1, 8, 6) uint8" in out and "*test* images" not in out
    assert re.fullmatch(r"validation accuracy: \S+%\ntest accuracy: \S+%",
                        "\n".join(out.splitlines()[-2:]))


def test_a_csv_file_a_network_of_a_file_and_a_log(csv_file, network, capsys):
    more = ["--data", str(csv_file), "--size", "4x6", "--model", str(network), *QUICK]
    assert main(["train", *more, "--epochs", "8", "--seed", "1", "--log", "log.csv",
                 "--until-accuracy", "100"]) in (0, 1)
    out = capsys.readouterr().out
    assert "48 samples (1, 4, 6) uint8; 3 classes (0, 1, 2); validation 12>" in out
    assert f"training {24 * 16 + 16 + 16 * 3 + 3} parameters on 48 samples" in out
    accuracy = float(re.search(r"^validation accuracy: (\S+)%$", out, re.MULTILINE)[1])
    rows = list(csv.DictReader(Path("log.csv").read_text(encoding="utf-8").splitlines()))
    assert accuracy > 90 and 100 * float(rows[-1]["val_accuracy"]) == pytest.approx(accuracy, 1e-4)

    assert main(["summary", "net.safetensors", "--model", str(network)]) == 0
    assert "Twice" in capsys.readouterr().out
    assert main(["evaluate", "net.safetensors", "--model", str(network), "--data", str(csv_file),
                 "--validation", "0.2", "--seed", "1", "--backend", "numpy"]) == 0
    assert f"validation accuracy: {accuracy:.2f}%" in capsys.readouterr().out
    assert main(["summary", "net.safetensors"]) == 2
    assert "xpnet has no layer Twice" in said(capsys)

    assert main(["train", *more, "--epochs", "2", "--validation", "0", "--log", "log.jsonl",
                 "--tensorboard", "runs"]) == 0
    assert capsys.readouterr().out.endswith("no accuracy: all images were used for training\n")
    lines = Path("log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert len(list(Path("runs").rglob("events.out.*"))) == 1


def test_defaults_depend_on_the_data():
    def recipe(images, *arguments):
        return train._recipe(parser().parse_args(["train", *arguments]), images)

    assert recipe(60_000, "--data", "mnist") == train.RECIPES["mnist"]
    assert recipe(9_999, "--data", "photos") == recipe(1437) == train.RECIPES["digits"]
    assert recipe(10_000, "--data", "photos") == train.OTHERS
    assert recipe(10, "--data", "photos", "--epochs", "3", "--batch-size", "2",
                  "--weight-decay", "0") == train.Recipe(3, 2, 0)


def test_options_reach_fit(photos, capsys, monkeypatch):
    def fit(net, data, **options):
        passed.update(options, net=net, data=data)
        raise KeyboardInterrupt

    passed = {}
    monkeypatch.setattr(xn.Network, "fit", fit)
    assert main(["train", "--data", "photos", "--model", "resnet18", "--validation", "0.3",
                 "--seed", "7", "--epochs", "3", "--batch-size", "4", "--lr", "0.5",
                 "--weight-decay", "0.25", "--schedule", "cosine", "--augment", "crop:2", "grey",
                 "--class-weight", "balanced", "--checkpoint", "a", "--resume", "b", "--log",
                 "log.csv", "--tensorboard", "runs", "--backend", "numpy"]) == 130
    net, data, optimizer = passed["net"], passed["data"], passed["optimizer"]
    assert (net.seed, net.output.shape, net.backend.name) == (7, (3,), "numpy")
    expected = xn.data.image_folder(photos, 32).split(0.3, seed=7)
    assert data.fingerprint() == expected.fingerprint() and len(data.validation) == 9
    assert (type(optimizer), optimizer.lr, optimizer.weight_decay) == (xn.AdamW, 0.5, 0.25)
    assert repr(passed["augment"]) == repr([xn.RandomCrop(2), xn.RandomGrey()])
    assert [type(one) for one in passed["callbacks"]] == [xn.CSVLog, xn.TensorBoard]
    assert {name: passed[name] for name in ("epochs", "batch_size", "schedule", "class_weight",
                                            "checkpoint", "resume", "validation", "until")} == {
        "epochs": 3, "batch_size": 4, "schedule": "cosine", "class_weight": "balanced",
        "checkpoint": "a", "resume": "b", "validation": None, "until": None}
    assert "interrupted" in capsys.readouterr().err


def test_well_known_data_sets(monkeypatch):
    """Each name calls the function of that name, with its folder and its variant."""
    for name in ("digits", "mnist", "fashion_mnist", "emnist", "cifar10", "cifar100"):
        monkeypatch.setattr(xn.data, name, lambda name=name, **more: (name, more))

    def read(*arguments):
        return sources.dataset("train", parser().parse_args(["train", *arguments]))

    assert read() == ("digits", {})
    for name in sources.WELL_KNOWN[1:]:
        assert read("--data", name) == (name, {"data_dir": None})
    assert read("--data", "mnist", "--data-dir", "x") == ("mnist", {"data_dir": "x"})
    assert read("--data", "emnist:letters") == ("emnist", {"split": "letters", "data_dir": None})
    assert read("--data", "cifar100:coarse") == ("cifar100", {"labels": "coarse",
                                                              "data_dir": None})


def test_every_data_set_has_a_name():
    functions = {name for name in xn.data.__all__ if inspect.isfunction(getattr(xn.data, name))}
    others = {name for name in functions if not {"data_dir", "seed"} & {
        *inspect.signature(getattr(xn.data, name)).parameters}}
    assert functions - others - {"csv_images", "image_folder"} == {*sources.WELL_KNOWN}


@pytest.mark.parametrize("arguments, message", [
    (["--data", "cifr10"], 'train: expected --data to be a folder of image files, .*cifar100, '
                           'perhaps "cifar10". Received: .cifr10., which is neither.'),
    (["--data", "empty"], "image_folder: expected a folder for each of two classes or more in "
                          "empty. Received: 0."),
    (["--data", "no_labels.csv"], "csv_images 'no_labels.csv': expected a column 'label'"),
    (["--size", "8"], "train: expected --size with image files or a CSV file alone. Received: "
                      "--data digits."),
    (["--data", "digits:odd"], "train: expected --data digits without a variant"),
    (["--data", "emnist:greek"], "emnist: expected split to be "),
    (["--data-dir", "x"], "train: expected --data-dir with a data set of files"),
    (["--data", "empty", "--data-dir", "x"], "train: expected --data-dir with one of mnist, "),
    (["--data", "no_labels.csv", "--channels", "3"], "train: expected --size with --channels"),
    (["--validation", "1"], "train: expected --validation to be a number from 0 to 1, below 1"),
    (["--augment", "flipp"], 'train: expected --augment with some of crop:4, flip, .*, perhaps '
                             '"flip". Received: .flipp.'),
    (["--augment", "crop:1:2"], "train: expected --augment crop:4. Received: 'crop:1:2'."),
    (["--augment", "crop:much"], "train: expected --augment crop:4. Received: 'crop:much'."),
    (["--augment", "crop:-1"], "RandomCrop: expected padding to be an int, 0 or larger"),
    (["--log", "log.txt"], r"--log: expected a file .csv or .jsonl. Received: log.txt"),
    (["--save", "net.onnx"], "--save: expected a name that ends with .safetensors. Received: "
                             "net.onnx, whose suffix means ONNX"),
])
def test_wrong_options(arguments, message, capsys):
    Path("empty").mkdir()
    Path("no_labels.csv").write_text("a,b\n1,2\n")
    assert main(["train", *arguments, "--backend", "numpy"]) == 2
    assert re.match(f"xpnet: {message}", said(capsys))
    assert sorted(path.name for path in Path().iterdir()) == ["empty", "no_labels.csv"]


def test_a_network_that_does_not_fit_the_data(photos, csv_file, capsys):
    xn.Sequential([xn.Flatten(), xn.Linear(10)], input_shape=(1, 5, 5),
                  backend="numpy").save("net.safetensors")
    assert main(["evaluate", "net.safetensors"]) == 2
    assert re.match(r"xpnet: evaluate: expected --data with samples of shape \(1, 5, 5\), for "
                    r"net.safetensors. Received: <digits, test: 360 samples \(1, 8, 8\)",
                    said(capsys))
    assert main(["evaluate", "net.safetensors", "--data", str(csv_file)]) == 2
    assert "expected columns for the pixels of images of shape (1, 5, 5)" in said(capsys)
    xn.Sequential([xn.Linear(3)], input_shape=(75,), backend="numpy").save("net.safetensors")
    assert main(["evaluate", "net.safetensors", "--data", "photos"]) == 2
    assert said(capsys) == ("xpnet: evaluate: expected a network for images (C, H, W). Received: "
                            "inputs of shape (75,).")


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
def test_wrong_python_files(code, message, capsys):
    Path("net.py").write_text(code)
    more = ["--seed", "1"] if "to take seed" in message else []
    assert main(["train", "--model", "net.py", "--backend", "numpy", *more]) == 2
    assert re.match(f"xpnet: {message}", said(capsys))


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
def test_no_such_network(name, message, capsys):
    assert main(["train", "--model", name]) == 2
    assert re.match(f"xpnet: train: expected --model to be a Python file.*{message}", said(capsys))


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


# --- what a file remembers ------------------------------------------------------------------------

def test_evaluation_uses_what_was_saved(photos, capsys):
    """The loss, the names of the classes, and how the images were made to fit."""
    data = xn.data.image_folder(photos, 8, fit="stretch")
    net = xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=(3, 8, 8), backend="numpy")
    net.fit(data, loss=xn.CrossEntropy(label_smoothing=0.5), epochs=1, verbose=False)
    net.save("net.safetensors")
    evaluate = ["evaluate", "net.safetensors", "--backend", "numpy", "--data"]
    assert main([*evaluate, "photos"]) == 0
    out = capsys.readouterr().out
    assert f"\nloss: {net.evaluate(data)['loss']:.4f}\n" in out
    cropped = xn.data.image_folder(photos, 8)
    assert abs(net.evaluate(cropped)["loss"] - net.evaluate(data)["loss"]) > 1e-4

    (photos / "thistle").rename(photos / "violet")
    assert main([*evaluate, "photos"]) == 2
    assert "evaluate: expected a data set with the classes of the network" in said(capsys)


def test_evaluation_without_a_saved_loss(csv_file, capsys):
    net = xn.Sequential([xn.Flatten(), xn.Linear(4)], input_shape=(1, 4, 6), backend="numpy")
    net.save("net.safetensors")                 # one class more than the data have
    assert main(["evaluate", "net.safetensors", "--data", str(csv_file), "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    data = xn.data.csv_images(csv_file, shape=(1, 4, 6))
    assert f"\nloss: {net.evaluate(data, loss='cross_entropy')['loss']:.4f}\naccuracy: " in out
    assert [line.split()[0] for line in out.splitlines()[4:8]] == ["0", "1", "2", "3"]


def test_a_network_with_one_unit(csv_file, capsys):
    """There is a loss, and no table of classes."""
    net = xn.Sequential([xn.Flatten(), xn.Linear(1)], input_shape=(1, 4, 6), backend="numpy")
    x = xn.data.csv_images(csv_file, shape=(1, 4, 6))[:][0]
    net.fit(x, x[:, 0, 0, :1] / 255, loss="mean_squared_error", verbose=False)
    net.save("net.safetensors")
    assert main(["evaluate", "net.safetensors", "--data", str(csv_file), "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"60 images of rows\n\nloss: \d\.\d{4}\n", out)


# --- predictions ----------------------------------------------------------------------------------

@pytest.fixture
def trained(photos) -> xn.Network:
    """A network that knows the colours of the classes, saved as net.safetensors."""
    net = xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=(3, 8, 8), backend="numpy")
    net.fit(xn.data.image_folder(photos, 8), epochs=8, verbose=False)
    net.save("net.safetensors")
    return net


PREDICT = ["predict", "net.safetensors", "--backend", "numpy"]


def test_predictions_are_a_line_for_each_file(trained, capsys):
    files = ["photos/poppy/3.png", "photos/daisy/0.png"]
    assert main([*PREDICT, *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = trained.predict_files(files)
    assert [line.split() for line in lines] == [[file, name, f"{row.value:.4f}"] for file, name, row
                                                in zip(files, ("poppy", "daisy"), found)]
    assert main([*PREDICT, "photos", "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 30 and lines[0].startswith("photos/daisy/0.png    daisy  ")
    cells = lines[29].split()
    assert {*cells[1::2]} == {"daisy", "poppy", "thistle"}
    assert sum(map(float, cells[2::2])) == pytest.approx(1, abs=2e-4)


def test_predictions_as_json(trained, capsys):
    (file := Path("photos", "two\nlines.png")).write_bytes(Path("photos/poppy/3.png").read_bytes())
    assert main([*PREDICT, str(file), "--top", "2", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    row, = trained.predict_files(file, top=2)
    assert about == {"file": str(file), "classes": [
        {"class": name, "probability": value} for name, value in zip(row.classes, row.values)]}
    assert main([*PREDICT, str(file)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_predictions_that_are_no_classes_or_no_numbers(photos, capsys):
    net = xn.Sequential([xn.GlobalAvgPool2d(), xn.Linear(1)], input_shape=(3, 8, 8),
                        backend="numpy")
    net.fit(xn.data.Dataset(xn.data.image_folder(photos, 8)[:][0], [[0.5]] * 30),
            loss="mean_squared_error", verbose=False)
    for last in (0.25, float("nan")):
        net.layers[1].W.data[...], net.layers[1].b.data[...] = 0, last
        net.save("net.safetensors")
        assert main([*PREDICT, "photos/poppy/3.png"]) == 0
        assert main([*PREDICT, "photos/poppy/3.png", "--json"]) == 0
        text, line = capsys.readouterr().out.splitlines()
        assert text.split() == ["photos/poppy/3.png", str(last)]
        assert json.loads(line)["output"] == [0.25 if last == 0.25 else None]


@pytest.mark.parametrize("images, message", [
    (["photos/no.png"], "predict_files: expected a picture. Received: photos/no.png, which does "
                        "not exist"),
    (["net.safetensors"], "predict_files"),
    (["photos", "--top", "0"], "predict_files: expected top to be an int, 1 or larger"),
])
def test_wrong_predictions(images, message, trained, capsys):
    assert main([*PREDICT, *images]) == 2
    assert message in said(capsys)
