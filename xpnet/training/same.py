"""Whether two trainings are the same one: fingerprints of data, and what is known of a network."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import described
from xpnet.graph import Graph
from xpnet.layer import Array, Layer

SAMPLED = 64            # samples whose content is in a fingerprint


def fingerprint(a: Any) -> str:
    """Shape, dtype, and a digest of the content of some samples of an array on the host or on a
    GPU."""
    if hasattr(a, "fingerprint"):
        return str(a.fingerprint())
    where = np.unique(np.linspace(0, len(a) - 1, SAMPLED).astype(np.int64)).tolist()
    total = hashlib.sha256()
    for k in where:
        part = a[k]
        total.update(np.ascontiguousarray(part.get() if hasattr(part, "get") else part).data)
    return f"{a.dtype} {tuple(a.shape)} {total.hexdigest()[:16]}"


def network_facts(net: Graph, slots: Sequence[Array] = ()) -> dict[str, Any]:
    """What has to be the same on every rank at the start; `slots` are those of the optimizer."""
    graph = [f"{node.name}({', '.join(parent.name for parent in node.parents)})"
             for node in net.nodes]
    backend = net.backend.name.partition(":")[0]
    versions = {name: sys.modules[name].__version__     # importing xpnet would be circular
                for name in ("xpnet", "numpy", backend) if name in sys.modules}
    return {**{f"layer {name}": _settings(layer) for name, layer in net.layer_names.items()},
            "network": graph, "inputs": [list(node.shape) for node in net.in_nodes],
            "dtype": str(net.dtype), "seed": net.seed, "trained epochs": net.epochs,
            "parameters": digest(net), "slots": digest(net, slots) if slots else "", **versions}


def _settings(layer: Layer) -> str:
    # An object without a repr of its own shows its address, which differs between processes.
    text = re.sub(r" at 0x[0-9A-Fa-f]+", "", described(layer))
    return (text + ("" if layer.trainable else ", frozen")
            + ("" if layer.lr_scale == 1 else f", lr_scale={layer.lr_scale:g}"))


def digest(net: Graph, arrays: Sequence[Array] = ()) -> str:
    """A hash of parameters, state and counters, or of other arrays of the backend."""
    total = hashlib.blake2b(digest_size=8)
    for a in arrays or (net.parameters, net.state, net.counters):
        total.update(np.ascontiguousarray(net.backend.to_numpy(a)).data)
    return total.hexdigest()
