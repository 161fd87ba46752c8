"""What happens in other processes: their exceptions and log records, sent here."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import cloudpickle


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
    """Lowest level that any logger here lets through; it is filtered here again."""
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
