"""Whether a session should stop: because of a signal, the time limit, or a call."""

from __future__ import annotations

import builtins
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from resumable.errors import NotFinished, near
from resumable.system.signals import handling

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

logger = logging.getLogger("resumable")

#: A second Ctrl-C counts as one after this many seconds.
_SECOND_PRESS_S = 0.5


class StopRequest:
    """Whether a session should stop, and why.

    `limit_s` counts from now on, in seconds; `limit` is the same as the user wrote it,
    for the message. A `silent` request logs nothing: another process does.
    """

    def __init__(
        self,
        limit_s: float | None = None,
        limit: object = None,
        *,
        silent: bool = False,
    ) -> None:
        self._silent = silent
        self._limit = limit_s if limit is None else limit
        self._deadline = None if limit_s is None else time.monotonic() + limit_s
        #: The signal that came, if one did.
        self.signal_number: int | None = None
        self._signal_time = 0.0
        self._cancelled = threading.Event()

    def requested(self) -> bool:
        """Return whether the session should stop."""
        if self.signal_number is not None or self._cancelled.is_set():
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline

    def cancel(self) -> None:
        """Have the session stop, from any thread."""
        self._cancelled.set()

    @property
    def reason(self) -> str:
        """Why, in words."""
        if self.signal_number is not None:
            return f"stopped by {signal.Signals(self.signal_number).name}"
        if self._cancelled.is_set():
            return "cancelled"
        return f"stopped at the time limit of {self._limit}"

    def watching(self) -> AbstractContextManager[None]:
        """Catch signals for the time of a block."""
        # SIGBREAK, on Windows: Ctrl-Break, or the console is closed.
        names = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK")
        return handling(dict.fromkeys(names, self._handle))

    def _handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.signal_number == number == signal.SIGINT:
            # Launchers pass one Ctrl-C on twice; a later one means that the user does
            # not want to wait for the position at work.
            if now - self._signal_time > _SECOND_PRESS_S:
                raise KeyboardInterrupt
            return
        self.signal_number, self._signal_time = number, now
        if not self._silent:
            logger.warning(
                "stopping: what is at work is being committed (Ctrl-C again: at once)"
            )


def stopped(stop: StopRequest, results: Any) -> BaseException:
    """Say that a session was stopped, and what is there."""
    message = f"{stop.reason}; run the same again to go on"
    if results is not None:
        message = (
            f"{stop.reason}: {results.status}. Everything computed is kept in "
            f"{near(results.path)}; run the same again to go on"
        )
    if stop.signal_number == signal.SIGINT and hasattr(builtins, "__IPYTHON__"):
        # A SystemExit there prints advice on leaving the interpreter.
        return KeyboardInterrupt(message)
    logger.warning("%s", message)
    return NotFinished(message, results)
