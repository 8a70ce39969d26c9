"""Into how many pieces a call is divided: the same number for any number of threads."""

from __future__ import annotations

TASKS = 16              # pieces of a call: enough for 16 cores
SMALL = 1 << 16         # multiply-adds; below, one piece


def pieces(work: int, *blocks: int) -> list[int]:
    """The number of pieces along each axis, given the number of blocks along it; about TASKS in
    all.

    The first axis is divided as far as possible, then the next ones.
    """
    left, cuts = TASKS if work >= SMALL else 1, []
    for count in blocks:
        cuts.append(max(1, min(count, left)))
        left = -(-left // cuts[-1])
    return cuts
