"""What the server answers, against the network itself."""

from tempfile import TemporaryDirectory
from urllib.parse import quote

import numpy as np
import pytest
from tiers import first

import xpnet as xn
from xpnet.explore.opening import compared


def network(backend="numpy"):
    return xn.Sequential([xn.Conv2d(3, 3, padding=1), xn.BatchNorm2d(activation="relu"),
                          xn.MaxPool2d(2), xn.Flatten(), xn.Linear(5)], input_shape=(1, 6, 8),
                         backend=backend, seed=3)


@pytest.mark.parametrize("backend", first(["numpy", "numba"], "numpy"))
def test_values_are_those_of_the_network(serve, backend):
    if backend == "numba":
        pytest.importorskip("numba", reason="numba is not installed")
    net, rng = network(backend), np.random.default_rng(0)
    net.classes = list("abcde")
    page = serve(net, name="small")
    model = page.json("/api/model")
    assert model["name"] == "small" and model["classes"] == list("abcde")
    assert [node["type"] for node in model["nodes"]] == ["Input", "Conv2d", "BatchNorm2d",
                                                         "MaxPool2d", "Flatten", "Linear"]
    x = rng.random((1, 6, 8), np.float32)
    state = page.draw(x)
    for node in model["nodes"][1:]:
        y = page.array(f"/api/node/{node['index']}")
        assert list(y.shape) == node["shape"]
        np.testing.assert_array_equal(y, net.output_of(node["name"], x[None])[0])
    z = net.predict(x[None])[0].astype(np.float64)
    p = np.exp(z) / np.exp(z).sum()
    top = state["outputs"][0]["top"]
    assert [row["class"] for row in top] == np.argsort(-p).tolist()
    assert top[0]["name"] == "abcde"[p.argmax()]
    np.testing.assert_allclose([row["probability"] for row in top], np.sort(p)[::-1], rtol=1e-6)
    np.testing.assert_array_equal(page.array("/api/parameter/conv1.W"), net.arrays["conv1.W"].data)


@pytest.fixture(scope="module")
def small(serve_module):
    return serve_module(network())


def test_parts_of_arrays(small):
    whole = small.array("/api/node/1")
    np.testing.assert_array_equal(small.array("/api/node/1?first=2"), whole[:2])
    np.testing.assert_array_equal(small.array("/api/node/1?first=99"), whole)
    W = small.array("/api/parameter/linear1.W")
    np.testing.assert_array_equal(small.array("/api/parameter/linear1.W?row=4"), W[4])
    for path in "parameter/linear1.W?row=5", "parameter/linear1.W?row=-1", "node/1?first=x":
        assert small.request(f"/api/{path}").status_code == 400


def test_names_may_have_any_characters(serve):
    """As those of ONNX files have: /block/conv, a?b#c."""
    names = "/block/conv", "a?b#c d", "../x"
    net = xn.Sequential([xn.Linear(2, name=name) for name in names], input_shape=(3,),
                        backend="numpy")
    page = serve(net)
    for name, W in zip(names, (p.data for p in net.arrays.values() if p.name == "W"), strict=True):
        np.testing.assert_array_equal(page.array(f"/api/parameter/{quote(name + '.W', safe='')}"),
                                      W)


def test_there_is_no_gradient_before_a_target(small):
    assert small.request("/api/node/1?what=gradient").status_code == 409
    assert small.request("/api/parameter/conv1.W?what=gradient").status_code == 409
    assert small.json("/api/statistics")[1]["gradient_norm"] is None


def test_statistics(small):
    x = np.random.default_rng(1).normal(size=(1, 6, 8)).astype(np.float32)
    x[0, 0] = 0
    small.draw(x)
    row = small.json("/api/statistics")[0]
    x = x.astype(float)
    assert row["min"] == x.min() and row["max"] == x.max() and row["zeros"] == 8 / 48
    assert row["mean"] == pytest.approx(x.mean()) and row["std"] == pytest.approx(x.std())
    assert row["histogram"] == np.histogram(x, 32)[0].tolist()


