"""Calls of methods of a worker process: answers, errors, log records and deaths."""

from __future__ import annotations

import logging
import pickle
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle

from resumable.errors import WorkerDied, option

if TYPE_CHECKING:
    from resumable.worker.transport import Arrays


class Answer(NamedTuple):
    """A call of a worker's method has ended: what it returned, or raised."""

    worker: int
    value: Any
    error: Exception | None  # with the worker's traceback as its cause


class Death(NamedTuple):
    """A worker process has ended by itself."""

    worker: int
    exitcode: int | None  # negative for a signal, None where it is not known


class Call:
    """A call of a worker's method, and in the end its answer.

    `doing` is for the message if the worker dies: ``"at item 3"``.
    """

    __slots__ = ("_error", "_value", "arrays", "doing", "done")

    def __init__(self, doing: str, arrays: Arrays = "copies") -> None:
        self.doing = doing
        self.arrays = arrays
        self.done = False
        self._value: Any = None
        self._error: Exception | None = None

    def end(self, value: Any, error: Exception | None) -> None:
        """Take the answer."""
        self._value, self._error, self.done = value, error, True

    def result(self) -> Any:
        """Return what the method returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._value


def cause_of_death(event: Death, remedy: str = "") -> tuple[str, str]:
    """Say in words how a worker ended: the cause, and what it may mean."""
    code = event.exitcode
    if code is None:
        return "no exit code", "the process that had started it has ended, too"
    if code >= 0:
        return f"exit code {code}", ""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    killed = code == -signal.SIGKILL
    remedy = remedy or f"give a smaller {option('memory')}"
    advice = f"the system may have been out of memory: {remedy}" if killed else ""
    return f"signal {name}", advice


def death_error(event: Death, doing: str, remedy: str = "") -> WorkerDied:
    """Make the error for a worker that ended by itself."""
    cause, message = cause_of_death(event, remedy)
    advice = f"; {message}" if message else ""
    msg = f"a worker process ended with {cause} {doing}{advice}"
    return WorkerDied(msg, event.exitcode)


class RemoteTraceback(Exception):
    """Text of the traceback in the worker."""

    def __str__(self) -> str:
        return "\n\nIn the worker:\n" + str(self.args[0])


def portable(error: Exception) -> Exception:
    """Return an exception that survives being pickled: itself, or its text."""
    try:
        again = pickle.loads(cloudpickle.dumps(error))
        if type(again) is type(error):
            return error
    except Exception:
        pass
    return RuntimeError(f"{type(error).__qualname__}: {error}")


def lowest_level() -> int:
    """Return the lowest level of all loggers here, below which no record is sent."""
    loggers = logging.root.manager.loggerDict.values()
    levels = [item.level for item in loggers if isinstance(item, logging.Logger)]
    return min([logging.root.level, *(level for level in levels if level)])


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
