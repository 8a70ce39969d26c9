"""What every function of this package does with its arguments: checks, the backend, the layout."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from xpnet.backends import Backend, BackendError, Window, get_backend
from xpnet.checks import expect_choice, expect_no_mask, is_integer, items, wrong

Array = Any
Shape = tuple[int, ...]

LAYOUTS = "NCHW", "CHWN"


class Call:
    """One call: its name in errors, the backend that follows from its arrays, conversion in and
    out.

    Sizes are (C, H, W, N) in here, whatever the layout.

    Args:
        images: arrays with a batch axis, in the layout.
        others: arrays with the names of their axes, "" if shape and dtype are checked elsewhere.
        half: allow float16 on a GPU.
        axes: names of the axes of `images` without the batch.
    """

    def __init__(self, who: str, layout: str, backend: str | Backend, images: Mapping[str, Array],
                 others: dict[str, tuple[Array, str]], half: bool = True, axes: str = "C, H, W"
                 ) -> None:
        layout = expect_choice(who, "layout", layout, LAYOUTS)
        self.who, self.batch_first = who, layout == "NCHW"
        named = ", ".join(filter(None, ("N", axes) if self.batch_first else (axes, "N")))
        given = {name: (a, named) for name, a in images.items()} | others
        self.backend = _backend(who, {name: a for name, (a, _) in given.items()}, backend)
        for name, (a, wanted) in given.items():
            if wanted and (a.ndim != wanted.count(",") + 1 or 0 in a.shape):
                raise ValueError(f"{who}: expected {name} of shape ({wanted}), none of them 0. "
                                 f"Received: {tuple(a.shape)}.")
        types = [np.dtype(np.float32), np.dtype(np.float64)]
        if half and self.backend.xp is not np:
            types.append(np.dtype(np.float16))
        received = {name: a.dtype for name, (a, wanted) in given.items() if wanted}
        if len(set(received.values())) > 1 or not set(received.values()) <= set(types):
            found = ", ".join(f"{name} of {dtype}" for name, dtype in received.items())
            raise TypeError(f"{who}: expected arrays of one dtype, {' or '.join(map(str, types))}. "
                            f"Received: {found}.")

    # --- arrays in and out ------------------------------------------------------------------------

    def inward(self, image: Array) -> Array:
        """Batch-last and contiguous; it may be a view of `image`."""
        if not self.batch_first:
            return self.backend.asarray(image)
        if len(image) == 1:     # the same bytes in both layouts
            return self.backend.asarray(image).reshape(*image.shape[1:], 1)
        return self.backend.gather_batch(image, None, image.dtype)

    def outward(self, y: Array) -> Array:
        """y (..., N), which belongs to this call, in the layout.

        The elements of a sample are gathered as if they were samples.
        """
        *sample, N = y.shape
        if not self.batch_first:
            return y
        rows = y if N == 1 else self.backend.gather_batch(y.reshape(-1, N), None, y.dtype)
        return rows.reshape(N, *sample)

    def ready(self, a: Array | None) -> Array | None:
        return None if a is None else self.backend.asarray(a)

    def row_sums(self, dy: Array) -> Array:
        """db[c] = sum of dy (C, H, W, N) over all axes except the first."""
        db = self.backend.empty(dy.shape[:1], dy.dtype)
        self.backend.activation_backward(dy, dy, None, bias_grad=db)
        return db

    def filters(self, W: Array) -> Array:
        """W as filters (F, C/groups, KH, KW)."""
        return self.backend.asarray(W)

    def kernel_size(self, W: Array) -> Any:
        """(KH, KW) of W."""
        return W.shape[2:]

    # --- windows ----------------------------------------------------------------------------------

    def window(self, kernel_size: Any, stride: Any, padding: Any, dilation: Any, **options: bool
               ) -> Window:
        """The window of these arguments."""
        return Window.make(kernel_size, stride, padding, dilation, who=self.who, **options)

    def extra(self, output_padding: Any) -> Any:
        """output_padding, for rows and columns."""
        return output_padding

    # --- shapes -----------------------------------------------------------------------------------

    def sizes(self, image: Array) -> Shape:
        """(C, H, W, N) of an image."""
        return self.inside(tuple(image.shape))

    def outer(self, sizes: Shape) -> Shape:
        """A shape with the batch as its last axis, in the layout."""
        return (sizes[-1], *sizes[:-1]) if self.batch_first else sizes

    def given(self, x_shape: Sequence[int]) -> Shape:
        """(C, H, W, N) of a shape that was passed in the layout."""
        return self.inside(self.expect_shape(x_shape, 4, "four"))

    def expect_shape(self, x_shape: Sequence[int], axes: int, named: str) -> Shape:
        shape = tuple(items(x_shape) or ())
        if len(shape) != axes or not all(is_integer(s, 1) for s in shape):
            raise wrong(self.who, f"x_shape to be {named} ints, 1 or larger", "x_shape", x_shape)
        return tuple(int(s) for s in shape)

    def inside(self, shape: Shape) -> Shape:
        """A shape in the layout with the batch as its last axis."""
        return (*shape[1:], shape[0]) if self.batch_first else shape

    def expect(self, name: str, a: Array | None, shape: Sequence[int]) -> None:
        if a is not None and tuple(a.shape) != tuple(shape):
            raise ValueError(f"{self.who}: expected {name} of shape {tuple(shape)}. "
                             f"Received: {tuple(a.shape)}.")

    def expect_argmax(self, argmax: Array, window: Window) -> None:
        if argmax.dtype != Backend.argmax_dtype(window):
            raise TypeError(f"{self.who}: expected the argmax that max_pool2d gives, of "
                            f"{Backend.argmax_dtype(window)}. Received: argmax of {argmax.dtype}.")

    def expect_per_channel(self, x: Array, vectors: Mapping[str, Array]) -> None:
        for name, a in vectors.items():
            self.expect(name, a, self.sizes(x)[:1])


def elementwise_call(who: str, layout: str, backend: str | Backend, images: dict[str, Array]
                     ) -> Call:
    """A call on arrays of any shape."""
    ndim = max(getattr(next(iter(images.values())), "ndim", 1), 1)
    return Call(who, layout, backend, images, {}, axes=", ".join(["..."] * (ndim - 1)))


def classes_call(who: str, layout: str, backend: str | Backend, images: dict[str, Array],
                 others: Any = None) -> Call:
    """A call on arrays (N, K), (N, K, T) or (N, K, H, W)."""
    axes = {3: "K, T", 4: "K, H, W"}.get(getattr(next(iter(images.values())), "ndim", 2), "K")
    return Call(who, layout, backend, images, others or {}, axes=axes)


def _backend(who: str, arrays: Mapping[str, Array], wanted: str | Backend) -> Backend:
    """The backend of these arrays: "auto" is the GPU that holds them, or the fastest backend of the
    CPU."""
    cupy = sys.modules.get("cupy")          # imported by whoever made an array of CuPy's
    devices: dict[str, str] = {}
    for name, a in arrays.items():
        if isinstance(a, np.ndarray):
            expect_no_mask(f"{who}: {name}", a)
            devices[name] = "cpu"
        elif cupy is not None and isinstance(a, cupy.ndarray):
            devices[name] = f"cupy:{a.device.id}"
        else:
            raise TypeError(f"{who}: expected {name} to be a NumPy or CuPy array. "
                            f"Received: {type(a).__name__}.")
    device, *others = dict.fromkeys(devices.values())
    if isinstance(wanted, str):
        chosen = _shared(device if wanted == "auto" else wanted)
    else:
        chosen = get_backend(wanted)
    if others or device != ("cpu" if chosen.xp is np else chosen.name):
        raise ValueError(f"{who}: expected all arrays in the backend's memory. "
                         f"Received: backend {chosen.name}, "
                         f"{', '.join(f'{name} on {where}' for name, where in devices.items())}.")
    return chosen


@cache
def _shared(name: str) -> Backend:
    """The backend of that name, made once per process; "cpu" is Numba if it is installed, else
    NumPy."""
    if name != "cpu":
        return get_backend(name)
    try:
        return _shared("numba")
    except BackendError:
        return _shared("numpy")
