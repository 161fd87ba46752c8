"""What is left of a run, for workers who take portions of it by number.

The positions that are left are numbered, 0 to :attr:`Remainder.total` - 1. A
worker that knows two of these numbers knows which batches lie between them, and
so does every other, without a word from the driver.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.positions import WINDOW, Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resumable.positions import PositionSet

    Array = np.ndarray[Any, np.dtype[Any]]


class Remainder:
    """The positions that are left, small enough to be told to thousands of ranks.

    Windows of 2^20 positions: of one that is left whole or not at all only that is
    kept, of another its bitmap, compressed.

    Parameters
    ----------
    pending : PositionSet
        What is left.
    quantum : int
        Portions end at multiples of this many positions.
    apart : sequence of int
        Positions that another worker may be at; no batch has one inside its span.
    """

    def __init__(
        self, pending: PositionSet, quantum: int = 1, apart: Sequence[int] = ()
    ) -> None:
        self._size, self._quantum, self._apart = pending.size, quantum, sorted(apart)
        self._windows: list[bytes | None] = []
        counts = [0]
        for start, stop in pending.windows():
            members = pending.window(start, stop)
            counts.append(int(np.count_nonzero(members)))
            whole = counts[-1] == stop - start
            self._windows.append(
                None if whole else zlib.compress(np.packbits(members).tobytes(), 1)
            )
        self._starts = np.cumsum(counts)

    @property
    def total(self) -> int:
        """How many positions are left."""
        return int(self._starts[-1])

    def batches(self, first: int, last: int, block: int) -> Iterator[Batch]:
        """Yield the batches of a portion: from number `first` up to `last`.

        Both ends are moved up to the next multiple of the quantum, so that
        portions that follow each other have no position in common and none
        between them, and some have none at all.
        """
        start, stop = self._edge(first), self._edge(min(last, self.total))
        if start >= stop:
            return
        cuts = [p for p in self._apart if start < p < stop]
        cuts += range((start // WINDOW + 1) * WINDOW, stop, WINDOW)
        bounds = [start, *sorted(cuts), stop]
        for begin, end in itertools.pairwise(bounds):
            inside = np.flatnonzero(self._members(begin, end))
            if len(inside):
                low, high = int(inside[0]), int(inside[-1]) + 1
                members = self._members(begin + low, begin + high)
                yield Batch.of(begin + low, members, block)

    def _edge(self, number: int) -> int:
        """Return the position at which a portion that ends at `number` ends."""
        if number in (0, self.total):
            return self._size if number else 0
        position = self._position(number)
        return min(self._size, -(-position // self._quantum) * self._quantum)

    def _position(self, number: int) -> int:
        window = int(np.searchsorted(self._starts, number, "right")) - 1
        offset = number - int(self._starts[window])
        if self._windows[window] is not None:
            offset = int(self._inside(window)[offset])
        return window * WINDOW + offset

    def _members(self, start: int, stop: int) -> Array:
        """Return membership of a span within one window."""
        window, first = divmod(start, WINDOW)
        if self._starts[window] == self._starts[window + 1]:
            return np.zeros(stop - start, bool)
        if self._windows[window] is None:
            return np.ones(stop - start, bool)
        members = np.zeros(stop - start, bool)
        inside = self._inside(window)
        low, high = np.searchsorted(inside, (first, first + stop - start))
        members[inside[low:high] - first] = True
        return members

    def _inside(self, window: int) -> Array:
        return _unpacked(self._windows[window] or b"")


@functools.lru_cache(maxsize=2)
def _unpacked(packed: bytes) -> Array:
    """Return the offsets of the members of a window; portions follow each other."""
    return np.flatnonzero(
        np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8))
    )
