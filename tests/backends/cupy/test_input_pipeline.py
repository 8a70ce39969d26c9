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
from tiers import first

import xpnet as xn
from xpnet.backends import Backend
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.batches import SLOTS, DeviceFeed, HostFeed

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


@pytest.mark.parametrize("order", first(ORDERS, "late copies", "late steps"))
def test_samples_that_do_not_fit_train_the_same(order: str, folder: Path,
                                                trained_from_memory: tuple[Any, ...]):
    fits, values, figures, graphs = trained_from_memory
    here, values_too, figures_too, graphs_too = trained(folder, LITTLE, order)
    assert fits and not here and graphs == graphs_too == 1
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


def test_a_captured_step_is_four_launches(folder: Path):
    """Pictures, labels, the optimizer's numbers, the graph."""
    with pretended(folder) as (backend, gpus):
        net, counts = network(backend), []
        for steps in (10, 30):
            before = backend._lane.compute.launched
            net.fit(*samples(8 * steps), **QUIET, optimizer=xn.Adam(1e-2), batch_size=8)
            counts.append(backend._lane.compute.launched - before)
        assert counts[1] - counts[0] == 4 * 20


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
    with pretended(folder) as (gpu, _):
        for where in (gpu, backend):
            as_bytes, as_floats = trained(where, x, xn.Rescale(std=255)), trained(where, floats)
            assert same(as_bytes[0], as_floats[0]) and as_bytes[1] == as_floats[1]
            assert np.array_equal(as_bytes[2], as_floats[2])


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
