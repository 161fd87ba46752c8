"""What an HDF5 file holds that can be computed over: for hints, and for people."""

from __future__ import annotations

import collections
import contextlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable.errors import HDF5_ERRORS, SourceError, hdf5_errors_as, shortened
from resumable.source.files import LIVE_LOCKS, locks_of, open_file
from resumable.source.places import Place, check_storage, is_hard_link, lead, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Objects that are looked at.
_MOST_OBJECTS = 10_000
#: Datasets that a message names.
_NAMED = 5
_DEEPEST_DEFAULT = 16
#: Compounds within each other, and bytes of one element, that a source may have.
_DEEPEST_TYPE = 32
_LARGEST_ELEMENT = 16 << 20
_NUMERIC = "biufc"
_LONGEST_TEXT = 1000
_LONGEST_TEXTS = 1 << 16


class Entry(NamedTuple):
    """A dataset that can be computed over."""

    name: str
    """With the links that lead to it; of a signal of an NXdata group, the name there,
    by which it has the axes of the group."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int
    """Bytes of its elements."""
    plotted: int
    """By NeXus. 2: the default plot of the file, 1: the signal of an NXdata group."""

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        role = f", {self.role}" if self.role else ""
        return f"{shortened(self.name, 80)} ({shape} {shortened(self.dtype, 40)}{role})"

    @property
    def role(self) -> str:
        """What viewers make of it, for people."""
        return ("", "a plot", "the default plot")[self.plotted]


class Listing(NamedTuple):
    """What a file, or a group of it, holds."""

    entries: list[Entry]
    """What people look for first: the default for viewers, signals of NXdata, then the
    numeric ones and the others, the largest first."""
    others: dict[str, int]
    """Why other datasets cannot be computed over -> how many."""
    unreadable: list[str]
    """What is damaged, or a link that leads nowhere: a sentence each."""
    whole: bool
    """All objects were looked at."""

    @property
    def nothing(self) -> str:
        """What to say where there are no entries."""
        among = "" if self.whole else f" among the first {_MOST_OBJECTS:,} objects"
        return f"no datasets that can be computed over{among}"

    def added_to(self, message: str, name: str = "", what: str = "it") -> str:
        """Return a message with what is there, nearest to a name if one was given."""
        names = [entry.name for entry in self.entries]
        near = _nearest(name, names)
        if near:
            return f"{message}; did you mean {near!r}?"
        more = len(names) - _NAMED
        listed = ", ".join(map(str, self.entries[:_NAMED]))
        listed += f" and {more:,} more" if more > 0 else ""
        there = listed or self.nothing
        broken = [text for text in self.unreadable if text not in message]
        shown = [shortened(text, 250) for text in broken[:2] if not (name and names)]
        return "; ".join([message, f"{what} has {there}", *shown])


def _nearest(name: str, names: list[str]) -> str:
    """Return the name whose last part is nearest to that of a name, or empty."""
    # Imported here: it costs a millisecond that only an error needs.
    from difflib import get_close_matches

    ends = dict.fromkeys(each.rsplit("/", 1)[-1].lower() for each in names)
    for end in get_close_matches(name.rsplit("/", 1)[-1].lower(), ends, n=1):
        same = [each for each in names if each.lower().endswith(f"/{end}")]
        return get_close_matches(name, same, n=1, cutoff=0)[0]
    return ""


def listing_of(place: Place, name: str = "", near: Place | None = None) -> Listing:
    """List what a group holds, behind links, too; `name` is what the user calls it.

    What cannot be read is noted and left out. At most 10,000 objects are looked at,
    first what viewers plot and the group `near`.
    """
    best: dict[Any, Entry] = {}
    others: collections.Counter[str] = collections.Counter()
    unreadable: list[str] = []
    looked = 0
    with contextlib.ExitStack() as stack:
        default, plots = default_plot(stack, place), {}
        default_key = default and key_of(default.item)
        first = []
        for group in filter(None, (near, default)):
            inside = group.path == place.path and group.name.startswith(
                f"{place.name}/"
            )
            if inside and isinstance(group.item, h5py.Group):
                above = f"{name}{group.name[len(place.name) :]}"
                first.append((above, group))
                for _, _, signal in signals_of(stack, group):
                    target = _lead(stack, group, signal)
                    first.append((f"{above}/{signal}", target))
        for looked, (where, found) in enumerate(_walk(stack, place, name, first)):
            if looked == _MOST_OBJECTS:
                break
            try:
                if isinstance(found, Exception):
                    raise found
                if isinstance(found.item, h5py.Group):
                    is_default = key_of(found.item) == default_key
                    for plotted, key, signal in signals_of(stack, found):
                        plot = (plotted + is_default, f"{where}/{signal}")
                        if is_default or key not in plots:
                            plots[key] = plot
                    continue
                if found.item.is_virtual or found.item.external:
                    # HDF5 may open the parts to find the shape.
                    check_storage(found.item, found.path, where)
                problem = problem_of(found.item)
                if problem:
                    others[problem.split(";")[0]] += 1
                    continue
                shape, dtype = found.item.shape, found.item.dtype
                size = math.prod(shape) * dtype.itemsize
                best[key_of(found.item)] = Entry(where, shape, dtype, size, 0)
            except SourceError as error:
                unreadable.append(str(error))
            except HDF5_ERRORS as error:
                what = f"{type(error).__name__}: {error}"
                unreadable.append(f"{where} cannot be read ({what})")
        entries = []
        for key, entry in best.items():
            plotted, name = plots.get(key, (0, entry.name))
            entries.append(entry._replace(plotted=plotted, name=name))
    entries.sort(key=_order)
    return Listing(entries, dict(others), unreadable, looked < _MOST_OBJECTS)


def list_source(text: str) -> Listing:
    """List what ``"file.h5"``, or ``"file.h5::/group"``, holds.

    SourceError where it cannot be opened, or is a dataset.
    """
    path, separator, name = text.rpartition("::")
    if not separator:
        path, name = text, ""
    with (
        contextlib.ExitStack() as stack,
        hdf5_errors_as(SourceError, f"{text} cannot be read"),
    ):
        file = stack.enter_context(open_file(path))
        top = Place(file["/"], path, "")
        place = lead(stack, top, f"/{name}")
        if not isinstance(place.item, h5py.Group):
            msg = f"{text} is a dataset; give the file, or a group of it"
            raise SourceError(msg)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        return listing_of(place, "".join(f"/{part}" for part in parts))


def _order(entry: Entry) -> tuple[int, bool, int, str]:
    numeric = entry.dtype.kind in _NUMERIC
    return (-entry.plotted, not numeric, -entry.size, entry.name)


def key_of(item: Any) -> tuple[int, int]:
    """Return what an open object is known by, whatever name leads to it."""
    found = h5py.h5o.get_info(item.id)
    return found.fileno, found.addr


def _walk(
    stack: contextlib.ExitStack,
    start: Place,
    name: str,
    first: list[tuple[str, Place]],
) -> Iterator[tuple[str, Place | Exception]]:
    """Yield every object below a group once, by the first name that leads to it.

    After what is to come `first`, groups near the top do, and links last. An error
    takes the place of what cannot be read.
    """
    groups = collections.deque([(name, start)])
    links: collections.deque[tuple[str, Place, str]] = collections.deque()
    try:
        seen = {key_of(start.item)}
    except HDF5_ERRORS as error:
        yield name or "/", error
        return
    yield name, start
    for where, found in first:
        if key_of(found.item) not in seen:
            seen.add(key_of(found.item))
            if isinstance(found.item, h5py.Group):
                groups.appendleft((where, found))
            if isinstance(found.item, (h5py.Group, h5py.Dataset)):
                yield where, found
    while groups or links:
        # Links come last: a dataset is known by its own name.
        if not groups:
            above, group, link = links.popleft()
            names = [link]
        else:
            (above, group), link = groups.popleft(), ""
            try:
                names = names_in(group.item)
            except HDF5_ERRORS as error:
                yield above or "/", error
                continue
        for each in names:
            where = f"{above}/{each}"
            with contextlib.ExitStack() as own:
                try:
                    if not link and not is_hard_link(group.item, each):
                        links.append((above, group, each))
                        continue
                    found = _lead(own, group, each)
                    key = key_of(found.item)
                except HDF5_ERRORS as error:
                    yield where, error
                    continue
                if key in seen:
                    continue
                seen.add(key)
                if isinstance(found.item, h5py.Group):
                    groups.append((where, found))
                    # The file that it lies in stays open.
                    stack.push(own.pop_all())
                if isinstance(found.item, (h5py.Group, h5py.Dataset)):
                    yield where, found


def _lead(stack: contextlib.ExitStack, place: Place, name: str) -> Place:
    """Return what a name leads to; a file that is being written can be looked at, too.

    HDF5 opens the parts of a virtual dataset with the locks of its own file, so a file
    that a link leads to is opened with these, too, where it can be.
    """
    try:
        return lead(stack, place, name, (locks_of(place.item.file), *LIVE_LOCKS))
    except SourceError:
        return lead(stack, place, name, LIVE_LOCKS)


def default_plot(stack: contextlib.ExitStack, place: Place) -> Place | None:
    """Return the group that viewers should plot, by NeXus' ``@default``."""
    with contextlib.suppress(*HDF5_ERRORS):
        for _ in range(_DEEPEST_DEFAULT):
            default = short_text_of(place.item, "default")
            if not default:
                break
            place = _lead(stack, place, default)
        return place
    return None


