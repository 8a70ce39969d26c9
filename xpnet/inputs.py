"""What people pass as the inputs of a graph: checked, with the numbers of steps behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.buffers import Array
from xpnet.checks import real_array
from xpnet.dlpack import own_array
from xpnet.node import Node
from xpnet.ragged import checked_lengths, expect_no_lengths, is_list, packed

if TYPE_CHECKING:
    from xpnet.graph import Graph


def checked_inputs(net: Graph, x: Any, lengths: Any) -> tuple[Any, ...]:
    """Batch-first arrays, one for each of `in_nodes`, see Graph.check_inputs."""
    xs, values = [], net.ins.unpack(x, net.who, "inputs")
    steps = _given_lengths(net, values, lengths)
    for node, a in zip(net.ins.nodes, values, strict=True):
        what = "input" if len(net.ins) == 1 else node.name
        if node in steps and steps[node] is None:
            a, steps[node] = packed(a, node.shape, f"{net.who}: {what}", net.backend)
        xs.append(_samples(net, node, a, what))
    counts = {node.name: len(a) for node, a in zip(net.ins.nodes, xs, strict=True)}
    if len(set(counts.values())) > 1:
        received = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ValueError(f"{net.who}: expected as many samples for each input. Received: "
                         f"{received}.")
    for node, numbers in steps.items():
        numbers = checked_lengths(numbers, len(xs[0]), node.shape[-1], net.who, net.backend)
        xs.append(numbers[:, None])
        if len(node.shape) == 1:                # the padding of tokens need not be a token
            number = net.ins.nodes.index(node)
            xs[number] = _without_padding(net, xs[number], numbers)
    return tuple(xs)


def _samples(net: Graph, node: Node, a: Any, what: str) -> Any:
    """The samples of one input, as an array of the backend or of NumPy."""
    _expect_one_shape(net, node, a, what)
    a = own_array(a, f"{net.who}: {what}", net.backend)
    if not hasattr(a, "__cuda_array_interface__"):
        a = real_array(a, f"{net.who}: {what}")
    if a.shape[1:] != node.shape or a.ndim != len(node.shape) + 1:
        raise ValueError(f"{net.who}: expected {what} of shape (N, "
                         f"{', '.join(map(str, node.shape))}). Received: shape {tuple(a.shape)}.")
    if a.shape[0] == 0:
        raise ValueError(f"{net.who}: expected at least one sample. Received: shape "
                         f"{tuple(a.shape)}.")
    return a


def _expect_one_shape(net: Graph, node: Node, a: Any, what: str) -> None:
    """ValueError if `a` is a list of arrays that differ in shape, with the remedy for sequences."""
    shapes = {tuple(sample.shape) for sample in a if hasattr(sample, "shape")} if is_list(a) else ()
    if len(shapes) < 2:
        return
    remedy = ""
    if len({shape[:-1] for shape in shapes}) == 1 and len(node.shape) <= 2:
        remedy = ("; pad them, or pass the list without lengths" if node.lengths is not None else
                  "; an Input(..., lengths=True) takes sequences of different lengths")
    received = " and ".join(map(str, sorted(shapes)[:2]))
    raise ValueError(f"{net.who}: {what}: expected samples of shape {node.shape}{remedy}. "
                     f"Received: a list of arrays of shapes {received}"
                     f"{' and others' * (len(shapes) > 2)}.")


def _given_lengths(net: Graph, values: Sequence[Any], lengths: Any) -> dict[Node, Any]:
    """What was passed as `lengths` of each input that has lengths; None for lists of arrays."""
    if net.ragged is None:
        expect_no_lengths(lengths, net.who)
        return {}
    if lengths is not None:
        return dict(zip(net.ragged.nodes, net.ragged.unpack(lengths, net.who, "lengths"),
                        strict=True))
    given = dict(zip(net.ins.nodes, values, strict=True))
    for node in net.ragged.nodes:
        if not is_list(given[node]):
            raise ValueError(f"{net.who}: expected lengths, the number of steps of each sample, or "
                             f"a list of arrays, for {node.name}. Received: "
                             f"{type(given[node]).__name__} and lengths=None.")
    return dict.fromkeys(net.ragged.nodes)


def _without_padding(net: Graph, x: Any, lengths: np.ndarray) -> Any:
    """x (N, T) with 0 beyond the end of each sample."""
    real = np.arange(x.shape[1]) < lengths[:, None]
    if not hasattr(x, "__cuda_array_interface__"):
        return np.where(real, x, x.dtype.type(0))
    with net.backend.scope():
        return net.xp.where(net.backend.asarray(real), x, x.dtype.type(0))


def batch_last_inputs(net: Graph, x: Any, lengths: Any, who: str) -> tuple[Array, ...]:
    """Batch-last arrays as they are, one for each of `in_nodes`; lengths are (1, N)."""
    xs = net.ins.unpack(x, who, "inputs")
    if net.ragged is None:
        expect_no_lengths(lengths, who)
        return xs
    if lengths is None:
        raise ValueError(f"{who}: expected lengths (1, N), for {', '.join(net.ragged.names)}. "
                         "Received: lengths=None.")
    return *xs, *net.ragged.unpack(lengths, who, "lengths")
