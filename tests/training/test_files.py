"""Predictions for image files: read as in the training, in batches, as a table."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

import xpnet as xn
from xpnet.data import image_folder, read_image

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of three pictures of different sizes."""
    root = tmp_path_factory.mktemp("photos")
    for k, name in enumerate(("daisy", "poppy")):
        (root / name).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(10 * k + i).integers(0, 256, (9 + i, 12, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def network(*last, shape=(3, 6, 6), outputs=2):
    return xn.Sequential([xn.Conv2d(3, 3), xn.Flatten(), xn.Linear(outputs), *last],
                         input_shape=shape, backend="numpy", seed=1)


def fitted(photos, fit="crop", **options):
    data = image_folder(photos, 6, fit=fit, cache=False)
    net = network()
    net.fit(data, verbose=False, epochs=2, **options)
    return net, data


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_files_are_read_as_in_the_training(fit, photos, tmp_path):
    """Also by a loaded network, and whatever the batches are."""
    net, data = fitted(photos, fit)
    net.save(tmp_path / "net")
    net = xn.load(tmp_path / "net", backend="numpy")
    expected = net.predict_proba(data, batch_size=4)
    found = net.predict_files(photos, batch_size=4)
    assert np.array_equal(found.outputs, expected) and found.what == "probability"
    paths = [photos / name / f"{i}.png" for name in ("daisy", "poppy") for i in range(3)]
    assert [row.path for row in found] == [str(path) for path in paths]
    assert [row.name for row in found] == [data.classes[k] for k in expected.argmax(axis=1)]
    assert [row.value for row in found] == expected.max(axis=1).tolist()
    other = net.predict_files(photos, fit="crop" if fit == "stretch" else "stretch")
    assert not np.array_equal(other.outputs, expected)
    head = net.with_head([xn.Linear(2)])                        # its files are read in the same way
    assert np.array_equal(head.predict_files(photos, loss="cross_entropy").outputs,
                          head.predict_proba(data, loss="cross_entropy"))


def test_paths_in_any_form_and_order(photos, monkeypatch):
    net, _ = fitted(photos)
    whole = net.predict_files(str(photos))
    monkeypatch.chdir(photos)
    some = net.predict_files([os.path.join("poppy", "1.png"), photos / "daisy"])
    assert [row.path for row in some][:1] == [os.path.join("poppy", "1.png")] and len(some) == 4
    np.testing.assert_allclose(some.outputs, whole.outputs[[4, 0, 1, 2]], rtol=1e-5)
    one = net.predict_files(photos / "poppy" / "1.png")
    assert len(one) == 1 and one[0].name == some[0].name and len(some[1:3]) == 2
    assert np.array_equal(some[1:3].outputs, some.outputs[1:3])


def test_the_most_likely_classes_as_a_table(photos):
    net, _ = fitted(photos)
    found = net.predict_files([photos / "poppy" / "0.png"] * 2, top=5)
    row = found[0]
    assert {*row.classes} == {"daisy", "poppy"} and row.values[0] >= row.values[1]
    assert sum(row.values) == pytest.approx(1)
    lines = repr(found).splitlines()
    assert lines[0].split() == ["file", "class", "probability"] and len(lines) == 6
    assert lines[2].split() == [row.path, row.name, f"{row.value:.4f}"]
    assert lines[3].split() == [row.classes[1], f"{row.values[1]:.4f}"]
    assert found._repr_html_().count("<tr>") == 5 and row.path in found._repr_html_()


def test_a_report_with_the_names_that_the_network_knows(photos):
    net, data = fitted(photos)
    report = xn.metrics.report(net.predict_proba(data), data.labels, names=net.classes)
    assert "daisy" in repr(report) and "poppy" in repr(report)


def test_a_long_table_is_cut(photos):
    net, _ = fitted(photos)
    lines = repr(net.predict_files([photos / "poppy" / "0.png"] * 103)).splitlines()
    assert len(lines) == 103 and lines[-1] == "and 3 more files"


def test_of_equal_probabilities_the_first_class_wins(photos):
    net, _ = fitted(photos)
    net.layers[-1].W.data[...] = 0
    net.layers[-1].b.data[...] = 0
    row = net.predict_files(photos / "daisy" / "0.png", top=2)[0]
    assert row.classes == ("daisy", "poppy") and row.values == (0.5, 0.5)


def of_arrays(photos, net, target, loss):
    """Trained on arrays, with the scale set by hand."""
    x = image_folder(photos, 6, cache=False)[:][0] / np.float32(255)
    net.fit(x, target, loss=loss, verbose=False)
    net.scale = 255
    return net, x


LABELS = np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("last, loss", [
    ((), "binary_cross_entropy"), ((xn.Sigmoid,), "binary_cross_entropy"),
    ((xn.Sigmoid,), xn.BinaryCrossEntropy(from_logits=False))])
def test_a_single_probability_is_that_of_the_second_class(last, loss, photos):
    net = network(*(kind() for kind in last), outputs=1)
    net, x = of_arrays(photos, net, LABELS[:, None], loss)
    p = net.predict_proba(x)[:, 0]
    for names in (("0", "1"), ("no", "yes")):
        net.classes = None if names[0] == "0" else names
        found = net.predict_files(photos, top=2)
        for row, share in zip(found, p, strict=True):
            assert row.name == names[int(share > 0.5)]
            assert dict(zip(row.classes, row.values))[names[1]] == pytest.approx(share)
    net.classes = ["poppy"]
    found = net.predict_files(photos)
    assert found.outputs.shape == (6, 1) and {row.classes for row in found} == {("poppy",)}


def test_scores_and_outputs(photos):
    net, x = of_arrays(photos, network(), LABELS, xn.WestonWatkinsHinge())
    found = net.predict_files(photos)
    assert found.what == "score" and np.array_equal(found.outputs, net.predict(x))
    assert [row.name for row in found] == [str(k) for k in net.predict(x).argmax(axis=1)]
    net, x = of_arrays(photos, network(outputs=9), np.ones((6, 9)), "mean_squared_error")
    found = net.predict_files(photos, top=2)
    assert found.what == "output" and np.array_equal(found.outputs, net.predict(x))
    assert found[0].name is None and found[0].values == tuple(net.predict(x)[0].tolist())
    lines = repr(found).splitlines()
    assert lines[0].split() == ["file", "output"] and lines[2].endswith(", ...")
    assert lines[2].count(",") == 8


def test_grey_images_and_another_loss(photos):
    net = network(shape=(1, 4, 7))
    net.scale = 1
    with pytest.raises(ValueError, match='^predict_files: expected loss, e.g. "cross_entropy"'):
        net.predict_files(photos)
    found = net.predict_files(photos / "daisy" / "2.png", loss="cross_entropy")
    x = read_image(photos / "daisy" / "2.png", (4, 7), channels=1)[None].astype(np.float32)
    np.testing.assert_allclose(found.outputs, net.predict_proba(x, loss="cross_entropy"), rtol=1e-6)


@pytest.mark.parametrize("place", [0, 2])
def test_a_damaged_file_is_named(place, photos, tmp_path):
    """The first one, and one that is read in the middle."""
    net, _ = fitted(photos)
    bad = tmp_path / "bad.png"
    bad.write_bytes((photos / "poppy" / "0.png").read_bytes()[:90])
    paths = [photos / "daisy" / "0.png"] * 5
    paths[place] = bad
    with pytest.raises(ValueError, match="^predict_files: expected a picture. Received: .*bad"):
        net.predict_files(paths, batch_size=2)


def test_names_in_one_line(photos, tmp_path):
    net, _ = fitted(photos)
    odd = tmp_path / "a\n\x1b[2Jb.png"
    odd.write_bytes((photos / "poppy" / "0.png").read_bytes())
    found = net.predict_files(odd)
    assert found[0].path == str(odd) and len(repr(found).splitlines()) == 3
    assert "a\\n\\x1b[2Jb.png" in repr(found)


@pytest.mark.parametrize("paths, error, message", [
    ("none.png", FileNotFoundError, "expected a picture. Received: none.png, which does not exist"),
    (["x" * 300], FileNotFoundError, "expected a picture. Received: x+, which does not exist"),
    ([], ValueError, "expected at least one path. Received: none"),
    (".", ValueError, "expected pictures. Received: none in"),
    (3, TypeError, "expected a path or a list of paths. Received: 3"),
    (None, TypeError, "expected a path"), (b"a.png", TypeError, "expected a path"),
    ({"a.png": 1}, TypeError, "expected a path"), ([3], TypeError, "expected the name of a file"),
    ([None], TypeError, "expected the name of a file")])
def test_paths_that_are_refused(paths, error, message, photos, tmp_path, monkeypatch):
    net, _ = fitted(photos)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=f"^predict_files: {message}"):
        net.predict_files(paths)


def test_a_network_without_a_scale(photos):
    net = network()
    with pytest.raises(ValueError, match="^predict_files: expected a network that knows what pixels"
                                         " are divided by; set net.scale = 255.*net.scale=None"):
        net.predict_files(photos, loss="cross_entropy")


def test_networks_that_take_no_images_or_have_other_outputs(photos):
    flat = xn.Sequential([xn.Linear(2)], input_shape=(4,), backend="numpy")
    many = network(shape=(5, 6, 6))
    maps = xn.Sequential([xn.Conv2d(3, 3)], input_shape=(3, 6, 6), backend="numpy")
    x = xn.Input((3, 6, 6))
    two = xn.Network(x, [xn.Linear(2)(xn.Flatten()(x)), xn.Linear(2)(xn.Flatten()(x))],
                     backend="numpy")
    for net, message in ((flat, "one input"), (many, "one input"), (maps, "one output"),
                         (two, "one output")):
        with pytest.raises(ValueError, match=f"^predict_files: expected a network with {message}"):
            net.predict_files(photos, loss="cross_entropy")


def test_without_pillow_the_error_names_the_extra(photos, monkeypatch):
    net, _ = fitted(photos)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'^predict_files: expected Pillow.*xpnet\[data\]'):
        net.predict_files(photos)
