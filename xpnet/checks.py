"""Checks of settings that layers, losses, optimizers and functions share."""

from __future__ import annotations

from typing import Any

import numpy as np


def expect_flag(who: str, name: str, value: Any) -> bool:
    """`value` as a bool; ValueError unless it is True or False (of Python or of NumPy)."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{who}: expected {name} to be True or False. "
                         f"Received: {name}={value!r}.")
    return bool(value)
