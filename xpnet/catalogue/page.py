"""Make the page docs/catalogue.md and its images of the activations from the code.

    python -m xpnet.catalogue.page docs

The text comes from the docstrings and from the items; the images need matplotlib, the extra `viz`.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import xpnet
from xpnet.catalogue import FAMILIES, Item
from xpnet.layers import Activation
from xpnet.viz.activations import curve, without_jumps
from xpnet.viz.figure import new_figure

PICTURES = "pictures/activations"
LIBRARIES = {"PyTorch": "pytorch", "Keras": "keras", "NumPyNet": "numpynet"}

HEAD = """# Catalogue

Every building block of the library: what it computes, and where it comes from. X is the input, Y
the output, both batch-last. Each name links to the file that contains the forward and the backward
pass, next to the formula and its gradient. `make catalogue` makes this page from the docstrings.
`python -m xpnet verify` checks all gradients, compares every backend of your machine with the
float64 reference, and says which implementations ran.
"""

ELSEWHERE = """## Names in other libraries

The name of each item in other libraries, if they have a class or a function for it, else —. The
names of PyTorch are in `torch.nn`, `torch.nn.functional`, `torch.optim` and
`torch.optim.lr_scheduler` unless the name begins otherwise; those of Keras in `keras.layers`,
`keras.activations`, `keras.losses`, `keras.metrics`, `keras.optimizers` and `keras`. They were
looked up in PyTorch 2.13, Keras 3.15 and NumPyNet's repository. A name means that the library has
something of this kind, not that it agrees in every detail.
"""


def drawn(item: Item) -> bool:
    """Whether the item is an elementwise function, which an image can show."""
    return (item.curve or isinstance(item.what, type) and issubclass(item.what, Activation)
            and item.what is not Activation)


def text() -> str:
    """The page in Markdown."""
    parts = [HEAD]
    for family, items in FAMILIES.items():
        pictures = any(drawn(item) for item in items)
        head = ["", "name", "formula", "source"] if pictures else ["name", "formula", "source"]
        parts.append(f"## {family}\n\n{_table(head, [_row(item, pictures) for item in items])}")
    every = [item for items in FAMILIES.values() for item in items]
    lacking = {library: sum(not getattr(item, field) for item in every)
               for library, field in LIBRARIES.items()}
    parts.append(ELSEWHERE)
    parts.append(_table(["name", *LIBRARIES], [
        [f"`{item.name}`",
         *(f"`{getattr(item, field)}`" if getattr(item, field) else "—"
           for field in LIBRARIES.values())]
        for item in every]))
    parts.append(f"Of {len(every)} items, "
                 + ", ".join(f"{library} lacks {n}" for library, n in lacking.items()) + ".")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _row(item: Item, pictures: bool) -> list[str]:
    file = Path(inspect.getfile(inspect.unwrap(item.what)))
    file = file.relative_to(Path(xpnet.__file__).parents[1])
    cells = [f"[`{item.name}`](../{file.as_posix()})<br>{item.title}", f"`{item.formula}`",
             "; ".join(item.sources)]
    if not pictures:
        return cells
    return [f'<img src="{PICTURES}/{item.name}.png" width="180" alt="{item.name}">' if drawn(item)
            else "", *cells]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a | inside a cell is escaped."""
    lines = [head, ["---"] * len(head),
             *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(item: Item, path: Path) -> None:
    """Draw the function (solid) and its derivative (dashed) from -5 to 5."""
    assert item.make is not None
    x = np.linspace(-5, 5, 2001)
    y, gradient = map(without_jumps, curve(item.make(), x))
    figure = new_figure("catalogue", 2.4, 1.6)
    axes = figure.subplots()
    axes.axhline(0, color="0.85", linewidth=0.8)
    axes.axvline(0, color="0.85", linewidth=0.8)
    axes.plot(x, y, color="tab:blue", linewidth=1.6)
    axes.plot(x, gradient, color="tab:orange", linewidth=1.2, linestyle="--")
    axes.set_xlim(-5, 5)
    axes.set_ylim(min(-1.2, max(np.nanmin(y), -2.5)) - 0.1, max(1.2, min(np.nanmax(y), 2.5)) + 0.1)
    axes.tick_params(labelsize=6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path, help="the folder of the documentation")
    docs = parser.parse_args().docs
    (docs / PICTURES).mkdir(parents=True, exist_ok=True)
    wanted = [item for items in FAMILIES.values() for item in items if drawn(item)]
    for item in wanted:
        draw(item, docs / PICTURES / f"{item.name}.png")
    for path in (docs / PICTURES).glob("*.png"):
        if path.stem not in {item.name for item in wanted}:
            path.unlink()
    (docs / "catalogue.md").write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
