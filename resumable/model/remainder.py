"""What is left of a run, for ranks that take portions of it by number.

The positions that are left are numbered, 0 to :attr:`Remainder.total` - 1. Every rank
computes from two of these numbers the same batches, without a message from the driver.
"""

from __future__ import annotations

import itertools
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.model.positions import WINDOW, Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from resumable.model.positions import PositionSet

    Array = np.ndarray[Any, np.dtype[Any]]

#: More than this is not sent to every rank: 10,000 of them get 10 GB from rank 0.
SENT_BYTES = 1 << 20
#: A bitmap that cannot be compressed gets longer by less than this.
_EXCESS_BYTES = 256
#: Windows that are compressed to estimate the size of all.
_SAMPLED = 16
#: Windows that are kept as offsets; portions follow each other.
_KEPT = 2


class Remainder:
    """The positions that are left, small enough to be sent to thousands of ranks.

    For each window of 2^20 positions a compressed bitmap, or nothing where the window
    is whole or empty. Bitmaps too large to be sent are lent by rank 0: see
    :meth:`lend`. Portions end at multiples of `quantum` positions. No batch has a
    position of `excluded` inside its span: another worker may be at it.
    """

    def __init__(
        self, pending: PositionSet, quantum: int = 1, excluded: Sequence[int] = ()
    ) -> None:
        self._size, self._quantum = pending.size, quantum
        self._excluded = sorted(excluded)
        # Of each window: None where it is whole, its bitmap, or the place of the bitmap
        # in what is lent.
        self._windows: list[bytes | tuple[int, int] | None] = []
        counts = [0]
        for start, stop in pending.windows():
            members = pending.window(start, stop)
            counts.append(int(np.count_nonzero(members)))
            whole = counts[-1] == stop - start
            self._windows.append(None if whole else _packed(members))
        self._starts = np.cumsum(counts)
        self._kept: dict[int, Array] = {}
        #: Reads a part of what is lent, by offset and size in bytes.
        self.read: Callable[[int, int], bytes] | None = None

    @staticmethod
    def room(pending: PositionSet, further: int) -> int:
        """Return how many bytes to lend at most; 0 where all can be sent.

        Up to `further` positions may be taken out of what is pending before it is lent.
        """
        holed = [
            (start, stop)
            for start, stop in pending.windows()
            if 0 < np.count_nonzero(pending.window(start, stop)) < stop - start
        ]
        sample = holed[:: -(-len(holed) // _SAMPLED) or 1]
        sizes = [len(_packed(pending.window(*bounds))) for bounds in sample]
        if len(holed) * sum(sizes) <= SENT_BYTES * len(sample):
            return 0
        return (len(holed) + further) * (WINDOW // 8 + _EXCESS_BYTES)

    def lend(self) -> bytes:
        """Return all bitmaps joined, and keep only their offsets and sizes.

        Afterwards :attr:`read` must be set to fetch them.
        """
        lent, place = [], 0
        for number, packed in enumerate(self._windows):
            if isinstance(packed, bytes):
                self._windows[number] = (place, len(packed))
                lent.append(packed)
                place += len(packed)
        return b"".join(lent)

    @property
    def total(self) -> int:
        """How many positions are left."""
        return int(self._starts[-1])

    def batches(self, first: int, last: int, block: int) -> Iterator[Batch]:
        """Yield the batches of a portion: from number `first` up to `last`.

        Both ends are moved up to the next multiple of the quantum: portions that follow
        each other leave no position out and share none. A portion may be empty.
        """
        start, stop = self._edge(first), self._edge(min(last, self.total))
        if start >= stop:
            return
        cuts = [p for p in self._excluded if start < p < stop]
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
        """Return the offsets of the members of a window with holes."""
        if window not in self._kept:
            if len(self._kept) == _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[window] = _unpacked(self._bitmap(window))
        return self._kept[window]

    def _bitmap(self, window: int) -> bytes:
        packed = self._windows[window]
        if isinstance(packed, tuple):
            if self.read is None:
                msg = "the bitmaps have been lent: set read first"
                raise RuntimeError(msg)
            return self.read(*packed)
        return packed or b""


def _packed(members: Array) -> bytes:
    return zlib.compress(np.packbits(members).tobytes(), 1)


def _unpacked(packed: bytes) -> Array:
    """Return the offsets of the members of a window."""
    return np.flatnonzero(
        np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8))
    )
