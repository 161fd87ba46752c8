"""A run in a thread of its own: its state, its batches, waiting and cancelling."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import logging
import threading
from typing import TYPE_CHECKING, Any, cast

from resumable.engines import collective
from resumable.errors import NotFinished, PlanError, wrong
from resumable.model import is_number
from resumable.session.events import BatchDone, Counts, Started
from resumable.worker import settings_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resumable.results import Results
    from resumable.session.events import Event, Listener
    from resumable.system import StopRequest

logger = logging.getLogger("resumable")


def check_alone(engine: Any) -> None:
    """Refuse an engine that all ranks of a job have to call, in their main threads."""
    if collective(engine) is not None:
        msg = (
            "start() computes in the background of one process, and under mpiexec, or "
            "with engine='mpi', all ranks compute together: call compute() on all of "
            "them, or start(engine='local') on one to compute with its host alone"
        )
        raise PlanError(msg)


@dataclasses.dataclass(frozen=True, slots=True)
class RunStatus:
    """State and numbers of a run in the background."""

    state: str
    """starting, computing, finished, stopped or failed."""
    done: int
    """Positions that are done."""
    failed: int
    """Positions that have failed."""
    pending: int
    """Requested positions that are neither done nor failed."""

    def __str__(self) -> str:
        return (
            f"{self.state}: {self.done:,} done, {self.failed:,} failed, "
            f"{self.pending:,} pending"
        )


class Run:
    """A computation in the background; :meth:`Process.start` returns it.

    A context manager: leaving it cancels what is not finished. Iterating over it gives
    a `BatchDone` for each batch, in the order in which they end, until the end of the
    run, and raises the run's error if there is one.
    """

    def __init__(
        self,
        drive: Callable[[Listener], Results],
        stop: StopRequest,
        listener: Listener | None,
        hold: contextlib.AbstractContextManager[Any],
    ) -> None:
        self._drive, self._stop = drive, stop
        # Called with every event, in the thread of the run: what it raises stops it.
        self._listener = listener
        # Entered already; left at the end of the run.
        self._hold = hold
        self._changed = threading.Condition()
        self._batches: collections.deque[BatchDone] = collections.deque()
        self._computing = self._ended = self._cancelled = False
        self._counts = Counts(0, 0, 0)
        self._results: Results | None = None
        self._error: BaseException | None = None
        # Not a daemon: at its end, a script waits for the run.
        # With what the caller has set for its thread and in its context.
        self._settings = settings_here()
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._work,),
            name="resumable-run",
        )
        self._thread.start()

    def _work(self) -> None:
        results, error = None, None
        try:
            with self._hold:
                self._settings.apply()
                results = self._drive(self._take)
        except BaseException as raised:
            error = raised
        failed = error is not None and not isinstance(error, NotFinished)
        if failed and not threading.main_thread().is_alive():
            # The script is at its end, and nothing will call wait().
            logger.error("the run in the background has failed", exc_info=error)
        with self._changed:
            self._results, self._error, self._ended = results, error, True
            self._changed.notify_all()

    def _take(self, event: Event) -> None:
        with self._changed:
            if isinstance(event, Started):
                self._computing = True
                self._counts = event.counts
            elif isinstance(event, BatchDone):
                self._counts = event.counts
                self._batches.append(event)
            self._changed.notify_all()
        if self._listener is not None:
            self._listener(event)

    def __repr__(self) -> str:
        return f"<Run: {self.status()}>"

    def status(self) -> RunStatus:
        """Return the state and the numbers of positions, without waiting."""
        with self._changed:
            if self._ended:
                state = "finished" if self._error is None else "failed"
                if isinstance(self._error, NotFinished):
                    state = "stopped"
            else:
                state = "computing" if self._computing else "starting"
            return RunStatus(state, *self._counts)

    def cancel(self) -> None:
        """Stop as at Ctrl-C: computed positions are kept; a later call continues."""
        self._cancelled = True
        self._stop.cancel()

    def wait(self, timeout: float | None = None) -> Results:
        """Wait for the end and return the results.

        Parameters
        ----------
        timeout : float, optional
            Seconds; the run goes on after them.

        Raises
        ------
        TimeoutError
            It has not ended by then.
        NotFinished
            It was cancelled, or its time limit has come.
        ResumableError
            As :meth:`Process.compute` raises.
        """
        if not (timeout is None or is_number(timeout)):
            raise wrong(PlanError, "timeout", timeout, "a time in s")
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended, timeout):
                msg = f"the run has not ended after {timeout} s ({self.status()})"
                raise TimeoutError(msg)
        self._thread.join()
        return self._outcome()

    def _outcome(self) -> Results:
        if self._error is not None:
            raise self._error
        return cast("Results", self._results)

    def __iter__(self) -> Iterator[BatchDone]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batches or self._ended)
                if not self._batches:
                    break
                batch = self._batches.popleft()
            yield batch
        if not (self._cancelled and isinstance(self._error, NotFinished)):
            self._outcome()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, raised: type[BaseException] | None, *exc: object) -> None:
        self.cancel()
        self._thread.join()
        if raised is None and not isinstance(self._error, NotFinished):
            self._outcome()
