"""Check a run file from end to end, and compute some of its rows again.

Nothing is written. The checks of the report, in the order of the work: the structure,
the status, the sources, the computation, the rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import (
    IdentityError,
    PlanError,
    ResumableError,
    RunFileError,
    SourceError,
    in_python,
    near,
    option,
    shown,
    wrong,
)
from resumable.model import (
    EARLIER_SCHEMA,
    PositionSet,
    check_whole,
    differences,
    fit_memory,
    format_bytes,
    name_of_position,
)
from resumable.results import inputs_of_run, source_of_run
from resumable.runfile import RaggedRows, RunFile, chunks_agree, holder_of
from resumable.session.computation import begins_with, recorded_of
from resumable.session.decide import MIXED
from resumable.session.events import ProgressBar
from resumable.session.resolve import document_before
from resumable.session.trial import opened
from resumable.source import open_reader, refer
from resumable.system import machine
from resumable.worker import UnitLoop, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from resumable.model import Output
    from resumable.session.computation import Computation
    from resumable.source import SourceRef
    from resumable.worker import Computer

    Array = np.ndarray[Any, np.dtype[Any]]

#: Positions and differences that are named in one check; the others are counted.
_NAMED = 3
_NOT_MADE_OF = "not what the run was made of"
#: Bytes of failed rows that are compared with the fill value at once.
_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One check of a run file."""

    name: str
    """Name: ``structure``, ``status``, ``source``, ``computation``, ``rows``."""
    passed: bool | None
    """Whether it is sound; None where it could not be checked."""
    words: str
    """What was found, the numbers, and what to do."""
    missing: str = ""
    """What is not installed here and is needed for this check; else empty."""

    def __str__(self) -> str:
        verdict = {True: "ok", False: "FAILED", None: "not checked"}[self.passed]
        words = shown(self.words, lines=True).replace("\n", "\n" + " " * 27)
        return f"  {self.name:<12}{verdict:<13}{words}"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class VerifyReport:
    """What a verification found; print it to read it."""

    path: Path
    """The run file."""
    checks: tuple[Check, ...]
    """In the order of the work."""

    @property
    def passed(self) -> bool | None:
        """Whether nothing is wrong with what was checked.

        None: nothing was found to be wrong, but something is not installed here
        without which the file, or its source, cannot be read.
        """
        if any(check.passed is False for check in self.checks):
            return False
        return None if any(check.missing for check in self.checks) else True

    def __str__(self) -> str:
        words = {True: "sound", False: "NOT SOUND", None: "cannot be checked here"}
        verdict = words[self.passed]
        return "\n".join(
            [f"{shown(near(self.path))}: {verdict}", *map(str, self.checks)]
        )

    __repr__ = __str__


def verify_run(
    path: Path,
    restore: Callable[[RunFile], Computation] | None,
    *,
    source: Any = None,
    sample: int | str = 20,
    seed: int | None = None,
) -> VerifyReport:
    """Check a run file; `restore` returns the computation that it should be a run of.

    The other arguments are those of :func:`resumable.verify`. Nothing is written.
    """
    check_sample(sample, seed)
    if not path.is_file():
        msg = f"there is no file {path}"
        raise RunFileError(msg)
    try:
        run = RunFile(path)  # which compares the digests of all that never changes
        checks = [_structure(run)]
    except RunFileError as error:
        return VerifyReport(path, (_of_error("structure", error),))
    if checks[0].passed:
        try:
            checks.append(_status(run))
        except RunFileError as error:
            checks.append(_of_error("status", error))
        checks += _computed(run, restore, source, sample, seed)
    return VerifyReport(path, tuple(checks))


def _of_error(
    name: str, error: Exception, words: str = "", *, passed: bool | None = False
) -> Check:
    """Judge an error; a check that needs what is not installed here is not possible."""
    missing = getattr(error, "missing", "")
    if missing:
        return Check(name, None, f"cannot be checked here: {error}", missing)
    return Check(name, passed, words or str(error))


