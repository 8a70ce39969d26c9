"""Arrays of another library, which only DLPack can read."""

from __future__ import annotations

from typing import Any


class Exported:
    """A DLPack array of another library; its device can be pretended."""

    def __init__(self, array: Any, device: tuple[int, int] | None = None) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        found: tuple[int, int] = self.device or self.array.__dlpack_device__()
        return found
