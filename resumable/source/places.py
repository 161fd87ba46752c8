"""Where a name in a file leads to, over links, and where the data of a dataset lie.

HDF5 is not asked to follow links or to open parts before they have been looked at: it
waits for ever for a pipe, and a cycle ends the whole process.
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
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable.errors import SourceError, lacking, near_miss
from resumable.source.files import (
    FOLDERS_OF_LINKS,
    FOLDERS_OF_PARTS,
    FOLDERS_OF_RAW_DATA,
    LOCKS,
    OtherLocks,
    folders_of,
    locks_of,
    lying_at,
    open_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]

#: Links, or virtual datasets within each other, that are followed to a dataset.
_MOST_STEPS = 16


class Place(NamedTuple):
    """An object in a file."""

    item: Any
    """An open group, dataset or type, or a :class:`Column`."""
    path: str
    """The file it lies in."""
    name: str
    """Its name there."""


class NotThere(SourceError):
    """Nothing has a name, or a link leads to nothing."""

    def __init__(self, message: str, place: Place, name: str) -> None:
        super().__init__(message)
        self.place, self.name = place, name


class BrokenLink(NotThere):
    """A link leads to nothing in its file, where it was looked for."""


def lead(
    stack: contextlib.ExitStack,
    place: Place,
    name: str,
    locks: Sequence[Any] = LOCKS,
    steps: int = _MOST_STEPS,
) -> Place:
    """Return what a name leads to, seen from a group; follows links step by step.

    Files of external links are opened on `stack`. NotThere where there is no such
    name, another SourceError where a link cannot be followed.
    """
    if name.startswith("/"):
        place = Place(place.item.file["/"], place.path, "")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for number, part in enumerate(parts):
        item = place.item
        if isinstance(item, h5py.Dataset) and item.dtype.names:
            column = _column_of(item, parts[number:], place)
            return place._replace(item=column)
        there = f"{place.name}/{part}"
        link = _link_of(item, part)
        if link is None:
            msg = f"{place.path} has no dataset {there}"
            raise NotThere(msg, place, there)
        if isinstance(link, h5py.HardLink):
            place = Place(item[_encoded(part)], place.path, there)
        elif not steps:
            msg = f"{place.path} has no dataset {there}: it leads over too many links"
            raise SourceError(msg)
        else:
            place = _end_of_link(stack, place, link, there, locks, steps - 1)
    return place


def names_in(group: h5py.Group) -> list[str]:
    """Return the names in a group; bytes that are no text are kept in them."""
    # h5py gives names that are no text as bytes.
    return [
        name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
        for name in group
    ]


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _link_of(item: Any, name: str) -> Any:
    """Return a link in a group, None where there is none; follows nothing."""
    if not isinstance(item, h5py.Group):
        return None
    links, encoded = item.id.links, _encoded(name)
    if not links.exists(encoded):
        return None
    kind = links.get_info(encoded).type
    if kind == h5py.h5l.TYPE_HARD:
        return h5py.HardLink()
    value = links.get_val(encoded)
    if kind == h5py.h5l.TYPE_SOFT:
        return h5py.SoftLink(value.decode(errors="surrogateescape"))
    if kind == h5py.h5l.TYPE_EXTERNAL:
        return h5py.ExternalLink(*(os.fsdecode(text) for text in value))
    msg = f"the link {name} is of a kind that is not known ({kind})"
    raise SourceError(msg)


def is_hard_link(group: h5py.Group, name: str) -> bool:
    """Return whether a name in a group is that of an object, and not of a link."""
    return isinstance(_link_of(group, name), h5py.HardLink)


def _end_of_link(
    stack: contextlib.ExitStack,
    place: Place,
    link: Any,
    there: str,
    locks: Sequence[Any],
    steps: int,
) -> Place:
    """Return what a soft or an external link leads to."""
    start, target = place, link.path
    if isinstance(link, h5py.ExternalLink):
        target = f"{link.filename}::{link.path}"
        lying = lying_at(link.filename, place.path, FOLDERS_OF_LINKS)
        if not lying:
            missing = Path(place.path).parent / link.filename
            near = [p.name for p in missing.parent.glob("*")]
            msg = (
                f"{place.path}::{there} is a link to {target}, which is missing: there "
                f"is no file {missing}{near_miss(missing.name, near)}"
            )
            raise SourceError(msg)
        other = str(lying[0])
        try:
            file = stack.enter_context(open_file(other, locks))
        except OtherLocks:
            raise
        except SourceError as error:
            msg = f"{place.path}::{there} is a link to {target}: {error}"
            raise SourceError(msg) from error
        start = Place(file["/"], other, "")
    try:
        return lead(stack, start, link.path, locks, steps)
    except BrokenLink:
        raise
    except NotThere as error:
        msg = f"{place.path}::{there} is a link to {target}, which is missing"
        raise BrokenLink(msg, error.place, error.name) from error


class Column:
    """One column of a table, read as if it were a dataset of its own.

    Of a column whose entries are arrays, their axes follow those of the table. All that
    is not defined here is that of the table.
    """

    def __init__(self, table: h5py.Dataset, names: Sequence[str]) -> None:
        self.table, self.names = table, tuple(names)
        entry = table.dtype
        for name in names:
            entry = entry[name]
        self.dtype, inner = entry.base, entry.shape
        self.shape = (*table.shape, *inner)
        self.maxshape = (*table.maxshape, *inner)
        self.chunks = table.chunks and (*table.chunks, *inner)
        self.ndim = len(self.shape)
        # HDF5 reads into a table of this column alone.
        for name in reversed(names):
            entry = np.dtype([(name, entry)])
        self._alone = entry

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)

    def __getitem__(self, selection: tuple[slice, ...]) -> Array:
        axes = len(self.table.shape)
        selection = selection or (slice(None),) * self.ndim
        rows, inner = selection[:axes], selection[axes:]
        lengths = [
            len(range(*part.indices(length)))
            for part, length in zip(rows, self.table.shape, strict=True)
        ]
        found = np.empty(lengths, self._alone)
        self.table.read_direct(found, rows)
        for name in self.names:
            found = found[name]
        return found[(*(slice(None) for _ in rows), *inner)]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, without those of the other columns."""
        return int(math.prod(self.shape) * self.dtype.itemsize)

    def read_direct(self, out: Array, selection: tuple[slice, ...]) -> None:
        """Read a selection into an array of its shape."""
        out[...] = self[selection]


