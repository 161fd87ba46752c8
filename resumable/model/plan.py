"""How the work is cut: memory into rows, time into batches. No I/O.

A *batch* is what a worker is handed at once, sized by time. Inside it the worker
goes *block* by block: rows read, computed and written together, sized by bytes.
Small blocks keep the rows in the processor's cache and the memory low; large
batches keep the hand-outs rare.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from resumable.errors import PlanError
from resumable.model.positions import WINDOW, Batch, PositionSet
from resumable.model.remainder import Remainder
from resumable.model.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable


#: Bytes of rows in memory at once, unless whole chunks of the source need more: of a
#: block with its results, and of the next one where it is read meanwhile. Measured
#: (benchmarks/speed.py): less makes calls of block computations cost more, more costs
#: cache misses.
BLOCK_BYTES = 8 << 20
#: Bytes of rows that travel with a batch or its report.
SHIPPED_BYTES = 16 << 20
#: Memory of a worker before its first position: interpreter, numpy, h5py.
WORKER_BYTES = 48 << 20
#: Memory of the server the workers are forked from.
SERVER_BYTES = 40 << 20
#: Shortest batch: hand-outs cost about 0.2 ms, so this keeps them below 1 %.
SHORTEST_BATCH_S = 0.05
#: How many times larger than any before a batch may be: the first ones are timed.
GROWTH = 16
#: Computing should take this many times as long as reading, where chunks are split.
_READ_SHARE = 4
_WRITERS = {"workers": "every worker its own rows", "driver": "the driver"}
#: Workers are started for at least this much work, in seconds of one worker.
WORTH_STARTING_S = 0.1
#: Positions tried before the function, not the data, is held to be wrong.
TRIALS = 20


class Geometry(NamedTuple):
    """How the positions of a source lie in its dataset."""

    map_shape: tuple[int, ...]
    """Lengths of the position axes, in the user's order."""
    spectrum_shape: tuple[int, ...]
    """Shape of the data at one position."""
    row_bytes: int
    """Bytes of the data at one position."""
    chunk_map: tuple[int, ...]
    """Chunk lengths along the position axes; all 1 where not chunked."""
    chunk_bytes: int
    """Bytes read for one chunk column: all chunks that hold one position."""
    indivisible: bool
    """Reading a part of a chunk reads all of it (it is compressed)."""
    position_first: bool
    """Rows lie in the dataset as they are handed to the computation."""

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.map_shape)

    @property
    def quantum(self) -> int:
        """Positions of a band of whole chunks, in flat order."""
        if all(length == 1 for length in self.chunk_map):
            return 1
        return min(self.size, self.chunk_map[0] * math.prod(self.map_shape[1:]))

    def amplification(self, rows: int) -> float:
        """Bytes read for each byte used when blocks have `rows` positions."""
        if not self.indivisible or self.row_bytes == 0:
            return 1.0
        rows = min(rows, self.size)
        touched = 1
        inner = self.size
        for length, chunk in zip(self.map_shape, self.chunk_map, strict=True):
            inner //= length
            covered = min(length, max(1, rows // inner))
            touched *= math.ceil(covered / chunk)
        return max(1.0, touched * self.chunk_bytes / (rows * self.row_bytes))


class Footprint(NamedTuple):
    """Bytes of memory that a number of positions takes in a worker."""

    input_bytes: int
    """Per position: source and inputs, twice where rows must be gathered."""
    output_bytes: int
    """Per position."""
    scratch: Callable[[int], int]
    """Declared working memory of the computation for a number of positions."""
    ahead_bytes: int = 0
    """Per position: sources of which the next block is read meanwhile."""

    def __call__(self, rows: int) -> int:
        """Bytes for `rows` positions; where one is a block, the next one waits."""
        ahead = self.ahead_bytes if rows > 1 else 0
        each = self.input_bytes + self.output_bytes + ahead
        return rows * each + self.scratch(rows)

    def rows_within(self, budget: float) -> int:
        """Return the most positions that fit; 0 when not even one does."""
        if self(1) > budget:
            return 0
        low, high = 1, 2
        while self(high) <= budget and high < 1 << 40:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self(middle) <= budget else (low, middle)
        return low


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """What a run will do, before anything runs. Print it to read it."""

    action: str
    """``"compute"``, ``"continue"``, ``"return"`` or ``"copy and continue"``."""
    reason: str
    """Why, in words."""
    path: str
    """The run file."""
    positions: int
    """Positions of the source."""
    pending: int
    """Positions this run will compute."""
    engine: str
    """Who computes."""
    workers: int
    """How many at once."""
    memory_bytes: int
    """Budget for all processes together."""
    share_bytes: int
    """Budget for the rows of one worker."""
    block: int
    """Positions read, computed and written together."""
    block_bytes: int
    """Memory of one block with its results and scratch."""
    quantum: int
    """Batches end at multiples of this many positions where they can."""
    read_amplification: float
    """Bytes read from the source for each byte used."""
    output_bytes: int
    """Size of all results on disk."""
    checkpoint_s: float
    """Seconds after which finished positions are committed."""
    writer: str = "workers"
    """Who writes the rows: ``"workers"``, each its own, or the ``"driver"``."""
    longest: int | None = None
    """Most positions in a batch, where rows travel; None: as many as time allows."""
    rechunk: bool = False
    """The source is copied into position order first."""
    shapes: str = ""
    """Shape of the map and of the data at one position, in words."""
    notes: tuple[str, ...] = ()
    """Advice, for example to rechunk."""
    seconds_per_position: float | None = None
    """Measured by ``test``; None before."""

    @property
    def seconds(self) -> float | None:
        """Expected time for the pending positions, when one has been timed."""
        if self.seconds_per_position is None:
            return None
        return self.seconds_per_position * self.pending / self.workers

    @property
    def batches(self) -> int | None:
        """Expected number of batches, when a position has been timed."""
        if self.seconds_per_position is None or not self.pending:
            return None
        schedule = Schedule(PositionSet(0), self)
        schedule.remaining = self.pending
        schedule.note(1, self.seconds_per_position)
        count = 0
        while schedule.remaining > 0 and count < 100_000:
            rows = schedule.next_rows()
            schedule.remaining -= rows
            schedule.note(rows, rows * self.seconds_per_position)
            count += 1
        return count

    def __str__(self) -> str:
        lines = [
            f"{self.action}: {self.reason}",
            f"  run file      {self.path} (results {format_bytes(self.output_bytes)})",
            f"  positions     {self.pending:,} of {self.positions:,} to compute"
            + (f", {self.shapes}" if self.shapes else ""),
            f"  engine        {self.engine}, {self.workers} at once",
            f"  memory        {format_bytes(self.memory_bytes)} in all, "
            f"{format_bytes(self.share_bytes)} for the rows of each worker",
            f"  block         {self.block:,} positions at once, "
            f"{format_bytes(self.block_bytes)} with results and scratch",
            "  batches       by time, "
            f"committed every {format_seconds(self.checkpoint_s)}"
            + (f", about {self.batches:,}" if self.batches else ""),
            f"  writing       {_WRITERS[self.writer]}",
        ]
        if self.read_amplification > 1.005:
            lines.append(
                f"  reading       {self.read_amplification:.1f} bytes for each byte "
                "used (chunks run across positions)"
            )
        if self.seconds is not None:
            lines.append(
                f"  time          about {format_seconds(self.seconds)} "
                f"({format_seconds(self.seconds_per_position or 0)} per position)"
            )
        return "\n".join([*lines, *(f"  note          {note}" for note in self.notes)])

    __repr__ = __str__


class Blocks(NamedTuple):
    """How many workers, and how many positions each holds in memory at once."""

    workers: int
    share_bytes: int
    rows: int


def fit_memory(
    footprint: Footprint,
    geometry: Geometry,
    *,
    memory: int,
    workers: int,
    local: bool,
) -> Blocks:
    """Divide a memory budget among workers, fewer of them when it is small.

    Raises
    ------
    PlanError
        Not even one worker with one position fits; the least that works is named.
    """
    base = WORKER_BYTES if local else 0
    server = SERVER_BYTES if local else 0
    while workers > 1 and (memory - server) / workers - base < footprint(1):
        workers -= 1
    share = (memory - server) // workers - base
    rows = footprint.rows_within(share)
    if rows == 0:
        least = footprint(1) + base + server
        msg = (
            f"one position needs {format_bytes(footprint(1))} and a worker itself "
            f"{format_bytes(base + server)}, more than the budget of "
            f"{format_bytes(memory)}; give memory='{least} bytes' or more"
        )
        raise PlanError(msg)
    whole = footprint.rows_within(max(BLOCK_BYTES, footprint(1)))
    # All positions of a band of chunks, but not all positions to one worker.
    band = min(geometry.quantum, math.ceil(geometry.size / workers))
    if geometry.indivisible or geometry.quantum <= rows:
        # Where the band does not fit, every block reads chunks it uses a part of:
        # the fewer and larger the blocks, the less is read twice.
        whole = max(whole, band)
    rows = min(rows, whole)
    if rows > geometry.quantum:
        rows = rows // geometry.quantum * geometry.quantum
    return Blocks(workers, share, min(rows, geometry.size))


class Schedule:
    """Cuts what is left into batches, sized by what the ones before took.

    Parameters
    ----------
    pending : PositionSet
        Positions to compute; they are taken out as they are handed out.
    plan : Plan
        Workers, block size, checkpoint.
    proven : bool, default False
        A position of this run has succeeded before, so failures are the data's.
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
        self._trials = [] if proven else pending.spread(TRIALS)[::-1]
        self._tried: list[int] = []
        self._trying = 0
        self._memory = _MemoryModel(plan.block_bytes / max(1, plan.block))

    def next(self, seconds: float | None = None) -> Batch | None:
        """Hand out the next batch, of at most `seconds`.

        None when none is left, or none until the positions being tried are settled.
        """
        if self._returned:
            batch = self._returned.popleft()
            self.remaining -= batch.count
            return batch
        if not self.proven and self._trials:
            position = self._trials.pop()
            self.pending.discard(position)
            self._tried.append(position)
            self._trying += 1
            self.remaining -= 1
            return Batch(position, position + 1, None, 1, trial=True)
        if not self.proven and self._trying:
            # The verdict on the function is still out.
            return None
        return self._cut(self.next_rows(seconds))

    def trial_ended(self) -> None:
        """Take note that one of the positions that were tried is settled."""
        self._trying -= 1

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
        rest = Remainder(self.pending, quantum if whole else 1, self._tried)
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
        """Learn from a finished batch how long a position takes.

        Parameters
        ----------
        count : int
            Its positions.
        seconds : float
            Time of computing and writing them.
        read_seconds : float
            Time of reading them, which may be of whole chunks.
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
        budget = self._plan.share_bytes + WORKER_BYTES
        self.block = max(
            1, min(self.block, self._memory.rows(peak_bytes, rows, budget))
        )

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
            # A span belongs to one worker, and another may be at a tried position.
            stop = min([stop, *(p for p in self._tried if p > start)])
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
