"""TensorBoard: event files with the history, histograms and images, also of trainings that are
killed and resumed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from event_reader import crc32c, displayed, events, pixels
from failing import FailingDisk
from fake_cupy import FakeCupy, installed
from tiers import full
from trainings import X, Y, a_network, images, options

import xpnet as xn
from xpnet.io.events import histogram, masked_crc, png, record, scalar, varint
from xpnet.passes import forward_pass
from xpnet.training import step as step_module
from xpnet.training.tensorboard import tiled

FIRST = "events.out.tfevents.0000000001.xpnet"


class Cut(Exception):       # noqa: N818 - what ends the training
    pass


class CutOff(xn.Callback):
    """Ends the training by an error before a step."""

    def __init__(self, step: int = 0) -> None:
        self.step = step

    def on_batch_begin(self, run):
        if run.steps == self.step:
            raise Cut


def fit(folder: Path, cut: int = 0, net: xn.Network | None = None, **more):
    """3 epochs of 6 batches with a validation, cut off before step number `cut`; the history."""
    settings = {name: more.pop(name) for name in ("batches", "histograms", "images")
                if name in more}
    return (net or a_network()).fit(
        more.pop("x", X), more.pop("y", Y), **options(**more),
        callbacks=[xn.TensorBoard(folder, **settings), CutOff(cut)])


def as_float32(value: float) -> float:
    return float(np.float32(value))


# --- the format -----------------------------------------------------------------------------------

@pytest.mark.parametrize("content, crc", [
    (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E), (b"", 0)])
def test_the_checksums_of_rfc_3720(content, crc):
    """Appendix B.4, and the check value of the algorithm."""
    assert crc32c(content) == crc
    masked = ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
    assert masked_crc(content) == masked.to_bytes(4, "little")


@pytest.mark.parametrize("value, content", [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"),
                                            (300, "ac02"), (2**35, "808080808001")])
def test_varints(value, content):
    assert varint(value).hex() == content


def test_a_record_of_a_number():
    """Byte by byte, without the time: length, checksum, event 5 {value 1 {tag, simple_value}}."""
    content = record(b"")[12:-4]
    assert len(content) == 9 and content[:1] == b"\x09"
    assert abs(np.frombuffer(content[1:], "<f8")[0] - time.time()) < 60
    assert scalar("ab", 1.5) == b"\x0a\x02ab\x15\x00\x00\xc0\x3f"


@pytest.mark.parametrize("shape", [(3, 5), (4, 2, 3)])
def test_png(shape, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(pixels(png(image)), image)
    pillow = pytest.importorskip("PIL.Image")
    (tmp_path / "image.png").write_bytes(png(image))
    with pillow.open(tmp_path / "image.png") as read:
        assert np.array_equal(np.asarray(read), image)


@pytest.mark.parametrize("values", [[1.0, 2.0, 2.5, -3.0], [0.25] * 7, [np.nan, 1.0, np.inf, 4.0],
                                    [], [np.nan], [1e300, -1e300]], ids=str)
def test_histograms(values, tmp_path):
    from xpnet.io.events import EventFile
    file = EventFile(tmp_path, 1)
    with np.errstate(over="ignore"):
        file.write(3, [histogram("h", np.array(values))])
    read = events(Path(file.path))[-1]["values"]["h"]
    finite = np.array([value for value in values if np.isfinite(value)])
    assert read["num"] == len(finite) == read["counts"].sum()
    assert len(read["counts"]) == len(read["limits"]) and (np.diff(read["limits"]) > 0).all()
    if len(finite):
        assert (read["min"], read["max"]) == (finite.min(), finite.max())
        assert np.isclose(read["sum"], finite.sum())
        for limit, below in zip(read["limits"][:-1], np.cumsum(read["counts"])):
            assert below == (finite < limit).sum()


def test_tiled():
    """Ten images in two lines, enlarged by a whole number, with white between them."""
    given = np.random.default_rng(0).random((10, 3, 17, 40))
    given[0, 0, 0, 0], given[0, 0, 0, 1] = -1, 3
    picture = tiled(given)
    assert picture.shape == (2 * 34 + 2, 8 * 80 + 7 * 2, 3)
    for k, image in enumerate(given):
        top, left = k // 8 * 36, k % 8 * 82
        found = picture[top:top + 34:2, left:left + 80:2]
        assert np.abs(found - 255 * (np.moveaxis(image, 0, -1) + 1) / 4).max() <= 0.51
        assert np.array_equal(found, picture[top + 1:top + 34:2, left + 1:left + 80:2])
    assert (picture[34:36] == 255).all() and (picture[36:, 164:] == 255).all()
    plain = tiled(np.array([[[[0.0, 1.0], [0.5, 0.25]]]]))
    assert plain.shape == (32, 32) and plain[::16, ::16].tolist() == [[0, 255], [128, 64]]
    assert (tiled(np.full((1, 1, 2, 2), 7.0)) == 0).all()


# --- a training -----------------------------------------------------------------------------------

def test_the_history_of_both_parts(tmp_path):
    before = time.time()
    history = fit(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["train", "validation"]
    for part in ("train", "validation"):
        first, start, *rest = events(tmp_path / part / FIRST)
        assert first["version"] == "brain.Event:2" and start["start"] and start["step"] == 1
        times = [event["time"] for event in (first, start, *rest)]
        assert before <= times[0] and times == sorted(times) and times[-1] <= time.time()
        assert [event["step"] for event in rest] == [6, 12, 18]
        for event, row in zip(rest, history.rows, strict=True):
            expected = {name: as_float32(value) for name, value in row.items()
                        if name.startswith("val_") == (part == "validation")}
            assert event["values"] == {name.removeprefix("val_"): value
                                       for name, value in expected.items()}


def test_figures_of_batches(tmp_path):
    """Means over the batches since the last event: over 2 batches of 4 samples, and over the last 8
    of 23 samples with one of 3, they give the mean of the epoch."""
    history = fit(tmp_path, batches=2)
    shown = displayed(tmp_path / "train")
    assert [step for step, _ in shown["batch/lr"]] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    for name in ("loss", "accuracy"):
        means = np.array([value for _, value in shown[f"batch/{name}"]]).reshape(3, 3)
        epochs = means @ [8, 8, 7] / 23
        assert np.allclose(epochs, history[name], rtol=1e-5)


def test_histograms_of_parameters_and_gradients(tmp_path):
    net = a_network()
    net.layer_names["conv1"].trainable = False
    fit(tmp_path, net=net, histograms=2)
    shown = {tag: pairs for tag, pairs in displayed(tmp_path / "train").items() if "/" in tag}
    names = ["conv1.W", "conv1.b", "bn1.gamma", "bn1.beta", "linear1.W", "linear1.b"]
    assert set(shown) == {f"parameters/{name}" for name in names} | {
        f"gradients/{name}" for name in names[2:]}
    assert all([step for step, _ in pairs] == [12] for pairs in shown.values())
    fit(tmp_path, net=net, histograms=3)
    (_, weights), = [pair for pair in displayed(tmp_path / "train")["parameters/linear1.W"]
                     if pair[0] == 36]
    w = net.layer_names["linear1"].W.data
    assert (weights["min"], weights["max"], weights["num"]) == (w.min(), w.max(), w.size)
    assert np.isclose(weights["squares"], (w.astype(float)**2).sum())
    (_, gradients), = [pair for pair in displayed(tmp_path / "train")["gradients/linear1.W"]
                       if pair[0] == 36]
    g = net.layer_names["linear1"].W.grad
    assert (gradients["min"], gradients["max"]) == (g.min(), g.max()) and g.any()


def test_images_as_the_network_sees_them(tmp_path, monkeypatch):
    """The first batch after scaling and augmentation, and the filters of the first convolution; the
    network learns what it learns without the callback."""
    augment = [xn.RandomFlip(), xn.RandomCrop(1)]
    seen, nets = [], [a_network(), a_network()]

    def spied(net, x, *rest, **more):
        if net is nets[0]:
            seen.append(np.array(x[0]))
        return forward_pass(net, x, *rest, **more)

    monkeypatch.setattr(step_module, "forward_pass", spied)
    for net, folder in zip(nets, (tmp_path / "one", tmp_path / "two")):
        data = {"x": images(), "y": None, "validation": None, "augment": augment, "epochs": 2}
        fit(folder, net=net, **data, **{"images": 2} if net is nets[0] else {})
    assert nets[0].parameters.tobytes() == nets[1].parameters.tobytes()
    shown = displayed(tmp_path / "one" / "train")
    (step, (height, width, channels, png)), = shown["images/first batch"]
    batches = [x for x in seen if x.shape[-1] in (3, 4)]
    assert step == 7 and channels == 1
    expected = tiled(np.moveaxis(batches[6], -1, 0))
    assert np.array_equal(pixels(png), expected) and (height, width) == expected.shape
    (step, (*_, png)), = shown["images/filters of conv1"]
    assert step == 12
    assert np.array_equal(pixels(png), tiled(nets[0].layer_names["conv1"].W.data))


def test_a_network_without_images(tmp_path):
    net = xn.Sequential([xn.Linear(2)], input_shape=(5,), backend="numpy")
    with pytest.raises(ValueError, match=r"TensorBoard: expected images \(C, H, W\) of 1 or 3 "
                                         r"channels, as images=2. Received: inputs of shape"):
        net.fit(np.ones((4, 5)), [0, 1, 0, 1], loss="cross_entropy", verbose=False,
                callbacks=[xn.TensorBoard(tmp_path, images=2)])


# --- killed and resumed ---------------------------------------------------------------------------

def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return {f"{part}/{tag}": pairs for part in sorted(os.listdir(folder))
            for tag, pairs in displayed(folder / part).items() if tag != "seconds"}


@pytest.mark.parametrize("cut, torn, batches", [(1, 0, 1), (9, 0, 1), (12, 7, 1), (13, 0, 1),
                                                (18, 7, 1), (11, 0, 3), (12, 0, 5)])
def test_a_resumed_training_shows_what_a_whole_one_shows(cut, torn, batches, tmp_path):
    """It was killed after steps that no checkpoint has; the record of the last one may be
    incomplete."""
    whole, runs, saved = tmp_path / "whole", tmp_path / "runs", tmp_path / "saved"
    fit(whole, batches=batches)
    with pytest.raises(Cut):
        fit(runs, cut, batches=batches, checkpoint=xn.Checkpoint(saved, steps=4))
    file = runs / "train" / FIRST
    before = scalars(runs)
    assert [step for step, _ in before.get("train/batch/loss", [])] == [
        step for step in range(1, cut) if (step - 1) % 6 % batches == batches - 1]
    os.truncate(file, file.stat().st_size - torn)
    fit(runs, resume=saved, batches=batches, checkpoint=xn.Checkpoint(saved, steps=4))
    assert scalars(runs) == scalars(whole)


def test_a_second_fit_goes_on_to_the_right(tmp_path):
    net = a_network()
    losses = [*fit(tmp_path, net=net)["loss"], *fit(tmp_path, net=net)["loss"]]
    assert displayed(tmp_path / "train")["loss"] == [
        (6 * epoch, as_float32(loss)) for epoch, loss in enumerate(losses, 1)]
    fit(tmp_path)                               # another network begins anew
    assert [step for step, _ in displayed(tmp_path / "train")["loss"]] == [6, 12, 18]


def test_an_interrupted_epoch_has_no_point(tmp_path):
    class Interrupt(xn.Callback):
        def on_batch_end(self, run):
            run.history.interrupted = run.steps == 8

    a_network().fit(X, Y, **options(), callbacks=[Interrupt(), xn.TensorBoard(tmp_path)])
    assert [step for step, _ in displayed(tmp_path / "train")["loss"]] == [6]


def test_a_full_disk_warns_and_the_events_come_later(tmp_path):
    class Full(xn.TensorBoard):
        def on_epoch_end(self, run):
            if run.epoch == 2:
                with FailingDisk("no space", 1):
                    super().on_epoch_end(run)
            else:
                super().on_epoch_end(run)

    with pytest.warns(RuntimeWarning, match=r"fit: events for TensorBoard could not be written, "
                                            r"and the training goes on \(.*No space left"):
        history = a_network().fit(X, Y, **options(), callbacks=[Full(tmp_path)])
    for part, name in (("train", "loss"), ("validation", "val_loss")):
        assert displayed(tmp_path / part)["loss"] == [
            (6 * epoch, as_float32(loss)) for epoch, loss in enumerate(history[name], 1)]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        fit(tmp_path / "file" / "runs")


@pytest.mark.parametrize("bad", [{"batches": 0}, {"histograms": 1.5}, {"images": "all"}])
def test_bad_settings(bad, tmp_path):
    with pytest.raises(ValueError, match=f"TensorBoard: expected {next(iter(bad))}"):
        xn.TensorBoard(tmp_path, **bad)


# --- TensorBoard itself ---------------------------------------------------------------------------

@full
def test_tensorboard_reads_the_same(tmp_path):
    """Its own reader, with a training that was cut off and resumed."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator",
                                 reason="tensorboard is not installed")
    saved = tmp_path / "saved"
    with pytest.raises(Cut):
        fit(tmp_path / "runs", 14, batches=1, checkpoint=xn.Checkpoint(saved, steps=4))
    history = fit(tmp_path / "runs", resume=saved, batches=1, histograms=1, images=1,
                  checkpoint=xn.Checkpoint(saved, steps=4))
    for part in ("train", "validation"):
        own = displayed(tmp_path / "runs" / part)
        read = reader.EventAccumulator(str(tmp_path / "runs" / part), size_guidance=dict.fromkeys(
            (reader.SCALARS, reader.HISTOGRAMS, reader.IMAGES, reader.TENSORS), 0))
        read.Reload()
        kinds = read.Tags()
        assert {*kinds["scalars"], *kinds["histograms"], *kinds["images"]} == set(own)
        for tag in kinds["scalars"]:
            assert [(event.step, event.value) for event in read.Scalars(tag)] == own[tag]
        for tag in kinds["histograms"]:
            for event, (step, value) in zip(read.Histograms(tag), own[tag], strict=True):
                found = event.histogram_value
                assert (event.step, found.min, found.max, found.num) == (
                    step, value["min"], value["max"], value["num"])
        for tag in kinds["images"]:
            for event, (step, value) in zip(read.Images(tag), own[tag], strict=True):
                assert (event.step, event.height, event.width) == (step, *value[:2])
                assert event.encoded_image_string == value[3]
    assert [event.value for event in read.Scalars("loss")] == [
        as_float32(loss) for loss in history["val_loss"]]


@full
def test_on_an_emulated_gpu(folder, tmp_path):
    """Everything that is written, and a checkpoint in the middle of an epoch."""
    with installed(FakeCupy(folder)):
        def train(name, cut=0, **more):
            data = {"x": images(), "y": None, "validation": None, "augment": [xn.RandomFlip()]}
            net = a_network("cupy")
            fit(tmp_path / name, cut, net=net, **data, batches=2, histograms=1, images=1, **more)
            return net.backend.to_numpy(net.parameters).tobytes()

        whole = train("whole")
        with pytest.raises(Cut):
            train("runs", 10, checkpoint=xn.Checkpoint(tmp_path / "saved", steps=2))
        assert train("runs", resume=tmp_path / "saved",
                     checkpoint=xn.Checkpoint(tmp_path / "saved", steps=2)) == whole
    shown = scalars(tmp_path / "runs")
    assert {tag.split("/")[1] for tag in shown} >= {"batch", "parameters", "gradients", "images"}
    for tag, pairs in scalars(tmp_path / "whole").items():
        assert [step for step, _ in shown[tag]] == [step for step, _ in pairs]
        if "batch" in tag or tag.endswith("loss"):
            assert shown[tag] == pairs
