"""What is computed, how, and into which run file: what a session is given to do."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable import engines, identity
from resumable.errors import PlanError, near_miss, shown, wrong
from resumable.model import (
    PositionSet,
    check_choice,
    check_flag,
    check_whole,
    encode,
    is_number,
    parse_bytes,
    parse_seconds,
)
from resumable.results import unpack_locked
from resumable.runfile import (
    RaggedRows,
    RunFile,
    SessionTables,
    WriteTarget,
    create_run_file,
    reserve_rows,
    target_errors,
)
from resumable.session.adopt import NEARLY
from resumable.session.decide import (
    EDITED,
    changed_code,
    changed_data,
    explain,
    made_before,
)
from resumable.source import coordinates_of, open_reader, rechunked
from resumable.system import disk
from resumable.worker import Job, settings_here, warning_filters

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from resumable.identity import Trace
    from resumable.model import Footprint, Geometry, Output, Plan
    from resumable.runfile import Header, RunFileSpec, RunFolder, RunLock
    from resumable.source import Reader, SourceRef

logger = logging.getLogger("resumable")


class Request(NamedTuple):
    """What a Process asks to be computed; no data have been read for it."""

    process: Any
    """The user's object, of which methods are called and nothing else is read."""
    name: str
    version: Any
    """Its version, or the digest of its code instead, as plain JSON."""
    parameters: dict[str, Any]
    """Their values, as plain JSON."""
    attributes: dict[str, Any]
    """Values of other attributes that the computation reads, as plain JSON."""
    shared: dict[str, Any]
    """What all positions share, by argument name, as plain JSON."""
    places: dict[str, str]
    """Datasets that this was read from, by argument name."""
    arguments: dict[str, Any]
    """What else the constructor was given, as plain JSON."""
    arrays: Mapping[str, Any]
    """Arrays in what it was given and reads, by a name for people."""
    outputs: Mapping[str, Output]
    source: SourceRef
    inputs: Mapping[str, SourceRef]
    geometry: Geometry
    """How the positions lie in the source, as it was seen last."""
    folder: Path
    full: bool
    """All contents are digested, not samples of them."""
    strict: bool
    """Versions of what is computed with are part of the identity."""
    asks_ready: bool
    """Its method ``ready`` says which positions may be read."""
    trace: Trace
    """The user's own code that the computation reaches."""
    check: Any
    """Called in a worker with the Process: it raises where the code is another."""
    changed: Any
    """Says which parameters, attributes and code are not as they were then."""
    earlier: Any
    """Returns version and parameters as documents of schema 1 had them."""
    source_text: str
    """Text of the class, for people; empty where it cannot be found."""
    seconds_per_position: float | None
    aliases: tuple[str, ...] = ()
    """Older names of the class."""
    added: Mapping[str, Any] = {}
    """By name of an added parameter: its value in runs that lack it, as JSON."""
    left_out: tuple[str, ...] = ()
    """Parameters that have the values they stand for in runs that lack them, the
    latest first."""
    named: Any = None
    """Returns version and trace of the class under another name."""
    stages: tuple[Request, ...] = ()
    """Of a chain: what the stages ask for that are computed for this one, in the order
    in which the parameters have them. What runs of then had is said by each of them."""

    def document(self, options: Options) -> dict[str, Any]:
        """Say what is asked for and how, as short JSON: all ranks must ask the same."""
        how = {**vars(options)}
        del how["engine"], how["progress"]
        if options.positions is not None:
            how["positions"] = options.positions.digest()
        return {
            "process": self.name,
            "version": self.version,
            "code": self.trace.code_digest,
            "parameters": self.parameters,
            "attributes": self.attributes,
            "shared": self.shared,
            "outputs": {name: o.identity() for name, o in self.outputs.items()},
            "source": str(self.source),
            "position_axes": list(self.source.position_axes),
            "inputs": {name: str(ref) for name, ref in self.inputs.items()},
            "fingerprint": self.full,
            "environment": self.strict,
            "target": str(self.folder),
            "options": encode(how, "the options"),
        }


class KnownAs(NamedTuple):
    """What this computation was under an older name, or with fewer parameters."""

    folder: RunFolder
    """Where its runs of then lie."""
    document: dict[str, Any]
    """Their identity document."""
    trace: Trace
    """The trace of the code of now, under the name of then."""


