"""The data sets that `--data` names: well-known ones, folders of image files, CSV files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet.checks import expect_share, perhaps, shown

if TYPE_CHECKING:
    from xpnet.data import Dataset

WELL_KNOWN = "digits", "mnist", "fashion_mnist", "emnist", "cifar10", "cifar100"
VARIANTS = {"emnist": "split", "cifar100": "labels"}    # emnist:letters; the argument that it is
SIZE = 32               # rows and columns of the images of files
HELD_OUT = 0.2          # the share for validation of a set without a validation or test part


def name_of(options: argparse.Namespace) -> str:
    """The name of the data set for the name of a file: emnist-letters, photos."""
    if _is_well_known(options.data):
        return options.data.replace(":", "-")
    return Path(options.data).expanduser().resolve().name.partition(".")[0]


def _is_well_known(data: str) -> bool:
    return data.partition(":")[0] in WELL_KNOWN


def dataset(who: str, options: argparse.Namespace, shape: tuple[int, ...] | None = None,
            fit: str | None = None) -> Dataset:
    """The data set that the options name. Raises ValueError if there is no such set.

    Args:
        who: the command, for errors.
        options: data, data_dir, size, channels, validation and seed.
        shape: of one image, if a network requires one; by default size and channels say it.
        fit: how image files are made to fit, see `xpnet.data.read_image`; "crop" by default.
    """
    share = expect_share(who, "--validation", options.validation or 0)
    data = (_well_known(who, options) if _is_well_known(options.data) else
            _files(who, options, shape, fit or "crop"))
    return data.split(share, options.seed or 0) if share else data


def parts(data: Dataset) -> dict[str, Dataset]:
    """The parts that are not trained on and have labels: "validation" and "test", in this order."""
    found = {"validation": data.validation, "test": data.test}
    return {name: part for name, part in found.items() if part is not None
            and part.labels is not None}


def _well_known(who: str, options: argparse.Namespace) -> Dataset:
    import xpnet.data
    name, _, variant = options.data.partition(":")
    for option in ("size", "channels"):
        if getattr(options, option) is not None:
            raise ValueError(f"{who}: expected --{option} with image files or a CSV file alone. "
                             f"Received: --data {name}.")
    arguments: dict[str, Any] = {}
    if variant:
        if name not in VARIANTS:
            raise ValueError(f"{who}: expected --data {name} without a variant; emnist:SPLIT and "
                             f"cifar100:coarse have some. Received: {shown(options.data)}.")
        arguments[VARIANTS[name]] = variant
    if name != "digits":
        arguments["data_dir"] = options.data_dir
    elif options.data_dir is not None:
        raise ValueError(f"{who}: expected --data-dir with a data set of files; the digits come "
                         f"with scikit-learn. Received: --data-dir {options.data_dir}.")
    return getattr(xpnet.data, name)(**arguments)


def _files(who: str, options: argparse.Namespace, shape: Any, fit: str) -> Dataset:
    """The images of a folder or of a CSV file."""
    from xpnet.data import csv_images, image_folder
    path = Path(options.data).expanduser()
    if not path.exists():
        raise ValueError(f"{who}: expected --data to be a folder of image files, a CSV file, or "
                         f"one of {', '.join(WELL_KNOWN)}" + perhaps(options.data, WELL_KNOWN)
                         + f". Received: {shown(options.data)}, which is none of these.")
    if options.data_dir is not None:
        raise ValueError(f"{who}: expected --data-dir with one of {', '.join(WELL_KNOWN[1:])}. "
                         f"Received: --data {options.data}.")
    if shape is not None and len(shape) != 3:
        raise ValueError(f"{who}: expected a network for images (C, H, W). Received: inputs of "
                         f"shape {shape}.")
    if path.is_dir() and not (path / "train.csv").is_file():
        channels, *size = shape or (options.channels or 3, *(options.size or (SIZE, SIZE)))
        return image_folder(path, (size[0], size[1]), channels=channels, fit=fit)
    if shape is None and (options.size is not None or options.channels is not None):
        if options.size is None:
            raise ValueError(f"{who}: expected --size with --channels, for a CSV file. "
                             f"Received: --channels {options.channels}.")
        shape = options.channels or 1, *options.size
    return csv_images(path, shape=shape)
