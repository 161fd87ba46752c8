"""What a run will do, before anything runs."""

from __future__ import annotations

import dataclasses

from resumable.model.positions import PositionSet
from resumable.model.schedule import Schedule
from resumable.model.units import format_bytes, format_seconds

#: Bytes of rows that travel with a batch or its report.
SHIPPED_BYTES = 16 << 20
#: Workers are started for at least this much work, in seconds of one worker.
WORTH_STARTING_S = 0.1
_WRITERS = {"workers": "every worker its own rows", "driver": "the driver"}


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
