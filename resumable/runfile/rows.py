"""Rows of a run file, read when indexed, and unpacked where it is packed."""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import RunFileError, lacking
from resumable.model import (
    divided_key,
    filter_problem,
    load_filter,
    picked_rows,
    read_like_array,
    spans_of,
)
from resumable.runfile.hdf5 import chunk_table, find_own
from resumable.runfile.header import CHUNKS_DTYPE, advice_anew
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import DTypeLike

    from resumable.runfile.file import RunFile
    from resumable.runfile.header import Header

    Array = np.ndarray[Any, np.dtype[Any]]

#: What is not needed is read, too, where it is less than this: a call costs as much.
_GAP_BYTES = 1 << 13
#: So much is read at once of what is then picked from: it stays in the cache.
_PIECE_BYTES = 1 << 18


class _Rows:
    """A dataset of a run file: indexed like an array, and read then."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        return np.asarray(self[...], dtype)


def names_fields(key: Any) -> bool:
    """Return whether an index is the name of a field, or a list of names."""
    one = key[0] if isinstance(key, list) and key else key
    return isinstance(one, str)


class UnpackedRows(_Rows):
    """A dataset that has one place in a run file: indexed like an array, and read then.

    All reads are from the given open file, whatever takes its place by name.

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

    def __getitem__(self, key: Any) -> Any:
        if not self.shape:
            return self._read((1,), [range(1)]).reshape(())[key]
        if names_fields(key):
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

    def _fields(self, key: Any) -> Array:
        """Read some fields of all rows, and not more than a piece of the others."""
        # numpy says what is wrong with a name, in its own words.
        np.empty(0, self.dtype)[key]
        found = np.empty(self.shape, self.dtype[key])
        whole = math.prod(self.shape) * self.dtype.itemsize
        step = max(1, _PIECE_BYTES * len(self) // max(1, whole))
        for first in range(0, len(self), step):
            found[first : first + step] = self[first : first + step][key]
        return found

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
        row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        whole = [len(other) for other in others] == list(shape[1:])
        if not whole and row_bytes > _GAP_BYTES:
            for index, row in enumerate(need):
                there = place + int(row) * row_bytes
                self._fill(block[index], shape[1:], others, there)
            return
        view = _bytes_of(block)
        piece = max(1, _PIECE_BYTES // row_bytes)
        unbroken = whole and need[-1] - need[0] == len(need) - 1
        step = None if unbroken else piece
        for first, last, start, stop in spans_of(
            need, gap=_GAP_BYTES // row_bytes, step=step
        ):
            there = place + start * row_bytes
            if whole and last - first == stop - start:
                self._take(view[first * row_bytes : last * row_bytes], there)
                continue
            rows = np.empty((stop - start, *shape[1:]), self.dtype)
            self._take(_bytes_of(rows), there)
            begins = [start, *[0] * len(others)]
            block[first:last] = picked_rows(rows, [need[first:last], *others], begins)

    def _take(self, view: memoryview, place: int) -> None:
        """Read bytes; RunFileError where they are not there any more."""
        try:
            if disk.read_into(self._fd, view, place):
                return
            reason = f"it ends before byte {place + view.nbytes:,}"
        except OSError as error:
            reason = str(error)
        raise RunFileError(gone(self._path, reason))


class PackedRows(_Rows):
    """One output of a packed run: indexed like an array, and read then."""

    def __init__(
        self, run: RunFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        self._run, self._path, self._name = run, run.path, name
        self.dtype, self.shape = dtype, shape

    def __getitem__(self, key: Any) -> Any:
        try:
            with self._dataset() as dataset:
                if names_fields(key):
                    return dataset[key] if isinstance(key, str) else dataset[...][key]
                return read_like_array(dataset, key)
        except RunFileError:
            raise
        except OSError as error:
            msg = (
                f"{self._path} is damaged, a part of {self._name} cannot be "
                f"unpacked ({error}): {advice_anew()}"
            )
            raise RunFileError(msg) from error

    @contextlib.contextmanager
    def _dataset(self) -> Iterator[h5py.Dataset]:
        with self._run.opened() as (fd, header):
            if header.packed is None:
                # It has been unpacked since; whoever asks again gets it plain.
                msg = f"{self._path} has been unpacked meanwhile; index it again"
                raise RunFileError(msg)
            method = header.packed[self._name.partition("/")[0]]
            with _unpacking(self._path, fd, [method]) as file:
                found = find_own(file, header.group, *self._name.split("/"))
                if not isinstance(found, h5py.Dataset):
                    msg = (
                        f"{self._path} is damaged, its {self._name} is not what was "
                        f"packed: {advice_anew()}"
                    )
                    raise RunFileError(msg)
                yield found


@contextlib.contextmanager
def _unpacking(
    path: Path, fd: int, methods: Iterable[str | None]
) -> Iterator[h5py.File]:
    """Open the file of a descriptor, not by name: another one may have that by now."""
    for method in methods:
        wrong = filter_problem(method, reading=True)
        if wrong:
            msg = f"{path} cannot be read: {wrong}"
            raise lacking(RunFileError(msg), "hdf5plugin")
        load_filter(method)
    with disk.stream_of(fd) as stream, h5py.File(stream, "r") as file:
        yield file


@contextlib.contextmanager
def reading_group(run: RunFile) -> Iterator[h5py.Group]:
    """Open the results group of a run file that may be replaced meanwhile."""
    with run.opened() as (fd, header):
        methods = (header.packed or {}).values()
        with _unpacking(run.path, fd, methods) as file:
            yield file[header.group]


def packed_chunks(file: h5py.File, header: Header) -> Array:
    """Return where the chunks of a packed file are, adjacent ones as one.

    By place, of the dtype `CHUNKS_DTYPE`. ValueError: an output is not in chunks.
    """
    found = []
    for name in header.packed or {}:
        parts = ["values", "index", "count"] if name in header.ragged else [""]
        for part in parts:
            own = find_own(file, header.group.strip("/"), name, *filter(None, [part]))
            if not isinstance(own, h5py.Dataset) or own.chunks is None:
                msg = f"{name} is not in chunks"
                raise ValueError(msg)
            found.append(chunk_table(own)[:, -2:])
    places = np.concatenate(found)
    places = places[np.argsort(places[:, 0])]
    ends = places.sum(axis=1)
    first = np.r_[True, places[1:, 0] != ends[:-1]]
    table = np.empty(int(first.sum()), CHUNKS_DTYPE)
    table["offset"] = places[first, 0]
    table["bytes"] = ends[np.r_[first[1:], True]] - table["offset"]
    return table


def _bytes_of(array: Array) -> memoryview:
    """Return the memory of a contiguous array; not all dtypes have a buffer."""
    return array.reshape(-1).view(np.uint8).data


def gone(path: Path, reason: Any) -> str:
    """Say that a run file is not any more what it was."""
    return f"{path} was moved or cut since it was opened ({reason})"
