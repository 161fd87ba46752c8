"""HDF5 files of others, opened for reading only, and never waiting for a pipe.

They are checked before they are read. But for one that a killed ``publish`` has left
half changed: that is mended first.
"""

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

from resumable.errors import (
    RunBusy,
    SourceError,
    TargetError,
    hdf5_errors_as,
    near_miss,
    shortened,
)
from resumable.model import MOST_POSITIONS, format_bytes
from resumable.runfile import mend_user_file, user_file_needs_mending
from resumable.source.live import file_state
from resumable.system import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.model import Geometry
    from resumable.source.reference import SourceRef

#: Links, or virtual datasets within each other, that are followed to a dataset:
#: beyond a cycle HDF5 ends with the whole process.
_MOST_STEPS = 16
#: Compounds within each other, and bytes of one element, that a source may have.
_DEEPEST_TYPE = 32
_LARGEST_ELEMENT = 16 << 20
#: So many positions, and bytes of a chunk, fit into the memory of any machine.
_ALWAYS_FITS = 1 << 24


def open_file(path: str, *, live: bool = False) -> h5py.File:
    """Open an HDF5 file for reading; `live` without a lock, which would stop a writer.

    SourceError where it is missing, not HDF5, or open for writing in another program.
    """
    where = Path(path)
    if not where.exists():
        near = [p.name for p in where.parent.iterdir()] if where.parent.is_dir() else []
        msg = f"there is no file {path}" + near_miss(where.name, near)
        raise SourceError(msg)
    if not where.is_file():
        # To open a pipe waits for ever, and a device has no end.
        kind = "is a folder" if where.is_dir() else "is not a regular file"
        msg = f"{path} {kind}; a source is an HDF5 file"
        raise SourceError(msg)
    if user_file_needs_mending(path):
        # Results were being published into it when that was killed, and it may be
        # written in part only. To finish or undo what its journal says is what the
        # user had asked for.
        try:
            mend_user_file(path)
        except (RunBusy, TargetError) as error:
            msg = (
                f"results are being published into {path}, or were when that was "
                f"killed: {error}. 'resumable repair {path}' mends the file"
            )
            raise SourceError(msg) from error
    # No chunk cache: blocks are read once, and an uncompressed chunk that is not
    # cached is read only as far as it is needed.
    options: dict[str, Any] = {"rdcc_nbytes": 0}
    if live:
        options["locking"] = False
    try:
        try:
            return h5py.File(path, "r", **options)
        except OSError as error:
            if file_state(path).swmr:
                options.update(swmr=True, libver="latest", locking=False)
            elif "locking flag" not in str(error):
                raise
            # It is open in this process already, with a lock or without: HDF5 takes
            # no other choice.
            elif options.pop("locking", None) is None:
                options["locking"] = False
            return h5py.File(path, "r", **options)
    except BlockingIOError as error:
        msg = (
            f"{path} is open for writing, in another program or in this one; close it "
            "there first, or follow what is written with follow="
        )
        raise SourceError(msg) from error
    except OSError as error:
        if "already open for write" in str(error):
            msg = (
                f"{path} is open for writing, in another program or in this one, or a "
                "program that wrote it was killed and has left its mark: then run "
                f"h5clear -s {path}, which is a part of HDF5"
            )
            raise SourceError(msg) from error
        msg = f"{path} cannot be read as HDF5 ({error})"
        raise SourceError(msg) from error


def find_dataset(file: h5py.File, path: str, name: str) -> h5py.Dataset:
    """Return a dataset of an open file, or an error that names the nearest."""
    with hdf5_errors_as(SourceError, f"{path}::{name} cannot be read"):
        check_links(file, path, name)
    try:
        found = file[name]
    except (KeyError, ValueError, RuntimeError) as error:
        names = names_of(file)
        hint = near_miss(name, names) or (
            f"; it has {listed(names)}" if names else "; it has no datasets"
        )
        msg = f"{path} has no dataset {name}{hint}"
        raise SourceError(msg) from error
    if not isinstance(found, h5py.Dataset):
        inside = [n for n in names_of(file) if n.startswith(name.rstrip("/") + "/")]
        hint = f"; inside it are {listed(inside)}" if inside else ""
        msg = f"{path}::{name} is a {type(found).__name__.lower()}, not a dataset{hint}"
        raise SourceError(msg)
    return found


def names_of(file: h5py.File) -> list[str]:
    """Return the names of the datasets in a file, at most the first thousand."""
    names: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(f"/{name}")
        return True if len(names) >= 1000 else None

    file.visititems(visit)
    return names


def listed(names: list[str]) -> str:
    """Name the first five, each shortened."""
    return ", ".join(shortened(name, 80) for name in names[:5])


def check_links(
    file: h5py.File, path: str, name: str, steps: int = _MOST_STEPS
) -> None:
    """Check that HDF5 can follow the links to a dataset.

    HDF5 opens whatever an external link names, and waits for ever for a pipe.
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
            # Its path is relative to the group that holds the link.
            here = "" if link.path.startswith("/") else "/".join(parts[:number])
            check_links(file, path, f"{here}/{link.path}/{rest}", steps - 1)
            return
        if isinstance(link, h5py.ExternalLink):
            for other in lying_at(link.filename, Path(path).parent)[:1]:
                with open_file(str(other)) as linked:
                    inside = f"{link.path}/{rest}"
                    check_links(linked, str(other), inside, steps - 1)
            return
        group = group[part]


def lying_at(name: str, folder: Path) -> list[Path]:
    """Return what exists where HDF5 looks for a file that another file names."""
    places = [
        folder / name,
        Path(name),
        folder / Path(name).name,
        Path(Path(name).name),
    ]
    return [place for place in dict.fromkeys(places) if place.exists()]


@contextlib.contextmanager
def open_dataset(
    path: str, name: str, *, live: bool = False, whole: bool = False
) -> Iterator[h5py.Dataset]:
    """Open a dataset that can be read position by position; close its file after.

    SourceError where it has no axis or no positions, elements of variable or of too
    large a size, or where a filter, a file or a part is missing; hdf5plugin is loaded
    where a filter needs it. What is read as a `whole` may be a single value or text.
    """
    with open_file(path, live=live) as file:
        dataset = find_dataset(file, path, name)
        where = f"{path}::{dataset.name}"
        with hdf5_errors_as(SourceError, f"{where} cannot be read"):
            # First: HDF5 may open the parts of a virtual dataset to find its shape.
            check_storage(dataset, path, where)
            problem = _problem_of(dataset, whole=whole)
        if problem:
            msg = f"{where} {problem}"
            raise SourceError(msg)
        yield dataset


def _problem_of(dataset: h5py.Dataset, *, whole: bool) -> str:
    """Return why a dataset cannot be read; load hdf5plugin where it is needed."""
    dtype, shape = dataset.dtype, dataset.shape
    if shape is None or (not shape and not whole):
        return "is a single value; a source needs an axis that counts positions"
    if not whole and any(
        n == most == 0 for n, most in zip(shape, dataset.maxshape, strict=True)
    ):
        return f"has the shape {shape}: there is nothing to compute"
    if dtype.hasobject and not (whole and h5py.check_string_dtype(dtype)):
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
    inside = [dtype]
    for _ in range(_DEEPEST_TYPE):
        inside = [t.base[name] for t in inside for name in t.base.names or ()]
    if inside:
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
