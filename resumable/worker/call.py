"""Calls of the methods of a worker process, and how they and the process may end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.errors import WorkerDied

if TYPE_CHECKING:
    from resumable.worker.parcel import Arrays


class Answer(NamedTuple):
    """A call of a worker's method has ended."""

    worker: int
    """Which worker."""
    value: Any
    """What the method returned."""
    error: Exception | None
    """What it raised, with the worker's traceback as its cause."""


class Death(NamedTuple):
    """A worker process has ended by itself."""

    worker: int
    """Which worker."""
    exitcode: int | None
    """Its exit code, negative for a signal."""


class Call:
    """A call of a worker's method that is under way, and in the end its answer.

    Parameters
    ----------
    doing : str
        What it is, for the message should the worker die: ``"at item 3"``.
    arrays : Arrays
        What is to become of the arrays in the answer.
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


def cause_of_death(
    event: Death, remedy: str = "give a smaller memory="
) -> tuple[str, str]:
    """Say in words how a worker ended: the cause, and what it may mean."""
    code = event.exitcode
    if code is None:
        return (
            "no exit code",
            "the process that had started it has ended, too, and could not tell",
        )
    if code >= 0:
        return f"exit code {code}", ""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    if code == -signal.SIGKILL:
        return (
            f"signal {name}",
            f"the system may have been out of memory: {remedy}",
        )
    return f"signal {name}", ""


def death_error(
    event: Death, doing: str, remedy: str = "give a smaller memory="
) -> WorkerDied:
    """Make the error for a worker that ended by itself."""
    cause, message = cause_of_death(event, remedy)
    advice = f"; {message}" if message else ""
    msg = f"a worker process ended with {cause} {doing}{advice}"
    return WorkerDied(msg, event.exitcode)
