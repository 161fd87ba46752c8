"""New HDF5 files on a disk that may be full.

When a write of HDF5 fails, it can neither close the file nor forget it, and crashes
the interpreter at its end. So it is never told: it writes through an object of
ours, and the error is raised when the file is closed.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Any

import h5py

from resumable import disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def new_hdf5(path: Path, **options: Any) -> Iterator[h5py.File]:
    """Make an HDF5 file and have it open for the time of a block.

    Parameters
    ----------
    path : Path
        Its name; there is no such file yet.
    **options
        As h5py takes them.

    Raises
    ------
    OSError
        As the disk says, ENOSPC for example; at the end of the block.
    """
    with disk.opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        shield = _Shield(fd)
        try:
            with h5py.File(shield, "w", **options) as file:
                yield file
        except Exception:
            # What was lost may be missed already.
            shield.check()
            raise
        shield.check()


class _Shield(io.RawIOBase):
    """An open file that takes every write and remembers which one failed first.

    Parameters
    ----------
    fd : int
        Open for reading and writing; it is not closed here.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._place = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error there was."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def seekable(self) -> bool:
        """Say that it has a place."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        start = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: self._place,
            os.SEEK_END: os.fstat(self._fd).st_size,
        }
        self._place = start[whence] + offset
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Read all of `buffer`, zeros behind the end of the file."""
        found = disk.read_at(self._fd, len(buffer), self._place)
        buffer[:] = found + bytes(len(buffer) - len(found))
        self._place += len(buffer)
        return len(buffer)

    def write(self, data: Any, /) -> int:
        """Write all of `data`."""
        try:
            disk.write_at(self._fd, data, self._place)
        except OSError as error:
            self._error = self._error or error
        self._place += len(data)
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        """Give the file a size."""
        size = self._place if size is None else size
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            self._error = self._error or error
        return size
