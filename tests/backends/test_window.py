"""Window: sizes and indices, against windows that are visited one by one."""

import itertools
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import starts

from xpnet import Backend, Window

sizes = st.integers(1, 12)


@st.composite
def windows(draw, beyond: int = 2) -> tuple[Window, int, int]:
    """Any window whose padding is up to `beyond` larger than it, and an input that is large enough
    for it."""
    kernel, stride, dilation = (draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
                                for _ in range(3))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    padding = tuple(draw(st.integers(0, e + beyond))
                    for e in (extent[0], extent[0], extent[1], extent[1]))
    height = draw(sizes.map(lambda n: max(n, extent[0] - padding[0] - padding[1])))
    width = draw(sizes.map(lambda n: max(n, extent[1] - padding[2] - padding[3])))
    return Window.make(kernel, stride, padding, dilation, empty=beyond >= 0), height, width


def walked(window: Window, height: int, width: int, ceil: bool = False
           ) -> tuple[list[int], list[int]]:
    """First row and first column of every window."""
    top, bottom, left, right = window.padding
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    return (starts(height, top, bottom, kh, sh, dh, ceil),
            starts(width, left, right, kw, sw, dw, ceil))


@given(windows())
def test_output_size_counts_the_windows(drawn):
    window, height, width = drawn
    rows, columns = walked(window, height, width)
    assert window.output_size(height, width) == (len(rows), len(columns))


@given(windows())
def test_tap_reads_one_element_of_each_window(drawn):
    window, height, width = drawn
    top, bottom, left, right = window.padding
    rows, columns = walked(window, height, width)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            in_rows, in_columns = window.tap(i, j, window.output_size(height, width))
            assert list(range(height + top + bottom)[in_rows]) == [
                top + r + i * window.dilation[0] for r in rows]
            assert list(range(width + left + right)[in_columns]) == [
                left + c + j * window.dilation[1] for c in columns]


@given(windows())
def test_inside_tells_input_from_padding(drawn):
    window, height, width = drawn
    for inside, begin, size, kernel, dilation in zip(
            window.inside(height, width), walked(window, height, width), (height, width),
            window.kernel, window.dilation):
        assert inside.dtype == bool
        assert inside.tolist() == [[0 <= start + k * dilation < size for k in range(kernel)]
                                   for start in begin]


@given(windows())
def test_no_empty_window(drawn):
    window, height, width = drawn
    rows, columns = window.inside(height, width)
    if rows.any(axis=1).all() and columns.any(axis=1).all():
        window.check_no_empty_window(height, width)
    else:
        with pytest.raises(
                ValueError,
                match="expected every window to contain at least one element of the input"):
            window.check_no_empty_window(height, width)


@given(windows(beyond=-1))
def test_ceil_adds_the_window_that_hangs_over_the_end(drawn):
    window, height, width = drawn
    rows, columns = walked(window, height, width, ceil=True)
    grown = window.ceil(height, width)
    assert grown.output_size(height, width) == (len(rows), len(columns))
    assert grown.kernel == window.kernel and grown.stride == window.stride
    assert grown.dilation == window.dilation
    assert (grown.padding[0], grown.padding[2]) == (window.padding[0], window.padding[2])
    assert grown.padding[1] < window.extent[0] and grown.padding[3] < window.extent[1]


@given(windows())
def test_half_keeps_the_size_and_full_counts_every_overlap(drawn):
    window, height, width = drawn
    half = Window.make(window.kernel, 1, "half", window.dilation)
    assert half == Window.make(window.kernel, 1, "same", window.dilation)
    assert half.output_size(height, width) == (height, width)
    full = Window.make(window.kernel, 1, "full", window.dilation)
    assert full.output_size(height, width) == (height + window.extent[0] - 1,
                                               width + window.extent[1] - 1)


