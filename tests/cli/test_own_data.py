"""The command with images of users: what `--data` names, and that all options arrive."""

from __future__ import annotations

import csv
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import xpnet as xn
from xpnet.cli import main, sources, train
from xpnet.cli.options import parser

QUICK = ["--backend", "numpy", "--batch-size", "16", "--schedule", "constant", "--lr", "0.01",
         "--save", "net.safetensors"]


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


def test_the_share_that_is_split_off_by_default(photos, capsys):
    data = train._data(parser().parse_args(["train", "--data", "photos", "--seed", "3"]))
    assert data.fingerprint() == xn.data.image_folder(photos, 32).split(0.2, 3).fingerprint()


def test_figures_of_the_training_are_those_of_the_images_that_it_validated(csv_file, capsys):
    part = xn.data.csv_images(csv_file, shape=(1, 4, 6))
    x, y = part[:]
    data = xn.data.Dataset(x, y, validation=part, test=part.subset(slice(0, 9)))
    net = SimpleNamespace(evaluate=lambda part, parallel: {"accuracy": len(part) / 100})
    for validated, row, expected in (
            (data.validation, {"val_accuracy": 0.25}, ("25.00%", "9.00%")),
            (data.test, {"val_accuracy": 0.25}, ("60.00%", "25.00%")),
            (data.validation, {"val_accuracy": float("nan")}, ("60.00%", "9.00%")),
            (None, {}, ("60.00%", "9.00%"))):
        train._report(net, data, validated, SimpleNamespace(rows=[row]), None)
        assert capsys.readouterr().out == ("validation accuracy: {}\ntest accuracy: {}\n"
                                           .format(*expected))


def test_a_csv_file_a_network_of_a_file_and_a_log(csv_file, network, capsys, said):
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
    assert "xpnet has no layer Twice" in said()

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
    drawn = {"shapes", "stick_figures"}         # for detectors and landmarks
    assert functions - others - drawn - {"csv_images", "image_folder"} == {*sources.WELL_KNOWN}


@pytest.mark.parametrize("arguments, message", [
    (["--data", "cifr10"], 'train: expected --data to be a folder of image files, .*cifar100, '
                           'perhaps "cifar10". Received: .cifr10., which is none of these.'),
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
def test_wrong_options(arguments, message, said):
    Path("empty").mkdir()
    Path("no_labels.csv").write_text("a,b\n1,2\n")
    assert main(["train", *arguments, "--backend", "numpy"]) == 2
    assert re.match(f"xpnet: {message}", said())
    assert sorted(path.name for path in Path().iterdir()) == ["empty", "no_labels.csv"]


def test_a_network_that_does_not_fit_the_data(photos, csv_file, said):
    xn.Sequential([xn.Flatten(), xn.Linear(10)], input_shape=(1, 5, 5),
                  backend="numpy").save("net.safetensors")
    assert main(["evaluate", "net.safetensors"]) == 2
    assert re.match(r"xpnet: evaluate: expected --data with samples of shape \(1, 5, 5\), for "
                    r"net.safetensors. Received: <digits, test: 360 samples \(1, 8, 8\)",
                    said())
    assert main(["evaluate", "net.safetensors", "--data", str(csv_file)]) == 2
    assert "expected columns for the pixels of images of shape (1, 5, 5)" in said()
    xn.Sequential([xn.Linear(3)], input_shape=(75,), backend="numpy").save("net.safetensors")
    assert main(["evaluate", "net.safetensors", "--data", "photos"]) == 2
    assert said() == ("xpnet: evaluate: expected a network for images (C, H, W). Received: "
                            "inputs of shape (75,).")
