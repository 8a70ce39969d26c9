"""What a network knows of its training: kept by `fit`, compared with data sets later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from xpnet.checks import shown
from xpnet.graph import Graph
from xpnet.trained import Trained, expect_classes
from xpnet.training.callbacks import Run
from xpnet.training.datasets import is_dataset
from xpnet.training.goals import Goal


def learned(net: Graph, x: Any, goals: Sequence[Goal]) -> Trained:
    """What the network knows after a fit on x, apart from the history.

    A Dataset brings its scale, the names of its classes, and how its images were made to fit.
    Arrays and float samples without a scale say nothing of these, and what is known stays.
    """
    found: dict[str, Any] = {}
    if is_dataset(x):
        found = {"scale": scale_of(x), "image_fit": x.image_fit, "classes": _classes_of(net, x)}
    return replace(net.trained, losses=tuple(goal.loss for goal in goals),
                   loss_weights=tuple(goal.weight for goal in goals),
                   **{name: value for name, value in found.items() if value is not None})


@contextmanager
def kept(run: Run, known: Trained) -> Iterator[None]:
    """The network knows this, and the history, during a fit and after it. If the fit ends by an
    error before its first batch, such as a checkpoint of another training, it knows what it knew.
    """
    net, before = run.net, run.net.trained
    net.trained = replace(known, history=run.history)
    try:
        yield
    except BaseException:
        if not run.steps:
            net.trained = before
        raise


def scale_of(data: Any) -> float | None:
    """What the samples of a Dataset are divided by: 1 for whole numbers that enter as they are, and
    None for floats, which may have been divided before."""
    if data.scale is None and data.dtype.kind in "bui":
        return 1.0
    scale: float | None = data.scale
    return scale


def _classes_of(net: Graph, data: Any) -> tuple[str, ...] | None:
    """The names of a Dataset's classes; None if they are the numbers that labels without names have
    and the network has names, or other outputs."""
    shapes = [node.shape for node in net.outs.nodes]
    if data.classes is None or _numbers(data.classes) and (
            net.trained.classes is not None or len(data.classes) != shapes[0][0]):
        return None
    return expect_classes("fit", data.classes, shapes)


def _numbers(classes: Sequence[str]) -> bool:
    """Whether the names of classes are the numbers from 0."""
    return list(classes) == [str(k) for k in range(len(classes))]


def expect_known(trained: Trained, data: Any, who: str) -> None:
    """ValueError if a Dataset has other classes, or another scale, than the network was trained
    with. What one of them does not know is not compared."""
    scale = scale_of(data)
    if None not in (scale, trained.scale) and scale != trained.scale:
        raise ValueError(f"{who}: expected a data set with scale={trained.scale:g}, as in the "
                         f"training of the network. Received: scale={data.scale}; net.scale = None "
                         "forgets the first one.")
    ours, theirs = trained.classes, data.classes
    if ours is None or theirs is None or ours == theirs or _numbers(theirs) or _numbers(ours):
        return
    what = "the same in another order" if {*ours} == {*theirs} else "others"
    raise ValueError(f"{who}: expected a data set with the classes of the network, {shown(ours)}. "
                     f"Received: {shown(theirs)}, which are {what}.")
