"""The error of a backend that cannot be used."""

from __future__ import annotations


class BackendError(RuntimeError):
    """A backend cannot be used on this machine. The message has the reason and the remedy."""

    __module__ = "xpnet.backends"       # the name under which users import it

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. {remedy}.")
        self.reason, self.remedy = reason, remedy
