"""Predictions of long sequences, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpnet.checks import expect_instance
from xpnet.graph import Graph
from xpnet.layer import PREDICT, Array
from xpnet.layers import RNN
from xpnet.layers.recurrent import Recurrent
from xpnet.node import Node


class ChunkPredictor:
    """Predicts sequences chunk by chunk: each recurrent layer begins with the states at which it
    ended, so the outputs are those of the whole sequence.

        predict = xn.ChunkPredictor(net)
        for x in chunks:                        # (N, D, T), with the T of the network
            y = predict(x)

    Only recurrent layers carry a state. A convolution along time begins anew at each chunk, and
    attention reads the steps of its chunk only. A network for shorter chunks has the same
    parameters: `live.parameters[...] = net.parameters`.

    Args:
        net: a network with SimpleRNN, LSTM, GRU or RNN.

    Raises:
        ValueError: the network has no recurrent layer, one that reads sequences in reverse, or one
            with lengths.
    """

    def __init__(self, net: Graph) -> None:
        who = type(self).__name__
        self.net = expect_instance(who, "net", net, Graph, "a Network")
        if net.ragged is not None:
            raise ValueError(f"{who}: expected a network whose Input has no lengths. Received: "
                             f"{net!r} with lengths=True.")
        found = [layer for layer in net.layers if isinstance(layer, Recurrent | RNN)]
        if not found:
            raise ValueError(f"{who}: expected a network with a recurrent layer. Received: "
                             f"{net!r}, which has none.")
        for layer in found:
            if layer.reverse or isinstance(layer, Recurrent) and layer.bidirectional:
                raise ValueError(f"{who}: expected recurrent layers that read from the first step "
                                 f"to the last. Received: {layer.who}, which reads in reverse.")
            if layer.lengths:
                raise ValueError(f"{who}: expected samples that all have the steps of a chunk. "
                                 f"Received: {layer.who} with lengths=True.")
        self.reset()

    def __repr__(self) -> str:
        return f"ChunkPredictor({self.net!r})"

    def reset(self) -> None:
        """Begin with new sequences."""
        self._states: dict[Node, tuple[Array, ...]] = {}
        self._samples: int | None = None

    def __call__(self, x: Any) -> Any:
        """The output for the next chunk, batch-first x, as batch-first NumPy arrays.

        Raises ValueError if the chunk has another number of samples than the one before it.
        """
        net = self.net
        xs = net.check_inputs(x)
        if self._samples not in (None, len(xs[0])):
            raise ValueError(f"ChunkPredictor: expected {self._samples} samples, as in the chunk "
                             "before; reset() begins with new sequences. Received: "
                             f"{len(xs[0])}.")
        self._samples = len(xs[0])
        with net.backend.scope():
            ys = net.run([net.backend.gather_batch(a, None, net.dtype) for a in xs],
                         net.outs.nodes, hook=self._hook)
            return net.outs.pack([net.backend.to_numpy(net.xp.ascontiguousarray(
                net.xp.moveaxis(y, -1, 0))) for y in ys])

    def _hook(self, node: Node, forward: Callable[..., Any], inputs: tuple[Array, ...]) -> Any:
        """The value of a node; a recurrent layer begins with its last states."""
        if not isinstance(node.layer, Recurrent | RNN):
            return forward(*inputs)
        states = self._states.get(node, inputs[1:])
        y, self._states[node] = node.layer.through(inputs[0], *states, mode=PREDICT)
        return y