def check_sample(sample: int | str, seed: int | None = None) -> None:
    """Check which positions to compute again; PlanError for what makes no sense."""
    if seed is not None:
        check_whole(PlanError, "seed", seed)
    if isinstance(sample, (int, np.integer)) and not isinstance(sample, bool):
        if sample < 0:
            msg = f"sample must be 0 or more positions, not {sample}"
            raise PlanError(msg)
    elif not (isinstance(sample, str) and sample == "all"):
        what = "a whole number of positions or 'all'"
        raise wrong(PlanError, "sample", sample, what)


# The file by itself.


def _structure(run: RunFile) -> Check:
    """Check the size of the file, and that ragged rows are where they should be."""
    header, size = run.header, run.path.stat().st_size
    if size != header.file_bytes:
        words = f"it has {size:,} bytes and was made with {header.file_bytes:,}"
        return Check("structure", False, words)
    for name in header.ragged:
        RaggedRows(run, name).check()
    if header.packed is not None and not chunks_agree(run):
        words = (
            "its rows are whole, but their checksums are not found by its table of "
            "chunks; 'resumable pack' writes it anew"
        )
        return Check("structure", False, words)
    return Check("structure", True, f"{format_bytes(size)}, the digests agree")


def _status(run: RunFile) -> Check:
    """Check that the status makes sense, and that failed rows hold the fill value."""
    finished = int(run.array("finished")[0])
    wrong = [MIXED] if run.mixed else []
    if finished > 1 and not wrong:
        wrong = [f"the byte 'finished' is {finished}"]
    for name in ("completed_positions", "failed_positions"):
        status = run.array(name)
        count = sum(int((status[a:b] > 1).sum()) for a, b in run.written())
        if count:
            wrong.append(f"{count:,} bytes of {name} are neither 0 nor 1")
    done, failed, _ = run.progress()
    pending = run.header.size - done - failed
    if finished and pending and not run.mixed:
        wrong.append(f"it is marked finished, and {pending:,} positions are pending")
    remarks = [f"{done:,} done, {failed:,} failed, {pending:,} pending"]
    if failed and (unfilled := _unfilled(run)):
        text = _listed("failed", unfilled, run, "not the fill value in their rows")
        # A session writes a row before it marks the position as done. One that tried
        # failed positions again and was killed in between has done no damage.
        if any(session.end == 0 for session in run.sessions()[1:]):
            remarks.append(f"{text}: tried again by a session that was killed")
        else:
            wrong.append(text)
    holder = holder_of(run)
    if holder:
        remarks.append(f"being computed by process {holder['pid']}")
    return Check("status", not wrong, _first(wrong, "more") or "; ".join(remarks))


def _unfilled(run: RunFile) -> list[int]:
    """Return the failed positions whose rows hold something else than the fill."""
    found: set[int] = set()
    for name, output in run.header.outputs.items():
        if output.per != "position":
            continue
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
                found.update(
                    chosen[_other_bytes(run.rows(name, chosen), fill)].tolist()
                )
    return sorted(found)


# What it was computed from, and by what.


def _computed(
    run: RunFile,
    restore: Callable[[RunFile], Computation] | None,
    source: Any,
    sample: int | str,
    seed: int | None,
) -> Iterator[Check]:
    name = run.header.document["process"]
    if restore is None:
        yield _source(run, source)
        words = (
            "not computed again; give the class: "
            f"{in_python(f'rs.verify(path, {name})') or f'--class FILE.py:{name}'}"
        )
        yield Check("rows", None, words)
        return
    try:
        computation = restore(run)
    except SourceError as error:
        found = _of_error("source", error, f"{error}: {option('source')}")
        yield found
        why = "cannot be read here" if found.missing else "is missing"
        yield Check("rows", found.passed, f"not computed again: the source {why}")
        return
    except IdentityError as error:
        # A value of which the run file has a digest alone: nothing is wrong with it.
        yield _source(run, source)
        yield Check("computation", None, str(error))
        yield Check("rows", None, f"not computed again; give the {name} itself")
        return
    except ResumableError as error:
        yield _source(run, source)
        yield Check("computation", False, str(error))
        yield Check("rows", None, "not computed again: the computation differs")
        return
    document, _ = computation.wanted_of(run.header)
    if run.header.document["schema"] == EARLIER_SCHEMA:
        document = document_before(computation.request, document) or document
    unlike = differences(run.header.document, document)
    of_source = [text for text in unlike if text.startswith(("source", "inputs"))]
    of_class = [text for text in unlike if text not in of_source]
    if not of_source:
        changed = computation.changed_in(run)
        of_source = [f"{changed}.contents: {_NOT_MADE_OF}"] if changed else []
    source_check = _of_source(run, of_source)
    yield source_check
    words = _first(of_class, "differences") or f"{name}, with the same parameters"
    yield Check("computation", not of_class, words)
    if unlike or not source_check.passed:
        yield Check(
            "rows", None, "not computed again: the source or the computation differs"
        )
    else:
        yield check_rows(run, computation, sample, seed)


