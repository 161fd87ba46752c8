"""A file that HDF5 writes to, on a disk that may be full.

When a write of HDF5 fails, it can neither close the file nor forget it, and crashes
the interpreter at its end. So it is never told: wherever HDF5 writes, a new file
(:func:`new_hdf5`) or one that is there, h5py is given an :class:`SafeFile`, and the
error is raised when the file is closed.

The old bytes of a file that is there do not change before they may. What lies beyond
the old end goes to the disk at once, so that rows need no memory; changes of old bytes
are kept in memory, page by page, until :mod:`resumable.runfile.journal` has them safe.
"""

from __future__ import annotations

import array
import contextlib
import errno
import io
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Array = np.ndarray[Any, np.dtype[Any]]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: More than any version needs up to its third address, of 8 bytes.
_SUPERBLOCK_BYTES = 100
#: Signature, version, and in every version the byte of the marks.
_LEAST_BYTES = 24
_OPEN_FOR_WRITING, _SWMR = 1, 4
_PAGE = 4096
#: Most bytes of changed old pages. Only metadata change there; they are far less.
MOST_CHANGED_BYTES = 256 << 20
#: Before this version HDF5 counts the places of chunks from the end of the user block.
_PLACES_IN_THE_FILE = (1, 14, 4)
#: The versions of h5py and of HDF5, for people.
HDF5_VERSIONS = {
    "h5py_version": h5py.__version__,
    "hdf5_version": h5py.version.hdf5_version,
}


@contextlib.contextmanager
def new_hdf5(path: Path, **options: Any) -> Iterator[h5py.File]:
    """Make an HDF5 file and have it open for the time of a block.

    OSError, ENOSPC for example, comes at the end of the block.
    """
    with disk.opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        safe = SafeFile(fd)
        with safe.checked(), h5py.File(safe, "w", **options) as file:
            yield file


