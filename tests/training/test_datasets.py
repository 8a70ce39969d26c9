"""Training, evaluation and prediction with a Dataset: scaled, augmented, read ahead."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from fake_cupy import FakeCupy, installed
from processes import run_script

import xpnet as xn
from xpnet.augment.draws import Draws
from xpnet.data import Dataset
from xpnet.training.batches import Batches
from xpnet.training.datasets import MixedTargets
from xpnet.training.goals import goals

rng = np.random.default_rng(0)
IMAGES, LABELS = rng.integers(0, 256, (22, 3, 6, 5)).astype(np.uint8), rng.integers(0, 4, 22)
IMAGES.flags.writeable = LABELS.flags.writeable = False
SCALED = IMAGES.astype(np.float32) / np.float32(255)
QUIET = {"loss": "cross_entropy", "verbose": False}         # the loss is the default, too


def a_network(backend: str = "numpy") -> xn.Sequential:
    return xn.Sequential([xn.Conv2d(4, 3), xn.ReLU(), xn.Flatten(), xn.Dropout(0.2), xn.Linear(4)],
                         input_shape=(3, 6, 5), backend=backend, seed=2)


def bits(history: xn.History, net: xn.Network) -> tuple:
    return net.parameters.tobytes(), [repr(history[name]) for name in ("loss", "accuracy",
                                                                       "val_loss")]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_data_set_gives_the_bits_of_its_arrays(backend):
    data = Dataset(IMAGES, LABELS, validation=Dataset(IMAGES[:7], LABELS[:7], classes=list("0123")),
                   classes=list("0123"))
    of_data, of_arrays = a_network(backend), a_network(backend)
    one = of_data.fit(data, optimizer="adam", epochs=3, batch_size=5, **QUIET)
    two = of_arrays.fit(SCALED, LABELS, optimizer="adam", epochs=3, batch_size=5,
                        validation=(SCALED[:7], LABELS[:7]), **QUIET)
    assert bits(one, of_data) == bits(two, of_arrays)
    assert of_data.evaluate(data) == of_arrays.evaluate(SCALED, LABELS)
    assert np.array_equal(of_data.predict(data), of_arrays.predict(SCALED))
    assert np.array_equal(of_data.predict_proba(data), of_arrays.predict_proba(SCALED))
    assert of_data.evaluate(data, metrics={"n": lambda y, target: len(target)})["n"] == 22


def test_validation_by_a_data_set_and_by_arrays():
    data, held_out = Dataset(IMAGES, LABELS), Dataset(IMAGES[:7], LABELS[:7])
    found = [bits(net.fit(data, optimizer="sgd", validation=validation, **QUIET), net)
             for validation in (held_out, (SCALED[:7], LABELS[:7])) for net in [a_network()]]
    assert found[0] == found[1]


def test_the_loss_of_labels():
    data, nets = Dataset(IMAGES, LABELS), [a_network(), a_network()]
    nets[0].fit(data, verbose=False)
    nets[1].fit(data, loss="cross_entropy", verbose=False)
    assert nets[0].parameters.tobytes() == nets[1].parameters.tobytes()
    with pytest.raises(ValueError, match="a Loss or one of"):
        nets[0].fit(SCALED, LABELS, verbose=False)


def test_numbers_as_targets_without_a_scale():
    x, y = SCALED.reshape(22, -1), SCALED.mean((1, 2, 3))[:, None]
    nets = [xn.Sequential([xn.Linear(1)], input_shape=(90,), backend="numpy") for _ in range(2)]
    nets[0].fit(Dataset(x, y), optimizer="sgd", loss="mean_squared_error", verbose=False)
    nets[1].fit(x, y, optimizer="sgd", loss="mean_squared_error", verbose=False)
    assert nets[0].parameters.tobytes() == nets[1].parameters.tobytes()


# --- augmentation ---------------------------------------------------------------------------------

AUGMENT = [xn.RandomCrop(2), xn.RandomFlip(), xn.ColorJitter(0.2)]


def first_batches(net, data, augment, size=6, loss="cross_entropy"):
    """The batches of an epoch in a fixed order, as (x, target), and the order."""
    from xpnet.training.datasets import checked_dataset
    aims = goals(net, loss, None, "fit")
    batches = Batches(net, checked_dataset(net, data, aims, "fit", augment), size)
    order = np.random.default_rng(3).permutation(len(data))
    batches.arrange(order)
    return [batches.get(number) for number in range(len(batches))], order


@pytest.mark.parametrize("size", [1, 6, 22])
def test_images_are_scaled_then_augmented_by_their_numbers(size):
    net = a_network()
    net.epochs = 5
    found, order = first_batches(net, Dataset(IMAGES, LABELS), AUGMENT, size)
    x = np.concatenate([x for x, _ in found], axis=-1)
    right = xn.augmented(np, np.moveaxis(SCALED[order], 0, -1), AUGMENT, seed=2, epoch=5,
                         samples=order)
    assert np.array_equal(x, right)
    assert np.array_equal(np.concatenate([y for _, y in found]), LABELS[order])


@pytest.mark.parametrize("mixing", [xn.MixUp(0.4), xn.CutMix()])
def test_targets_are_mixed_as_the_images_are(mixing):
    net = a_network()
    found, order = first_batches(net, Dataset(IMAGES, LABELS), [xn.RandomFlip(), mixing])
    x, target = (np.concatenate(parts, axis=-1) for parts in zip(*found))
    draws = Draws(2, 0, order, 1)
    partners = mixing.partners(draws, 22)
    flipped = [xn.augmented(np, np.moveaxis(SCALED[where], 0, -1), [xn.RandomFlip()], seed=2,
                            samples=where) for where in (order, partners)]
    right, share = mixing.mix(np, *flipped, draws)
    assert np.array_equal(x, right)
    one_hot = np.eye(4)[:, LABELS]
    expected = share * one_hot[:, order] + (1 - share) * one_hot[:, partners]
    assert target.dtype == np.float32 and np.abs(target - expected).max() < 1e-6
    assert np.abs(target.sum(axis=0) - 1).max() < 1e-6


def test_the_fingerprint_of_mixed_labels_is_that_of_labels_at_the_end_too():
    """A resumed training compares it."""
    changed = LABELS.copy()
    changed[-1] = (changed[-1] + 1) % 4
    one, same, other = (MixedTargets(labels, 4, np.float32).fingerprint()
                        for labels in (LABELS, LABELS.copy(), changed))
    assert one == same != other


@pytest.mark.parametrize("mixing", [[], [xn.MixUp()]])
def test_augmented_training(mixing):
    """It learns, the same with every run, and otherwise than without augmentation."""
    bright = (IMAGES // 4 + 60 * LABELS[:, None, None, None]).astype(np.uint8)
    data, runs = Dataset(bright, LABELS), []
    for augment in (AUGMENT + mixing, AUGMENT + mixing, []):
        net = a_network()
        history = net.fit(data, optimizer=xn.Adam(0.01), epochs=30, batch_size=8, augment=augment,
                          class_weight="balanced", **QUIET)
        runs.append((net.parameters.tobytes(), history["loss"]))
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][1][-1] < 0.9 * runs[0][1][0]


def test_on_an_emulated_gpu(folder):
    data = Dataset(IMAGES, LABELS, validation=Dataset(IMAGES, LABELS))
    nets = [a_network()]
    figures = [nets[0].fit(data, optimizer="sgd", epochs=2, batch_size=4, augment=AUGMENT
                           + [xn.MixUp()], **QUIET)["val_loss"]]
    with installed(FakeCupy(folder)):
        nets.append(a_network("cupy"))
        figures.append(nets[1].fit(data, optimizer="sgd", epochs=2, batch_size=4, augment=AUGMENT
                                   + [xn.MixUp()], **QUIET)["val_loss"])
    np.testing.assert_allclose(*figures, rtol=1e-3)


# --- one's own source, and what can go wrong ------------------------------------------------------

class Own:
    """Samples that are made when they are read; number 13 is damaged."""

    def __init__(self, damaged: bool = False) -> None:
        self.damaged, self.threads = damaged, set()

    def __len__(self):
        return 22

    def __getitem__(self, indices):
        self.threads.add(threading.current_thread().name)
        if self.damaged and 13 in np.arange(22)[indices]:
            raise OSError("a bad sector")
        return IMAGES[indices]


def test_a_source_of_ones_own_is_read_ahead():
    own = Own()
    net, other = a_network(), a_network()
    net.fit(Dataset(own, LABELS), optimizer="sgd", epochs=2, batch_size=4, **QUIET)
    other.fit(Dataset(IMAGES, LABELS), optimizer="sgd", epochs=2, batch_size=4, **QUIET)
    assert net.parameters.tobytes() == other.parameters.tobytes()
    assert own.threads == {threading.current_thread().name, "xpnet-reader"}


def test_arrays_in_memory_are_gathered_in_the_graph(folder):
    """On a GPU, a step of a data set whose samples are an array is one launch, as with arrays."""
    data = Dataset(IMAGES, LABELS)
    with installed(FakeCupy(folder)) as cupy:
        net = a_network("cupy")
        net.fit(data, optimizer="sgd", epochs=9, batch_size=11, **QUIET)
        other = a_network("cupy")
        other.fit(SCALED, LABELS, optimizer="sgd", epochs=9, batch_size=11, **QUIET)
        assert net.backend.to_numpy(net.parameters).tobytes() == net.backend.to_numpy(
            other.parameters).tobytes()
        assert cupy.gpus.graphs == 2
    subset = data.subset(np.arange(22))
    assert subset.array is None and data.array is not None


def test_the_error_of_a_source_names_the_samples():
    own = Own()
    data = Dataset(own, LABELS)
    own.damaged = True
    with pytest.raises(RuntimeError, match=r"^fit: expected samples that can be read\. Received: "
                                           r"OSError for sample 13 \(a bad sector\)\.$"):
        a_network().fit(data, optimizer="sgd", batch_size=4, **QUIET)
    with pytest.raises(RuntimeError, match="predict: expected samples that can be read"):
        a_network().predict(data, batch_size=4)


class Changing(xn.Augmentation):
    """An augmentation that fails, for one sample or for all, or returns no images."""

    def __init__(self, what: str) -> None:
        self.what = what

    def change(self, xp, x, draws):
        if self.what == "one" and 13 in draws.samples or self.what == "several" and len(draws) > 1:
            raise ZeroDivisionError("by me")
        return {"none": None, "dtype": x.astype(np.float64), "fewer": x[..., :-1],
                "cropped": x[:, 1:], "flat": x.reshape(-1)}.get(self.what, x)


@pytest.mark.parametrize("what, message", [
    ("one", r"expected augmentations .*Received: ZeroDivisionError for sample 13 \(by me\)\.$"),
    ("several", r"Received: ZeroDivisionError for samples \d+, \d+, \d+, \d+ \(by me\)\.$"),
    ("none", r"for sample \d+ \(Changing: expected change to return images \(C, H, W, 4\) of "
             r"float32\. Received: None\.\)"),
    ("dtype", r"Changing: expected change to return .* dtype float64"),
    ("fewer", r"Changing: expected change to return .* shape \(3, 6, 5, 3\)"),
    ("flat", r"Changing: expected change to return .* shape \(360,\)"),
    ("cropped", r"expected augmented images of the shape of the others, \(3, 6, 5\)\. Received: "
                r"\(3, 5, 5\)"),
])
def test_the_error_of_an_augmentation_names_the_sample(what, message):
    with pytest.raises((RuntimeError, ValueError), match=f"^fit: .*{message}"):
        a_network().fit(Dataset(IMAGES, LABELS), batch_size=4, **QUIET,
                        augment=[xn.RandomFlip(), Changing(what)])


def test_a_source_without_memory():
    """The error says which batch would fit, as for every MemoryError."""
    class Large(Own):
        def __getitem__(self, indices):
            if np.size(indices) > 2:
                raise MemoryError("no memory")
            return IMAGES[indices]

    own = Large()
    with pytest.raises(xn.OutOfMemory):
        a_network().fit(Dataset(own, LABELS), batch_size=4, **QUIET)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_the_thread_is_raised_in_fit(error):
    class Raising(Own):
        def __getitem__(self, indices):
            if threading.current_thread().name == "xpnet-reader":
                raise error("in the thread")
            return IMAGES[indices]

    with pytest.raises(RuntimeError if issubclass(error, Exception) else error,
                       match="in the thread"):
        a_network().fit(Dataset(Raising(), LABELS), batch_size=4, **QUIET)


# --- the thread that reads ------------------------------------------------------------------------

def test_no_thread_is_left():
    a_network().fit(Dataset(Own(), LABELS), optimizer="sgd", batch_size=4, **QUIET)
    assert "xpnet-reader" not in [thread.name for thread in threading.enumerate()]


STARTS = """
import random, signal, sys, threading, time
import numpy as np
import xpnet as xn
from xpnet.training.batches import Batches
from xpnet.training.datasets import Samples

