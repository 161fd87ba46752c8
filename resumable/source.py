"""Where the data of the positions come from, read only.

A :class:`SourceRef` says where, and can be pickled; :mod:`resumable.reader` reads.
Source files are opened with mode ``"r"``, always.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import RunBusy, SourceError, TargetError, near_miss
from resumable.journal import mend, needs_mending

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class SourceRef:
    """Where a source is and which of its axes count positions."""

    path: str
    """HDF5 file as the user typed it; empty for a source without data."""
    dataset: str
    """Absolute name in the file; empty for a source without data."""
    position_axes: tuple[int, ...]
    """Axes that count positions, in the user's order."""
    count: int = 0
    """Positions of a source without data."""
    upstream: str = ""
    """Identity of the run this is an output of, or empty."""

    @property
    def name(self) -> str:
        """Last part of the dataset's name, for file and group names."""
        return self.dataset.rsplit("/", 1)[-1] or "positions"

    def __str__(self) -> str:
        return (
            f"{self.path}::{self.dataset}" if self.path else f"{self.count} positions"
        )


def refer(
    source: Any, position_axes: int | tuple[int, ...] = 0, *, same_file: str = ""
) -> SourceRef:
    """Turn what a user calls a source into a reference, checking that it is there.

    Parameters
    ----------
    source : str, h5py.Dataset, output of Results, or int
        ``"file.h5::/dataset"``; an open dataset (mode ``"r"``); an output of
        another run; a number of positions without data.
    position_axes : int or tuple of int
        Axes that count positions.
    same_file : str, optional
        The file ``"::/dataset"`` means.

    Raises
    ------
    SourceError
        It does not exist, is not HDF5, is open for writing, has no positions, or
        its dtype has no fixed size.
    """
    axes = (
        (position_axes,)
        if isinstance(position_axes, (int, np.integer))
        else position_axes
    )
    if isinstance(source, (int, np.integer)) and not isinstance(source, bool):
        if source < 1:
            msg = f"a source without data needs at least 1 position, not {source}"
            raise SourceError(msg)
        if axes != (0,):
            msg = "a source without data has one axis; leave position_axes at 0"
            raise SourceError(msg)
        return SourceRef("", "", (0,), count=int(source))
    upstream = ""
    if isinstance(source, h5py.Dataset):
        path, dataset = _of_open_dataset(source)
    elif hasattr(source, "as_source"):
        path, dataset, upstream = source.as_source()
    elif isinstance(source, (str, Path)):
        path, dataset = _of_text(str(source), same_file)
    else:
        msg = (
            f"a source is 'file.h5::/dataset', an open h5py.Dataset, an output of "
            f"Results, or a number of positions, not a {type(source).__name__}"
        )
        raise SourceError(msg)
    with open_file(path) as file:
        found = find_dataset(file, path, dataset)
        check_usable(found, path)
        normal = _normal_axes(axes, found.shape, f"{path}::{dataset}")
        # The name as typed: behind a link to another file it would be a name there.
        return SourceRef(path, dataset, normal, upstream=upstream)


def _of_open_dataset(dataset: h5py.Dataset) -> tuple[str, str]:
    if not dataset:
        msg = "the dataset's file is closed; give 'file.h5::/dataset' instead"
        raise SourceError(msg)
    if dataset.file.mode != "r":
        msg = (
            f"{dataset.file.filename} is open for writing; reopen it with mode 'r' "
            "(results go into a file of their own)"
        )
        raise SourceError(msg)
    if dataset.name is None:
        msg = "the dataset has no name in its file; give 'file.h5::/dataset' instead"
        raise SourceError(msg)
    return dataset.file.filename, dataset.name


def _of_text(text: str, same_file: str) -> tuple[str, str]:
    path, separator, dataset = text.rpartition("::")
    if not separator:
        path, dataset = text, ""
    path = path or same_file
    if not path:
        msg = f"{text!r} names no file; write 'file.h5::/dataset'"
        raise SourceError(msg)
    if not dataset.strip("/"):
        names = ", ".join(_names(path)[:5]) if Path(path).exists() else ""
        msg = f"{text!r} names no dataset; write '{path}::/dataset'"
        raise SourceError(f"{msg} (there are {names})" if names else msg)
    return path, "/" + dataset.strip("/")


