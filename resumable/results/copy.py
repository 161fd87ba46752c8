"""Copying a results group into another file, stored in another way."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.model import FILTERS, Output, boxes, chunk_shape, load_filter
from resumable.runfile import CHUNKS, put_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from resumable.runfile import RaggedRows

    Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes of a chunk, and of what is copied at once, where a row is not larger.
CHUNK_BYTES = 256 << 10
#: The tables, and the column of each that is not 0 in a row that is used.
TABLES = {
    "failures": "used",
    "sessions": "start",
    "log_lines": "time",
    "environments": "used",
}
#: Attributes by which HDF5 knows what scales belong where; they are made anew.
_OF_SCALES = frozenset({"DIMENSION_LIST", "REFERENCE_LIST"})


def copy_group(
    old: h5py.Group,
    new: h5py.Group,
    make: Callable[[str, h5py.Dataset], h5py.Dataset | None],
    check: Callable[[], None],
    skip: Collection[str] = (),
) -> None:
    """Copy all that a group of a run file holds: data, attributes, references.

    Links are not copied.

    `make` makes the dataset of a name, to be filled with the rows of the old one, or
    returns None for one that is copied as it is. `check` is called between rows and
    raises what has gone wrong. The names of `skip` are not copied.
    """
    for name in old:
        if name == CHUNKS or name in skip:
            continue  # the chunks are places in that file
        if not isinstance(old.get(name, getlink=True), h5py.HardLink):
            continue
        made = make(name, old[name])
        if made is None:
            old.file.copy(old[name], new, name, without_attrs=True)
        else:
            for box in _shared_boxes(old[name], made):
                made[box] = old[name][box]
                check()
        check()
    _copy_attributes(old, new, old, new)
    copied = [name for name in datasets(old) if name not in skip]
    for name in copied:
        _copy_attributes(old[name], new[name], old, new)
    for name in copied:
        attach_scales(old[name], new[name], old, new)


def _shared_boxes(old: h5py.Dataset, new: h5py.Dataset) -> Iterable[tuple[slice, ...]]:
    """Divide the rows that both datasets have, each chunk in one box."""
    shape = (*map(min, zip(old.shape, new.shape, strict=True)),)
    chunk = (
        new.chunks or old.chunks or chunk_shape(shape, new.dtype.itemsize, CHUNK_BYTES)
    )
    return boxes(shape, chunk)


def same_rows(old: h5py.Dataset, new: h5py.Dataset) -> bool:
    """Return whether all rows that both datasets have are the same, bit for bit."""
    return all(same_values(old[box], new[box]) for box in _shared_boxes(old, new))


def same_values(left: Any, right: Any) -> bool:
    """Return whether two arrays are the same, bit for bit but for padding."""
    names = left.dtype.names
    if names is not None:
        # By fields: what pads a compound does not count.
        return all(same_values(left[name], right[name]) for name in names)
    if left.dtype.hasobject:
        return bool(np.array_equal(left, right))
    return bool(left.tobytes() == right.tobytes())


def used_rows(name: str, table: Array) -> int:
    """Return how many rows of a table there are up to the last one that is used."""
    return int(np.flatnonzero(table[TABLES[name]]).max(initial=0)) + 1


def create_chunked(
    group: h5py.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Any,
    method: str | None,
) -> h5py.Dataset:
    """Make a dataset of compressed chunks, each with a checksum.

    The checksum, HDF5's own, is of the bytes as they are stored: it is compared
    before they are unpacked, by every program that reads them.
    """
    load_filter(method)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_chunk(chunk_shape(shape, dtype.itemsize, CHUNK_BYTES))
    if dtype.kind not in "SV":
        properties.set_fill_value(np.asarray(fill, dtype))
    if method is not None:
        if dtype.itemsize > 1 and dtype.names is None:
            properties.set_shuffle()
        number, options = FILTERS[method]
        # Optional: what does not get smaller is stored as it is.
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, options)
    properties.set_fletcher32()
    made = h5py.h5d.create(
        group.id,
        name.encode(),
        h5py.h5t.py_create(dtype, logical=True),
        # No chunk fits into a length of 0 that cannot grow.
        h5py.h5s.create_simple(shape, tuple(max(1, n) for n in shape)),
        dcpl=properties,
    )
    return h5py.Dataset(made)


def write_ragged(
    group: h5py.Group,
    rows: RaggedRows,
    create: Callable[..., h5py.Dataset],
    check: Callable[[], None],
) -> None:
    """Write ragged rows in position order: ``values``, ``count`` and ``index``.

    `create` makes a dataset in a group, of a name, shape, dtype and fill value.
    """
    counts, output, number = rows.counts(), rows.output, np.dtype("i8")
    total, zero = int(counts.sum()), np.zeros((), output.dtype)
    values = create(group, "values", (total, *output.shape), output.dtype, zero)
    _fill(values, rows.in_order(), output, check)
    index = create(group, "index", (total,), number, 0)
    spans = rows.spans()
    numbers = (np.repeat(np.arange(a, b), counts[a:b]) for a, b in spans)
    _fill(index, numbers, Output(dtype="i8"), check)
    count = create(group, "count", rows.map_shape, number, 0)
    count[...] = counts.reshape(rows.map_shape)
    put_text(group, "NX_class", "NXdata")
    put_text(group, "signal", "values")
    group.attrs["axes"] = ["index", *["."] * len(output.shape)]
    check()


def _fill(
    dataset: h5py.Dataset,
    parts: Iterator[Array],
    output: Output,
    check: Callable[[], None],
) -> None:
    """Write rows one after the other, each chunk once."""
    step = dataset.chunks[0] if dataset.chunks else 1
    place, rest = 0, output.joined([])
    for part in parts:
        block = output.joined([rest, part])
        whole = len(block) // step * step
        dataset[place : place + whole] = block[:whole]
        place, rest = place + whole, block[whole:]
        check()
    dataset[place:] = rest


def datasets(group: h5py.Group) -> list[str]:
    """Return the names of what is copied of a results group, links left out."""
    return [
        name
        for name in group
        if name != CHUNKS
        and isinstance(group.get(name, getlink=True), h5py.HardLink)
        and isinstance(group[name], h5py.Dataset)
    ]


def _copy_attributes(
    old: h5py.HLObject, new: h5py.HLObject, from_group: h5py.Group, to_group: h5py.Group
) -> None:
    """Copy attributes byte for byte; references lead to the same names in the copy.

    Those that the copy has already stay as they are.
    """
    for name in old.attrs:
        attribute = old.attrs.get_id(name)
        kind = h5py.check_ref_dtype(attribute.dtype)
        if name in _OF_SCALES or name in new.attrs or kind is h5py.RegionReference:
            continue
        if kind is h5py.Reference:
            # Of what does not lie in the group there is no copy.
            target, place = attribute.shape == () and old.attrs[name], ""
            with contextlib.suppress(ValueError, KeyError):
                place = str(from_group.file[target].name) if target else ""
            before, _, inside = place.partition(f"{from_group.name}/")
            if inside and not before:
                new.attrs[name] = to_group[inside].ref
            continue
        if attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            new.attrs[name] = old.attrs[name]
            continue
        values = np.empty(attribute.shape, attribute.dtype)
        attribute.read(values)
        made = h5py.h5a.create(
            new.id, name.encode(), attribute.get_type(), attribute.get_space()
        )
        made.write(values)


def attach_scales(
    old: h5py.Dataset, new: h5py.Dataset, from_group: h5py.Group, to_group: h5py.Group
) -> None:
    """Attach the copies of the scales of a dataset to its copy."""
    for number, dimension in enumerate(old.dims):
        for scale in dimension.values():
            inside = str(scale.name).removeprefix(f"{from_group.name}/")
            if inside in to_group:
                new.dims[number].attach_scale(to_group[inside])
