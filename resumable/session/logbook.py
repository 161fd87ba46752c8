"""Log lines and times of a session, on their way into the run file."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from resumable.runfile import LogLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resumable.worker import Report


class _Writer(logging.Handler):
    """Hands on every record that reaches the root logger."""

    def __init__(self, write: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on a record, its arguments put into the text."""
        try:
            self._write(
                LogLine(
                    record.created,
                    record.levelname,
                    record.name,
                    record.process or 0,
                    record.getMessage(),
                )
            )
        except Exception:
            self.handleError(record)
        last = logging.lastResort
        if last and record.levelno >= last.level and not self._is_heard(record.name):
            # What logging does for a script that has set up nothing. Because we
            # listen, it does not do so any more.
            last.handle(record)

    def _is_heard(self, name: str) -> bool:
        """Return whether anybody else listens to a logger."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


@contextlib.contextmanager
def written(write: Callable[[LogLine], None]) -> Iterator[None]:
    """Write down what is logged in a block: here, and by workers that send it here.

    Which lines that are is decided by the levels of the user's loggers.
    """
    handler = _Writer(write)
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


class Times:
    """What the workers' time was spent on, in s, all together."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._reading = self._computing = self._writing = 0.0

    def add(self, report: Report) -> None:
        """Add a batch."""
        self._reading += report.read_seconds
        self._writing += report.write_seconds
        self._computing += report.seconds - report.read_seconds - report.write_seconds

    def of(self, workers: int) -> dict[str, float]:
        """Return the sums until now; the rest of the workers' time was waiting."""
        busy = self._reading + self._computing + self._writing
        there = workers * (time.perf_counter() - self._began)
        return {
            "reading": self._reading,
            "computing": self._computing,
            "writing": self._writing,
            "waiting": max(0.0, there - busy),
        }