@pytest.mark.parametrize("arguments, height, expected", [
    ((5,), 28, 24),                 # LeNet-5's C1 on 28 pixels
    ((2, 2), 24, 12),               # a pooling with windows of 2
    ((3, 1, 1), 8, 8),
    ((7, 2, 3), 224, 112),          # ResNet's first convolution
    ((3, 2, 1), 112, 56),           # and its pooling
    ((3, 1, 0, 2), 7, 3),           # dilated: the window spans 5
    ((3, 1, "valid"), 7, 5),
    ((4, 1, "half"), 7, 7),
    ((3, 1, "full"), 7, 9),
])
def test_sizes_of_the_literature(arguments, height, expected):
    assert Window.make(*arguments).output_size(height, height) == (expected, expected)


def test_ways_to_write_the_same_window():
    window = Window.make((3, 5), (2, 1), (1, 1, 2, 2), (1, 1))
    assert window == Window((3, 5), (2, 1), (1, 1, 2, 2), (1, 1))
    assert window == Window.make([3, 5], (2, 1), (1, 2), 1)
    assert window == Window.make((np.int64(3), np.int32(5)), (2, 1), (1, 2))
    assert (Window.make(3, padding=1) == Window.make(3, padding="half")
            == Window.make(3, padding=(1, 1, 1, 1)))
    assert Window.make(4, padding="half").padding == (1, 2, 1, 2)  # the odd one goes to the end
    assert {type(n) for n in Window.make(np.int64(3), np.int64(2), np.int64(1)).padding} == {int}
    assert hash(window) == hash(Window.make((3, 5), (2, 1), (1, 2)))


def test_properties_of_a_window():
    window = Window.make((3, 2), dilation=(2, 3))
    assert (window.taps, window.extent, window.padded,
            window.pointwise) == (6, (5, 4), False, False)
    assert Window.make(1).pointwise
    assert not Window.make(1, stride=2).pointwise
    assert Window.make(3, padding=(0, 0, 0, 1)).padded
    with pytest.raises(FrozenInstanceError):
        window.kernel = (1, 1)


PAIR = "Window: expected {0} to be an int or a pair of ints, 1 or larger. Received: {0}={1}."
PADDING = ("Window: expected padding to be an int or a pair of ints or four ints, 0 or larger. "
           "Received: padding={}.")
PADDED = ("Window: expected padding smaller than the {} that the window spans, so that no window "
          "is wholly in padding. Received: padding={}.")


@pytest.mark.parametrize("arguments, text", [
    *[({"kernel_size": bad}, PAIR.format("kernel_size", repr(bad)))
      for bad in (0, -1, 2.0, True, None, "3", (), (1, 2, 3), (3, 0), (3, 2.5), (True, 1), [[1, 2]],
                  np.ones(2))],
    *[({"kernel_size": 3, name: bad}, PAIR.format(name, repr(bad)))
      for name in ("stride", "dilation") for bad in (0, -2, 1.0, False, (1, 1, 1, 1), None, "1")],
    *[({"kernel_size": 3, "padding": bad}, PADDING.format(repr(bad)))
      for bad in (-1, (0, -1), 1.0, True, None, (1, 2, 3), (1, 1, 1, 1, 1), (0, 0, 0, "1"))],
    ({"kernel_size": 3, "padding": "SAME"},
     'Window: expected padding "valid", "half", "same" or "full", or ints. Received: '
     'padding=\'SAME\'.'),
    ({"kernel_size": 3, "padding": 3, "empty": False}, PADDED.format("3 rows", "3")),
    ({"kernel_size": (3, 2), "padding": 2, "empty": False}, PADDED.format("2 columns", "2")),
    ({"kernel_size": 2, "dilation": 2, "padding": (0, 3, 0, 0), "empty": False},
     PADDED.format("3 rows", "(0, 3, 0, 0)")),
    ({"kernel_size": 1, "padding": 1, "empty": False, "who": "Conv2d 'conv1'"},
     PADDED.format("1 rows", "1").replace("Window", "Conv2d 'conv1'")),
], ids=lambda value: None if isinstance(value, str) else str(value))
def test_errors_of_make(arguments, text):
    with pytest.raises(ValueError) as error:
        Window.make(**arguments)
    assert str(error.value) == text


