"""ONNX operators on our layers and kernels: losses."""

from __future__ import annotations

OPERATORS = {}
WITH_WINDOWS = ()       # the operators whose cases count only where they have two spatial axes
REASONS: dict[str, list[str]] = {}        # why cases cannot pass
