"""CSVLog and JSONLog: a line for each epoch, and nothing that was there is lost."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from nets import blobs, small

import xpnet as xn

LOGS = {"csv": xn.CSVLog, "jsonl": xn.JSONLog}


def fitted(path: Path, epochs: int = 2, **settings: Any) -> xn.History:
    x, y = blobs(30)
    return small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=epochs,
                       callbacks=[LOGS[path.suffix[1:]](path)], **{"verbose": False} | settings)


def read(path: Path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        if path.suffix == ".csv":
            return [{name: float(value) for name, value in row.items()}
                    for row in csv.DictReader(file)]
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("kind", LOGS)
def test_a_second_training_continues_the_file(kind, tmp_path):
    path = tmp_path / f"log.{kind}"
    first, second = fitted(path), fitted(path, epochs=3)
    assert read(path) == first.rows + second.rows


@pytest.mark.parametrize("kind", LOGS)
def test_a_file_with_other_columns_is_refused_and_not_changed(kind, tmp_path):
    path = tmp_path / f"log.{kind}"
    fitted(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Log: expected a new file, or one with the columns epoch, "
                                         "loss, accuracy, val_loss.* Received: .* has the columns"):
        fitted(path, validation=blobs(9))
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("content", [b"\n", b"notes of mine\n", b"[1, 2]\n", b"\xff\xfe\n", b"{"])
def test_a_file_of_another_format_is_refused_and_not_changed(kind, content, tmp_path):
    path = tmp_path / f"log.{kind}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="Log: expected a new file"):
        fitted(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", LOGS)
def test_a_line_that_was_cut_off_stays_and_the_next_one_begins_behind_it(kind, tmp_path):
    path = tmp_path / f"log.{kind}"
    fitted(path)
    cut = path.read_bytes()[:-9]
    path.write_bytes(cut)
    fitted(path, epochs=1)
    assert path.read_bytes().startswith(cut + b"\n") and path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("kind", LOGS)
def test_every_epoch_is_in_the_file_before_the_next_begins(kind, tmp_path):
    path, lines = tmp_path / f"log.{kind}", []

    class Reader(xn.Callback):
        def on_epoch_begin(self, run: xn.Run) -> None:
            lines.append(len(read(path)))

    x, y = blobs(30)
    small().fit(x, y, loss="cross_entropy", optimizer="adam", epochs=3, verbose=False,
                callbacks=[LOGS[kind](path), Reader()])
    assert lines == [0, 1, 2]


@pytest.mark.parametrize("kind", LOGS)
def test_a_folder_that_does_not_exist_is_noticed_before_the_training(kind, tmp_path):
    with pytest.raises(FileNotFoundError):
        fitted(tmp_path / "missing" / f"log.{kind}")


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_resumed_training_repeats_no_line(kind, epochs, tmp_path):
    """The process was killed after the line of an epoch, before its checkpoint: with a checkpoint
    after each second epoch, one line, or none, is of an epoch that is repeated."""
    class Kill(xn.Callback):
        at = 3

        def on_epoch_begin(self, run):
            if run.epoch == self.at:
                raise InterruptedError

    path, kill = tmp_path / f"log.{kind}", Kill()
    fitted(path, 1)                                         # an older training

    def train():
        x, y = blobs(30)
        return small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=4,
                           callbacks=[LOGS[kind](path), kill], verbose=False, resume=tmp_path / "r",
                           checkpoint=xn.Checkpoint(tmp_path / "r", epochs=epochs))

    kill.at = 4 if epochs == 2 else 3
    with pytest.raises(InterruptedError):
        train()
    kill.at = 0
    train()
    assert [row["epoch"] for row in read(path)] == [1, 1, 2, 3, 4]
