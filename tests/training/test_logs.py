"""CSVLog and JSONLog: a line for each epoch, and nothing that was there is lost."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from failing import FailingDisk
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
def test_a_new_file_and_a_checkpoint_in_the_first_epoch(kind, tmp_path):
    """The line of the first epoch was written, but not the checkpoint after it."""
    path = tmp_path / f"log.{kind}"

    class Kill(xn.Callback):
        at = 1

        def on_epoch_end(self, run):
            if run.epoch == self.at:
                raise InterruptedError

    def train():
        x, y = blobs(30)
        small().fit(x, y, loss="cross_entropy", optimizer="adam", epochs=3, batch_size=10,
                    callbacks=[LOGS[kind](path), Kill()], verbose=False, resume=tmp_path / "run",
                    checkpoint=xn.Checkpoint(tmp_path / "run", steps=1))

    with pytest.raises(InterruptedError):
        train()
    Kill.at = 0
    train()
    assert [row["epoch"] for row in read(path)] == [1, 2, 3]


@pytest.mark.parametrize("kind", LOGS)
def test_ctrl_c_in_an_epoch_that_is_resumed(kind, tmp_path):
    """The line is that of the whole epoch."""
    path, at = tmp_path / f"log.{kind}", [(2, 2)]

    class Interrupt(xn.Callback):
        def on_batch_end(self, run):
            run.history.interrupted = (run.epoch, run.batch) in at

    def train():
        x, y = blobs(30)
        return small().fit(x, y, loss="cross_entropy", optimizer="adam", epochs=3, batch_size=10,
                           validation=(x, y), callbacks=[LOGS[kind](path), Interrupt()],
                           verbose=False, resume=tmp_path / "run")

    assert train().interrupted and [row["epoch"] for row in read(path)] == [1]
    at.clear()
    assert train().rows == read(path)


@pytest.mark.parametrize("kind", LOGS)
def test_a_disk_that_is_full_for_some_epochs(kind, tmp_path):
    """Each epoch warns, and the lines are written as soon as there is room, also by a training that
    was resumed."""
    path = tmp_path / f"log.{kind}"

    class Full(LOGS[kind]):
        full, stops = (2,), 3

        def on_epoch_begin(self, run):
            if run.epoch == self.stops:
                raise InterruptedError

        def on_epoch_end(self, run):
            with FailingDisk("no space", 1) if run.epoch in self.full else nullcontext():
                super().on_epoch_end(run)

    def train():
        x, y = blobs(30)
        return small().fit(x, y, loss="cross_entropy", optimizer="adam", epochs=4, verbose=False,
                           callbacks=[Full(path)], resume=tmp_path / "run")

    message = (r"fit: a line of .*log.* could not be written, and the training goes on "
               r"\(.*No space left on device\)")
    with pytest.warns(RuntimeWarning, match=message), pytest.raises(InterruptedError):
        train()
    assert [row["epoch"] for row in read(path)] == [1]
    Full.stops, Full.full = 0, (3,)
    with pytest.warns(RuntimeWarning, match=message):
        assert train().rows == read(path)
    assert [row["epoch"] for row in read(path)] == [1, 2, 3, 4]


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
