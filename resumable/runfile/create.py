"""Making a run file: whole, under a temporary name, then put in place.

After :func:`create_run_file` no process opens an unpacked run file for writing through
HDF5: to pack or unpack it makes another file, which takes its place.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable.errors import DeclarationError, ResumableError, TargetError, option
from resumable.model import WINDOW, canonical, format_bytes, stretches
from resumable.runfile.file import RunFile
from resumable.runfile.hdf5 import new_hdf5
from resumable.runfile.header import (
    HEADER_LIMIT,
    Header,
    format_for,
    structure_digest,
    table_rows,
)
from resumable.runfile.kept import arrays_kept, as_kept, name_of_arrays
from resumable.runfile.ragged import RaggedRows, copied_rows, remove_ragged_files
from resumable.runfile.tables import fitted_rows
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from resumable.model import Output, PositionSet

    Array = np.ndarray[Any, np.dtype[Any]]

USID_ANCILLARIES = ("Position_Indices", "Position_Values")
USID_SPECTROSCOPIC = ("Spectroscopic_Indices", "Spectroscopic_Values")
#: Index coordinates are written for map axes up to this length.
_LONGEST_INDEX = 1 << 20
#: Rows begin at pages.
ALIGNMENT = {"alignment_threshold": 1 << 16, "alignment_interval": 4096}
#: Space is reserved in steps of this many bytes.
_RESERVE_STEP = 1 << 20


class Scale(NamedTuple):
    """Coordinates of one position axis."""

    name: str = ""
    """Name of the axis; empty: it has none of its own."""
    values: Array | None = None
    """A number for each position; None: the index."""
    attributes: Mapping[str, str] = {}
    """Units, calendar and other text for people and viewers."""


class Coordinates(NamedTuple):
    """What a new run file says of its positions and their source."""

    map_shape: tuple[int, ...]
    """Lengths of the position axes."""
    name: str
    """Name of the source's dataset, without its groups."""
    link: tuple[str, str] | None
    """File and dataset of the source; None: it has no data."""
    scales: Mapping[int, Scale]
    """By number of the position axis, where they are known."""
    usid: Mapping[str, h5py.Dataset]
    """The open ancillary datasets of a USID source, by name; else empty."""


class RunFileSpec(NamedTuple):
    """What a new run file is made of."""

    identity: str
    """sha256 of the identity document."""
    document: dict[str, Any]
    process: str
    """Name of the Process."""
    outputs: Mapping[str, Output]
    provenance: Mapping[str, str]
    """Attributes of the results group, for people."""
    source_text: str
    """Source of the Process class, or empty."""
    trace: dict[str, Any]
    """The code that was traced, as plain JSON."""
    source: dict[str, Any]
    """The header's note on the source."""
    arrays: Mapping[str, Array] = {}
    """What it is computed with, by a name for people, to be read back."""


