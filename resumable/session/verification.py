"""Checking a run file from end to end, and computing some of it again.

Nothing is written. What is found are the checks of a verdict, in the order of the work:
the structure, the status, the sources, the computation, the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import (
    HDF5_ERRORS,
    PlanError,
    ResumableError,
    RunFileError,
    SourceError,
)
from resumable.model import differences, format_bytes, windows
from resumable.results import inputs_of_run, source_of_run
from resumable.runfile import RaggedRows, RunFile, busy, open_group
from resumable.session.comparison import compared, other_bytes
from resumable.session.computation import begins_with
from resumable.session.verdict import Check, VerifyReport, few, listed
from resumable.source import open_reader, refer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from resumable.model import Output
    from resumable.runfile import Header
    from resumable.source import SourceRef

    Array = np.ndarray[Any, np.dtype[Any]]

#: How to say where a source is.
_ELSEWHERE = "--source, or source="
#: Bytes of failed rows that are compared with the fill value at once.
_AT_ONCE = 1 << 22
_STATUS = ("completed_positions", "failed_positions")


def verify_run(
    path: Path,
    restore: Callable[[RunFile], Any] | None,
    *,
    source: Any = None,
    sample: int | str = 20,
    seed: int | None = None,
) -> VerifyReport:
    """Check a run file; nothing is written.

    Parameters
    ----------
    path : Path
        The file.
    restore : callable, optional
        Makes the user's Process of the run; without it no row is computed again.
    source : optional
        Where the source is now, default where the run file says.
    sample : int or "all"
        How many positions to compute again.
    seed : int, optional
        Chooses the sample.

    Raises
    ------
    RunFileError
        There is no such file.
    PlanError
        The sample is neither a number from 0 nor "all".
    """
    if isinstance(sample, (int, np.integer)) and not isinstance(sample, bool):
        if sample < 0:
            msg = f"sample must be 0 or more positions, not {sample}"
            raise PlanError(msg)
    elif sample != "all":
        msg = f"sample must be a whole number of positions or 'all', not {sample!r}"
        raise PlanError(msg)
    if not path.is_file():
        msg = f"there is no file {path}"
        raise RunFileError(msg)
    try:
        run = RunFile(path)
    except RunFileError as error:
        return VerifyReport(path, (Check("structure", False, str(error)),))
    checks = [_structure(run)]
    if checks[0].passed:
        checks += [_status(run), _failures(run)]
        checks += _computed(run, restore, source, sample, seed)
    return VerifyReport(path, tuple(checks))


# The file by itself.


def _structure(run: RunFile) -> Check:
    """Compare what HDF5 sees with what the header says."""
    header = run.header
    wrong = []
    size = run.path.stat().st_size
    if size != header.file_bytes:
        wrong.append(f"it has {size:,} bytes and was made with {header.file_bytes:,}")
    try:
        with open_group(run) as group:
            wrong += _seen_otherwise(group, header)
        for name in header.ragged:
            RaggedRows(run, name).check()
    except RunFileError as error:
        wrong.append(str(error))
    except (*HDF5_ERRORS, AttributeError) as error:
        wrong.append(f"HDF5 cannot read it ({error})")
    if wrong:
        return Check("structure", False, few(wrong, "differences", "\n"))
    count = len(_datasets(header))
    words = f"{format_bytes(size)}, digests, {count} datasets as HDF5 sees them"
    return Check("structure", True, words)


def _seen_otherwise(group: Any, header: Header) -> Iterator[str]:
    for name, (shape, dtype) in _datasets(header).items():
        found = group[name]
        if (found.shape, found.dtype) != (shape, dtype):
            yield (
                f"{name} is {found.shape} {found.dtype} in HDF5 and {shape} {dtype} "
                "in the header"
            )
        elif name in header.offsets and found.id.get_offset() != header.offsets[name]:
            yield f"{name} lies elsewhere than its header says"


def _datasets(header: Header) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of every dataset that changes after birth."""
    byte = np.dtype(np.uint8)
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "finished": ((1,), byte),
        **{n: ((header.rows[n],), dtype) for n, dtype in header.tables.items()},
        **{name: ((header.size,), byte) for name in _STATUS},
    }
    for name, output in header.outputs.items():
        lead = header.map_shape if output.per == "position" else ()
        stored = output if header.packed is not None else output.stored
        if stored.ragged:
            parts = header.parts(name).items()
            found.update({f"{name}/{part}": place for part, place in parts})
        else:
            found[name] = ((*lead, *stored.shape), stored.dtype)
    return found


