"""A session under MPI: what rank 0 does, and what the others do.

All ranks compute. Rank 0 is the driver besides::

    rank 0                                   the other ranks
      |  <--  INFO  ------------------------  memory and number of ranks of a host
      |  ---  SESSION  -------------------->  the job; all make the counter together
      |  ---  PROBE  ---------------------->  one position each, until `proven` is set
      |  ---  REST  ----------------------->  what is left: from here on each rank,
      |                                       also rank 0, takes portions of it from
      |                                       the counter
      |  <--  REPORT, FAILED, SIGNAL  ------
      |  ---  STOP  ----------------------->
      |  <--  CLOSED  ----------------------  everything is committed
      |  ---  END  ------------------------>  all close the counter together
      |  ---  OUTCOME  -------------------->  what compute() returns or raises
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
from resumable.errors import (
    NotFinished,
    ResumableError,
    TargetError,
    WorkerDied,
    option,
)
from resumable.model import parse_seconds
from resumable.system import StopRequest
from resumable.worker import Worker, portable

if TYPE_CHECKING:
    from collections.abc import Callable

    from resumable.engines.base import Driver
    from resumable.engines.counter import Counter
    from resumable.engines.messages import RankMessages
    from resumable.model import Batch, Remainder, Schedule
    from resumable.worker import Job, Report

# From rank 0 to the others.
SESSION, PROBE, REST, STOP = "session", "probe", "rest", "stop"
END, OUTCOME = "end", "outcome"
# From the others to rank 0.
INFO, REPORT, FAILED, SIGNAL, CLOSED = "info", "report", "failed", "signal", "closed"

#: A rank reports at most this often, in s, and in s for every rank there is, so
#: that rank 0 can listen to 10,000 of them.
_REPORT_S, _REPORT_PER_RANK_S = 0.2, 5e-4


class RankJob(NamedTuple):
    """What a rank needs to know to take part in a session."""

    job: Job  # without the process, which every rank has
    worker: int | None  # which of the workers it is; None when memory is for fewer
    workers: int  # how many there are
    one_sided: bool  # whether to try one-sided operations
    room: int  # bytes that rank 0 lends at most, where it cannot send all that is left


class Rest(NamedTuple):
    """What is left when failures are known to be the data's, and how long it takes."""

    remainder: Remainder
    schedule: Schedule


class RankZero:
    """Rank 0 in a session; `computing` are the other ranks that compute."""

    def __init__(
        self,
        messages: RankMessages,
        counter: Counter,
        driver: Driver,
        computing: list[int],
    ) -> None:
        self._messages, self._counter, self._driver = messages, counter, driver
        self._computing = computing
        self._probing: set[int] = set()
        self._open = set(range(1, messages.size))
        self._error: BaseException | None = None
        self._rest_is_sent = False

    def work(self, job: Job) -> None:
        """Compute with the others until nothing is left, or all must stop."""
        try:
            with contextlib.closing(worker_of_rank(job, self._messages)) as worker:
                self._probe(worker)
                if self._driver.schedule.proven and not self._stopping():
                    self._share_out(worker)
        except BaseException as error:
            self._error = self._error or error
        self._wind_down()
        if self._error is not None:
            raise self._error

    def _probe(self, worker: Worker) -> None:
        """Have single positions computed until failures are the data's."""
        driver, pause = self._driver, naps()
        while not (self._stopping() or driver.schedule.proven):
            for rank in self._computing:
                batch = None if rank in self._probing else driver.schedule.next()
                if batch is not None:
                    self._probing.add(rank)
                    self._messages.send(rank, PROBE, batch)
            own = driver.schedule.next()
            if own is not None:
                driver.take(worker.do(own, self._stopping))
            elif self._probing:
                next(pause)
            else:
                return

    def _share_out(self, worker: Worker) -> None:
        """Send all ranks what is left, and compute a part of it."""
        schedule = self._driver.schedule
        rest = Rest(schedule.hand_over(), schedule)
        self._counter.lend(rest.remainder)
        self._messages.send_all(REST, rest)
        self._rest_is_sent = True
        own = copy.deepcopy(schedule)
        for batch in batches_taken(self._counter, rest.remainder, own, self._stopping):
            report = worker.do(batch, self._stopping)
            report.update(own)
            self._driver.take(report)

    def _wind_down(self) -> None:
        """Wait until every rank has committed what it has computed."""
        # Ranks that know what is left end by themselves; others wait for it.
        stopped = not self._rest_is_sent
        if stopped:
            self._messages.send_all(STOP)
        pause = naps()
        while self._open:
            if self._stopping() and not stopped:
                stopped = True
                self._messages.send_all(STOP)
            next(pause)
        if self._messages.left:
            # To close the counter, MPI would wait for all ranks. The others get the
            # outcome instead.
            return
        self._messages.send_all(END)
        self._counter.close()

    def _stopping(self) -> bool:
        """Take the messages of the others; return whether all should stop."""
        self._messages.look()
        while self._messages.inbox:
            message = self._messages.inbox.popleft()
            try:
                self._take(message)
            except Exception as error:
                self._error = self._error or error
        left = self._messages.left
        if left:
            self._open -= left
            msg = f"rank {min(left)} ended in the middle of the run"
            self._error = self._error or WorkerDied(msg)
        return self._error is not None or self._driver.stop.requested()

    def _take(self, message: Message) -> None:
        if message.kind == REPORT:
            for report in message.content:
                if report.batch.probe:
                    self._probing.discard(message.rank)
                self._driver.take(report)
        elif message.kind == CLOSED:
            self._driver.note_changed(message.content)
            self._open.discard(message.rank)
        elif message.kind == SIGNAL and not self._driver.stop.requested():
            deliver(message.content)
        elif message.kind == FAILED:
            self._error = self._error or pickle.loads(message.content)


