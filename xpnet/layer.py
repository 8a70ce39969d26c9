"""The contract of a layer, and the flat buffers that its parameters live in.

A layer only declares its parameters; an owner (a network, or `Layer.initialize` for a layer that
stands alone) allocates them in three flat arrays, parameters, gradients and state, and binds the
views.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from xpnet.backends import Backend, Window, get_backend
from xpnet.checks import (
    Checked,
    expect_choice,
    expect_dtype,
    expect_instance,
    expect_name,
    expect_no_mask,
    expect_seed,
    expect_shape,
    real_array,
    shown,
)
from xpnet.initializers import Initializer, generator

Array = Any
Shape = tuple[int, ...]

PREDICT, TRAIN, SAMPLE = "predict", "train", "sample"   # SAMPLE: a prediction with dropout on
ALIGNMENT = 256  # bytes; every view starts on a full memory transaction
MOST_ROWS = 1 << 20  # rows or columns for each of which a layer has an entry in a table
MOST_ELEMENTS = 1 << 40  # of an array; a layer that would have a larger one is not built


def copy_in(who: str, name: str, array: Array | None, value: Any, backend: Backend | None) -> None:
    """array[...] = value, for an assignment to an attribute `name` whose array others share: it
    must not be replaced."""
    if value is array:                  # p.data += x has changed it already, and assigns it
        return
    if array is None or backend is None:
        raise ValueError(f"{who}: expected an assignment to {name} once there is such an array. "
                         "Received: "
                         f"{type(value).__name__}, before a network or `initialize` made one, or "
                         "for a state, which has no grad.")
    if not hasattr(value, "__cuda_array_interface__"):
        value = real_array(value, f"{who}: {name}")
    if value.shape != array.shape:
        raise ValueError(f"{who}: expected {name} of shape {array.shape}. Received: shape "
                         f"{value.shape}.")
    with backend.scope():
        array[...] = backend.asarray(value, array.dtype)


class Parameter:
    """An array that a layer declares: `data` is what it computes with, `grad` (trained ones only)
    its gradient.

    Both are views of their network's flat arrays. An assignment, p.data = values, copies the values
    into the view.
    """

    def __init__(self, name: str, shape: Shape, init: Initializer, fan_in: int, fan_out: int,
                 decay: bool, units: int = 1
                 ) -> None:
        self.name, self.shape, self.init, self.fan_in, self.fan_out, self.decay = (
            name, shape, init, fan_in, fan_out, decay)
        self.units = units  # so many axes, the first ones, say which unit a weight leads to
        self.backend: Backend | None = None
        self.data: Array = None
        self.grad: Array = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("data", "grad") and name in vars(self):
            copy_in(f"Parameter {self.name!r}", name, vars(self)[name], value, self.backend)
        else:
            super().__setattr__(name, value)

    def place(self, backend: Backend, data: Array, grad: Array = None) -> None:
        """Let the parameter be these views."""
        vars(self).update(backend=backend, data=data, grad=grad)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def draw(self, seed: int, full_name: str) -> np.ndarray:
        """Initial values on the host, the same for every backend."""
        return self.init(generator(seed, full_name), self.shape, self.fan_in, self.fan_out)


@dataclass(eq=False, repr=False)
class Node:
    """One value in a network's graph: what `layer` makes of its parents, of `shape` (without the
    batch axis)."""

    layer: Layer | None     # None for the input
    parents: tuple[Node, ...]
    shape: Shape
    names: dict[str, int]   # how many layers of each kind the graph has; shared by all its nodes

    def __repr__(self) -> str:
        """Without the parents: each would show its own, and in a graph most of them again and
        again."""
        return (f"<{self.layer.who if self.layer else 'Input'}: a value of shape {self.shape} per "
                "sample>")


class Layer(Checked):
    """Base class: a function of batch-last arrays with its gradient. A subclass writes build,
    forward and backward.

    The constructor's arguments are kept in attributes of the same names, so that a saved network
    can be rebuilt.
    """

    kind = "layer"                      # automatic names are kind1, kind2, ...
    # what an output element sees of its input, for the receptive field
    window: Window | None = None
    upsampling: tuple[float, float] = (1, 1)    # how many rows, columns it makes of one
    smallest_batch = 1                  # batches that training can use
    name: str | None = None
    _trainable = True

    def __init__(self, *, name: str | None = None) -> None:
        self.name = expect_name(self.who, "name", name)
        # False: nobody reads the gradient by the input, backward may return None
        self.needs_dx = True
        self.built = False
        self.parameters: list[Parameter] = []
        self.states: list[Parameter] = []
        self.in_shapes: tuple[Shape, ...] = ()
        self.out_shape: Shape = ()
        self._cache: tuple[Any, ...] | None = None
        self._updater: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(vars(self).get(name), Parameter) and not isinstance(value, Parameter | None):
            raise AttributeError(f"{self.who}: expected an assignment to {name}.data, which copies "
                                 "the values in. "
                                 f"Received: {type(value).__name__} for {name}, which would take "
                                 "the parameter's place.")
        super().__setattr__(name, value)

    @property
    def trainable(self) -> bool:
        """Whether an optimizer may change the parameters."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = self.expect_flag("trainable", value)

    # --- what a subclass writes -------------------------------------------------------------------

    def build(self, *in_shapes: Shape) -> Shape:
        """Check the input shapes (without the batch axis), declare parameters, return the output
        shape."""
        raise NotImplementedError(f"{self.who}: expected a method build(*in_shapes).")

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        """The output for batch-last inputs; in TRAIN mode what backward needs is remembered."""
        raise NotImplementedError(f"{self.who}: expected a method forward(x, mode).")

    def backward(self, dy: Array, accumulate: bool = False) -> Any:
        """Gradient by the input (a tuple for several), None where needs_dx is False; parameters'
        gradients go to .grad."""
        raise NotImplementedError(f"{self.who}: expected a method backward(dy, accumulate).")

    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass of one sample, in convolutions and matrix products."""
        return 0

    # --- help for subclasses ----------------------------------------------------------------------

    @property
    def who(self) -> str:
        """How errors name the layer: Conv2d 'conv1'."""
        return type(self).__name__ + (f" {self.name!r}" if self.name else "")

    def parameter(self, name: str, shape: Shape, init: Initializer, *, fan_in: int | None = None,
                  fan_out: int | None = None, decay: bool | None = None,
                  units: int = 1) -> Parameter:
        """Declare a trained array.

        An array of several axes counts as weights (outputs, inputs, ...): each output sums over all
        axes but the first. fan_in, what `init` takes for the number of terms of that sum, is the
        product of those axes; fan_out, in how many sums an input takes part, is the product of all
        axes but the second; weight decay applies. An array of one axis counts as one weight for
        each element, such as a bias or a scale: both are 1, and weight decay does not apply. Name
        `fan_in`, `fan_out` or `decay` where a layer uses its array in another way, and `units`
        where not the first axis alone but the first few say which output a weight leads to;
        max-norm is of the others.
        """
        shape = self.expect_elements(name, tuple(shape))
        several = len(shape) > 1
        if fan_in is None:
            fan_in = math.prod(shape[units:]) if several else 1
        if fan_out is None:
            fan_out = math.prod(shape[:units] + shape[units + 1:]) if several else 1
        self.parameters.append(Parameter(name, shape, init, fan_in, fan_out,
                                         several if decay is None else decay, units))
        return self.parameters[-1]

    def state(self, name: str, shape: Shape, init: Initializer) -> Parameter:
        """Declare an array that is kept and saved but not trained."""
        self.states.append(Parameter(name, self.expect_elements(name, tuple(shape)), init, 1, 1,
                                     False))
        return self.states[-1]

    def expect_axes(self, shape: Shape, axes: str) -> Shape:
        """`shape` itself; an error where it has not the axes named, e.g. "channels, height,
        width"."""
        if len(shape) != axes.count(",") + 1:
            raise ValueError(f"{self.who}: expected an input of shape ({axes}) per sample. "
                             f"Received: input shape {shape}.")
        return shape

    def expect_rows(self, what: str, height: int, width: int) -> tuple[int, int]:
        """(height, width); an error where tables with an entry for each row and each column would
        be too large."""
        if max(height, width) > MOST_ROWS:
            raise ValueError(f"{self.who}: expected {what} of at most {MOST_ROWS:,} rows and "
                             "columns. "
                             f"Received: {height}x{width}.")
        return height, width

    def expect_elements(self, what: str, shape: Shape) -> Shape:
        """`shape` itself; an error where an array of it has more elements than any memory can
        hold."""
        if math.prod(shape) > MOST_ELEMENTS:
            raise ValueError(f"{self.who}: expected {what} of at most 2^40 elements. Received: "
                             f"shape {shown(shape)}.")
        return shape

    def remember(self, mode: str, *values: Any) -> None:
        """Keep what backward needs, in TRAIN mode only."""
        if mode == TRAIN:
            self._cache = values
        elif mode not in (PREDICT, SAMPLE):
            raise ValueError(f'{self.who}: expected mode "{PREDICT}", "{TRAIN}" or "{SAMPLE}". '
                             f'Received: mode={shown(mode)}.')

    def recall(self) -> tuple[Any, ...]:
        """Take out what forward kept, so that memory is freed as backward proceeds."""
        if self._cache is None:
            raise RuntimeError(f"{self.who}: expected a forward pass in TRAIN mode before each "
                               "backward pass. Received: none.")
        values, self._cache = self._cache, None
        return values

    # --- for owners -------------------------------------------------------------------------------

    def connect(self, *in_shapes: Shape) -> Shape:
        """Build for these input shapes, once."""
        self._expect_initialized()
        if self.built:
            raise ValueError(f"{self.who}: expected to be used once. Received: a second use of the "
                             "same layer; make a new "
                             "layer for each place (weights cannot be shared).")
        for shape in in_shapes:
            expect_shape(self.who, "the shape of one sample, e.g. (1, 28, 28), for each input",
                         shape)
        wanted = inspect.signature(self.build).parameters.values()  # one shape each, or *in_shapes
        if len(in_shapes) != len(wanted) and not any(p.kind is p.VAR_POSITIONAL for p in wanted):
            raise ValueError(f"{self.who}: expected {len(wanted)} input(s). Received: "
                             f"{len(in_shapes)}.")
        self.in_shapes = (tuple(self.expect_elements("an input", tuple(shape))
                                for shape in in_shapes))
        with np.errstate(under="ignore"):       # the edges of a Gaussian may well be 0
            out_shape = self.build(*self.in_shapes)
        said = "build to return the shape of one output sample, e.g. (8, 26, 26)"
        self.out_shape = self.expect_elements("an output", expect_shape(self.who, said, out_shape))
        self.built = True
        return self.out_shape

    def _expect_initialized(self) -> None:
        if "parameters" not in vars(self):
            raise TypeError(f"{self.who}: expected its __init__ to call "
                            "super().__init__(name=name). "
                            "Received: a layer that did not call it.")

    def bind(self, backend: Backend, seed: int, index: int, counters: Array) -> None:
        """Run on `backend`; (seed, index) and the counters (step, use) key the layer's random
        numbers.

        Tables that follow from the shapes are cached properties: made where they are first used, so
        that a network that is only built takes no memory for them, and forgotten here, because they
        are arrays of the backend.
        """
        for name in self._tables() & vars(self).keys():
            del vars(self)[name]
        self.backend, self.xp = backend, backend.xp
        self.seed, self.index, self.counters = seed, index, counters
        self._cache = None

    @classmethod
    @cache
    def _tables(cls) -> set[str]:
        return {name for kind in cls.__mro__ for name, value in vars(kind).items()
                if isinstance(value, cached_property)}

    def make_tables(self) -> None:
        """Make all tables now, so that what is measured later is the work on batches alone."""
        for name in self._tables():
            getattr(self, name)

    def __call__(self, *inputs: Node) -> Node:
        """Add the layer to a graph: symbolic inputs in, a symbolic output out."""
        self._expect_initialized()
        if not inputs or not all(isinstance(node, Node) for node in inputs):
            received = ", ".join(type(value).__name__ for value in inputs) or "nothing"
            raise TypeError(f"{self.who}: expected symbolic inputs, from Input(...) or another "
                            f"layer. Received: {received}. "
                            "To compute with arrays, call a network, or the layer's forward.")
        names = inputs[0].names
        if any(node.names is not names for node in inputs):
            raise ValueError(f"{self.who}: expected inputs of one graph. Received: values that "
                             "come from different Inputs.")
        if self.name is None and not self.built:
            names[self.kind] = names.get(self.kind, 0) + 1
            self.name = f"{self.kind}{names[self.kind]}"
        return Node(self, inputs, self.connect(*(node.shape for node in inputs)), names)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, by name."""
        return ({name: getattr(self, name)
                 for name in inspect.signature(type(self).__init__).parameters if name != "self"})

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copied and pickled before it is built; after that it belongs to a network, which has the
        arrays."""
        if self.built:
            raise TypeError(f"{self.who}: expected a network to be copied or pickled, or a layer "
                            "that is in none. "
                            "Received: a layer that is built; type(layer)(**layer.config()) makes "
                            "a new one.")
        return super().__reduce_ex__(protocol)

    # --- a layer that stands alone ----------------------------------------------------------------

    def initialize(self, *in_shapes: Shape, backend: str | Backend = "numpy",
                   dtype: Any = "float32", seed: int = 0) -> Layer:
        """Build for these input shapes and own the parameters: forward, backward and update work
        without a network."""
        dtype, seed = expect_dtype(self.who, dtype), expect_seed(self.who, seed)
        self.connect(*in_shapes)
        self.name = self.name or self.kind
        backend = get_backend(backend)
        self.buffers = Buffers([self], backend, dtype, seed)
        with backend.scope():
            self.bind(backend, seed, 0, backend.zeros((2,), np.uint64))
        # In a network the network checks what comes in; here nobody else would.
        self.forward, self.backward = self._checked_forward, self._checked_backward     # type: ignore[method-assign]
        return self

    def _checked_forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        self._expect_arrays(xs, self.in_shapes)
        mode = expect_choice(self.who, "mode", mode, (PREDICT, TRAIN, SAMPLE))
        with self.backend.scope():
            return type(self).forward(self, *xs, mode=mode)

    def _checked_backward(self, dy: Array, accumulate: bool = False) -> Any:
        self._expect_arrays((dy,), (self.out_shape,))
        with self.backend.scope():
            return type(self).backward(self, dy, accumulate)

    def _expect_arrays(self, arrays: Sequence[Array], shapes: Sequence[Shape]) -> None:
        for a in arrays:
            expect_no_mask(self.who, a)
        expected = [f"({', '.join(map(str, shape))}, N) of {self.buffers.dtype}"
                    for shape in shapes]
        received = [f"{tuple(a.shape)} of {a.dtype}" if hasattr(a, "dtype") else type(a).__name__
                    for a in arrays]
        if len(arrays) != len(shapes) or any(not hasattr(a, "dtype") or a.shape[:-1] != shape
                                             or a.ndim != len(shape) + 1
                                             or a.dtype != self.buffers.dtype
                                             for a, shape in zip(arrays, shapes, strict=False)):
            few = received[:4] + [f"{len(received) - 4} more"] * (len(received) > 4)
            raise ValueError(f"{self.who}: expected batch-last arrays, {' and '.join(expected)}. "
                             f"Received: {' and '.join(few) or 'nothing'}.")

    def update(self, optimizer: Any) -> None:
        """One optimizer step on the layer's own parameters."""
        from xpnet.optim.base import Optimizer, Updater
        if self._updater is None or self._updater.optimizer is not optimizer:
            expect_instance(self.who, "optimizer", optimizer, Optimizer, "an Optimizer, e.g. "
                                                                         "Adam(1e-3)")
            self._updater = Updater(optimizer, self.buffers)
        with self.backend.scope():
            self._updater.step()
        self.counters[0] += self.counters.dtype.type(1)     # the next forward drops other elements


