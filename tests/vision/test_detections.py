"""Targets, detections, drawn shapes, boxes in images, and the command `xpnet detect`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import xpnet as xn
from xpnet import vision
from xpnet.cli import main

ANCHORS = [(0.2, 0.2), (0.4, 0.4)]


# --- targets --------------------------------------------------------------------------------------

def test_targets_are_rows_as_in_darknets_files():
    boxes = [[[10, 20, 30, 60]], [], [[-10, 0, 10, 10], [90, 40, 120, 60]]]
    found = vision.detection_targets(boxes, [[2], [], [0, 1]], (80, 100))
    assert found.shape == (3, 2, 5) and found[1].tolist() == [[-1, 0, 0, 0, 0]] * 2
    np.testing.assert_allclose(found[0], [[2, 0.2, 0.5, 0.2, 0.5], [-1, 0, 0, 0, 0]])
    np.testing.assert_allclose(found[2], [[0, 0.05, 0.0625, 0.1, 0.125],
                                          [1, 0.95, 0.625, 0.1, 0.25]])      # clipped
    sizes = [(80, 100), (1, 1), (160, 200)]
    several = vision.detection_targets(boxes, [[2], [], [0, 1]], sizes, most=3)
    assert several.shape == (3, 3, 5) and np.array_equal(several[0, :2], found[0])
    np.testing.assert_allclose(several[2, 1], [1, 0.525, 0.3125, 0.15, 0.125])
    assert vision.detection_targets([[]], [[]], (4, 4)).shape == (1, 1, 5)


@pytest.mark.parametrize("more, message", [
    ({"boxes": [[[5, 5, 5, 9]]]}, r"partly inside of their image. Received: an empty one in "
                                  r"boxes\[0\]"),
    ({"boxes": [[[20, 0, 30, 9]]]}, "partly inside"), ({"labels": [[0, 1]]}, "one for each box"),
    ({"labels": []}, "boxes and labels of the same images. Received: 1 and 0"),
    ({"boxes": [[[0, 0, 5, 5]] * 2], "labels": [[0, 0]], "most": 1}, "at most 1 objects"),
    ({"size": [(9, 9), (9, 9)]}, "a size for each of 1 images. Received: 2"),
])
def test_targets_that_cannot_be_made(more, message):
    good = {"boxes": [[[0, 0, 5, 5]]], "labels": [[0]], "size": (9, 9)}
    with pytest.raises(ValueError, match=f"detection_targets: expected .*{message}"):
        vision.detection_targets(**(good | more))


# --- detections -----------------------------------------------------------------------------------

def confident(loss: xn.YOLOv3, objects: list[tuple[int, int, int, int, float]]) -> np.ndarray:
    """An output of one image: (anchor, row, column, class, score) in the middle of their cells."""
    y = np.full((1, loss.channels, 4, 4), -20.0)
    for b, i, j, k, score in objects:
        start = b * (5 + loss.K)
        y[0, start:start + 5, i, j] = 0, 0, 0, 0, np.log(score / (1 - score))
        y[0, start + 5 + k, i, j] = 20
    return y


def test_detections_of_an_output():
    loss = xn.YOLOv3(ANCHORS, 3)
    y = confident(loss, [(0, 1, 2, 2, 0.8), (1, 3, 0, 0, 0.9), (0, 0, 0, 1, 0.1)])
    found, = vision.detections(y, loss, (40, 80))
    np.testing.assert_allclose(found.scores, [0.9, 0.8], atol=1e-6)
    assert found.labels.tolist() == [0, 2]
    np.testing.assert_allclose(found.boxes, [[0, 27, 26, 40], [42, 11, 58, 19]], atol=1e-6)
    assert len(vision.detections(y, loss, (40, 80), score_threshold=0.05)[0].scores) == 3
    assert len(vision.detections(y, loss, (40, 80), top=1)[0].scores) == 1


def test_boxes_of_the_same_object_are_suppressed():
    loss = xn.YOLOv3(ANCHORS, 3)
    one = confident(loss, [(0, 1, 1, 2, 0.8), (0, 1, 1, 0, 0.8)])       # one box, two classes
    two = confident(loss, [(0, 1, 1, 2, 0.7)])
    found, = vision.detections([one, two], [loss, loss], (40, 40))
    assert sorted(found.labels.tolist()) == [0, 2]
    found, = vision.detections([one, two], [loss, loss], (40, 40), agnostic=True)
    assert found.labels.tolist() == [0]


def test_terms_of_one_image():
    loss = xn.YOLOv1(2, 1)
    y = np.zeros((2, 7, 2, 2))
    rows = [[[0, 0.25, 0.25, 0.5, 0.5]], [[-1, 0, 0, 0, 0]]]
    y[0, :5, 0, 0] = 0.5, 0.3, 0.5**0.5, 0.6, 0.75
    y[1, 4, 1, 1] = 0.4
    parts = vision.loss_parts(loss, y, rows)
    np.testing.assert_allclose(parts["centre"], [5 * 0.04, 0])
    np.testing.assert_allclose(parts["size"], [5 * (0.6 - 0.5**0.5) ** 2, 0])
    np.testing.assert_allclose(parts["class"], [1, 0])
    np.testing.assert_allclose(parts["no_object"], [0, 0.5 * 0.16])
    h = 0.36                            # from 0.15 - 0.18 to 0.15 + 0.18, in the object's 0 to 0.5
    overlap = 0.33 / (0.5 + h - 0.33)
    np.testing.assert_allclose(parts["object"], [(0.75 - overlap) ** 2, 0])
    cells = vision.loss_parts(loss, y, rows, cells=True)
    assert cells["no_object"].shape == (2, 2, 2) and np.count_nonzero(cells["object"]) == 1
    assert cells["no_object"][1, 1, 1] == pytest.approx(0.08) and cells["class"][0, 0, 0] == 1


# --- a detector, from training to the command ----------------------------------------------------

def detector(seed: int = 0) -> xn.Network:
    """A network that finds bright squares of 8 x 8 pixels, trained for a moment. Half of the images
    have bars as letterbox makes them."""
    rng = np.random.default_rng(seed)
    x, boxes = np.zeros((64, 1, 32, 32), np.float32), []
    for number, image in enumerate(x[:, 0]):
        row, column = rng.integers(0, 25, 2).tolist()
        if number % 2:
            image[:8] = image[24:] = 0.5
            row = 8 + row % 9
        image[row:row + 8, column:column + 8] = 1
        boxes.append([[column, row, column + 8, row + 8]])
    loss = xn.YOLOv2([(0.25, 0.25)], ["square"])
    net = xn.Sequential([
        xn.Conv2d(8, 3, stride=2, padding="half", activation="relu"),
        xn.Conv2d(16, 3, stride=2, padding="half", activation="relu"),
        xn.Conv2d(16, 5, stride=2, padding="half", activation="relu"), xn.Conv2d(loss.channels, 1),
    ], input_shape=(1, 32, 32), backend="numpy", seed=0)
    net.fit(x, vision.detection_targets(boxes, [[0]] * len(x), (32, 32)), loss=loss,
            optimizer=xn.Adam(0.01), epochs=25, batch_size=16, verbose=False)
    net.scale = 255
    return net


@pytest.fixture(scope="module")
def net() -> xn.Network:
    return detector()


def test_a_detector_is_trained_saved_and_used(net, tmp_path):
    x = np.zeros((2, 1, 32, 32), np.float32)
    x[0, 0, 5:13, 18:26] = 1
    found, nothing = vision.detect(net, x)
    assert len(nothing.boxes) == 0 and found.labels.tolist() == [0] and found.scores[0] > 0.4
    assert vision.box_iou(found.boxes, [[18, 5, 26, 13]])[0, 0] > 0.6
    net.save(tmp_path / "net.safetensors")
    again = vision.detect(xn.load(tmp_path / "net.safetensors", backend="numpy"), x)
    assert np.array_equal(again[0].boxes, found.boxes)


def test_a_data_set_of_bytes_has_rows_as_targets():
    """The network then knows what the bytes of image files are divided by."""
    drawn = xn.data.shapes(6, 16, radius=(3, 5), seed=0)
    rows = vision.detection_targets(drawn.boxes, drawn.labels, (16, 16))
    data = xn.data.Dataset((255 * drawn.images.clip(0, 1)).astype(np.uint8), rows)
    loss = xn.YOLOv1(["circle", "square", "triangle"])
    net = xn.Sequential([xn.Conv2d(loss.channels, 4, stride=4)], input_shape=(1, 16, 16),
                        backend="numpy")
    history = net.fit(data, loss=loss, optimizer=xn.Adam(0.01), epochs=4, verbose=False)
    assert history["loss"][-1] < history["loss"][0] and net.scale == 255
    assert len(vision.detect(net, drawn.images, score_threshold=0)) == 6


def test_the_command_draws_boxes(net, tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    monkeypatch.chdir(tmp_path)
    net.save("net.safetensors")
    pixels = np.zeros((64, 128), np.uint8)      # twice as wide: bars above and below
    pixels[16:48, 60:92] = 255                  # in the network's input 8 x 8
    image.fromarray(pixels).save("square.png")
    Path("out").mkdir()
    command = ["detect", "square.png", "--model", "net.safetensors", "--backend", "numpy"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "square.png: 1 object" and lines[1].startswith("  square  0.")
    assert lines[2] == "  boxes drawn in square-detected.png"
    drawn = np.asarray(image.open("square-detected.png"))
    assert drawn.shape == (192, 384, 3) and (drawn != drawn[..., :1]).any()     # a box in colour
    assert main([*command, "--json", "--output", "out", "--score", "0.3"]) == 0
    found = json.loads(capsys.readouterr().out)
    box = found["objects"][0].pop("box")
    assert found["file"] == "square.png" and found["objects"][0]["class"] == "square"
    assert vision.box_iou([box], [[60, 16, 92, 48]])[0, 0] > 0.5
    assert Path("out/square-detected.png").is_file()


def network_of(cfg: str, weights: str) -> xn.Network:
    net = xn.io.load_darknet(cfg, weights, backend="numpy")
    net.scale = 255
    return net


def test_the_command_takes_darknets_files(tmp_path, monkeypatch, capsys):
    """A convolution finds the only bright pixel of a small image: its box has the size of the
    anchor."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    monkeypatch.chdir(tmp_path)
    Path("a.cfg").write_text(
        "[net]\nheight=32\nwidth=32\nchannels=3\n[maxpool]\nsize=8\nstride=8\npadding=0\n"
        "[convolutional]\nfilters=7\nactivation=linear\n[yolo]\nanchors=8,16\nclasses=2\n")
    net = xn.io.load_darknet("a.cfg", backend="numpy")
    conv = net.layers[-1]
    conv.W.data[:] = 0
    conv.W.data[4] = 8 / 3                      # confident where all colours are 1
    conv.b.data[:] = [0, 0, 0, 0, -4, -9, 9]    # of the second class
    xn.io.save_darknet(net, "a.cfg", "a.weights")
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[21, 10] = 255                        # in the cell of row 2, column 1
    image.fromarray(pixels).save("a.png")
    Path("two.names").write_text("cat\r\nbig dog\n\n")
    command = ["detect", "a.png", "--model", "a.cfg", "--weights", "a.weights", "--backend=numpy"]
    assert main([*command, "--names", "two.names"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a.png: 1 object",
                         "  big dog  0.9819  from (8.0, 12.0) to (16.0, 28.0)"]
    assert main(command) == 0 and "  1  0.9819" in capsys.readouterr().out
    # A grey of 127 / 255 is confident enough below a score of 0.4, and so are the bars above and
    # below a wide image. Boxes that lie within them are no objects of the image.
    image.fromarray(np.full((16, 64, 3), 127, np.uint8)).save("wide.png")
    found, = vision.detect_files(network_of("a.cfg", "a.weights"), "wide.png", score_threshold=0.4,
                                 iou_threshold=1)
    assert len(found.boxes) == 8 and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert found.scores.shape == found.labels.shape == (8,)
    image.fromarray(pixels[:1, :1]).save("one.png")
    assert main(["detect", "one.png", *command[2:]]) == 0       # drawn 64 times larger
    assert np.asarray(image.open("one-detected.png")).shape == (64, 64, 3)
    capsys.readouterr()
    for wrong, message in ((command[:4], "expected --weights, the weights file of a.cfg"),
                           ([*command, "--names", "a.cfg"], "--names to have 2 lines, one for "),
                           ([*command, "--layers", "a.py"], "--layers for a saved network as "),
                           ([*command, "--names", "none"], "expected --names to be a text file. "),
                           (["detect", "a.png", "--model", "b.safetensors", "--weights", "a"],
                            "expected --weights for a cfg file of Darknet as --model. Received:")):
        assert main(wrong) == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("change, message", [
    (["nothing.png"], "detect: expected a picture. Received: nothing.png, which does not exist"),
    (["a.png", "--output", "none"], "expected --output to be a folder. Received: none, which does"),
    (["a.png", "--model", "plain.safetensors"],
     "expected a network that was trained with a YOLO loss for each output, or one of a cfg file "
     "with a [yolo], [region] or [detection] section. Received: CrossEntropy"),
    (["a.png", "a.png"], "expected image files of different names"),
])
def test_what_the_command_refuses(change, message, net, tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    monkeypatch.chdir(tmp_path)
    image.new("L", (8, 8)).save("a.png")
    net.save("net.safetensors")
    plain = xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(1, 8, 8), backend="numpy")
    plain.fit(np.ones((2, 1, 8, 8)), [0, 1], loss="cross_entropy", verbose=False)
    plain.save("plain.safetensors")
    assert main(["detect", "--model", "net.safetensors", "--backend", "numpy", *change]) == 2
    assert message in capsys.readouterr().err


def test_the_scale_of_pixels_has_to_be_known(net, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image.new("L", (8, 8)).save(tmp_path / "a.png")
    net.scale = None
    try:
        with pytest.raises(ValueError, match="detect_files: .* set net.scale = 255"):
            vision.detect_files(net, [tmp_path / "a.png"])
    finally:
        net.scale = 255


def test_boxes_in_an_image():
    pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    drawn = vision.draw_boxes(np.zeros((1, 40, 60)), [[10, 20, 50, 36], [0, 0, 5, 5]], [1, 0],
                              [0.5, 0.9], names=["cat", "dog"], scale=3)
    pixels = np.asarray(drawn)
    assert drawn.size == (180, 120)
    assert pixels[100, 30].tolist() == [0x3C, 0xB4, 0x4B]       # the left edge of the second class
    assert pixels[107, 100].tolist() == [0x3C, 0xB4, 0x4B] and pixels[100, 100].tolist() == [0] * 3
    with pytest.raises(ValueError, match="a name for each class. Received: 1 names for class 1"):
        vision.draw_boxes(np.zeros((1, 9, 9)), [[0, 0, 5, 5]], [1], names=["cat"])


# --- drawn shapes ---------------------------------------------------------------------------------

def test_boxes_of_shapes_are_those_of_their_pixels():
    found = xn.data.shapes(30, 40, channels=3, overlap=False, noise=0, seed=3)
    assert found.images.shape == (30, 3, 40, 40) and found.images.dtype == np.float32
    for image, boxes, labels, classes in zip(*found):
        covered = np.zeros((40, 40), bool)
        for (x1, y1, x2, y2), label in zip(boxes.astype(int), labels):
            assert (classes[y1:y2, x1:x2] == label + 1).any(axis=1).all()   # in each row
            assert not (covered[y1:y2, x1:x2]).any()                        # they do not meet
            covered[y1:y2, x1:x2] = True
        assert not classes[~covered].any()
        assert image[:, classes > 0].min() >= 0.5 > 0.31 > image[:, classes == 0].max()


def test_the_same_seed_draws_the_same():
    a, b, c = (xn.data.shapes(4, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(a.images, b.images) and not np.array_equal(a.images, c.images)
