"""Contiguous datasets, read without HDF5.

HDF5 stores such a dataset in one piece. Where its elements are stored as they are in
memory, reading them from the file directly is faster and takes no lock: threads can
read at the same time.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import h5py

from resumable.system import disk

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


class Contiguous:
    """The bytes of a contiguous dataset, which begin at `offset` of a file.

    The descriptor, open for reading, is closed by :meth:`close`.
    """

    def __init__(self, fd: int, offset: int) -> None:
        self._fd, self._place = fd, disk.file_id(fd)
        self._offset = offset

    def read(self, start: int, out: Array) -> None:
        """Fill a C-contiguous array with the bytes from `start` of the dataset on."""
        if not disk.is_same_file(self._fd, self._place):
            raise OSError(errno.EBADF, disk.DESCRIPTOR_CLOSED)
        view = memoryview(out.reshape(-1).view("u1").data)
        if not disk.read_into(self._fd, view, self._offset + start):
            msg = "the file ends before its data do"
            raise OSError(msg)

    def close(self) -> None:
        """Close the descriptor."""
        fd, self._fd = self._fd, -1
        disk.close_if_same(fd, self._place)


def contiguous(dataset: h5py.Dataset) -> Contiguous | None:
    """Return the bytes of a dataset, None where only HDF5 can read them.

    Only HDF5 can read data that lie in chunks or in other files, are not all written,
    or have another type in memory; and those of a file that this process has open for
    writing, because HDF5 may still hold changes in its buffers.
    """
    properties = dataset.id.get_create_plist()
    plain = (
        properties.get_layout() == h5py.h5d.CONTIGUOUS
        and not properties.get_external_count()
        and dataset.file.driver == "sec2"
        and not dataset.dtype.hasobject
        and dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype, logical=True)
        # It is 0 where nothing was written.
        and dataset.id.get_storage_size() == dataset.nbytes
    )
    if not plain:
        return None
    # The file that HDF5 has open: its name may be that of another file by now.
    fd = dataset.file.id.get_vfd_handle()
    if not disk.is_read_only(fd):
        return None
    offset = dataset.id.get_offset()
    return Contiguous(os.dup(fd), offset)