def signals_of(
    stack: contextlib.ExitStack, place: Place
) -> Iterator[tuple[int, tuple[int, int], str]]:
    """Yield 1, the key and the name of the dataset that a group names as its signal.

    After it, with 0, those that an NXdata group has besides.
    """
    names: list[str] = []
    with contextlib.suppress(*HDF5_ERRORS):
        names.append(short_text_of(place.item, "signal"))
        names += texts_of(place.item, "auxiliary_signals")
    for number, name in enumerate(names):
        with contextlib.suppress(*HDF5_ERRORS):
            if name:
                yield int(not number), key_of(_lead(stack, place, name).item), name


def texts_of(item: Any, name: str) -> list[str]:
    """Return the texts of an attribute, if there are not too many."""
    if name not in item.attrs:
        return []
    if item.attrs.get_id(name).get_storage_size() > _LONGEST_TEXTS:
        return []
    texts = np.atleast_1d(item.attrs[name]).ravel().tolist()
    return [
        each.decode(errors="replace") if isinstance(each, bytes) else str(each)
        for each in texts
    ]


def short_text_of(item: Any, name: str) -> str:
    """Return an attribute that is a short text, empty where it is not."""
    if name not in item.attrs:
        return ""
    if item.attrs.get_id(name).get_storage_size() > _LONGEST_TEXT:
        return ""
    value = item.attrs[name]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return text if isinstance(text, str) and len(text) <= _LONGEST_TEXT else ""


