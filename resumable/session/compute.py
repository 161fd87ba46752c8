"""From a wanted computation to its results."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from typing import TYPE_CHECKING

from resumable.errors import ResumableWarning, RunBusy, TargetError, shown
from resumable.model import name_of_position, text_digest
from resumable.results import (
    Results,
    Status,
    pack_locked,
    remove_spare_ragged_files,
    unpack_locked,
)
from resumable.runfile import FORMAT, RaggedRows, RunFile, RunLock, ragged_files_of
from resumable.session.decide import (
    EDITED,
    changed_lines,
    decide,
    explain,
    find,
    planned,
)
from resumable.session.events import Finished
from resumable.session.prepare import Assignment
from resumable.session.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.runfile import Snapshot
    from resumable.session.computation import Computation, Options
    from resumable.session.events import Listener
    from resumable.system import StopRequest

logger = logging.getLogger("resumable")


def compute(
    computation: Computation,
    options: Options,
    stop: StopRequest,
    listener: Listener | None,
) -> Results:
    """Compute what is pending and return the results; `listener` takes the events.

    The errors are those of :meth:`Process.compute`.
    """
    with contextlib.ExitStack() as files:
        results, status = _results(computation, options, stop, listener, files)
    if listener is not None:
        listener(Finished(results))
    if status.failed:
        warn_of_failures(results, status, computation.geometry.map_shape)
    return results


def _results(
    computation: Computation,
    options: Options,
    stop: StopRequest,
    listener: Listener | None,
    files: contextlib.ExitStack,
) -> tuple[Results, Status]:
    found = find(computation, options, files)
    if found.run and found.snapshot:
        warn_of_edit(computation, found.run, found.snapshot)
        decision = decide(computation, options, found.snapshot)
        if decision.action == "return":
            logger.info("%s: %s", found.run.path.name, decision.reason)
            _tidy(computation, found.run, finished=found.snapshot.finished)
            return Results(found.run), Status.of(found.snapshot)
    ahead = planned(computation, options, found)
    lock = RunLock(computation.run_folder)
    with lock.held():
        if found.new_path != computation.run_folder.new_path() or (
            found.run and found.snapshot and found.run.sessions_since(found.snapshot)
        ):
            # Another session may have computed between the first look and the lock.
            found = find(computation, options, files)
            ahead = planned(computation, options, found)
            if ahead.plan.action == "return" and found.run and found.snapshot:
                return Results(found.run), Status.of(found.snapshot)
        logger.info("%s", ahead.plan)
        run = ahead.run
        if run is None:
            tell_of_left_runs(computation)
        elif computation.full_length(run.header):
            run = writable(run)
        assignment = Assignment(
            computation, ahead.options, ahead.plan, ahead.engine, lock
        )
        session = Session(assignment, run, stop, listener, ahead.snapshot)
        # Else the snapshot, of N / 8 bytes a bitmap, would stay in memory to the end.
        del found, ahead
        files.close()
        results, status = session.run_to_end()
        packed_where_asked(computation, results)
        return results, status


def packed_where_asked(computation: Computation, results: Results) -> Results:
    """Pack a run that is complete, where outputs ask for it; the lock is held."""
    try:
        _pack(computation, results.path)
    except (RunBusy, TargetError) as error:
        warnings.warn(
            f"{results.path.name} is complete, but not packed: {error}. Run again, "
            "or 'resumable pack'",
            ResumableWarning,
            stacklevel=_users_level(),
        )
    return results


def writable(run: RunFile) -> RunFile:
    """Return a run that can be continued: not packed, and with all its ragged rows.

    Missing rows are a RunFileError: once more rows follow, they cannot be detected.
    """
    if run.header.packed is not None:
        return unpack_locked(run)
    for name in run.header.ragged:
        RaggedRows(run, name).check()
    return run


def _pack(computation: Computation, path: Path) -> None:
    if computation.packing:
        run = RunFile(path)
        if _to_pack(computation, run) and run.finished:
            pack_locked(run, computation.packing)


def _to_pack(computation: Computation, run: RunFile) -> bool:
    plain = run.header.packed is None and run.header.format == FORMAT
    return plain and bool(computation.packing)


def _tidy(computation: Computation, run: RunFile, *, finished: bool) -> None:
    """Do what a session that was killed at its very end has left to do.

    After a power cut any of it can be there without the rest.
    """
    lock, run_folder = RunLock(computation.run_folder), computation.run_folder
    copies = run_folder.copies() if finished else []
    if (
        copies
        or lock.lock_path.exists()
        or lock.writers_path.exists()
        or (finished and _to_pack(computation, run))
        or (run.header.packed is not None and ragged_files_of(run.path))
        or run_folder.leftovers()
    ):
        # Another process computes, or the folder cannot be written: left alone.
        with contextlib.suppress(RunBusy, TargetError), lock.held():
            for path in copies:
                path.unlink(missing_ok=True)
            _pack(computation, run.path)
            remove_spare_ragged_files(RunFile(run.path))


def tell_of_left_runs(computation: Computation) -> None:
    """Say which older run is left because source or class have changed, and why."""
    for candidate in explain(computation, lines=False).candidates:
        reasons, name = candidate.reasons, shown(candidate.path.name)
        if reasons and all(r.startswith(("source.", "inputs.")) for r in reasons):
            told = (
                "the source has changed since %s was computed, so a new run begins (%s)"
            )
            logger.warning(told, name, reasons[0])
        elif len(reasons) == 1 and reasons[0].startswith(EDITED):
            told = (
                "%s was edited since %s was computed, so a new run begins; declare a "
                "version to decide yourself which edits change results"
            )
            logger.warning(told, computation.request.name, name)


def warn_of_edit(computation: Computation, run: RunFile, snapshot: Snapshot) -> None:
    """Warn when the class was edited and its declared version is still the same."""
    then = run.header.source.get("text")
    now = text_digest(computation.request.source_text())
    version = computation.request.process.version
    if version is None or not then or not now or then == now:
        return
    if not snapshot.done + snapshot.failed:
        return  # no row of the older text is there
    warnings.warn(
        f"{computation.request.name} was edited since {run.path.name} was "
        f"made, but version is still {version!r}: its rows stay "
        "and further ones join them; raise it if results change:\n"
        + "\n".join(changed_lines(run, computation)),
        ResumableWarning,
        stacklevel=_users_level(),
    )


def warn_of_failures(
    results: Results, status: Status, map_shape: tuple[int, ...]
) -> None:
    """Warn once that positions have failed."""
    first = next(iter(results.failures), None)
    example = ""
    if first is not None:
        where = name_of_position(first.position, map_shape)
        example = f", the first at {where}: {shown(first.exception)}: "
        example += shown(first.message, lines=True)
    warnings.warn(
        f"{status.failed:,} of {status.positions:,} positions failed{example}. See "
        "results.failures; compute(retry_failed=True), or --retry-failed, tries "
        "them again",
        ResumableWarning,
        stacklevel=_users_level(),
    )


def _users_level() -> int:
    """Stack level of the caller outside of this package, for a warning."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("resumable."):
        level, frame = level + 1, frame.f_back
    return level
