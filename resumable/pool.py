"""A pool of worker processes, each holding objects that are called by name.

One mechanism for everything that needs processes: a worker keeps a dict of
objects, the parent sends it calls of their methods, one at a time, and takes the
answers as they come. There are no queues, no locks and no threads in the parent:
it blocks in one place, :meth:`Pool.wait`, on the pipes and on the processes.

``__main__`` is never imported again: objects travel by cloudpickle, so that scripts
without a guard and classes typed into a notebook work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing.connection
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from resumable import forks
from resumable.errors import WorkerDied
from resumable.launch import Child, start_child, start_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

#: Messages taken from one worker before the others are looked at: one that logs
#: without pause must not keep the answers of the others waiting.
_MESSAGES_AT_ONCE = 100
#: After its parent's end a worker has this long to end by itself, in seconds.
_GRACE_S = 0.5


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


class RemoteTraceback(Exception):
    """Text of the traceback in the worker."""

    def __str__(self) -> str:
        return "\n\nIn the worker:\n" + str(self.args[0])


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
        start_server(start_method)
        self._start_method = start_method
        # The server may have been started long ago, in another folder.
        setting = (sys.path, dict(os.environ), Path.cwd(), lowest_level())
        self._setting = pickle.dumps(setting)
        self._children = [self._start() for _ in range(workers)]

    def _start(self) -> Child:
        child = start_child(self._start_method)
        # One that has died shows in wait().
        with contextlib.suppress(OSError):
            child.connection.send_bytes(self._setting)
        return child

    def replace(self, worker: int) -> None:
        """Start a new process in the place of one that has died."""
        self._children[worker] = self._start()

    def pulse(self, worker: int) -> tuple[int, int]:
        """Return the two numbers a worker has written last, also after its end."""
        first, second = self._children[worker].pulse
        return first, second

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [child.pid for child in self._children]

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
        data = packed(message)
        # A worker that has died shows in wait().
        with contextlib.suppress(OSError):
            self._children[worker].connection.send_bytes(data)

    def wait(self, timeout: float | None = None) -> list[Answer | Death]:
        """Wait for answers; an empty list when none came in `timeout` seconds."""
        pipes = {
            child.connection: i
            for i, child in enumerate(self._children)
            if not child.connection.closed
        }
        events: list[Answer | Death] = []
        for pipe in multiprocessing.connection.wait(list(pipes), timeout):
            events += self._take(pipes[pipe])  # type: ignore[index]
        return events

    def _take(self, worker: int) -> list[Answer | Death]:
        """Take what a worker has sent; the end of its pipe is its death."""
        events: list[Answer | Death] = []
        child = self._children[worker]
        try:
            for _ in range(_MESSAGES_AT_ONCE):
                if not child.connection.poll(0):
                    break
                answer = self._read(worker, child.connection.recv_bytes())
                if answer is not None:
                    events.append(answer)
        except (EOFError, OSError):
            child.connection.close()
            events.append(Death(worker, child.exitcode()))
        return events

    def _read(self, worker: int, data: bytes) -> Answer | None:
        try:
            kind, *content = pickle.loads(data)
        except Exception as reason:
            # Whatever a user's class raises when it is made again.
            msg = f"an answer of a worker cannot be read: {reason!r}"
            return Answer(worker, None, RuntimeError(msg))
        if kind == "log":
            log_here(content[0])
            return None
        if kind == "value":
            return Answer(worker, content[0], None)
        error, text = content
        error.__cause__ = RemoteTraceback(text)
        return Answer(worker, None, error)

    def kill(self, worker: int) -> None:
        """End a worker at once; its death shows in :meth:`wait`."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._children[worker].pid, signal.SIGKILL)

    def close(self, patience: float = 2.0) -> None:
        """End the workers: by hanging up, then by force."""
        left = [child for child in self._children if not child.connection.closed]
        deadline = time.monotonic() + patience
        for child in left:
            # Our half only, so that the worker's end still shows.
            with socket.socket(fileno=os.dup(child.connection.fileno())) as ours:
                ours.shutdown(socket.SHUT_WR)
        for child in left:
            with contextlib.suppress(EOFError, OSError):
                while child.connection.poll(max(0.0, deadline - time.monotonic())):
                    child.connection.recv_bytes()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
            child.connection.close()
            child.exitcode()


