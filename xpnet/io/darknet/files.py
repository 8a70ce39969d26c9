"""Networks from Darknet's files, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.window import pair
from xpnet.checks import expect_instance, expect_integer
from xpnet.graph import Graph
from xpnet.io.darknet import recurrent
from xpnet.io.darknet import weights as weights_file
from xpnet.io.darknet.builder import Builder, Stored
from xpnet.io.darknet.cfg import MOST_BYTES, WHO, Config, Option, parse
from xpnet.io.darknet.export import Writer
from xpnet.io.darknet.heads import Head
from xpnet.io.darknet.table import build
from xpnet.io.darknet.weights import VERSION, Header
from xpnet.io.files import existing, name_of, write_atomically
from xpnet.io.public import Face
from xpnet.node import topological

if TYPE_CHECKING:
    from pathlib import Path

    from xpnet.network import Network


@dataclass
class Darknet:
    """`net.darknet`: what Darknet's files say besides the layers of the network.

    Attributes:
        config: the cfg file.
        header: version, and number of images seen, of the weights file.
        heads: the [yolo], [region] and [detection] sections, in the order of the outputs.
        stored: the arrays of a weights file, in its order.
    """

    config: Config
    header: Header
    heads: list[Head]
    stored: list[Stored]


def load_darknet(cfg: str | Path, weights: str | Path | None = None, *,
                 input_size: int | tuple[int, int] | None = None, cutoff: int | None = None,
                 backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0
                 ) -> Network:
    """The network that a cfg file of Darknet describes, with the values of a weights file.

    The output is that of the last layer. With [yolo], [region] or [detection] sections it is the
    raw map that they decode, and a list of maps if there are several; `net.darknet.heads` has what
    the sections say (anchors, mask, classes, ...). Sizes are compared before memory is allocated.

    Args:
        cfg: name of the cfg file.
        weights: name of the weights file; None draws initial values.
        input_size: rows and columns instead of height and width of [net], or steps of a sequence
            instead of its time_steps.
        cutoff: the file holds only the layers before this number, as darknet53.conv.74 does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a section or an option is malformed, or xpnet does not have it. The error names
            the line. Or the size of the weights file does not fit; the error names the array in
            which a short file ends.
    """
    name = existing(cfg, WHO, "the name of a cfg file")
    with open(name, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{WHO}: expected a cfg file of at most {MOST_BYTES:,} bytes. Received: "
                         f"{name}, which is larger.")
    return network_from_text(content.decode("utf-8-sig", "replace"), name, weights,
                             input_size=input_size, cutoff=cutoff, backend=backend, dtype=dtype,
                             seed=seed)


def network_from_text(text: str, path: str, weights: str | Path | None = None, *,
                      input_size: int | tuple[int, int] | None = None, cutoff: int | None = None,
                      backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0
                      ) -> Network:
    """`load_darknet` for the text of a cfg file; `path` is what errors call it."""
    config = parse(expect_instance(WHO, "text", text, str, "the text of a cfg file"),
                   name_of(path, WHO))
    if input_size is not None:
        _set_size(config, input_size)
    built = build(config)
    _expect_all_used(built)
    held = built.stored
    if cutoff is not None:
        last = expect_integer(WHO, "cutoff", cutoff, 0)
        held = [array for array in held if array.section.index < last]
    header, values = ((Header(recurrent.version_of(built.stored, VERSION)), None)
                      if weights is None else weights_file.read(weights, held))
    outputs = built.outputs
    graph = Graph(built.input, outputs[0] if len(outputs) == 1 else outputs, backend=backend,
                  dtype=dtype, seed=seed, values=values)
    net: Any = Face.of(graph)
    net.darknet = Darknet(config, header, built.heads, built.stored)
    return net      # type: ignore[no-any-return]


def _set_size(config: Config, input_size: Any) -> None:
    """Replace height and width of [net], or the time_steps of a sequence."""
    if recurrent.has_steps(config):
        sizes = {"time_steps": expect_integer(WHO, "input_size", input_size)}
    else:
        height, width = pair(input_size, "input_size", 1, WHO)
        sizes = {"height": height, "width": width}
    for key, size in sizes.items():
        line = config.net.options[key].line if key in config.net else config.net.line
        config.net.options[key] = Option(str(size), line)


def _expect_all_used(built: Builder) -> None:
    """Raise ValueError if an array of the weights file would not be part of the network."""
    used = {node.layer_name for node in topological(built.outputs) if node.layer is not None}
    for array in built.stored:
        if array.layer.partition(".")[0] not in used:
            raise array.section.wrong("every layer with weights to lead to an output",
                                      received="a layer that no other one reads")


def save_darknet(net: Network, cfg: str | Path, weights: str | Path | None = None) -> None:
    """Write the cfg file of a network, and its weights.

    A network that `load_darknet` or a Darknet model of xpnet.models made has the sections and
    options with which it was read, without comments. For others the sections follow from the
    layers. A weights file whose [connected] weights were transposed is written in the usual order.
    An old file is replaced only when the new one is complete.

    Args:
        cfg: name of the cfg file.
        weights: name of the weights file; None writes none.

    Raises:
        TypeError: `net` is no network.
        ValueError: the network has a layer or a setting that Darknet does not have, or lacks an
            array of its cfg file.
    """
    who = "save_darknet"
    if not isinstance(net, Graph):
        raise TypeError(f"{who}: expected a network. Received: {type(net).__name__}.")
    known: Any = getattr(net, "darknet", None)
    if isinstance(known, Darknet):
        config, header, stored = known.config, known.header, known.stored
        names = {name: name for array in stored for name in array.parameters}
    else:
        writer = Writer(net)
        config = writer.config()
        stored = build(config).stored
        header = Header(recurrent.version_of(stored, VERSION))
        names = {name: writer.full_name(name) for array in stored for name in array.parameters}
    held = net.arrays
    missing = [name for array, name in names.items()
               if name not in held and not array.endswith(".b")]
    if missing:
        raise ValueError(f"{who}: expected the arrays of the cfg file. Received: a network without "
                         f"{missing[0]}.")
    content: list[bytes] = []
    if weights is not None:
        arrays = {name: net.backend.to_numpy(held[ours].data)
                  for name, ours in names.items() if ours in held}
        arrays |= {array.name: np.zeros(array.shape, np.float32)        # biases that are left out
                   for array in stored if not array.merged and array.name not in arrays}
        arrays |= recurrent.split(arrays, stored)
        stored = recurrent.ordered(stored, header.version, weights, who=who)
        content = [*weights_file.pieces(header, stored, arrays)]
    write_atomically(cfg, config.text().encode(), who=who)      # nothing can be refused any more
    if weights is not None:
        write_atomically(weights, content, who=who)
