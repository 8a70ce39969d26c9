"""Matrix products on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import cublas, plans
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.plans import ACROSS_K, ALONG_K, CUBLAS, Math, Plan

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


NO_IMAGE = np.zeros((), plans.IMAGE)[()]
# {type of the elements: type of the sums}
SUMS = {dtype: np.dtype(np.float32) if dtype == np.float16 else dtype
        for dtype in cuda_launch.TYPES}
ONE_SPLIT = Plan(0, 0, 1, 0)            # for sums that are complete
# most rows, columns and depth of a product: 32-bit integers, less one tile past the end
LARGEST = 2**31 - 2**16


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    return {"product": (*plans.kernel_names(),
                        *(f"{kernel}<{name}>" for kernel in ("add_splits", "turn_filters")
                                                      for name in cuda_launch.TYPES.values()))}


class Operand(NamedTuple):
    """An array and how a product reads it: the direction of its lines, and the number of elements
    from one line to the next and from one group to the next.

    With a window the array is an image, and the operand is the matrix of its columns (ACROSS_K) or
    the transpose of that matrix (ALONG_K).
    """

    array: Array
    order: str
    line: int
    group: int = 0
    window: np.void | None = None

    def wide(self, rows: int, depth: int) -> bool:
        """Whether all copies can be 16 bytes wide: addresses and lengths are multiples of 16
        bytes."""
        along = depth if self.order == ALONG_K else rows
        sizes = ((along, self.line, self.group) if self.window is None
                 else (int(self.window["N"]),))
        return (self.array.data.ptr % cuda_launch.ACCESS == 0
                and all(size * self.array.itemsize % cuda_launch.ACCESS == 0 for size in sizes))


class Result(NamedTuple):
    """The array that a product is written to, with `line` elements from row to row and `group` from
    group to group, and the operations that follow the product."""

    array: Array
    line: int
    group: int
    bias: Array | None
    activation: str | None
    accumulate: bool


def gemm(self: CupyBackend, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False,
         bias: Array | None = None, activation: str | None = None, out: Array | None = None,
         accumulate: bool = False) -> Array:
    if activation not in cuda_launch.ACTIVATIONS:
        y = self.gemm(a, b, trans_a=trans_a, trans_b=trans_b, bias=bias)
        return self.store(self.activate(y, activation), out, accumulate)
    (K, M), (N, depth) = (a.shape if trans_a else a.shape[::-1]), (
        b.shape if trans_b else b.shape[::-1])
    if (not multiplies(self, a, b, bias) or min(M, N, K) == 0 or max(M, N, K) > LARGEST
        or depth != K):
        return Backend.gemm(self, a, b, trans_a=trans_a, trans_b=trans_b, bias=bias,
                            activation=activation, out=out, accumulate=accumulate)
    a, b = self._contiguous(a), self._contiguous(b)
    direct = self._is_direct(out, a.dtype, a, b, bias)
    c = out if out is not None and direct else self.empty((M, N), a.dtype)
    self._product(math_for(self, a.dtype, "gemm"), (1, M, N, K),
                  Operand(a, ACROSS_K if trans_a else ALONG_K, a.shape[1]),
                  Operand(b, ALONG_K if trans_b else ACROSS_K, b.shape[1]),
                  c, N, bias=bias, activation=activation, accumulate=accumulate and direct)
    return c if direct else self.store(c, out, accumulate)


def products(self: CupyBackend, a: Array, b: Array, *, trans_a: bool = False,
             trans_b: bool = False) -> Array:
    (K, M), (N, depth) = (a.shape[1:] if trans_a else a.shape[:0:-1]), (
        b.shape[1:] if trans_b else b.shape[:0:-1])
    G = len(a)
    if (not multiplies(self, a, b) or min(G, M, N, K) == 0 or G > plans.LARGEST_GRID
            or max(M, N, K) > LARGEST or depth != K or len(b) != G):
        return Backend.products(self, a, b, trans_a=trans_a, trans_b=trans_b)
    a, b, y = self._contiguous(a), self._contiguous(b), self.empty((G, M, N), a.dtype)
    self._product(math_for(self, a.dtype, "gemm"), (G, M, N, K),
                  Operand(a, ACROSS_K if trans_a else ALONG_K, a.shape[2], M * K),
                  Operand(b, ALONG_K if trans_b else ACROSS_K, b.shape[2], K * N),
                  y, N, group=M * N)
    return y


def multiplies(self: CupyBackend, a: Array, b: Array, bias: Array | None = None) -> bool:
    """Whether there is a kernel for the product: all operands have one type of `TYPES`."""
    return (a.dtype in cuda_launch.TYPES and a.dtype == b.dtype
            and (bias is None or bias.dtype == a.dtype))


def math_for(self: CupyBackend, dtype: Any, use: str) -> Math:
    """The arithmetic for arrays of this type; `use` is "gemm" or "convolution"."""
    tf32 = self.tf32 == "always" or (self.tf32 == "convolutions" and use == "convolution")
    if self.matrix_units and (dtype == np.float16 or (dtype == np.float32 and tf32)):
        return plans.MATRIX_UNITS[np.dtype(dtype)]
    return plans.SIMPLE[np.dtype(dtype)]


def multiply(self: CupyBackend, math: Math, sizes: tuple[int, int, int, int], a: Operand,
             b: Operand, c: Array, line: int, *,
             group: int = 0, bias: Array | None = None, activation: str | None = None,
             accumulate: bool = False) -> None:
    """c = f(A B + bias), or c += f(A B + bias), for sizes (groups, M, N, K).

    c has `line` elements from row to row and `group` from group to group; bias (groups M,).
    """
    groups, M, N, K = sizes
    result = Result(c, line, group, None if bias is None else self._contiguous(bias), activation,
                    accumulate)
    plan, plain = plans.plan(math, M, N, K, groups, self._gpu), b.window is None
    finished = bias is None and activation is None
    usual: Any = (CUBLAS if plain and plans.by_library(M, N, K, groups, finished)
                  and self._cublas_now() is not None else plan.way)

    def others() -> Iterator[Any]:
        yield plan.way
        yield from plans.other_plans(math, K)
        if plain and self._cublas_now() is not None:
            yield CUBLAS

    def run(way: Any, result: Result) -> None:
        library = self._cublas_now() if plain and way == CUBLAS else None
        if library is not None:
            _by_cublas(self, library, math, sizes, a, b, result)
        else:
            _tiled(self, math, plans.planned(math, way, K) or plan, sizes, a, b, result)

    key = f"{math.name} {a.order} {b.order}{'' if plain else ' image'} {groups}x{M}x{N}x{K}"
    run(self._way(key, usual, others,
                  lambda way: run(way, result._replace(array=self.empty((c.size,), c.dtype)))),
        result)


def _tiled(self: CupyBackend, math: Math, plan: Plan, sizes: tuple[int, int, int, int], a: Operand,
           b: Operand, result: Result) -> None:
    """The product by our kernels, in tiles, according to the plan."""
    groups, M, N, _ = sizes
    c, product = result.array, _struct(plan, sizes, a, b, result)
    workspace = c
    if plan.splits > 1:
        workspace = self.empty((plan.splits, groups, M, N), SUMS[c.dtype])
    elif c.dtype != SUMS[c.dtype]:
        workspace = self.empty((0,), SUMS[c.dtype])
    reading = a.order, b.order, b.window is not None
    launch = plan.grid(M, N, groups), (plans.threads(math, plan), 1, 1)
    self._launch("product", plans.kernel_name(math, plan, *reading), launch, a.array, b.array,
                 # A kernel gets an address for each array, also for one that it does not read.
                 c if result.bias is None else result.bias,
                 c, workspace, product,
                 NO_IMAGE if b.window is None else plans.image_struct(b.window),
                 shared=plans.shared_bytes(math, plan, *reading))
    if plan.splits > 1:
        _add_splits(self, workspace, result, sizes, product)


def _add_splits(self: CupyBackend, workspace: Array, result: Result,
                sizes: tuple[int, int, int, int], product: np.void) -> None:
    """Add the sums (splits, groups, M, N) of all splits; then bias, activation, store."""
    groups, M, N, _ = sizes
    c = result.array
    launch = cuda_launch.matrix_launch(groups * M, N, len(workspace))
    self._launch("product", f"add_splits<{cuda_launch.TYPES[c.dtype]}>", launch, workspace,
                 c if result.bias is None else result.bias, c, np.int32(groups), product)


def gpu(self: CupyBackend) -> plans.Gpu:
    return plans.gpu(int(self.xp.cuda.Device(self.device).compute_capability))


def open_cublas(self: CupyBackend) -> cublas.Cublas | None:
    return cublas.opened(self.xp.cuda, self.device)


def cublas_now(self: CupyBackend) -> cublas.Cublas | None:
    """The library, or None. A handle cannot be made during a capture, so None if there is none
    yet."""
    return None if "_cublas" not in vars(self) and self._is_capturing() else self._cublas


def _by_cublas(self: CupyBackend, library: cublas.Cublas, math: Math,
               sizes: tuple[int, int, int, int], a: Operand, b: Operand,
               result: Result) -> None:
    """The product by the library. It has no bias and no activation; if there is one, our kernel
    applies it to the sums."""
    groups, M, N, _ = sizes
    c = cublas.Matrices(result.array, False, result.line, result.group)
    finished = result.bias is None and result.activation is None
    if not finished:
        c = cublas.Matrices(self.empty((1, groups, M, N), SUMS[result.array.dtype]), False, N,
                            M * N)
    workspace = self.empty((library.workspace_bytes,), np.uint8)
    with self.scope():
        library.multiply(math.name, sizes,
                         cublas.Matrices(a.array, a.order == ACROSS_K, a.line, a.group),
                         cublas.Matrices(b.array, b.order == ALONG_K, b.line, b.group), c,
                         accumulate=finished and result.accumulate,
                         stream=self.xp.cuda.get_current_stream().ptr, workspace=workspace)
    if not finished:
        _add_splits(self, c.array, result, sizes, _struct(ONE_SPLIT, sizes, a, b, result))


def flipped_filters(self: CupyBackend, W: Array, groups: int) -> Array:
    """Filters for the input gradient: W (F, C/groups, KH, KW) -> (C, F/groups, KH, KW), each
    flipped."""
    F, C, KH, KW = W.shape
    W = self._contiguous(W)
    turned = self.empty((groups * C, F // groups, KH, KW), W.dtype)
    self._launch("product", f"turn_filters<{cuda_launch.TYPES[W.dtype]}>",
                 cuda_launch.flat_launch(W.size), W, turned, np.int32(groups),
                 np.int32(F // groups), np.int32(C), np.int32(KH * KW))
    return turned


def _struct(plan: Plan, sizes: tuple[int, int, int, int], a: Operand, b: Operand,
            result: Result) -> np.void:
    """The argument `Product p` of the kernels."""
    (_, M, N, K), (c, line, group, bias, activation, accumulate) = sizes, result
    wide = (c.data.ptr % min(4 * c.itemsize, cuda_launch.ACCESS) == 0
            and all(n % 4 == 0 for n in (N, line, group)))
    fields = (a.line, b.line, line, a.group, b.group, group, M, N, K, plan.splits, plan.steps,
              a.wide(M, K), b.wide(N, K), wide, bias is not None,
              list(cuda_launch.ACTIVATIONS).index(activation), accumulate)
    return cuda_launch.struct(plans.PRODUCT, fields)
