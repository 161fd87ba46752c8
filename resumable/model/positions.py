"""Sets of positions: what a user names, and what is left to do.

Positions are counted flat, 0 to N - 1, in C order of the map. A set of them is a
bitmap, at most N / 8 bytes whatever its pattern, so that 10^8 scattered positions cost
12.5 MB. Nothing here reads or writes a file.
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import functools
import hashlib
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import PlanError, option

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from resumable.model.batch import Batch


Array = np.ndarray[Any, np.dtype[Any]]

_GOLDEN = (5**0.5 - 1) / 2
#: Positions scanned in one go; a multiple of 8. Bounds the memory of a scan.
WINDOW = 1 << 20
#: Most positions of a source or a run: a bitmap of them is 2 GB.
MOST_POSITIONS = 1 << 34
_BITS = WINDOW // 8
#: The bits of a window without members, and of a whole one: most windows have these.
_NONE, _ALL = np.zeros(_BITS, np.uint8), np.full(_BITS, 255, np.uint8)


class PositionSet:
    """A set of positions out of `size`.

    Of every window of 2^20 positions it has the bits of the members. Those of a window
    without members, and of a whole one, are shared, so that a part of a huge set takes
    the time and the memory of what it touches.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        # Arrays of bits are never changed, but replaced: they may be shared.
        whole, left = divmod(size, WINDOW)
        self._parts = [_NONE] * whole + [np.zeros(-(-left // 8), np.uint8)] * bool(left)

    @classmethod
    def full(cls, size: int) -> PositionSet:
        """Return the set of all positions."""
        result = cls(size)
        for start, stop in result.windows():
            result._fill(start, stop)
        return result

    def _fill(self, start: int, stop: int) -> None:
        """Have all positions of one window as members."""
        if stop - start == WINDOW:
            self._parts[start // WINDOW] = _ALL
        else:
            self.set_window(start, np.ones(stop - start, bool))

    def copy(self) -> PositionSet:
        """Return a set of the same members."""
        return self._with(self._parts)

    def _with(self, parts: Iterable[Array]) -> PositionSet:
        result = PositionSet(0)
        result.size, result._parts = self.size, list(parts)
        return result

    def resized(self, size: int) -> PositionSet:
        """Return a set of more positions, with the same members."""
        result = PositionSet(size)
        for start, stop in self.inhabited():
            result.set_window(start, self.window(start, stop))
        return result

    @classmethod
    def of(cls, size: int, positions: Array) -> PositionSet:
        """Return the set of the given flat positions, ascending, 0 to N - 1."""
        result = cls(size)
        for number in np.unique(positions // WINDOW).tolist():
            start, stop = number * WINDOW, min((number + 1) * WINDOW, size)
            first, last = np.searchsorted(positions, (start, stop))
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
            with _indexing(chosen, map_shape):
                count = np.broadcast_to(np.int8(0), map_shape)[chosen].size
                if count < size // 64:
                    # A mask of all would take more than the numbers of these.
                    flat = positions_in_order(chosen, map_shape)
                    return cls.of(size, np.unique(flat))
                mask = np.zeros(map_shape, bool)
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
                if not len(inside) or inside.start >= stop:
                    continue
                end = min(stop, inside.stop) - start
                if inside.step == 1 and (inside.start, end) == (start, stop - start):
                    result._fill(start, stop)
                    continue
                members = np.zeros(stop - start, bool)
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
        found = []
        while start < stop:
            number, first = divmod(start, WINDOW)
            last = min(WINDOW, first + stop - start)
            part = self._parts[number][first // 8 : -(-last // 8)]
            begin = first // 8 * 8
            found.append(np.unpackbits(part)[first - begin : last - begin].view(bool))
            start += last - first
        if len(found) == 1:
            return found[0]
        return np.concatenate([np.empty(0, bool), *found])

    def set_window(self, start: int, members: Array) -> None:
        """Set membership of a window that starts at a multiple of 8.

        The window must end at a multiple of 8 or at N.
        """
        packed, place = np.packbits(members), start // 8
        while len(packed):
            number, first = divmod(place, _BITS)
            some = packed[: _BITS - first]
            part = self._parts[number]
            if len(some) == len(part):
                part = some.copy()
            else:
                part = part.copy()
                part[first : first + len(some)] = some
            self._parts[number] = _shared(part)
            packed, place = packed[len(some) :], place + len(some)

    def windows(self) -> Iterator[tuple[int, int]]:
        """Bounds of windows that cover all positions."""
        for start in range(0, self.size, WINDOW):
            yield start, min(start + WINDOW, self.size)

    def inhabited(self, first: int = 0) -> Iterator[tuple[int, int]]:
        """Bounds of the windows that have members, from that of `first` on."""
        for number in range(first // WINDOW, len(self._parts)):
            part = self._parts[number]
            if part is not _NONE and part.any():
                start = number * WINDOW
                yield start, min(start + WINDOW, self.size)

    def __len__(self) -> int:
        return sum(map(_count, self._parts))

    def __contains__(self, position: int) -> bool:
        number, inside = divmod(position, WINDOW)
        return bool(self._parts[number][inside // 8] & (128 >> (inside % 8)))

    def __and__(self, other: PositionSet) -> PositionSet:
        return self._with(
            one if one is _NONE or two is _ALL else _shared(one & two)
            for one, two in zip(self._parts, other._parts, strict=True)
        )

    def __sub__(self, other: PositionSet) -> PositionSet:
        return self._with(
            one if one is _NONE or two is _NONE else _shared(one & ~two)
            for one, two in zip(self._parts, other._parts, strict=True)
        )

    def is_within(self, other: PositionSet) -> bool:
        """Return whether the other set has all members of this one."""
        return not any((self - other).inhabited())

    def digest(self) -> str:
        """Sha256 of the members: equal for equal sets."""
        result = hashlib.sha256(str(self.size).encode())
        for part in self._parts:
            result.update(part.tobytes() if part.any() else b"none")
        return result.hexdigest()

    def to_text(self) -> str:
        """Return the set as text, short where its members lie together."""
        compress = zlib.compressobj(9)
        parts = [compress.compress(part.tobytes()) for part in self._parts]
        return base64.b64encode(b"".join([*parts, compress.flush()])).decode()

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
        result, flat = cls(size), np.frombuffer(bits, np.uint8)
        for start, stop in result.windows():
            members = np.unpackbits(flat[start // 8 : -(-stop // 8)])
            result.set_window(start, members[: stop - start])
        return result

    def discard(self, position: int) -> None:
        """Take a position out."""
        start = position // 8 * 8
        members = self.window(start, min(start + 8, self.size))
        members[position - start] = False
        self.set_window(start, members)

    def add(self, batch: Batch) -> None:
        """Put the positions of a batch in."""
        start, members = self._around(batch)
        self.set_window(start, self.window(start, start + len(members)) | members)

    def remove(self, batch: Batch) -> None:
        """Take the positions of a batch out."""
        start, members = self._around(batch)
        self.set_window(start, self.window(start, start + len(members)) & ~members)

    def _around(self, batch: Batch) -> tuple[int, Array]:
        """Return a window around a batch, and which of it are members of the batch."""
        start, stop = batch.start // 8 * 8, min(-(-batch.stop // 8) * 8, self.size)
        members = np.zeros(stop - start, bool)
        members[batch.start - start : batch.stop - start] = batch.members()
        return start, members

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
        counts = np.cumsum([0, *map(_count, self._parts)])
        ordinals = ordinals[ordinals < counts[-1]]
        numbers = np.searchsorted(counts, ordinals, "right") - 1
        # Not np.unique, for which numpy imports its masked arrays.
        for number in sorted(set(numbers.tolist())):
            here = ordinals[numbers == number] - counts[number]
            start = number * WINDOW
            members = np.flatnonzero(self.window(start, min(start + WINDOW, self.size)))
            found += (start + members[here]).tolist()
        return found


def _shared(bits: Array) -> Array:
    """Return the shared array that is the same as these bits of a window, if one is."""
    if not bits.any():
        return _NONE if len(bits) == _BITS else bits
    return _ALL if len(bits) == _BITS and bits.all() and (bits == 255).all() else bits


def _count(bits: Array) -> int:
    if bits is _NONE or bits is _ALL:
        return 0 if bits is _NONE else WINDOW
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


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
            ends = (first.start, first.stop, first.step)
            numbers = [n for n in ends if n is not None]
        elif first is Ellipsis or _is_mask(first):
            numbers = []
        else:
            _check_numbers(_as_array(chosen, chosen), map_shape)
            numbers = np.ravel(first).tolist()
        if any(number < 0 for number in numbers):
            msg = (
                "positions that count from the end cannot be followed: the end is not "
                f"there yet ({option('positions', chosen)})"
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
            f"{option('positions', chosen)} is no part of a map of shape {map_shape}, "
            f"of which numpy says: {error}"
        )
        raise PlanError(msg) from error


def _is_mask(chosen: Any) -> bool:
    return isinstance(chosen, np.ndarray) and chosen.dtype.kind == "b"


def _unmasked(chosen: Any, map_shape: tuple[int, ...]) -> Any:
    """Return what is not masked in a masked array, or a tuple; all else as it is."""
    if _is_part(chosen) and any(isinstance(p, np.ma.MaskedArray) for p in chosen):
        with _indexing(chosen, map_shape):
            return _part_unmasked(chosen)
    if not (isinstance(chosen, np.ndarray) and hasattr(chosen, "mask")):
        return chosen
    data, left_out = np.ma.getdata(chosen), np.ma.getmaskarray(chosen)
    if data.dtype.kind == "b":
        return data & ~left_out
    _check_numbers(data, map_shape)
    data, left_out = np.atleast_1d(data), np.atleast_1d(left_out)
    return data[~left_out.reshape(len(data), -1).any(axis=1)]


def _part_unmasked(chosen: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a part of a map without the indices that are masked on any axis."""
    parts: list[Any] = []
    for part in chosen:
        if _is_mask(part):
            parts += np.nonzero(np.ma.filled(part, False))
        else:
            parts.append(part)
    masks = [np.ma.getmaskarray(p) for p in parts if isinstance(p, np.ndarray)]
    kept = ~functools.reduce(np.logical_or, masks)
    return tuple(
        np.broadcast_to(np.ma.getdata(part), kept.shape)[kept]
        if isinstance(part, np.ndarray)
        else part
        for part in parts
    )


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
