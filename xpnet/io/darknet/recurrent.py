"""The sections [lstm] and [gru], which read a sequence of `time_steps` vectors of [net].

A weights file has biases and weights of a connected section for each gate, once for the input (u)
and once for the state (w), in an order that depends on the program that wrote the file. The version
in the file's header tells which: the first Darknet writes 0.2.0, later forks write 0.2.5. Of the
two biases of a gate, a layer here has the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xpnet.io import gates
from xpnet.io.darknet.builder import Builder, Stored
from xpnet.io.darknet.cfg import WHO, Config
from xpnet.layers import GRU, LSTM
from xpnet.node import Node

Arrays = dict[str, np.ndarray]
Version = tuple[int, int, int]

FIRST, LATER = (0, 2, 0), (0, 2, 5)
ORDERS: dict[str, dict[Version, tuple[str, ...]]] = {
    "lstm": {FIRST: gates.DARKNET["lstm"], LATER: ("wf", "wi", "wg", "wo", "uf", "ui", "ug", "uo")},
    "gru": {FIRST: gates.DARKNET["gru_before"]}}        # the later forks have no tanh=1
EQUATIONS = {"lstm": "lstm", "gru": "gru_before"}       # as xpnet.io.gates calls them


def has_steps(config: Config) -> bool:
    """Whether the input is a sequence."""
    return any(section.kind in ORDERS for section in config.layers)


def recurrent(b: Builder) -> Node:
    s = b.section
    units = s.integer("output", 1, 1)
    if s.integer("batch_normalize", 0):
        raise s.wrong("batch_normalize=0; no recurrent layer here normalises within a step",
                      "batch_normalize")
    if s.kind == "gru" and not s.integer("tanh", 0):
        raise s.wrong("tanh=1; without it the candidate is a sigmoid, which no layer here has",
                      "tanh")
    if len(b.value.shape) != 2:
        raise s.wrong("a sequence before it, of inputs and time_steps of [net]",
                      received=f"shape {b.value.shape}")
    layer = (LSTM(units, return_sequences=True) if s.kind == "lstm"
             else GRU(units, reset="before", return_sequences=True))
    D, _ = b.value.shape
    y = b.use(layer, s.kind, b.value)
    for gate in ORDERS[s.kind][FIRST]:
        read = D if gate[0] == "u" else units
        for what, shape in (("biases", (units,)), ("weights", (units, read))):
            b.stored.append(Stored(s, what, f"{layer.name}.forward1.{gate}.{what}", shape,
                                   matrix=what == "weights", gate=gate))
    return y


def version_of(stored: Sequence[Stored], default: Version) -> Version:
    """The version of a new file with these arrays."""
    return FIRST if any(array.gate for array in stored) else default


def ordered(stored: Sequence[Stored], version: Version, path: object) -> list[Stored]:
    """The arrays in the order of a file of this version.

    Raises ValueError if the order of an [lstm] or [gru] is not known.
    """
    found: list[Stored] = []
    waiting: list[Stored] = []                  # of the section that `array` belongs to
    for array in stored:
        if not array.gate:
            found.append(array)
            continue
        orders = ORDERS[array.section.kind]
        if version not in orders:
            known = " or ".join(".".join(map(str, known)) for known in orders)
            raise ValueError(f"{WHO}: expected a weights file of version {known}, whose order of "
                             f"the arrays of [{array.section.kind}] is known. Received: version "
                             f"{'.'.join(map(str, version))} in {path}.")
        waiting.append(array)
        if len(waiting) == 2 * len(orders[version]):
            found += sorted(waiting, key=lambda one: orders[version].index(one.gate))   # noqa: B023
            waiting = []
    return found


def joined(values: Arrays, stored: Sequence[Stored]) -> Arrays:
    """The network's arrays, from those of a file."""
    found = {array.name: values[array.name] for array in stored if not array.gate}
    for layer, kind in _layers(stored).items():
        sections = {gate: (values[f"{layer}.{gate}.weights"], values[f"{layer}.{gate}.biases"])
                    for gate in ORDERS[kind][FIRST]}
        found |= {f"{layer}.{name}": value
                  for name, value in gates.from_darknet(EQUATIONS[kind], sections).items()}
    return found


def split(values: Mapping[str, np.ndarray], stored: Sequence[Stored]) -> Arrays:
    """The arrays of recurrent sections for a file, from those of the network."""
    found: Arrays = {}
    for layer, kind in _layers(stored).items():
        weights = {name: values[f"{layer}.{name}"] for name in "WUb"}
        for gate, (matrix, bias) in gates.to_darknet(EQUATIONS[kind], weights).items():
            found |= {f"{layer}.{gate}.weights": matrix, f"{layer}.{gate}.biases": bias}
    return found


def _layers(stored: Sequence[Stored]) -> dict[str, str]:
    """The kind of each recurrent layer, by its name."""
    return {array.layer: array.section.kind for array in stored if array.gate}
