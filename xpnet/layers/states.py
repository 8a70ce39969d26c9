"""Final states of recurrent layers as outputs of the graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from xpnet.layer import Array, Layer, Shape
from xpnet.layers.shape import Reshape, Slice
from xpnet.node import Node


class Stateful(Layer):
    """Base class: a layer whose final states are outputs, too, if `return_state` is True.

    A layer has one output. With return_state it is a vector for each sample that holds Y and the
    final states, one after the other. A call of the layer cuts it into (y, h, ...): views, made by
    Slice and Reshape.
    """

    return_sequences: bool
    return_state: bool

    def packed_shape(self, y: Shape, states: Sequence[Shape]) -> Shape:
        """The shape of the output for these shapes of Y and of the final states. For `build`."""
        self.packed_shapes = (y, *states)
        return (sum(map(math.prod, self.packed_shapes)),) if self.return_state else y

    def packed(self, y: Array, states: Sequence[Array]) -> Array:
        """The output for Y and the final states."""
        if not self.return_state:
            return y
        return self.backend.joined([a.reshape(-1, a.shape[-1]) for a in (y, *states)], axis=0)

    def unpacked(self, output: Array) -> list[Array]:
        """Y and, with return_state, the final states, as views of the output; or of its gradient.
        """
        if not self.return_state:
            return [output]
        return [output[start:stop].reshape(*shape, output.shape[-1])
                for start, stop, shape in self._parts()]

    def __call__(self, *inputs: Node) -> Any:
        """Add the layer to a graph. The output; with return_state a tuple of it and of the final
        states."""
        node = self.node(*inputs)
        if not self.return_state:
            return node
        parts = ((Slice(start, stop)(node), shape) for start, stop, shape in self._parts())
        return tuple(part if len(shape) == 1 else Reshape(shape)(part) for part, shape in parts)

    def _parts(self) -> Iterator[tuple[int, int, Shape]]:
        """The first row of Y and of each final state, the row after its last one, and its shape."""
        start = 0
        for shape in self.packed_shapes:
            stop = start + math.prod(shape)
            yield start, stop, shape
            start = stop
