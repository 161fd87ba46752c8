"""Engines of this machine: in the driver's process, and in processes of their own."""

from __future__ import annotations

import contextlib
import enum
import time
from typing import TYPE_CHECKING

from resumable.model import WORTH_STARTING_S
from resumable.system import forks
from resumable.worker import IDLE, WHOLE_BLOCK, Loss, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from resumable.engines.base import Driver
    from resumable.model import Batch
    from resumable.worker import (
        Answer,
        Death,
        Job,
        ParentConnection,
        Report,
        WorkerProcesses,
    )

#: Batches the driver does itself are this short, so that ready workers wait little.
_HERE_S = 0.02
#: Units slower than this are left to the workers.
_SLOW_S = 0.05
#: Longest wait before the driver looks at its signals again.
_PATIENCE_S = 0.2
#: A position may take this long after a stop was asked for; then its worker is
#: ended, which has committed everything before it by then.
_GRACE_S = 5.0


class SerialEngine:
    """One worker, in the driver's own process."""

    name = "serial"
    workers = 1
    own_processes = can_replace = False

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Do batches one after another."""
        with contextlib.closing(Worker(job, own_process=False)) as worker:
            while not driver.stop.requested():
                batch = driver.schedule.next()
                if batch is None:
                    return
                driver.take(worker.do(batch, driver.stop.requested))


class LocalEngine:
    """Worker processes that read and write by themselves.

    The `method` starts them: "forkserver" or "spawn"; by default the one that works on
    this system. With `begin_here` this process computes while they start, and does
    without them where the work is short.
    """

    name = "local"
    own_processes = can_replace = True

    def __init__(
        self, workers: int, method: str | None = None, *, begin_here: bool = False
    ) -> None:
        self.workers = workers
        self._start_method = method or forks.start_method()
        self._begin_here = begin_here

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Hand out batches to the workers that are free."""
        with contextlib.ExitStack() as stack:

            def start() -> LocalDispatcher:
                # Imported here: a short run does without processes.
                from resumable.worker import WorkerProcesses

                pool = WorkerProcesses(workers, start_method=self._start_method)
                stack.enter_context(pool)
                return LocalDispatcher(pool, job, driver, workers)

            if not self._begin_here:
                start().work()
                return
            here = Worker(job, own_process=False, not_recorded=(MemoryError,))
            stack.callback(here.close)
            dispatcher = self._start_while_computing(here, driver, start)
            if dispatcher is not None:
                dispatcher.hand_out()
                here.flush()
                dispatcher.work()

    def _start_while_computing(
        self,
        here: Worker,
        driver: Driver,
        start: Callable[[], LocalDispatcher],
    ) -> LocalDispatcher | None:
        """Compute in this process until workers are ready; None when all is done."""
        from resumable.worker import start_server

        dispatcher: LocalDispatcher | None = None
        worked_s = 0.0
        while not driver.stop.requested():
            batch = driver.schedule.next(_HERE_S)
            if batch is None:
                break
            try:
                report = here.do(batch, driver.stop.requested)
            except MemoryError as error:
                position = _position_at(batch, *here.progress_words)
                driver.lost(Loss(batch, position, False, "MemoryError", str(error)))
                return dispatcher or start()
            driver.take(report)
            worked_s += report.seconds
            if dispatcher is not None:
                if dispatcher.look():
                    return dispatcher
            elif worked_s < _HERE_S:
                # The first positions also pay for what is called and read first.
                continue
            elif (driver.schedule.seconds_left or 0) > WORTH_STARTING_S:
                slow = report.seconds > _SLOW_S
                if start_server(self._start_method) or slow:
                    dispatcher = start()
                if slow:
                    return dispatcher
        if dispatcher is not None:
            dispatcher.wind_down()
        return None


class LocalWorker:
    """A worker in a process of its own."""

    def __init__(self, parent: ParentConnection, job: Job, number: int) -> None:
        self._worker = Worker(
            job,
            own_process=True,
            progress_words=parent.progress_words,
            not_recorded=(MemoryError,),
            number=lambda: number,
        )
        self._parent = parent
        self.close = self._worker.close

    def do(self, batch: Batch) -> Report:
        """Do a batch; anything the driver sends meanwhile means: stop."""
        try:
            return self._worker.do(batch, self._parent.pending).sendable()
        except MemoryError:
            # Without the user's class, which might be one that cannot be sent.
            raise MemoryError from None


