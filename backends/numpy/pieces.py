"""How work is divided into pieces.

Every division, the number of partial sums and the order in which they are added depend on shapes
only, never on the number of threads. So the same call gives the same bits on one core and on
sixteen.
"""

from __future__ import annotations

SERIAL = 1 << 17        # elements; below, waking a thread (about 40 us) takes longer than its work
# elements of a chunk: with smaller ones, threads wait for the interpreter's lock
CHUNK = 1 << 18


def spans(total: int, parts: int) -> list[slice]:
    """range(total) in `parts` nearly equal slices."""
    return [slice(total * k // parts, total * (k + 1) // parts) for k in range(parts)]


def partial_sums(tiles: int, size: int) -> list[slice]:
    """Which tiles to add up in each of several partial sums of `size` elements: 8 sums, or fewer if
    they are large."""
    return spans(tiles, min(tiles, 8, max(2, (1 << 22) // size)))
