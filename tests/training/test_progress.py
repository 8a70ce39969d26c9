"""What fit shows: a line for each epoch, and on a terminal a bar for the whole training."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace

import pytest
import tqdm
from nets import blobs, small

import xpnet as xn
from xpnet.training.progress import ProgressBar, duration, in_notebook, number

X, Y = blobs()
OPTIONS = {"loss": "cross_entropy", "optimizer": "adam"}


class Terminal(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True

    def bars(self) -> list[str]:
        """What the line of the bar showed, one after another."""
        return re.findall(r"\r(epoch \d[^\r\n]*)", self.getvalue())

    def lines(self) -> list[str]:
        """The lines that stay."""
        return [line.rpartition("\r")[2] for line in self.getvalue().split("\n")]


def on_a_terminal(monkeypatch) -> Terminal:
    """Not a fixture: pytest sets sys.stderr between the fixtures and the test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(ProgressBar, "SECONDS", 0)
    return stream


def test_a_file_gets_a_line_for_each_epoch(capsys):
    history = small().fit(X, Y, **OPTIONS, epochs=12, validation=(X, Y))
    out, err = capsys.readouterr()
    assert out == (f"training {16 * 2 + 16 + 3 * 16 + 3:,} parameters on 120 samples, "
                   "backend numpy\n")
    head, *lines = err.splitlines()
    names = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds", "left"]
    assert head.split() == names and len(lines) == 12 and "\r" not in err
    for line, row in zip(lines, history.rows):
        assert len(line) <= 80
        cells = dict(zip(names, line.split(), strict=True))
        assert cells["epoch"] == f"{row['epoch']}/12"
        for name in names[1:5]:
            assert float(cells[name]) == pytest.approx(row[name], rel=0.05, abs=1e-4)
        for name in names:                                      # below the end of its head
            assert line[re.search(rf"\b{name}\b", head).end() - 1] == cells[name][-1]
    assert lines[-1].endswith(" 00:00")


def test_a_number_of_batches(capsys, monkeypatch):
    """The last epoch is shorter; the bar and the time that is left are of the batches."""
    small().fit(X, Y, **OPTIONS, steps=6)                       # 4 batches, and 2
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert [line[0] for line in lines] == ["epoch", "1/2", "2/2"] and lines[-1][-1] == "00:00"
    terminal = on_a_terminal(monkeypatch)
    small().fit(X, Y, **OPTIONS, steps=6)
    shares = [int(re.search(r"(\d+)%", bar)[1]) for bar in terminal.bars()]
    assert {round(100 * k / 6) for k in range(7)} <= set(shares) and max(shares) == 100


def test_nothing_is_shown_with_verbose_false(capsys, monkeypatch):
    small().fit(X, Y, **OPTIONS, verbose=False)
    assert capsys.readouterr() == ("", "")
    terminal = on_a_terminal(monkeypatch)
    small().fit(X, Y, **OPTIONS, verbose=False)
    assert terminal.getvalue() == ""


