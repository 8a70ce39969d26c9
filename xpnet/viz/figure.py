"""Figures of matplotlib that need no window, the axes in them, and the colours of all figures."""

from __future__ import annotations

import io
from typing import Any

from xpnet.checks import expect_class_names, wrong

# People who are colour-blind can tell these colours apart (Okabe and Ito 2008).
COLOURS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"
STYLES = "-", "--", ":", "-."
MARKERS = "osD^vPX"
HEAT = "viridis"        # of values from small to large
SIGNED = "PuOr"         # of values around 0, which is white


def new_figure(who: str, width: float, height: float) -> Any:
    """An empty matplotlib Figure of this size in inches.

    It is not made by pyplot: it needs no window, and need not be closed. A notebook shows it
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


def axes_for(who: str, ax: Any, width: float, height: float) -> Any:
    """`ax`, or the only axes of a new figure of this size if it is None."""
    if ax is None:
        return new_figure(who, width, height).subplots()
    new_figure(who, width, height)      # its error, if matplotlib is not installed
    from matplotlib.axes import Axes
    if not isinstance(ax, Axes):
        raise TypeError(str(wrong(who, "ax to be None or axes of matplotlib", "ax", ax)))
    return ax


def bare(ax: Any) -> Any:
    """The axes without ticks, frame and numbers, for an image."""
    ax.set_axis_off()
    return ax


def title(ax: Any, text: str) -> None:
    """The title of an image; a name in it may contain $."""
    ax.set_title(text, fontsize=9, parse_math=False)


def names_of(who: str, names: Any, count: int, what: str = "", net: Any = None) -> list[str]:
    """`count` names, by default those of a network's classes, or what 0, what 1, ..."""
    own = getattr(net, "classes", None)
    if names is None and own and len(own) == count:     # an output of one number may have two
        names = own
    if names is None:
        return [f"{what} {k}".strip() for k in range(count)]
    found = expect_class_names(who, names, "names")
    if len(found) != count:
        raise ValueError(f"{who}: expected {count} names. Received: {len(found)}.")
    return list(found)


def colour(number: int) -> str:
    """The colour of curve `number`, from 0."""
    return COLOURS[number % len(COLOURS)]
