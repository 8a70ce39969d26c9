"""`xpnet predict`: the classes of image files."""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

from xpnet.cli import networks

if TYPE_CHECKING:
    from xpnet.training.files import FilePrediction, FilePredictions

WHO = "predict"


def run(options: argparse.Namespace) -> int:
    """Print a line for each image file: its path, and the most likely classes with their
    probabilities."""
    from xpnet.network import load
    net = load(options.file, backend=options.backend,
               layers=networks.own_layers(WHO, options.model))
    found = net.predict_files(options.images, top=options.top)
    lines = [as_json(row, found.what) for row in found] if options.json else aligned(found)
    print(*lines, sep="\n")
    return 0


def aligned(found: FilePredictions) -> list[str]:
    """Lines in columns: the path, and each class with its value; or all values."""
    from xpnet.training.files import in_one_line
    paths = [in_one_line(row.path) for row in found]
    names = [name for row in found for name in row.classes]
    width, name_width = max(map(len, paths)), max(map(len, names), default=0)
    lines = []
    for path, row in zip(paths, found, strict=True):
        cells = ([f"{name.ljust(name_width)}  {value:.4f}"
                  for name, value in zip(row.classes, row.values)]     # none without classes
                 or [f"{value:.4g}" for value in row.values])
        lines.append("  ".join([path.ljust(width), *cells]))
    return lines


def as_json(row: FilePrediction, what: str) -> str:
    """A JSON object: the file, and the classes with their probabilities, or all outputs. JSON has
    no NaN, which becomes null."""
    values = [value if math.isfinite(value) else None for value in row.values]
    about: dict[str, Any] = {"file": row.path}
    if row.classes:
        about["classes"] = [{"class": name, what: value}
                            for name, value in zip(row.classes, values, strict=True)]
    else:
        about[what] = values
    return json.dumps(about)
