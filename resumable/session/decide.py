"""Look at what is there, decide, plan, explain. Nothing is written."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.engines import choose
from resumable.errors import PlanError, RunFileError, in_python, near, option, shown
from resumable.model import (
    SHIPPED_BYTES,
    Plan,
    differences,
    fit_memory,
    format_bytes,
    parse_bytes,
)
from resumable.results import trace_of
from resumable.runfile import CLOSE, LEFT, REPAIR, RunFile, advice_anew, find_runs
from resumable.session.adopt import parts_of, way_in
from resumable.system import Limit, disk, launcher, least, machine

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from resumable.engines import Engine
    from resumable.runfile import Snapshot
    from resumable.session.computation import Computation, Options

#: Read amplification above which a rechunked copy is advised.
ADVISED_ABOVE = 3.0
#: Why a run of a source that can grow is left, though its identity is the same.
CHANGED = "{}.contents: not what the source begins with now"
#: Why a run is left in which rows may be mixed.
MIXED = "its source or values were changed while it was computed; its log says which"
#: How a difference begins that is one of the code.
EDITED = "code: "
#: Why a run of schema 1 is left.
BEFORE = "made before helpers counted; its class, parameters or source are others, too"
#: Differences told per run, and of its code.
_TOLD, _CODE_TOLD = 5, 8
#: Runs of other datasets that are opened where a new run begins.
_MOVED = 100


class Found(NamedTuple):
    """What is there of a computation."""

    new_path: Path
    """Path of a new run."""
    run: RunFile | None = None
    """The run to continue or to return."""
    snapshot: Snapshot | None = None


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
    if not options.adopt:
        # Of a run made before helpers counted, what is left may be of other code.
        runs = [
            run
            for run in runs
            if not computation.is_earlier(run.header)
            or (
                run.marked_finished
                and computation.full_length(run.header)
                and not (options.retry_failed and run.progress()[1])
            )
        ]
    if options.override:
        same = [run for run in runs if run.header.identity == folder.identity]
        if same and same[-1].path.stem != folder.stem:
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
        return found_with(
            whole[-1] if whole else max(runs, key=lambda run: run.header.size)
        )
    return Found(new_path)


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
        new = size - snapshot.header.size
        why = f"the source has {new:,} new positions, {done:,} are copied"
        if not new:
            why = f"more of the source can be read, {done:,} positions are copied"
        return Decision("copy and continue", why, pending)
    if options.retry_failed and pending:
        why = f"{pending:,} failed positions are tried again"
        return Decision("continue", why, pending)
    if not pending and (snapshot.finished or not snapshot.settled):
        return Decision("return", "all of it was computed before", 0)
    why = f"{done:,} of {snapshot.header.size:,} positions are done"
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
        beside = [] if options.override else computation.run_folder.opened()
        damaged = [error for _, error in beside if isinstance(error, RunFileError)]
        for error in damaged[-1:]:
            # It may be of the same run.
            if any(advice in str(error) for advice in (LEFT, REPAIR, CLOSE)):
                raise error
            msg = f"{error}: {advice_anew()}"
            raise RunFileError(msg) from error
    elif computation.full_length(run.header):
        path = run.path  # else it is copied into a new, longer file
    decision = decide(computation, options, snapshot)
    engine = engine_for(options, snapshot)
    plan = make_plan(computation, options, decision, path, engine)
    notes = list(computation.notes)
    notes += [
        f"not followed: {note}" for note in computation.request.trace.not_followed
    ]
    if run and snapshot and snapshot.done + snapshot.failed:
        notes += filter(None, [edited(computation, run)])
    plan = dataclasses.replace(plan, notes=(*plan.notes, *notes))
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
    # On every host, which has a budget of its own. Ranks that do not compute together
    # have a part of it each.
    host = getattr(engine, "host_memory", machine.host_memory)()
    together = hasattr(engine, "together")
    ranks = 1 if together else launcher.ranks_on_host(ask_mpi=False)
    memory, why = host.amount // 2 // ranks, host.why
    if ranks > 1:
        why = f"{why or 'all that is free'}, divided among {ranks} ranks"
    if options.memory is not None:
        asked = parse_bytes(options.memory)
        memory, why = least([Limit(asked), host])
    process = machine.process_memory()
    known_hosts = getattr(engine, "hosts", (engine.workers,))
    hosts = known_hosts or (engine.workers,)
    most, local = max(hosts), engine.own_processes

    fitted = functools.partial(
        fit_memory,
        footprint,
        memory=memory,
        workers=most,
        local=local,
        each=process and process.amount // 2,
        why=why,
    )
    blocks = fitted(geometry)
    rechunk = options.rechunk and geometry.gains_by_copy(blocks.rows)
    if rechunk:
        geometry = geometry.in_position_order()
        blocks = fitted(geometry)
    block_bytes = footprint(blocks.rows)
    amplification = geometry.amplification(blocks.rows)
    limits = []
    if options.workers is None and options.engine in ("auto", "local") and not together:
        cores, reason = machine.core_limit()
        if reason:
            limits.append(f"{cores} core{'s' * (cores > 1)}: {reason}")
    if why:
        limits.append(f"{format_bytes(host.amount)} of memory left: {why}")
    if process and blocks.share_bytes == process.amount // 2:
        left = format_bytes(process.amount)
        limits.append(f"{left} of memory left to each process: {process.why}")
    notes = []
    if amplification > ADVISED_ABOVE:
        notes.append(
            "the source's chunks run across positions, so much is read again and "
            f"again: {option('rechunk', True)} first makes a copy in position "
            f"order, of {format_bytes(geometry.row_bytes * geometry.size)}"
        )
    if blocks.workers < most:
        notes.append(
            f"{format_bytes(memory)} is enough for {blocks.workers} of {most} workers"
        )
    writer = options.writer
    if writer == "auto":
        folder = computation.run_folder.folder
        on_one_host = known_hosts is not None and len(known_hosts) == 1
        kind = "" if on_one_host else disk.incoherent(folder)
        writer = "driver" if kind else "workers"
        if writer == "driver":
            notes.append(
                f"the driver writes all rows, because {folder} is on a {kind} file "
                "system and workers may be on several hosts"
            )
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
            for o in computation.request.outputs.values()
        ),
        checkpoint_s=float(options.checkpoint),
        writer=writer,
        longest=longest,
        rechunk=rechunk,
        shapes=f"a map of {geometry.map_shape}, each with {geometry.spectrum_shape}",
        limits=tuple(limits),
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
            f"engine {engine.name!r} does not have; use {option('engine', 'local')}"
        )
        raise PlanError(msg)
    return engine


# Why an existing run does or does not match what is wanted.


class Candidate(NamedTuple):
    """A run that exists, and how it compares."""

    path: Path
    """Its file."""
    matches: bool
    """It is a run of exactly this computation."""
    finished: bool
    """It is complete."""
    reasons: tuple[str, ...]
    """State, or the first differences, in words; code has several lines."""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """All runs of a process on a dataset; print it to read it."""

    identity: str
    """Of the wanted run."""
    folder: Path
    """Where was looked."""
    candidates: tuple[Candidate, ...]
    """One per run file."""
    not_followed: tuple[str, ...] = ()
    """What code of the computation reads that is not part of the identity, in words."""

    def __str__(self) -> str:
        notes = [shown(f"not followed: {note}") for note in self.not_followed]
        if not self.candidates:
            first = (
                f"no run of this process on this dataset in {shown(self.folder)}; "
                f"to compute makes one with the identity {self.identity[:8]}"
            )
            return "\n".join([first, *notes])
        lines = [f"wanted: identity {self.identity[:8]}, in {shown(near(self.folder))}"]
        for candidate in self.candidates:
            verdict = "matches" if candidate.matches else "differs"
            lines.append(f"{shown(candidate.path.name)}: {verdict}")
            lines += [
                "    " + reason.replace("\n", "\n        ")
                for reason in candidate.reasons
            ]
        return "\n".join([*lines, *notes])

    __repr__ = __str__


def explain(computation: Computation, *, lines: bool = True) -> Explanation:
    """Compare every run of this process on this dataset with the wanted one.

    And those that would match but for a name. `lines`: show what of the code was
    edited, which reads the trace in every run file, and look at all runs of the folder.
    Else, of other datasets, at the latest runs of a class of this name alone.
    """
    run_folder = computation.run_folder
    matching = computation.runs()
    paths = {run.path for run in matching}
    candidates = []
    for run in matching:
        done, failed, finished = run.progress()
        size = run.header.size
        what = "unfinished, would be continued"
        if not computation.full_length(run.header):
            what = "of a shorter source, would be copied and continued"
            if size == computation.geometry.size:
                what = "of less of the source, would be copied and continued"
        elif finished:
            what = "complete"
        state = f"{what}: {done:,} of {size:,} positions done, {failed:,} failed"
        if run.header.identity in computation.known_as:
            state += "; made under an older name or with fewer parameters"
        if computation.is_earlier(run.header):
            state = state.replace(", would be", ", can be")
            state += f"; {made_before(finished=what == 'complete')}"
        edit = edited(computation, run) if lines and done + failed else ""
        reasons = (state, edit) if edit else (state,)
        candidates.append(Candidate(run.path, True, finished, reasons))
    for path, run_or_error in run_folder.opened():
        if isinstance(run_or_error, RunFileError):
            candidates.append(Candidate(path, False, False, (str(run_or_error),)))
        elif run_or_error.header.identity == run_folder.identity and path not in paths:
            changed = computation.changed_in(run_or_error)
            why = MIXED if run_or_error.mixed else CHANGED.format(changed or "source")
            candidates.append(Candidate(path, False, run_or_error.finished, (why,)))
    for run in run_folder.others():
        if run.path in paths:
            continue  # from when the source could still grow
        document = run.header.document
        told = differences(_as_added(document, computation), computation.document)
        if document.get("schema") != computation.document["schema"]:
            told = [BEFORE]
        listed = []
        for reason in told[:_TOLD]:
            if reason.startswith("version.code:"):
                code = changed_code(run, computation) if lines else []
                listed += [EDITED + words for words in code or ["edited"]]
            else:
                listed.append(shown(_in_words(reason)))
        if len(told) > _TOLD:
            listed.append(f"and {len(told) - _TOLD} more")
        listed += filter(None, [way_in(computation, run)])
        candidates.append(Candidate(run.path, False, run.finished, tuple(listed)))
    seen = {candidate.path for candidate in candidates}
    others = [
        path
        for path in disk.files_in(run_folder.folder, "", ".h5")
        if path not in seen and not path.name.startswith(f"{run_folder.prefix}-")
    ]
    if not lines:
        name = computation.request.name
        beside = run_folder.prefix.removesuffix(name)
        moved = [p for p in others if f"-{name}-" in p.name]
        others = [p for p in others if p.name.startswith(beside)]
        others += sorted({*moved} - {*others}, key=disk.time_of)[-_MOVED:]
    candidates += [
        Candidate(one.path, False, one.finished, (way,))
        for one in find_runs(others)
        if isinstance(one, RunFile) and (way := way_in(computation, one))
    ]
    return Explanation(
        run_folder.identity,
        run_folder.folder,
        tuple(candidates),
        computation.request.trace.not_followed,
    )


#: A difference of what all positions share, by the kind of it: contents or a number.
_SHARED = re.compile(r"((?:.+\.)?shared\.\w+(\.array\.sha256)?)(?:\.numpy\[1\])?: (.*)")


def _in_words(reason: str) -> str:
    """Say which shared value is another one, and not in which form it is written."""
    found = _SHARED.fullmatch(reason)
    if found is None:
        return reason
    name, of_array, values = found.groups()
    contents = "other contents, " if of_array else ""
    return f"{name}: {contents}{values}"


def changed_data(computation: Computation, reasons: tuple[str, ...]) -> str:
    """Say which data have changed since a run; empty where anything else has."""
    told: dict[str, None] = {}
    for reason in reasons:
        found = re.match(r"(source|inputs\.(\w+)|shared\.(\w+))\b", reason)
        if found is None or (found[3] and found[3] not in computation.request.places):
            return ""
        words = f"the shared {found[3]!r}" if found[3] else "the source"
        told[f"the input {found[2]!r}" if found[2] else words] = None
    verb = "have" if len(told) > 1 else "has"
    return f"{' and '.join(told)} {verb} changed" if told else ""


def _as_added(document: dict[str, Any], computation: Computation) -> dict[str, Any]:
    """Return a document with the values that it has of parameters added since."""
    request = computation.request
    if not isinstance(document.get("parameters"), dict):
        return document
    filled = [
        {**then, "parameters": {**part.added, **then["parameters"]}}
        for part, then, _ in parts_of(document, computation.document, request)
    ]
    if not request.stages:
        return filled[0]
    return {**document, "parameters": {"stages": filled}} if filled else document


def edited(computation: Computation, run: RunFile) -> str:
    """Say what was edited since a run was made, where a version is declared.

    Empty where nothing was, or where no version is declared: then an edit begins a new
    run.
    """
    request = computation.request
    then, version = run.header.source.get("trace"), request.process.version
    _, trace = computation.wanted_of(run.header)
    if version is None or not then or then == trace.digest:
        return ""
    if computation.is_earlier(run.header):
        return ""
    first = (
        f"{request.name} was edited since {run.path.name} was made, but version is "
        f"still {version!r}: its rows stay and further ones join them; raise it if "
        "results change:"
    )
    return "\n".join([first, *changed_code(run, computation)])


def made_before(*, finished: bool) -> str:
    """Say what it means that a run was made before helpers counted."""
    words = (
        "made before edits of helper functions and constants were noticed: if they "
        "have changed since, its rows are old ones"
    )
    if finished:
        tells = in_python("verify()") or "'resumable verify'"
        return f"{words}; {tells} tells, {option('override', True)} computes anew"
    return f"{words}; {option('adopt', True)} continues it, else a new run begins"


def changed_code(run: RunFile, computation: Computation) -> list[str]:
    """Say what of the code was edited since a run was made: - there, + here."""
    try:
        there = trace_of(run)
    except RunFileError as error:
        return [str(error)]
    if there is None:
        return []
    told = there.differences(computation.wanted_of(run.header)[1])
    more = [f"and {len(told) - _CODE_TOLD} more"] if len(told) > _CODE_TOLD else []
    return [shown(line, lines=True) for line in told[:_CODE_TOLD]] + more
