"""How samples reach a GPU that is pretended: uploaded once where they fit, else through a ring of
pinned memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_streams import Event, Stream
from gpu_cases import LATE, learned, network, pretended, samples
from nets import same
from parity import same_bits
from tiers import first, full

import xpnet as xn
from benchmarks.gpu import fits
from xpnet.backends import Backend
from xpnet.backends.cupy import uploads
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.batches import SLOTS, DeviceFeed, HostFeed, native
from xpnet.training.batches import Batches

QUIET: dict[str, Any] = {"loss": "cross_entropy", "verbose": False}
# bytes of memory: the 600 pictures of 64 bytes do not fit into a quarter, the labels do
LITTLE = 120_000

# Which streams work only when they must: all orders in which a GPU may do the work are allowed.
ORDERS: dict[str, Callable[[CupyBackend], Callable[[Stream], bool]]] = {
    "at once": lambda backend: LATE["at once"],
    "late": lambda backend: LATE["late"],
    "late copies": lambda backend: lambda stream: stream is backend._lane.copies,
    "late steps": lambda backend: lambda stream: stream is backend._lane.compute,
}


def many() -> tuple[np.ndarray, np.ndarray]:
    x, y = samples(600)
    return x / np.float32(255), y


# --- fit, evaluate, predict -----------------------------------------------------------------------

def trained(folder: Path, memory: int, order: str) -> tuple[Any, ...]:
    x, y = many()
    with pretended(folder, memory=memory) as (backend, gpus):
        gpus.late = ORDERS[order](backend)
        net = network(backend)
        fits = isinstance(backend.feed(x, np.float32, 8), DeviceFeed)
        history = net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=2, batch_size=35,
                          validation=(x[:60], y[:60]))
        figures = [history["loss"], history["val_loss"], net.evaluate(x, y, batch_size=50)]
        return (fits, learned(net) | {"predicted": net.predict(x, batch_size=50)}, figures,
                gpus.graphs)


@pytest.fixture(scope="module")
def trained_from_memory(folder: Path) -> tuple[Any, ...]:
    return trained(folder, 1 << 30, "at once")


@pytest.mark.parametrize("order", first(ORDERS, "late copies"))
def test_samples_that_do_not_fit_train_the_same(order: str, folder: Path,
                                                trained_from_memory: tuple[Any, ...]):
    fits, values, figures, graphs = trained_from_memory
    here, values_too, figures_too, graphs_too = trained(folder, LITTLE, order)
    assert fits and not here and graphs == graphs_too == 3      # step, evaluation, prediction
    assert same(values_too, values) and figures_too == figures


def test_samples_are_uploaded_once_and_as_they_are(folder: Path):
    """Bytes travel as bytes; after that only the order of each epoch does."""
    x, y = samples(400)
    shipped = []
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        for epochs in (1, 4):
            before = gpus.shipped
            net.fit(x, y, **QUIET, optimizer=xn.SGD(0.01), epochs=epochs, batch_size=50)
            shipped.append(gpus.shipped - before)
    orders = 2 * 8 * len(x)             # of pictures and labels, int64
    assert shipped == [x.nbytes + y.nbytes + orders, x.nbytes + y.nbytes + 4 * orders]


@pytest.mark.parametrize("optimizer, memory, launches", [
    pytest.param("sgd", 1 << 30, 1, marks=full),    # the graph
    ("adam", 1 << 30, 2),               # the bias corrections change in each step
    ("sgd", LITTLE, 3),                 # wait for the copy, gather the images, the graph
])
def test_the_launches_of_a_captured_step(optimizer: str, memory: int, launches: int,
                                         folder: Path):
    with pretended(folder, memory=memory) as (backend, gpus):
        net, counts = network(backend), []
        x, y = many()
        for steps in (10, 30):
            before = backend._lane.compute.launched
            feed = backend.feed(x, np.float32, 8)
            assert isinstance(feed, HostFeed if memory == LITTLE else DeviceFeed)
            del feed
            # each fit has three steps before its graph
            net.fit(x, y, **QUIET, optimizer=optimizer, batch_size=600 // steps)
            counts.append(backend._lane.compute.launched - before)
        assert counts[1] - counts[0] == launches * 20


@pytest.mark.parametrize("late", ["at once", "late"])
@pytest.mark.parametrize("kind", first([np.uint8, np.int16, np.float64], np.uint8))
def test_what_happens_between_captured_steps(kind: Any, late: str, folder: Path):
    """The step is released, one fails, others are made by hand: a batch is never repeated or left
    out. There is no kernel for samples of int16."""
    x, y = samples(83)
    x = x.astype(kind)

    class Between(xn.Callback):
        def on_batch_begin(self, run: Any) -> None:
            if run.batch == 6:
                run.step.release()
            if run.batch in (4, 5, 9):
                other = xn.TrainStep(run.net, xn.CrossEntropy(), xn.SGD(0.0), capture=False)
                other(run.net.batch_last(x[:8]), run.net.backend.asarray(y[:8]))

    results = []
    for capture in (False, True):
        with pretended(folder, LATE[late if capture else "at once"]) as (backend, gpus):
            net = network(backend)
            history = net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=3, batch_size=8,
                              callbacks=[Between()], capture=capture)
            results.append((learned(net), history["loss"]))
            assert gpus.graphs == 4 * capture
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]


def test_the_position_is_set_again_after_a_step_that_failed(folder: Path):
    x, y = samples(40)
    with pretended(folder) as (backend, _):
        net = network(backend)
        step, data = xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.1)), Batches(net, [x, y], 8)
        with backend.stream():
            data.arrange(np.arange(40)[::-1])
            for number in (0, 1, 2, 3):
                step.train(data[number])
            assert data.reached == 32
            run = step._captured[step._last].run
            step._captured[step._last].run = lambda: 1 / 0
            with pytest.raises(ZeroDivisionError):
                step.train(data[1])
            assert data.reached == -1
            step._captured[step._last].run = run
            for number in (4, 2, 3):
                step.train(data[number])
                assert data.reached == 8 * number + 8
                expected = np.moveaxis(x[::-1][8 * number:8 * number + 8], 0, -1)
                places = step._captured[step._last].places
                assert np.array_equal(backend.to_numpy(places[0]), expected)


def test_a_position_that_stands_still_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A mistake on purpose: each captured step of an epoch gets the same batch."""
    x, y = samples(80)
    losses, advance = [], CupyBackend.advance
    for right in (True, False):
        with pretended(folder) as (backend, _):
            if not right:
                monkeypatch.setattr(CupyBackend, "advance",
                                    lambda self, steps, *_: advance(self, steps))
            net = network(backend)
            history = net.fit(x, y, **QUIET, optimizer=xn.SGD(0.1), batch_size=8)
            losses.append(history["loss"])
    assert losses[0] != losses[1]


