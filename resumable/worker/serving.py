"""The worker's side of a pool: take messages, call methods, send answers."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import cloudpickle

from resumable.system import WORKER_VARIABLES, forks
from resumable.worker.parcel import Endpoint, Letter, Outbox, Received
from resumable.worker.remote import plain_record, portable

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

#: After its parent's end a worker has this long to end by itself, in seconds.
_GRACE_S = 0.5


class ParentConnection:
    """A worker's end of the pipe to its parent.

    Attributes
    ----------
    progress_words : memoryview of two int64
        Memory whose contents the parent sees, see :meth:`Pool.progress_words`.
    """

    def __init__(self, connection: Connection, progress_words: memoryview) -> None:
        self._outbox = Outbox()
        self._endpoint = Endpoint(connection, self._outbox)
        self.progress_words = progress_words
        forks.close_in_children(self)

    def close_in_child(self) -> None:
        """Close the pipe in a copy of this process."""
        with contextlib.suppress(OSError):
            self._endpoint.connection.close()

    def pending(self) -> bool:
        """Return whether the parent has sent something during the present call."""
        try:
            return self._endpoint.connection.poll(0)
        except (OSError, EOFError):
            return True

    def receive(self) -> Received:
        """Wait for the next message.

        Raises
        ------
        EOFError, OSError
            The parent has closed the pipe, or is gone.
        """
        return self._endpoint.receive()

    def open(self, received: Received) -> tuple[Any, ...]:
        """Make the message again."""
        message: tuple[Any, ...] = self._endpoint.open(received)
        return message

    def send(self, *message: Any) -> None:
        """Send an answer; from the thread that took the message."""
        letter = self._outbox.pack(message, {self._endpoint})
        with contextlib.suppress(OSError):
            self._endpoint.send(letter)

    def log(self, record: dict[str, Any]) -> None:
        """Send a log record; from any thread."""
        # In the pipe, whatever its size: the memory belongs to one thread.
        data = cloudpickle.dumps(("log", cloudpickle.dumps(record)))
        with contextlib.suppress(OSError):
            self._endpoint.send(Letter([data], []))


class _LineHandler(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, parent: ParentConnection) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            self._parent.log(plain_record(record))
        except Exception:
            # As every handler: a line that cannot be formatted fails nothing.
            self.handleError(record)


def serve(connection: Connection, progress_words: memoryview) -> None:
    """Run a worker: take messages until the parent is gone.

    The first message says how the parent is set up.
    """
    try:
        setting = connection.recv_bytes()
    except (EOFError, OSError):
        return  # it was interrupted while it started this worker
    sys.path[:], environment, folder, level = pickle.loads(setting)
    os.environ.clear()
    os.environ.update({**environment, **WORKER_VARIABLES})
    os.chdir(folder)
    threading.Thread(
        target=_watch, args=(connection,), name="resumable-watch", daemon=True
    ).start()
    parent = ParentConnection(connection, progress_words)
    logging.root.handlers[:] = [_LineHandler(parent)]
    logging.root.setLevel(level)
    objects: dict[str, Any] = {}
    while True:
        try:
            received = parent.receive()
        except (EOFError, OSError):
            break
        _answer(received, objects, parent)
    for thing in objects.values():
        with contextlib.suppress(Exception):
            thing.close()


def _answer(
    received: Received, objects: dict[str, Any], parent: ParentConnection
) -> None:
    """Do what a message says.

    Nothing of it is left on return, so that its memory can be written to again.
    """
    try:
        kind, *content = parent.open(received)
        if kind in ("call", "place"):
            parent.send("value", _obey(kind, content, objects, parent))
    except Exception as error:
        parent.send("error", portable(error), traceback.format_exc())
    else:
        if kind == "drop":
            for key in content[0]:
                objects.pop(key, None)


def _obey(
    kind: str, content: list[Any], objects: dict[str, Any], parent: ParentConnection
) -> Any:
    if kind == "place":
        key, factory, args = content
        objects[key] = factory(parent, *args)
        return key
    key, method, args = content
    # What a worker keeps of them is its own affair.
    content.clear()
    return getattr(objects[key], method)(*args)


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
