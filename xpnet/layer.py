"""The contract of a layer.

A layer only declares its parameters. An owner allocates them in flat arrays, see buffers.py, and
binds the views: a network, or `Layer.initialize` for a layer that is used alone, see standalone.py.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Generator
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np

from xpnet import standalone
from xpnet.backends import Backend, Window
from xpnet.buffers import Array, Buffers, Parameter, Shape
from xpnet.checks import PREDICT, SAMPLE, TRAIN, Checked, expect_name, expect_shape, shown, wrong
from xpnet.initializers import Initializer
from xpnet.lengths import lengths_after, with_lengths
from xpnet.node import Names, Node

MOST_ROWS = 1 << 20         # rows or columns for each of which a layer has an entry in a table
MOST_ELEMENTS = 1 << 40     # of an array; a layer that would have a larger one is not built
# Keys of the random numbers of children lie above those of all nodes: 8 bits for each level.
CHILD, LEVEL = 1 << 32, 8


Result = TypeVar("Result")
# A computation that yields arrays of its own, and is sent those of all.
Exchanging = Generator[np.ndarray, np.ndarray, Result]


class Layer(Checked):
    """Base class of layers: a function of batch-last arrays, with its gradient.

    A subclass writes `build`, `forward` and `backward`, and keeps the constructor's arguments in
    attributes of the same names, so that a saved network can be built again.

    A layer object may be used several times in a graph. What a use keeps between forward and
    backward belongs to the use: `remember` and `recall` it, instead of attributes.

    Args:
        name: the layer's name in the network; by default its kind and a number, e.g. conv1.
    """

    kind = "layer"                      # automatic names are kind1, kind2, ...
    # what an output element sees of its input, for the receptive field
    window: Window | None = None
    upsampling: tuple[float, float] = (1, 1)    # how many rows and columns it makes of one
    sees_all = False                    # whether an output element may depend on every position
    smallest_batch = 1                  # the smallest batch that training can use
    # whether training computes something over all samples of a batch, see `forward_shared`
    over_batch = False
    # "causal" if no step of a sequence (features, steps) reads a later one, so that padding does
    # not matter to the layer; see lengths.py, also for layers that take numbers of steps.
    steps: str | None = None
    name: str | None = None
    buffers: Buffers                    # the owner's flat arrays
    index: int                          # of the use that is being computed, see `enter`
    _trainable = True
    _lr_scale = 1.0

    def __init__(self, *, name: str | None = None) -> None:
        self.name = expect_name(self.who, "name", name)
        self.built = False
        self.uses = 0                   # in graphs
        self.parameters: list[Parameter] = []
        self.states: list[Parameter] = []
        self.children: list[Layer] = []
        self.in_shapes: tuple[Shape, ...] = ()
        self.out_shape: Shape = ()
        # Of the use that is being computed: whether the input gradient is needed (if not, backward
        # may return None), whether a prediction keeps what backward needs, and what was kept.
        self.needs_dx, self.keep_prediction = True, False
        self.kept: Any = None
        self.updater: Any = None        # with the slots of `update`

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(vars(self).get(name), Parameter) and not isinstance(value, Parameter | None):
            raise AttributeError(f"{self.who}: expected an assignment to {name}.data, which copies "
                                 f"the values in. Received: {type(value).__name__} for {name}, "
                                 "which would replace the parameter.")
        super().__setattr__(name, value)

    @property
    def seen_window(self) -> Window | None:
        """The window of the input that an output element depends on."""
        return self.window

    @property
    def trainable(self) -> bool:
        """Whether an optimizer may change the parameters, those of children too."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = self.expect_flag("trainable", value)
        for child in self.children:
            child.trainable = value

    @property
    def lr_scale(self) -> float:
        """A factor of the learning rate for the parameters, those of children too; 1 by default."""
        return self._lr_scale

    @lr_scale.setter
    def lr_scale(self, value: float) -> None:
        self._lr_scale = self.expect_number("lr_scale", value, 0)
        for child in self.children:
            child.lr_scale = value

    # --- what a subclass writes -------------------------------------------------------------------

    def build(self, *in_shapes: Shape) -> Shape:
        """Check the input shapes (without the batch axis), declare parameters, return the output
        shape."""
        raise NotImplementedError(f"{self.who}: expected a method build(*in_shapes).")

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        """The output for batch-last inputs; in TRAIN mode what backward needs is remembered."""
        raise NotImplementedError(f"{self.who}: expected a method forward(x, mode).")

    def backward(self, dy: Array, accumulate: bool = False) -> Any:
        """The input gradient (a tuple for several inputs), None if `needs_dx` is False.

        The parameters' gradients are written to .grad, or added to it with `accumulate`.
        """
        raise NotImplementedError(f"{self.who}: expected a method backward(dy, accumulate).")

    def forward_shared(self, *xs: Array) -> Exchanging[Array]:
        """`forward` in training for one of the shards of a batch, as a generator, if `over_batch`.

        It yields the moments of the shard, and is sent those of the batch: (C, 3) in float64 on the
        host, for each channel of the output the number of elements, their mean, and the sum of
        their squared distances from it.
        """
        raise NotImplementedError(f"{self.who}: expected a method forward_shared(*xs).")

    def backward_shared(self, dy: Array, accumulate: bool = False) -> Exchanging[Any]:
        """`backward` after `forward_shared`, as a generator. It yields two sums over the shard for
        each channel, (C, 2), and is sent those over the batch. Then it writes the gradients of the
        parameters, which are those of the shard."""
        raise NotImplementedError(f"{self.who}: expected a method backward_shared(dy, accumulate).")

    def expect_values(self, x: Array, number: int = 0) -> None:
        """Raise ValueError if the layer cannot compute with these values, which people pass as its
        input of this number, batch-first. It is called once for all samples, not in every step."""

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
        """Declare an array that is trained.

        Args:
            name: unique within the layer, e.g. "W".
            shape: of the array. Several axes are weights (outputs, inputs, ...): each output is a
                sum over all axes but the first. One axis is a bias or a scale.
            init: draws the initial values.
            fan_in: the number of terms of the sum, for `init`; by default the product of all axes
                but the first, 1 for a bias.
            fan_out: the number of sums that an input is part of; by default the product of all axes
                but the second, 1 for a bias.
            decay: whether weight decay applies; by default to weights and not to biases.
            units: the number of first axes that say which output a weight belongs to. The norm that
                max-norm bounds is taken over the other axes.
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
        """Declare an array that is saved but not trained, e.g. a running mean."""
        self.states.append(Parameter(name, self.expect_elements(name, tuple(shape)), init, 1, 1,
                                     False))
        return self.states[-1]

    def expect_axes(self, shape: Shape, axes: str) -> Shape:
        """`shape` itself; raises ValueError if it does not have these axes, e.g. "channels, height,
        width"."""
        if len(shape) != axes.count(",") + 1:
            raise ValueError(f"{self.who}: expected an input of shape ({axes}) per sample. "
                             f"Received: input shape {shape}.")
        return shape

    def expect_rows(self, what: str, height: int, width: int) -> tuple[int, int]:
        """(height, width); raises ValueError if a table with an entry for each row or column would
        be too large."""
        if max(height, width) > MOST_ROWS:
            raise ValueError(f"{self.who}: expected {what} of at most {MOST_ROWS:,} rows and "
                             f"columns. Received: {height}x{width}.")
        return height, width

    def expect_elements(self, what: str, shape: Shape) -> Shape:
        """`shape` itself; raises ValueError if an array of it has more elements than any memory can
        hold."""
        if math.prod(shape) > MOST_ELEMENTS:
            raise ValueError(f"{self.who}: expected {what} of at most 2^40 elements. Received: "
                             f"shape {shown(shape)}.")
        return shape

    def keeps(self, mode: str) -> bool:
        """Whether `remember` keeps what it is given in this mode: in training, or for the gradients
        of a prediction."""
        return mode == TRAIN or self.keep_prediction

    def remember(self, mode: str, *values: Any) -> None:
        """Keep what backward needs, if a backward pass may follow."""
        if self.keeps(mode):
            vars(self)["kept"] = values
        elif mode not in (PREDICT, TRAIN, SAMPLE):
            raise wrong(self.who, f'mode "{PREDICT}", "{TRAIN}" or "{SAMPLE}"', "mode", mode)

    def recall(self) -> tuple[Any, ...]:
        """Take out what forward kept, so that memory is freed as backward proceeds."""
        if self.kept is None:
            raise RuntimeError(f"{self.who}: expected a forward pass in TRAIN mode before each "
                               "backward pass. Received: none.")
        values, vars(self)["kept"] = self.kept, None
        return values

    def child(self, name: str, layer: Layer, *in_shapes: Shape) -> Shape:
        """Build a layer that this layer is made of, and return its output shape.

        For `build`. The child's parameters and states become this layer's, under its name:
        "depthwise.W".
        """
        layer.name = name
        out_shape = layer.connect(*in_shapes)
        for p in (*layer.parameters, *layer.states):
            p.name = f"{name}.{p.name}"
        self.parameters += layer.parameters
        self.states += layer.states
        self.children.append(layer)
        layer.trainable, layer.lr_scale = self.trainable, self.lr_scale
        return out_shape

    # --- for owners -------------------------------------------------------------------------------

    def connect(self, *in_shapes: Shape) -> Shape:
        """Build for these input shapes. A layer that is built takes inputs of the same shapes."""
        self._expect_initialized()
        if self.built:
            if in_shapes != self.in_shapes:
                raise ValueError(f"{self.who}: expected inputs of the shapes of its first use, "
                                 f"{self.in_shapes}, because its weights are shared. Received: "
                                 f"{in_shapes}.")
            return self.out_shape
        for shape in in_shapes:
            expect_shape(self.who, "the shape of one sample, e.g. (1, 28, 28), for each input",
                         shape)
        wanted = inspect.signature(self.build).parameters.values()  # one shape each, or *in_shapes
        if len(in_shapes) != len(wanted) and not any(p.kind is p.VAR_POSITIONAL for p in wanted):
            raise ValueError(f"{self.who}: expected {len(wanted)} input(s). Received: "
                             f"{len(in_shapes)}.")
        self.in_shapes = tuple(self.expect_elements("an input", tuple(shape))
                               for shape in in_shapes)
        with np.errstate(under="ignore"):       # the edges of a Gaussian may well be 0
            out_shape = self.build(*self.in_shapes)
        said = "build to return the shape of one output sample, e.g. (8, 26, 26)"
        self.out_shape = self.expect_elements("an output", expect_shape(self.who, said, out_shape))
        self.built = True
        return self.out_shape

    def _expect_initialized(self) -> None:
        if "parameters" not in vars(self):
            raise TypeError(f"{self.who}: expected its __init__ to call "
                            "super().__init__(name=name). Received: a layer that did not call it.")

    def bind(self, backend: Backend, seed: int, counters: Array) -> None:
        """Compute on `backend`; `seed`, the use and the counters (step, use) key random numbers.

        Tables that follow from the shapes are cached properties. They are made when they are first
        needed, so that a network that is only built takes no memory for them, and dropped here,
        because they are arrays of the backend.
        """
        for name in self._tables() & vars(self).keys():
            del vars(self)[name]
        self.backend, self.xp, self.seed, self.counters = backend, backend.xp, seed, counters
        self.kept = None
        for child in self.children:
            child.bind(backend, seed, counters)

    def enter(self, index: int, needs_dx: bool = True, keep_prediction: bool = False,
              step: int = CHILD) -> None:
        """Begin the use number `index` of the graph, which keys the random numbers.

        `step` is the distance between the keys of two children.
        """
        # Several times in each step: straight into vars, without the checks of __setattr__.
        mine = vars(self)
        mine["index"], mine["needs_dx"], mine["keep_prediction"] = index, needs_dx, keep_prediction
        if self.children:
            for number, child in enumerate(self.children, 1):
                child.enter(index + number * step, True, keep_prediction, step << LEVEL)

    def take(self) -> Any:
        """Hand out what forward kept, with what the children kept."""
        kept, vars(self)["kept"] = self.kept, None
        return (kept, [child.take() for child in self.children]) if self.children else kept

    def give(self, kept: Any) -> None:
        """Put back what `take` handed out, before backward."""
        if self.children and kept is not None:
            kept, of_children = kept
            for child, values in zip(self.children, of_children, strict=True):
                child.give(values)
        vars(self)["kept"] = kept

    @classmethod
    @cache
    def _tables(cls) -> set[str]:
        return {name for kind in cls.__mro__ for name, value in vars(kind).items()
                if isinstance(value, cached_property)}

    def make_tables(self) -> None:
        """Make all tables now, so that what is measured later is the work on batches alone."""
        for name in self._tables():
            getattr(self, name)
        for child in self.children:
            child.make_tables()

    def __call__(self, *inputs: Node) -> Node:
        """Add the layer to a graph: symbolic inputs in, a symbolic output out."""
        return self.node(*inputs)

    def node(self, *inputs: Node) -> Node:
        """The node of a new use of the layer; a subclass may make several values of it when it is
        called."""
        self._expect_initialized()
        if not inputs or not all(isinstance(node, Node) for node in inputs):
            received = ", ".join(type(value).__name__ for value in inputs) or "nothing"
            raise TypeError(f"{self.who}: expected symbolic inputs, from Input(...) or another "
                            f"layer. Received: {received}. To compute with arrays, call a "
                            "network, or the layer's forward.")
        names = Names.of(inputs)
        if self.name is None and not self.built:
            names.give(self)
        inputs = with_lengths(self, inputs)
        shape = self.connect(*(node.shape for node in inputs))
        lengths = lengths_after(self, inputs)
        self.uses += 1
        return Node(self, inputs, shape, names, self.uses, lengths=lengths)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, by name.

        Raises AttributeError if the layer does not keep one of them.
        """
        names = [*inspect.signature(type(self).__init__).parameters][1:]
        missing = [name for name in names if not hasattr(self, name)]
        if missing:
            raise AttributeError(f"{self.who}: expected every argument of the constructor in an "
                                 "attribute of the same name, so that the layer can be saved and "
                                 f"copied. Received: a layer without {', '.join(missing)}.")
        return {name: getattr(self, name) for name in names}

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A layer can be copied and pickled before it is built. After that the network has its
        arrays."""
        if self.built:
            raise TypeError(f"{self.who}: expected a network to be copied or pickled, or a layer "
                            "that is in none. Received: a layer that is built; "
                            "type(layer)(**layer.config()) makes a new one.")
        return super().__reduce_ex__(protocol)

    # --- a layer without a network ----------------------------------------------------------------

    def initialize(self, *in_shapes: Shape, backend: str | Backend = "numpy",
                   dtype: Any = "float32", seed: int = 0) -> Layer:
        """Build for these input shapes and allocate the parameters: then forward, backward and
        update work without a network."""
        standalone.initialize(self, in_shapes, backend, dtype, seed)
        return self

    def update(self, optimizer: Any) -> None:
        """One optimizer step on the layer's own parameters."""
        standalone.update(self, optimizer)
