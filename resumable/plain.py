"""Rows of a run file that is not packed, read when indexed."""

from __future__ import annotations

import math
import os
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.disk import read_into
from resumable.errors import RunFileError
from resumable.indexing import divided_key, offsets, together

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import DTypeLike

    Array = np.ndarray[Any, np.dtype[Any]]

#: Less than this between two rows is read with them.
_GAP_BYTES = 1 << 16
#: What is not needed lies among less than this of what is, or is left out.
_SPARSE_BYTES = 1 << 14
#: Where parts of rows are needed, so much is read at once.
_PIECE_BYTES = 1 << 22


class PlainRows:
    """A dataset that has one place in a run file: indexed like an array, and read then.

    Parameters
    ----------
    path : Path
        For messages.
    fd : int
        The open file; what is read is of this one, whatever takes its place.
    offset : int
        Where the dataset begins.
    dtype : numpy.dtype
    shape : tuple of int
        Of what is stored.
    repeated : tuple of int
        Further axes, along which all values are the same.

    Notes
    -----
    Nothing is mapped into memory: a page that the file does not have any more, or that
    a full file system in memory cannot make, would end the process by a signal.
    """

    def __init__(
        self,
        path: Path,
        fd: int,
        offset: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        repeated: tuple[int, ...] = (),
    ) -> None:
        self._path, self._offset = path, offset
        self._stored, self._repeated = shape, repeated
        self.dtype, self.shape = dtype, (*shape, *repeated)
        self._fd = os.dup(fd)
        self._end = weakref.finalize(self, os.close, self._fd)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        if not self.shape:
            return self._read((1,), [range(1)]).reshape(())[key]
        if isinstance(key, str) or (
            isinstance(key, list) and key and isinstance(key[0], str)
        ):
            return self._fields(key)
        stored = len(self._stored)
        needs, inner, merged = divided_key(key, self.shape, stored)
        lead, rest = needs[: stored - merged + 1], needs[stored - merged + 1 :]
        shape = (math.prod(self._stored[:merged]), *self._stored[merged:])
        block = self._read(shape, lead)
        if rest:
            block = block.reshape(*block.shape, *[1] * len(rest))
            block = np.broadcast_to(block, [len(need) for need in needs])
        return block[inner]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        return np.asarray(self[...], dtype)

    def _fields(self, key: Any) -> Array:
        """Read some fields of all rows, and not more than a piece of the others."""
        # numpy says what is wrong with a name, in its own words.
        np.empty(0, self.dtype)[key]
        found = np.empty(self.shape, self.dtype[key])
        step = max(1, _PIECE_BYTES * len(self) // max(1, self._bytes(self.shape)))
        for first in range(0, len(self), step):
            found[first : first + step] = self[first : first + step][key]
        return found

    def _bytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) * self.dtype.itemsize

    def _read(self, shape: tuple[int, ...], needs: list[Any]) -> Array:
        """Read what is needed of every axis of the dataset, taken in this shape."""
        block = np.empty([len(need) for need in needs], self.dtype)
        if block.size:
            self._fill(block, shape, needs, self._offset)
        return block

    def _fill(
        self, block: Array, shape: tuple[int, ...], needs: list[Any], place: int
    ) -> None:
        need, *others = needs
        row_bytes = self._bytes(shape[1:])
        if all(len(other) == n for other, n in zip(others, shape[1:], strict=True)):
            for first, last in together(need, max(1, _GAP_BYTES // row_bytes)):
                if need[last - 1] - need[first] == last - first - 1:
                    rows = block[first:last]
                    self._take(rows, place + int(need[first]) * row_bytes)
                else:
                    block[first:last] = self._rows(need, first, last, shape, place)
        elif row_bytes <= _SPARSE_BYTES:
            for first, last in _pieces(need, _PIECE_BYTES // row_bytes):
                rows = self._rows(need, first, last, shape, place)
                for axis, other in enumerate(others, 1):
                    chosen = _chosen(other)
                    rows = rows[(*[slice(None)] * axis, chosen)]
                block[first:last] = rows
        else:
            for index, row in enumerate(need):
                there = place + int(row) * row_bytes
                self._fill(block[index], shape[1:], others, there)

    def _rows(
        self, need: Any, first: int, last: int, shape: tuple[int, ...], place: int
    ) -> Array:
        """Read some needed rows, with what is between them."""
        count = int(need[last - 1] - need[first]) + 1
        rows = np.empty((count, *shape[1:]), self.dtype)
        self._take(rows, place + int(need[first]) * self._bytes(shape[1:]))
        return rows if count == last - first else rows[offsets(need, first, last)]

    def _take(self, rows: Array, place: int) -> None:
        """Fill rows with what is there.

        Raises
        ------
        RunFileError
            It is not there any more.
        """
        try:
            if read_into(self._fd, rows, place):
                return
            reason = f"it ends before byte {place + rows.nbytes:,}"
        except OSError as error:
            reason = str(error)
        raise RunFileError(gone(self._path, reason))


def gone(path: Path, reason: Any) -> str:
    """Say that a run file is not any more what it was."""
    return f"{path} was moved or cut since it was opened ({reason})"


def _pieces(need: Any, span: int) -> Iterator[tuple[int, int]]:
    """Divide what is needed of an axis into parts that lie within a span."""
    if isinstance(need, range):
        step = max(1, span // need.step)
        for first in range(0, len(need), step):
            yield first, min(first + step, len(need))
        return
    cuts = (np.flatnonzero(np.diff(need // span)) + 1).tolist()
    yield from zip([0, *cuts], [*cuts, len(need)], strict=True)


def _chosen(need: Any) -> Any:
    """Return the index of what is needed of an axis."""
    if isinstance(need, range):
        return slice(need.start, need.stop, need.step)
    return need
