"""Square tiles of vectors, transformed and transposed in registers.

    tile_transform                      t = f(M d M^T), for Winograd convolution
    transpose_block, transpose_part     t[j, i] = s[i, j]

Addresses and strides are in bytes, as int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpnet.backends.numba.kernels.instructions import (
    I32,
    LANES,
    VECTOR,
    Emitter,
    choose,
    const,
    define,
)

# --- tile_transform -------------------------------------------------------------------------------

Matrix = Sequence[Sequence[float]]


def _combine(e: Emitter, coefficients: Sequence[float], vectors: Sequence[ir.Value]) -> ir.Value:
    """The sum of coefficient * vector; a factor of 0, 1 or -1 costs no multiplication."""
    total = None
    for factor, vector in sorted(zip(coefficients, vectors), key=lambda term: term[0] != 1):
        if factor == 0:
            continue
        if total is None:
            total = (vector if factor == 1
                     else e.b.fmul(vector, ir.Constant(VECTOR, [float(factor)] * LANES)))
        elif abs(factor) == 1:
            total = e.b.fadd(total, vector) if factor == 1 else e.b.fsub(total, vector)
        else:
            total = e.multiply_add(ir.Constant(VECTOR, [float(factor)] * LANES), vector, total)
    return total


def _transform(matrix: Matrix, boxed: str, relu: bool) -> Callable[..., None]:
    def body(b: ir.IRBuilder, box, source, source_row, source_column, target, target_row,
             target_column) -> None:
        e, rows, columns = Emitter(b), range(len(matrix)), range(len(matrix[0]))
        if boxed:
            first_row, end_row, first_column, end_column, lanes = (
                e.integer(e.at(box, 8 * k)) for k in range(5))

        def between(number: int, first: ir.Value, end: ir.Value) -> ir.Value:
            return b.and_(b.icmp_signed("<=", first, const(number)),
                          b.icmp_signed("<", const(number), end))

        def in_box(i: int, j: int) -> Emitter:
            inside = b.and_(between(i, first_row, end_row), between(j, first_column, end_column))
            return Emitter(b, b.select(inside, lanes, const(0)))

        def element(i: int, j: int) -> ir.Value:
            address = e.at(source, (source_row, i), (source_column, j))
            return in_box(i, j).load(address, True) if boxed == "source" else e.load(address)

        half = []                                                       # matrix d, column by column
        for j in columns:
            d = [element(i, j) for i in columns]
            half.append([_combine(e, matrix[i], d) for i in rows])
        for i in rows:
            for j in rows:
                value = _combine(e, matrix[j], [half[k][i] for k in columns])
                value = e.relu(value) if relu else value
                address = e.at(target, (target_row, i), (target_column, j))
                if boxed == "target":
                    in_box(i, j).store(value, address, True)
                else:
                    e.store(value, address)
    return body


def tile_transform(name: str, matrices: Mapping[int, Matrix], boxed: str,
                   relus: tuple[bool, ...] = (False,)) -> Any:
    """An intrinsic for t = f(M d M^T) of a square tile d of vectors, where M is one of `matrices`.

        transform(number, masked, relu, box, source, source_row, source_column, target, target_row,
        target_column)

    d[i, j] is at source + i source_row + j source_column, t likewise. With `masked`, `box` is
    the address of five int64: first row, end row, first column, end column, lanes. Of the side that
    `boxed` names, "source" or "target", only these elements and lanes exist: others are read as 0,
    or not written.
    """
    @intrinsic
    def transform(typing, number, masked, relu, box, source, source_row, source_column, target,
                  target_row, target_column):
        def code(context, builder, signature, arguments):
            number, masked, relu, *rest = arguments
            variants = {
                n * 4 + 2 * m + r: define(builder, f"{name}_{n}{'_masked' * m}{'_relu' * r}",
                                          len(rest), _transform(matrix, boxed if m else "", r))
                for n, matrix in matrices.items() for m in (False, True) for r in relus}
            selector = builder.add(builder.mul(number, const(4)),
                                   builder.add(builder.mul(masked, const(2)), relu))
            choose(builder, selector, variants, rest)
            return context.get_dummy_value()
        return types.void(*[types.int64] * 10), code
    return transform


# --- transpositions -------------------------------------------------------------------------------

def _network(b: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """The transpose of LANES vectors.

    Interleaving row i with row i + LANES / 2 moves one bit of the row index to the column index,
    and one bit back.
    """
    half = LANES // 2
    low, high = ([first + k // 2 + k % 2 * LANES for k in range(LANES)] for first in (0, half))
    for _ in range(LANES.bit_length() - 1):
        rows = [b.shuffle_vector(rows[i], rows[i + half],
                                 ir.Constant(ir.VectorType(I32, LANES), numbers))
                for i in range(half) for numbers in (low, high)]
    return rows


def _transpose(b: ir.IRBuilder, source, source_row, target, target_row) -> None:
    e = Emitter(b)
    rows = [e.load(e.at(source, (source_row, i))) for i in range(LANES)]
    for j, row in enumerate(_network(b, rows)):
        e.store(row, e.at(target, (target_row, j)))


def _transpose_part(b: ir.IRBuilder, rows, columns, source, source_row, target, target_row) -> None:
    """Row rows - 1 is read again instead of those beyond it."""
    reader, writer, last, vectors = Emitter(b, columns), Emitter(b, rows), b.sub(rows, const(1)), []
    for i in range(LANES):
        row = b.select(b.icmp_signed("<", const(i), rows), const(i), last)
        vectors.append(reader.load(reader.at(source, b.mul(row, source_row)), True))
    for j, row in enumerate(_network(b, vectors)):
        with b.if_then(b.icmp_signed("<", const(j), columns), likely=True):
            writer.store(row, writer.at(target, (target_row, j)), True)


@intrinsic
def transpose_block(typing, source, source_row, target, target_row):
    """t[j, i] = s[i, j] for LANES x LANES floats; row i of s is at source + i source_row, t
    likewise."""
    def code(context, builder, signature, arguments):
        builder.call(define(builder, "transpose", len(arguments), _transpose), arguments)
        return context.get_dummy_value()
    return types.void(*[types.int64] * 4), code


@intrinsic
def transpose_part(typing, rows, columns, source, source_row, target, target_row):
    """The same for rows x columns floats, each of them 1 .. LANES."""
    def code(context, builder, signature, arguments):
        builder.call(define(builder, "transpose_part", len(arguments), _transpose_part), arguments)
        return context.get_dummy_value()
    return types.void(*[types.int64] * 6), code
