"""Whether a script of the user is being loaded for its class, and what ends that."""

from __future__ import annotations

import contextlib
import sys
import threading
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_loading: ContextVar[bool] = ContextVar("resumable_loading", default=False)


class WorkBegins(BaseException):
    """A script that is loaded for its class begins to compute.

    No Exception: a script that records errors of its work must not record this one.
    """


@contextlib.contextmanager
def loading(script: str) -> Iterator[None]:
    """Load a script within a block, without arguments: its work is not done.

    Neither in this thread nor in one that the script starts, which ends at its work.
    """
    token, arguments, start = _loading.set(True), sys.argv, threading.Thread.start

    def start_alike(thread: threading.Thread) -> None:
        if _loading.get():
            context, run = copy_context(), thread.run

            def run_alike() -> None:
                with contextlib.suppress(WorkBegins):
                    context.run(run)

            thread.run = run_alike  # type: ignore[method-assign]
        start(thread)

    sys.argv = [script]
    threading.Thread.start = start_alike  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        sys.argv = arguments
        _loading.reset(token)


def begin_work(what: str) -> None:
    """Go on, but for WorkBegins where a script is being loaded; `what` would be done.

    Whatever computes, writes or reads the command line begins with it.
    """
    if _loading.get():
        raise WorkBegins(what)
