"""Any ``concurrent.futures.Executor`` as an engine."""

from __future__ import annotations

import concurrent.futures
import logging
from typing import Any

from resumable.engines import remote_worker
from resumable.engines.futures import FuturesEngine
from resumable.errors import WorkerDied
from resumable.system import machine

logger = logging.getLogger("resumable")

#: Packages whose executors compute on this host only.
_LOCAL = ("concurrent", "joblib", "loky", "resumable")
#: How long the closing round at the end waits for busy processes, in seconds.
_CLOSING_S = 1.0


class ExecutorEngine(FuturesEngine):
    """Tasks of the user's executor, which stays open.

    By default as many at once as the executor says it has workers, else cores here.
    """

    losses = concurrent.futures.BrokenExecutor
    after_loss = "make another executor and run again"

    def __init__(
        self, executor: concurrent.futures.Executor, workers: int | None = None
    ) -> None:
        self._executor = executor
        count = workers or self.slots() or machine.usable_cores()
        super().__init__(type(executor).__name__.lstrip("_"), int(count))
        is_thread = isinstance(executor, concurrent.futures.ThreadPoolExecutor)
        self.own_processes = not is_thread
        package = type(executor).__module__.partition(".")[0]
        self.hosts = (self.workers,) if package in _LOCAL else None

    def slots(self) -> int | None:
        """Return what the executor says, by one of the names that are in use."""
        for name in ("_max_workers", "num_workers"):
            count = getattr(self._executor, name, None)
            if isinstance(count, int) and count > 0:
                return count
        return None

    def submit(self, task: remote_worker.Task, name: str) -> Any:
        """Submit a task; executors have no use for its name."""
        try:
            return self._executor.submit(remote_worker.do, task)
        except RuntimeError as error:
            msg = (
                f"the {self.name} takes no tasks any more ({error}); what was "
                "committed stays, run again with another one to go on"
            )
            raise WorkerDied(msg) from error

    def cancel(self, token: str, futures: dict[int, Any]) -> set[int]:
        """Cancel what has not begun.

        Nothing in the standard library's processes. Should one of them end while a
        cancelled task waits, the thread that manages them ends by an error of its own,
        and the interpreter waits for the others for ever.
        """
        if isinstance(self._executor, concurrent.futures.ProcessPoolExecutor):
            return set()
        return super().cancel(token, futures)

    def release(self, token: str) -> None:
        """Close the workers of a session: threads here, processes in one round.

        Nothing says which process gets a task, so one may be left out. Its worker is
        closed after :data:`remote_worker.IDLE_S`.
        """
        remote_worker.release(token)
        if not self.own_processes:
            return
        try:
            round_ = [
                self._executor.submit(remote_worker.release, token, 0.005)
                for _ in range(self.workers)
            ]
        except concurrent.futures.BrokenExecutor:
            # Its other processes still commit what they are at; the shutdown waits for
            # them, since a session that is over refuses what comes later.
            what = "the %s has lost a process; its others commit what they are at"
            logger.warning(what, self.name)
            self._executor.shutdown()
            return
        except RuntimeError:
            return  # it is closed: so are its processes
        concurrent.futures.wait(round_, timeout=_CLOSING_S)
