"""Indexing as numpy does, of what can only be read in parts."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.model.spans import spans_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
