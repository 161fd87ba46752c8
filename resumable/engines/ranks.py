"""A session under MPI: what rank 0 does, and what the others do.

All of them compute. Rank 0 is the driver besides: it has positions tried until one
has succeeded, tells what is left, takes the reports and decides when to stop.
"""

from __future__ import annotations

import contextlib
import copy
import pickle
import platform
import signal
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle

from resumable.engines.counter import batches_taken, make_counter
from resumable.engines.messages import Message, naps
from resumable.errors import NotFinished, TargetError, WorkerDied
from resumable.model import class_read_from, parse_seconds
from resumable.system import StopRequest
from resumable.worker import Worker, portable

if TYPE_CHECKING:
    from resumable.engines.base import Driver
    from resumable.engines.counter import Counter
    from resumable.engines.messages import RankMessages
    from resumable.model import Batch, Remainder, Schedule
    from resumable.worker import Job, Report

# What rank 0 tells the others.
WORK, TRY, GO, STOP, END, OUTCOME = "work", "try", "go", "stop", "end", "outcome"
# What the others tell rank 0.
HELLO, REPORT, FAILED, SIGNAL, CLOSED = "hello", "report", "failed", "signal", "closed"

#: A rank reports at most this often, in s, and in s for every rank there is, so
#: that rank 0 can listen to 10,000 of them.
_REPORT_S, _REPORT_PER_RANK_S = 0.2, 5e-4


class Work(NamedTuple):
    """What a rank needs to know to take part in a session."""

    job: Job
    """What to do; without the process, which every rank has."""
    seat: int | None
    """Which of the workers this rank is; None when the memory is for fewer."""
    workers: int
    """How many there are."""
    one_sided: bool
    """Whether to try one-sided operations."""
    room: int
    """Bytes that rank 0 lends at most, where it cannot tell all what is left."""


class Rest(NamedTuple):
    """What is left when the first position has succeeded."""

    remainder: Remainder
    """The positions."""
    schedule: Schedule
    """What is known of how long they take."""


class RankZero:
    """Rank 0 in a session.

    Parameters
    ----------
    team : RankMessages
    counter : Counter
        Shared with the other ranks.
    driver : Driver
        Takes the reports.
    seated : sequence of int
        The other ranks that compute.
    """

    def __init__(
        self, team: RankMessages, counter: Counter, driver: Driver, seated: list[int]
    ) -> None:
        self._team, self._counter, self._driver = team, counter, driver
        self._seated = seated
        self._trying: set[int] = set()
        self._open = set(range(1, team.size))
        self._error: BaseException | None = None
        self._told_all = False

    def work(self, job: Job) -> None:
        """Compute with the others until nothing is left, or all must stop."""
        try:
            with contextlib.closing(Worker(job, own_process=False)) as worker:
                self._try(worker)
                if self._driver.schedule.proven and not self._stopping():
                    self._share_out(worker)
        except BaseException as error:
            self._error = self._error or error
        self._wind_down()
        if self._error is not None:
            raise self._error

    def _try(self, worker: Worker) -> None:
        """Have single positions computed until one of them has succeeded."""
        driver, pause = self._driver, naps()
        while not (self._stopping() or driver.schedule.proven):
            for rank in self._seated:
                batch = None if rank in self._trying else driver.next()
                if batch is not None:
                    self._trying.add(rank)
                    self._team.tell(rank, TRY, batch)
            own = driver.next()
            if own is not None:
                driver.take(worker.do(own, self._stopping))
            elif self._trying:
                next(pause)
            else:
                return

    def _share_out(self, worker: Worker) -> None:
        """Tell all what is left, and take part in it."""
        schedule = self._driver.schedule
        rest = Rest(schedule.hand_over(), schedule)
        self._counter.lend(rest.remainder)
        self._team.tell_all(GO, rest)
        self._told_all = True
        own = copy.deepcopy(schedule)
        for batch in batches_taken(self._counter, rest.remainder, own, self._stopping):
            report = worker.do(batch, self._stopping)
            report.update(own)
            self._driver.take(report)

    def _wind_down(self) -> None:
        """Wait until every rank has committed what it has computed."""
        # Told what is left, the others end by themselves; else they wait for it.
        stopped = not self._told_all
        if stopped:
            self._team.tell_all(STOP)
        pause = naps()
        while self._open:
            if self._stopping() and not stopped:
                stopped = True
                self._team.tell_all(STOP)
            next(pause)
        if self._team.left:
            # Giving the counter up waits inside MPI for all ranks. The others are told
            # the outcome instead.
            return
        self._team.tell_all(END)
        self._counter.close()

    def _stopping(self) -> bool:
        self._listen()
        return self._error is not None or self._driver.stopping

    def _listen(self) -> None:
        """Take what the others have told, and see whether they are still there."""
        self._team.look()
        while self._team.inbox:
            message = self._team.inbox.popleft()
            try:
                self._take(message)
            except Exception as error:
                self._error = self._error or error
        gone = self._team.left
        if gone:
            self._open -= gone
            msg = f"rank {min(gone)} ended in the middle of the run"
            self._error = self._error or WorkerDied(msg)

    def _take(self, message: Message) -> None:
        if message.kind == REPORT:
            for report in message.content:
                if report.batch.trial:
                    self._trying.discard(message.rank)
                self._driver.take(report)
        elif message.kind == CLOSED:
            self._open.discard(message.rank)
        elif message.kind == SIGNAL and not self._driver.stopping:
            deliver(message.content)
        elif message.kind == FAILED:
            self._error = self._error or unpacked(message.content)


