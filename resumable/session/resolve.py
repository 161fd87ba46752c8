"""Resolve a Process: its identity, memory, place and provenance."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import inspect
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import param

from resumable.errors import DeclarationError, SourceError
from resumable.model import (
    SCHEMA,
    Footprint,
    class_file,
    class_read_from,
    closed_over,
    document_digest,
    encode,
    text_digest,
)
from resumable.runfile import RunFileSpec, RunFolder
from resumable.session.computation import Computation
from resumable.source import Reader, open_reader
from resumable.system import disk

if TYPE_CHECKING:
    from resumable.model import Output, PositionSet
    from resumable.process import Declaration
    from resumable.session.computation import Options
    from resumable.source import SourceRef


def resolve(
    process: Declaration,
    *,
    live: bool = False,
    length: int = 0,
    ready: PositionSet | None = None,
) -> Computation:
    """Resolve a Process: open its source, and work out what makes it this run.

    Parameters
    ----------
    process : Process
    live : bool
        The source and the inputs may be written meanwhile: they are read without
        locks, and whoever calls this sees to it that what was read can be trusted.
    length : int
        Of the first position axis, as far as it counts; 0: all there is.
    ready : PositionSet, optional
        Positions that may be read; default all.

    Raises
    ------
    SourceError
        The source cannot be read, or inputs have another length.
    """
    source = process._source
    if source.path:
        source = dataclasses.replace(source, live=live, length=length)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_reader(source))
        process._geometry = reader.geometry
        inputs = dict(process._inputs)
        if live:
            for name, ref in inputs.items():
                inputs[name] = _aligned(name, ref, process._geometry.map_shape)
        readers = {
            name: stack.enter_context(open_reader(ref)) for name, ref in inputs.items()
        }
        outputs = process._outputs()
        name = process._process_name()
        awaited = process._asks_ready and reader.has_data
        document = _document(process, reader, readers, outputs, awaited=awaited)
        ready = ready if reader.has_data else None
        contents: str | None = None
        if ready is not None:
            contents = reader.contents_at(ready, full=process._full)
        elif reader.growable or awaited:
            contents = reader.contents(full=process._full)
        prefix = _prefix(process._source, name)
        run_folder = RunFolder(process._folder, prefix, document_digest(document))
        earlier = None
        if reader.may_have_grown and _has_growing(run_folder):
            source_then = reader.fingerprint(kind="growing")
            then = document_digest({**document, "source": source_then})
            earlier = run_folder._replace(identity=then)
        footprint = _footprint(process, [reader, *readers.values()], outputs)
    text = process._source_text()
    return Computation(
        process=process,
        source=source,
        inputs=inputs,
        outputs=outputs,
        geometry=process._geometry,
        footprint=footprint,
        run_folder=run_folder,
        earlier=earlier,
        ready=ready,
        spec=RunFileSpec(
            identity=run_folder.identity,
            document=document,
            process=name,
            outputs=outputs,
            provenance=_provenance(process),
            source_text=text,
            source={
                "source": str(process._source),
                "inputs": {name: str(ref) for name, ref in process._inputs.items()},
                "length": process._geometry.map_shape[0],
                "contents": contents,
                "full": process._full,
                "text": text_digest(text),
                **({} if ready is None else {"ready": ready.to_text()}),
            },
        ),
        open_reader=functools.partial(open_reader, source),
        seconds_per_position=process._seconds_per_position,
    )


def least_calls(process: Declaration, options: Options) -> int:
    """Return how many calls of the user's function there will be, at least.

    Reads no data. Where there is any run of the process on the dataset it may be this
    one and finished, so 0.
    """
    if hasattr(process, "block_computation"):
        return 0
    name = _prefix(process._source, process._process_name())
    if disk.files_in(process._folder, f"{name}-", ".h5"):
        return 0
    chosen = options.positions
    return process._geometry.size if chosen is None else len(chosen)


def _has_growing(run_folder: RunFolder) -> bool:
    """Return whether there are runs from when the source could still grow."""
    return any("first" in run.header.document["source"] for run in run_folder.others())


def _aligned(name: str, ref: SourceRef, map_shape: tuple[int, ...]) -> SourceRef:
    """Refer to an input that is written meanwhile, cut to the length of the source."""
    ref = dataclasses.replace(ref, live=True)
    with Reader(ref) as reader:
        there = reader.geometry.map_shape
    if there[0] < map_shape[0] or there[1:] != map_shape[1:]:
        msg = (
            f"the input {name!r} has positions of shape {there}, the source of shape "
            f"{map_shape}"
        )
        raise SourceError(msg)
    return dataclasses.replace(ref, length=map_shape[0])


def _document(
    process: Declaration,
    reader: Reader,
    readers: dict[str, Reader],
    outputs: dict[str, Output],
    *,
    awaited: bool,
) -> dict[str, Any]:
    """Everything that can change results, as plain JSON."""
    kind = "awaited" if awaited else None
    inputs = {}
    for name, other in readers.items():
        print_of_input = other.fingerprint(full=process._full)
        inputs[name] = {**print_of_input, "axes": list(other.ref.position_axes)}
    return {
        "schema": SCHEMA,
        "process": process._process_name(),
        "version": version_document(process),
        "parameters": process._parameter_document(),
        "outputs": {name: output.identity() for name, output in outputs.items()},
        "position_axes": list(process._source.position_axes),
        "source": reader.fingerprint(full=process._full, kind=kind),
        "inputs": inputs,
    }


def request(process: Declaration, options: Options) -> dict[str, Any]:
    """Say what a rank asks for, without reading data: all must ask for the same.

    Plain JSON, short enough to be sent by each of thousands of ranks.
    """
    names = {field.name for field in dataclasses.fields(options)}
    asked = {name: getattr(options, name) for name in names - {"engine", "progress"}}
    if options.positions is not None:
        asked["positions"] = options.positions.bits
    return {
        "process": process._process_name(),
        "version": version_document(process),
        "source_text": text_digest(process._source_text()),
        "parameters": process._parameter_document(),
        "outputs": {n: o.identity() for n, o in process._outputs().items()},
        "source": str(process._source),
        "position_axes": list(process._source.position_axes),
        "inputs": {name: str(ref) for name, ref in process._inputs.items()},
        "fingerprint": process._full,
        "target": str(process._folder),
        "options": encode(asked, "the options"),
    }


def version_document(process: Declaration) -> Any:
    """Return the version, or the digest of the source text, as plain JSON.

    Raises
    ------
    DeclarationError
        There is neither.
    """
    if process.version is not None:
        return encode(process.version, "version")
    read_from = class_read_from(type(process))
    if class_file(type(process)) != read_from:
        msg = (
            f"{read_from and read_from[0]} was edited after "
            f"{type(process).__name__} was imported from it: import it anew (restart "
            "the kernel), so that what is computed is what is written there"
        )
        raise DeclarationError(msg)
    text = process._source_text()
    if not text:
        msg = (
            f"the source text of {type(process).__name__} cannot be found, so a "
            "changed algorithm would not be noticed; declare version = 1 in it"
        )
        raise DeclarationError(msg)
    document: dict[str, Any] = {"source_text": text_digest(text)}
    closed = closed_over(type(process), param.Parameterized)
    if closed:
        document["closed_over"] = closed
    return document


def _footprint(
    process: Declaration, readers: list[Reader], outputs: dict[str, Output]
) -> Footprint:
    inputs = sum(reader.held_bytes for reader in readers)
    ahead = sum(reader.held_bytes for reader in readers if reader.reads_ahead)
    results = sum(o.row_bytes for o in outputs.values() if o.per == "position")
    if hasattr(process, "block_computation"):
        # What the method returns, and a copy where its dtype is another.
        scratch = functools.partial(_scratch_bytes, process)
        return Footprint(inputs, 2 * results, scratch, ahead)
    # One position is at work at a time, whatever the block.
    return Footprint(inputs, results, lambda _: _scratch_bytes(process, 1), ahead)


def _scratch_bytes(process: Declaration, count: int) -> int:
    if callable(process.scratch):
        return int(process.scratch(count))
    return int(process.scratch) * count


def _provenance(process: Declaration) -> dict[str, str]:
    from resumable.version import __version__

    cls, system = type(process), platform.uname()
    return {
        "resumable_version": __version__,
        "h5py_version": h5py.__version__,
        "hdf5_version": h5py.version.hdf5_version,
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
        # platform.platform() would read the whole interpreter to find its C library.
        "platform": f"{system.system}-{system.release}-{system.machine}",
        "host": system.node,
        "process": f"{cls.__module__}.{cls.__qualname__}",
        "description": inspect.cleandoc(cls.__doc__ or "").partition("\n")[0],
        "start_time": _now(),
        "source_file": process._source.path,
        "source_dataset": process._source.dataset,
    }


def _now() -> str:
    return dt.datetime.now().astimezone().isoformat(timespec="seconds")


def _prefix(source: SourceRef, process: str) -> str:
    """Start of the names of run files: source, dataset, process."""
    stem = Path(source.path).stem if source.path else str(source.count)
    text = f"{stem}-{source.name}-{process}"
    return "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in text)
