"""Groups of nodes that are one layer: activations, normalisations and biases written out.

A pattern is a tree of ONNX's operators: ("Mul", X, ("Sigmoid", X)). Its leaves are names, each of
which stands for one value, and numbers, which stand for a constant of that value. Inputs of Add,
Mul and Max may be exchanged.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import pi, sqrt
from typing import Any

import numpy as np

from xpnet.io.onnx.nodes import Operation, Program
from xpnet.io.onnx.read import MOST_AXES

X, W, B = "x", "W", "b"
GAMMA, BETA, EPS, AXES, AXES2 = "gamma", "beta", "eps", "axes", "axes2"
EXCHANGED = "Add", "Mul", "Max"
RECURRENT = "RNN", "LSTM", "GRU"
MOST_CENTRES = 1 << 16      # elements; they are a setting of the layer
CLOSE = 1e-4                # relative: 1/6 may be written as 0.16667


@dataclass
class Match:
    """Values by the names of the leaves, and the operations of the pattern, the last one first."""

    values: dict[str, str] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)

    def copy(self) -> Match:
        return Match(dict(self.values), list(self.operations))


Tree = Any
# Makes the operation that replaces a match, or None if it is none after all.
Replacement = Callable[[Program, Match], Operation | None]


def single(kind: str, **attributes: Any) -> Replacement:
    """One operator of x."""
    def replacement(program: Program, match: Match) -> Operation:
        last = match.operations[0]
        return Operation(kind, last.name, [match.values[X]], last.outputs, dict(attributes))
    return replacement


def bias_of_product(program: Program, match: Match) -> Operation | None:
    """W may be the first or the second factor; the other one depends on samples."""
    add, product = match.operations
    matrix = [program.constants.get(name) for name in product.inputs]
    b = program.constants.get(match.values[B])
    if b is None or (matrix[0] is None) == (matrix[1] is None):
        return None
    first = matrix[0] is not None                   # W x: the features are the last but one axis
    factor = matrix[0] if matrix[0] is not None else matrix[1]
    assert factor is not None
    units = factor.shape[0 if first else -1] if factor.ndim == 2 else 0
    if without_ones(b.shape) != ((units, 1) if first else (units,)):
        return None
    return Operation("MatMul", product.name, [*product.inputs, match.values[B]], add.outputs)


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of size 1 in front."""
    return next((shape[k:] for k, n in enumerate(shape) if n != 1), ())


def bias_of_convolution(program: Program, match: Match) -> Operation | None:
    add, conv = match.operations
    filters, b = (program.constants.get(name) for name in (conv.inputs[1], match.values[B]))
    if filters is None or b is None or any(conv.inputs[2:]):
        return None
    F = (len(filters) if conv.kind == "Conv"
         else filters.shape[1] * conv.attributes.get("group", 1))
    places = (F, *(1,) * (filters.ndim - 2))
    if b.shape not in (places, (1, *places)):
        return None
    name = program.constant(f"{match.values[B]}.flat", b.reshape(-1))
    return Operation(conv.kind, conv.name, [*conv.inputs[:2], name], add.outputs, conv.attributes)


def layer_norm(program: Program, match: Match) -> Operation | None:
    """With scale and shift, if they are constants; `read_normalization` looks at the axes."""
    values, constants = match.values, program.constants
    leaves = {leaf: name for leaf, name in values.items() if leaf != X}
    if not constants.keys() >= {*leaves.values()}:
        return None
    known = {leaf: constants[name] for leaf, name in leaves.items()}
    eps, axes = known[EPS], known[AXES]
    if (eps.size != 1 or axes.size > MOST_AXES
            or known.get(AXES2, axes).tolist() != axes.tolist()
            or any(len(without_ones(known[leaf].shape)) > axes.size
                   for leaf in (GAMMA, BETA) if leaf in known)):
        return None
    inputs = [values[X], values.get(GAMMA, ""), values.get(BETA, "")]
    last = match.operations[0]
    return Operation("LayerNormalization", last.name, inputs, last.outputs,
                     {"axes": axes.tolist(), "epsilon": float(eps.reshape(-1)[0])})


