"""Numbers that ranks take for themselves: who has taken them, nobody else gets."""

from __future__ import annotations

import array
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

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


class Portion(Protocol):
    """Numbers that a rank is about to get."""

    def ready(self) -> bool:
        """Whether they are known."""

    @property
    def first(self) -> int:
        """The first of them."""

    @property
    def last(self) -> int:
        """One past the last of them."""


class Counter(Protocol):
    """Hands out the numbers from 0 on, each once, in portions."""

    def lend(self, remainder: Remainder) -> None:
        """Keep what of it is too large to be told; rank 0 does, before it tells all."""

    def begin(self, remainder: Remainder) -> None:
        """Say what the numbers stand for, before the first are taken."""

    def take(self, count: int) -> Portion:
        """Ask for about so many numbers."""

    def close(self) -> None:
        """Give it up; all ranks do."""


class _Requested:
    """A portion that rank 0's memory has been asked for."""

    def __init__(self, window: Any, count: int, operation: Any) -> None:
        self._count = count
        self._more = array.array("q", [count])
        self._before = array.array("q", [0])
        self._request = window.Rget_accumulate(
            self._more, self._before, 0, op=operation
        )

    def ready(self) -> bool:
        return bool(self._request.Test())

    @property
    def first(self) -> int:
        return self._before[0]

    @property
    def last(self) -> int:
        return self.first + self._count


class SharedCounter:
    """A number in the memory of rank 0 that all ranks add to.

    Rank 0 does nothing for it: the network does, or MPI whenever rank 0 calls it.
    The lock is taken once and shared, since taking it each time needs rank 0.

    Parameters
    ----------
    team : RankMessages
        All of its ranks make one together.
    room : int
        Bytes that rank 0 lends at most, the same on all ranks.
    """

    def __init__(self, team: RankMessages, room: int = 0) -> None:
        from mpi4py import MPI

        self._sum = MPI.SUM
        size = 8 if team.rank == 0 else 0
        self._window = MPI.Win.Allocate(size, 8, comm=team.comm)
        if team.rank == 0:
            self._window.Lock(0)
            self._window.tomemory()[:] = bytes(8)
            self._window.Unlock(0)
        self._window.Lock_all(MPI.MODE_NOCHECK)
        self._last: _Requested | None = None
        self._loan = _Loan(team, room) if room else None

    def lend(self, remainder: Remainder) -> None:
        """Put the bitmaps where all ranks can read them, if there is room for them."""
        if self._loan is not None:
            self._loan.put(remainder.lend())

    def begin(self, remainder: Remainder) -> None:
        """Say how to read what is lent."""
        if self._loan is not None:
            remainder.read = self._loan.read

    def take(self, count: int) -> Portion:
        """Ask for so many numbers."""
        self._last = _Requested(self._window, count, self._sum)
        return self._last

    def close(self) -> None:
        """Give the memory back."""
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

    def __init__(self, team: RankMessages, room: int) -> None:
        from mpi4py import MPI

        self._byte = MPI.BYTE
        self._memory = np.zeros(room if team.rank == 0 else 0, np.uint8)
        self._window = MPI.Win.Create(self._memory, 1, comm=team.comm)
        self._window.Lock_all(MPI.MODE_NOCHECK)

    def put(self, lent: bytes) -> None:
        """Fill it, before anybody is told what to read."""
        self._memory[: len(lent)] = np.frombuffer(lent, np.uint8)
        self._window.Sync()

    def read(self, offset: int, size: int) -> bytes:
        """Return a part of it."""
        part = bytearray(size)
        request = self._window.Rget([part, self._byte], 0, (offset, size, self._byte))
        pause = naps()
        while not request.Test():
            next(pause)
        return bytes(part)

    def close(self) -> None:
        """Give the memory back; all ranks do."""
        self._window.Unlock_all()
        self._window.Free()


class _Settled:
    """A portion that was known from the start."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def ready(self) -> bool:
        return True


class InterleavedCounter:
    """Numbers dealt out in turn, for where memory of another rank is out of reach.

    Ranks that are faster than others wait for them at the end.

    Parameters
    ----------
    seat : int
        Which of the workers this is.
    workers : int
        How many there are.
    """

    def __init__(self, seat: int, workers: int) -> None:
        self._seat, self._workers = seat, workers
        self._turn, self._step = 0, 1

    def lend(self, remainder: Remainder) -> None:
        """Keep nothing: nobody could read it."""

    def begin(self, remainder: Remainder) -> None:
        """Divide the numbers into turns."""
        self._step = max(1, remainder.total // (TURNS * self._workers))

    def take(self, count: int) -> Portion:
        """Return the numbers of the next turn, whatever the count."""
        first = (self._turn * self._workers + self._seat) * self._step
        self._turn += 1
        return _Settled(first, first + self._step)

    def close(self) -> None:
        """Nothing is held."""


def make_counter(
    team: RankMessages,
    seat: int | None,
    workers: int,
    *,
    one_sided: bool,
    room: int = 0,
) -> Counter:
    """Return what the workers take numbers from; all ranks call it together.

    Parameters
    ----------
    team : RankMessages
    seat : int or None
        Which of the workers this rank is.
    workers : int
        How many there are.
    one_sided : bool
        Try one-sided operations; where a rank has none, numbers are dealt out.
    room : int
        Bytes that rank 0 lends at most.
    """
    from mpi4py import MPI

    shared = None
    if one_sided:
        with contextlib.suppress(MPI.Exception, NotImplementedError):
            shared = SharedCounter(team, room)
        one_sided = team.comm.allreduce(shared is not None, op=MPI.LAND)
    if shared is not None and one_sided:
        return shared
    return InterleavedCounter(seat or 0, workers)


def batches_taken(
    counter: Counter,
    remainder: Remainder,
    schedule: Schedule,
    stopping: Callable[[], bool],
) -> Iterator[Batch]:
    """Yield the batches of one portion after another, until none is left.

    Parameters
    ----------
    counter : Counter
        Shared with the other ranks.
    remainder : Remainder
        What the numbers mean.
    schedule : Schedule
        This rank's own: it says how many positions are worth taking.
    stopping : callable
        Asked before every portion.
    """
    counter.begin(remainder)
    schedule.remaining = remainder.total
    seconds = max(PORTION_S, PORTION_PER_RANK_S * schedule.workers)
    portion = counter.take(schedule.next_rows(seconds))
    while not stopping():
        if not _came(portion, stopping) or portion.first >= remainder.total:
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


def _came(portion: Portion, stopping: Callable[[], bool]) -> bool:
    """Wait for a portion; False when there is none to be waited for any more."""
    pause = naps()
    while not portion.ready():
        if stopping():
            return False
        next(pause)
    return True
