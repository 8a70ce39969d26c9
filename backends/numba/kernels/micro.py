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
im2col. The processor (`ISA`) decides how many lanes a vector has and how large the blocks are.
Addresses and strides are in bytes, as int64. Sums run over k in order, in fused multiply-adds if
the processor has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic


class InstructionSet(NamedTuple):
    """Block sizes for one kind of processor that fit its vector registers together with the
    operands (measured)."""

    name: str
    lanes: int              # float32 in a vector
    rows: int               # multiply_block: rows x vectors sums
    vectors: int
    dot_rows: int           # dot_block: dot_rows x dot_columns sums
    dot_columns: int


AVX512 = InstructionSet("AVX-512", 16, 8, 3, 4, 6)         # 32 registers of 16
AVX2 = InstructionSet("AVX2", 8, 4, 3, 3, 4)               # 16 registers of 8
NEON = InstructionSet("NEON", 4, 8, 3, 4, 6)               # 32 registers of 4
OTHER = InstructionSet("128 bits", 4, 4, 3, 3, 4)  # 16 registers of 4, without fused multiply-adds


def instruction_set() -> InstructionSet:
    """The host's, or the one that NUMBA_CPU_FEATURES names instead."""
    features = (get_host_cpu_features().flatten() if config.CPU_FEATURES is None
                else config.CPU_FEATURES)
    enabled = set(features.split(","))
    if {"+avx512f", "+avx512vl"} <= enabled:
        return AVX512
    if {"+avx2", "+fma"} <= enabled:
        return AVX2
    return NEON if "+neon" in enabled else OTHER


ISA = instruction_set()
LANES = ISA.lanes
VECTOR_BYTES = 4 * LANES
ROWS, VECTORS, DOT_ROWS, DOT_COLUMNS = ISA.rows, ISA.vectors, ISA.dot_rows, ISA.dot_columns

FLOAT, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
ZEROS = ir.Constant(VECTOR, [0.0] * LANES)


def const(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


class Emitter:
    """Writes instructions at the end of `builder`'s block; `tail` masks the lanes of a last,
    partial vector."""

    def __init__(self, builder: ir.IRBuilder, tail: ir.Value | None = None) -> None:
        self.b = builder
        self.mask = None if tail is None else self._first_lanes(tail)

    def _first_lanes(self, count: ir.Value) -> ir.Value:
        numbers = ir.VectorType(I32, LANES)
        limit = self.everywhere(self.b.trunc(count, I32), numbers)
        return self.b.icmp_signed("<", ir.Constant(numbers, list(range(LANES))), limit)

    def everywhere(self, value: ir.Value, kind: ir.VectorType) -> ir.Value:
        """A number in every lane of a vector of this kind."""
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined),
                                     ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))

    def _call(self, name: str, result: ir.Type, *arguments: ir.Value, **flags: Any) -> ir.Value:
        kind = ir.FunctionType(result, [a.type for a in arguments])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, kind, name), arguments,
                           **flags)

    def at(self, base: ir.Value, *terms: Any) -> ir.Value:
        """base + the sum of terms: an int, a value, or a pair (value, int) for their product."""
        for term in terms:
            if isinstance(term, tuple):
                term = self.b.mul(term[0], const(term[1]))
            base = self.b.add(base, const(term) if isinstance(term, int) else term)
        return base

    def pointer(self, address: ir.Value, kind: ir.Type) -> ir.Value:
        return self.b.inttoptr(address, kind.as_pointer())

    def integer(self, address: ir.Value) -> ir.Value:
        return self.b.load(self.pointer(address, I64), align=8)

    def load(self, address: ir.Value, masked: bool = False) -> ir.Value:
        """A vector, aligned like a float; lanes outside the mask are 0 and not read."""
        pointer = self.pointer(address, VECTOR)
        if not masked:
            return self.b.load(pointer, align=4)
        return self._call(f"llvm.masked.load.v{LANES}f32.p0", VECTOR, pointer, ir.Constant(I32, 4),
                          self.mask, ZEROS)

    def store(self, value: ir.Value, address: ir.Value, masked: bool = False) -> None:
        pointer = self.pointer(address, VECTOR)
        if masked:
            self._call(f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), value, pointer,
                       ir.Constant(I32, 4), self.mask)
        else:
            self.b.store(value, pointer, align=4)

    def spread(self, address: ir.Value) -> ir.Value:
        """The float at an address, in every lane."""
        return self.everywhere(self.b.load(self.pointer(address, FLOAT), align=4), VECTOR)

    def multiply_add(self, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
        """x y + z, fused if the processor supports it."""
        return self._call(f"llvm.fmuladd.v{LANES}f32", VECTOR, x, y, z)

    def relu(self, z: ir.Value) -> ir.Value:
        """max(z, 0); NaN for a NaN."""
        return self.b.select(self.b.fcmp_ordered("<", z, ZEROS), ZEROS, z)

    def total(self, vectors: list[ir.Value]) -> ir.Value:
        """The sum of the lanes of 1, 2, 4, ... vectors, by halves: first the vectors are added,
        then the lanes."""
        while len(vectors) > 1:
            half = len(vectors) // 2
            vectors = [self.b.fadd(low, high) for low, high in zip(vectors[:half], vectors[half:])]
        vector, lanes = vectors[0], LANES
        while lanes > 1:
            lanes //= 2
            halves = ([ir.Constant(I32, first + i) for i in range(lanes)] for first in (0, lanes))
            nothing = ir.Constant(vector.type, ir.Undefined)
            low, high = (self.b.shuffle_vector(vector, nothing,
                                               ir.Constant(ir.VectorType(I32, lanes), numbers))
                         for numbers in halves)
            vector = self.b.fadd(low, high)
        return self.b.extract_element(vector, ir.Constant(I32, 0))

    def registers(self, rows: int, columns: int) -> list[list[ir.Value]]:
        """A block of sums. LLVM turns these variables into registers."""
        return [[cgutils.alloca_once(self.b, VECTOR) for _ in range(columns)] for _ in range(rows)]


def define(builder: ir.IRBuilder, name: str, parameters: int, body: Callable[..., None]
           ) -> ir.Function:
    """The module's function of int64 `parameters` called `name`; created with `body` at the first
    call."""
    if name in builder.module.globals:
        return builder.module.globals[name]
    function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [I64] * parameters), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    inner = ir.IRBuilder(function.append_basic_block("entry"))
    body(inner, *function.args)
    inner.ret_void()
    return function


def choose(builder: ir.IRBuilder, selector: ir.Value, functions: dict[int, ir.Function],
           arguments: list[ir.Value]) -> None:
    """Call the function that the selector names."""
    done = builder.append_basic_block("done")
    switch = builder.switch(selector, done)
    for number, function in functions.items():
        block = builder.append_basic_block(function.name)
        switch.add_case(const(number), block)
        builder.position_at_end(block)
        builder.call(function, arguments)
        builder.branch(done)
    builder.position_at_end(done)


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
