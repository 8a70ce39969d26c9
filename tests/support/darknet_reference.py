"""Predictions of Darknet in plain NumPy loops in float64, from the text of a cfg file and the bytes
of a weights file. It shares no code with xpnet, with which the functions at the end compare it."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import xpnet as xn

ACTIVATIONS = {
    "linear": lambda z: z, "leaky": lambda z: np.where(z > 0, z, 0.1 * z),
    "relu": lambda z: np.maximum(z, 0), "logistic": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh, "swish": lambda z: z / (1 + np.exp(-z)),
    "mish": lambda z: z * np.tanh(np.log1p(np.exp(z))),
    "gelu": lambda z: 0.5 * z * (1 + np.tanh(0.797885 * z + 0.035677 * z**3)),
    "hardtan": lambda z: np.clip(z, -1, 1), "relu6": lambda z: np.clip(z, 0, 6),
    "elu": lambda z: np.where(z >= 0, z, np.exp(z) - 1),
    "selu": lambda z: np.where(z >= 0, 1.0507 * z, 1.0507 * 1.6732 * (np.exp(z) - 1)),
    "loggy": lambda z: 2 / (1 + np.exp(-z)) - 1,
    "relie": lambda z: np.where(z > 0, z, 0.01 * z),
    "ramp": lambda z: z * (z > 0) + 0.1 * z,
    "plse": lambda z: np.where(z < -4, 0.01 * (z + 4),
                               np.where(z > 4, 0.01 * (z - 4) + 1, 0.125 * z + 0.5)),
    "lhtan": lambda z: np.where(z < 0, 0.001 * z, np.where(z > 1, 0.001 * (z - 1) + 1, z)),
    "stair": lambda z: np.where(np.floor(z) % 2 == 0, np.floor(z / 2),
                                z - np.floor(z) + np.floor(z / 2)),
}


def sections(text: str) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        line = line.split("#")[0].replace(" ", "")
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif "=" in line:
            found[-1][1].__setitem__(*line.split("="))
    return found


class Reference:
    """What Darknet computes for one image (C, H, W)."""

    def __init__(self, text: str, content: bytes) -> None:
        self.sections = sections(text)
        major, minor = np.frombuffer(content[:8], "<i4")
        start = 20 if 10 * major + minor >= 2 else 16
        self.transposed = major > 1000 or minor > 1000
        self.later = int(np.frombuffer(content[8:12], "<i4")[0]) == 5       # a fork's
        self.floats, self.at = np.frombuffer(content[start:], "<f4").astype(np.float64), 0

    def take(self, *shape: int) -> np.ndarray:
        size = math.prod(shape)
        self.at += size
        return self.floats[self.at - size:self.at].reshape(shape)

    def outputs(self, x: np.ndarray) -> list[np.ndarray]:
        """The output of every section, that of a head is its input."""
        self.at, self.values = 0, []
        self.kept: dict[int, Any] = {}
        y = x.astype(np.float64)
        for index, (kind, options) in enumerate(self.sections[1:]):
            self.index, self.o = index, options
            y = getattr(self, kind, self.same)(y)
            self.values.append(y)
        assert self.at == len(self.floats)
        return self.values

    def n(self, key: str, default: int = 0) -> int:
        return int(self.o.get(key, default))

    def f(self, y: np.ndarray, default: str) -> np.ndarray:
        return ACTIVATIONS[self.o.get("activation", default)](y)

    def named(self, key: str) -> list[np.ndarray]:
        return [self.values[k if k >= 0 else self.index + k]
                for k in map(int, self.o[key].split(","))]

    def same(self, x: np.ndarray) -> np.ndarray:
        return x

    dropout = cost = yolo = region = detection = same

    # --- with weights -----------------------------------------------------------------------------

    @staticmethod
    def normalized(y: np.ndarray, bias: np.ndarray, scale: np.ndarray, mean: np.ndarray,
                   var: np.ndarray) -> np.ndarray:
        b, s, m, v = (a.reshape(-1, *(1,) * (y.ndim - 1)) for a in (bias, scale, mean, var))
        return (y - m) / np.sqrt(v + 0.00001) * s + b

    def convolutional(self, x: np.ndarray) -> np.ndarray:
        F, size, groups = self.n("filters", 1), self.n("size", 1), self.n("groups", 1)
        stride = self.n("stride", 1)
        sy, sx = self.n("stride_y", stride), self.n("stride_x", stride)
        d, pad = self.n("dilation", 1), size // 2 if self.n("pad") else self.n("padding")
        x = x if x.ndim == 3 else x[:, None, None]
        C, H, W = x.shape
        if "share_index" in self.o:
            k = self.n("share_index")
            arrays, w = self.kept[k if k >= 0 else self.index + k]
        else:
            arrays = [self.take(F) for _ in range(4 if self.n("batch_normalize") else 1)]
            w = self.take(F, C // groups, size, size)
            self.kept[self.index] = arrays, w
        OH = (H + 2 * pad - d * (size - 1) - 1) // sy + 1
        OW = (W + 2 * pad - d * (size - 1) - 1) // sx + 1
        padded = np.zeros((C, H + 2 * pad, W + 2 * pad))
        padded[:, pad:pad + H, pad:pad + W] = x
        y = np.zeros((F, OH, OW))
        per = F // groups
        for g, i, j in product(range(groups), range(OH), range(OW)):
            part = padded[g * (C // groups):(g + 1) * (C // groups),
                          i * sy:i * sy + d * (size - 1) + 1:d,
                          j * sx:j * sx + d * (size - 1) + 1:d]
            y[g * per:(g + 1) * per, i, j] = np.tensordot(w[g * per:(g + 1) * per], part, 3)
        y = (self.normalized(y, *arrays) if len(arrays) == 4
             else y + arrays[0][:, None, None])
        return self.f(y, "logistic")

    def connected(self, x: np.ndarray) -> np.ndarray:
        if x.ndim == 2:                             # each step of a sequence
            start, steps = self.at, []
            for t in range(x.shape[1]):
                self.at = start
                steps.append(self.connected(x[:, t]))
            return np.stack(steps, axis=1)
        units, x = self.n("output", 1), x.ravel()
        bias = self.take(units)
        w = self.take(x.size, units).T if self.transposed else self.take(units, x.size)
        y = w @ x
        if self.n("batch_normalize"):
            y = self.normalized(y, bias, *(self.take(units) for _ in range(3)))
        else:
            y = y + bias
        return self.f(y, "logistic")

    def part(self, units: int, inputs: int) -> Any:
        """A connected part of a recurrent section, without activation, as a function."""
        bias, w = self.take(units), self.take(units, inputs)
        if not self.n("batch_normalize"):
            return lambda v: w @ v + bias
        norm = [self.take(units) for _ in range(3)]
        return lambda v: self.normalized(w @ v, bias, *norm)

    def gates(self, names: str, x: np.ndarray) -> dict[str, Any]:
        units = self.n("output")
        return {name: self.part(units, len(x) if name[0] == "u" else units)
                for name in names.split()}

    def rnn(self, x: np.ndarray) -> np.ndarray:
        hidden = self.n("hidden", 1)
        W, U = self.part(hidden, len(x)), self.part(hidden, hidden)
        V = self.part(self.n("output"), hidden)
        f = ACTIVATIONS[self.o.get("activation", "logistic")]
        g = [f, ACTIVATIONS["logistic"], ACTIVATIONS["loggy"]][self.n("logistic")]
        state, steps = np.zeros(hidden), []
        for v in x.T:
            state = f(W(v)) + g(U(state)) + self.n("shortcut") * state
            steps.append(f(V(state)))
        return np.stack(steps, axis=1)

    def lstm(self, x: np.ndarray) -> np.ndarray:
        p = self.gates("wf wi wg wo uf ui ug uo" if self.later else "wi wf wo wg ui uf uo ug", x)
        h = c = np.zeros(self.n("output"))
        steps, s = [], ACTIVATIONS["logistic"]
        for v in x.T:
            f, i, g, o = (p["w" + k](h) + p["u" + k](v) for k in "figo")
            c = s(f) * c + s(i) * np.tanh(g)
            h = s(o) * np.tanh(c)
            steps.append(h)
        return np.stack(steps, axis=1)

    def gru(self, x: np.ndarray) -> np.ndarray:
        p = self.gates("uz ur uh wz wr wh" if self.later else "wz wr wh uz ur uh", x)
        h = np.zeros(self.n("output"))
        steps, s = [], ACTIVATIONS["logistic"]
        last = np.tanh if self.n("tanh") else s
        for v in x.T:
            z, r = (s(p["u" + k](v) + p["w" + k](h)) for k in "zr")
            h = z * h + (1 - z) * last(p["uh"](v) + p["wh"](r * h))
            steps.append(h)
        return np.stack(steps, axis=1)

    def local(self, x: np.ndarray) -> np.ndarray:
        F, size, stride = self.n("filters", 1), self.n("size", 1), self.n("stride", 1)
        C, H, W = x.shape
        pad = self.n("pad")
        OH, OW = ((n - 1 if pad else n - size) // stride + 1 for n in (H, W))
        padded = np.zeros((C, H + 2 * pad, W + 2 * pad))
        padded[:, pad:pad + H, pad:pad + W] = x
        bias = self.take(F, OH, OW)
        w = self.take(OH, OW, F, C, size, size)
        y = np.zeros((F, OH, OW))
        for i, j in product(range(OH), range(OW)):
            part = padded[:, i * stride:i * stride + size, j * stride:j * stride + size]
            y[:, i, j] = np.tensordot(w[i, j], part, 3) + bias[:, i, j]
        return self.f(y, "logistic")

    def batchnorm(self, x: np.ndarray) -> np.ndarray:
        return self.normalized(x, *(self.take(len(x)) for _ in range(4)))

    def shortcut(self, x: np.ndarray) -> np.ndarray:
        others = self.named("from")
        kind = self.o.get("weights_type", "none")
        if kind == "none":
            y = x.copy()
            for add in others:
                if add.shape == x.shape:
                    y += add
                    continue
                s, C = add.shape[1] // x.shape[1], min(len(add), len(x))
                for c, i, j in product(range(C), range(x.shape[1]), range(x.shape[2])):
                    y[c, i, j] += add[c, i * s, j * s]
            return self.f(y, "linear")
        m = len(others) + 1
        w = self.take(m, len(x)) if kind == "per_channel" else self.take(m, 1)
        rule = self.o.get("weights_normalization", "none")
        if rule == "softmax":
            e = np.exp(w - w.max(axis=0))
            w = e / (e.sum(axis=0) + 0.0001)
        elif rule in ("relu", "avg_relu"):
            r = np.maximum(w, 0)
            w = r / (r.sum(axis=0) + 0.0001)
        y = sum(a[:, None, None] * v for a, v in zip(w, [x, *others], strict=True))
        return self.f(y, "linear")

    # --- without weights --------------------------------------------------------------------------

    def windows(self, x: np.ndarray, f: Any) -> np.ndarray:
        stride = self.n("stride", 1)
        size = self.n("size", stride)
        sy, sx = self.n("stride_y", stride), self.n("stride_x", stride)
        padding = self.n("padding", size - 1)
        C, H, W = x.shape
        y = np.zeros((C, (H + padding - size) // sy + 1, (W + padding - size) // sx + 1))
        for i, j in product(*map(range, y.shape[1:])):
            top, left = i * sy - padding // 2, j * sx - padding // 2
            part = x[:, max(top, 0):max(top + size, 0), max(left, 0):max(left + size, 0)]
            y[:, i, j] = f(part.reshape(C, -1), axis=1)
        return y

    def maxpool(self, x: np.ndarray) -> np.ndarray:
        return self.windows(x, np.max)

    def local_avgpool(self, x: np.ndarray) -> np.ndarray:
        return self.windows(x, np.mean)

    def avgpool(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1).mean(axis=1)

    def upsample(self, x: np.ndarray) -> np.ndarray:
        r = self.n("stride", 2)
        return x.repeat(r, axis=1).repeat(r, axis=2)

    def reorg(self, x: np.ndarray) -> np.ndarray:
        r, memory = self.n("stride", 1), x.ravel()
        C, H, W = x.shape
        small = C // r**2
        y = np.zeros(x.size)
        for k, j, i in product(range(C), range(H), range(W)):
            block, c = divmod(k, small)
            here = i + W * (j + H * k)
            there = (i * r + block % r) + W * r * ((j * r + block // r) + H * r * c)
            if self.n("reverse"):
                y[there] = memory[here]
            else:
                y[here] = memory[there]
        return (y.reshape(small, H * r, W * r) if self.n("reverse")
                else y.reshape(C * r * r, H // r, W // r))

    def reorg3d(self, x: np.ndarray) -> np.ndarray:
        r = self.n("stride", 1)
        return np.concatenate([x[:, i::r, j::r] for i in range(r) for j in range(r)])

    def softmax(self, x: np.ndarray) -> np.ndarray:
        if x.ndim == 2:
            return np.exp(x) / np.exp(x).sum(axis=0)
        rows = (x.reshape(len(x), -1).T if self.n("spatial")
                else x.reshape(self.n("groups", 1), -1))
        z = rows / float(self.o.get("temperature", 1))
        e = np.exp(z - z.max(axis=1, keepdims=True))
        y = e / e.sum(axis=1, keepdims=True)
        return y.T.reshape(x.shape) if self.n("spatial") else y.ravel()

    def crop(self, x: np.ndarray) -> np.ndarray:
        _, H, W = x.shape
        h, w = self.n("crop_height", 1), self.n("crop_width", 1)
        y = x[:, (H - h) // 2:(H - h) // 2 + h, (W - w) // 2:(W - w) // 2 + w]
        return y if self.n("noadjust") else 2 * y - 1

    def activation(self, x: np.ndarray) -> np.ndarray:
        return self.f(x, "linear")

    def route(self, x: np.ndarray) -> np.ndarray:
        groups, part = self.n("groups", 1), self.n("group_id")
        return np.concatenate([np.split(value, groups)[part] for value in self.named("layers")])

    def scale_channels(self, x: np.ndarray) -> np.ndarray:
        of, = self.named("from")
        return self.f(of * (x if self.n("scale_wh") else x.reshape(-1, 1, 1)), "linear")

    def sam(self, x: np.ndarray) -> np.ndarray:
        return self.f(x * self.named("from")[0], "linear")


# --- comparing -----------------------------------------------------------------------------------

def randomized(net: xn.Network, seed: int = 0) -> xn.Network:
    """The network with other values, also for biases and statistics; variances stay above 0."""
    rng = np.random.default_rng(seed)
    net.parameters = rng.normal(0, 0.3, net.parameters.shape)
    net.state = rng.uniform(0.2, 1.5, net.state.shape)
    return net


def arrays(net: xn.Network) -> dict[str, bytes]:
    return {name: p.data.tobytes() for name, p in net.arrays.items()}


def saved(net: xn.Network, folder: Path) -> tuple[str, bytes]:
    """The text and the bytes that are written."""
    xn.io.save_darknet(net, folder / "net.cfg", folder / "net.weights")
    return (folder / "net.cfg").read_text(), (folder / "net.weights").read_bytes()


def largest_error(net: xn.Network, expected: list[np.ndarray], x: np.ndarray) -> float:
    """Of outputs for one image, relative to the largest expected value."""
    found = net.predict(x[None].astype(np.float32))
    found = found if isinstance(found, list) else [found]
    assert [y.shape[1:] for y in found] == [y.shape for y in expected]
    return max(float(np.abs(y[0] - z).max() / max(np.abs(z).max(), 1))
               for y, z in zip(found, expected, strict=True))
