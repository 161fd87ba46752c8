"""Where the data of the positions come from, read only.

A :class:`SourceRef` says where, and can be pickled; :mod:`resumable.reader` reads.
Source files are opened with mode ``"r"``, always.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import operator
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import RunBusy, SourceError, TargetError, near_miss
from resumable.journal import mend, needs_mending
from resumable.live import glance, sign_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    Array = np.ndarray[Any, np.dtype[Any]]

#: Links, or virtual datasets within each other, that are followed to a dataset:
#: beyond a cycle HDF5 ends with the whole process.
_MOST_STEPS = 16
#: Compounds within each other, and bytes of one element, that a source may have.
_DEEPEST_TYPE = 32
_LARGEST_ELEMENT = 16 << 20


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
    live: bool = False
    """It may be written while it is read: no locks, and nothing is taken on trust."""
    length: int = 0
    """Positions that count of the first position axis; 0: all there are."""
    ragged: bool = False
    """It is a ragged output of that run."""
    grows: bool = False
    """That run is of a source that can grow, and can get longer with it."""

    @property
    def name(self) -> str:
        """Last part of the dataset's name, for file and group names."""
        return self.dataset.rsplit("/", 1)[-1] or "positions"

    def __str__(self) -> str:
        return (
            f"{self.path}::{self.dataset}" if self.path else f"{self.count} positions"
        )


