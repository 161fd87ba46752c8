"""What a run will do, and how it divides its memory budget into workers and rows.

That depends on how the positions of a source lie in its dataset: its geometry.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.errors import DeclarationError, PlanError, near, option, wrong
from resumable.model.arguments import is_number
from resumable.model.positions import PositionSet
from resumable.model.schedule import Schedule
from resumable.model.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of rows in memory at once, unless whole chunks of the source need more: of a
#: block with its results, and of the next one where it is read meanwhile. Measured
#: (benchmarks/speed.py): less makes calls of block computations cost more, more costs
#: cache misses.
BLOCK_BYTES = 8 << 20
#: Memory of a worker before its first position: interpreter, numpy, h5py.
WORKER_BYTES = 48 << 20
#: Memory of the server that worker processes are forked from.
SERVER_BYTES = 40 << 20
#: Bytes of rows that travel with a batch or its report.
SHIPPED_BYTES = 16 << 20
#: Workers are started for at least this much work, in seconds of one worker.
WORTH_STARTING_S = 0.1
_WRITERS = {"workers": "every worker its own rows", "driver": "the driver"}


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

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        axes: tuple[int, ...],
        itemsize: int,
        chunks: tuple[int, ...] | None = None,
        *,
        indivisible: bool = False,
    ) -> Geometry:
        """Measure a dataset, or the part of it that counts, of this shape.

        `axes` count positions, in the user's order; `itemsize` is 0 where positions are
        only counted, `chunks` the shape of a chunk, None for a contiguous dataset.
        """
        others = [axis for axis in range(len(shape)) if axis not in axes]
        spectrum_shape = tuple(shape[axis] for axis in others)
        chunk_map = tuple(min(chunks[a], shape[a]) if chunks else 1 for a in axes)
        column = math.prod(
            math.ceil(shape[a] / chunks[a]) * chunks[a] if chunks else shape[a]
            for a in others
        )
        return cls(
            map_shape=tuple(shape[axis] for axis in axes),
            spectrum_shape=spectrum_shape,
            row_bytes=math.prod(spectrum_shape) * itemsize,
            chunk_map=chunk_map,
            chunk_bytes=column * math.prod(chunk_map) * itemsize,
            indivisible=indivisible,
            position_first=axes == tuple(range(len(axes))),
        )

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

    def in_position_order(self) -> Geometry:
        """Return the geometry of a copy in position order."""
        return self._replace(
            chunk_map=(1,) * len(self.map_shape),
            chunk_bytes=self.row_bytes,
            indivisible=False,
            position_first=True,
        )

    def gains_by_copy(self, rows: int) -> bool:
        """Return whether blocks of `rows` positions are read faster from a copy."""
        across = not self.position_first
        return self.row_bytes > 0 and (across or self.amplification(rows) > 1)


class Footprint(NamedTuple):
    """Bytes of memory that a number of positions takes in a worker."""

    input_bytes: int
    """Per position: source and inputs, twice where rows must be gathered."""
    output_bytes: int
    """Per position: results, and working memory that grows with their number."""
    fixed_bytes: int = 0
    """Working memory however many they are."""
    ahead_bytes: int = 0
    """Per position: sources of which the next block is read meanwhile."""
    scratch: Callable[[int], int] | None = None
    """Working memory for a number of positions, where the computation says it."""

    def __call__(self, rows: int) -> int:
        """Bytes for `rows` positions; where one is a block, the next one waits."""
        ahead = self.ahead_bytes if rows > 1 else 0
        each = self.input_bytes + self.output_bytes + ahead
        scratch = self.fixed_bytes if self.scratch is None else self.scratch(rows)
        return rows * each + scratch

    def rows_within(self, budget: float) -> int:
        """Return the most positions that fit; 0 when not even one does."""
        if self(1) > budget:
            return 0
        if self.scratch is None:
            each = max(1, self.input_bytes + self.output_bytes + self.ahead_bytes)
            return max(1, int((budget - self.fixed_bytes) // each))
        low, high = 1, 2
        while self(high) <= budget and high < 1 << 40:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self(middle) <= budget else (low, middle)
        return low


class Blocks(NamedTuple):
    """How many workers, and how many positions each holds in memory at once."""

    workers: int
    share_bytes: int
    rows: int


def scratch_bytes(scratch: Any, rows: int, process: str) -> int:
    """Return the bytes that a class declares for its work at some positions.

    `scratch` is its attribute, for each of them, or its method.
    """
    each = not callable(scratch)
    value = scratch if each else scratch(rows)
    if not is_number(value) or not 0 <= value < math.inf:
        name = f"{process}.scratch" if each else f"what {process}.scratch({rows}) gives"
        raise wrong(DeclarationError, name, value, "a number of bytes, 0 or more")
    return int(value) * (rows if each else 1)


def fit_memory(
    footprint: Footprint,
    geometry: Geometry,
    *,
    memory: int,
    workers: int,
    local: bool,
    each: int | None = None,
    why: str = "",
) -> Blocks:
    """Divide a memory budget among workers, fewer of them when it is small.

    `each`: bytes that the rows of one worker may take at most; `why`: what limits the
    budget. PlanError where not even one worker with one position fits, with the least
    that does.
    """
    base = WORKER_BYTES if local else 0
    server = SERVER_BYTES if local else 0
    while workers > 1 and (memory - server) / workers - base < footprint(1):
        workers -= 1
    share = (memory - server) // workers - base
    if each is not None:
        share = min(share, each)
    rows = footprint.rows_within(share)
    if rows == 0 and share == each:
        msg = (
            f"one position needs {format_bytes(footprint(1))}, more than the "
            f"{format_bytes(each)} that are planned for the rows of a process, half of "
            "what ulimit -v and -d leave to it: raise them"
        )
        raise PlanError(msg)
    if rows == 0:
        least = footprint(1) + base + server
        msg = (
            f"one position needs {format_bytes(footprint(1))} and a worker itself "
            f"{format_bytes(base + server)}, more than the budget of "
            f"{format_bytes(memory)}{why and f' ({why})'}; give "
            f"{option('memory', f'{least} bytes')} or more"
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


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """What ``compute`` would do. Print it to read it."""

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
    limits: tuple[str, ...] = ()
    """What leaves fewer cores or less memory than the host has, in words."""
    notes: tuple[str, ...] = ()
    """Advice, for example to rechunk; what is not followed; what was edited."""
    seconds_per_position: float | None = None
    """Measured by ``test``; None before."""

    @property
    def worker_bytes(self) -> int:
        """Memory budget of one worker: itself, and its rows."""
        return self.share_bytes + WORKER_BYTES

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
            f"  run file      {near(self.path)} "
            f"(results {format_bytes(self.output_bytes)})",
            f"  positions     {self.pending:,} of {self.positions:,} to compute"
            + (f", {self.shapes}" if self.shapes else ""),
            f"  engine        {self.engine}, {self.workers} at once",
            f"  memory        {format_bytes(self.memory_bytes)} in all, "
            f"{format_bytes(self.share_bytes)} for the rows of each worker",
            *(f"  limit         {limit}" for limit in self.limits),
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
        notes = [note.replace("\n", "\n" + 16 * " ") for note in self.notes]
        return "\n".join([*lines, *(f"  note          {note}" for note in notes)])

    __repr__ = __str__
