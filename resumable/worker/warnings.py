"""Warnings that computations give: counted here, shown once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The folder of this library.
_LIBRARY = str(Path(__file__).parents[1])
#: Different warnings that are told apart; a text may hold the position.
_MOST = 100


class Warned(NamedTuple):
    """A warning, and the file and line of the code that gave it."""

    category: type[Warning]
    text: str
    filename: str
    lineno: int


@dataclasses.dataclass
class WarningCounts:
    """How often each of the first 100 different warnings was given, and all others."""

    counts: dict[Warned, int] = dataclasses.field(default_factory=dict)
    more: int = 0

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
            last = next(reversed(self.counts))
            text = f"and {self.more:,} further warnings"
            warnings.warn_explicit(text, UserWarning, last.filename, last.lineno)
        self.counts, self.more = {}, 0


def warning_filters() -> tuple[Any, ...]:
    """Return the warning filters of this process, to be sent to workers.

    Categories are sent as names: a library that is imported here may have added filters
    of its own, and a worker must not have to import it for them.
    """
    filters: Any = warnings.filters
    return tuple(
        (action, message, f"{c.__module__}.{c.__qualname__}", module, lineno)
        for action, message, c, module, lineno in filters
    )


def place_of(function: Any) -> tuple[str, int] | None:
    """Return the file and the first line of a function, if it has one."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else (code.co_filename, code.co_firstlineno)


#: How many blocks of all threads keep filters now, how many of these count, and what
#: restores the warnings module.
_inside = _counting = 0
_restore = contextlib.ExitStack()
_lock = threading.Lock()
_thread = threading.local()


@contextlib.contextmanager
def kept_filters() -> Iterator[None]:
    """Set back the filters of warnings that the user's code sets in a block.

    Threads share the filters: the last block that ends sets back those from before the
    first.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _restore.enter_context(warnings.catch_warnings())
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _restore.close()


@contextlib.contextmanager
def count_warnings(
    filters: tuple[Any, ...],
    counts: WarningCounts,
    place: tuple[str, int] | None = None,
) -> Iterator[None]:
    """Count the warnings that this thread gives in a block, instead of showing them.

    Of those that the driver's `filters` ignore none, and those that are errors are
    raised. `place` is the file and line of the user's code, for warnings whose stack
    level leads to the code that calls it.
    """
    global _counting
    with kept_filters():
        with _lock:
            _counting += 1
            if _counting == 1:
                _install(filters)
        outer, _thread.counting = getattr(_thread, "counting", None), (counts, place)
        try:
            yield
        finally:
            _thread.counting = outer
            with _lock:
                _counting -= 1


def _install(filters: tuple[Any, ...]) -> None:
    """Set filters and ``showwarning`` of the warnings module, which threads share."""
    show = warnings.showwarning
    # Other actions than "always" would have only the first warning counted.
    warnings.simplefilter("always")
    loaded: dict[str, type[Warning]] = {}
    left: list[type[Warning]] = [Warning]
    while left:
        kind = left.pop()
        loaded[f"{kind.__module__}.{kind.__qualname__}"] = kind
        left += kind.__subclasses__()
    for action, message, category, module, lineno in reversed(filters):
        if category not in loaded:
            continue  # nothing here can have given such a warning
        warnings.filterwarnings(
            action if action in ("error", "ignore") else "always",
            # They are compiled, or None, or text.
            getattr(message, "pattern", message) or "",
            loaded[category],
            getattr(module, "pattern", module) or "",
            lineno,
        )

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        *more: Any,
    ) -> None:
        counting = getattr(_thread, "counting", None)
        if counting is None:
            show(message, category, filename, lineno, *more)
            return
        counts, place = counting
        if place is not None and filename.startswith(_LIBRARY):
            filename, lineno = place
        counts.add(Warned(category, str(message), filename, lineno))

    warnings.showwarning = note  # type: ignore[assignment]
