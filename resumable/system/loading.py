"""Whether a script of the user is being loaded for its class, and what ends that."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_loading: ContextVar[bool] = ContextVar("resumable_loading", default=False)


class WorkBegins(BaseException):
    """A script that is loaded for its class begins to compute.

    No Exception: a script that records errors of its work must not record this one.
    """


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Load a script within a block, in this thread: its work is not done."""
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def begin_work(what: str) -> None:
    """Go on, but for WorkBegins where a script is being loaded; `what` would be done.

    Whatever computes, writes or reads the command line begins with it.
    """
    if _loading.get():
        raise WorkBegins(what)
