"""Reading the next block while the present one is computed."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from resumable.model import Span
    from resumable.source import Reader

    Array = np.ndarray[Any, np.dtype[Any]]


class ReadAhead:
    """Reads blocks of sources, on request or, in a thread, ahead of it.

    Only what is read without HDF5 is read ahead: a computation may fork at any moment,
    and in the child HDF5's lock would never be released.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "resumable-read")
        self._begun: dict[Reader, tuple[Span, Array, Future[None]]] = {}

    def read(self, reader: Reader, block: Span) -> Array:
        """Return the data of a block."""
        begun = self._begun.get(reader)
        if begun is not None:
            (start, members), rows, reading = begun
            if start == block[0] and np.array_equal(members, block[1]):
                del self._begun[reader]
                reading.result()
                return rows
        rows = reader.empty(int(np.count_nonzero(block[1])))
        reader.read(*block, rows)
        return rows

    def begin(self, reader: Reader, block: Span) -> None:
        """Begin to read the block that will be asked for next, where that can be."""
        if not reader.reads_ahead:
            return
        # Without memory for it, or a thread, it is read when it is asked for.
        with contextlib.suppress(MemoryError, RuntimeError):
            rows = reader.empty(int(np.count_nonzero(block[1])))
            reading = self._thread.submit(reader.read, *block, rows)
            self._begun[reader] = (block, rows, reading)

    def forget(self, reader: Reader) -> None:
        """Wait for what was begun with a reader that is to be closed, and drop it."""
        begun = self._begun.pop(reader, None)
        wait([begun[2]] if begun else [])

    def close(self) -> None:
        """Wait for what was begun, and drop it."""
        self._thread.shutdown()
        self._begun.clear()