def _column_of(table: h5py.Dataset, names: list[str], place: Place) -> Column:
    entry, found, rest = table.dtype, [], list(names)
    while rest:
        # A column may have slashes in its name.
        starts = ["/".join(rest[:n]) for n in range(len(rest), 0, -1)]
        name = next((name for name in starts if name in (entry.names or ())), None)
        if name is None:
            msg = (
                f"{place.path}::{place.name} is a table without a column "
                f"{'/'.join(names)}; it has {', '.join(table.dtype.names)}"
            )
            raise SourceError(msg)
        entry, rest = entry[name], rest[name.count("/") + 1 :]
        found.append(name)
    return Column(table, found)


# Where the data lie.


def check_storage(
    dataset: Any, path: str, where: str, way: tuple[Any, ...] = ()
) -> set[str]:
    """Check that the files and filters that hold a dataset's data are there.

    Returns the files that HDF5 keeps open when it has read all parts of it.

    Where a part of a virtual dataset is missing, HDF5 reads fill values, without an
    error. It waits for ever for a pipe, and a virtual dataset that contains itself
    crashes the process. All that is a SourceError here. hdf5plugin is loaded where a
    filter needs it, be it that of a part.
    """
    problem = _problem_of_filters(dataset)
    if problem:
        msg = f"{where} {problem}"
        raise lacking(SourceError(msg), "HDF5 filter")
    for name, _, _ in dataset.external or ():
        lying = lying_at(name, path, FOLDERS_OF_RAW_DATA)
        if not lying or not all(place.is_file() for place in lying):
            kind = "is not a regular file" if lying else "is missing"
            msg = f"{where} has its data in {name}, which {kind}"
            raise SourceError(msg)
    if not dataset.is_virtual:
        return set()
    place = (os.path.realpath(path), h5py.h5o.get_info(dataset.id).addr)
    if place in way or len(way) == _MOST_STEPS:
        msg = f"{where} is virtual and is a part of itself; HDF5 cannot read it"
        raise SourceError(msg)
    # HDF5 opens the parts with the same choice of locks as this file.
    locks, files = (locks_of(dataset.file),), set()
    parts = {(part.file_name, part.dset_name) for part in dataset.virtual_sources()}
    for file_name, group in itertools.groupby(sorted(parts), operator.itemgetter(0)):
        names = [name for _, name in group]
        for other in _files_of_part(file_name, path, where):
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(open_file(str(other), locks))
                start = Place(file["/"], str(other), "")
                for name in _datasets_of_part(stack, start, names, locks):
                    try:
                        part = lead(stack, start, name, locks)
                    except OtherLocks:
                        raise
                    except SourceError as error:
                        msg = (
                            f"{where} is virtual and its part {other}::{name} is "
                            f"missing: {error}"
                        )
                        raise SourceError(msg) from error
                    files |= check_storage(part.item, part.path, where, (*way, place))
                    files |= {os.path.realpath(other), os.path.realpath(part.path)}
    return files


