"""Rows of a ragged output, read by position: from heaps, or packed."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.heap import Heap, read_rows
from resumable.output import ENTRY_DTYPE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from resumable.output import Output
    from resumable.runfile import RunFile

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
    """

    def __init__(self, run: RunFile, name: str) -> None:
        self._run, self._name = run, name
        self._output = run.header.outputs[name]

    def counts(self) -> Array:
        """Return how many rows each position has, int64."""
        entries = self._run.array(self._name).reshape(-1)
        done = self._run.array("completed_positions") == 1
        return np.where(done, entries["count"], 0)

    def read(self, positions: Array) -> list[Array]:
        """Return the rows of some flat positions, an array for each.

        Raises
        ------
        RunFileError
            They are not where they should be.
        """
        entries = self._run.array(self._name).reshape(-1)[positions]
        entries[self._run.array("completed_positions")[positions] != 1] = 0
        return read_rows(self._run.path, entries, self._output)

    def values(self) -> Array:
        """Return the rows of all positions, one after the other."""
        none = np.empty((0, *self._output.shape), self._output.dtype)
        found = self.read(np.flatnonzero(self.counts()))
        return np.concatenate([none, *found])

    def spans(self) -> Iterator[tuple[int, int]]:
        """Divide the positions into spans whose rows are read in one go."""
        taken = self.counts() * self._output.row_bytes + ENTRY_DTYPE.itemsize
        groups = np.cumsum(taken) // _AT_ONCE
        bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(taken)]
        yield from itertools.pairwise(bounds)


def copied_rows(rows: RaggedRows, output: Output, path: Path) -> Iterator[Array]:
    """Copy all rows into a heap of the run file `path`; durable at the end.

    Yields
    ------
    entries : ndarray of ENTRY_DTYPE
        Of the positions, span by span.
    """
    with contextlib.closing(Heap(path)) as heap:
        for start, stop in rows.spans():
            yield heap.add(rows.read(np.arange(start, stop)), output)
        heap.sync()
