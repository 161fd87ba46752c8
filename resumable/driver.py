"""A session: from the wanted computation to its results.

:func:`compute` looks whether the results are there, claims the run, makes or
continues its run file, has an engine do what is pending, and finishes.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable import birth as births
from resumable import disk, engines, machine
from resumable.batch import Job, Report
from resumable.catalogue import Claim, Shelf
from resumable.errors import (
    NotFinished,
    OutputError,
    PlanError,
    ResumableWarning,
    UnitFailed,
)
from resumable.output import by_name, fitted
from resumable.plan import (
    TRIALS,
    Footprint,
    Geometry,
    Plan,
    Schedule,
    fit_memory,
)
from resumable.positions import PositionSet
from resumable.progress import progress_bar
from resumable.results import Results
from resumable.runfile import Failure, Ledger, RunFile
from resumable.units import format_bytes, parse_bytes, parse_seconds
from resumable.writer import RowWriter, WriteTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from resumable.engines import Engine
    from resumable.output import Output
    from resumable.positions import Batch
    from resumable.source import Reader, SourceRef

logger = logging.getLogger("resumable")

#: A second Ctrl-C counts as one after this many seconds.
_SECOND_PRESS_S = 0.5

#: Read amplification above which a rechunked copy is advised.
ADVISED_ABOVE = 3.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A computation with everything resolved: what is wanted, not how."""

    process: Any
    """The user's Process."""
    source: SourceRef
    """Where the data are."""
    inputs: Mapping[str, SourceRef]
    """Further sources by argument name."""
    outputs: Mapping[str, Output]
    """All outputs."""
    geometry: Geometry
    """How the positions lie in the source."""
    footprint: Footprint
    """Memory for a number of positions."""
    shelf: Shelf
    """Where its runs lie."""
    birth: births.Birth
    """What a new run file would be made of."""
    open_reader: Callable[[], Reader]
    """Opens the source."""
    seconds_per_position: float | None
    """As ``test`` measured it, or None."""

    @property
    def position_outputs(self) -> dict[str, Output]:
        """Outputs that have a row per position."""
        return {n: o for n, o in self.outputs.items() if o.per == "position"}


@dataclasses.dataclass(frozen=True)
class Options:
    """How to compute; nothing here is part of the identity."""

    engine: Any = "auto"
    workers: int | None = None
    memory: float | str | None = None
    positions: PositionSet | None = None
    override: bool = False
    on_error: str = "record"
    retry_failed: bool = False
    time_limit: float | str | None = None
    checkpoint: float = 10
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("record", "raise"):
            msg = f"on_error must be 'record' or 'raise', not {self.on_error!r}"
            raise PlanError(msg)
        if self.workers is not None and not _is_count(self.workers):
            msg = f"workers must be a whole number from 1, not {self.workers!r}"
            raise PlanError(msg)
        if not self.checkpoint > 0:
            msg = f"checkpoint must be a positive time in s, not {self.checkpoint}"
            raise PlanError(msg)
        if self.time_limit is not None:
            parse_seconds(self.time_limit)
        if self.memory is not None:
            parse_bytes(self.memory)


