"""Rows of a packed run file, read and unpacked when indexed."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.compression import load, problem
from resumable.errors import RunFileError
from resumable.header import ADVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import DTypeLike

    from resumable.header import Header
    from resumable.runfile import RunFile

    Array = np.ndarray[Any, np.dtype[Any]]

#: We make chunks of 256 kB, or of one row; a larger one is a mistake or a trap.
_MOST_CHUNK_BYTES = 1 << 30


class PackedRows:
    """One output of a packed run: indexed like an array, and read then.

    Parameters
    ----------
    path : Path
        For messages.
    opened : callable
        Opens the file and returns descriptor and header, in a context.
    name : str
        Of the output; with ``/values`` and the like of a ragged one.
    dtype : numpy.dtype
    shape : tuple of int
        As the header says.
    """

    def __init__(
        self,
        path: Path,
        opened: Callable[[], AbstractContextManager[tuple[int, Header]]],
        name: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None:
        self._path, self._opened, self._name = path, opened, name
        self.dtype, self.shape = dtype, shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        try:
            with self._dataset() as dataset:
                if isinstance(key, str):
                    return dataset[key]
                if isinstance(key, list) and key and isinstance(key[0], str):
                    return dataset[...][key]
                return read_like_array(dataset, key)
        except RunFileError:
            raise
        except OSError as error:
            msg = (
                f"{self._path} is damaged, a part of {self._name} cannot be "
                f"unpacked ({error}): {ADVICE}"
            )
            raise RunFileError(msg) from error

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        return np.asarray(self[...], dtype)

    def check(self) -> None:
        """Check that HDF5 finds what the header says.

        Raises
        ------
        RunFileError
        """
        with self._dataset():
            pass

    @contextlib.contextmanager
    def _dataset(self) -> Iterator[h5py.Dataset]:
        with self._opened() as (fd, header):
            if header.packed is None:
                # It has been unpacked since; whoever asks again gets it plain.
                msg = f"{self._path} has been unpacked meanwhile; index it again"
                raise RunFileError(msg)
            _load(self._path, header.packed[self._name.partition("/")[0]])
            with _hdf5(fd) as file:
                yield self._checked(file, f"{header.group}/{self._name}")

    def _checked(self, file: h5py.File, name: str) -> h5py.Dataset:
        """Return the dataset, when it is what the header says and lies in the file."""
        found = file.get(name)
        if (
            not isinstance(found, h5py.Dataset)
            or not isinstance(file.get(name, getlink=True), h5py.HardLink)
            or (found.shape, found.dtype) != (self.shape, self.dtype)
            or found.chunks is None
            or math.prod(found.chunks) * self.dtype.itemsize > _MOST_CHUNK_BYTES
        ):
            msg = (
                f"{self._path} is damaged, its {name} is not what was packed: {ADVICE}"
            )
            raise RunFileError(msg)
        return found


def _load(path: Path, method: str | None) -> None:
    wrong = problem(method)
    if wrong:
        msg = f"{path} cannot be read: {wrong}"
        raise RunFileError(msg)
    load(method)


@contextlib.contextmanager
def _hdf5(fd: int) -> Iterator[h5py.File]:
    """Open the file of a descriptor, not by name: another one may have that by now."""
    with os.fdopen(os.dup(fd), "rb") as stream, h5py.File(stream, "r") as file:
        yield file


@contextlib.contextmanager
def open_group(run: RunFile) -> Iterator[h5py.Group]:
    """Open the results group of a run file that may be replaced meanwhile."""
    with run.opened() as (fd, header):
        for method in (header.packed or {}).values():
            _load(run.path, method)
        with _hdf5(fd) as file:
            yield file[header.group]


def read_like_array(dataset: h5py.Dataset, key: Any) -> Any:
    """Index a chunked dataset as numpy would an array, and read no more than chunks.

    Parameters
    ----------
    dataset : h5py.Dataset
        At least one axis.
    key : anything numpy takes but names of fields
        Of the first axis only the rows that are needed are read, of the others what
        lies between the first and the last that is needed.

    Raises
    ------
    IndexError
        As numpy would.
    """
    shape = dataset.shape
    # numpy says what is wrong with a key, in its own words.
    np.broadcast_to(np.uint8(0), shape)[key]
    rows: Any = range(shape[0])
    boxes = [slice(0, n) for n in shape]
    inner: list[Any] = []
    axis = 0
    parts = _parts(key)
    # Those of an axis; the others make a new one, or stand for all that is left.
    own = [not (p is None or p is Ellipsis or isinstance(p, np.bool_)) for p in parts]
    for part, of_axis in zip(parts, own, strict=True):
        if not of_axis:
            inner.append(part)
            axis += len(shape) - sum(own) if part is Ellipsis else 0
            continue
        if axis == 0:
            rows, local = _of_rows(part, shape[0])
        else:
            boxes[axis], local = _of_box(part, shape[axis])
        inner.append(local)
        axis += 1
    lengths = [box.stop - box.start for box in boxes[1:]]
    block = np.empty((len(rows), *lengths), dataset.dtype)
    if block.size:
        for first, last in _together(rows, dataset.chunks[0]):
            start = rows[first]
            box = (slice(start, rows[last - 1] + 1), *boxes[1:])
            part = dataset[box]
            whole = len(part) == last - first
            block[first:last] = part if whole else part[_offsets(rows, first, last)]
    return block[tuple(inner)]


def _parts(key: Any) -> list[Any]:
    """Return slices, arrays of indices, None, Ellipsis and single truth values."""
    parts: list[Any] = []
    for part in key if isinstance(key, tuple) else (key,):
        if part is None or part is Ellipsis or isinstance(part, slice):
            parts.append(part)
            continue
        array = np.asarray(part)
        if array.size == 0 and not isinstance(part, np.ndarray):
            array = array.astype(np.intp)
        if array.dtype == bool:
            # A mask of several axes is as good as its indices along each.
            parts += array.nonzero() if array.ndim else [array[()]]
        else:
            parts.append(array)
    return parts


def _of_rows(part: Any, length: int) -> tuple[Any, Any]:
    """Return the rows needed, ascending, and the part of the key within them."""
    if isinstance(part, slice):
        wanted = range(*part.indices(length))
        if wanted.step < 0:
            return wanted[::-1], slice(None, None, -1)
        return wanted, slice(None)
    indices = np.where(part < 0, part + length, part)
    rows = np.unique(indices)
    return rows, np.searchsorted(rows, indices)[()]


def _of_box(part: Any, length: int) -> tuple[slice, Any]:
    """Return the span needed, and the part of the key within it."""
    if isinstance(part, slice):
        wanted = range(*part.indices(length))
        if not wanted:
            return slice(0, 0), slice(None)
        first, last = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        # The span ends with the first and the last that is needed, either way.
        return slice(first, last + 1), slice(None, None, wanted.step)
    if not part.size:
        return slice(0, 0), part
    indices = np.where(part < 0, part + length, part)
    first = int(indices.min())
    return slice(first, int(indices.max()) + 1), (indices - first)[()]


def _together(rows: Any, step: int) -> Iterator[tuple[int, int]]:
    """Yield spans of the needed rows that are read at once: all, or a chunk's."""
    if rows[-1] - rows[0] == len(rows) - 1:
        yield 0, len(rows)
        return
    chunks = np.asarray(rows) // step
    bounds = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), len(rows)]
    yield from itertools.pairwise(bounds)


def _offsets(rows: Any, first: int, last: int) -> Array:
    return np.asarray(np.asarray(rows[first:last]) - rows[first])
