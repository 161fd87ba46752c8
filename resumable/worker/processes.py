"""Worker processes, each holding objects that are called by name.

One mechanism for everything that needs processes: a worker keeps a dict of
objects, the parent sends it calls of their methods, which it takes up one at a time,
and takes the answers as they come. There are no queues, no locks and no threads in
the parent: it blocks in one place, :meth:`WorkerProcesses.wait`, on the pipes and on
the processes. An answer goes to the :class:`Call` it belongs to, or is an event.

``__main__`` is never imported again: objects travel by cloudpickle, so that scripts
without a guard and classes typed into a notebook work.
"""

from __future__ import annotations

import collections
import contextlib
import operator
import os
import pickle
import signal
import socket
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from resumable.errors import PlanError
from resumable.system import Uninterrupted, forks, usable_cores
from resumable.worker.call import Answer, Call, Death, death_error
from resumable.worker.parcel import Arrays, Endpoint, Outbox, Received, readable
from resumable.worker.pickling import Unsendable, not_sent
from resumable.worker.remote import RemoteTraceback, log_here, lowest_level
from resumable.worker.server import Child, start_child, start_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Messages taken from one worker before the others are looked at: one that logs
#: without pause must not keep the answers of the others waiting.
_MESSAGES_AT_ONCE = 100


class _Seat:
    """A worker process as the pool holds it."""

    def __init__(self, child: Child, outbox: Outbox) -> None:
        self.child = child
        self.endpoint = Endpoint(child.connection, outbox)
        self.expected: collections.deque[Call | None] = collections.deque()

    @property
    def alive(self) -> bool:
        """Whether its death has not shown yet."""
        return not self.child.connection.closed

    def end_calls(self, error: Exception) -> None:
        """Have the calls that were not answered raise an error."""
        while self.expected:
            call = self.expected.popleft()
            if call is not None:
                call.end(None, error)


