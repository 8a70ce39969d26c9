"""A layered layout of a graph: the row of each box, its position in the row, and the lines between.

A box is in the row below the lowest of its parents (Sugiyama et al. 1981). A line over several rows
passes through a place of its own in each row between, so no line runs through a box. The order in
the rows follows from barycenters, and the positions from the four alignments of Brandes and Köpf
2002, which keep long lines straight.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 24             # over all rows, to find an order with few crossings

Rows = list[list[int]]
Links = list[list[int]]


@dataclass(frozen=True)
class Layout:
    """Where the boxes and the lines of a graph are.

    Attributes:
        rows: the row of each box.
        centres: the centre of each box in its row, from 0.
        lines: for each box and each of its parents, the centres of the line in the rows from that
            of the parent to its own.
        width: of all boxes and lines.
        height: the number of rows.
    """

    rows: tuple[int, ...]
    centres: tuple[float, ...]
    lines: tuple[tuple[tuple[float, ...], ...], ...]
    width: float
    height: int


def lay_out(parents: Sequence[Sequence[int]], widths: Sequence[float], *, gap: float,
            lane: float) -> Layout:
    """The layout of a graph.

    Args:
        parents: of each box, as numbers of boxes before it.
        widths: of the boxes.
        gap: between two boxes.
        lane: the width that a line needs beside a box or another line.
    """
    count = len(parents)
    row_of = levels(parents)
    rows: Rows = [[] for _ in range(max(row_of) + 1)]
    row, size = list(row_of), [width + gap for width in widths]
    above: Links = [[] for _ in range(count)]
    chains: list[list[int]] = [[box] for box in range(count)]   # a box, and its places below
    for box, of in enumerate(parents):
        for parent in of:
            chain = chains[parent]          # shared by all lines that begin at this parent
            while row_of[parent] + len(chain) < row_of[box]:
                row.append(row[chain[-1]] + 1)
                size.append(lane)
                above.append([chain[-1]])
                chain.append(len(row) - 1)
            above[box].append(chain[row_of[box] - row_of[parent] - 1])
    for item, at in enumerate(row):
        rows[at].append(item)
    below: Links = [[] for _ in row]
    for item, uppers in enumerate(above):
        for upper in uppers:
            below[upper].append(item)
    rows = _ordered(rows, above, below)
    x = _positions(rows, above, below, size, count)
    half = [width / 2 for width in widths] + [lane / 2] * (len(row) - count)
    left = min(value - by for value, by in zip(x, half, strict=True))
    right = max(value + by for value, by in zip(x, half, strict=True))
    x = [value - left for value in x]
    lines = tuple(tuple((*(x[item] for item in chains[parent][:row_of[box] - row_of[parent]]),
                         x[box]) for parent in of) for box, of in enumerate(parents))
    return Layout(row_of, tuple(x[:count]), lines, right - left, len(rows))


def levels(parents: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The row of each box: the length of the longest path to it. A box without parents is in the
    row above its first reader."""
    rows: list[int] = []
    for of in parents:
        rows.append(max((rows[parent] + 1 for parent in of), default=0))
    first: dict[int, int] = {}
    for box, of in enumerate(parents):
        for parent in of:
            first[parent] = min(first.get(parent, rows[box]), rows[box])
    return tuple(row if of else first.get(box, 1) - 1
                 for box, (row, of) in enumerate(zip(rows, parents, strict=True)))


# --- the order in the rows ------------------------------------------------------------------------

def _ordered(rows: Rows, above: Links, below: Links) -> Rows:
    """The rows in the order with the fewest crossings that barycenters found."""
    best, fewest = rows, _crossings(rows, above)
    rows = [list(row) for row in rows]
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        at = {item: float(k) for row in rows for k, item in enumerate(row)}
        links = above if down else below
        for row in rows if down else reversed(rows):
            means = {item: sum(at[other] for other in links[item]) / len(links[item])
                     if links[item] else at[item] for item in row}
            row.sort(key=lambda item: (means[item], at[item]))
            at.update((item, float(k)) for k, item in enumerate(row))
        crossings = _crossings(rows, above)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(rows: Rows, above: Links) -> int:
    """The number of pairs of links that cross."""
    total = 0
    for upper, lower in pairwise(rows):
        at = {item: k for k, item in enumerate(upper)}
        seen: list[int] = []
        for item in lower:
            ends = sorted(at[other] for other in above[item])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


