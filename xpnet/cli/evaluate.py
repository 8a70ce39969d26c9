"""`xpnet evaluate`: the figures of a saved network."""

from __future__ import annotations

import argparse

from xpnet.cli import networks, sources

WHO = "evaluate"


def run(options: argparse.Namespace) -> int:
    """Print a table of the classes, the loss and the accuracy."""
    from xpnet.metrics import report
    from xpnet.network import load
    net = load(options.file, backend=options.backend,
               layers=networks.own_layers(WHO, options.model))
    shape = net.ins.nodes[0].shape if len(net.ins) == 1 else None
    data = sources.dataset(WHO, options, shape)
    name, part = [("", data), *sources.parts(data).items()][-1]
    if part.shape != shape:
        raise ValueError(f"{WHO}: expected --data with samples of shape {shape}, for "
                         f"{options.file}. Received: {part!r}.")
    figures = net.evaluate(part, loss="cross_entropy",
                           metrics={"report": lambda y, labels: report(y, labels,
                                                                       names=part.classes)})
    print(f"{len(part):,} {name + ' ' if name else ''}images of {data.name}\n")
    print(figures["report"].table(), end="\n\n")
    start = f"{name} " if name else ""
    print(f"{start}loss: {figures['loss']:.4f}\n{start}accuracy: {100 * figures['accuracy']:.2f}%")
    return 0
