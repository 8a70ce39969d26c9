"""The page of `xpnet explore` in a real browser: what people do in it, and the numbers it shows."""

from __future__ import annotations

import io
import re
import socket
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from browser import PATIENCE, Watched, chromium
from tiers import full

import xpnet as xn

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from xpnet.explore import explore  # noqa: E402

BACKGROUND = "getComputedStyle(document.body).backgroundColor"
ANY_INK = """pad => pad.getContext('2d').getImageData(0, 0, pad.width, pad.height).data
  .some((value, i) => i % 4 < 3 && value > 0)"""
WIDTHS = "[document.scrollingElement.scrollWidth, innerWidth]"
# What the keyboard can reach: everything that can be used and is visible.
USABLE = """[...document.querySelectorAll('button, select, input, textarea, canvas[tabindex]')]
  .filter((one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility())
  .filter((one) => one.type !== 'radio' || one.checked).length"""


def test_the_page_is_one_file_of_at_most_150_kb():
    page = (files("xpnet.explore") / "page.html").read_bytes()
    assert len(page) <= 150_000
    assert not re.search(rb"""(?:src|href|from|import|url)\W{1,2}\s*["']?(?:https?:)?//""", page)


def network(seed: int = 0) -> xn.Network:
    return xn.Sequential([
        xn.Conv2d(4, 3, padding=1, activation="relu"), xn.MaxPool2d(2), xn.Conv2d(6, 3),
        xn.Flatten(), xn.Linear(10)], input_shape=(1, 8, 8), backend="numpy", seed=seed)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("sklearn")
    return xn.data.digits()


@pytest.fixture
def served(browser, data):
    """A network on a page of its own."""
    with explore(network(), data, wait=False, browser=False) as found:
        yield found


@pytest.fixture
def visit(browser):
    """Opens pages, and checks at the end that they made no error and no request to others."""
    opened: list[Watched] = []

    def open_page(url: str, **options: Any) -> Any:
        opened.append(Watched(browser, url, options))
        page = opened[-1].page
        page.locator("#outputs li, #outputs p").first.wait_for()
        page.locator("#pictures canvas").first.wait_for()
        return page

    yield open_page
    for one in opened:
        one.close()


@pytest.fixture
def page(served, visit):
    return visit(served.url, viewport={"width": 1280, "height": 800})


# --- NumPy's own computation ----------------------------------------------------------------------

