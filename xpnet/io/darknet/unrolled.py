"""[rnn], [lstm] and [gru] as a graph with the nodes of every step.

The connected sections of which they consist are layers that all steps use. So with batch_normalize
each step has its own mean and variance in training, as in Darknet, and moves the running ones.
"""

from __future__ import annotations

from xpnet.io.darknet.builder import Builder
from xpnet.io.darknet.sections import EPS, MOMENTUM
from xpnet.io.gates import DARKNET
from xpnet.layers import Add, BatchNorm1d, Concat, Linear, Multiply, Reshape, Slice, Subtract
from xpnet.node import Node

MOST_STEPS = 1024


class Connected:
    """A connected section that is used in each step: f(W x + b), or with batch norm."""

    def __init__(self, b: Builder, name: str, units: int, activation: str | None = None, *,
                 gate: str = "") -> None:
        self.b, self.name, self.gate, self.activation = b, name, gate, activation
        self.normalized = bool(b.section.integer("batch_normalize", 0))
        self.linear = Linear(units, bias=not self.normalized)
        self.bn = BatchNorm1d(momentum=MOMENTUM, eps=EPS)
        self.used = False

    def __call__(self, x: Node) -> Node:
        y = self._value(self.linear, self.name, x)
        if self.normalized:
            y = self._value(self.bn, f"{self.name}_bn", y)
        if not self.used:
            self._store(x.shape[0], y.shape[0])
        self.used = True
        return self.b.activate(y, self.activation)

    def _value(self, layer: Linear | BatchNorm1d, name: str, x: Node) -> Node:
        return layer(x) if self.used else self.b.use(layer, name, x)

    def _store(self, read: int, units: int) -> None:
        b, bn, gate = self.b, self.bn, self.gate
        owner, name = (bn, "beta") if self.normalized else (self.linear, "b")
        b.store("biases", owner, name, (units,), gate=gate)
        b.store("weights", self.linear, "W", (units, read), matrix=True, gate=gate)
        if self.normalized:
            for what, name in (("scales", "gamma"), ("means", "mean"), ("variances", "var")):
                b.store(what, bn, name, (units,), gate=gate)


def rnn(b: Builder, units: int) -> Node:
    """s' = f(W x + b) + g(U s + c), plus s if shortcut=1, and y = f(V s' + d)."""
    s = b.section
    f, hidden = b.activation("logistic"), s.integer("hidden", 1, 1)
    logistic, shortcut = s.integer("logistic", 0), s.integer("shortcut", 0)
    g = {1: "sigmoid", 2: "loggy"}.get(logistic, f)
    W, U = Connected(b, "input", hidden, f), Connected(b, "self", hidden, g)
    V = Connected(b, "output", units, f)
    state, outputs = None, []
    for x in _steps(b):
        a = W(x)
        before = _zero(b, a) if state is None else state
        state = b.use(Add(), "state", a, U(before), *([before] if shortcut else []))
        outputs.append(V(state))
    return _sequence(b, outputs)


def lstm(b: Builder, units: int) -> Node:
    """As xn.LSTM. Each gate has a Connected for the input (u) and one for the state (w)."""
    connected = {name: Connected(b, name, units, gate=name) for name in DARKNET["lstm"]}
    h = c = None
    outputs = []
    for x in _steps(b):
        u = {gate: connected["u" + gate](x) for gate in "ifog"}
        if h is None or c is None:
            h = c = _zero(b, u["i"])
        i, f, o, g = (b.activate(b.use(Add(), "sum", connected["w" + gate](h), u[gate]),
                                 "tanh" if gate == "g" else "sigmoid") for gate in "ifog")
        c = b.use(Add(), "cell", b.use(Multiply(), "kept", f, c), b.use(Multiply(), "new", i, g))
        h = b.use(Multiply(), "state", o, b.activate(c, "tanh"))
        outputs.append(h)
    return _sequence(b, outputs)


def gru(b: Builder, units: int) -> Node:
    """As xn.GRU(reset="before"); a sigmoid takes the place of tanh if tanh=1 is missing."""
    connected = {name: Connected(b, name, units, gate=name) for name in DARKNET["gru_before"]}
    candidate = "tanh" if b.section.integer("tanh", 0) else "sigmoid"
    h = None
    outputs = []
    for x in _steps(b):
        u = {gate: connected["u" + gate](x) for gate in "zrh"}
        before = _zero(b, u["z"]) if h is None else h
        z, r = (b.activate(b.use(Add(), "sum", connected["w" + gate](before), u[gate]), "sigmoid")
                for gate in "zr")
        reset = connected["wh"](b.use(Multiply(), "reset", r, before))
        n = b.activate(b.use(Add(), "sum", reset, u["h"]), candidate)
        kept = b.use(Multiply(), "kept", z, b.use(Subtract(), "change", before, n))
        h = b.use(Add(), "state", n, kept)                  # z h + (1 - z) n
        outputs.append(h)
    return _sequence(b, outputs)


def _steps(b: Builder) -> list[Node]:
    """The vectors of the sequence."""
    D, T = b.value.shape
    if T > MOST_STEPS:
        raise b.section.wrong(f"time_steps of at most {MOST_STEPS}, because the graph has nodes "
                              "for each step", received=f"time_steps={T}")
    return [b.use(Reshape((D,)), "vector", b.use(Slice(t, t + 1, axis=1), "step", b.value))
            for t in range(T)]


def _sequence(b: Builder, vectors: list[Node]) -> Node:
    columns = [b.use(Reshape((vector.shape[0], 1)), "column", vector) for vector in vectors]
    return columns[0] if len(columns) == 1 else b.use(Concat(axis=1), "sequence", *columns)


def _zero(b: Builder, like: Node) -> Node:
    """The state before the first step."""
    return b.use(Subtract(), "zero", like, like)
