"""Whether a dataset can be read position by position; told before anything is read."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import operator
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import SourceError
from resumable.source.opening import (
    MOST_STEPS,
    check_links,
    find_dataset,
    lying_at,
    names_of,
    open_file,
    readable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Compounds within each other, and bytes of one element, that a source may have.
_DEEPEST_TYPE = 32
_LARGEST_ELEMENT = 16 << 20


def check_usable(dataset: h5py.Dataset, path: str) -> None:
    """Refuse what cannot be read position by position, before anything is read.

    Raises
    ------
    SourceError
        What it is, or what is missing.
    """
    where = f"{path}::{dataset.name}"
    with readable(where):
        # First: to tell the shape of a virtual dataset, HDF5 may open its parts.
        check_storage(dataset, path, where)
        _check_shape_and_type(dataset, where)
        _load_filters(dataset, where)


def _check_shape_and_type(dataset: h5py.Dataset, where: str) -> None:
    if not dataset.shape:
        msg = f"{where} is a single value; a source needs an axis that counts positions"
        raise SourceError(msg)
    if any(
        not length and not most
        for length, most in zip(dataset.shape, _most(dataset), strict=True)
    ):
        msg = f"{where} has the shape {dataset.shape}: there is nothing to compute"
        raise SourceError(msg)
    if dataset.dtype.hasobject:
        msg = (
            f"{where} has entries of variable length ({_type_name(dataset)}); only "
            "data of a fixed size can be computed position by position"
        )
        raise SourceError(msg)
    if dataset.dtype.subdtype is not None:
        msg = (
            f"{where} has arrays as entries ({dataset.dtype}); store them along an "
            "axis of their own"
        )
        raise SourceError(msg)
    if dataset.dtype.itemsize > _LARGEST_ELEMENT:
        msg = (
            f"{where} has elements of {dataset.dtype.itemsize:,} bytes, more than "
            f"{_LARGEST_ELEMENT:,}"
        )
        raise SourceError(msg)
    if not _is_shallow(dataset.dtype, _DEEPEST_TYPE):
        msg = f"{where} has compounds within each other more than {_DEEPEST_TYPE} deep"
        raise SourceError(msg)


def _most(dataset: h5py.Dataset) -> tuple[float, ...]:
    """Return the lengths that the axes can have."""
    return tuple(np.inf if most is None else most for most in dataset.maxshape)


def _is_shallow(dtype: np.dtype[Any], levels: int) -> bool:
    names = dtype.base.names or ()
    return bool(levels) and all(_is_shallow(dtype.base[n], levels - 1) for n in names)


def check_storage(
    dataset: h5py.Dataset, path: str, where: str, way: tuple[Any, ...] = ()
) -> None:
    """Check that the other files that hold a dataset's data are there, and files.

    HDF5 shows fill values where a part of a virtual dataset is missing: wrong, and
    silently. It waits for ever for a pipe, and a virtual dataset that contains
    itself ends the whole process.

    Raises
    ------
    SourceError
        What is missing, or no file, or goes round in a circle.
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
        # A pattern of numbers: it stands for files that may come later as well.
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
    """Return what matches the names that a pattern of HDF5 stands for."""
    return re.compile(re.escape(pattern).replace("%b", r"\d+").replace("%%", "%"))


def _datasets_of_part(
    file: h5py.File, names: list[str], path: str, where: str
) -> Iterator[str]:
    """Go through the datasets that parts of a virtual dataset name in a file."""
    for name in names:
        if "%" in name:
            pattern = _numbered(f"/{name.strip('/')}")
            yield from filter(pattern.fullmatch, names_of(path))
        else:
            check_links(file, path, name)
            if name not in file:
                msg = f"{where} is virtual and its part {path}::{name} is missing"
                raise SourceError(msg)
            yield name


def _type_name(dataset: h5py.Dataset) -> str:
    return "text" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)


def _load_filters(dataset: h5py.Dataset, where: str) -> None:
    """Make the dataset's compression readable, with hdf5plugin where needed."""
    properties = dataset.id.get_create_plist()
    codes = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    missing = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if missing:
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")
        missing = [code for code in missing if not h5py.h5z.filter_avail(code)]
    if missing:
        msg = (
            f"{where} is compressed with HDF5 filter {missing[0]}, which is not "
            "installed; pip install hdf5plugin (or resumable-hdf5[filters])"
        )
        raise SourceError(msg)
