"""What the arrays of a file and those of a network have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from xpnet.buffers import Shape
from xpnet.tables import html_table, table


@dataclass(frozen=True, repr=False)
class LoadReport:
    """The arrays of a file, compared by name and shape with those of a network; print it.

    Attributes:
        path: of the file.
        matched: names of the arrays with the same name and shape.
        missing: names of the network's arrays that the file does not hold.
        unused: names of the file's arrays that the network does not have.
        shapes: {name: (shape in the file, shape in the network)} where the shapes differ.
        written: whether the matched arrays were copied into the network.
        sources: {name in the network: name in the file} where the names differ.
    """

    path: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    shapes: dict[str, tuple[Shape, Shape]]
    written: bool
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every array of the network and of the file matched."""
        return not (self.missing or self.unused or self.shapes)

    @property
    def _lines(self) -> list[tuple[str, str]]:
        done = "copied" if self.written else "matches"
        return [*((name, f"{done} from {self.sources[name]}" if name in self.sources else done)
                  for name in self.matched),
                *((name, f"not copied: {theirs} in the file, {ours} in the network")
                  for name, (theirs, ours) in self.shapes.items()),
                *((name, "not in the file") for name in self.missing),
                *((name, "not in the network") for name in self.unused)]

    @property
    def _total(self) -> str:
        count = len(self.matched) + len(self.missing) + len(self.shapes)
        did = "were copied from" if self.written else "match"
        return f"{len(self.matched)} of the network's {count} arrays {did} {self.path}"

    def __repr__(self) -> str:
        return "\n".join([*table(("array", ""), self._lines, 2), self._total])

    def _repr_html_(self) -> str:
        return html_table(("array", ""), self._lines, 2, [self._total])
