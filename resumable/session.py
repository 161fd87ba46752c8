"""One session on a claimed run: the driver that an engine sees."""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable import birth as births
from resumable import disk, engines
from resumable.batch import Job, Report
from resumable.decision import pending_positions
from resumable.errors import NotFinished, OutputError, UnitFailed
from resumable.ledger import Ledger
from resumable.output import by_name, fitted
from resumable.plan import TRIALS, Schedule
from resumable.positions import PositionSet, name_of_position
from resumable.progress import progress_bar
from resumable.rechunk import rechunked
from resumable.results import Results
from resumable.runfile import Failure, RunFile
from resumable.stop import StopRequest
from resumable.writer import RowWriter, WriteTarget

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.catalogue import Claim
    from resumable.engines import Engine
    from resumable.plan import Plan
    from resumable.positions import Batch
    from resumable.recipe import Options, Recipe
    from resumable.source import SourceRef

logger = logging.getLogger("resumable")


class Session:
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
        self._stop = StopRequest(options.time_limit)
        self._computed = self._failed = 0
        self._held: dict[int, Failure] = {}
        done, failed = self._run.counts()
        self._before = done + failed
        pending = pending_positions(self._run, options)
        self._schedule = Schedule(pending, plan, proven=done > 0)
        self._bar = progress_bar(
            show=options.progress,
            total=self._before + self._schedule.remaining,
            initial=self._before,
            label=recipe.shelf.prefix,
        )

    def _born(self, run: RunFile | None) -> RunFile:
        recipe, size = self._recipe, self._recipe.geometry.size
        wanted = self._options.positions
        if wanted is None:
            wanted = PositionSet.full(size)
        if run is None or not recipe.full_length(run):
            path = recipe.shelf.new_path()
            with recipe.open_reader() as reader:
                return births.give_birth(path, recipe.birth, reader, wanted, run)
        try:
            with disk.opened(run.path, os.O_RDWR) as fd:
                births.reserve(fd, run.header, wanted)
        except OSError as error:
            rows = sum(o.row_bytes for o in recipe.position_outputs.values())
            needed = rows * self._plan.pending
            raise births.target_error(run.path.parent, error, needed) from error
        return run

    # What an engine sees.

    def next(self, seconds: float | None = None) -> Batch | None:
        """Hand out the next batch."""
        return self._schedule.next(seconds)

    def give_back(self, batch: Batch) -> None:
        """Take back a batch that nobody computed."""
        self._schedule.give_back(batch)

    @property
    def schedule(self) -> Schedule:
        """What is left and how it is cut."""
        return self._schedule

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
        self._schedule.learn(report)
        if report.error is not None:
            raise self._stopping_error(report) from report.error
        if report.batch.trial:
            self._judge_trial(report)
        else:
            self._failed += report.failed
            self._ledger.record(report.failures)
        self._bar.update(self._computed + self._failed, self._failed)

    def _stopping_error(self, report: Report) -> Exception:
        first = report.failures[0]
        where = self._name(first.position)
        text = f"position {where} raised {first.exception}: {first.message}"
        if isinstance(report.error, OutputError):
            shape = self._recipe.geometry.spectrum_shape
            return OutputError(
                f"{report.error} (at position {where}; the data of one position have "
                f"shape {shape}, as position_axes say)"
            )
        return UnitFailed(
            f"{text}\n{first.traceback}"
            "Stopped because of on_error='raise'; everything finished is kept and "
            "this position is left pending",
            first.position,
        )

    def _name(self, position: int) -> str:
        return name_of_position(position, self._recipe.geometry.map_shape)

    def _judge_trial(self, report: Report) -> None:
        """Settle whether a function that has not succeeded yet is to blame."""
        schedule = self._schedule
        schedule.trial_ended()
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
                f"test({self._name(failure.position)}); if it works elsewhere, compute "
                "such positions first, compute(positions=...), and then the rest"
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
                self._ledger.reopen()
            with self._stop.watching(), self._bar:
                try:
                    if self._schedule.remaining:
                        engine.run(self._job(), self, plan.workers)
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
        return results

    def _engine(self) -> Engine:
        options, plan = self._options, self._plan
        engine: Any = options.engine
        earlier = self._run.sessions()
        if engine == "auto" and earlier and earlier[-1].end == 0:
            # The last session was killed; should the computation itself have done
            # it, it must not happen in this process again.
            engine = "local" if plan.workers > 1 else "serial"
        return engines.choose(engine, plan.workers)

    def _job(self) -> Job:
        recipe = self._recipe
        return Job(
            recipe.process,
            recipe.position_outputs,
            self._source(),
            recipe.inputs,
            self._target(),
            stop_on_error=self._options.on_error == "raise",
            read_from=type(recipe.process)._read_from,
        )

    def _source(self) -> SourceRef:
        """Return the source, or its copy in position order."""
        recipe = self._recipe
        if not self._plan.rechunk:
            return recipe.source
        with recipe.open_reader() as reader:
            return rechunked(reader, self._copy_path, self._plan.memory_bytes // 2)

    @property
    def _copy_path(self) -> Path:
        shelf = self._recipe.shelf
        # Where the source can grow, its contents are not part of the identity.
        contents = self._recipe.birth.source["contents"] or ""
        return shelf.folder / f"{shelf.stem}{contents[:8]}.rechunked.h5"

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
        return len(pending_positions(self._run, self._options))

    def _settle(self) -> None:
        """Record the failures that were held back in the trial."""
        if self._schedule.proven or not self._schedule.remaining:
            self._mark_held()

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
        self._ledger.record(list(self._held.values()))

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
        named = by_name(value, outputs) if outputs else {}
        self._ledger.set_finished(
            {
                name: fitted(name, named[name], o.dtype, o.shape).astype(o.dtype)
                for name, o in outputs.items()
            }
        )
        self._copy_path.unlink(missing_ok=True)


def _kind(failure: Failure) -> tuple[str, str]:
    """Tell failures apart: by the exception and the line that raised it."""
    lines = [ln for ln in failure.traceback.splitlines() if ln.startswith("  File ")]
    return failure.exception, lines[-1] if lines else ""


def _in_notebook() -> bool:
    return hasattr(builtins, "__IPYTHON__")
