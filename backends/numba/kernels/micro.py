"""Micro-kernels: the innermost loops, written as LLVM instructions so that sums stay in registers.

Python code cannot tell a compiler to keep a block of sums in registers, and that is what makes a
matrix product fast. A product of A (M, K) and B (K, N) reads K (M + N) numbers for M N K
multiply-adds; the larger the block of the result that one pass over K makes, the fewer reads each
multiply-add costs. The largest blocks that fit into the registers are

    multiply_block   y[f, n] = sum over k of w[f, k] x[k, n]
    dot_block        d[f, k] = sum over n of g[f, n] x[k, n]

multiply_block has rows x vectors sums; each x[k] is a row of vectors anywhere in memory, found
through a table of offsets. dot_block has rows x columns sums; both operands are rows of vectors.
With tables of offsets the rows x[k] can be shifted views of one image: a convolution without
im2col. Sums run over k in order, in fused multiply-adds if the processor has them.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpnet.backends.numba.kernels.instructions import (
    DOT_COLUMNS,
    DOT_ROWS,
    FLOAT,
    ROWS,
    VECTOR_BYTES,
    VECTORS,
    ZEROS,
    Emitter,
    choose,
    const,
    define,
)

# --- multiply_block -------------------------------------------------------------------------------

FROM_ZERO, FROM_BIAS, FROM_Y = 0, 1, 2      # what the sums start with
ROW_BLOCKS = tuple(r for r in (8, 4, 2, 1) if r <= ROWS)


def _multiply(rows: int, vectors: int) -> Callable[..., None]:
    def body(b: ir.IRBuilder, tail, x, offsets, K, w, w_row, w_step, y, y_row, bias, start,
             relu) -> None:
        e = Emitter(b, tail)
        sums = e.registers(rows, vectors)
        w_rows, y_rows = ([e.at(base, b.mul(step, const(f))) for f in range(rows)]
                          for base, step in ((w, w_row), (y, y_row)))
        block = [(f, v, v == vectors - 1) for f in range(rows) for v in range(vectors)]

        for f, v, _ in block:
            b.store(ZEROS, sums[f][v])
        with b.if_then(b.icmp_signed("==", start, const(FROM_BIAS))):
            for f, v, _ in block:
                b.store(e.spread(e.at(bias, 4 * f)), sums[f][v])
        with b.if_then(b.icmp_signed("==", start, const(FROM_Y))):
            for f, v, last in block:
                b.store(e.load(e.at(y_rows[f], v * VECTOR_BYTES), last), sums[f][v])

        with cgutils.for_range(b, K) as loop:
            row = e.at(x, e.integer(e.at(offsets, (loop.index, 8))))
            along = b.mul(loop.index, w_step)
            xs = [e.load(e.at(row, v * VECTOR_BYTES), v == vectors - 1) for v in range(vectors)]
            for f in range(rows):
                weight = e.spread(e.at(w_rows[f], along))
                for v in range(vectors):
                    b.store(e.multiply_add(weight, xs[v], b.load(sums[f][v])), sums[f][v])

        with b.if_then(b.icmp_signed("!=", relu, const(0))):
            for f, v, _ in block:
                b.store(e.relu(b.load(sums[f][v])), sums[f][v])
        for f, v, last in block:
            e.store(b.load(sums[f][v]), e.at(y_rows[f], v * VECTOR_BYTES), last)
    return body


@intrinsic
def multiply_block(typing, rows, vectors, tail, x, offsets, K, w, w_row, w_step, y,  # noqa: N803
                   y_row, bias, start, relu):
    """f(y[f, n] = start + sum over k < K of w[f, k] x[k, n]) for a block of `rows` x `vectors`
    vectors.

    x[k] is at x + offsets[k], w[f, k] at w + f w_row + k w_step, y[f] at y + f y_row, bias[f]
    at bias + 4 f. `tail` lanes of the last vector are in use. `rows` is one of ROW_BLOCKS,
    `vectors` 1 .. VECTORS; relu 0 or 1.
    """
    def code(context, builder, signature, arguments):
        rows, vectors, *rest = arguments
        variants = {4 * r + v: define(builder, f"multiply_{r}x{v}", len(rest), _multiply(r, v))
                    for r in ROW_BLOCKS for v in range(1, VECTORS + 1)}
        choose(builder, builder.add(builder.mul(rows, const(4)), vectors), variants, rest)
        return context.get_dummy_value()
    return types.void(*[types.int64] * 14), code


# --- dot_block ------------------------------------------------------------------------------------

COLUMN_BLOCKS = DOT_COLUMNS, DOT_COLUMNS // 2, 1


def _dot(rows: int, columns: int) -> Callable[..., None]:
    def body(b: ir.IRBuilder, g, g_offsets, g_step, x, x_offsets, x_step, lines, vectors, tail, d,
             d_row) -> None:
        e = Emitter(b, tail)
        sums = e.registers(rows, columns)
        for row in sums:
            for variable in row:
                b.store(ZEROS, variable)
        gs = [e.at(g, e.integer(e.at(g_offsets, 8 * f))) for f in range(rows)]
        xs = [e.at(x, e.integer(e.at(x_offsets, 8 * k))) for k in range(columns)]

        def step(g_at: ir.Value, x_at: ir.Value, masked: bool) -> None:
            g_vectors = [e.load(b.add(start, g_at), masked) for start in gs]
            for k, start in enumerate(xs):
                x_vector = e.load(b.add(start, x_at), masked)
                for f in range(rows):
                    b.store(e.multiply_add(g_vectors[f], x_vector, b.load(sums[f][k])), sums[f][k])

        with cgutils.for_range(b, lines) as line:
            g_line, x_line = b.mul(line.index, g_step), b.mul(line.index, x_step)
            with cgutils.for_range(b, vectors) as vector:
                step(e.at(g_line, (vector.index, VECTOR_BYTES)),
                     e.at(x_line, (vector.index, VECTOR_BYTES)), False)
            with b.if_then(b.icmp_signed("!=", tail, const(0))):
                step(e.at(g_line, (vectors, VECTOR_BYTES)), e.at(x_line, (vectors, VECTOR_BYTES)),
                     True)

        for f in range(rows):
            for k in range(columns):
                target = e.pointer(e.at(d, b.mul(d_row, const(f)), 4 * k), FLOAT)
                b.store(b.fadd(b.load(target, align=4), e.total([b.load(sums[f][k])])), target,
                        align=4)
    return body


@intrinsic
def dot_block(typing, columns, g, g_offsets, g_step, x, x_offsets, x_step, lines,  # noqa: N803
              vectors, tail, d, d_row):
    """d[f, k] += sum over n of g[f, n] x[k, n] for a block of DOT_ROWS x `columns`.

    n runs over `lines`, each of `vectors` whole vectors and a `tail` of lanes. Line l of g[f] is at
    g + g_offsets[f] + l g_step, x likewise, d[f] at d + f d_row. `columns` is one of COLUMN_BLOCKS.
    """
    def code(context, builder, signature, arguments):
        columns, *rest = arguments
        variants = {c: define(builder, f"dot_{DOT_ROWS}x{c}", len(rest), _dot(DOT_ROWS, c))
                    for c in COLUMN_BLOCKS}
        choose(builder, columns, variants, rest)
        return context.get_dummy_value()
    return types.void(*[types.int64] * 12), code
