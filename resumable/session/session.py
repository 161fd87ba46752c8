"""One session on a locked run: the driver that an engine sees.

::

    decide --Assignment--> Session <-- next, take: engines/base ----> engine
                           |  |  |                                      |  ^
               SessionTables  |  Schedule: what is left          Batch  |  |  Report
            sessions, log,    |                                         v  |
            failures          FailurePolicy                       worker --> run file:
            in the run file   is it the data?                     rows, then status
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import ResumableError, RunFileError, SourceError
from resumable.model import (
    PositionSet,
    Schedule,
    by_name,
    fitted_array,
    name_of_position,
)
from resumable.results import Results, Status
from resumable.runfile import (
    Failure,
    LogLine,
    RowWriter,
    RunFile,
    Snapshot,
)
from resumable.session.events import (
    BatchDone,
    Counts,
    LogHandler,
    PositionFailed,
    ProgressBar,
    Started,
)
from resumable.session.failures import FailurePolicy, error_of_death, error_of_unit
from resumable.session.resolve import error_of_change
from resumable.system import stopped
from resumable.worker import Loss, Report, WarningCounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from resumable.model import Batch
    from resumable.session.computation import Assignment
    from resumable.session.events import Listener
    from resumable.system import StopRequest

    Array = np.ndarray[Any, np.dtype[Any]]

logger = logging.getLogger("resumable")

#: The first look is after so many seconds, each further one after twice the time.
_FIRST_LOOK_S = 1.0


class Session:
    """One session on a run: the one to continue, or a new one where `run` is None.

    `snapshot` is what the file of `run` says, unless a session has worked on it since.
    """

    def __init__(
        self,
        assignment: Assignment,
        run: RunFile | None,
        stop: StopRequest,
        listener: Listener | None,
        snapshot: Snapshot | None = None,
    ) -> None:
        # Both change where there is more of a followed source.
        self.assignment = assignment
        self._made = run is None or not assignment.computation.full_length(run.header)
        ended = snapshot is not None and bool(snapshot.last_end)
        self.run, self._tables = assignment.open_run(run, ended=ended)
        #: Seconds of work that workers have reported.
        self.worked_s = 0.0
        #: Why the source could not be read the last time.
        self.trouble: SourceError | None = None
        self.stop, self._listener = stop, listener
        self._computed = self._failed = 0
        self._policy = FailurePolicy()
        self._changed_in_workers: dict[str, None] = {}
        self._began = time.perf_counter()
        #: Seconds after which it is looked whether values were changed.
        self._look_after = _FIRST_LOOK_S
        self._read_s = self._write_s = 0.0
        self._warned = WarningCounts()
        self._writer: RowWriter | None = None
        self._untried: PositionSet | None = None
        if run is None:
            header, wanted = self.run.header, assignment.options.positions
            everything = PositionSet.full(header.size)
            pending = everything if wanted is None else wanted.copy()
            snapshot = Snapshot(
                header, 0, 0, len(pending), False, False, None, pending, b""
            )
        elif snapshot is None or self._made:
            snapshot = self._snapshot()
        self._was_finished = snapshot.finished
        done, failed = self._before = snapshot.done, snapshot.failed
        self._results = Results(self.run)
        # Failed positions not retried yet; the status cannot tell failed before from
        # failed again.
        if assignment.options.retry_failed:
            self._untried = snapshot.pending.copy()
        self.schedule = self._scheduled(snapshot)
        self._wanted = self.schedule.remaining
        self._bar = ProgressBar(
            # None if all were settled.
            show=self.schedule.remaining > 0 and assignment.options.progress,
            total=done + failed + self.schedule.remaining,
            initial=done + failed,
            label=assignment.computation.run_folder.prefix,
        )

    def _snapshot(self) -> Snapshot:
        """Read what is marked on the disk, and so what is left to compute."""
        options = self.assignment.options
        snapshot = self.run.snapshot(
            options.positions, retry_failed=options.retry_failed
        )
        if self._untried is None:
            return snapshot
        return snapshot._replace(pending=snapshot.pending & self._untried)

    def _scheduled(self, snapshot: Snapshot) -> Schedule:
        """Return what is left to do; a caller who insists on it needs no probes."""
        proven = snapshot.done > 0 or self.assignment.options.on_error == "record"
        return Schedule(snapshot.pending, self.assignment.plan, proven=proven)

    # What an engine sees.

    def return_unfinished(self, batch: Batch) -> None:
        """Take back a batch, but for what is marked of it."""
        rest = self._rest_of(batch)
        if rest is not None:
            self.schedule.give_back(rest)

    def _rest_of(self, batch: Batch) -> Batch | None:
        """Return what is left of a batch without a report, and count the other part.

        Failed positions are left, too: without a report their errors are unknown.
        """
        if batch.probe:
            return batch
        done, _ = self.run.status_of(batch.start, batch.stop)
        self._computed += int(np.count_nonzero(done & batch.members()))
        return batch.without(done)

    def take(self, report: Report) -> None:
        """Enter the report of a batch; raises where the session must stop."""
        for rows in report.rows:  # written by the same protocol as that of workers
            if self._writer is None:
                self._writer = RowWriter(self.assignment.target(self.run))
            self._writer.write(*rows)
        if self._untried is not None and (reached := report.reached):
            self._untried.remove(reached)
        self._computed += report.done
        if report.done:
            self._policy.lone_deaths = 0
        if report.warned.counts:
            self._warned.merge(report.warned)
        self._read_s += report.read_seconds
        self._write_s += report.write_seconds
        report.update(self.schedule)
        self.worked_s += report.seconds
        self._check_values_sometimes()
        if report.error is not None:
            geometry = self.assignment.computation.geometry
            raise error_of_unit(report, geometry) from report.error
        if report.batch.probe:
            self.schedule.probing -= 1
            self.schedule.proven |= self._policy.probed(
                report.failures, report.done, self.assignment.computation.geometry
            )
        elif report.failed:
            self._failed += report.failed
            self._record(report.failures)
        if self._listener is not None:
            batch, done, failed = report.batch, report.done, report.failed
            counts = self._counts()
            self._listener(BatchDone(self._results, batch, done, failed, counts))
        self._bar.update(self._computed + self._failed, self._failed)

    def _check_values_sometimes(self) -> None:
        """Raise early where values are not what they were, not after hours."""
        elapsed = time.perf_counter() - self._began
        if elapsed < self._look_after:
            return
        self._look_after = 2 * elapsed
        computation = self.assignment.computation
        error = error_of_change(computation, self.run, sources=False)
        if error is not None:
            raise error

    def _counts(self) -> Counts:
        done, failed = self._before
        if self.assignment.options.retry_failed:
            # Every one that succeeds has failed before.
            failed -= self._computed + self._failed
        settled = self._computed + self._failed
        return Counts(
            done + self._computed, failed + self._failed, self._wanted - settled
        )

    def _record(self, failures: list[Failure]) -> None:
        self._tables.record(failures)
        if self._listener is not None:
            for failure in failures:
                self._listener(PositionFailed(failure))

    def note_changed(self, values: list[str]) -> None:
        """Take note of values that a worker has changed."""
        self._changed_in_workers.update(dict.fromkeys(values))

    def redo_unmarked(self, reports: list[Report]) -> None:
        """Have computed again what a dead worker had done and not yet marked."""
        for report in reports:
            batch = report.reached
            if batch is None or (batch.probe and not report.done):
                continue  # nothing was written: the failure is held back
            done, failed_there = self.run.status_of(batch.start, batch.stop)
            if not self.assignment.options.retry_failed:
                done |= failed_there
            rest = batch.without(done)
            if rest is not None:
                self.schedule.give_back(dataclasses.replace(rest, probe=False))
                if self._untried is not None:
                    self._untried.add(rest)
                failed = min(report.failed, rest.count)
                self._failed -= failed
                self._computed -= rest.count - failed

    def lost(self, loss: Loss) -> None:
        """Note the death of a worker, and look for the position that ended it.

        Raises UnitFailed where a position has ended its worker and
        ``on_error="raise"``, WorkerDied where whatever is computed ends its worker.
        """
        where = ""
        if loss.position is not None:
            shape = self.assignment.computation.geometry.map_shape
            where = f" at {name_of_position(loss.position, shape)}"
        advice = f" ({loss.message})" if loss.message else ""
        logger.warning("a worker ended%s: %s%s", where, loss.cause, advice)
        if loss.batch is None:
            return
        batch = self._rest_of(loss.batch)
        if batch is None:
            return
        known = loss.timed_out and loss.position is not None
        # What is left of a batch may be one position that was not alone in its worker.
        alone = loss.batch.alone
        for part in [batch] if alone else batch.parts(loss.position):
            if part.suspect and (alone or known):
                self._give_up(part, loss)
            else:
                self.schedule.give_back(part)

    def _give_up(self, batch: Batch, loss: Loss) -> None:
        """Record a position that has ended its worker."""
        position = int(batch.positions()[0])
        if self._untried is not None:
            self._untried.remove(batch)
        message = loss.message or "it ended the worker process"
        failure = Failure(position, loss.cause, message, "")
        geometry = self.assignment.computation.geometry
        if self.assignment.options.on_error == "raise":
            raise error_of_death(failure, geometry)
        if batch.probe:
            self.schedule.probing -= 1
            self.schedule.proven |= self._policy.probed([failure], 0, geometry)
            return
        if self._policy.machine_failed:
            return  # the session ends for this already: the position stays pending
        self._mark_failed([failure])
        self._policy.died_alone(failure, geometry)

    # The course of a session.

    def run_to_end(
        self, more: Callable[[Session], Assignment | None] | None = None
    ) -> tuple[Results, Status]:
        """Compute what is pending, and finish when nothing is left.

        `more`, for a source that is being written, waits until there is more to compute
        and says what; it returns None when there will be no more.
        """
        over = True
        try:
            self._begin()
            if self._was_finished:
                self._tables.reopen()
            with self.stop.watching(), contextlib.ExitStack() as stack:
                handler = LogHandler()
                handler.write = lambda line: self._tables.log(line)
                logging.root.addHandler(handler)
                stack.callback(self._bar.close)
                stack.callback(logging.root.removeHandler, handler)
                if self._listener is not None:
                    self._listener(Started(self._results, self._counts()))
                try:
                    if more is None:
                        self._work()
                    else:
                        over = self._follow(more)
                except Exception:
                    self._check_unchanged(ended_well=False)
                    raise
                self._check_unchanged()
            results, end = self._results, self._snapshot()
            left = len(end.pending)
            if self.stop.requested() and (left or not over):
                raise stopped(self.stop, results)
            if end.settled:
                request = self.assignment.computation.request
                outputs = {n: o for n, o in request.outputs.items() if o.per == "run"}
                value = request.process.finish(results)
                named = by_name(value, outputs) if outputs else {}
                values = {
                    n: fitted_array(n, named[n], o.dtype, o.shape).astype(o.dtype)
                    for n, o in outputs.items()
                }
                self._tables.set_finished(values)
                self.assignment.copy_path.unlink(missing_ok=True)
            elif left and not self.stop.requested():
                # Never silently: a result of which a part is missing looks like one.
                msg = (
                    f"{left:,} positions are still pending in {self.run.path}, though "
                    "the session has handed out all that were asked for: a worker or "
                    "another program has lost their status. Run again to compute them; "
                    "if it happens again, please report it"
                )
                raise RunFileError(msg)
        finally:
            warned = list(self._warned.told()) if self._warned.counts else []
            for one, text in warned:
                name, where = one.category.__name__, one.filename
                text = f"{name}: {text} ({where}:{one.lineno})"
                line = LogLine(time.time(), "WARNING", "warnings", os.getpid(), text)
                self._tables.log(line)
            self._end()
            self._tables.close()
            if warned:
                self._warned.show()
        status = Status(end.header.size, end.done, end.failed, end.settled)
        logger.info("%s: %s", self.assignment.computation.run_folder.stem, status)
        return results, status

    def _check_unchanged(self, *, ended_well: bool = True) -> None:
        """Raise where source or values are not what they were at the beginning.

        The run is marked: no session continues it, as rows may be mixed in it. After
        another error this one is only written into the run's log.
        """
        if not self._computed + self._failed:
            return
        computation, stopped = self.assignment.computation, self.stop.requested()
        # Reading all of a large source would take longer than a stop may.
        sources = not (stopped and self.run.header.source.get("full"))
        try:
            error = error_of_change(
                computation,
                self.run,
                sources=sources,
                in_workers=self._changed_in_workers,
            )
        except ResumableError:
            # It cannot be told. What is computed counts when it is the same later.
            if ended_well and not stopped:
                raise
            return
        if error is not None:
            self._tables.set_mixed()
            line = (time.time(), "ERROR", logger.name, os.getpid(), str(error))
            self._tables.log(LogLine(*line))
            if ended_well:
                raise error

    def _begin(self) -> None:
        self._tables.begin(
            host=platform.node(),
            pid=os.getpid(),
            engine=self.assignment.plan.engine,
            workers=self.assignment.plan.workers,
            environment=self.assignment.computation.environment,
        )

    def _end(self) -> None:
        elapsed = time.perf_counter() - self._began
        available = self.assignment.plan.workers * elapsed
        self._tables.end(
            computed=self._computed,
            failed=self._failed,
            reading=self._read_s,
            computing=self.worked_s - self._read_s - self._write_s,
            writing=self._write_s,
            waiting=max(0.0, available - self.worked_s),
        )

    def _work(self, *, few_count: bool = False) -> None:
        """Compute what is pending; on return it is committed.

        `few_count`: failures of fewer positions than are tried count as the data's.
        """
        if not self.schedule.remaining:
            return
        try:
            job, workers = self.assignment.job(self.run), self.assignment.plan.workers
            self.assignment.engine.run(job, self, workers)
        finally:
            # First what was written here is made durable and marked.
            writer, self._writer = self._writer, None
            try:
                if writer is not None:
                    writer.close()
            finally:
                # Failures that were held back while probing.
                proven = self.schedule.proven
                if (
                    self._policy.held
                    and self.assignment.options.on_error != "raise"
                    and (proven or (few_count and not self.schedule.remaining))
                ):
                    held = self._policy.released(proven=proven)
                    if held:
                        self._mark_failed(held)
        if self._policy.held and not self.schedule.remaining:
            raise self._policy.error_of_function(self.assignment.computation.geometry)

    def _follow(self, more: Callable[[Session], Assignment | None]) -> bool:
        """Compute what is there and what comes; return whether the end was reached."""
        assignment: Assignment | None = self.assignment
        while assignment is not None:
            self.trouble = None
            try:
                if assignment is not self.assignment:
                    self._extend(assignment)
                # More are to come, which may succeed.
                self._work(few_count=True)
            except SourceError as error:
                # It may be half written: that is waited for.
                self.trouble = error
            assignment = more(self)
        return not self.stop.requested()

    def _extend(self, assignment: Assignment) -> None:
        """Go on with more of the source, in a longer run file where that is needed."""
        if not assignment.computation.full_length(self.run.header):
            made = self._made
            # First: where the source cannot be read now, all is as it was.
            longer, tables = assignment.open_run(self.run, succeeds=made)
            if not made:
                # It was there before: it stays, with its part of this session.
                self._end()
            self.run, self._made = longer, True
            old, self._tables = self._tables, tables
            old.close()
            if made:
                self._tables.go_on(old)
            else:
                self._begin()
            self._results = Results(self.run)
        self.assignment = assignment
        snapshot = self._snapshot()
        done, failed = snapshot.done, snapshot.failed
        self.schedule = self._scheduled(snapshot)
        settled = self._computed + self._failed
        self._wanted = settled + self.schedule.remaining
        self._bar.grow(done + failed + self.schedule.remaining)

    def _mark_failed(self, failures: list[Failure]) -> None:
        """Record positions that no worker can record."""
        outputs = self.run.header.position_outputs
        yes, no = np.ones(1, bool), np.zeros(1, bool)
        target = self.assignment.target(self.run)
        with contextlib.closing(RowWriter(target)) as writer:
            for failure in failures:
                rows = {name: output.filled(1) for name, output in outputs.items()}
                writer.write(failure.position, no, yes, rows)
        self._failed += len(failures)
        self._record(failures)
