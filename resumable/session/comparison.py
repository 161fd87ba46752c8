"""Rows of a run file, computed again and compared with what is on the disk."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.model import PositionSet, fit_memory
from resumable.runfile import RaggedRows
from resumable.session.progress import progress_bar
from resumable.session.trial import opened, recompute
from resumable.session.verdict import Check, listed
from resumable.system import machine
from resumable.worker import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.runfile import RunFile
    from resumable.session.computation import Computation
    from resumable.session.trial import Recomputed

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(slots=True)
class _Tally:
    """What became of the positions that were computed again."""

    same: int = 0
    near: int = 0
    failed_again: int = 0
    other: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    raised: list[int] = dataclasses.field(default_factory=list)
    example: str = ""
    mended: list[int] = dataclasses.field(default_factory=list)

    @property
    def count(self) -> int:
        other = len({p for positions in self.other.values() for p in positions})
        settled = self.same + self.near + self.failed_again
        return settled + other + len(self.raised) + len(self.mended)


def compared(
    run: RunFile,
    computation: Computation,
    sample: int | str,
    seed: int | None,
) -> Iterator[Check]:
    """Compute positions again, block by block, and compare."""
    settled = run.select(lambda done, failed: done | failed)
    chosen = settled if isinstance(sample, str) else _sampled(settled, sample, seed)
    total = len(chosen)
    if not total:
        yield Check("rows", None, "no position is done" if sample else "none asked for")
        return
    rows = fit_memory(
        computation.footprint,
        computation.geometry,
        memory=machine.available_memory() // 2,
        workers=1,
        local=False,
    ).rows
    tally = _Tally()
    bar = progress_bar(
        show=None if isinstance(sample, str) else False,
        total=total,
        initial=0,
        label="verify",
    )
    try:
        with opened(computation) as computer, bar:
            for flat in _blocks(chosen, rows):
                _compare(
                    run, flat, recompute(computer, flat), computation.process, tally
                )
                bar.update(tally.count, 0)
    except Exception as error:
        # setup() or the source; what a position raises is kept with it.
        told = describe(0, error)
        words = f"computing again raised {told.exception}: {told.message}"
        yield Check("rows", False, words)
        return
    yield _judged(run, tally, len(settled), computation.process)


def _sampled(settled: PositionSet, sample: int, seed: int | None) -> PositionSet:
    """Choose members at random, each with the same chance."""
    if sample >= len(settled):
        return settled
    ranks = np.random.default_rng(seed).choice(len(settled), sample, replace=False)
    return PositionSet.of(settled.size, np.array(settled.members_at(np.sort(ranks))))


def _blocks(chosen: PositionSet, rows: int) -> Iterator[Array]:
    for start, stop in chosen.windows():
        flat = start + np.flatnonzero(chosen.window(start, stop))
        for begin in range(0, len(flat), rows):
            yield flat[begin : begin + rows]


def _compare(
    run: RunFile, flat: Array, again: Recomputed, process: Any, tally: _Tally
) -> None:
    """Compare a block with what is on disk."""
    done = run.array("completed_positions")[flat] == 1
    tally.failed_again += int((~done & again.failed).sum())
    tally.mended += flat[~done & ~again.failed].tolist()
    tally.raised += flat[done & again.failed].tolist()
    for row, error in again.exceptions:
        if done[row] and not tally.example:
            told = describe(int(flat[row]), error)
            tally.example = f"{told.exception}: {told.message}"
    both = done & ~again.failed
    bits, wrong = np.zeros(len(flat), bool), np.zeros(len(flat), bool)
    for name, values in again.values.items():
        rtol = process.rtol if hasattr(process, "block_computation") else None
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


def _judged(run: RunFile, tally: _Tally, settled: int, process: Any) -> Check:
    lines = []
    for name, positions in tally.other.items():
        what = listed("done", positions, run, f"hold another value of {name!r}")
        lines.append(what)
    if tally.raised:
        what = listed("done", tally.raised, run, "raise now")
        lines.append(f"{what}: {tally.example}")
    wrong = bool(lines)
    if wrong:
        lines.append("compute(override=True), or --override, computes all of it anew")
    parts = [f"{tally.same:,} the same bit for bit"]
    if hasattr(process, "block_computation"):
        parts.append(f"{tally.near:,} within rtol={process.rtol:g}")
    if tally.failed_again:
        parts.append(f"{tally.failed_again:,} failed again")
    of = f"{tally.count:,} of {settled:,} positions computed again"
    lines.insert(0, f"{of}: {', '.join(parts)}")
    if tally.mended:
        what = listed("failed", tally.mended, run, "succeed now")
        lines.append(f"{what}: retry_failed=True, or --retry-failed, enters them")
    summaries = [n for n, o in run.header.outputs.items() if o.per == "run"]
    if summaries:
        names = ", ".join(summaries)
        lines.append(f"finish() is not run again: {names} not compared")
    return Check("rows", not wrong, "\n".join(lines))


def _unlike(rows: Array, values: Array, rtol: float | None) -> tuple[Array, Array]:
    """Return which rows differ, by more than is allowed and in any bit."""
    bits = other_bytes(rows, values)
    return (bits if rtol is None else _beyond(rows, values, rtol)), bits


def _unlike_ragged(
    rows: list[Array], values: Array, rtol: float | None
) -> tuple[Array, Array]:
    """Return at which positions any of the rows differ, or their number does."""
    unlike, bits = np.ones(len(rows), bool), np.ones(len(rows), bool)
    none = np.zeros(0, bool)
    for index, (some, again) in enumerate(zip(rows, values, strict=True)):
        if len(some) != len(again):
            continue
        wrong, other = _unlike(some, again, rtol) if len(some) else (none, none)
        unlike[index], bits[index] = wrong.any(), other.any()
    return unlike, bits


def other_bytes(rows: Array, values: Array) -> Array:
    """Return which rows differ in any bit; what pads a compound does not count."""
    names = rows.dtype.names
    if names is not None:
        parts = [other_bytes(rows[name], values[name]) for name in names]
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
        return other_bytes(rows, values)
    wide = np.complex128 if rows.dtype.kind == "c" else np.float64
    left, right = (a.reshape(len(a), -1).astype(wide) for a in (rows, values))
    with np.errstate(all="ignore"):
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        sizes = np.maximum(np.abs(left), np.abs(right))
        sizes[~np.isfinite(sizes)] = 0
        near = np.abs(left - right) <= rtol * sizes.max(axis=1, keepdims=True)
    return np.asarray(~(same | near).all(axis=1))