def _problem_of_filters(dataset: Any) -> str:
    """Return why the filters of a dataset cannot be used, empty when they can."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    missing = [f for f in filters if not h5py.h5z.filter_avail(f[0])]
    installed = bool(missing) and load_hdf5plugin()
    if installed:
        missing = [f for f in missing if not h5py.h5z.filter_avail(f[0])]
    if not missing:
        return ""
    number, *_, text = missing[0]
    name = text.decode(errors="replace").strip("\0 ")
    what = f"is compressed with HDF5 filter {number}" + (f" ({name})" if name else "")
    if not installed:
        return (
            f"{what}, which is not installed; pip install hdf5plugin (or "
            "resumable-hdf5[filters])"
        )
    return (
        f"{what}, which neither HDF5 nor hdf5plugin has; install the plugin of that "
        "filter in a folder that HDF5_PLUGIN_PATH names, or decompress the dataset "
        "(h5repack -f NONE) where it can be read"
    )


def load_hdf5plugin() -> bool:
    """Make the filters of hdf5plugin known to HDF5; False where it is not installed."""
    try:
        importlib.import_module("hdf5plugin")
    except ImportError:
        return False
    return True


def _files_of_part(name: str, path: str, where: str) -> list[Path]:
    """Return the files that a part of a virtual dataset names."""
    if name == ".":
        return [Path(path)]
    if "%" in name:
        # A pattern with numbers in it; more such files may be written later.
        for folder in folders_of(path, FOLDERS_OF_PARTS):
            pattern, places = _numbered(str(folder / name)), (folder / name).parent
            near = sorted(places.iterdir()) if places.is_dir() else []
            found = [other for other in near if pattern.fullmatch(str(other))]
            if found:
                return found
        return []
    lying = lying_at(name, path, FOLDERS_OF_PARTS)
    if not lying:
        msg = f"{where} is virtual and its part {Path(path).parent / name} is missing"
        raise SourceError(msg)
    return lying[:1]


def _numbered(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a name with HDF5's ``%b`` for numbers."""
    return re.compile(re.escape(pattern).replace("%b", r"\d+").replace("%%", "%"))


def _datasets_of_part(
    stack: contextlib.ExitStack, start: Place, names: list[str], locks: Sequence[Any]
) -> Iterator[str]:
    """Yield the names of datasets in a file that parts of a virtual dataset name."""
    for name in names:
        found = [""]
        for part in name.strip("/").split("/"):
            if "%" not in part:
                found = [f"{group}/{part}" for group in found]
                continue
            pattern, groups, found = _numbered(part), found, []
            for group in groups:
                inside = names_in(lead(stack, start, group or "/", locks).item)
                found += [
                    f"{group}/{each}" for each in inside if pattern.fullmatch(each)
                ]
        yield from found
