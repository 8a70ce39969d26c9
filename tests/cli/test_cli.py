"""The `xpnet` command, run as a user runs it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest.mock import ANY

import pytest
from tiers import full

import xpnet as xn
import xpnet.catalogue.verify
from xpnet import catalogue
from xpnet.cli import main, tools
from xpnet.cli.options import parser
from xpnet.cli.train import IMPORTED, process_age, reaches
from xpnet.training import TrainStep
from xpnet.training.prediction import Evaluation

ROOT = Path(__file__).parents[2]


def test_train_evaluate_summary(tmp_path, capsys):
    file = tmp_path / "net.safetensors"
    assert main(["train", "--epochs", "2", "--backend", "numpy", "--save", str(file)]) == 0
    trained = capsys.readouterr()
    assert [line.split()[:2] for line in trained.err.splitlines()][::2] == [["epoch", "loss"],
                                                                            ["2/2", ANY]]
    last = trained.out.splitlines()[-1]
    assert last.startswith("test accuracy: ") and last.endswith("%")
    assert f"saved {file}" in trained.out and "next, try:" in trained.out

    assert main(["evaluate", str(file), "--backend", "numpy"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == last
    assert main(["summary", str(file)]) == 0
    assert "parameters: 90,002" in capsys.readouterr().out
    assert main(["summary", "lenet5"]) == 0
    assert "parameters: 60,000" in capsys.readouterr().out


def test_verify(capsys, monkeypatch):
    """A row for each item and columns for each backend. A wrong gradient is named, and gives exit
    status 1."""
    monkeypatch.setattr(catalogue.verify, "FAMILIES", {"Pooling": catalogue.FAMILIES["Pooling"]})
    assert main(["verify", "--backend", "numpy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [item.name for item in catalogue.FAMILIES["Pooling"] if item.make]
    assert [line.split()[0] for line in lines[6:] if line.startswith("  ")] == names
    gradient, error, ran = next(line.split()[1:] for line in lines
                                if line.split()[:1] == ["GaussianPool2d"])
    assert float(gradient) < 1e-6 and float(error) < 1e-6 and ran == "numpy"
    assert re.fullmatch(rf"numpy: its own code ran in \d+ of {len(names)} items", lines[-2])
    assert lines[-1] == f"{len(names)} items, 0 failures"

    monkeypatch.setattr(xn.GaussianPool2d, "backward", lambda self, dy, accumulate=False: dy)
    assert main(["verify", "--backend", "numpy"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"GaussianPool2d +FAILED", out)
    assert "GaussianPool2d: check_gradients: GaussianPool2d" in out
    assert f"{len(names)} items, 1 failures" in out


def test_training_until_an_accuracy(tmp_path, capsys, monkeypatch):
    """It stops after the first epoch that reaches it, saves the network of that epoch, and is
    evaluated once per epoch."""
    looks = []
    monkeypatch.setattr(Evaluation, "run", lambda *a, real=Evaluation.run: looks.append(a)
                        or real(*a))
    file = tmp_path / "net.safetensors"
    arguments = ["train", "--epochs", "8", "--backend", "numpy", "--save", str(file),
                 "--until-accuracy"]
    assert main([*arguments, "90"]) == 0
    out = capsys.readouterr().out
    assert "*test* images" in out and "no estimate for unseen images" in out
    accuracy, epochs, seconds = re.search(
        r"^reached (\d+\.\d\d)% after (\d+) epochs, (\d+\.\d) s from the start of the process$",
        out, re.MULTILINE).groups()
    assert 90 <= float(accuracy) and int(epochs) == len(looks) < 8 and float(seconds) > 0
    assert out.splitlines()[-1] == f"test accuracy: {accuracy}%" and f"saved {file}" in out
    assert main(["evaluate", str(file), "--backend", "numpy"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"test accuracy: {accuracy}%"

    assert main([*arguments, "100", "--epochs", "1"]) == 1
    out = capsys.readouterr().out
    assert "100% was not reached in 1 epochs" in out and "reached 1" not in out
    assert f"saved {file}" in out and out.splitlines()[-1].startswith("test accuracy: ")


def test_an_accuracy_is_reached_at_the_written_percentage():
    """98.4 % of 10,000 images are 9,840 of them, and neither number is exact in binary."""
    for percent in (0.1, 29, 57, 98.4, 99.99, 100):
        hits = round(100 * percent)
        assert reaches(hits / 10_000, percent) and not reaches((hits - 1) / 10_000, percent)


def test_the_age_of_a_process_counts_from_its_start(tmp_path, monkeypatch):
    """An interpreter that sleeps before its imports is older than the time since it imported the
    command."""
    code = ("import time; time.sleep(0.5); from xpnet.cli import train; print(train.process_age(), "
            "time.perf_counter() - train.IMPORTED)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, check=True)
    age, since_import = map(float, done.stdout.split())
    # a tick is 0.01 s
    assert age >= (0.5 if sys.platform == "linux" else 0) and age >= since_import - 0.02

    def unreadable(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert 0 <= process_age() <= time.perf_counter() - IMPORTED


def test_the_same_seed_gives_the_same_file(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, seed in zip(files, "112", strict=True):
        assert main(["train", "--epochs", "1", "--seed", seed, "--backend", "numpy", "--save",
                     str(file)]) == 0
    contents = [file.read_bytes() for file in files]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize("arguments, message", [
    (["train", "--model", "lenet"],
     "train: expected --model to be a Python file, or one of mlp, numpy_cnn, bilici"),
    (["train", "--data", "mnist", "--data-dir", "nowhere"],
     "expected the files train-images-idx3-ubyte"),
    (["train", "--epochs", "0", "--backend", "numpy"], "epochs to be an int, 1 or larger"),
    (["train", "--schedule", "up"], "expected a Schedule or one of constant, "),
    (["train", "--backend", "tpu"], 'expected "auto", "numpy", "numba", "cupy" or "cupy:DEVICE"'),
    (["train", "--until-accuracy", "0"],
     "--until-accuracy: expected a percentage above 0, 100 at most. Received: 0.0"),
    (["train", "--until-accuracy", "101"],
     "--until-accuracy: expected a percentage above 0, 100 at most. Received: 101.0"),
    (["train", "--until-accuracy", "nan"],
     "--until-accuracy: expected a percentage above 0, 100 at most. Received: nan"),
    (["train", "--model", "numpy_cnn", "--backend", "numpy"],
     "expected an input at least as large as the window"),
    (["train", "--save", "no-such-folder/net.safetensors"],
     "expected a file in a folder that exists"),
    (["evaluate", "nothing.safetensors"], "nothing.safetensors"),
    (["summary", "nothing"], "nothing"),
])
def test_errors_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("xpnet: ") and message in error
    assert not list(Path().iterdir())


def test_module_runs_as_a_command(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "xpnet", "summary", "numpy_cnn"], cwd=tmp_path,
                          env=environment, capture_output=True, text=True, check=True)
    assert "parameters: 105,634" in done.stdout


def test_a_training_that_is_resumed(tmp_path, capsys, monkeypatch):
    """It was cut off in the second epoch, and ends with the same file as without the cut."""
    arguments = ["train", "--epochs", "2", "--backend", "numpy", "--save"]
    assert main([*arguments, str(tmp_path / "whole.safetensors")]) == 0
    real = TrainStep.train

    def train(self, *batch):
        if self.net.epochs == 1:
            raise OSError("the disk was pulled out")
        return real(self, *batch)

    monkeypatch.setattr(TrainStep, "train", train)
    again = [*arguments, str(tmp_path / "again.safetensors"), "--resume", str(tmp_path / "run")]
    assert main(again) == 2
    monkeypatch.undo()
    assert main(again) == 0
    assert ((tmp_path / "whole.safetensors").read_bytes()
            == (tmp_path / "again.safetensors").read_bytes())
    assert main([*arguments, str(tmp_path / "x.safetensors"), "--checkpoint",
                 str(tmp_path / "run")]) == 2
    assert "fit(resume=...) continues that training" in capsys.readouterr().err


@full
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_training_that_is_killed(tmp_path):
    """The same command again continues it, and ends with the same file as without the kill."""
    arguments = ["train", "--epochs", "8", "--backend", "numpy", "--save"]
    run, again = tmp_path / "run", [*arguments, "again.safetensors", "--resume",
                                    str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "-m", "xpnet", *again], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    while process.poll() is None and not list(run.glob("step-*")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL and not Path("again.safetensors").exists()
    assert main(again) == 0
    assert main([*arguments, "whole.safetensors"]) == 0
    assert Path("again.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


# --- the command itself ---------------------------------------------------------------------------

@pytest.mark.parametrize("error, status, message", [
    (KeyboardInterrupt(), 130, "xpnet: interrupted\n"), (RuntimeError("used"), 2, "xpnet: used\n"),
    (MemoryError("full"), 2, "xpnet: full\n"), (xn.BackendError("no GPU", "none"), 2, ANY),
])
def test_errors_and_their_status(error, status, message, capsys, monkeypatch):
    def fail(options):
        raise error

    monkeypatch.setattr(tools, "summary", fail)
    assert main(["summary", "lenet5"]) == status and capsys.readouterr().err == message


def test_a_training_that_diverges(capsys):
    """Its warning is one line without the place in the code, and the exit status is 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["train", "--lr", "1e30", "--epochs", "2", "--backend", "numpy"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert re.match("xpnet: fit: parameters or running statistics became NaN", lines[-3])
    assert lines[-1].split()[:2] == ["1/2", "nan"]


def test_a_mistake_of_xpnet_has_a_traceback(monkeypatch):
    monkeypatch.setattr(tools, "summary", lambda options: options.nothing)
    with pytest.raises(AttributeError):
        main(["summary", "lenet5"])


def test_a_mistake_of_xpnet_in_a_process_of_several_is_shown_and_ends_it(monkeypatch, capsys):
    """Not by raising it: the process would wait for the others before it ends."""
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setattr(tools, "summary", lambda options: {}["no such key"])
    assert main(["summary", "bilici"]) == 1
    assert "KeyError: 'no such key'" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_a_reader_that_has_ended(tmp_path):
    """`xpnet summary lenet5 | true` says nothing on stderr."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "xpnet", "summary", "lenet5"], stdout=writing,
                          stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_of_every_command(capsys, monkeypatch):
    """Each has an example that can be run, and fits into 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    top = capsys.readouterr().out
    assert re.findall(r"^  (\d+)  ", top, re.MULTILINE) == ["0", "1", "2", "130", "141"]
    names = re.findall(r"^    (\w+)  ", top, re.MULTILINE)
    assert names == ["train", "evaluate", "predict", "detect", "explore", "summary", "verify",
                     "doctor"]
    for name in names:
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 80
        examples = re.findall(r"^  xpnet (.+)$", text.partition("examples:\n")[2], re.MULTILINE)
        for example in examples:
            assert parser().parse_args(example.split()).run
        assert examples


def test_commands_on_pages_can_be_parsed():
    """All lines in the pages and in the Makefile that call xpnet."""
    found = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]:
        text = page.read_text(encoding="utf-8")
        shell = (re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
                 if page.suffix == ".md" else [text])
        for line in re.findall(r"^(?:python -m xpnet|xpnet|\t\S+ -m xpnet) (.+)$", "\n".join(shell),
                               re.MULTILINE):
            arguments = shlex.split(re.split(" [|>] ", line)[0], comments=True)
            assert parser().parse_args(arguments).run, f"{page.name}: {line}"
            found.append(arguments[0])
    assert {"train", "evaluate", "predict", "detect", "explore", "summary", "verify",
            "doctor"} == {*found}
    assert len(found) > 15
