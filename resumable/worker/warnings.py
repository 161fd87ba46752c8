"""Warnings that computations give: counted here, shown once."""

from __future__ import annotations

import contextlib
import threading
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Different warnings that are told apart; a text may hold the position.
_MOST = 100


class Warned(NamedTuple):
    """A warning as it was given: the same again is equal to it."""

    category: type[Warning]
    """Its class."""
    text: str
    """Its message."""
    filename: str
    """File of the code that gave it."""
    lineno: int
    """Line of it."""


class WarningCounts:
    """How often each warning was given.

    Attributes
    ----------
    counts : dict
        :class:`Warned` -> how often, for the first 100 different ones.
    more : int
        How often others were given.
    """

    def __init__(self) -> None:
        self.counts: dict[Warned, int] = {}
        self.more = 0

    def add(self, warned: Warned, count: int = 1) -> None:
        """Count a warning."""
        if warned not in self.counts and len(self.counts) >= _MOST:
            self.more += count
            return
        self.counts[warned] = self.counts.get(warned, 0) + count

    def merge(self, other: WarningCounts) -> None:
        """Add the counts of another one."""
        for warned, count in other.counts.items():
            self.add(warned, count)
        self.more += other.more

    def told(self) -> Iterator[tuple[Warned, str]]:
        """Go through the warnings, each with its text and how often it was given."""
        for warned, count in self.counts.items():
            times = f" (given {count:,} times)" if count > 1 else ""
            yield warned, warned.text + times

    def show(self) -> None:
        """Give each warning once, with its count; and forget them."""
        for warned, text in self.told():
            warnings.warn_explicit(
                text, warned.category, warned.filename, warned.lineno
            )
        if self.more:
            warnings.warn(f"and {self.more:,} further warnings", stacklevel=2)
        self.counts, self.more = {}, 0


def warning_filters() -> tuple[Any, ...]:
    """Return the warning filters of this process; they can be sent to workers.

    Categories go by name. A library that was imported here may have filters of its
    own, and workers that do not need it must not have to import it for them.
    """
    return tuple(
        (action, message, _name(category), module, lineno)
        for action, message, category, module, lineno in warnings.filters
    )


def _name(category: Any) -> str:
    return f"{category.__module__}.{category.__qualname__}"


class _ByName(type):
    """Class of a stand-in for the warnings of a name, loaded or not."""

    def __subclasscheck__(cls, category: type) -> bool:
        """Return whether a category is the named one, or derived from it."""
        return any(_name(base) == cls.__name__ for base in category.__mro__)


@contextlib.contextmanager
def count_warnings(filters: tuple[Any, ...], counts: WarningCounts) -> Iterator[None]:
    """Count the warnings given in a block, by this thread, instead of showing them.

    Parameters
    ----------
    filters : tuple
        What :func:`warning_filters` has returned in the driver: what it ignores is
        not counted, what it turns into an error is raised.
    counts : WarningCounts
    """
    _hook.enter(filters)
    outer, _own.counts = getattr(_own, "counts", None), counts
    try:
        yield
    finally:
        _own.counts = outer
        _hook.leave()


_own = threading.local()


class _Hook:
    """Our place in the warnings module, which all threads of a process share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def enter(self, filters: tuple[Any, ...]) -> None:
        """Take over, if no other thread has done so."""
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._context = warnings.catch_warnings()
            self._context.__enter__()
            self._show = warnings.showwarning
            # Those that are shown once only would be counted once only.
            warnings.simplefilter("always")
            for action, message, category, module, lineno in reversed(filters):
                named: Any = _ByName(category, (Warning,), {})
                warnings.filterwarnings(
                    action if action in ("error", "ignore") else "always",
                    _pattern(message),
                    named,
                    _pattern(module),
                    lineno,
                )
            warnings.showwarning = self._note  # type: ignore[assignment]

    def leave(self) -> None:
        """Give back, if no other thread is inside."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)

    def _note(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        *more: Any,
    ) -> None:
        counts = getattr(_own, "counts", None)
        if counts is None:
            self._show(message, category, filename, lineno, *more)
        else:
            counts.add(Warned(category, str(message), filename, lineno))


_hook = _Hook()


def _pattern(text: Any) -> str:
    """Return the regular expression of a filter, which may be compiled or None."""
    return getattr(text, "pattern", text) or ""
