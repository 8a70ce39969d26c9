"""Figures, histograms and images of a training, for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import Checked, warn_caller
from xpnet.io.events import EventFile, histogram, image, scalar
from xpnet.io.files import make_folder, name_of
from xpnet.training.callbacks import Callback, Run

SHOWN = 32          # images or filters that are shown
SMALLEST = 32       # pixels of a side of each: smaller ones are enlarged
COLUMNS = 8
BORDER = 2          # pixels between them


class TensorBoard(Checked, Callback):
    """Write event files for TensorBoard: `tensorboard --logdir folder`.

    After each epoch its row of the history is written: to the run "train" in the folder, and the
    columns that begin with "val_" without that to the run "validation", so that both curves are in
    one plot. The horizontal axis is the number of steps that the network has been trained.

    An event is in the file before the next batch begins, so that a training that is killed shows
    everything. A resumed training, and a second fit, continue in new files; TensorBoard replaces
    what is repeated. If a file cannot be written, there is a RuntimeWarning, and the training goes
    on; the events are written with the next ones.

    Args:
        folder: for the event files; made if it is missing.
        batches: also write the learning rate, and the mean loss and accuracy of the last `batches`
            batches, after each `batches` batches of an epoch. On a GPU, each waits for the batch.
        histograms: write histograms of all parameters, and of the gradients of the last update,
            after each `histograms` epochs.
        images: write images, for a network with images of 1 or 3 channels as the input: in each
            `images`-th epoch the first batch as the network sees it, scaled and augmented, and
            after it the filters of the first convolution.
    """

    leader_only = True

    def __init__(self, folder: str | os.PathLike[str], *, batches: int | None = None,
                 histograms: int | None = None, images: int | None = None) -> None:
        self.folder = Path(name_of(folder, self.who)).expanduser()
        self.batches, self.histograms, self.images = (
            None if value is None else self.expect_integer(name, value)
            for name, value in (("batches", batches), ("histograms", histograms),
                                ("images", images)))
        self._files: dict[str, EventFile] = {}
        # Steps of the network: before the first batch of this training, and when this fit began.
        self._first = self._begun = 0
        self._before: Sequence[np.ndarray] = ()     # the sums at the last event of a batch

    def state(self) -> dict[str, Any]:
        return {f"before{k}": sums for k, sums in enumerate(self._before)}

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        self._before = [state[f"before{k}"] for k in range(len(state))]

    def on_train_begin(self, run: Run) -> None:
        """Raise OSError now if the folder cannot be made, not after an epoch."""
        if self.images is not None:
            shape = run.net.ins.nodes[0].shape
            if len(shape) != 3 or shape[0] not in (1, 3):
                raise ValueError(f"{self.who}: expected images (C, H, W) of 1 or 3 channels, as "
                                 f"images={self.images}. Received: inputs of shape {shape}.")
        make_folder(self.who, self.folder)
        self._files = {}

    def on_epoch_begin(self, run: Run) -> None:
        """Here it is known whether the training was resumed, and where."""
        if not self._files:
            self._begun = int(run.net.backend.to_numpy(run.net.counters)[0])
            self._first = self._begun - run.steps
            self._write(run, "train", [])
        if run.batch == 0:              # else the epoch was resumed
            self._before = self._sums(run)

    def on_batch_end(self, run: Run) -> None:
        if self.batches is not None and run.batch % self.batches == 0:
            assert run.step.totals is not None
            figures = run.step.totals.result(self._before) | {"lr": run.lr}
            self._write(run, "train", [scalar(f"batch/{name}", value)
                                       for name, value in figures.items()])
            self._before = self._sums(run)
        if self.images is not None and run.batch == 1 and run.epoch % self.images == 0:
            x = np.moveaxis(run.net.backend.to_numpy(run.repeat()[0])[..., :SHOWN], -1, 0)
            self._write(run, "train", [image("images/first batch", tiled(x))])

    def on_epoch_end(self, run: Run) -> None:
        if run.partial:
            return
        values: dict[str, list[bytes]] = {"train": [], "validation": []}
        for name, value in run.history.rows[-1].items():
            part = "validation" if name.startswith("val_") else "train"
            values[part].append(scalar(name.removeprefix("val_"), value))
        if self.histograms is not None and run.epoch % self.histograms == 0:
            values["train"] += self._histograms(run)
        if self.images is not None and run.epoch % self.images == 0:
            values["train"] += self._filters(run)
        for part, found in values.items():
            if found:
                self._write(run, part, found)

    def _histograms(self, run: Run) -> list[bytes]:
        found, on_host = [], run.net.backend.to_numpy
        for name, layer in run.net.layer_names.items():
            for p in layer.parameters:
                found.append(histogram(f"parameters/{name}.{p.name}", on_host(p.data)))
                if layer.trainable:
                    found.append(histogram(f"gradients/{name}.{p.name}", on_host(p.grad)))
        return found

    def _filters(self, run: Run) -> list[bytes]:
        channels = run.net.ins.nodes[0].shape[0]
        for name, layer in run.net.layer_names.items():
            for p in layer.parameters:
                if p.name == "W" and len(p.shape) == 4 and p.shape[1] == channels:
                    filters = run.net.backend.to_numpy(p.data)[:SHOWN]
                    return [image(f"images/filters of {name}", tiled(filters))]
        return []

    def _sums(self, run: Run) -> Sequence[np.ndarray]:
        if self.batches is None or run.step.totals is None:
            return ()
        return run.step.totals.values()

    def _write(self, run: Run, part: str, values: Sequence[bytes]) -> None:
        """Write values to the file of a part, which begins here if there is none."""
        if part not in self._files:
            self._files[part] = EventFile(self.folder / part, self._begun + 1)
        try:
            self._files[part].write(self._first + run.steps, values)
        except OSError as error:
            warn_caller("fit: events for TensorBoard could not be written, and the training goes "
                        f"on ({error})")


def tiled(images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W), C = 1 or 3, side by side as one of uint8: (H', W') or (H', W', 3).

    Values from 0 to 1 are taken as they are; otherwise the smallest becomes black, and the largest
    white.
    """
    images = np.nan_to_num(images.astype(np.float64))
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        images = (images - low) / (high - low or 1)
    pixels = np.rint(255 * images).astype(np.uint8)
    factor = max(1, -(-SMALLEST // min(pixels.shape[2:])))
    pixels = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    count, channels, height, width = pixels.shape
    columns = min(COLUMNS, count)
    rows, down, right = -(-count // columns), height + BORDER, width + BORDER
    picture = np.full((channels, rows * down - BORDER, columns * right - BORDER), 255, np.uint8)
    for k, one in enumerate(pixels):
        y, x = k // columns * down, k % columns * right
        picture[:, y:y + height, x:x + width] = one
    return picture[0] if channels == 1 else np.moveaxis(picture, 0, -1)
