"""Numbers that ranks take for themselves: no two ranks get the same."""

from __future__ import annotations

import array
import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.engines.messages import naps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resumable.engines.messages import RankMessages
    from resumable.model import Batch, Remainder, Schedule


#: Turns of each rank where numbers are dealt out in turn.
TURNS = 32
#: A portion is sized to last so long, in s, and in s for every rank: it cannot be given
#: back, so where positions suddenly take 20 times as long it does, too, and the one
#: asked for ahead. A counter that rank 0 serves itself serves 5,000 portions a second.
PORTION_S, PORTION_PER_RANK_S = 0.5, 2e-4


class Portion:
    """The numbers from `first` up to, not including, `last`."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def ready(self) -> bool:
        """Return whether the numbers are known."""
        return True


class _RequestedPortion(Portion):
    """A portion that the memory of rank 0 has been asked for."""

    def __init__(self, window: Any, count: int, operation: Any) -> None:
        self._count = array.array("q", [count])
        self._before = array.array("q", [0])
        self._request = window.Rget_accumulate(
            self._count, self._before, 0, op=operation
        )

    def ready(self) -> bool:
        if not self._request.Test():
            return False
        self.first = self._before[0]
        self.last = self.first + self._count[0]
        return True


class SharedCounter:
    """A number in the memory of rank 0 that all ranks add to; all make it together.

    Rank 0 does nothing for it: the network does, or MPI whenever rank 0 calls it.
    The lock is taken once and shared, since taking it each time needs rank 0. Rank 0
    lends at most `room` bytes.
    """

    def __init__(self, messages: RankMessages, room: int = 0) -> None:
        from mpi4py import MPI

        self._sum = MPI.SUM
        size = 8 if messages.rank == 0 else 0
        self._window = MPI.Win.Allocate(size, 8, comm=messages.comm)
        if messages.rank == 0:
            self._window.Lock(0)
            self._window.tomemory()[:] = bytes(8)
            self._window.Unlock(0)
        self._window.Lock_all(MPI.MODE_NOCHECK)
        self._last: Portion | None = None
        self._loan = _Loan(messages, room) if room else None

    def lend(self, remainder: Remainder) -> None:
        """On rank 0, before anything is sent: keep what is too large to be sent."""
        if self._loan is not None:
            self._loan.put(remainder.lend())

    def begin(self, remainder: Remainder) -> None:
        """Have what is lent read from rank 0; before the first numbers are taken."""
        if self._loan is not None:
            remainder.read = self._loan.read

    def take(self, count: int) -> Portion:
        """Ask for so many numbers."""
        self._last = _RequestedPortion(self._window, count, self._sum)
        return self._last

    def close(self) -> None:
        """Free the memory; all ranks call it together."""
        pause = naps()
        while self._last is not None and not self._last.ready():
            next(pause)
        self._window.Unlock_all()
        self._window.Free()
        if self._loan is not None:
            self._loan.close()


class _Loan:
    """Memory of rank 0 that the others read parts of.

    Not allocated by MPI, which may take it from the memory that processes of a host
    share, of which containers have little.
    """

    def __init__(self, messages: RankMessages, room: int) -> None:
        from mpi4py import MPI

        self._byte = MPI.BYTE
        self._memory = np.zeros(room if messages.rank == 0 else 0, np.uint8)
        self._window = MPI.Win.Create(self._memory, 1, comm=messages.comm)
        self._window.Lock_all(MPI.MODE_NOCHECK)

    def put(self, lent: bytes) -> None:
        """Fill it, before any rank is told what to read."""
        self._memory[: len(lent)] = np.frombuffer(lent, np.uint8)
        self._window.Sync()

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on."""
        part = bytearray(size)
        request = self._window.Rget([part, self._byte], 0, (offset, size, self._byte))
        pause = naps()
        while not request.Test():
            next(pause)
        return bytes(part)

    def close(self) -> None:
        self._window.Unlock_all()
        self._window.Free()


class InterleavedCounter:
    """Numbers dealt out in turn, where memory of another rank is out of reach.

    Ranks that are faster than others wait for them at the end.
    """

    def __init__(self, worker: int, workers: int) -> None:
        self._worker, self._workers = worker, workers
        self._turn, self._step = 0, 1

    def lend(self, remainder: Remainder) -> None:
        """Keep nothing: no rank could read it."""

    def begin(self, remainder: Remainder) -> None:
        """Divide the numbers into turns."""
        self._step = max(1, remainder.total // (TURNS * self._workers))

    def take(self, count: int) -> Portion:
        """Return the numbers of the next turn, whatever the count."""
        first = (self._turn * self._workers + self._worker) * self._step
        self._turn += 1
        return Portion(first, first + self._step)

    def close(self) -> None:
        """Nothing is held."""


Counter = SharedCounter | InterleavedCounter


def make_counter(
    messages: RankMessages,
    worker: int | None,
    workers: int,
    *,
    one_sided: bool,
    room: int = 0,
) -> Counter:
    """Return what the workers take numbers from; all ranks call it together.

    Where a rank has no one-sided operations, or they are not wanted, numbers are dealt
    out to all. `worker` is None on a rank that does not compute.
    """
    from mpi4py import MPI

    shared = None
    if one_sided:
        with contextlib.suppress(MPI.Exception, NotImplementedError):
            shared = SharedCounter(messages, room)
        one_sided = messages.comm.allreduce(shared is not None, op=MPI.LAND)
    if shared is not None and one_sided:
        return shared
    return InterleavedCounter(worker or 0, workers)


def batches_taken(
    counter: Counter,
    remainder: Remainder,
    schedule: Schedule,
    stopping: Callable[[], bool],
) -> Iterator[Batch]:
    """Yield the batches of one portion after another, until none is left.

    The schedule is this rank's own: it says how many positions are worth taking.
    """
    counter.begin(remainder)
    schedule.remaining = remainder.total
    seconds = max(PORTION_S, PORTION_PER_RANK_S * schedule.workers)
    portion = counter.take(schedule.next_rows(seconds))
    while not stopping():
        pause = naps()
        while not portion.ready():
            if stopping():
                return
            next(pause)
        if portion.first >= remainder.total:
            return
        schedule.remaining = max(0, remainder.total - portion.last)
        ahead = None
        if portion.last - portion.first > 1:
            # Asked for now, the next one is there when it is needed. Not so where a
            # position takes as long as a batch: it would wait for a rank that is
            # busy while another one has nothing to do.
            ahead = counter.take(schedule.next_rows(seconds))
        yield from remainder.batches(portion.first, portion.last, schedule.block)
        portion = ahead or counter.take(schedule.next_rows(seconds))
