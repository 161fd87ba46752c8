"""Digests of contents, by which a changed dataset is noticed."""

from __future__ import annotations

import collections
import hashlib
import itertools
import math
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import h5py

    from resumable.source.reader import Contiguous

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
_SAMPLES = 64
#: Bytes that are read, and digested, at once.
PART_BYTES = 1 << 20
#: Parts that wait for their digest: bounds the memory.
_DIGESTS_AT_ONCE = 8
#: More threads wait for memory.
_MOST_THREADS = 4
#: Parts of a contiguous dataset that threads share: bounds how long Ctrl-C waits.
_SHARED_PARTS = 64
#: Most chunks that are looked up one by one; of more, only those that were written.
_MOST_CHUNKS = 1 << 20


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
    contents: Contiguous, pieces: Iterator[Piece], dtype: np.dtype[Any]
) -> Iterator[bytes]:
    """Yield the sha256 of parts of a contiguous dataset, which threads also read."""

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
        waiting: collections.deque[Future[bytes]] = collections.deque()
        for part in parts:
            waiting.append(_submitted(threads, _sha256, part))
            if len(waiting) > _DIGESTS_AT_ONCE:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


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
    for *_, slab in pieces_of(dataset, box, full):
        part = np.empty([axis.stop - axis.start for axis in slab], dataset.dtype)
        dataset.read_direct(part, slab)
        yield part


def pieces_of(
    dataset: h5py.Dataset, box: tuple[int, ...], full: bool
) -> Iterator[Piece]:
    """Yield pieces of 1 MB in C order: all of them, or samples."""
    total, itemsize = math.prod(box), dataset.dtype.itemsize
    if full or total * itemsize <= DIGEST_BYTES:
        step = max(1, PART_BYTES // itemsize)
        starts = range(0, total, step)
    else:
        step = max(1, SAMPLED_BYTES // _SAMPLES // itemsize)
        # Where rows are small, a sample begins with a row: one box, not three.
        row = math.prod(box[1:])
        row = row if row < step else 1
        spread = np.linspace(0, float(total - step), _SAMPLES)
        # Beyond 2^53 elements a float may be rounded to a number past the end.
        last = total - step
        starts = [min(int(s), last) // row * row for s in spread]  # type: ignore[assignment]
    for start in starts:
        begin = start
        for slab in slabs(start, min(start + step, total), box):
            count = math.prod(axis.stop - axis.start for axis in slab)
            yield begin, count, slab
            begin += count


def stored_parts(dataset: h5py.Dataset, full: bool) -> Iterator[Any]:
    """Yield chunks as they are stored, each after its place: all, or samples."""
    # What turns stored bytes into values: chunks, filters, fill value.
    properties, chunks = dataset.id.get_create_plist(), dataset.chunks
    filters = [properties.get_filter(i)[:3] for i in range(properties.get_nfilters())]
    fill = np.asarray(dataset.fillvalue, dataset.dtype).tobytes()
    yield repr((chunks, filters, fill)).encode()
    grid = tuple(math.ceil(n / c) for n, c in zip(dataset.shape, chunks, strict=True))
    total, size = math.prod(grid), dataset.id.get_storage_size()
    count = total
    if not full and size > DIGEST_BYTES:
        count = min(total, max(_SAMPLES, math.ceil(total * SAMPLED_BYTES / size)))
    for corner in _corners(dataset, grid, total, count):
        # A chunk that was never written has no bytes; it reads as fill values.
        if dataset.id.get_chunk_info_by_coord(corner).size:
            skipped_filters, stored_bytes = dataset.id.read_direct_chunk(corner)
            yield repr((corner, skipped_filters)).encode()
            yield stored_bytes


def _corners(
    dataset: h5py.Dataset, grid: tuple[int, ...], total: int, count: int
) -> Iterator[tuple[int, ...]]:
    """Yield the first element of `count` chunks, spread evenly, in C order."""
    if count > _MOST_CHUNKS and dataset.id.get_num_chunks() < total // 8:
        # Few chunks were written, and only those count: looking up every place of a
        # huge shape would take for ever.
        written: list[tuple[int, ...]] = []
        dataset.id.chunk_iter(lambda chunk: written.append(chunk.chunk_offset))
        written.sort()
        yield from written[:: total // count]
        return
    indices: Any = range(total)
    if count < total:
        indices = np.linspace(0, total - 1, count).astype(np.int64)
    for index in indices:
        cell = np.unravel_index(index, grid)
        yield tuple(int(i) * c for i, c in zip(cell, dataset.chunks, strict=True))


def _sha256(part: Any) -> bytes:
    if isinstance(part, np.ndarray):
        part = part.reshape(-1).view(np.uint8)
    return hashlib.sha256(part).digest()