def _source(run: RunFile, source: Any) -> Check:
    """Compare the fingerprints of the source and the inputs with the document."""
    document = run.header.document
    full = bool(run.header.source.get("full"))
    try:
        found, axes = source_of_run(run, source)
        ref = refer(found, axes)
        unlike = _differences("source", document["source"], ref, full)
        unlike += _not_begun_with(run, "source", ref)
        for name, (value, input_axes) in inputs_of_run(run, found).items():
            written = {k: v for k, v in document["inputs"][name].items() if k != "axes"}
            other = refer(value, input_axes, same_file=ref.path)
            unlike += _differences(f"inputs.{name}", written, other, full)
            unlike += _not_begun_with(run, f"inputs.{name}", other)
        return _of_source(run, unlike)
    except ResumableError as error:
        if source is not None:
            return _of_error("source", error)
        return _of_error("source", error, f"{error}: {option('source')}", passed=None)


def _differences(name: str, written: Any, ref: SourceRef, full: bool) -> list[str]:
    with open_reader(ref) as reader:
        known = written if isinstance(written, dict) else {}
        kind = "awaited" if known.get("contents", "") is None else None
        found = reader.fingerprint(full=full, kind=kind, like=known)
    return [f"{name}.{text}" for text in differences(written, found)]


def _not_begun_with(run: RunFile, name: str, ref: SourceRef) -> list[str]:
    """Return a difference where a source does not begin with what was recorded."""
    if recorded_of(run.header, name) is None:
        return []
    with open_reader(ref) as reader:
        if begins_with(reader, run, name):
            return []
    return [f"{name}.contents: {_NOT_MADE_OF}"]


def _of_source(run: RunFile, unlike: list[str]) -> Check:
    """Judge the differences of the sources."""
    if unlike:
        text = "not what the run was made of\n" + _first(unlike, "differences")
        return Check("source", False, text)
    inputs = len(run.header.document["inputs"])
    what = "contents" if run.header.source.get("full") else "fingerprint"
    also = f" and of {inputs} inputs" if inputs else ""
    return Check("source", True, f"same {what} of the source{also}")


# Rows, computed again and compared with what is on the disk.


@dataclasses.dataclass(slots=True)
class _Tally:
    """What became of the positions that were computed again."""

    same: int = 0
    near: int = 0
    failed_again: int = 0
    other: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    raised: list[int] = dataclasses.field(default_factory=list)
    example: str = ""
    succeeded: list[int] = dataclasses.field(default_factory=list)

    @property
    def count(self) -> int:
        other = len({p for positions in self.other.values() for p in positions})
        settled = self.same + self.near + self.failed_again
        return settled + other + len(self.raised) + len(self.succeeded)


class _Recomputed(NamedTuple):
    """Some positions computed again; rows of failed ones hold the fill value."""

    flat: Array
    values: dict[str, Array]
    failed: Array
    exceptions: list[tuple[int, BaseException]]
    """Row and exception of the failures."""