def convolution(x: np.ndarray, W: np.ndarray, b: np.ndarray, padding: int = 0) -> np.ndarray:
    """Cross-correlation of x (C, H, W), loop by loop, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), (padding,) * 2, (padding,) * 2))
    F, _, KH, KW = W.shape
    H, width = x.shape[1] - KH + 1, x.shape[2] - KW + 1
    return np.array([[[(x[:, i:i + KH, j:j + KW] * W[f]).sum() + b[f] for j in range(width)]
                      for i in range(H)] for f in range(F)])


def forward(net: xn.Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """All values of `network`, computed here from its parameters."""
    p = {name: np.array(array.data) for name, array in net.arrays.items()}
    conv1 = np.maximum(convolution(x, p["conv1.W"], p["conv1.b"], 1), 0)
    pool1 = conv1.reshape(4, 4, 2, 4, 2).max(axis=(2, 4))
    conv2 = convolution(pool1, p["conv2.W"], p["conv2.b"])
    logits = p["linear1.W"].astype(np.float64) @ conv2.ravel() + p["linear1.b"]
    e = np.exp(logits - logits.max())
    return {"input": x, "conv1": conv1, "pool1": pool1, "conv2": conv2, "linear1": logits,
            "probabilities": e / e.sum()}


def given(served: Any) -> np.ndarray:
    """The input that the server has, (1, 8, 8)."""
    return np.array(served.session.inputs[0][0])


# --- what the page shows --------------------------------------------------------------------------

def number(text: str) -> float:
    return float(text.replace("−", "-").rstrip(" %"))


def texts(page: Any, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def shown_probabilities(page: Any) -> np.ndarray:
    return np.array([number(text) / 100 for text in texts(page, "#outputs .value")])


def wait_for_text(page: Any, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).first.wait_for()


def wait_until(page: Any, condition: Any) -> None:
    """Wait until a condition that is asked for here holds, while the page goes on."""
    for _ in range(PATIENCE // 50):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("expected the condition to hold in time")


def choose(page: Any, name: str) -> None:
    page.locator(".tile").filter(has=page.get_by_text(name, exact=True)).click()
    wait_for_text(page, "#layer-title", name)
    page.locator(f"#pictures canvas[aria-label^='{name},']").first.wait_for()   # clicks are its own


def trail(page: Any) -> tuple[str, list[int]]:
    """The element that the page explains: its layer and its indices."""
    text = texts(page, ".trail button")[-1]
    name, at = re.fullmatch(r"(\w+) \[([\d, ]+)\]", text).groups()
    return name, [int(i) for i in at.split(",")]


def cells(page: Any, kind: str) -> np.ndarray:
    """The exact numbers of the tables of values, weights or products, channel by channel."""
    titles = page.locator(f"table.of-{kind}").evaluate_all(
        "all => all.map(t => [...t.rows].map(r => [...r.cells].map(c => c.title)))")
    return np.array([[[0.0 if text == "padding" else number(text.rpartition("= ")[2])
                       for text in row] for row in table] for table in titles])


def explained(page: Any, name: str, at: list[int]) -> None:
    """Wait until the page explains this element."""
    wait_for_text(page, ".trail button[aria-current=step]",
                  f"{name} [{', '.join(map(str, at))}]")


# --- drawing --------------------------------------------------------------------------------------

@full
def test_drawing_with_the_mouse_changes_input_and_predictions(page, served):
    page.locator("#clear").click()
    wait_until(page, lambda: not given(served).any())
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.8, steps=5)
    page.mouse.up()
    wait_until(page, lambda: given(served)[0, 6].any())
    x = given(served)
    assert x[0, 2:6, 3:5].min() > 0.2           # a vertical line in the middle,
    assert x.max() <= 1 and not x[0, :, [0, 1, 6, 7]].any()     # and nothing beside it
    expected = forward(served.session.sides["a"].net, x)["probabilities"]
    wait_until(page, lambda: np.abs(shown_probabilities(page) - expected).max() < 6e-4)


@full
def test_drawing_with_the_keyboard_draws_single_pixels(page, served):
    pad = page.locator("#pad")
    page.locator("#clear").click()
    page.locator("#brush").evaluate("brush => { brush.value = 0.5; }")
    pad.focus()
    for key in ["Home", "ArrowUp", "ArrowUp", " ", "ArrowRight", "ArrowRight", " ", "ArrowDown"]:
        pad.press(key)
    wait_until(page, lambda: given(served)[0, 2, 6] > 0)
    x = given(served)[0]
    drawn = np.argwhere(x > 0.1).tolist()
    assert drawn == [[2, 4], [2, 5], [2, 6]]    # from the middle, two up, then two to the right
    pad.press("Delete")
    wait_until(page, lambda: not given(served).any())


@full
def test_the_mean_over_blocks_gives_a_sample_back_unchanged(page, served):
    """A sample is put on the drawing area; one dot far from it leaves its other pixels alone."""
    pad = page.locator("#pad")
    page.locator("#clear").click()
    wait_until(page, lambda: not given(served).any())
    assert not pad.evaluate(ANY_INK)
    page.locator("#next").click()
    wait_until(page, lambda: pad.evaluate(ANY_INK))
    before = given(served).copy()
    page.locator("#brush").evaluate("brush => { brush.value = 0.5; }")
    pad.focus()
    for key in ["ArrowUp"] * 8 + ["ArrowLeft"] * 8 + [" "]:
        pad.press(key)
    wait_until(page, lambda: given(served)[0, 0, 0] > 0)
    x = given(served)
    x[0, 0, 0] = before[0, 0, 0]
    assert np.abs(x - before).max() < 1 / 255


# --- one element ----------------------------------------------------------------------------------

@full
def test_the_numbers_of_an_element_are_those_of_numpy_as_far_as_the_input(page, served):
    net = served.session.sides["a"].net
    page.locator("#next").click()
    wait_until(page, lambda: given(served).any())
    choose(page, "conv2")
    values = forward(net, given(served))
    canvas = page.locator("#pictures canvas").first
    canvas.click(position={"x": 70, "y": 60})
    page.locator("#element .result").first.wait_for()
    name, (f, i, j) = trail(page)
    W, b = (np.array(net.arrays[f"conv2.{k}"].data) for k in "Wb")
    window = values["pool1"][:, i:i + 3, j:j + 3]
    assert name == "conv2"
    wait_until(page, lambda: cells(page, "values").shape == window.shape)
    np.testing.assert_allclose(cells(page, "values"), window, atol=1e-6)
    np.testing.assert_allclose(cells(page, "weights"), W[f], atol=1e-8)
    np.testing.assert_allclose(cells(page, "products"), window * W[f], atol=1e-6)
    parts = {part: number(page.locator(f"#element .{part}").inner_text())
             for part in ("products-sum", "bias", "whole", "result")}
    assert abs(cells(page, "products").sum() - parts["products-sum"]) < 1e-6
    assert abs(parts["products-sum"] + parts["bias"] - parts["result"]) < 1e-6
    assert parts["whole"] == pytest.approx(values["conv2"][f, i, j], abs=1e-6)
    assert parts["bias"] == pytest.approx(b[f], abs=1e-8)

    page.locator("table.of-values button").nth(4).click()       # the middle of channel 0
    explained(page, "pool1", [0, i + 1, j + 1])
    page.locator("td.chosen").first.wait_for()
    y, x = 2 * (i + 1), 2 * (j + 1)
    block = values["conv1"][0, y:y + 2, x:x + 2]
    np.testing.assert_allclose(cells(page, "values")[0], block, atol=1e-6)
    number_of_it = page.locator("td button").evaluate_all(
        "all => all.findIndex(one => one.parentElement.classList.contains('chosen'))")
    assert number_of_it == block.argmax()                       # of equal values the first

    page.locator("td.chosen button").click()
    y, x = y + block.argmax() // 2, x + block.argmax() % 2
    explained(page, "conv1", [0, y, x])
    padded = np.pad(given(served), ((0, 0), (1, 1), (1, 1)))
    wait_until(page, lambda: cells(page, "weights").shape == (1, 3, 3))
    np.testing.assert_allclose(cells(page, "values"), padded[:, y:y + 3, x:x + 3], atol=1e-6)
    page.locator("table.of-values td:not(.padding) button").first.click()
    wait_for_text(page, "#element .sum", "An element of the input")
    _, at = trail(page)
    shown = number(page.locator("#element .result").inner_text())
    assert shown == pytest.approx(given(served)[tuple(at)], abs=1e-7)
    assert texts(page, ".trail button")[0] == f"conv2 [{f}, {i}, {j}]"
    page.locator(".trail button").first.click()                 # and back to the beginning
    explained(page, "conv2", [f, i, j])


@full
def test_padding_is_marked_and_counts_as_zero(page, served):
    page.locator("#next").click()
    choose(page, "conv1")
    canvas = page.locator("#pictures canvas").first
    canvas.focus()                              # the cursor begins at the first element
    canvas.press("Enter")
    explained(page, "conv1", [0, 0, 0])
    page.locator("td.padding").first.wait_for()
    assert page.locator("td.padding").count() == 5              # of a corner
    canvas.press("ArrowRight")
    canvas.press("PageDown")
    canvas.press("ArrowDown")
    wait_for_text(page, "#readout", "map 1, row 1, column 1")
    canvas.press("Enter")
    explained(page, "conv1", [1, 1, 1])
    wait_until(page, lambda: page.locator("td.padding").count() == 0)
    value = forward(served.session.sides["a"].net, given(served))["conv1"][1, 1, 1]
    assert number(page.locator("#element .result").inner_text()) == pytest.approx(value, abs=1e-6)


# --- files ----------------------------------------------------------------------------------------

@full
def test_an_image_file_becomes_the_input_and_a_damaged_one_a_message(page, served):
    images = pytest.importorskip("PIL.Image")
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:6, 3] = 255
    png = io.BytesIO()
    images.fromarray(pixels).save(png, "PNG")
    page.locator("#file").set_input_files(
        {"name": "one.png", "mimeType": "image/png", "buffer": png.getvalue()})
    wait_for_text(page, "#source", "file")
    np.testing.assert_allclose(given(served)[0], pixels / 255, atol=1e-6)
    damaged = png.getvalue()[:40]
    page.locator("#file").set_input_files(
        {"name": "half.png", "mimeType": "image/png", "buffer": damaged})
    page.locator("#error").wait_for()
    message = page.locator("#error span").inner_text()
    assert "explore" in message and "\n" not in message
    page.locator("#error button").click()
    assert page.locator("#error").is_hidden()
    page.locator("#random").click()
    wait_for_text(page, "#source", "label")


# --- backward -------------------------------------------------------------------------------------

@full
def test_backward_steps_through_the_layers_with_numpys_gradients(page, served):
    net = served.session.sides["a"].net
    page.locator("#next").click()
    wait_until(page, lambda: given(served).any())
    page.locator("#target").select_option("3")
    page.locator("#run-back").click()
    page.locator("#norms button").first.wait_for()
    wait_for_text(page, "#layer-title", "linear1")
    p = forward(net, given(served))["probabilities"]
    d = p - np.eye(10)[3]                                       # of cross entropy
    W = np.array(net.arrays["linear1.W"].data, np.float64)
    norms = [number(text) for text in texts(page, "#norms .value")]
    assert norms[0] == pytest.approx(np.linalg.norm(d), rel=1e-3)
    assert norms[1] == pytest.approx(np.linalg.norm(W.T @ d), rel=1e-3)
    assert f"loss {-np.log(p[3]):.3f}"[:9] in page.locator("#step-where").inner_text()
    canvas = page.locator("#pictures canvas").first
    canvas.focus()
    canvas.press("ArrowRight")
    wait_for_text(page, "#readout", "element 1: ")
    assert number(page.locator("#readout").inner_text().split(": ")[1]) == pytest.approx(
        d[1], abs=1e-6)
    for name in ["flatten1", "conv2", "pool1", "conv1"]:
        page.locator("#step-on").click()
        wait_for_text(page, "#layer-title", name)
    wait_until(page, lambda: page.locator(".tile.reached").count() == 5)
    assert page.locator("input[value=gradient]").is_checked()
    page.locator("#step-back").click()
    wait_for_text(page, "#layer-title", "pool1")
    page.locator("#random").click()             # another input: the same target, new gradients
    wait_until(page, lambda: number(texts(page, "#norms .value")[0]) != norms[0])
    d = forward(net, given(served))["probabilities"] - np.eye(10)[3]
    wait_until(page, lambda: number(texts(page, "#norms .value")[0])
               == pytest.approx(np.linalg.norm(d), rel=1e-3))
    page.locator("#step-end").click()
    wait_until(page, lambda: page.locator(".tile.reached").count() == 0)
    assert page.locator("input[value=gradient]").is_disabled()


# --- training -------------------------------------------------------------------------------------

@full
def test_training_by_steps_starting_pausing_and_starting_again(page, served):
    net = served.session.sides["a"].net
    before = np.array(net.parameters)
    page.locator("#one").click()
    wait_for_text(page, "#progress dd:first-of-type", "1")
    assert (np.array(net.parameters) != before).any()
    page.locator("#rate").fill("0.01")
    page.locator("#rate").press("Enter")
    wait_until(page, lambda: served.session.trainer.lr == 0.01)
    page.locator("#start").click()
    wait_for_text(page, "#start", "Pause")
    wait_until(page, lambda: number(texts(page, "#progress dd")[0]) > 3)
    page.locator("#start").click()
    wait_for_text(page, "#start", "Start")
    assert not served.session.trainer.running
    steps, loss = served.session.trainer.losses[-1]
    wait_until(page, lambda: number(texts(page, "#progress dd")[0]) == steps)
    assert number(texts(page, "#progress dd")[2]) == pytest.approx(loss, rel=1e-3)
    expected = forward(net, given(served))["probabilities"]
    wait_until(page, lambda: np.abs(shown_probabilities(page) - expected).max() < 6e-4)
    page.locator("#reset").click()
    wait_until(page, lambda: number(texts(page, "#progress dd")[0]) == 0)
    assert steps > 3 and (np.array(net.parameters) == before).all()


# --- comparing, sequences, other networks ---------------------------------------------------------

@full
def test_two_networks_are_shown_side_by_side_with_their_largest_difference(
        browser, data, visit, tmp_path):
    first, second = network(0), network(1)
    second.save(tmp_path / "second.safetensors")
    with explore(first, data, compare=str(tmp_path / "second.safetensors"), wait=False,
                 browser=False) as served:
        page = visit(served.url)
        page.locator("#next").click()
        wait_until(page, lambda: given(served).any())
        choose(page, "conv2")
        page.locator("#compare").check()
        wait_until(page, lambda: page.locator("#pictures canvas").count() == 3)
        x = given(served)
        difference = np.abs(forward(first, x)["conv2"] - forward(second, x)["conv2"])
        caption = texts(page, "#pictures figcaption")[2]
        largest, at = re.search(r"at most (\S+), at \(([\d, ]+)\)", caption).groups()
        assert number(largest) == pytest.approx(difference.max(), rel=1e-3)
        assert tuple(int(i) for i in at.split(",")) == np.unravel_index(difference.argmax(),
                                                                        difference.shape)


@full
def test_a_sequence_is_a_heat_map_with_a_slider_for_the_step(browser, visit):
    net = xn.Sequential([xn.Embedding(5, 3), xn.LSTM(4, return_sequences=True), xn.Linear(5)],
                        input_shape=(6,), backend="numpy")
    with explore(net, wait=False, browser=False) as served:
        page = visit(served.url)
        page.locator("#numbers").fill("0 1 2 3 4 0")
        page.get_by_role("button", name="Use these").click()
        wait_until(page, lambda: np.array(served.session.inputs[0]).ravel().tolist()
                   == [0, 1, 2, 3, 4, 0])
        choose(page, "lstm1")
        page.locator("#moment").fill("4")
        wait_for_text(page, "#time-label", "Step 4 of 6")
        canvas = page.locator("#pictures canvas").first
        canvas.focus()
        canvas.press("Enter")
        explained(page, "lstm1", [0, 0])
        wait_for_text(page, "#element", "All gates")
        page.locator("#numbers").fill("0 1 two")
        page.get_by_role("button", name="Use these").click()
        wait_for_text(page, "#error", "expected 6 numbers")


@full
def test_another_network_can_be_opened(page):
    page.locator("#models").select_option("lecun1989")
    wait_until(page, lambda: page.title().startswith("lecun1989"))
    wait_for_text(page, ".tile", "conv2")
    page.locator("#pictures canvas").first.wait_for()


# --- the page as a whole --------------------------------------------------------------------------

@full
def test_colours_follow_the_system_and_the_switch(served, visit):
    page = visit(served.url, color_scheme="dark")
    dark = page.evaluate(BACKGROUND)
    page.locator("#theme").click()
    light = page.evaluate(BACKGROUND)
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (dark, light)]
    assert brightness[0] < 150 and brightness[1] > 600
    page.reload()                                               # the choice is kept
    page.locator("#pictures canvas").first.wait_for()
    assert page.evaluate(BACKGROUND) == light


@full
def test_a_phones_width_is_enough(served, visit):
    page = visit(served.url, viewport={"width": 360, "height": 740}, has_touch=True)
    page.locator("#next").click()
    page.locator("#run-back").click()
    page.locator("#norms button").first.wait_for()
    for name in ["input", "conv1", "pool1", "conv2", "flatten1", "linear1"]:
        choose(page, name)
        page.locator("#pictures canvas").first.click(position={"x": 20, "y": 30})
        page.locator("#element .result").first.wait_for()
        width, inner = page.evaluate(WIDTHS)
        assert width <= inner == 360


@full
def test_the_tab_key_reaches_everything_and_arrows_the_rest(page):
    expected = page.evaluate(USABLE)
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(2 * expected):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("""[...document.querySelectorAll('*')]
            .indexOf(document.activeElement)"""))
    html_and_body = {0, page.evaluate("[...document.querySelectorAll('*')].indexOf(document.body)")}
    assert expected > 20 and len(reached - html_and_body) == expected
    page.locator(".tile[tabindex='0']").focus()
    page.keyboard.press("End")
    wait_for_text(page, "#layer-title", "linear1")
    page.keyboard.press("ArrowLeft")
    wait_for_text(page, "#layer-title", "flatten1")
    page.keyboard.press("Home")
    wait_for_text(page, "#layer-title", "input")


@full
def test_a_second_tab_shows_what_the_first_one_draws(page, served):
    second = page.context.new_page()
    second.goto(served.url)
    second.locator("#outputs li").first.wait_for()
    before = shown_probabilities(page)
    page.locator("#clear").click()
    wait_until(page, lambda: np.abs(shown_probabilities(page) - before).max() > 1e-3)
    wait_until(page, lambda: np.abs(shown_probabilities(second) - shown_probabilities(page)).max()
               < 1e-3)
    page.locator("#models").select_option("lecun1989")
    wait_until(page, lambda: second.title().startswith("lecun1989"))


@full
def test_a_second_tab_shows_a_network_that_is_trained_at_once(page, served):
    """Opened and started between two polls of the second tab, and running until the end."""
    second = page.context.new_page()
    second.goto(served.url)
    second.locator("#outputs li").first.wait_for()
    headers = {"X-Token": served.url.partition("token=")[2]}
    address = served.url.partition("?")[0]
    for path, body in [("open", {"model": "bilici"}), ("train", {"action": "start"})]:
        answer = page.request.post(f"{address}api/{path}", data=body, headers=headers)
        assert answer.ok, answer.text()
    wait_until(page, lambda: second.title().startswith("bilici"))
    wait_for_text(second, ".tile", "pool2")
    assert served.session.trainer.running
    page.request.post(f"{address}api/train", data={"action": "pause"}, headers=headers)


@full
def test_parameters_are_shown_again_when_a_layer_is_chosen_again(page):
    for name, shown in [("conv1", "conv1.W"), ("pool1", None), ("conv1", "conv1.W"),
                        ("linear1", "linear1.W"), ("flatten1", None), ("linear1", "linear1.W")]:
        choose(page, name)
        if shown is None:
            page.locator("#filters").wait_for(state="hidden")
        else:
            wait_for_text(page, "#filters-body h3", shown)
    page.locator("#unit").fill("7")
    page.locator("#unit").press("Enter")
    wait_for_text(page, "#filters-body h3", "of channel 7")


@full
def test_a_closed_server_is_a_banner_and_a_new_one_is_found(browser, data, visit):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with explore(network(), data, port=port, wait=False, browser=False) as served:
        page = visit(served.url)
    wait_for_text(page, "#banner", "does not answer")
    with explore(network(), data, port=port, wait=False, browser=False):
        wait_for_text(page, "#banner", "does not accept this address")
