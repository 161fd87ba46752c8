"""How pending positions are cut into batches, sized by time.

A *batch* is what a worker is handed at once, sized by time. A worker goes through it
*block* by block: rows read, computed and written together, sized by bytes. Small
blocks keep the rows in the processor's cache and the memory low; large batches keep
the cost of handing them out low.
"""

from __future__ import annotations

import collections
import itertools
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.model.batch import Batch
from resumable.model.positions import WINDOW, PositionSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from resumable.model.plan import Plan

    Array = np.ndarray[Any, np.dtype[Any]]

#: Shortest batch: handing one out takes about 0.2 ms, so this keeps it below 1 %.
SHORTEST_BATCH_S = 0.05
#: How many times larger than any before a batch may be: the first ones are timed.
GROWTH = 16
#: Computing should take this many times as long as reading, where chunks are split.
_READ_SHARE = 4
#: Positions tried one by one before the function, not the data, is held to be wrong.
PROBES = 20
#: More than this is not sent to every rank: 10,000 of them get 10 GB from rank 0.
SENT_BYTES = 1 << 20
#: A bitmap that cannot be compressed gets longer by less than this.
_EXCESS_BYTES = 256
#: Windows that are compressed to estimate the size of all.
_SAMPLED = 16
#: Windows that are kept as offsets; portions follow each other.
_KEPT = 2


