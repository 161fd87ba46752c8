"""Following a source while it is written: what is new, and when it is over."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from resumable.errors import NotFinished, PlanError, SourceError
from resumable.model import format_seconds, parse_seconds
from resumable.results import Results
from resumable.runfile import RunLock
from resumable.session.driver import (
    packed_where_asked,
    tell_of_left_runs,
    warn_of_edit,
    warn_of_failures,
    writable,
)
from resumable.session.events import Finished
from resumable.session.observer import SourceChanged, SourceWatcher
from resumable.session.prepare import Assignment
from resumable.session.session import Session
from resumable.source import SourceWriter
from resumable.system import stopped

if TYPE_CHECKING:
    from resumable.process import Process
    from resumable.runfile import RunFile
    from resumable.session.computation import Computation, Options
    from resumable.session.events import Listener
    from resumable.session.observer import Look
    from resumable.source import FileState
    from resumable.system import StopRequest

logger = logging.getLogger("resumable")

#: Looks at the file are so far apart, in seconds: more and more while nothing happens.
_SHORTEST_S, _LONGEST_S = 0.01, 0.25
#: After a round the next one waits for so many times what was not computing in it.
_SPACING = 9
#: What was just written can be read after this time at the latest, in seconds.
_SETTLING_S = 2.5


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
        How; `follow` is how many seconds may pass without a new position, None for 0.
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
    with stop.watching():
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
    warn_of_failures(results, results.status, process.map_shape)
    return results


class Follower:
    """Waits for positions of a source, on behalf of one call of compute.

    A context manager: it holds the locks.

    Parameters
    ----------
    process, options, positions, stop
        As :func:`follow` takes them.
    """

    def __init__(
        self, process: Process, options: Options, positions: Any, stop: StopRequest
    ) -> None:
        _check(options)
        self._options, self._stop = options, stop
        self._wait_s = 0.0 if options.follow is None else parse_seconds(options.follow)
        self._source = SourceWatcher(process, options, positions, self._take_lock)
        self._writers = [SourceWriter() for _ in self._source.paths]
        self._signs: list[FileState] | None = None
        self._looked_at: list[FileState] | None = None
        self._trouble: SourceError | None = None
        self._mine: RunFile | None = None
        self._news_at = self._round_began = time.monotonic()
        self._next_look = 0.0
        self._worked_s = 0.0
        self._ended = False
        self._locks: dict[str, RunLock] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def run(self, tell: Listener) -> Results:
        """Follow the source to its end."""
        while True:
            found = self._await(None)
            if found is None:
                results, latest = self._results(), self._source.latest
                if results is None or latest is None or self._stop.requested:
                    raise stopped(self._stop, results)
                # A session that was killed at its very end may have left that to do.
                return packed_where_asked(latest.computation, results)
            try:
                session = self._session(found, tell)
            except SourceError as error:
                # Somebody has opened it since we looked.
                self._judge(error, self._news_at)
            else:
                results, _ = session.run_to_end(self._more)
                return packed_where_asked(found.computation, results)

    def _session(self, found: Look, tell: Listener) -> Session:
        computation, ahead = found.computation, found.ahead
        run = ahead.run
        if run is None or ahead.snapshot is None:
            tell_of_left_runs(computation)
        else:
            warn_of_edit(computation, run, ahead.snapshot)
            if computation.full_length(run.header):
                run = writable(run)
        return Session(self._assignment(found), run, self._stop, tell)

    def _assignment(self, found: Look) -> Assignment:
        ahead, lock = found.ahead, self._take_lock(found.computation)
        return Assignment(
            found.computation, ahead.options, ahead.plan, ahead.engine, lock
        )

    def _more(self, session: Session) -> Assignment | None:
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
        return None if found is None else self._assignment(found)

    def _judge(self, trouble: SourceError, news_at: float) -> None:
        """Decide whether what could not be read is worth another try.

        Raises
        ------
        SourceError
            It is not: the file is as it was, or it goes on for too long.
        """
        self._news_at = news_at
        signs = self._source.signs()
        at_rest = signs == self._looked_at and not any(sign.swmr for sign in signs)
        late = time.monotonic() - news_at >= max(self._wait_s, _SETTLING_S)
        if at_rest or late:
            raise self._given_up(str(trouble), late=late) from trouble
        time.sleep(_LONGEST_S)

    def _take_lock(self, computation: Computation) -> RunLock:
        lock = self._locks.get(computation.run_folder.identity)
        if lock is None:
            lock = self._locks[computation.run_folder.identity] = RunLock(
                computation.run_folder
            )
            self._open.enter_context(lock.held())
        return lock

    # Waiting.

    def _await(self, mine: RunFile | None) -> Look | None:
        """Wait until there is something to compute; None when it is over.

        Raises
        ------
        SourceChanged, SourceError, NotFinished
        """
        pause = _SHORTEST_S
        for writer in self._writers:
            writer.forget()
        while not (self._ended or self._stop.requested):
            signs = self._source.signs()
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

    def _is_time(self, signs: list[FileState]) -> bool:
        """Return whether something may be new, and it is time to look at it."""
        latest = self._source.latest
        if latest and self._looked_at == signs and latest.unready is None:
            return False
        if time.monotonic() >= self._next_look:
            return True
        if all(writer.has_ended for writer in self._writers):
            return True
        return self._source.is_all_there()

    def _look(
        self, mine: RunFile | None, signs: list[FileState], *, thorough: bool = False
    ) -> Look | None:
        """Look at the source; return what was found if there is something to do."""
        began = time.monotonic()
        try:
            found = self._source.look(mine, thorough=thorough)
        except SourceError as error:
            self._trouble = error
            return None
        finally:
            took = time.monotonic() - began
            self._next_look = max(self._next_look, time.monotonic() + _SPACING * took)
        self._trouble, self._looked_at = None, signs
        return found if found.ahead.plan.pending else None

    def _at_the_end(self, mine: RunFile | None, signs: list[FileState]) -> Look | None:
        """Look whether it is over; if so, return what is left to do, or note the end.

        Raises
        ------
        SourceError, NotFinished
            It is given up.
        """
        latest = self._source.latest
        seen = latest is not None and self._trouble is None
        complete = latest is not None and seen and latest.complete
        gone = bool(self._writers) and all(writer.has_ended for writer in self._writers)
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
        latest = self._source.latest
        if latest is None or not (latest.complete or gone or late):
            return None
        if not latest.complete:
            self._check_end(latest, signs, late=late)
        self._ended = True
        settled = latest.ahead.plan.action == "return" or not self._source.of_all
        return None if settled and latest.ahead.run is not None else latest

    def _patience(self, signs: list[FileState]) -> float:
        """Return how many seconds without news are too many."""
        if any(not (sign.readable or sign.open) for sign in signs):
            # Written a moment ago: nobody need have asked to wait for that to pass.
            return max(self._wait_s, _SETTLING_S)
        return self._wait_s

    def _check_end(self, latest: Look, signs: list[FileState], *, late: bool) -> None:
        """Refuse to call it the end where it is known that it is not.

        Raises
        ------
        SourceError, NotFinished
        """
        for path, sign in zip(self._source.paths, signs, strict=True):
            if sign.open and self._options.follow is not None:
                why = (
                    f"{path} is still marked as open for writing, and nothing was "
                    "written: the program that writes it is silent, or was killed. If "
                    f"nobody has it open any more, h5clear -s {path} (a part of HDF5) "
                    "takes the mark away; compute() without follow= takes what is there"
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
        kept = f" ({results.status}, in {results.path})" if results else ""
        message = (
            f"{why}{kept}; run the same again to go on, with a longer follow= if need "
            "be"
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
        run = self._mine or (
            self._source.latest.ahead.run if self._source.latest else None
        )
        return Results(run) if run else None


def _check(options: Options) -> None:
    """Refuse options that make no sense for what is written meanwhile.

    Raises
    ------
    PlanError
    """
    if hasattr(options.engine, "together"):
        msg = (
            "follow= and ready() need one process that waits, and the ranks of MPI all "
            "call compute; use another engine, or compute() when it is all there"
        )
        raise PlanError(msg)
    for name in ("rechunk", "retry_failed"):
        if getattr(options, name) and options.follow is not None:
            msg = f"{name}=True is for what is there, follow= for what is to come: "
            raise PlanError(msg + "call compute once with each of them")