chance, images = random.Random(1), np.zeros((40, 3, 6, 5), np.uint8)

class Source:
    fails = 2.0
    def __len__(self):
        return 40
    def __getitem__(self, indices):
        time.sleep(chance.choice([0, 0, 1e-4, 1e-3]))
        if chance.random() < self.fails:
            raise chance.choice([OSError, SystemExit, KeyboardInterrupt])("at random")
        return images[indices]

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
source = Source()
source.fails = 0.0
net = xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(3, 6, 5), backend="numpy")
data = xn.data.Dataset(source)
ends, longest = {}, 0.0
for number in range(int(sys.argv[1])):
    source.fails = chance.choice([0.0, 0.0, 0.2])
    start = time.perf_counter()
    try:
        try:
            if number % 2:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-4, 8e-3))
            batches = Batches(net, [Samples(net, data, [xn.RandomFlip()])], 4)
            batches.arrange(np.arange(40))
            for k in range(chance.choice([1, 3, 10])):
                batches.get(k)
            end = "closed"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            batches = None
    except (KeyboardInterrupt, SystemExit, RuntimeError) as error:
        end = type(error).__name__
    ends[end] = ends.get(end, 0) + 1
    longest = max(longest, time.perf_counter() - start)
end = time.monotonic() + 60
# A thread whose start was interrupted is listed, too, but not alive.
while any(thread.name == "xpnet-reader" and thread.is_alive() for thread in threading.enumerate()):
    assert time.monotonic() < end
    time.sleep(0.01)
