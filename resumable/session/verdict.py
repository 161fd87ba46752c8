"""What a verification found, in words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resumable.model import name_of_position

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.runfile import RunFile

#: Positions and differences that are named in one check; the others are counted.
_TOLD = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    """What: ``structure``, ``status``, ``failures``, ``source``, ``computation``,
    ``rows``."""
    passed: bool | None
    """Whether it is sound; None where it could not be checked."""
    words: str
    """What was found, the numbers, and what to do."""

    def __str__(self) -> str:
        verdict = {True: "ok", False: "FAILED", None: "not checked"}[self.passed]
        words = "\n".join(map(_printable, self.words.splitlines()))
        return f"  {self.name:<12}{verdict:<13}" + words.replace("\n", "\n" + " " * 27)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class VerifyReport:
    """What a verification found; print it to read it."""

    path: Path
    """The run file."""
    checks: tuple[Check, ...]
    """In the order of the work."""

    @property
    def passed(self) -> bool:
        """Nothing is wrong with what could be checked."""
        return all(check.passed is not False for check in self.checks)

    def __str__(self) -> str:
        verdict = "sound" if self.passed else "NOT SOUND"
        lines = [f"{_printable(str(self.path))}: {verdict}"]
        return "\n".join([*lines, *map(str, self.checks)])

    __repr__ = __str__


def _printable(text: str) -> str:
    """Names in a stranger's file must not command the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def few(lines: list[str], more: str, separator: str) -> str:
    """Join the first lines and count the rest, as `more`."""
    left = len(lines) - _TOLD
    return separator.join([*lines[:_TOLD], *([f"and {left} {more}"] * (left > 0))])


def listed(kind: str, positions: list[int], run: RunFile, what: str) -> str:
    """Say what is with some positions, the first of them by name."""
    shape = run.header.map_shape
    names = ", ".join(name_of_position(p, shape) for p in positions[:_TOLD])
    left = len(positions) - _TOLD
    more = f" and {left:,} more" if left > 0 else ""
    return f"{len(positions):,} {kind} positions {what} ({names}{more})"
