"""Detect, taking no lock, whether another program has the file open for writing.

HDF5 sets a mark in the first bytes of a file while a program has it open for writing,
and clears the mark as the last thing before it closes the file. These bytes are read
without HDF5 and without a lock, also from other hosts.
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

    import h5py

    Result = TypeVar("Result")

#: A change within this time of the one before may leave the file's time as it was: the
#: time is taken from a clock that ticks every 10 ms or more often.
_TICK_S = 0.015
#: The same where times are whole seconds, or two.
_SLOW_TICK_S = 2.1
LOOK_AGAIN_S = 0.005
#: A program that kept the file open for this long, and has had it closed for this long,
#: has ended. A program that opens the file for every row does not do both.
_KEPT_OPEN_S, _CLOSED_S = 2.0, 1.0


class FileState(NamedTuple):
    """The state of a file, seen without opening it with HDF5."""

    stamp: tuple[int, ...] = ()
    """Device, inode, size, time of the last change in ns; empty: there is no file."""
    open: bool = False
    """Marked as open for writing: a program has it open, or was killed."""
    swmr: bool = False
    """The program that writes lets others read at the same time."""

    @property
    def at_rest(self) -> bool:
        """No program has it open for writing, and a later change would show."""
        if not self.stamp or self.open:
            return False
        changed = self.stamp[-1]
        tick = _TICK_S if changed % 1_000_000_000 else _SLOW_TICK_S
        return abs(time.time_ns() - changed) > tick * 1e9

    @property
    def readable(self) -> bool:
        """What is read from it now is right, if the state stays as it is."""
        return self.swmr or self.at_rest

    def holds(self, later: FileState) -> bool:
        """Return whether what was read between this state and `later` is right.

        A program that writes by SWMR may go on: HDF5 promises its readers that what
        they find is whole.
        """
        if self.swmr:
            return later.swmr and self.stamp[:2] == later.stamp[:2]
        return self == later


def file_state(path: str) -> FileState:
    """Return the state of a file; never fails, takes no lock, and reads a few bytes."""
    try:
        with disk.opened(Path(path), os.O_RDONLY) as fd:
            return _state(fd)
    except OSError:
        return FileState()


def stamp_of(file: str | int) -> tuple[int, ...]:
    """Return the stamp of a file, empty where there is none; opens nothing."""
    try:
        found = os.stat(file)  # noqa: PTH116 - it may be a descriptor
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def state_of_open(file: h5py.File, path: str, stamp: tuple[int, ...]) -> FileState:
    """Return the state of a file that HDF5 has open, with a stamp; opens nothing."""
    try:
        fd = file.id.get_vfd_handle()
        if disk.file_id(fd) != stamp[:2]:
            # A link leads to another file, or the file was replaced.
            return file_state(path)._replace(stamp=stamp)
        return _state(fd, stamp)
    except (RuntimeError, ValueError, OSError):
        # Another driver of HDF5, which has no descriptor.
        return file_state(path)._replace(stamp=stamp)


def _state(fd: int, stamp: tuple[int, ...] = ()) -> FileState:
    block, stamp = superblock_of(fd), stamp or stamp_of(fd)
    if block is None:
        return FileState(stamp)
    return FileState(stamp, block.open_for_writing, block.swmr)


def read_unchanged(
    path: str, read: Callable[[FileState], Result], patience_s: float
) -> Result:
    """Read from a file that may be written, again until nobody has written meanwhile.

    `read` takes the state of the file and reads without a lock. It is called at least
    once, and again for `patience_s` seconds; after that it is a SourceError.
    """
    deadline = time.monotonic() + patience_s
    while True:
        before, caught = file_state(path), None
        if before.readable:
            try:
                result = read(before)
            except SourceError as error:
                caught = error
            else:
                if before.holds(file_state(path)):
                    return result
        if time.monotonic() >= deadline:
            if caught is not None:
                raise caught
            msg = f"{path} is being written at this moment"
            if not before.stamp:
                msg = f"there is no file {path}"
            elif before.open:
                msg = (
                    f"{path} is open for writing in another program, or that program "
                    "was killed; it can be read when it is closed"
                )
            raise SourceError(msg)
        time.sleep(LOOK_AGAIN_S)


class SourceWriter:
    """The program that writes a file, as far as the states of the file tell."""

    def __init__(self) -> None:
        self._swmr = False
        self._open_since: float | None = None
        self._closed_at: float | None = None
        self._stamp: tuple[int, ...] = ()

    def forget(self) -> None:
        """Measure anew for how long the file is open: nobody has looked for a while."""
        self._open_since = None

    def note(self, state: FileState) -> None:
        """Take note of the state of the file now."""
        now = time.monotonic()
        self._swmr = self._swmr or state.swmr
        self._ended = self._swmr and not state.open
        if state.open:
            self._open_since = self._open_since or now
            self._closed_at = None
        elif self._open_since is not None:
            if self._closed_at is None and now - self._open_since >= _KEPT_OPEN_S:
                self._closed_at = now
            self._open_since = None
        elif state.stamp != self._stamp:
            self._closed_at = None
        self._stamp = state.stamp

    @property
    def has_ended(self) -> bool:
        """The program had the file open, and has closed it for good."""
        if self._ended:
            return True
        closed = self._closed_at
        return closed is not None and time.monotonic() - closed >= _CLOSED_S
