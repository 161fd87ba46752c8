"""A worker that lives as a guest in a process of somebody's executor.

An executor calls one function at a time, in whatever process it likes, and says
neither when a session begins nor when it ends. So the worker of a session stays in
the process from task to task: made by the first one, let go of when the session says
so or when it was not asked for anything for a while.

Nothing is held between tasks that somebody else could wait for: a task opens the run
file, and has everything committed and closes it before it answers. An answer is a
promise that its rows are on the disk; a process can vanish after it without loss.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import pickle
import platform
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle
import numpy as np

from resumable.errors import SourceError, TargetError
from resumable.runfile import RowBuffer, RowWriter, WriteTarget
from resumable.system import LockFile, deferred_termination, disk, machine
from resumable.worker import Job, Report, Worker, plain_record, portable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from resumable.model import Batch

    Array = np.ndarray[Any, np.dtype[Any]]

#: A worker that has nothing to do for this time lets go of its source and its memory.
IDLE_S = 5.0
#: Orders that a process remembers to have begun: many more than are in flight to it.
_REMEMBERED = 1000
#: Log records of a task that are sent to the driver.
_MOST_RECORDS = 10_000


class Task(NamedTuple):
    """What a task is to do. Small, since it travels with every one."""

    token: str
    """Name of the session."""
    number: int
    """Which of its orders this is."""
    batch: Batch
    """What to compute."""
    seconds: float
    """End after this time, with the position that is at work then."""
    driver: tuple[str, int]
    """Host and process of the driver."""
    level: int
    """Lowest level of log records that it wants."""
    job: bytes | None = None
    """The packed :class:`JobPackage`, where the process may not have it yet."""


class JobPackage(NamedTuple):
    """What a session does, with what a worker needs to check it elsewhere."""

    job: Job
    """With absolute paths."""
    marks: Mapping[str, tuple[int, ...]]
    """The :func:`mark` of the file of every source, by absolute path."""


class TaskResult(NamedTuple):
    """What became of an order."""

    report: Report | None = None
    """What was done."""
    needs_job: bool = False
    """The process does not have the job yet; nothing was done."""
    error: Exception | None = None
    """What was raised outside of the computation of a position."""
    trace: str = ""
    """Its traceback."""
    records: tuple[dict[str, Any], ...] = ()
    """Log records."""


def here() -> tuple[str, int]:
    """Host and number of this process."""
    return platform.node(), os.getpid()


def mark(path: str) -> tuple[int, ...]:
    """Tell a file from another one that has the same name on another host."""
    stat = Path(path).stat()
    return stat.st_ino, stat.st_size, int(stat.st_mtime)


def _check_source(path: str, expected: tuple[int, ...]) -> None:
    """Raise SourceError where the file of that name here is not the driver's."""
    with contextlib.suppress(OSError):
        found = mark(path)
        # The number of a file differs where it was copied, or the file system makes
        # numbers up; size and time change while it is written to.
        if found[0] == expected[0] or found[1:] == expected[1:]:
            return
    msg = (
        f"a worker on {platform.node()} does not see the source {path} as the driver "
        "does: put it where all workers find it under the same absolute path, or "
        "compute with engine='local'"
    )
    raise SourceError(msg)


def do(order: Task) -> bytes:
    """Do a batch, as a task of an executor; return the packed :class:`TaskResult`.

    Packed here, because the executor's own way cannot send what is defined in a
    script or a notebook.
    """
    if not begin(order):
        return packed(TaskResult())
    lodger = order.driver != here()
    with contextlib.ExitStack() as stack:
        collector = _Collector()
        told_to_end = _never
        if lodger:
            told_to_end = stack.enter_context(deferred_termination())
            logging.root.addHandler(collector)
            stack.callback(logging.root.removeHandler, collector)
        try:
            with _guests().stay(order, lodger=lodger) as stay:
                outcome = TaskResult(report=stay.do(order, told_to_end))
        except _NoJobError:
            outcome = TaskResult(needs_job=True)
        except BaseException as error:
            # Executors differ in what they make of one that is no Exception.
            text = traceback.format_exc()
            plain = error if isinstance(error, Exception) else RuntimeError(repr(error))
            outcome = TaskResult(error=portable(plain), trace=text)
    with contextlib.suppress(pickle.PicklingError, TypeError):
        # Unless a record holds what cannot be sent.
        return packed(outcome._replace(records=tuple(collector.records)))
    return packed(outcome)


