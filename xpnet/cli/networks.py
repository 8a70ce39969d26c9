"""The networks that `--model` names: those of xpnet.models, and Python files of users."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from xpnet.checks import perhaps, shown
from xpnet.layer import Layer
from xpnet.network import Network

MODULE = "__xpnet_model__"      # not "__main__", so that what is meant for a script does not run
GIVEN = "input_shape", "classes", "backend", "seed"     # what a function `build` may take


class FileError(Exception):
    """An error in the Python file of a user; its cause is the error."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.file = os.path.abspath(path)       # as tracebacks name it

    def print_traceback(self) -> None:
        """Print the traceback of the cause, from the file on."""
        error = self.__cause__
        assert error is not None
        found = error.__traceback__
        while found is not None and found.tb_frame.f_code.co_filename != self.file:
            found = found.tb_next
        traceback.print_exception(error.with_traceback(found))


def builder(who: str, name: str) -> Callable[..., Network]:
    """The function that makes the network called `name`, or the function `build` of a Python file.

    Its parameters are passed by name, as far as it has them: see `build`.
    """
    from xpnet.models import MODELS
    if name in MODELS:
        return MODELS[name]
    if not name.endswith(".py"):
        raise ValueError(f"{who}: expected --model to be a Python file, or one of "
                         + ", ".join(MODELS) + perhaps(name, MODELS)
                         + f". Received: {shown(name)}.")
    found = getattr(module(who, name), "build", None)
    if not callable(found):
        raise ValueError(f"{who}: expected a function build(input_shape, classes) in {name}. "
                         f"Received: {'none' if found is None else shown(found)}.")
    return found


def build(who: str, name: str, function: Callable[..., Network], *, input_shape: tuple[int, ...],
          classes: int, backend: Any, seed: int | None) -> Network:
    """The network that `function` makes, on the backend.

    It gets those of the arguments that it has parameters for: the shape of one sample, the number
    of classes, the backend, the seed.
    """
    values: dict[str, Any] = {"input_shape": input_shape, "classes": classes, "backend": backend,
                              "seed": seed or 0}
    parameters = inspect.signature(function).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        names |= values.keys()
    passed = {key: value for key, value in values.items() if key in names}
    unknown = [p.name for p in parameters if p.default is p.empty and p.name not in passed
               and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if unknown:
        raise ValueError(f"{who}: expected build in {name} to take some of {', '.join(GIVEN)}, and "
                         f"other parameters with a default alone. Received: {unknown[0]}.")
    if seed is not None and "seed" not in passed:
        raise ValueError(f"{who}: expected build in {name} to take seed, because of --seed. "
                         f"Received: build{inspect.signature(function)}.")
    if not name.endswith(".py"):
        return function(**passed)
    path = Path(name).expanduser()
    net = _run(who, path, lambda: function(**passed))
    if not isinstance(net, Network):
        raise TypeError(f"{who}: expected build in {name} to return a Network. Received: "
                        f"{shown(net)}.")
    if "backend" not in passed:
        net.to(backend)
    return net


def module(who: str, name: str) -> ModuleType:
    """The module of a Python file, run as a script would be: with its folder first in the path."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{who}: expected --model to be a Python file. Received: {path}, "
                                f"which {'is no file' if path.exists() else 'does not exist'}.")
    spec = spec_from_file_location(MODULE, path)
    assert spec is not None and spec.loader is not None
    made, load = module_from_spec(spec), spec.loader.exec_module
    sys.modules[MODULE] = made
    sys.path.insert(0, str(path.parent.resolve()))
    _run(who, path, lambda: load(made))
    return made


def own_layers(who: str, name: str | None) -> list[type[Layer]]:
    """The layer classes that the Python file of a model has and xpnet has not, to load a network
    with them."""
    found = [] if name is None else vars(module(who, name)).values()
    return [layer for layer in found if isinstance(layer, type) and issubclass(layer, Layer)
            and not layer.__module__.startswith("xpnet.")]


def _run(who: str, path: Path, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        raise FileError(f"{who}: expected {path} to run. Received: {type(error).__name__}, see "
                        "above.", path) from error
