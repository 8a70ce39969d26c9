"""Figures of matplotlib that need no window."""

from __future__ import annotations

import io
from typing import Any


def new_figure(who: str, width: float, height: float) -> Any:
    """An empty matplotlib Figure of this size in inches.

    It is not made by pyplot: it needs no window, and has not to be closed. A notebook shows it
    through `_repr_png_`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{who}: expected matplotlib, which draws the figure. "
                          f'Received: {error}. Remedy: pip install "xpnet[viz]"') from error
    figure: Any = Figure(figsize=(width, height), layout="constrained")

    def png() -> bytes:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
        return file.getvalue()

    figure._repr_png_ = png
    return figure
