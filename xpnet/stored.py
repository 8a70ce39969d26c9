"""A graph in files and in copies, with what it knows of its training."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from xpnet.backends import Backend
from xpnet.backends.registry import is_name
from xpnet.checks import expect_flag
from xpnet.graph import Graph
from xpnet.io import safetensors
from xpnet.io.architecture import own_layers
from xpnet.io.report import LoadReport
from xpnet.layer import Layer
from xpnet.trained import TrainedFacts

if TYPE_CHECKING:
    from pathlib import Path


class StoredGraph(TrainedFacts, Graph):
    """What networks inherit: saving, loading, pickling and copying."""

    _own: frozenset[str]        # names of the attributes that __init__ made

    @classmethod
    def of(cls, graph: Graph) -> Self:
        """A network of this class that takes over a graph."""
        net = object.__new__(cls)
        vars(net).update(vars(graph), name=None)
        net._finish()
        return net

    def _finish(self) -> None:
        self._own = frozenset(vars(self)) | {"_own", "name"}

    def save(self, path: str | Path) -> None:
        """Write architecture, parameters, state, and what is known of the training, to a
        safetensors file.

        An old file is replaced only when the new one is complete.
        """
        safetensors.save(self, path)

    @overload
    def load(self, path: str | Path, *, architecture: bool = True, strict: Literal[True] = True
             ) -> Self: ...

    @overload
    def load(self, path: str | Path, *, architecture: bool = True, strict: Literal[False]
             ) -> LoadReport: ...

    def load(self, path: str | Path, *, architecture: bool = True, strict: bool = True
             ) -> Self | LoadReport:
        """Copy parameters, state, and what is known of their training, from a file that `save`
        wrote for the same architecture.

        With architecture=False the arrays alone, from a file of any network whose arrays have the
        same names and shapes. Returns itself. With strict=False the arrays whose names and shapes
        are those of the network's, whatever else there is; returns a LoadReport of what was copied
        and what was not.
        """
        architecture = expect_flag("load", "architecture", architecture)
        if not expect_flag("load", "strict", strict):
            return safetensors.load_matching(self, path)
        safetensors.load_weights(self, path, architecture=architecture)
        return self

    def load_torch(self, path: str | Path, mapping: str | Mapping[str, str] | None = None, *,
                   strict: bool = True) -> LoadReport:
        """Copy the weights of a PyTorch network of the same architecture from a .safetensors or
        .pth file. No code in the file runs. Returns a LoadReport of what was copied from where.

        Args:
            path: of a file with `model.state_dict()`, or a checkpoint that has it under a usual
                name.
            mapping: None matches layers and modules by their order and shapes; "torchvision" as
                well, with auxiliary classifiers at the end or left out; or a dict {module of
                PyTorch: layer}, e.g. {"features.0": "conv1"}.
            strict: copy nothing and raise ValueError unless every array of the network and of the
                file matches; with False copy those that match.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or has objects other than tensors, dicts, lists and
                numbers; or not everything matches.
        """
        from xpnet.io.imports.torch import load_torch
        return load_torch(self, path, mapping, strict=strict)

    def load_keras(self, path: str | Path, *, strict: bool = True) -> LoadReport:
        """Copy the weights of a Keras 3 network of the same architecture from a .weights.h5 file.

        The layers of each class are matched in their order. Kernels are transposed, and weights
        behind Flatten reordered. Needs h5py, which the extra `keras` brings. Returns a LoadReport
        of what was copied from where.

        Args:
            path: of a file that `model.save_weights` wrote.
            strict: as in load_torch.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such file, or not everything matches; or a layer turns features
                into maps, which have another order in Keras.
        """
        from xpnet.io.imports.keras import load_keras
        return load_keras(self, path, strict=strict)

    def compare(self, path: str | Path) -> LoadReport:
        """What load(path, strict=False) would copy; nothing changes."""
        return safetensors.compare(self, path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what `save` writes, and attributes that were added to the object; without the
        optimizer's state. A loss of your own becomes its name."""
        name = self.backend.name
        if not is_name(name):
            raise TypeError("Network: expected a backend that get_backend makes, to be pickled by "
                            f"its name. Received: {name!r}.")
        content = safetensors.to_bytes(self)
        return _unpickled, (type(self), content, name, own_layers(self)), self._added()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A network with arrays of its own on the same backend, as saving and loading would give
        it."""
        content = safetensors.to_bytes(self)
        new: Self = _unpickled(type(self), content, self.backend, own_layers(self))
        history = copy.deepcopy(self.trained.history, memo)
        new.trained = replace(self.trained, history=history)        # with losses of one's own
        memo[id(self)] = new
        vars(new).update(copy.deepcopy(self._added(), memo))
        return new

    def _added(self) -> dict[str, Any]:
        """Attributes that a subclass or a user has given the object."""
        added = {name: value for name, value in vars(self).items() if name not in self._own}
        return added if self.name is None else added | {"name": self.name}


def _unpickled(kind: type[StoredGraph], content: bytes, backend: str | Backend,
               layers: Sequence[type[Layer]]) -> Any:
    return kind.of(safetensors.from_bytes(content, backend, layers))
