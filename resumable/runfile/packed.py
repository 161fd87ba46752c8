"""Rows of a packed run file, read and unpacked when indexed."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import RunFileError
from resumable.model import filter_problem, load_filter, read_like_array
from resumable.runfile.hdf5 import find_own
from resumable.runfile.header import ADVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import DTypeLike

    from resumable.runfile.file import RunFile
    from resumable.runfile.header import Header

    Array = np.ndarray[Any, np.dtype[Any]]


class PackedRows:
    """One output of a packed run: indexed like an array, and read then."""

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

    @contextlib.contextmanager
    def _dataset(self) -> Iterator[h5py.Dataset]:
        with self._opened() as (fd, header):
            if header.packed is None:
                # It has been unpacked since; whoever asks again gets it plain.
                msg = f"{self._path} has been unpacked meanwhile; index it again"
                raise RunFileError(msg)
            _load(self._path, header.packed[self._name.partition("/")[0]])
            with _hdf5(fd) as file:
                found = find_own(file, header.group, *self._name.split("/"))
                if not isinstance(found, h5py.Dataset):
                    msg = (
                        f"{self._path} is damaged, its {self._name} is not what was "
                        f"packed: {ADVICE}"
                    )
                    raise RunFileError(msg)
                yield found


def _load(path: Path, method: str | None) -> None:
    wrong = filter_problem(method)
    if wrong:
        msg = f"{path} cannot be read: {wrong}"
        raise RunFileError(msg)
    load_filter(method)


@contextlib.contextmanager
def _hdf5(fd: int) -> Iterator[h5py.File]:
    """Open the file of a descriptor, not by name: another one may have that by now."""
    with os.fdopen(os.dup(fd), "rb") as stream, h5py.File(stream, "r") as file:
        yield file


@contextlib.contextmanager
def reading_group(run: RunFile) -> Iterator[h5py.Group]:
    """Open the results group of a run file that may be replaced meanwhile."""
    with run.opened() as (fd, header):
        for method in (header.packed or {}).values():
            _load(run.path, method)
        with _hdf5(fd) as file:
            yield file[header.group]
