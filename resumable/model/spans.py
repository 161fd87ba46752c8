"""Dividing what is read or written into spans and boxes that are done in one go."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    Array = np.ndarray[Any, np.dtype[Any]]


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