def _status(run: RunFile) -> Check:
    """Check that the status makes sense, and that failed rows hold the fill value."""
    finished = int(run.array("finished")[0])
    wrong = [] if finished <= 1 else [f"the byte 'finished' is {finished}"]
    for name in _STATUS:
        status = run.array(name)
        count = sum(int((status[a:b] > 1).sum()) for a, b in windows(run.size))
        if count:
            wrong.append(f"{count:,} bytes of {name} are neither 0 nor 1")
    done, failed = run.counts()
    pending = run.size - done - failed
    if finished and pending:
        wrong.append(f"it is marked finished, and {pending:,} positions are pending")
    remarks = [f"{done:,} done, {failed:,} failed, {pending:,} pending"]
    unfilled = _unfilled(run) if failed else []
    if unfilled:
        text = listed("failed", unfilled, run, "not the fill value in their rows")
        if _retried(run):
            # Rows are written before they are marked: not lost, not damaged.
            remarks.append(f"{text}: tried again by a session that was killed")
        else:
            wrong.append(text)
    holder = busy(run)
    if holder:
        remarks.append(f"being computed by process {holder['pid']}: checked as it was")
    return Check("status", not wrong, few(wrong, "more", "\n") or "; ".join(remarks))


def _retried(run: RunFile) -> bool:
    """Whether a session that came after another was killed, or is at work."""
    return any(session.end == 0 for session in run.sessions()[1:])