def test_bytes_and_a_rescaling_layer_are_the_pictures_as_floats(folder: Path, backend: Backend):
    def trained(where: Any, x: np.ndarray, *first: xn.Layer
                ) -> tuple[dict[str, np.ndarray], list[float], np.ndarray]:
        net = xn.Sequential([*first, xn.Flatten(name="f"),
                             xn.Linear(8, activation="tanh", name="a"), xn.Linear(4, name="b")],
                            input_shape=(1, 4, 4), backend=where)
        history = net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=2, batch_size=16,
                          validation=(x, y))
        return learned(net), history["val_loss"], net.predict(x)

    x, y = samples(70)
    floats = x / np.float32(255)

    def check(where: Any) -> None:
        as_bytes, as_floats = trained(where, x, xn.Rescale(std=255)), trained(where, floats)
        assert same(as_bytes[0], as_floats[0]) and as_bytes[1] == as_floats[1]
        assert np.array_equal(as_bytes[2], as_floats[2])

    check(backend)                      # perhaps of a real GPU, so not while one is emulated
    with pretended(folder) as (gpu, _):
        check(gpu)


# --- the ring -------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda a: a, "uint8": lambda a: a.astype(np.uint8), "bool": lambda a: a > 5,
    "int64": lambda a: a.astype(np.int64),
    "float16": lambda a: a.astype(np.float16), "big-endian": lambda a: a.astype(">f4"),
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2],
    "transposed": lambda a: a.transpose(0, 2, 1)}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_samples_comes_through_the_ring(form: str, order: str, folder: Path):
    a = FORMS[form](np.random.default_rng(0).integers(0, 9, (50, 3, 7)).astype(np.float32))
    with pretended(folder) as (backend, gpus):
        gpus.late = ORDERS[order](backend)
        with backend.stream():
            feed = HostFeed(backend, a, np.float32, 8)
            there, right = (each.feed(a, np.float32, 8) for each in (backend, Backend()))
            assert isinstance(there, DeviceFeed)
            batches = []
            for _ in range(2):
                for start in range(0, 50, 8):
                    stop = min(start + 8, 50)
                    out = backend.empty((*a.shape[1:], stop - start), np.float32)
                    batches.append((feed.batch(start, stop), feed.batch(start, stop, out),
                                    there.batch(start, stop), right.batch(start, stop)))
                for each in (feed, there, right):
                    each.arrange(np.random.default_rng(1).permutation(50))
            for *found, expected in batches:
                assert all(same_bits(backend.to_numpy(batch), expected) for batch in found)


def test_a_ring_is_small(folder: Path):
    """It holds a few batches, however many samples there are, and the host does not wait before it
    is full."""
    with pretended(folder, LATE["late"]) as (backend, gpus):
        a = np.zeros((10_000, 64), np.float32)
        with backend.stream():
            before = gpus.used
            feed = HostFeed(backend, a, np.float32, 16)
            assert gpus.used - before == SLOTS * 16 * 64 * 4
            for k in range(SLOTS):
                feed.batch(16 * k, 16 * k + 16)
            assert backend._lane.copies.ended == 0
            feed.batch(0, 16)
            assert backend._lane.copies.ended > 0


