"""Networks: a graph of layers, and its straight line, Sequential.

Inside, everything is batch-last; a network converts at its boundary: `net(x)`, `fit`, `evaluate`
and `predict` take and return batch-first arrays.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends import Backend, get_backend
from xpnet.checks import (
    expect_choice,
    expect_dtype,
    expect_flag,
    expect_seed,
    expect_shape,
    real_array,
    shown,
)
from xpnet.layer import PREDICT, SAMPLE, Array, Buffers, Layer, Node, copy_in
from xpnet.layers import Dropout, Flatten, LogSoftmax, Softmax
from xpnet.losses import Loss
from xpnet.optim import Optimizer
from xpnet.schedules import Schedule

if TYPE_CHECKING:
    from pathlib import Path

    from xpnet.memory import MemoryReport
    from xpnet.step import TrainStep
    from xpnet.training import History

FLAT = "parameters", "grads", "state", "counters"       # arrays that layers have views of
FIXED = {  # attributes that other parts of a network follow from, and how to have other ones
    "backend": "net.to(backend) to move the network", "dtype": "a new Network with this dtype",
    "seed": "a new Network with this seed", "layers": "a new Network of these layers",
    "nodes": "a new Network of this graph", "input": "a new Network of this graph",
    "output": "a new Network of this graph",
}


def Input(shape: Sequence[int]) -> Node:    # noqa: N802 - it reads like the layers it stands among
    """The symbolic input of a network: the shape of one sample, (C, H, W) or (D,), without the
    batch axis."""
    return Node(None, (), expect_shape("Input", "the shape of one sample, e.g. (1, 28, 28)", shape),
                {})


class Network:
    """A graph of layers from one Input to one output, on one backend.

    Its parameters, gradients and state are three flat arrays: `net.parameters`, `net.grads`,
    `net.state`. An assignment to one of them copies the values in. The same `seed` gives the same
    initial values on every backend and the same training on one.
    """

    backend: Backend
    parameters: Array
    grads: Array
    state: Array
    counters: Array

    def __init__(self, inputs: Node, outputs: Node, *, backend: str | Backend = "auto",
                 dtype: Any = "float32", seed: int = 0) -> None:
        if (not isinstance(inputs, Node) or not isinstance(outputs, Node)
            or inputs.layer is not None):
            raise TypeError("Network: expected one Input and one output of its graph. "
                            f"Received: {type(inputs).__name__} and {type(outputs).__name__}.")
        self.dtype, self.seed = expect_dtype("Network", dtype), expect_seed("Network", seed)
        self.input, self.output = inputs, outputs
        first, *nodes = _topological(outputs)
        if first is not inputs or any(node.layer is None for node in nodes):
            raise ValueError("Network: expected an output that follows from the given Input alone. "
                             "Received: an output that does not reach it, or reaches another "
                             "Input.")
        self.nodes: tuple[Node, ...] = tuple(nodes)
        self.layers: tuple[Layer, ...] = (tuple(node.layer for node in self.nodes
                                                if node.layer is not None))
        if not self.layers:
            raise ValueError("Network: expected at least one layer. Received: an output that is "
                             "the Input itself.")
        self._check_names()
        self._check_softmax()
        self._place_gradients()
        self.epochs = 0  # trained so far; keys the order in which fit shuffles
        self._train_step: TrainStep | None = None
        self._allocate(get_backend(backend))
        self._own = frozenset(vars(self)) | {"_own"}

    def __setattr__(self, name: str, value: Any) -> None:
        # a subclass may use the names for its own arguments before that
        made = "_own" in vars(self)
        if made and name in FLAT:
            copy_in("Network", name, vars(self)[name], value, self.backend)
        elif made and name in FIXED:
            raise AttributeError(f"Network: expected {FIXED[name]}. Received: an assignment to "
                                 f"net.{name}, which the network's "
                                 "other parts would not follow.")
        else:
            super().__setattr__(name, value)

    # --- construction -----------------------------------------------------------------------------

    def _check_names(self) -> None:
        twice = (sorted(str(name)
                        for name, times in Counter(layer.name for layer in self.layers).items()
                        if times > 1))
        if twice:
            raise ValueError("Network: expected every layer to have a name of its own. Received: "
                             f"{', '.join(twice)} twice.")
        for layer in self.layers:
            if getattr(layer, "buffers", None) is not None:
                raise ValueError(f"{layer.who}: expected a layer of no other network. Received: "
                                 "one that is in use elsewhere.")

    def _check_softmax(self) -> None:
        # whether a value is a softmax's output, in one pass: see softmax_below
        below = {self.input: False}
        for node in self.nodes:
            first = below[node.parents[0]]
            below[node] = isinstance(node.layer, Softmax) or (first and len(node.parents) == 1
                                                              and isinstance(node.layer,
                                                                             Dropout | Flatten))
            if isinstance(node.layer, Softmax | LogSoftmax) and first:
                raise ValueError(f"{node.layer.who}: expected softmax to be applied once. "
                                 "Received: an input that is one already.")

    def _place_gradients(self) -> None:
        """A gradient by a value is needed where the value depends on a parameter; the first layers
        need none."""
        depends = {self.input: False}
        self._consumers: dict[Node, int] = {}
        for node in self.nodes:
            assert node.layer is not None
            node.layer.needs_dx = any(depends[parent] for parent in node.parents)
            depends[node] = node.layer.needs_dx or bool(node.layer.parameters)
            for parent in node.parents:
                self._consumers[parent] = self._consumers.get(parent, 0) + 1

    def _allocate(self, backend: Backend) -> None:
        # first: memory may not suffice
        self.buffers = Buffers(self.layers, backend, self.dtype, self.seed)
        self.xp = backend.xp
        flat = {name: getattr(self.buffers, name) for name in FLAT[:3]}
        # (step, use): what dropout's masks follow from
        flat["counters"] = backend.zeros((2,), np.uint64)
        vars(self).update(flat, backend=backend)            # the only place where they are replaced
        for index, layer in enumerate(self.layers):
            layer.buffers = self.buffers
            with backend.scope():
                layer.bind(backend, self.seed, index, self.counters)

    def to(self, backend: str | Backend) -> Network:
        """Move the network, and the optimizer's state of a training under way, to another backend.
        Returns itself."""
        new = get_backend(backend)
        old, arrays = self.backend, (self.parameters, self.grads, self.state, self.counters)
        self._allocate(new)
        with new.scope():
            for mine, before in zip((self.parameters, self.grads, self.state, self.counters),
                                    arrays, strict=True):
                mine[...] = new.asarray(old.to_numpy(before))
        if self._train_step is not None:
            self._train_step.to()
        return self

    # --- batch-last: what training and the layers use ---------------------------------------------

    def forward(self, x: Array, mode: str = PREDICT, output: Node | None = None) -> Array:
        """The value of `output` (the network's own unless told) for a batch-last x on the
        backend."""
        output = output or self.output
        values, left = {self.input: x}, dict(self._consumers)
        for node in self.nodes:
            if output in values:
                break
            assert node.layer is not None
            y = values[node] = node.layer.forward(*(values[parent] for parent in node.parents),
                                                  mode=mode)
            if getattr(y, "shape", (None,))[:-1] != node.shape:
                raise ValueError(f"{node.layer.who}: expected forward to return an array of shape "
                                 f"({', '.join(map(str, node.shape))}, N), as build said. "
                                 f"Received: {_shape_or_type(y)}.")
            for parent in node.parents:
                left[parent] -= 1
                if not left[parent]:
                    # nobody reads it again: its memory is free unless a layer keeps it
                    del values[parent]
        return values[output]

    def backward(self, dy: Array, output: Node | None = None, accumulate: bool = False) -> None:
        """All parameters' gradients, from the gradient by `output`; values read twice have their
        gradients summed."""
        gradients: dict[Node, Array] = {output or self.output: dy}
        owned: set[Node] = set()  # sums that are ours to write to; layers' arrays are not
        for node in reversed(self.nodes):
            assert node.layer is not None
            if node not in gradients:
                # it depends on no parameter: nobody asked for its gradient
                node.layer._cache = None
                continue
            dxs = node.layer.backward(gradients.pop(node), accumulate=accumulate)
            dxs = dxs if isinstance(dxs, tuple) else (dxs,)
            if len(dxs) != len(node.parents):
                raise ValueError(f"{node.layer.who}: expected backward to return a gradient for "
                                 "each of "
                                 f"{len(node.parents)} inputs. Received: {len(dxs)}.")
            for parent, dx in zip(node.parents, dxs, strict=True):
                if parent is self.input or dx is None:
                    continue
                if getattr(dx, "shape", (None,))[:-1] != parent.shape:
                    raise ValueError(f"{node.layer.who}: expected backward to return an array of "
                                     "its input's shape, "
                                     f"({', '.join(map(str, parent.shape))}, N). Received: "
                                     f"{_shape_or_type(dx)}.")
                if parent not in gradients:
                    gradients[parent] = dx
                elif parent in owned:
                    gradients[parent] += dx
                else:
                    gradients[parent] = gradients[parent] + dx
                    owned.add(parent)

    def batch_last(self, x: Any) -> Array:
        """A batch-first array as the network's: on its backend, in its dtype, the batch as the last
        axis."""
        return self.backend.gather_batch(self.xp.asarray(x), None, self.dtype)

    # --- batch-first: what users call -------------------------------------------------------------

    def __call__(self, x: Any, mode: str = PREDICT) -> Array:
        """The output for a batch-first x, as a batch-first array of the backend.

        mode is "predict", or "sample" for outputs with dropout on, another mask with each call.
        """
        mode = expect_choice("Network", "mode", mode, (PREDICT, SAMPLE))
        x = self.check_input(x)
        with self.backend.scope():
            y = self.forward(self.batch_last(x), mode)
            if mode == SAMPLE:
                self.counters[1] += self.counters.dtype.type(1)
            return self.xp.ascontiguousarray(self.xp.moveaxis(y, -1, 0))

    def check_input(self, x: Any) -> Any:
        """`x` as a batch-first array of real numbers; an error where the network cannot take it."""
        if not hasattr(x, "__cuda_array_interface__"):
            x = real_array(x, "Network: input")
        if x.shape[1:] != self.input.shape or x.ndim != len(self.input.shape) + 1:
            raise ValueError("Network: expected input of shape (N, "
                             f"{', '.join(map(str, self.input.shape))}). "
                             f"Received: shape {tuple(x.shape)}.")
        if x.shape[0] == 0:
            raise ValueError("Network: expected at least one sample. Received: shape "
                             f"{tuple(x.shape)}.")
        return x

    def predict(self, x: Any, *, batch_size: int = 256) -> np.ndarray:
        """What the last layer gives for a batch-first x, as a batch-first NumPy array, computed in
        batches."""
        from xpnet.training import predict
        return predict(self, x, batch_size=batch_size)

    def predict_samples(self, x: Any, samples: int = 50, *, loss: str | Loss | None = None,
                        batch_size: int = 256
                        ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the predictions over dropout's masks, of probabilities
        where the loss makes them.

        `loss` is that of the last fit by default; see xpnet.sampling.
        """
        from xpnet.sampling import predict_samples
        return predict_samples(self, x, samples, loss=loss, batch_size=batch_size)

    def evaluate(self, x: Any, y: Any, *, loss: str | Loss | None = None, batch_size: int = 256,
                 metrics: Mapping[str, Callable[[np.ndarray, np.ndarray], Any]] | None = None
                 ) -> dict[str, Any]:
        """{"loss": ..., "accuracy": ...}; the loss is the last fit's unless told, the accuracy is
        there for classes.

        metrics: names, and functions of what `predict` gives and of the targets, e.g. {"f1":
        xn.metrics.f1_score}.
        """
        from xpnet.training import evaluate
        return evaluate(self, x, y, loss=loss, batch_size=batch_size, metrics=metrics)

    def fit(self, x: Any, y: Any, *, loss: str | Loss, optimizer: str | Optimizer, epochs: int = 1,
            batch_size: int = 32, validation: tuple[Any, Any] | None = None,
            sample_weight: Any = None, schedule: str | Schedule = "constant", shuffle: bool = True,
            until: Callable[[dict[str, float]], bool] | None = None, verbose: bool = True,
            capture: bool = True) -> History:
        """Train on batch-first x and y; see xpnet.training.fit."""
        from xpnet.training import fit
        return fit(self, x, y, loss=loss, optimizer=optimizer, epochs=epochs, batch_size=batch_size,
                   validation=validation, sample_weight=sample_weight, schedule=schedule,
                   shuffle=shuffle, until=until, verbose=verbose, capture=capture)

    def save(self, path: str | Path) -> None:
        """Write architecture, parameters and state to a safetensors file, in place of the old one
        only when complete."""
        from xpnet.io import save
        save(self, path)

    def load(self, path: str | Path, *, architecture: bool = True) -> Network:
        """Copy parameters and state from a file that `save` wrote for the same architecture.
        Returns itself.

        With architecture=False from a file of any network whose arrays have the same names and
        shapes.
        """
        from xpnet.io import load_weights
        load_weights(self, path, architecture=expect_flag("load", "architecture", architecture))
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what `save` writes, and what was added to the object; the optimizer's state is
        not in it."""
        from xpnet.io.architecture import own_layers
        from xpnet.io.safetensors import from_bytes, to_bytes
        name = self.backend.name
        if name.partition(":")[0] not in ("numpy", "numba", "cupy"):
            raise TypeError("Network: expected a backend that get_backend makes, to be pickled by "
                            f"its name. Received: {name!r}.")
        return from_bytes, (type(self), to_bytes(self), name, own_layers(self)), self._added()

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        """A network with arrays of its own on the same backend, as saving and loading would give
        it."""
        from xpnet.io.architecture import own_layers
        from xpnet.io.safetensors import from_bytes, to_bytes
        new = memo[id(self)] = from_bytes(type(self), to_bytes(self), self.backend,
                                          own_layers(self))
        vars(new).update(copy.deepcopy(self._added(), memo))
        return new

    def _added(self) -> dict[str, Any]:
        """Attributes that a subclass or a user has given the object."""
        return {name: value for name, value in vars(self).items() if name not in self._own}

    def population_statistics(self, x: Any, *, batch_size: int = 256) -> Network:
        """Give batch norms the statistics of batch-first x instead of their running ones, see
        xpnet.population. Returns it."""
        from xpnet.population import population_statistics
        population_statistics(self, x, batch_size=batch_size)
        return self

    def folded(self) -> Network:
        """A new network for predictions, with batch norms folded into the layers before them; see
        xpnet.folding."""
        from xpnet.folding import fold_batch_norm
        return fold_batch_norm(self)

    def summary(self) -> None:
        """Print a table of layers: output shapes, parameters, multiply-adds, receptive fields,
        activation memory.

        `xpnet.summary.summary(net)` gives it as a string.
        """
        from xpnet.summary import summary
        print(summary(self))

    def memory_report(self, batch_size: int, optimizer: str | Optimizer | None = None
                      ) -> MemoryReport:
        """Predict the peak memory of a training step of so many samples, without changing anything;
        print it for a table."""
        from xpnet.memory import memory_report
        return memory_report(self, batch_size, optimizer)


class Sequential(Network):
    """Layers one after another, the graph that is a straight line."""

    def __init__(self, layers: Iterable[Layer], *, input_shape: Sequence[int],
                 backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> None:
        inputs = outputs = Input(input_shape)
        if isinstance(layers, str | bytes | np.ndarray) or not isinstance(layers, Iterable):
            raise TypeError(f"Sequential: expected a list of layers. Received: {shown(layers)}.")
        for layer in layers:
            if isinstance(layer, type) and issubclass(layer, Layer):
                raise TypeError(f"Sequential: expected layers, e.g. {layer.__name__}(...). "
                                f"Received: the class {layer.__name__}.")
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential: expected layers. Received: {shown(layer)}.")
            outputs = layer(outputs)
        super().__init__(inputs, outputs, backend=backend, dtype=dtype, seed=seed)


def _shape_or_type(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__


def softmax_below(node: Node) -> bool:
    """Whether the value is a softmax's output, or one that only had its shape changed or elements
    dropped."""
    while (node.layer is not None and len(node.parents) == 1
           and isinstance(node.layer, Dropout | Flatten)):
        node = node.parents[0]
    return isinstance(node.layer, Softmax)


def _topological(output: Node) -> list[Node]:
    """Every node that `output` follows from, parents first (depth first, without recursion: graphs
    can be deep)."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(output, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.parents))
    return order
