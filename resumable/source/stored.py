"""The chunks of a filtered dataset as they are stored: their bytes and their digest.

To digest them as they lie costs a small part of unpacking them. Whoever writes to a
dataset that grows writes the chunks anew that its end lies in, and only these: they are
digested unpacked, up to that end, and all before them as they lie.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.runfile import chunk_table
from resumable.source.fingerprint import (
    DIGEST_BYTES,
    SAMPLED_BYTES,
    SAMPLES,
    data_only,
    digests_at,
    digests_of,
    pieces_of,
    read_values,
)
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py

    Array = np.ndarray[Any, np.dtype[Any]]

#: Most chunks that are looked up one by one; of more, only those that were written.
_MOST_CHUNKS = 1 << 20
#: Bytes at the end of a chunk that hold its checksum, whatever the filter.
_END_BYTES = 64
_BYTE = np.dtype(np.uint8)


def stored_parts(dataset: h5py.Dataset, full: bool) -> Iterator[Any]:
    """Yield chunks as they are stored, each after its place: all, or samples."""
    yield _storage(dataset)
    written: set[tuple[int, ...]] | None = None
    for corner in _corners(dataset, _chunks_digested(dataset, full=full)):
        if written is not None and corner not in written:
            continue  # it was never written; it reads as fill values
        try:
            skipped_filters, stored_bytes = dataset.id.read_direct_chunk(corner)
        except (OSError, RuntimeError):
            # To tell of one if it was written, HDF5 walks through all of them.
            written = written or set(_written(dataset))
            if corner in written:
                raise
            continue
        yield repr((corner, skipped_filters)).encode()
        yield stored_bytes


def _chunks_digested(dataset: h5py.Dataset, *, full: bool) -> int:
    """Return how many whole chunks are digested: all of them, or samples."""
    total = math.prod(map(_ceil_div, dataset.shape, dataset.chunks))
    size: int = dataset.id.get_storage_size()
    if full or size <= DIGEST_BYTES:
        return total
    return min(total, max(SAMPLES, math.ceil(total * SAMPLED_BYTES / size)))


def _ceil_div(length: int, step: int) -> int:
    return -(-length // step)


def _storage(dataset: h5py.Dataset) -> bytes:
    """Describe what turns stored bytes into values: chunks, filters, fill value."""
    properties, chunks = dataset.id.get_create_plist(), dataset.chunks
    filters = [properties.get_filter(i)[:3] for i in range(properties.get_nfilters())]
    fill = data_only(np.asarray(dataset.fillvalue, dataset.dtype)).tobytes()
    return repr((chunks, filters, fill)).encode()


def _corners(dataset: h5py.Dataset, count: int) -> Iterator[tuple[int, ...]]:
    """Yield the first element of `count` chunks, spread evenly, in C order.

    Those that were never written may be left out.
    """
    chunks = dataset.chunks
    grid = tuple(map(_ceil_div, dataset.shape, chunks))
    total = math.prod(grid)
    few = count > _MOST_CHUNKS and dataset.id.get_num_chunks() < total // 8
    if count == total or few:
        # Only those that were written: looking up every place of a huge shape would
        # take for ever.
        yield from sorted(_written(dataset))[:: total // max(1, count)]
        return
    indices = np.linspace(0, total - 1, count).astype(np.int64)
    cells = np.stack(np.unravel_index(indices, grid), axis=1)
    yield from map(tuple, (cells * chunks).tolist())


def _written(dataset: h5py.Dataset) -> list[tuple[int, ...]]:
    """Return the first elements of the chunks that were written."""
    return list(map(tuple, chunk_table(dataset)[:, : dataset.ndim].tolist()))


def is_large(dataset: h5py.Dataset) -> bool:
    """Return whether samples of whole chunks are more than is digested of a dataset."""
    total = math.prod(map(_ceil_div, dataset.shape, dataset.chunks))
    size = dataset.id.get_storage_size()
    return bool(_chunks_digested(dataset, full=False) * size > DIGEST_BYTES * total)


def stored_digests(
    dataset: h5py.Dataset, axis: int, length: int, full: bool
) -> Iterator[bytes]:
    """Yield digests of the contents, one axis cut to `length`, as they are stored.

    Of all stored bytes up to 64 MB or if `full`, of 16 MB in 64 places beyond, and of
    the ends of 64 chunks, where their checksums are; in any case of the place and the
    size of every chunk. They are the same for a dataset that has become longer.
    """
    before = length // dataset.chunks[axis] * dataset.chunks[axis]
    chunks = StoredChunks(dataset, axis, before)
    whole = full or chunks.size <= DIGEST_BYTES
    ends = [] if whole else [chunks.ends()]
    yield from digests_of(iter([_storage(dataset), chunks.description, *ends]))
    pieces = pieces_of((chunks.size,), 1, full)
    yield from digests_at(chunks, pieces, _BYTE)
    if before < length:
        yield from digests_of(_edge_parts(dataset, axis, before, length))


class StoredChunks:
    """The bytes of the chunks before a place on an axis, joined in C order."""

    def __init__(self, dataset: h5py.Dataset, axis: int, before: int) -> None:
        table, ndim = chunk_table(dataset), dataset.ndim
        table = table[table[:, axis] < before]
        table = table[np.lexsort(table[:, ndim - 1 :: -1].T)] if len(table) else table
        self._dataset, self._corners = dataset, table[:, :ndim]
        self._places, self._sizes = table[:, -2], table[:, -1]
        self._ends = np.cumsum(self._sizes)
        #: How many bytes there are.
        self.size = int(self._sizes.sum())
        #: Which chunks these are; their place in the file does not count.
        self.description = np.delete(table, -2, axis=1).astype("<i8")
        self._fd = -1
        if dataset.file.driver == "sec2":
            fd = dataset.file.id.get_vfd_handle()
            self._fd = fd if disk.is_read_only(fd) else -1

    def read(self, start: int, out: Array) -> None:
        """Fill an array of bytes with those from `start` on."""
        view, stop = out.data, start + len(out)
        number = int(np.searchsorted(self._ends, start, "right"))
        while start < stop:
            end = int(self._ends[number])
            begin = int(self._ends[number - 1]) if number else 0
            count = min(stop, end) - start
            self._read_of(number, start - begin, view[:count])
            view, start, number = view[count:], start + count, number + 1

    def ends(self) -> bytes:
        """Return the last bytes of up to 64 chunks."""
        count = len(self._ends)
        last = bytearray()
        for number in np.linspace(0, count - 1, min(count, SAMPLES)).astype(np.int64):
            part = np.empty(min(_END_BYTES, int(self._sizes[number])), np.uint8)
            self.read(int(self._ends[number]) - len(part), part)
            last += part.tobytes()
        return bytes(last)

    def _read_of(self, number: int, skipped: int, view: memoryview) -> None:
        """Read a part of a chunk."""
        if self._fd < 0:
            corner = tuple(self._corners[number].tolist())
            stored = self._dataset.id.read_direct_chunk(corner)[1]
            view[:] = stored[skipped : skipped + len(view)]
        elif not disk.read_into(self._fd, view, int(self._places[number]) + skipped):
            msg = "the file ends before its chunks do"
            raise OSError(msg)


def _edge_parts(
    dataset: h5py.Dataset, axis: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield the values that lie between two places on an axis, or samples of them."""
    box = [slice(0, n) for n in dataset.shape]
    box[axis] = slice(start, stop)
    shape = [part.stop - part.start for part in box]
    if math.prod(shape) * dataset.dtype.itemsize <= DIGEST_BYTES:
        yield read_values(dataset, tuple(box), clean=True)
        return
    counts = [*map(_ceil_div, shape, dataset.chunks)]
    total = math.prod(counts)
    for index in np.linspace(0, total - 1, min(total, SAMPLES)).astype(np.int64):
        corner = [
            int(i) * c
            for i, c in zip(
                np.unravel_index(index, counts), dataset.chunks, strict=True
            )
        ]
        corner[axis] = start
        inside = tuple(
            slice(first, min(first + chunk, part.stop))
            for first, chunk, part in zip(corner, dataset.chunks, box, strict=True)
        )
        yield read_values(dataset, inside, clean=True)
