"""What is wanted, resolved: a computation, and how to compute it."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable import engines
from resumable.errors import PlanError, near_miss
from resumable.model import PositionSet, encode, parse_bytes, parse_seconds, text_digest

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from resumable.model import Footprint, Geometry, Output
    from resumable.runfile import Header, RunFile, RunFileSpec, RunFolder
    from resumable.source import Reader, SourceRef


class Request(NamedTuple):
    """What a Process asks to be computed; no data have been read for it."""

    process: Any
    """The user's object, of which methods are called and nothing else is read."""
    name: str
    version: Any
    """Its version, or what is told of its source text instead, as plain JSON."""
    parameters: dict[str, Any]
    """Their values, as plain JSON."""
    outputs: Mapping[str, Output]
    source: SourceRef
    inputs: Mapping[str, SourceRef]
    geometry: Geometry
    """How the positions lie in the source, as it was seen last."""
    folder: Path
    full: bool
    """All contents are digested, not samples of them."""
    asks_ready: bool
    """Its method ``ready`` says which positions may be read."""
    source_text: Callable[[], str]
    """Returns the source text of the computation, empty where it cannot be found."""
    seconds_per_position: float | None

    def document(self, options: Options) -> dict[str, Any]:
        """Say what is asked for and how, as short JSON: all ranks must ask the same."""
        how = {**vars(options)}
        del how["engine"], how["progress"]
        if options.positions is not None:
            how["positions"] = options.positions.bits
        return {
            "process": self.name,
            "version": self.version,
            "source_text": text_digest(self.source_text()),
            "parameters": self.parameters,
            "outputs": {name: o.identity() for name, o in self.outputs.items()},
            "source": str(self.source),
            "position_axes": list(self.source.position_axes),
            "inputs": {name: str(ref) for name, ref in self.inputs.items()},
            "fingerprint": self.full,
            "target": str(self.folder),
            "options": encode(how, "the options"),
        }


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
    ready: PositionSet | None = None
    """Positions that may be read; None: all."""

    def runs(self, files: contextlib.ExitStack | None = None) -> list[RunFile]:
        """Return the runs of this computation, the oldest first, open until `files` is.

        Where the source can grow, its length and most of its contents are not part of
        the identity: a run counts while the source still begins with its contents.
        """
        found = self.run_folder.runs(files)
        earlier = self.earlier_folder.runs(files) if self.earlier_folder else []
        if self.contents is None and not earlier:
            return found
        with self.open_reader() as reader:
            if self.contents is not None:
                found = [run for run in found if begins_with(reader, run)]
            return [run for run in earlier if begins_with(reader, run)] + found

    def full_length(self, header: Header) -> bool:
        """Return whether a run is of all that can be read of the source now."""
        same = header.identity == self.run_folder.identity
        if not same or header.map_shape != self.geometry.map_shape:
            return False
        covered = positions_of(header)
        if covered is None:
            return True
        return self.ready is not None and self.ready.is_within(covered)

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


def begins_with(reader: Reader, run: RunFile) -> bool:
    """Return whether the source begins with the contents a run was made of."""
    length, now = run.header.map_shape[0], reader.geometry.map_shape
    if length > now[0] or run.header.map_shape[1:] != now[1:]:
        return False
    source, covered = run.header.source, positions_of(run.header)
    full = bool(source.get("full"))
    if covered is not None:
        return reader.contents_at(covered, full=full) == str(source["contents"])
    return reader.contents(length, full=full) == str(source["contents"])


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
    on_error: str = "record"
    retry_failed: bool = False
    position_timeout: float | str | None = None
    time_limit: float | str | None = None
    checkpoint: float = 10
    writer: str = "auto"
    follow: float | str | None = None
    rechunk: bool = False
    progress: bool | None = None

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
        return cls(**{**given, "positions": positions})

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

    def __post_init__(self) -> None:
        if self.on_error not in ("record", "raise"):
            msg = f"on_error must be 'record' or 'raise', not {self.on_error!r}"
            raise PlanError(msg)
        if isinstance(self.engine, str) and self.engine not in engines.NAMES:
            hint = near_miss(self.engine, engines.NAMES)
            names = ", ".join(engines.NAMES)
            msg = f"there is no engine {self.engine!r}{hint} (there are {names})"
            raise PlanError(msg)
        if self.writer not in ("auto", "workers", "driver"):
            msg = f"writer must be 'auto', 'workers' or 'driver', not {self.writer!r}"
            raise PlanError(msg)
        whole = isinstance(self.workers, (int, np.integer)) and self.workers >= 1
        if self.workers is not None and (not whole or self.workers is True):
            msg = f"workers must be a whole number from 1, not {self.workers!r}"
            raise PlanError(msg)
        if not self.checkpoint > 0:
            msg = f"checkpoint must be a positive time in s, not {self.checkpoint}"
            raise PlanError(msg)
        for seconds in (self.time_limit, self.follow, self.position_timeout):
            if seconds is not None:
                parse_seconds(seconds)
        if self.memory is not None:
            parse_bytes(self.memory)
