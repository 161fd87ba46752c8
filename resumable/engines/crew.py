"""The worker processes of a session, and what each of them is at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from resumable.worker import (
    IDLE,
    WHOLE_BLOCK,
    Answer,
    Death,
    Job,
    Loss,
    ParentConnection,
    Report,
    Worker,
    WorkerProcesses,
    cause_of_death,
    death_error,
    portable,
)

if TYPE_CHECKING:
    from resumable.engines.base import Driver
    from resumable.model import Batch

#: Longest wait before the driver looks at its signals again.
_PATIENCE_S = 0.2
#: A position may take this long after a stop was asked for; then its worker is
#: ended, which has committed everything before it by then.
_GRACE_S = 5.0


class LocalWorker:
    """A worker as the pool holds it."""

    def __init__(self, parent: ParentConnection, job: Job) -> None:
        self._worker = Worker(
            job, own_process=True, progress_words=parent.progress_words
        )
        self._parent = parent

    def do(self, batch: Batch) -> Report:
        """Do a batch; anything the driver sends meanwhile means: stop."""
        report = self._worker.do(batch, self._parent.pending)
        if report.error is not None:
            report = report._replace(error=portable(report.error))
        return report

    def close(self) -> None:
        """Commit everything."""
        self._worker.close()


class LocalDispatcher:
    """Hands out batches to worker processes, and replaces those that die.

    Parameters
    ----------
    pool : WorkerProcesses
        Of `workers` workers.
    job : Job
        What they do.
    driver : Driver
        Has the batches.
    workers : int
    """

    def __init__(
        self, pool: WorkerProcesses, job: Job, driver: Driver, workers: int
    ) -> None:
        self._pool = pool
        self._job = job
        self._driver = driver
        self._clock = _Clock(job.position_timeout_s)
        self._starting: set[int] = set()
        self._dead: set[int] = set()
        self._ended: set[int] = set()
        self._free: set[int] = set()
        # Those that have computed nothing yet.
        self._fresh: set[int] = set()
        # Those that end, to be replaced; and what one that starts begins with.
        self._leaving: set[int] = set()
        self._waiting: dict[int, Batch] = {}
        self._busy: dict[int, Batch] = {}
        self._closing: set[int] = set()
        self._unmarked: dict[int, list[Report]] = {}
        for worker in range(workers):
            self._place(worker)

    def _place(self, worker: int) -> None:
        self._pool.place(worker, "worker", LocalWorker, self._job)
        self._starting.add(worker)
        self._unmarked[worker] = []

    def work(self) -> None:
        """Hand out batches until none is left, then have everything committed."""
        while True:
            try:
                stopped = self._work()
            finally:
                self.wind_down()
            # A worker that dies while it commits leaves something to do again. Not here
            # where the run was stopped: if it goes on by now, then with a new crew.
            if stopped or not self._dead:
                return

    def _work(self) -> bool:
        """Do batches until none is left; return whether it was stopped before."""
        while not self._driver.stopping:
            self.hand_out()
            if not (self._busy or self._leaving or self._waiting):
                return False
            self._wait(_PATIENCE_S)
        return True

    def look(self) -> bool:
        """Take what has come, without waiting; return whether a worker is ready."""
        self._wait(0)
        return bool(self._free)

    def hand_out(self) -> None:
        """Give every free worker a batch; replace the dead ones first."""
        while self._dead:
            worker = self._dead.pop()
            self._pool.replace(worker)
            self._place(worker)
        while self._free or (self._starting and not self._busy):
            if not self._free:
                self._wait(_PATIENCE_S)
                if self._driver.stopping:
                    return
                continue
            batch = self._driver.next()
            if batch is None:
                return
            if batch.alone:
                self._try_alone(batch)
            else:
                self._begin(next(iter(self._free)), batch)

    def _try_alone(self, batch: Batch) -> None:
        """Have a worker do it that has computed nothing before, now or soon.

        What ends a worker may be memory that earlier positions have not given back.
        """
        fresh = self._free & self._fresh
        coming = self._starting - self._waiting.keys()
        if fresh:
            self._begin(fresh.pop(), batch)
        elif coming:
            self._waiting[coming.pop()] = batch
        else:
            worker = self._free.pop()
            self._waiting[worker] = batch
            self._dismiss(worker)

    def _begin(self, worker: int, batch: Batch) -> None:
        self._free.discard(worker)
        self._fresh.discard(worker)
        self._busy[worker] = batch
        self._clock.begin(worker, batch)
        self._pool.send(worker, "worker", "do", batch)

    def _dismiss(self, worker: int) -> None:
        """Have a worker commit and end; another one takes its place."""
        self._leaving.add(worker)
        self._closing.add(worker)
        self._pool.send(worker, "worker", "close")

    def wind_down(self) -> None:
        """End batches at work early, and have every worker commit and close."""
        while self._waiting:
            self._driver.give_back(self._waiting.popitem()[1])
        for worker in self._busy:
            self._pool.ask_to_stop(worker)
        error: Exception | None = None
        deadline = time.monotonic() + _GRACE_S
        while self._busy:
            if time.monotonic() > deadline:
                for worker in self._busy:
                    self._ended.add(worker)
                    self._pool.kill(worker)
            try:
                self._wait(_PATIENCE_S)
            except Exception as later:
                error = error or later
        free, self._free = self._free, set()
        self._closing |= free
        for worker in free:
            self._pool.send(worker, "worker", "close")
        while self._closing:
            try:
                self._wait(_PATIENCE_S)
            except Exception as later:
                error = error or later
        if error is not None:
            raise error

    def _wait(self, timeout: float) -> None:
        """Take the events that come in `timeout` seconds."""
        errors = []
        for event in self._pool.wait(min(timeout, self._clock.patience)):
            try:
                self._take(event)
            except Exception as error:
                errors.append(error)
        for worker in self._clock.overdue(self._busy, self._pool):
            self._pool.kill(worker)
        if errors:
            raise errors[0]

    def _take(self, event: Answer | Death) -> None:
        worker = event.worker
        batch = self._busy.pop(worker, None)
        was_closing = worker in self._closing
        was_starting = worker in self._starting
        self._starting.discard(worker)
        self._closing.discard(worker)
        if isinstance(event, Death):
            self._free.discard(worker)
            if was_starting:
                raise death_error(event, "while it started")
            self._lose(event, batch)
            return
        if worker in self._leaving and isinstance(event.error, MemoryError):
            # Not even for committing is there enough: that is done again.
            self._pool.kill(worker)
            return
        if event.error is not None:
            if batch is not None:
                self._free.add(worker)
            raise event.error
        if was_closing:
            self._unmarked[worker].clear()
            if worker in self._leaving:
                self._pool.kill(worker)
            return
        if was_starting:
            self._free.add(worker)
            self._fresh.add(worker)
            if worker in self._waiting:
                self._begin(worker, self._waiting.pop(worker))
            return
        self._answered(worker, event.value)

    def _answered(self, worker: int, report: Report) -> None:
        """Take the report of a batch."""
        unmarked = self._unmarked[worker]
        unmarked.append(report)
        del unmarked[: len(unmarked) - report.unmarked]
        if report.out_of_memory:
            self._dismiss(worker)
        else:
            self._free.add(worker)
        self._driver.take(report)

    def _lose(self, event: Death, batch: Batch | None) -> None:
        """Tell the driver of a worker's death."""
        worker = event.worker
        self._dead.add(worker)
        unmarked, self._unmarked[worker] = self._unmarked[worker], []
        self._driver.take_back(unmarked)
        if worker in self._leaving:
            self._leaving.discard(worker)
            return
        if worker in self._ended:
            if batch is not None:
                self._driver.give_back(batch)
            return
        cause, message = cause_of_death(event)
        start, row = self._pool.progress_words(worker)
        timed_out = self._clock.has_run_out(worker, (start, row))
        if timed_out:
            cause = "position_timeout"
            message = f"it took longer than {self._job.position_timeout_s:g} s"
        position = None
        if batch is not None and row >= 0:
            position = int(batch.positions_from(start)[row])
        self._driver.lost(Loss(batch, position, timed_out, cause, message))


