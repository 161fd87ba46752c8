"""What an engine is, and what it sees of the driver.

An engine hands out batches; what a batch is and what becomes of its report is not the
engine's business. One dispatcher serves each session. What differs is how a batch comes
to a worker and its report back::

                schedule.next()             Job, then Batch by Batch
     Driver  ----------->   dispatcher   --------------------------->    Worker
    (Session) <----------  of the engine <---------------------------  reads, computes,
                take()                               Report            writes its rows
                return_unfinished()
                lost(), redo_unmarked(): called by the local engine alone

    engine          dispatcher         transport             where workers live
    -----------------------------------------------------------------------------------
    serial          SerialEngine       a call                the driver's process
    local           LocalDispatcher    pipes                 child processes
    executor, dask  FutureDispatcher   tasks and futures     processes of the executor
    mpi             RankZero           messages, a counter   the other ranks, and rank 0

A new engine is one module with a class that has what :class:`Engine` lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from resumable.model import Batch, Schedule
    from resumable.results import Results
    from resumable.system import StopRequest
    from resumable.worker import Job, Loss, Report


class Driver(Protocol):
    """What an engine sees of the driver."""

    def take(self, report: Report) -> None:
        """Take the report of a batch; raises when the session must stop."""

    def return_unfinished(self, batch: Batch) -> None:
        """Have done what is not marked of a batch, or of what a report left of it."""

    def redo_unmarked(self, reports: list[Report]) -> None:
        """Have done again what a worker that died has reported and not marked."""

    def lost(self, loss: Loss) -> None:
        """Take note that a worker has died; raises when the session must stop."""

    def note_changed(self, values: list[str]) -> None:
        """Take note of values that a worker has changed, by what they are."""

    @property
    def stop(self) -> StopRequest:
        """Says when batches at work should end early, and no new one begin."""

    @property
    def schedule(self) -> Schedule:
        """What is left, cut into batches, and how long it is expected to take."""


class Engine(Protocol):
    """Who computes.

    One whose workers are on several hosts also has ``hosts``, the number of workers
    on each (None: not known), and ``host_memory()``, the least that one of the hosts
    has left, and why.
    """

    name: str
    """As the user gives it."""
    own_processes: bool
    """Workers have processes, so memory, of their own."""
    can_replace: bool
    """A worker that dies or hangs is ended and replaced."""

    @property
    def workers(self) -> int:
        """Batches at work at once, if the memory allows."""

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Do batches until none is left or a stop is requested.

        As many at once as the memory allows of :attr:`workers`. On return, also by an
        exception, everything computed is committed and no worker is at work.
        """


class CollectiveEngine(Engine, Protocol):
    """An engine whose workers have all called ``compute``; one of them drives."""

    def together(
        self,
        process: Any,
        request: Callable[[], tuple[dict[str, Any], Callable[[], list[str]]]],
        drive: Callable[[], Results],
        time_limit: float | str | None,
    ) -> Results:
        """Have one worker call `drive`, and return or raise in all what it does.

        `request` returns what this worker asks for, and what says which of its values
        were changed since. All must ask for the same.
        """
