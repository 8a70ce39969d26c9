"""The examples run, in their quick mode, and the README shows them as they are."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiers import first, full

import xpnet as xn
from xpnet.history import Divergence

ROOT = Path(__file__).parents[2]


def run(name: str, folder: Path, *arguments: str) -> str:
    """The output of an example, run from an empty folder with the xpnet of this tree."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, str(ROOT / "examples" / name), *arguments], cwd=folder,
                          env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_digits(tmp_path):
    out = run("digits.py", tmp_path)
    accuracy = float(out.splitlines()[-1].split("'accuracy': ")[1].rstrip("}"))
    assert accuracy > 0.95


def test_own_layer(tmp_path):
    out = run("own_layer.py", tmp_path)
    assert "gradients agree with finite differences" in out
    assert float(out.split("test accuracy: ")[1].rstrip("%\n")) > 90


@full
def test_signal_lstm(tmp_path):
    lines = run("signal_lstm.py", tmp_path, "--epochs", "6").splitlines()
    accuracies = [float(line.rsplit(" ", 1)[1].rstrip("%")) for line in lines]
    assert [line.split(",")[0] for line in lines] == ["Conv1d", "LSTM", "LSTM"]
    assert min(accuracies) > 80


@full
def test_finetune_onnx(tmp_path):
    """With a small file of random weights instead of the one that is downloaded: what is learned
    in one epoch does not matter here."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    xn.Sequential([xn.Conv2d(4, 3, stride=2), xn.BatchNorm2d(activation="relu"),
                   xn.GlobalAvgPool2d(), xn.Linear(2), xn.Softmax()], input_shape=(3, 48, 96),
                  backend="numpy").export(tmp_path / "small.onnx")
    lines = run("finetune_onnx.py", tmp_path, "small.onnx", "--epochs", "1", "--lines", "32"
                ).splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        "new head, frozen trunk", "whole network", "mirrored.onnx"]
    assert lines[3].startswith("onnxruntime")
    if "differs by" in lines[3]:
        assert float(lines[3].split("differs by ")[1].split(",")[0]) < 1e-5
    net = xn.io.load_onnx(tmp_path / "mirrored.onnx", backend="numpy")
    assert net.classes == ("as written", "mirrored")


@full
def test_mnist(tmp_path):
    folder = os.environ.get("XPNET_HOME")
    if not folder or not (Path(folder) / "mnist").is_dir():
        pytest.skip("XPNET_HOME names no folder with MNIST")
    out = run("mnist.py", tmp_path, "--epochs", "1", "--samples", "2000")
    rows = [line.split() for line in out.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["numpy_cnn", "bilici"] and "5 hours" in out


def test_photos(tmp_path):
    """The program is started twice: the second time, the training has ended."""
    rng = np.random.default_rng(0)
    for name, colour in (("grass", (30, 160, 40)), ("sea", (30, 60, 180))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(15):
            pixels = rng.normal(colour, 30, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    for _ in range(2):
        out = run("photos.py", tmp_path, "photos", "--size", "16", "--epochs", "3", "--width", "4",
                  "--run", "run", "--backend", "numpy")
        assert "2 classes (grass, sea)" in out and "accuracy: 1.0000" in out
    assert (tmp_path / "photos.safetensors").is_file()


def number(out: str, before: str) -> float:
    """The number that follows a text."""
    return float(re.search(f"{re.escape(before)} *([0-9.]+)", out)[1])


def a_picture(file: Path, smallest: int = 200) -> bool:
    """Whether the file is an image of at least that many rows and columns that shows something."""
    with Image.open(file) as image:
        low, high = image.convert("L").getextrema()
        return high - low > 200 and min(image.size) > smallest


@full
def test_autoencoder(tmp_path):
    out = run("autoencoder.py", tmp_path, "--epochs", "5")
    components = number(out, "16 principal components")
    assert components == pytest.approx(0.0116, abs=2e-4)        # no random numbers are in this one
    assert number(out, "autoencoder") < 0.04                    # the mean image has 0.074
    assert a_picture(tmp_path / "autoencoder.png")


@full
def test_siamese_digits(tmp_path):
    out = run("siamese_digits.py", tmp_path, "--epochs", "2", "--pairs", "3000", "--draws", "1")
    assert number(out, "pairs of unseen images: accuracy") > 70
    assert number(out, "by the network: accuracy") > 50
    assert number(out, "by the distance of pixels: accuracy") > 50
    assert "features:2" in (tmp_path / "siamese_digits.svg").read_text()


@full
def test_segmentation(tmp_path):
    out = run("segmentation.py", tmp_path, "--epochs", "3", "--images", "300")
    assert number(out, "pixel accuracy") > number(out, "of background alone")
    assert number(out, "  background") > 0.8
    assert a_picture(tmp_path / "segmentation.png")


@full
def test_segmentation_photos(tmp_path):
    out = run("segmentation_photos.py", tmp_path, "--epochs", "2", "--images", "60")
    for name in ("cross entropy", "boundary weights", "Dice"):
        assert number(out, f"{name}: pixel accuracy") > 60       # if all were pieces: 30
    assert a_picture(tmp_path / "segmentation_photos.png")


@full
def test_detect_shapes(tmp_path):
    out = run("detect_shapes.py", tmp_path, "--versions", "2", "--epochs", "6", "--images", "600")
    assert number(out, "YOLOv2: mAP at IoU 0.5") > 0.3
    assert (tmp_path / "detect_shapes2.safetensors").is_file()
    assert a_picture(tmp_path / "detect_shapes.png")


@full
def test_yolo_loss(tmp_path):
    out = run("yolo_loss.py", tmp_path, "--epochs", "1", "--images", "200")
    terms = [number(out, name) for name in ("centre", "size", "object", "no_object", "class")]
    assert number(out, "loss") == pytest.approx(sum(terms), abs=5e-4)
    assert a_picture(tmp_path / "yolo_loss.png")


@full
def test_landmarks(tmp_path):
    out = run("landmarks.py", tmp_path, "--epochs", "4", "--images", "400")
    for name in ("numbers", "heat maps", "soft argmax"):
        assert number(out, f"{name}: mean error") < 8       # pixels; 48 x 48 images
    assert a_picture(tmp_path / "landmarks.png")


@full
def test_super_resolution(tmp_path):
    out = run("super_resolution.py", tmp_path, "--epochs", "6")
    assert number(out, "bicubic  PSNR") == pytest.approx(31.12, abs=0.05)
    assert number(out, "network  PSNR") > 24
    assert a_picture(tmp_path / "super_resolution.png")


EXPERIMENTS = {     # a part of what each prints with --quick
    "all_convolutional": "; published 90.92%", "bagging": "8 networks, bagged",
    "batch_norm": "batch norm by learning rate: 0.003: ",
    "contrast": "local contrast shadow 0.8: accuracy ",
    "covariate_shift": "the median of an input moves by",
    "lenet5_recipe": "error of the unseen images, by pass: ",
    "numpy_cnn_recipe": "Adam as written accuracy ", "rectification": "random filters, both",
}


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Like run, in this process: starting Python and matplotlib would take longer than to train."""
    def run_here(name: str, *arguments: str) -> str:
        path = ROOT / "examples" / name
        monkeypatch.syspath_prepend(path.parent)
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out
    return run_here


