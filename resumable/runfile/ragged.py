"""Rows of a ragged output, read by position: from heaps, or packed."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import RunFileError
from resumable.model import ENTRY_DTYPE, divided
from resumable.runfile.header import ADVICE
from resumable.runfile.heap import Heap, MissingHeapError, check_entries, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.model import Output
    from resumable.runfile.file import RunFile

    Array = np.ndarray[Any, np.dtype[Any]]


#: Bytes of rows that are copied at once.
_AT_ONCE = 4 << 20


class RaggedRows:
    """The rows that every position of a run has; those not done have none.

    Parameters
    ----------
    run : RunFile
    name : str
        A ragged output.
    home : Path, optional
        The run file that the heaps belong to, where it is not `run` itself.
    """

    def __init__(self, run: RunFile, name: str, home: Path | None = None) -> None:
        self._run, self._name = run, name
        self._home = home or Path(os.path.realpath(run.path))
        self.output: Output = run.header.outputs[name]
        self._packed_counts: Array | None = None

    def counts(self) -> Array:
        """Return how many rows each position has, int64."""
        if self._packed():
            return self._counts_of_packed()
        # The status first: of what is marked then, the entries are there. They may be
        # of a longer run that has taken the place of this one meanwhile.
        done = self._run.array("completed_positions")[...] == 1
        counts = self._run.array(self._name)["count"].reshape(-1)[: len(done)]
        return np.where(done, counts, 0)

    def read(self, positions: Array, *, marked: bool = True) -> list[Array]:
        """Return the rows of some flat positions, an array for each.

        Parameters
        ----------
        positions : ndarray of int
        marked : bool
            Positions that are not marked as done have no rows.

        Raises
        ------
        RunFileError
            They are not where they should be.
        """
        if self._packed():
            return self._read_packed(positions)
        # Again the status first.
        done = self._run.array("completed_positions")[positions] == 1
        entries = self._run.rows(self._name, positions)
        if marked:
            entries[~done] = np.zeros((), ENTRY_DTYPE)
        try:
            return read_rows(self._home, entries, self.output)
        except MissingHeapError:
            # Gone because the run has been packed since we looked?
            if self._packed():
                return self._read_packed(positions)
            raise

    def check(self) -> None:
        """Check that all rows are where they should be; reads none of them.

        Raises
        ------
        RunFileError
        """
        if not self._packed():
            entries = self._run.array(self._name)[...].reshape(-1)
            done = self._run.array("completed_positions")[...] == 1
            check_entries(self._home, entries[done], self.output)
            return
        self._run.packed_part(self._name, "values").check()
        counts = self._counts_of_packed()
        index = np.asarray(self._run.packed_part(self._name, "index"))
        if not np.array_equal(index, np.repeat(np.arange(len(counts)), counts)):
            msg = (
                f"{self._run.path} is damaged, index of {self._name} is not what its "
                f"count says: {ADVICE}"
            )
            raise RunFileError(msg)

    def _packed(self) -> bool:
        with self._run.opened() as (_, header):
            return header.packed is not None

    def _counts_of_packed(self) -> Array:
        if self._packed_counts is None:
            counts = np.asarray(self._run.packed_part(self._name, "count")).reshape(-1)
            total = self._run.header.rows[self._name]
            if (counts < 0).any() or (counts > total).any() or counts.sum() != total:
                msg = (
                    f"{self._run.path} is damaged, {self._name} has {total:,} rows and "
                    f"their count says otherwise: {ADVICE}"
                )
                raise RunFileError(msg)
            self._packed_counts = counts
        return self._packed_counts

    def _read_packed(self, positions: Array) -> list[Array]:
        counts = self._counts_of_packed()
        ends = np.cumsum(counts)
        values = self._run.packed_part(self._name, "values")
        parts: list[Array] = []
        # Positions that follow each other are read in one go.
        apart = np.flatnonzero(np.diff(positions) != 1) + 1
        for some in np.split(positions, apart):
            if len(some):
                last = ends[some]
                first = int(last[0] - counts[some[0]])
                rows = values[first : int(last[-1])]
                parts += divided(rows, counts[some])
        return parts

    def values(self) -> Array:
        """Return the rows of all positions, one after the other."""
        return self.output.joined(list(self.in_order()))

    def in_order(self) -> Iterator[Array]:
        """Go through the rows of all positions, span by span."""
        for start, stop in self.spans():
            yield self.output.joined(self.read(np.arange(start, stop)))

    def spans(self) -> Iterator[tuple[int, int]]:
        """Divide the positions into spans whose rows are read in one go."""
        taken = self.counts() * self.output.row_bytes + ENTRY_DTYPE.itemsize
        groups = np.cumsum(taken) // _AT_ONCE
        bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(taken)]
        yield from itertools.pairwise(bounds)


def copied_rows(rows: RaggedRows, path: Path) -> Iterator[Array]:
    """Copy all rows into a heap of the run file `path`; durable at the end.

    Yields
    ------
    entries : ndarray of ENTRY_DTYPE
        Of the positions, span by span.
    """
    with contextlib.closing(Heap(path)) as heap:
        for start, stop in rows.spans():
            parts = rows.read(np.arange(start, stop))
            yield heap.add(parts, rows.output)
        heap.sync()
