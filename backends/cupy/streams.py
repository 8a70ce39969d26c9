"""The streams of a GPU for training: one that computes, and one that copies batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


class Lane(threading.local):
    """The streams of one thread, made at its first use: the capture of one thread must not contain
    the launches of another."""

    def __init__(self, cupy: Any, device: int) -> None:
        with cupy.cuda.Device(device):
            # Blocking streams synchronise with the default stream, which could then not be used
            # during a capture.
            self.compute = cupy.cuda.Stream(non_blocking=True)
            self.copies = cupy.cuda.Stream(non_blocking=True)
            self.event = cupy.cuda.Event(disable_timing=True)
        self.pieces: list[Any] = []     # of pinned memory: see uploads.py


def lane(self: CupyBackend) -> Lane:
    return Lane(self.xp, self.device)


def stream(self: CupyBackend) -> AbstractContextManager[Any]:
    lane = self._lane
    around = self.xp.cuda.get_current_stream(self.device)
    return self.scope() if around is lane.compute else _entered(self, lane, around)


@contextmanager
def _entered(self: CupyBackend, lane: Lane, around: Any) -> Iterator[None]:
    with self.scope():
        lane.compute.wait_event(around.record(lane.event))
        try:
            with lane.compute:
                yield
        finally:
            # Memory freed inside may be used again outside, so the outer stream waits for both.
            for stream in (lane.compute, lane.copies):
                around.wait_event(stream.record(lane.event))
