"""Every call of a save fails once, in every way: the training goes on or can be resumed, to the
same bits, from files that are complete."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from failing import ERRORS, FailingDisk
from tiers import first

import xpnet as xn
from xpnet import Checkpoint

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((6, 5)).astype(np.float32), np.arange(6) % 2
pytestmark = pytest.mark.skipif(os.name == "nt", reason="names and locks as Unix has them")


def fit(folder: Path | None, **more) -> tuple:
    """3 epochs, each with a save; what has to be the same."""
    net = xn.Sequential([xn.Dropout(0.2), xn.Linear(2)], input_shape=(5,), backend="numpy", seed=1)
    history = net.fit(X, Y, loss="cross_entropy", optimizer="adam", epochs=3, batch_size=3,
                      verbose=False, resume=folder, **more)
    return net.parameters.tobytes(), history["loss"], net.counters.tolist()


class Failing(Checkpoint):
    """The second save meets a disk that may fail."""

    def __init__(self, folder: Path, disk: FailingDisk | None = None) -> None:
        super().__init__(folder, keep=2)
        self.disk, self.saves = disk or FailingDisk(), 0

    def _save(self, run):
        self.saves += 1
        if self.saves != 2:
            return super()._save(run)
        with self.disk:
            super()._save(run)
        self.left = [name for name in os.listdir(self.folder) if name.endswith(".part")]
        self.files = sorted(self.folder.glob("step-*"))
        for file in self.files:
            xn.load(file, backend="numpy")


def resumed(folder: Path) -> tuple:
    return fit(folder, checkpoint=Failing(folder))


WHOLE = fit(None)


def calls_of_a_save(folder: Path) -> list[str]:
    disk = FailingDisk()
    fit(folder, checkpoint=Failing(folder, disk))
    return disk.calls


def test_a_save_makes_these_calls(tmp_path):
    """Otherwise the tests below would not fail what a save does."""
    calls = calls_of_a_save(tmp_path)
    assert {"open", "file.write", "file.flush", "fsync", "replace", "close"} <= set(calls)
    assert calls.count("fsync") == 2 and calls.count("file.write") > 4


@pytest.mark.parametrize("kind", first(ERRORS, "no space"))
def test_a_failure_at_each_call_warns_and_the_training_goes_on(kind, tmp_path):
    calls, warned = calls_of_a_save(tmp_path / "all"), []
    for at, name in enumerate(calls, 1):
        folder = tmp_path / str(at)
        saver = Failing(folder, FailingDisk(kind, at))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert fit(folder, checkpoint=saver) == WHOLE
        assert saver.left == [] and len(saver.files) >= 1, (at, name)
        assert saver.error is None and len(list(folder.glob("step-*"))) == 2
        for warning in caught:
            message = str(warning.message)
            assert message.startswith("fit: a checkpoint was not saved, and the training goes on (")
            assert os.strerror(ERRORS[kind]) in message and "\n" not in message
        warned += [name] * len(caught)
        assert len(caught) <= 1
        assert resumed(folder) == WHOLE
    assert {"file.write", "file.flush", "fsync", "replace"} <= set(warned)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_at_each_call(tmp_path):
    calls = calls_of_a_save(tmp_path / "all")
    for at in range(1, len(calls) + 1):
        folder = tmp_path / str(at)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)     # threads of BLAS
            process = os.fork()
        if not process:
            try:
                fit(folder, checkpoint=Failing(folder, FailingDisk("kill", at)))
            finally:
                os._exit(1)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, calls[at - 1]
        for file in folder.glob("step-*"):
            xn.load(file, backend="numpy")
        assert resumed(folder) == WHOLE
        assert not list(folder.glob("*.part")), calls[at - 1]


def test_leftovers_of_killed_processes_go_when_a_training_begins(tmp_path):
    """Also if it saves nothing, because it had ended."""
    resumed(tmp_path)
    (tmp_path / ".xpnet-0123456789abcdef.part").write_bytes(b"of a process that was killed")
    resumed(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_a_disk_that_stays_full(tmp_path):
    """The network learns all the same, and each save says that it failed."""
    class Full(Checkpoint):
        def _write(self, name, content):
            with FailingDisk("no space", 3):
                return super()._write(name, content)

    saver = Full(tmp_path, best="loss")
    with pytest.warns(RuntimeWarning, match="a checkpoint was not saved") as caught:
        assert fit(tmp_path, checkpoint=saver) == WHOLE
    assert len(caught) == 6 and isinstance(saver.error, OSError)
    assert os.listdir(tmp_path) == [".xpnet-lock"]
    assert resumed(tmp_path) == WHOLE


def test_the_warning_as_an_error_ends_the_training(tmp_path):
    """What to do if the training should not go on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "fit: a checkpoint was not saved")
        with pytest.raises(RuntimeWarning, match="No space left on device"):
            fit(tmp_path, checkpoint=Failing(tmp_path, FailingDisk("no space", 5)))
    assert resumed(tmp_path) == WHOLE


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", ["makedirs", "open", "write", "fsync"])
def test_a_folder_that_cannot_be_written_to_is_noticed_before_the_training(name, kind, tmp_path):
    with FailingDisk() as disk:
        with Failing(tmp_path)._held:
            Failing(tmp_path / "all").begin(resumed=False)
    for at in [number for number, called in enumerate(disk.calls, 1) if called == name]:
        saver = Failing(tmp_path / str(at))
        with (FailingDisk(kind, at), pytest.raises(OSError, match=os.strerror(ERRORS[kind]))):
            saver.begin(resumed=False)
        left = os.listdir(saver.folder) if saver.folder.is_dir() else []
        assert set(left) <= {".xpnet-lock"}
        assert resumed(saver.folder) == WHOLE           # it is not locked