MISSING: dict[str, tuple[str, Any, str, Callable[[CupyBackend, Any], bool]]] = {
    "a batch is read before it came": ("late copies", Stream, "wait_event", lambda backend,
                                       who: who is backend._lane.compute),
    "a batch comes before the last one was read": ("late steps", Stream, "wait_event",
                                                   lambda backend,
                                                   who: who is backend._lane.copies),
    "the host fills memory that is being copied": ("late", Event, "synchronize", lambda backend,
                                                   who: True),
}


@pytest.mark.parametrize("mistake", MISSING)
def test_a_missing_event_is_noticed(mistake: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The ring's events, taken away one by one: with streams that are late each of them is
    missed."""
    order, kind, method, forgets = MISSING[mistake]
    a = np.arange(200, dtype=np.float32).reshape(40, 5)
    with pretended(folder) as (backend, gpus):
        original = getattr(kind, method)
        with backend.stream():
            feed = HostFeed(backend, a, np.float32, 4)
            backend.synchronize()
            gpus.late = ORDERS[order](backend)
            monkeypatch.setattr(kind, method, lambda self, *args: None if forgets(backend, self)
                                else original(self, *args))
            batches = [feed.batch(k, k + 4) for k in range(0, 40, 4)]
            found = [backend.to_numpy(batch) for batch in batches]
    assert not all(np.array_equal(batch, a[4 * k:4 * k + 4].T) for k, batch in enumerate(found))


# --- numbers -------------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [0, 1, 8, 9, 20])
def test_values_of_one_launch_and_of_several(count: int, folder: Path):
    with pretended(folder) as (backend, _):
        out = backend.zeros((count + 1,), np.float64)
        backend.assign(out, range(1, count + 1))
        assert backend.to_numpy(out).tolist() == [*range(1, count + 1), 0]


# --- uploads --------------------------------------------------------------------------------------

LARGE: dict[str, np.ndarray] = {
    "elements": np.arange(1001, dtype=np.float32), "bytes": np.arange(3001).astype(np.uint8),
    "rows": np.arange(3000.0).reshape(100, 30), "one long row": np.arange(3000.0).reshape(1, 3000),
    "every second row": np.arange(6000.0).reshape(200, 30)[::2],
    "every second of a long row": np.arange(6000.0).reshape(2, 3000)[:, ::2],
    "transposed": np.arange(3000).reshape(30, 100).T, "flags": np.arange(2000) % 3 == 0,
    "big-endian": np.arange(1001).astype(">i4"), "not larger": np.arange(125.0),
}


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("name", LARGE)
def test_large_arrays_are_uploaded_in_pieces(name: str, late: str, folder: Path,
                                             monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "PIECE", 1000)
    with pretended(folder, LATE[late]) as (backend, gpus):
        a = LARGE[name]
        pinned: list[int] = []
        allocate = backend.xp.cuda.alloc_pinned_memory
        monkeypatch.setattr(backend.xp.cuda, "alloc_pinned_memory",
                            lambda size: pinned.append(size) or allocate(size))
        for stream in (backend.stream, backend.scope):
            with stream():
                there = [backend.asarray(a), backend.asarray(a + a), backend.asarray(a, np.float64)]
                found = [backend.to_numpy(b) for b in there]
            assert same_bits(found[0], native(a)) and same_bits(found[1], native(a + a))
            assert same_bits(found[2], a.astype(np.float64))
        assert pinned == [1000, 1000] * (name != "not larger")


@pytest.mark.parametrize("mistake", [False, True])
def test_a_piece_that_is_filled_before_its_copy_has_ended_is_noticed(
        mistake: bool, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "PIECE", 1000)
    a = np.arange(5000.0)
    with pretended(folder, LATE["late"]) as (backend, _), backend.stream():
        if mistake:
            monkeypatch.setattr(Event, "synchronize", lambda self: None)
        assert np.array_equal(backend.to_numpy(backend.asarray(a)), a) != mistake


def test_the_benchmark_of_whole_fits(folder: Path, capsys: pytest.CaptureFixture[str]):
    """With samples on the GPU and on the host, and with the same bits captured and eager."""
    cells = [("numpy_cnn", (1, 10, 10), 4, 5)]
    with pretended(folder) as (gpu, _):
        fits.travelling(gpu, cells, epochs=1)
        assert fits.captured(gpu, cells)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "numpy_cnn 4, samples on the GPU", "numpy_cnn 4, samples on the host",
        "numpy_cnn 4, captured", "numpy_cnn 4, eager", "numpy_cnn 4, captured"]
