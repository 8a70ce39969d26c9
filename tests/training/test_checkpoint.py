"""A training that is cut off at any moment continues from its checkpoints to the same bits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiers import first
from trainings import HELD, X, Y, a_network, bits, options

import xpnet as xn
from xpnet.io import files
from xpnet.training.prediction import Evaluation


class Cut(Exception):       # noqa: N818 - what ends the training
    pass


class CutOff(xn.Callback):
    """Ends the training by an error, as a kill would, when `when(run, moment)` says so."""

    def __init__(self, when: Callable[[xn.Run, str], bool] = lambda run, moment: False) -> None:
        self.when = when

    def on_epoch_begin(self, run):
        self._look(run, "epoch begin")

    def on_batch_begin(self, run):
        self._look(run, "batch begin")

    def on_batch_end(self, run):
        self._look(run, "batch end")

    def on_epoch_end(self, run):
        self._look(run, "epoch end")

    def _look(self, run, moment):
        if self.when(run, moment):
            raise Cut


def whole(backend: str = "numpy", **changes) -> tuple:
    net = a_network(backend)
    return bits(net, net.fit(X, Y, callbacks=[CutOff()], **options(**changes)))


def cut_off(folder: Path, when, backend: str = "numpy", every: int | None = 1, **changes) -> None:
    with pytest.raises(Cut):
        a_network(backend).fit(X, Y, callbacks=[CutOff(when)], resume=folder,
                               checkpoint=xn.Checkpoint(folder, steps=every), **options(**changes))


def resumed(folder: Path, backend: str = "numpy", every: int | None = 1, **changes) -> tuple:
    net = a_network(backend)
    history = net.fit(X, Y, callbacks=[CutOff()], resume=folder,
                      checkpoint=xn.Checkpoint(folder, steps=every), **options(**changes))
    return bits(net, history)


# --- the same bits --------------------------------------------------------------------------------

MOMENTS = {
    "before the first batch": (1, 1, "batch begin"), "in the first epoch": (1, 3, "batch begin"),
    "in an epoch": (2, 3, "batch end"), "before the last batch": (2, 6, "batch begin"),
    "after the last batch": (1, 6, "batch end"), "at the end of an epoch": (1, 6, "epoch end"),
    "after an epoch": (2, 0, "epoch begin"), "after all batches": (3, 6, "batch end"),
    "at the end": (3, 6, "epoch end"),
}


@pytest.mark.parametrize("every", first([1, 2, None], 1))
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_cut_training_ends_with_the_same_bits(moment, every, tmp_path):
    epoch, batch, what = MOMENTS[moment]
    cut_off(tmp_path, lambda run, now: (run.epoch, run.batch, now) == (epoch, batch, what),
            every=every)
    assert resumed(tmp_path, every=every) == whole()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("optimizer", ["sgd", "nadam", "rprop"])
def test_backends_and_optimizers(backend, optimizer, tmp_path):
    changes = {"optimizer": optimizer, "backend": backend}
    cut_off(tmp_path, lambda run, now: (run.epoch, run.batch, now) == (2, 4, "batch begin"),
            **changes)
    assert resumed(tmp_path, **changes) == whole(**changes)


# 23 samples are 6 batches; groups of 4 are 4 batches and 2.
OPTIONS = {
    "a share": {"validation": 0.3}, "whole batches": {"drop_last": True},
    "a number of batches": {"epochs": None, "steps": 16}, "groups": {"accumulate": 4},
    "groups, a share, a number of batches": {
        "accumulate": 3, "validation": 0.3, "drop_last": True, "epochs": None, "steps": 11},
}


@pytest.mark.parametrize("moment", first([(2, "batch begin"), (6, "batch end"), (9, "batch begin"),
                                          (11, "batch end")], (6, "batch end")), ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_change_what_an_epoch_is(name, moment, tmp_path):
    """Step 5, the last one that is saved before step 6, is inside a group of batches."""
    cut_off(tmp_path, lambda run, now: (run.steps, now) == moment, **OPTIONS[name])
    assert resumed(tmp_path, **OPTIONS[name]) == whole(**OPTIONS[name])


def test_groups_on_numba(tmp_path):
    changes = {"accumulate": 4, "backend": "numba"}
    cut_off(tmp_path, lambda run, now: (run.epoch, run.batch, now) == (2, 3, "batch begin"),
            **changes)
    assert resumed(tmp_path, **changes) == whole(**changes)


def test_the_last_part_of_an_epoch_is_saved(tmp_path):
    a_network().fit(X, Y, checkpoint=tmp_path, **options(epochs=None, steps=8))
    assert names(tmp_path) == ["step-000000006.safetensors", "step-000000008.safetensors"]


def test_three_cuts_in_one_epoch(tmp_path):
    for batch in (2, 4, 6):
        cut_off(tmp_path, lambda run, now, batch=batch: (run.epoch, run.batch, now)
                == (2, batch, "batch begin"))
    assert resumed(tmp_path) == whole()


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_cut_in_the_validation(epoch, tmp_path, monkeypatch):
    real = Evaluation.run

    def run(self, *arguments):
        if self.net.epochs == epoch:
            raise Cut
        return real(self, *arguments)

    monkeypatch.setattr(Evaluation, "run", run)
    cut_off(tmp_path, lambda run, now: False)
    monkeypatch.undo()
    assert resumed(tmp_path) == whole()


def test_several_outputs(tmp_path):
    def network():
        x = xn.Input((1, 6, 6))
        flat = xn.Flatten()(x)
        outputs = {"digit": xn.Linear(3)(flat), "size": xn.Linear(1)(flat)}
        return xn.Network(x, outputs, backend="numpy", seed=1)

    targets = {"digit": Y, "size": X.mean((1, 2, 3))[:, None]}

    def fit(net, **more):
        losses = {"digit": "cross_entropy", "size": "mean_squared_error"}
        return net.fit(X, targets, loss=losses, optimizer="adam", epochs=2, batch_size=5,
                       verbose=False, **more)

    straight, net = network(), network()
    expected = bits(straight, fit(straight, callbacks=[CutOff()]))
    with pytest.raises(Cut):
        fit(network(), checkpoint=xn.Checkpoint(tmp_path, steps=1), callbacks=[
            CutOff(lambda run, now: (run.epoch, run.batch, now) == (1, 3, "batch begin"))])
    assert bits(net, fit(net, callbacks=[CutOff()], resume=tmp_path)) == expected


@pytest.mark.parametrize("batch, saved, accumulate", [(3, 9, 1), (3, 9, 2), (6, 12, 1)],
                         ids=["middle", "in a group", "last batch"])
def test_ctrl_c_is_saved_after_the_batch(batch, saved, accumulate, tmp_path):
    class Interrupt(xn.Callback):
        def on_batch_end(self, run):
            if (run.epoch, run.batch) == (2, batch):
                run.history.interrupted = True

    net = a_network()
    net.fit(X, Y, callbacks=[Interrupt()], checkpoint=tmp_path, **options(accumulate=accumulate))
    assert sorted(os.listdir(tmp_path))[1:] == ["step-000000006.safetensors",
                                                f"step-{saved:09d}.safetensors"]
    again = a_network()
    history = again.fit(X, Y, callbacks=[type("Interrupt", (xn.Callback,), {})()], resume=tmp_path,
                        **options(accumulate=accumulate))
    assert bits(again, history) == whole(accumulate=accumulate)


@pytest.mark.parametrize("moment", ["validation", "end of the epoch"])
def test_ctrl_c_after_the_last_batch_of_an_epoch(moment, tmp_path, monkeypatch):
    """The validation is finished, and the epoch is saved: no batch is repeated."""
    real, runs = Evaluation.run, []

    class Interrupt(xn.Callback):
        def on_train_begin(self, run):
            runs.append(run)

        def on_epoch_end(self, run):
            if moment == "end of the epoch" and run.epoch == 2:
                run.history.interrupted = True

    def run(self, *arguments):
        found = real(self, *arguments)
        if moment == "validation" and self.net.epochs == 2:
            runs[-1].history.interrupted = True
        return found

    def train(net, **more):
        return net.fit(X, Y, callbacks=[Interrupt(), xn.EarlyStopping("val_loss", patience=9)],
                       **more, **options())

    monkeypatch.setattr(Evaluation, "run", run)
    history = train(a_network(), checkpoint=tmp_path)
    assert history.interrupted and np.isfinite(history["val_loss"]).all()
    assert names(tmp_path) == ["step-000000006.safetensors", "step-000000012.safetensors"]
    monkeypatch.undo()
    moment, again, net = "", a_network(), a_network()
    assert bits(again, train(again, resume=tmp_path)) == bits(net, train(net))


def test_a_callback_keeps_its_state(tmp_path):
    class Counter(xn.Callback):
        def __init__(self):
            self.batches, self.sums = 0, np.zeros(2)

        def on_batch_end(self, run):
            self.batches, self.sums = self.batches + 1, self.sums + [1, run.lr]

        def state(self):
            return {"batches": self.batches, "sums": self.sums}

        def load_state(self, run, state):
            self.batches, self.sums = state["batches"], state["sums"]

    counters = Counter(), Counter()
    with pytest.raises(Cut):
        a_network().fit(X, Y, checkpoint=xn.Checkpoint(tmp_path, steps=2), **options(), callbacks=[
            Counter(), CutOff(lambda run, now: (run.steps, now) == (10, "batch begin"))])
    a_network().fit(X, Y, resume=tmp_path, callbacks=[counters[0], CutOff()], **options())
    a_network().fit(X, Y, callbacks=[counters[1]], **options())
    assert counters[0].batches == counters[1].batches == 18
    assert counters[0].sums.tobytes() == counters[1].sums.tobytes()


@pytest.mark.parametrize("steps", [7, 13, 24])
def test_early_stopping(steps, tmp_path):
    """It stops after the same epoch, and takes the same parameters back."""
    def train(**more):
        net, stopping = a_network(), xn.EarlyStopping("val_loss", patience=1)
        cut = CutOff(lambda run, now: "resume" not in more and more and run.steps == steps)
        try:
            history = net.fit(X, Y, callbacks=[stopping, cut], **more,
                              **options(epochs=9, optimizer=xn.SGD(0.3)))
        except Cut:
            return None
        assert history.stopped and len(history.rows) < 9
        return bits(net, history), stopping.best, stopping.best_epoch, stopping.worse

    assert train(checkpoint=xn.Checkpoint(tmp_path, steps=2)) is None
    assert train(resume=tmp_path) == train()


@pytest.mark.parametrize("augment", [[xn.RandomFlip(), xn.GaussianNoise()], [xn.CutMix()]],
                         ids=repr)
def test_a_data_set_with_augmentation(augment, tmp_path):
    pixels = (50 * (X - X.min())).astype(np.uint8)

    def train(**more):
        net, data = a_network(), xn.data.Dataset(pixels, Y, validation=xn.data.Dataset(pixels, Y))
        cut = CutOff(lambda run, now: "resume" not in more and more and run.steps == 9)
        try:
            return bits(net, net.fit(data, optimizer="adam", loss="cross_entropy", epochs=3,
                                     batch_size=4, augment=augment, callbacks=[cut],
                                     verbose=False, **more))
        except Cut:
            return None

    assert train(checkpoint=xn.Checkpoint(tmp_path, steps=2)) is None
    assert train(resume=tmp_path) == train()
    augment = [xn.RandomFlip()]
    with pytest.raises(ValueError, match="Received: samples"):
        train(resume=tmp_path)


def test_a_training_that_ended_does_not_go_on(tmp_path):
    first = resumed(tmp_path)
    assert first == whole() and resumed(tmp_path) == first


# --- files ----------------------------------------------------------------------------------------

def names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def test_which_files_there_are(tmp_path):
    net = a_network()
    history = net.fit(X, Y, checkpoint=xn.Checkpoint(tmp_path, steps=4, keep=3, best="val_loss"),
                      **options())
    assert names(tmp_path) == ["best.safetensors", "step-000000012.safetensors",
                               "step-000000016.safetensors", "step-000000018.safetensors"]
    last = xn.load(tmp_path / "step-000000018.safetensors", backend="numpy")
    assert last.parameters.tobytes() == net.parameters.tobytes()
    best = xn.load(tmp_path / "best.safetensors", backend="numpy")
    figures = best.evaluate(*HELD, loss="cross_entropy")
    assert figures["loss"] == min(history["val_loss"])


def test_every_second_epoch_and_the_last(tmp_path):
    a_network().fit(X, Y, checkpoint=xn.Checkpoint(tmp_path, epochs=2, keep=9), **options())
    assert names(tmp_path) == ["step-000000012.safetensors", "step-000000018.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "a network", "text"])
def test_a_damaged_file_is_passed_over(damage, tmp_path):
    cut_off(tmp_path, lambda run, now: (run.steps, now) == (9, "batch end"))
    newest = tmp_path / "step-000000008.safetensors"
    content = bytearray(newest.read_bytes())
    if damage == "one bit":
        content[-3] ^= 4
    elif damage == "a network":
        a_network().save(newest)
        content = bytearray(newest.read_bytes())
    else:
        content = {"truncated": content[:-9], "empty": b"", "text": b"not a file"}[damage]
    newest.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="a checkpoint was passed over .*step-000000008"):
        assert resumed(tmp_path) == whole()


def test_only_damaged_files(tmp_path):
    cut_off(tmp_path, lambda run, now: (run.steps, now) == (3, "batch end"))
    for name in names(tmp_path):
        (tmp_path / name).write_bytes(b"")
    with (pytest.warns(RuntimeWarning, match="passed over"),
          pytest.raises(ValueError, match=r"fit: expected a checkpoint in .* that can be read")):
        resumed(tmp_path)


# --- refusals -------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, message", [
    ({"batch_size": 8}, "batch_size 8 instead of 4"),
    ({"epochs": 4}, "epochs 4 instead of 3"),
    ({"optimizer": "adam"}, "optimizer .*Adam"),
    ({"optimizer": xn.AdamW(0.02)}, "optimizer .*0.02"),
    ({"schedule": "cosine"}, "schedule .*CosineDecay"),
    ({"validation": None}, "validation"),
    ({"shuffle": False}, "shuffle False instead of True"),
    ({"drop_last": True}, "drop_last True instead of False"),
    ({"accumulate": 2}, "accumulate 2 instead of 1"),
    ({"epochs": None, "steps": 18}, "steps 18 instead of None"),
    ({"validation": 0.3}, "validation 0.3 instead of"),
    ({"backend": "numba"}, "backend 'numba' instead of 'numpy'"),
    ({"loss": xn.CrossEntropy(label_smoothing=0.1)}, "loss"),
])
def test_another_training_is_refused(changes, message, tmp_path):
    cut_off(tmp_path, lambda run, now: (run.steps, now) == (3, "batch end"))
    net = a_network(changes.pop("backend", "numpy"))
    before = net.parameters.tobytes()
    with pytest.raises(ValueError, match=f"fit: expected the training of .*Received: .*{message}"):
        net.fit(X, Y, callbacks=[CutOff()], resume=tmp_path, **options(**changes))
    assert net.parameters.tobytes() == before


def test_another_share_is_refused(tmp_path):
    cut_off(tmp_path, lambda run, now: (run.steps, now) == (3, "batch end"), validation=0.3)
    with pytest.raises(ValueError, match=r"Received: validation 0\.32 instead of 0\.3\.$"):
        resumed(tmp_path, validation=0.32)


def test_other_data_or_another_network_are_refused(tmp_path):
    cut_off(tmp_path, lambda run, now: (run.steps, now) == (3, "batch end"))
    with pytest.raises(ValueError, match="Received: samples"):
        a_network().fit(X + 1, Y, callbacks=[CutOff()], resume=tmp_path, **options())
    other = xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=(1, 6, 6), backend="numpy")
    with pytest.raises(ValueError, match="expected a file of a network of this architecture"):
        other.fit(X, Y, callbacks=[CutOff()], resume=tmp_path, **options())


def test_a_folder_of_another_training(tmp_path):
    cut_off(tmp_path, lambda run, now: (run.steps, now) == (3, "batch end"))
    with pytest.raises(ValueError, match=r"Checkpoint: expected a folder without checkpoints .*"
                                         r"fit\(resume=...\) continues"):
        a_network().fit(X, Y, checkpoint=tmp_path, **options())


@pytest.mark.skipif(files.fcntl is None, reason="this system has no file locks")
def test_two_processes_on_one_folder(tmp_path):
    with (files.exclusive(tmp_path, "test"),
          pytest.raises(RuntimeError, match="in which another process writes")):
        a_network().fit(X, Y, checkpoint=tmp_path, **options())
    a_network().fit(X, Y, checkpoint=tmp_path, **options())


@pytest.mark.parametrize("bad", [{"steps": 0}, {"epochs": 0}, {"keep": 0}, {"best": 3}])
def test_bad_settings(bad, tmp_path):
    with pytest.raises(ValueError, match="Checkpoint: expected"):
        xn.Checkpoint(tmp_path, **bad)


def test_best_that_is_no_column(tmp_path):
    with pytest.raises(ValueError, match="Checkpoint: expected best to be one of epoch, loss"):
        a_network().fit(X, Y, checkpoint=xn.Checkpoint(tmp_path, best="f1"), **options())


# --- what it says ---------------------------------------------------------------------------------

def test_a_training_that_is_resumed_says_where_it_was(tmp_path, capsys):
    def fit():
        a_network().fit(X, Y, callbacks=[CutOff()], resume=tmp_path,
                        **options(verbose=True))

    fit()
    assert "resumed" not in capsys.readouterr().out
    fit()                                       # it had ended: nothing is left to do
    file = max(tmp_path.glob("step-*.safetensors"))
    assert f"resumed from {file}: 18 of 18 batches are done\n" in capsys.readouterr().out


def test_a_checkpoint_is_no_folder_to_resume():
    with pytest.raises(TypeError, match=r"^fit: expected resume to be a folder; checkpoint= takes "
                                        r"the Checkpoint\. Received: Checkpoint\(.*\)\.$"):
        a_network().fit(X, Y, resume=xn.Checkpoint("runs"), **options())
