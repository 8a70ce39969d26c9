"""Memory reports: they agree with the memory pools, and change nothing."""

from __future__ import annotations

import math
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import fake_memory
import numpy as np
import pytest
from gpu_cases import network, pretended
from model_cases import SETTINGS, SMALLEST
from nets import LAYERS, around, branches, untouched
from skips import CPU
from tiers import first, full
from watched_pool import Watched, trained_on

import xpnet as xn
from xpnet.inspect import counting, memory
from xpnet.models import MODELS

# --- predictions ----------------------------------------------------------------------------------

SMALL = [("numpy_cnn", 64), ("numpy_cnn", 300), ("bilici", 50), ("bilici", 200), ("lecun1989", 100),
         ("lecun1989", 400),
         ("lenet5", 100), ("lenet5", 200), ("resnet18", 12)]
LARGE = [("resnet18", 100), ("resnet50", 20)]       # NumPy alone, which compiles nothing


@pytest.mark.parametrize("name,N,backend", [(*row, kind) for kind in CPU for row in SMALL]
                         + [pytest.param(*row, "numpy", marks=full) for row in LARGE])
def test_the_peak_is_that_of_the_pool(name, N, backend, monkeypatch):
    # several threads do not always reach their maximum at the same time
    monkeypatch.setenv("XPNET_NUM_THREADS", "1")
    small = {"resnet18": (3, 16, 16), "resnet50": (3, 32, 32)}
    net = MODELS[name](backend=backend, **{"input_shape": small[name]} if name in small else {})
    optimizer = xn.SGD(0.0, momentum=0.9)
    report = net.memory_report(N, optimizer)
    assert (report.parameters, report.gradients,
            report.state) == (net.parameters.nbytes, net.grads.nbytes, net.state.nbytes)
    assert (report.optimizer == report.parameters
            and report.batch == N * 4 * np.prod(net.input.shape))
    pool = net.backend.memory = Watched()       # type: ignore[attr-defined]
    loss: xn.Loss = xn.HalfSquaredError()
    trained_on(net, N, optimizer, loss, np.zeros((*net.output.shape, N), np.float32))
    assert (report.peak - report.fixed) == pytest.approx(pool.most, rel=0.1)


SAMPLES = {"resnet50": 3} | dict.fromkeys(      # else 16: a few megabytes for each network
    ("mlp", "numpy_cnn", "bilici", "lecun1989", "lenet5", "unet", "espcn", "conv_autoencoder",
     "siamese", "char_lstm"), 256)


