"""`xpnet detect`: the objects in image files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from xpnet.cli import networks

if TYPE_CHECKING:
    from xpnet.network import Network

WHO = "detect"
ENDING = "-detected.png"        # of the images with boxes


def run(options: argparse.Namespace) -> int:
    """Print a line for each object, and write an image with boxes for each file."""
    from xpnet.data.images import image_pixels, picture_file
    from xpnet.training.files import in_one_line
    from xpnet.vision import detect_files, draw_boxes
    from xpnet.vision.detections import detector_losses
    files = [picture_file(path, WHO) for path in options.images]
    outputs = [_output(options.output, file) for file in files]
    if len(set(outputs)) < len(outputs):
        raise ValueError(f"{WHO}: expected image files of different names, because the "
                         f"results are named after them. Received: {' '.join(options.images)}.")
    net = _network(options)
    names = detector_losses(WHO, net)[0].names
    if options.names is not None:
        names = _named(options.names, len(names))
    for file, output in zip(files, outputs, strict=True):
        found, = detect_files(net, file, score_threshold=options.score,
                              iou_threshold=options.iou)
        if options.json:
            print(json.dumps({"file": str(file), "objects": [
                {"class": names[label], "score": score, "box": [round(x, 2) for x in box]}
                for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(),
                                             found.labels.tolist(), strict=True)]}))
        else:
            print(f"{in_one_line(str(file))}: {len(found.boxes)} "
                  f"object{'' if len(found.boxes) == 1 else 's'}")
            for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
                x1, y1, x2, y2 = (f"{x:.1f}" for x in box)
                print(f"  {names[label]}  {score:.4f}  from ({x1}, {y1}) to ({x2}, {y2})")
        image = image_pixels(file, 3, WHO)
        scale = min(max(1, 400 // max(image.shape[1:])), 64)    # small images have no room for text
        drawn = draw_boxes(image, found.boxes, found.labels, found.scores, names=names,
                           scale=scale)
        drawn.save(output)
        if not options.json:
            print(f"  boxes drawn in {in_one_line(str(output))}")
    return 0


def _network(options: argparse.Namespace) -> Network:
    """A saved network, or one of Darknet's files, which takes bytes divided by 255."""
    from xpnet.io import load_darknet
    from xpnet.network import load
    if Path(options.model).suffix.lower() != ".cfg":
        if options.weights is not None:
            raise ValueError(f"{WHO}: expected --weights for a cfg file of Darknet as --model. "
                             f"Received: --model {options.model}.")
        return load(options.model, backend=options.backend,
                    layers=networks.own_layers(WHO, options.layers))
    if options.weights is None:
        raise ValueError(f"{WHO}: expected --weights, the weights file of {options.model}. "
                         "Received: none.")
    if options.layers is not None:
        raise ValueError(f"{WHO}: expected --layers for a saved network as --model. Received: "
                         f"--model {options.model}.")
    net = load_darknet(options.model, options.weights, backend=options.backend)
    net.scale = 255
    return net


def _named(path: str, classes: int) -> tuple[str, ...]:
    """The names of the classes in a text file."""
    from xpnet.checks import expect_class_names
    from xpnet.io.files import existing
    name = existing(path, WHO, "--names to be a text file")
    lines = Path(name).read_text("utf-8", "replace").splitlines()
    found = [line.strip() for line in lines if line.strip()]
    if len(found) != classes:
        raise ValueError(f"{WHO}: expected --names to have {classes} lines, one for each class. "
                         f"Received: {path}, which has {len(found)}.")
    return expect_class_names(WHO, found)


def _output(folder: str | None, file: Path) -> Path:
    """The file of the image with boxes: in this folder, or in the current one."""
    place = Path("." if folder is None else folder).expanduser()
    if not place.is_dir():
        reason = "is a file" if place.exists() else "does not exist"
        raise FileNotFoundError(f"{WHO}: expected --output to be a folder. Received: {place}, "
                                f"which {reason}.")
    return place / f"{file.stem}{ENDING}"
