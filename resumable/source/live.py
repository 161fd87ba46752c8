"""Whether somebody is writing a file at this moment, told without disturbing her.

HDF5 marks a file in its first bytes while a program has it open for writing, and takes
the mark off as the last thing before it closes the file. Reading these bytes takes no
lock, works across hosts, and needs no HDF5.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from resumable.errors import SourceError
from resumable.runfile import superblock_of
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Callable

    Result = TypeVar("Result")

#: A change may leave the time of a file as it was for so long: it is taken from a clock
#: that ticks every 10 ms or more often.
_TICK_S = 0.015
#: The same where times are whole seconds, or two.
_SLOW_TICK_S = 2.1
_LOOK_AGAIN_S = 0.005
#: A program that was seen to keep the file open for so long, and has closed it for so
#: long, has come to its end. One that opens it for every row does not do both.
_KEPT_OPEN_S, _CLOSED_S = 2.0, 1.0
_GLANCE_S = 1.0


class FileState(NamedTuple):
    """What a file looks like from outside."""

    stamp: tuple[int, ...] = ()
    """Device, number, size, time of the last change in ns; empty: there is no file."""
    open: bool = False
    """Marked as open for writing: so it is, or a program was killed."""
    swmr: bool = False
    """The program that writes lets others read at the same time."""

    @property
    def at_rest(self) -> bool:
        """Nobody has it open for writing, and any later change would show."""
        if not self.stamp or self.open:
            return False
        changed = self.stamp[-1]
        tick = _TICK_S if changed % 1_000_000_000 else _SLOW_TICK_S
        return abs(time.time_ns() - changed) > tick * 1e9

    @property
    def readable(self) -> bool:
        """What is read from it now can be trusted, if the sign stays as it is."""
        return self.swmr or self.at_rest

    def holds(self, later: FileState) -> bool:
        """Return whether nothing has happened that spoils what was read in between.

        A program that writes by SWMR may go on: HDF5 promises its readers that what
        they find is whole.
        """
        if self.swmr:
            return later.swmr and self.stamp[:2] == later.stamp[:2]
        return self == later


def sign_of(path: str) -> FileState:
    """Look at a file; never fails, takes no lock, and reads a few bytes."""
    try:
        with disk.opened(Path(path), os.O_RDONLY) as fd:
            block = superblock_of(fd)
            stat = os.fstat(fd)
    except OSError:
        return FileState()
    stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if block is None:
        return FileState(stamp)
    return FileState(stamp, block.open_for_writing, block.swmr)


def read_unchanged(
    path: str, read: Callable[[FileState], Result], patience_s: float
) -> Result:
    """Read from a file that somebody may be writing, and again until it can be trusted.

    Parameters
    ----------
    path : str
        The file.
    read : callable
        Takes the sign of the file; reads, without a lock. What it returns counts if
        nobody has written meanwhile.
    patience_s : float
        After so many seconds it is given up; tried at least once.

    Raises
    ------
    SourceError
        It is being written, or what `read` raises of a file that is at rest.
    """
    deadline = time.monotonic() + patience_s
    while True:
        before, trouble = sign_of(path), None
        if before.readable:
            try:
                result = read(before)
            except SourceError as error:
                trouble = error
            else:
                if before.holds(sign_of(path)):
                    return result
        if time.monotonic() >= deadline:
            raise trouble or busy(path, before)
        time.sleep(_LOOK_AGAIN_S)


def glance(path: str, read: Callable[[], Result]) -> Result:
    """Look at what does not change while a file is written, such as dtypes.

    Parameters
    ----------
    path : str
        The file.
    read : callable
        Reads without a lock. It is tried again for a second where somebody writes:
        what is half written then need not make sense.

    Raises
    ------
    SourceError
        As `read` raises.
    """
    deadline = time.monotonic() + _GLANCE_S
    while True:
        before = sign_of(path)
        try:
            result = read()
        except SourceError:
            quiet = sign_of(path) == before and not before.open
            if quiet or time.monotonic() >= deadline:
                raise
        else:
            if sign_of(path) == before or before.swmr or time.monotonic() >= deadline:
                return result
        time.sleep(_LOOK_AGAIN_S)


def busy(path: str, sign: FileState) -> SourceError:
    """Say why a file cannot be read at this moment."""
    if not sign.stamp:
        return SourceError(f"there is no file {path}")
    if sign.open:
        msg = (
            f"{path} is open for writing in another program, or that program was "
            "killed; it can be read when it is closed"
        )
        return SourceError(msg)
    return SourceError(f"{path} is being written at this moment")


class Writer:
    """What was seen of the program that writes a file."""

    def __init__(self) -> None:
        self._swmr = False
        self._open_since: float | None = None
        self._closed_at: float | None = None
        self._stamp: tuple[int, ...] = ()

    def forget(self) -> None:
        """Begin anew after a while in which nobody looked."""
        self._open_since = None

    def note(self, sign: FileState) -> None:
        """Take note of how the file looks now."""
        now = time.monotonic()
        self._swmr = self._swmr or sign.swmr
        self._ended = self._swmr and not sign.open
        if sign.open:
            self._open_since = self._open_since or now
            self._closed_at = None
        elif self._open_since is not None:
            if self._closed_at is None and now - self._open_since >= _KEPT_OPEN_S:
                self._closed_at = now
            self._open_since = None
        elif sign.stamp != self._stamp:
            self._closed_at = None
        self._stamp = sign.stamp

    @property
    def gone(self) -> bool:
        """It had the file open, and has closed it."""
        if self._ended:
            return True
        closed = self._closed_at
        return closed is not None and time.monotonic() - closed >= _CLOSED_S