def check_rows(
    run: RunFile, computation: Computation, sample: int | str, seed: int | None
) -> Check:
    """Compute positions again, block by block, and compare."""
    settled = run.select(lambda done, failed: done | failed)
    chosen, count = settled, len(settled)
    if not isinstance(sample, str) and sample < count:
        # At random, each with the same chance.
        ordinals = np.random.default_rng(seed).choice(count, sample, replace=False)
        members = settled.members_at(np.sort(ordinals))
        chosen = PositionSet.of(settled.size, np.array(members))
    if not len(chosen):
        words = "no position is done" if sample else "none asked for"
        return Check("rows", None, words)
    rows = fit_memory(
        computation.footprint,
        computation.geometry,
        memory=machine.available_memory() // 2,
        workers=1,
        local=False,
    ).rows
    tally = _Tally()
    bar = ProgressBar(
        show=None if isinstance(sample, str) else False,
        total=len(chosen),
        initial=0,
        label="verify",
    )
    process = computation.request.process
    rtol = process.rtol if hasattr(process, "block_computation") else None
    try:
        with opened(computation) as computer, contextlib.closing(bar):
            for start, stop in chosen.windows():
                flat = start + np.flatnonzero(chosen.window(start, stop))
                for begin in range(0, len(flat), rows):
                    for again in _recomputed(computer, flat[begin : begin + rows]):
                        _compare(run, again, rtol, tally)
                    bar.update(tally.count, 0)
    except Exception as error:
        # setup() or the source; what a position raises is kept with the position.
        found = describe(0, error)
        words = f"computing again raised {found.exception}: {found.message}"
        return _of_error("rows", error, words)
    return _judged(run, tally, count, rtol)


def _recomputed(computer: Computer, flat: Array) -> Iterator[_Recomputed]:
    """Compute one block of flat positions, ascending, as in a run.

    A block computation that raises is called again with halves, until the positions
    are found that raise alone.
    """
    first = int(flat[0])
    members = np.zeros(int(flat[-1]) + 1 - first, bool)
    members[flat - first] = True
    rows, inputs = computer.read((first, members))
    if not hasattr(computer.process, "block_computation"):
        loop = UnitLoop(computer, rows, inputs, flat)
        loop.run(0, len(flat), stop_on_error=False)
        yield _Recomputed(flat, loop.values, loop.failed, loop.exceptions)
        return
    try:
        values = computer.block(rows, inputs, flat)
    except (Exception, SystemExit) as error:
        if len(flat) == 1:
            fill = {name: o.filled(1) for name, o in computer.outputs.items()}
            yield _Recomputed(flat, fill, np.ones(1, bool), [(0, error)])
            return
    else:
        yield _Recomputed(flat, values, np.zeros(len(flat), bool), [])
        return
    del rows, inputs
    for half in np.array_split(flat, 2):
        yield from _recomputed(computer, half)


def _compare(
    run: RunFile, again: _Recomputed, rtol: float | None, tally: _Tally
) -> None:
    """Compare positions with what is on disk."""
    flat = again.flat
    done = run.array("completed_positions")[flat] == 1
    tally.failed_again += int((~done & again.failed).sum())
    tally.succeeded += flat[~done & ~again.failed].tolist()
    tally.raised += flat[done & again.failed].tolist()
    for row, error in again.exceptions:
        if done[row] and not tally.example:
            found = describe(int(flat[row]), error)
            tally.example = f"{found.exception}: {found.message}"
    both = done & ~again.failed
    bits, wrong = np.zeros(len(flat), bool), np.zeros(len(flat), bool)
    for name, values in again.values.items():
        if run.header.outputs[name].ragged:
            parts = RaggedRows(run, name).read(flat)
            unlike, unlike_bits = _unlike_ragged(parts, values, rtol)
        else:
            unlike, unlike_bits = _unlike(run.rows(name, flat), values, rtol)
        bits |= unlike_bits
        wrong |= unlike
        if (both & unlike).any():
            tally.other.setdefault(name, []).extend(flat[both & unlike].tolist())
    tally.same += int((both & ~bits).sum())
    tally.near += int((both & bits & ~wrong).sum())


