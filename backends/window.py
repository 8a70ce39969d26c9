"""Sliding windows: all arithmetic of kernel, stride, padding and dilation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from xpnet.backends.arguments import LARGEST, expect_flag, is_integer, wrong

Pair = int | tuple[int, int]
Padding = int | str | tuple[int, int] | tuple[int, int, int, int]
Ends = int | str | tuple[int, int]      # the padding of a signal


# elements of a window: layers have a weight, or make a view of the input, for each of them
MOST_TAPS = 1 << 26
MOST_STEPPING = 1 << 12     # windows that are checked one by one


@dataclass(frozen=True)
class Window:
    """A window that slides over the rows and columns of a feature map.

    Output row oy reads the input rows iy = oy * stride - padding_top + i * dilation for the taps i
    = 0 .. KH-1 (columns likewise), and rows outside 0 .. H-1 are padding. Along one axis there are

        OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1

    windows (Dumoulin and Visin 2016, relationship 14 and the ones before it). Some lecture notes
    print the sizes of pooling without the + 1: for 24 rows and windows of 2 with stride 2 that
    would be 11, and there are 12.
    """

    kernel: tuple[int, int]                             # (KH, KW)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)   # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)
    # for errors: the window is one of a signal, whose sizes are numbers of steps
    in_steps: bool = field(default=False, compare=False, repr=False)

    @classmethod
    def make(cls, kernel_size: Pair, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1,
             *, empty: bool = True, who: str = "Window") -> Window:
        """A window from users' arguments: ints or pairs; padding also as four ints (top, bottom,
        left, right) or "valid" (none), "half" = "same" (keeps the size at stride 1) or "full"
        (every overlap counts).

        With padding as large as the window, some windows are empty: they contain padding only. A
        convolution gives 0 there, but a maximum has no value: with empty=False such padding raises
        ValueError.
        """
        empty = expect_flag(who, "empty", empty)
        kernel = pair(kernel_size, "kernel_size", 1, who)
        strides = pair(stride, "stride", 1, who)
        dilations = pair(dilation, "dilation", 1, who)
        if kernel[0] * kernel[1] > MOST_TAPS:
            raise wrong(who, f"a window of at most {MOST_TAPS:,} elements", "kernel_size",
                        kernel_size)
        extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        pad = _padding(padding, extent, who)
        if not empty:
            _expect_overlap(pad[:2], extent[0], "rows", padding, who)
            _expect_overlap(pad[2:], extent[1], "columns", padding, who)
        return cls(kernel, strides, pad, dilations)

    @classmethod
    def in_row(cls, kernel_size: int, stride: int = 1, padding: Ends = 0, dilation: int = 1, *,
               empty: bool = True, who: str = "Window") -> Window:
        """A window of one row, which slides along a signal: see `make`. All arguments are ints;
        padding also a pair (before, after), or a name."""
        empty = expect_flag(who, "empty", empty)
        row = cls.make(along(kernel_size, "kernel_size", 1, who), along(stride, "stride", 1, who),
                       padding if isinstance(padding, str) else ends(padding, "padding", who),
                       along(dilation, "dilation", 1, who), who=who)
        if not empty:
            _expect_overlap(row.padding[2:], row.extent[1], "steps", padding, who)
        return replace(row, in_steps=True)

    @property
    def taps(self) -> int:
        """Number of elements in the window: KH * KW."""
        return self.kernel[0] * self.kernel[1]

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns that the window spans, including the gaps of a dilation."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1) + 1, dw * (kw - 1) + 1

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return any(self.padding)

    @property
    def pointwise(self) -> bool:
        """Whether each window is one element and each element has a window: such a 1x1 convolution
        is a GEMM on its input."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not self.padded

    @property
    def gradient_padding(self) -> tuple[int, int, int, int]:
        """The padding with which, at stride 1, the input gradient is a convolution of dy with
        flipped filters.

        x[iy] is read by tap i of output oy = iy + top - i * dilation. So dx[iy] reads a window of
        dy that begins (KH - 1) * dilation - top rows above iy. Negative if a window contains
        padding only.
        """
        (high, wide), (top, bottom, left, right) = self.extent, self.padding
        return high - 1 - top, high - 1 - bottom, wide - 1 - left, wide - 1 - right

    @property
    def flipped(self) -> Window | None:
        """The window of the convolution that computes the input gradient. None if the stride is not
        1 or the gradient padding is negative: then the gradient is not a convolution."""
        padding = self.gradient_padding
        return (Window(self.kernel, (1, 1), padding, self.dilation)
                if self.stride == (1, 1) and min(padding) >= 0 else None)

    def output_size(self, height: int, width: int, *, who: str = "Window") -> tuple[int, int]:
        """(OH, OW) for an input of height x width. Raises ValueError if the window is larger than
        the padded input."""
        top, bottom, left, right = self.padding
        sizes = height + top + bottom, width + left + right
        if any(extent > size for extent, size in zip(self.extent, sizes, strict=True)):
            raise ValueError(f"{who}: expected an input at least as large as the window, "
                             f"{self._shown(*self.extent)}. Received: "
                             f"{self._shown(height, width)}, padded to {self._shown(*sizes)}.")
        oh, ow = ((size - extent) // stride + 1
                  for size, extent, stride in zip(sizes, self.extent, self.stride, strict=True))
        return oh, ow

    def input_size(self, height: int, width: int, extra: Pair = 0, *, who: str = "Window"
                   ) -> tuple[int, int]:
        """(H, W) of an input that has height x width windows: the output size of a transposed
        convolution of height x width.

            H = (height - 1) stride - top - bottom + dilation (KH - 1) + 1 + extra

        `extra` is smaller than the stride or than the dilation, as in PyTorch. Below the stride it
        chooses among the sizes that have the same windows (Dumoulin and Visin 2016, relationship
        14).
        """
        return self.transposed(height, width, extra, who=who).size

    def transposed(self, height: int, width: int, extra: Pair = 0, *, who: str = "Window"
                   ) -> Transposed:
        """How to compute a transposed convolution of height x width: see input_size and
        Transposed."""
        extras = pair(extra, "output_padding", 0, who)
        if any(e >= max(s, d) for e, s, d in zip(extras, self.stride, self.dilation, strict=True)):
            given = extras[1] if self.in_steps else extra
            raise ValueError(f"{who}: expected output_padding smaller than the stride or the "
                             f"dilation. Received: output_padding={given!r}, "
                             f"stride={self._along(self.stride)}, "
                             f"dilation={self._along(self.dilation)}.")
        padding, sizes, read = list(self.padding), [], []
        for axis, (n, s, extent, e) in enumerate(
                zip((height, width), self.stride, self.extent, extras, strict=True)):
            before, after = self.padding[2 * axis:2 * axis + 2]
            sizes.append((n - 1) * s - before - after + extent + e)
            # One more window would fit: padding is removed first; the rest of `e` reads nothing.
            if e >= s:
                padding[2 * axis + 1] = after = max(after - e, 0)
            read.append(min(sizes[-1], n * s - before - after + extent - 1))
        if min(sizes) < 1 or min(read) < 1:
            raise ValueError(f"{who}: expected an output of {self._shown(1, 1)} at least. "
                             f"Received: {self._shown(height, width)} with padding "
                             f"{self._along(self.padding)}, which leaves {self._shown(*sizes)}.")
        window = replace(self, padding=(padding[0], padding[1], padding[2], padding[3]))
        return Transposed(window, (read[0], read[1]), (sizes[0], sizes[1]))

    def tap(self, i: int, j: int, output_size: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the *padded* input that tap (i, j) reads, one for each output
        position."""
        return tuple(slice(k * d, k * d + s * (o - 1) + 1, s)       # type: ignore[return-value]
                     for k, d, s, o in zip((i, j), self.dilation, self.stride, output_size,
                                           strict=True))

    def inside(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Which taps are inside the input and not on padding: booleans (OH, KH) for rows and (OW,
        KW) for columns."""
        oh, ow = self.output_size(height, width)
        axes = zip((height, width), (oh, ow), self.kernel, self.stride,
                   (self.padding[0], self.padding[2]), self.dilation, strict=True)
        rows, columns = ((lambda at, size: (at >= 0) & (at < size))
                         (np.arange(o)[:, None] * s - before + np.arange(k) * d, size)
                         for size, o, k, s, before, d in axes)
        return rows, columns

    def check_no_empty_window(self, height: int, width: int, *, who: str = "Window") -> None:
        """Raise ValueError if a window contains padding only. (The taps of a dilated window can all
        miss a small input.)"""
        axes = zip((height, width), self.output_size(height, width), self.kernel, self.stride,
                   (self.padding[0], self.padding[2]), self.dilation, strict=True)
        if (not all(_all_see_input(size, windows, k, s, before, d, who)
                    for size, windows, k, s, before, d in axes)):
            raise ValueError(f"{who}: expected every window to contain at least one element of the "
                             f"input. Received: {self._shown(height, width)} with kernel "
                             f"{self._along(self.kernel)}, dilation {self._along(self.dilation)}, "
                             f"padding {self._along(self.padding)}.")

    def ceil(self, height: int, width: int) -> Window:
        """The window with larger padding at the bottom and right, so that the last, partial window
        counts too.

        A last window that would start in the bottom or right padding is left out, as in other
        frameworks.
        """
        top, bottom, left, right = self.padding
        grown = []
        for size, before, after, extent, stride in (
                (height, top, bottom, self.extent[0], self.stride[0]),
                (width, left, right, self.extent[1], self.stride[1])):
            steps = -(-(size + before + after - extent) // stride)
            if steps * stride >= size + before:
                steps -= 1
            grown.append(max(after, steps * stride + extent - size - before))
        return replace(self, padding=(top, grown[0], left, grown[1]))

    def _shown(self, height: int, width: int) -> str:
        return shown_size(height, width, self.in_steps)

    def _along(self, numbers: tuple[int, ...]) -> object:
        """Those of the rows and columns, or of the steps: one number, or the padding as a pair."""
        if not self.in_steps:
            return numbers
        return numbers[1] if len(numbers) == 2 else numbers[2:]


def shown_size(height: int, width: int, in_steps: bool) -> str:
    """A size in an error: that of a map, or of a signal, which is a map of one row."""
    return f"{width} step{'s' * (width != 1)}" if in_steps else f"{height}x{width}"


def _expect_overlap(pad: Sequence[int], extent: int, axis: str, padding: object, who: str) -> None:
    """ValueError if a window can be wholly in the padding (before, after)."""
    if max(pad) >= extent:
        raise ValueError(f"{who}: expected padding smaller than the {extent} {axis} that the "
                         "window spans, so that no window is wholly in padding. "
                         f"Received: padding={padding!r}.")


def _all_see_input(size: int, windows: int, taps: int, stride: int, before: int, dilation: int,
                   who: str) -> bool:
    """Whether each window along an axis has a tap inside the input. Makes no table, which could be
    larger than the input."""
    # Two neighbouring taps cannot skip the input: only the first and the last window can miss it.
    if dilation <= size:
        return dilation * (taps - 1) >= before and (windows - 1) * stride - before < size
    if windows > MOST_STEPPING:
        raise ValueError(f"{who}: expected at most {MOST_STEPPING:,} windows along an axis if "
                         f"the dilation is larger than the input. Received: {windows:,} windows, "
                         f"a dilation of {dilation} and an input of {size}.")
    start = np.arange(windows) * stride - before
    tap = np.maximum(-(start // dilation), 0)       # the first one that is not before the input
    return bool(((tap < taps) & (start + tap * dilation < size)).all())


class Transposed(NamedTuple):
    """A transposed convolution: its output has `size`. A convolution with `window` reads the first
    `read` rows and columns of it; the others are 0 before the bias is added. If output_padding is
    smaller than the stride, it reads all."""

    window: Window
    read: tuple[int, int]
    size: tuple[int, int]

    def grown(self, backend: Any, z: Any) -> Any:
        """z (C, *read, N), padded with zeros to (C, *size, N)."""
        if self.read == self.size:
            return z
        out = backend.zeros((len(z), *self.size, z.shape[3]), z.dtype)
        out[:, :self.read[0], :self.read[1]] = z
        return out

    def cut(self, backend: Any, dz: Any) -> Any:
        """The part (C, *read, N) of dz (C, *size, N), contiguous."""
        return (dz if self.read == self.size
                else backend.asarray(dz[:, :self.read[0], :self.read[1]]))


def _integers(value: object, name: str, counts: tuple[int, ...], least: int,
              who: str) -> tuple[int, ...]:
    items = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if len(items) not in counts or not all(is_integer(item, least, LARGEST) for item in items):
        kinds = " or ".join({1: "an int", 2: "a pair of ints", 4: "four ints"}[count]
                            for count in counts)
        raise wrong(who, f"{name} to be {kinds}, {least} or larger", name, value)
    return tuple(int(item) for item in items)


POINTS = Window((1, 1))     # each element by itself


def pair(value: object, name: str, least: int, who: str) -> tuple[int, int]:
    """(rows, columns) from an int or a pair of ints, `least` or larger. Raises ValueError for
    anything else."""
    numbers = _integers(value, name, (1, 2), least, who)
    return numbers[0], numbers[-1]


def along(value: object, name: str, least: int, who: str) -> tuple[int, int]:
    """(rows, columns) of a map of one row from an int, `least` or larger; in the direction of the
    rows it is `least`. Raises ValueError for anything else."""
    number, = _integers(value, name, (1,), least, who)
    return least, number


def _padding(padding: object, extent: Sequence[int], who: str) -> tuple[int, int, int, int]:
    if isinstance(padding, str):
        around = {"valid": lambda n: (0, 0), "half": lambda n: ((n - 1) // 2, n // 2),
                  "same": lambda n: ((n - 1) // 2, n // 2),
                  "full": lambda n: (n - 1, n - 1)}.get(padding)
        if around is None:
            raise wrong(who, 'padding "valid", "half", "same" or "full", or ints', "padding",
                        padding)
        return (*around(extent[0]), *around(extent[1]))
    return sides(padding, "padding", who)


def sides(value: object, name: str, who: str) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) from an int, a pair (rows, columns) or these four. Raises
    ValueError for anything else."""
    numbers = _integers(value, name, (1, 2, 4), 0, who)
    if len(numbers) == 4:
        return numbers[0], numbers[1], numbers[2], numbers[3]
    return numbers[0], numbers[0], numbers[-1], numbers[-1]


def ends(value: object, name: str, who: str) -> tuple[int, int, int, int]:
    """`sides` of a map of one row, from an int or a pair (before, after). Raises ValueError for
    anything else."""
    numbers = _integers(value, name, (1, 2), 0, who)
    return 0, 0, numbers[0], numbers[-1]
