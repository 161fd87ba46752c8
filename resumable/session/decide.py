"""What a session will do: look at what is there, and plan. Nothing is written."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resumable.engines import base
from resumable.errors import PlanError, RunFileError
from resumable.model import (
    SHIPPED_BYTES,
    Blocks,
    Plan,
    fit_memory,
    format_bytes,
    parse_bytes,
)
from resumable.runfile import ADVICE
from resumable.source import in_position_order, is_worth_it
from resumable.system import disk

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.engines import Engine
    from resumable.model import Geometry
    from resumable.runfile import RunFile, Survey
    from resumable.session.computation import Computation, Options

#: Read amplification above which a rechunked copy is advised.
ADVISED_ABOVE = 3.0
#: File systems on which a host may not see at once what another one has written.
_INCOHERENT = ("9p", "cifs", "fuse", "nfs", "smb")


def existing(computation: Computation) -> RunFile | None:
    """Return the run to go on with or return: the newest, complete ones first."""
    runs = computation.runs()
    whole = [run for run in runs if computation.full_length(run)]
    complete = [run for run in whole if run.finished]
    if complete or whole:
        return (complete or whole)[-1]
    return max(runs, key=lambda run: run.size, default=None)


def _to_override(computation: Computation) -> RunFile | None:
    """Return the run that ``override=True`` goes on with, None to begin anew.

    An unfinished run that itself was made by override is gone on with: otherwise
    the same line, run again after a kill, would begin again each time.
    """
    runs = [
        r
        for r in computation.runs()
        if r.header.identity == computation.run_folder.identity
    ]
    if runs and computation.run_folder.overrides(runs[-1]) and not runs[-1].finished:
        return runs[-1]
    return None


def make_plan(
    computation: Computation, options: Options, mine: RunFile | None = None
) -> tuple[Plan, RunFile | None, Survey | None]:
    """Decide what a session will do; reads the status once, writes nothing.

    Parameters
    ----------
    computation, options
        What, and how.
    mine : RunFile, optional
        The run that this session has begun, and goes on with.

    Returns
    -------
    plan : Plan
    run : RunFile or None
        The one that is there.
    survey : Survey or None
        What its status says, with what is to be computed.

    Raises
    ------
    PlanError
        The memory budget is too small, an option makes no sense.
    RunFileError
        The file that has this run's name is damaged.
    """
    run = mine
    if run is None:
        run = _to_override(computation) if options.override else existing(computation)
    options = for_run(options, run)
    if run is None and not options.override:
        damaged = computation.run_folder.damaged()
        if damaged:
            error = damaged[-1][1]
            if ADVICE in str(error):
                raise error
            msg = f"{error}: {ADVICE}"
            raise RunFileError(msg) from error
    geometry = computation.geometry
    survey = None if run is None else survey_of(run, options, geometry.size)
    action, reason, pending = _decide(computation, options, run, survey)
    engine = engine_for(options, run)
    memory = _budget(options.memory, base.available_memory(engine))
    hosts = base.workers_by_host(engine)

    def blocks_of(geometry: Geometry) -> Blocks:
        return fit_memory(
            computation.footprint,
            geometry,
            memory=memory,
            workers=max(hosts),
            local=engine.own_processes,
        )

    blocks = blocks_of(geometry)
    rechunk = options.rechunk and is_worth_it(geometry, blocks.rows)
    if rechunk:
        geometry = in_position_order(geometry)
        blocks = blocks_of(geometry)
    amplification = geometry.amplification(blocks.rows)
    notes = []
    if amplification > ADVISED_ABOVE:
        notes.append(
            "the source's chunks run across positions, so much is read again and "
            "again: rechunk=True first makes a copy in position order, of "
            f"{format_bytes(geometry.row_bytes * geometry.size)}"
        )
    if blocks.workers < max(hosts):
        notes.append(
            f"{format_bytes(memory)} is enough for {blocks.workers} of "
            f"{max(hosts)} workers"
        )
    writer, why_writer = _writer(computation, options, engine)
    if why_writer:
        notes.append(why_writer)
    longest = None
    if writer == "driver":
        # A worker keeps the rows of a whole batch beside the block at work.
        room = min(
            SHIPPED_BYTES, blocks.share_bytes - computation.footprint(blocks.rows)
        )
        longest = max(1, room // max(1, computation.row_bytes))
    plan = Plan(
        action=action,
        reason=reason,
        path=str(_path_of(computation, run)),
        positions=geometry.size,
        pending=pending,
        engine=engine.name if options.engine != "auto" else "auto",
        workers=sum(min(count, blocks.workers) for count in hosts),
        memory_bytes=memory,
        share_bytes=blocks.share_bytes,
        block=blocks.rows,
        block_bytes=computation.footprint(blocks.rows),
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
        seconds_per_position=computation.seconds_per_position,
    )
    return plan, run, survey


def engine_for(
    options: Options, run: RunFile | None, workers: int | None = None
) -> Engine:
    """Return the engine of a session, with as many workers as the plan allows.

    Raises
    ------
    PlanError
        There is no such engine, or it cannot end a position that takes too long.
    """
    sessions = run.sessions() if run else []
    # Should the computation itself have ended the last session, or be expected to
    # hang, it must not happen in the driver.
    was_killed = bool(sessions) and sessions[-1].end == 0
    timed = options.position_timeout is not None
    engine = base.choose(
        options.engine,
        workers or options.workers,
        may_grow=options.workers is None and options.memory is None,
        in_driver=not (was_killed or timed),
    )
    if timed and not getattr(engine, "can_replace", False):
        msg = (
            f"position_timeout needs worker processes that can be replaced, which the "
            f"engine {engine.name!r} has not; use engine='local'"
        )
        raise PlanError(msg)
    return engine


def for_run(options: Options, run: RunFile | None) -> Options:
    """Return the options as they apply: a new run has no failures to try again."""
    return options if run else dataclasses.replace(options, retry_failed=False)


def _writer(
    computation: Computation, options: Options, engine: Engine
) -> tuple[str, str]:
    """Return who writes, and why where it is not what everybody expects."""
    if options.writer != "auto":
        return options.writer, ""
    if base.on_one_host(engine):
        return "workers", ""
    kind = disk.file_system(computation.run_folder.folder)
    if kind.startswith(_INCOHERENT):
        why = (
            f"the driver writes all rows, because {computation.run_folder.folder} is "
            f"on a {kind} file system and workers may be on several hosts"
        )
        return "driver", why
    return "workers", ""


def _path_of(computation: Computation, run: RunFile | None) -> Path:
    """Return where a session writes: a grown source needs a new, longer file."""
    if run is not None and computation.full_length(run):
        return run.path
    return computation.run_folder.new_path()


def _budget(memory: float | str | None, available: int) -> int:
    """Bytes for all processes of a host: what was asked for, at most what there is."""
    if memory is None:
        return available // 2
    return min(parse_bytes(memory), available)


def _decide(
    computation: Computation,
    options: Options,
    run: RunFile | None,
    survey: Survey | None,
) -> tuple[str, str, int]:
    """Return the action, the reason in words, and the number of pending positions."""
    wanted = options.positions
    if run is None or survey is None:
        count = computation.geometry.size if wanted is None else len(wanted)
        why = "a new run was asked for" if options.override else "no run matches"
        return "compute", why, count
    done, failed, pending = survey.done, survey.failed, len(survey.chosen)
    if not computation.full_length(run):
        new = computation.geometry.size - run.size
        why = f"the source has {new:,} new positions, {done:,} are copied"
        if not new:
            why = f"more of the source can be read, {done:,} positions are copied"
        return "copy and continue", why, pending
    if options.retry_failed and pending:
        return "continue", f"{pending:,} failed positions are tried again", pending
    some_left = done + failed < run.size
    if pending == 0 and (some_left or run.called_finished):
        return "return", "all of it was computed before", 0
    return "continue", f"{done:,} of {run.size:,} positions are done", pending


def survey_of(run: RunFile, options: Options, size: int | None = None) -> Survey:
    """Return what there is of a run, and what is to be computed of `size` positions.

    Parameters
    ----------
    run : RunFile
    options : Options
    size : int, optional
        Positions that the source has by now; default those of the run.
    """
    if options.retry_failed:
        return run.survey(lambda done, failed: failed, options.positions, size)
    return run.survey(lambda done, failed: ~(done | failed), options.positions, size)