def problem_of(dataset: Any, *, whole: bool = False) -> str:
    """Return why a dataset cannot be computed position by position, else empty.

    What is read as a `whole` may be a single value or text.
    """
    dtype, shape = dataset.dtype, dataset.shape
    if shape is None:
        return f"has no elements (a null dataspace, {dtype})"
    if not shape and not whole:
        return "is a single value; a source needs an axis that counts positions"
    ends = zip(shape, dataset.maxshape, strict=True)
    if not whole and any(n == most == 0 for n, most in ends):
        return f"has the shape {shape}: there is nothing to compute"
    if dtype.subdtype is not None:
        return f"has arrays as entries ({dtype}); store them along an axis of their own"
    if dtype.hasobject and not (whole and h5py.check_string_dtype(dtype)):
        return _problem_of_objects(dtype)
    if dtype.itemsize > _LARGEST_ELEMENT:
        return (
            f"has elements of {dtype.itemsize:,} bytes, more than {_LARGEST_ELEMENT:,}"
        )
    inside = [dtype]
    for _ in range(_DEEPEST_TYPE):
        inside = [t.base[name] for t in inside for name in t.base.names or ()]
    if inside:
        return f"has compounds within each other more than {_DEEPEST_TYPE} deep"
    return ""


def _problem_of_objects(dtype: np.dtype[Any]) -> str:
    """Say what elements are that have no fixed size in memory."""
    if dtype.names:
        fixed = [name for name in dtype.names if not dtype[name].hasobject]
        column = f"; one column can be: ::/TABLE/{fixed[0]}" if fixed else ""
        return (
            "has columns of text, arrays or references of no fixed size ("
            f"{', '.join(name for name in dtype.names if name not in fixed)}), and "
            f"cannot be computed position by position{column}"
        )
    if h5py.check_ref_dtype(dtype) is h5py.Reference:
        return (
            "has references to objects as entries, and no data; give the dataset that "
            "they lead to"
        )
    if h5py.check_ref_dtype(dtype) is h5py.RegionReference:
        return (
            "has references to regions of datasets as entries, and no data; give the "
            "dataset that they lead to"
        )
    vlen = h5py.check_vlen_dtype(dtype)
    kind = "text" if h5py.check_string_dtype(dtype) else f"arrays of {vlen or dtype}"
    return (
        f"has entries of variable length ({kind}); only data of a fixed size can be "
        "computed position by position"
    )
