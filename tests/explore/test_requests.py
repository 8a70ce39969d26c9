"""Who may ask, and what may be sent."""

from __future__ import annotations

import io
import json
import socket

import numpy as np
import pytest

import xpnet as xn
from xpnet.explore.guard import MOST_BYTES
from xpnet.explore.server import policy


@pytest.fixture(scope="module")
def page(serve_module):
    """One for all tests here, whatever its input is."""
    net = xn.Sequential([xn.Conv2d(2, 3, activation="relu"), xn.Flatten(), xn.Linear(3)],
                        input_shape=(1, 5, 6), backend="numpy")
    return serve_module(net, xn.data.Dataset(np.zeros((4, 1, 5, 6), np.uint8), np.arange(4) % 3))


def error_of(answer, status):
    """The error, which is one line of JSON."""
    assert answer.status_code == status, answer.text
    text = answer.json()["error"]
    assert text.strip() and "\n" not in text and len(text) < 600
    return text


@pytest.mark.parametrize("headers", [
    {"Host": "example.org"}, {"Host": "127.0.0.1"}, {"Host": "127.0.0.1:1"}, {"Host": "LOCALHOST"},
    {"Origin": "https://example.org"}, {"Origin": "null"}, {"X-Token": "wrong"}, {"X-Token": ""},
    {"X-Token": "\N{LATIN SMALL LETTER E WITH ACUTE}".encode()}])
@pytest.mark.parametrize("path", ["/api/model", "/", "/api/other"])
def test_others_are_refused(page, headers, path):
    if path == "/" and "X-Token" in headers:
        return                          # the token of the page is in the query
    token = page.client.headers["X-Token"]
    answer = page.client.get(path, headers=headers, params={"token": token} if path == "/" else {})
    assert " Received: " in error_of(answer, 403)


def test_the_page_needs_its_token(page):
    token = page.client.headers["X-Token"]
    error_of(page.client.get("/"), 403)
    error_of(page.client.get("/?token=wrong"), 403)
    error_of(page.client.get(f"/?token={token}&token={token}"), 403)
    answer = page.client.get("/", params={"token": token})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    rules = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in rules and "unsafe" not in rules
    assert rules == policy(answer.text)


def test_the_page_and_localhost_may_ask(page):
    port = page.client.base_url.port
    for host in "127.0.0.1", "localhost":
        headers = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
        assert page.client.get("/api/model", headers=headers).status_code == 200


def test_scripts_of_the_page_may_run_and_no_others():
    rules = policy("<style>a</style><script type='module'>\nrun();\n</script>")
    assert "script-src 'sha256-" in rules and "style-src 'sha256-" in rules
    assert "script-src 'none'" in policy("<p>")


def test_only_the_loopback_address_listens(page):
    listening = page.explorer._socket
    assert listening.getsockname()[0] == "127.0.0.1"
    assert listening.proto == socket.IPPROTO_TCP        # else asyncio leaves Nagle's delay on


@pytest.mark.parametrize("known", [True, False])
def test_large_bodies_are_refused(page, known):
    """With the length in the head, and in chunks without one."""
    body = b"\0" * (20 << 20)
    content = body if known else (body[k:k + (1 << 20)] for k in range(0, len(body), 1 << 20))
    answer = page.client.post("/api/input?input=0", content=content,
                              headers={"Content-Type": "image/png"})
    assert "8 MiB" in error_of(answer, 413)
    assert len(page.json("/api/model")["nodes"]) == 4       # and it goes on


def test_a_body_of_the_largest_size_is_read(page):
    answer = page.client.post("/api/input?input=0", content=b"\0" * MOST_BYTES)
    assert "float32" in error_of(answer, 400)


@pytest.mark.parametrize("body", [b"", b"\0" * 116, b"\0" * 124,
                                  np.full(30, np.nan, "<f4").tobytes(),
                                  np.full(30, np.inf, "<f4").tobytes()])
def test_wrong_numbers(page, body):
    before = page.array("/api/node/0")
    error_of(page.client.post("/api/input?input=0", content=body), 400)
    np.testing.assert_array_equal(page.array("/api/node/0"), before)


@pytest.mark.parametrize("number", ["1", "-1", "x", "", "9" * 40, "../0"])
def test_wrong_inputs(page, number):
    error_of(page.client.post("/api/input", params={"input": number}, content=b"\0" * 120), 400)


@pytest.mark.parametrize("path, body", [
    ("target", b""), ("target", b"{"), ("target", b"[]"), ("target", b"NaN"), ("target", b"\xff"),
    ("target", b"[" * 100_000), ("target", {"class": 3}), ("target", {"class": -1}),
    ("target", {"class": True}), ("target", {"class": 1.5}), ("target", {"class": "1"}),
    ("target", {"node": 0, "at": [0, 0, 0]}), ("target", {"node": 1}),
    ("target", {"node": 1, "at": [2, 0, 0]}), ("target", {"node": 1, "at": [[0], 0, 0]}),
    ("target", {"class": 1, "node": 1}), ("target", {"other": 1}), ("sample", {"index": 4}),
    ("sample", {"index": -1}), ("sample", {"index": None}), ("sample", {}), ("train", {"lr": 0}),
    ("train", {"lr": "fast"}), ("train", b'{"lr": NaN}'), ("train", {"batch": 0}),
    ("train", {"batch": 1 << 40}), ("train", {"action": "run"}), ("open", {}),
    ("open", {"model": "../../etc/passwd"}), ("open", {"model": "/etc/passwd"}),
    ("open", {"model": ["lenet5"]})])
