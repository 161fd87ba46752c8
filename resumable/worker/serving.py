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

from resumable.system import WORKER_VARIABLES, forks
from resumable.worker.call import plain_record, portable
from resumable.worker.transport import (
    Channel,
    Message,
    Received,
    SendBuffer,
    pickled,
)

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
        self._buffer = SendBuffer()
        self._channel = Channel(connection, self._buffer)
        self.progress_words = progress_words
        forks.close_in_children(self)

    def close_in_child(self) -> None:
        """Close the pipe in a copy of this process."""
        with contextlib.suppress(OSError):
            self._channel.connection.close()

    def pending(self) -> bool:
        """Return whether the parent has sent something during the present call."""
        try:
            return self._channel.connection.poll(0)
        except (OSError, EOFError):
            return True

    def receive(self) -> Received:
        """Wait for the next message.

        Raises
        ------
        EOFError, OSError
            The parent has closed the pipe, or is gone.
        """
        return self._channel.receive()

    def send(self, *content: Any) -> None:
        """Send an answer; from the thread that took the message."""
        message = self._buffer.pack(content, {self._channel})
        with contextlib.suppress(OSError):
            self._channel.send(message)

    def log(self, record: logging.LogRecord) -> None:
        """Send a log record; from any thread, also while an answer is pickled."""
        # Through the pipe, whatever its size: the buffer belongs to one thread.
        data = pickled(("log", pickled(plain_record(record))))
        with contextlib.suppress(OSError):
            self._channel.send(Message([data], [], None))


class _LineHandler(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, parent: ParentConnection) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            self._parent.log(record)
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
        kind, *content = received.content()
        if kind in ("call", "create"):
            parent.send("value", _call(kind, content, objects, parent))
    except Exception as error:
        parent.send("error", portable(error), traceback.format_exc())
    else:
        if kind == "drop":
            for key in content[0]:
                objects.pop(key, None)


def _call(
    kind: str, content: list[Any], objects: dict[str, Any], parent: ParentConnection
) -> Any:
    if kind == "create":
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
