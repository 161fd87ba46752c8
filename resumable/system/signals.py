"""Signals that come to all processes of a job: who obeys them, and when."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_in_worker = False


def mark_as_worker() -> None:
    """Have no session in this process catch signals: it is a worker.

    Its computation may compute something itself; the driver of the worker alone obeys.
    """
    global _in_worker
    _in_worker = True


#: Sessions and tasks that catch signals now: one may be at work in another.
_watching = 0


@contextlib.contextmanager
def handling(handlers: Mapping[str, Any]) -> Iterator[None]:
    """Handle signals for the time of a block, in the main thread only.

    In worker processes none: there they are left to the driver, and stay so.

    Parameters
    ----------
    handlers : mapping
        Name of a signal -> handler, SIGINT first: it is put back last.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if _in_worker or not in_main_thread:
        yield
        return
    global _watching
    with contextlib.ExitStack() as stack:
        # In the opposite order at the end: Ctrl-C may interrupt this then.
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
def deferred_termination() -> Iterator[Callable[[], bool]]:
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
        with handling({**ignored, "SIGTERM": note}):
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
