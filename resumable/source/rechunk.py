"""A copy of the source in position order, for sources stored across positions.

In an energy-first stack every image has its own chunks, so reading a few positions
reads, and decompresses, all of the stack. Making the copy reads every chunk once. The
copy lies in the target folder until its run is complete, and is deleted then.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from typing import TYPE_CHECKING

import h5py

from resumable.model import boxes, chunk_shape, format_bytes
from resumable.runfile import new_hdf5, target_errors
from resumable.source.reference import SourceRef
from resumable.system import disk

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.source.reader import Reader

logger = logging.getLogger("resumable")

_DATASET = "/data"
#: Size of the copy's own chunks, about.
_CHUNK_BYTES = 1 << 20


def rechunked(reader: Reader, path: Path, memory: int) -> SourceRef:
    """Return a reference to the copy, made if it is not there.

    The caller holds the lock on the name of the copy. The copy is made under another
    name, with `memory` bytes, so a file called `path` is complete. TargetError where
    there is no room for it; nothing is left of it.
    """
    geometry = reader.geometry
    axes = tuple(range(len(geometry.map_shape)))
    ref = SourceRef(str(path), _DATASET, axes)
    if path.exists():
        return ref
    size = geometry.row_bytes * geometry.size
    logger.info("copying %s into position order: %s", path, format_bytes(size))
    temporary = path.with_name(f".{path.name}.part")
    try:
        with target_errors(path.parent, size):
            temporary.unlink(missing_ok=True)
            _copy(reader, temporary, memory)
            disk.link_new(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return ref


def _copy(reader: Reader, path: Path, memory: int) -> None:
    source, axes = reader.dataset, reader.ref.position_axes
    others = tuple(a for a in range(source.ndim) if a not in axes)
    order = (*axes, *others)
    # A tile is in memory twice: as it was read, and transposed.
    tile = _tile(source, axes, others, memory // 2)
    shape = tuple(source.shape[a] for a in order)
    tile_out = tuple(tile[a] for a in order)
    chunk = chunk_shape(tile_out, reader.dtype.itemsize, _CHUNK_BYTES)
    # An address for every chunk, without taking space yet.
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(chunk)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(reader.dtype, logical=True)
    space = h5py.h5s.create_simple(shape)
    with new_hdf5(path) as file:
        h5py.h5d.create(file.id, _DATASET.encode(), kind, space, dcpl=properties)
    with disk.opened(path, os.O_RDWR) as fd:
        # Reserved at once: HDF5 may crash when the disk fills up while it writes.
        disk.reserve(fd, 0, os.fstat(fd).st_size)
        with h5py.File(path, "r+", rdcc_nbytes=0) as file:
            copy = file[_DATASET]
            for box in boxes(source.shape, tile):
                part = source[box].transpose(order)
                copy[tuple(box[a] for a in order)] = part
        # A file of the final name counts as complete, so its data come first.
        disk.sync(fd)


def _tile(
    source: h5py.Dataset, axes: tuple[int, ...], others: tuple[int, ...], memory: int
) -> tuple[int, ...]:
    """Return the shape of the largest box of whole chunks that fits, at least one.

    It grows along the position axes first, so that as many positions as fit are
    written with the longest pieces of their spectra.
    """
    shape = source.shape
    grain = source.chunks or (1,) * len(shape)
    tile = [min(g, n) for g, n in zip(grain, shape, strict=True)]
    for axis in (*reversed(axes), *reversed(others)):
        rest = math.prod(tile) // tile[axis] * source.dtype.itemsize
        most = max(grain[axis], memory // rest // grain[axis] * grain[axis])
        tile[axis] = min(shape[axis], most)
    return tuple(tile)