class Schedule:
    """Cuts the pending positions into batches, sized by what the ones before took.

    What was handed out lies before a cursor in `pending`; only probes are taken out of
    it. `proven`: failures are due to the data, as a position of this run has succeeded,
    or probes have raised different exceptions.
    """

    def __init__(
        self, pending: PositionSet, plan: Plan, *, proven: bool = False
    ) -> None:
        self.pending = pending
        self.remaining = len(pending)
        self.proven = proven
        self.block = plan.block
        self.workers = plan.workers
        self._plan = plan
        self._cursor = 0
        self._largest = 0
        self._seconds: float | None = None
        self._read_seconds = 0.0
        self._returned: collections.deque[Batch] = collections.deque()
        self._probes = [] if proven else pending.spread(PROBES)[::-1]
        self._probed: list[int] = []
        #: Probes at work.
        self.probing = 0
        # Peak memory of a worker: a fixed part, and so much per position.
        self._fixed_bytes = 0.0
        self._bytes_each = max(plan.block_bytes / max(1, plan.block), 1.0)
        self._first_peak: tuple[int, int] | None = None

    def next(self, seconds: float | None = None) -> Batch | None:
        """Hand out the next batch, of at most `seconds`.

        None when none is left, or none until the probes at work are settled.
        """
        if self._returned:
            batch = self._returned.popleft()
            self.remaining -= batch.count
            return batch
        if not self.proven and self._probes:
            position = self._probes.pop()
            self.pending.discard(position)
            self._probed.append(position)
            self.probing += 1
            self.remaining -= 1
            return Batch(position, position + 1, None, 1, probe=True)
        if not self.proven and self.probing:
            # The verdict on the function is still out.
            return None
        rows, size, quantum = (
            self.next_rows(seconds),
            self.pending.size,
            self._plan.quantum,
        )
        while self._cursor < size:
            window = next(self.pending.inhabited(self._cursor), (size, size))
            self._cursor = max(self._cursor, window[0])
            span = min(WINDOW, size - self._cursor)
            look = min(span, 2 * rows + 64)
            members = self.pending.window(self._cursor, self._cursor + look)
            while np.count_nonzero(members) < rows and look < span:
                look = min(span, 4 * look)
                members = self.pending.window(self._cursor, self._cursor + look)
            found = np.flatnonzero(members)
            if not len(found):
                self._cursor += look
                continue
            start = self._cursor + int(found[0])
            stop = self._cursor + int(found[min(rows, len(found)) - 1]) + 1
            # Back to the end of a chunk, if one is inside.
            whole = stop // quantum * quantum
            stop = whole if whole > start else stop
            # A span belongs to one worker, and another may be at a probe.
            stop = min([stop, *(p for p in self._probed if p > start)])
            members = members[start - self._cursor : stop - self._cursor]
            self._cursor = stop
            batch = Batch.of(start, members, self.block)
            self.remaining -= batch.count
            return batch
        return None

    def give_back(self, batch: Batch) -> None:
        """Take back a batch that was not computed; it is handed out next."""
        self._returned.append(batch)
        self.remaining += batch.count

    def hand_over(self) -> Remainder:
        """Hand out all that is left, to workers who divide it among themselves.

        Each of them has a copy of this schedule from then on, to learn by and to
        ask for :meth:`next_rows`.
        """
        quantum = self._plan.quantum
        bands = self.remaining / quantum
        seconds = math.inf if self._seconds is None else self._seconds * quantum
        whole = bands >= 4 * self.workers and seconds <= self._plan.checkpoint_s / 4
        rest = Remainder(self.pending, quantum if whole else 1, self._probed)
        self.pending, self.remaining = PositionSet(0), 0
        return rest

    def next_rows(self, seconds: float | None = None) -> int:
        """Positions in the next batch, by time and by what was seen so far."""
        if self._seconds is None:
            return 1
        by_share = self.remaining / (4 * self.workers)
        by_time = self._plan.checkpoint_s / 4 / self._seconds
        rows = min(by_share, by_time)
        rows = max(rows, SHORTEST_BATCH_S / self._seconds)
        if seconds is not None:
            rows = min(rows, seconds / self._seconds)
        rows = min(rows, GROWTH * self._largest)
        if self._plan.quantum > 1:
            # A batch reads whole chunks however few of their positions it has, so
            # it has enough of them to make reading the smaller part.
            worth = _READ_SHARE * self._read_seconds / self._seconds
            rows = max(rows, min(worth, self.block))
        rows = min(rows, self._plan.longest or rows)
        return max(1, int(min(rows, self.remaining, WINDOW)))

    def note(self, count: int, seconds: float, read_seconds: float = 0.0) -> None:
        """Learn from a finished batch of `count` positions how long a position takes.

        `seconds` is the time of computing and writing, `read_seconds` of reading, which
        may be of whole chunks.
        """
        self._read_seconds = read_seconds
        rate = max(seconds, 1e-9) / max(1, count)
        if self._seconds is None or count > 2 * self._largest:
            # The first positions also pay for imports and compilation.
            self._seconds = rate
        else:
            self._seconds = 0.5 * (self._seconds + rate)
        self._largest = max(self._largest, count)

    def note_memory(self, peak_bytes: int, rows: int) -> None:
        """Learn from a worker's peak how many positions it can hold."""
        if self._first_peak is None:
            self._first_peak = (peak_bytes, rows)
        peak, first_rows = self._first_peak
        if rows > 2 * first_rows:
            slope = (peak_bytes - peak) / (rows - first_rows)
            self._bytes_each = max(self._bytes_each, slope)
        fixed = peak_bytes - self._bytes_each * rows
        self._fixed_bytes = max(self._fixed_bytes, fixed)
        most = 0.9 * self._plan.worker_bytes - self._fixed_bytes
        self.block = max(1, min(self.block, int(most / self._bytes_each)))

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds of one worker's work; None before the first batch."""
        return None if self._seconds is None else self._seconds * self.remaining


