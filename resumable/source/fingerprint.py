"""Digests of contents, by which a changed dataset is noticed."""

from __future__ import annotations

import collections
import hashlib
import itertools
import math
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resumable.source.reader import Contiguous
    from resumable.source.stored import StoredChunks

    Array = np.ndarray[Any, np.dtype[Any]]
    #: Flat index of the first element, number of elements, and where they are.
    Piece = tuple[int, int, tuple[slice, ...]]

_R = TypeVar("_R")

#: Contents are digested whole up to this size, and in samples beyond.
DIGEST_BYTES = 64 << 20
#: Bytes of all samples together, and how many samples there are. A change that reaches
#: from one sample to the next is noticed in any case; that depends on the number of
#: samples alone, and larger ones cost time at every start.
SAMPLED_BYTES = 16 << 20
SAMPLES = 64
#: Bytes that are read, and digested, at once.
PART_BYTES = 1 << 20
#: Parts that wait for their digest: bounds the memory.
_DIGESTS_AT_ONCE = 8
#: More threads wait for memory.
_MOST_THREADS = 4
#: Parts of a contiguous dataset that threads share: bounds how long Ctrl-C waits.
_SHARED_PARTS = 64
#: Most bytes of chunks that are kept unpacked while pieces of them are digested.
_MOST_KEPT_BYTES = 128 << 20
#: Long doubles, and how many of their bytes are data: 10 on x86.
_LONG = "gG"
_LONG_BYTES = 10 if np.finfo(np.longdouble).nmant == 63 else np.longdouble().itemsize


