"""Checkpoints: a training in a file, from which it continues to the same bits."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import (
    Checked,
    different_facts,
    expect_integer,
    is_number,
    listed_differences,
    warn_caller,
    wrong,
)
from xpnet.history import rises
from xpnet.io import safetensors
from xpnet.io.files import exclusive, expect_room, name_of, write_atomically
from xpnet.io.packed import Piece
from xpnet.training.callbacks import Callback, Run
from xpnet.training.same import fingerprint

NAME = re.compile(r"step-(\d{9,})\.safetensors")
BEST = "best.safetensors"

Arrays = dict[str, np.ndarray]


class Checkpoint(Callback):
    """Saves the training in a folder, so that `fit(resume=folder)` continues it to the same bits.

    Each file has everything: the network, the slots and step counts of the optimizer, the gradients
    of a group of batches that is not complete, the position in the data, the sums of the epoch so
    far, the history, and the state of callbacks. It is written beside the old ones and renamed, so
    that a training that is killed at any moment can be resumed; `xn.load` reads the network in it.
    Old files are removed when a new one is complete.

    If a file cannot be written, e.g. because the disk is full, there is a RuntimeWarning with the
    system's reason, the older files stay, and the training goes on: the next save tries again. Only
    before the training begins, a folder that cannot be written to raises OSError.

    Args:
        folder: for the files step-NUMBER.safetensors; made if it is missing. Only one process at a
            time can use it.
        steps: save after each `steps` batches, too.
        epochs: save after each `epochs` epochs, and after the last one.
        keep: how many files are kept.
        best: a column of the history, e.g. "val_loss"; the network of the epoch in which it was
            best is saved as best.safetensors. If its name ends in "accuracy" it should be large,
            else small.

    Attributes:
        error: the OSError of the last save, None if it succeeded.
    """

    leader_only = True

    def __init__(self, folder: str | os.PathLike[str], *, steps: int | None = None, epochs: int = 1,
                 keep: int = 3, best: str | None = None) -> None:
        who = type(self).__name__
        self.folder = Path(name_of(folder, who)).expanduser()
        self.steps = None if steps is None else expect_integer(who, "steps", steps)
        self.epochs, self.keep = (expect_integer(who, "epochs", epochs),
                                  expect_integer(who, "keep", keep))
        if best is not None and not isinstance(best, str):
            raise wrong(who, "best to be None or a column of the history", "best", best)
        self.best, self._reached = best, math.nan
        self.error: OSError | None = None
        self._held = ExitStack()

    def state(self) -> dict[str, Any]:
        return {"reached": self._reached}

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        self._reached = float(state.get("reached", math.nan))

    def begin(self, resumed: bool) -> None:
        """Take the folder. Raises ValueError if it has checkpoints and is not resumed, RuntimeError
        if another process uses it, OSError if it cannot be written to."""
        with ExitStack() as stack:
            stack.enter_context(exclusive(self.folder, "Checkpoint"))
            self._expect_usable(resumed)
            self.error, self._held = None, stack.pop_all()

    def _expect_usable(self, resumed: bool) -> None:
        expect_room(self.folder, "Checkpoint")
        if not resumed and _files(self.folder):
            raise ValueError("Checkpoint: expected a folder without checkpoints of another "
                             f"training. Received: {self.folder}; fit(resume=...) continues that "
                             "training.")

    def on_train_end(self, run: Run) -> None:
        self._held.close()

    def on_batch_end(self, run: Run) -> None:
        due = self.steps is not None and run.batch % self.steps == 0 and run.batch < run.batches
        if due or run.history.interrupted:
            self._save(run)

    def on_epoch_end(self, run: Run) -> None:
        if run.partial or run.history.diverged:
            return                      # saved after the batch; or nothing that is worth saving
        row = run.history.rows[-1]
        if self.best is not None:
            self._keep_best(run, row)
        if run.epoch % self.epochs == 0 or run.epoch == run.epochs or run.history.ended:
            self._save(run)

    def _keep_best(self, run: Run, row: dict[str, float]) -> None:
        if self.best not in row:
            raise wrong("Checkpoint", f"best to be one of {', '.join(row)}", "best", self.best)
        value, sign = row[self.best], 1 if rises(self.best) else -1
        if not math.isnan(value) and not sign * value <= sign * self._reached:
            if self._write(BEST, safetensors.content(run.net)):
                self._reached = value

    def _save(self, run: Run) -> None:
        content = safetensors.content(run.net, training=_state(run))
        if self._write(f"step-{run.steps:09d}.safetensors", content):
            self._remove_old()

    def _remove_old(self) -> None:
        with suppress(OSError):
            for file in _files(self.folder)[self.keep:]:
                with suppress(OSError):         # on Windows, if another program reads it
                    file.unlink()

    def _write(self, name: str, content: list[Piece]) -> bool:
        """Whether the file could be written. If not, a warning says why: a training that goes on
        loses nothing that a training that ends would keep."""
        try:
            write_atomically(self.folder / name, content, who="Checkpoint")
        except OSError as error:
            self.error = error
            warn_caller(f"fit: a checkpoint was not saved, and the training goes on ({error})")
            return False
        self.error = None
        return True


# --- writing --------------------------------------------------------------------------------------

def _state(run: Run) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of the training by names, and the facts for JSON."""
    net, step = run.net, run.step
    assert step.totals is not None
    on_host = net.backend.to_numpy
    arrays = {f"training/slot{k}": on_host(slot) for k, slot in enumerate(step.updater.slots)}
    if not run.updated:                 # in the middle of a group of batches
        arrays["training/grads"] = on_host(net.grads)
    arrays |= {f"training/sums{k}": sums for k, sums in enumerate(step.totals.values())}
    states = []
    for k, callback in enumerate(run.callbacks):
        state = callback.state()
        named = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        arrays |= {f"training/callback{k}/{name}": value for name, value in named.items()}
        states.append({name: value for name, value in state.items() if name not in named})
    history = run.history
    return arrays, {
        "settings": run.settings, "epoch": run.epoch, "batch": run.batch, "lr": run.lr,
        "steps": list(step.updater.steps.values()), "rows": history.rows,
        "stopped": history.stopped, "diverged": history.diverged, "warned": run.warned,
        "seconds": time.perf_counter() - run.started, "callbacks": states}