class Remainder:
    """The positions that are left, small enough to be sent to thousands of ranks.

    They are numbered, 0 to :attr:`total` - 1. Every rank computes from two of these
    numbers the same batches, without a message from the driver.

    For each window of 2^20 positions a compressed bitmap, or nothing where the window
    is whole or empty. Bitmaps too large to be sent are lent by rank 0: see
    :meth:`lend`. Portions end at multiples of `quantum` positions. No batch has a
    position of `excluded` inside its span: another worker may be at it.
    """

    def __init__(
        self, pending: PositionSet, quantum: int = 1, excluded: Sequence[int] = ()
    ) -> None:
        self._size, self._quantum = pending.size, quantum
        self._excluded = sorted(excluded)
        # Of each window: None where it is whole, its bitmap, or the place of the bitmap
        # in what is lent.
        self._windows: list[bytes | tuple[int, int] | None] = []
        counts = [0]
        for start, stop in pending.windows():
            members = pending.window(start, stop)
            counts.append(int(np.count_nonzero(members)))
            whole = counts[-1] == stop - start
            self._windows.append(None if whole else _packed(members))
        self._starts = np.cumsum(counts)
        self._kept: dict[int, Array] = {}
        #: Reads a part of what is lent, by offset and size in bytes.
        self.read: Callable[[int, int], bytes] | None = None

    @staticmethod
    def room(pending: PositionSet, further: int) -> int:
        """Return how many bytes to lend at most; 0 where all can be sent.

        Up to `further` positions may be taken out of what is pending before it is lent.
        """
        holed = [
            (start, stop)
            for start, stop in pending.inhabited()
            if 0 < np.count_nonzero(pending.window(start, stop)) < stop - start
        ]
        sample = holed[:: -(-len(holed) // _SAMPLED) or 1]
        sizes = [len(_packed(pending.window(*bounds))) for bounds in sample]
        if len(holed) * sum(sizes) <= SENT_BYTES * len(sample):
            return 0
        return (len(holed) + further) * (WINDOW // 8 + _EXCESS_BYTES)

    def lend(self) -> bytes:
        """Return all bitmaps joined, and keep only their offsets and sizes.

        Afterwards :attr:`read` must be set to fetch them.
        """
        lent, place = [], 0
        for number, packed in enumerate(self._windows):
            if isinstance(packed, bytes):
                self._windows[number] = (place, len(packed))
                lent.append(packed)
                place += len(packed)
        return b"".join(lent)

    @property
    def total(self) -> int:
        """How many positions are left."""
        return int(self._starts[-1])

    def batches(self, first: int, last: int, block: int) -> Iterator[Batch]:
        """Yield the batches of a portion: from number `first` up to `last`.

        Both ends are moved up to the next multiple of the quantum: portions that follow
        each other leave no position out and share none. A portion may be empty.
        """
        start, stop = self._edge(first), self._edge(min(last, self.total))
        if start >= stop:
            return
        cuts = [p for p in self._excluded if start < p < stop]
        cuts += range((start // WINDOW + 1) * WINDOW, stop, WINDOW)
        bounds = [start, *sorted(cuts), stop]
        for begin, end in itertools.pairwise(bounds):
            inside = np.flatnonzero(self._members(begin, end))
            if len(inside):
                low, high = int(inside[0]), int(inside[-1]) + 1
                members = self._members(begin + low, begin + high)
                yield Batch.of(begin + low, members, block)

    def _edge(self, number: int) -> int:
        """Return the position at which a portion that ends at `number` ends."""
        if number in (0, self.total):
            return self._size if number else 0
        window = int(np.searchsorted(self._starts, number, "right")) - 1
        offset = number - int(self._starts[window])
        if self._windows[window] is not None:
            offset = int(self._inside(window)[offset])
        position = window * WINDOW + offset
        return min(self._size, -(-position // self._quantum) * self._quantum)

    def _members(self, start: int, stop: int) -> Array:
        """Return membership of a span within one window."""
        window, first = divmod(start, WINDOW)
        if self._starts[window] == self._starts[window + 1]:
            return np.zeros(stop - start, bool)
        if self._windows[window] is None:
            return np.ones(stop - start, bool)
        members = np.zeros(stop - start, bool)
        inside = self._inside(window)
        low, high = np.searchsorted(inside, (first, first + stop - start))
        members[inside[low:high] - first] = True
        return members

    def _inside(self, window: int) -> Array:
        """Return the offsets of the members of a window with holes."""
        if window not in self._kept:
            if len(self._kept) == _KEPT:
                del self._kept[next(iter(self._kept))]
            packed = self._windows[window] or b""
            if isinstance(packed, tuple):
                if self.read is None:
                    msg = "the bitmaps have been lent: set read first"
                    raise RuntimeError(msg)
                packed = self.read(*packed)
            bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8))
            self._kept[window] = np.flatnonzero(bits)
        return self._kept[window]


def _packed(members: Array) -> bytes:
    return zlib.compress(np.packbits(members).tobytes(), 1)
