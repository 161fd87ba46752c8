"""What a session computes from must be at its end what it was at its beginning.

Else rows of two contents, or of two values, may be mixed in its run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.errors import (
    IdentityError,
    ResumableError,
    RunFileError,
    SourceError,
)
from resumable.runfile import RunFile
from resumable.session.computation import begins_with, recorded_of
from resumable.source import open_reader, read_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resumable.session.computation import Computation
    from resumable.source import SourceRef

#: Seconds to wait for a program that is writing a source at this moment.
_PATIENCE_S = 2.0
_LEFT = "It stays unfinished, and is neither continued nor returned"


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
            return RunFile(Path(ref.path)).header.identity != ref.upstream
        except RunFileError as error:
            raise SourceError(str(error)) from error

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
