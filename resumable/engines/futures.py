"""Engines over futures: a few batches in flight, each one task of an executor.

The executor belongs to the user: it decides where a task runs, and it outlives the
session. So nothing is asked of it but ``submit``. A stop needs no way to reach a task
that is at work: tasks are short and end by themselves.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import pickle
import queue
import uuid
from typing import TYPE_CHECKING, Any

from resumable.engines import remote_worker
from resumable.engines.remote_worker import (
    FileNumbers,
    JobPackage,
    Task,
    TaskResult,
    this_process,
)
from resumable.errors import WorkerDied, option
from resumable.system import forks, machine
from resumable.worker import RemoteTraceback, log_here, lowest_level, packed

if TYPE_CHECKING:
    from resumable.engines.base import Driver
    from resumable.model import Batch
    from resumable.worker import Job

logger = logging.getLogger("resumable")

#: Expected length of a batch, and when a task ends whatever was expected. An executor
#: may have begun one task and already taken the next one out of our reach, so that a
#: stop waits for two of them, or for the position at work where that is slower.
BATCH_S = 1.0
LONGEST_S = 1.5
#: Longest wait before the driver looks at its signals and at the executor again.
_PATIENCE_S = 0.2
#: Packages whose executors compute on this host only.
_LOCAL = ("concurrent", "joblib", "loky", "resumable")
#: How long the closing round at the end waits for busy processes, in seconds.
_CLOSING_S = 1.0


def _finds_it() -> str:
    local = option("engine", "local")
    return f", or use {local}, which finds a position that ends its worker"


class FuturesEngine:
    """What engines over futures have in common."""

    own_processes = True
    can_replace = False
    #: Errors of the executor that say it has lost a task, and what a user does then.
    losses: type[BaseException]
    after_loss = "run again"
    hosts: tuple[int, ...] | None
    """Number of workers on each host; None: not known."""

    def __init__(self, name: str, workers: int) -> None:
        self.name = name
        self.workers = workers
        self.hosts = (workers,)

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Hand out batches as tasks."""
        dispatcher = FutureDispatcher(self, job, driver, workers)
        with remote_worker.lent(dispatcher.token, dispatcher.package):
            try:
                dispatcher.work()
            finally:
                driver.note_changed(self.release(dispatcher.token))

    def slots(self) -> int | None:
        """Return how many tasks the executor does at once; None: not known."""
        raise NotImplementedError

    def at_once(self, workers: int) -> int:
        """Return how many batches may be at work now; `workers` as run() got it."""
        return workers

    def submit(self, task: Task, name: str) -> Any:
        """Return the future of a call of :func:`remote_worker.do` with a task."""
        raise NotImplementedError

    def cancel(self, token: str, futures: dict[int, Any]) -> set[int]:
        """Cancel tasks of a session that nobody has begun; return their numbers."""
        return {number for number, future in futures.items() if future.cancel()}

    def check(self) -> None:
        """Raise where the executor is closed."""

    def explain(self, error: BaseException, batch: Batch) -> BaseException:
        """Return the error for a task that was lost, perhaps beside others."""
        return WorkerDied(
            f"{self.name} has lost a worker at positions {batch.start} to "
            f"{batch.stop - 1}, or at those of another batch "
            f"({type(error).__name__}: {error}). What was committed stays: "
            f"{self.after_loss}{_finds_it() if forks.POSSIBLE else ''}"
        )

    def release(self, token: str) -> list[str]:
        """Have the processes of the executor close what the session held.

        Returns the values that were changed there, as far as they answer.
        """
        return []


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

    def submit(self, task: Task, name: str) -> Any:
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

    def release(self, token: str) -> list[str]:
        """Close the workers of a session: threads here, processes in one round.

        Nothing says which process gets a task, so one may be left out. Its worker is
        closed after :data:`remote_worker.IDLE_S`.
        """
        changed = remote_worker.release(token)
        if not self.own_processes:
            return changed
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
            return changed
        except RuntimeError:
            return changed  # it is closed: so are its processes
        answered, _ = concurrent.futures.wait(round_, timeout=_CLOSING_S)
        for future in answered:
            with contextlib.suppress(Exception):
                changed += future.result()
        return changed


