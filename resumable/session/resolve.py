"""From what a Process asks to a computation: identity, memory, place, provenance."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable import identity
from resumable.errors import IdentityError
from resumable.model import EARLIER_SCHEMA, SCHEMA, Footprint, document_digest
from resumable.runfile import HDF5_VERSIONS, RunFileSpec, RunFolder
from resumable.session.computation import Computation
from resumable.source import note_on_numbers, open_reader
from resumable.system import disk
from resumable.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.model import PositionSet
    from resumable.session.computation import Options, Request
    from resumable.source import Reader, SourceRef


def resolve(
    request: Request,
    reader: Reader,
    inputs: Mapping[str, Reader],
    ready: PositionSet | None = None,
) -> Computation:
    """Work out what makes a computation this run; reads up to 64 MB of each source.

    `request` has the geometry of the open source, `ready` are the positions that may
    be read; None: all.
    """
    if not reader.has_data:
        ready = None
    awaited = request.asks_ready and reader.has_data
    document = {
        "schema": SCHEMA,
        "process": request.name,
        "version": request.version,
        "parameters": request.parameters,
        **({"attributes": request.attributes} if request.attributes else {}),
        **({"shared": request.shared} if request.shared else {}),
        "outputs": {
            name: output.identity() for name, output in request.outputs.items()
        },
        "position_axes": list(request.source.position_axes),
        "source": reader.fingerprint(
            full=request.full, kind="awaited" if awaited else None
        ),
        "inputs": {
            name: {
                **other.fingerprint(full=request.full),
                "axes": list(other.ref.position_axes),
            }
            for name, other in inputs.items()
        },
    }
    if request.strict:
        document["environment"] = identity.environment_of(request.trace.modules)
    contents: str | None = None
    if ready is not None:
        contents = reader.contents_at(ready, full=request.full)
    elif reader.growable or awaited:
        contents = reader.contents(full=request.full)
    prefix = _prefix(request.source, request.name)
    run_folder = RunFolder(request.folder, prefix, document_digest(document))
    earlier = None
    # Runs from when the source could still grow, as only one in chunks could.
    if (
        reader.dataset is not None
        and reader.dataset.chunks is not None
        and not (reader.ref.upstream or reader.growable)
        and any("first" in run.header.document["source"] for run in run_folder.others())
    ):
        source_then = reader.fingerprint(kind="growing")
        then = document_digest({**document, "source": source_then})
        earlier = run_folder._replace(identity=then)
    made_before = None
    # By their names: a folder can have thousands of runs, which are not opened here.
    paths = disk.files_in(run_folder.folder, f"{prefix}-", ".h5")
    if any(not path.name.startswith(run_folder.stem) for path in paths):
        before = document_before(request, document)
        if before is not None:
            folder_then = run_folder._replace(identity=document_digest(before))
            if any(path.name.startswith(folder_then.stem) for path in paths):
                made_before = folder_then
    return Computation(
        request=request,
        source=reader.ref,
        inputs={name: other.ref for name, other in inputs.items()},
        geometry=reader.geometry,
        footprint=_footprint(request, [reader, *inputs.values()]),
        document=document,
        contents=contents,
        run_folder=run_folder,
        spec=functools.partial(
            _spec, request, document, run_folder.identity, contents, ready
        ),
        open_reader=functools.partial(open_reader, reader.ref),
        earlier_folder=earlier,
        made_before=made_before,
        ready=ready,
        notes=tuple(filter(None, map(note_on_numbers, (reader, *inputs.values())))),
    )


def document_before(
    request: Request, document: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the identity document that a run had before helpers counted.

    None: what is asked for could not be identified then, so it was not computed.
    """
    try:
        before = {**document, "schema": EARLIER_SCHEMA, **request.earlier()}
    except (IdentityError, TypeError, ValueError, OSError):
        return None
    before.pop("attributes", None)
    return before


def _spec(
    request: Request,
    document: dict[str, Any],
    identity: str,
    contents: str | None,
    ready: PositionSet | None,
) -> RunFileSpec:
    cls, system = type(request.process), platform.uname()
    source = {
        "source": str(request.source),
        "inputs": {name: str(ref) for name, ref in request.inputs.items()},
        **({"shared": request.places} if request.places else {}),
        "length": request.geometry.map_shape[0],
        "contents": contents,
        "full": request.full,
        "trace": request.trace.digest,
    }
    if ready is not None:
        source["ready"] = ready.to_text()
    if request.arguments:
        source["arguments"] = request.arguments
    return RunFileSpec(
        identity=identity,
        document=document,
        process=request.name,
        outputs=request.outputs,
        provenance={
            "resumable_version": __version__,
            **HDF5_VERSIONS,
            "numpy_version": np.__version__,
            "python_version": platform.python_version(),
            # platform.platform() would read all of the interpreter for its C library.
            "platform": f"{system.system}-{system.release}-{system.machine}",
            "host": system.node,
            "process": f"{cls.__module__}.{cls.__qualname__}",
            "description": inspect.cleandoc(cls.__doc__ or "").partition("\n")[0],
            "start_time": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
            "source_file": request.source.path,
            "source_dataset": request.source.dataset,
        },
        source_text=request.source_text,
        trace=request.trace.to_json(),
        source=source,
        arrays=request.arrays,
    )


def least_calls(request: Request, options: Options) -> int:
    """Return how many calls of the user's function there will be, at least.

    Reads no data. Where there is any run of the process on the dataset it may be this
    one and finished, so 0.
    """
    if hasattr(request.process, "block_computation"):
        return 0
    prefix = _prefix(request.source, request.name)
    if disk.files_in(request.folder, f"{prefix}-", ".h5"):
        return 0
    chosen = options.positions
    return request.geometry.size if chosen is None else len(chosen)


def _footprint(request: Request, readers: list[Reader]) -> Footprint:
    process, outputs = request.process, request.outputs.values()
    read = ahead = 0
    for reader in readers:
        geometry = reader.geometry
        # Rows that lie across a dataset are put in order in a copy.
        held = geometry.row_bytes * (1 if geometry.position_first else 2)
        read += held
        ahead += held if reader.reads_ahead else 0
    results = sum(o.row_bytes for o in outputs if o.per == "position")
    scratch = process.scratch
    if not hasattr(process, "block_computation"):
        # One position is at work at a time, whatever the block.
        fixed = int(scratch(1) if callable(scratch) else scratch)
        return Footprint(read, results, fixed, ahead)
    # What the method returns, and a copy where its dtype is another.
    if callable(scratch):
        return Footprint(read, 2 * results, 0, ahead, lambda rows: int(scratch(rows)))
    return Footprint(read, 2 * results + int(scratch), 0, ahead)


def _prefix(source: SourceRef, process: str) -> str:
    """Start of the names of run files: source, dataset, process."""
    stem = Path(source.path).stem if source.path else str(source.count or "array")
    text = f"{stem}-{source.name}-{process}"
    return "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in text)
