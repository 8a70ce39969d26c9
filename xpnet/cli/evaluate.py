"""`xpnet evaluate`: the figures of a saved network."""

from __future__ import annotations

import argparse
from typing import Any

from xpnet.cli import networks, sources

WHO = "evaluate"


def run(options: argparse.Namespace) -> int:
    """Print a table of the classes, the loss and the accuracy."""
    from xpnet.metrics import report
    from xpnet.network import load
    net = load(options.file, backend=options.backend,
               layers=networks.own_layers(WHO, options.model))
    if len(net.ins) != 1 or len(net.outs) != 1:
        raise ValueError(f"{WHO}: expected a network with one input and one output. Received: "
                         f"{options.file}, with {len(net.ins)} and {len(net.outs)}.")
    shape, outputs = net.input.shape, net.output.shape
    data = sources.dataset(WHO, options, shape, net.trained.image_fit)
    name, part = [("", data), *sources.parts(data).items()][-1]
    if part.shape != shape:
        raise ValueError(f"{WHO}: expected --data with samples of shape {shape}, for "
                         f"{options.file}. Received: {part!r}.")
    names = net.classes or (part.classes if outputs == (len(part.classes or ()),) else None)
    metrics: dict[str, Any] = {}
    if len(outputs) == 1 and outputs[0] > 1:        # a score for each class
        metrics["report"] = lambda y, labels: report(y, labels, names=names)
    figures = net.evaluate(part, loss=None if net.loss else "cross_entropy", metrics=metrics)
    print(f"{len(part):,} {name + ' ' if name else ''}images of {data.name}\n")
    if "report" in figures:
        print(figures["report"].table(), end="\n\n")
    start = f"{name} " if name else ""
    print(f"{start}loss: {figures['loss']:.4f}")
    if "accuracy" in figures:
        print(f"{start}accuracy: {100 * figures['accuracy']:.2f}%")
    return 0
