"""What a network knows of its training as JSON: written and read.

    {"classes": ["cat", "dog"], "scale": 255.0, "image_fit": "crop",
     "losses": [{"type": "CrossEntropy", "config": {...}}], "loss_weights": [1.0],
     "history": {"rows": [{"epoch": 1, "loss": 0.5, ...}], "stopped": false, ...}}

What is not known is left out. Columns of times are, too: two equal trainings give equal files.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

from xpnet import losses as library
from xpnet.backends.arguments import shown
from xpnet.buffers import Shape
from xpnet.checks import is_number, is_plain_name
from xpnet.history import History
from xpnet.losses import Loss
from xpnet.trained import FITS, Trained, expect_classes

TIME = "seconds"            # how the names of columns end that hold times
ENDS = "interrupted", "stopped", "diverged"
MOST_CHARACTERS = 400       # of an error about the arguments of a loss


def to_json(trained: Trained) -> dict[str, Any]:
    """What JSON can hold; empty if nothing is known."""
    found = {"classes": trained.classes, "scale": trained.scale, "image_fit": trained.image_fit,
             "losses": [_loss(loss) for loss in trained.losses],
             "loss_weights": trained.loss_weights,
             "history": None if trained.history is None else _history(trained.history)}
    return {name: value for name, value in found.items() if value}


def _loss(loss: Loss | str) -> dict[str, Any]:
    """The class of a loss, and its arguments if it is one of the library's."""
    kind = type(loss)
    if isinstance(loss, str) or getattr(library, kind.__name__, None) is not kind:
        return {"type": loss if isinstance(loss, str) else kind.__name__}
    names = inspect.signature(kind).parameters
    return {"type": kind.__name__, "config": {name: getattr(loss, name) for name in names}}


def _history(history: History) -> dict[str, Any]:
    rows = [{name: value if is_number(value) else None for name, value in row.items()
             if is_plain_name(name) and not name.endswith(TIME)} for row in history.rows]
    return {"rows": rows} | {name: getattr(history, name) for name in ENDS}


# --- reading --------------------------------------------------------------------------------------

def from_json(found: Any, outputs: Sequence[Shape], path: str) -> Trained:
    """What a file says of the training of a network with outputs of these shapes.

    Raises:
        ValueError: something is not as `to_json` writes it, or does not fit the outputs.
    """
    def refused(expected: str, value: Any, reason: object = "") -> ValueError:
        why = " ".join(str(reason).split())[:MOST_CHARACTERS]
        return ValueError(f"load: expected {expected} in the metadata. Received: {path}, "
                          f"{shown(value)}{f' ({why})' if why else ''}.")

    if not isinstance(found, dict):
        raise refused("trained to be a dict", found)
    scale, fit, classes = (found.get(name) for name in ("scale", "image_fit", "classes"))
    if scale is not None and not (is_number(scale) and scale > 0):
        raise refused("a scale above 0", scale)
    if fit is not None and not (isinstance(fit, str) and fit in FITS):
        raise refused(f"image_fit to be one of {', '.join(FITS)}", fit)
    if classes is not None:
        try:
            classes = expect_classes("load", classes, outputs)
        except ValueError as error:
            raise refused("classes that fit the outputs", classes, error) from error
    losses, weights = found.get("losses", []), found.get("loss_weights", [])
    if (not isinstance(losses, list) or not isinstance(weights, list)
            or len(losses) not in (0, len(outputs)) or len(weights) != len(losses)
            or not all(is_number(weight) and weight >= 0 for weight in weights)):
        raise refused(f"losses and loss_weights of {len(outputs)} outputs", [losses, weights])
    made = []
    for loss in losses:
        try:
            made.append(_made(loss))
        except Exception as error:      # a constructor may raise anything for unknown arguments
            raise refused("losses that can be made", loss,
                          f"{type(error).__name__}: {error}") from error
    history = found.get("history")
    if history is not None and not _is_history(history):
        raise refused("a history of rows of numbers", history)
    return Trained(classes, None if scale is None else float(scale), fit, tuple(made),
                   tuple(map(float, weights)), None if history is None else _read(history))


def _made(entry: Any) -> Loss | str:
    """A loss of the library, or the name of another class. Nothing is imported."""
    kind = entry["type"]
    if not is_plain_name(kind):
        raise ValueError("type is no name")
    if "config" not in entry or kind not in library.__all__ or kind == "Loss":
        return str(kind)
    loss: Loss = getattr(library, kind)(**entry["config"])
    return loss


def _is_history(found: Any) -> bool:
    return (isinstance(found, dict) and isinstance(found.get("rows"), list)
            and all(isinstance(found.get(name), bool) for name in ENDS)
            and all(isinstance(row, dict) and all(
                is_plain_name(name) and (value is None or is_number(value))
                for name, value in row.items()) for row in found["rows"]))


def _read(found: dict[str, Any]) -> History:
    history = History()
    history.rows = [{name: math.nan if value is None else value for name, value in row.items()}
                    for row in found["rows"]]
    history.interrupted, history.stopped, history.diverged = (found[name] for name in ENDS)
    return history