def worker_of_rank(job: Job, messages: RankMessages) -> Worker:
    """Return the worker of this rank; its number is that of the rank on its host."""
    return Worker(job, own_process=False, number=lambda: messages.rank_on_host)


class OtherRank:
    """Another rank than 0, from the beginning to the end of ``compute``."""

    def __init__(
        self,
        messages: RankMessages,
        process: Any,
        time_limit: float | str | None,
        changed: Callable[[], list[str]],
    ) -> None:
        #: Says which values of this rank's Process were changed.
        self._changed = changed
        self._messages, self._process, self._limit = messages, process, time_limit
        self._signals = StopRequest(silent=True)
        self._signal_is_sent = False
        self._deadline = StopRequest()
        self._reports: list[Report] = []
        self._reported = 0.0

    def follow(self, info: Any) -> Any:
        """Take part in what rank 0 does; return what it sends as the outcome."""
        with self._signals.watching():
            self._messages.send(0, INFO, info)
            while True:
                message = self._next()
                if message.kind == SESSION:
                    self._work(message.content)
                elif message.kind == OUTCOME:
                    return message.content

    def _next(self) -> Message:
        """Wait for the next message."""
        pause = naps()
        while True:
            self._look()
            if self._messages.inbox:
                return self._messages.inbox.popleft()
            if 0 in self._messages.left:
                msg = "rank 0 ended without calling compute(), which all ranks must"
                raise WorkerDied(msg)
            next(pause)

    def _look(self) -> None:
        self._messages.look()
        if self._signals.requested() and not self._signal_is_sent:
            self._signal_is_sent = True
            self._messages.send(0, SIGNAL, self._signals.signal_number)

    def _stopping(self) -> bool:
        self._look()
        ordered = any(m.kind in (STOP, OUTCOME) for m in self._messages.inbox)
        return ordered or self._signals.requested() or self._deadline.requested()

    def _work(self, part: RankJob) -> None:
        """Take part in a session."""
        counter = make_counter(
            self._messages,
            part.worker,
            part.workers,
            one_sided=part.one_sided,
            room=part.room,
        )
        limit = None if self._limit is None else parse_seconds(self._limit)
        self._deadline = StopRequest(limit)
        try:
            if part.worker is not None:
                self._compute(part.job, counter)
        except KeyboardInterrupt:
            # Ctrl-C again: at once. Nobody catches it, so it ends all ranks.
            raise
        except BaseException as error:
            self._messages.send(0, FAILED, error_of_rank(error, self._messages.rank))
        changed: list[str] = []
        with contextlib.suppress(ResumableError):
            changed = self._changed()
        self._messages.send(0, CLOSED, changed)
        while True:
            message = self._next()
            if message.kind == END:
                counter.close()
                return
            if message.kind == OUTCOME:
                # Rank 0 was interrupted, or another rank has ended: the counter, which
                # needs all ranks, stays open.
                self._messages.inbox.appendleft(message)
                return

    def _compute(self, job: Job, counter: Counter) -> None:
        target = job.target
        if target is not None and not target.path.exists():
            msg = (
                f"{platform.node()} does not see {target.path}, which "
                f"rank 0 has made: give {option('target')} a folder on a file system "
                "that all hosts share, and start all ranks in the same folder"
            )
            raise TargetError(msg)
        # Every rank has traced its own Process, and they are the same.
        job = job._replace(process=self._process, check=None)
        with contextlib.closing(worker_of_rank(job, self._messages)) as worker:
            try:
                # What rank 0 sends, until it sends what is left; then of that.
                while not self._stopping():
                    message = self._next()
                    if message.kind == PROBE:
                        self._do(worker, message.content)
                        self._send_reports()
                        continue
                    if message.kind != REST:
                        self._messages.inbox.appendleft(message)
                        break
                    rest: Rest = message.content
                    for batch in batches_taken(
                        counter, rest.remainder, rest.schedule, self._stopping
                    ):
                        self._do(worker, batch).update(rest.schedule)
                    break
            finally:
                self._send_reports()

    def _do(self, worker: Worker, batch: Batch) -> Report:
        report = worker.do(batch, self._stopping).sendable()
        self._reports.append(report)
        pause = max(_REPORT_S, _REPORT_PER_RANK_S * self._messages.size)
        if report.error is not None or time.monotonic() - self._reported > pause:
            self._send_reports()
        return report

    def _send_reports(self) -> None:
        if self._reports:
            self._messages.send(0, REPORT, self._reports)
            self._reports, self._reported = [], time.monotonic()


def error_of_rank(error: BaseException, rank: int) -> bytes:
    """Return an exception of this rank as bytes, with its traceback as a note."""
    sent = error
    # What would end the process does not say on which rank it was raised, and where.
    if not isinstance(error, (Exception, NotFinished)):
        msg = f"rank {rank} was to end in the middle of the run by {error!r}"
        sent = WorkerDied(msg)
    if not isinstance(error, WorkerDied):
        lines = traceback.format_exception(error)
        sent.add_note(f"on rank {rank} ({platform.node()}):\n{''.join(lines)}")
    return to_bytes(sent)


def to_bytes(error: BaseException) -> bytes:
    """Return an exception as bytes, whatever its class."""
    plain = portable(error) if isinstance(error, Exception) else error
    return bytes(cloudpickle.dumps(plain))


def deliver(number: int) -> None:
    """Send a signal that came to another rank, or too early, to this process.

    Not where the process has no handler for it: it would end the process.
    """
    if callable(signal.getsignal(number)):
        signal.raise_signal(number)