@full
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment(tmp_path, run_here, name):
    """It trains, and draws the same figure again from the file of its results."""
    out = run_here(f"{name}.py", "--quick", "--output", str(tmp_path))
    assert EXPERIMENTS[name] in out and "nan" not in out
    figure = tmp_path / f"{name}.png"
    assert a_picture(figure, 150)
    drawn = figure.read_bytes()
    figure.unlink()
    assert run_here(f"{name}.py", "--redraw", "--output", str(tmp_path)) == out
    assert figure.read_bytes() == drawn


@pytest.mark.parametrize("text", [None, "{", "[]", '{"settings": {}}'])
def test_redraw_without_results_is_one_line(tmp_path, run_here, text):
    file = tmp_path / "rectification.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        run_here("rectification.py", "--redraw", "--output", str(tmp_path))
    assert str(ended.value).startswith(f"rectification: expected {file}, which a run without")


DIVERGE = {"rectification": xn.Adam, "all_convolutional": xn.Adam, "batch_norm": xn.SGD,
           "contrast": xn.Adam}


@pytest.mark.parametrize("name", first(DIVERGE, "rectification", "all_convolutional"))
@pytest.mark.filterwarnings("ignore:fit. parameters:RuntimeWarning")
def test_an_experiment_that_diverges_ends_in_one_line(tmp_path, run_here, monkeypatch, name):
    """With a learning rate that no network survives."""
    kind = DIVERGE[name]
    monkeypatch.setattr(xn, kind.__name__, lambda lr, **settings: kind(1e38, **settings))
    with pytest.raises(SystemExit) as ended, np.errstate(all="ignore"):
        run_here(f"{name}.py", "--quick", "--output", str(tmp_path))
    assert str(ended.value).startswith(f"{name}: expected all trainings to converge. Received: one")
    assert not (tmp_path / f"{name}.json").exists()


