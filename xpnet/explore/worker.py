"""The one thread that uses the networks: it answers requests, and trains between them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

Job = tuple["Future[Any]", Callable[[], Any]]


class Worker(threading.Thread):
    """A thread that runs functions one after another, and a step of the training while there are
    none.

    So a function finds the network between two steps, never within one, and it waits for one step
    at most. Kernels and GPU streams see a single thread. It ends with the process.

    Args:
        step: makes a step if there is one to make, and returns whether there was one.
    """

    def __init__(self, step: Callable[[], bool]) -> None:
        super().__init__(name="xpnet explore", daemon=True)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._step, self._closed = step, False
        self.start()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """The result of a function that the thread runs."""
        future: Future[Any] = Future()
        self._jobs.put((future, function))
        return future

    def close(self) -> None:
        """End the thread after what it is doing now."""
        self._closed = True
        self._jobs.put(None)

    def run(self) -> None:
        busy = False
        while not self._closed:
            try:
                job = self._jobs.get(block=not busy)
            except Empty:
                busy = self._step()
                continue
            if job is None:
                return
            future, function = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            busy = True                 # the function may have started the training
