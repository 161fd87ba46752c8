"""The serial engine: everything in this process, nothing to start."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from resumable.worker import Worker

if TYPE_CHECKING:
    from resumable.engines.base import Driver
    from resumable.worker import Job


class SerialEngine:
    """One worker, in the driver's own process."""

    name = "serial"
    workers = 1
    own_processes = False
    can_replace = False

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Do batches one after another."""
        with contextlib.closing(Worker(job, own_process=False)) as worker:
            while not driver.stopping:
                batch = driver.next()
                if batch is None:
                    return
                driver.take(worker.do(batch, lambda: driver.stopping))
