"""Problems for the checks of the CUDA kernels: what a kernel is run on, and the circumstances that
must not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from parity import normal, same_bits, special, ties
from tiers import Number

from xpnet.backends import Backend, Window
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend

# the backend on the shim, the words that kernels' names contain, and how many examples are drawn
Check = Callable[[CupyBackend, list[str], Number], None]
Mutant = tuple[str, str, str, str]  # file, what stands there, what instead, check that notices
base = Backend()

SEED = 0                            # of what hypothesis draws


@contextmanager
def other_limits(**limits: Any) -> Iterator[None]:
    """Other values of MAX_GRID, THREADS .. in launch.py, which remembers the launches of shapes."""
    def change(values: dict[str, Any]) -> None:
        vars(cuda_launch).update(values)
        for function in vars(cuda_launch).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()

    before = {name: getattr(cuda_launch, name) for name in limits}
    change(limits)
    try:
        yield
    finally:
        change(before)


@dataclass
class Setting:
    """One way to run a kernel: the problem, and circumstances that must not matter."""

    backend: CupyBackend
    shape: tuple[int, int, int, int]        # (C, H, W, N)
    window: Window
    dtype: Any
    data: Callable[..., np.ndarray]
    offset: int  # elements by which inputs are shifted from an aligned address
    backwards: bool                         # threads and blocks in the opposite order

    def output(self) -> tuple[int, int, int, int]:
        return (self.shape[0], *self.window.output_size(*self.shape[1:3]), self.shape[3])

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.data(*shape, dtype=self.dtype)

    def to_device(self, a: np.ndarray) -> Any:
        """`a` on the device, contiguous, `offset` elements behind an aligned address; its buffer
        ends where `a` does."""
        buffer = self.backend.empty((self.offset + a.size,), a.dtype)
        view = buffer[self.offset:].reshape(a.shape)
        view[...] = self.backend.asarray(a)
        return view

    def agree(self, results: Any, expected: Any) -> None:
        results, expected = (r if isinstance(r, tuple) else (r,) for r in (results, expected))
        for result, right in zip(results, expected):
            assert same_bits(self.backend.to_numpy(result),
                             right), f"{self}\n{self.backend.to_numpy(result)}\n{right}"


@st.composite
def axis(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    """(size, kernel, stride, before, after, dilation) of one axis, with a window that fits."""
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    extent = dilation * (kernel - 1) + 1
    # some windows lie wholly in padding
    most = extent - 1 if draw(st.integers(0, 3)) else extent + 2
    before, after = draw(st.integers(0, most)), draw(st.integers(0, most))
    least = max(1, extent - before - after)
    return (draw(st.integers(least, least + 6)), kernel, draw(st.integers(1, 3)), before, after,
            dilation)


def problems(backend: CupyBackend, words: list[str]) -> st.SearchStrategy[Setting]:
    types = ([dtype for dtype, name in cuda_launch.TYPES.items()
              if any(word in f"<{name}," for word in words)])

    @st.composite
    def problem(draw: st.DrawFn) -> Setting:
        (H, kh, sh, top, bottom, dh), (W, kw, sw, left, right, dw) = draw(axis()), draw(axis())
        window = Window((kh, kw), (sh, sw), (top, bottom, left, right), (dh, dw))
        N = draw(st.sampled_from((1, 2, 3, 4, 5, 7, 8, 16, 17, 33)))
        return Setting(backend, (draw(st.integers(1, 4)), H, W, N), window,
                       draw(st.sampled_from(types)), draw(st.sampled_from((normal, ties, special))),
                       draw(st.sampled_from((0, 0, 1, 2))),
                       draw(st.booleans()))
    return problem()


def wide(s: Setting, a: np.ndarray) -> np.ndarray:
    """Halves are added in float, and rounded once."""
    return a.astype(np.float32) if s.dtype == np.float16 else a


def grid(check: Callable[[Setting], None], examples: int = 120) -> Check:
    """The check over a grid of problems that hypothesis draws, the same at every run."""
    def run_grid(backend: CupyBackend, words: list[str], number: Number) -> None:
        # A seed instead of derandomize, whose draws change with the source of this function.
        @seed(SEED)
        @settings(max_examples=number(examples), derandomize=False, database=None, deadline=None,
                  phases=[Phase.generate])
        @given(problems(backend, words))
        def over_the_grid(s: Setting) -> None:
            for library in backend.xp.libraries:
                library.run_backwards(s.backwards)
            with np.errstate(all="ignore"):
                check(s)
        over_the_grid()
    return run_grid