def finite_differences(net, x, loss, node):
    """The derivative of a loss(net) with respect to elements of a value, by finite differences of
    the layers behind it."""
    rest = [n for n in net.nodes if net.nodes.index(n) > net.nodes.index(node)]
    y = net.output_of(node.name, x[None])[0].astype(float)

    def of(value):
        for n in rest:
            value = np.asarray(n.layer.forward(value[..., None], mode=xn.PREDICT))[..., 0]
        return loss(value)

    found = np.zeros_like(y)
    for at in np.ndindex(*y.shape):
        up, down = y.copy(), y.copy()
        up[at] += 1e-5
        down[at] -= 1e-5
        found[at] = (of(up) - of(down)) / 2e-5
    return found


def test_gradients_are_those_of_the_loss_of_a_class(serve):
    """And of one element, in float64 against finite differences; the network keeps its own."""
    net = xn.Sequential([xn.Conv2d(2, 3, activation="tanh"), xn.Flatten(), xn.Linear(4)],
                        input_shape=(1, 5, 5), backend="numpy", dtype="float64")
    net.grads[...] = before = np.arange(net.grads.size)
    page = serve(net)
    x = np.random.default_rng(5).normal(size=(1, 5, 5)).astype(np.float32)
    page.draw(x)
    answer = page.json("/api/target", {"class": 2})
    assert answer["order"] == [3, 2, 1, 0]

    def cross_entropy(z):
        return np.log(np.exp(z).sum()) - z[2]

    z = net.predict(x[None].astype(float))[0]
    assert answer["loss"] == pytest.approx(cross_entropy(z), rel=1e-12)
    conv, flatten, _ = net.nodes
    for index, node in ((1, conv), (2, flatten)):
        dy = finite_differences(net, x.astype(float), cross_entropy, node)
        np.testing.assert_allclose(page.array(f"/api/node/{index}?what=gradient"), dy, atol=1e-7)
        assert answer["norms"][str(index)] == pytest.approx(np.linalg.norm(dy), rel=1e-6)
    dz = np.exp(z) / np.exp(z).sum() - np.eye(4)[2]
    np.testing.assert_allclose(page.array("/api/node/3?what=gradient"), dz, rtol=1e-6)
    np.testing.assert_allclose(page.array("/api/parameter/linear1.b?what=gradient"), dz, rtol=1e-6)
    np.testing.assert_allclose(
        page.array("/api/node/0?what=gradient"),
        net.input_gradient(x[None].astype(float), [2], loss="cross_entropy")[0], rtol=1e-6)

    page.json("/api/target", {"node": 1, "at": [1, 2, 0]})
    np.testing.assert_array_equal(page.array("/api/node/1?what=gradient"),
                                  np.eye(18)[9 + 6].reshape(2, 3, 3))
    assert not page.array("/api/node/3?what=gradient").any()    # it does not depend on it
    np.testing.assert_array_equal(net.grads, before)

    page.draw(2 * x)                    # the target stays, for a new input
    dx = net.input_gradient(2 * x[None].astype(float), output_gradient=np.zeros((1, 4)))
    assert dx.shape == (1, 1, 5, 5)
    changed = page.array("/api/node/0?what=gradient")
    W = net.arrays["conv1.W"].data[1, 0]
    y = net.output_of("conv1", 2 * x[None].astype(float))[0, 1, 2, 0]
    expected = np.zeros((5, 5))
    expected[2:5, :3] = W * (1 - y * y)
    np.testing.assert_allclose(changed[0], expected, rtol=1e-6, atol=1e-12)


def test_two_backends_are_compared(serve):
    net = network()
    page = serve(net, compare="numpy")
    model = page.json("/api/model")
    assert model["backend"] == {"a": "numpy", "b": "numpy"} and model["compare"] == {
        "what": "numpy"}
    x = np.random.default_rng(0).random((1, 6, 8), np.float32)
    page.draw(x)
    net.arrays["conv1.W"].data = 2 * net.arrays["conv1.W"].data
    page.draw(x)                        # a mirror has the parameters of now
    for index in range(6):
        np.testing.assert_array_equal(page.array(f"/api/node/{index}?side=b"),
                                      page.array(f"/api/node/{index}"))
    page.json("/api/target", {"class": 1})
    np.testing.assert_array_equal(page.array("/api/node/1?side=b&what=gradient"),
                                  page.array("/api/node/1?what=gradient"))