# --- the positions in the rows --------------------------------------------------------------------

def _positions(rows: Rows, above: Links, below: Links, size: Sequence[float], count: int
               ) -> list[float]:
    """The centre of each item: the mean of the two middle ones of four alignments, each as far to
    one side as its blocks allow."""
    crossed = _crossed(rows, above, count)
    found = []
    for links, downwards in ((above, rows), (below, rows[::-1])):
        for sign in (1, -1):
            mirrored = [row[::sign] for row in downwards]
            x = _compact(mirrored, _blocks(mirrored, links, crossed), size)
            found.append([sign * value for value in x])
    # All alignments are moved to the narrowest one, the two of each side by its edge.
    narrowest = min(found, key=lambda x: max(x) - min(x))
    for k, x in enumerate(found):
        edge: Callable[..., float] = max if k % 2 else min
        move = edge(narrowest) - edge(x)
        found[k] = [value + move for value in x]
    return [sum(sorted(values)[1:3]) / 2 for values in zip(*found, strict=True)]


def _crossed(rows: Rows, above: Links, count: int) -> set[tuple[int, int]]:
    """Links of boxes that cross a link between two places of a long line, which stays straight."""
    found: set[tuple[int, int]] = set()
    for upper, lower in pairwise(rows):
        at = {item: k for k, item in enumerate(upper)}
        straight = [at[above[item][0]] if item >= count <= above[item][0] else None
                    for item in lower]
        for order, worse in ((1, int.__lt__), (-1, int.__gt__)):
            bound = None
            for item, end in zip(lower[::order], straight[::order], strict=True):
                if end is not None:
                    bound = end if bound is None else (max if order == 1 else min)(bound, end)
                elif bound is not None:
                    found.update((item, other) for other in above[item]
                                 if worse(at[other], bound))
    return found | {(other, item) for item, other in found}


def _blocks(rows: Rows, links: Links, crossed: set[tuple[int, int]]) -> list[int]:
    """The first item of each item's block: items of successive rows that get one position, because
    each is linked to the middle one of its neighbours in the row before."""
    first = list(range(len(links)))
    for before, row in pairwise(rows):
        at = {item: k for k, item in enumerate(before)}
        used = -1
        for item in row:
            near = sorted(set(links[item]), key=at.__getitem__)
            for other in near[(len(near) - 1) // 2:len(near) // 2 + 1]:
                if at[other] > used and (item, other) not in crossed:
                    first[item], used = first[other], at[other]
                    break
    return first


def _compact(rows: Rows, first: list[int], size: Sequence[float]) -> list[float]:
    """Positions of the items, one for each block, as small as the distances allow; then blocks move
    towards their neighbours on the other side."""
    after: dict[int, dict[int, float]] = {block: {} for block in first}
    waiting = dict.fromkeys(after, 0)
    for row in rows:
        for a, b in pairwise(row):
            distance = (size[a] + size[b]) / 2
            if first[b] not in after[first[a]]:
                waiting[first[b]] += 1
            after[first[a]][first[b]] = max(after[first[a]].get(first[b], 0.0), distance)
    order = [block for block, number in waiting.items() if not number]
    x = dict.fromkeys(after, 0.0)
    for block in order:                     # it grows as blocks become free
        for other, distance in after[block].items():
            x[other] = max(x[other], x[block] + distance)
            waiting[other] -= 1
            if not waiting[other]:
                order.append(other)
    for block in reversed(order):
        if after[block]:
            x[block] = max(x[block], min(x[other] - distance
                                         for other, distance in after[block].items()))
    return [x[block] for block in first]
