"""From a wanted computation to its results."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from resumable.errors import (
    RunBusy,
    TargetError,
    in_python,
    near,
    option,
    shown,
    warn_user,
)
from resumable.model import name_of_position
from resumable.results import (
    Results,
    Status,
    pack_locked,
    remove_spare_ragged_files,
)
from resumable.runfile import RunFile, RunLock, ragged_files_of, run_folder_of
from resumable.session.computation import Assignment
from resumable.session.decide import (
    decide,
    edited,
    find,
    made_before,
    planned,
)
from resumable.session.events import Finished
from resumable.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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
    with contextlib.ExitStack() as files, contextlib.ExitStack() as held:
        found, action = find(computation, options, files), ""
        if found.run and found.snapshot:
            warn_of_edit(computation, found.run, found.snapshot)
            action, reason, _ = decide(computation, options, found.snapshot)
            if action == "return":
                logger.info("%s: %s", found.run.path.name, reason)
                _tidy(computation, found.run, finished=found.snapshot.finished)
        if action != "return":
            ahead = planned(computation, options, found)
            lock = held.enter_context(_locked(computation, found.run))
            then = found.snapshot
            if found.new_path != computation.run_folder.new_path() or (
                found.run and then and found.run.sessions_since(then)
            ):
                # Another session has computed between the first look and the lock.
                found = find(computation, options, files)
                ahead = planned(computation, options, found)
                action = ahead.plan.action
        if action == "return" and found.run and found.snapshot:
            results, status = Results(found.run), Status.of(found.snapshot)
        else:
            warn_of_random(computation)
            logger.info("%s", ahead.plan)
            assignment = Assignment(
                computation, ahead.options, ahead.plan, ahead.engine, lock
            )
            session = Session(assignment, ahead.run, stop, listener, ahead.snapshot)
            # Else the snapshot, a bitmap of N / 8 bytes, would stay in memory.
            del found, ahead, then
            files.close()
            results, status = session.run_to_end()
            packed_where_asked(computation, results)
    if listener is not None:
        listener(Finished(results))
    if status.failed:
        warn_of_failures(results, status, computation.geometry.map_shape)
    return results


@contextlib.contextmanager
def _locked(computation: Computation, run: RunFile | None) -> Iterator[RunLock]:
    """Hold the lock on a computation within a block.

    And that on a run of it under an older name, by which the script of then is refused.
    """
    lock = RunLock(computation.run_folder)
    with lock.held(), contextlib.ExitStack() as more:
        if run is not None and run.header.identity in computation.known_as:
            more.enter_context(RunLock(run_folder_of(run)).held())
        yield lock


def packed_where_asked(computation: Computation, results: Results) -> Results:
    """Pack a run that is complete, where outputs ask for it; the lock is held."""
    try:
        if computation.packing:
            _pack(computation, results.path)
    except (RunBusy, TargetError) as error:
        warn_user(
            f"{results.path.name} is complete, but not packed: {error}. Run again, "
            "or 'resumable pack'",
        )
    return results


def _pack(computation: Computation, path: Path) -> None:
    if computation.packing:
        run = RunFile(path)
        if _to_pack(computation, run) and run.finished:
            pack_locked(run, computation.packing)


def _to_pack(computation: Computation, run: RunFile) -> bool:
    plain = run.header.packed is None and run.header.format >= 2
    return plain and bool(computation.packing)


def _tidy(computation: Computation, run: RunFile, *, finished: bool) -> None:
    """Do what a session that was killed at its very end has left to do.

    After a power cut any of it can be there without the rest.
    """
    lock, run_folder = RunLock(computation.run_folder), computation.run_folder
    copies = run_folder.copies() if finished else []
    if (
        copies
        or lock.is_left
        or (finished and _to_pack(computation, run))
        or (run.header.packed is not None and ragged_files_of(run.path))
        or run_folder.leftovers()
    ):
        # Another process computes, or the folder cannot be written: left alone.
        with contextlib.suppress(RunBusy, TargetError), _locked(computation, run):
            for path in copies:
                path.unlink(missing_ok=True)
            _pack(computation, run.path)
            remove_spare_ragged_files(RunFile(run.path))


def warn_of_edit(computation: Computation, run: RunFile, snapshot: Snapshot) -> None:
    """Warn when code was edited and the declared version is still the same.

    And when the run was made before helpers counted.
    """
    if computation.is_earlier(run.header):
        warn_user(
            f"{run.path.name} was {made_before(finished=snapshot.finished)}",
        )
        return
    warn_of_environment(computation, run, snapshot)
    edit = edited(computation, run) if snapshot.done + snapshot.failed else ""
    if edit:
        warn_user(edit)


def warn_of_environment(
    computation: Computation, run: RunFile, snapshot: Snapshot
) -> None:
    """Warn when an unfinished run is gone on with under other versions."""
    if snapshot.finished or not snapshot.done:
        return
    known = list(run.environments().values())
    changed = other_versions(known[-1], computation.environment) if known else []
    if changed:
        warn_user(
            f"{run.path.name} is continued with another {', another '.join(changed)}; "
            f"{snapshot.done:,} of {snapshot.header.size:,} positions were computed "
            f"before. {option('override', True)} computes all anew, "
            f"{option('environment', 'strict')} makes it a part of what decides which "
            "run is continued",
        )


def warn_of_random(computation: Computation) -> None:
    """Warn of random numbers that depend on how a run is computed."""
    trace = computation.request.trace
    if trace.unseeded:
        warn_user(
            f"{computation.request.name}: {', '.join(trace.unseeded[:5])} has no seed: "
            "its random numbers are others in every run, and cannot be computed again. "
            "Use self.rng of a Process, which is the same for a position in every run"
        )
    found = trace.random
    if found:
        verb = "draw" if len(found) > 1 else "draws"
        warn_user(
            f"{computation.request.name}: {', '.join(found[:5])} {verb} random numbers "
            "in an order that depends on the run, a seed that the script sets reaches "
            "no worker process, and several workers may draw the same numbers. Use "
            "self.rng of a Process, which is the same for a position in every run",
        )


def other_versions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say what is another version now: name, version before -> version now."""
    told = []
    for name, old in before.items():
        # What is not reached any more has no other version.
        new = now.get(name, old)
        if old == new:
            continue
        if name not in ("Python", "CPU", "BLAS"):
            # Without the digest, unless that alone is another.
            plain = old.partition(" ")[0], new.partition(" ")[0]
            old, new = plain if plain[0] != plain[1] else (old, new)
        told.append(f"{name} ({old} -> {new})")
    return told


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
    seen = in_python("results.failures") or f"resumable show {near(results.path)}"
    warn_user(
        f"{status.failed:,} of {status.positions:,} positions failed{example}. See "
        f"{shown(seen)}; "
        f"{option('retry_failed', True, call='compute')} tries them again",
    )
