"""Following a source while it is written: what is new, and when it is over."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable import live
from resumable.catalogue import Claim
from resumable.decision import for_run, make_plan
from resumable.driver import (
    packed_where_asked,
    tell_of_left_runs,
    warn_of_edit,
    warn_of_failures,
)
from resumable.errors import DeclarationError, NotFinished, PlanError, SourceError
from resumable.events import Finished
from resumable.live import Writer
from resumable.positions import PositionSet
from resumable.reader import Reader
from resumable.recipe import begins_with
from resumable.resolve import resolve
from resumable.results import Results
from resumable.session import Session, Step, stopped
from resumable.sharing import frozen
from resumable.units import format_seconds, parse_seconds
from resumable.wanted import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resumable.events import Listener
    from resumable.live import Sign
    from resumable.plan import Plan
    from resumable.process import Process
    from resumable.recipe import Options, Recipe
    from resumable.runfile import RunFile
    from resumable.stop import StopRequest

    Array = np.ndarray[Any, np.dtype[Any]]

logger = logging.getLogger("resumable")

#: Looks at the file are so far apart, in seconds: more and more while nothing happens.
_SHORTEST_S, _LONGEST_S = 0.01, 0.25
#: After a round the next one waits for so many times what was not computing in it.
_SPACING = 9
#: What was just written can be read after this time at the latest, in seconds.
_SETTLING_S = 2.5


class SourceChanged(Exception):
    """What was computed is not of what the source holds now."""


def follow(
    process: Process,
    options: Options,
    positions: Any,
    stop: StopRequest,
    tell: Listener,
) -> Results:
    """Compute what is there of a source, wait for more, and end with its writer.

    Parameters
    ----------
    process : Process
    options : Options
        How; its `wait` is how long nothing new may come, in seconds. None: do not wait.
    positions : slice, mask, index or indices, optional
        What is requested; it need not be there yet.
    stop : StopRequest
        Its time has begun.
    tell : callable
        Takes the events.

    Raises
    ------
    NotFinished
        It was stopped, or positions that exist were not ready in time.
    SourceError
        The source could not be read in time, or was not closed by its writer.
    PlanError
        An option makes no sense here.
    """
    with stop.watching(), frozen(process):
        while True:
            follower = Follower(process, options, positions, stop)
            try:
                with follower:
                    results = follower.run(tell)
            except SourceChanged:
                logger.warning("the source has changed, so a new run begins")
            else:
                break
    tell(Finished(results))
    warn_of_failures(results, process.map_shape)
    return results


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """What a look at the source has found."""

    recipe: Recipe
    options: Options
    plan: Plan
    run: RunFile | None
    unready: int | None
    """The first requested position that exists and is not ready."""
    complete: bool
    """There is nothing more to wait for: all that is requested exists and is ready."""


class Follower:
    """Waits for positions of a source, on behalf of one call of compute.

    A context manager: it holds the claims.

    Parameters
    ----------
    process, options, positions, stop
        As :func:`follow` takes them.
    """

    def __init__(
        self, process: Process, options: Options, positions: Any, stop: StopRequest
    ) -> None:
        _check(options)
        if any(output.ragged for output in process._outputs().values()):
            msg = (
                "wait= does not go with ragged outputs; compute() after the measurement"
            )
            raise PlanError(msg)
        self._process, self._options, self._stop = process, options, stop
        self._wait_s = 0.0 if options.wait is None else parse_seconds(options.wait)
        self._wanted = Wanted(positions, process.map_shape)
        refs = [process._source, *process._inputs.values()]
        # An output of another run does not change any more.
        self._paths = list(
            dict.fromkeys(r.path for r in refs if r.path and not r.upstream)
        )
        self._ready: PositionSet | None = None
        self._writers = [Writer() for _ in self._paths]
        self._signs: list[Sign] | None = None
        self._looked_at: list[Sign] | None = None
        self._trouble: SourceError | None = None
        self._latest: _Found | None = None
        self._mine: RunFile | None = None
        self._news_at = self._round_began = time.monotonic()
        self._next_look = 0.0
        self._worked_s = 0.0
        self._ended = False
        self._claims: dict[str, Claim] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def run(self, tell: Listener) -> Results:
        """Follow the source to its end."""
        found = self._await(None)
        if found is None:
            results = self._results()
            if results is None or self._stop.requested:
                raise stopped(self._stop, results)
            return results
        if found.run is None:
            tell_of_left_runs(found.recipe)
        else:
            warn_of_edit(found.recipe, found.run)
        session = Session(
            found.recipe,
            for_run(found.options, found.run),
            found.plan,
            found.run,
            self._claim(found.recipe),
            self._stop,
            tell,
        )
        return packed_where_asked(found.recipe, session.run_to_end(self._more))

    def _more(self, session: Session) -> Step | None:
        """Wait until there is more to do for a session; None when there is not."""
        self._mine = session.run
        now = time.monotonic()
        worked = (session.worked_s - self._worked_s) / session.workers
        self._worked_s = session.worked_s
        if session.trouble is not None:
            self._judge(session.trouble, self._news_at if worked == 0 else now)
        else:
            self._news_at = now
        # Failed positions are tried again once, not as long as there are any.
        self._ended = self._ended or self._options.retry_failed
        # The files that were read and written for it: at most a tenth of the time.
        besides = max(0.0, now - self._round_began - worked)
        self._next_look = now + _SPACING * besides
        found = self._await(session.run)
        if found is None:
            return None
        return Step(found.recipe, found.options, found.plan, self._claim(found.recipe))

    def _judge(self, trouble: SourceError, news_at: float) -> None:
        """Decide whether what could not be read is worth another try.

        Raises
        ------
        SourceError
            It is not: the file is as it was, or it goes on for too long.
        """
        self._news_at = news_at
        signs = [live.sign_of(path) for path in self._paths]
        at_rest = signs == self._looked_at and not any(sign.swmr for sign in signs)
        late = time.monotonic() - news_at >= max(self._wait_s, _SETTLING_S)
        if at_rest or late:
            raise self._given_up(str(trouble), late=late) from trouble
        time.sleep(_LONGEST_S)

    def _claim(self, recipe: Recipe) -> Claim:
        claim = self._claims.get(recipe.shelf.identity)
        if claim is None:
            claim = self._claims[recipe.shelf.identity] = Claim(recipe.shelf)
            self._open.enter_context(claim.held())
        return claim

    # Waiting.

    def _await(self, mine: RunFile | None) -> _Found | None:
        """Wait until there is something to compute; None when it is over.

        Raises
        ------
        SourceChanged, SourceError, NotFinished
        """
        pause = _SHORTEST_S
        for writer in self._writers:
            writer.forget()
        while not (self._ended or self._stop.requested):
            if self._stop.paused:
                self._stop.wait_while_paused()
                self._news_at = time.monotonic()
                continue
            signs = [live.sign_of(path) for path in self._paths]
            if signs != self._signs:
                pause = _SHORTEST_S
                if self._trouble is not None:
                    # It cannot be read, but somebody is at work.
                    self._news_at = time.monotonic()
            self._signs = signs
            for writer, sign in zip(self._writers, signs, strict=True):
                writer.note(sign)
            found = self._look(mine, signs) if self._is_time(signs) else None
            if found is None:
                found = self._at_the_end(mine, signs)
            if found is not None:
                self._round_began = time.monotonic()
                return found
            if not self._ended:
                time.sleep(pause)
                pause = min(1.5 * pause, _LONGEST_S)
        return None

    def _is_time(self, signs: list[Sign]) -> bool:
        """Return whether something may be new, and it is time to look at it."""
        latest = self._latest
        if latest and self._looked_at == signs and latest.unready is None:
            return False
        if time.monotonic() >= self._next_look:
            return True
        return all(writer.gone for writer in self._writers) or self._is_all_there()

    def _is_all_there(self) -> bool:
        """Return whether the last position has come, by a glance at the length."""
        if not self._wanted.end and (self._latest is None or not self._paths):
            return False
        try:
            map_shape, growable = self._steadily(self._extent)
        except SourceError:
            return False
        end = self._wanted.end
        return not growable or (end is not None and math.prod(map_shape) >= end)

    def _look(
        self, mine: RunFile | None, signs: list[Sign], *, thorough: bool = False
    ) -> _Found | None:
        """Look at the source; return what was found if there is something to do."""
        began = time.monotonic()
        try:
            found = self._find(mine, thorough=thorough)
        except SourceError as error:
            self._trouble = error
            return None
        finally:
            took = time.monotonic() - began
            self._next_look = max(self._next_look, time.monotonic() + _SPACING * took)
        self._trouble, self._latest, self._looked_at = None, found, signs
        return found if found.plan.pending else None

    def _at_the_end(self, mine: RunFile | None, signs: list[Sign]) -> _Found | None:
        """Look whether it is over; if so, return what is left to do, or note the end.

        Raises
        ------
        SourceError, NotFinished
            It is given up.
        """
        latest = self._latest
        seen = latest is not None and self._trouble is None
        complete = latest is not None and seen and latest.complete
        gone = bool(self._writers) and all(writer.gone for writer in self._writers)
        gone = gone and seen and latest is not None and latest.unready is None
        late = time.monotonic() - self._news_at >= self._patience(signs)
        if not (complete or gone or late):
            return None
        # The last look: what was computed must be what the source holds now.
        found = self._look(mine, signs, thorough=True)
        if found is not None:
            return found
        if self._trouble is not None:
            if late:
                raise self._given_up(str(self._trouble)) from self._trouble
            return None
        latest = self._latest
        if latest is None or not (latest.complete or gone or late):
            return None
        if late and not (latest.complete or gone):
            self._check_end(latest, signs)
        self._ended = True
        settled = latest.plan.action == "return" or self._wanted.chosen is not None
        return None if settled and latest.run is not None else latest

    def _patience(self, signs: list[Sign]) -> float:
        """Return how many seconds without news are too many."""
        if any(not (sign.readable or sign.open) for sign in signs):
            # Written a moment ago: nobody need have asked to wait for that to pass.
            return max(self._wait_s, _SETTLING_S)
        return self._wait_s

    def _check_end(self, latest: _Found, signs: list[Sign]) -> None:
        """Refuse to call it the end where it is known that it is not.

        Raises
        ------
        SourceError, NotFinished
        """
        for path, sign in zip(self._paths, signs, strict=True):
            if sign.open and self._options.wait is not None:
                why = (
                    f"{path} is still marked as open for writing, and nothing was "
                    "written: the program that writes it is silent, or was killed. If "
                    f"nobody has it open any more, h5clear -s {path} (a part of HDF5) "
                    "takes the mark away; compute() without wait takes what is there"
                )
                raise self._given_up(why)
        if latest.unready is not None:
            results = self._results()
            kept = f" ({results.status}, in {results.path})" if results else ""
            waited = format_seconds(self._wait_s) if self._wait_s else "no waiting"
            message = (
                f"position {latest.unready} is not ready after {waited}{kept}; run the "
                "same again to go on, with a longer wait= if need be"
            )
            logger.warning("%s", message)
            raise NotFinished(message, results)

    def _given_up(self, why: str, *, late: bool = True) -> SourceError:
        results = self._results()
        kept = f". {results.status}, kept in {results.path}" if results else ""
        waited = ""
        if late and self._wait_s:
            waited = f"; waited {format_seconds(self._wait_s)}"
        return SourceError(f"{why}{waited}{kept}")

    def _results(self) -> Results | None:
        run = self._mine or (self._latest.run if self._latest else None)
        return Results(run.path) if run else None

    # Looking.

    def _steadily(
        self, read: Callable[[], Any], paths: Sequence[str] | None = None
    ) -> Any:
        """Read while nobody writes to any of the files."""
        paths = self._paths if paths is None else paths
        if not paths:
            return read()
        return live.steadily(paths[0], lambda _: self._steadily(read, paths[1:]), 0.0)

    def _extent(self) -> tuple[tuple[int, ...], bool]:
        """Return the shape of the map, and whether it can grow."""
        ref = dataclasses.replace(self._process._source, live=True)
        with Reader(ref) as reader:
            reader.check_alone()
            if 0 in reader.geometry.map_shape:
                msg = f"{ref} has no positions yet"
                raise SourceError(msg)
            return reader.geometry.map_shape, reader.growable

    def _find(self, mine: RunFile | None, *, thorough: bool) -> _Found:
        map_shape, growable = self._steadily(self._extent)
        size = math.prod(map_shape)
        wanted = self._wanted.among(map_shape, growable=growable)
        ready = self._ask_ready(size, wanted)
        latest = self._latest
        same = latest is not None and latest.recipe.geometry.map_shape == map_shape
        if same and latest is not None and not thorough and not latest.plan.pending:
            before = latest.recipe.ready
            if ready is None or (before is not None and ready.is_within(before)):
                return latest
        if ready is not None and len(ready) == size:
            ready = None
        found: _Found = self._steadily(
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
    ) -> _Found:
        recipe = resolve(self._process, live=True, length=length, ready=ready)
        options = dataclasses.replace(self._options, positions=_both(wanted, ready))
        if mine is None:
            # Before the runs are looked at: nobody else may change them from here on.
            self._claim(recipe)
        elif not self._goes_on(recipe, mine):
            raise SourceChanged
        plan, run = make_plan(recipe, options, mine)[:2]
        unready = None
        if ready is not None:
            unready = _first_beyond(ready, wanted)
        end = self._wanted.end
        exists = not growable or (end is not None and recipe.geometry.size >= end)
        complete = exists and unready is None
        return _Found(recipe, options, plan, run, unready, complete)

    def _goes_on(self, recipe: Recipe, mine: RunFile) -> bool:
        """Return whether a run is of what the source holds now.

        Raises
        ------
        PlanError
            The outputs are others for every length.
        """
        then, now = mine.header.document, recipe.birth.document
        shelves = [recipe.shelf, recipe.earlier]
        if mine.header.identity not in [shelf.identity for shelf in shelves if shelf]:
            if {**then, "source": 0} != {**now, "source": 0}:
                msg = (
                    "outputs or inputs are others than when it began; where they "
                    "depend on the number of positions, or an input can grow no "
                    "further before the source, it cannot be followed"
                )
                raise PlanError(msg)
            return False
        with recipe.open_reader() as reader:
            return not reader.has_data or _is_still(reader, mine)

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


def _check(options: Options) -> None:
    """Refuse options that make no sense for what is written meanwhile.

    Raises
    ------
    PlanError
    """
    if hasattr(options.engine, "together"):
        msg = (
            "wait= and ready() need one process that waits, and the ranks of MPI all "
            "call compute; use another engine, or compute() when it is all there"
        )
        raise PlanError(msg)
    for name in ("rechunk", "retry_failed"):
        if getattr(options, name) and options.wait is not None:
            msg = f"{name}=True is for what is there, wait= for what is to come: "
            raise PlanError(msg + "call compute once with each of them")


def _is_still(reader: Reader, run: RunFile) -> bool:
    if run.header.source.get("contents") is None:
        return True  # a part of its identity
    return begins_with(reader, run)


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