def _names(path: str) -> list[str]:
    """Names of the datasets in a file, at most the first thousand."""
    names: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(f"/{name}")
        return True if len(names) >= 1000 else None

    with open_file(path) as file:
        file.visititems(visit)
    return names


def open_file(path: str) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises
    ------
    SourceError
        It is missing, is not HDF5, or somebody has it open for writing.
    """
    where = Path(path)
    if not where.exists():
        near = [p.name for p in where.parent.iterdir()] if where.parent.is_dir() else []
        msg = f"there is no file {path}" + near_miss(where.name, near)
        raise SourceError(msg)
    _mend(path)
    try:
        # No chunk cache: blocks are read once, and an uncompressed chunk that is
        # not cached is read only as far as it is needed.
        return h5py.File(path, "r", rdcc_nbytes=0)
    except BlockingIOError as error:
        msg = f"{path} is open for writing in another program; close it there first"
        raise SourceError(msg) from error
    except OSError as error:
        kind = "is a folder" if where.is_dir() else "cannot be read as HDF5"
        msg = f"{path} {kind} ({error})"
        raise SourceError(msg) from error


def _mend(path: str) -> None:
    """Finish or undo a publishing into this file that was killed.

    A file with a journal can be torn: it is mended, which is what the user had asked
    for when it was killed, or it is not opened.
    """
    if needs_mending(path):
        try:
            mend(path)
        except (RunBusy, TargetError) as error:
            msg = (
                f"results are being published into {path}, or were when that was "
                f"killed: {error}. 'resumable repair {path}' mends the file"
            )
            raise SourceError(msg) from error


def find_dataset(file: h5py.File, path: str, name: str) -> h5py.Dataset:
    """Return a dataset of an open file, or an error that names the nearest."""
    try:
        found = file[name]
    except (KeyError, ValueError) as error:
        names = _names(path)
        hint = near_miss(name, names) or (
            f"; it has {', '.join(names[:5])}" if names else "; it has no datasets"
        )
        msg = f"{path} has no dataset {name}{hint}"
        raise SourceError(msg) from error
    if not isinstance(found, h5py.Dataset):
        inside = [n for n in _names(path) if n.startswith(name.rstrip("/") + "/")]
        hint = f"; inside it are {', '.join(inside[:5])}" if inside else ""
        msg = f"{path}::{name} is a {type(found).__name__.lower()}, not a dataset{hint}"
        raise SourceError(msg)
    return found


def check_usable(dataset: h5py.Dataset, path: str) -> None:
    """Refuse what cannot be read position by position, before anything is read."""
    where = f"{path}::{dataset.name}"
    if not dataset.shape:
        msg = f"{where} is a single value; a source needs an axis that counts positions"
        raise SourceError(msg)
    if 0 in dataset.shape:
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
    if dataset.is_virtual:
        _check_parts(dataset, Path(path).parent, where)
    _load_filters(dataset, where)


def _check_parts(dataset: h5py.Dataset, folder: Path, where: str) -> None:
    """Check that the parts of a virtual dataset are there.

    HDF5 shows fill values where one is missing: wrong, and silently.
    """
    parts = collections.defaultdict(set)
    for part in dataset.virtual_sources():
        # A pattern stands for files that may come later.
        if "%" not in part.file_name + part.dset_name:
            parts[part.file_name].add(part.dset_name)
    for name, datasets in parts.items():
        lying = folder / name
        missing: Any = lying
        if name == ".":
            missing = [d for d in datasets if d not in dataset.file]
        elif lying.exists():
            _mend(str(lying))
            with h5py.File(lying, "r") as file:
                missing = [f"{lying}::{d}" for d in datasets if d not in file]
        if missing:
            first = missing[0] if isinstance(missing, list) else missing
            msg = f"{where} is virtual and its part {first} is missing"
            raise SourceError(msg)


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


def _normal_axes(axes: Any, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    try:
        plain = tuple(operator.index(axis) for axis in axes)
    except (TypeError, ValueError) as error:
        msg = f"position_axes must be a whole number or a tuple of them, not {axes!r}"
        raise SourceError(msg) from error
    ndim = len(shape)
    if not plain or any(not -ndim <= axis < ndim for axis in plain):
        msg = f"position_axes={plain} do not exist in {where} of shape {shape}"
        raise SourceError(msg)
    normal = tuple(axis % ndim for axis in plain)
    if len(set(normal)) < len(normal):
        msg = f"position_axes={plain} names an axis twice"
        raise SourceError(msg)
    return normal
