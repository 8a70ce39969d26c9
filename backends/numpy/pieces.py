"""Into which pieces work is cut.

Every cut, the number of partial sums and the order in which they are added depend on shapes only,
never on the number of threads. So the same call gives the same bits on one core and on sixteen.
"""

from __future__ import annotations

SERIAL = 1 << 17        # elements; below, waking a thread (some 40 us) costs more than it does
# elements of a chunk: with smaller ones, threads wait for each other's turn in the interpreter
CHUNK = 1 << 18


def spans(total: int, parts: int) -> list[slice]:
    """range(total) in `parts` nearly equal slices."""
    return [slice(total * k // parts, total * (k + 1) // parts) for k in range(parts)]


def partial_sums(tiles: int, size: int) -> list[slice]:
    """Which tiles to add up in each of several partial sums of `size` elements: 8 sums, fewer where
    they are large."""
    return spans(tiles, min(tiles, 8, max(2, (1 << 22) // size)))