def test_a_file_is_compared(serve, tmp_path):
    net, older = network(), network()
    older.arrays["linear1.b"].data = np.arange(5)
    older.save(tmp_path / "older.safetensors")
    page = serve(net, compare=str(tmp_path / "older.safetensors"))
    x = np.random.default_rng(0).random((1, 6, 8), np.float32)
    page.draw(x)
    np.testing.assert_array_equal(page.array("/api/node/5?side=b"), older.predict(x[None])[0])
    np.testing.assert_array_equal(page.array("/api/parameter/linear1.b?side=b"), np.arange(5))
    assert page.json("/api/trace/5?at=2&side=b")["bias"] == 2


def crossed(first: str, second: str, out: str) -> xn.Network:
    """Three layers of one class and shape, connected in different ways."""
    values = {"x": xn.Input((2, 5))}
    for name, reads in [("a", "x"), ("b", first), ("y", second)]:
        values[name] = xn.Tanh(name=name)(values[reads])
    return xn.Network(values["x"], xn.Add(name="sum")(values["y"], values[out]), backend="numpy")


@pytest.mark.parametrize("other, difference", [
    (crossed("x", "b", "a"), "where a reads input and not b"),
    (crossed("a", "a", "b"), "where b reads a and not b"),
    (crossed("a", "b", "b"), "where sum reads y, b and not y, a")])
def test_a_file_with_other_connections_is_not_compared(other, difference):
    net = crossed("a", "b", "a")
    with pytest.raises(ValueError, match=difference):
        compared_with(net, other)


@pytest.mark.parametrize("other, difference", [
    (xn.Sequential([xn.Linear(3), xn.ReLU()], input_shape=(4,)), "linear1 has the shape"),
    (xn.Sequential([xn.Linear(2), xn.Tanh()], input_shape=(4,)), "tanh1 is Tanh and not ReLU"),
    (xn.Sequential([xn.Linear(2)], input_shape=(4,)), "which has 2 values and not 3")])
def test_the_first_difference_of_a_file_is_named(other, difference):
    net = xn.Sequential([xn.Linear(2), xn.ReLU()], input_shape=(4,), backend="numpy")
    with pytest.raises(ValueError, match=difference):
        compared_with(net, other)
    assert compared_with(net, net)[1] is False


def compared_with(net: xn.Network, other: xn.Network) -> tuple[xn.Network, bool]:
    with TemporaryDirectory() as folder:
        other.save(path := f"{folder}/other.safetensors")
        return compared(net, path)


def test_a_file_of_another_structure_is_not_compared(serve, tmp_path):
    xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(1, 6, 8), backend="numpy").save(
        tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="same structure"):
        serve(network(), compare=str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="neither"):
        serve(network(), compare="nonsense")


def test_samples_are_those_for_testing(serve):
    x = np.arange(10 * 48, dtype=np.uint8).reshape(10, 1, 6, 8)
    test = xn.data.Dataset(x[:4], [0, 1, 2, 3], classes=[*"abcde"])
    page = serve(network(), xn.data.Dataset(x, np.arange(10) % 5, classes=[*"abcde"], test=test))
    assert page.json("/api/model")["samples"] == {"count": 4, "labels": True}
    state = page.json("/api/state")
    assert state == {"version": 2, "network": 1, "source": "sample", "label": 0, "index": 0,
                     "outputs": state["outputs"], "ms": None}
    np.testing.assert_array_equal(page.array("/api/node/0"), (x[0] / 255).astype(np.float32))
    state = page.json("/api/sample", {"index": 2})
    assert (state["label"], state["index"], state["source"]) == (2, 2, "sample")
    np.testing.assert_array_equal(page.array("/api/node/0"), (x[2] / 255).astype(np.float32))
    drawn = {page.json("/api/sample", {"random": True})["index"] for _ in range(30)}
    assert drawn == {0, 1, 2, 3}


@pytest.mark.parametrize("path, status", [
    ("/api/node/6", 400), ("/api/node/-1", 404), ("/api/node/1?side=b", 400),
    ("/api/node/1?what=other", 400), ("/api/parameter/conv1.V", 400), ("/api/other", 404),
    pytest.param(f"/api/node/{'9' * 5000}", 404, id="5,000 digits"),
    ("/api/trace/1?at=0,0", 400), ("/api/trace/1?at=3,0,0", 400), ("/api/trace/1", 400)])
def test_what_does_not_exist_is_an_error_in_one_line(small, path, status):
    answer = small.request(path)
    assert answer.status_code == status and "\n" not in answer.json()["error"]
