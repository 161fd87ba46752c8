"""The local engine: worker processes on this machine."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from resumable.model import WORTH_STARTING_S
from resumable.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from resumable.engines.base import Driver
    from resumable.engines.crew import LocalDispatcher
    from resumable.worker import Job

#: Batches the driver does itself are this short, so that ready workers wait little.
_HERE_S = 0.02
#: Units slower than this are left to the workers.
_SLOW_S = 0.05


class LocalEngine:
    """Worker processes that read and write by themselves.

    Parameters
    ----------
    workers : int
        How many.
    start_method : {"forkserver", "spawn"}
        How they are started.
    begin_here : bool
        Compute in this process while they start, and do without them when the
        work is short.
    """

    name = "local"
    own_processes = True
    can_replace = True

    def __init__(
        self,
        workers: int,
        start_method: str = "forkserver",
        *,
        begin_here: bool = False,
    ) -> None:
        self.workers = workers
        self._start_method = start_method
        self._begin_here = begin_here

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Hand out batches to whoever is free."""
        job = job._replace(leaves_memory_errors=True)
        if not self._begin_here:
            with contextlib.ExitStack() as stack:
                self._start(job, driver, workers, stack).work()
            return
        with contextlib.ExitStack() as stack:
            here = stack.enter_context(
                contextlib.closing(Worker(job, own_process=False))
            )
            start = functools.partial(self._start, job, driver, workers, stack)
            crew = self._start_while_computing(here, driver, start)
            if crew is not None:
                crew.hand_out()
                here.flush()
                crew.work()

    def _start(
        self, job: Job, driver: Driver, workers: int, stack: contextlib.ExitStack
    ) -> LocalDispatcher:
        """Start the workers; they end with the stack."""
        # Imported here: a short run does without processes.
        from resumable.engines.crew import LocalDispatcher
        from resumable.worker import WorkerProcesses

        pool = stack.enter_context(
            WorkerProcesses(workers, start_method=self._start_method)
        )
        return LocalDispatcher(pool, job, driver, workers)

    def _server_ready(self) -> bool:
        from resumable.worker import start_server

        return start_server(self._start_method)

    def _start_while_computing(
        self, here: Worker, driver: Driver, start: Callable[[], LocalDispatcher]
    ) -> LocalDispatcher | None:
        """Compute in this process until workers are ready; None when all is done."""
        crew: LocalDispatcher | None = None
        worked_s = 0.0
        while not driver.stopping:
            batch = driver.next(_HERE_S)
            if batch is None:
                break
            report = here.do(batch, lambda: driver.stopping)
            driver.take(report)
            worked_s += report.seconds
            if report.out_of_memory:
                return crew or start()
            if crew is not None:
                if crew.look():
                    return crew
            elif worked_s < _HERE_S:
                # The first positions also pay for what is called and read first.
                continue
            elif (driver.seconds_left or 0) > WORTH_STARTING_S:
                slow = report.seconds > _SLOW_S
                if self._server_ready() or slow:
                    crew = start()
                if slow:
                    return crew
        if crew is not None:
            crew.wind_down()
        return None