class SafeFile(io.RawIOBase):
    """A file for h5py's driver ``fileobj`` over an open descriptor, which stays open.

    The first `kept_bytes` of the file are not written to. The first error is kept here,
    whatever follows goes nowhere, and :meth:`check` raises it.
    """

    def __init__(self, fd: int, kept_bytes: int = 0) -> None:
        self._fd = fd
        self._kept = kept_bytes
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self._error: OSError | None = None
        #: Size of the file as HDF5 wants it.
        self.size = os.fstat(fd).st_size

    # What h5py calls, with what the class of the standard library makes of it.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file."""
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        self._position = starts[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what has been written so far."""
        view = memoryview(buffer).cast("B")
        start, size = self._position, view.nbytes
        found = disk.read_at(self._fd, size, start)
        view[: len(found)] = found
        # HDF5 may read what it has allocated and nobody has written.
        view[len(found) :] = bytes(size - len(found))
        for number, inside, there in self._old_pages(start, start + size):
            if number in self._pages:
                view[there] = self._pages[number][inside]
        self._position += size
        return size

    def write(self, data: Any) -> int:
        """Write, to memory or to the disk."""
        view = memoryview(data).cast("B")
        start, size = self._position, view.nbytes
        below = max(0, min(size, self._kept - start))
        if self._error is None:
            try:
                if below:
                    self._change(start, view[:below])
                disk.write_at(self._fd, view[below:], start + below)
            except OSError as error:
                self._error = error
        self._position += size
        self.size = max(self.size, self._position)
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the size; the old bytes stay where they are for the time being."""
        size = self._position if size is None else size
        if self._error is None:
            try:
                disk.set_size(self._fd, max(size, self._kept))
            except OSError as error:
                self._error = error
        self.size = size
        return size

    # What has become of it.

    def check(self) -> None:
        """Raise the first error, for example ENOSPC, if there was one."""
        if self._error is not None:
            raise self._error

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """Raise the first error at the end of a block, or what HDF5 has raised."""
        try:
            yield
        except Exception as error:
            # What was not written may have been missed already.
            if self._error is not None:
                raise self._error from error
            raise
        if self._error is not None:
            raise self._error

    def changes(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield offset, old and new bytes of the old pages that have changed."""
        for number in sorted(self._pages):
            new = bytes(self._pages[number])
            old = disk.read_at(self._fd, len(new), number * _PAGE)
            if new != old:
                yield number * _PAGE, old, new

    def _old_pages(self, start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield each old page that a span touches: number, part of it, of the span."""
        stop = min(stop, self._kept)
        firsts = range(start // _PAGE * _PAGE, stop, _PAGE) if start < stop else ()
        for first in firsts:
            begin, end = max(start, first), min(stop, first + _PAGE)
            inside, there = (slice(begin - at, end - at) for at in (first, start))
            yield first // _PAGE, inside, there

    def _change(self, start: int, view: memoryview) -> None:
        for number, inside, there in self._old_pages(start, start + view.nbytes):
            if number not in self._pages:
                if len(self._pages) * _PAGE >= MOST_CHANGED_BYTES:
                    msg = (
                        f"more than {MOST_CHANGED_BYTES:,} bytes in the middle of the "
                        "file would change; repack it with h5repack first"
                    )
                    raise OSError(errno.EFBIG, msg)
                first = number * _PAGE
                size = min(_PAGE, self._kept - first)
                self._pages[number] = bytearray(disk.read_at(self._fd, size, first))
            self._pages[number][inside] = view[there]


def find_own(file: h5py.File, *names: str) -> h5py.Group | h5py.Dataset | None:
    """Return an object that lies in this file, name by name; else None.

    No link is followed, and the bytes of a dataset are not in another file.
    """
    found: h5py.Group | h5py.Dataset = file
    for name in names:
        link = isinstance(found, h5py.Group) and found.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            return None
        found = found[name]
    if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
        return None
    return found


def chunk_table(dataset: h5py.Dataset) -> Array:
    """Return a row for every chunk that was written, in any order.

    Its first element, the filters it was written without, its place in the file and its
    size in bytes. One walk, where HDF5 offers it: to tell of one chunk it walks through
    those before it, which takes seconds for 10,000 chunks.
    """
    found = array.array("q")

    def note(chunk: Any) -> None:
        found.extend(chunk.chunk_offset)
        found.extend((chunk.filter_mask, chunk.byte_offset, chunk.size))

    if hasattr(dataset.id, "chunk_iter"):  # from HDF5 1.12.3 on
        dataset.id.chunk_iter(note)
    else:
        for number in range(dataset.id.get_num_chunks()):
            note(dataset.id.get_chunk_info(number))
    table = np.frombuffer(found, np.int64).reshape(-1, dataset.ndim + 3)
    if h5py.version.hdf5_version_tuple < _PLACES_IN_THE_FILE:
        table[:, -2] += dataset.file.userblock_size
    return table


class Superblock(NamedTuple):
    """What HDF5 writes at the begin of a file.

    The layout is that of the HDF5 file format specification, versions 0 to 3.
    """

    end: int
    """Where the file ends, as HDF5 sees it; a shorter one has been truncated."""
    open_for_writing: bool
    """It says that somebody writes: so it is, or that program was killed."""
    swmr: bool
    """It says that who writes lets others read at the same time."""
    marks_at: int | None
    """Where in the file it says so; None where a checksum covers that."""


def superblock_of(fd: int) -> Superblock | None:
    """Find the superblock, behind the user block; None when it is no HDF5 file."""
    size, offset = os.fstat(fd).st_size, 0
    while offset < size:
        raw = disk.read_at(fd, _SUPERBLOCK_BYTES, offset)
        if raw.startswith(_SIGNATURE):
            break
        # Behind a user block of a power of two.
        offset = max(512, 2 * offset)
    else:
        return None
    if len(raw) < _LEAST_BYTES:
        return None
    version = raw[8]
    if version in (0, 1):
        width, first, place = raw[13], 24 if version == 0 else 28, 20
    elif version in (2, 3):
        width, first, place = raw[9], 12, 11
    else:
        return None
    # The third of four addresses.
    end = int.from_bytes(raw[first + 2 * width : first + 3 * width], "little")
    marks = raw[place]
    plain = None if version > 1 else offset + place
    return Superblock(end, bool(marks & _OPEN_FOR_WRITING), bool(marks & _SWMR), plain)