def packed(message: Any) -> bytes:
    """Return an object as bytes that can be sent to a worker.

    Raises
    ------
    TypeError
        It holds what cannot be sent.
    """
    try:
        data: bytes = cloudpickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        msg = (
            f"the computation cannot be sent to a worker process ({error}); open "
            "files, locks and models in setup(), which runs in every worker, or "
            "use engine='serial'"
        )
        raise TypeError(msg) from error
    return data


def lowest_level() -> int:
    """Lowest level that any logger here lets through; it is filtered here again."""
    loggers = logging.root.manager.loggerDict.values()
    levels = [item.level for item in loggers if isinstance(item, logging.Logger)]
    return min([logging.root.level, *(level for level in levels if level)])


class Line:
    """A worker's end of the pipe to its parent.

    Attributes
    ----------
    pulse : memoryview of two int64
        Memory whose contents the parent sees, see :meth:`Pool.pulse`.
    """

    def __init__(self, connection: Connection, pulse: memoryview) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.pulse = pulse
        forks.let_go_in_copies(self)

    def abandon(self) -> None:
        """Close the pipe in a copy of this process."""
        with contextlib.suppress(OSError):
            self._connection.close()

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


def plain_record(record: logging.LogRecord) -> dict[str, Any]:
    """Return a log record as something to send, its arguments put into the text."""
    plain = {**record.__dict__, "msg": record.getMessage(), "args": None}
    if record.exc_info:
        plain["exc_text"] = logging.Formatter().formatException(record.exc_info)
        plain["exc_info"] = None
    return plain


def log_here(plain: dict[str, Any]) -> None:
    """Hand a record that was sent to the logger of its name, as its level says."""
    record = logging.makeLogRecord(plain)
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        target.handle(record)


class _LineHandler(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            self._line.send("log", plain_record(record))
        except (pickle.PicklingError, TypeError):
            self.handleError(record)


def serve(connection: Connection, pulse: memoryview) -> None:
    """Run a worker: take messages until the parent is gone.

    The first message says how the parent is set up.
    """
    sys.path[:], environment, folder, level = pickle.loads(connection.recv_bytes())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    threading.Thread(
        target=_watch, args=(connection,), name="resumable-watch", daemon=True
    ).start()
    line = Line(connection, pulse)
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
            line.send("value", _obey(message, objects, line))
        except Exception as error:
            _send_error(line, error)
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


def _watch(connection: Connection) -> None:
    """End this process when its parent is gone, even in the middle of a call.

    The kernel tells of the other end's hang-up whether or not messages wait.
    """
    poll = select.poll()
    # Hang-ups are reported without being asked for; nothing else is wanted.
    poll.register(connection.fileno(), 0)
    poll.poll()
    # A parent that is there, and only closing its pool, waits this long.
    time.sleep(_GRACE_S)
    os._exit(1)


def cause_of(event: Death) -> tuple[str, str]:
    """Say in words how a worker ended: the cause, and what it may mean."""
    code = event.exitcode
    if code is None or code >= 0:
        return f"exit code {code}", ""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    if code == -signal.SIGKILL:
        return (
            f"signal {name}",
            "the system may have been out of memory: give a smaller memory=",
        )
    return f"signal {name}", ""


def died(event: Death, doing: str) -> WorkerDied:
    """Make the error for a worker that ended by itself."""
    cause, message = cause_of(event)
    advice = f"; {message}" if message else ""
    msg = f"a worker process ended with {cause} {doing}{advice}"
    return WorkerDied(msg, event.exitcode)
