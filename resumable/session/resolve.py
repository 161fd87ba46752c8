"""From what a Process asks to a computation: identity, memory, place, provenance.

And at the end of a session: whether what it was computed from is what it was at the
beginning. Else rows of two contents, or of two values, may be mixed in its run.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import itertools
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable import identity
from resumable.errors import (
    IdentityError,
    ResumableError,
    RunFileError,
    SourceError,
)
from resumable.model import (
    EARLIER_SCHEMA,
    SCHEMA,
    Footprint,
    document_digest,
    scratch_bytes,
)
from resumable.runfile import HDF5_VERSIONS, RunFile, RunFileSpec, RunFolder
from resumable.session.computation import (
    Computation,
    KnownAs,
    begins_with,
    recorded_of,
)
from resumable.source import (
    is_of_pieces,
    note_on_numbers,
    open_reader,
    read_unchanged,
)
from resumable.system import disk
from resumable.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from resumable.identity import Trace
    from resumable.model import PositionSet
    from resumable.session.computation import Options, Request
    from resumable.source import Reader, SourceRef


#: Names of digests of contents in what is written of a source.
_DIGESTS = ("contents", "first")
#: Seconds to wait for a program that is writing a source at this moment.
_PATIENCE_S = 2.0
_LEFT = "It stays unfinished, and is neither continued nor returned"


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

    def sources(like: dict[str, Any] | None = None) -> dict[str, Any]:
        full, kind = request.full, "awaited" if awaited else None
        return {
            "source": reader.fingerprint(full=full, kind=kind, like=like),
            "inputs": {
                name: {
                    **other.fingerprint(full=full, like=like),
                    "axes": list(other.ref.position_axes),
                }
                for name, other in inputs.items()
            },
        }

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
        **sources(),
    }
    if request.strict:
        document["environment"] = identity.environment_of(request.trace.modules)
    contents: str | None = None
    if ready is not None:
        contents = reader.contents_at(ready, full=request.full)
    elif reader.growable or awaited:
        contents = reader.contents(full=request.full)
    input_contents = {
        name: other.contents(full=request.full)
        if ready is None
        else other.contents_at(ready, full=request.full)
        for name, other in inputs.items()
        if other.growable
    }
    prefix = _prefix(request.source, request.name)
    run_folder = RunFolder(request.folder, prefix, document_digest(document))
    if _may_be_known_otherwise(document, run_folder):
        otherwise = {**document, **sources(like={})}
        folder_then = run_folder._replace(identity=document_digest(otherwise))
        if folder_then.runs():
            document, run_folder = otherwise, folder_then
    earlier = None
    # Runs from when the source could still grow, as only one in chunks could.
    if (
        reader.dataset is not None
        and reader.dataset.chunks is not None
        and not (reader.ref.upstream or reader.growable)
    ):
        written = [run.header.document["source"] for run in run_folder.others()]
        growing = [one for one in written if "first" in one]
        if growing:
            source_then = reader.fingerprint(kind="growing", like=growing[-1])
            then = document_digest({**document, "source": source_then})
            earlier = run_folder._replace(identity=then)
    made_before = None
    # By their names: a folder can have thousands of runs, which are not opened here.
    paths = disk.files_in(run_folder.folder, f"{prefix}-", ".h5")
    if any(not path.name.startswith(run_folder.stem) for path in paths):
        before = document_before(request, document)
        if before is not None:
            if _has_pieces(document) and any(
                run.header.document["schema"] == EARLIER_SCHEMA
                for run in run_folder.others()
            ):
                before |= sources(like={})
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
            _spec,
            request,
            document,
            run_folder.identity,
            contents,
            ready,
            input_contents,
        ),
        open_reader=functools.partial(open_reader, reader.ref),
        earlier_folder=earlier,
        made_before=made_before,
        ready=ready,
        input_contents=input_contents,
        known_as={
            known.folder.identity: known
            for known in _known_as(request, document, sources)
        },
        notes=tuple(filter(None, map(note_on_numbers, (reader, *inputs.values())))),
    )


def _may_be_known_otherwise(document: dict[str, Any], run_folder: RunFolder) -> bool:
    """Return whether a run there may be this one, by an older digest of its source.

    Large chunks were digested whole, and those of a source that can grow unpacked. To
    do so takes long, and is done for a run alone that is the same but for the digests.
    """
    if not _has_pieces(document):
        return False
    if disk.files_in(run_folder.folder, run_folder.stem, ".h5"):
        return False
    wanted = _but_digests(document)
    runs = run_folder.others()
    return any(_but_digests(run.header.document) == wanted for run in runs)


def _has_pieces(document: dict[str, Any]) -> bool:
    """Return whether a source or an input has a digest that there was not always."""
    sources = [document["source"], *document["inputs"].values()]
    return any(is_of_pieces(str(one.get(n))) for one in sources for n in _DIGESTS)


def _but_digests(document: dict[str, Any]) -> dict[str, Any]:
    """Return an identity document without the digests of source and inputs."""
    sources = {"": document["source"], **document["inputs"]}
    left = {
        name: {key: value for key, value in one.items() if key not in _DIGESTS}
        for name, one in sources.items()
    }
    return {**document, "source": left.pop(""), "inputs": left}


def _known_as(
    request: Request, document: dict[str, Any], sources: Callable[..., dict[str, Any]]
) -> Iterator[KnownAs]:
    """Yield what the computation was under older names or with fewer parameters.

    As far as there are files with such names; no file is opened.
    """
    for name in _names_of(request):
        prefix = _prefix(request.source, name)
        paths = disk.files_in(request.folder, f"{prefix}-", ".h5")
        if not paths:
            continue
        now = {key: document[key] for key in ("process", "version", "parameters")}
        for changes, trace in _editions(request, now, name):
            if changes == now:
                continue
            variants = [{**document, **changes}]
            if _has_pieces(document):
                variants.append({**variants[0], **sources(like={})})
            for one in variants:
                folder = RunFolder(request.folder, prefix, document_digest(one))
                if any(path.name.startswith(folder.stem) for path in paths):
                    yield KnownAs(folder, one, trace)


def _editions(
    request: Request, document: dict[str, Any], name: str
) -> Iterator[tuple[dict[str, Any], Trace]]:
    """Yield what a computation was under a name: parts of its document, and its trace.

    With all parameters first. Of a chain every stage may have been any of its own.
    """
    if request.stages:
        each = [
            [one for was in _names_of(part) for one in _editions(part, stage, was)]
            for part, stage in zip(
                request.stages[:-1], document["parameters"]["stages"], strict=False
            )
        ]
        last, stage = request.stages[-1], document["parameters"]["stages"][-1]
        each.append(list(_editions(last, stage, name)))
        for parts in itertools.product(*each):
            stages = [written for written, _ in parts]
            traces = {written["process"]: trace for written, trace in parts}
            changes = {"process": name, "parameters": {"stages": stages}}
            yield {**document, **changes}, identity.Trace.together(traces)
        return
    version, trace = request.version, request.trace
    if name != request.name:
        version, trace = request.named(name)
    parameters = dict(request.parameters)
    for left_out in (None, *request.left_out):
        parameters.pop(str(left_out), None)
        changes = {"process": name, "version": version, "parameters": dict(parameters)}
        yield {**document, **changes}, trace


def _names_of(request: Request) -> tuple[str, ...]:
    return (request.name, *request.aliases)


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
    input_contents: dict[str, str],
) -> RunFileSpec:
    cls, system = type(request.process), platform.uname()
    source = {
        "source": str(request.source),
        "folder": str(request.folder),
        "inputs": {name: str(ref) for name, ref in request.inputs.items()},
        **({"shared": request.places} if request.places else {}),
        "length": request.geometry.map_shape[0],
        "contents": contents,
        **({"input_contents": input_contents} if input_contents else {}),
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
        fixed = scratch_bytes(scratch, 1, request.name)
        return Footprint(read, results, fixed, ahead)
    own = functools.partial(scratch_bytes, scratch, process=request.name)
    # What the method returns, and a copy where its dtype is another.
    if callable(scratch):
        return Footprint(read, 2 * results, 0, ahead, own)
    return Footprint(read, 2 * results + own(1), 0, ahead)


def _prefix(source: SourceRef, process: str) -> str:
    """Start of the names of run files: source, dataset, process."""
    stem = Path(source.path).stem if source.path else str(source.count or "array")
    text = f"{stem}-{source.name}-{process}"
    return "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in text)


def error_of_change(
    computation: Computation,
    run: RunFile,
    *,
    sources: bool = True,
    in_workers: Iterable[str] = (),
) -> ResumableError | None:
    """Return an error that says what was changed since a run began; None: nothing.

    Digests the source and the inputs as at the beginning, if `sources`; `in_workers`
    are values that workers have changed. SourceError: one of them cannot be read any
    more, so this is not known.
    """
    values = computation.request.changed()
    values += [f"{name} in a worker" for name in in_workers if name not in values]
    if values:
        several = "were" if len(values) > 1 else "was"
        return IdentityError(
            f"{', '.join(values[:5])} {several} changed while {run.path} was computed: "
            f"rows of two values may be mixed in it. {_LEFT}; change nothing that is "
            "computed with until compute returns. An object that changes by being used "
            "is made in setup(), or its class has a method __resumable_identity__"
        )
    changed = changed_sources(computation, run) if sources else []
    if changed:
        return SourceError(
            f"{' and '.join(changed)} changed or replaced while {run.path} was "
            f"computed: rows of two contents may be mixed in it. {_LEFT}; run again, "
            "and a new run of what is there now begins"
        )
    return None


def changed_sources(computation: Computation, run: RunFile) -> list[str]:
    """Return which of source and inputs are not what a run was made of."""
    document, full = run.header.document, bool(run.header.source.get("full"))
    found = []
    ref = computation.source
    if ref.path and _is_other(ref, document["source"], full, run, "source"):
        found.append(f"the source {ref} was")
    for name, ref in computation.inputs.items():
        written = {k: v for k, v in document["inputs"][name].items() if k != "axes"}
        if _is_other(ref, written, full, run, f"inputs.{name}"):
            found.append(f"the input {name!r} ({ref}) was")
    return found


def _is_other(
    ref: SourceRef, written: dict[str, Any], full: bool, run: RunFile, name: str
) -> bool:
    """Return whether a source is not what was written of it.

    The run file may have recorded more of it, by `name`.
    """
    if ref.upstream:
        try:
            above = RunFile(Path(ref.path))
        except RunFileError as error:
            raise SourceError(str(error)) from error
        names = (above.rows_known_by(in_chain=True), above.rows_known_by())
        return ref.upstream not in names

    recorded = recorded_of(run.header, name) is not None
    known, kind = written, "fixed"
    if "first" in written:
        kind = "growing"
        if recorded:
            # The first position is a part of these contents.
            known = {k: v for k, v in written.items() if k != "first"}
            known["contents"] = None
    if known.get("contents", "") is None:
        kind = "awaited"

    def read(_: Any = None) -> bool:
        with open_reader(ref) as reader:
            if reader.fingerprint(full=full, kind=kind, like=known) != known:
                return True
            return recorded and not begins_with(reader, run, name)

    return read_unchanged(ref.path, read, _PATIENCE_S) if ref.live else read()
