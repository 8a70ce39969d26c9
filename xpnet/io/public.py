"""How readers of other formats make the networks that people get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from xpnet.graph import Graph


class Face:
    """The class of networks that people call. network.py enters `Network.of` here, because this
    folder knows only graphs."""

    of: ClassVar[Callable[[Graph], Any]]        # a network that takes over a graph