class _Clock:
    """How long each worker has been at its present position.

    Parameters
    ----------
    limit_s : float or None
        How long it may be.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._seen: dict[int, tuple[tuple[int, int], float]] = {}
        self._allowed_s: dict[int, float] = {}
        self._run_out: dict[int, tuple[int, int]] = {}
        self._looked, self._counted_s = time.monotonic(), 0.0

    @property
    def patience(self) -> float:
        """Look again after this time, in seconds."""
        return _PATIENCE_S if self._limit_s is None else min(1.0, self._limit_s / 4)

    def begin(self, worker: int, batch: Batch) -> None:
        """Note that a worker begins a batch."""
        self._run_out.pop(worker, None)
        self._seen.pop(worker, None)
        if self._limit_s is not None:
            rows = max(1, min(batch.block, batch.count))
            self._allowed_s[worker] = self._limit_s * rows

    def has_run_out(self, worker: int, progress_words: tuple[int, int]) -> bool:
        """Return whether a worker was ended because of the time of its last position.

        The one whose time it was may have ended just before.
        """
        return self._run_out.get(worker) == progress_words

    def overdue(self, busy: dict[int, Batch], pool: WorkerProcesses) -> list[int]:
        """Return the workers whose position has had its time."""
        if self._limit_s is None:
            return []
        # Where the driver itself is held up, as on a laptop that is closed, no position
        # has had all the time that has passed.
        before, self._looked = self._looked, time.monotonic()
        self._counted_s += min(self._looked - before, 2 * self.patience)
        now = self._counted_s
        found = []
        for worker in busy:
            progress_words = pool.progress_words(worker)
            last, since = self._seen.get(worker, (None, now))
            if last != progress_words or progress_words[1] == IDLE:
                since = now
            self._seen[worker] = progress_words, since
            # A block computation is given the time of all its positions.
            whole = progress_words[1] == WHOLE_BLOCK
            allowed = self._allowed_s[worker] if whole else self._limit_s
            if now - since > allowed and worker not in self._run_out:
                self._run_out[worker] = progress_words
                found.append(worker)
        return found