class NoPool:
    """Each array has memory of its own, which tracemalloc sees."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.empty(shape, dtype)


def traced(net: xn.Network, work: Callable[[], object]) -> int:
    """All bytes that the second call allocates by tracemalloc, also in expressions of NumPy."""
    net.backend.memory = NoPool()               # type: ignore[attr-defined]
    work()                                      # compiles kernels, makes tables
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return most - before


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("name", first(MODELS, "mlp", "lenet5", "unet", "siamese", "char_lstm"))
def test_every_model_needs_what_its_report_says(name, backend, monkeypatch):
    """In a training step, with the loss and the update."""
    monkeypatch.setenv("XPNET_NUM_THREADS", "1")
    N = SAMPLES.get(name, 16)
    net = MODELS[name](SMALLEST[name], backend=backend, **SETTINGS.get(name, {}))
    report = net.memory_report(N, xn.SGD(0.0))
    step = xn.TrainStep(net, xn.HalfSquaredError(), xn.SGD(0.0), capture=False)
    xs = net.ins.pack([np.zeros((*node.shape, N), np.float32) for node in net.ins.nodes])
    target = np.zeros((*net.output.shape, N), np.float32)
    assert (report.activations + report.transient
            == pytest.approx(traced(net, lambda: step(xs, target)), rel=0.1))


# of which NumPy makes temporaries
EXPRESSIONS = ["MultiHeadAttention", "GELU", "LogSoftmax"]


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("name", first([item.what.__name__ for item in LAYERS], *EXPRESSIONS))
def test_every_layer_needs_what_its_report_says(name, backend, monkeypatch):
    """In a forward and a backward pass, without a loss. There are many samples, because the few
    kilobytes of Python's own objects are not in the report."""
    monkeypatch.setenv("XPNET_NUM_THREADS", "1")
    net = around(next(item for item in LAYERS if item.what.__name__ == name))
    net.to(backend)
    N = max(512, (1 << 18) // sum(math.prod(node.shape) for node in net.nodes))
    monkeypatch.setattr(memory, "PROBE", N)     # measured, not extrapolated
    report, x = net.memory_report(N), np.zeros((3, N), np.float32)

    def work() -> None:
        y, = net.run([x], net.outs.nodes, xn.TRAIN)
        net.run_backward([(net.outs.nodes[0], np.zeros_like(y))])

    assert (report.activations + report.transient
            == pytest.approx(traced(net, work), rel=0.1))


def test_what_is_made_once_does_not_count():
    """A kernel that is compiled, or a table, in the first pass of a process."""
    class Lazy(Stubborn):
        made: list[Any] = []                    # noqa: RUF012

        def forward(self, x, mode="predict"):
            if not self.made:
                self.made.append([bytes(1000) for _ in range(10000)])
            return x

        def backward(self, dy, accumulate=False):
            return dy

    reports = [xn.Sequential([xn.Linear(3), Lazy(name="s")], input_shape=(2,),
                             backend="numpy").memory_report(100) for _ in range(2)]
    assert Lazy.made and reports[0] == reports[1]


def test_shared_layers_and_several_outputs_count_by_use(monkeypatch):
    monkeypatch.setenv("XPNET_NUM_THREADS", "1")
    a, b = xn.Input((3, 16, 16)), xn.Input((3, 16, 16))
    conv, norm = xn.Conv2d(16, 3, padding=1, activation="relu"), xn.BatchNorm2d()
    pool, flat, classes = xn.MaxPool2d(2), xn.Flatten(), xn.Linear(10)
    net = xn.Network([a, b], [classes(flat(pool(norm(conv(x))))) for x in (a, b)], backend="numpy")
    report = net.memory_report(100, xn.SGD(0.0))
    assert [row.name for row in report.rows[4:7]] == ["linear1", "conv1:2", "bn1:2"]
    assert report.batch == 2 * 100 * 3 * 16 * 16 * 4
    lent = net.backend.memory = Watched()       # type: ignore[attr-defined]
    step = xn.TrainStep(net, xn.HalfSquaredError(), xn.SGD(0.0), capture=False)
    xs = [net.backend.empty((3, 16, 16, 100), np.float32) for _ in range(2)]
    for x in xs:
        x.fill(0)
    for _ in range(2):
        step(xs, [np.zeros((10, 100), np.float32)] * 2)
    assert (report.peak - report.fixed) == pytest.approx(lent.most, rel=0.1)


@pytest.mark.parametrize("name,N", SMALL[:8])
def test_with_threads_the_pool_never_gives_out_more(name, N, monkeypatch):
    monkeypatch.setenv("XPNET_NUM_THREADS", "3")
    net, optimizer = MODELS[name](backend="numpy"), xn.SGD(0.0)
    report = net.memory_report(N, optimizer)
    pool = net.backend.memory = Watched()       # type: ignore[attr-defined]
    trained_on(net, N, optimizer, xn.HalfSquaredError(),
               np.zeros((*net.output.shape, N), np.float32))
    assert pool.most <= 1.02 * (report.peak - report.fixed)


def test_arrays_of_tasks_count_as_if_all_threads_had_them_at_once(monkeypatch):
    """With three threads, three tasks can have a kilobyte each at the same time."""
    monkeypatch.setenv("XPNET_NUM_THREADS", "3")
    backend, counted = xn.get_backend("numpy"), []
    with counting.counted(backend) as (twin, count):
        def task(index: int) -> None:
            a = twin.empty((1024,), np.uint8)
            counted.append(count.bytes())
            del a

        twin.threads.run(task, 5)               # type: ignore[attr-defined]
        assert counted == [1024, 2048, 3072, 3072, 3072] and count.bytes() == 0


def test_a_report_by_hand():
    """Two layers on the reference backend, with every array known."""
    net = xn.Sequential([xn.Conv2d(4, 3, padding=1), xn.MaxPool2d(2)], input_shape=(2, 8, 8),
                        backend=xn.Backend())
    report = net.memory_report(10, xn.Adam())
    image = 10 * 4 * 64                                     # bytes of one channel of all samples
    assert (report.batch_size, report.backend, report.batch) == (10, "base", 2 * image)
    assert report.parameters == report.gradients == report.optimizer / 2 and report.state == 0
    assert ([(row.name, row.kind) for row in report.rows]
            == [("conv1", "Conv2d"), ("pool1", "MaxPool2d")])
    # the maxima, and one byte of argmax for each
    assert report.rows[1].kept == image + image // 4
    assert report.peak == report.fixed + report.batch + report.activations + report.transient
    assert report.peak == max(max(row.forward, row.backward) for row in report.rows)


def arrays_in(value: Any) -> dict[int, np.ndarray]:
    """The arrays in tuples, lists and dicts, by id; for a view, the array that owns the memory."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return {key: a for item in value for key, a in arrays_in(item).items()}
    while isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
        value = value.base
    return {id(value): value} if isinstance(value, np.ndarray) else {}


@pytest.mark.parametrize("backend", ["base", *CPU])
@pytest.mark.parametrize("item", LAYERS, ids=lambda item: item.what.__name__)
def test_kept_memory_is_that_of_the_arrays_kept_for_the_backward_pass(item, backend):
    """Both arrays made by the backend and arrays made by NumPy in an expression count. No layer
    keeps a negative number of bytes."""
    net = around(item)
    net.to(xn.Backend() if backend == "base" else backend)
    report = net.memory_report(40)
    assert all(row.kept >= 0 for row in report.rows)
    assert sum(row.kept for row in report.rows) == report.activations
    assert not re.search(r"-\d", str(report))
    x = np.random.default_rng(0).random((3, 40)).astype(np.float32)
    y = net.forward(x, xn.TRAIN)
    found = arrays_in([y, [node.kept for node in net.nodes]])
    others = arrays_in([x, net.parameters, net.state, net.counters])
    assert report.activations == sum(a.nbytes for key, a in found.items() if key not in others)


def test_an_output_that_no_layer_needs_is_not_counted():
    """Max pooling does not need its input in the backward pass, so a dropout before it keeps only
    its mask."""
    net = xn.Sequential([xn.Conv2d(4, 3, padding=1), xn.Dropout(0.5), xn.MaxPool2d(2)],
                        input_shape=(2, 8, 8), backend="numpy")
    report = net.memory_report(100)
    rows, elements = report.rows, 4 * 8 * 8 * 100
    # a mask; the maxima and their argmax
    assert [row.kept for row in rows[1:]] == [elements, elements // 4 * (4 + 1)]
    # input, output and mask exist at the same time
    assert rows[1].forward >= report.fixed + report.batch + (2 * 4 + 1) * elements


def test_a_report_is_printed_as_a_table():
    text = str(branches("numpy").memory_report(1000, xn.SGD(0.1)))
    lines = text.splitlines()
    assert re.fullmatch(r"layer +type +kept +most in forward +most in backward", lines[0])
    assert [line.split()[0] for line in lines[2:-3]] == [
        "stem", "left", "norm", "sum", "mean", "max", "both", "flat", "out"]
    assert re.fullmatch(
        r"parameters [\d.]+ KiB \+ gradients [\d.]+ KiB \+ state [\d.]+ (K?i?B) \+ batch [\d.]+ "
        r"KiB \+ activations [\d.]+ MiB \+ transient [\d.]+ MiB", lines[-2])
    assert re.fullmatch(r"peak of a batch of 1,000 on numpy: [\d.]+ MiB", lines[-1])


def test_small_batches_are_measured_and_large_ones_extrapolated():
    net = branches(xn.Backend())
    exact = memory.Forecast(net, most=100)
    assert exact.samples == (100, 101)
    far, near = memory.Forecast(net), exact.report(100)
    assert far.samples == (256, 512)
    # on the reference backend, what is kept grows linearly
    assert [row.kept for row in far.report(100).rows] == [row.kept for row in near.rows]
    assert far.report(100).peak == pytest.approx(near.peak, rel=0.1)
    assert near.peak == pytest.approx(net.memory_report(100).peak, rel=1e-3)
    growth = net.memory_report(200).activations - near.activations
    assert far.report(1000).activations == near.activations + 9 * growth


def test_large_networks_are_measured_with_few_samples():
    net = MODELS["resnet18"]((3, 64, 64), backend=xn.Backend())
    layers, outputs = net.layers, sum(np.prod(node.shape) for node in net.nodes) * 4
    seen: list[int] = []

    def trace(net, N, mode):
        seen.append(N)
        return np.zeros((1 + 2 * len(net.layers), 3))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_trace", trace)
        memory.Forecast(net)
        work = 3 * sum(layer.multiply_adds() for layer in layers)
        assert (seen[1] == 2 * seen[0]
                and sum(seen) * work <= memory.PROBE_WORK < 2 * sum(seen) * work)
        memory.Forecast(net, room=5 * outputs)
        assert seen[2:] == [2, 4]


def test_a_forward_pass_alone_needs_less():
    net = branches("numpy")
    training, prediction = net.memory_report(1000), memory.memory_report(net, 1000, mode=xn.PREDICT)
    assert prediction.peak < 0.9 * training.peak
    assert all(row.backward == 0 for row in prediction.rows)


def attention(backend: Any) -> xn.Sequential:
    return xn.Sequential([xn.MultiHeadAttention(2, mask="causal"), xn.GlobalAvgPool1d()],
                         input_shape=(4, 16), backend=backend)


@pytest.mark.parametrize("make", first([network, attention], network))
def test_an_emulated_gpu_needs_what_the_report_says(make, folder, monkeypatch):
    """Also with temporaries of CuPy."""
    with pretended(folder) as (backend, gpus):
        net, most = make(backend), [0]
        optimizer, N = xn.Adam(), 1000
        report = net.memory_report(N, optimizer)
        allocated = fake_memory.Memory.__init__

        def watched(self: Any, *args: Any) -> None:
            allocated(self, *args)
            most[0] = max(most[0], gpus.used)

        monkeypatch.setattr(fake_memory.Memory, "__init__", watched)
        slots, target = report.optimizer, backend.asarray(np.zeros(N, np.int64))
        before = gpus.used
        trained_on(net, N, optimizer, xn.CrossEntropy(), target)
        assert report.peak - report.fixed == pytest.approx(most[0] - before - slots, rel=0.1)


# --- a report changes nothing ---------------------------------------------------------------------

class Stubborn(xn.Layer):
    """Fails in its backward pass."""

    kind = "stubborn"

    def build(self, in_shape):
        return in_shape

    def forward(self, x, mode="predict"):
        return x

    def backward(self, dy, accumulate=False):
        raise RuntimeError("stubborn")


def attributes(net: xn.Network) -> list[dict[str, Any]]:
    return [dict(vars(thing)) for layer in net.layers
            for thing in (layer, *layer.parameters, *layer.states)]


@pytest.mark.parametrize("backend", CPU)
def test_a_report_changes_nothing(backend):
    net, rng = branches(backend, "float32"), np.random.default_rng(0)
    x, dy = (rng.standard_normal((2, 6, 6, 5)).astype(np.float32),
             rng.standard_normal((5, 5)).astype(np.float32))
    net.forward(x, xn.TRAIN)
    net.grads[...] = 7
    before = attributes(net)
    with untouched(net):
        net.memory_report(30, xn.Adam())
    assert (net.grads == 7).all()
    for now, then in zip(attributes(net), before):
        assert now.keys() == then.keys() and all(now[name] is then[name] for name in now)
    net.backward(dy)  # with the values kept by the forward pass before the report
    twin = branches(backend, "float32")
    twin.grads[...] = 7  # also in the gaps between the parameters
    twin.forward(x, xn.TRAIN)
    twin.backward(dy)
    np.testing.assert_array_equal(net.grads, twin.grads)


def test_a_layer_that_fails_does_not_change_the_network():
    net = xn.Sequential([xn.Linear(3), Stubborn(name="s")], input_shape=(2,), backend="numpy")
    before = attributes(net)
    with untouched(net), pytest.raises(RuntimeError, match="stubborn"):
        net.memory_report(4)
    assert all(now.keys() == then.keys() and all(now[name] is then[name] for name in now)
               for now, then in zip(attributes(net), before))


@pytest.mark.parametrize("arguments,message", [
    ((0,), "memory_report: expected batch_size to be an int, 1 or larger. Received: batch_size=0."),
    ((True,), "Received: batch_size=True."), ((2.0,), "Received: batch_size=2.0."),
    ((4, "adan"), "memory_report: expected an Optimizer, e.g. Adam(1e-3), or one of ")])
def test_refusals(arguments, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        branches("numpy").memory_report(*arguments)