class Buffers:
    """Three flat arrays for the parameters, their gradients and the state of some layers, which get
    views of them.

    Decayed weights come first, so that an optimizer step, a clip or a checkpoint is one operation
    on one array.
    """

    def __init__(self, layers: Sequence[Layer], backend: Backend, dtype: Any, seed: int) -> None:
        self.backend, self.dtype, self.layers = backend, np.dtype(dtype), list(layers)
        pairs = [(layer, p) for layer in self.layers for p in layer.parameters]
        self.placed = ([pair for pair in pairs
                        if pair[1].decay] + [pair for pair in pairs if not pair[1].decay])
        self.offsets, sizes = self._offsets([p for _, p in self.placed])
        self.decayed = sum(sizes[:sum(p.decay for _, p in self.placed)])
        states = [(layer, p) for layer in self.layers for p in layer.states]
        self.state_offsets, state_sizes = self._offsets([p for _, p in states])

        self.arrays = {f"{layer.name}.{p.name}": p for layer, p in pairs + states}
        self._expect_memory(sum(sizes), sum(state_sizes))
        try:
            self._allocate(sum(sizes), sum(state_sizes), states, seed)
        except MemoryError as error:
            raise self._too_large(sum(sizes), sum(state_sizes)) from error

    def _allocate(self, size: int, state_size: int, states: list[tuple[Layer, Parameter]],
                  seed: int) -> None:
        backend = self.backend
        self.parameters = backend.zeros((size,), self.dtype)
        self.grads = backend.zeros((size,), self.dtype)
        self.state = backend.zeros((state_size,), self.dtype)
        for (_, p), offset in zip(self.placed, self.offsets, strict=True):
            part = slice(offset, offset + p.size)
            p.place(backend, self.parameters[part].reshape(p.shape),
                    self.grads[part].reshape(p.shape))
        for (_, p), offset in zip(states, self.state_offsets, strict=True):
            p.place(backend, self.state[offset:offset + p.size].reshape(p.shape))
        with backend.scope():
            for name, p in self.arrays.items():
                p.data[...] = backend.asarray(p.draw(seed, name), self.dtype)

    def _expect_memory(self, size: int, state_size: int) -> None:
        """An error where parameters and state cannot fit into the machine's memory: systems promise
        more than they have."""
        memory = _machine_memory() if self.backend.xp is np else None
        if memory is not None and (size + state_size) * self.dtype.itemsize > memory:
            raise self._too_large(size, state_size)

    def _too_large(self, size: int, state_size: int) -> MemoryError:
        layer, largest = max(((layer, p) for layer in self.layers for p in layer.parameters
                              + layer.states),
                             key=lambda pair: pair[1].size)
        gib = self.dtype.itemsize / 2**30
        return MemoryError(f"{layer.who}: expected parameters and state that fit into the memory "
                           f"of {self.backend.name}. "
                           f"Received: {(size + state_size) * gib:,.1f} GiB, "
                           f"{largest.size * gib:,.1f} GiB of them "
                           f"{largest.name} of shape {largest.shape}.")

    def _offsets(self, parameters: Sequence[Parameter]) -> tuple[list[int], list[int]]:
        """Where each view starts, and how many elements it takes up with the gap that aligns the
        next one."""
        unit = ALIGNMENT // self.dtype.itemsize
        sizes = [-(-p.size // unit) * unit for p in parameters]
        return list(accumulate(sizes, initial=0))[:-1], sizes

    def trained(self, steps: Mapping[Layer, int]) -> list[tuple[int, int, Layer]]:
        """The contiguous parts (start, stop, layer) of the flat buffers that an optimizer may
        change.

        Frozen layers are left out. All layers of a part have the same number of `steps` behind
        them, and `layer` is the first of them.
        """
        stops = [*self.offsets, self.parameters.size][1:]
        parts: list[tuple[int, int, Layer]] = []
        for (layer, _), start, stop in zip(self.placed, self.offsets, stops, strict=True):
            if not layer.trainable:
                continue
            if parts and parts[-1][1] == start and steps[parts[-1][2]] == steps[layer]:
                start, _, layer = parts.pop()
            parts.append((start, stop, layer))
        return parts


def _machine_memory() -> int | None:
    """Bytes of memory that the machine has; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
