"""`xpnet evaluate` and `xpnet predict` for saved networks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import xpnet as xn
from xpnet.cli import main

# --- what a file remembers ------------------------------------------------------------------------

def test_evaluation_uses_what_was_saved(photos, capsys, said):
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
    assert "evaluate: expected a data set with the classes of the network" in said()


def test_evaluation_without_a_saved_loss(csv_file, capsys):
    net = xn.Sequential([xn.Flatten(), xn.Linear(4)], input_shape=(1, 4, 6), backend="numpy")
    net.save("net.safetensors")                 # one class more than the data have
    assert main(["evaluate", "net.safetensors", "--data", str(csv_file), "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    data = xn.data.csv_images(csv_file, shape=(1, 4, 6))
    assert f"\nloss: {net.evaluate(data, loss='cross_entropy')['loss']:.4f}\naccuracy: " in out
    assert [line.split()[0] for line in out.splitlines()[4:8]] == ["0", "1", "2", "3"]
    net.classes = ["ash", "elm", "oak", "yew"]
    net.save("net.safetensors")
    assert main(["evaluate", "net.safetensors", "--data", str(csv_file), "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[4:8]] == ["ash", "elm", "oak", "yew"]


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
def test_wrong_predictions(images, message, trained, said):
    assert main([*PREDICT, *images]) == 2
    assert message in said()
