"""How the positions of a source lie in its dataset, measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from resumable.errors import SourceError
from resumable.model import MOST_POSITIONS, Geometry, format_bytes
from resumable.source.fingerprint import is_filtered
from resumable.system import machine

if TYPE_CHECKING:
    import h5py

    from resumable.source.reference import SourceRef

#: Positions, and bytes of a chunk, for which there is memory on any machine.
_ALWAYS_FITS = 1 << 24


def geometry_of(
    dataset: h5py.Dataset | None, shape: tuple[int, ...], axes: tuple[int, ...]
) -> Geometry:
    """Measure a dataset.

    Parameters
    ----------
    dataset : h5py.Dataset or None
        None where positions are only counted.
    shape : tuple of int
        Of the part of it that counts.
    axes : tuple of int
        Those that count positions.
    """
    if dataset is None:
        return Geometry(shape, (), 0, (1,), 0, False, True)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    spectrum_shape = tuple(shape[axis] for axis in others)
    chunks = dataset.chunks
    itemsize = dataset.dtype.itemsize
    chunk_map = tuple(min(chunks[a], shape[a]) if chunks else 1 for a in axes)
    column = math.prod(
        math.ceil(shape[a] / chunks[a]) * chunks[a] if chunks else shape[a]
        for a in others
    )
    return Geometry(
        map_shape=tuple(shape[axis] for axis in axes),
        spectrum_shape=spectrum_shape,
        row_bytes=math.prod(spectrum_shape) * itemsize,
        chunk_map=chunk_map,
        chunk_bytes=column * math.prod(chunk_map) * itemsize,
        indivisible=is_filtered(dataset),
        position_first=axes == tuple(range(len(axes))),
    )


def check_geometry(
    geometry: Geometry, ref: SourceRef, dataset: h5py.Dataset | None
) -> None:
    """Refuse more positions, or larger chunks, than memory can hold.

    Parameters
    ----------
    geometry : Geometry
    ref : SourceRef
        Whose it is.
    dataset : h5py.Dataset or None
        None where positions are only counted.

    Raises
    ------
    SourceError
    """
    size = geometry.size
    empty = 0 in geometry.spectrum_shape or 0 in geometry.map_shape[1:]
    if empty or not (size or ref.live):
        shape = geometry.map_shape if dataset is None else dataset.shape
        msg = f"{ref} has the shape {shape}: there is nothing to compute"
        raise SourceError(msg)
    chunk_bytes = 0
    if dataset is not None and geometry.indivisible:
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if max(size, chunk_bytes) < _ALWAYS_FITS:
        return
    available = machine.available_memory()
    # Of all positions there are a few bitmaps, each of size / 8 bytes.
    most = min(MOST_POSITIONS, 2 * available)
    if size > most:
        msg = (
            f"{ref} has {size:,} positions; this machine can keep track of "
            f"{most:,}. Choose other position_axes, or compute a part of it"
        )
        raise SourceError(msg)
    if 2 * chunk_bytes > available:
        msg = (
            f"{ref} has compressed chunks of {format_bytes(chunk_bytes)}, which HDF5 "
            f"unpacks whole; {format_bytes(available)} of memory are available, twice "
            "that of a chunk is needed: store it in smaller chunks"
        )
        raise SourceError(msg)
