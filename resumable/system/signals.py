"""Which process obeys the signals that are sent to all processes of a job, and when.

A terminal sends Ctrl-C, and a scheduler SIGTERM or SIGUSR1, to every process. The
driver alone obeys: it stops handing out batches and has its workers commit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

_in_worker = False


def mark_as_worker() -> None:
    """Have no session in this process catch signals: its driver obeys them.

    A computation in a worker may itself run a session.
    """
    global _in_worker
    _in_worker = True


#: How many sessions and tasks catch signals now: a computation may run a session.
_catching = 0


@contextlib.contextmanager
def handling(handlers: Mapping[str, Any]) -> Iterator[None]:
    """Handle signals for the time of a block, in the main thread only.

    In worker processes it does nothing: the driver obeys. `handlers` has SIGINT first:
    it is put back last.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if _in_worker or not in_main_thread:
        yield
        return
    global _catching
    with contextlib.ExitStack() as stack:
        # Put back in the opposite order. Once SIGINT is back, Ctrl-C may interrupt
        # what is left to do here.
        for name, handler in handlers.items():
            number = getattr(signal, name, None)
            # None: not set by Python, which could not put it back.
            if number is not None and signal.getsignal(number) is not None:
                stack.callback(signal.signal, number, signal.signal(number, handler))
        _catching += 1
        try:
            yield
        finally:
            _catching -= 1


def put_back_handlers() -> None:
    """Put back handlers that were set in Python and that a library has replaced.

    UCX, with which MPI uses a network, takes SIGHUP when it is loaded, also where that
    would end the process or is ignored (``nohup``), and then prints what it does.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        # Of others, the library's own handler may print where the process crashed.
        if callable(handler) or (number == hangup and handler is not None):
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred_termination() -> Iterator[Callable[[], bool]]:
    """Have SIGTERM end this process only after a block, in a process of an executor.

    Yields a function that says whether SIGTERM has come: from an executor that has lost
    another of its processes, or from a scheduler. SIGINT and SIGUSR1 are ignored until
    then.
    """
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        came.append(number)

    ignored = dict.fromkeys(("SIGINT", "SIGUSR1", "SIGBREAK"), signal.SIG_IGN)
    try:
        with handling({**ignored, "SIGTERM": note}):
            yield lambda: bool(came)
    finally:
        if came:
            signal.raise_signal(signal.SIGTERM)


class Uninterrupted:
    """A context in which Ctrl-C waits until its end.

    For sending or receiving a message, which must not be left half done. In the main
    thread only, since only that one is interrupted. One inside of another does nothing.
    """

    __slots__ = ("_came", "_handler")
    _within = False

    def __init__(self) -> None:
        self._handler: Any = None
        self._came: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or Uninterrupted._within:
            return
        if signal.getsignal(signal.SIGINT) is None:
            return  # not set by Python, which could not put it back
        handler = signal.signal(signal.SIGINT, self._note)
        Uninterrupted._within = True
        self._handler = handler

    def __exit__(self, *exc: object) -> None:
        handler, self._handler = self._handler, None
        if handler is None:
            return
        Uninterrupted._within = False
        signal.signal(signal.SIGINT, handler)
        # SIG_IGN and SIG_DFL cannot be called.
        if self._came is not None and callable(handler):
            handler(*self._came)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame


#: Signals that the forking thread had blocked before.
_blocked = threading.local()


def _before_fork() -> None:
    """Block SIGTERM, which the child would lose before it has its own handler."""
    if _in_worker or _catching:
        _blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _after_fork() -> None:
    """Unblock SIGTERM, which may have come meanwhile."""
    before = vars(_blocked).pop("before", None)
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_in_child() -> None:
    """Have a child process that a computation forks end by SIGTERM.

    The computation's process pool ends its children by SIGTERM, perhaps as soon as they
    are forked; sessions and tasks catch that signal, and a worker ignores it. The child
    ignores SIGINT and SIGUSR1: the parent gets them, too, and may need the child to
    finish the position at work.
    """
    if hasattr(_blocked, "before"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_obey_in_child,
    )
