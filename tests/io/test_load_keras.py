"""Weights of Keras 3, against formulas with the channels last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import untouched

import xpnet as xn

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    (tmp_path / "a.weights.h5").write_bytes(b"")
    with pytest.raises(ImportError, match=r'load_keras: expected the package h5py. Received: .* '
                                          r'Remedy: pip install "xpnet\[keras\]"'):
        net.load_keras(tmp_path / "a.weights.h5")
    with pytest.raises(FileNotFoundError, match="load_keras: expected the name of"):
        net.load_keras(tmp_path / "none.weights.h5")


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py", reason='h5py is not installed: pip install "xpnet[keras]"')


def written(h5py: Any, path: Path, **layers: list[np.ndarray]) -> Path:
    """A file as model.save_weights writes it; __ in a name is a group in a group."""
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for name, arrays in layers.items():
            group = file.create_group(f"layers/{name.replace('__', '/')}/vars")
            for number, array in enumerate(arrays):
                group[str(number)] = array
    return path


def test_a_convolutional_network(h5py: Any, tmp_path: Path):
    """Convolution, batch norm, and a dense layer behind Flatten, by loops with channels last."""
    net = xn.Sequential([xn.Conv2d(3, (2, 3)), xn.BatchNorm2d(), xn.Flatten(), xn.BatchNorm1d(),
                         xn.Linear(4)], input_shape=(2, 4, 5), backend="numpy")
    K, b = normal(2, 3, 2, 3), normal(3)
    norm1, norm2 = ([normal(n), normal(n), normal(n), normal(n)**2] for n in (3, 27))
    D, d = normal(27, 4), normal(4)
    path = written(h5py, tmp_path / "a.weights.h5", conv2d=[K, b], batch_normalization=norm1,
                   batch_normalization_1=norm2, dense=[D, d], flatten=[])
    report = net.load_keras(path)
    assert report.complete and report.sources["conv1.W"] == "conv2d.0"
    x = normal(4, 5, 2)                                             # (H, W, C)
    y = np.zeros((3, 3, 3))
    for i, j, f in np.ndindex(3, 3, 3):
        y[i, j, f] = (x[i:i + 2, j:j + 3] * K[..., f]).sum() + b[f]

    def normed(y: np.ndarray, gamma: Any, beta: Any, mean: Any, var: Any) -> np.ndarray:
        return (y - mean) / np.sqrt(var + 1e-5) * gamma + beta

    expected = normed(normed(y, *norm1).ravel(), *norm2) @ D + d
    found = net.predict(np.moveaxis(x, -1, 0)[None])[0]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-4)


def test_slopes_of_prelu(h5py: Any, tmp_path: Path):
    """A slope for each channel, for all, and for each feature behind Flatten."""
    net = xn.Sequential([xn.PReLU(per_channel=True), xn.PReLU(), xn.Flatten(),
                         xn.PReLU(per_channel=True)], input_shape=(2, 3, 4), backend="numpy")
    slopes = [rng.random((1, 1, 2)), rng.random((1, 1, 1)), rng.random(24)]
    assert net.load_keras(written(h5py, tmp_path / "a.weights.h5", p_re_lu=[slopes[0]],
                                  p_re_lu_1=[slopes[1]], p_re_lu_2=[slopes[2]])).complete
    y = x = normal(3, 4, 2)                                         # (H, W, C)
    for a in (slopes[0], slopes[1], slopes[2].reshape(3, 4, 2)):
        y = np.where(y > 0, y, a * y)
    found = net.predict(np.moveaxis(x, -1, 0)[None])[0].reshape(2, 3, 4)
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), y, rtol=1e-6)


def test_scales_of_norms(h5py: Any, tmp_path: Path):
    """Of the channels, and of all elements of a cube, whose axes cannot be told by their sizes."""
    net = xn.Sequential([xn.RMSNorm(axis=0), xn.LayerNorm(), xn.LayerNorm(axis=(1, 2)),
                         xn.RMSNorm(), xn.Flatten(), xn.RMSNorm()], input_shape=(3, 3, 3),
                        backend="numpy")
    scales = [normal(3), normal(3, 3, 3), normal(3, 3), normal(3, 3, 3), normal(27)]
    shifts = [normal(3, 3, 3), normal(3, 3)]
    assert net.load_keras(written(
        h5py, tmp_path / "a.weights.h5", rms_normalization=[scales[0]],
        layer_normalization=[scales[1], shifts[0]], layer_normalization_1=[scales[2], shifts[1]],
        rms_normalization_1=[scales[3]], rms_normalization_2=[scales[4]])).complete

    def normed(y: np.ndarray, axis: Any, scale: np.ndarray, shift: np.ndarray | None = None
               ) -> np.ndarray:
        y = y if shift is None else y - y.mean(axis=axis, keepdims=True)
        y = y / np.sqrt((y**2).mean(axis=axis, keepdims=True) + 1e-5 * (shift is not None))
        return y * scale + (0 if shift is None else shift)

    x = normal(3, 3, 3)                                             # (H, W, C)
    y = normed(normed(x, -1, scales[0]), None, scales[1], shifts[0])
    y = normed(y, (0, 1), scales[2][..., None], shifts[1][..., None])
    y = normed(normed(y, None, scales[3]), None, scales[4].reshape(3, 3, 3))
    found = net.predict(np.moveaxis(x, -1, 0)[None])[0].reshape(3, 3, 3)
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), y, rtol=2e-5, atol=2e-5)


def test_layers_of_a_class_are_numbered(h5py: Any, tmp_path: Path):
    net = xn.Sequential([xn.Linear(3) for _ in range(12)], input_shape=(3,), backend="numpy")
    arrays = [[normal(3, 3), normal(3)] for _ in range(12)]
    names = {f"dense_{k}" if k else "dense": pair for k, pair in enumerate(arrays)}
    net.load_keras(written(h5py, tmp_path / "a.weights.h5", **names))
    for k, (W, b) in enumerate(arrays):
        assert np.array_equal(net.arrays[f"linear{k + 1}.W"].data, W.T)
        assert np.array_equal(net.arrays[f"linear{k + 1}.b"].data, b)


def test_other_convolutions(h5py: Any, tmp_path: Path):
    net = xn.Sequential([xn.DepthwiseConv2d(2, depth_multiplier=3), xn.SeparableConv2d(4, 2),
                         xn.ConvTranspose2d(5, 2)], input_shape=(2, 6, 6), backend="numpy")
    D, depth, point, T = normal(2, 2, 2, 3), normal(2, 2, 6, 1), normal(1, 1, 6, 4), normal(
        2, 2, 5, 4)
    b = [normal(n) for n in (6, 4, 5)]
    net.load_keras(written(h5py, tmp_path / "a.weights.h5", depthwise_conv2d=[D, b[0]],
                           separable_conv2d=[depth, point, b[1]], conv2d_transpose=[T, b[2]]))
    a = {name: p.data for name, p in net.arrays.items()}
    for c, m in np.ndindex(2, 3):
        assert np.array_equal(a["conv1.W"][c * 3 + m, 0], D[:, :, c, m])
    for c, f in np.ndindex(6, 4):
        assert np.array_equal(a["conv2.depthwise.W"][c, 0], depth[:, :, c, 0])
        assert a["conv2.pointwise.W"][f, c] == point[0, 0, c, f]
    deconv = next(name for name in a if name.startswith("deconv") or name == "conv3.W")
    for c, f in np.ndindex(4, 5):
        assert np.array_equal(a[deconv][c, f], T[:, :, f, c])


def test_recurrent_layers(h5py: Any, tmp_path: Path):
    net = xn.Sequential([xn.Embedding(7, 4), xn.LSTM(3, return_sequences=True),
                         xn.GRU(2, bidirectional=True)], input_shape=(5,), backend="numpy")
    E, lstm = normal(7, 4), [normal(4, 12), normal(3, 12), normal(12)]
    forth, back = ([normal(3, 6), normal(2, 6), normal(2, 6)] for _ in range(2))
    path = written(h5py, tmp_path / "a.weights.h5", embedding=[E], lstm__cell=lstm,
                   bidirectional__forward_layer__cell=forth,
                   bidirectional__backward_layer__cell=back)
    assert net.load_keras(path).complete
    assert np.array_equal(net.arrays["embedding1.W"].data, E)
    assert np.array_equal(net.arrays["lstm1.forward1.W"].data, lstm[0].T)     # i f g o in both
    z, r, n = np.split(back[0].T, 3)
    reverse = next(p.data for name, p in net.arrays.items() if name.endswith("reverse1.W"))
    assert np.array_equal(reverse, np.concatenate([r, z, n]))


def test_a_layer_that_reads_in_reverse_alone(h5py: Any, tmp_path: Path):
    net = xn.Sequential([xn.LSTM(3, reverse=True)], input_shape=(4, 5), backend="numpy")
    lstm = [normal(4, 12), normal(3, 12), normal(12)]
    assert net.load_keras(written(h5py, tmp_path / "a.weights.h5", lstm__cell=lstm)).complete
    assert np.array_equal(net.arrays["lstm1.reverse1.W"].data, lstm[0].T)


def test_chunks_that_are_larger_than_their_array(h5py: Any, tmp_path: Path):
    """HDF5 unpacks whole chunks, so a small file could need any amount of memory."""
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    W, b = normal(3, 2), normal(2)
    for chunk, fine in ((1 << 10, True), (1 << 20, False)):
        path = written(h5py, tmp_path / "a.weights.h5", dense=[W])
        with h5py.File(path, "r+") as file:
            file.create_dataset("layers/dense/vars/1", data=b, maxshape=(None,), chunks=(chunk,),
                                compression="gzip")
        if fine:
            assert net.load_keras(path).complete
        else:
            with pytest.raises(ValueError, match="nothing for linear1.W, linear1.b"):
                net.load_keras(path)


def test_refusals(h5py: Any, tmp_path: Path):
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    before = net.parameters.copy()
    cases: list[tuple[dict[str, list[np.ndarray]], str]] = [
        ({"dense": [normal(2, 3), normal(2)]},
         r"with linear1.W of shape \(2, 3\) instead of \(3, 2\)"),
        ({"dense": [normal(3, 2), normal(2)], "conv2d": [normal(1, 1, 1, 1)]},
         "no place for conv2d.0"),
        ({"conv2d": [normal(1, 1, 1, 1)]}, "nothing for linear1.W, linear1.b; no place for")]
    for layers, reason in cases:
        with pytest.raises(ValueError, match=reason):
            net.load_keras(written(h5py, tmp_path / "a.weights.h5", **layers))
    (tmp_path / "b.weights.h5").write_bytes(b"no file of this kind")
    with pytest.raises(ValueError, match="expected a .weights.h5 file of Keras 3"):
        net.load_keras(tmp_path / "b.weights.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["model_weights/dense"] = normal(3)
    with pytest.raises(ValueError, match="with a group layers. Received: .* has model_weights"):
        net.load_keras(tmp_path / "c.h5")
    with h5py.File(tmp_path / "d.h5", "w") as file:         # a link to another file
        file["layers/dense/vars/0"] = h5py.ExternalLink("a.weights.h5", "/layers/dense/vars/0")
    with pytest.raises(ValueError, match="nothing for linear1.W"):
        net.load_keras(tmp_path / "d.h5")
    assert np.array_equal(net.parameters, before)
    other = xn.Sequential([xn.Linear(16), xn.Reshape((1, 4, 4))], input_shape=(3,),
                          backend="numpy")
    with pytest.raises(ValueError, match="expected no layer that turns features into maps"):
        other.load_keras(tmp_path / "d.h5")


def test_numbers_in_other_files_are_left_out(h5py: Any, tmp_path: Path):
    """A dataset may say that its numbers are in any file, or in datasets of other files."""
    net = xn.Sequential([xn.Linear(2, bias=False)], input_shape=(3,), backend="numpy")
    (tmp_path / "secret").write_bytes(normal(3, 2).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = normal(3, 2)
    for name in ("external", "virtual", "link"):
        path = tmp_path / f"{name}.weights.h5"
        with h5py.File(path, "w") as file:
            group = file.create_group("layers/dense/vars")
            if name == "external":
                group.create_dataset("0", (3, 2), "f4", external=str(tmp_path / "secret"))
            elif name == "link":
                group["0"] = h5py.ExternalLink(tmp_path / "other.h5", "a")
            else:
                layout = h5py.VirtualLayout((3, 2), "f4")
                layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "a", (3, 2))
                group.create_virtual_dataset("0", layout)
        with untouched(net), pytest.raises(ValueError, match="load_keras: expected .*linear1.W"):
            net.load_keras(path)


def test_damaged_files(h5py: Any, tmp_path: Path):
    """h5py's own errors have other classes and two lines."""
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    path = written(h5py, tmp_path / "a.weights.h5", dense=[normal(3, 2), normal(2)])
    good, refused = path.read_bytes(), 0
    for at in range(0, len(good), 24):
        path.write_bytes(good[:at] + b"\xff" * 4 + good[at + 4:])
        try:
            net.load_keras(path)
        except ValueError as error:
            refused += 1
            assert "load_keras: expected" in str(error) and "\n" not in str(error)
    assert refused > 20
