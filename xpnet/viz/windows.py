"""Diagrams of a window on its input: kernel, stride, padding and dilation."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Window
from xpnet.checks import expect_instance, expect_sides, is_integer, items, wrong
from xpnet.viz.figure import COLOURS, axes_for, bare

WHO = "show_window"
LARGEST = 64        # rows and columns of a diagram
SPACE = 2           # cells between input and output
INPUT, PADDING, LINE = "#DCEBF7", "#FFFFFF", "#707070"
TAP, OUTPUT, CHOSEN = COLOURS[4], "#D5EEE4", COLOURS[2]


def show_window(window: Window, size: int | tuple[int, int], at: tuple[int, int] = (0, 0), *,
                ax: Any = None) -> Any:
    """A diagram of a window: the input with its padding on the left, the output on the right.

    The elements that the output element `at` reads are orange, the output element itself is dark
    green. Padding has dotted lines. A dot marks the first tap of each window, so that the stride
    can be seen. In the manner of Dumoulin and Visin 2016.

    Args:
        window: e.g. xn.Window.make(3, stride=2, padding=1), or the `window` of a layer.
        size: (H, W) of the input, or one int for both.
        at: row and column of an output element.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: the window does not fit, or there is no such output element.
        ImportError: matplotlib is not installed.
    """
    expect_instance(WHO, "window", window, Window, "a Window")
    H, W = expect_sides(WHO, size, LARGEST)
    OH, OW = window.output_size(H, W, who=WHO)
    place = items(at)
    if (not place or len(place) != 2 or not is_integer(place[0], 0, OH - 1)
            or not is_integer(place[1], 0, OW - 1)):
        raise wrong(WHO, f"at to be the row and column of one of {OH} x {OW} output elements", "at",
                    at)
    top, bottom, left, right = window.padding
    high, wide = H + top + bottom, W + left + right
    if max(high, wide) > LARGEST:
        raise wrong(WHO, f"a padded input of at most {LARGEST} x {LARGEST}", "window", window)
    rows, columns = max(high, OH), wide + SPACE + OW
    axes = bare(axes_for(WHO, ax, 0.35 * columns + 0.4, 0.35 * rows + 0.8))
    reads = taps(window, (int(place[0]), int(place[1])))
    drop_in, drop_out = (rows - high) / 2, (rows - OH) / 2
    for y in range(-top, H + bottom):
        for x in range(-left, W + right):
            inside = 0 <= y < H and 0 <= x < W
            tap = (y, x) in reads
            _cell(axes, x + left, y + top + drop_in, TAP if tap else INPUT if inside else PADDING,
                  dotted=not inside)
    for y in range(OH):
        for x in range(OW):
            chosen = (y, x) == tuple(place)
            _cell(axes, wide + SPACE + x, y + drop_out, CHOSEN if chosen else OUTPUT)
    starts = np.array([(x * window.stride[1] + 0.5, y * window.stride[0] + 0.5 + drop_in)
                       for y in range(OH) for x in range(OW)])
    axes.plot(*starts.T, ".", color=LINE, markersize=4)
    axes.annotate("", (wide + SPACE - 0.3, rows / 2), (wide + 0.3, rows / 2),
                  arrowprops={"arrowstyle": "->", "color": LINE})
    axes.set(xlim=(-0.1, columns + 0.1), ylim=(rows + 0.1, -0.1), aspect="equal")
    axes.set_title(_text(window, H, W, OH, OW), fontsize=9)
    return axes.figure


def taps(window: Window, at: tuple[int, int]) -> set[tuple[int, int]]:
    """The rows and columns of the input that an output element reads; negative ones, and those
    beyond the input, are padding."""
    top, _, left, _ = window.padding
    return {(at[0] * window.stride[0] - top + i * window.dilation[0],
             at[1] * window.stride[1] - left + j * window.dilation[1])
            for i in range(window.kernel[0]) for j in range(window.kernel[1])}


def _cell(axes: Any, x: float, y: float, fill: str, dotted: bool = False) -> None:
    from matplotlib.patches import Rectangle
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=fill, edgecolor=LINE, linewidth=0.8,
                             linestyle=":" if dotted else "-"))


def _text(window: Window, H: int, W: int, OH: int, OW: int) -> str:
    parts = [f"kernel {_pair(window.kernel)}", f"stride {_pair(window.stride)}"]
    if window.padded:
        p = window.padding
        parts.append(f"padding {p[0] if len({*p}) == 1 else ', '.join(map(str, p))}")
    if window.dilation != (1, 1):
        parts.append(f"dilation {_pair(window.dilation)}")
    return ", ".join(parts) + f"\n{H} x {W} becomes {OH} x {OW}"


def _pair(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} x {pair[1]}"
