"""The class of public networks, for the files in this folder that make networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from xpnet.graph import Graph


class Face:
    """Holds `Network.of`. Files in io/ must not import network.py, which imports them, see the
    diagram in docs/architecture.md; so network.py sets it."""

    of: ClassVar[Callable[[Graph], Any]]        # Network.of(graph): takes over the graph's state
