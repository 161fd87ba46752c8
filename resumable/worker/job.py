"""What the driver and a worker tell each other about batches.

A :class:`Job` says what to do, for all batches of a session, and can be sent
anywhere. A :class:`Report` says what became of a batch, a :class:`Loss` that nobody
will report any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.model import Batch, Geometry, Output, Schedule
    from resumable.runfile import ComputedRows, Failure, WriteTarget
    from resumable.source import SourceRef
    from resumable.worker.warnings import WarningCounts


class Job(NamedTuple):
    """What a session does, for every worker the same."""

    process: Any
    """The user's Process; it is shipped by cloudpickle where it must travel."""
    outputs: Mapping[str, Output]
    """Its outputs per position."""
    source: SourceRef
    """Where the data are."""
    inputs: Mapping[str, SourceRef]
    """Further sources, by argument name."""
    target: WriteTarget | None
    """Where results go; None: back to the driver, which writes them."""
    stop_on_error: bool
    """A failing position stops the session and is left pending."""
    geometry: Geometry | None = None
    """How the positions lie in the source; None: as the Process has seen it."""
    read_from: tuple[str, int] | None = None
    """File of the Process class and when it was written, as the driver knows it."""
    text: str = ""
    """Digest of the source text of the Process class, empty when there is none."""
    may_ship: bool = False
    """A worker that cannot see the target sends its rows to the driver."""
    position_timeout_s: float | None = None
    """A position at work for longer is given up; needs processes to end."""
    filters: tuple[Any, ...] = ()
    """Which warnings the user wants to see."""


class Report(NamedTuple):
    """What became of a batch."""

    batch: Batch
    """Which one."""
    done: int
    """Positions computed and written."""
    failed: int
    """Positions that raised."""
    failures: list[Failure]
    """The first of them, described."""
    seconds: float
    """Time the worker took."""
    read_seconds: float
    """The part of it that was reading."""
    write_seconds: float
    """The part of it that was writing."""
    peak_bytes: int
    """Memory of the worker at its peak."""
    unmarked: int
    """Batches of this worker, this one included, that are not all marked yet."""
    warned: WarningCounts
    """Warnings that were given."""
    error: Exception | None = None
    """Why the session must stop."""
    rows: tuple[ComputedRows, ...] = ()
    """Rows that the driver has to write."""

    def update(self, schedule: Schedule) -> None:
        """Tell a schedule what a position of this batch took."""
        computing = self.seconds - self.read_seconds
        schedule.note(self.done + self.failed, computing, self.read_seconds)
        rows = min(self.batch.count, self.batch.block)
        schedule.note_memory(self.peak_bytes, rows)

    def sendable(self) -> Report:
        """Return the report for another process: its error can be pickled."""
        from resumable.worker.call import portable

        return self._replace(error=self.error and portable(self.error))

    @property
    def reached(self) -> Batch | None:
        """What the worker came to: what is done and what has failed."""
        return self.batch.split(self.done + self.failed)[0]

    @property
    def rest(self) -> Batch | None:
        """What the worker did not come to, where it ended early."""
        return self.batch.split(self.done + self.failed)[1]


class Loss(NamedTuple):
    """A worker has ended by itself."""

    batch: Batch | None
    """What it was at."""
    position: int | None
    """Flat position it was computing, where that is known."""
    timed_out: bool
    """It was ended because a position took too long."""
    cause: str
    """What ended it, for example ``"signal SIGSEGV"``."""
    message: str
    """More of it, for people."""
