"""Which indices a key needs, and in which spans or boxes they are read."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]


def read_like_array(dataset: Any, key: Any) -> Any:
    """Index a chunked dataset as numpy would an array; not by names of fields.

    Of the first axis only the rows that are needed are read, of the other axes all
    from the first index that is needed to the last. Raises IndexError as numpy would.
    """
    (rows, *others), inner, _ = divided_key(key, dataset.shape, 1)
    block = np.empty([len(rows), *map(len, others)], dataset.dtype)
    if block.size:
        box = [slice(int(need[0]), int(need[-1]) + 1) for need in others]
        whole = rows[-1] - rows[0] == len(rows) - 1
        for first, last, start, stop in spans_of(
            rows, step=None if whole else dataset.chunks[0]
        ):
            part = dataset[(slice(start, stop), *box)]
            begins = [start, *(span.start for span in box)]
            block[first:last] = picked_rows(part, [rows[first:last], *others], begins)
    return block[inner]


def divided_key(
    key: Any, shape: tuple[int, ...], most: int
) -> tuple[list[Any], tuple[Any, ...], int]:
    """Divide a key into the indices that it needs of every axis, and a key for those.

    Of each axis the indices are ascending, each once. The third value returned is how
    many leading axes, `most` at most, are merged into one: taken apart, pairs of
    indices would need whole rows and columns. Raises IndexError as numpy would.
    """
    # Raises what numpy raises for a wrong key.
    np.broadcast_to(np.uint8(0), shape)[key]
    # Slices, arrays of indices, None, Ellipsis and single truth values.
    parts: list[Any] = []
    for part in key if isinstance(key, tuple) else (key,):
        if part is None or part is Ellipsis or isinstance(part, slice):
            parts.append(part)
            continue
        array = np.asarray(part)
        if array.size == 0 and not isinstance(part, np.ndarray):
            array = array.astype(np.intp)
        if array.dtype == bool:
            # A mask stands for as many arrays of indices as it has axes.
            parts += array.nonzero() if array.ndim else [array[()]]
        else:
            parts.append(array)
    paired = list(
        itertools.takewhile(
            lambda part: isinstance(part, np.ndarray) and part.dtype != bool,
            parts[:most],
        )
    )
    count = len(paired)
    if count > 1:
        lengths = shape[:count]
        indices = [
            np.where(part < 0, part + length, part).astype(np.int64)
            for part, length in zip(paired, lengths, strict=True)
        ]
        parts[:count] = [np.asarray(np.ravel_multi_index(indices, lengths))]
        shape = (math.prod(lengths), *shape[count:])
    needs: list[Any] = [range(length) for length in shape]
    inner: list[Any] = []
    axis = 0
    # The others make a new axis, or stand for all axes that the key does not name.
    named = [not (p is None or p is Ellipsis or isinstance(p, np.bool_)) for p in parts]
    for part, of_axis in zip(parts, named, strict=True):
        if of_axis:
            needs[axis], local = _needed(part, shape[axis])
            inner.append(local)
            axis += 1
        else:
            inner.append(part)
            axis += len(shape) - sum(named) if part is Ellipsis else 0
    return needs, tuple(inner), max(1, count)


def picked_rows(block: Array, needs: Sequence[Any], begins: Sequence[int]) -> Array:
    """Return the needed indices of every axis of a block that begins at `begins`."""
    for axis, (need, begin) in enumerate(zip(needs, begins, strict=True)):
        part = (
            slice(need.start - begin, need.stop - begin, need.step)
            if isinstance(need, range)
            else need - begin
        )
        block = block[(*[slice(None)] * axis, part)]
    return block


def _needed(part: Any, length: int) -> tuple[Any, Any]:
    """Return the indices needed, ascending, and the part of the key within them."""
    if isinstance(part, slice):
        wanted = range(*part.indices(length))
        if wanted.step < 0:
            return wanted[::-1], slice(None, None, -1)
        return wanted, slice(None)
    indices = np.where(part < 0, part + length, part)
    if indices.ndim == 1 and (indices[1:] > indices[:-1]).all():
        # In order already, as the indices of a mask are.
        return indices, np.arange(len(indices))
    rows = np.unique(indices)
    return rows, np.searchsorted(rows, indices)[()]


def divided_where(apart: Array) -> Iterator[tuple[int, int]]:
    """Divide items where `apart` says that two neighbours do not belong together.

    >>> list(divided_where(np.array([False, True, False])))
    [(0, 2), (2, 4)]
    """
    inner = (np.flatnonzero(apart) + 1).tolist()
    return itertools.pairwise([0, *inner, len(apart) + 1])


def spans_of(
    indices: Any, *, gap: int | None = None, step: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Divide ascending indices into spans: those that lie close are read in one go.

    A span has no hole of more than `gap` indices, and does not reach over a multiple of
    `step`. Yields first and last, which of the indices are in the span, and its start
    and stop: with holes ``stop - start > last - first``.

    >>> list(spans_of(np.array([2, 3, 5, 9]), gap=1))
    [(0, 3, 2, 6), (3, 4, 9, 10)]
    """
    begin, end = int(indices[0]), int(indices[-1]) + 1
    if end - begin == len(indices):
        # Without holes, and perhaps a long range: not made an array.
        inner = range((begin // step + 1) * step, end, step) if step else ()
        for start, stop in itertools.pairwise([begin, *inner, end]):
            yield start - begin, stop - begin, start, stop
        return
    found = np.asarray(indices)
    apart = np.zeros(len(found) - 1, bool)
    if gap is not None:
        apart |= np.diff(found) > gap + 1
    if step is not None:
        apart |= np.diff(found // step) > 0
    for first, last in divided_where(apart):
        yield first, last, int(found[first]), int(found[last - 1]) + 1


def boxes(shape: tuple[int, ...], step: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Divide an array into boxes of at most `step`, in C order.

    >>> [(rows.start, rows.stop) for rows, _ in boxes((5, 2), (4, 2))]
    [(0, 4), (4, 5)]
    """
    spans = [
        [slice(start, min(start + s, n)) for start in range(0, n, s)]
        for n, s in zip(shape, step, strict=True)
    ]
    return itertools.product(*spans)


def chunk_shape(
    shape: tuple[int, ...], itemsize: int, most_bytes: int
) -> tuple[int, ...]:
    """Return a shape of chunks of at most so many bytes, of whole rows if they fit.

    >>> chunk_shape((512, 512, 4), 8, 1 << 18)
    (16, 512, 4)
    """
    left = max(1, most_bytes // itemsize)
    lengths: list[int] = []
    for n in reversed(shape):
        # Chunks of equal length where possible: the last one is stored whole, too.
        length = math.ceil(n / math.ceil(n / min(n, left))) if n else 1
        lengths.append(length)
        left = left // length if length == n else 1
    return tuple(reversed(lengths))
