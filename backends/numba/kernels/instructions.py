"""The vectors of the processor, and how kernels write LLVM instructions for them.

The processor (`ISA`) decides how many lanes a vector has, and how large the blocks of sums of
micro.py are. Addresses and strides are in bytes, as int64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import cgutils, config


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