def packed(outcome: TaskResult) -> bytes:
    """Make an outcome ready to travel."""
    data: bytes = cloudpickle.dumps(outcome, protocol=pickle.HIGHEST_PROTOCOL)
    return data


def begin(order: Task) -> bool:
    """Note that this process begins an order; False where it was revoked."""
    return _guests().begin(order)


def revoke(token: str, numbers: list[int]) -> set[int]:
    """Have this process begin none of these orders; return those it has begun."""
    return _guests().revoke(token, numbers)


def release(token: str, seconds: float = 0.0) -> None:
    """Let go of what a session holds in this process; then wait, for others' turns."""
    _guests().release(token)
    time.sleep(seconds)


def _never() -> bool:
    return False


class _NoJobError(Exception):
    """The process does not have the job of the session yet."""


class _Stay:
    """The workers of one session in this process, one for each thread that asks."""

    def __init__(
        self, packed: bytes, level: int, keeper: _Keeper, *, lodger: bool
    ) -> None:
        try:
            errand: JobPackage = pickle.loads(packed)
        except (ImportError, AttributeError) as error:
            msg = (
                f"a worker on {platform.node()} cannot load the computation "
                f"({error}): install what it imports there, too"
            )
            raise RuntimeError(msg) from error
        for path, expected in errand.marks.items():
            _check_source(path, expected)
        self._job = errand.job
        self._workers: dict[int, tuple[Worker, TaskWriter]] = {}
        self._keeper = keeper
        self._level: int | None = None
        self.busy = 0
        self.last = 0.0
        if lodger:
            self._level = logging.root.level
            logging.root.setLevel(level)
            for name in machine.BLAS_VARIABLES:
                # For libraries that are loaded later, inside a computation.
                os.environ.setdefault(name, "1")

    def do(self, order: Task, told_to_end: Callable[[], bool]) -> Report:
        """Do a batch but for what an earlier attempt at it has committed."""
        worker, writer = self._worker()
        left = order.batch
        done = writer.done_already(left)
        if done.any():
            # The process that did this batch before has died before it could answer.
            empty = dataclasses.replace(left, bits=bytes(-(-len(done) // 8)), count=0)
            left = left.without(done) or empty
        deadline = time.monotonic() + order.seconds

        def stop() -> bool:
            return time.monotonic() > deadline or told_to_end()

        try:
            report = worker.do(left, stop)
        finally:
            writer.flush()
        return report._replace(
            batch=order.batch,
            done=report.done + order.batch.count - left.count,
            error=report.error and portable(report.error),
        )

    def _worker(self) -> tuple[Worker, TaskWriter]:
        """Return the worker of this thread: what setup() makes may belong to it."""
        key = threading.get_ident()
        if key not in self._workers:
            writer = TaskWriter(self._job.target, may_ship=self._job.may_ship)
            worker = Worker(
                self._job,
                # The process was there before: its memory is not the session's.
                own_process=False,
                writer=writer,
                one_thread=self._keeper.one_thread,
            )
            self._workers[key] = worker, writer
        return self._workers[key]

    def close(self) -> None:
        """Let go of everything."""
        while self._workers:
            _, (worker, _) = self._workers.popitem()
            worker.close()
        if self._level is not None:
            logging.root.setLevel(self._level)


class _Keeper:
    """Holds BLAS to one thread for all workers of this process, from one thread.

    Which thread sets the limit matters: another one can neither lift it nor set its
    own, and a worker is closed from another thread than the one that computes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = 0
        self._thread: ThreadPoolExecutor | None = None
        self._limits = contextlib.ExitStack()

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        """Hold it for the time of a block; also of libraries loaded since."""
        with self._lock:
            self._held += 1
            self._thread = self._thread or ThreadPoolExecutor(1, "resumable-blas")
            self._thread.submit(self._limit).result()
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1
                if not self._held:
                    self._thread.submit(self._limits.close).result()
                    self._thread.shutdown()
                    self._thread = None

    def _limit(self) -> None:
        self._limits.enter_context(machine.OneThread())


class _Guests:
    """Whoever stays in this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._stays: dict[str, _Stay] = {}
        # By session: orders that were begun, the last ones, and that must not be.
        self._begun: dict[str, collections.deque[int]] = {}
        self._revoked: dict[str, set[int]] = {}
        self._reaping = False
        self._keeper = _Keeper()

    def begin(self, order: Task) -> bool:
        """Note that an order is begun; False where it was revoked."""
        with self._lock:
            if order.number in self._revoked.get(order.token, ()):
                return False
            begun = self._begun.setdefault(
                order.token, collections.deque(maxlen=_REMEMBERED)
            )
            begun.append(order.number)
            return True

    def revoke(self, token: str, numbers: list[int]) -> set[int]:
        """Begin none of these orders any more; return those that were begun."""
        with self._lock:
            begun = set(numbers).intersection(self._begun.get(token, ()))
            self._revoked.setdefault(token, set()).update(set(numbers) - begun)
            return begun

    @contextlib.contextmanager
    def stay(self, order: Task, *, lodger: bool) -> Iterator[_Stay]:
        """Find or begin the stay of a session, at work for the time of a block."""
        with self._lock:
            stay = self._stays.get(order.token)
            if stay is None:
                if order.job is None:
                    raise _NoJobError
                stay = _Stay(order.job, order.level, self._keeper, lodger=lodger)
                self._stays[order.token] = stay
            stay.busy += 1
            if not self._reaping:
                self._reaping = True
                threading.Thread(
                    target=self._reap, name="resumable-idle", daemon=True
                ).start()
        try:
            yield stay
        finally:
            with self._lock:
                stay.busy -= 1
                stay.last = time.monotonic()

    def release(self, token: str) -> None:
        """End a stay where nothing of it is at work."""
        with self._lock:
            self._end([token])

    def _end(self, tokens: list[str]) -> None:
        for token in tokens:
            stay = self._stays.get(token)
            if stay is not None and stay.busy:
                continue
            self._begun.pop(token, None)
            self._revoked.pop(token, None)
            if stay is not None:
                del self._stays[token]
                stay.close()

    def _reap(self) -> None:
        """End the stays that are idle, until none is left."""
        while True:
            time.sleep(IDLE_S / 4)
            with self._lock:
                now = time.monotonic()
                self._end([t for t, s in self._stays.items() if now - s.last > IDLE_S])
                if not self._stays:
                    self._reaping = False
                    return


_present = _Guests()


def _guests() -> _Guests:
    """Return the guests of this process; a forked one has none yet."""
    global _present
    if _present.pid != os.getpid():
        _present = _Guests()
    return _present


class TaskWriter(RowBuffer):
    """Writes the rows of one task at a time; or keeps them, if it cannot.

    Parameters
    ----------
    target : WriteTarget or None
        None: the driver writes.
    may_ship : bool
        The driver writes what cannot be written here.
    """

    def __init__(self, target: WriteTarget | None, *, may_ship: bool) -> None:
        super().__init__()
        self._target = target
        self._may_ship = may_ship
        self._ships = target is None
        self._writer: RowWriter | None = None

    def write(
        self, start: int, done: Array, failed: Array, values: Mapping[str, Array]
    ) -> None:
        """Write the rows of a span of positions, or keep them."""
        if self._writer is None and not self._ships:
            self._open()
        if self._writer is None:
            super().write(start, done, failed, values)
        else:
            self._writer.write(start, done, failed, values)

    def _open(self) -> None:
        target = self._target
        assert target is not None
        if not self._sees(target):
            if not self._may_ship:
                msg = (
                    f"a worker on {platform.node()} sees no session at work on "
                    f"{target.path}: give a target= that all workers share, or "
                    "writer='driver'"
                )
                raise TargetError(msg)
            self._ships = True
            return
        try:
            self._writer = RowWriter(target)
        except PermissionError:
            if not self._may_ship:
                raise
            self._ships = True

    @staticmethod
    def _sees(target: WriteTarget) -> bool:
        """Return whether the file of that name here is the session's."""
        return target.token in LockFile(target.lock).read_text()

    def done_already(self, batch: Batch) -> Array:
        """Return which positions of a batch's span are marked done."""
        nothing = np.zeros(batch.stop - batch.start, bool)
        target = self._target
        if target is None or not self._sees(target):
            return nothing
        offset = target.header.offsets["completed_positions"] + batch.start
        with disk.opened(target.path, os.O_RDONLY) as fd:
            status = np.frombuffer(disk.read_at(fd, len(nothing), offset), np.uint8)
        done: Array = (status == 1) & batch.members()
        return done

    def flush(self) -> None:
        """Have everything committed, and let go of the run file and its locks."""
        writer, self._writer = self._writer, None
        self._ships = self._target is None
        if writer is not None:
            writer.close()

    close = flush


class _Collector(logging.Handler):
    """Keeps the log records of one task."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self.records: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record of this thread."""
        if record.thread == self._thread and len(self.records) < _MOST_RECORDS:
            try:
                self.records.append(plain_record(record))
            except Exception:
                self.handleError(record)
