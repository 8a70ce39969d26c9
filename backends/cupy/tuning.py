"""Which of several alternatives is used for a shape: from a committed table, or measured on
request.

Another alternative adds in another order and gives other bits. So measurements are made only with
`autotune`, and the choices are saved with a run: `backend.tuning`, which `save` and `load` include.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.user_cache import PrivateFolder, cache_folder

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


# {architecture: {key: way}}, written from measurements (`python -m benchmarks gpu --parts plans`).
# For an architecture or a shape that is not in it, the rules of plans.py hold.
TABLE = Path(__file__).with_name("plans.json")

WARM_UP, ROUNDS, CALLS = 1, 3, 4
MOST = 1 << 22              # bytes of the file of measured alternatives: some 40,000 shapes


def way(self: CupyBackend, key: str, usual: Any, others: Callable[[], Iterable[Any]],
        run: Callable[[Any], object]) -> Any:
    """The alternative for `key`, a JSON value: one that was chosen before, else the one in the
    table, else the usual one.

    With autotune, a new key is measured: run(way) for the usual one and all `others`; the fastest
    is saved.
    """
    if key in self.tuning:
        return self.tuning[key]
    if not self.autotune or self._is_capturing():
        return self._table.get(key, usual)
    ways = [usual, *(way for way in others() if way != usual)]
    self.tuning[key] = min(ways, key=lambda way: self._seconds(lambda: run(way)))
    _remember(self)
    return self.tuning[key]


def is_capturing(self: CupyBackend) -> bool:
    with self.scope():
        return self.xp.cuda.get_current_stream().is_capturing()


def seconds(self: CupyBackend, call: Callable[[], object]) -> float:
    """The seconds that a call takes on the GPU: the smallest mean over `CALLS` calls."""
    cuda = self.xp.cuda
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(ROUNDS):
        start, stop = cuda.Event(), cuda.Event()
        start.record()
        for _ in range(CALLS):
            call()
        stop.record()
        stop.synchronize()
        times.append(cuda.get_elapsed_time(start, stop) / 1000 / CALLS)
    return min(times)


def table(self: CupyBackend) -> dict[str, Any]:
    """The entries of the committed table for this architecture."""
    architecture = f"sm_{self.xp.cuda.Device(self.device).compute_capability}"
    return json.loads(TABLE.read_text(encoding="utf-8")).get(architecture, {})


def remembered(self: CupyBackend) -> dict[str, Any]:
    """The alternatives that were measured on this machine before."""
    try:
        folder, name = self._memory_file()
        known = json.loads(folder.read(name, MOST))
    except (OSError, ValueError, RecursionError):   # missing, not ours, or damaged
        return {}
    return known if isinstance(known, dict) else {}


def memory_file(self: CupyBackend) -> tuple[PrivateFolder, str]:
    """(folder, name) of the cache file, one per model of GPU and version of the kernels."""
    gpu = self.xp.cuda.runtime.getDeviceProperties(self.device)["name"].decode()
    kernels = (
        hashlib.sha256(
            (cuda_launch.source("product") + cuda_launch.source(
                "im2col")).encode()).hexdigest()[:12])
    return (PrivateFolder(cache_folder() / "plans"),
            f"{re.sub('[^A-Za-z0-9]+', '-', gpu)}-{kernels}.json")


def _remember(self: CupyBackend) -> None:
    """Save to the cache. If it cannot be written, the next process measures again."""
    with suppress(OSError):
        folder, name = self._memory_file()
        folder.write(name, json.dumps(self.tuning, indent=0, sort_keys=True).encode())
