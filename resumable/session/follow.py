"""Follow a source while it is written: compute what it has, wait for more, end.

A `Follower` polls the state of the files, which takes no lock and reads a few bytes.
When something may be new, its `SourceWatcher` looks: it reads the length, asks which
positions are ready, resolves the computation as it is now, and plans it. One session
computes what is pending, and asks the follower for more until the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import (
    DeclarationError,
    NotFinished,
    PlanError,
    SourceError,
    near,
    option,
)
from resumable.model import (
    PositionSet,
    RequestedPositions,
    format_seconds,
    parse_seconds,
)
from resumable.results import Results
from resumable.runfile import RunLock, run_folder_of
from resumable.session.computation import Assignment
from resumable.session.compute import (
    packed_where_asked,
    warn_of_edit,
    warn_of_failures,
    warn_of_random,
)
from resumable.session.decide import prospect
from resumable.session.events import Finished
from resumable.session.session import Session
from resumable.source import SourceWriter, file_state, open_reader, read_unchanged
from resumable.system import stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resumable.runfile import RunFile, RunFolder, Snapshot
    from resumable.session.computation import Computation, Options, Request
    from resumable.session.events import Listener
    from resumable.source import FileState
    from resumable.system import StopRequest

    Array = np.ndarray[Any, np.dtype[Any]]

logger = logging.getLogger("resumable")

#: Seconds between two polls of the files: more and more while nothing happens.
_SHORTEST_S, _LONGEST_S = 0.01, 0.25
#: After a round the next one waits for so many times what was not computing in it.
_SPACING = 9
#: What was just written can be read after this time at the latest, in seconds.
_SETTLING_S = 2.5


def follow_source(
    request: Request,
    resolve: Callable[..., Computation],
    options: Options,
    positions: Any,
    stop: StopRequest,
    listener: Listener | None,
) -> Results:
    """Compute what a source has, wait for more, and end when its writer does.

    `resolve` returns the computation as it is now; it takes ``live``, ``length`` and
    ``ready``. The time without a new position is `options.follow`, None for 0 s. What
    `positions` names need not exist yet; NotFinished says that it did not come in time.
    """
    with stop.watching():
        while True:
            watcher = SourceWatcher(request, resolve, options, positions)
            try:
                with watcher:
                    results = Follower(watcher, options, stop).run(listener)
            except SourceChanged:
                logger.warning("the source has changed, so a new run begins")
            else:
                break
    if listener is not None:
        listener(Finished(results))
    status = results.status
    if status.failed:
        warn_of_failures(results, status, request.geometry.map_shape)
    return results


class SourceChanged(Exception):
    """What was computed is not of what the source holds now."""


class Look(NamedTuple):
    """What a look at the source has found."""

    assignment: Assignment
    run: RunFile | None
    """The run to continue or to return."""
    snapshot: Snapshot | None
    unready: int | None
    """The first requested position that exists and is not ready."""
    to_come: int | None
    """The first requested position that does not exist yet, where that is known."""
    complete: bool
    """There is nothing more to wait for: all that is requested exists and is ready."""


class SourceWatcher:
    """Looks at what there is of a source and its inputs, and locks the runs of it.

    A context manager: it holds the locks. It takes what :func:`follow_source` takes.
    """

    def __init__(
        self,
        request: Request,
        resolve: Callable[..., Computation],
        options: Options,
        positions: Any,
    ) -> None:
        self._request, self._resolve, self._options = request, resolve, options
        self._positions = RequestedPositions(positions, request.geometry.map_shape)
        self._locks: dict[str, RunLock] = {}
        self._held = contextlib.ExitStack()
        # An output of another run does not change any more.
        refs = [request.source, *request.inputs.values()]
        paths = [ref.path for ref in refs if ref.path and not ref.upstream]
        #: Files that a program may be writing.
        self.paths = list(dict.fromkeys(paths))
        #: What the last look that could read everything has found.
        self.latest: Look | None = None
        self._ready: PositionSet | None = None

    def __enter__(self) -> SourceWatcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    def _lock_of(self, folder: RunFolder) -> RunLock:
        if folder.identity not in self._locks:
            lock = self._locks[folder.identity] = RunLock(folder)
            self._held.enter_context(lock.held())
        return self._locks[folder.identity]

    @property
    def of_all(self) -> bool:
        """Whatever comes is requested."""
        return self._positions.chosen is None

    def states(self) -> list[FileState]:
        """Return the states of the files."""
        return [file_state(path) for path in self.paths]

    def is_all_there(self) -> bool:
        """Return whether the last position has come; reads the length only."""
        if not self._positions.end and (self.latest is None or not self.paths):
            return False
        try:
            map_shape, growable = self._read_unchanged(self._extent)
        except SourceError:
            return False
        return not growable or self._reaches_end(math.prod(map_shape))

    def look(self, mine: RunFile | None, *, thorough: bool) -> Look:
        """Look at what there is by now; `mine` is the run that is being computed.

        A thorough look compares contents also where nothing seems to be new. A
        SourceError may pass; SourceChanged says that `mine` is of other contents.
        """
        map_shape, growable = self._read_unchanged(self._extent)
        size = math.prod(map_shape)
        requested = self._positions.among(map_shape, growable=growable)
        ready = self._ask_ready(size, requested)
        if self.latest is not None and not thorough:
            before = self.latest.assignment.computation
            same = before.geometry.map_shape == map_shape and (
                ready is None
                or (before.ready is not None and ready.is_within(before.ready))
            )
            if same and not self.latest.assignment.plan.pending:
                return self.latest
        if ready is not None and len(ready) == size:
            ready = None

        def resolved() -> Look:
            return self._resolved(mine, map_shape[0], requested, ready, growable)

        found: Look = self._read_unchanged(resolved)
        self.latest = found
        return found

    def _reaches_end(self, size: int) -> bool:
        end = self._positions.end
        return end is not None and size >= end

    def _read_unchanged(
        self, read: Callable[[], Any], paths: Sequence[str] | None = None
    ) -> Any:
        """Read while no program writes to any of the files."""
        paths = self.paths if paths is None else paths
        if not paths:
            return read()
        return read_unchanged(
            paths[0], lambda _: self._read_unchanged(read, paths[1:]), 0.0
        )

    def _extent(self) -> tuple[tuple[int, ...], bool]:
        """Return the shape of the map, and whether it can grow."""
        ref = dataclasses.replace(self._request.source, live=True)
        with open_reader(ref) as reader:
            reader.check_alone()
            if 0 in reader.geometry.map_shape:
                msg = f"{ref} has no positions yet"
                raise SourceError(msg)
            return reader.geometry.map_shape, reader.growable

    def _resolved(
        self,
        mine: RunFile | None,
        length: int,
        requested: PositionSet | None,
        ready: PositionSet | None,
        growable: bool,
    ) -> Look:
        computation = self._resolve(live=True, length=length, ready=ready)
        if mine is not None and not _goes_on(computation, mine):
            raise SourceChanged
        # Before the runs are looked at: no other process may change them from here.
        lock = self._lock_of(computation.run_folder)
        size, unready, now = computation.geometry.size, None, requested
        if ready is not None:
            if requested is None:
                requested = PositionSet.full(size)
            now, missing = requested & ready, requested - ready
            unready = missing.members_at(np.zeros(1, int))[0] if len(missing) else None
        options = dataclasses.replace(self._options, positions=now)
        exists = not growable or self._reaches_end(size)
        ahead = prospect(computation, options, mine=mine)
        if ahead.run and ahead.run.header.identity in computation.known_as:
            # By which the script of then is refused; what it did before is seen now.
            self._lock_of(run_folder_of(ahead.run))
            ahead = prospect(computation, options, mine=mine)
        return Look(
            Assignment(computation, ahead.options, ahead.plan, ahead.engine, lock),
            ahead.run,
            ahead.snapshot,
            unready,
            to_come=None if exists else self._positions.first_from(size),
            complete=exists and unready is None,
        )

    def _ask_ready(
        self, size: int, requested: PositionSet | None
    ) -> PositionSet | None:
        """Ask the user which of the requested positions may be read; None: all."""
        if not self._request.asks_ready:
            return None
        known = PositionSet(size)
        if self._ready is not None:
            known = self._ready.resized(size)
        asked = (PositionSet.full(size) if requested is None else requested) - known
        for start, stop in asked.windows():
            inside = np.flatnonzero(asked.window(start, stop))
            if len(inside):
                answer = self._request.process.ready(start + inside)
                members = known.window(start, stop).copy()
                members[inside] = _checked(answer, len(inside))
                known.set_window(start, members)
        self._ready = known
        return known


def _checked(answer: Any, count: int) -> Array:
    """Check what ``ready`` returned for so many positions."""
    found = np.asarray(answer)
    if found.dtype != bool or found.shape not in ((), (count,)):
        msg = (
            f"ready must return a bool, or one for each of the {count} positions, not "
            f"{found.dtype} of shape {found.shape}"
        )
        raise DeclarationError(msg)
    return found


def _goes_on(computation: Computation, mine: RunFile) -> bool:
    """Return whether a run is of what the source holds now."""
    then, now = mine.header.document, computation.document
    folders = [computation.run_folder, computation.earlier_folder]
    known = [*(one.identity for one in folders if one), *computation.known_as]
    if mine.header.identity not in known:
        if {**then, "source": 0} != {**now, "source": 0}:
            msg = (
                "outputs or inputs are others than when it began; where they "
                "depend on the number of positions, or an input can grow no "
                "further before the source, it cannot be followed"
            )
            raise PlanError(msg)
        return False
    return not computation.changed_in(mine)


class Follower:
    """Waits for positions of a source, for one call of compute."""

    def __init__(
        self, source: SourceWatcher, options: Options, stop: StopRequest
    ) -> None:
        if hasattr(options.engine, "together"):
            msg = (
                f"{option('follow')} and ready() need one process that waits, and the "
                "ranks of MPI all call compute; use another engine, or compute when it "
                "is all there"
            )
            raise PlanError(msg)
        for name in ("rechunk", "retry_failed"):
            if getattr(options, name) and options.follow is not None:
                msg = (
                    f"{option(name, True)} is for what is there, {option('follow')} "
                    "for what is to come: compute once with each of them"
                )
                raise PlanError(msg)
        self._source = source
        self._options, self._stop = options, stop
        self._wait_s = 0.0 if options.follow is None else parse_seconds(options.follow)
        self._writers = [SourceWriter() for _ in self._source.paths]
        # States of the files at the last poll, and at the last look.
        self._polled: list[FileState] | None = None
        self._looked_at: list[FileState] | None = None
        #: Why the last look could not read.
        self._trouble: SourceError | None = None
        #: The run of the session.
        self._mine: RunFile | None = None
        self._news_at = self._round_began = time.monotonic()
        self._next_look = 0.0
        self._worked_s = 0.0
        self._ended = False

    def run(self, listener: Listener | None) -> Results:
        """Follow the source to its end."""
        while True:
            found = self._await()
            if found is None:
                results, latest = self._results(), self._source.latest
                if results is None or latest is None or self._stop.requested():
                    raise stopped(self._stop, results)
                # A session that was killed at its very end may not have packed it.
                return packed_where_asked(latest.assignment.computation, results)
            try:
                computation, run = found.assignment.computation, found.run
                if run is not None and found.snapshot is not None:
                    warn_of_edit(computation, run, found.snapshot)
                warn_of_random(computation)
                session = Session(found.assignment, run, self._stop, listener)
            except SourceError as error:
                # Another program has opened it since the look.
                self._judge(error, self._news_at)
            else:
                results, _ = session.run_to_end(self._more)
                return packed_where_asked(computation, results)

    def _more(self, session: Session) -> Assignment | None:
        """Wait until there is more to do for a session; None when there is not."""
        self._mine = session.run
        now = time.monotonic()
        worked = (session.worked_s - self._worked_s) / session.assignment.plan.workers
        self._worked_s = session.worked_s
        if session.trouble is not None:
            self._judge(session.trouble, self._news_at if worked == 0 else now)
        else:
            self._news_at = now
        # Failed positions are tried again once, not as long as there are any.
        self._ended = self._ended or self._options.retry_failed
        # What a round costs besides computing may take a tenth of the time.
        besides = max(0.0, now - self._round_began - worked)
        self._next_look = now + _SPACING * besides
        found = self._await()
        return None if found is None else found.assignment

    def _judge(self, trouble: SourceError, news_at: float) -> None:
        """Give up what cannot be read, if the file is at rest or it takes too long."""
        self._news_at = news_at
        states = self._source.states()
        at_rest = states == self._looked_at and not any(s.swmr for s in states)
        late = time.monotonic() - news_at >= max(self._wait_s, _SETTLING_S)
        if at_rest or late:
            raise self._given_up(str(trouble), late=late) from trouble
        time.sleep(_LONGEST_S)

    # Waiting.

    def _await(self) -> Look | None:
        """Wait until there is something to compute; None: it is over, or must stop."""
        pause_s = _SHORTEST_S
        for writer in self._writers:
            writer.forget()
        while not (self._ended or self._stop.requested()):
            states = self._source.states()
            if states != self._polled:
                pause_s = _SHORTEST_S
                if self._trouble is not None:
                    # It cannot be read, but a program writes it.
                    self._news_at = time.monotonic()
            self._polled = states
            for writer, state in zip(self._writers, states, strict=True):
                writer.note(state)
            found = self._look_where_due(states)
            if found is not None:
                self._round_began = time.monotonic()
                return found
            if not self._ended:
                time.sleep(pause_s)
                pause_s = min(1.5 * pause_s, _LONGEST_S)
        return None

    def _look_where_due(self, states: list[FileState]) -> Look | None:
        """Look if it is time to; return what there is to do, or note the end."""
        why = self._end_in_sight(states)
        if not why and not self._may_be_new(states):
            return None
        # At the end, what was computed must be what the source holds now.
        found = self._look(states, thorough=bool(why))
        if found is None or found.assignment.plan.pending:
            if self._trouble is not None and why == "late":
                raise self._given_up(str(self._trouble)) from self._trouble
            return found
        if not why or (why == "complete" and not found.complete):
            return None
        if not found.complete:
            self._check_end(found, states, late=why == "late")
        self._ended = True
        # Without a pending position there may still be a run to finish, or to make.
        settled = found.assignment.plan.action == "return" or not self._source.of_all
        return None if settled and found.run is not None else found

    def _look(self, states: list[FileState], *, thorough: bool) -> Look | None:
        """Look at the source; None: it cannot be read at this moment."""
        began = time.monotonic()
        try:
            found = self._source.look(self._mine, thorough=thorough)
        except SourceError as error:
            self._trouble = error
            return None
        finally:
            took = time.monotonic() - began
            self._next_look = max(self._next_look, time.monotonic() + _SPACING * took)
        self._trouble, self._looked_at = None, states
        return found

    def _may_be_new(self, states: list[FileState]) -> bool:
        """Return whether something may be new, and it is time to look at it."""
        latest = self._source.latest
        if latest and self._looked_at == states and latest.unready is None:
            return False
        if time.monotonic() >= self._next_look:
            return True
        return self._writers_have_ended or self._source.is_all_there()

    @property
    def _writers_have_ended(self) -> bool:
        return all(writer.has_ended for writer in self._writers)

    def _end_in_sight(self, states: list[FileState]) -> str:
        """Return why this may be the end: complete, late, closed; or an empty text."""
        latest = None if self._trouble else self._source.latest
        if latest is not None and latest.complete:
            return "complete"
        patience_s = self._wait_s
        if any(not (state.readable or state.open) for state in states):
            # Written a moment ago, and readable soon whatever the user's patience is.
            patience_s = max(patience_s, _SETTLING_S)
        if time.monotonic() - self._news_at >= patience_s:
            return "late"
        closed = bool(self._writers) and self._writers_have_ended
        return "closed" if closed and latest and latest.unready is None else ""

    def _check_end(self, latest: Look, states: list[FileState], *, late: bool) -> None:
        """Raise where it is known that this is not the end."""
        for path, state in zip(self._source.paths, states, strict=True):
            if state.open and self._options.follow is not None:
                why = (
                    f"{path} is still marked as open for writing, and nothing was "
                    "written: the program that writes it is silent, or was killed. If "
                    f"no program has it open any more, h5clear -s {path} (a part of "
                    "HDF5) takes the mark away; to compute without "
                    f"{option('follow')} takes what is there"
                )
                raise self._given_up(why)
        waited = format_seconds(self._wait_s) if self._wait_s else "no waiting"
        if latest.unready is not None:
            why = f"position {latest.unready} is not ready after {waited}"
        elif latest.to_come is None:
            return
        elif late:
            why = f"position {latest.to_come} has not come after {waited}"
        else:
            why = (
                f"position {latest.to_come} has not come, and the program that wrote "
                "has closed the file"
            )
        results = self._results()
        kept = f" ({results.status}, in {near(results.path)})" if results else ""
        message = (
            f"{why}{kept}; run the same again to go on, with a longer "
            f"{option('follow')} if need be"
        )
        logger.warning("%s", message)
        raise NotFinished(message, results)

    def _given_up(self, why: str, *, late: bool = True) -> SourceError:
        results = self._results()
        kept = f". {results.status}, kept in {near(results.path)}" if results else ""
        waited = ""
        if late and self._wait_s:
            waited = f"; waited {format_seconds(self._wait_s)}"
        return SourceError(f"{why}{waited}{kept}")

    def _results(self) -> Results | None:
        latest = self._source.latest
        run = self._mine or (latest.run if latest else None)
        return Results(run) if run else None
