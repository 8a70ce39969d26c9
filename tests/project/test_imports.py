"""Imports go one way: there is no circle, and they follow the diagram in docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules() -> dict[str, Path]:
    """The files of xpnet and benchmarks by module name; a package has the name of its folder."""
    files = [*(ROOT / "backends").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    files += [path for path in (ROOT / "xpnet").rglob("*.py")
              if "backends" not in path.relative_to(ROOT).parts]
    named = {}
    for path in files:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = ("xpnet", *parts) if parts[0] == "backends" else parts
        named[".".join(parts).removesuffix(".__init__")] = path
    return named


MODULES = modules()


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements, also in functions, except those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from statements(child)


def imported(path: Path) -> set[str]:
    """The modules of xpnet and benchmarks that a file imports, anywhere in it."""
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= names or {node.module}
    return found & MODULES.keys()


@cache
def all_imports() -> dict[str, set[str]]:
    return {name: imported(path) for name, path in MODULES.items()}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules each of which imports the next one, and the last the first; empty if there is no
    circle."""
    left = dict(imports)
    while True:
        leaves = [name for name, others in left.items() if not others & left.keys() - {name}]
        if not leaves:
            break
        for name in leaves:
            del left[name]
    path = [next(iter(left))] if left else []
    while path and path[-1] not in path[:-1]:
        path.append(next(other for other in left[path[-1]] if other in left and other != path[-1]))
    return path[path.index(path[-1]):] if path else []


def test_imports_are_found():
    imports = all_imports()
    assert "xpnet.graph" in imports["xpnet.network"]                        # at the top of a file
    assert "xpnet.backends.numba.backend" in imports["xpnet.backends.registry"]     # in a function


def test_there_is_no_circle():
    assert circle(all_imports()) == []


def test_a_circle_is_found():
    imports = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}
    assert circle(imports) == ["b", "c", "b"]


def rows() -> dict[str, int]:
    """The row of each file and folder in the diagram."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"^```text\n(backends/.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert picture
    found = {}
    for number, row in enumerate(re.split(r"^-+\n", picture[1], flags=re.MULTILINE)):
        for name in re.findall(r"^(?! )((?:\w+(?:\.py|/) *)+)", row, re.MULTILINE):
            found |= dict.fromkeys(re.findall(r"\w+(?=\.py|/)", name), number)
    return found


def test_every_part_imports_from_its_row_or_above():
    """The diagram shows each file and folder of xpnet, and imports go to the same row or
    upwards."""
    row = rows()
    parts = {name.split(".")[1] for name in MODULES if name.startswith("xpnet.")} - {"__main__"}
    assert row.keys() == parts
    for name, others in all_imports().items():
        package, *inside = name.split(".")
        part = inside[0] if inside else ""
        for other in others if package == "xpnet" and part in row else ():
            assert not other.startswith("benchmarks"), f"{name}: {other}"
            assert "." not in other or row[other.split(".")[1]] <= row[part], f"{name}: {other}"