class Computation(NamedTuple):
    """A computation with everything resolved: what is wanted, not how."""

    request: Request
    source: SourceRef
    inputs: Mapping[str, SourceRef]
    geometry: Geometry
    footprint: Footprint
    document: dict[str, Any]
    """The identity document: everything that can change results, as plain JSON."""
    contents: str | None
    """Digest of the contents where they are not in the document, as they can grow."""
    run_folder: RunFolder
    spec: Callable[[], RunFileSpec]
    """Returns what a new run file would be made of."""
    open_reader: Callable[[], Reader]
    earlier_folder: RunFolder | None = None
    """Where its runs lie from when the source could still grow."""
    made_before: RunFolder | None = None
    """Where its runs lie that were made before helpers counted, if there are any."""
    ready: PositionSet | None = None
    """Positions that may be read; None: all."""
    input_contents: Mapping[str, str] = {}
    """By name of an input that can grow: the digest of its contents."""
    known_as: Mapping[str, KnownAs] = {}
    """By identity: what else its runs may be."""
    notes: tuple[str, ...] = ()
    """What to know of the numbers of the source and the inputs, a sentence each."""

    def runs(self, files: contextlib.ExitStack | None = None) -> list[RunFile]:
        """Return the runs of this computation, the oldest first, open until `files` is.

        Where the source can grow, its length and most of its contents are not part of
        the identity: a run counts while the source still begins with its contents.
        One in which rows may be mixed does not.
        """
        found = [run for k in self.known_as.values() for run in k.folder.runs(files)]
        found += self.run_folder.runs(files)
        if self.made_before and not found:
            found = self.made_before.runs(files)
        found = [run for run in found if not run.mixed]
        earlier = self.earlier_folder.runs(files) if self.earlier_folder else []
        earlier = [run for run in earlier if not run.mixed]
        found = [run for run in found if not self.changed_in(run)]
        return [run for run in earlier if not self.changed_in(run)] + found

    def changed_in(self, run: RunFile) -> str:
        """Say what does not begin with the contents that a run was made of.

        ``"source"``, ``"inputs.<name>"``, or empty: nothing does.
        """
        digests = {"source": self.contents} if self.ready is None else {}
        refs = {"source": self.source}
        for name, ref in self.inputs.items():
            refs[f"inputs.{name}"] = ref
            if self.ready is None:
                digests[f"inputs.{name}"] = self.input_contents.get(name)
        if self.contents is not None and recorded_of(run.header, "source") is None:
            return "source"
        for name, ref in refs.items():
            if recorded_of(run.header, name) is not None:
                # Known without opening it where nothing has grown.
                if self._same_as(run, name, digests.get(name)):
                    continue
                # That of a later stage of a chain is the source of the chain.
                opened = self.open_reader() if name == "source" else open_reader(ref)
                with opened as reader:
                    if not begins_with(reader, run, name):
                        return name
        return ""

    def _same_as(self, run: RunFile, name: str, digest: str | None) -> bool:
        same_length = run.header.map_shape == self.geometry.map_shape
        return same_length and digest == recorded_of(run.header, name)

    def full_length(self, header: Header) -> bool:
        """Return whether a run is of all that can be read of the source now."""
        same = header.identity in (self.run_folder.identity, *self.known_as)
        if (
            not (same or self.is_earlier(header))
            or header.map_shape != self.geometry.map_shape
        ):
            return False
        covered = positions_of(header)
        if covered is None:
            return True
        return self.ready is not None and self.ready.is_within(covered)

    def wanted_of(self, header: Header) -> tuple[dict[str, Any], Trace]:
        """Return document and trace as a run of this computation has them."""
        known = self.known_as.get(header.identity)
        if known is not None:
            return known.document, known.trace
        return self.document, self.request.trace

    def is_earlier(self, header: Header) -> bool:
        """Return whether a run is of this computation, by a document of schema 1."""
        before = self.made_before
        return before is not None and header.identity == before.identity

    @property
    def environment(self) -> dict[str, str]:
        """What it is computed with besides the user's own code: name -> version."""
        return identity.environment_of(self.request.trace.modules)

    @property
    def position_outputs(self) -> dict[str, Output]:
        """Outputs that have a row per position."""
        return {n: o for n, o in self.request.outputs.items() if o.per == "position"}

    @property
    def packing(self) -> dict[str, str | None]:
        """How to compress the rows of each output in the end; empty for not to pack."""
        outputs = self.position_outputs.items()
        asked = any(output.ragged or output.compression for _, output in outputs)
        return {name: output.compression for name, output in outputs if asked}