def slabs(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a flat C-order range of a box into boxes, in order.

    >>> list(slabs(1, 6, (3, 2)))
    [(slice(0, 1, None), slice(1, 2, None)), (slice(1, 3, None), slice(0, 2, None))]
    """
    if len(shape) == 1:
        if stop > start:
            yield (slice(start, stop),)
        return
    inner = math.prod(shape[1:])
    first, last = -(-start // inner), stop // inner
    if start < first * inner:
        before = (first - 1) * inner
        for rest in slabs(start - before, min(stop - before, inner), shape[1:]):
            yield (slice(first - 1, first), *rest)
    if last > first:
        yield (slice(first, last), *(slice(0, n) for n in shape[1:]))
    if first <= last and stop > last * inner:
        for rest in slabs(0, stop - last * inner, shape[1:]):
            yield (slice(last, last + 1), *rest)


def digests_at(
    contents: Contiguous | StoredChunks, pieces: Iterator[Piece], dtype: np.dtype[Any]
) -> Iterator[bytes]:
    """Yield the sha256 of parts of stored bytes, which threads also read."""

    def digest_parts() -> None:
        # Read into the same memory, which stays in the processor's cache.
        buffer = np.empty(0, np.uint8)
        while True:
            try:
                number, start, count = waiting.popleft()
            except IndexError:
                return
            size = count * dtype.itemsize
            if len(buffer) < size:
                buffer = np.empty(size, np.uint8)
            contents.read(start * dtype.itemsize, buffer[:size])
            found[number] = hashlib.sha256(buffer[:size].data).digest()

    others = min(os.cpu_count() or 1, _MOST_THREADS) - 1 or 1
    with ThreadPoolExecutor(others) as threads:
        while shared := list(itertools.islice(pieces, _SHARED_PARTS)):
            waiting = collections.deque((n, *part[:2]) for n, part in enumerate(shared))
            found = [b""] * len(shared)
            helping = [
                _submitted(threads, digest_parts)
                for _ in range(min(others, len(shared) - 1))
            ]
            digest_parts()
            for future in helping:
                future.result()
            yield from found


def digests_of(parts: Iterator[Any]) -> Iterator[bytes]:
    """Digest parts while the next ones are read; reading holds h5py's lock."""
    with ThreadPoolExecutor(2) as threads:
        waiting: collections.deque[Future[list[bytes]]] = collections.deque()
        some: list[Any] = []
        size = 0
        for part in parts:
            # Many small ones at once: to hand one to a thread takes longer than it.
            some.append(part)
            size += len(part) if isinstance(part, bytes) else part.nbytes
            if size >= PART_BYTES:
                waiting.append(_submitted(threads, _sha256_of_each, some))
                some, size = [], 0
            if len(waiting) > _DIGESTS_AT_ONCE:
                yield from waiting.popleft().result()
        waiting.append(_submitted(threads, _sha256_of_each, some))
        for future in waiting:
            yield from future.result()


def _submitted(
    threads: ThreadPoolExecutor, function: Callable[..., _R], *arguments: Any
) -> Future[_R]:
    """Call a function in a thread, or here where no thread can be started any more.

    A run in the background goes on after the end of the script, when the interpreter
    lets executors start no threads.
    """
    try:
        return threads.submit(function, *arguments)
    except RuntimeError:
        done: Future[_R] = Future()
        done.set_result(function(*arguments))
        return done


def plain_parts(
    dataset: h5py.Dataset, box: tuple[int, ...], full: bool
) -> Iterator[Array]:
    """Yield the values of pieces, read by HDF5."""
    # Filtered chunks are unpacked whole: once, not for every piece of them.
    unpacked = dataset.id.get_create_plist().get_nfilters() > 0
    rows, first, last = np.empty(0, dataset.dtype), 0, 0
    for *_, slab in pieces_of(box, dataset.dtype.itemsize, full):
        start, stop = slab[0].start, slab[0].stop
        if unpacked and not first <= start < stop <= last:
            step = dataset.chunks[0]
            first, last = start // step * step, min(box[0], -(-stop // step) * step)
            row_bytes = math.prod(box[1:]) * dataset.dtype.itemsize
            if (last - first) * row_bytes > _MOST_KEPT_BYTES:
                last = first
            else:
                inner = (slice(0, n) for n in box[1:])
                rows = read_values(dataset, (slice(first, last), *inner))
        if first <= start < stop <= last:
            yield rows[(slice(start - first, stop - first), *slab[1:])]
        else:
            yield read_values(dataset, slab)


def pieces_of(box: tuple[int, ...], itemsize: int, full: bool) -> Iterator[Piece]:
    """Yield pieces of 1 MB of a box in C order: all of them, or samples."""
    total = math.prod(box)
    if full or total * itemsize <= DIGEST_BYTES:
        step = max(1, PART_BYTES // itemsize)
        starts = range(0, total, step)
    else:
        step = max(1, SAMPLED_BYTES // SAMPLES // itemsize)
        # Where rows are small, a sample begins with a row: one box, not three.
        row = math.prod(box[1:])
        row = row if row < step else 1
        spread = np.linspace(0, float(total - step), SAMPLES)
        # Beyond 2^53 elements a float may be rounded to a number past the end.
        last = total - step
        starts = [min(int(s), last) // row * row for s in spread]  # type: ignore[assignment]
    for start in starts:
        begin = start
        for slab in slabs(start, min(start + step, total), box):
            count = math.prod(axis.stop - axis.start for axis in slab)
            yield begin, count, slab
            begin += count


def read_values(
    dataset: h5py.Dataset, box: tuple[slice, ...], *, clean: bool = False
) -> Array:
    """Read the values of a box; with `clean`, or where they are converted, data only.

    HDF5 leaves any bytes between the fields of a compound that it converts.
    """
    values = np.empty([part.stop - part.start for part in box], dataset.dtype)
    dataset.read_direct(values, box)
    return data_only(values) if clean or not is_stored_as_read(dataset) else values


def is_stored_as_read(dataset: h5py.Dataset) -> bool:
    """Return whether elements are in the file as they are in memory."""
    kind = h5py.h5t.py_create(dataset.dtype, logical=True)
    return bool(dataset.id.get_type() == kind)


def data_only(values: Array) -> Array:
    """Return values with zeros for the bytes that no value has, which may be any.

    Those between the fields of a compound, and at the end of a long double.
    """
    if not _has_padding(values.dtype):
        return values
    result = np.zeros(values.shape, values.dtype)
    _copy_data(values, result)
    return result


def _has_padding(dtype: np.dtype[Any]) -> bool:
    fields = [dtype[name] for name in dtype.names or ()]
    if dtype.names is None:
        return dtype.base.char in _LONG and np.longdouble().itemsize > _LONG_BYTES
    inside = sum(field.itemsize for field in fields)
    return inside < dtype.itemsize or any(_has_padding(f.base) for f in fields)


def _copy_data(values: Array, result: Array) -> None:
    """Copy what is data into an array of zeros."""
    if values.dtype.names is not None:
        for name in values.dtype.names:
            _copy_data(values[name], result[name])
    elif _has_padding(values.dtype):
        plain = np.array(values, order="C")
        parts = plain.reshape(-1).view(np.uint8)
        parts.reshape(-1, np.longdouble().itemsize)[:, _LONG_BYTES:] = 0
        result[...] = plain
    else:
        result[...] = values


def _sha256_of_each(parts: list[Any]) -> list[bytes]:
    return [_sha256(part) for part in parts]


def _sha256(part: Any) -> bytes:
    if isinstance(part, np.ndarray):
        part = part.reshape(-1).view(np.uint8)
    return hashlib.sha256(part).digest()
