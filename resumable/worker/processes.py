"""Worker processes, each holding objects that are called by name.

::

    parent                                    worker (serving.serve)
    create(worker, key, factory)  -------->   objects[key] = factory(...)
    send(worker, key, method, args) ------>   objects[key].method(*args)
    wait() --> Answer  <-------------------   what it returned or raised, log records
           `-> Death   <-------------------   its end of the pipe is closed

A worker does one call at a time. The parent has no threads: it waits in one place, for
all pipes at once. Answers to :meth:`~WorkerProcesses.start_calls` go to their
:class:`Call`. Objects are pickled by cloudpickle and a worker does not import
``__main__``, so that scripts without a guard and classes in a notebook work.
"""

from __future__ import annotations

import collections
import contextlib
import mmap
import os
import pickle
import signal
import socket
import sys
import time
import weakref
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from resumable.errors import PlanError
from resumable.model import check_choice, check_whole
from resumable.system import Uninterrupted, forks, unnamed_file, usable_cores
from resumable.worker.call import (
    Answer,
    Call,
    Death,
    RemoteTraceback,
    death_error,
    log_here,
    lowest_level,
)
from resumable.worker.cursor import shared_progress_words
from resumable.worker.server import START_METHODS, WorkerServer, start_server
from resumable.worker.settings import settings_here
from resumable.worker.transport import (
    Arrays,
    Channel,
    Received,
    SendBuffer,
    Unsendable,
    computation_not_sent,
    packed,
    readable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Messages taken from one worker before the others are looked at: one that logs
#: without pause must not keep the answers of the others waiting.
_MESSAGES_AT_ONCE = 100


class _Process:
    """A worker process, the channel to it and its unanswered calls."""

    def __init__(self, start_method: str, buffer: SendBuffer) -> None:
        self.server = WorkerServer.get(start_method)
        ours, theirs = socket.socketpair()
        with ours, theirs, unnamed_file() as shared:
            shared.truncate(mmap.PAGESIZE)
            # Readable also after its end.
            self.progress_words = shared_progress_words(shared.fileno())
            self.pid = self.server.start(theirs.fileno(), shared.fileno())
            self.connection = Connection(ours.detach())
        self.channel = Channel(self.connection, buffer)
        self.unanswered: collections.deque[Call | None] = collections.deque()

    @property
    def alive(self) -> bool:
        """Whether its death has not been noticed."""
        return not self.connection.closed

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end_calls(self, error: Exception) -> None:
        for call in filter(None, self.unanswered):
            call.end(None, error)
        self.unanswered.clear()


class WorkerProcesses:
    """Worker processes that are kept, and the calls they have not answered yet."""

    def __init__(
        self, workers: int | None = None, *, start_method: str | None = None
    ) -> None:
        if start_method is None:
            start_method = forks.start_method()
        count = usable_cores() if workers is None else workers
        check_whole(PlanError, "workers", count)
        check_choice(PlanError, "start_method", start_method, START_METHODS)
        self._start_method = start_method
        self._buffer = SendBuffer()
        self._dropped: list[str] = []
        self._closed = False
        self._setting = b""
        self._processes: list[_Process] = []
        self._end = weakref.finalize(self, _kill_all, self._processes)
        if count and not forks.POSSIBLE:
            msg = (
                "worker processes are forked, which this system cannot do; with "
                "workers=0 this process computes, or use the standard library's "
                "concurrent.futures.ProcessPoolExecutor"
            )
            raise PlanError(msg)
        if count:
            start_server(start_method)
            # The server may have been started in another folder, with other variables.
            setting = (sys.path, dict(os.environ), Path.cwd(), lowest_level())
            self._setting = pickle.dumps((*setting, packed(settings_here())))
        forks.holders.add(self)
        for _ in range(count):
            self._processes.append(self._start())

    def _start(self) -> _Process:
        process = _Process(self._start_method, self._buffer)
        # Its death is noticed in wait().
        with contextlib.suppress(OSError):
            process.connection.send_bytes(self._setting)
        return process

    def replace(self, worker: int) -> None:
        """Start a new process in the place of one that has died."""
        self._processes[worker] = self._start()

    def close_in_child(self) -> None:
        """Close the pipes in a child process made by os.fork."""
        for process in self._processes:
            process.connection.close()

    def progress_words(self, worker: int) -> tuple[int, int]:
        """Return first position of the block and row at work, also after its end."""
        first, second = self._processes[worker].progress_words
        return first, second

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [process.pid for process in self._processes]

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.workers} workers"
        return f"<{type(self).__name__}: {state}>"

    @property
    def workers(self) -> int:
        """How many worker processes there are."""
        return len(self._processes)

    def _check_open(self) -> None:
        if self._closed:
            msg = "the pool is closed and has no workers; make a new one"
            raise RuntimeError(msg)

    def send(self, worker: int, key: str, method: str, *args: Any) -> None:
        """Have a worker call ``objects[key].method(*args)``; does not wait.

        The call at work there can find out that something has come (see
        :meth:`ParentConnection.pending`); this one begins after it.
        """
        self._send_one(worker, ("call", key, method, args))

    def create(
        self, worker: int, key: str, factory: Callable[..., Any], *args: Any
    ) -> None:
        """Have a worker keep ``factory(parent_connection, *args)``; does not wait."""
        self._send_one(worker, ("create", key, factory, args))

    def ask_to_stop(self, worker: int) -> None:
        """Ask a worker to end its present call early; there is no answer."""
        self._send_one(worker, ("stop",))

    def _send_one(self, worker: int, message: tuple[Any, ...]) -> None:
        try:
            self._send([worker], message, [None])
        except Unsendable as error:
            raise computation_not_sent(error) from error

    def start_calls(
        self,
        workers: Sequence[int],
        message: tuple[Any, ...],
        doing: str,
        *,
        arguments: Arrays = "copies",
        results: Arrays = "copies",
    ) -> list[Call]:
        """Send the same message to workers; return their calls, without waiting.

        A message is ``("call", key, method, args)`` or ``("create", key, factory,
        args)``. TypeError: it cannot be sent, and was not. RuntimeError: the pool is
        closed.
        """
        self._check_open()
        calls = [Call(doing, results) for _ in workers]
        try:
            self._send(workers, message, calls, arguments)
        except Unsendable as error:
            msg = (
                f"what a worker process needs {doing} cannot be sent to it ({error}); "
                "open files and locks inside the function, or use workers=0"
            )
            raise TypeError(msg) from error
        return calls

    def _send(
        self,
        workers: Sequence[int],
        content: tuple[Any, ...],
        calls: Sequence[Call | None],
        arguments: Arrays = "copies",
    ) -> None:
        with Uninterrupted():
            processes = [self._processes[worker] for worker in workers]
            message = self._buffer.pack(content, {p.channel for p in processes})
            keys = []
            while self._dropped:
                keys.append(self._dropped.pop())
            if keys:
                alive = [process for process in self._processes if process.alive]
                dropping = self._buffer.pack(("drop", keys), {p.channel for p in alive})
                for process in alive:
                    with contextlib.suppress(OSError):
                        process.channel.send(dropping)
            for process, call in zip(processes, calls, strict=True):
                if content[0] != "stop":
                    process.unanswered.append(call)
                # A death is noticed in wait().
                with contextlib.suppress(OSError):
                    process.channel.send(message, arguments)

    def drop(self, key: str) -> None:
        """Have the workers drop an object, before the next message; from any thread."""
        self._dropped.append(key)

    def free_memory(self) -> None:
        """Free shared memory that is not in use."""
        self._buffer.free_unused()

    def unanswered(self, worker: int) -> int:
        """Return how many calls of a worker are unanswered."""
        return len(self._processes[worker].unanswered)

    def process_token(self, worker: int) -> object:
        """Return an object that stands for a worker's process; replace a dead one."""
        if not self._processes[worker].alive:
            self.replace(worker)
        return self._processes[worker]

    def still_has(self, worker: int, token: object) -> bool:
        """Return whether a worker is still the process of a token, and alive."""
        return self._processes[worker] is token and self._processes[worker].alive

    def wait_for(self, calls: Sequence[Call], timeout: float | None = None) -> None:
        """Wait until calls have been answered; TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not all(call.done for call in calls):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                msg = f"no answer {calls[0].doing} after {timeout:g} s"
                raise TimeoutError(msg)
            self.wait(left)

    def wait(self, timeout: float | None = None) -> list[Answer | Death]:
        """Wait for answers; an empty list when no event came in `timeout` seconds."""
        pipes = {p.connection: i for i, p in enumerate(self._processes) if p.alive}
        ready = readable(list(pipes), timeout)
        with Uninterrupted():
            return [event for pipe in ready for event in self._take(pipes[pipe])]

    def _take(self, worker: int) -> list[Answer | Death]:
        """Take what a worker has sent; a closed pipe is its death."""
        events: list[Answer | Death] = []
        process = self._processes[worker]
        try:
            for _ in range(_MESSAGES_AT_ONCE):
                if not readable([process.connection], 0):
                    break
                first = process.unanswered[0] if process.unanswered else None
                arrays: Arrays = "copies" if first is None else first.arrays
                answer = self._read(worker, process.channel.receive(arrays))
                if answer is not None:
                    events.append(answer)
        except (EOFError, OSError):
            process.connection.close()
            self._buffer.released(process.channel, None)
            death = Death(worker, process.server.exitcode(process.pid))
            events.append(death)
            doing = next((call.doing for call in process.unanswered if call), "")
            process.end_calls(death_error(death, doing, "use fewer workers"))
        return events

    def _read(self, worker: int, received: Received) -> Answer | None:
        """Give an answer to its call, or return it; handle log records."""
        process = self._processes[worker]
        first = process.unanswered[0] if process.unanswered else None
        value, error = None, None
        try:
            kind, *content = received.content()
        except Exception as reason:
            # Unpickling a user's object may raise anything.
            error = RuntimeError(f"an answer of a worker cannot be read: {reason!r}")
        else:
            if kind == "log":
                try:
                    plain = pickle.loads(content[0])
                except Exception:
                    return None  # because of what user code attached to the record
                log_here(plain)
                return None
            if kind == "value":
                (value,) = content
            else:
                error, text = content
                error.__cause__ = RemoteTraceback(text)
        process.unanswered.popleft()
        if first is None:
            return Answer(worker, value, error)
        first.end(value, error)
        return None

    def kill(self, worker: int) -> None:
        """End a worker at once; its death shows in :meth:`wait`."""
        self._processes[worker].kill()

    def close(self, patience: float = 2.0) -> None:
        """End the workers: close their pipes, later kill them.

        Parameters
        ----------
        patience : float
            Seconds they have to end their calls.
        """
        self._closed = True
        left = [process for process in self._processes if process.alive]
        deadline = time.monotonic() + patience
        for process in left:
            # Only our direction: the pipe must still show when the worker ends.
            with socket.socket(fileno=os.dup(process.connection.fileno())) as ours:
                ours.shutdown(socket.SHUT_WR)
        for process in left:
            with contextlib.suppress(EOFError, OSError):
                while readable(
                    [process.connection], max(0.0, deadline - time.monotonic())
                ):
                    process.channel.receive()
            process.kill()
            process.connection.close()
            process.server.exitcode(process.pid)
        error = RuntimeError("the pool was closed before there was a result")
        for process in self._processes:
            process.end_calls(error)
        self._end.detach()


def _kill_all(processes: list[_Process]) -> None:
    """End the workers of a pool that was dropped without closing; does not wait."""
    for process in processes:
        if process.alive:
            process.connection.close()
            process.kill()
            process.server.leave(process.pid)
