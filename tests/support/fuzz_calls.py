"""Every public constructor and function with good arguments, and a use of its result.

`CALLS` maps a label to a Call. The arguments of layers and losses are those of the catalogue's
examples.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import picture_calls
from model_cases import SETTINGS, SMALLEST

import xpnet as xn
from xpnet import augment, explain, functional, metrics, models, schedules, testing, vision, viz
from xpnet.augment.draws import Draws
from xpnet.backends import get_backend
from xpnet.catalogue import FAMILIES, Item
from xpnet.data import (
    Dataset,
    csv_images,
    digits,
    image_folder,
    read_idx,
    read_image,
    shapes,
    stick_figures,
)
from xpnet.explore import Explorer
from xpnet.initializers import constant
from xpnet.io.architecture import architecture, as_json, graph
from xpnet.io.darknet import network_from_text
from xpnet.layer import TRAIN, Layer
from xpnet.models.yolo import yolov3_tiny
from xpnet.optim.base import Optimizer
from xpnet.training.sampling import predict_samples
from xpnet.transform.population import population_statistics

NOTHING = object()
ITEMS: list[Item] = [item for items in FAMILIES.values() for item in items]


@dataclass(frozen=True)
class Call:
    """A function, good arguments (new ones for each call), and a use of its result."""

    function: Callable[..., Any]
    good: Callable[[], dict[str, Any]]
    use: Callable[[Any], object] = repr
    positional: tuple[str, ...] = ()  # the arguments that are passed without their names

    def __call__(self, **changes: Any) -> Any:
        arguments = self.good() | changes
        return self.function(*[arguments.pop(name) for name in self.positional], **arguments)


def signature(function: Callable[..., Any]) -> dict[str, Any]:
    """The default of each argument, NOTHING if there is none."""
    return {name: NOTHING if p.default is p.empty else p.default
            for name, p in inspect.signature(function).parameters.items()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


# --- layers ---------------------------------------------------------------------------------------


def use_layer(item: Item) -> Callable[[Layer], object]:
    """Use the layer in a network that makes a training step, and rebuild it from its configuration,
    also through JSON."""

    def use(layer: Layer) -> None:
        repr(layer)
        again = type(layer)(**layer.config())
        assert again.config() == layer.config() or layer.config() != layer.config(), layer.config()
        name = layer.name
        if isinstance(layer, xn.Embedding):         # a Linear makes no tokens
            x = xn.Input((3,))
            net = xn.Network(x, layer(xn.Rescale(0.0)(x)), backend="numpy")
        else:
            x = xn.Input((3,))
            net = xn.Network(x, layer.node(*(xn.Reshape(shape)(xn.Linear(math.prod(shape))(x))
                                             for shape in item.shapes)), backend="numpy")
        assert name is None or layer.name == name
        plan = json.loads(as_json(architecture(net)))
        graph(plan, [])
        y = net.forward(np.ones((3, 2), np.float32), TRAIN)
        assert y.shape == (*layer.out_shape, 2)
        net.backward(y)

    return use


def layers() -> dict[str, Call]:
    found = {}
    for item in ITEMS:
        if item.make and isinstance(item.what, type) and issubclass(item.what, Layer):
            found[item.name] = Call(item.what, lambda make=item.make: make().config(),
                                    use_layer(item))
    return found


def linear() -> Layer:
    return xn.Linear(2).initialize((3,), backend="numpy")


def of_layer(name: str, good: dict[str, Any], positional: tuple[str, ...] = ()) -> Call:
    return Call(lambda *args, **options: getattr(linear(), name)(*args, **options),
                lambda: dict(good), positional=positional)


def a_network() -> xn.Sequential:
    return xn.Sequential([xn.Conv2d(2, 3), xn.BatchNorm2d(), xn.Flatten(), xn.Dropout(0.5),
                          xn.Linear(3)], input_shape=(1, 4, 4), backend="numpy")


X, Y = np.linspace(0, 1, 6 * 16).reshape(6, 1, 4, 4), np.array([0, 1, 2, 0, 1, 2])


def of_darknet() -> xn.Network:
    return network_from_text("[net]\ninputs=2\n[connected]\noutput=3\n", "a.cfg", backend="numpy")


def of_bytes() -> xn.Sequential:
    net = a_network()
    net.scale = 255
    return net


def of_network(method: str, **good: Any) -> Call:
    return Call(lambda **options: getattr(a_network(), method)(**options), lambda: dict(good))


def of_sequences() -> xn.Sequential:
    return xn.Sequential([xn.GRU(2)], input_shape=(3, 4), backend="numpy")


def with_lengths() -> xn.Sequential:
    return xn.Sequential([xn.GRU(2)], input_shape=(3, 4), lengths=True, backend="numpy")


def connected(value: Any) -> Any:
    return xn.Linear(2)(value)


def network() -> dict[str, Any]:
    x = xn.Input((3,))
    return {"inputs": x, "outputs": xn.Linear(2)(x), "backend": "numpy", "dtype": "float32",
            "seed": 0, "name": None}


def first_layer(make: Callable[[], Layer], method: str, **good: Any) -> Call:
    """A method that fits a layer of a network to images."""

    def call(**options: Any) -> Any:
        return getattr(
            xn.Sequential([make()], input_shape=(1, 4, 4), backend="numpy").layers[0], method
        )(**options)

    return Call(call, lambda: dict(good))


def networks() -> dict[str, Call]:
    def trained(step: xn.TrainStep) -> None:
        step(np.ones((3, 2), np.float32), np.zeros(2, np.int64))

    fit = {"x": X, "y": Y, "lengths": None, "loss": "cross_entropy", "optimizer": "adam",
           "epochs": 1, "steps": None, "batch_size": 3, "drop_last": False, "accumulate": 1,
           "validation": None, "augment": (), "sample_weight": np.ones(len(X)),
           "class_weight": "balanced", "schedule": "constant", "shuffle": True, "callbacks": (),
           "until": None, "loss_weights": None, "checkpoint": None, "resume": None,
           "verbose": False, "capture": True, "parallel": None}
    return {
        "Input": Call(xn.Input, lambda: {"shape": (3,), "lengths": True, "name": None}),
        "Network": Call(xn.Network, network, lambda net: net.predict(np.ones((1, 3)))),
        "Sequential": Call(xn.Sequential, lambda: {
            "layers": [xn.Linear(2)], "input_shape": (3,), "lengths": False, "backend": "numpy",
            "dtype": "float32", "seed": 0, "name": None}, lambda net: net.predict(np.ones((1, 3)))),
        "Network.__call__": of_network("__call__", x=X, mode="predict", lengths=None),
        "Network.to": of_network("to", backend="numpy"),
        "Network.fit": of_network("fit", **fit),
        "Network.find_lr": of_network("find_lr", x=X, y=Y, loss="cross_entropy", optimizer="adam",
                                      batch_size=3, low=1e-5, high=1.0, steps=3),
        "Network.evaluate": of_network("evaluate", x=X, y=Y, lengths=None, loss="cross_entropy",
                                       loss_weights=None, batch_size=3,
                                       metrics={"f1": metrics.f1_score}, parallel=None),
        "Network.output_of": of_network("output_of", name="conv1", x=X, lengths=None,
                                        batch_size=3),
        "Network.input_gradient": of_network("input_gradient", x=X, target=Y, lengths=None,
                                             loss="cross_entropy", output_gradient=None),
        "Network.predict": of_network("predict", x=X, lengths=None, batch_size=3,
                                      parallel=None),
        "predict with lengths": Call(
            lambda **options: with_lengths().predict(**options),
            lambda: {"x": np.ones((2, 3, 4)), "lengths": [1, 4], "batch_size": 3}),
        "fit with lengths": Call(
            lambda **options: with_lengths().fit(**options),
            lambda: fit | {"x": np.ones((2, 3, 4)), "y": [0, 1], "lengths": [1, 4],
                           "sample_weight": None, "class_weight": None}),
        "evaluate with lengths": Call(
            lambda **options: with_lengths().evaluate(**options),
            lambda: {"x": [np.ones((3, 2)), np.ones((3, 4))], "y": [0, 1], "lengths": None,
                     "loss": "cross_entropy", "loss_weights": None, "batch_size": 3,
                     "metrics": None}),
        "Network.predict_proba": of_network("predict_proba", x=X, lengths=None,
                                            loss="cross_entropy", batch_size=3),
        "Network.predict_files": Call(
            lambda **options: of_bytes().predict_files(**options),
            lambda: {"paths": "none.png", "top": 1, "fit": None, "loss": "cross_entropy",
                     "batch_size": 3}),
        "Network.predict_samples": of_network("predict_samples", x=X, samples=2, lengths=None,
                                              loss="cross_entropy", batch_size=3),
        "Network.population_statistics": of_network("population_statistics", x=X, batch_size=3),
        "Network.memory_report": of_network("memory_report", batch_size=3, optimizer=None),
        "Network.export": of_network("export", path="net.onnx", fold=False),
        "Network.draw": of_network("draw", path="net.svg"),
        "Network.up_to": of_network("up_to", name="conv1"),
        "Network.with_head": Call(
            lambda **options: a_network().with_head(**options),
            lambda: {"layers": [xn.Linear(2)], "after": None, "frozen": False}),
        "Whitening.fit": first_layer(xn.Whitening, "fit", x=X),
        "DeconvolutionalNetwork2d.learn": first_layer(
            lambda: xn.DeconvolutionalNetwork2d(2, 2, betas=[1]), "learn", images=X, epochs=1,
            filter_steps=1),
        "TrainStep": Call(xn.TrainStep, lambda: {"net": xn.Network(**network()),
                                                 "loss": xn.CrossEntropy(), "optimizer": xn.Adam(),
                                                 "loss_weights": None, "capture": True}, trained),
        "ChunkPredictor": Call(xn.ChunkPredictor, lambda: {"net": of_sequences()}, repr),
        "ChunkPredictor.__call__": Call(
            lambda **options: xn.ChunkPredictor(of_sequences())(**options),
            lambda: {"x": np.ones((2, 3, 4))}),
        "Layer.__call__": Call(connected, lambda: {"value": xn.Input((3,))}),
        "Layer.initialize": Call(
            lambda shape, **options: xn.Linear(2).initialize(shape, **options),
            lambda: {"shape": (3,), "backend": "numpy", "dtype": "float32", "seed": 0}),
        "Layer.update": of_layer("update", {"optimizer": xn.Adam()}),
        "Layer.forward": of_layer("forward", {"x": np.ones((3, 1), np.float32), "mode": "predict"},
                                  ("x",)),
    }


# --- losses, optimizers, schedules ----------------------------------------------------------------


def losses() -> dict[str, Call]:
    def use_loss(item: Item) -> Callable[[xn.Loss], object]:
        def use(loss: xn.Loss) -> None:
            assert item.target is not None
            repr(loss)
            rng = np.random.default_rng(0)
            y = item.inputs(rng, 3)[0] if item.inputs else rng.standard_normal((*item.shapes[0], 3))
            target = np.moveaxis(
                loss.targets(item.target(rng, 3), item.shapes[0], np.dtype("float64")), 0, -1)
            value, dy = loss(get_backend("numpy"), y, np.ascontiguousarray(target))
            assert np.shape(value) in ((), (3,)) and dy.shape == y.shape

        return use

    found = {}
    for item in ITEMS:
        if item.make and isinstance(item.what, type) and issubclass(item.what, xn.Loss):
            example = item.make()
            good = {name: getattr(example, name) for name in signature(item.what)}
            found[item.name] = Call(item.what, lambda good=good: dict(good), use_loss(item))
    return found


def optimizers() -> dict[str, Call]:
    def use(optimizer: Optimizer) -> None:
        layer = linear()
        layer.backward(layer.forward(np.ones((3, 2), np.float32), mode=TRAIN))
        layer.update(optimizer)

    needed = {"lr": 0.1, "optimizer": xn.Adam()}
    return {cls.__name__: Call(cls,
                               lambda cls=cls: {name: needed[name] if value is NOTHING else value
                                                for name, value in signature(cls).items()}, use)
            for name in xn.optim.__all__ if (cls := getattr(xn, name)) is not Optimizer}


def schedules_() -> dict[str, Call]:
    def use(schedule: xn.Schedule) -> None:
        started = schedule.start()
        assert all(math.isfinite(started.factor(t)) for t in (0.0, 0.3, 1.0))

    return {cls.__name__: Call(cls, lambda cls=cls: signature(cls), use)
            for name in schedules.__all__ if (cls := getattr(xn, name)) is not xn.Schedule}


# --- functions of arrays --------------------------------------------------------------------------


def functions() -> dict[str, Call]:
    x, W = np.ones((2, 4, 5, 5)), np.ones((6, 2, 3, 3))
    y, C = np.ones((2, 6, 3, 3)), np.ones(4)
    v = np.arange(6.0).reshape(2, 3)
    pooled, argmax = functional.max_pool2d(x, 2, backend="numpy")
    signal = x[:, :, 0]
    peaks, won = functional.max_pool1d(signal, 2, backend="numpy")
    window = {"stride": 1, "padding": 0, "dilation": 1}
    pooling = {"kernel_size": 2, "stride": 2, "padding": 0}
    special: dict[str, dict[str, Any]] = {
        "conv2d": {"x": x, "W": W, "groups": 2},
        "conv2d_backward": {"dy": y, "x": x, "W": W, "groups": 2},
        "conv_transpose2d": {"x": y, "W": W, "groups": 2},
        "conv_transpose2d_backward": {"dy": x, "x": y, "W": W, "groups": 2},
        "im2col": {"x": x, "kernel_size": 3} | window,
        "col2im": {"cols": np.ones((2, 36, 9)), "x_shape": (2, 4, 5, 5), "kernel_size": 3} | window,
        "max_pool2d": {"x": x} | pooling,
        "max_pool2d_backward": {"dy": pooled, "argmax": argmax, "x_shape": x.shape} | pooling,
        "avg_pool2d": {"x": x} | pooling,
        "avg_pool2d_backward": {"dy": pooled, "x_shape": x.shape} | pooling,
        "conv1d": {"x": signal, "W": W[:, :, 0], "groups": 2},
        "conv1d_backward": {"dy": y[:, :, 0], "x": signal, "W": W[:, :, 0], "groups": 2},
        "conv_transpose1d": {"x": y[:, :, 0], "W": W[:, :, 0], "groups": 2},
        "conv_transpose1d_backward": {"dy": signal, "x": y[:, :, 0], "W": W[:, :, 0], "groups": 2},
        "max_pool1d": {"x": signal} | pooling,
        "max_pool1d_backward": {"dy": peaks, "argmax": won, "x_shape": signal.shape} | pooling,
        "avg_pool1d": {"x": signal} | pooling,
        "avg_pool1d_backward": {"dy": peaks, "x_shape": signal.shape} | pooling,
        "batch_norm": {"x": x, "gamma": C, "beta": C},
        "batch_norm_inference": {"x": x, "gamma": C, "beta": C, "mean": C, "var": C},
        "batch_norm_backward": {"dy": x, "x": x, "gamma": C, "mean": C, "var": C},
        "contrastive": {"a": v, "b": v[::-1].copy(), "same": np.array([1.0, 0.0])},
        "cosine_embedding": {"a": v, "b": v[::-1].copy(), "sign": np.array([1.0, -1.0])},
        "margin_ranking": {"a": v[:, 0].copy(), "b": v[:, 1].copy(), "sign": np.array([1.0, -1.0])},
        "triplet_margin": {"anchor": v, "positive": v + 1, "negative": v[::-1].copy()},
        "adaptive_max_pool2d": {"x": x, "output_size": 2},
        "max_pool_indices": {"argmax": argmax, "x_shape": x.shape} | pooling,
        "max_unpool2d": {"x": pooled, "indices": argmax.astype(np.int64), "output_size": (5, 5)},
        "max_unpool2d_backward": {"dy": x, "indices": argmax.astype(np.int64)},
        "relu": {"x": x},
        "relu_backward": {"dy": x, "y": x},
        "softmax": {"z": x},
        "softmax_backward": {"dy": x, "y": x},
        "cross_entropy": {"z": np.ones((2, 3)), "target": np.array([0, 2]), "weight": [1, 2, 3]},
        "toeplitz": {"W": np.ones((3, 3)), "shape": (4, 4)},
    }

    def good(name: str) -> dict[str, Any]:
        defaults = {k: v for k, v in signature(getattr(functional, name)).items()
                    if v is not NOTHING}
        return defaults | ({"backend": "numpy"} if "backend" in defaults else {}) | special[name]

    return {name: Call(getattr(functional, name), lambda name=name: good(name)) for name in special}


def measures() -> dict[str, Call]:
    scores, labels = np.eye(6)[:, :6], np.array([0, 1, 2, 0, 1, 5])
    images = np.linspace(0, 1, 2 * 12 * 12).reshape(2, 12, 12)
    found = {}
    for name in metrics.__all__:
        y, target = (images, images[::-1]) if name in ("psnr", "ssim") else (scores, labels)
        metric = getattr(metrics, name)
        found[name] = Call(metric, lambda metric=metric, y=y, target=target: (
            signature(metric) | {"y": y, "target": target}))
    return found


def augmentations() -> dict[str, Call]:
    """Each is applied to images; those that mix, to two batches of them."""
    x = np.linspace(0, 1, 3 * 8 * 9 * 2).reshape(3, 8, 9, 2)
    special = {"RandomRotation": {"degrees": 20}, "RandomScale": {"low": 0.8, "high": 1.2},
               "RandomShift": {"shift": 0.1}, "CutOut": {"size": 3}}

    def use(augmentation: Any) -> None:
        repr(augmentation)
        if isinstance(augmentation, xn.MixUp | xn.CutMix):
            augmentation.mix(np, x, x[..., ::-1], Draws(0, 0, np.arange(2)))
        else:
            xn.augmented(np, x, [augmentation])

    kinds = {name: getattr(xn, name) for name in augment.__all__ if name[0].isupper()}
    return {name: Call(kind, lambda name=name, kind=kind: signature(kind) | special.get(name, {}),
                       use) for name, kind in kinds.items() if name != "Augmentation"} | {
        "augmented": Call(xn.augmented, lambda: {
            "xp": np, "x": x, "augmentations": [xn.RandomFlip()], "seed": 0, "epoch": 0,
            "samples": [5, 6]})}


def callbacks() -> dict[str, Call]:
    """Each takes part in a short training."""
    good: dict[str, dict[str, Any]] = {"CSVLog": {"path": "log.csv"},
                                       "JSONLog": {"path": "log.jsonl"},
                                       "TensorBoard": {"folder": "runs"}}

    def use(callback: xn.Callback) -> None:
        repr(callback)
        a_network().fit(X, Y, loss="cross_entropy", optimizer="adam", batch_size=3, epochs=2,
                        validation=(X, Y), verbose=False, callbacks=[callback])

    return {name: Call(kind, lambda name=name, kind=kind: signature(kind) | good.get(name, {}), use)
            for name, kind in vars(xn).items()
            if isinstance(kind, type) and issubclass(kind, xn.Callback) and kind is not xn.Callback}


def histories() -> dict[str, Call]:
    history = xn.History()
    history.rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": math.nan}]
    return {"History.best": Call(history.best, lambda: {"monitor": "loss", "mode": "auto"}),
            "History.to_csv": Call(history.to_csv, lambda: {"path": "history.csv"}),
            "History.to_json": Call(history.to_json, lambda: {"path": "history.json"})}


def ensembles() -> dict[str, Call]:
    nets = [a_network(), a_network()]
    good = {"x": X, "loss": "cross_entropy", "batch_size": 3}

    def build(seed: int) -> xn.Sequential:
        return xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=(1, 4, 4), seed=seed,
                             backend="numpy")

    return {
        "Ensemble": Call(xn.Ensemble, lambda: {"nets": nets}, lambda found: found.predict(X)),
        "Ensemble.bagged": Call(xn.Ensemble.bagged, lambda: {
            "build": build, "n": 2, "x": X, "y": Y, "loss": "cross_entropy", "optimizer": "adam",
            "epochs": 1, "batch_size": 3, "schedule": "constant", "seed": 0, "verbose": False}),
        "Ensemble.predict": Call(xn.Ensemble(nets).predict, lambda: {"x": X, "batch_size": 3}),
        "Ensemble.predict_proba": Call(xn.Ensemble(nets).predict_proba, lambda: dict(good)),
        "Ensemble.evaluate": Call(xn.Ensemble(nets).evaluate, lambda: good | {
            "y": Y, "metrics": {"f1": metrics.f1_score}}),
    }


def from_onnx(**options: Any) -> xn.Network:
    a_network().export("net.onnx")              # in a folder of its own
    return xn.io.load_onnx(**options)


def tools() -> dict[str, Call]:
    net = {"backend": "numpy", "dtype": "float32", "seed": 0}
    of_models = {name: Call(
        function,
        lambda name=name, function=function: (signature(function) | net
                                              | SETTINGS.get(name, {})
                                              | {"input_shape": SMALLEST[name]}))
                 for name, function in models.MODELS.items()}
    return of_models | {
        "set_num_threads": Call(xn.set_num_threads, lambda: {"n": 1},
                                lambda _: xn.set_num_threads(None)),
        "get_backend": Call(get_backend, lambda: signature(get_backend) | {"name": "numpy"}),
        "Window.make": Call(xn.Window.make,
                            lambda: signature(xn.Window.make)
                            | {"kernel_size": 3, "who": "Window"}),
        "split": Call(xn.split, lambda: {"value": xn.Input((6, 2)), "parts": 3, "axis": 0},
                      lambda parts: xn.Concat()(*parts) if len(parts) > 1 else parts[0]),
        "constant": Call(constant, lambda: {"value": 1.0}, lambda draw: draw(None, (2,), 1, 1)),
        "predict_samples": Call(predict_samples, lambda: {
            "net": a_network(), "x": X, "samples": 2, "lengths": None, "loss": "cross_entropy",
            "batch_size": 3}),
        "population_statistics": Call(population_statistics,
                                      lambda: {"net": a_network(), "x": X, "batch_size": 3}),
        "check_gradients": Call(
            lambda layer, shape, **options: testing.check_gradients(layer, shape, **options),
            lambda: {"layer": xn.Linear(2), "shape": (3,), "batch": 3, "backend": "numpy",
                     "seed": 0, "inputs": None, "tolerance": 1e-6}),
        "check_loss": Call(testing.check_loss, lambda: (signature(testing.check_loss) | {
            "loss": xn.CrossEntropy(), "out_shape": (3,), "target": [0, 1]})),
        "digits": Call(digits, lambda: {"seed": 0}),
        "read_idx": Call(read_idx, lambda: {"path": "none.idx"}),
        "Checkpoint": Call(xn.Checkpoint, lambda: signature(xn.Checkpoint) | {"folder": "run"}),
        "load": Call(xn.load,
                     lambda: {"path": "none.safetensors", "backend": "numpy", "layers": ()}),
        "load_darknet": Call(xn.io.load_darknet, lambda: {
            "cfg": "none.cfg", "weights": None, "input_size": None, "cutoff": None,
            "backend": "numpy", "dtype": "float32", "seed": 0}),
        "network_from_text": Call(network_from_text, lambda: {
            "text": "[net]\ninputs=2\n[connected]\noutput=3\n", "path": "a.cfg", "weights": None,
            "input_size": None, "cutoff": None, "backend": "numpy", "dtype": "float32", "seed": 0}),
        "save_darknet": Call(
            lambda **options: xn.io.save_darknet(of_darknet(), **options),
            lambda: {"cfg": "/nowhere/a.cfg", "weights": None}),
        "yolov3_tiny": Call(yolov3_tiny, lambda: {
            "input_shape": (3, 32, 32), "classes": 2, "weights": None} | net),
        "io.load_onnx": Call(from_onnx, lambda: {
            "path": "net.onnx", "input_shape": None, "outputs": None, "freeze_batch_norm": False,
            "backend": "numpy", "seed": 0}, lambda net: net.predict(X)),
        "Network.save": of_network("save", path="/nowhere/none.safetensors"),
        "Network.load": of_network("load", path="none.safetensors", architecture=True, strict=True),
        "Network.compare": of_network("compare", path="none.safetensors"),
        "Network.load_torch": of_network("load_torch", path="none.pth", mapping=None, strict=True),
        "Network.load_keras": of_network("load_keras", path="none.weights.h5", strict=True),
    }


# --- vision ---------------------------------------------------------------------------------------

BOXES, SCORES, CLASSES = [[0.0, 0, 4, 4], [1, 1, 5, 5], [8, 2, 9, 9]], [0.9, 0.8, 0.7], [0, 0, 1]


def a_detector() -> xn.Sequential:
    net = xn.Sequential([xn.Conv2d(7, 3)], input_shape=(1, 4, 4), backend="numpy")
    net.fit(np.ones((1, 1, 4, 4)), [[[0, 0.5, 0.5, 0.2, 0.2]]], loss=xn.YOLOv1(2, 1), verbose=False)
    net.scale = 255
    return net


def seeing() -> dict[str, Call]:
    special: dict[str, dict[str, Any]] = {
        "anchor_iou": {"sizes": [[1, 2], [3, 4]], "anchors": [[2, 2]]},
        "boundary_weights": {"objects": np.array([[[0, 1], [2, 0]]])},
        "box_area": {"boxes": BOXES},
        "box_iou": {"a": BOXES, "b": BOXES},
        "clip_boxes": {"boxes": BOXES, "size": (6, 8)},
        "convert_boxes": {"boxes": BOXES, "source": "xyxy", "target": "rel_cxcywh",
                          "size": (10, 12)},
        "detect": {"net": a_detector(), "images": np.zeros((1, 1, 4, 4))},
        "detect_files": {"net": a_detector(), "paths": []},
        "detection_targets": {"boxes": [BOXES], "labels": [CLASSES], "size": (9, 9)},
        "detections": {"y": np.zeros((1, 7, 2, 2)), "loss": xn.YOLOv1(2, 1), "size": (9, 9)},
        "draw_boxes": {"image": np.zeros((3, 9, 9)), "boxes": BOXES, "labels": CLASSES,
                       "scores": SCORES, "names": ["a", "b"]},
        "heatmaps": {"targets": np.full((1, 2, 3), 0.5), "size": (4, 5)},
        "landmark_points": {"y": np.zeros((1, 4)), "size": (4, 5)},
        "landmark_targets": {"points": np.ones((1, 2, 3)), "size": (4, 5)},
        "normalized_mean_error": {"y": np.ones((1, 2, 2)), "target": np.ones((1, 2, 3)),
                                  "length": 1.0},
        "pck": {"y": np.ones((1, 2, 2)), "target": np.ones((1, 2, 3)), "length": [1.0]},
        "kmeans_anchors": {"sizes": [[1, 2], [3, 4], [5, 5]], "k": 2},
        "letterbox": {"image": np.ones((3, 5, 8)), "size": 6},
        "loss_parts": {"loss": xn.YOLOv1(2, 1), "y": np.zeros((1, 7, 2, 2)),
                       "target": [[[0, 0.5, 0.5, 0.2, 0.2]]]},
        "mean_average_precision": {"found": [(BOXES, SCORES, CLASSES)],
                                   "truth": [(BOXES, CLASSES)]},
        "nms": {"boxes": BOXES, "scores": SCORES, "labels": CLASSES},
        "soft_nms": {"boxes": BOXES, "scores": SCORES, "labels": CLASSES},
    }
    found = {f"vision.{name}": Call(getattr(vision, name), lambda name=name: (
        signature(getattr(vision, name)) | special[name])) for name in special}
    place = vision.letterbox(np.ones((3, 5, 8)), 6)[1]
    return found | {f"Letterbox.{name}": Call(getattr(place, name), lambda: {"boxes": BOXES})
                    for name in ("forward", "backward")}


# --- data sets ------------------------------------------------------------------------------------

def use_data(data: Dataset) -> None:
    """Read a batch, and everything that a data set says of itself."""
    x, _ = data[[0, len(data) - 1]]
    assert x.shape == (2, *data.shape) and x.dtype == data.dtype
    data.scaled(x)
    repr(data), data.fingerprint()


def data_sets() -> dict[str, Call]:
    x, y = np.arange(48, dtype=np.uint8).reshape(12, 1, 2, 2), np.arange(12) % 2
    data = Dataset(x, y)
    return {
        "Dataset": Call(Dataset, lambda: signature(Dataset) | {
            "x": x, "y": y, "xp": np}, use_data),
        "Dataset.split": Call(data.split, lambda: signature(data.split), use_data),
        "Dataset.subset": Call(data.subset, lambda: {"indices": [0, 3]}, use_data),
        "csv_images": Call(csv_images, lambda: signature(csv_images) | {"path": "none.csv"}),
        "image_folder": Call(image_folder, lambda: signature(image_folder) | {
            "folder": "none", "size": 8, "cache": False}),
        "shapes": Call(shapes, lambda: signature(shapes) | {"count": 2, "size": 24}),
        "stick_figures": Call(stick_figures, lambda: signature(stick_figures) | {"count": 2}),
        "read_image": Call(read_image, lambda: signature(read_image) | {
            "path": "none.png", "size": 8}),
    }


def pictures() -> dict[str, Call]:
    return {f"{module.__name__.removeprefix('xpnet.')}.{name}": Call(
                function, lambda function=function, good=good: signature(function) | good)
            for module, table in ((explain, picture_calls.EXPLAIN), (viz, picture_calls.VIZ))
            for name, good in table.items() if (function := getattr(module, name))}


def served(**options: Any) -> Explorer:
    """A page that was served, and is closed."""
    with Explorer(**options) as explorer:
        return explorer


def pages() -> dict[str, Call]:
    return {"explore.Explorer": Call(served, lambda: signature(Explorer) | {"net": a_network()})}


CALLS: dict[str, Call] = (layers() | networks() | losses() | optimizers() | schedules_()
                          | functions() | measures() | ensembles() | augmentations()
                          | callbacks() | histories() | tools() | seeing() | pictures()
                          | data_sets() | pages())
# The file or the folder of the good arguments of these is missing.
FILES = {"csv_images", "image_folder", "load", "load_darknet", "save_darknet", "read_idx",
         "read_image", "Network.save", "Network.load", "Network.compare", "Network.predict_files",
         "Network.load_torch", "Network.load_keras"}
