"""What the page shows: one or two networks, the current input, and all values and gradients.

Everything here runs in the thread of a Worker.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import is_integer, items, wrong
from xpnet.explore.inputs import blank, input_range, token_count
from xpnet.explore.outputs import class_names, probabilities
from xpnet.explore.parts import finite
from xpnet.explore.training import Trainer
from xpnet.graph import Graph
from xpnet.initializers import generator
from xpnet.inspect.memory import explained
from xpnet.layer import Array
from xpnet.network import Network
from xpnet.node import Node
from xpnet.training.goals import Goal, goals

if TYPE_CHECKING:
    from xpnet.data import Dataset

WHO = "explore"
TOP = 10            # classes of an output that the page lists
TIMES = 50          # inputs whose times are kept
BINS = 32           # of a histogram

Target = tuple[Node, tuple[int, ...]] | int     # an element of a value, or a class


class ConflictError(ValueError):
    """What is asked for does not exist yet."""


class Side:
    """One of the networks, with the values and the gradients of one input."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.nodes: tuple[Node, ...] = (*net.ins.nodes, *net.nodes)
        self.values: dict[Node, Array] = {}
        self.gradients: dict[Node, Array] = {}
        self.parameter_gradients: dict[str, np.ndarray] = {}
        self.order: list[Node] = []         # of the backward pass
        self.loss: float | None = None
        self.forward_of: Any = None         # the state of the session that the values belong to
        self.backward_of: Any = None

    def forward(self, arrays: Sequence[np.ndarray]) -> None:
        """Compute the values of all nodes in prediction mode, of batch-first inputs."""
        values: dict[Node, Array] = {}

        def hook(node: Node, compute: Callable[..., Any], inputs: tuple[Array, ...]) -> Any:
            values[node] = y = compute(*inputs)
            return y

        net = self.net
        with explained(net, WHO, 1), net.backend.stream():
            xs = [net.batch_last(a) for a in arrays]
            values.update(zip(net.in_nodes, xs, strict=True))
            net.run(xs, net.outs.nodes, hook=hook)
        self.values = values

    def backward(self, arrays: Sequence[np.ndarray], target: Target) -> None:
        """Compute the gradients of all nodes and parameters, in prediction mode. The network's own
        gradients stay as they are."""
        gradients: dict[Node, Array] = {}
        order: list[Node] = []

        def hook(node: Node, compute: Callable[..., Any], dys: tuple[Array, ...]) -> Any:
            gradients[node] = net.backend.to_numpy(dys[0]).copy()
            order.append(node)
            return compute(*dys)

        net, backend = self.net, self.net.backend
        with explained(net, WHO, 1), backend.stream():
            xs, before = [net.batch_last(a) for a in arrays], net.grads.copy()
            try:
                net.grads.fill(0)
                node, dy, self.loss = self._begin(xs, target)
                dxs = net.run_backward([(node, dy)], hook=hook, to_inputs=True)
                for one, dx in zip(net.ins.nodes, dxs, strict=True):
                    if dx is not None:
                        gradients[one] = backend.to_numpy(dx).copy()
                        order.append(one)
                self.parameter_gradients = {
                    name: backend.to_numpy(p.grad).copy() for name, p in net.arrays.items()
                    if p.grad is not None}
            finally:
                net.forget()
                net.grads[...] = before
        self.gradients, self.order = gradients, order

    def _begin(self, xs: Sequence[Array], target: Target) -> tuple[Node, Array, float | None]:
        """Where the backward pass begins, with which gradient, and the loss if there is one."""
        net, backend = self.net, self.net.backend
        if isinstance(target, int):
            goal = class_goal(net)
            y, = net.run(xs, [goal.node], keep=True)
            labels = np.full((*goal.node.shape[1:], 1), target, np.int64)
            loss, dy = goal.gradient(backend, y, backend.asarray(labels),
                                     mask=net.masks(xs, [goal.node])[0])
            return goal.node, dy, float(backend.to_numpy(loss))
        node, at = target
        net.run(xs, [node], keep=True)
        one = np.zeros((*node.shape, 1), net.dtype)
        one[at] = 1
        return node, backend.asarray(one), None

    def array(self, node: Node, gradient: bool = False) -> np.ndarray:
        """The value of a node, or the gradient with respect to it, without the batch axis."""
        if not gradient:
            return np.asarray(self.net.backend.to_numpy(self.values[node]))[..., 0]
        if node not in self.gradients:      # the target does not depend on it
            return np.zeros(node.shape, self.net.dtype)
        return np.asarray(self.gradients[node])[..., 0]


def class_goal(net: Graph) -> Goal:
    """Cross entropy of the class scores, the loss of a class. ValueError if there are none."""
    if len(net.outs) != 1 or net.outs.nodes[0].shape[0] < 2:
        raise ValueError(f"{WHO}: expected an element of a value as the target, because the "
                         "network does not have one output of class scores. Received: a class.")
    return goals(net, "cross_entropy", None, WHO)[0]


