"""A pool of worker processes, each holding objects that are called by name.

One mechanism for everything that needs processes: a worker keeps a dict of
objects, the parent sends it calls of their methods, one at a time, and takes the
answers as they come. There are no queues, no locks and no threads in the parent:
it blocks in one place, :meth:`Pool.wait`, on the pipes and on the processes.

Workers are forked from a server process that has imported this library and
nothing of the user's (``forkserver``), or started afresh (``spawn``). ``__main__``
is never imported again: objects travel by cloudpickle, so that scripts without a
guard and classes typed into a notebook work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import pickle
import signal
import sys
import threading
import traceback
import types
from typing import TYPE_CHECKING, Any

import cloudpickle

from resumable.errors import PlanError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

logger = logging.getLogger("resumable")

#: How workers may be started. fork is not among them: HDF5, threads and BLAS do
#: not survive it.
START_METHODS = ("forkserver", "spawn")
_PRELOADED = ["resumable.batch"]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A call of a worker's method has ended."""

    worker: int
    """Which worker."""
    value: Any
    """What the method returned."""
    error: Exception | None
    """What it raised, with the worker's traceback as its cause."""


@dataclasses.dataclass(frozen=True, slots=True)
class Death:
    """A worker process has ended by itself."""

    worker: int
    """Which worker."""
    exitcode: int | None
    """Its exit code, negative for a signal."""


class _RemoteTraceback(Exception):
    """Text of the traceback in the worker."""

    def __str__(self) -> str:
        return "\n\nIn the worker:\n" + str(self.args[0])


def start_server(start_method: str) -> None:
    """Begin to start the server that workers are forked from; does not wait.

    Called as early as workers are sure to be needed, so that the imports of the
    server go on while the caller does something else.
    """
    if start_method != "forkserver":
        return
    # Only when the user has not started it with modules of her own.
    multiprocessing.forkserver.set_forkserver_preload(_PRELOADED)
    with _main_hidden():
        multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep multiprocessing from importing the user's script in every worker."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Pool:
    """Worker processes that hold objects and answer calls of their methods.

    Parameters
    ----------
    workers : int
        How many.
    start_method : {"forkserver", "spawn"}
        How they are started.

    Notes
    -----
    Workers ignore Ctrl-C, die with their parent however it dies, and send their
    log records to the parent's loggers. A context manager: leaving it ends them.
    """

    def __init__(self, workers: int, start_method: str = "forkserver") -> None:
        if start_method not in START_METHODS:
            msg = f"start_method must be one of {START_METHODS}, not {start_method!r}"
            raise PlanError(msg)
        self._start_method = start_method
        self._context: Any = multiprocessing.get_context(start_method)
        start_server(start_method)
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(workers):
            self._add()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [process.pid for process in self._processes]

    def _add(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, logging.root.getEffectiveLevel(), self._start_method),
            daemon=True,
            name=f"resumable-worker-{len(self._pipes)}",
        )
        with _main_hidden():
            process.start()
        # Ours alone keeps the pipe open, so that a worker's end shows as its end.
        theirs.close()
        self._pipes.append(ours)
        self._processes.append(process)

    def send(self, worker: int, key: str, method: str, *args: Any) -> None:
        """Have a worker call ``objects[key].method(*args)``; does not wait.

        A worker that has an unanswered call learns that something has come (see
        :class:`Line`), and takes it up when that call has ended.
        """
        self._transmit(worker, ("call", key, method, args))

    def place(
        self, worker: int, key: str, factory: Callable[..., Any], *args: Any
    ) -> None:
        """Have a worker keep ``factory(line, *args)`` as an object; does not wait.

        Parameters
        ----------
        worker : int
        key : str
        factory : callable
            Takes the :class:`Line` to the parent, then `args`.
        """
        self._transmit(worker, ("place", key, factory, args))

    def nudge(self, worker: int) -> None:
        """Ask a worker to end its present call early."""
        self._transmit(worker, ("nudge",))

    def _transmit(self, worker: int, message: tuple[Any, ...]) -> None:
        try:
            data = cloudpickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
            msg = (
                f"the computation cannot be sent to a worker process ({error}); open "
                "files, locks and models in setup(), which runs in every worker, or "
                "use engine='serial'"
            )
            raise TypeError(msg) from error
        # A worker that has died shows in wait().
        with contextlib.suppress(OSError):
            self._pipes[worker].send_bytes(data)

    def wait(self, timeout: float | None = None) -> list[Answer | Death]:
        """Wait for answers; an empty list when none came in `timeout` seconds."""
        pipes = {pipe: i for i, pipe in enumerate(self._pipes) if not pipe.closed}
        sentinels = {self._processes[i].sentinel: i for i in pipes.values()}
        ready = multiprocessing.connection.wait([*pipes, *sentinels], timeout)
        events: list[Answer | Death] = []
        for pipe, worker in pipes.items():
            if pipe in ready:
                events += self._take(worker)
        for sentinel, worker in sentinels.items():
            if sentinel in ready:
                events += self._take(worker)
                self._pipes[worker].close()
                self._processes[worker].join()
                events.append(Death(worker, self._processes[worker].exitcode))
        return events

    def _take(self, worker: int) -> list[Answer | Death]:
        """Take all that a worker has sent."""
        events: list[Answer | Death] = []
        pipe = self._pipes[worker]
        with contextlib.suppress(EOFError, OSError):
            while pipe.poll(0):
                kind, *content = pickle.loads(pipe.recv_bytes())
                if kind == "log":
                    record = logging.makeLogRecord(content[0])
                    target = logging.getLogger(record.name)
                    if target.isEnabledFor(record.levelno):
                        target.handle(record)
                elif kind == "value":
                    events.append(Answer(worker, content[0], None))
                else:
                    error, text = content
                    error.__cause__ = _RemoteTraceback(text)
                    events.append(Answer(worker, None, error))
        return events

    def close(self, patience: float = 2.0) -> None:
        """End the workers: by closing their pipes, then by force."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(patience)
            if process.exitcode is None:
                process.kill()
                process.join()


class Line:
    """A worker's end of the pipe to its parent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def pending(self) -> bool:
        """Return whether the parent has sent something during the present call."""
        try:
            return self._connection.poll(0)
        except (OSError, EOFError):
            return True

    def receive(self) -> tuple[Any, ...]:
        """Wait for the next message.

        Raises
        ------
        EOFError
            The parent has closed the pipe, or is gone.
        """
        message: tuple[Any, ...] = pickle.loads(self._connection.recv_bytes())
        return message

    def send(self, *message: Any) -> None:
        """Send a message; from any thread."""
        data = cloudpickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        with self._lock, contextlib.suppress(OSError):
            self._connection.send_bytes(data)