def refer(
    source: Any,
    position_axes: int | tuple[int, ...] = 0,
    *,
    same_file: str = "",
    live: bool = False,
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
    live : bool
        Look without a lock, and also while it is written.

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
        own = getattr(source, "position_axes", ())
        if own:
            ref = SourceRef(path, dataset, own, 0, upstream, ragged=True)
            return _of_ragged(ref, axes)
    elif isinstance(source, (str, Path)):
        path, dataset = _of_text(str(source), same_file)
    else:
        msg = (
            f"a source is 'file.h5::/dataset', an open h5py.Dataset, an output of "
            f"Results, or a number of positions, not a {type(source).__name__}"
        )
        raise SourceError(msg)

    def normal_axes() -> tuple[int, ...]:
        with open_dataset(path, dataset, live=live) as found:
            return _normal_axes(axes, found.shape, f"{path}::{dataset}")

    normal = glance(path, normal_axes) if live else normal_axes()
    # The name as typed: behind a link to another file it would be a name there.
    return SourceRef(path, dataset, normal, upstream=upstream)


def _of_open_dataset(dataset: h5py.Dataset) -> tuple[str, str]:
    if not dataset:
        msg = "the dataset's file is closed; give 'file.h5::/dataset' instead"
        raise SourceError(msg)
    if dataset.file.driver == "mpio":
        msg = (
            f"{dataset.file.filename} is open with the driver 'mpio': close it and "
            f"give '{dataset.file.filename}::{dataset.name}'; every rank then reads "
            "its own part with the ordinary driver"
        )
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


def _of_ragged(ref: SourceRef, axes: Any) -> SourceRef:
    if tuple(axes) != ref.position_axes:
        msg = (
            f"{ref} is ragged: its positions are on axes {ref.position_axes}, not on "
            f"position_axes={tuple(axes)}"
        )
        raise SourceError(msg)
    return ref


def _of_text(text: str, same_file: str) -> tuple[str, str]:
    path, separator, dataset = text.rpartition("::")
    if not separator:
        path, dataset = text, ""
    path = path or same_file
    if not path:
        msg = f"{text!r} names no file; write 'file.h5::/dataset'"
        raise SourceError(msg)
    if not dataset.strip("/"):
        names = _listed(_names(path)) if Path(path).exists() else ""
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


def open_file(path: str, *, live: bool = False) -> h5py.File:
    """Open an HDF5 file for reading.

    Parameters
    ----------
    path : str
    live : bool
        Take no lock, which would stand in the way of a program that writes to it.

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
    if not where.is_file():
        # A pipe would make us wait for ever, a device has no end.
        kind = "is a folder" if where.is_dir() else "is not a regular file"
        msg = f"{path} {kind}; a source is an HDF5 file"
        raise SourceError(msg)
    _mend(path)
    # No chunk cache: blocks are read once, and an uncompressed chunk that is not
    # cached is read only as far as it is needed.
    options: dict[str, Any] = {"rdcc_nbytes": 0}
    if sign_of(path).swmr:
        options.update(swmr=True, libver="latest", locking=False)
    elif live:
        options["locking"] = False
    try:
        try:
            return h5py.File(path, "r", **options)
        except OSError as error:
            if "locking flag" not in str(error):
                raise
            # The user has it open in this process: with her lock, or with none.
            if options.pop("locking", None) is None:
                options["locking"] = False
            return h5py.File(path, "r", **options)
    except BlockingIOError as error:
        msg = (
            f"{path} is open for writing in another program; close it there first, or "
            "follow what is written with wait="
        )
        raise SourceError(msg) from error
    except OSError as error:
        if "already open for write" in str(error):
            msg = (
                f"{path} is open for writing in another program, or that program was "
                f"killed and has left its mark: then run h5clear -s {path}, which is "
                "a part of HDF5"
            )
            raise SourceError(msg) from error
        msg = f"{path} cannot be read as HDF5 ({error})"
        raise SourceError(msg) from error


@contextlib.contextmanager
def open_dataset(path: str, name: str, *, live: bool = False) -> Iterator[h5py.Dataset]:
    """Open a dataset that can be read position by position; close its file after.

    Parameters
    ----------
    path, name : str
        File and dataset.
    live : bool
        Take no lock.

    Raises
    ------
    SourceError
        What is wrong with the file or the dataset.
    """
    with open_file(path, live=live) as file:
        found = find_dataset(file, path, name)
        check_usable(found, path)
        yield found


@contextlib.contextmanager
def understood(where: str) -> Iterator[None]:
    """Turn what h5py raises about a damaged or odd file into an error of ours.

    Raises
    ------
    SourceError
    """
    try:
        yield
    except SourceError:
        raise
    except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        msg = f"{where} cannot be read ({type(error).__name__}: {error})"
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
    with understood(f"{path}::{name}"):
        _check_links(file, path, name)
    try:
        found = file[name]
    except (KeyError, ValueError, RuntimeError) as error:
        names = _names(path)
        hint = near_miss(name, names) or (
            f"; it has {_listed(names)}" if names else "; it has no datasets"
        )
        msg = f"{path} has no dataset {name}{hint}"
        raise SourceError(msg) from error
    if not isinstance(found, h5py.Dataset):
        inside = [n for n in _names(path) if n.startswith(name.rstrip("/") + "/")]
        hint = f"; inside it are {_listed(inside)}" if inside else ""
        msg = f"{path}::{name} is a {type(found).__name__.lower()}, not a dataset{hint}"
        raise SourceError(msg)
    return found


def _listed(names: list[str]) -> str:
    """Name a few, none of them at a length that hides the rest."""
    return ", ".join(n if len(n) <= 80 else f"{n[:77]}..." for n in names[:5])


def _check_links(
    file: h5py.File, path: str, name: str, steps: int = _MOST_STEPS
) -> None:
    """Refuse a way to a dataset that HDF5 would not come back from.

    HDF5 opens whatever an external link names: of a pipe it waits for ever.
    """
    if not steps:
        msg = f"{path} has no dataset {name}: it leads over too many links"
        raise SourceError(msg)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    group: Any = file
    for number, part in enumerate(parts):
        link = isinstance(group, h5py.Group) and group.get(part, getlink=True)
        if not link:
            return
        rest = "/".join(parts[number + 1 :])
        if isinstance(link, h5py.SoftLink):
            # Relative to the group that the link lies in.
            here = "" if link.path.startswith("/") else "/".join(parts[:number])
            _check_links(file, path, f"{here}/{link.path}/{rest}", steps - 1)
            return
        if isinstance(link, h5py.ExternalLink):
            for other in _lying_at(link.filename, Path(path).parent)[:1]:
                with open_file(str(other)) as linked:
                    inside = f"{link.path}/{rest}"
                    _check_links(linked, str(other), inside, steps - 1)
            return
        group = group[part]


def _lying_at(name: str, folder: Path) -> list[Path]:
    """Return what is where HDF5 looks for a file that another one names."""
    places = [
        folder / name,
        Path(name),
        folder / Path(name).name,
        Path(Path(name).name),
    ]
    return [place for place in dict.fromkeys(places) if place.exists()]


def check_usable(dataset: h5py.Dataset, path: str) -> None:
    """Refuse what cannot be read position by position, before anything is read.

    Raises
    ------
    SourceError
        What it is, or what is missing.
    """
    where = f"{path}::{dataset.name}"
    with understood(where):
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
        lying = _lying_at(name, folder)
        if not lying or not all(place.is_file() for place in lying):
            kind = "is not a regular file" if lying else "is missing"
            msg = f"{where} has its data in {name}, which {kind}"
            raise SourceError(msg)
    if not dataset.is_virtual:
        return
    place = (os.path.realpath(path), h5py.h5o.get_info(dataset.id).addr)
    if place in way or len(way) == _MOST_STEPS:
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
            yield from filter(pattern.fullmatch, _names(path))
        else:
            _check_links(file, path, name)
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