def rms_norm(program: Program, match: Match) -> Operation | None:
    found = layer_norm(program, match)
    if found is not None:
        found.kind = "RMSNormalization"
    return found


def radial_basis(program: Program, match: Match) -> Operation | None:
    """-|x - C|^2, written out as export does it: 2 C x - |x|^2 - |C|^2."""
    gemm = next(operation for operation in match.operations if operation.kind == "Gemm")
    C, squares = (program.constants.get(match.values[name]) for name in (W, B))
    if (C is None or squares is None or C.ndim != 2 or C.size > MOST_CENTRES
            or gemm.attributes.get("alpha") != 2 or not gemm.attributes.get("transB", 0)
            or not np.allclose((C * C).sum(axis=1), squares, rtol=CLOSE)):
        return None
    return Operation("RBF", gemm.name, [match.values[X], match.values[W]],
                     match.operations[0].outputs)


def power_of_two(program: Program, match: Match) -> Operation | None:
    last = match.operations[0]
    return Operation("Mul", last.name, 2 * [match.values[X]], last.outputs)


SIX = ("Clip", ("Add", X, 3), 0, 6)
ERF = ("Add", ("Erf", ("Div", X, sqrt(2))), 1)
ERF_MUL = ("Add", ("Erf", ("Mul", X, sqrt(0.5))), 1)
CUBES = ("Pow", X, 3), ("Mul", X, ("Mul", X, X)), ("Mul", ("Mul", X, X), X)
BENDS = [("Add", ("Tanh", ("Mul", ("Add", X, ("Mul", cube, 0.044715)), sqrt(2 / pi))), 1)
         for cube in CUBES]
MEAN = ("ReduceMean", X, AXES)
CENTRED = ("Sub", X, MEAN)
SQUARES = ("Pow", CENTRED, 2), ("Mul", CENTRED, CENTRED)


def halves(bend: Tree) -> list[Tree]:
    """x bend / 2 in the orders in which it is written."""
    return [("Mul", ("Mul", X, bend), 0.5), ("Mul", ("Mul", X, 0.5), bend),
            ("Mul", X, ("Mul", bend, 0.5)), ("Div", ("Mul", X, bend), 2)]


def with_scale(tree: Tree) -> list[Tree]:
    """gamma tree + beta, gamma tree, and the tree alone, the largest first."""
    return [("Add", ("Mul", tree, GAMMA), BETA), ("Mul", tree, GAMMA), tree]


NORMS = [tree for square in SQUARES for tree in with_scale(
    ("Div", CENTRED, ("Sqrt", ("Add", ("ReduceMean", square, AXES2), EPS))))]
RMS = [tree for square in (("Pow", X, 2), ("Mul", X, X)) for root in (
    ("Sqrt", ("Add", ("ReduceMean", square, AXES), EPS)),) for tree in (
    ("Mul", ("Div", X, root), GAMMA), ("Div", X, root),
    ("Mul", ("Mul", X, ("Reciprocal", root)), GAMMA), ("Mul", X, ("Reciprocal", root)))]

PATTERNS: list[tuple[Tree, Replacement]] = [
    *((tree, single("HardSwish")) for tree in (
        ("Div", ("Mul", X, SIX), 6), ("Mul", ("Mul", X, SIX), 1 / 6),
        ("Mul", X, ("Div", SIX, 6)), ("Mul", X, ("Mul", SIX, 1 / 6)))),
    *((tree, single("HardSigmoid", alpha=1 / 6, beta=0.5)) for tree in (
        ("Div", SIX, 6), ("Mul", SIX, 1 / 6))),
    (("Mul", X, ("Sigmoid", X)), single("Swish")),
    (("Mul", X, ("Tanh", ("Softplus", X))), single("Mish")),
    *((tree, single("Gelu")) for erf in (ERF, ERF_MUL) for tree in halves(erf)),
    *((tree, single("Gelu", approximate="tanh")) for bend in BENDS for tree in halves(bend)),
    *((tree, layer_norm) for tree in NORMS), *((tree, rms_norm) for tree in RMS),
    (("Add", ("MatMul", X, W), B), bias_of_product),
    *((("Add", (kind, X, W), B), bias_of_convolution) for kind in ("Conv", "ConvTranspose")),
    (("Pow", X, 2), power_of_two),
    (("Sub", ("Sub", ("Gemm", X, W), ("ReduceSumSquare", X, AXES)), B), radial_basis),
]