class OtherRank:
    """Another rank than 0, from the beginning to the end of ``compute``.

    Parameters
    ----------
    team : RankMessages
    process : Process
        The user's object on this rank.
    time_limit : float or str, optional
        As for compute.
    """

    def __init__(
        self, team: RankMessages, process: Any, time_limit: float | str | None
    ) -> None:
        self._team, self._process, self._time_limit = team, process, time_limit
        self._signals = StopRequest(silent=True)
        self._passed_on = False
        self._deadline = StopRequest()
        self._reports: list[Report] = []
        self._reported = 0.0

    def follow(self, hello: Any) -> Any:
        """Take part in what rank 0 does; return what it says in the end."""
        with self._signals.watching():
            self._team.tell(0, HELLO, hello)
            while True:
                message = self._next()
                if message.kind == WORK:
                    self._work(message.content)
                elif message.kind == OUTCOME:
                    return message.content

    def _next(self) -> Message:
        """Wait for the next message."""
        pause = naps()
        while True:
            self._look()
            if self._team.inbox:
                return self._team.inbox.popleft()
            if 0 in self._team.left:
                msg = "rank 0 ended without calling compute(), which all ranks must"
                raise WorkerDied(msg)
            next(pause)

    def _look(self) -> None:
        self._team.look()
        if self._signals.requested and not self._passed_on:
            self._passed_on = True
            self._team.tell(0, SIGNAL, self._signals.signal_number)

    def _stopping(self) -> bool:
        self._look()
        told = any(m.kind in (STOP, OUTCOME) for m in self._team.inbox)
        return told or self._signals.requested or self._deadline.requested

    def _work(self, work: Work) -> None:
        """Take part in a session."""
        counter = make_counter(
            self._team,
            work.seat,
            work.workers,
            one_sided=work.one_sided,
            room=work.room,
        )
        limit = self._time_limit
        self._deadline = StopRequest(None if limit is None else parse_seconds(limit))
        try:
            if work.seat is not None:
                self._compute(work, counter)
        except KeyboardInterrupt:
            # Ctrl-C again: at once. Nobody catches it, so it ends all ranks.
            raise
        except BaseException as error:
            self._team.tell(0, FAILED, packed(error, self._team.rank))
        self._team.tell(0, CLOSED)
        while True:
            message = self._next()
            if message.kind == END:
                counter.close()
                return
            if message.kind == OUTCOME:
                # Rank 0 was interrupted, or another rank is gone: not all are there to
                # give the counter up.
                self._team.inbox.appendleft(message)
                return

    def _compute(self, work: Work, counter: Counter) -> None:
        target = work.job.target
        if target is not None and not target.path.exists():
            msg = (
                f"{platform.node()} does not see {target.path}, which "
                "rank 0 has made: give target= a folder on a file system that all "
                "hosts share, and start all ranks in the same folder"
            )
            raise TargetError(msg)
        read_from = class_read_from(type(self._process))
        job = work.job._replace(process=self._process, read_from=read_from)
        with contextlib.closing(Worker(job, own_process=False)) as worker:
            try:
                self._do_batches(worker, counter)
            finally:
                self._send_reports()

    def _do_batches(self, worker: Worker, counter: Counter) -> None:
        """Do what rank 0 says, until it says what is left; then take of that."""
        while not self._stopping():
            message = self._next()
            if message.kind == TRY:
                self._do(worker, message.content)
                self._send_reports()
            elif message.kind == GO:
                rest: Rest = message.content
                for batch in batches_taken(
                    counter, rest.remainder, rest.schedule, self._stopping
                ):
                    self._do(worker, batch).update(rest.schedule)
                return
            else:
                self._team.inbox.appendleft(message)
                return

    def _do(self, worker: Worker, batch: Batch) -> Report:
        report = worker.do(batch, self._stopping).sendable()
        self._reports.append(report)
        pause = max(_REPORT_S, _REPORT_PER_RANK_S * self._team.size)
        if report.error is not None or time.monotonic() - self._reported > pause:
            self._send_reports()
        return report

    def _send_reports(self) -> None:
        if self._reports:
            self._team.tell(0, REPORT, self._reports)
            self._reports, self._reported = [], time.monotonic()


def packed(error: BaseException, rank: int) -> bytes:
    """Make an exception of this rank ready to travel, with its traceback.

    What would end the process and is no stop is told as an error: by itself it does not
    say on which rank it was raised, and where.
    """
    told = error
    if not isinstance(error, (Exception, NotFinished)):
        msg = f"rank {rank} was to end in the middle of the run by {error!r}"
        told = WorkerDied(msg)
    if not isinstance(error, WorkerDied):
        lines = traceback.format_exception(error)
        told.add_note(f"on rank {rank} ({platform.node()}):\n{''.join(lines)}")
    return travelling(told)


def travelling(error: BaseException) -> bytes:
    """Make an exception ready to travel."""
    plain = portable(error) if isinstance(error, Exception) else error
    return bytes(cloudpickle.dumps(plain))


def unpacked(travelled: bytes) -> BaseException:
    """Return an exception that has come from another rank."""
    error: BaseException = pickle.loads(travelled)
    return error


def deliver(number: int) -> None:
    """Send a signal that came to another rank, or too early, to this process.

    Not where nobody here has asked for it: it would end the process.
    """
    if callable(signal.getsignal(number)):
        signal.raise_signal(number)
