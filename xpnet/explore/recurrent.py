"""How recurrent layers compute one state at one step: gates, and the products of each.

The layers are computed again step by step in float64, because a network keeps only the states that
it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet import layers as xl
from xpnet.explore.parts import Computed, Part, activated, host
from xpnet.explore.sums import Place, Rule
from xpnet.layers.reset_before import ResetBeforeScan

GATES = {"lstm": "ifgo", "gru": "rzn"}
FUNCTIONS = {"i": "sigmoid", "f": "sigmoid", "g": "tanh", "o": "sigmoid", "r": "sigmoid",
             "z": "sigmoid", "n": "tanh"}


class Step(NamedTuple):
    """One step of a layer in one direction: x (D,), the states before it, a = W x + b, s = U h, the
    gates by name, and the new states; vectors (H,) each."""

    x: np.ndarray
    before: tuple[np.ndarray, ...]
    sums: dict[str, np.ndarray]
    gates: dict[str, np.ndarray]
    after: tuple[np.ndarray, ...]


class Direction:
    """One layer in one direction, step by step."""

    def __init__(self, scan: Any, kind: str) -> None:
        self.scan, self.kind, self.H = scan, kind, scan.units
        self.W, self.U = host(scan, scan.W.data), host(scan, scan.U.data)
        self.b = np.zeros(len(self.W)) if scan.b is None else host(scan, scan.b.data)
        self.c = np.zeros(self.H) if scan.c is None else host(scan, scan.c.data)
        self.names = GATES.get(kind, "h")

    def rows(self, gate: str) -> slice:
        k = self.names.index(gate)
        return slice(k * self.H, (k + 1) * self.H)

    def steps(self, x: np.ndarray, states: tuple[np.ndarray, ...]) -> dict[int, Step]:
        """All steps of x (D, T), by their number."""
        T, found = x.shape[1], {}
        for t in reversed(range(T)) if self.scan.reverse else range(T):
            found[t] = self._step(x[:, t], states)
            states = found[t].after
        return found

    def _step(self, x: np.ndarray, states: tuple[np.ndarray, ...]) -> Step:
        h = states[0]
        a, s = self.W @ x + self.b, self.U @ h
        z = {gate: a[self.rows(gate)] + s[self.rows(gate)] for gate in self.names}
        if self.kind == "lstm":
            gates = {gate: activated(FUNCTIONS[gate], z[gate]) for gate in self.names}
            c = gates["f"] * states[1] + gates["i"] * gates["g"]
            return Step(x, states, z, gates, (gates["o"] * np.tanh(c), c))
        if self.kind != "gru":
            h = activated(self.kind, z["h"])
            return Step(x, states, z, {"h": h}, (h,))
        r, update = (activated("sigmoid", z[gate]) for gate in "rz")
        rows = self.rows("n")
        z["n"] = a[rows] + (self.U[rows] @ (r * h) if isinstance(self.scan, ResetBeforeScan)
                            else r * (s[rows] + self.c))
        n = np.tanh(z["n"])
        return Step(x, states, z, {"r": r, "z": update, "n": n}, (n + update * (h - n),))


def recurrent(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """The last layer's state of one unit at one step; without return_sequences at the last step."""
    first = xs[1 + layer.lengths:]
    x, number = xs[0], 0
    for scans in layer.scans:
        outs, found = [], []
        for scan in scans:
            kind = scan.cell if not isinstance(scan, ResetBeforeScan) else "gru"
            states = (tuple(s if s.ndim == 1 else s[number] for s in first) if first else
                      (np.zeros(scan.units),) * layer.carried)
            direction = Direction(scan, kind)
            steps = direction.steps(x, states)
            found.append((direction, steps))
            outs.append(np.stack([steps[t].after[0] for t in range(x.shape[1])], axis=1))
            number += 1
        below, x = x, np.concatenate(outs)
    unit, T = at[0], below.shape[1]
    direction, steps = found[unit // layer.units]
    t = at[1] if len(at) > 1 else 0 if direction.scan.reverse else T - 1
    return _one(layer, direction, steps[t], unit % layer.units, t)


def _one(layer: Any, direction: Direction, step: Step, unit: int, t: int) -> Computed:
    """The gates of one unit, with the products of the first of them."""
    before = t + (1 if direction.scan.reverse else -1)
    gates = [{"name": gate, "sum": float(step.sums[gate][unit]),
              "value": float(step.gates[gate][unit]),
              "function": FUNCTIONS.get(gate, direction.kind)} for gate in direction.names]
    row = direction.rows(direction.names[0]).start + unit
    parts = [Part(0, [[0, len(step.x)], [t, t + 1]], step.x[:, None], direction.W[row, :, None],
                  inside="below" if layer.layers > 1 else None),
             Part(0, [[0, direction.H], [before, before + 1]], step.before[0][:, None],
                  direction.U[row, :, None], inside="previous")]
    more = {"gates": gates, "previous": float(step.before[0][unit]), "step": t,
            "of_gate": direction.names[0]}
    if direction.kind in GATES:             # no sum of products: the state follows from the gates
        more["result"] = float(step.after[0][unit])
    if direction.kind == "lstm":
        more |= {"cell": float(step.after[1][unit]), "previous_cell": float(step.before[1][unit])}
        return Computed("recurrent", "h = o tanh(c), c = f c' + i g", parts, more=more)
    if direction.kind == "gru":
        return Computed("recurrent", "h = (1 - z) n + z h'", parts, more=more)
    found = Computed.summed(layer, "recurrent", "sum of w x + u h'", parts,
                            None if direction.scan.b is None else float(direction.b[row]))
    found.more = more
    return found


RULES: dict[type, Rule] = dict.fromkeys((xl.SimpleRNN, xl.LSTM, xl.GRU), recurrent)