class Matcher:
    """Finds patterns in a program. Inner values of a pattern that others read are no obstacle,
    except where the layer has weights, of which there would be two copies."""

    def __init__(self, program: Program, outputs: list[str]) -> None:
        self.program = program
        self.makers = {name: operation for operation in program.operations
                       for name in operation.outputs[:1]}
        self.readers = Counter(outputs)
        for operation in program.operations:
            self.readers.update(operation.inputs)

    def rewrite(self) -> list[Operation]:
        """The operations, with the last one of each match replaced. The others stay: those that
        are not needed any more do not lead to an output."""
        return [self._replaced(operation) for operation in self.program.operations]

    def _replaced(self, operation: Operation) -> Operation:
        if operation.kind in RECURRENT:
            return self._without_cast(operation)
        for tree, replacement in PATTERNS:
            if tree[0] != operation.kind:
                continue
            for match in self._matches(tree, operation.outputs[0], Match()):
                weighted = replacement in (bias_of_product, bias_of_convolution)
                if weighted and self.readers[match.operations[1].outputs[0]] > 1:
                    continue
                try:
                    found = replacement(self.program, match)
                except (ValueError, TypeError, LookupError, OverflowError):
                    continue            # of attributes or arrays that the operators do not have
                if found is not None:
                    # a larger pattern may contain this one, so its parts are kept for now
                    return found
        return operation

    def _without_cast(self, operation: Operation) -> Operation:
        """Numbers of steps are whole numbers here, so they need not be cast to integers."""
        inputs = list(operation.inputs)
        cast = self.makers.get(inputs[4]) if len(inputs) > 4 else None
        if cast is None or cast.kind != "Cast":
            return operation
        inputs[4] = cast.inputs[0]
        return replace(operation, inputs=inputs)

    def _matches(self, tree: Tree, name: str, match: Match) -> Iterator[Match]:
        """All ways in which the value `name` is computed as the tree says."""
        if isinstance(tree, str):
            if match.values.get(tree, name) == name:
                found = match.copy()
                found.values[tree] = name
                yield found
        elif not isinstance(tree, tuple):
            if self._is_number(name, tree):
                yield match
        else:
            operation = self.makers.get(name)
            if operation is not None and operation.kind == tree[0]:
                found = match.copy()
                found.operations.append(operation)
                yield from self._inputs(tree, operation, found)

    def _inputs(self, tree: Tree, operation: Operation, match: Match) -> Iterator[Match]:
        parts, given = tree[1:], operation.inputs[:len(tree) - 1]
        if len(given) < len(parts):
            return
        orders = itertools.permutations(given) if tree[0] in EXCHANGED else [given]
        for order in orders:
            matches = [match]
            for part, name in zip(parts, order, strict=True):
                matches = [later for one in matches for later in self._matches(part, name, one)]
            yield from matches

    def _is_number(self, name: str, number: float) -> bool:
        array = self.program.constants.get(name)
        return (array is not None and array.size == 1 and array.dtype.kind in "fiu"
                and bool(np.isclose(float(array.reshape(-1)[0]), number, rtol=CLOSE,
                                    atol=CLOSE * CLOSE)))


def rewrite(program: Program, outputs: list[str]) -> list[Operation]:
    """The operations of a program with patterns replaced by single operations."""
    return Matcher(program, outputs).rewrite()