class WorkerProcesses:
    """Worker processes that are kept, and the calls they have not answered yet.

    Parameters
    ----------
    workers : int, optional
        How many; by default as many as cores can be used. 0: none.
    start_method : {"forkserver", "spawn"}
        How they are started.

    Raises
    ------
    PlanError
        There is no such number of workers, or no such start method.

    Notes
    -----
    A context manager: leaving it ends the workers.
    """

    def __init__(
        self, workers: int | None = None, *, start_method: str = "forkserver"
    ) -> None:
        count = usable_cores() if workers is None else workers
        try:
            count = operator.index(count)
        except TypeError:
            count = -1
        if count < 0:
            msg = f"workers must be a number of processes, 0 or more, not {workers!r}"
            raise PlanError(msg)
        self._start_method = start_method
        self._outbox = Outbox()
        self._forgotten: list[str] = []
        self._closed = False
        self._setting = b""
        self._seats: list[_Seat] = []
        self._end = weakref.finalize(self, _abandon, self._seats)
        if count:
            start_server(start_method)
            # The server may have been started long ago, in another folder.
            setting = (sys.path, dict(os.environ), Path.cwd(), lowest_level())
            self._setting = pickle.dumps(setting)
        forks.close_in_children(self)
        for _ in range(count):
            self._seats.append(self._start())

    def _start(self) -> _Seat:
        child = start_child(self._start_method)
        # One that has died shows in wait().
        with contextlib.suppress(OSError):
            child.connection.send_bytes(self._setting)
        return _Seat(child, self._outbox)

    def replace(self, worker: int) -> None:
        """Start a new process in the place of one that has died."""
        self._seats[worker] = self._start()

    def close_in_child(self) -> None:
        """Close the pipes in a copy of this process."""
        for seat in self._seats:
            seat.child.connection.close()

    def progress_words(self, worker: int) -> tuple[int, int]:
        """Return the two numbers a worker has written last, also after its end."""
        first, second = self._seats[worker].child.progress_words
        return first, second

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [seat.child.pid for seat in self._seats]

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.workers} workers"
        return f"<{type(self).__name__}: {state}>"

    @property
    def workers(self) -> int:
        """How many worker processes there are."""
        return len(self._seats)

    def _check_open(self) -> None:
        if self._closed:
            msg = "the pool is closed and has no workers; make a new one"
            raise RuntimeError(msg)

    def send(self, worker: int, key: str, method: str, *args: Any) -> None:
        """Have a worker call ``objects[key].method(*args)``; does not wait.

        A worker that has an unanswered call learns that something has come (see
        `ParentConnection`), and takes it up when that call has ended.
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
            Takes the `ParentConnection` to the parent, then `args`.
        """
        self._transmit(worker, ("place", key, factory, args))

    def ask_to_stop(self, worker: int) -> None:
        """Ask a worker to end its present call early."""
        self._transmit(worker, ("ask_to_stop",))

    def _transmit(self, worker: int, message: tuple[Any, ...]) -> None:
        try:
            self._ask([worker], message, [None])
        except Unsendable as error:
            raise not_sent(error) from error

    def ask(
        self,
        workers: Sequence[int],
        message: tuple[Any, ...],
        doing: str,
        *,
        arguments: Arrays = "copies",
        results: Arrays = "copies",
    ) -> list[Call]:
        """Send the same message to workers; return their calls, without waiting.

        Parameters
        ----------
        workers : sequence of int
        message : tuple
            ``("call", key, method, args)`` or ``("place", key, factory, args)``.
        doing : str
            See :class:`Call`.
        arguments, results : Arrays
            What is to become of arrays there, and of those in the answers here.

        Raises
        ------
        TypeError
            The message cannot be sent. Nothing was.
        RuntimeError
            The pool is closed.
        """
        self._check_open()
        calls = [Call(doing, results) for _ in workers]
        try:
            self._ask(workers, message, calls, arguments)
        except Unsendable as error:
            msg = (
                f"what a worker process needs {doing} cannot be sent to it ({error}); "
                "open files and locks inside the function, or use workers=0"
            )
            raise TypeError(msg) from error
        return calls

    def failed(self, error: Exception) -> Call:
        """Return a call that could not be sent, as if it had been answered."""
        call = Call("")
        call.end(None, error)
        return call

    def _ask(
        self,
        workers: Sequence[int],
        message: tuple[Any, ...],
        calls: Sequence[Call | None],
        arguments: Arrays = "copies",
    ) -> None:
        with Uninterrupted():
            seats = [self._seats[worker] for worker in workers]
            readers = {seat.endpoint for seat in seats}
            letter = self._outbox.pack(message, readers)
            self._forget()
            for seat, call in zip(seats, calls, strict=True):
                if message[0] != "ask_to_stop":
                    seat.expected.append(call)
                # One that has died shows in wait().
                with contextlib.suppress(OSError):
                    seat.endpoint.send(letter, arguments)

    def forget(self, key: str) -> None:
        """Have the workers drop an object, with the next message; from anywhere."""
        self._forgotten.append(key)

    def _forget(self) -> None:
        keys = []
        while self._forgotten:
            keys.append(self._forgotten.pop())
        if keys:
            seats = [seat for seat in self._seats if seat.alive]
            readers = {seat.endpoint for seat in seats}
            letter = self._outbox.pack(("drop", keys), readers)
            for seat in seats:
                with contextlib.suppress(OSError):
                    seat.endpoint.send(letter)

    def trim(self) -> None:
        """Give back shared memory that is not in use."""
        self._outbox.trim()

    def load(self, worker: int) -> int:
        """Return how many calls of a worker are unanswered."""
        return len(self._seats[worker].expected)

    def staff(self, worker: int) -> object:
        """Return a token of a worker's process, which is replaced if it has died."""
        if not self._seats[worker].alive:
            self.replace(worker)
        return self._seats[worker]

    def holds(self, worker: int, token: object) -> bool:
        """Return whether a worker is still the process of a token."""
        return self._seats[worker] is token and self._seats[worker].alive

    def finish(self, calls: Sequence[Call], timeout: float | None = None) -> None:
        """Wait until calls have been answered.

        Raises
        ------
        TimeoutError
            After `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not all(call.done for call in calls):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                msg = f"no answer {calls[0].doing} after {timeout:g} s"
                raise TimeoutError(msg)
            self.wait(left)

    def wait(self, timeout: float | None = None) -> list[Answer | Death]:
        """Wait for answers; an empty list when no event came in `timeout` seconds."""
        pipes = {
            seat.child.connection: i for i, seat in enumerate(self._seats) if seat.alive
        }
        events: list[Answer | Death] = []
        ready = readable(list(pipes), timeout)
        if ready:
            with Uninterrupted():
                for pipe in ready:
                    events += self._take(pipes[pipe])
        return events

    def _take(self, worker: int) -> list[Answer | Death]:
        """Take what a worker has sent; the end of its pipe is its death."""
        events: list[Answer | Death] = []
        seat = self._seats[worker]
        try:
            for _ in range(_MESSAGES_AT_ONCE):
                if not readable([seat.child.connection], 0):
                    break
                answer = self._read(worker, seat.endpoint.receive())
                if answer is not None:
                    events.append(answer)
        except (EOFError, OSError):
            seat.child.connection.close()
            self._outbox.lose(seat.endpoint)
            death = Death(worker, seat.child.exitcode())
            events.append(death)
            doing = next((call.doing for call in seat.expected if call), "")
            seat.end_calls(death_error(death, doing, "use fewer workers"))
        return events

    def _read(self, worker: int, received: Received) -> Answer | None:
        """Give an answer to its call; return it where there is none."""
        seat = self._seats[worker]
        first = seat.expected[0] if seat.expected else None
        value, error = None, None
        try:
            arrays = "copies" if first is None else first.arrays
            kind, *content = seat.endpoint.open(received, arrays)
        except Exception as reason:
            # Whatever a user's class raises when it is made again.
            msg = f"an answer of a worker cannot be read: {reason!r}"
            error = RuntimeError(msg)
        else:
            if kind == "log":
                plain: dict[str, Any] | None = None
                # What somebody has attached to a record may not be made again here.
                with contextlib.suppress(Exception):
                    plain = pickle.loads(content[0])
                if plain is not None:
                    log_here(plain)
                return None
            if kind == "value":
                (value,) = content
            else:
                error, text = content
                error.__cause__ = RemoteTraceback(text)
        seat.expected.popleft()
        if first is None:
            return Answer(worker, value, error)
        first.end(value, error)
        return None

    def kill(self, worker: int) -> None:
        """End a worker at once; its death shows in :meth:`wait`."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._seats[worker].child.pid, signal.SIGKILL)

    def close(self, patience: float = 2.0) -> None:
        """End the workers: by hanging up, then by force.

        Parameters
        ----------
        patience : float
            So many seconds they have for what they are at.
        """
        self._closed = True
        left = [seat for seat in self._seats if seat.alive]
        deadline = time.monotonic() + patience
        for seat in left:
            connection = seat.child.connection
            # Our half only, so that the worker's end still shows.
            with socket.socket(fileno=os.dup(connection.fileno())) as ours:
                ours.shutdown(socket.SHUT_WR)
        for seat in left:
            with contextlib.suppress(EOFError, OSError):
                while readable(
                    [seat.child.connection], max(0.0, deadline - time.monotonic())
                ):
                    seat.endpoint.receive()
            with contextlib.suppress(ProcessLookupError):
                os.kill(seat.child.pid, signal.SIGKILL)
            seat.child.connection.close()
            seat.child.exitcode()
        for seat in self._seats:
            seat.end_calls(
                RuntimeError("the pool was closed before there was a result")
            )
        self._end.detach()


def _abandon(seats: list[_Seat]) -> None:
    """End the workers of a pool that nobody has closed, without waiting."""
    for seat in seats:
        if seat.alive:
            seat.child.connection.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(seat.child.pid, signal.SIGKILL)
            seat.child.leave()