# which of them come depends on moments of time
assert ends.keys() <= {"closed", "KeyboardInterrupt", "SystemExit", "RuntimeError"}, ends
assert len(ends) > 1, ends
print(sum(ends.values()), ends, f"longest {longest:.3f} s", file=sys.stderr)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals")
def test_reading_begins_and_ends_many_times(everything):
    """With errors in the source and interrupts at random moments: nothing hangs."""
    most = 1000 if everything else 100
    printed = run_script(f"import sys; sys.argv[1:] = ['{most}']\n" + STARTS)
    assert printed.splitlines()[-1].startswith(f"{most} ")


SLOW = """
import os, signal, sys, threading, time
import numpy as np
import xpnet as xn

class Slow:
    def __len__(self):
        return 12
    def __getitem__(self, indices):
        if threading.current_thread().name == "xpnet-reader":
            for _ in range(2):          # while fit waits for this batch
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1000)
        return np.zeros((len(indices), 3, 4, 4), np.uint8)

net = xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(3, 4, 4), backend="numpy")
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    net.fit(xn.data.Dataset(Slow(), np.arange(12) % 2), batch_size=4, verbose=False)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot interrupt a thread that waits")
def test_a_program_ends_although_a_sample_is_being_read():
    """The read takes 1,000 s, the test a second."""
    assert run_script(SLOW, timeout=100) == "interrupted\n"


@pytest.mark.parametrize("arguments, message", [
    ({"y": LABELS}, "expected no y with a data set"),
    ({"augment": ["flip"]}, "expected augmentations"),
    ({"augment": [xn.MixUp(), xn.RandomFlip()]}, "at most one augmentation that mixes"),
    ({"augment": [xn.MixUp(), xn.CutMix()]}, "at most one augmentation that mixes"),
        ({"validation": "some"}, "expected validation to be a pair"),
])
def test_refusals(arguments, message):
    with pytest.raises((ValueError, TypeError), match=f"fit: .*{message}"):
        a_network().fit(Dataset(IMAGES, LABELS), **{"optimizer": "sgd", **QUIET, **arguments})


def test_other_refusals():
    net = a_network()
    with pytest.raises(ValueError, match="fit: expected a data set to augment"):
        net.fit(SCALED, LABELS, optimizer="sgd", augment=[xn.RandomFlip()], **QUIET)
    with pytest.raises(ValueError, match=r"fit: expected samples of shape \(3, 6, 5\)"):
        net.fit(Dataset(IMAGES[:, :1], LABELS), optimizer="sgd", **QUIET)
    with pytest.raises(ValueError, match="evaluate: expected a data set with labels or targets"):
        net.evaluate(Dataset(IMAGES), loss="cross_entropy")
    flat = xn.Sequential([xn.Linear(4)], input_shape=(90,), backend="numpy")
    with pytest.raises(ValueError, match="fit: expected images"):
        flat.fit(Dataset(IMAGES.reshape(22, -1), LABELS), optimizer="sgd",
                 augment=[xn.RandomFlip()], **QUIET)