class _LineHandler(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, its arguments already put into the text."""
        plain = {**record.__dict__, "msg": record.getMessage(), "args": None}
        if record.exc_info:
            plain["exc_text"] = logging.Formatter().formatException(record.exc_info)
            plain["exc_info"] = None
        try:
            self._line.send("log", plain)
        except (pickle.PicklingError, TypeError):
            self.handleError(record)


def _serve(connection: Connection, level: int, start_method: str) -> None:
    """Run a worker: take messages until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(start_method)
    line = Line(connection)
    logging.root.handlers[:] = [_LineHandler(line)]
    logging.root.setLevel(level)
    objects: dict[str, Any] = {}
    while True:
        try:
            message = line.receive()
        except (EOFError, OSError):
            break
        except Exception as error:
            _send_error(line, error)
            continue
        if message[0] == "nudge":
            continue
        try:
            value = _obey(message, objects, line)
        except Exception as error:
            _send_error(line, error)
        else:
            line.send("value", value)
    for thing in objects.values():
        with contextlib.suppress(Exception):
            thing.close()


def _obey(message: tuple[Any, ...], objects: dict[str, Any], line: Line) -> Any:
    if message[0] == "place":
        _, key, factory, args = message
        objects[key] = factory(line, *args)
        return key
    _, key, method, args = message
    return getattr(objects[key], method)(*args)


def _send_error(line: Line, error: Exception) -> None:
    line.send("error", portable(error), traceback.format_exc())


def portable(error: Exception) -> Exception:
    """Return an exception that survives being pickled: itself, or its text."""
    try:
        again = pickle.loads(cloudpickle.dumps(error))
        if type(again) is type(error):
            return error
    except Exception:
        pass
    return RuntimeError(f"{type(error).__qualname__}: {error}")


def _die_with_parent(start_method: str) -> None:
    """End this process when its parent ends, however that happens.

    Two nets: a thread that waits for the parent's sentinel, and on Linux the
    kernel's own signal, which also reaches a worker whose computation holds the
    interpreter. The latter is sent when the *thread* that made us ends, which for
    a forked worker is the server's only one, which ends with the parent; a spawned
    worker's may be any of the user's, so it relies on the first.
    """
    if start_method == "forkserver" and sys.platform == "linux":
        import ctypes

        parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None:  # pragma: no cover - never so in a worker
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="resumable-watch", daemon=True).start()


def died(event: Death, doing: str) -> WorkerDied:
    """Make the error for a worker that ended by itself."""
    code = event.exitcode
    how = f"exit code {code}"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            how = f"signal {signal.Signals(-code).name}"
    text = io.StringIO()
    text.write(f"a worker process ended with {how} {doing}")
    if code == -signal.SIGKILL:
        text.write("; the system may have been out of memory: give a smaller memory=")
    return WorkerDied(text.getvalue(), code)