def begins_with(reader: Reader, run: RunFile, name: str = "source") -> bool:
    """Return whether the source begins with the contents a run was made of.

    `name` is that of :func:`recorded_of`.
    """
    length, now = run.header.map_shape[0], reader.geometry.map_shape
    if length > now[0] or run.header.map_shape[1:] != now[1:]:
        return False
    recorded, covered = str(recorded_of(run.header, name)), positions_of(run.header)
    full = bool(run.header.source.get("full"))
    if covered is not None:
        return reader.contents_at(covered, full=full) == recorded
    return reader.contents(length, full=full, like=recorded) == recorded


def recorded_of(header: Header, name: str) -> str | None:
    """Return the digest that a run has recorded of its source, or of an input.

    `name` is ``"source"`` or ``"inputs.<name>"``. None: all is in its identity, or was
    not recorded when it was made.
    """
    if name == "source":
        return header.source.get("contents")
    inputs: dict[str, str] = header.source.get("input_contents") or {}
    return inputs.get(name.removeprefix("inputs."))


def positions_of(header: Header) -> PositionSet | None:
    """Return the positions whose contents a run was made of; None: all."""
    text = header.source.get("ready")
    return None if text is None else PositionSet.from_text(header.size, str(text))


@dataclasses.dataclass(frozen=True)
class Options:
    """How to compute; nothing here is part of the identity."""

    engine: Any = "auto"
    workers: int | None = None
    memory: float | str | None = None
    positions: PositionSet | None = None
    override: bool = False
    on_error: str | None = None
    retry_failed: bool = False
    position_timeout: float | str | None = None
    time_limit: float | str | None = None
    checkpoint: float = 10
    writer: str = "auto"
    follow: float | str | None = None
    rechunk: bool = False
    progress: bool | None = None
    adopt: bool = False

    @classmethod
    def of(cls, given: dict[str, Any], map_shape: tuple[int, ...]) -> Options:
        """Check what a user gives by name."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                msg = f"there is no option {name!r}{near_miss(name, known)}"
                raise PlanError(msg)
        positions = given.get("positions")
        if positions is not None:
            positions = PositionSet.chosen(positions, map_shape)
        made = cls(**{**given, "positions": positions})
        if made.on_error is not None:
            check_choice(PlanError, "on_error", made.on_error, ("record", "raise"))
        check_choice(PlanError, "writer", made.writer, ("auto", "workers", "driver"))
        if isinstance(made.engine, str) and made.engine not in engines.NAMES:
            hint = near_miss(made.engine, engines.NAMES)
            names = ", ".join(engines.NAMES)
            msg = f"there is no engine {made.engine!r}{hint} (there are {names})"
            raise PlanError(msg)
        if made.workers is not None:
            check_whole(PlanError, "workers", made.workers, 1)
        for name in ("override", "retry_failed", "rechunk", "adopt"):
            check_flag(PlanError, name, getattr(made, name))
        if made.progress is not None:
            check_flag(PlanError, "progress", made.progress)
        if not is_number(made.checkpoint) or made.checkpoint <= 0:
            what = "a positive time in s"
            raise wrong(PlanError, "checkpoint", made.checkpoint, what)
        for name in ("time_limit", "follow", "position_timeout"):
            if (seconds := getattr(made, name)) is not None:
                parse_seconds(seconds, name)
        if made.memory is not None:
            parse_bytes(made.memory, "memory")
        return made

    @classmethod
    def signature(cls, function: Callable[..., Any]) -> inspect.Signature:
        """Return the signature of a function that takes the options by keyword."""
        found = inspect.signature(function)
        this, *rest, _ = found.parameters.values()
        options = [
            rest[0].replace(name=f.name, default=f.default, annotation=f.type)
            for f in dataclasses.fields(cls)
        ]
        return found.replace(parameters=[this, *options, *rest])


class Assignment(NamedTuple):
    """What a session does: all of it, or until there is more of a followed source."""

    computation: Computation
    """What, of the source as it is now."""
    options: Options
    """How; its positions are those that can be read by now."""
    plan: Plan
    engine: engines.Engine
    lock: RunLock
    """Held by the caller."""

    def open_run(
        self, run: RunFile | None, *, succeeds: bool = False, ended: bool = True
    ) -> tuple[RunFile, SessionTables]:
        """Open the run that is there if it is of full length, else make a new one.

        A warning says which older run is left, where source or class have changed.

        The file has room on the disk for what is computed, and the rows that are there
        are copied into a new one. With `succeeds`, this session has made the run that
        is there, and the new file takes its place if it is of the same identity.
        `ended`: the session before came to its end. RunBusy, where another program has
        the file open for writing.
        """
        computation, requested = self.computation, self.options.positions
        if requested is None:
            requested = PositionSet.full(computation.geometry.size)
        found = () if run is not None else explain(computation, lines=False).candidates
        left = sorted(found, key=lambda one: disk.time_of(one.path))
        nearly = [c for c in left if c.reasons and c.reasons[-1].startswith(NEARLY)]
        for candidate in left:
            reasons, name = candidate.reasons, shown(candidate.path.name)
            if changed := changed_data(computation, reasons):
                logger.warning(
                    "%s since %s was computed, so a new run begins (%s)",
                    changed,
                    name,
                    reasons[0],
                )
            elif candidate in nearly:
                # Of several, such as of copies of a source, one is told.
                if candidate is nearly[-1]:
                    logger.warning("%s is not continued: %s", name, reasons[-1])
            elif candidate.matches and not self.options.override:
                logger.warning("%s was %s", name, made_before(finished=False))
            elif len(reasons) == 1 and reasons[0].startswith(EDITED):
                lines = [""]
                if candidate is left[-1]:
                    lines += changed_code(RunFile(candidate.path), computation)
                logger.warning(
                    "%s was edited since %s was computed, so a new run begins; declare "
                    "a version to decide yourself which edits change results%s",
                    computation.request.name,
                    name,
                    "\n".join(lines),
                )
        for note in computation.notes if run is None else ():
            logger.warning("%s", note)
        if run is None or not computation.full_length(run.header):
            folder = computation.run_folder
            in_place = succeeds and run and run.header.identity == folder.identity
            path = run.path if run and in_place else folder.new_path()
            with computation.open_reader() as reader:
                made = create_run_file(
                    path,
                    computation.spec(),
                    coordinates_of(reader),
                    requested,
                    run,
                    succeeds=succeeds,
                )
            return made, SessionTables(made)
        if run.header.packed is not None:
            run = unpack_locked(run)
        else:
            for ragged in run.header.ragged:
                # Once more rows follow, missing ones cannot be detected.
                RaggedRows(run, ragged).check()
        outputs = computation.position_outputs.values()
        needed = sum(o.row_bytes for o in outputs) * self.plan.pending
        with target_errors(run.path.parent, needed):
            if not ended:
                # It may have been killed before the name of the file was durable.
                disk.sync_folder(run.path.parent)
            tables = SessionTables(run)
            try:
                reserve_rows(tables.fileno(), run.header, requested)
            except BaseException:
                tables.close()
                raise
        return run, tables

    def job(self, run: RunFile) -> Job:
        """Make the copy in position order, if planned; return what workers get."""
        computation, timeout = self.computation, self.options.position_timeout
        source = computation.source
        if self.plan.rechunk:
            with computation.open_reader() as reader:
                source = rechunked(reader, self.copy_path, self.plan.memory_bytes // 2)
        trace = computation.request.trace
        watched = {"numpy.random", "random"} - {*trace.seeds}
        return Job(
            computation.request.process,
            run.header.position_outputs,
            source,
            computation.inputs,
            self.target(run) if self.plan.writer == "workers" else None,
            stop_on_error=self.options.on_error == "raise",
            geometry=computation.geometry,
            check=computation.request.check,
            position_timeout_s=None if timeout is None else parse_seconds(timeout),
            filters=warning_filters(),
            settings=settings_here(),
            may_ship=self.options.writer == "auto",
            # Else it was told before the session.
            watched=() if trace.random else tuple(sorted(watched)),
        )

    def target(self, run: RunFile) -> WriteTarget:
        """Return where rows go, for workers and for the driver."""
        return WriteTarget(
            run.path,
            run.header,
            self.lock.lock_path,
            self.lock.writers_path,
            self.lock.token,
            self.plan.checkpoint_s,
            self.plan.workers if self.plan.writer == "workers" else 1,
        )

    @property
    def copy_path(self) -> Path:
        """Where a copy of the source in position order is, if there is one."""
        run_folder = self.computation.run_folder
        # Where the source can grow, its contents are not part of the identity.
        contents = self.computation.contents or ""
        return run_folder.folder / f"{run_folder.stem}{contents[-8:]}.rechunked.h5"
