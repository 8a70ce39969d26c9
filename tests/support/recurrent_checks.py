"""Checks of the CUDA kernels of recurrent layers against base.py in double precision, and mistakes
they must notice."""

from __future__ import annotations

from typing import Any

import numpy as np
from fused_checks import double, drawn, near
from kernel_setting import Mutant, Setting, base, other_limits
from parity import ties

from xpnet.backends import Window
from xpnet.backends.cells import CELLS, cell_of
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend

NAMES = (*CELLS, *(name for name in cuda_launch.ACTIVATIONS if name))


def problem(s: Setting, cell: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays, and which samples are in which steps: all samples in all steps, fewer and fewer
    samples, or masks; a single step or several; in both orders."""
    C, h, w, N = s.shape
    H, T, rng = C + h, 1 + w % 4, np.random.default_rng(s.shape)
    rules, ends = cell_of(cell), np.sort(rng.integers(0, T + 1, N))[::-1]
    ends[0] = T
    kind = ("full", "ragged", "masks")[(C + h + N) % 3]
    counts = [int((ends > t).sum()) if kind == "ragged" else N for t in range(T)]
    given = {"a": s.array((rules.gates * H, sum(counts))),
             "U": drawn(s, rules.gates * H, H, seed=1) * s.dtype.type(H**-0.5)}
    states = [drawn(s, H, N, seed=2 + k) for k in range(rules.states)]
    if cell == "gru" and w % 2:
        given["bias"] = drawn(s, H, seed=4)
    known = {"counts": counts, "reverse": s.backwards}
    if kind == "masks":
        order = rng.permutation(N)
        known["lengths"] = ends[order][None].astype(s.dtype)
    return given | {"states": states}, known


def moved(move: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: move(a) if isinstance(a, np.ndarray) else [move(b) for b in a]
            if isinstance(a, list) and isinstance(a[0], np.ndarray) else a
            for name, a in arguments.items()}


def scanned(s: Setting, cell: str) -> list[Any]:
    """All results of both directions, compared with those in double precision. Backward gets what
    base.py keeps, rounded, so that it has the same inputs."""
    given, known = problem(s, cell)
    y, states, kept = base.scan(cell, **moved(double, given | known))
    ours = s.backend.scan(cell, **moved(s.to_device, given | known))
    near(s, (ours[0], *ours[1], *ours[2]), (y, *states, *kept), 20)
    only = s.backend.scan(cell, **moved(s.to_device, given | known), keep=False)
    s.agree((only[0], *only[1]), tuple(s.backend.to_numpy(a) for a in (ours[0], *ours[1])))
    assert only[2] == ()

    rounded = [a.astype(s.dtype) for a in kept]
    dy = None if sum(s.shape) % 4 == 0 else drawn(s, *y.shape, seed=5)
    if dy is not None and "lengths" in known:
        steps = np.repeat(np.arange(len(known["counts"])), s.shape[3])
        dy *= steps < np.tile(known["lengths"][0], len(known["counts"]))
    backward = {"dy": dy, "dstates": [drawn(s, *a.shape, seed=6) for a in states],
                "U": given["U"], "kept": rounded} | known
    da, ds, dinitial = base.scan_backward(cell, **moved(double, backward))
    results = s.backend.scan_backward(cell, **moved(s.to_device, backward))
    assert (results[0] is results[1]) == (da is ds)
    near(s, (*results[:2], *results[2]), (da, ds, *dinitial), 20)
    return [s.backend.to_numpy(a) for a in (*ours[:1], *ours[1], *ours[2], *results[:2],
                                           *results[2])]


def check_scan(s: Setting) -> None:
    scanned(s, NAMES[sum(s.shape) % len(NAMES)])


def check_scan_launches(s: Setting) -> None:
    """The same bits whatever the number of blocks and threads, and whichever comes first."""
    cell, results = NAMES[sum(s.shape) % len(NAMES)], []
    for most, threads, backwards in ((cuda_launch.MAX_GRID, 256, s.backwards),
                                     ((2, 2), 8, not s.backwards)):
        for library in getattr(s.backend.xp, "libraries", ()):  # a real GPU has its own order
            library.run_backwards(backwards)
        with other_limits(MAX_GRID=most, THREADS=threads):
            results.append(scanned(s, cell))
    s.agree(tuple(s.backend.asarray(a) for a in results[0]), tuple(results[1]))


GRIDS = {"scan": check_scan, "scan_launches": check_scan_launches}


def every_instantiation(backend: CupyBackend) -> None:
    """Asks for the kernels of each cell and type once."""
    for dtype in cuda_launch.TYPES:
        for cell in NAMES:
            scanned(Setting(backend, (2, 1, 2, 5), Window.make(1), dtype, ties, 0, False), cell)


# Mistakes: the file, what stands there, what stands there instead, and the check that has to
# notice.
MUTANTS: dict[str, Mutant] = {
    "a sample ends one step later": ("recurrent", "!(Number(p.t) < Number(lengths[n]))",
                                     "!(Number(p.t) <= Number(lengths[n]))", "scan"),
    "a state changes beyond the end": ("recurrent", "if (!u.ended) h[u.one] = value;",
                                       "h[u.one] = value;", "scan"),
    "samples that are not in a step take part": ("recurrent", "FOR_SAMPLES(n, (p).count, 1)",
                                                 "FOR_SAMPLES(n, (p).N, 1)", "scan"),
    "a GRU forgets its reset gate backwards": (
        "recurrent", "ds[u.all + 2 * u.all_block] = T(dn * r);",
        "ds[u.all + 2 * u.all_block] = T(dn);", "scan"),
}
