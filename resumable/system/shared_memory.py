"""Memory without a name that processes share, and arrays in it."""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_numbers = itertools.count()


def unnamed_file() -> IO[bytes]:
    """Open a file without a name, in memory where possible: a kill leaves nothing."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("resumable"), "r+b")
    import tempfile  # here, since to import it takes milliseconds

    return tempfile.TemporaryFile()


class Memory(mmap.mmap):
    """Memory of this process that other processes may map.

    Pages take no space before they are written to. It is freed with the last object
    that refers to it, such as an array in it, here and in other processes.
    """

    number: int  # unique in this process
    _fd: int

    def __new__(cls, size: int) -> Memory:
        """Create and map a file without a name, of so many bytes."""
        with unnamed_file() as file:
            # An empty file cannot be mapped.
            file.truncate(max(size, mmap.PAGESIZE))
            memory = super().__new__(cls, file.fileno(), 0)
            memory._fd = os.dup(file.fileno())
        memory.number = next(_numbers)
        weakref.finalize(memory, os.close, memory._fd).atexit = False
        return memory

    def fileno(self) -> int:
        """Return the descriptor to pass to another process."""
        return self._fd


def map_memory(fd: int, size: int, *, writable: bool) -> mmap.mmap:
    """Map the memory of another process."""
    prot = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
    return mmap.mmap(fd, size, prot=prot)


#: The memory of shared arrays, by its address.
_shared: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()


def find_shared(buffer: memoryview) -> tuple[Memory, int] | None:
    """Return the shared memory that a buffer lies in, and its offset there."""
    if not _shared or not len(buffer):
        return None
    address = _address_of(buffer)
    for start, memory in _shared.items():
        if start <= address < start + len(memory):
            return memory, address - start
    return None


def _address_of(buffer: memoryview | Memory) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)


def shared_array(array: Any) -> Array:
    """Copy an array into memory that worker processes can read.

    Parameters
    ----------
    array : array_like
        Of any shape, order and fixed-size dtype.

    Returns
    -------
    numpy.ndarray
        A read-only array with the same contents. Sent to a worker, as an argument
        or inside of an object, it is not copied: the worker reads the same memory.
        So does a contiguous part of it; any other part is sent as a copy.

    Raises
    ------
    TypeError
        The array holds Python objects, or has a mask.

    Notes
    -----
    For :class:`Pool`, :class:`Operators`, and a :class:`Process` in the local
    engine. The memory has no name and is freed with the last array that refers to it,
    or with the last process. Pickled by other code it is an ordinary array.

    Examples
    --------
    >>> import numpy as np
    >>> import resumable as rs
    >>> table = rs.shared_array(np.arange(6.0).reshape(2, 3))
    >>> table.sum(), table.flags.writeable
    (np.float64(15.0), False)
    """
    original = np.asarray(array)
    if original.dtype.hasobject or isinstance(array, np.ma.MaskedArray):
        what = "a masked array" if isinstance(array, np.ma.MaskedArray) else "objects"
        msg = (
            f"shared_array() takes arrays of a fixed-size dtype, not {what} "
            f"({original.dtype}); share its parts, or pass it as it is"
        )
        raise TypeError(msg)
    memory = Memory(original.nbytes)
    fortran = original.flags.f_contiguous and not original.flags.c_contiguous
    copy: Array = np.ndarray(
        original.shape, original.dtype, memory, order="F" if fortran else "C"
    )
    copy[...] = original
    copy.flags.writeable = False
    _shared[_address_of(memory)] = memory
    return copy
