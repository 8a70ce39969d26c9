"""`xpnet explore`: a page in the browser that shows how a network works."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xpnet.checks import expect_seed, expect_share
from xpnet.cli import networks, sources
from xpnet.explore.explorer import explore
from xpnet.explore.opening import NAMED, opened

if TYPE_CHECKING:
    from xpnet.data import Dataset

WHO = "explore"
DIGITS = (1, 8, 8)      # the shape of the digits, which are there without a download


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    seed = expect_seed(WHO, options.seed or 0)
    expect_share(WHO, "--validation", options.validation or 0)
    layers = networks.own_layers(WHO, options.layers)
    data = None
    if options.model.endswith(".py"):
        options.data = options.data or "digits"
        data = _data(options)
        net = networks.build(WHO, options.model, networks.builder(WHO, options.model),
                             input_shape=data.shape, classes=len(data.classes or ()),
                             backend=options.backend, seed=options.seed)
    else:
        if options.data is not None and options.model in NAMED:     # it is made for the data
            data = _data(options)
        net = opened(options.model, data=data, backend=options.backend, seed=seed, layers=layers)
    if data is None:
        shapes = [node.shape for node in net.ins.nodes]
        if options.data is None and shapes == [DIGITS]:
            options.data = "digits"
        if options.data is not None:
            data = _data(options, shapes[0], net.trained.image_fit)
    explore(net, data, compare=options.compare, name=Path(options.model).name, port=options.port,
            browser=not options.no_browser, seed=seed)
    return 0


def _data(options: argparse.Namespace, shape: tuple[int, ...] | None = None,
          fit: str | None = None) -> Dataset:
    """The data set, of which a part is for validation if it has no other part to look at."""
    data = sources.dataset(WHO, options, shape, fit)
    if options.validation is None and not sources.parts(data):
        data = data.split(sources.HELD_OUT, options.seed or 0)
    return data
