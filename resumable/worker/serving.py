"""The worker's side of the pipe: receive messages, call methods, send answers."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
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

#: When the pipe is closed, a worker has so many seconds to end its call and close.
_GRACE_S = 0.5


class ParentConnection:
    """A worker's end of the pipe to its parent."""

    def __init__(self, connection: Connection, progress_words: memoryview) -> None:
        self._buffer = SendBuffer()
        self._channel = Channel(connection, self._buffer)
        self.progress_words = progress_words
        forks.holders.add(self)

    def close_in_child(self) -> None:
        """Close the pipe in a child process made by os.fork."""
        with contextlib.suppress(OSError):
            self._channel.connection.close()

    def pending(self) -> bool:
        """Return whether the parent has sent something during the present call."""
        try:
            return self._channel.connection.poll(0)
        except (OSError, EOFError):
            return True

    def receive(self) -> Received:
        """Wait for the next message; EOFError or OSError where the pipe is closed."""
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


class _ParentHandler(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, parent: ParentConnection) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record to the parent."""
        try:
            self._parent.log(record)
        except Exception:
            # A record that cannot be formatted or sent must not fail the computation.
            self.handleError(record)


def serve(connection: Connection, progress_words: memoryview) -> None:
    """Run a worker: do what messages say until the parent closes the pipe.

    The first message has the parent's import path, environment, folder, log level and
    :class:`Settings`.
    """
    try:
        setting = connection.recv_bytes()
    except (EOFError, OSError):
        return  # the parent was interrupted while it started this worker
    sys.path[:], environment, folder, level, settings = pickle.loads(setting)
    os.environ.clear()
    os.environ.update({**environment, **WORKER_VARIABLES})
    os.chdir(folder)
    # They may hold functions of modules that are found by now.
    pickle.loads(settings).apply()
    threading.Thread(
        target=_watch, args=(connection,), name="resumable-watch", daemon=True
    ).start()
    parent = ParentConnection(connection, progress_words)
    logging.root.handlers[:] = [_ParentHandler(parent)]
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
    """Do what a message says, and keep nothing of it."""
    try:
        kind, *content = received.content()
        if kind == "drop":
            for key in content[0]:
                objects.pop(key, None)
        elif kind != "stop":
            # When the answer is sent, the arguments are free, unless they were kept.
            parent.send("value", _call(kind, content, objects, parent))
    except Exception as error:
        parent.send("error", portable(error), traceback.format_exc())


def _call(
    kind: str, content: list[Any], objects: dict[str, Any], parent: ParentConnection
) -> Any:
    key, what, args = content
    content.clear()
    if kind == "create":
        objects[key] = what(parent, *args)
        return key
    return getattr(objects[key], what)(*args)


def _watch(connection: Connection) -> None:
    """End this process when the parent has closed the pipe, also during a call."""
    forks.await_hangup(connection.fileno())
    # The parent may only be closing its pool.
    time.sleep(_GRACE_S)
    os._exit(1)
