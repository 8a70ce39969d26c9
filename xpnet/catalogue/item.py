"""Entries of the catalogue. Title, formula and source come from the docstring.

A docstring begins "Title: formula." or "Title: formula (Author 1998)."; sources are written "Author
et al. 1998, eq. 3".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from xpnet.layer import Shape

SOURCE = re.compile(r"[A-Z][\w'-]+(?: (?:and|et) [\w'-]+\.?)? (?:1[789]|20)\d\d[a-z]?"
                    r"(?:, (?:sections?|eq\.|tables?|figures?|appendix|algorithms?|part) "
                    r"\w+(?:\.\w+)*(?: and \w+(?:\.\w+)*)?)*")


@dataclass(frozen=True)
class Item:
    """A class or a function, an example of it that `verify` checks, and its names in other
    libraries ("" if they lack it).

    Args:
        example: the class or function, or functools.partial(class, ...), which makes the example.
        shapes: of the example's inputs, or of the output that a loss takes, without the batch axis.
            Without shapes there is no gradient to check.
        inputs: (rng, N) -> batch-last arrays, if normally distributed numbers do not fit.
        target: (rng, N) -> batch-first targets, for losses.
        common: so plain that it needs no source.
        curve: an elementwise function that is not an Activation; the page shows its curve.
    """

    example: Callable[..., Any]
    shapes: tuple[Shape, ...] = ()
    inputs: Callable[[np.random.Generator, int], tuple[np.ndarray, ...]] | None = None
    target: Callable[[np.random.Generator, int], np.ndarray] | None = None
    pytorch: str = ""
    keras: str = ""
    numpynet: str = ""
    common: bool = False
    curve: bool = False

    @property
    def what(self) -> Callable[..., Any]:
        """The class or function."""
        return self.example.func if isinstance(self.example, partial) else self.example

    @property
    def make(self) -> Callable[[], Any] | None:
        """Makes the example; None if there is no gradient to check."""
        return self.example if self.shapes else None

    @property
    def name(self) -> str:
        """The name of the class or function."""
        return self.what.__name__

    @property
    def title(self) -> str:
        """The docstring up to the first colon: what it is."""
        return self._first().partition(": ")[0]

    @property
    def formula(self) -> str:
        """The first sentence of the docstring after the title, without the source."""
        sentence = re.split(r"(?<!et al)(?<!eq)\.(?=\s|$)", self._first().partition(": ")[2])[0]
        return re.sub(r" \([^()]*\b(?:1[789]|20)\d\d[^()]*\)", "", sentence).replace("`", "")

    @property
    def sources(self) -> list[str]:
        """Every "Author 1998" of the docstring, in order."""
        text = " ".join(inspect.cleandoc(self.what.__doc__ or "").split())
        return list(dict.fromkeys(SOURCE.findall(text)))

    def _first(self) -> str:
        return " ".join(inspect.cleandoc(self.what.__doc__ or "").partition("\n\n")[0].split())
