"""Optimizers by name, with their default settings."""

from __future__ import annotations

from xpnet.checks import expect_named, is_number, shown
from xpnet.optim.adaptive import (
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AMSGrad,
    NAdam,
    RMSprop,
    Rprop,
)
from xpnet.optim.base import Optimizer
from xpnet.optim.momentum import SGD, Lion

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "amsgrad": AMSGrad,
    "nadam": NAdam,
    "adamax": Adamax,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "rprop": Rprop,
    "lion": Lion,
}


def get_optimizer(optimizer: str | Optimizer, who: str = "get_optimizer") -> Optimizer:
    """The optimizer called by one of the names in OPTIMIZERS; an Optimizer is returned as it is.

    A name makes a new optimizer with its default settings. `who` names the caller in errors.
    """
    found: Optimizer = expect_named(
        who, "an Optimizer, e.g. Adam(1e-3),", optimizer, Optimizer, OPTIMIZERS
    )
    if not is_number(getattr(found, "lr", None)):
        raise ValueError(
            f"{who}: expected an optimizer whose learning rate `lr` is a number. "
            f"Received: {type(found).__name__} with lr={shown(getattr(found, 'lr', None))}."
        )
    return found