def test_a_terminal_has_one_bar_for_the_whole_training(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    history = small().fit(X, Y, **OPTIONS, epochs=3)            # of 4 batches
    bars, lines = terminal.bars(), terminal.lines()
    shares = [int(re.search(r"(\d+)%", bar)[1]) for bar in bars]
    assert shares[0] == 0 and shares[-1] == 100 and shares == sorted(shares)
    assert {round(100 * k / 12) for k in range(13)} <= set(shares)
    assert bars[0].startswith("epoch 1/3   0%|") and bars[-1].startswith("epoch 3/3 100%|")
    assert max(map(len, bars)) <= 80 and " left, loss " in bars[-1]
    assert [line.split()[0] for line in lines[:-1]] == ["epoch", "1/3", "2/3", "3/3"]
    assert lines[-1] == ""                                      # the bar is gone
    assert number(history["loss"][0]) == lines[1].split()[1]
    assert "left" not in lines[0]


def test_a_callback_can_print_below_the_line_of_an_epoch(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    class Print(xn.Callback):
        def on_epoch_end(self, run):
            print("saved", file=terminal)

    small().fit(X, Y, **OPTIONS, epochs=2, callbacks=[Print()])
    assert [line.split()[0] for line in terminal.lines()[:-1]] == ["epoch", "1/2", "saved", "2/2",
                                                                    "saved"]


def test_a_resumed_training_begins_where_it_was(tmp_path, monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    class Cut(xn.Callback):
        def on_batch_end(self, run):
            if run.steps == 6:
                raise KeyError

    def train(*callbacks):
        small().fit(X, Y, **OPTIONS, epochs=3, callbacks=[*callbacks], resume=tmp_path,
                    checkpoint=xn.Checkpoint(tmp_path, steps=1))

    class Same(Cut):
        def on_batch_end(self, run):
            pass

    Same.__name__ = "Cut"                                       # checkpoints compare the names
    with pytest.raises(KeyError):
        train(Cut())
    assert terminal.lines()[-1] == ""                           # an error removes the bar, too
    terminal.truncate(terminal.seek(0))
    train(Same())
    assert terminal.bars()[0].startswith("epoch 2/3  42%|")     # 5 of 12 batches
    assert [line.split()[0] for line in terminal.lines()[:-1]] == ["epoch", "2/3", "3/3"]


def test_an_interrupted_epoch_has_a_line(capsys):
    class Interrupt(xn.Callback):
        def on_batch_end(self, run):
            run.history.interrupted = run.batch == 2

    small().fit(X, Y, **OPTIONS, epochs=3, validation=(X, Y), callbacks=[Interrupt()])
    head, line = capsys.readouterr().err.splitlines()
    assert dict(zip(head.split(), line.split()))["val_loss"] == "nan"


def test_columns_of_callbacks_and_no_console(capsys, monkeypatch):
    small().fit(X, Y, **OPTIONS, callbacks=[xn.GradientNorms()])
    assert "grad_norm" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", None)                    # as under pythonw
    assert len(small().fit(X, Y, **OPTIONS).rows) == 1


def test_the_time_left():
    """As long as this epoch, per batch: 12 of 44 batches are done."""
    row = {"epoch": 3, "loss": 0.5, "seconds": 60.0}
    run = SimpleNamespace(history=SimpleNamespace(rows=[row]), epochs=11, total=44, steps=12,
                          batch=4)
    assert ProgressBar()._cells(run) == {"epoch": "3/11", "loss": "0.5000", "seconds": "60.0",
                                         "left": "08:00"}


def test_numbers_are_short():
    assert [number(value) for value in (3, 0.0, 0.04742, 1.0, 123.45678, 4e-9, -2e7)] == [
        "3", "0.0000", "0.0474", "1.0000", "123.4568", "4.0e-09", "-2.0e+07"]
    assert [duration(seconds) for seconds in (0, 59.6, 309, 3725)] == ["00:00", "01:00", "05:09",
                                                                       "1:02:05"]


@pytest.mark.parametrize("shell, expected", [
    (None, False), (SimpleNamespace(), False),                  # no IPython; IPython in a terminal
    (SimpleNamespace(kernel=1), True)])
def test_a_notebook_is_recognised(shell, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert in_notebook() == expected


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_a_bar_and_lines_on_stdout(widgets, capsys, monkeypatch):
    """tqdm.auto makes the bar a widget, if there is ipywidgets."""
    made = []

    class Widget(tqdm.tqdm):
        def __init__(self, **options):
            made.append(self)
            super().__init__(**options)

    shell = SimpleNamespace(kernel=1)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Widget))
    monkeypatch.setattr("xpnet.training.progress.find_spec", lambda name: widgets or None)
    small().fit(X, Y, **OPTIONS)
    out, err = capsys.readouterr()
    assert err == "" and "epoch 1/1 " in out and len(made) == widgets
    lines = [line.rpartition("\r")[2].split() for line in out.split("\n")]
    assert [line[:1] for line in lines] == [["training"], ["epoch"], ["1/1"], []]
