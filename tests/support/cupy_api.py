"""What CuPy has: its names and the parameters of its functions, in a table made from an installed
version.

    python tests/support/cupy_api.py        writes cupy_api.json, from the CuPy that is installed

The fake CuPy has nothing that is not in the table, and takes no other arguments. CuPy need not be
installed for that; tests/backends/cupy/test_fake_cupy.py compares the table with it where it is.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("cupy_api.json")
# The modules and classes in the table. An instance has the attributes of its class, and those that
# its constructor sets.
TABLED = {
    "cupy": (), "cupy.ndarray": (), "cupy.ufunc": (), "cupy.RawModule": (), "cupy.RawKernel": (),
    "cupy.cuda": (), "cupy.cuda.runtime": (), "cupy.cuda.compiler": (), "cupy.cuda.Device": (),
    "cupy.cuda.Stream": ("ptr", "device_id"), "cupy.cuda.Event": ("ptr",), "cupy.cuda.Graph": (),
    "cupy.cuda.MemoryPool": (), "cupy.cuda.MemoryPointer": (), "cupy.cuda.MemoryHook": (),
    "cupy.cuda.PinnedMemoryPool": (), "cupy.cuda.PinnedMemoryPointer": (),
}
UNKNOWN = "?"                       # in place of the parameters, where nothing says what they are
# Of Cython's classes a docstring has the parameters of the constructor, if that begins with them.
CONSTRUCTOR = re.compile(r"^\w+\((.*)\)")


@functools.cache
def table() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def require(owner: str, name: str) -> None:
    """Raise AttributeError if CuPy has no attribute of this name."""
    if name not in table()[owner]:
        raise AttributeError(f"CuPy {table()['version']} has no {owner}.{name}")


@functools.cache
def signature(owner: str, name: str) -> inspect.Signature | None:
    """The parameters of a function or of a class; None if the table does not know them."""
    require(owner, name)
    return parse(table()[owner][name])


def parse(text: str | None) -> inspect.Signature | None:
    """The signature that a line of the table stands for: "x, /, out=, *, dtype=" has one required
    parameter."""
    if text is None or text == UNKNOWN:
        return None
    words = [word for word in text.split(", ") if word]
    kinds, kind = inspect.Parameter, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters: list[inspect.Parameter] = []
    for word in words:
        if word == "/":
            parameters = [p.replace(kind=kinds.POSITIONAL_ONLY) for p in parameters]
        elif word == "*":
            kind = kinds.KEYWORD_ONLY
        elif word.startswith("**"):
            parameters.append(kinds(word[2:], kinds.VAR_KEYWORD))
        elif word.startswith("*"):
            parameters.append(kinds(word[1:], kinds.VAR_POSITIONAL))
            kind = kinds.KEYWORD_ONLY
        else:
            default = None if word.endswith("=") else kinds.empty
            parameters.append(kinds(word.rstrip("="), kind, default=default))
    return inspect.Signature(parameters)


def check(owner: str, name: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Raise TypeError, as CuPy does, if a function has no such parameters."""
    parameters = signature(owner, name)
    if parameters is not None:
        try:
            parameters.bind(*args, **keywords)
        except TypeError as error:
            raise TypeError(f"{owner}.{name}: {error} (CuPy {table()['version']})") from None


# --- the table, from the installed CuPy -----------------------------------------------------------

def read(cupy: Any) -> dict[str, Any]:
    """The table of this CuPy."""
    return {"version": cupy.__version__} | {
        owner: dict(sorted(_members(cupy, functools.reduce(
            lambda a, name: getattr(a, name), owner.split(".")[1:], cupy)))) |
        dict.fromkeys(set_by_init) for owner, set_by_init in TABLED.items()}


def _members(cupy: Any, owner: Any) -> Iterable[tuple[str, str | None]]:
    method = inspect.isclass(owner)
    for name in dir(owner):
        value = inspect.getattr_static(owner, name, None)
        if name.startswith("_") and name not in ("__version__", "__init__") or (
                # Hundreds of constants.
                owner is cupy.cuda.runtime and isinstance(value, int)):
            continue
        if not callable(getattr(owner, name)) or isinstance(value, property):
            yield name, None
            continue
        text = _parameters(cupy, owner if name == "__init__" else getattr(owner, name))
        bound = name == "__init__" or isinstance(value, staticmethod | classmethod)
        if method and not bound and text != UNKNOWN:
            text = ", ".join(word for word in text.split(", ")[1:] if word != "/")
        yield name, text


def _parameters(cupy: Any, function: Any) -> str:
    if isinstance(function, cupy.ufunc):
        inputs = [f"x{k}" for k in range(1, function.nin + 1)]
        outputs = ["out="] if function.nout == 1 else [f"out{k}=" for k in
                                                       range(1, function.nout + 1)]
        more = [] if function.nout == 1 else ["out="]
        slash = ["/"] if function.nout > 1 else []
        inputs += ["/"] if function.nout == 1 else []
        return ", ".join([*inputs, *outputs, *slash, "*", *more, "casting=", "dtype="])
    try:
        return _line(str(inspect.signature(function)))
    except (ValueError, TypeError):
        pass
    text = " ".join((function.__doc__ or "").split("\n\n")[0].split())
    found = re.match(r"^[\w.]*\((.*?)\)(?: ->.*)?$", text)
    return _line(f"({found[1]})") if found else UNKNOWN


def _line(text: str) -> str:
    """The line of the table for a signature as Python or Cython writes it."""
    inner = text[text.index("(") + 1:text.rindex(")")]
    words = re.split(r",\s*(?![^(\[{]*[)\]}])", inner)
    # "size_t size", "int axis=-1": without the type; "out: Any = None": without the annotation
    names = [re.sub(r":[^=]*", "", word.partition("=")[0]).split()[-1] + ("=" * ("=" in word))
             for word in words if word.strip()]
    line = ", ".join(names)
    try:
        ast.parse(f"def f({line.replace('=', '=0')}): pass")
    except SyntaxError:
        return UNKNOWN
    return line


def main() -> None:
    import cupy
    FILE.write_text(json.dumps(read(cupy), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
