"""The CPU with NumPy alone."""

from __future__ import annotations

from xpnet.backends.base import Backend


class NumpyBackend(Backend):
    """NumPy on the CPU."""

    name = "numpy"

    def __init__(self, note: str = "") -> None:
        super().__init__(note=note)
