"""Whether a dataset can be read position by position; checked before it is read."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import operator
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import SourceError
from resumable.model import MOST_POSITIONS, format_bytes
from resumable.source.opening import (
    MOST_STEPS,
    check_links,
    find_dataset,
    lying_at,
    names_of,
    open_file,
    readable,
)
from resumable.system import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.model import Geometry
    from resumable.source.reference import SourceRef

#: Compounds within each other, and bytes of one element, that a source may have.
_DEEPEST_TYPE = 32
_LARGEST_ELEMENT = 16 << 20
#: So many positions, and bytes of a chunk, fit into the memory of any machine.
_ALWAYS_FITS = 1 << 24


def check_usable(dataset: h5py.Dataset, path: str) -> None:
    """Check, before a dataset is read, that it can be read position by position.

    SourceError where it has no axis or no positions, elements of variable or of too
    large a size, or where a filter, a file or a part is missing.
    """
    where = f"{path}::{dataset.name}"
    with readable(where):
        # First: HDF5 may open the parts of a virtual dataset to find its shape.
        check_storage(dataset, path, where)
        problem = _problem_of(dataset)
    if problem:
        msg = f"{where} {problem}"
        raise SourceError(msg)


def _problem_of(dataset: h5py.Dataset) -> str:
    """Return why a dataset cannot be read; load hdf5plugin where it is needed."""
    dtype, shape = dataset.dtype, dataset.shape
    if not shape:
        return "is a single value; a source needs an axis that counts positions"
    if any(n == most == 0 for n, most in zip(shape, dataset.maxshape, strict=True)):
        return f"has the shape {shape}: there is nothing to compute"
    if dtype.hasobject:
        kind = "text" if h5py.check_string_dtype(dtype) else dtype
        return (
            f"has entries of variable length ({kind}); only data of a fixed size can "
            "be computed position by position"
        )
    if dtype.subdtype is not None:
        return f"has arrays as entries ({dtype}); store them along an axis of their own"
    if dtype.itemsize > _LARGEST_ELEMENT:
        return (
            f"has elements of {dtype.itemsize:,} bytes, more than {_LARGEST_ELEMENT:,}"
        )
    if not _is_shallow(dtype, _DEEPEST_TYPE):
        return f"has compounds within each other more than {_DEEPEST_TYPE} deep"
    properties = dataset.id.get_create_plist()
    codes = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    missing = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if missing:
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")
        missing = [code for code in missing if not h5py.h5z.filter_avail(code)]
    if missing:
        return (
            f"is compressed with HDF5 filter {missing[0]}, which is not "
            "installed; pip install hdf5plugin (or resumable-hdf5[filters])"
        )
    return ""


def _is_shallow(dtype: np.dtype[Any], levels: int) -> bool:
    names = dtype.base.names or ()
    return bool(levels) and all(_is_shallow(dtype.base[n], levels - 1) for n in names)


def check_storage(
    dataset: h5py.Dataset, path: str, where: str, way: tuple[Any, ...] = ()
) -> None:
    """Check that the other files that hold a dataset's data exist and are files.

    Where a part of a virtual dataset is missing, HDF5 reads fill values, without an
    error. It waits for ever for a pipe, and a virtual dataset that contains itself
    crashes the process. All that is a SourceError here.
    """
    folder = Path(path).parent
    for name, _, _ in dataset.external or ():
        lying = lying_at(name, folder)
        if not lying or not all(place.is_file() for place in lying):
            kind = "is not a regular file" if lying else "is missing"
            msg = f"{where} has its data in {name}, which {kind}"
            raise SourceError(msg)
    if not dataset.is_virtual:
        return
    place = (os.path.realpath(path), h5py.h5o.get_info(dataset.id).addr)
    if place in way or len(way) == MOST_STEPS:
        msg = f"{where} is virtual and is a part of itself; HDF5 cannot read it"
        raise SourceError(msg)
    parts = {(part.file_name, part.dset_name) for part in dataset.virtual_sources()}
    for file_name, group in itertools.groupby(sorted(parts), operator.itemgetter(0)):
        names = [name for _, name in group]
        for other in _files_of_part(file_name, path, where):
            with open_file(str(other)) as file:
                for name in _datasets_of_part(file, names, f"{other}", where):
                    inner = find_dataset(file, str(other), name)
                    check_storage(inner, str(other), where, (*way, place))


def _files_of_part(name: str, path: str, where: str) -> list[Path]:
    """Return the files that a part of a virtual dataset names."""
    if name == ".":
        return [Path(path)]
    folder = Path(path).parent
    if "%" in name:
        # A pattern with numbers in it; more such files may be written later.
        pattern = _numbered(str(folder / name))
        places = (folder / name).parent
        near = sorted(places.iterdir()) if places.is_dir() else []
        return [other for other in near if pattern.fullmatch(str(other))]
    lying = folder / name
    if not lying.exists():
        msg = f"{where} is virtual and its part {lying} is missing"
        raise SourceError(msg)
    return [lying]


def _numbered(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a name with HDF5's ``%b`` for numbers."""
    return re.compile(re.escape(pattern).replace("%b", r"\d+").replace("%%", "%"))


def _datasets_of_part(
    file: h5py.File, names: list[str], path: str, where: str
) -> Iterator[str]:
    """Yield the names of datasets in a file that parts of a virtual dataset name."""
    for name in names:
        if "%" in name:
            pattern = _numbered(f"/{name.strip('/')}")
            yield from filter(pattern.fullmatch, names_of(file))
        else:
            check_links(file, path, name)
            if name not in file:
                msg = f"{where} is virtual and its part {path}::{name} is missing"
                raise SourceError(msg)
            yield name


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
