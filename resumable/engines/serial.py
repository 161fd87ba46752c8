"""The serial engine: everything in this process, nothing to start."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from resumable.engines.local import LocalEngine
from resumable.worker import Worker

if TYPE_CHECKING:
    from resumable.engines.base import Driver
    from resumable.worker import Job


class SerialEngine:
    """One worker, in the driver's own process.

    When a position raises MemoryError there, one worker process does the rest.
    """

    name = "serial"
    workers = 1
    own_processes = False
    can_replace = False

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Do batches one after another."""
        if self._do_here(job._replace(leaves_memory_errors=True), driver):
            return
        try:
            LocalEngine(1).run(job, driver, 1)
        except TypeError as error:
            error.add_note(
                "(a position raised MemoryError in this process, so it was to be tried "
                "in a fresh one; it is left pending)"
            )
            raise

    def _do_here(self, job: Job, driver: Driver) -> bool:
        """Return whether that was all, or the memory has run out."""
        with contextlib.closing(Worker(job, own_process=False)) as worker:
            while not driver.stopping:
                batch = driver.next()
                if batch is None:
                    return True
                report = worker.do(batch, lambda: driver.stopping)
                driver.take(report)
                if report.out_of_memory:
                    return False
        return True