def test_wrong_requests(page, path, body):
    error_of(page.request(f"/api/{path}", body), 400)
    assert page.json("/api/train")["step"] == 0


def test_a_class_and_an_element_are_not_one_target(page):
    for body, received in ({"class": 0, "node": 1}, "both"), ({}, "neither"):
        assert f"Received: {received}." in error_of(page.request("/api/target", body), 400)


@pytest.mark.parametrize("path", ["/api/node/1/../../x", "/page.html", "/api/open?model=lenet5",
                                  "/api/parameter/..%2F..%2Fetc%2Fpasswd", "/%2e%2e/page.html"])
def test_no_path_leads_to_a_file(page, path):
    assert page.client.get(path).status_code in (400, 404, 405)


def test_answers_never_have_nan(serve):
    """A network that computes NaN: JSON has null."""
    net = xn.Sequential([xn.Conv2d(2, 3, activation="relu"), xn.Flatten(), xn.Linear(3)],
                        input_shape=(1, 5, 6), backend="numpy")
    net.arrays["conv1.W"].data = np.full((2, 1, 3, 3), np.nan)
    page = serve(net)
    page.draw(np.ones((1, 5, 6), np.float32))
    for path in "/api/statistics", "/api/state", "/api/trace/1?at=0,0,0", "/api/trace/3?at=1":
        text = page.request(path).text
        json.loads(text, parse_constant=pytest.fail)
    assert page.json("/api/statistics")[1]["max"] is None
    assert np.isnan(page.array("/api/node/1")).all()


def test_traces_never_have_nan(serve):
    """The numbers of a batch norm, and the gates of a recurrent layer."""
    net = xn.Sequential([xn.BatchNorm1d(), xn.LSTM(2)], input_shape=(3, 4), backend="numpy")
    net.parameters[...] = np.nan
    page = serve(net)
    for path, name in ("1?at=0,0", "numbers"), ("2?at=0", "gates"):
        trace = json.loads(page.request(f"/api/trace/{path}").text, parse_constant=pytest.fail)
        assert trace[name] and trace["value"] is None


def test_two_tabs_share_the_input(page):
    """A second client sees what the first one drew, by a version that has grown."""
    before = page.json("/api/state")["version"]
    x = np.random.default_rng(0).random((1, 5, 6), np.float32)
    page.draw(x)
    with type(page.client)(base_url=page.client.base_url, headers=page.client.headers,
                           trust_env=False) as other:
        assert other.get("/api/state").json()["version"] > before
        answer = other.get("/api/node/0")
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<f4").reshape(1, 5, 6), x)


def test_a_client_that_goes_away(page):
    """In the middle of a body: the next one is answered."""
    port = page.client.base_url.port
    with socket.create_connection(("127.0.0.1", port)) as broken:
        token = page.client.headers["X-Token"]
        broken.sendall(f"POST /api/input?input=0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Token: "
                       f"{token}\r\nContent-Length: 120\r\n\r\n\0".encode())
    assert len(page.json("/api/model")["nodes"]) == 4


# --- image files ----------------------------------------------------------------------------------

def file_of(pixels, kind="PNG", **options):
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed; it reads images")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def upload(page, content, kind="image/png"):
    return page.client.post("/api/input?input=0", content=content, headers={"Content-Type": kind})


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_an_image_becomes_the_input(page, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6), np.uint8)
    answer = upload(page, file_of(pixels, kind), f"image/{kind.lower()}")
    assert answer.status_code == 200 and answer.json()["source"] == "file"
    np.testing.assert_array_equal(page.array("/api/node/0")[0], (pixels / 255).astype(np.float32))


def test_an_image_of_another_size_is_cropped_at_its_centre(page):
    pixels = np.zeros((50, 200), np.uint8)
    pixels[:, 70:130] = 255                             # what is left: 50 x 60
    assert upload(page, file_of(pixels)).status_code == 200
    x = page.array("/api/node/0")
    assert (x[:, :, 1:-1] == 1).all() and x.min() > 0.8     # its edge is a mean with the black


def test_black_and_white_become_the_ends_of_the_range(serve):
    x = np.array([-2, 3], np.float32).reshape(2, 1, 1, 1) * np.ones((1, 1, 4, 4), np.float32)
    net = xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(1, 4, 4), backend="numpy")
    page = serve(net, xn.data.Dataset(x, [0, 1]))
    assert page.json("/api/model")["input_range"] == [-2, 3]
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0] = 255
    assert upload(page, file_of(pixels)).status_code == 200
    y = page.array("/api/node/0")[0]
    assert (y[0] == 3).all() and (y[1:] == -2).all()


def test_damaged_images(page):
    whole = file_of(np.zeros((40, 40), np.uint8))
    for content in (b"", b"no image", whole[:-30], whole[:40], b"GIF89a" + b"\xff" * 30,
                    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        assert "expected a picture" in error_of(upload(page, content), 400)


def test_an_image_of_too_many_pixels(page):
    """A small file of 64 million pixels (a decompression bomb) is not decoded."""
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed; it reads images")
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    assert "pixels" in error_of(upload(page, file.getvalue()), 400)


def test_a_network_without_images_takes_no_file(serve):
    net = xn.Sequential([xn.Linear(2)], input_shape=(4,), backend="numpy")
    page = serve(net)
    assert "1 or 3 channels" in error_of(upload(page, file_of(np.zeros((4, 4), np.uint8))), 400)
