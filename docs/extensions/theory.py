"""The theory pages: a page for each family of the catalogue, made when the site is built.

Each begins with a few sentences and links to the course. Then come the equations of every item,
forward and backward, with their source, from its docstring.
"""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

from docstrings import converted, without_sections
from public import public

from xpnet.catalogue import FAMILIES, Item
from xpnet.catalogue.page import LIBRARIES, PICTURES, drawn

# family: (the file, what the family is for; in reStructuredText)
ABOUT = {
    "Activations": ("activations", """\
Without an activation, two linear layers are one linear layer: the activation is what makes depth
useful. :doc:`../course/07-activation-functions` shows why sigmoids let gradients vanish and
rectifiers do not. Each curve below is the function (solid) and its derivative (dashed), both from
-5 to 5."""),
    "Convolution and its relatives": ("convolution", """\
A filter slides over the image: few weights, used at every position.
:doc:`../course/03-convolution` derives the layer, :doc:`../course/04-convolution-as-a-matrix` its
matrix and its gradients, :doc:`../course/05-padding-stride-dilation` all sizes, and
:doc:`../convolution` compares the layers."""),
    "Sequences": ("sequences", """\
Layers that read one step after another, and attention, which reads all steps at once.
:doc:`../course/19-sequences` unrolls a recurrent layer in time and derives its gradient;
:doc:`../sequences` is the guide."""),
    "Sparse coding": ("sparse_coding", """\
Filters that are learned without labels: an image is a sum of few of them.
:doc:`../course/16-deconvolution` derives both alternating steps; :doc:`../sparse_coding` is the
guide."""),
    "Pooling": ("pooling", """\
A window becomes one number. Maps get smaller, receptive fields larger, and the exact place of a
feature matters less. :doc:`../course/06-pooling` computes each kind and its gradient by hand."""),
    "Normalisation": ("normalisation", """\
Values are brought to a common mean and scale: over a batch, over a sample, or over the
neighbourhood of a pixel. :doc:`../course/09-batch-normalisation` derives the backward pass of
batch norm, :doc:`../course/08-rectification-and-contrast` treats brightness and contrast."""),
    "Regularisation": ("regularisation", """\
Random changes in training that keep a network from fitting its training set too exactly.
:doc:`../course/10-dropout-and-bagging` compares dropout with an ensemble, in numbers."""),
    "Shapes and merging": ("shapes", """\
Layers that move elements, resize maps, add borders, or combine several inputs. Most are linear:
the backward pass moves each gradient back to where its element came from."""),
    "Losses": ("losses", """\
The number that training makes small, and its gradient with respect to the network's output.
:doc:`../course/11-losses` derives the most common ones, :doc:`../course/18-finding-objects` the
terms of YOLO; :doc:`../losses` says which loss is for what."""),
    "Metrics": ("metrics", """\
Numbers for people: how good predictions are. No gradient is needed, so they may jump.
:doc:`../losses` shows how to use them."""),
    "Optimizers and schedules": ("optimizers", """\
How weights change, given their gradients. :doc:`../course/12-gradient-descent` compares three
optimizers on a ravine; :doc:`../training` is the guide."""),
}


def text(family: str) -> str:
    """The page of a family, in reStructuredText."""
    parts = [f"{family}\n{'=' * len(family)}", ABOUT[family][1]]
    for item in FAMILIES[family]:
        parts += entry(item)
    return "\n\n".join(parts) + "\n"


def entry(item: Item) -> list[str]:
    """Name, curve, equations with their source, a link to the reference, names elsewhere."""
    lines = without_sections(inspect.cleandoc(item.what.__doc__ or "").splitlines())
    elsewhere = [f"``{getattr(item, field)}`` in {library}" for library, field in LIBRARIES.items()
                 if getattr(item, field)]
    path = next((path for path, what in public().items() if what is item.what), None)
    last = [f"Reference: :py:obj:`{path.replace('xpnet.', 'xn.', 1)} <{path}>`"] if path else []
    if elsewhere:
        last.append("Similar: " + ", ".join(elsewhere))
    curve = [f".. image:: ../{PICTURES}/{item.name}.png\n   :width: 240\n"
             f"   :alt: {item.name} and its derivative"] if drawn(item) else []
    return [f"{item.name}\n{'-' * len(item.name)}", *curve, "\n".join(converted(lines)).rstrip(),
            ". ".join(last) + "." if last else ""]


def write(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for family in FAMILIES:
        (folder / f"{ABOUT[family][0]}.rst").write_text(text(family), encoding="utf-8")
    lines = ["Theory", "======", "", "The equations of every layer, loss, metric and optimizer, "
             "forward and backward, with their", "sources. The :doc:`../catalogue` has all of them "
             "on one page.", "", ".. toctree::", ""]
    index = [*lines, *(f"   {ABOUT[family][0]}" for family in FAMILIES), ""]
    (folder / "index.rst").write_text("\n".join(index), encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "theory"))
    return {"parallel_read_safe": True}
