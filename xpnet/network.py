"""Networks: what people call. Sequential is a network whose graph is a straight line.

Inside, everything is batch-last. A network converts at its boundary: `net(x)`, `fit`, `evaluate`
and `predict` take and return batch-first arrays. The work is done elsewhere: graph.py computes,
training/ trains, inspect/ shows, transform/ changes, io/ saves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends import Backend, get_backend
from xpnet.buffers import Array, copy_in
from xpnet.checks import expect_choice, expect_name
from xpnet.graph import Input, chain
from xpnet.hints import hinted, no_attribute
from xpnet.history import History
from xpnet.inputs import batch_last_inputs
from xpnet.inspect.draw import Drawing, draw
from xpnet.inspect.memory import MemoryReport, memory_report
from xpnet.inspect.profile import Profile, profile
from xpnet.inspect.summary import Summary, summary
from xpnet.io import safetensors
from xpnet.io.onnx.export import export
from xpnet.io.public import Face
from xpnet.layer import PREDICT, SAMPLE, Layer
from xpnet.losses import Loss
from xpnet.node import Node
from xpnet.optim import Optimizer
from xpnet.schedules import Schedule
from xpnet.stored import StoredGraph
from xpnet.trained import TrainedFacts
from xpnet.training.callbacks import Callback
from xpnet.training.checkpoint import Checkpoint
from xpnet.training.files import FilePredictions, predict_files
from xpnet.training.gradients import input_gradient
from xpnet.training.loop import fit
from xpnet.training.prediction import evaluate, predict, predict_proba, values_of
from xpnet.training.rates import LearningRates, find_lr
from xpnet.training.sampling import predict_samples
from xpnet.transform.folding import fold_batch_norm
from xpnet.transform.population import population_statistics
from xpnet.transform.transfer import up_to, with_head

if TYPE_CHECKING:
    from pathlib import Path

FLAT = "parameters", "grads", "state", "counters"       # arrays that layers have views of
FIXED = {               # attributes that other parts follow from, and how to get others
    "backend": "net.to(backend) to move the network", "dtype": "a new Network with this dtype",
    "seed": "a new Network with this seed", "layers": "a new Network of these layers",
    "nodes": "a new Network of this graph", "input": "a new Network of this graph",
    "output": "a new Network of this graph", "history": "net.fit to set it",
    "loss": "loss=... in net.fit or net.evaluate",
}


class Network(StoredGraph):
    """A graph of layers from one or several Inputs to one or several outputs, on one backend.

    Parameters, gradients and state are three flat arrays: `net.parameters`, `net.grads`,
    `net.state`. An assignment to one of them copies the values in. The same `seed` gives the same
    initial values on every backend and the same training on one.

    A network that is called with nodes becomes a part of another one: its layers belong to that
    network then, under its name, with the values that they have. It can still predict.

    Args:
        inputs: an Input, or a list or dict of Inputs. Data follow the same structure.
        outputs: the node whose value is the output, or a list or dict of nodes. Targets, losses
            and predictions follow the same structure.
        backend: the name of a backend, see get_backend, or a Backend.
        dtype: float32 or float64.
        seed: of initial values and of all random numbers of training.
        name: the name of the network as a part of another one.
    """

    @hinted
    def __init__(self, inputs: Any, outputs: Any, *, backend: str | Backend = "auto",
                 dtype: Any = "float32", seed: int = 0, name: str | None = None) -> None:
        super().__init__(inputs, outputs, backend=backend, dtype=dtype, seed=seed)
        self.name = expect_name(self.who, "name", name)
        self._finish()

    def __setattr__(self, name: str, value: Any) -> None:
        made = "_own" in vars(self)     # before that a subclass may use the names for arguments
        if made and name in FLAT:
            copy_in("Network", name, vars(self)[name], value, self.backend)
        elif made and name in FIXED:
            raise AttributeError(f"Network: expected {FIXED[name]}. Received: an assignment to "
                                 f"net.{name}, which the network's other parts would not follow.")
        elif not made and name in vars(TrainedFacts):
            raise AttributeError(f"Network: expected super().__init__() before an assignment to "
                                 f"{name}. Received: {type(self).__name__}.{name} before it.")
        else:
            super().__setattr__(name, value)

    if not TYPE_CHECKING:       # so that mypy finds wrong names

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):       # a property: its own error
                return object.__getattribute__(self, name)
            raise AttributeError(no_attribute(self, name), name=name, obj=self)

    @property
    def input(self) -> Any:
        """The Input; for several inputs a list or dict."""
        return self.ins.given

    @property
    def output(self) -> Any:
        """The node of the output; for several outputs a list or dict."""
        return self.outs.given

    @property
    def trainable(self) -> bool:
        """Whether an optimizer may change all layers; an assignment holds for all of them."""
        return all(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value

    def to(self, backend: str | Backend) -> Network:
        """Move the network to another backend. Returns itself.

        The optimizer's state of a training under way moves with the next step.
        """
        self.move(get_backend(backend))
        return self

    # --- batch-last -------------------------------------------------------------------------------

    def forward(self, x: Any, mode: str = PREDICT, *, lengths: Any = None) -> Any:
        """The output for batch-last arrays on the network's backend.

        Args:
            lengths: numbers of steps (1, N), for an Input with lengths; for several a list or dict.
        """
        xs = batch_last_inputs(self, x, lengths, self.who)
        return self.outs.pack(self.run(xs, self.outs.nodes, mode))

    def backward(self, dy: Any, accumulate: bool = False) -> None:
        """All parameters' gradients, given that with respect to the output, after a forward pass in
        "train" mode.

        Args:
            dy: batch-last; for several outputs as they are.
            accumulate: add to the gradients instead of replacing them.
        """
        dys = self.outs.unpack(dy, self.who, "gradients")
        self.run_backward([*zip(self.outs.nodes, dys, strict=True)], accumulate)

    def batch_last(self, x: Any) -> Array:
        """A batch-first array on the network's backend, in its dtype, with the batch as its last
        axis."""
        return self.backend.gather_batch(self.xp.asarray(x), None, self.dtype)

    # --- batch-first ------------------------------------------------------------------------------

    def __call__(self, x: Any, *more: Node, mode: str = PREDICT, lengths: Any = None) -> Any:
        """The output for batch-first x, as batch-first arrays of the backend.

        With nodes instead of arrays the network becomes a part of another one; the nodes of its
        outputs are returned.

        Args:
            x: an array, or arrays as the inputs are; or nodes, one for each input.
            more: further nodes.
            mode: "predict", or "sample" for outputs with dropout on, with other masks at each call.
            lengths: see `predict`. Outputs are padded with 0.
        """
        nodes = [*x.values()] if isinstance(x, Mapping) else x if isinstance(x, list) else [x]
        if nodes and all(isinstance(node, Node) for node in nodes):
            return self.as_part([*nodes, *more])
        if more:
            raise TypeError(f"{self.who}: expected arrays for all inputs in x. Received: "
                            f"{len(more) + 1} arguments.")
        mode = expect_choice("Network", "mode", mode, (PREDICT, SAMPLE))
        arrays = self.check_inputs(x, lengths)
        with self.backend.scope():
            xs = [self.batch_last(a) for a in arrays]
            ys = self.without_padding(xs, self.outs.nodes, self.run(xs, self.outs.nodes, mode))
            if mode == SAMPLE:
                self.counters[1] += self.counters.dtype.type(1)
            return self.outs.pack([self.xp.ascontiguousarray(self.xp.moveaxis(y, -1, 0))
                                   for y in ys])

    def predict(self, x: Any, *, lengths: Any = None, batch_size: int = 256, parallel: Any = None
                ) -> Any:
        """The output for batch-first x as batch-first NumPy arrays, computed in batches.

        Args:
            x: batch-first samples; for an Input with lengths a list of arrays (D, T_i), or padded
                samples (N, D, T) with `lengths`. Outputs that have these steps are then a list of
                arrays, or padded with 0.
            lengths: numbers of steps (N,); for several such Inputs a list or dict.
            batch_size: samples of a forward pass.
            parallel: see xpnet.training.fit.
        """
        return predict(self, x, lengths=lengths, batch_size=batch_size, parallel=parallel)

    def predict_proba(self, x: Any, *, lengths: Any = None, loss: Any = None, batch_size: int = 256
                      ) -> Any:
        """Probabilities for batch-first x, (N, K) for K classes: softmax or sigmoid of what
        `predict` returns, if the loss includes it. `loss` is that of the last fit by default."""
        return predict_proba(self, x, lengths=lengths, loss=loss, batch_size=batch_size)

    def predict_files(self, paths: Any, *, top: int = 1, fit: str | None = None, loss: Any = None,
                      batch_size: int = 256) -> FilePredictions:
        """Predictions for image files, read as in the training; print them for a table.

        See xpnet.training.files.

        Args:
            paths: a file or folder, or a list of files and folders.
            top: how many of the most likely classes a row has.
            fit: "crop" or "stretch", see xn.data.read_image; as in the training by default.
            loss: the loss of the last fit by default.
            batch_size: files of a forward pass.
        """
        return predict_files(self, paths, top=top, fit=fit, loss=loss, batch_size=batch_size)

    def output_of(self, name: str, x: Any, *, lengths: Any = None, batch_size: int = 256) -> Any:
        """The output of the layer called `name`, as a batch-first NumPy array (N, ...).

        Args:
            name: as `summary` shows it. The second use of a shared layer is "name:2".
            x: batch-first samples.
            lengths: see `predict`, also for values that have steps.
            batch_size: samples of a forward pass.
        """
        return values_of(self, x, [self.node(name)], batch_size, "output_of", lengths)[0]

    def input_gradient(self, x: Any, target: Any = None, *, lengths: Any = None, loss: Any = None,
                       output_gradient: Any = None) -> Any:
        """The gradient with respect to the input, in prediction mode, as batch-first NumPy arrays.

        See xpnet.training.gradients.
        """
        return input_gradient(self, x, target, lengths=lengths, loss=loss,
                              output_gradient=output_gradient)

    def predict_samples(self, x: Any, samples: int = 50, *, lengths: Any = None,
                        loss: str | Loss | None = None, batch_size: int = 256
                        ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the predictions over dropout's masks, of probabilities if
        the loss includes softmax or sigmoid.

        `loss` is that of the last fit by default; see xpnet.training.sampling.
        """
        return predict_samples(self, x, samples, lengths=lengths, loss=loss, batch_size=batch_size)

    def evaluate(self, x: Any, y: Any = None, *, lengths: Any = None, loss: Any = None,
                 loss_weights: Any = None, batch_size: int = 256,
                 metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
                 parallel: Any = None) -> dict[str, Any]:
        """{"loss": ..., "accuracy": ...}, the accuracy for classes; see xpnet.training.evaluate.

        Args:
            x: batch-first samples.
            y: targets.
            lengths: see `fit`.
            loss: the loss of the last fit by default.
            loss_weights: factors of the losses of several outputs.
            batch_size: samples of a forward pass.
            metrics: names, and functions of what `predict` returns and of the targets, e.g.
                {"f1": xn.metrics.f1_score}.
            parallel: see xpnet.training.fit.
        """
        return evaluate(self, x, y, lengths=lengths, loss=loss, loss_weights=loss_weights,
                        batch_size=batch_size, metrics=metrics, parallel=parallel)

    @hinted
    def fit(self, x: Any, y: Any = None, *, lengths: Any = None, loss: Any = None,
            optimizer: str | Optimizer = "adam", epochs: int | None = None,
            steps: int | None = None, batch_size: int = 32, drop_last: bool = False,
            accumulate: int = 1, validation: Any = None, augment: Any = (),
            sample_weight: Any = None, class_weight: Any = None, loss_weights: Any = None,
            schedule: str | Schedule = "constant", shuffle: bool = True,
            callbacks: Sequence[Callback] = (),
            until: Callable[[dict[str, float]], bool] | None = None,
            checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
            resume: str | os.PathLike[str] | None = None, verbose: bool = True,
            capture: bool = True, parallel: Any = None) -> History:
        """Train on batch-first x and y; see xpnet.training.fit for the arguments."""
        return fit(self, x, y, lengths=lengths, loss=loss, optimizer=optimizer, epochs=epochs,
                   steps=steps, batch_size=batch_size, drop_last=drop_last, accumulate=accumulate,
                   validation=validation, augment=augment,
                   sample_weight=sample_weight, class_weight=class_weight,
                   loss_weights=loss_weights, schedule=schedule, shuffle=shuffle,
                   callbacks=callbacks, until=until, checkpoint=checkpoint, resume=resume,
                   verbose=verbose, capture=capture, parallel=parallel)

    def find_lr(self, x: Any, y: Any, *, loss: Any, optimizer: str | Optimizer = "adam",
                batch_size: int = 32, low: float = 1e-7, high: float = 10.0, steps: int = 100
                ) -> LearningRates:
        """Try growing learning rates in a short training, and suggest one (Smith 2017). Nothing in
        the network changes; see xpnet.training.rates."""
        return find_lr(self, x, y, loss=loss, optimizer=optimizer, batch_size=batch_size, low=low,
                       high=high, steps=steps)

    # --- changed and shown ------------------------------------------------------------------------

    def population_statistics(self, x: Any, *, batch_size: int = 256) -> Network:
        """Replace batch norms' running statistics by those of batch-first x. Returns itself.

        See xpnet.transform.population.
        """
        population_statistics(self, x, batch_size=batch_size)
        return self

    def folded(self) -> Network:
        """A new network for predictions, with batch norms folded into the layers before them.

        See xpnet.transform.folding.
        """
        return Network.of(fold_batch_norm(self))

    def export(self, path: str | os.PathLike[str], *, fold: bool = False) -> None:
        """Write the network for predictions as an ONNX file, for onnxruntime and others.

        See xpnet.io.onnx.export.

        Args:
            path: a name that ends with .onnx.
            fold: whether batch norms are folded into the layers before them, see `folded`.
        """
        export(self, path, fold=fold)

    def up_to(self, name: str) -> Network:
        """A new network that ends at the layer called `name`, with copies of the values.

        See xpnet.transform.transfer.
        """
        return Network.of(up_to(self, name))

    def with_head(self, layers: Iterable[Layer | Network], *, after: str | None = None,
                  frozen: bool = False) -> Network:
        """A new network with copies of the values and a new head in place of the last layers.

        Args:
            layers: the head: new layers, in the order of computation.
            after: the last layer that is kept; by default all layers below the last one with
                parameters are kept.
            frozen: whether the old part is frozen.
        """
        return Network.of(with_head(self, layers, after=after, frozen=frozen))

    def summary(self) -> Summary:
        """A table of layers: output shapes, parameters, multiply-adds, receptive fields, activation
        memory.

        Print it in a script; a notebook shows it.
        """
        return summary(self)

    def draw(self, path: str | os.PathLike[str] | None = None) -> Drawing:
        """The graph as an SVG drawing: layers with output shapes and parameters, from top to
        bottom.

        A notebook shows it; `path` is the name of a .svg file to write.
        """
        return draw(self, path)

    def show_filters(self, layer: str, *, most: int = 64, ax: Any = None) -> Any:
        """A matplotlib Figure of the filters of the layer called `layer`.

        See xpnet.viz.show_filters.
        """
        from xpnet.viz.filters import show_filters
        return show_filters(self, layer, most=most, ax=ax)

    def profile(self, x: Any, *, steps: int = 10) -> Profile:
        """Time, operations and bytes of every layer in a training step, see inspect/profile.py."""
        return profile(self, x, steps=steps)

    def memory_report(self, batch_size: int, optimizer: str | Optimizer | None = None
                      ) -> MemoryReport:
        """Predict the peak memory of a training step of `batch_size` samples, without changing
        anything; print it for a table."""
        return memory_report(self, batch_size, optimizer)


class Sequential(Network):
    """Layers one after another. Networks may stand among them.

    Args:
        layers: the layers, in the order of computation.
        input_shape: the shape of one sample, e.g. (1, 28, 28).
        lengths: whether the samples are sequences of 1 to T steps, see Input.
        backend, dtype, seed, name: see Network.
    """

    kind = "sequential"

    @hinted
    def __init__(self, layers: Iterable[Layer | Network], *, input_shape: Sequence[int],
                 lengths: bool = False, backend: str | Backend = "auto", dtype: Any = "float32",
                 seed: int = 0, name: str | None = None) -> None:
        inputs = Input(input_shape, lengths=lengths)
        outputs = chain("Sequential", layers, inputs)
        super().__init__(inputs, outputs, backend=backend, dtype=dtype, seed=seed, name=name)


def load(path: str | Path, *, backend: str | Backend = "auto", layers: Sequence[type[Layer]] = ()
         ) -> Network:
    """The network that a file holds. Layer classes of your own are named in `layers`.

    ValueError for a file that is truncated, that xpnet did not write, or whose architecture and
    arrays disagree. Memory is allocated only for arrays that the file holds.
    """
    net: Network = Network.of(safetensors.load(path, backend=backend, layers=layers))
    return net


Face.of = Network.of
