"""Which of xpnet's names somebody means who writes another library's."""

from __future__ import annotations

from importlib.util import find_spec

import xpnet
from xpnet.checks import nearest


def explain(name: str) -> str:
    """The message of the AttributeError for `xpnet.name`, with the name here where one is known."""
    message = f"xpnet has no {name}"
    if name.startswith("_") or find_spec(
        f"xpnet.{name}"
    ):  # Python itself looks for those in passing
        return message
    known = _known()
    if name.lower() in known:
        return f"{message}; its name here is {' or '.join(known[name.lower()])}"
    near = nearest(name, known)
    if near is not None:
        return f"{message}; perhaps {' or '.join(known[near])} is meant"
    return f"{message}; docs/catalogue.md lists what there is"


def _known() -> dict[str, list[str]]:
    """xpnet's names by lower-case names: its own, and other libraries' in the catalogue."""
    from xpnet.catalogue import FAMILIES

    known = {name.lower(): [name] for name in xpnet.__all__}
    for item in (item for items in FAMILIES.values() for item in items):
        ours = item.name if item.name in xpnet.__all__ else f"{item.what.__module__}.{item.name}"
        for other in f"{item.name}, {item.pytorch}, {item.keras}, {item.numpynet}".split(","):
            name = other.strip().rpartition(".")[2].lower()
            if (
                name and "(" not in name and ours not in known.setdefault(name, [])
            ):  # Conv2d(groups=C) is no name
                known[name].append(ours)
    return known
