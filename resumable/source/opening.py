"""A dataset that can be read position by position, found by its name and opened."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import h5py

from resumable.errors import SourceError, hdf5_errors_as
from resumable.model import MOST_POSITIONS, format_bytes
from resumable.source.files import LIVE_LOCKS, LOCKS, OtherLocks, open_file
from resumable.source.listing import listing_of, problem_of
from resumable.source.places import (
    BrokenLink,
    Column,
    NotThere,
    Place,
    check_storage,
    lead,
)
from resumable.system import disk, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resumable.model import Geometry
    from resumable.source.reference import SourceRef

#: So many positions, and bytes of a chunk, fit into the memory of any machine.
_ALWAYS_FITS = 1 << 24


@contextlib.contextmanager
def open_dataset(
    path: str, name: str, *, live: bool = False, whole: bool = False
) -> Iterator[Any]:
    """Open a dataset that can be read position by position; close its file after.

    Yields a dataset, or a :class:`Column` of a table. SourceError where it has no axis
    or no positions, elements of variable or of too large a size, or where a filter, a
    file or a part is missing; hdf5plugin is loaded where a filter needs it. `live`:
    without locks. What is read as a `whole` may be a single value or text.
    """
    locks = LIVE_LOCKS if live else LOCKS
    with contextlib.ExitStack() as stack:
        # HDF5 opens parts of a virtual dataset with the locks of the first file, and
        # this process may have a part open with others.
        for number in range(len(locks)):
            order = (*locks[number:], *locks[:number])
            try:
                with contextlib.ExitStack() as opened:
                    dataset = _checked_dataset(opened, path, name, order, whole=whole)
                    stack.push(opened.pop_all())
                    break
            except OtherLocks:
                if number == len(locks) - 1:
                    raise
        yield dataset


def _checked_dataset(
    stack: contextlib.ExitStack,
    path: str,
    name: str,
    locks: Sequence[Any],
    *,
    whole: bool,
) -> Any:
    file = stack.enter_context(open_file(path, locks))
    where = f"{path}::{name}"
    with hdf5_errors_as(SourceError, f"{where} cannot be read"):
        top = Place(file["/"], path, "")
        try:
            place = lead(stack, top, name, locks)
        except NotThere as error:
            there = error.place
            root = there._replace(item=there.item.file["/"], name="")
            listing = listing_of(root, near=there)
            broken = isinstance(error, BrokenLink)
            wanted, what = (error.name, there.path) if broken else (name, "it")
            msg = listing.added_to(str(error), wanted, what)
            raise SourceError(msg) from error
        if isinstance(place.item, h5py.Group):
            msg = f"{where} is a group, not a dataset"
            raise SourceError(listing_of(place, name).added_to(msg))
        if not isinstance(place.item, (h5py.Dataset, Column)):
            msg = f"{where} is a datatype, not a dataset"
            raise SourceError(msg)
        # First: HDF5 may open the parts of a virtual dataset to find its shape.
        files = check_storage(place.item, place.path, where)
        problem = problem_of(place.item, whole=whole)
    if problem:
        msg = f"{where} {problem}"
        raise SourceError(msg)
    try:
        # Where a part cannot be opened HDF5 reads fill values, without an error.
        stack.enter_context(disk.room_for_files(len(files)))
    except OSError as error:
        msg = f"{where} is virtual, of parts in {len(files):,} files: {error}"
        raise SourceError(msg) from error
    return place.item


def check_size(
    geometry: Geometry, ref: SourceRef, dataset: h5py.Dataset | None
) -> None:
    """Check that there are positions, and that memory can hold what they need.

    SourceError where there are none, more than can be kept track of, or compressed
    chunks larger than the memory. `dataset` is None where positions are only counted.
    """
    size = geometry.size
    empty = 0 in geometry.spectrum_shape or 0 in geometry.map_shape[1:]
    if empty or not (size or ref.live):
        of_shape = "" if dataset is None else f" of shape {dataset.shape}"
        msg = f"{ref}{of_shape} is empty: there is nothing to compute"
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
