"""Looking at a source that is being written: what there is of it to compute."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import DeclarationError, PlanError, SourceError
from resumable.model import PositionSet
from resumable.session.computation import begins_with
from resumable.session.decide import prospect
from resumable.session.resolve import resolve
from resumable.session.wanted import RequestedPositions
from resumable.source import Reader, file_state, read_unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resumable.process import Process
    from resumable.runfile import RunFile
    from resumable.session.computation import Computation, Options
    from resumable.session.decide import Prospect
    from resumable.source import FileState

    Array = np.ndarray[Any, np.dtype[Any]]


class SourceChanged(Exception):
    """What was computed is not of what the source holds now."""


class Look(NamedTuple):
    """What a look at the source has found."""

    computation: Computation
    """What, of the source as it is now."""
    ahead: Prospect
    """What would be done, and to what."""
    unready: int | None
    """The first requested position that exists and is not ready."""
    to_come: int | None
    """The first requested position that does not exist yet, where that is known."""
    complete: bool
    """There is nothing more to wait for: all that is requested exists and is ready."""


class SourceWatcher:
    """Looks at a source and its inputs, on behalf of one that follows them.

    Parameters
    ----------
    process, options
        What, and how.
    positions : slice, mask, index or indices, optional
        What is requested; it need not be there yet.
    take_lock : callable
        Takes the lock on the run of a computation.

    Attributes
    ----------
    paths : list of str
        Files that somebody may be writing.
    latest : Look or None
        What the last look that came to its end has found.
    """

    def __init__(
        self,
        process: Process,
        options: Options,
        positions: Any,
        take_lock: Callable[[Computation], Any],
    ) -> None:
        self._process, self._options, self._take_lock = process, options, take_lock
        self._wanted = RequestedPositions(positions, process.map_shape)
        refs = [process._source, *process._inputs.values()]
        # An output of another run does not change any more.
        self.paths = list(
            dict.fromkeys(r.path for r in refs if r.path and not r.upstream)
        )
        self.latest: Look | None = None
        self._ready: PositionSet | None = None

    @property
    def of_all(self) -> bool:
        """Whatever comes is requested."""
        return self._wanted.chosen is None

    def signs(self) -> list[FileState]:
        """Return what the files look like from outside."""
        return [file_state(path) for path in self.paths]

    def is_all_there(self) -> bool:
        """Return whether the last position has come, by reading the shape alone."""
        if not self._wanted.end and (self.latest is None or not self.paths):
            return False
        try:
            map_shape, growable = self._read_unchanged(self._extent)
        except SourceError:
            return False
        end = self._wanted.end
        return not growable or (end is not None and math.prod(map_shape) >= end)

    def look(self, mine: RunFile | None, *, thorough: bool) -> Look:
        """Look at what there is by now.

        Parameters
        ----------
        mine : RunFile or None
            The run that is being computed.
        thorough : bool
            Look also where nothing seems to be new.

        Raises
        ------
        SourceError
            It cannot be read at this moment.
        SourceChanged
            `mine` is not of what it holds now.
        PlanError, DeclarationError
            It cannot be followed.
        """
        self.latest = self._found(mine, thorough=thorough)
        return self.latest

    def _read_unchanged(
        self, read: Callable[[], Any], paths: Sequence[str] | None = None
    ) -> Any:
        """Read while nobody writes to any of the files."""
        paths = self.paths if paths is None else paths
        if not paths:
            return read()
        return read_unchanged(
            paths[0], lambda _: self._read_unchanged(read, paths[1:]), 0.0
        )

    def _extent(self) -> tuple[tuple[int, ...], bool]:
        """Return the shape of the map, and whether it can grow."""
        ref = dataclasses.replace(self._process._source, live=True)
        with Reader(ref) as reader:
            reader.check_alone()
            if 0 in reader.geometry.map_shape:
                msg = f"{ref} has no positions yet"
                raise SourceError(msg)
            return reader.geometry.map_shape, reader.growable

    def _found(self, mine: RunFile | None, *, thorough: bool) -> Look:
        map_shape, growable = self._read_unchanged(self._extent)
        size = math.prod(map_shape)
        wanted = self._wanted.among(map_shape, growable=growable)
        ready = self._ask_ready(size, wanted)
        latest = self.latest
        same = latest is not None and latest.computation.geometry.map_shape == map_shape
        if (
            same
            and latest is not None
            and not thorough
            and not latest.ahead.plan.pending
        ):
            before = latest.computation.ready
            if ready is None or (before is not None and ready.is_within(before)):
                return latest
        if ready is not None and len(ready) == size:
            ready = None
        found: Look = self._read_unchanged(
            lambda: self._resolved(mine, map_shape[0], wanted, ready, growable)
        )
        return found

    def _resolved(
        self,
        mine: RunFile | None,
        length: int,
        wanted: PositionSet | None,
        ready: PositionSet | None,
        growable: bool,
    ) -> Look:
        computation = resolve(self._process, live=True, length=length, ready=ready)
        options = dataclasses.replace(self._options, positions=_both(wanted, ready))
        if mine is None:
            # Before the runs are looked at: nobody else may change them from here on.
            self._take_lock(computation)
        elif not _goes_on(computation, mine):
            raise SourceChanged
        ahead = prospect(computation, options, mine=mine)
        unready = None
        if ready is not None:
            unready = _first_beyond(ready, wanted)
        size, end = computation.geometry.size, self._wanted.end
        exists = not growable or (end is not None and size >= end)
        to_come = None if exists else self._wanted.first_from(size)
        complete = exists and unready is None
        return Look(computation, ahead, unready, to_come, complete)

    def _ask_ready(self, size: int, wanted: PositionSet | None) -> PositionSet | None:
        """Ask the Process which of the requested positions may be read; None: all."""
        if not self._process._asks_ready:
            return None
        known = PositionSet(size)
        if self._ready is not None:
            known.bits[: len(self._ready.bits)] = self._ready.bits
        for start, stop in known.windows():
            there = known.window(start, stop)
            asked = ~there
            if wanted is not None:
                asked &= wanted.window(start, stop)
            inside = np.flatnonzero(asked)
            if len(inside):
                members = there.copy()
                members[inside] = self._answer(start + inside)
                known.set_window(start, members)
        self._ready = known
        return known

    def _answer(self, positions: Array) -> Array:
        answer = np.asarray(self._process.ready(positions))
        if answer.dtype != bool or answer.shape not in ((), positions.shape):
            msg = (
                f"{type(self._process).__name__}.ready must return a bool, or one for "
                f"each of the {len(positions)} positions, not {answer.dtype} of shape "
                f"{answer.shape}"
            )
            raise DeclarationError(msg)
        return np.broadcast_to(answer, positions.shape)


def _goes_on(computation: Computation, mine: RunFile) -> bool:
    """Return whether a run is of what the source holds now.

    Raises
    ------
    PlanError
        The outputs are others for every length.
    """
    then, now = mine.header.document, computation.spec.document
    folders = [computation.run_folder, computation.earlier]
    if mine.header.identity not in [folder.identity for folder in folders if folder]:
        if {**then, "source": 0} != {**now, "source": 0}:
            msg = (
                "outputs or inputs are others than when it began; where they "
                "depend on the number of positions, or an input can grow no "
                "further before the source, it cannot be followed"
            )
            raise PlanError(msg)
        return False
    if mine.header.source.get("contents") is None:
        return True  # a part of its identity
    with computation.open_reader() as reader:
        return not reader.has_data or begins_with(reader, mine)


def _both(one: PositionSet | None, other: PositionSet | None) -> PositionSet | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _first_beyond(ready: PositionSet, wanted: PositionSet | None) -> int | None:
    """Return the first requested position that is not ready."""
    for start, stop in ready.windows():
        missing = ~ready.window(start, stop)
        if wanted is not None:
            missing &= wanted.window(start, stop)
        if missing.any():
            return start + int(np.argmax(missing))
    return None
