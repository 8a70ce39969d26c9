"""Threads for the CPU: a small pool that runs numbered tasks, with BLAS limited to one thread.

NumPy releases the interpreter's lock inside copies, arithmetic and matrix products, so ordinary
threads are enough.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeAlias

from xpnet.backends.arguments import is_integer, wrong

Task = Callable[[int], object]
Queue: TypeAlias = "SimpleQueue[tuple[_Job, Context] | None]"


def thread_count() -> int:
    """Number of threads to use: XPNET_NUM_THREADS if it is set, else one for each core available to
    this process."""
    text = os.environ.get("XPNET_NUM_THREADS", "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError("XPNET_NUM_THREADS: expected a whole number, 1 or larger. Received: "
                             f"{text!r}.")
        return int(text)
    return cores()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


MOST_THREADS = 4096     # more than any machine has cores
_chosen: int | None = None


def set_num_threads(n: int | None) -> None:
    """Set how many threads the CPU backends use, in this process and from the next kernel on.

    It applies to all networks, also to those that are being trained in other threads, and overrides
    the environment variable XPNET_NUM_THREADS. Results keep the same bits. The numba backend uses
    at most NUMBA_NUM_THREADS threads, by default one for each core.

    Args:
        n: number of threads, 1 to 4096, including the calling one; None restores the default:
            XPNET_NUM_THREADS or, without it, one thread for each core available to this process.

    Raises:
        ValueError: n is anything else.
    """
    global _chosen
    if n is not None and not is_integer(n, 1, MOST_THREADS):
        raise wrong("set_num_threads", f"n to be an int from 1 to {MOST_THREADS}, or None", "n", n)
    _chosen = None if n is None else int(n)


def get_num_threads() -> int:
    """The number of threads that the CPU backends use: see `set_num_threads`."""
    return thread_count() if _chosen is None else _chosen


def threads_are_chosen() -> bool:
    """Whether a user chose the number of threads, by set_num_threads or XPNET_NUM_THREADS."""
    return _chosen is not None or bool(os.environ.get("XPNET_NUM_THREADS", "").strip())


@contextmanager
def using_threads(n: int) -> Iterator[None]:
    """set_num_threads(n) in the block, for the whole process; afterwards as before."""
    global _chosen
    before = _chosen
    set_num_threads(n)
    try:
        yield
    finally:
        _chosen = before


class ThreadPool:
    """`size` threads, or the number given to set_num_threads, that run numbered tasks.

    The caller is one of them. The others work in its context, so that its np.errstate applies to
    all tasks. They start at the first parallel call that needs them and end when the pool is
    deleted. Any thread may call, several at once too, and a task may call again: a caller never
    waits for a free worker, because it runs its tasks itself.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._workers_of: dict[int, _Workers] = {}  # by process: a forked process has no workers

    @property
    def size(self) -> int:
        return self._size if _chosen is None else _chosen

    def run(self, task: Task, count: int) -> None:
        """task(0), ..., task(count - 1), each once, in any order. The first exception is raised
        again here."""
        helpers = min(self.size, count) - 1
        if helpers < 1:
            for index in range(count):
                task(index)
            return
        job = _Job(task, count)
        queue = self._workers().at_least(helpers)
        for _ in range(helpers):
            queue.put((job, copy_context()))    # a copy each: only one thread can enter a context
        job.work()
        job.wait()

    def _workers(self) -> _Workers:
        """This process's workers."""
        process = os.getpid()
        # setdefault is atomic: all callers get the same workers.
        return self._workers_of.get(process) or self._workers_of.setdefault(process, _Workers())

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:   # at exit `os` is None
        workers = self._workers_of.get(getpid())
        if workers is not None:
            workers.dismiss()


class _Workers:
    """The workers of one process, and the queue where they wait for jobs."""

    def __init__(self) -> None:
        self._queue: Queue = SimpleQueue()
        self._lock, self._count = Lock(), 0

    def at_least(self, count: int) -> Queue:
        """The queue, after `count` workers were started."""
        if self._count < count:
            with self._lock:
                while self._count < count:
                    self._count += 1
                    Thread(target=_serve, args=(self._queue,), name=f"xpnet-{self._count}",
                           daemon=True).start()
        return self._queue

    def dismiss(self) -> None:
        for _ in range(self._count):
            self._queue.put(None)


def _serve(queue: Queue) -> None:
    """The loop of a worker. It refers to the queue and not to the pool, which could otherwise never
    be deleted."""
    while (item := queue.get()) is not None:
        job, context = item
        context.run(job.work)
        del item, job, context  # or arrays would be kept until the next job


class _Job:
    """The tasks of one `run`. Each thread takes the next one."""

    def __init__(self, task: Task, count: int) -> None:
        self._task: Task | None = task
        self._count = count
        self._take = itertools.count().__next__  # one call in C: no two threads get the same number
        self._finish = itertools.count(1).__next__
        self._error: BaseException | None = None
        self._done = Lock()
        self._done.acquire()

    def work(self) -> None:
        """Run tasks until none is left. After an error the others are only counted."""
        while (index := self._take()) < self._count:
            try:
                if self._error is None and self._task is not None:
                    self._task(index)
            except BaseException as error:  # Ctrl-C too: the task must still be counted
                self._error = error
            if self._finish() == self._count:
                self._done.release()

    def wait(self) -> None:
        """Wait until every task has ended, in whatever thread. A worker that wakes later finds no
        task and keeps no reference."""
        self._done.acquire()
        self._task = None
        error, self._error = self._error, None
        if error is not None:
            raise error


class _BlasLimit:
    """`with` limit: BLAS uses one thread. Entries are counted, because the setting belongs to the
    whole process.

    The tasks already use all cores; BLAS's own threads would compete with them.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Also called in a forked process, where another thread may have held the lock."""
        self._lock = Lock()
        self._depth = 0
        self._libraries: list[Any] | None = None
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                if self._libraries is None:  # only once, because finding them is slow
                    from threadpoolctl import ThreadpoolController
                    self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
                self._before = [library.num_threads for library in self._libraries]
                self._set([1] * len(self._libraries))
            self._depth += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._set(self._before)

    def _set(self, counts: list[int]) -> None:
        for library, count in zip(self._libraries or [], counts):
            # From version 3.8 on, threadpoolctl obeys only the first thread that sets a number, so
            # that threads do not undo each other's setting. This class counts entries, and its
            # setting must work in every thread that trains a network.
            getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


_BLAS_LIMIT = _BlasLimit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BLAS_LIMIT.begin)


def single_threaded_blas() -> _BlasLimit:
    """`with single_threaded_blas():` BLAS uses one thread per call in this process. Entries may
    nest and overlap."""
    return _BLAS_LIMIT
