"""What the server answers, against the network itself."""

import numpy as np
import pytest

import xpnet as xn


def network():
    return xn.Sequential([xn.Conv2d(3, 3, padding=1), xn.BatchNorm2d(activation="relu"),
                          xn.MaxPool2d(2), xn.Flatten(), xn.Linear(5)], input_shape=(1, 6, 8),
                         backend="numpy", seed=3)


def test_values_are_those_of_the_network(serve):
    net, rng = network(), np.random.default_rng(0)
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


def test_there_is_no_gradient_before_a_target(serve):
    page = serve(network())
    assert page.request("/api/node/1?what=gradient").status_code == 409


@pytest.mark.parametrize("path, status", [
    ("/api/node/6", 400), ("/api/node/-1", 404), ("/api/node/1?side=b", 400),
    ("/api/node/1?what=other", 400), ("/api/parameter/conv1.V", 400), ("/api/other", 404),
    ("/api/trace/1?at=0,0", 400), ("/api/trace/1?at=3,0,0", 400), ("/api/trace/1", 400)])
def test_what_does_not_exist_is_an_error_in_one_line(serve, path, status):
    answer = serve(network()).request(path)
    assert answer.status_code == status and "\n" not in answer.json()["error"]
