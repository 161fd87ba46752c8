"""Sets of positions: what a user names, and what is left to do.

Positions are counted flat, 0 to N - 1, in C order of the map. A set of them is a
bitmap, N / 8 bytes whatever its pattern, so that 10^8 scattered positions cost
12.5 MB. Nothing here reads or writes a file.
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import dataclasses
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


Array = np.ndarray[Any, np.dtype[Any]]
#: First position of a span, and which positions of the span are members.
Span = tuple[int, Array]

_GOLDEN = (5**0.5 - 1) / 2
#: Positions scanned in one go; a multiple of 8. Bounds the memory of a scan.
WINDOW = 1 << 20
#: Most positions of a source or a run: a bitmap of them is 2 GB.
MOST_POSITIONS = 1 << 34


class PositionSet:
    """A set of positions out of `size`; `bits` is ``numpy.packbits`` of the members."""

    def __init__(self, size: int, bits: Array | None = None) -> None:
        self.size = size
        self.bits = np.zeros(-(-size // 8), np.uint8) if bits is None else bits

    @classmethod
    def full(cls, size: int) -> PositionSet:
        """Return the set of all positions."""
        result = cls(size, np.full(-(-size // 8), 255, np.uint8))
        if size % 8:
            result.bits[-1] = (0xFF00 >> (size % 8)) & 0xFF
        return result

    def copy(self) -> PositionSet:
        """Return a set of the same members."""
        return PositionSet(self.size, self.bits.copy())

    @classmethod
    def of(cls, size: int, positions: Array) -> PositionSet:
        """Return the set of the given flat positions, ascending, 0 to N - 1."""
        result = cls(size)
        for start, stop in result.windows():
            first, last = np.searchsorted(positions, (start, stop))
            if last > first:
                members = np.zeros(stop - start, bool)
                members[positions[first:last] - start] = True
                result.set_window(start, members)
        return result

    @classmethod
    def chosen(cls, chosen: Any, map_shape: tuple[int, ...]) -> PositionSet:
        """Return the set of positions that a user names: see :func:`flat_positions`.

        A slice, a mask or a part of the map, which can name all of 10^8 positions, is
        not turned into indices.
        """
        size = int(np.prod(map_shape, dtype=np.int64))
        chosen = _unmasked(chosen, map_shape)
        if _is_part(chosen):
            mask = np.zeros(map_shape, bool)
            with _indexing(chosen, map_shape):
                mask[chosen] = True
            chosen = mask
        if isinstance(chosen, slice):
            _check_slice(chosen)
            numbers = range(size)[chosen]
            if numbers.step < 0:
                numbers = numbers[::-1]
            result = cls(size)
            for start, stop in result.windows():
                # So many numbers of the slice come before the window.
                ahead = max(0, -(-(start - numbers.start) // numbers.step))
                inside = numbers[ahead : ahead + stop - start]
                members = np.zeros(stop - start, bool)
                if len(inside) and inside.start < stop:
                    end = min(stop, inside.stop) - start
                    members[inside.start - start : end : inside.step] = True
                result.set_window(start, members)
            return result
        if _is_mask(chosen):
            _check_mask(chosen, map_shape)
            result = cls(size)
            flat = chosen.reshape(-1)
            for start, stop in result.windows():
                result.set_window(start, flat[start:stop])
            return result
        return cls.of(size, flat_positions(chosen, map_shape))

    def window(self, start: int, stop: int) -> Array:
        """Membership of the positions `start` to `stop`, as booleans."""
        first = start // 8
        bits = np.unpackbits(self.bits[first : -(-stop // 8)])
        return bits[start - 8 * first : stop - 8 * first].view(bool)

    def set_window(self, start: int, members: Array) -> None:
        """Set membership of a window that starts at a multiple of 8.

        The window must end at a multiple of 8 or at N.
        """
        packed = np.packbits(members)
        self.bits[start // 8 : start // 8 + len(packed)] = packed

    def windows(self) -> Iterator[tuple[int, int]]:
        """Bounds of windows that cover all positions."""
        for start in range(0, self.size, WINDOW):
            yield start, min(start + WINDOW, self.size)

    def __len__(self) -> int:
        return int(np.bitwise_count(self.bits).sum(dtype=np.int64))

    def __contains__(self, position: int) -> bool:
        return bool(self.bits[position // 8] & (128 >> (position % 8)))

    def __and__(self, other: PositionSet) -> PositionSet:
        return PositionSet(self.size, self.bits & other.bits)

    def is_within(self, other: PositionSet) -> bool:
        """Return whether the other set has all members of this one."""
        return not np.any(self.bits & ~other.bits)

    def to_text(self) -> str:
        """Return the set as text, short where its members lie together."""
        return base64.b64encode(zlib.compress(self.bits.tobytes(), 9)).decode()

    @classmethod
    def from_text(cls, size: int, text: str) -> PositionSet:
        """Return the set that :meth:`to_text` wrote; ValueError for any other text."""
        length = -(-size // 8)
        try:
            # Not more: a forged text could expand to any size.
            packed = base64.b64decode(text, validate=True)
            bits = zlib.decompressobj().decompress(packed, length + 1)
        except zlib.error as error:
            msg = f"not a set of positions: {error}"
            raise ValueError(msg) from error
        if len(bits) != length:
            msg = f"a set of {8 * len(bits)} positions, not of {size}"
            raise ValueError(msg)
        return cls(size, np.frombuffer(bits, np.uint8)) & cls.full(size)

    def discard(self, position: int) -> None:
        """Take a position out."""
        self.bits[position // 8] &= ~(128 >> (position % 8)) & 0xFF

    def add(self, batch: Batch) -> None:
        """Put the positions of a batch in."""
        where, bits = _bits_of(batch)
        self.bits[where] |= bits

    def remove(self, batch: Batch) -> None:
        """Take the positions of a batch out."""
        where, bits = _bits_of(batch)
        self.bits[where] &= ~bits

    def spread(self, count: int) -> list[int]:
        """Return up to `count` members, spread over all, the first one included.

        Their distances are multiples of the golden ratio: equal distances could fall
        into the same columns of a map.
        """
        total = len(self)
        count = min(count, total)
        # Where there are few members, two multiples can be the same member.
        order = np.arange(10 * count) * _GOLDEN % 1 * total
        distinct = list(dict.fromkeys(order.astype(np.int64).tolist()))[:count]
        return self.members_at(np.array(sorted(distinct), np.int64))

    def members_at(self, ordinals: Array) -> list[int]:
        """Return the members of these ordinals, ascending; the first one is 0."""
        found: list[int] = []
        seen = 0
        for start, stop in self.windows():
            bits = self.bits[start // 8 : -(-stop // 8)]
            count = int(np.bitwise_count(bits).sum(dtype=np.int64))
            here = ordinals[(ordinals >= seen) & (ordinals < seen + count)]
            if len(here):
                members = np.flatnonzero(self.window(start, stop))
                found += (start + members[here - seen]).tolist()
            seen += count
        return found


def _bits_of(batch: Batch) -> tuple[slice, Array]:
    """Return where the span of a batch lies in a bitmap, and its bits there."""
    first, before = divmod(batch.start, 8)
    bits = np.packbits(np.concatenate([np.zeros(before, bool), batch.members()]))
    return slice(first, first + len(bits)), bits


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


class RequestedPositions:
    """Requested positions of a source whose length is not known yet.

    `chosen` is what the user gives as positions, None for all; of `map_shape` only the
    first length will change. `end` is one past the last requested position, None where
    that is not known. Positions that count from the end raise a PlanError.
    """

    def __init__(self, chosen: Any, map_shape: tuple[int, ...]) -> None:
        self.chosen = chosen = _unmasked(chosen, map_shape)
        self.end: int | None = None
        # None where the length of the source says which positions are asked for.
        self._flat: Array | None = None
        if chosen is None:
            return
        # Of a part of the map, the first axis says whether it has an end.
        first = chosen[0] if _is_part(chosen) else chosen
        if isinstance(first, slice):
            given = (first.start, first.stop, first.step)
            numbers = [n for n in given if n is not None]
        elif first is Ellipsis or _is_mask(first):
            numbers = []
        else:
            _check_numbers(_as_array(chosen, chosen), map_shape)
            numbers = np.ravel(first).tolist()
        if any(number < 0 for number in numbers):
            msg = (
                "positions that count from the end cannot be followed: the end is not "
                f"there yet (positions={chosen})"
            )
            raise PlanError(msg)
        if isinstance(chosen, slice):
            self.end = chosen.stop
            return
        longest = MOST_POSITIONS // math.prod(map_shape[1:])
        if _is_mask(chosen):
            if chosen.shape[1:] != map_shape[1:]:
                msg = f"a mask of shape {chosen.shape} for a map of shape {map_shape}"
                raise PlanError(msg)
            self._flat = np.flatnonzero(chosen)
        elif not _is_part(chosen):
            self._flat = flat_positions(chosen, (longest, *map_shape[1:]))
        elif first is Ellipsis or (isinstance(first, slice) and first.stop is None):
            return
        else:
            if isinstance(first, slice):
                enough = first.stop
            else:
                enough = len(first) if _is_mask(first) else 1 + max(numbers, default=0)
            part_of = (min(longest, enough), *map_shape[1:])
            self._flat = flat_positions(chosen, part_of)
        self.end = int(self._flat[-1]) + 1 if len(self._flat) else 0

    def among(
        self, map_shape: tuple[int, ...], *, growable: bool
    ) -> PositionSet | None:
        """Return the requested positions that exist; None: all that exist.

        PlanError where some do not exist and the source cannot grow any more.
        """
        if self.chosen is None:
            return None
        if self._flat is None or not growable:
            return PositionSet.chosen(self.chosen, map_shape)
        size = math.prod(map_shape)
        return PositionSet.of(size, self._flat[self._flat < size])

    def first_from(self, size: int) -> int | None:
        """Return the first requested position from `size` on, where that is known."""
        if self.end is None or self.end <= size:
            return None
        asked: Sequence[int] | Array
        if self._flat is None:
            asked = range(*self.chosen.indices(self.end))
        else:
            asked = self._flat
        place = bisect.bisect_left(asked, size)
        return int(asked[place]) if place < len(asked) else None


def name_of_position(flat: int, map_shape: tuple[int, ...]) -> str:
    """Return the name of a position for users: a number, or a tuple on a map.

    >>> name_of_position(7, (4, 5))
    '(1, 2)'
    """
    if len(map_shape) == 1:
        return str(flat)
    return str(tuple(int(i) for i in np.unravel_index(flat, map_shape)))


def flat_positions(chosen: Any, map_shape: tuple[int, ...]) -> Array:
    """Return :func:`positions_in_order` sorted, each position once."""
    return np.unique(positions_in_order(chosen, map_shape))


def positions_in_order(chosen: Any, map_shape: tuple[int, ...]) -> Array:
    """Turn what a user calls positions into flat ones, int64, in the given order.

    Takes a flat index (negative counts from the end), a tuple on a map, a slice, a
    boolean mask of the map's shape or flat, a list or array of indices, or of tuples on
    a map. A tuple with slices or arrays in it is a part of the map, as numpy indexes
    it: ``np.s_[1:3, 2:4]``, ``np.nonzero(mask)``. What is masked in a masked array is
    left out. PlanError: a position does not exist, a mask has another shape, or its
    values are numbers.
    """
    size = int(np.prod(map_shape, dtype=np.int64))
    chosen = _unmasked(chosen, map_shape)
    if _is_part(chosen):
        grid = np.indices(map_shape, np.int64, sparse=True)
        with _indexing(chosen, map_shape):
            on_axes = tuple(np.broadcast_to(axis, map_shape)[chosen] for axis in grid)
        return np.asarray(np.ravel_multi_index(on_axes, map_shape)).reshape(-1)
    if isinstance(chosen, slice):
        _check_slice(chosen)
        return np.arange(size)[chosen]
    if isinstance(chosen, tuple):
        return _on_map(_as_array([chosen], chosen), chosen, map_shape)
    array = _as_array(chosen, chosen)
    if array.dtype == bool:
        _check_mask(array, map_shape)
        return np.flatnonzero(array)
    if array.size == 0:
        return np.empty(0, np.int64)
    _check_numbers(array, map_shape)
    if array.dtype.kind not in "iu":
        msg = f"{chosen!r} is not a position; give a whole number, a tuple or a mask"
        raise PlanError(msg)
    if array.ndim == 2 and len(map_shape) > 1:
        return _on_map(array, chosen, map_shape)
    if array.ndim > 1:
        msg = (
            f"positions must be a list of indices, not an array of shape {array.shape}"
        )
        raise PlanError(msg)
    return _within(array.reshape(-1), size, "positions")


def names_one(chosen: Any) -> bool:
    """Return whether a user names a single position, not a selection of them."""
    plain = isinstance(chosen, (int, np.integer, tuple))
    return plain and not _is_part(chosen)


def _is_part(chosen: Any) -> bool:
    """Return whether this is a part of the map, as numpy indexes an array."""
    if not isinstance(chosen, tuple):
        return False
    # A list inside of a tuple may be meant as a position.
    arrays = (slice, np.ndarray, type(Ellipsis))
    return all(isinstance(p, (int, np.integer, *arrays)) for p in chosen) and any(
        isinstance(part, arrays) for part in chosen
    )


@contextlib.contextmanager
def _indexing(chosen: Any, map_shape: tuple[int, ...]) -> Iterator[None]:
    try:
        yield
    except (IndexError, TypeError, ValueError) as error:
        msg = (
            f"positions={chosen!r} is no part of a map of shape {map_shape}, of which "
            f"numpy says: {error}"
        )
        raise PlanError(msg) from error


def _is_mask(chosen: Any) -> bool:
    return isinstance(chosen, np.ndarray) and chosen.dtype.kind == "b"


def _unmasked(chosen: Any, map_shape: tuple[int, ...]) -> Any:
    """Return what is not masked in a masked array; all else as it is."""
    if not (isinstance(chosen, np.ndarray) and hasattr(chosen, "mask")):
        return chosen
    data, left_out = np.ma.getdata(chosen), np.ma.getmaskarray(chosen)
    if data.dtype.kind == "b":
        return data & ~left_out
    _check_numbers(data, map_shape)
    data, left_out = np.atleast_1d(data), np.atleast_1d(left_out)
    return data[~left_out.reshape(len(data), -1).any(axis=1)]


def _check_numbers(array: Array, map_shape: tuple[int, ...]) -> None:
    """Refuse a mask of numbers: as indices, 0 and 1 are two positions, again and again.

    It has a number for every position, and only one or two different ones.
    """
    size = math.prod(map_shape)
    if array.dtype.kind not in "iuf" or array.shape not in (map_shape, (size,)):
        return
    low, high = array.min(), array.max()
    if size > 1 + (low != high) and ((array == low) | (array == high)).all():
        values = f"{low} and {high}" if low != high else str(low)
        msg = (
            f"positions has a number for each of the {size:,} positions, only "
            f"{values}: a mask is of bools, give mask.astype(bool)"
        )
        raise PlanError(msg)


def _as_array(value: Any, chosen: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        msg = f"{chosen!r} does not name a position: it is not a position, nor several"
        raise PlanError(msg) from error


def _check_slice(chosen: slice) -> None:
    try:
        chosen.indices(1)
    except (TypeError, ValueError) as error:
        msg = f"{chosen!r} is not a slice of positions"
        raise PlanError(msg) from error


def _check_mask(mask: Array, map_shape: tuple[int, ...]) -> None:
    size = int(np.prod(map_shape, dtype=np.int64))
    if mask.shape not in (map_shape, (size,)):
        msg = (
            f"the mask has shape {mask.shape}, but the positions have shape "
            f"{map_shape}; give one bool per position"
        )
        raise PlanError(msg)


def _on_map(array: Array, chosen: Any, map_shape: tuple[int, ...]) -> Array:
    if array.dtype.kind not in "iu" or array.shape[1:] != (len(map_shape),):
        axes = len(map_shape)
        hint = "; give a list for several positions" if axes == 1 else ""
        msg = (
            f"{chosen!r} does not name a position on {axes} "
            f"{'axis' if axes == 1 else 'axes'} of shape {map_shape}{hint}"
        )
        raise PlanError(msg)
    columns = [
        _within(array[:, i], n, f"positions on axis {i}")
        for i, n in enumerate(map_shape)
    ]
    return np.ravel_multi_index(columns, map_shape)


def _within(indices: Array, size: int, what: str) -> Array:
    wrong = indices[(indices < -size) | (indices >= size)]
    if len(wrong):
        msg = f"position {wrong[0]} does not exist: {what} go from 0 to {size - 1}"
        raise PlanError(msg)
    indices = indices.astype(np.int64)
    return np.where(indices < 0, indices + size, indices)