def test_a_window_larger_than_the_padded_input():
    with pytest.raises(ValueError) as error:
        Window.make(5, padding=1).output_size(2, 9, who="Conv2d 'c'")
    assert str(error.value) == ("Conv2d 'c': expected an input at least as large as the window, "
                                "5x5. Received: 2x9, padded to 4x11.")


def test_a_dilated_window_without_input_elements():
    with pytest.raises(ValueError) as error:
        Window.make(2, dilation=4, padding=2).check_no_empty_window(1, 5, who="MaxPool2d")
    assert str(error.value) == ("MaxPool2d: expected every window to contain at least one element "
                                "of the input. Received: 1x5 with kernel (2, 2), dilation (4, 4), "
                                "padding (2, 2, 2, 2).")


def test_windows_without_input_are_found_without_visiting_each():
    """The check agrees with the table of all taps, for every small window."""
    found = {True: 0, False: 0}
    for size, kernel, stride, dilation in itertools.product(
            range(1, 6), range(1, 4), range(1, 4), range(1, 8)):
        for before, after in itertools.product(range(0, 9, 2), range(3)):
            window = Window((kernel, 1), (stride, 1), (before, after, 0, 0), (dilation, 1))
            if window.extent[0] > size + before + after:
                continue
            fine = bool(window.inside(size, 1)[0].any(axis=1).all())
            found[fine] += 1
            if fine:
                window.check_no_empty_window(size, 1)
            else:
                with pytest.raises(
                        ValueError,
                        match="expected every window to contain at least one element of the input"):
                    window.check_no_empty_window(size, 1)
    assert min(found.values()) > 500


def test_windows_of_any_size_are_checked_at_once():
    Window((1 << 40, 1), padding=(1 << 39, 1 << 39, 0, 0)).check_no_empty_window(1 << 50, 1)
    with pytest.raises(ValueError, match="expected every window to contain"):
        Window((2, 1), padding=(1 << 50, 0, 0, 0)).check_no_empty_window(1 << 50, 1)
    with pytest.raises(ValueError, match="MaxPool2d: expected at most 4,096 windows along an axis "
                                         "if the dilation is larger"):
        Window((1 << 20, 1), padding=(1 << 40, 0, 0, 0),
               dilation=(9, 1)).check_no_empty_window(8, 1, who="MaxPool2d")
    for kernel_size in (20000, (1 << 26, 2), 1 << 40):
        with pytest.raises(ValueError, match="Conv2d: expected a window of at most 67,108,864 "
                                             "elements. Received: kernel_size="):
            Window.make(kernel_size, who="Conv2d")
    assert Window.make((1 << 26, 1)).taps == 1 << 26


@given(windows(beyond=0), st.booleans())
def test_the_flipped_window_gives_the_input_gradient(drawn, steps_of_one):
    """A convolution of dy with flipped filters, or None if there is no such convolution."""
    window, H, W = drawn
    if steps_of_one:
        window = Window(window.kernel, (1, 1), window.padding, window.dilation)
    flipped = window.flipped
    possible = window.stride == (1, 1) and min(window.gradient_padding) >= 0
    assert (flipped is not None) == possible
    if flipped is not None:
        assert (flipped.output_size(*window.output_size(H, W)) == (H, W)
                and flipped.flipped == window)
        rng = np.random.default_rng(0)
        filters = rng.normal(size=(2, 3, *window.kernel))
        dy = rng.normal(size=(2, *window.output_size(H, W), 2))
        turned = np.ascontiguousarray(filters[:, :, ::-1, ::-1].swapaxes(0, 1))
        np.testing.assert_allclose(Backend().conv2d(dy, turned, flipped),
                                   Backend().conv2d_dx(dy, filters, (3, H, W, 2), window),
                                   atol=1e-12)
