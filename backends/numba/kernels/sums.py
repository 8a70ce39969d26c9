"""Sums along rows of float32, in an explicit order.

Another order of a floating-point sum gives other bits, so a compiler may not change it, and a plain
loop over a sum is not vectorised. The fast-math flag that allows it leaves the order to the
compiler, whose choice depends on the surrounding code: a kernel that was just compiled and the same
kernel loaded from disk have different orders. Here the order is explicit. A sum is made of PARTS
partial sums. Partial sum j adds the terms j, j + PARTS, j + 2 PARTS, ... in this order. Then the
partial sums are added by halves: j and j + PARTS / 2, then j and j + PARTS / 4, and so on. PARTS is
the same on every processor, whatever the length of its vectors, and so are the bits.

The arguments are rows of a C-contiguous float32 array, and float32 numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from xpnet.backends.numba.kernels.instructions import I64, LANES, VECTOR, ZEROS, Emitter, const

PARTS = 32      # at least two vectors on every processor, so that additions overlap
VECTORS = PARTS // LANES

ONES = ir.Constant(VECTOR, [1.0] * LANES)
Terms = Callable[..., list[ir.Value]]


def _sums(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any, terms: Terms,
          rows: int = 1, results: int = 1) -> list[ir.Value]:
    """Sums over i of terms(builder, row[i], ..., number, ...); the first `rows` arguments are
    rows."""
    arrays = [context.make_array(kind)(context, builder, value)
              for kind, value in zip(signature.args[:rows], arguments)]
    bases = [builder.ptrtoint(array.data, I64) for array in arrays]
    n, start = arrays[0].nitems, Emitter(builder)
    numbers = [start.everywhere(value, VECTOR) for value in arguments[rows:]]
    sums = start.registers(results, VECTORS)
    for row in sums:
        for variable in row:
            builder.store(ZEROS, variable)

    def add(first: ir.Value, v: int, lanes: ir.Value | None = None) -> None:
        """Add the vector at element `first`, or `lanes` of it, to the partial sums v LANES, ..."""
        e = Emitter(builder, lanes)
        vectors = [e.load(e.at(base, (first, 4)), lanes is not None) for base in bases]
        for row, term in zip(sums, terms(builder, *vectors, *numbers), strict=True):
            term = term if lanes is None else builder.select(e.mask, term, ZEROS)
            builder.store(builder.fadd(builder.load(row[v]), term), row[v])

    whole = builder.and_(n, const(-PARTS))
    with cgutils.for_range_slice(builder, const(0), whole, const(PARTS)) as (first, _):
        for v in range(VECTORS):
            add(start.at(first, v * LANES), v)
    with builder.if_then(builder.icmp_signed("<", whole, n)):
        for v in range(VECTORS):
            first = start.at(whole, v * LANES)
            add(first, v, builder.sub(n, first))
    return [start.total([builder.load(variable) for variable in row]) for row in sums]


def _expect_rows(*rows: Any) -> None:
    if any(row != types.Array(types.float32, 1, "C") for row in rows):
        raise TypingError(f"sums: expected C-contiguous rows of float32. Received: {rows}.")


@intrinsic
def total(typing, row):
    """The sum of row (n,)."""
    def code(context, builder, signature, arguments):
        return _sums(context, builder, signature, arguments, lambda b, x: [x])[0]
    _expect_rows(row)
    return types.float32(row), code


@intrinsic
def total_about(typing, row, centre):
    """The sum of row - centre, row (n,)."""
    def code(context, builder, signature, arguments):
        return _sums(context, builder, signature, arguments, lambda b, x, c: [b.fsub(x, c)])[0]
    _expect_rows(row)
    return types.float32(row, types.float32), code


@intrinsic
def squares_about(typing, row, centre):
    """The sum of (row - centre)^2, row (n,)."""
    def terms(b, x, c):
        far = b.fsub(x, c)
        return [b.fmul(far, far)]

    def code(context, builder, signature, arguments):
        return _sums(context, builder, signature, arguments, terms)[0]
    _expect_rows(row)
    return types.float32(row, types.float32), code


@intrinsic
def gradient_totals(typing, dy, x, y, centre, floor):
    """Sums of dz and dz (x - centre), dz = dy where y > floor and 0 dy elsewhere; dy, x, y (n,)."""
    def terms(b, dy, x, y, c, least):
        dz = b.fmul(dy, b.select(b.fcmp_ordered(">", y, least), ONES, ZEROS))
        return [dz, b.fmul(dz, b.fsub(x, c))]

    def code(context, builder, signature, arguments):
        sums = _sums(context, builder, signature, arguments, terms, rows=3, results=2)
        return context.make_tuple(builder, signature.return_type, sums)
    _expect_rows(dy, x, y)
    return types.UniTuple(types.float32, 2)(dy, x, y, types.float32, types.float32), code
