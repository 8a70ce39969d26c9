"""The detection sections of Darknet decode as Darknet does, and make the losses of xpnet."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from darknet_reference import Reference, randomized, saved
from tiers import full

import xpnet as xn
from xpnet.io import darknet

NET = "[net]\nheight=9\nwidth=8\nchannels=4\n"
HEAD = NET + "[conv]\nfilters=7\n[yolo]\nanchors=2,3\nclasses=2\n"


def decoded(y: np.ndarray, k: int, i: int, j: int, anchor: tuple[float, float],
            grid: tuple[int, int], classes: int, scale: float = 1.0) -> list[float]:
    """x, y, w, h of box k of a cell, as Darknet decodes them: an anchor (w, h) as fractions of the
    image."""
    t = y[k * (5 + classes):k * (5 + classes) + 4, i, j].astype(float)
    b_x, b_y = (scale / (1 + math.exp(-z)) - (scale - 1) / 2 for z in t[:2])
    return [(j + b_x) / grid[1], (i + b_y) / grid[0],
            anchor[0] * math.exp(t[2]), anchor[1] * math.exp(t[3])]


def test_losses_of_the_heads_decode_and_train():
    net = xn.models.yolov3_tiny((3, 32, 64), classes=2, backend="numpy", seed=2)
    losses = [head.loss() for head in net.darknet.heads]
    assert [loss.mask for loss in losses] == [(3, 4, 5), (0, 1, 2)]
    assert losses[0].anchors[3] == (81 / 64, 82 / 32) and losses[0].threshold == 0.7
    x = np.random.default_rng(0).uniform(0, 1, (2, 3, 32, 64)).astype(np.float32)
    for y, loss, head in zip(net.predict(x), losses, net.darknet.heads, strict=True):
        boxes = loss.predictions(np, np.moveaxis(y, 0, -1)).boxes       # (4, B, rows, columns, N)
        k, i, j = 1, head.grid[0] - 1, head.grid[1] - 1
        anchor = head.anchors[head.mask[k]]
        cx, cy, w, h = decoded(y[1], k, i, j, (anchor[0] / 64, anchor[1] / 32), head.grid, 2)
        np.testing.assert_allclose(boxes[:, k, i, j, 1], [cx - w / 2, cy - h / 2, cx + w / 2,
                                                          cy + h / 2], rtol=1e-5, atol=1e-6)
    targets = np.array([[[1, 0.4, 0.6, 0.5, 0.7]], [[0, 0.7, 0.3, 0.1, 0.3]]])
    history = net.fit(x, [targets, targets], loss=losses, optimizer=xn.SGD(1e-3), epochs=2,
                      batch_size=2, verbose=False)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]
    assert all(np.any(p.grad) for p in net.buffers.arrays.values() if p.grad is not None)


def test_the_loss_of_yolov2_has_anchors_in_cells():
    net = xn.models.yolov2_tiny((3, 32, 64), classes=3, backend="numpy")
    head, = net.darknet.heads
    loss = head.loss()
    assert head.grid == (1, 2) and head.anchors[0] == (0.57273, 0.677385)
    assert loss.anchors[0] == (0.57273 / 2, 0.677385) and loss.rescore
    assert (loss.lambda_obj, loss.lambda_noobj, loss.threshold) == (5, 1, 0.6)
    x = np.zeros((1, 3, 32, 64), np.float32)
    y = net.predict(x)
    boxes = loss.predictions(np, np.moveaxis(y, 0, -1)).boxes[:, 4, 0, 1, 0]
    cx, cy, w, h = decoded(y[0], 4, 0, 1, (9.77052 / 2, 9.16828), (1, 2), 3)
    np.testing.assert_allclose(boxes, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], rtol=1e-5)


def test_the_centres_of_yolov4_are_scaled():
    """yolov4 and yolov4-tiny decode with the factors of their sections."""
    x = np.random.default_rng(0).uniform(0, 1, (1, 3, 32, 64)).astype(np.float32)
    net = xn.models.yolov4_tiny((3, 32, 64), classes=2, backend="numpy", seed=3)
    for y, head in zip(net.predict(x), net.darknet.heads, strict=True):
        y = 4 * y                       # some centres lie outside of their cells
        loss = head.loss()
        assert loss.scale_xy == 1.05
        boxes = loss.predictions(np, np.moveaxis(y, 0, -1)).boxes
        for k, (i, j) in product(range(3), np.ndindex(head.grid)):
            w, h = head.anchors[head.mask[k]]
            cx, cy, w, h = decoded(y[0], k, i, j, (w / 64, h / 32), head.grid, 2, 1.05)
            np.testing.assert_allclose(boxes[:, k, i, j, 0], [
                cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], rtol=1e-5, atol=1e-6)


@full
def test_yolov4_is_decoded():
    net = xn.models.yolov4((3, 32, 32), classes=2, backend="numpy")
    losses = [head.decoder() for head in net.darknet.heads]
    assert [loss.scale_xy for loss in losses] == [1.2, 1.1, 1.05]
    assert [loss.mask for loss in losses] == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    x = np.random.default_rng(0).uniform(0, 1, (2, 3, 32, 32))
    outputs = net.predict(x)
    found = xn.vision.detections(outputs, losses, (32, 32), score_threshold=0.1)
    by_net = xn.vision.detect(net, x, score_threshold=0.1)
    assert len(found[0].boxes) and all(np.array_equal(a, b) for one, two in zip(
        found, by_net, strict=True) for a, b in zip(one, two, strict=True))
    with pytest.raises(ValueError, match=r"expected iou_loss=mse, as in the losses of xpnet. "
                                         r"Received: iou_loss=ciou in \[yolo\] of layer 139"):
        net.darknet.heads[0].loss()


@pytest.mark.parametrize("option", [
    "iou_loss=giou", "iou_thresh=0.2", "truth_thresh=0.9", "focal_loss=1", "label_smooth_eps=0.1",
    "objectness_smooth=1", "counters_per_class=3,4", "iou_normalizer=0.5", "obj_normalizer=0.5",
    "cls_normalizer=2", "delta_normalizer=2", "max_delta=5"])
def test_another_loss_is_refused_and_decoded(option):
    key, _, value = option.partition("=")
    head, = darknet.network_from_text(HEAD + option, "a.cfg", backend="numpy").darknet.heads
    with pytest.raises(ValueError, match=rf"Head.loss: expected .*{key}.* Received: {key}={value}"):
        head.loss()
    assert head.decoder().anchors == ((2 / 8, 3 / 9),)


def test_other_decodings_are_refused():
    head, = darknet.network_from_text(HEAD + "new_coords=1", "a.cfg", backend="numpy").darknet.heads
    for make in (head.loss, head.decoder):
        with pytest.raises(ValueError, match=r"expected new_coords=0.0.* w = 4 y\^2 times the "
                                             r"anchor. Received: new_coords=1.0 in \[yolo\] of "):
            make()
    head, = darknet.network_from_text(HEAD + "scale_x_y=.5", "a.cfg", backend="numpy").darknet.heads
    with pytest.raises(ValueError, match=r"Head.decoder: expected scale_x_y of 1 or larger. "
                                         r"Received: scale_x_y=0.5 in \[yolo\] of layer 1"):
        head.decoder()
    text = HEAD.replace(NET, "[net]\ninputs=5\n")          # anchors are in pixels of an image
    head, = darknet.network_from_text(text, "a.cfg", backend="numpy").darknet.heads
    with pytest.raises(ValueError, match=r"Head.decoder: expected a network that reads images. "
                                         r"Received: \[yolo\] of layer 1 without height and width"):
        head.decoder()


def test_the_vector_of_the_first_version_is_decoded(tmp_path):
    """[detection] has the classes of all cells first, then the confidences, then the boxes, of
    which it squares the sizes. The map of the network has the order of YOLOv1."""
    S, B, K = 2, 2, 3
    text = (NET + f"[connected]\noutput={S * S * (5 * B + K)}\nactivation=linear\n[detection]\n"
            f"classes={K}\ncoords=4\nside={S}\nnum={B}\nsqrt=1\nrescore=1\nnoobject_scale=.5\n"
            "coord_scale=5\n")
    net = randomized(darknet.network_from_text(text, "a.cfg", backend="numpy"))
    x = np.random.default_rng(1).normal(0, 0.2, (4, 9, 8))
    v = Reference(*saved(net, tmp_path)).outputs(x)[-1]
    loss = net.darknet.heads[0].loss()
    assert repr(loss) == repr(xn.YOLOv1(K, B))
    p = loss.predictions(np, np.moveaxis(net.predict(x[None]), 0, -1))
    for i, j in np.ndindex(S, S):
        cell = S * i + j
        np.testing.assert_allclose(p.classes[:, 0, i, j, 0], v[K * cell:K * cell + K], rtol=1e-4)
        for b in range(B):
            confidence = v[S * S * K + B * cell + b]
            at = S * S * (K + B) + 4 * (B * cell + b)
            cx, cy, w, h = (v[at] + j) / S, (v[at + 1] + i) / S, v[at + 2] ** 2, v[at + 3] ** 2
            assert p.confidence[b, i, j, 0] == pytest.approx(confidence, rel=1e-4)
            np.testing.assert_allclose(p.boxes[:, b, i, j, 0], [
                cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("option", "who"), [
    ("sqrt=0", "decoder"), ("softmax=1", "decoder"), ("reorg=1", "decoder"), ("forced=1", "loss"),
    ("object_scale=2", "loss"), ("class_scale=2", "loss")])
def test_other_first_versions_are_refused(option, who):
    key, _, value = option.partition("=")
    text = (f"[net]\ninputs=5\n[connected]\noutput=6\n[detection]\ncoords=4\nside=1\n{option}\n"
            "sqrt=1\n")
    head, = darknet.network_from_text(text, "a.cfg", backend="numpy").darknet.heads
    with pytest.raises(ValueError, match=rf"Head.{who}: expected {key}=.* Received: {key}={value}.0"
                                         r" in \[detection\] of layer 1"):
        getattr(head, who)()
