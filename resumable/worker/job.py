"""What the driver and a worker tell each other about batches.

A :class:`Job` says what to do, for all batches of a session, and can be sent
anywhere. A :class:`Report` says what became of a batch, a :class:`Loss` that
its worker has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.model import Batch, Geometry, Output, Schedule
    from resumable.runfile import Failure, WriteTarget
    from resumable.source import SourceRef
    from resumable.worker.settings import Settings
    from resumable.worker.warnings import WarningCounts


class Job(NamedTuple):
    """What a session does, for every worker the same."""

    process: Any  # the user's; cloudpickle sends it
    outputs: Mapping[str, Output]  # per position
    source: SourceRef
    inputs: Mapping[str, SourceRef]  # by argument name
    target: WriteTarget | None  # None: the driver writes the rows
    stop_on_error: bool  # and leave the failing position pending
    geometry: Geometry | None = None  # None: as the Process has seen it
    check: Any = None  # of the process: its code is the driver's, its values stay
    may_ship: bool = False  # without the target, send rows to the driver
    position_timeout_s: float | None = None  # needs processes to end
    filters: tuple[Any, ...] = ()  # of warnings
    settings: Settings | None = None  # of the script; None: those there are
    watched: tuple[str, ...] = ()  # modules whose generator nothing should draw from


class Report(NamedTuple):
    """What became of a batch."""

    batch: Batch
    done: int  # positions computed and written
    failed: int  # positions that raised
    failures: list[Failure]  # the first of them
    seconds: float  # all time of the worker, with the next two
    read_seconds: float
    write_seconds: float
    peak_bytes: int  # memory of the worker
    unmarked: int  # batches of the worker, with this one, not all marked yet
    warned: WarningCounts
    error: Exception | None = None  # why the session must stop
    rows: tuple[tuple[Any, ...], ...] = ()  # for RowWriter.write of the driver

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
    position: int | None  # flat, where it is known
    timed_out: bool  # a position took too long
    cause: str  # such as "signal SIGSEGV"
    message: str  # more, for people
