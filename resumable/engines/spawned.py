"""Workers of ``engine="auto"`` where processes cannot be forked: those of a pool.

The processes of :class:`concurrent.futures.ProcessPoolExecutor`, started for a session.
They do not import the user's script, which would have to be guarded for it, ignore what
the console sends to all its processes, and end with the driver.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING, Any

from resumable.engines.futures import ExecutorEngine
from resumable.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.engines.base import Driver
    from resumable.worker import Job

#: Batches the driver does itself.
_HERE_S = 0.1
#: Less work than this is done by the driver: processes take seconds to start.
_WORTH_STARTING_S = 3.0
#: More processes are not possible in a pool on Windows.
_MOST_PROCESSES = 61


class SpawnedEngine(ExecutorEngine):
    """A pool of processes, started where the driver would compute for long.

    With `begin_here` this process computes first.
    """

    own_processes = True
    after_loss = "run again"

    def __init__(self, workers: int, *, begin_here: bool) -> None:
        self.name = "auto"
        self.workers = min(workers, _MOST_PROCESSES)
        self.hosts = (self.workers,)
        self._begin_here = begin_here

    def slots(self) -> int:
        """Return how many processes there are."""
        return self.workers

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Compute here, and in a pool what is left when that would take long."""
        if self._begin_here and self._all_done_here(job, driver):
            return
        with ProcessPoolExecutor(workers, _Context(), initializer=_begin) as executor:
            self._executor = executor
            super().run(job, driver, workers)

    @staticmethod
    def _all_done_here(job: Job, driver: Driver) -> bool:
        worked_s = 0.0
        with contextlib.closing(Worker(job, own_process=False)) as worker:
            while not driver.stop.requested():
                left_s = driver.schedule.seconds_left or 0
                if worked_s > _HERE_S and left_s > _WORTH_STARTING_S:
                    return False
                batch = driver.schedule.next(_HERE_S)
                if batch is None:
                    break
                report = worker.do(batch, driver.stop.requested)
                driver.take(report)
                worked_s += report.seconds
        return True


class _Process(SpawnProcess):
    """A process that does not import the script."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the standard library's name
        with _without_script():
            return SpawnProcess._Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process


_replacing = threading.Lock()


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """Have a process that this thread starts not import the script."""
    of_all, mine = spawn.get_preparation_data, threading.get_ident()

    def of_ours(name: str) -> dict[str, Any]:
        found: dict[str, Any] = of_all(name)
        if threading.get_ident() != mine:
            return found
        return {key: found[key] for key in found if not key.startswith("init_main")}

    with _replacing:
        spawn.get_preparation_data = of_ours
        try:
            yield
        finally:
            spawn.get_preparation_data = of_all


def _begin() -> None:
    """Leave signals of the console to the driver, and end when it has ended."""
    for name in ("SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
