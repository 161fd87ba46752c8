"""A copy of the source in position order, for sources stored across positions.

An energy-first stack has every image in chunks of its own, so reading a few
positions reads, and decompresses, all of it. The copy is made by reading every
chunk once. It is scratch: it lies in the target folder while its run is computed
and is deleted when that is complete.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.model import format_bytes
from resumable.runfile import new_hdf5, target_error
from resumable.source.reference import SourceRef
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from resumable.model import Geometry
    from resumable.source.reader import Reader

logger = logging.getLogger("resumable")

_DATASET = "/data"
#: Size of the copy's own chunks, about.
_CHUNK_BYTES = 1 << 20


def in_position_order(geometry: Geometry) -> Geometry:
    """Return the geometry of the copy."""
    return geometry._replace(
        chunk_map=(1,) * len(geometry.map_shape),
        chunk_bytes=geometry.row_bytes,
        indivisible=False,
        position_first=True,
    )


def is_worth_it(geometry: Geometry, block: int) -> bool:
    """Return whether a copy would make reading blocks of positions cheaper."""
    gathers = not geometry.position_first
    return geometry.row_bytes > 0 and (gathers or geometry.amplification(block) > 1)


def rechunked(reader: Reader, path: Path, memory: int) -> SourceRef:
    """Return a reference to the copy, made if it is not there.

    Parameters
    ----------
    reader : Reader
        The open source.
    path : Path
        Where the copy goes; the caller holds the lock on its name. It is built
        under another name, so a file of this name is whole.
    memory : int
        Bytes of memory to use.

    Raises
    ------
    TargetError
        No room for it; nothing is left.
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
        temporary.unlink(missing_ok=True)
        _copy(reader, temporary, memory)
        disk.link_new(temporary, path)
    except OSError as error:
        raise target_error(path.parent, error, size) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return ref


def _copy(reader: Reader, path: Path, memory: int) -> None:
    source, axes = reader.dataset, reader.ref.position_axes
    others = tuple(a for a in range(source.ndim) if a not in axes)
    order = (*axes, *others)
    # Read, and transposed: two copies of a tile are in memory.
    tile = _tile(source, axes, others, memory // 2)
    shape = tuple(source.shape[a] for a in order)
    chunk = _chunk(tuple(tile[a] for a in order), len(axes), reader.dtype.itemsize)
    _lay_out(path, shape, reader.dtype, chunk)
    with disk.opened(path, os.O_RDWR) as fd:
        # All of it at once: HDF5 does not end well when a disk fills up under it.
        disk.reserve(fd, 0, os.fstat(fd).st_size)
        with h5py.File(path, "r+", rdcc_nbytes=0) as file:
            copy = file[_DATASET]
            for box in _boxes(source.shape, tile):
                part = source[box].transpose(order)
                copy[tuple(box[a] for a in order)] = part
        # A copy is trusted by its name, so it gets none before it is durable.
        disk.sync(fd)


def _lay_out(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunk: tuple[int, ...],
) -> None:
    """Make the file with a place for every chunk, which takes no space yet."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(chunk)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(dtype, logical=True)
    space = h5py.h5s.create_simple(shape)
    with new_hdf5(path) as file:
        h5py.h5d.create(file.id, _DATASET.encode(), kind, space, dcpl=properties)


def _tile(
    source: h5py.Dataset, axes: tuple[int, ...], others: tuple[int, ...], memory: int
) -> tuple[int, ...]:
    """Return the shape of the largest box of whole chunks that fits, at least one.

    It grows along the position axes first: then the pieces of a spectrum that are
    written together are as long as they can be, for as many positions.
    """
    shape = source.shape
    grain = source.chunks or (1,) * len(shape)
    tile = [min(g, n) for g, n in zip(grain, shape, strict=True)]
    for axis in (*reversed(axes), *reversed(others)):
        rest = math.prod(tile) // tile[axis] * source.dtype.itemsize
        most = max(grain[axis], memory // rest // grain[axis] * grain[axis])
        tile[axis] = min(shape[axis], most)
    return tuple(tile)


def _chunk(tile: tuple[int, ...], lead: int, itemsize: int) -> tuple[int, ...]:
    """Cut a tile along its positions into chunks of a good size."""
    chunk = list(tile)
    for axis in range(lead):
        rest = math.prod(chunk) // chunk[axis] * itemsize
        chunk[axis] = max(1, min(chunk[axis], _CHUNK_BYTES // rest))
    return tuple(chunk)


def _boxes(
    shape: tuple[int, ...], tile: tuple[int, ...]
) -> Iterator[tuple[slice, ...]]:
    """Cut a whole array into boxes."""
    starts = (range(0, n, t) for n, t in zip(shape, tile, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(
            slice(a, min(a + t, n)) for a, t, n in zip(corner, tile, shape, strict=True)
        )