def _is_count(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and value >= 1


def existing(recipe: Recipe) -> RunFile | None:
    """Return the run to go on with or return: the newest, complete ones first."""
    runs = recipe.shelf.runs()
    complete = [run for run in runs if run.finished]
    newest = complete or runs
    return newest[-1] if newest else None


def _to_override(recipe: Recipe) -> RunFile | None:
    """Return the run that ``override=True`` goes on with, None to begin anew.

    An unfinished run that itself was made by override is gone on with: otherwise
    the same line, run again after a kill, would begin again each time.
    """
    runs = recipe.shelf.runs()
    if len(runs) > 1 and not runs[-1].finished:
        return runs[-1]
    return None


def make_plan(recipe: Recipe, options: Options) -> tuple[Plan, RunFile | None]:
    """Decide what a session will do; reads the status, writes nothing.

    Raises
    ------
    PlanError
        The memory budget is too small, an option makes no sense.
    RunFileError
        The file that has this run's name is damaged.
    """
    run = _to_override(recipe) if options.override else existing(recipe)
    if run is None and not options.override:
        damaged = recipe.shelf.damaged()
        if damaged:
            raise damaged[-1]
    action, reason, pending = _decide(recipe, options, run)
    workers = int(options.workers or machine.usable_cores())
    engine = engines.choose(options.engine, workers)
    memory = _budget(options.memory)
    blocks = fit_memory(
        recipe.footprint,
        recipe.geometry,
        memory=memory,
        workers=engine.workers,
        local=engine.own_processes,
    )
    amplification = recipe.geometry.amplification(blocks.rows)
    notes = []
    if amplification > ADVISED_ABOVE:
        notes.append(
            "the source's chunks run across positions, so much is read again and "
            "again: rechunk=True first makes a copy in position order, of "
            f"{format_bytes(recipe.geometry.row_bytes * recipe.geometry.size)}"
        )
    if blocks.workers < engine.workers:
        notes.append(
            f"{format_bytes(memory)} is enough for {blocks.workers} of "
            f"{engine.workers} workers"
        )
    plan = Plan(
        action=action,
        reason=reason,
        path=str(run.path if run else recipe.shelf.new_path()),
        positions=recipe.geometry.size,
        pending=pending,
        engine=engine.name if options.engine != "auto" else "auto",
        workers=blocks.workers,
        memory_bytes=memory,
        share_bytes=blocks.share_bytes,
        block=blocks.rows,
        block_bytes=recipe.footprint(blocks.rows),
        quantum=recipe.geometry.quantum,
        read_amplification=amplification,
        output_bytes=sum(
            o.row_bytes * (recipe.geometry.size if o.per == "position" else 1)
            for o in recipe.outputs.values()
        ),
        checkpoint_s=float(options.checkpoint),
        notes=tuple(notes),
        seconds_per_position=recipe.seconds_per_position,
    )
    return plan, run


def _budget(memory: float | str | None) -> int:
    """Bytes for all processes: what was asked for, at most what there is."""
    available = machine.available_memory()
    if memory is None:
        return available // 2
    return min(parse_bytes(memory), available)


def _decide(
    recipe: Recipe, options: Options, run: RunFile | None
) -> tuple[str, str, int]:
    """Return the action, the reason in words, and the number of pending positions."""
    wanted = options.positions
    if run is None:
        count = recipe.geometry.size if wanted is None else len(wanted)
        why = "a new run was asked for" if options.override else "no run matches"
        return "compute", why, count
    pending = len(_pending(run, options))
    done, failed = run.counts()
    if options.retry_failed and pending:
        return "continue", f"{pending:,} failed positions are tried again", pending
    if pending == 0 and (run.finished or done + failed < run.size):
        return "return", "all of it was computed before", 0
    return "continue", f"{done:,} of {run.size:,} positions are done", pending


def _pending(run: RunFile, options: Options) -> PositionSet:
    if options.retry_failed:
        return run.select(lambda done, failed: failed, options.positions)
    return run.select(lambda done, failed: ~(done | failed), options.positions)


def compute(recipe: Recipe, options: Options) -> Results:
    """Compute what is pending and return the results.

    Raises
    ------
    NotFinished
        Stopped by a signal or the time limit.
    RunBusy
        Another process computes this run.
    UnitFailed, OutputError
        The computation is wrong, or ``on_error="raise"``.
    TargetError, PlanError, RunFileError, WorkerDied
        See there.
    """
    plan, run = make_plan(recipe, options)
    if plan.action == "return":
        assert run is not None
        logger.info("%s: %s", run.path.name, plan.reason)
        return _returned(run, options)
    claim = Claim(recipe.shelf)
    with claim.held():
        # Again, now that nobody else can change it.
        plan, run = make_plan(recipe, options)
        if plan.action == "return":
            assert run is not None
            return _returned(run, options)
        logger.info("%s", plan)
        session = _Session(recipe, options, plan, run, claim)
        return session.run_to_end()


def _returned(run: RunFile, options: Options) -> Results:
    results = Results(run.path)
    _warn_of_failures(results, options)
    return results


def _warn_of_failures(results: Results, options: Options) -> None:
    failed = results.status.failed
    if not failed:
        return
    first = next(iter(results.failures), None)
    example = ""
    if first is not None:
        example = f", the first at {first.position}: {first.exception}: {first.message}"
    warnings.warn(
        f"{failed:,} of {results.status.positions:,} positions failed{example}. See "
        "results.failures; compute(retry_failed=True) tries them again",
        ResumableWarning,
        stacklevel=_users_level(),
    )


def _users_level() -> int:
    """Stack level of the caller outside of this package, for a warning."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("resumable."):
        level, frame = level + 1, frame.f_back
    return level


class _Session:
    """One session on a claimed run; the driver an engine sees.

    Parameters
    ----------
    recipe, options, plan
        What, how, and what was decided.
    run : RunFile or None
        The run to continue, or None to make a new one.
    claim : Claim
        Held by the caller.
    """

    def __init__(
        self,
        recipe: Recipe,
        options: Options,
        plan: Plan,
        run: RunFile | None,
        claim: Claim,
    ) -> None:
        self._recipe, self._options, self._plan = recipe, options, plan
        self._run = self._born(run)
        self._claim = claim
        self._ledger = Ledger(self._run)
        self._stop = _StopRequest(options.time_limit)
        self._computed = self._failed = 0
        self._held: dict[int, Failure] = {}
        self._failures: list[Failure] = []
        done, failed = self._run.counts()
        self._before = done + failed
        pending = _pending(self._run, options)
        self._schedule = Schedule(pending, plan, proven=done > 0)
        self._bar = progress_bar(
            show=options.progress,
            total=self._before + self._schedule.remaining,
            initial=self._before,
            label=recipe.shelf.prefix,
        )

    def _born(self, run: RunFile | None) -> RunFile:
        recipe, size = self._recipe, self._recipe.geometry.size
        wanted = self._options.positions or PositionSet.full(size)
        if run is None:
            path = recipe.shelf.new_path()
            with recipe.open_reader() as reader:
                return births.give_birth(path, recipe.birth, reader, wanted)
        try:
            with disk.opened(run.path, os.O_RDWR) as fd:
                births.reserve(fd, run.header, wanted)
        except OSError as error:
            raise births.target_error(run.path.parent, error, 0) from error
        return run

    # What an engine sees.

    def next(self, seconds: float | None = None) -> Batch | None:
        """Hand out the next batch."""
        return self._schedule.next(seconds)

    def give_back(self, batch: Batch) -> None:
        """Take back a batch that nobody computed."""
        self._schedule.give_back(batch)

    @property
    def stopping(self) -> bool:
        """A signal came, or the time is up."""
        return self._stop.requested

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds of one worker's work."""
        return self._schedule.seconds_left

    def take(self, report: Report) -> None:
        """Enter the report of a batch.

        Raises
        ------
        UnitFailed, OutputError
            The session must stop.
        """
        self._computed += report.done
        self._schedule.note(report.done + report.failed, report.seconds)
        self._schedule.note_memory(
            report.peak_bytes, min(report.batch.count, report.batch.block)
        )
        if report.error is not None:
            raise self._stopping_error(report) from report.error
        if report.batch.trial:
            self._judge_trial(report)
        else:
            self._failed += report.failed
            self._failures += report.failures
        self._bar.update(self._computed + self._failed, self._failed)

    def _stopping_error(self, report: Report) -> Exception:
        first = report.failures[0]
        text = f"position {first.position} raised {first.exception}: {first.message}"
        if isinstance(report.error, OutputError):
            return OutputError(f"{report.error} (at position {first.position})")
        return UnitFailed(
            f"{text}\n{first.traceback}"
            "Stopped because of on_error='raise'; everything finished is kept and "
            "this position is left pending",
            first.position,
        )

    def _judge_trial(self, report: Report) -> None:
        """Settle whether a function that has not succeeded yet is to blame."""
        schedule = self._schedule
        if report.failures:
            failure = report.failures[0]
            self._held[failure.position] = failure
        kinds = {_kind(failure) for failure in self._held.values()}
        if len(kinds) == 1 and len(self._held) >= TRIALS and not report.done:
            failure = next(iter(self._held.values()))
            msg = (
                f"the first {TRIALS} positions tried, spread over the run, all raised "
                f"{failure.exception}: {failure.message}\n{failure.traceback}"
                "Nothing was recorded. Mend the computation and try it with "
                f"test({failure.position})"
            )
            raise UnitFailed(msg, failure.position)
        if report.done or len(kinds) > 1:
            schedule.proven = True

    # The course of a session.

    def run_to_end(self) -> Results:
        """Compute what is pending, and finish when nothing is left."""
        recipe, plan = self._recipe, self._plan
        engine = self._engine()
        try:
            self._ledger.begin(
                host=socket.gethostname(),
                pid=os.getpid(),
                engine=plan.engine,
                workers=plan.workers,
            )
            if self._run.finished:
                self._ledger.set_finished(finished=False)
            with self._stop.watching(), self._bar:
                try:
                    if self._schedule.remaining:
                        engine.run(self._job(), self)
                finally:
                    self._settle()
            results = Results(self._run.path)
            if self._stop.requested and self._left():
                raise self._not_finished(results)
            if results.status.pending == 0:
                self._finish(results)
        finally:
            self._ledger.end(computed=self._computed, failed=self._failed)
            self._ledger.close()
        logger.info("%s: %s", recipe.shelf.stem, results.status)
        _warn_of_failures(results, self._options)
        return results

    def _engine(self) -> Engine:
        options, plan = self._options, self._plan
        engine: Any = options.engine
        if (
            engine == "auto"
            and self._run.sessions()
            and self._run.sessions()[-1].end == 0
        ):
            # The last session was killed; should the computation itself have done
            # it, it must not happen in this process again.
            engine = "local" if plan.workers > 1 else "serial"
        return engines.choose(engine, plan.workers)

    def _job(self) -> Job:
        recipe = self._recipe
        return Job(
            recipe.process,
            recipe.position_outputs,
            recipe.source,
            recipe.inputs,
            self._target(),
            stop_on_error=self._options.on_error == "raise",
        )

    def _target(self) -> WriteTarget:
        return WriteTarget(
            self._run.path,
            self._run.header,
            self._claim.claim_path,
            self._claim.writers_path,
            self._claim.token,
            self._plan.checkpoint_s,
        )

    def _left(self) -> int:
        return len(_pending(self._run, self._options))

    def _settle(self) -> None:
        """Record failures: those of batches, and those held back in the trial."""
        if self._schedule.proven or not self._schedule.remaining:
            self._mark_held()
        self._ledger.record(self._failures)

    def _mark_held(self) -> None:
        if not self._held or self._options.on_error == "raise":
            return
        if len(self._held) >= TRIALS and not self._schedule.proven:
            return
        outputs = self._recipe.position_outputs
        yes, no = np.ones(1, bool), np.zeros(1, bool)
        with contextlib.closing(RowWriter(self._target())) as writer:
            for position in self._held:
                rows = {name: output.filled(1) for name, output in outputs.items()}
                writer.write(position, no, yes, rows)
        self._failed += len(self._held)
        self._failures += self._held.values()

    def _not_finished(self, results: Results) -> BaseException:
        message = (
            f"{self._stop.reason}: {results.status}. Everything computed is kept in "
            f"{results.path}; run the same again to go on"
        )
        if self._stop.by_keyboard and _in_notebook():
            # A SystemExit there prints advice on leaving the interpreter.
            return KeyboardInterrupt(message)
        logger.warning("%s", message)
        return NotFinished(message, results)

    def _finish(self, results: Results) -> None:
        """Run the user's ``finish`` and declare the run complete."""
        outputs = {n: o for n, o in self._recipe.outputs.items() if o.per == "run"}
        value = self._recipe.process.finish(results)
        if outputs:
            named = by_name(value, outputs)
            for name, output in outputs.items():
                fit = fitted(name, named[name], output.dtype, output.shape)
                self._ledger.write_run_output(name, fit.astype(output.dtype))
        self._ledger.set_finished(finished=True)


def _kind(failure: Failure) -> tuple[str, str]:
    """Tell failures apart: by the exception and the line that raised it."""
    lines = [ln for ln in failure.traceback.splitlines() if ln.startswith("  File ")]
    return failure.exception, lines[-1] if lines else ""


def _in_notebook() -> bool:
    return hasattr(builtins, "__IPYTHON__")


class _StopRequest:
    """Signals and the time limit, as something to ask between batches."""

    def __init__(self, time_limit: float | str | None) -> None:
        self._deadline: float | None = None
        self._limit = time_limit
        if time_limit is not None:
            self._deadline = time.monotonic() + parse_seconds(time_limit)
        self._signal: int | None = None
        self._signal_time = 0.0

    @property
    def requested(self) -> bool:
        """Whether the session should stop."""
        if self._signal is not None:
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def by_keyboard(self) -> bool:
        """It was Ctrl-C."""
        return self._signal == signal.SIGINT

    @property
    def reason(self) -> str:
        """Why, in words."""
        if self._signal is not None:
            return f"stopped by {signal.Signals(self._signal).name}"
        return f"stopped at the time limit of {self._limit}"

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Catch signals for the time of a block, in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {}
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            number = getattr(signal, name, None)
            if number is not None:
                old[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._signal == number == signal.SIGINT:
            # Launchers pass one Ctrl-C on twice; a later one means that she does
            # not want to wait for the position at work.
            if now - self._signal_time > _SECOND_PRESS_S:
                raise KeyboardInterrupt
            return
        self._signal, self._signal_time = number, now
        logger.warning("stopping: what is at work is being committed")