class Session:
    """The networks, the input, and what was computed of it.

    Args:
        net: the network, side "a".
        data: samples to show and to train on.
        other: the network of side "b".
        what: the name of what is compared: a backend or a file.
        mirror: whether side "b" has the parameters of side "a" on another backend.
        name: how the page calls the network.
        seed: of the samples that are drawn.
    """

    def __init__(self, net: Network, data: Dataset | None = None, *, other: Network | None = None,
                 what: str | None = None, mirror: bool = False, name: str = "network",
                 seed: int = 0) -> None:
        self.seed, self._version, self.number = seed, 0, 0
        self.place(net, data, other=other, what=what, mirror=mirror, name=name)

    def place(self, net: Network, data: Dataset | None, *, other: Network | None, what: str | None,
              mirror: bool, name: str) -> None:
        """Show other networks. `number` tells a page that they are others, even of the same name.
        """
        self.number += 1
        self._version = self.version + 1 if hasattr(self, "trainer") else 1
        self.name, self.what, self.mirror, self.data = name, what, mirror, data
        self.sides = {"a": Side(net)} | ({} if other is None else {"b": Side(other)})
        self.index = {node: k for k, node in enumerate(self.sides["a"].nodes)}
        self.classes = class_names(net, data)
        self.ranges = [input_range(net, node, data) for node in net.ins.nodes]
        self.inputs = [blank(node, limits) for node, limits
                       in zip(net.ins.nodes, self.ranges, strict=True)]
        self.source = "drawing"
        self.label: int | None = None
        self.sample_index: int | None = None
        self.target: Target | None = None
        self.trainer = Trainer(net, data)
        self.times: deque[float] = deque(maxlen=TIMES)
        self._input_number, self._draws = 0, 0
        if self.samples is not None:        # what a page shows first; it is computed when it asks
            self._place_sample(0)

    @property
    def version(self) -> int:
        """It grows with each input, target and training step."""
        return self._version + self.trainer.changes

    # --- the input --------------------------------------------------------------------------------

    def set_input(self, number: int, x: np.ndarray, source: str, label: int | None = None,
                  sample: int | None = None) -> None:
        """Make x, without the batch axis, the input of this number."""
        started = time.perf_counter()
        self._place(number, x, source, label, sample)
        self.computed("a")
        self.times.append(1e3 * (time.perf_counter() - started))

    def _place(self, number: int, x: np.ndarray, source: str, label: int | None,
               sample: int | None) -> None:
        net = self.sides["a"].net
        node = net.ins.nodes[number]
        if (tokens := token_count(net, node)) is not None:
            x = np.clip(np.rint(x), 0, tokens - 1)
        self.inputs[number] = np.asarray(x, net.dtype)[None]
        self._input_number += 1
        self._version += 1
        self.source, self.label, self.sample_index = source, label, sample

    @property
    def samples(self) -> Dataset | None:
        """The samples that can be looked at: those for testing, if there are some."""
        data, net = self.data, self.sides["a"].net
        if data is None or len(net.ins) > 1 or data.shape != net.ins.nodes[0].shape:
            return None
        return data.test or data.validation or data

    def set_sample(self, index: Any) -> None:
        """Make a sample the input; a random one if index is None."""
        samples = self.samples
        if samples is None:
            raise ValueError(f"{WHO}: expected a data set with samples for the network. "
                             "Received: none.")
        if index is None:
            self._draws += 1
            index = generator(self.seed, f"sample {self._draws}").integers(len(samples))
        if not is_integer(index, 0, len(samples) - 1):
            raise wrong(WHO, f"index from 0 to {len(samples) - 1}", "index", index)
        started = time.perf_counter()
        self._place_sample(int(index))
        self.computed("a")
        self.times.append(1e3 * (time.perf_counter() - started))

    def _place_sample(self, index: int) -> None:
        samples = self.samples
        assert samples is not None
        x, _ = samples[index]
        label = None if samples.labels is None else int(samples.labels[index])
        self._place(0, np.asarray(samples.to_host(samples.scaled(x))), "sample", label, index)

    # --- what is computed of it -------------------------------------------------------------------

    @property
    def arrays(self) -> list[np.ndarray]:
        """The inputs, batch-first, then the number of steps of each sequence: all of them."""
        net = self.sides["a"].net
        steps = [np.full((1, 1), node.shape[-1], net.dtype) for node in net.ins.nodes
                 if node.lengths is not None]
        return [*self.inputs, *steps]

    def side(self, name: str) -> Side:
        if name not in self.sides:
            raise ValueError(f"{WHO}: expected side to be {' or '.join(self.sides)}. Received: "
                             f"side={name[:20]!r}.")
        return self.sides[name]

    def computed(self, name: str = "a") -> Side:
        """A side with the values of the current input and parameters."""
        side = self.side(name)
        now = self._input_number, self.trainer.changes
        if side.forward_of != now:
            if name == "b" and self.mirror:
                copy_values(self.sides["a"].net, side.net)
            side.forward(self.arrays)
            side.forward_of = now
        return side

    def differentiated(self, name: str = "a") -> Side:
        """The same with the gradients. Raises ConflictError if there is no target yet."""
        if self.target is None:
            raise ConflictError(f"{WHO}: expected a target, whose gradients are computed. "
                                "Received: none yet.")
        side = self.computed(name)
        target = self.target
        if not isinstance(target, int):     # the same element of this side's network
            target = side.nodes[self.index[target[0]]], target[1]
        now = side.forward_of, self.target
        if side.backward_of != now:
            side.backward(self.arrays, target)
            side.backward_of = now
        return side

    def node(self, index: Any, name: str = "a") -> Node:
        nodes = self.side(name).nodes
        if not is_integer(index, 0, len(nodes) - 1):
            raise wrong(WHO, f"a node from 0 to {len(nodes) - 1}", "node", index)
        return nodes[int(index)]

    def place_of(self, node: Node, at: Any) -> tuple[int, ...]:
        """The indices of an element, checked."""
        indices = items(at)
        if (indices is None or len(indices) != len(node.shape)
                or not all(is_integer(i, 0, n - 1)
                           for i, n in zip(indices, node.shape, strict=True))):
            raise wrong(WHO, f"indices of an element of {node.name}, whose shape is {node.shape}",
                        "at", at)
        return tuple(map(int, indices))

    def parameter(self, name: str, side: str, gradient: bool) -> np.ndarray:
        found = self.side(side).net.arrays.get(name)
        if found is None:
            raise wrong(WHO, "the name of a parameter", "name", name)
        if gradient:
            grads = self.differentiated(side).parameter_gradients
            return grads[name] if name in grads else np.zeros(found.shape, np.float32)
        self.computed(side)                 # a mirror has the parameters of now
        return np.array(self.sides[side].net.backend.to_numpy(found.data))

    def set_target(self, target: Target) -> None:
        """Choose what is differentiated: the loss of a class, or an element of a value."""
        if isinstance(target, int):
            count = class_goal(self.sides["a"].net).node.shape[0]
            if not 0 <= target < count:
                raise wrong(WHO, f"a class from 0 to {count - 1}", "class", target)
        before = self.target
        self.target = target
        try:
            self.differentiated()
        except BaseException:
            self.target = before
            raise
        self._version += 1

    # --- as JSON ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The input and what the outputs say of it."""
        side = self.computed()
        found: dict[str, Any] = {"version": self.version, "network": self.number,
                                 "source": self.source, "label": self.label,
                                 "outputs": self._outputs(side),
                                 "ms": round(self.times[-1], 3) if self.times else None}
        if self.sample_index is not None:
            found["index"] = self.sample_index
        return found

    def _outputs(self, side: Side) -> list[dict[str, Any]]:
        rows = []
        for node in side.net.outs.nodes:
            p = probabilities(node, side.array(node), self.classes)
            top = None if p is None else [
                {"class": int(k), "name": self.classes[k] if self.classes else str(k),
                 "probability": finite(p[k])} for k in np.argsort(-p, kind="stable")[:TOP]]
            rows.append({"node": self.index[node], "top": top})
        return rows

    def statistics(self, name: str) -> list[dict[str, Any]]:
        """Minimum, maximum, mean, ... of each node's value."""
        side = self.differentiated(name) if self.target is not None else self.computed(name)
        return [{"node": k} | statistics_of(side.array(node)) | {
            "gradient_norm": None if self.target is None else norm(side.array(node, True))}
            for k, node in enumerate(side.nodes)]

    def gradients(self) -> dict[str, Any]:
        """The order of the backward pass, and the norms of the gradients."""
        side = self.differentiated()
        return {"version": self.version, "loss": finite(side.loss),
                "order": [self.index[node] for node in side.order],
                "norms": {str(self.index[node]): norm(side.array(node, True))
                          for node in side.order}}

    def time(self) -> dict[str, Any]:
        return {"median_ms": round(median(self.times), 3) if self.times else None}


def norm(a: np.ndarray) -> float | None:
    return finite(np.sqrt(np.square(a, dtype=np.float64).sum()))


def statistics_of(a: np.ndarray) -> dict[str, Any]:
    """Of the elements that are finite."""
    a = a.astype(np.float64).ravel()
    zeros = float((a == 0).mean())
    a = a[np.isfinite(a)]
    if not a.size:
        return dict.fromkeys(("min", "max", "mean", "std")) | {"zeros": zeros,
                                                               "histogram": [0] * BINS}
    low, high = float(a.min()), float(a.max())
    bins = np.zeros(len(a), np.int64) if low == high else np.minimum(
        (BINS * ((a - low) / (high - low))).astype(np.int64), BINS - 1)
    return {"min": low, "max": high, "mean": float(a.mean()), "std": float(a.std()),
            "zeros": zeros, "histogram": np.bincount(bins, minlength=BINS).tolist()}


def copy_values(source: Graph, target: Graph) -> None:
    """Copy parameters and state to a network of the same structure on another backend."""
    with target.backend.scope():
        for name in ("parameters", "state"):
            values = source.backend.to_numpy(getattr(source, name))
            getattr(target, name)[...] = target.backend.asarray(values)