def _unfilled(run: RunFile) -> list[int]:
    """Return the failed positions whose rows hold something else than the fill."""
    found: set[int] = set()
    for name, output in _outputs(run).items():
        if output.ragged and run.header.packed is not None:
            counts = RaggedRows(run, name).counts()
            for start, _, failed in run.scan():
                wrong = failed & (counts[start : start + len(failed)] > 0)
                found.update((start + np.flatnonzero(wrong)).tolist())
            continue
        stored = output.stored
        step = max(1, _AT_ONCE // stored.row_bytes)
        fill = stored.filled(1)
        for start, _, failed in run.scan():
            positions = start + np.flatnonzero(failed)
            for begin in range(0, len(positions), step):
                chosen = positions[begin : begin + step]
                rows = run.rows(name, chosen)
                found.update(chosen[other_bytes(rows, fill)].tolist())
    return sorted(found)


def _failures(run: RunFile) -> Check:
    """Check that the table of failures speaks of positions that failed."""
    table = np.array(run.array("failures"))
    used = table[table["used"] != 0]
    wrong = []
    if (used["used"] != 1).any():
        wrong.append("a row of the table is neither used nor unused")
    inside = (used["position"] >= 0) & (used["position"] < run.size)
    if not inside.all():
        wrong.append(f"{int((~inside).sum())} rows name positions that do not exist")
    positions = used["position"][inside]
    failed, done = run.array("failed_positions"), run.array("completed_positions")
    stale = positions[(failed[positions] != 1) | (done[positions] == 1)]
    # A later session may have computed them; a killed one never marked them.
    if len(stale) and run.finished and len(run.sessions()) == 1 and not _grows(run):
        left = stale.tolist()
        wrong.append(listed("described", left, run, "not marked as failed"))
    described, count = len(run.failures()), run.counts()[1]
    words = f"{described:,} of {count:,} described" if count else "none"
    return Check("failures", not wrong, few(wrong, "more", "\n") or words)


def _grows(run: RunFile) -> bool:
    """Whether rows and failures may have been copied from a shorter run."""
    return run.header.source.get("contents") is not None


def _outputs(run: RunFile) -> dict[str, Output]:
    return {n: o for n, o in run.header.outputs.items() if o.per == "position"}


# What it was computed from, and by what.


def _computed(
    run: RunFile,
    restore: Callable[[RunFile], Any] | None,
    source: Any,
    sample: int | str,
    seed: int | None,
) -> Iterator[Check]:
    """Check the sources, the computation, and rows of it."""
    process = None
    if restore is not None:
        try:
            process = restore(run)
        except SourceError as error:
            yield Check("source", False, f"{error}: {_ELSEWHERE}")
            yield Check("rows", False, "not computed again: there is no source")
            return
        except ResumableError as error:
            yield _source(run, source)
            yield Check("computation", False, str(error))
            yield Check("rows", None, "not computed again: it is another computation")
            return
    if process is None:
        yield _source(run, source)
        yield Check("rows", None, _without_class(run))
        return
    computation = process._computation()
    told = differences(run.header.document, computation.spec.document)
    of_source = [text for text in told if text.startswith(("source", "inputs"))]
    if not of_source and not _still_begins(computation.source, run):
        of_source = ["source.contents: not what the run was made of"]
    yield _of_source(run, of_source)
    of_class = [text for text in told if text not in of_source]
    if of_class:
        yield Check("computation", False, few(of_class, "differences", "\n"))
    else:
        name = run.header.document["process"]
        yield Check("computation", True, f"{name}, with these parameters")
    if told or of_source:
        yield Check("rows", None, "not computed again: other rows would come out")
        return
    yield from compared(run, computation, sample, seed)


def _source(run: RunFile, source: Any) -> Check:
    """Compare the fingerprints of the source and the inputs with the document."""
    document = run.header.document
    full = bool(run.header.source.get("full"))
    try:
        found, axes = source_of_run(run, source)
        ref = refer(found, axes)
        told = _differences("source", document["source"], ref, full)
        for name, (value, input_axes) in inputs_of_run(run, found).items():
            written = {k: v for k, v in document["inputs"][name].items() if k != "axes"}
            other = refer(value, input_axes, same_file=ref.path)
            told += _differences(f"inputs.{name}", written, other, full)
        if not told and not _still_begins(ref, run):
            told = ["source.contents: not what the run was made of"]
    except ResumableError as error:
        if source is not None:
            return Check("source", False, str(error))
        return Check("source", None, f"{error}: {_ELSEWHERE}")
    return _of_source(run, told)


def _differences(name: str, written: Any, ref: SourceRef, full: bool) -> list[str]:
    with open_reader(ref) as reader:
        awaited = isinstance(written, dict) and written.get("contents", "") is None
        found = reader.fingerprint(full=full, kind="awaited" if awaited else None)
    return [f"{name}.{text}" for text in differences(written, found)]


def _still_begins(ref: SourceRef, run: RunFile) -> bool:
    """Whether a source that can grow begins with what the run was made of."""
    if not _grows(run):
        return True
    with open_reader(ref) as reader:
        return begins_with(reader, run)


def _of_source(run: RunFile, told: list[str]) -> Check:
    if told:
        text = "not what the run was made of\n" + few(told, "differences", "\n")
        return Check("source", False, text)
    inputs = len(run.header.document["inputs"])
    digest = "all contents" if run.header.source.get("full") else "fingerprint"
    also = f", and of {inputs} inputs" if inputs else ""
    return Check("source", True, f"the {digest} of the source{also} as it was")


def _without_class(run: RunFile) -> str:
    name = run.header.document["process"]
    return (
        f"not computed again, that takes the class: --class FILE.py:{name}, or "
        f"rs.verify(path, {name})"
    )