def fit_that_ends(**attributes):
    """In place of `fit`: a training that ends at once."""
    def fit(net, *arguments, **settings):
        history = xn.History()
        for name, value in attributes.items():
            setattr(history, name, value)
        return history
    return fit


ENDS = "rectification", "lenet5_recipe", "covariate_shift"


@pytest.mark.parametrize("name", first(ENDS, "rectification"))
def test_ctrl_c_ends_an_experiment_and_not_one_of_its_trainings(tmp_path, run_here, monkeypatch,
                                                                name):
    monkeypatch.setattr(xn.Network, "fit", fit_that_ends(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        run_here(f"{name}.py", "--quick", "--output", str(tmp_path))


@full
@pytest.mark.parametrize("name", ENDS)
def test_an_experiment_looks_at_how_its_trainings_ended(tmp_path, run_here, monkeypatch, name):
    divergence = Divergence(2, 30, 29, "", None, None)
    monkeypatch.setattr(xn.Network, "fit", fit_that_ends(diverged=True, divergence=divergence))
    with pytest.raises(SystemExit, match=f"{name}: expected .* diverged in epoch 2"):
        run_here(f"{name}.py", "--quick", "--output", str(tmp_path))


@pytest.mark.parametrize("option", ["--seeds", "--samples", "--epochs", "--tested"])
def test_an_experiment_needs_at_least_one(run_here, capsys, option):
    with pytest.raises(SystemExit):
        run_here("rectification.py", option, "0")
    assert "expected a whole number, 1 or larger. Received: 0." in capsys.readouterr().err


@full
def test_ravine(tmp_path, run_here):
    """Gradient descent is stable below 2 / 100, and the turned ravine is the same for it."""
    lines = run_here("ravine.py", "--rates", "9", "--steps", "100", "--output", str(tmp_path)
                     ).splitlines()
    descent = [line for line in lines if "gradient descent" in line]
    rates, losses = ([number(line, before) for line in descent]
                     for before in ("learning rate", "at the end"))
    assert len(lines) == 6 and rates[0] == rates[1] < 0.02 and losses[0] == losses[1]
    assert a_picture(tmp_path / "ravine.png")


@full
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_page_of_experiments_shows_what_was_measured(tmp_path, run_here, name):
    """It has the lines that the program prints for the results beside the figures."""
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    pictures = ROOT / "docs" / "pictures" / "experiments"
    shutil.copy(pictures / f"{name}.json", tmp_path)
    lines = run_here(f"{name}.py", "--redraw", "--output", str(tmp_path))
    assert f"```text\n{lines}```" in page
    assert f"python examples/{name}.py" in page and f"(pictures/experiments/{name}.png)" in page


def test_the_readme_shows_the_digits_example():
    example = (ROOT / "examples" / "digits.py").read_text().split("# --- README\n")[1].split(
        "# --- end")[0]
    assert f"```python\n{example}```" in (ROOT / "README.md").read_text()
