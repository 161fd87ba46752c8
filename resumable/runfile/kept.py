"""Arrays that a computation was given, kept in its run file to be read back.

They lie in the group ``arrays`` of the tables' group. Their names are for people: what
an array is for is found by its digest, which the identity document has.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import HDF5_ERRORS
from resumable.runfile.hdf5 import find_own
from resumable.runfile.rows import reading_group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from resumable.runfile.file import RunFile
    from resumable.runfile.header import Header

    Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes of all arrays together that are kept.
KEPT_BYTES = 16 << 20
#: Arrays that are kept.
MOST_ARRAYS = 1000
#: Ends the name of an array whose dtype HDF5 does not have: it is kept as ``.npy``.
_AS_FILE = ".npy"
#: Ends that of an array in Fortran order, which is kept with its axes turned round.
_TURNED = ".T"


def arrays_kept(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays that a run file keeps: the smallest, of 16 MB together."""
    kept: dict[str, Array] = {}
    room = KEPT_BYTES
    for name, array in sorted(arrays.items(), key=lambda item: item[1].nbytes):
        room -= array.nbytes
        if room < 0 or len(kept) == MOST_ARRAYS:
            break
        kept[name] = array
    return kept


def _group_of_arrays(header: Header) -> tuple[str, str]:
    """Return the names of the group of arrays and of the group that it lies in.

    In older versions that has the outputs, too, and the name is that of none of them.
    """
    name, taken = "arrays", () if header.format >= 4 else set(header.outputs)
    while name in taken:
        name += "_"
    return header.aside[1:], name


def as_npy(array: Array) -> bytes:
    """Return the bytes of a ``.npy`` file; the array holds no Python objects."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def of_npy(data: bytes) -> Array:
    """Read the bytes of a ``.npy`` file; ValueError where it is none."""
    # Not np.load, which can be told to run what a file says.
    array: Array = np.lib.format.read_array(io.BytesIO(data))
    return array


def as_kept(name: str, array: Array) -> tuple[str, Array]:
    """Return the name and the dataset by which an array is kept."""
    while name.endswith((_AS_FILE, _TURNED)):
        name += "_"
    if not _has_type(array.dtype):
        return name + _AS_FILE, np.frombuffer(as_npy(array), np.uint8)
    if array.flags.fnc:
        return name + _TURNED, array.T
    return name, array


def _has_type(dtype: np.dtype[Any]) -> bool:
    """Return whether HDF5 gives a dtype back as it was written.

    Texts are left out: HyperSpy and netCDF read no file that has arrays of them.
    """
    if _has_text(dtype):
        return False
    try:
        return bool(h5py.h5t.py_create(dtype, logical=True).dtype == dtype)
    except (TypeError, ValueError):
        return False


def _has_text(dtype: np.dtype[Any]) -> bool:
    base = dtype.base
    return base.kind == "S" or any(_has_text(base[n]) for n in base.names or ())


def read_arrays(run: RunFile) -> list[Array]:
    """Read the arrays that a run file keeps; what cannot be read is left out."""
    found: list[Array] = []
    try:
        with reading_group(run) as group:
            arrays = find_own(group.file, *_group_of_arrays(run.header))
            if isinstance(arrays, h5py.Group):
                for name in arrays:
                    found += _read(find_own(arrays, name), name, found)
    except HDF5_ERRORS:
        return found
    return found


def _read(dataset: Any, name: str, before: list[Array]) -> Iterator[Array]:
    """Yield the array of a dataset, if it is one that a run file would keep."""
    room = 2 * KEPT_BYTES - sum(array.nbytes for array in before)
    if (
        isinstance(dataset, h5py.Dataset)
        and not dataset.dtype.hasobject
        and dataset.nbytes <= room
        and len(before) < MOST_ARRAYS
    ):
        array = np.asarray(dataset[()])
        if not name.endswith(_AS_FILE):
            yield array.T if name.endswith(_TURNED) else array
            return
        try:
            yield of_npy(array.tobytes())
        except (ValueError, TypeError, MemoryError):
            return