def _judged(run: RunFile, tally: _Tally, settled: int, rtol: float | None) -> Check:
    parts = [f"{tally.same:,} the same bit for bit"]
    if rtol is not None:
        parts.append(f"{tally.near:,} within rtol={rtol:g}")
    if tally.failed_again:
        parts.append(f"{tally.failed_again:,} failed again")
    of = f"{tally.count:,} of {settled:,} positions computed again"
    lines = [f"{of}: {', '.join(parts)}"]
    for name, positions in tally.other.items():
        lines.append(_listed("done", positions, run, f"hold another value of {name!r}"))
    if tally.raised:
        what = _listed("done", tally.raised, run, "raise now")
        lines.append(f"{what}: {tally.example}")
    sound = len(lines) == 1
    if not sound:
        anew = option("override", True, call="compute")
        lines.append(f"{anew} computes all of it anew")
    if tally.succeeded:
        what = _listed("failed", tally.succeeded, run, "succeed now")
        lines.append(f"{what}: {option('retry_failed', True)} enters them")
    summaries = [n for n, o in run.header.outputs.items() if o.per == "run"]
    if summaries:
        names = ", ".join(summaries)
        lines.append(f"finish() is not run again: {names} not compared")
    return Check("rows", sound, "\n".join(lines))


def unlike_rows(output: Output, rows: Any, values: Any, rtol: float | None) -> Array:
    """Return which rows of an output differ, by more than is allowed."""
    unlike = _unlike_ragged if output.ragged else _unlike
    return unlike(rows, values, rtol)[0]


def _unlike(rows: Array, values: Array, rtol: float | None) -> tuple[Array, Array]:
    """Return which rows differ, by more than is allowed and in any bit."""
    bits = _other_bytes(rows, values)
    return (bits if rtol is None else _beyond(rows, values, rtol)), bits


def _unlike_ragged(
    rows: list[Array], values: Array, rtol: float | None
) -> tuple[Array, Array]:
    """Return at which positions any of the rows differ, or their number does."""
    unlike, bits = np.ones(len(rows), bool), np.ones(len(rows), bool)
    for index, (some, again) in enumerate(zip(rows, values, strict=True)):
        if len(some) == len(again) == 0:
            unlike[index] = bits[index] = False
        elif len(some) == len(again):
            wrong, other = _unlike(some, again, rtol)
            unlike[index], bits[index] = wrong.any(), other.any()
    return unlike, bits


def _other_bytes(rows: Array, values: Array) -> Array:
    """Return which rows differ in any bit; what pads a compound does not count."""
    names = rows.dtype.names
    if names is not None:
        parts = [_other_bytes(rows[name], values[name]) for name in names]
        return functools.reduce(np.logical_or, parts)
    left, right = (
        np.ascontiguousarray(a).view(np.uint8).reshape(len(a), -1)
        for a in (rows, values)
    )
    return np.asarray((left != right).any(axis=1))


def _beyond(rows: Array, values: Array, rtol: float) -> Array:
    """Return which rows differ by more than `rtol` of the largest number in them.

    Of the largest, because a sum that cancels is small and its error is not.
    """
    names = rows.dtype.names
    if names is not None:
        parts = [_beyond(rows[name], values[name], rtol) for name in names]
        return functools.reduce(np.logical_or, parts)
    if rows.dtype.kind not in "fc":
        return _other_bytes(rows, values)
    wide = np.complex128 if rows.dtype.kind == "c" else np.float64
    left, right = (a.reshape(len(a), -1).astype(wide) for a in (rows, values))
    with np.errstate(all="ignore"):
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        sizes = np.maximum(np.abs(left), np.abs(right))
        sizes[~np.isfinite(sizes)] = 0
        near = np.abs(left - right) <= rtol * sizes.max(axis=1, keepdims=True)
    return np.asarray(~(same | near).all(axis=1))


# Words.


def _first(lines: list[str], more: str) -> str:
    left = len(lines) - _NAMED
    return "\n".join([*lines[:_NAMED], *([f"and {left} {more}"] * (left > 0))])


def _listed(kind: str, positions: list[int], run: RunFile, what: str) -> str:
    shape = run.header.map_shape
    names = ", ".join(name_of_position(p, shape) for p in positions[:_NAMED])
    left = len(positions) - _NAMED
    more = f" and {left:,} more" if left > 0 else ""
    return f"{len(positions):,} {kind} positions {what} ({names}{more})"
