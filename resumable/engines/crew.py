"""The worker processes of a session, and what each of them is at."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resumable.batch import Job, Report, Worker
from resumable.pool import Answer, Death, Line, Pool, died, portable

if TYPE_CHECKING:
    from resumable.engines import Driver
    from resumable.positions import Batch

#: Longest wait before the driver looks at its signals again.
_PATIENCE_S = 0.2


class _Station:
    """A worker as the pool holds it."""

    def __init__(self, line: Line, job: Job) -> None:
        self._worker = Worker(job, own_process=True)
        self._line = line

    def do(self, batch: Batch) -> Report:
        """Do a batch; anything the driver sends meanwhile means: stop."""
        report = self._worker.do(batch, self._line.pending)
        if report.error is not None:
            report = dataclasses.replace(report, error=portable(report.error))
        return report

    def close(self) -> None:
        """Commit everything."""
        self._worker.close()


class Crew:
    """Hands out batches to worker processes.

    Parameters
    ----------
    pool : Pool
        Of `workers` workers.
    job : Job
        What they do.
    driver : Driver
        Has the batches.
    workers : int
    """

    def __init__(self, pool: Pool, job: Job, driver: Driver, workers: int) -> None:
        self._pool = pool
        self._driver = driver
        self._starting = set(range(workers))
        self._free: set[int] = set()
        self._busy: dict[int, Batch] = {}
        self._closing: set[int] = set()
        for worker in range(workers):
            pool.place(worker, "worker", _Station, job)

    def work(self) -> None:
        """Hand out batches until none is left, then have everything committed."""
        try:
            while True:
                if not self._driver.stopping:
                    self.hand_out()
                if self._driver.stopping or not self._busy:
                    break
                self._wait(_PATIENCE_S)
        finally:
            self.wind_down()

    def look(self) -> bool:
        """Take what has come, without waiting; return whether a worker is ready."""
        self._wait(0)
        return bool(self._free)

    def hand_out(self) -> None:
        """Give every free worker a batch."""
        while self._free or (self._starting and not self._busy):
            if not self._free:
                self._wait(_PATIENCE_S)
                if self._driver.stopping:
                    return
                continue
            batch = self._driver.next()
            if batch is None:
                return
            worker = self._free.pop()
            self._busy[worker] = batch
            self._pool.send(worker, "worker", "do", batch)

    def wind_down(self) -> None:
        """End batches at work early, and have every worker commit and close."""
        for worker in self._busy:
            self._pool.nudge(worker)
        error: Exception | None = None
        while self._busy:
            try:
                self._wait(_PATIENCE_S)
            except Exception as later:
                error = error or later
        self._closing = set(self._free)
        for worker in self._closing:
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
        for event in self._pool.wait(timeout):
            try:
                self._take(event)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _take(self, event: Answer | Death) -> None:
        worker = event.worker
        batch = self._busy.pop(worker, None)
        was_closing = worker in self._closing
        self._starting.discard(worker)
        self._closing.discard(worker)
        if isinstance(event, Death):
            self._free.discard(worker)
            doing = (
                "while it started"
                if batch is None
                else (f"at work on positions {batch.start} to {batch.stop - 1}")
            )
            raise died(event, doing)
        if event.error is not None:
            if batch is not None:
                self._free.add(worker)
            raise event.error
        if was_closing:
            return
        self._free.add(worker)
        if batch is not None:
            self._driver.take(event.value)
