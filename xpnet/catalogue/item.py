"""What the catalogue knows of a building block. Its formula and source are read from its docstring,
where they stand once.

A docstring begins "Title: formula." or "Title: formula (Author 1998)."; sources are written "Author
et al. 1998, eq. 3".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.layer import Shape

SOURCE = re.compile(r"[A-Z][\w'-]+(?: (?:and|et) [\w'-]+\.?)? (?:1[789]|20)\d\d[a-z]?"
                    r"(?:, (?:sections?|eq\.|tables?|figures?|appendix|algorithms?|part) "
                    r"\w+(?:\.\w+)*(?: and \w+(?:\.\w+)*)?)*")


@dataclass(frozen=True)
class Item:
    """A class or a function, an example of it that `verify` checks, and what other libraries call
    it ("" where they lack it).

    shapes: of the example's inputs, for a loss of the output that it judges, without the batch
    axis. inputs(rng, N): batch-last arrays for the check, where normally distributed numbers will
    not do. target(rng, N): batch-first targets, for losses. Without `make` there is no gradient to
    check.
    """

    what: Callable[..., Any]
    make: Callable[[], Any] | None = None
    shapes: tuple[Shape, ...] = ()
    inputs: Callable[[np.random.Generator, int], tuple[np.ndarray, ...]] | None = None
    target: Callable[[np.random.Generator, int], np.ndarray] | None = None
    pytorch: str = ""
    keras: str = ""
    numpynet: str = ""
    common: bool = False        # too plain a thing to have a source
    # a function of one number, though no Activation: the page shows its picture
    curve: bool = False

    @property
    def name(self) -> str:
        return self.what.__name__

    @property
    def title(self) -> str:
        return self._first().partition(": ")[0]

    @property
    def formula(self) -> str:
        """What stands between the title and the end of the docstring's first sentence, without the
        source."""
        sentence = re.split(r"(?<!et al)(?<!eq)\.(?=\s|$)", self._first().partition(": ")[2])[0]
        return re.sub(r" \([^()]*\b(?:1[789]|20)\d\d[^()]*\)", "", sentence).replace("`", "")

    @property
    def sources(self) -> list[str]:
        """Every "Author 1998" of the docstring, in order."""
        return (
            list(
                dict.fromkeys(
                    SOURCE.findall(" ".join(inspect.cleandoc(self.what.__doc__ or "").split())))))

    def _first(self) -> str:
        return " ".join(inspect.cleandoc(self.what.__doc__ or "").partition("\n\n")[0].split())
