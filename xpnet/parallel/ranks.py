"""What `parallel=` means: the ranks, the shards of each batch, and the check that all agree."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from xpnet.backends.cpu.threads import threads_are_chosen, using_threads
from xpnet.checks import Checked, different_facts, expect_instance, listed_differences
from xpnet.graph import Graph
from xpnet.layer import Layer
from xpnet.parallel.communicator import Communicator
from xpnet.parallel.mpi import MPICommunicator
from xpnet.parallel.sums import Sums, Table

Function = TypeVar("Function", bound=Callable[..., Any])


class DataParallel(Checked):
    """How several ranks share each batch: fit(parallel=DataParallel(shards=8)).

    Each batch is cut into shards, and each rank computes its own shards: forward and backward pass.
    The gradients of all shards are added, and every rank makes the same update. The number of
    shards does not depend on the number of ranks, and shards are added in a fixed order: 1, 2 and 4
    ranks train to the same bits. Another number of shards gives other bits, by rounding.

    The loss is that of the whole batch. Batch norm normalises each shard by itself, or with `sync`
    the whole batch, and dropout draws a mask for each shard.

    Args:
        communicator: a Communicator; all processes that mpiexec started by default.
        shards: parts of each batch: a power of two, and a multiple of the number of ranks.
        deterministic: whether the sum has a fixed order. False uses MPI's own sum: then shards may
            be any multiple of the number of ranks, and the bits depend on that number.
        sync: whether batch norm uses mean and variance of the whole batch, as without `parallel`.
            The ranks then exchange them for each batch norm, and two sums in the backward pass; a
            rank computes all its shards at once, which takes the memory of its part of the batch
            and of their gradients.
        pieces: into how many pieces the weights' gradients are cut. With more than one, pieces are
            exchanged while the backward pass of a rank's last shard goes on, in another thread or
            on another stream of a GPU. The bits are the same. The default is 1, because more were
            slower where they were measured, see docs/parallel.md.
    """

    def __init__(self, communicator: Communicator | None = None, *, shards: int = 4,
                 deterministic: bool = True, sync: bool = False, pieces: int = 1) -> None:
        if communicator is None:
            communicator = MPICommunicator()
        self.communicator: Communicator = expect_instance(
            self.who, "communicator", communicator, Communicator, "a Communicator")
        self.shards = self.expect_integer("shards", shards, most=2**20)
        self.deterministic = self.expect_flag("deterministic", deterministic)
        self.sync = self.expect_flag("sync", sync)
        self.pieces = self.expect_integer("pieces", pieces)
        if self.sync and self.pieces > 1:
            raise ValueError(f"{self.who}: expected pieces=1 with sync=True, which computes all "
                             f"shards of a rank at once. Received: pieces={self.pieces}.")
        self._phase = ""                # of `entered`: begun, agreed or refused
        if self.deterministic and self.shards & (self.shards - 1):
            raise ValueError(f"{self.who}: expected shards to be a power of two, or "
                             f"deterministic=False. Received: shards={self.shards}.")

    @property
    def rank(self) -> int:
        """The number of this rank, from 0."""
        return self.communicator.rank

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self.communicator.size

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which shows the progress and writes files."""
        return self.rank == 0

    @property
    def own(self) -> range:
        """The shards of this rank."""
        each = self.shards // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def expect_fit(self, net: Graph, who: str) -> None:
        """Raise ValueError if the ranks cannot have equally many shards, if the network is not on
        the GPU of an NCCLCommunicator, if pieces cannot be sent, or if `sync` cannot reach a batch
        norm of the network."""
        there = self.communicator.backend
        if there is not None and there.name != net.backend.name:
            raise ValueError(f"{who}: expected a network on the GPU of its rank, "
                             f"backend=communicator.backend ({there.name}). Received: a network on "
                             f"{net.backend.name}.")
        if self.pieces > 1 and there is None and net.backend.captures:
            raise ValueError(f"{who}: expected pieces=1 on a GPU without an NCCLCommunicator. "
                             f"Received: pieces={self.pieces}.")
        for layer in net.layers if self.sync else ():
            if any(child.over_batch for child in _descendants(layer)):
                raise ValueError(f"{self.who}: expected batch norms that are layers of the network "
                                 f"for sync=True. Received: one that is a child of {layer.who}.")
        if self.shards % self.size:
            even = not self.deterministic or self.size & (self.size - 1) == 0
            what = ("shards to be a multiple of the number of ranks" if even else
                    "1, 2, 4, 8, ... ranks, or sums without a fixed order")
            more = "" if even else ", deterministic=False"
            raise ValueError(f"{who}: expected {what}, as in "
                             f"parallel=DataParallel(shards={4 * self.size}{more}). Received: "
                             f"shards={self.shards} for {self.size} ranks.")

    def bounds(self, samples: int) -> list[int]:
        """Where the shards of a batch begin and end: shard s has the samples bounds[s] to
        bounds[s + 1] - 1. If there are fewer samples than shards, the last shards are empty."""
        return [-(-s * samples // self.shards) for s in range(self.shards + 1)]

    def add_ranks(self, sums: Sums, start: int = 0, stop: int | None = None) -> None:
        """Write the sum over the ranks into the buffer of every rank: into all of it, or into the
        bytes from `start` to `stop`."""
        memory = sums.memory[start:stop]
        if self.deterministic:
            self.communicator.tree_sum(memory, lambda a, b, at: sums.add(a, b, start + at))
        elif self.size > 1:
            for numbers in sums.numbers(memory, start):
                if len(numbers):
                    self.communicator.plain_sum(numbers)

    def join_ranks(self, table: Table) -> None:
        """Write the join of the tables of all ranks into that of every rank. It is always done in
        the tree, because MPI cannot join moments."""
        self.communicator.tree_sum(table.memory, table.add)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first rank of each machine runs the block before the other ones of the machine do:

            with parallel.in_turn():
                data = xn.data.cifar10()

        It downloads the files, and the others find them.
        """
        if not self.communicator.first:
            self.communicator.wait()
            yield
            return
        try:
            yield
        finally:                        # also after an error, which the others will have, too
            self.communicator.wait()

    def agree(self, who: str, facts: dict[str, Any]) -> None:
        """Raise ValueError on every rank if facts differ, and RuntimeError if another rank has
        failed before it called this."""
        every = self.communicator.gather_objects({"facts": facts})
        self._phase = "refused"
        for rank, one in enumerate(every):
            if "error" in one:
                raise RuntimeError(f"{who}: expected every rank to begin. Received on rank {rank}: "
                                   f"{one['error']}")
        found = [text for rank, one in enumerate(every) for text in different_facts(
            one["facts"], every[0]["facts"], f" on rank {rank}")]
        if found:
            raise ValueError(f"{who}: expected the same on every rank. Received: "
                             f"{listed_differences(found)}.")
        self._phase = "agreed"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The work of all ranks. An error before they agree is sent to the others, which raise it,
        too; a later one ends all ranks."""
        before, self._phase = self._phase, "begun"      # a callback of fit may call evaluate
        try:
            with self._threads():
                yield
        except BaseException as error:
            if self._phase == "agreed":
                self.communicator.abort(error)
            elif self._phase == "begun":
                self.communicator.gather_objects({"error": f"{type(error).__name__}: {error}"})
            raise
        finally:
            self._phase = before

    def _threads(self) -> Any:
        """The ranks of a machine share its cores, unless the user chose a number of threads."""
        threads = self.communicator.threads
        return nullcontext() if threads is None or threads_are_chosen() else using_threads(threads)


def in_ranks(function: Function) -> Function:
    """A function whose argument `parallel` may be None, True, a Communicator or a DataParallel. It
    gets None or a DataParallel, and runs within `entered`."""
    @functools.wraps(function)
    def called(*args: Any, parallel: Any = None, **kwargs: Any) -> Any:
        found = expect_parallel(function.__name__, parallel)
        with nullcontext() if found is None else found.entered():
            return function(*args, parallel=found, **kwargs)
    return called       # type: ignore[return-value]


def expect_parallel(who: str, parallel: Any) -> DataParallel | None:
    if parallel is None or parallel is False:
        return None
    if parallel is True or isinstance(parallel, Communicator):
        return DataParallel(None if parallel is True else parallel)
    return expect_instance(who, "parallel", parallel, DataParallel,    # type: ignore[no-any-return]
                           "None, True, a Communicator or a DataParallel")


def _descendants(layer: Layer) -> Iterator[Layer]:
    for child in layer.children:
        yield child
        yield from _descendants(child)


def block(count: int, rank: int, size: int) -> range:
    """Which of `count` things belong to a rank, by number; the last ranks may have fewer."""
    each = -(-count // size)
    return range(min(rank * each, count), min((rank + 1) * each, count))
