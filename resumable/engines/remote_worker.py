"""Workers in the processes of an executor, which belong to the user's program.

An executor calls one function at a time, in whatever process it likes, and says
neither when a session begins nor when it ends. So the worker of a session stays in
the process from task to task: the first task makes it, and it is closed when the
session says so or when no task has come for a while.

Between tasks a worker holds nothing that others could wait for: a task opens the run
file, commits everything and closes the file before it returns its report. So the rows
of a report are on the disk, and the process can vanish after it without loss.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import pickle
import platform
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle
import numpy as np

from resumable.errors import SourceError, TargetError, option
from resumable.runfile import RowBuffer, RowWriter, WriteTarget, digest_of
from resumable.system import LockFile, OneThread, deferred_termination, disk
from resumable.worker import Job, Report, Worker, plain_record, portable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from resumable.model import Batch

    Array = np.ndarray[Any, np.dtype[Any]]

#: A worker without tasks for this time closes its source and gives its memory back.
IDLE_S = 5.0
#: Tasks that a process remembers to have begun: many more than are in flight to it.
_REMEMBERED = 1000
#: Log records of a task that are sent to the driver.
_MOST_RECORDS = 10_000


class Task(NamedTuple):
    """What one call in a process of the executor has to do. Sent each time: small."""

    token: str  # of the session
    number: int  # of the task in the session
    batch: Batch
    seconds: float  # then the task ends, with the position that is at work
    driver: tuple[str, int]  # host and process number
    level: int  # the lowest of log records that the driver wants
    job: bytes | None = None  # pickled JobPackage, where the process may not have it


class JobPackage(NamedTuple):
    """The job of a session; all paths are absolute."""

    job: Job
    sources: Mapping[str, FileNumbers]  # by path


class TaskResult(NamedTuple):
    """What became of a task; all fields are empty where it was revoked."""

    report: Report | None = None
    needs_job: bool = False  # nothing was done: the process does not have the job yet
    error: Exception | None = None  # raised outside of the computation of a position
    trace: str = ""  # its traceback
    records: tuple[dict[str, Any], ...] = ()  # log records


class _NoJobError(Exception):
    """The process does not have the job of the session yet."""


def do(task: Task) -> bytes:
    """Do the batch of a task; return the pickled :class:`TaskResult`.

    Pickled here, because the executor's own way cannot send what is defined in a
    script or a notebook.
    """
    if not _cache().begin(task):
        return cloudpickle.dumps(TaskResult())  # type: ignore[no-any-return]
    with contextlib.ExitStack() as stack:
        collector = _RecordCollector()
        must_end: Callable[[], bool] = bool  # never
        if task.driver != this_process():
            must_end = stack.enter_context(deferred_termination())
            logging.root.addHandler(collector)
            stack.callback(logging.root.removeHandler, collector)
        try:
            with _cache().workers_of(task) as workers:
                result = TaskResult(report=workers.do(task, must_end))
        except _NoJobError:
            result = TaskResult(needs_job=True)
        except BaseException as error:
            # Executors differ in what they make of one that is no Exception.
            text = traceback.format_exc()
            plain = error if isinstance(error, Exception) else RuntimeError(repr(error))
            result = TaskResult(error=portable(plain), trace=text)
    data: bytes
    try:
        data = cloudpickle.dumps(result._replace(records=tuple(collector.records)))
    except (pickle.PicklingError, TypeError):
        data = cloudpickle.dumps(result)  # a record holds what cannot be sent
    return data


def revoke(token: str, numbers: list[int]) -> set[int]:
    """Begin none of these tasks from now on; return those that were begun here."""
    return _cache().revoke(token, numbers)


def release(token: str, seconds: float = 0.0) -> list[str]:
    """Close what a session holds in this process; return what it has changed.

    Then wait, so that the executor gives the same call to its other processes.
    """
    changed = _cache().release(token)
    time.sleep(seconds)
    return changed


@contextlib.contextmanager
def lent(token: str, package: JobPackage) -> Iterator[None]:
    """Give a session's job to threads of this process as it is, not pickled.

    cloudpickle would put copies of the methods into the class of a script or a
    notebook, and these do not see what is assigned to a global variable afterwards.
    """
    _cache().lent[token] = package
    try:
        yield
    finally:
        _cache().lent.pop(token, None)


def this_process() -> tuple[str, int]:
    """Return host and number of this process."""
    return platform.node(), os.getpid()


class FileNumbers(NamedTuple):
    """What tells on another host whether a file is the one that the driver has."""

    inode: int  # which some file systems make up on every host
    size: int
    changed: int  # in whole seconds
    contents: str  # digest, where the time may be another though nobody has edited it

    @classmethod
    def of(cls, path: str) -> FileNumbers:
        """Look at a file; on NFS, FUSE and the like up to 64 MB of it are read."""
        stat = Path(path).stat()
        contents = _digest(path) if disk.incoherent(Path(path)) else ""
        return cls(stat.st_ino, stat.st_size, int(stat.st_mtime), contents)

    def are_of(self, path: str) -> bool:
        """Return whether a file of this host is the driver's, or a copy of it."""
        stat = Path(path).stat()
        # Size and time change while the file is written to.
        if stat.st_ino == self.inode:
            return True
        if stat.st_size != self.size:
            return False
        same_time = int(stat.st_mtime) == self.changed
        return same_time or (self.contents != "" and _digest(path) == self.contents)


