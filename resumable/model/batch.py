"""Batches: positions that are handed out together to one worker."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, np.dtype[Any]]
#: First position of a span, and which positions of the span are members.
Span = tuple[int, Array]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Positions handed out together to one worker."""

    start: int
    """First position of the span."""
    stop: int
    """One past the last position of the span."""
    bits: bytes | None
    """``packbits`` of the members within the span; None for all of them."""
    count: int
    """Number of members."""
    block: int = 1
    """Positions to hold in memory at once."""
    probe: bool = False
    """Failures are reported but not recorded: nothing has succeeded so far."""
    suspect: bool = False
    """One of its positions may have ended a worker."""

    @property
    def alone(self) -> bool:
        """It is one position, to be computed by a worker that has nothing else."""
        return self.suspect and self.count == 1

    def members(self) -> Array:
        """Membership of each position of the span, as booleans."""
        size = self.stop - self.start
        if self.bits is None:
            return np.ones(size, bool)
        packed = np.frombuffer(self.bits, np.uint8)
        return np.unpackbits(packed, count=size).view(bool)

    def blocks(self) -> Iterator[Span]:
        """Divide the batch into spans that are computed in one go."""
        members = self.members()
        inside = np.flatnonzero(members)
        for begin in range(0, self.count, self.block):
            chosen = inside[begin : begin + self.block]
            first, last = int(chosen[0]), int(chosen[-1]) + 1
            yield self.start + first, members[first:last]

    def positions(self) -> Array:
        """Flat positions of the members, int64."""
        if self.bits is None:
            return np.arange(self.start, self.stop)
        return self.start + np.flatnonzero(self.members())

    def without(self, taken: Array) -> Batch | None:
        """Return the batch without some positions of its span; None if none is left."""
        members = self.members() & ~taken
        if not members.any():
            return None
        first, last = np.flatnonzero(members)[[0, -1]].tolist()
        rest = Batch.of(self.start + first, members[first : last + 1], self.block)
        return dataclasses.replace(rest, probe=self.probe, suspect=self.suspect)

    def positions_from(self, start: int) -> Array:
        """Flat positions of the members from `start` on."""
        positions = self.positions()
        return positions[np.searchsorted(positions, start) :]

    def parts(self, position: int | None) -> list[Batch]:
        """Divide a batch that a worker died of, to find the position that causes it.

        The position at work gets a part of its own; where it is not known, halves.
        """
        members = self.members()
        inside = np.flatnonzero(members)
        if position is None:
            middle = int(inside[len(inside) // 2])
            cuts = [(0, middle, True), (middle, len(members), True)]
        else:
            at = position - self.start
            cuts = [(0, at, False), (at, at + 1, True), (at + 1, len(members), False)]
        found = []
        for first, last, suspect in cuts:
            taken = np.ones(len(members), bool)
            taken[first:last] = False
            part = self.without(taken)
            if part is not None:
                found.append(dataclasses.replace(part, suspect=suspect))
        return found

    def split(self, count: int) -> tuple[Batch | None, Batch | None]:
        """Return its first `count` positions and the others; None where there is none.

        >>> [part and part.count for part in Batch(5, 12, None, 7).split(3)]
        [3, 4]
        """
        later = np.cumsum(self.members()) > count
        return self.without(later), self.without(~later)

    @classmethod
    def of(cls, start: int, members: Array, block: int = 1) -> Batch:
        """Make a batch of the members of a span that begins at `start`."""
        count = int(np.count_nonzero(members))
        bits = None if count == len(members) else np.packbits(members).tobytes()
        return cls(start, start + len(members), bits, count, block)


def stretches(members: Array) -> Array:
    """Return the stretches of True in a boolean array, as an (n, 2) array of bounds.

    >>> stretches(np.array([True, True, False, True])).tolist()
    [[0, 2], [3, 4]]
    """
    if members.all():
        return np.array(
            [[0, len(members)]] if len(members) else np.empty((0, 2)), np.int64
        )
    edges = np.diff(members.view(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges).reshape(-1, 2)
