"""The graph as a figure shows what the SVG drawing shows, at the same places."""

from __future__ import annotations

import re
from html import unescape

import pytest
from nets import branches, small

import xpnet as xn

pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the figures")

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch  # noqa: E402


@pytest.mark.parametrize("net", [small(), branches()], ids=["chain", "branches"])
def test_boxes_texts_and_arrows_are_those_of_the_svg(net):
    ax = Figure().subplots()
    xn.viz.show_graph(net, ax=ax)
    svg = net.draw().svg
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    rects = re.findall(r'<g><title>.*?</title><rect x="([\d.]+)" y="(\d+)" width="([\d.]+)"', svg)
    assert [(round(box.get_x(), 1), box.get_y(), round(box.get_width(), 1)) for box in boxes] == [
        tuple(map(float, rect)) for rect in rects]
    texts = [unescape(text) for text in re.findall(r"<text [^>]*>(.*?)</text>", svg)]
    assert [text.get_text() for text in ax.texts] == texts and texts
    lines = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    starts = re.findall(r'<path d="M([\d.]+) (\d+)', svg)
    assert len(lines) == len(starts) == sum(len(node.parents) for node in net.nodes) + len(
        net.outs.nodes)


def test_wrong_arguments_of_the_graph():
    with pytest.raises(TypeError, match="show_graph: expected net to be a Network. Received: net="):
        xn.viz.show_graph("net")
