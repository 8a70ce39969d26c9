"""The sections [rnn], [lstm] and [gru], which read a sequence of `time_steps` vectors of [net].

[lstm], and [gru] with tanh=1, are an LSTM and a GRU. No recurrent layer here normalises within its
steps, as batch_normalize=1 does, or computes [rnn] or [gru] without tanh=1: these become a graph
with the nodes of every step, in which the steps share their layers (unrolled.py).

A weights file has biases and weights of a connected section for each gate, once for the input (u)
and once for the state (w), in an order that depends on the program that wrote the file. The version
in the file's header tells which: the first Darknet writes 0.2.0, later forks write 0.2.5. Of the
two biases of a gate, LSTM and GRU have the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from xpnet.io import gates
from xpnet.io.darknet import unrolled
from xpnet.io.darknet.builder import Builder, Stored
from xpnet.io.darknet.cfg import WHO, Config, Section
from xpnet.layers import GRU, LSTM
from xpnet.node import Node

Arrays = dict[str, np.ndarray]
Version = tuple[int, int, int]

SEQUENCES = "rnn", "lstm", "gru"
FIRST, LATER = (0, 2, 0), (0, 2, 5)
ORDERS: dict[str, dict[Version, tuple[str, ...]]] = {
    "lstm": {FIRST: gates.DARKNET["lstm"], LATER: ("wf", "wi", "wg", "wo", "uf", "ui", "ug", "uo")},
    "gru": {FIRST: gates.DARKNET["gru_before"], LATER: ("uz", "ur", "uh", "wz", "wr", "wh")}}
EQUATIONS = {"lstm": "lstm", "gru": "gru_before"}       # as xpnet.io.gates calls them


def has_steps(config: Config) -> bool:
    """Whether the input is a sequence."""
    return any(section.kind in SEQUENCES for section in config.layers)


def recurrent(b: Builder) -> Node:
    s = b.section
    if len(b.value.shape) != 2:
        raise s.wrong("a sequence before it, of inputs and time_steps of [net]",
                      received=f"shape {b.value.shape}")
    units = s.integer("output", 1, 1)
    if s.kind == "rnn":
        return unrolled.rnn(b, units)
    if s.integer("batch_normalize", 0) or (s.kind == "gru" and not s.integer("tanh", 0)):
        return unrolled.lstm(b, units) if s.kind == "lstm" else unrolled.gru(b, units)
    layer = (LSTM(units, return_sequences=True) if s.kind == "lstm"
             else GRU(units, reset="before", return_sequences=True))
    D, _ = b.value.shape
    y = b.use(layer, s.kind, b.value)
    for gate in ORDERS[s.kind][FIRST]:
        read = D if gate[0] == "u" else units
        for what, shape in (("biases", (units,)), ("weights", (units, read))):
            b.stored.append(Stored(s, what, f"{layer.name}.forward1.{gate}.{what}", shape,
                                   matrix=what == "weights", gate=gate, merged=True))
    return y


# --- weights files --------------------------------------------------------------------------------

def version_of(stored: Sequence[Stored], default: Version) -> Version:
    """The version of a new file with these arrays."""
    return FIRST if any(array.gate for array in stored) else default


def ordered(stored: Sequence[Stored], version: Version, path: object, *, who: str = WHO
            ) -> list[Stored]:
    """The arrays in the order of a file of this version.

    Raises ValueError if the order of an [lstm] or [gru] is not known.
    """
    found: list[Stored] = []
    for _, group in groupby(stored, key=lambda array: array.section.index):
        arrays = [*group]
        if arrays[0].gate:
            order = _order(arrays[0].section, version, path, who)
            arrays.sort(key=lambda array: order.index(array.gate))      # noqa: B023
        found += arrays
    return found


def _order(section: Section, version: Version, path: object, who: str) -> tuple[str, ...]:
    orders = dict(ORDERS[section.kind])
    if section.kind == "gru" and section.integer("tanh", 0):        # which later forks do not have
        del orders[LATER]
    if version not in orders:
        known = " or ".join(".".join(map(str, one)) for one in orders)
        raise ValueError(f"{who}: expected a weights file of version {known}, whose order of the "
                         f"arrays of [{section.kind}] is known. Received: version "
                         f"{'.'.join(map(str, version))} in {path}.")
    return orders[version]


def joined(values: Arrays, stored: Sequence[Stored]) -> Arrays:
    """The network's arrays, from those of a file."""
    found = {array.name: values[array.name] for array in stored if not array.merged}
    for layer, kind in _layers(stored).items():
        sections = {gate: (values[f"{layer}.{gate}.weights"], values[f"{layer}.{gate}.biases"])
                    for gate in ORDERS[kind][FIRST]}
        found |= {f"{layer}.{name}": value
                  for name, value in gates.from_darknet(EQUATIONS[kind], sections).items()}
    return found


def split(values: Mapping[str, np.ndarray], stored: Sequence[Stored]) -> Arrays:
    """The arrays of LSTM and GRU for a file, from those of the network."""
    found: Arrays = {}
    for layer, kind in _layers(stored).items():
        weights = {name: values[f"{layer}.{name}"] for name in "WUb"}
        for gate, (matrix, bias) in gates.to_darknet(EQUATIONS[kind], weights).items():
            found |= {f"{layer}.{gate}.weights": matrix, f"{layer}.{gate}.biases": bias}
    return found


def _layers(stored: Sequence[Stored]) -> dict[str, str]:
    """The kind of each LSTM and GRU, by its name."""
    return {array.layer: array.section.kind for array in stored if array.merged}
