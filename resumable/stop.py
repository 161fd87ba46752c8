"""Stopping well: signals and the time limit, as something to ask."""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from resumable.errors import NotFinished
from resumable.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from resumable.results import Results

logger = logging.getLogger("resumable")

#: A second Ctrl-C counts as one after this many seconds.
_SECOND_PRESS_S = 0.5
#: A paused session looks this often for a signal, in seconds.
_LOOK_AGAIN_S = 0.2


_in_worker = False


def leave_to_driver() -> None:
    """Have no session in this process catch signals: it is a worker.

    Its computation may compute something itself; the driver of the worker alone obeys.
    """
    global _in_worker
    _in_worker = True


#: Sessions and tasks that catch signals now: one may be at work in another.
_watching = 0


@contextlib.contextmanager
def _handling(handlers: Mapping[str, Any]) -> Iterator[None]:
    """Handle signals, by name, SIGINT first, in the main thread only, in a block.

    In worker processes none: there they are ignored, and stay so.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if _in_worker or not in_main_thread:
        yield
        return
    global _watching
    with contextlib.ExitStack() as stack:
        # Ctrl-C is put back last: from then on it may interrupt this.
        for name, handler in handlers.items():
            number = getattr(signal, name, None)
            # One that another language has set could not be put back.
            if number is not None and signal.getsignal(number) is not None:
                stack.callback(signal.signal, number, signal.signal(number, handler))
        _watching += 1
        try:
            yield
        finally:
            _watching -= 1


@contextlib.contextmanager
def end_put_off() -> Iterator[Callable[[], bool]]:
    """Let this process, somebody's who computes with it, end after a block only.

    Yields what says whether it was told to end. An executor that has lost one process
    ends the others by SIGTERM, and so does a scheduler. The other signals that are sent
    to every process of a job are ignored for the time of the block: the driver obeys.
    """
    told: list[int] = []

    def note(number: int, frame: Any) -> None:
        told.append(number)

    ignored = dict.fromkeys(("SIGINT", "SIGUSR1"), signal.SIG_IGN)
    try:
        with _handling({**ignored, "SIGTERM": note}):
            yield lambda: bool(told)
    finally:
        if told:
            signal.raise_signal(signal.SIGTERM)


#: Signals that the thread which makes a copy of this process had blocked before.
_blocked = threading.local()


def _before_copies() -> None:
    """Have SIGTERM wait for a copy that cannot obey yet: it would be lost."""
    if _in_worker or _watching:
        _blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _after_copies() -> None:
    """Take the signals that have waited."""
    before = vars(_blocked).pop("before", None)
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_in_copies() -> None:
    """Have a copy of this process, made by a computation, end when it is told to.

    Pools of processes end theirs by SIGTERM, perhaps as soon as they are made, which
    sessions and tasks catch and a worker ignores. What a terminal or a scheduler sends
    reaches the original, too, which finishes what is at work, perhaps with the help of
    the copy.
    """
    if hasattr(_blocked, "before"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
    _after_copies()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_copies,
        after_in_parent=_after_copies,
        after_in_child=_obey_in_copies,
    )


class StopRequest:
    """Whether a session should stop, and why.

    Parameters
    ----------
    time_limit : float or str, optional
        Seconds or text from now on.
    silent : bool
        Do not say so: somebody else does.
    """

    def __init__(
        self, time_limit: float | str | None = None, *, silent: bool = False
    ) -> None:
        self._silent = silent
        self._deadline: float | None = None
        self._limit = time_limit
        if time_limit is not None:
            self._deadline = time.monotonic() + parse_seconds(time_limit)
        self._signal: int | None = None
        self._signal_time = 0.0
        self._cancelled = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._pausing = threading.Lock()
        #: How often it was paused.
        self.pauses = 0
        #: Whether it is paused with everything committed.
        self.rests = False

    @property
    def requested(self) -> bool:
        """Whether the session should stop."""
        if self._signal is not None or self._cancelled.is_set():
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def signal_number(self) -> int | None:
        """The signal that came, if one did."""
        return self._signal

    @property
    def paused(self) -> bool:
        """Whether the session should wait with everything committed."""
        return not self._going.is_set()

    def pause(self) -> None:
        """Have the session wait, from any thread."""
        with self._pausing:
            self.pauses += 1
            self._going.clear()

    def resume(self) -> None:
        """Have the session go on."""
        self._going.set()

    def cancel(self) -> None:
        """Have the session stop, from any thread."""
        self._cancelled.set()
        self._going.set()

    def wait_while_paused(self) -> int:
        """Return when it goes on or should stop: how often it has been paused."""
        self.rests = True
        while True:
            with self._pausing:
                if not self.paused or self.requested:
                    self.rests = False
                    return self.pauses
            self._going.wait(_LOOK_AGAIN_S)

    @property
    def by_keyboard(self) -> bool:
        """It was Ctrl-C."""
        return self._signal == signal.SIGINT

    @property
    def reason(self) -> str:
        """Why, in words."""
        if self._signal is not None:
            return f"stopped by {signal.Signals(self._signal).name}"
        if self._cancelled.is_set():
            return "cancelled"
        return f"stopped at the time limit of {self._limit}"

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Catch signals for the time of a block."""
        names = ("SIGINT", "SIGTERM", "SIGUSR1")
        with _handling(dict.fromkeys(names, self._handle)):
            yield

    def _handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._signal == number == signal.SIGINT:
            # Launchers pass one Ctrl-C on twice; a later one means that she does
            # not want to wait for the position at work.
            if now - self._signal_time > _SECOND_PRESS_S:
                raise KeyboardInterrupt
            return
        self._signal, self._signal_time = number, now
        if not self._silent:
            logger.warning(
                "stopping: what is at work is being committed (Ctrl-C again: at once)"
            )


def stopped(stop: StopRequest, results: Results | None) -> BaseException:
    """Say that a session was stopped, and what is there."""
    message = f"{stop.reason}; run the same again to go on"
    if results is not None:
        message = (
            f"{stop.reason}: {results.status}. Everything computed is kept in "
            f"{results.path}; run the same again to go on"
        )
    if stop.by_keyboard and _in_notebook():
        # A SystemExit there prints advice on leaving the interpreter.
        return KeyboardInterrupt(message)
    logger.warning("%s", message)
    return NotFinished(message, results)


def _in_notebook() -> bool:
    return hasattr(builtins, "__IPYTHON__")
