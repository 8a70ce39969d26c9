"""Into how many pieces the work of a call is cut: the same number for any number of threads."""

from __future__ import annotations

TASKS = 16              # pieces of a call: enough for many cores
SMALL = 1 << 16         # multiply-adds; below, one piece


def pieces(work: int, *blocks: int) -> list[int]:
    """The number of pieces for each axis of a number of blocks, about TASKS in all.

    The first axis gets as many as it has blocks, the next ones the rest.
    """
    left, cuts = TASKS if work >= SMALL else 1, []
    for count in blocks:
        cuts.append(max(1, min(count, left)))
        left = -(-left // cuts[-1])
    return cuts
