"""Draw the PNG files of the second half of the course: python docs/draw_course_networks.py

The numbers in each picture are those of its page: its Python blocks are run first, and what they
computed is drawn.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import xpnet as xn
from xpnet.viz.figure import SIGNED, bare, colour, new_figure, title

DOCS = Path(__file__).parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page(name: str) -> dict[str, Any]:
    """The names that the Python blocks of a page define."""
    path, names = DOCS / "course" / name, dict[str, Any]()
    with contextlib.redirect_stdout(io.StringIO()):
        for code in BLOCK.findall(path.read_text(encoding="utf-8")):
            exec(compile(code, str(path), "exec", dont_inherit=True), names)
    return names


def save(figure: Any, file: Path) -> None:
    """Write a PNG file of 128 colours, which is much smaller."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    image = Image.open(drawn).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE)
    image.save(file, optimize=True)


def losses() -> Any:
    """Two losses of a sigmoid whose target is 1, and their gradients."""
    z = np.linspace(-6, 6, 200)
    s = 1 / (1 + np.exp(-z))
    figure = new_figure("losses", 9, 3.2)
    left, right = figure.subplots(1, 2)
    for k, (name, loss, gradient) in enumerate([
            ("cross entropy", -np.log(s), s - 1),
            ("half squared error", (s - 1)**2 / 2, (s - 1) * s * (1 - s))]):
        left.plot(z, loss, color=colour(k), label=name)
        right.plot(z, gradient, color=colour(k), linestyle="-" if k == 0 else "--", label=name)
    left.set(title="loss", xlabel="logit z, target 1")
    right.set(title="gradient with respect to z", xlabel="logit z, target 1")
    left.legend()
    return figure


def ravine() -> Any:
    """The paths of three optimizers, and their costs."""
    paths = page("12-gradient-descent.md")["paths"]
    figure = new_figure("ravine", 11, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    u, v = np.meshgrid(np.linspace(-1.1, 1.1, 200), np.linspace(-0.4, 1.2, 200))
    left.contour(u, v, (100 * u**2 + v**2) / 2, levels=[0.02, 0.1, 0.5, 2, 8, 20, 40],
                 colors="lightgray")
    for k, (name, path) in enumerate(paths.items()):
        left.plot(*path[:61].T, color=colour(k), marker="osD"[k], markersize=3, linewidth=1,
                  label=name)
        right.semilogy((100 * path[:, 0]**2 + path[:, 1]**2) / 2, color=colour(k),
                       linestyle=("-", "--", ":")[k], label=name)
    left.set(xlabel="$w_1$, curvature 100", ylabel="$w_2$, curvature 1", xlim=(-1.1, 1.1),
             ylim=(-0.4, 1.2), title="the first 60 steps")
    right.set(xlabel="step", title="cost", ylim=(1e-5, 100))
    right.legend()
    return figure


def residual() -> Any:
    """The graph of the page on backpropagation."""
    return xn.viz.show_graph(page("13-backpropagation.md")["net"])


def lecun1989() -> Any:
    """The maps of the simplified network, and the deltas of its first convolution."""
    names = page("14-lecun-1989.md")
    rows = [("image", [names["x"]]), ("z1", names["z1"]), ("p1", names["p1"]), ("z2", names["z2"]),
            ("delta of z1", names["d1"])]
    figure = new_figure("lecun1989", 11, 4.4)
    columns = [part.subplots(3, 3 if k == 3 else 1, squeeze=False) for k, part in
               enumerate(figure.subfigures(1, 5, width_ratios=[1, 1, 1, 2.2, 1]))]
    for axes, (name, maps) in zip(columns, rows, strict=True):
        for ax in axes.flat:
            bare(ax)
        flat = list(axes.flat)[1:] if len(maps) == 1 else axes.flat
        limit = max(abs(a).max() for a in maps)
        for number, (ax, a) in enumerate(zip(flat, maps, strict=False)):
            ax.imshow(a, cmap=SIGNED, vmin=-limit, vmax=limit)
            title(ax, f"{name}" if len(maps) == 1 else f"{name}[{number}]")
    return figure


def networks() -> Any:
    """Parameters and multiply-adds of networks."""
    figure = new_figure("networks", 7, 4)
    ax = figure.subplots()
    for k, (name, (parameters, work)) in enumerate(page("15-networks.md")["table"].items()):
        ax.loglog(parameters, work, "osD^vP"[k], color=colour(k), markersize=9)
        ax.annotate(name, (parameters, work), xytext=(8, -4 - 8 * (name == "alexnet")),
                    textcoords="offset points")
    for uses in (1, 10, 100):
        ends = np.array([3e4, 6e8])
        ax.plot(ends, uses * ends, color="lightgray", linewidth=1, zorder=0)
        ax.annotate(f"{uses} per parameter", (3.2e4, 3.2e4 * uses * 1.15), color="gray", fontsize=8,
                    rotation=25, rotation_mode="anchor")
    ax.set(xlabel="parameters", ylabel="multiply-adds for one image", xlim=(3e4, 6e8))
    return figure


def alternating() -> Any:
    """The signal, the feature maps and the costs of the page on deconvolution."""
    names = page("16-deconvolution.md")
    figure = new_figure("alternating", 11, 3.2)
    left, middle, right = figure.subplots(1, 3)
    left.plot(names["y"], "o-", color=colour(0), label="y")
    left.plot(names["F"] @ names["x"], "D--", color=colour(1), label="F x", markersize=4)
    left.set(title="the signal, and what the maps make")
    left.legend()
    for k, (name, row) in enumerate(zip(("blobs", "edges"), names["x"].reshape(2, 12),
                                        strict=True)):
        lines = middle.stem(np.arange(12) + 0.15 * k, row, markerfmt="oD"[k], label=name)
        for line in (lines.markerline, lines.stemlines):
            line.set_color(colour(k))
        lines.baseline.set_color("lightgray")
    middle.set(title="the feature maps at the end")
    middle.legend()
    steps = np.array(names["steps"])
    right.plot(steps[:, 1], color=colour(0), label="A")
    right.plot(steps[:, 2], "--", color=colour(1), label="C")
    for k in range(50, 200, 50):
        right.axvline(k, color="lightgray", zorder=0)
    right.set(title="costs; beta 8, 16, 32, 64", xlabel="step", ylim=(6, 10))
    right.legend()
    return figure


def through_time() -> Any:
    """The gradient with respect to each step, for three recurrent layers."""
    figure = new_figure("through_time", 7, 3.4)
    ax = figure.subplots()
    for k, (name, sizes) in enumerate(page("19-sequences.md")["gradients"].items()):
        ax.semilogy(np.arange(1, 61), sizes, ("-", "--", ":")[k], color=colour(k), label=name)
    ax.set(xlabel="step", ylabel="gradient of the last state")
    ax.legend()
    return figure


def overfitting() -> Any:
    """The curves of a training on few images with wrong labels."""
    return xn.viz.show_training(page("20-training.md")["history"])


PICTURES = (losses, ravine, residual, lecun1989, networks, alternating, through_time, overfitting)

if __name__ == "__main__":
    for draw in PICTURES:
        file = DOCS / "pictures" / "course" / f"{draw.__name__}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        save(draw(), file)
        print(file)
