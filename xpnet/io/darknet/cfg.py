"""The text of a Darknet network: sections of options, with the line of each.

    [convolutional]         # a section
    filters = 32            # an option

Blanks are ignored, also inside a line. A line that begins with # or ; is a comment, and so is
what follows a # in a line. If an option is given twice, the first one counts, as in Darknet.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from xpnet.backends.arguments import bare, perhaps, shown

WHO = "load_darknet"
MOST_BYTES = 1 << 20            # of a cfg file; those of the largest networks have 30 KB
MOST = 1 << 31                  # the options are 32-bit ints in Darknet
MOST_VALUES = 4096              # of an option

ALIASES = {"network": "net", "conv": "convolutional", "conn": "connected", "max": "maxpool",
           "local_avg": "local_avgpool", "avg": "avgpool", "soft": "softmax"}


@dataclass(frozen=True)
class Option:
    value: str
    line: int


@dataclass
class Section:
    """One section of a cfg file; the errors of its methods name it, and the line."""

    kind: str                   # without the brackets, and by its longest name
    line: int
    path: str
    index: int = -1             # of the layer, from 0; -1 for [net]
    options: dict[str, Option] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        return key in self.options

    def wrong(self, expected: str, key: str | None = None, received: str | None = None
              ) -> ValueError:
        """The error about an option, or about the whole section."""
        option = self.options.get(key) if key else None
        line = self.line if option is None else option.line
        layer = "" if self.index < 0 else f" of layer {self.index}"
        said = received or (f"{key:.80}={bare(option.value)}" if option else f"no {key}")
        return ValueError(f"{WHO}: expected {expected}. Received: {said} in [{self.kind:.80}]"
                          f"{layer}, {self.path}, line {line}.")

    def word(self, key: str, default: str) -> str:
        return self.options[key].value if key in self.options else default

    def integer(self, key: str, default: int | None = None, least: int = 0) -> int:
        """An int of at least `least`; without a default the option is needed."""
        found = self.integers(key, None if default is None else [default], least)
        if len(found) != 1:
            raise self.wrong(f"{key} to be one int", key)
        return found[0]

    def integers(self, key: str, default: list[int] | None = None, least: int = -MOST
                 ) -> list[int]:
        if key not in self.options and default is not None:
            return default
        kind = "an int" + (f", {least} or larger" if least > -MOST else "")
        texts = self._items(key, kind)
        try:
            found = [int(text) for text in texts]
        except ValueError as error:
            raise self.wrong(f"{key} to be {kind}", key) from error
        if not all(least <= value < MOST for value in found):
            raise self.wrong(f"{key} to be {kind}", key)
        return found

    def number(self, key: str, default: float | None = None) -> float:
        found = self.numbers(key, None if default is None else [default])
        if len(found) != 1:
            raise self.wrong(f"{key} to be one number", key)
        return found[0]

    def numbers(self, key: str, default: list[float] | None = None) -> list[float]:
        if key not in self.options and default is not None:
            return default
        texts = self._items(key, "a number")
        try:
            found = [float(text) for text in texts]
        except ValueError as error:
            raise self.wrong(f"{key} to be numbers", key) from error
        if not all(map(math.isfinite, found)):
            raise self.wrong(f"{key} to be finite numbers", key)
        return found

    def _items(self, key: str, kind: str) -> list[str]:
        if key not in self.options:
            raise self.wrong(f"{key} to be {kind}", key)
        found = self.options[key].value.rstrip(",").split(",", MOST_VALUES)
        if len(found) > MOST_VALUES:
            raise self.wrong(f"at most {MOST_VALUES} values of {key}", key)
        return found

    def choice(self, key: str, default: str, choices: Collection[str]) -> str:
        value = self.word(key, default)
        if value not in choices:
            raise self.wrong(f"{key} to be one of {', '.join(choices)}" + perhaps(value, choices),
                             key)
        return value

    def expect_keys(self, known: Iterable[str], without_effect: Mapping[str, float]) -> None:
        """Raise ValueError for an option that is not known, and for one of `without_effect` that
        does not have the value with which it has none."""
        known = [*known]
        for key in self.options:
            if key in without_effect:
                neutral = without_effect[key]
                if any(value != neutral for value in self.numbers(key)):
                    raise self.wrong(f"{key}={neutral:g}; xpnet does not have what other values "
                                     "mean", key)
            elif key not in known:
                raise self.wrong("options that xpnet has" + perhaps(key, known), key)


@dataclass
class Config:
    """A cfg file: [net], and the sections of the layers."""

    path: str
    net: Section
    layers: list[Section]

    def __iter__(self) -> Iterator[Section]:
        return iter([self.net, *self.layers])

    def text(self) -> str:
        """The sections and options as a cfg file has them, without comments."""
        return "\n".join("\n".join([f"[{section.kind}]", *(
            f"{key}={option.value}" for key, option in section.options.items())]) + "\n"
            for section in self)


def parse(text: str, path: str) -> Config:
    """The sections of a text; `path` is what errors call it.

    Raises:
        ValueError: a line is no section, option or comment, an option stands before the first
            section, or this is not [net].
    """
    sections: list[Section] = []
    for number, given in enumerate(text.splitlines(), 1):
        line = "".join(given.split()).partition("#")[0]
        if not line or line[0] == ";":
            continue
        if line[0] == "[" and line[-1] == "]" and len(line) > 2:
            kind = line[1:-1]
            sections.append(Section(ALIASES.get(kind, kind), number, path, len(sections) - 1))
            continue
        key, equals, value = line.partition("=")
        if not (key and equals and value and sections) or not line.isprintable():
            said = "an option before the first section" if key and value and not sections else ""
            raise ValueError(f"{WHO}: expected [section], key=value or a comment in each line. "
                             f"Received: {said or shown(given.strip())} in {path}, line {number}.")
        sections[-1].options.setdefault(key, Option(value, number))
    if len(sections) < 2 or sections[0].kind != "net":
        first = f"[{sections[0].kind}] first" if sections else "no section"
        said = "[net] alone" if first == "[net] first" else first
        raise ValueError(f"{WHO}: expected [net] and the sections of layers. Received: {said} in "
                         f"{path}.")
    return Config(path, sections[0], sections[1:])
