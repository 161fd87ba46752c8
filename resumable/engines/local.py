"""The local engine: worker processes on this machine."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from resumable import pool as pools
from resumable.batch import Job, Report, Worker
from resumable.launch import start_server

if TYPE_CHECKING:
    from resumable.engines import Driver
    from resumable.positions import Batch

#: Workers are started for at least this much work, in seconds of one worker.
WORTH_STARTING_S = 0.5
#: What starting them takes, about: until then the driver computes itself.
_START_S = 0.2
#: Batches the driver does itself are this short, so that ready workers wait little.
_HERE_S = 0.02
#: Units slower than this are left to the workers.
_SLOW_S = 0.05
#: Longest wait before the driver looks at its signals again.
_PATIENCE_S = 0.2


class LocalEngine:
    """Worker processes that read and write by themselves.

    Parameters
    ----------
    workers : int
        How many.
    start_method : {"forkserver", "spawn"}
        How they are started.
    begin_here : bool
        Compute in this process while they start, and do not start them when the
        work is short.
    """

    name = "local"
    own_processes = True

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

    def run(self, job: Job, driver: Driver) -> None:
        """Hand out batches to whoever is free."""
        if not self._begin_here:
            with pools.Pool(self.workers, self._start_method) as pool:
                _Hands(pool, job, driver, self.workers).work()
            return
        with contextlib.ExitStack() as stack:
            here = stack.enter_context(
                contextlib.closing(Worker(job, own_process=False))
            )
            hands = self._start_while_computing(here, job, driver, stack)
            if hands is not None:
                hands.hand_out()
                here.flush()
                hands.work()

    def _start_while_computing(
        self, here: Worker, job: Job, driver: Driver, stack: contextlib.ExitStack
    ) -> _Hands | None:
        """Compute in this process until workers are ready; None when all is done."""
        server_started: float | None = None
        hands: _Hands | None = None
        while not driver.stopping:
            batch = driver.next(_HERE_S)
            if batch is None:
                break
            report = here.do(batch, lambda: driver.stopping)
            driver.take(report)
            now = time.monotonic()
            if hands is not None:
                if hands.look():
                    return hands
            elif server_started is None:
                left = driver.seconds_left
                if left is not None and left > WORTH_STARTING_S:
                    start_server(self._start_method)
                    server_started = now
            slow = report.seconds > _SLOW_S
            if hands is None and server_started is not None:
                if slow or now - server_started > _START_S:
                    pool = pools.Pool(self.workers, self._start_method)
                    stack.enter_context(pool)
                    hands = _Hands(pool, job, driver, self.workers)
                if slow:
                    return hands
        if hands is not None:
            hands.wind_down()
        return None


class _Station:
    """A worker as the pool holds it."""

    def __init__(self, line: pools.Line, job: Job) -> None:
        self._worker = Worker(job, own_process=True)
        self._line = line

    def do(self, batch: Batch) -> Report:
        """Do a batch; anything the driver sends meanwhile means: stop."""
        return self._worker.do(batch, self._line.pending)

    def close(self) -> None:
        """Commit everything."""
        self._worker.close()


class _Hands:
    """The workers of a session and what each is at."""

    def __init__(
        self, pool: pools.Pool, job: Job, driver: Driver, workers: int
    ) -> None:
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

    def _take(self, event: pools.Answer | pools.Death) -> None:
        worker = event.worker
        batch = self._busy.pop(worker, None)
        was_closing = worker in self._closing
        self._starting.discard(worker)
        self._closing.discard(worker)
        if isinstance(event, pools.Death):
            self._free.discard(worker)
            doing = (
                "while it started"
                if batch is None
                else (f"at work on positions {batch.start} to {batch.stop - 1}")
            )
            raise pools.died(event, doing)
        if event.error is not None:
            if batch is not None:
                self._free.add(worker)
            raise event.error
        if was_closing:
            return
        self._free.add(worker)
        if batch is not None:
            self._driver.take(event.value)
