"""The drawing of a network's graph: the boxes and arrows of the SVG file, read back as XML."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_cases import LARGE, SETTINGS, SMALLEST
from nets import branches
from tiers import examples, first

import xpnet as xn
from xpnet.cli import main
from xpnet.inspect import draw as drawing
from xpnet.inspect.layout import lay_out
from xpnet.models import MODELS

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Box:
    texts: tuple[str, ...]
    left: float
    top: float
    right: float
    bottom: float

    def contains(self, x: float, y: float, border: float = 0.11) -> bool:
        return (self.left + border < x < self.right - border
                and self.top + border < y < self.bottom - border)


def rectangle(rect: ElementTree.Element, texts: tuple[str, ...]) -> Box:
    x, y, width, height = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
    return Box(texts, x, y, x + width, y + height)


def read(svg: str) -> tuple[list[Box], list[list[tuple[float, float]]], list[Box]]:
    """The boxes, points of each arrow from its beginning to its end, and the frames."""
    root = ElementTree.fromstring(svg)
    _, whole = root
    frames, arrows, boxes = whole
    found = [rectangle(box.find(f"{SVG}rect"), tuple(text.text for text in box.iter(f"{SVG}text")))
             for box in boxes]
    lines = []
    for path in arrows:
        # As in SVG: M and V with absolute numbers, C a cubic curve; then the head, relative.
        body, head = path.get("d").split("m")
        assert head == "-4 -7l4 7l4 -7"
        points: list[tuple[float, float]] = []
        for letter, numbers in re.findall(r"([MCV])([^MCV]*)", body):
            numbers = [float(number) for number in numbers.split()]
            if letter == "M":
                points.append(tuple(numbers))
            elif letter == "V":
                x, y = points[-1]
                points += [(x, y + (numbers[0] - y) * t) for t in np.linspace(0, 1, 9)[1:]]
            else:
                ends = np.array([points[-1], numbers[:2], numbers[2:4], numbers[4:]])
                for t in np.linspace(0, 1, 17)[1:]:
                    weights = (1 - t)**3, 3 * t * (1 - t)**2, 3 * t**2 * (1 - t), t**3
                    points.append(tuple(weights @ ends))
        lines.append(points)
    return found, lines, [rectangle(frame, ()) for frame in frames]


def check(net: xn.Network) -> tuple[list[Box], list[list[tuple[float, float]]]]:
    """The boxes and arrows are those of the graph, and none is on another one."""
    found = net.draw()
    boxes, lines, _ = read(found.svg)
    nodes = [*net.ins.nodes, *net.nodes]
    assert len(boxes) == len(nodes) + len(net.outs)
    for node, box in zip(nodes, boxes):
        assert drawing.cut(node.name) in box.texts
        assert " x ".join(map(str, node.shape)) in box.texts
        assert node.layer is None or box.texts[0] == type(node.layer).__name__
    for a, b in combinations(boxes, 2):
        assert a.right < b.left or b.right < a.left or a.bottom < b.top or b.bottom < a.top
    for box in boxes:
        assert box.left >= -14 and box.right <= found.width - 14 and box.bottom <= found.height

    wanted = Counter((nodes.index(parent), k) for k, node in enumerate(nodes)
                     for parent in node.parents)
    wanted.update((nodes.index(node), len(nodes) + k) for k, node in enumerate(net.outs.nodes))
    arrows = []
    for line in lines:
        (x, y), (to, end) = line[0], line[-1]
        begin, = [k for k, box in enumerate(boxes) if box.left < x < box.right and box.bottom == y]
        into, = [k for k, box in enumerate(boxes) if box.left < to < box.right and box.top == end]
        arrows.append((begin, into))
        assert all(0 <= x + 14 <= found.width for x, _ in line)
        assert all(above <= below for (_, above), (_, below) in pairwise(line))
        hit = [box for box in boxes if any(box.contains(*point) for point in line)]
        assert not hit, f"the arrow {boxes[begin].texts} -> {boxes[into].texts} runs through {hit}"
    assert Counter(arrows) == wanted
    return boxes, lines


def model(name: str) -> xn.Network:
    return MODELS[name](SMALLEST[name], backend="numpy", **SETTINGS.get(name, {}))


@pytest.mark.parametrize("name", first(
    [name for name in MODELS if name not in LARGE], "googlenet", "resnet18", "unet", "siamese"))
def test_boxes_and_arrows_are_those_of_the_graph(name):
    check(model(name))


@st.composite
def graphs(draw) -> xn.Network:
    """Networks of sums of earlier values, perhaps of the same one several times."""
    inputs = [xn.Input((2,)) for _ in range(draw(st.integers(1, 3)))]
    values = list(inputs)
    for k in range(draw(st.integers(1, 14))):
        of = draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
        name = f"layer{k}"          # else names in parts that are not connected would be equal
        values.append(xn.ReLU(name=name)(of[0]) if len(of) == 1 else xn.Add(name=name)(*of))
    ends = [value for value in values[len(inputs):]
            if not any(value in other.parents for other in values)]
    ends += [value for value in draw(st.lists(st.sampled_from(values[len(inputs):]), max_size=2,
                                              unique=True)) if value not in ends]
    reached = {node for end in ends for node in xn.node.topological([end])}
    return xn.Network([value for value in inputs if value in reached], ends, backend="numpy")


@given(graphs())
@examples(150)
def test_no_arrow_of_any_graph_runs_through_a_box(net):
    check(net)


def test_a_chain_is_a_straight_line():
    boxes, lines = check(model("bilici"))
    middle = {round((box.left + box.right) / 2, 0) for box in boxes}
    assert len(middle) == 1
    assert all(abs(x - line[0][0]) < 0.06 for line in lines for x, _ in line)
    assert [box.top for box in boxes] == sorted(box.top for box in boxes)


def test_branches_are_side_by_side():
    """The four branches of each inception module begin in one row."""
    boxes, _ = check(model("googlenet"))
    top = {text: box.top for box in boxes for text in box.texts}
    assert top["conv4"] == top["conv5"] == top["conv7"] == top["pool3"]


def test_long_arrows_have_two_bends_at_most():
    svg = model("unet").draw().svg
    assert svg.count("<path") > 10
    assert max(line.count("C") for line in svg.splitlines() if line.startswith("<path")) == 2


@pytest.mark.parametrize("parents", [
    [[], [], [1], [2], [1, 3], [2, 4]],
    [[], [], [0, 1], [0], [2, 3], [0, 4]],
    [[], [], [0], [1, 2], [0, 3], [0], [0, 2, 4]],
])
def test_long_lines_stay_straight_where_short_ones_cross_them(parents):
    layout = lay_out(parents, [10.0] * len(parents), gap=5, lane=3)
    inner = [line[1:-1] for of in layout.lines for line in of if len(line) > 3]
    assert inner and all(max(line) - min(line) < 1e-9 for line in inner)


def test_arrows_cross_only_if_they_must():
    """Two chains whose ends are given in the other order."""
    a, b = xn.Input((2,), name="a"), xn.Input((2,), name="b")
    ends = [xn.ReLU()(xn.Tanh()(a)), xn.ELU()(xn.SELU()(b))]
    net = xn.Network([a, b], [ends[1], ends[0]], backend="numpy")
    _, lines = check(net)
    assert all(line[0][0] == pytest.approx(line[-1][0], abs=0.11) for line in lines)


def test_deep_graphs():
    """A thousand rows with long lines, and a chain that recursion could not follow."""
    parents = [[]] + [[k - 1] + ([k - 5] if k >= 5 else []) for k in range(1, 1000)]
    deep = lay_out(parents, [10.0] * 1000, gap=5, lane=3)
    assert deep.rows == tuple(range(1000)) and deep.height == 1000
    chain = lay_out([[]] + [[k] for k in range(4000)], [10.0] * 4001, gap=5, lane=3)
    assert set(chain.centres) == {5.0} and chain.width == 10


def test_many_arrows_end_at_one_box():
    x = xn.Input((2,))
    values = [xn.ReLU()(x) for _ in range(30)]
    boxes, lines = check(xn.Network(x, xn.Add()(x, x, *values), backend="numpy"))
    top, = [box.top for box in boxes if box.texts[0] == "Add"]
    assert len({line[-1][0] for line in lines if line[-1][1] == top}) == 32


def test_an_input_is_above_its_first_reader():
    x, late = xn.Input((2,), name="x"), xn.Input((2,), name="late")
    h = x
    for _ in range(5):
        h = xn.ReLU()(h)
    boxes, _ = check(xn.Network([x, late], xn.Add()(h, late), backend="numpy"))
    top = {box.texts[0]: box.top for box in boxes}
    assert top["late"] == max(box.top for box in boxes if box.texts[0] == "ReLU")


# --- what the boxes say ---------------------------------------------------------------------------

def test_the_parameters_of_a_shared_layer_are_written_once():
    boxes, _ = check(model("siamese"))
    notes = {box.texts[1]: box.texts[-1] for box in boxes if box.texts[0] == "Conv2d"}
    assert notes["conv1"] == "416 parameters" and notes["conv1:2"] == "shared"


def test_outputs_have_their_keys_or_the_names_of_their_layers():
    x = xn.Input((4,))
    h = xn.Linear(3)(x)
    boxes, _ = check(xn.Network(x, {"digit": h, "size": xn.Linear(1)(h)}, backend="numpy"))
    assert [box.texts for box in boxes[-2:]] == [("output digit", "3"), ("output size", "1")]
    boxes, _ = check(xn.Network(x, [xn.Linear(3, name="a")(x)], backend="numpy"))
    assert boxes[-1].texts == ("output a", "3")
    boxes, _ = check(xn.Network(x, {"output": xn.Linear(3)(x)}, backend="numpy"))
    assert boxes[-1].texts == ("output", "3")               # not "output output"


def test_texts_are_escaped_and_shortened():
    x = xn.Input((4,), name='<a href="b">&\x00\ud800')
    net = xn.Network(x, xn.Linear(3, name="long" * 50)(x), backend="numpy", name="</title>")
    boxes, _, _ = read(net.draw().svg)
    assert boxes[0].texts[0] == '<a href="b">&\ufffd\ufffd'
    assert boxes[1].texts[1] == ("long" * 50)[:31] + "…" and len(boxes[1].texts[1]) == 32
    assert boxes[1].right - boxes[1].left < 400


def test_the_drawing_has_a_title():
    root = ElementTree.fromstring(branches().draw().svg)
    assert root.get("role") == "img" and root[0].tag == f"{SVG}title"
    assert root[0].text == "Network: the graph of 9 layers"


def test_a_frame_is_around_each_part():
    """Twice for a part that is used twice, and none where a box of another part is between."""
    def part(name: str) -> xn.Network:
        return xn.Sequential([xn.Linear(4), xn.ReLU()], input_shape=(4,), backend="numpy",
                             name=name)

    inner = xn.Sequential([part("inner"), xn.Tanh()], input_shape=(4,), backend="numpy",
                          name="outer")
    a, b, c = (xn.Input((4,), name=name) for name in "abc")
    shared = part("shared")
    x = xn.Add()(inner(a), shared(b), shared(c))
    y = xn.Input((4,))
    apart = xn.Network(y, xn.Linear(1)(y), backend="numpy", name="apart")
    net = xn.Network([a, b, c], apart(x), backend="numpy")
    boxes, _ = check(net)
    inside = []
    for frame in read(net.draw().svg)[2]:
        members = [box for box in boxes if frame.contains(box.left, box.top)]
        assert all(frame.contains(box.right, box.bottom) for box in members)
        inside.append([box.texts[1] for box in members])
    assert inside == [
        ["outer.inner.linear1", "outer.inner.relu1", "outer.tanh1"],
        ["shared.linear1", "shared.relu1"], ["shared.linear1:2", "shared.relu1:2"],
        ["apart.linear1"], ["outer.inner.linear1", "outer.inner.relu1"]]


def contrast(a: str, b: str) -> float:
    """The contrast ratio of two colours, from 1 to 21: WCAG 2.1."""
    def luminance(colour: str) -> float:
        parts = [int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055)**2.4
                  for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    dark, light = sorted(map(luminance, (a, b)))
    return (light + 0.05) / (dark + 0.05)


def test_texts_and_lines_can_be_read_on_light_and_dark_pages():
    for fill in (*drawing.COLOURS.values(), drawing.PORT, drawing.OTHER):
        assert contrast(drawing.TEXT, fill) > 7 and contrast(drawing.MUTED, fill) > 4.5
    assert contrast(drawing.LINE, "#ffffff") > 3 and contrast(drawing.LINE, "#1e1e1e") > 3


def test_layers_are_coloured_by_their_family():
    class Own(xn.Conv2d):
        pass

    assert drawing._colour(Own(1, 1)) == drawing._colour(xn.Conv1d(1, 1)) == (
        drawing.COLOURS["convolution"])
    assert drawing._colour(xn.MaxPool1d(2)) == drawing.COLOURS["pooling"]
    assert drawing._colour(xn.ReLU()) == drawing.OTHER
    files = {type(layer).__module__.rpartition(".")[2] for layer in (
        xn.Conv2d(1, 1), xn.Linear(1), xn.Embedding(1, 1), xn.MaxPool2d(2), xn.Subsampling2d(2),
        xn.BatchNorm2d(), xn.LocalResponseNorm(), xn.LSTM(1), xn.RNN(xn.ElmanCell(1)),
        xn.MultiHeadAttention(1), xn.Add())}
    assert files == drawing.COLOURS.keys()


# --- files and notebooks --------------------------------------------------------------------------

def test_the_file_is_the_same_each_time(tmp_path):
    net = model("googlenet")
    found = net.draw(tmp_path / "net.svg")
    assert (tmp_path / "net.svg").read_bytes() == found.svg.encode()
    assert found == model("googlenet").draw() and found._repr_svg_() == found.svg
    assert repr(found) == f"<Drawing of {found.width} x {found.height} pixels>"


def test_the_drawing_in_the_documentation_is_up_to_date():
    file = Path(__file__).parents[2] / "docs" / "pictures" / "siamese.svg"
    assert file.read_text() == MODELS["siamese"](backend="numpy").draw().svg


def test_the_name_of_the_file_ends_in_svg(tmp_path):
    with pytest.raises(ValueError, match=r"^draw: expected path to be the name of a .svg file"):
        branches().draw(tmp_path / "net.png")
    with pytest.raises(FileNotFoundError, match="^draw: expected the name of a file in a folder"):
        branches().draw(tmp_path / "nothing" / "net.svg")
    assert not list(tmp_path.iterdir())


def test_the_command_draws(tmp_path, capsys):
    assert main(["summary", "lenet5", "--draw", str(tmp_path / "lenet5.svg")]) == 0
    assert (tmp_path / "lenet5.svg").read_text().count("<rect") == 10
    assert "TableConv2d" in capsys.readouterr().out
    assert main(["summary", "lenet5", "--draw", str(tmp_path / "lenet5.txt")]) == 2