class _State(enum.Enum):
    """What a worker process is doing."""

    STARTING = enum.auto()
    FRESH = enum.auto()  # waits for a batch and has computed nothing yet
    FREE = enum.auto()  # waits for a batch
    BUSY = enum.auto()  # computes one
    CLOSING = enum.auto()  # commits, for the last time
    CLOSED = enum.auto()
    RENEWING = enum.auto()  # commits; then another process takes its place
    KILLED = enum.auto()  # by the dispatcher, which has not seen its death yet
    DEAD = enum.auto()


class _Process:
    """What the dispatcher knows of one worker process."""

    def __init__(self) -> None:
        self.state = _State.STARTING
        self.batch: Batch | None = None  # at work
        self.first: Batch | None = None  # what it begins with when it has started
        self.unmarked: list[Report] = []  # of batches that are not committed yet


class LocalDispatcher:
    """Hands out batches to worker processes, and replaces those that die."""

    def __init__(
        self, processes: WorkerProcesses, job: Job, driver: Driver, workers: int
    ) -> None:
        self._processes = processes
        self._job = job
        self._driver = driver
        self._clock = _PositionClock(job.position_timeout_s)
        self._known = [_Process() for _ in range(workers)]
        for worker in range(workers):
            self._place(worker)

    def _place(self, worker: int) -> None:
        self._processes.create(worker, "worker", LocalWorker, self._job, worker)

    def _in(self, *states: _State) -> list[int]:
        return [i for i, known in enumerate(self._known) if known.state in states]

    def work(self) -> None:
        """Hand out batches until none is left, then have everything committed."""
        while True:
            stopped = True
            try:
                while not self._driver.stop.requested():
                    self.hand_out()
                    if not any(known.batch or known.first for known in self._known):
                        stopped = False
                        break
                    self._wait(_PATIENCE_S)
            finally:
                self.wind_down()
            # A worker that dies while it commits leaves something to do again. Not here
            # where the run was stopped: another dispatcher goes on with it.
            if stopped or not self._in(_State.DEAD):
                return

    def look(self) -> bool:
        """Take what has come, without waiting; return whether a worker is ready."""
        self._wait(0)
        return bool(self._in(_State.FRESH, _State.FREE))

    def hand_out(self) -> None:
        """Give every free worker a batch; replace the dead ones first."""
        for worker in self._in(_State.DEAD):
            self._known[worker].state = _State.STARTING
            self._processes.replace(worker)
            self._place(worker)
        while not self._driver.stop.requested():
            free = self._in(_State.FRESH, _State.FREE)
            if free:
                batch = self._driver.schedule.next()
                if batch is None:
                    return
                if batch.alone:
                    self._try_alone(batch)
                else:
                    self._begin(free[0], batch)
            elif self._in(_State.STARTING) and not self._in(_State.BUSY):
                self._wait(_PATIENCE_S)
            else:
                return

    def _try_alone(self, batch: Batch) -> None:
        """Have a worker do it that has computed nothing before, now or soon.

        What ends a worker may be memory that earlier positions have not given back.
        """
        fresh = self._in(_State.FRESH)
        starting = [i for i in self._in(_State.STARTING) if not self._known[i].first]
        if fresh:
            self._begin(fresh[0], batch)
        elif starting:
            self._known[starting[0]].first = batch
        else:
            worker = self._in(_State.FREE)[0]
            self._known[worker].first = batch
            self._close(worker, _State.RENEWING)

    def _begin(self, worker: int, batch: Batch) -> None:
        self._known[worker].state = _State.BUSY
        self._known[worker].batch = batch
        self._clock.begin(worker, batch)
        self._processes.send(worker, "worker", "do", batch)

    def _close(self, worker: int, state: _State) -> None:
        self._known[worker].state = state
        self._processes.send(worker, "worker", "close")

    def _kill(self, worker: int) -> None:
        self._known[worker].state = _State.KILLED
        self._processes.kill(worker)

    def wind_down(self) -> None:
        """End batches at work early, and have every worker commit and close."""
        for known in self._known:
            if known.first is not None:
                self._driver.return_unfinished(known.first)
                known.first = None
        for worker in self._in(_State.BUSY):
            self._processes.ask_to_stop(worker)
        errors: list[Exception] = []
        deadline = time.monotonic() + _GRACE_S
        while busy := self._in(_State.BUSY, _State.KILLED):
            if time.monotonic() > deadline:
                for worker in busy:
                    self._kill(worker)
            self._wait_out(errors)
        for worker in self._in(_State.FRESH, _State.FREE):
            self._close(worker, _State.CLOSING)
        while self._in(_State.CLOSING, _State.RENEWING):
            self._wait_out(errors)
        if errors:
            raise errors[0]

    def _wait_out(self, errors: list[Exception]) -> None:
        """Wait for events; an error must not keep the others from being taken."""
        try:
            self._wait(_PATIENCE_S)
        except Exception as error:
            errors.append(error)

    def _wait(self, timeout: float) -> None:
        """Take the events that come in `timeout` seconds."""
        errors = []
        for event in self._processes.wait(min(timeout, self._clock.patience)):
            try:
                self._take(event)
            except Exception as error:
                errors.append(error)
        busy = {i: known.batch for i, known in enumerate(self._known) if known.batch}
        for worker in self._clock.overdue(busy, self._processes):
            self._processes.kill(worker)
        if errors:
            raise errors[0]

    def _take(self, event: Answer | Death) -> None:
        from resumable.worker import Death

        known = self._known[event.worker]
        if isinstance(event, Death):
            self._take_death(event, known)
            return
        if isinstance(event.error, MemoryError) and known.state is not _State.STARTING:
            # As where the system kills a process that has no memory left: its death
            # is taken when it shows.
            self._processes.kill(event.worker)
            return
        batch, known.batch = known.batch, None
        before = known.state
        if before is _State.STARTING and event.error is None:
            known.state = _State.FRESH
        elif before is _State.BUSY:
            known.state = _State.FREE
        elif before is not _State.KILLED:
            known.state = _State.CLOSED
        if event.error is not None:
            raise event.error
        if batch is not None:
            report: Report = event.value
            known.unmarked.append(report)
            del known.unmarked[: len(known.unmarked) - report.unmarked]
            self._driver.take(report)
        elif before is _State.STARTING:
            if known.first is not None:
                first, known.first = known.first, None
                self._begin(event.worker, first)
        else:
            known.unmarked.clear()
            self._driver.note_changed(event.value)
            if before is _State.RENEWING:
                self._kill(event.worker)

    def _take_death(self, death: Death, known: _Process) -> None:
        from resumable.worker import cause_of_death, death_error

        before, known.state = known.state, _State.DEAD
        if before is _State.STARTING:
            known.state = _State.CLOSED
            raise death_error(death, "while it started")
        batch, known.batch = known.batch, None
        unmarked, known.unmarked = known.unmarked, []
        self._driver.redo_unmarked(unmarked)
        if before in (_State.RENEWING, _State.KILLED):
            if batch is not None:
                self._driver.return_unfinished(batch)
            return
        cause, message = cause_of_death(death)
        words = self._processes.progress_words(death.worker)
        timed_out = self._clock.has_run_out(death.worker, words)
        if timed_out:
            cause = "position_timeout"
            message = f"it took longer than {self._job.position_timeout_s:g} s"
        position = None if batch is None else _position_at(batch, *words)
        self._driver.lost(Loss(batch, position, timed_out, cause, message))


