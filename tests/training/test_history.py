"""The history's columns, its best row, and what it is written to."""

from __future__ import annotations

import csv
import json
import math
import sys

import numpy as np
import pytest

import xpnet as xn


def history() -> xn.History:
    made = xn.History()
    made.rows = [{"epoch": 1, "loss": 0.75, "accuracy": 0.5, "val_loss": 0.8},
                 {"epoch": 2, "loss": 0.5, "accuracy": 0.9, "val_loss": 0.6},
                 {"epoch": 3, "loss": 0.25, "accuracy": 0.9, "val_loss": math.nan}]
    return made


def test_columns():
    made = history()
    assert list(made) == ["epoch", "loss", "accuracy", "val_loss"]
    assert dict(made)["loss"] == made["loss"] == [0.75, 0.5, 0.25]
    assert list(xn.History()) == [] and xn.History()["loss"] == []
    with pytest.raises(KeyError, match="expected one of epoch, loss, accuracy, val_loss. Received"):
        made["los"]


def test_the_best_row_of_equal_ones_is_the_first_and_nan_is_never_best():
    made = history()
    assert made.best("loss")["epoch"] == 3 and made.best("loss", "max")["epoch"] == 1
    assert made.best("accuracy")["epoch"] == 2 and made.best("accuracy", "min")["epoch"] == 1
    assert made.best("val_loss")["epoch"] == 2
    with pytest.raises(ValueError, match="monitor to be one of epoch, loss, accuracy, val_loss"):
        made.best("val_los")
    with pytest.raises(ValueError, match="Received: 0 epochs"):
        xn.History().best("loss")


def test_files(tmp_path):
    made = history()
    made.to_csv(tmp_path / "a.csv")
    made.to_json(tmp_path / "a.json")
    with open(tmp_path / "a.csv", newline="") as file:
        head, *lines = csv.reader(file)
    assert head == list(made) and np.array_equal(
        np.array(lines, float).T, np.array([made[name] for name in made]), equal_nan=True)
    rows = json.loads((tmp_path / "a.json").read_text())
    assert rows[:2] == made.rows[:2] and rows[2] == made.rows[2] | {"val_loss": None}


def test_a_table_and_a_figure():
    made = history()
    html = made._repr_html_()
    assert html.count("<tr>") == 4 and "<td style=\"text-align: right\">0.75</td>" in html
    figure = made.plot()
    loss, accuracy = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in loss.lines}
    assert drawn["loss"] == made["loss"] and list(drawn) == ["loss", "val_loss"]
    assert list(accuracy.lines[0].get_xdata()) == [1, 2, 3]
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least one epoch"):
        xn.History().plot()


def test_pandas():
    pandas = pytest.importorskip("pandas")
    table = history().to_pandas()
    assert isinstance(table, pandas.DataFrame) and list(table.columns) == list(history())
    assert table["loss"].tolist() == [0.75, 0.5, 0.25]


def test_without_pandas_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas: expected pandas. .*pip install pandas"):
        history().to_pandas()
