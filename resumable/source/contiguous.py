"""A contiguous dataset, read as the bytes it is.

HDF5 keeps such a dataset in one piece. Where it is laid out as in memory, a block is
read faster without HDF5, and no lock is held: threads can read at the same time.
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
    """The bytes of a contiguous dataset.

    Parameters
    ----------
    fd : int
        The file, open for reading; closed by :meth:`close`.
    offset : int
        Where in the file the dataset begins.
    """

    def __init__(self, fd: int, offset: int) -> None:
        self._fd, self._place = fd, disk.file_id(fd)
        self._offset = offset

    def read(self, start: int, out: Array) -> None:
        """Fill a C-contiguous array with the bytes from `start` of the dataset on.

        Raises
        ------
        OSError
            As the system says, or the file has been cut short.
        """
        if not disk.is_same_file(self._fd, self._place):
            raise OSError(errno.EBADF, disk.DESCRIPTOR_CLOSED)
        view = memoryview(out.reshape(-1).view("u1").data)
        if not disk.read_into(self._fd, view, self._offset + start):
            msg = "the file ends before its data do"
            raise OSError(msg)

    def close(self) -> None:
        """Close the file; once."""
        fd, self._fd = self._fd, -1
        disk.close_if_same(fd, self._place)


def contiguous(dataset: h5py.Dataset) -> Contiguous | None:
    """Return the bytes of a dataset, None where HDF5 alone can read them.

    That is where they are in chunks or in other files, not all written, or of a type
    that is another one in memory. And where this process has the file open for writing,
    too: what HDF5 has not written to it yet is in its own buffers.
    """
    properties = dataset.id.get_create_plist()
    plain = (
        properties.get_layout() == h5py.h5d.CONTIGUOUS
        and not properties.get_external_count()
        and dataset.file.driver == "sec2"
        and not dataset.dtype.hasobject
        and dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype, logical=True)
        # Of what was never written it is 0.
        and dataset.id.get_storage_size() == dataset.nbytes
    )
    if not plain:
        return None
    # The file that HDF5 has open, whatever its name stands for by now.
    fd = dataset.file.id.get_vfd_handle()
    if not disk.is_read_only(fd):
        return None
    offset = dataset.id.get_offset()
    return Contiguous(os.dup(fd), offset)
