"""How pending positions are cut into batches, sized by time.

A *batch* is what a worker is handed at once, sized by time. A worker goes through it
*block* by block: rows read, computed and written together, sized by bytes. Small
blocks keep the rows in the processor's cache and the memory low; large batches keep
the cost of handing them out low.
"""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING

import numpy as np

from resumable.model.positions import WINDOW, Batch, PositionSet
from resumable.model.remainder import Remainder

if TYPE_CHECKING:
    from resumable.model.plan import Plan

#: Shortest batch: handing one out takes about 0.2 ms, so this keeps it below 1 %.
SHORTEST_BATCH_S = 0.05
#: How many times larger than any before a batch may be: the first ones are timed.
GROWTH = 16
#: Computing should take this many times as long as reading, where chunks are split.
_READ_SHARE = 4
#: Positions tried one by one before the function, not the data, is held to be wrong.
PROBES = 20


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
        self._probing = 0
        self._memory = _MemoryModel(plan.block_bytes / max(1, plan.block))

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
            self._probing += 1
            self.remaining -= 1
            return Batch(position, position + 1, None, 1, probe=True)
        if not self.proven and self._probing:
            # The verdict on the function is still out.
            return None
        return self._cut(self.next_rows(seconds))

    def probe_ended(self) -> None:
        """Take note that a probe is settled."""
        self._probing -= 1

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
        fits = self._memory.rows(peak_bytes, rows, self._plan.worker_bytes)
        self.block = max(1, min(self.block, fits))

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds of one worker's work; None before the first batch."""
        return None if self._seconds is None else self._seconds * self.remaining

    def _cut(self, rows: int) -> Batch | None:
        size = self.pending.size
        while self._cursor < size:
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
            stop = self._aligned(start, stop)
            # A span belongs to one worker, and another may be at a probe.
            stop = min([stop, *(p for p in self._probed if p > start)])
            members = members[start - self._cursor : stop - self._cursor]
            self._cursor = stop
            batch = Batch.of(start, members, self.block)
            self.remaining -= batch.count
            return batch
        return None

    def _aligned(self, start: int, stop: int) -> int:
        """Move the end of a batch back to the end of a chunk, if one is inside."""
        quantum = self._plan.quantum
        down = stop // quantum * quantum
        return down if down > start else stop


class _MemoryModel:
    """Peak memory as a fixed part plus so much per position."""

    def __init__(self, declared: float) -> None:
        self._slope = max(declared, 1.0)
        self._fixed = 0.0
        self._first: tuple[int, int] | None = None

    def rows(self, peak: int, rows: int, budget: int) -> int:
        """Add an observation; return the positions that fit into `budget`."""
        if self._first is None:
            self._first = (peak, rows)
        first_peak, first_rows = self._first
        if rows > 2 * first_rows:
            self._slope = max(self._slope, (peak - first_peak) / (rows - first_rows))
        self._fixed = max(self._fixed, peak - self._slope * rows)
        return int((0.9 * budget - self._fixed) / self._slope)
