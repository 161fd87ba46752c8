"""Rows that came with a batch, in the place of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]


class Supply:
    """Rows that came with a batch, for a worker that cannot open their source.

    Has what a worker needs of a :class:`~resumable.source.reader.Reader`.
    """

    has_data = True
    reads_ahead = False

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def load(self, positions: Array, rows: Array) -> None:
        """Take the rows of a batch: its positions, ascending, and their data."""
        self._positions, self._rows = positions, rows

    def empty(self, rows: int) -> Array:
        """Return an array for the data of `rows` positions, not initialised."""
        return np.empty((rows, *self._rows.shape[1:]), self._rows.dtype)

    def read(self, start: int, members: Array, out: Array) -> None:
        """Copy the data of the members of a span of positions, as a Reader reads."""
        wanted = start + np.flatnonzero(members)
        out[...] = self._rows[np.searchsorted(self._positions, wanted)]
