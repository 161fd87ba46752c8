"""Indexing as numpy does, of what can only be read in parts."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]


def read_like_array(dataset: Any, key: Any) -> Any:
    """Index a chunked dataset as numpy would an array, and read no more than chunks.

    Parameters
    ----------
    dataset : h5py.Dataset
        At least one axis.
    key : anything numpy takes but names of fields
        Of the first axis only the rows that are needed are read, of the others what
        lies between the first and the last that is needed.

    Raises
    ------
    IndexError
        As numpy would.
    """
    shape = dataset.shape
    rules = [needed, *[_of_box] * (len(shape) - 1)]
    (rows, *boxes), inner = _selected(_parts(key, shape), shape, rules)
    lengths = [box.stop - box.start for box in boxes]
    block = np.empty((len(rows), *lengths), dataset.dtype)
    if block.size:
        whole = rows[-1] - rows[0] == len(rows) - 1
        step = None if whole else dataset.chunks[0]
        for first, last, start, stop in spans_of(rows, step=step):
            part = dataset[(slice(start, stop), *boxes)]
            if last - first < stop - start:
                part = part[np.asarray(rows[first:last]) - start]
            block[first:last] = part
    return block[inner]


def divided_key(
    key: Any, shape: tuple[int, ...], most: int
) -> tuple[list[Any], tuple[Any, ...], int]:
    """Say which indices of every axis a key needs, and where they then are.

    Parameters
    ----------
    key : anything numpy takes but names of fields
    shape : tuple of int
        What is indexed; at least one axis.
    most : int
        Leading axes that may be taken together.

    Returns
    -------
    needs : list of range or ndarray
        Of each axis, ascending, each once.
    inner : tuple
        Indexes the array of what is needed as `key` would the whole.
    together : int
        So many leading axes are one in `needs` and `inner`. Pairs of indices would
        need whole rows and columns otherwise.

    Raises
    ------
    IndexError
        As numpy would.
    """
    parts = _parts(key, shape)
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
    needs, inner = _selected(parts, shape, [needed] * len(shape))
    return needs, inner, max(1, count)


def _selected(
    parts: list[Any],
    shape: tuple[int, ...],
    rules: Sequence[Callable[[Any, int], tuple[Any, Any]]],
) -> tuple[list[Any], tuple[Any, ...]]:
    """Return what is needed of every axis by its rule, and the key within that."""
    needs = [rule(slice(None), n)[0] for rule, n in zip(rules, shape, strict=True)]
    inner: list[Any] = []
    axis = 0
    # Those of an axis; the others make a new one, or stand for all that is left.
    own = [not (p is None or p is Ellipsis or isinstance(p, np.bool_)) for p in parts]
    for part, of_axis in zip(parts, own, strict=True):
        if not of_axis:
            inner.append(part)
            axis += len(shape) - sum(own) if part is Ellipsis else 0
            continue
        needs[axis], local = rules[axis](part, shape[axis])
        inner.append(local)
        axis += 1
    return needs, tuple(inner)


def _parts(key: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return slices, arrays of indices, None, Ellipsis and single truth values.

    Raises
    ------
    IndexError
        As numpy would.
    """
    # numpy says what is wrong with a key, in its own words.
    np.broadcast_to(np.uint8(0), shape)[key]
    parts: list[Any] = []
    for part in key if isinstance(key, tuple) else (key,):
        if part is None or part is Ellipsis or isinstance(part, slice):
            parts.append(part)
            continue
        array = np.asarray(part)
        if array.size == 0 and not isinstance(part, np.ndarray):
            array = array.astype(np.intp)
        if array.dtype == bool:
            # A mask of several axes is as good as its indices along each.
            parts += array.nonzero() if array.ndim else [array[()]]
        else:
            parts.append(array)
    return parts


def needed(part: Any, length: int) -> tuple[Any, Any]:
    """Return the indices needed, ascending, and the part of the key within them."""
    if isinstance(part, slice):
        wanted = range(*part.indices(length))
        if wanted.step < 0:
            return wanted[::-1], slice(None, None, -1)
        return wanted, slice(None)
    indices = np.where(part < 0, part + length, part)
    if indices.ndim == 1 and (indices[1:] > indices[:-1]).all():
        # As of a mask, and of most positions that are asked for.
        return indices, np.arange(len(indices))
    rows = np.unique(indices)
    return rows, np.searchsorted(rows, indices)[()]


def _of_box(part: Any, length: int) -> tuple[slice, Any]:
    """Return the span needed, and the part of the key within it."""
    if isinstance(part, slice):
        wanted = range(*part.indices(length))
        if not wanted:
            return slice(0, 0), slice(None)
        first, last = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        # The span ends with the first and the last that is needed, either way.
        return slice(first, last + 1), slice(None, None, wanted.step)
    if not part.size:
        return slice(0, 0), part
    indices = np.where(part < 0, part + length, part)
    first = int(indices.min())
    return slice(first, int(indices.max()) + 1), (indices - first)[()]


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
    """Divide indices into spans: indices that lie close are read in one go.

    Parameters
    ----------
    indices : range or ndarray of int
        Ascending, each once; at least one.
    gap : int, optional
        A span has no hole of more indices than this. Default: any hole.
    step : int, optional
        A span does not reach over a multiple of this. Default: any length.

    Yields
    ------
    first, last : int
        Which of the indices are in the span.
    start, stop : int
        From where to where it reaches; with holes ``stop - start > last - first``.

    Examples
    --------
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

    Examples
    --------
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
