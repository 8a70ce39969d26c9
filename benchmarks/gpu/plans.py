"""The fastest alternative for each shape: times all alternatives for every product and convolution
in the training steps of the networks.

The result is for backends/cupy/plans.json: {architecture: {key: way}}, with the alternatives that
are worth an entry.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.contenders import INPUT_SHAPES, LEARNING_RATE, TF32, Job
from benchmarks.gpu.steps import samples
from benchmarks.gpu.timing import Timer, backend_timer
from benchmarks.rows import Row

WORTH = 0.97        # of the usual alternative's time: a smaller gain gets no entry


class Recorder:
    """Replaces a backend's `_way`: times all alternatives when a key is first looked up, and
    remembers the fastest."""

    def __init__(self, seconds_of: Timer, late: Callable[[], bool]) -> None:
        self.seconds_of, self.late = seconds_of, late
        self.best: dict[str, Any] = {}
        self.rows: list[Row] = []

    def __call__(self, key: str, usual: Any, others: Callable[[], Iterable[Any]],
                 run: Callable[[Any], object]) -> Any:
        if key not in self.best:
            if self.late():
                return usual
            self.best[key] = usual  # for look-ups of the same key by an alternative that is timed
            ways = [usual, *(way for way in others() if way != usual)]
            seconds = [self.seconds_of(lambda way=way: run(way)) for way in ways]           # type: ignore[misc]
            fastest = min(range(len(ways)), key=seconds.__getitem__)
            chosen = fastest if seconds[fastest] < WORTH * seconds[0] else 0
            self.best[key] = ways[chosen]
            self.rows.append({"key": key, "usual": usual, "best": ways[chosen],
                              "seconds": seconds[chosen], "usual_seconds": seconds[0],
                              "ways": list(zip(ways, seconds, strict=True))})
        return self.best[key]


def measure(job: Job) -> Iterator[dict[str, Any]]:
    """Yield {"about": ..., "architecture": ...}, and for each network and setting of TF32 its
    {"item": ...} and a {"row": ...} for each new key."""
    import xpnet as xn
    from benchmarks.xpnet_side import NETS, about, backend_of
    backend = backend_of(job)
    device = getattr(backend, "device", None)
    capability = backend.xp.cuda.Device(device).compute_capability if device is not None else "none"
    recorder = Recorder(backend_timer(backend), job.late)
    backend._way = recorder                             # type: ignore[attr-defined]
    yield {"about": about(backend) | {"architecture": f"sm_{capability}"}}
    modes = sorted(TF32, key=lambda mode: mode != job.tf32)
    for number, (mode, (name, batch)) in job.items(itertools.product(modes, job.cells)):
        yield number
        backend.tf32 = mode                             # type: ignore[attr-defined]
        net = NETS[name](INPUT_SHAPES[name], backend=backend)
        images, labels = samples(name, batch)
        step = xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(LEARNING_RATE), capture=False)
        try:
            step(net.batch_last(images), backend.asarray(labels))
        finally:                                        # also what was measured before a failure
            yield from ({"row": row} for row in recorder.rows)
            recorder.rows.clear()


def table(rows: Iterable[Row], old: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The old table, updated with the fastest alternatives of these rows; keys whose usual
    alternative is the fastest are removed."""
    new = {architecture: dict(ways) for architecture, ways in old.items()}
    for row in rows:
        ways = new.setdefault(row["architecture"], {})
        ways.pop(row["key"], None)
        if row["best"] != row["usual"]:
            ways[row["key"]] = row["best"]
    return {architecture: dict(sorted(ways.items())) for architecture, ways in sorted(new.items())
            if ways}


def write(file: Path, rows: Iterable[Row]) -> None:
    """Write the committed table, updated with these rows, to another file."""
    from xpnet.backends.cupy.tuning import TABLE
    from xpnet.io.files import write_atomically
    content = table(rows, json.loads(TABLE.read_text(encoding="utf-8")))
    write_atomically(str(file), (json.dumps(content, indent=1) + "\n").encode())