def create_run_file(
    path: Path,
    spec: RunFileSpec,
    coordinates: Coordinates,
    requested: PositionSet,
    previous: RunFile | None = None,
    *,
    succeeds: bool = False,
    sessions: bool = False,
) -> RunFile:
    """Make a run file `path`, which does not exist; the caller holds the run's lock.

    Disk space is reserved for the positions `requested`. `previous` is the run of the
    same source when that was shorter: its rows are copied, and with `sessions` its
    sessions. With `succeeds` the new file takes its place and has its sessions; no
    process may write to it. Raises TargetError where the folder cannot be written or
    the disk has no room, and DeclarationError where the header gets too long; then
    nothing is left.
    """
    temporary = path.with_name(f".{path.stem}.birth")
    row_bytes = sum(output.row_bytes for output in spec.outputs.values())
    try:
        with target_errors(path.parent, row_bytes * len(requested)):
            temporary.unlink(missing_ok=True)
            header = _build(temporary, spec, coordinates)
            with disk.opened(temporary, os.O_RDWR) as fd:
                reserve_rows(fd, header, requested)
                if previous is not None:
                    _copy_rows(
                        fd, path, header, previous, sessions=sessions or succeeds
                    )
                disk.write_at(fd, header.to_bytes(), 0)
                os.fsync(fd)
            if succeeds and previous is not None and previous.path == path:
                disk.replace(temporary, path)
            elif not disk.link_new(temporary, path):
                msg = f"{path} appeared while it was being made; run again"
                raise TargetError(msg)
            elif succeeds and previous is not None:
                previous.path.unlink()
                remove_ragged_files(previous.path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return RunFile(path)


def _copy_rows(
    fd: int, path: Path, header: Header, previous: RunFile, *, sessions: bool
) -> None:
    """Copy status, rows and failures of a shorter run: its positions come first.

    Positions that failed get the fill value of the new file, which may be another.
    """
    names, tables = ["completed_positions", "failed_positions"], ["failures"]
    if sessions:
        tables = list(previous.header.tables)
    for name in tables:
        rows = previous.array(name)[...]
        fitted = fitted_rows(rows, header.tables[name], header.rows[name])
        disk.write_at(fd, fitted.view(np.uint8), header.offsets[name])
    # A run file of the same name has the same ragged files: their rows can stay.
    shares = previous.path == path and previous.header.packed is None
    for name, output in header.outputs.items():
        if output.ragged and not shares:
            place = header.offsets[name]
            for entries in copied_rows(RaggedRows(previous, name), path):
                disk.write_at(fd, entries.view(np.uint8), place)
                place += entries.nbytes
        elif output.per == "position":
            names.append(name)
    written, across = list(previous.written()), math.prod(header.map_shape[1:])
    failed = previous.array("failed_positions")
    for name in names:
        # Where `previous` is packed they are read through HDF5.
        rows = previous.array(name)
        row_bytes = math.prod(rows.shape[1:]) * rows.dtype.itemsize
        step = max(1, _RESERVE_STEP // row_bytes)
        # Positions that were never computed take no space in either file.
        each = across if name in header.outputs else 1
        spans = [(a // each, -(-b // each)) for a, b in written]
        if name in header.tables:
            spans = [(0, len(rows))]
        for first, last in spans:
            for start in range(first, last, step):
                part = np.array(rows[start : min(start + step, last)], order="C")
                if name in header.outputs:
                    # Of a ragged output whose rows stay, these are the entries.
                    stored, first_of = header.outputs[name].stored, start * each
                    flat = part.reshape(-1, *stored.shape)
                    marks = failed[first_of : first_of + len(flat)] == 1
                    flat[marks] = stored.filled(1)
                disk.write_at(fd, part, header.offsets[name] + start * row_bytes)


@contextlib.contextmanager
def target_errors(folder: Path, needed: int) -> Iterator[None]:
    """Turn an OSError at writing to a folder into a TargetError with advice."""
    try:
        yield
    except ResumableError:
        raise
    except OSError as error:
        msg = (
            f"the folder {folder} cannot be written ({error.strerror or error}); give "
            f"another folder as {option('target')}"
        )
        if error.errno in (*disk.FULL, errno.EFBIG):
            with contextlib.suppress(OSError):
                msg = (
                    f"no room for the results in {folder}: they need "
                    f"{format_bytes(needed)}, {format_bytes(disk.free_bytes(folder))} "
                    f"are free ({error.strerror}); make room or give another "
                    f"folder as {option('target')}"
                )
        raise TargetError(msg) from error


def reserve_rows(fd: int, header: Header, requested: PositionSet) -> None:
    """Reserve disk space for the status and the rows of these positions.

    OSError, such as ENOSPC: what is in the file is not touched.
    """
    extents = header.extents()
    for name in ("sessions", "finished"):
        disk.reserve(fd, *extents[name])
    rows = {"completed_positions": 1, "failed_positions": 1}
    for name, output in header.outputs.items():
        if output.per == "run":
            disk.reserve(fd, *extents[name])
        else:
            rows[name] = output.stored.row_bytes
    for name, row_bytes in rows.items():
        offset, length = extents[name]
        # In few ranges, which begin and end at steps.
        step = min(max(1, _RESERVE_STEP // row_bytes), WINDOW)
        touched = np.zeros(math.ceil(requested.size / step), bool)
        for start, stop in requested.inhabited():
            first = start // step
            edges = np.arange(first * step, stop, step) - start
            edges[0] = 0  # a step may have begun in the window before
            found = np.logical_or.reduceat(requested.window(start, stop), edges)
            touched[first : first + len(edges)] |= found
        for first, last in stretches(touched).tolist():
            begin = first * step * row_bytes
            end = min(last * step * row_bytes, length)
            disk.reserve(fd, offset + begin, end - begin)


def _build(path: Path, spec: RunFileSpec, coordinates: Coordinates) -> Header:
    """Write the HDF5 structure and return the header with the offsets found."""
    shape = coordinates.map_shape
    size = math.prod(shape)
    header = Header(
        identity=spec.identity,
        document=spec.document,
        group=f"/{coordinates.name}-{spec.process}_000",
        map_shape=shape,
        outputs=dict(spec.outputs),
        offsets={},
        rows=table_rows(size, format_for(size)),
        file_bytes=0,
        structure="0" * 64,
        user_block=0,
        source=spec.source,
        format=format_for(size),
    )
    status = ("completed_positions", "failed_positions")
    names = [*spec.outputs, *status, *header.tables, "finished"]
    # Offsets of 20 digits stand for the real ones, which the file will have.
    widest = header._replace(
        offsets=dict.fromkeys(names, 10**19),
        file_bytes=10**19,
        user_block=10**9,
    )
    header_bytes = len(widest.to_bytes())
    if header_bytes > HEADER_LIMIT:
        msg = (
            f"parameters and labels take {format_bytes(header_bytes)} of text, more "
            f"than the {format_bytes(HEADER_LIMIT)} there are for them; give long "
            "lists as arrays, or as inputs"
        )
        raise DeclarationError(msg)
    user_block = max(4096, 1 << (header_bytes - 1).bit_length())
    with new_hdf5(path, userblock_size=user_block, **ALIGNMENT) as file:
        group = make_results_group(file, header.group)
        for name, output in spec.outputs.items():
            lead = shape if output.per == "position" else ()
            kind = output.stored
            place = (*lead, *kind.shape)
            made = create_contiguous(group, name, place, kind.dtype, kind.fill_value)
            if output.units:
                made.attrs["units"] = np.bytes_(output.units.encode())
        for name in status:
            create_contiguous(group, name, (size,), np.dtype("u1"))
        for name, dtype in header.tables.items():
            create_contiguous(group, name, (header.rows[name],), dtype)
        create_contiguous(group, "finished", (1,), np.dtype("u1"))
        _describe(group, spec, coordinates, path.parent)
        offsets = {name: group[name].id.get_offset() for name in names}
    with disk.opened(path, os.O_RDWR) as fd:
        header = header._replace(
            offsets=offsets, file_bytes=os.fstat(fd).st_size, user_block=user_block
        )
        return header._replace(structure=structure_digest(fd, header))


def create_contiguous(
    group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, fill: Any = None
) -> h5py.Dataset:
    """Make a contiguous dataset that gets its place in the file at once."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # The same results are the same bytes.
    properties.set_obj_track_times(False)
    # h5py would store the address of a text, not the text.
    if fill is not None and np.dtype(dtype).kind not in "SV":
        properties.set_fill_value(np.asarray(fill, dtype))
    # The low-level call: h5py's own ignores the properties for a scalar.
    made = h5py.h5d.create(
        group.id,
        name.encode(),
        h5py.h5t.py_create(np.dtype(dtype), logical=True),
        h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR),
        dcpl=properties,
    )
    return h5py.Dataset(made)


def _text(value: str) -> np.bytes_:
    # Of fixed length: HDF5 writes variable length to its global heap. A file name may
    # hold bytes that are no text; they are written as they are.
    return np.bytes_(value.encode(errors="surrogateescape") or b" ")


def make_results_group(file: h5py.File, name: str) -> h5py.Group:
    """Make the group of the results, which viewers open by default."""
    file.attrs["default"] = _text(name.removeprefix("/"))
    return file.create_group(name)


def _describe(
    group: h5py.Group, spec: RunFileSpec, coordinates: Coordinates, folder: Path
) -> None:
    """Add what people and viewers read: texts, a link, dimension scales, NXdata."""
    for name, text in spec.provenance.items():
        group.attrs[name] = _text(text)
    group.attrs["identity_sha256"] = _text(spec.identity)
    group.create_dataset("identity", data=_text(canonical(spec.document)))
    if spec.source_text:
        group.create_dataset("source_text", data=_text(spec.source_text))
    group.create_dataset("identity_code", data=_text(canonical(spec.trace)))
    if spec.arrays:
        _keep_arrays(group.create_group(name_of_arrays(spec.outputs)), spec.arrays)
    if coordinates.link is not None:
        path, dataset = coordinates.link
        target = Path(path).resolve()
        # Relative where it lies in the same folder or below.
        with contextlib.suppress(ValueError):
            target = target.relative_to(folder.resolve())
        group["source"] = h5py.ExternalLink(
            str(target), dataset.encode(errors="surrogateescape")
        )
    map_shape, outputs = coordinates.map_shape, spec.outputs
    axes: list[str] = []
    for number, length in enumerate(map_shape):
        name, values, attributes = coordinates.scales.get(number, Scale())
        if values is None:
            if length > _LONGEST_INDEX:
                axes.append(".")
                continue
            values = np.arange(length)
        if not name or name in group:
            name = "position" if len(map_shape) == 1 else f"position_{number}"
        name = free_name(group, name)
        scale = group.create_dataset(name, data=values)
        scale.make_scale(name)
        for key, text in attributes.items():
            scale.attrs[key] = _text(text)
        axes.append(name)
    maps = [name for name, output in outputs.items() if output.per == "position"]
    for name in maps:
        dataset, output = group[name], outputs[name]
        for number, axis in enumerate(axes):
            if axis != ".":
                dataset.dims[number].attach_scale(group[axis])
        if output.labels:
            labels = np.array([text.encode() for text in output.labels])
            group.create_dataset(free_name(group, f"{name}_labels"), data=labels)
            if not output.ragged:
                dataset.dims[dataset.ndim - 1].label = "labels"
    plain = [name for name in maps if not outputs[name].ragged]
    if plain:
        group.attrs["NX_class"] = _text("NXdata")
        group.attrs["signal"] = _text(plain[0])
        # Viewers refuse a group with others of another shape.
        shape = group[plain[0]].shape
        others = [name.encode() for name in plain[1:] if group[name].shape == shape]
        if others:
            group.attrs["auxiliary_signals"] = np.array(others)
        axes += ["."] * (group[plain[0]].ndim - len(axes))
        group.attrs["axes"] = np.array([name.encode() for name in axes])
    else:
        # Viewers can plot ragged rows when the file is packed.
        group.attrs["NX_class"] = _text("NXentry")
        group.attrs["default"] = _text(maps[0])
    if coordinates.usid:
        _add_usid(group, outputs, coordinates.usid)


def _keep_arrays(group: h5py.Group, arrays: Mapping[str, Array]) -> None:
    for name, array in arrays_kept(arrays).items():
        plain = re.sub(r"[^\w. +-]", "_", name)[:200]
        kept_as, values = as_kept(plain, array)
        while kept_as in group:
            plain += "_"
            kept_as, values = as_kept(plain, array)
        made = create_contiguous(group, kept_as, values.shape, values.dtype)
        if values.size:
            made[...] = values


def free_name(group: h5py.Group, name: str) -> str:
    """Return the name, with underscores added until the group has no such name."""
    while name in group:
        name += "_"
    return name


def _add_usid(
    group: h5py.Group,
    outputs: Mapping[str, Output],
    positions: Mapping[str, h5py.Dataset],
) -> None:
    """Make every 2-D output a USID main dataset, as pyUSID's readers expect it."""
    for name, ancillary in positions.items():
        ancillary.file.copy(ancillary, group, name)
    for name, output in outputs.items():
        simple = output.stored.dtype.names is None and output.dtype.kind in "iufc"
        if output.per != "position" or len(output.shape) != 1 or not simple:
            continue
        labels = np.array([name.encode()])
        units = np.array([b"a.u."])
        main = group[name]
        for ancillary, dtype in zip(USID_SPECTROSCOPIC, ("u4", "f4"), strict=True):
            values = np.arange(output.shape[0], dtype=dtype).reshape(1, -1)
            made_name = free_name(group, f"{name}_{ancillary}")
            made = group.create_dataset(made_name, data=values)
            made.attrs["labels"], made.attrs["units"] = labels, units
            main.attrs[ancillary] = made.ref
        for ancillary in USID_ANCILLARIES:
            main.attrs[ancillary] = group[ancillary].ref
        main.attrs["quantity"] = _text(name)
        main.attrs["units"] = _text(output.units or "a.u.")