class FutureDispatcher:
    """Hands out batches as tasks, a few in flight, and takes their results."""

    def __init__(
        self, engine: FuturesEngine, job: Job, driver: Driver, workers: int
    ) -> None:
        self.token = uuid.uuid4().hex
        self._engine, self._driver, self._workers = engine, driver, workers
        refs = (job.source, *job.inputs.values())
        sources = {ref.path: FileNumbers.of(ref.path) for ref in refs if ref.path}
        self.package = JobPackage(job, sources)
        # Threads of this process take it as it is.
        self._packed = packed(self.package) if engine.own_processes else None
        self._name = type(job.process).__name__
        self._level = lowest_level()
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._in_flight: dict[int, tuple[Any, Batch]] = {}
        self._sent = 0
        self._sent_with_job = 0
        self._is_quick = False

    def work(self) -> None:
        """Hand out batches until none is left."""
        try:
            while True:
                if not self._driver.stop.requested():
                    self._hand_out()
                if self._driver.stop.requested() or not self._in_flight:
                    break
                self._wait()
        finally:
            self._wind_down()

    def _hand_out(self) -> None:
        while True:
            # Twice as many as are at work, so that no worker waits for the driver. But
            # what is taken out of our reach cannot be stopped: not where one task is
            # long, nor where the executor would begin more than it should.
            at_once = self._engine.at_once(self._workers)
            ahead = self._is_quick and at_once == self._engine.slots()
            if len(self._in_flight) >= (2 * at_once if ahead else at_once):
                return
            batch = self._driver.schedule.next(BATCH_S)
            if batch is None:
                return
            self._send(batch)

    def _send(self, batch: Batch, *, with_job: bool = False) -> None:
        """Submit a batch, with the job where the process may not have it."""
        with_job = with_job or self._sent_with_job < 2 * self._workers
        self._sent_with_job += with_job
        number = self._sent = self._sent + 1
        task = Task(
            self.token,
            number,
            batch,
            LONGEST_S,
            this_process(),
            self._level,
            self._packed if with_job else None,
        )
        name = f"{self._name}-{batch.start}-{batch.stop}-{self.token[:8]}-{number}"
        try:
            future = self._engine.submit(task, name)
        except BaseException:
            self._driver.return_unfinished(batch)
            raise
        self._in_flight[number] = future, batch
        future.add_done_callback(lambda _: self._ended.put(number))

    def _wait(self) -> None:
        """Take the result that comes next, within some time."""
        try:
            number = self._ended.get(timeout=_PATIENCE_S)
        except queue.Empty:
            self._engine.check()
            return
        if number in self._in_flight:
            self._take(*self._in_flight.pop(number))

    def _take(self, future: Any, batch: Batch) -> None:
        try:
            result: TaskResult = pickle.loads(future.result())
        except Exception as error:
            # The executor was shut down, or has lost the task.
            is_cancelled = isinstance(error, concurrent.futures.CancelledError)
            if not (is_cancelled or isinstance(error, self._engine.losses)):
                raise
            self._driver.return_unfinished(batch)
            if is_cancelled:
                self._engine.check()
            if not self._driver.stop.requested():
                raise self._engine.explain(error, batch) from error
            if not is_cancelled:
                # A signal to all processes of a job ends the executor's, too.
                logger.warning("%s", self._engine.explain(error, batch))
            return
        for record in result.records:
            log_here(record)
        if result.error is not None:
            raise result.error from RemoteTraceback(result.trace)
        report = result.report
        if report is not None:
            self._is_quick = report.seconds < BATCH_S
            if report.error is None and report.rest is not None:
                self._driver.return_unfinished(report.rest)
            self._driver.take(report)
        elif self._driver.stop.requested():
            self._driver.return_unfinished(batch)
        else:
            self._send(batch, with_job=True)

    def _wind_down(self) -> None:
        """Cancel the tasks that have not begun, and wait for the others."""
        error: BaseException | None = None
        while self._in_flight:
            try:
                pending = {n: future for n, (future, _) in self._in_flight.items()}
                for number in self._engine.cancel(self.token, pending):
                    _, batch = self._in_flight.pop(number)
                    self._driver.return_unfinished(batch)
                if self._in_flight:
                    self._wait()
            except Exception as later:
                error = error or later
                try:
                    self._engine.check()
                except Exception:
                    self._in_flight.clear()  # the executor is closed
        if error is not None:
            raise error