def settings(*, data: Sequence[Any], held_out: Sequence[Any] | float | None,
             callbacks: Sequence[Callback], **others: Any) -> dict[str, Any]:
    """What has to be the same when a training is resumed, for JSON; `held_out` may be the share of
    the data that is held out."""
    found = {name: _described(value) for name, value in others.items()}
    found["samples"] = [fingerprint(a) for a in data]
    found["validation"] = (held_out if isinstance(held_out, float) else
                           [fingerprint(a) for a in held_out or ()])
    found["callbacks"] = [type(callback).__name__ for callback in callbacks]
    return found


def _described(value: Any) -> Any:
    """Numbers and strings as they are; an object by its class and its settings."""
    if value is None or isinstance(value, bool | str) or is_number(value):
        return value if value is None or isinstance(value, bool | str | int) else float(value)
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    if isinstance(value, np.ndarray):
        return fingerprint(value)
    if isinstance(value, Checked):
        named = {name.lstrip("_"): part for name, part in vars(value).items()
                 if not name.startswith("_") or name == "_lr"}
        return [type(value).__name__, {name: _described(part) for name, part in named.items()}]
    return getattr(value, "__qualname__", type(value).__name__)


# --- reading --------------------------------------------------------------------------------------

def _files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    found = [(int(match[1]), folder / match[0]) for match in map(NAME.fullmatch, os.listdir(folder))
             if match] if folder.is_dir() else []
    return [path for _, path in sorted(found, reverse=True)]


def resume(run: Run, folder: Path) -> Resumed | None:
    """Continue the newest training in the folder that is not damaged; None if there is none. Of
    several ranks, rank 0 chooses the file.

    Raises ValueError, and changes nothing, if it is another training.
    """
    if run.parallel is None:
        return _newest(run, folder)
    found = _newest(run, folder) if run.leads else None
    path = run.parallel.communicator.broadcast_object(None if found is None else str(found.path))
    return found if run.leads or path is None else Resumed(run, Path(path))


def _newest(run: Run, folder: Path) -> Resumed | None:
    files = _files(folder)
    for path in files:
        try:
            return Resumed(run, path)
        except Damaged as error:
            warn_caller(f"fit: a checkpoint was passed over ({error})")
    if files:
        raise ValueError(f"fit: expected a checkpoint in {folder} that can be read. Received: "
                         f"{len(files)} damaged ones.")
    return None


class Damaged(ValueError):              # noqa: N818 - never seen by users
    """A checkpoint that cannot be read."""


class Resumed:
    """A training that was read from a file: the run is where it was, without its callbacks."""

    def __init__(self, run: Run, path: Path) -> None:
        self.path = path
        with ExitStack() as stack:
            try:
                saved, arrays = stack.enter_context(safetensors.checkpoint(path))
            except (ValueError, OSError) as error:
                raise Damaged(str(error)) from error
            about = saved.about["training"]
            _expect_same(about["settings"], run.settings, path)
            safetensors.copy_into(run.net, saved)
        self.states = about["callbacks"]
        self.arrays = arrays
        net, step, history = run.net, run.step, run.history
        to_device = net.backend.asarray
        assert step.totals is not None
        with net.backend.scope():
            for k, slot in enumerate(step.updater.slots):
                slot[...] = to_device(arrays[f"training/slot{k}"])
            if "training/grads" in arrays:
                net.grads[...] = to_device(arrays["training/grads"])
            for k, sums in enumerate(step.totals.sums):
                sums.restore(arrays[f"training/sums{k}"])
        step.updater.steps.update(zip(step.updater.steps, about["steps"], strict=True))
        run.epoch, run.batch, run.lr = about["epoch"], about["batch"], about["lr"]
        run.warned = about["warned"]
        run.started = time.perf_counter() - about["seconds"]
        history.rows = about["rows"]
        history.stopped, history.diverged = about["stopped"], about["diverged"]

    def restore_callbacks(self, run: Run) -> None:
        for k, callback in enumerate(run.callbacks):
            if callback.leader_only and not run.leads:
                continue
            start = f"training/callback{k}/"
            named = {name.removeprefix(start): a for name, a in self.arrays.items()
                     if name.startswith(start)}
            callback.load_state(run, self.states[k] | named)


def _expect_same(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """ValueError with the differences between the settings of two trainings."""
    found = different_facts(now, saved)
    if found:
        raise ValueError(f"fit: expected the training of {path}. Received: "
                         f"{listed_differences(found)}.")