def _position_at(batch: Batch, start: int, row: int) -> int | None:
    """Return the position at work; None: not known.

    `start` and `row` are the progress words: the first position of the block at work,
    and which of its rows is computed; negative: none, or all of them.
    """
    return int(batch.positions_from(start)[row]) if row >= 0 else None


class _PositionClock:
    """How long each worker has been at its present position, and how long it may."""

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
        self._run_out.pop(worker, None)
        self._seen.pop(worker, None)
        if self._limit_s is not None:
            rows = max(1, min(batch.block, batch.count))
            self._allowed_s[worker] = self._limit_s * rows

    def has_run_out(self, worker: int, words: tuple[int, int]) -> bool:
        """Return whether a worker was killed for the time of the position it was at.

        It can have come to the next position just before it was killed.
        """
        return self._run_out.get(worker) == words

    def overdue(self, busy: dict[int, Batch], processes: WorkerProcesses) -> list[int]:
        """Return the workers whose position has had its time."""
        if self._limit_s is None:
            return []
        # Time in which the driver itself was suspended, as on a laptop that is closed,
        # is not a position's.
        before, self._looked = self._looked, time.monotonic()
        self._counted_s += min(self._looked - before, 2 * self.patience)
        now = self._counted_s
        found = []
        for worker in busy:
            words = processes.progress_words(worker)
            last, since = self._seen.get(worker, (None, now))
            if last != words or words[1] == IDLE:
                since = now
            self._seen[worker] = words, since
            # A block computation is given the time of all its positions.
            whole = words[1] == WHOLE_BLOCK
            allowed = self._allowed_s[worker] if whole else self._limit_s
            if now - since > allowed and worker not in self._run_out:
                self._run_out[worker] = words
                found.append(worker)
        return found
