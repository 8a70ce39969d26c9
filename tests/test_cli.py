"""The `xpnet` command, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xpnet.cli import main

ROOT = Path(__file__).parents[1]


def test_train_evaluate_summary(tmp_path, capsys):
    file = tmp_path / "net.safetensors"
    assert main(["train", "--epochs", "2", "--backend", "numpy", "--save", str(file)]) == 0
    trained = capsys.readouterr()
    assert "epoch 2/2" in trained.err and "accuracy" in trained.err and "loss" in trained.err      # the progress bar
    last = trained.out.splitlines()[-1]
    assert last.startswith("test accuracy: ") and last.endswith("%")
    assert f"saved {file}" in trained.out and "next, try:" in trained.out

    assert main(["evaluate", str(file), "--backend", "numpy"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == last
    assert main(["summary", str(file)]) == 0
    assert "parameters: 90,002" in capsys.readouterr().out
    assert main(["summary", "lenet5"]) == 0
    assert "parameters: 60,000" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_file(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, seed in zip(files, "112", strict=True):
        assert main(["train", "--epochs", "1", "--seed", seed, "--backend", "numpy", "--save", str(file)]) == 0
    contents = [file.read_bytes() for file in files]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize("arguments, message", [
    (["train", "--model", "alexnet"], "--model: expected one of numpy_cnn, bilici"),
    (["train", "--data", "mnist", "--data-dir", "nowhere"], "expected the files train-images-idx3-ubyte"),
    (["train", "--epochs", "0", "--backend", "numpy"], "epochs to be an int, 1 or larger"),
    (["train", "--schedule", "up"], "expected a Schedule or one of constant, one_cycle"),
    (["train", "--backend", "tpu"], 'expected "auto", "numpy", "cupy" or "cupy:DEVICE"'),
    (["train", "--model", "numpy_cnn", "--backend", "numpy"], "expected an input at least as large as the window"),
    (["train", "--save", "no-such-folder/net.safetensors"], "expected a file in a folder that exists"),
    (["evaluate", "nothing.safetensors"], "nothing.safetensors"),
    (["summary", "nothing"], "nothing"),
])
def test_errors_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("xpnet: ") and message in error
    assert not list(tmp_path.iterdir())


def test_module_runs_as_a_command(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "xpnet", "summary", "numpy_cnn"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=True)
    assert "parameters: 105,634" in done.stdout