def _digest(path: str) -> str:
    """sha256 of a file, whole up to 64 MB, and of 64 places of 256 kB beyond."""
    with disk.opened(Path(path), os.O_RDONLY) as fd:
        size, place = os.fstat(fd).st_size, 256 << 10
        if size <= 64 << 20:
            return digest_of(fd, [(0, size)])
        begins = np.linspace(0, size - place, 64).astype(int).tolist()
        return digest_of(fd, [(begin, begin + place) for begin in begins])


def _unpickled(task: Task) -> JobPackage:
    if task.job is None:
        raise _NoJobError
    try:
        package: JobPackage = pickle.loads(task.job)
    except (ImportError, AttributeError) as error:
        msg = (
            f"a worker on {platform.node()} cannot load the computation "
            f"({error}): install what it imports there, too"
        )
        raise RuntimeError(msg) from error
    return package


class _SessionWorkers:
    """The workers of one session in this process, one for each thread with tasks."""

    def __init__(
        self, task: Task, blas_limit: BlasLimit, package: JobPackage | None
    ) -> None:
        package = package or _unpickled(task)
        for path, expected in package.sources.items():
            with contextlib.suppress(OSError):
                if expected.are_of(path):
                    continue
            msg = (
                f"a worker on {platform.node()} does not see the source {path} as the "
                "driver does: put it where all workers find it under the same absolute "
                "path, or compute with the engine 'local'"
            )
            raise SourceError(msg)
        self._job = package.job
        self._workers: dict[int, tuple[Worker, TaskWriter]] = {}
        self._blas_limit, self._open = blas_limit, contextlib.ExitStack()
        self._open.enter_context(blas_limit.one_thread())
        #: Tasks at work, and when the last one ended.
        self.busy, self.last = 0, 0.0
        if task.driver != this_process():
            self._open.enter_context(log_level.at_most(task.level))

    def do(self, task: Task, must_end: Callable[[], bool]) -> Report:
        """Do a batch but for what an earlier attempt at it has committed."""
        # Of this thread's own libraries, which give it their threads back.
        self._blas_limit.again()
        with OneThread():
            return self._do(task, must_end)

    def _do(self, task: Task, must_end: Callable[[], bool]) -> Report:
        # One for each thread: what setup() makes may belong to it.
        key = threading.get_ident()
        if key not in self._workers:
            writer = TaskWriter(self._job.target, may_ship=self._job.may_ship)
            worker = Worker(
                self._job,
                # The process was there before: its memory is not the session's.
                own_process=False,
                writer=writer,
                holds_threads=False,
                number=_cache().number_of(task.token).get,
            )
            self._workers[key] = worker, writer
        worker, writer = self._workers[key]
        left = task.batch
        done = writer.done_already(left)
        if done.any():
            # The process that did this batch before has died before it could answer.
            empty = dataclasses.replace(left, bits=bytes(-(-len(done) // 8)), count=0)
            left = left.without(done) or empty
        deadline = time.monotonic() + task.seconds

        def stop() -> bool:
            return time.monotonic() > deadline or must_end()

        try:
            report = worker.do(left, stop)
        finally:
            writer.flush()
        done_before = task.batch.count - left.count
        return report.sendable()._replace(
            batch=task.batch, done=report.done + done_before
        )

    def close(self) -> list[str]:
        """Close the workers, and give the logger its level back.

        Returns what the computation has changed in this process's copy of the Process.
        """
        changed: list[str] = []
        while self._workers:
            _, (worker, _) = self._workers.popitem()
            changed += worker.close()
        self._open.close()
        return changed


class WorkerCache:
    """The workers that a process of an executor keeps from task to task."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.RLock()
        self._sessions: dict[str, _SessionWorkers] = {}
        #: By session: the job, where the driver is this process.
        self.lent: dict[str, JobPackage] = {}
        # By session: the numbers of the last tasks that were begun, and of those that
        # must not be.
        self._begun: dict[str, collections.deque[int]] = {}
        self._revoked: dict[str, set[int]] = {}
        self._watches_idle = False
        self._blas_limit = BlasLimit()
        #: By session: what workers that were closed while idle have changed.
        self._changed: dict[str, list[str]] = {}
        #: By session and thread.
        self._numbers: dict[tuple[str, int], NumberOnHost] = {}

    def begin(self, task: Task) -> bool:
        """Note that a task is begun; False where it was revoked."""
        with self._lock:
            if task.number in self._revoked.get(task.token, ()):
                return False
            begun = self._begun.setdefault(
                task.token, collections.deque(maxlen=_REMEMBERED)
            )
            begun.append(task.number)
            return True

    def revoke(self, token: str, numbers: list[int]) -> set[int]:
        """Begin none of these tasks any more; return those that were begun."""
        with self._lock:
            begun = set(numbers).intersection(self._begun.get(token, ()))
            self._revoked.setdefault(token, set()).update(set(numbers) - begun)
            return begun

    @contextlib.contextmanager
    def workers_of(self, task: Task) -> Iterator[_SessionWorkers]:
        """Return the workers of a task's session, busy for the time of a block."""
        with self._lock:
            workers = self._sessions.get(task.token)
            if workers is None:
                package = self.lent.get(task.token)
                workers = _SessionWorkers(task, self._blas_limit, package)
                self._sessions[task.token] = workers
            workers.busy += 1
            if not self._watches_idle:
                self._watches_idle = True
                threading.Thread(
                    target=self._close_idle, name="resumable-idle", daemon=True
                ).start()
        try:
            yield workers
        finally:
            with self._lock:
                workers.busy -= 1
                workers.last = time.monotonic()

    def number_of(self, token: str) -> NumberOnHost:
        """Return the number of this thread's worker of a session, also a later one."""
        with self._lock:
            key = token, threading.get_ident()
            return self._numbers.setdefault(key, NumberOnHost(token))

    def release(self, token: str, *, idle: bool = False) -> list[str]:
        """Close the workers of a session, where none of its tasks is at work.

        Where it is only `idle`, another task may come, whose worker has the number.
        Returns what the computation has changed in this process, up to now.
        """
        with self._lock:
            workers = self._sessions.get(token)
            if workers is not None and workers.busy:
                return []
            for key in [key for key in self._numbers if key[0] == token and not idle]:
                self._numbers.pop(key).release()
            self._begun.pop(token, None)
            self._revoked.pop(token, None)
            changed = self._changed.pop(token, [])
            if workers is not None:
                del self._sessions[token]
                changed += workers.close()
            if idle and changed:
                self._changed[token] = changed
            return changed

    def _close_idle(self) -> None:
        """Close the workers of sessions that are idle, until none is left."""
        while True:
            time.sleep(IDLE_S / 4)
            with self._lock:
                earliest = time.monotonic() - IDLE_S
                for token, workers in list(self._sessions.items()):
                    if workers.last < earliest:
                        self.release(token, idle=True)
                if not self._sessions:
                    self._watches_idle = False
                    return


class NumberOnHost:
    """The number of a worker among those of a session on this host.

    Nothing tells one process of an executor from another, so each takes the first lock
    that is free. A process that ends gives it back.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._number = 0
        self._lock: LockFile | None = None

    def get(self) -> int:
        """Return the number, taken when it is asked for first."""
        while self._lock is None:
            folder = Path(tempfile.gettempdir())
            lock = LockFile(folder / f"resumable-{self._token}-{self._number}.lock")
            if lock.acquire(exclusive=True):
                self._lock = lock
            else:
                self._number += 1
        return self._number

    def release(self) -> None:
        """Give the number back."""
        if self._lock is not None:
            self._lock.release(remove=True)


class BlasLimit:
    """Limits BLAS to one thread for all sessions of this process, from one thread.

    Which thread sets the limit matters: another one can neither lift it nor set its
    own, and a worker is closed from another thread than the one that computes. Where
    a library has a number for each thread, that of a task is limited there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thread = ThreadPoolExecutor(1, "resumable-blas")
        self._limit = OneThread()

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        """Limit it for the time of a block."""
        with self._lock:
            if not self._users:
                self._thread = ThreadPoolExecutor(1, "resumable-blas")
                self._thread.submit(self._limit.__enter__).result()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._thread.submit(self._limit.__exit__).result()
                    self._thread.shutdown()

    def again(self) -> None:
        """Limit libraries that were loaded since, within such a block."""
        self._thread.submit(self._limit.again).result()


class LogLevel:
    """Has the root logger pass on what the drivers of all sessions here want.

    A session may be closed long after the next one has begun: where its end is not told
    in time, as it is on a busy host, it is closed when it was idle for `IDLE_S`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: list[int] = []
        self._before = logging.NOTSET

    @contextlib.contextmanager
    def at_most(self, level: int) -> Iterator[None]:
        """Pass records of this level on for the time of a block."""
        with self._lock:
            if not self._wanted:
                self._before = logging.root.level
            self._wanted.append(level)
            logging.root.setLevel(min(self._wanted))
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(level)
                logging.root.setLevel(min(self._wanted, default=self._before))


#: Of this process, as its loggers are.
log_level = LogLevel()


class TaskWriter(RowBuffer):
    """Writes the rows of one task at a time, or keeps them for the driver.

    It keeps them where there is no target, and with `may_ship` where the target cannot
    be written here.
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
        if self._sees(target):
            try:
                self._writer = RowWriter(target)
            except PermissionError:
                if not self._may_ship:
                    raise
        elif not self._may_ship:
            msg = (
                f"a worker on {platform.node()} sees no session at work on "
                f"{target.path}: give a {option('target')} that all workers "
                f"share, or {option('writer', 'driver')}"
            )
            raise TargetError(msg)
        self._ships = self._writer is None

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
        """Commit everything, and close the run file and its locks."""
        writer, self._writer = self._writer, None
        self._ships = self._target is None
        if writer is not None:
            writer.close()

    close = flush


class _RecordCollector(logging.Handler):
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


_the_cache = WorkerCache()


def _cache() -> WorkerCache:
    """Return the cache of this process; a forked one has a new one."""
    global _the_cache
    if _the_cache.pid != os.getpid():
        _the_cache = WorkerCache()
    return _the_cache
