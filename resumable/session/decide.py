"""What a session will do: look at what is there, decide, plan. Nothing is written."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from resumable.engines import available_memory, choose, on_one_host, workers_by_host
from resumable.errors import PlanError, RunFileError
from resumable.model import (
    SHIPPED_BYTES,
    Plan,
    fit_memory,
    format_bytes,
    parse_bytes,
)
from resumable.runfile import ADVICE
from resumable.system import disk

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from resumable.engines import Engine
    from resumable.runfile import RunFile, RunFolder, Snapshot
    from resumable.session.computation import Computation, Options

#: Read amplification above which a rechunked copy is advised.
ADVISED_ABOVE = 3.0
#: File systems on which a host may not see at once what another one has written.
_INCOHERENT = ("9p", "cifs", "fuse", "nfs", "smb")


class Found(NamedTuple):
    """What is there of a computation."""

    new_path: Path
    """Path of a new run."""
    run: RunFile | None = None
    """The run to continue or to return."""
    snapshot: Snapshot | None = None

    def is_outdated(self, computation: Computation) -> bool:
        """Return whether another session may have computed something since."""
        if self.new_path != computation.run_folder.new_path():
            return True
        run, snapshot = self.run, self.snapshot
        return run is not None and snapshot is not None and run.sessions_since(snapshot)


def find(
    computation: Computation,
    options: Options,
    files: contextlib.ExitStack | None = None,
    mine: RunFile | None = None,
) -> Found:
    """Look for the run to continue or to return; the status is read once.

    It is the newest finished one, else the newest of full length, else the longest.
    With ``override=True`` it is the newest one, if an override has begun it and it is
    not finished: the same line, run again after a kill, would else begin a new one.
    It is `mine` where a session has begun that; `files` keeps its file open.
    """
    folder = computation.run_folder
    new_path = folder.new_path()

    def found_with(run: RunFile) -> Found:
        snapshot = run.snapshot(
            options.positions,
            retry_failed=options.retry_failed,
            size=computation.geometry.size,
        )
        return Found(new_path, run, snapshot)

    if mine is not None:
        return found_with(mine)
    runs = computation.runs(files)
    if options.override:
        same = [run for run in runs if run.header.identity == folder.identity]
        if same and folder.overrides(same[-1]):
            last = found_with(same[-1])
            if last.snapshot and not last.snapshot.finished:
                return last
        return Found(new_path)
    whole = [run for run in runs if computation.full_length(run.header)]
    for run in reversed(whole):
        if run.marked_finished:
            complete = found_with(run)
            if complete.snapshot and complete.snapshot.finished:
                return complete
    if whole or runs:
        return found_with(whole[-1] if whole else max(runs, key=lambda run: run.size))
    return Found(new_path)


def _check_sound(folder: RunFolder) -> None:
    """Refuse to begin beside a damaged file that may be of the same run."""
    for _, error in folder.damaged()[-1:]:
        if ADVICE in str(error):
            raise error
        msg = f"{error}: {ADVICE}"
        raise RunFileError(msg) from error


class Decision(NamedTuple):
    """What a session will do."""

    action: str
    """``"compute"``, ``"continue"``, ``"return"`` or ``"copy and continue"``."""
    reason: str
    pending: int


def decide(
    computation: Computation, options: Options, snapshot: Snapshot | None
) -> Decision:
    """Decide what a session will do, from what is wanted and what is there.

    `snapshot` is of the run to continue or to return; None: there is none.
    """
    size = computation.geometry.size
    if snapshot is None:
        count = size if options.positions is None else len(options.positions)
        why = "a new run was asked for" if options.override else "no run matches"
        return Decision("compute", why, count)
    done, pending = snapshot.done, snapshot.left
    if not computation.full_length(snapshot.header):
        new = size - snapshot.size
        why = f"the source has {new:,} new positions, {done:,} are copied"
        if not new:
            why = f"more of the source can be read, {done:,} positions are copied"
        return Decision("copy and continue", why, pending)
    if options.retry_failed and pending:
        why = f"{pending:,} failed positions are tried again"
        return Decision("continue", why, pending)
    if not pending and (snapshot.finished or not snapshot.settled):
        return Decision("return", "all of it was computed before", 0)
    why = f"{done:,} of {snapshot.size:,} positions are done"
    return Decision("continue", why, pending)


class Prospect(NamedTuple):
    """What a session would do about what is there."""

    options: Options
    """How; where there is no run, there are no failures to try again."""
    engine: Engine
    plan: Plan
    run: RunFile | None
    snapshot: Snapshot | None


def prospect(
    computation: Computation,
    options: Options,
    files: contextlib.ExitStack | None = None,
    mine: RunFile | None = None,
) -> Prospect:
    """Look, decide and plan, as a session does; the arguments are those of `find`."""
    return planned(computation, options, find(computation, options, files, mine))


def planned(computation: Computation, options: Options, found: Found) -> Prospect:
    """Decide and plan what to do about what was found.

    Raises PlanError where the budget is too small or an option makes no sense, and
    RunFileError where a damaged file has the name of the run.
    """
    _, run, snapshot = found
    path = found.new_path
    if run is None:
        options = dataclasses.replace(options, retry_failed=False)
        if not options.override:
            _check_sound(computation.run_folder)
    elif computation.full_length(run.header):
        path = run.path  # else it is copied into a new, longer file
    decision = decide(computation, options, snapshot)
    engine = engine_for(options, snapshot)
    plan = make_plan(computation, options, decision, path, engine)
    return Prospect(options, engine, plan, run, snapshot)


def make_plan(
    computation: Computation,
    options: Options,
    decision: Decision,
    path: Path,
    engine: Engine,
) -> Plan:
    """Plan how an engine will do what was decided, with rows written to `path`."""
    geometry, footprint = computation.geometry, computation.footprint
    available = available_memory(engine)
    memory = available // 2
    if options.memory is not None:
        memory = min(parse_bytes(options.memory), available)
    hosts = workers_by_host(engine)
    most, local = max(hosts), engine.own_processes
    blocks = fit_memory(footprint, geometry, memory=memory, workers=most, local=local)
    rechunk = options.rechunk and geometry.gains_by_copy(blocks.rows)
    if rechunk:
        geometry = geometry.in_position_order()
        blocks = fit_memory(
            footprint, geometry, memory=memory, workers=most, local=local
        )
    block_bytes = footprint(blocks.rows)
    amplification = geometry.amplification(blocks.rows)
    notes = []
    if amplification > ADVISED_ABOVE:
        notes.append(
            "the source's chunks run across positions, so much is read again and "
            "again: rechunk=True first makes a copy in position order, of "
            f"{format_bytes(geometry.row_bytes * geometry.size)}"
        )
    if blocks.workers < most:
        notes.append(
            f"{format_bytes(memory)} is enough for {blocks.workers} of {most} workers"
        )
    writer, why_writer = _writer(computation, options, engine)
    if why_writer:
        notes.append(why_writer)
    longest = None
    if writer == "driver":
        # A worker keeps the rows of a whole batch beside the block at work.
        room = min(SHIPPED_BYTES, blocks.share_bytes - block_bytes)
        row_bytes = sum(o.row_bytes for o in computation.position_outputs.values())
        longest = max(1, room // max(1, row_bytes))
    return Plan(
        action=decision.action,
        reason=decision.reason,
        path=str(path),
        positions=geometry.size,
        pending=decision.pending,
        engine=engine.name if options.engine != "auto" else "auto",
        workers=sum(min(count, blocks.workers) for count in hosts),
        memory_bytes=memory,
        share_bytes=blocks.share_bytes,
        block=blocks.rows,
        block_bytes=block_bytes,
        quantum=geometry.quantum,
        read_amplification=amplification,
        output_bytes=sum(
            o.stored.row_bytes * (geometry.size if o.per == "position" else 1)
            for o in computation.outputs.values()
        ),
        checkpoint_s=float(options.checkpoint),
        writer=writer,
        longest=longest,
        rechunk=rechunk,
        shapes=f"a map of {geometry.map_shape}, each with {geometry.spectrum_shape}",
        notes=tuple(notes),
        seconds_per_position=computation.request.seconds_per_position,
    )


def engine_for(options: Options, snapshot: Snapshot | None) -> Engine:
    """Return the engine of a session."""
    # Should the computation itself have ended the last session, or be expected to
    # hang, it must not happen in the driver.
    was_killed = snapshot is not None and snapshot.last_end == 0
    timed = options.position_timeout is not None
    engine = choose(
        options.engine,
        options.workers,
        may_grow=options.workers is None and options.memory is None,
        in_driver=not (was_killed or timed),
    )
    if timed and not getattr(engine, "can_replace", False):
        msg = (
            "position_timeout needs worker processes that can be replaced, which the "
            f"engine {engine.name!r} does not have; use engine='local'"
        )
        raise PlanError(msg)
    return engine


def _writer(
    computation: Computation, options: Options, engine: Engine
) -> tuple[str, str]:
    """Return who writes, and why where it is not what everybody expects."""
    if options.writer != "auto":
        return options.writer, ""
    folder = computation.run_folder.folder
    kind = "" if on_one_host(engine) else disk.file_system(folder)
    if not kind.startswith(_INCOHERENT):
        return "workers", ""
    return "driver", (
        f"the driver writes all rows, because {folder} is on a {kind} file system and "
        "workers may be on several hosts"
    )
