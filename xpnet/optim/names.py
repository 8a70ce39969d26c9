"""Optimizers by name, with their default settings."""

from __future__ import annotations

from xpnet.checks import expect_named, is_number, shown
from xpnet.optim import adaptive, momentum
from xpnet.optim.base import Optimizer

# Every class of these files, by its name in lower case.
OPTIMIZERS: dict[str, type[Optimizer]] = {
    cls.__name__.lower(): cls for module in (momentum, adaptive) for cls in vars(module).values()
    if isinstance(cls, type) and cls.__module__ == module.__name__}


def get_optimizer(optimizer: str | Optimizer, who: str = "get_optimizer") -> Optimizer:
    """The optimizer with a name from OPTIMIZERS; an Optimizer is returned as it is.

    A name gives a new optimizer with its default settings.

    Args:
        who: the caller's name, for error messages.

    Raises ValueError for an unknown name, or an optimizer whose `lr` is not a number.
    """
    found: Optimizer = expect_named(who, "an Optimizer, e.g. Adam(1e-3),", optimizer, Optimizer,
                                    OPTIMIZERS)
    if not is_number(getattr(found, "lr", None)):
        raise ValueError(f"{who}: expected an optimizer whose learning rate `lr` is a number. "
                         f"Received: {type(found).__name__} with "
                         f"lr={shown(getattr(found, 'lr', None))}.")
    return found
