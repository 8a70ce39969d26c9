"""Into how many pieces the work of a call is cut: always the same number, whatever the number of
threads."""

from __future__ import annotations

TASKS = 16              # pieces of a call: enough for many cores
SMALL = 1 << 16         # multiply-adds; below, one piece


def pieces(work: int, *blocks: int) -> list[int]:
    """Into how many pieces to cut each axis of so many blocks, for about TASKS pieces: as many as
    it takes, in order."""
    left, cuts = TASKS if work >= SMALL else 1, []
    for count in blocks:
        cuts.append(max(1, min(count, left)))
        left = -(-left // cuts[-1])
    return cuts
