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
    FORMAT,
    HEADER_LIMIT,
    Header,
    as_letters,
    structure_digest,
    table_rows,
)
from resumable.runfile.kept import arrays_kept, as_kept
from resumable.runfile.ragged import RaggedRows, copied_rows, remove_ragged_files
from resumable.runfile.tables import fitted_rows
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from resumable.model import Output, PositionSet

    Array = np.ndarray[Any, np.dtype[Any]]

USID_ANCILLARIES = ("Position_Indices", "Position_Values")
USID_SPECTROSCOPIC = ("Spectroscopic_Indices", "Spectroscopic_Values")
#: Outputs per position of every run, in bytes.
STATUS = ("completed_positions", "failed_positions")
#: netCDF-4 stores a dimension without a variable as a scale of this name.
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"
#: Index coordinates are written for map axes up to this length.
_LONGEST_INDEX = 1 << 20
#: Rows begin at pages.
ALIGNMENT = {"alignment_threshold": 1 << 16, "alignment_interval": 4096}
#: Space is reserved in steps of this many bytes.
_RESERVE_STEP = 1 << 20


class Scale(NamedTuple):
    """Coordinates of one axis."""

    name: str = ""
    """Name of the axis; empty: it has none of its own."""
    values: Array | None = None
    """A number for each element of the axis; None: the index."""
    attributes: Mapping[str, Any] = {}
    """Units, calendar and others, texts or numbers, for people and viewers."""


class Coordinates(NamedTuple):
    """What a new run file says of its positions and their source."""

    map_shape: tuple[int, ...]
    """Lengths of the position axes."""
    spectrum_shape: tuple[int, ...]
    """Shape of the data at one position."""
    name: str
    """Name of the source's dataset, without its groups."""
    link: tuple[str, str] | None
    """File and dataset of the source; None: it has no data."""
    scales: Mapping[int, Scale]
    """By number of the position axis, where they are known."""
    spectrum_scales: Mapping[int, Scale]
    """By number of the axis of the spectrum, where they are known."""
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
        rows=table_rows(size, FORMAT),
        file_bytes=0,
        structure="0" * 64,
        user_block=0,
        source=spec.source,
        format=FORMAT,
    )
    names = [*spec.outputs, *STATUS, *header.tables, "finished"]
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
        group, aside = make_groups(file, header)
        made: dict[str, h5py.Dataset] = {}
        for name, output in spec.outputs.items():
            lead = shape if output.per == "position" else ()
            kind = output.stored
            place = (*lead, *kind.shape)
            made[name] = create_contiguous(
                group, name, place, kind.dtype, kind.fill_value
            )
            if output.units:
                put_text(made[name], "units", output.units)
        for name in STATUS:
            made[name] = create_contiguous(group, name, (size,), np.dtype("u1"))
        for name, dtype in header.tables.items():
            place = (header.rows[name],)
            made[name] = create_contiguous(aside, name, place, as_letters(dtype))
        made["finished"] = create_contiguous(aside, "finished", (1,), np.dtype("u1"))
        _describe(group, aside, made, spec, coordinates, path.parent)
        offsets = {name: made[name].id.get_offset() for name in names}
    with disk.opened(path, os.O_RDWR) as fd:
        header = header._replace(
            offsets=offsets, file_bytes=os.fstat(fd).st_size, user_block=user_block
        )
        return header._replace(structure=structure_digest(fd, header))


def offsets_in(file: h5py.File, header: Header, names: Iterable[str]) -> dict[str, int]:
    """Return where the bytes of datasets with a fixed place lie."""
    return {
        name: file[f"{header.group_of(name)}/{name}"].id.get_offset() for name in names
    }


def create_contiguous(
    group: h5py.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    fill: Any = None,
    *,
    early: bool = True,
) -> h5py.Dataset:
    """Make a contiguous dataset that gets its place in the file at once.

    Or never, where it is not `early` and nobody writes to it: all its numbers are 0.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    if early:
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


def _text(value: str) -> str | np.bytes_:
    """Return a text as HDF5 can store it; one of variable length ends at a NUL."""
    try:
        value.encode()
    except UnicodeEncodeError:
        # A file name may hold bytes that are no text; they are written as they are.
        return np.bytes_(value.encode(errors="surrogateescape"))
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")


_TEXT_DTYPE = h5py.string_dtype()
_TEXT_TYPE = h5py.h5t.py_create(_TEXT_DTYPE, logical=True)
_SCALAR = h5py.h5s.create(h5py.h5s.SCALAR)


def put_text(thing: h5py.HLObject, name: str, text: str) -> None:
    """Give an object that does not have it an attribute, a text."""
    stored = _text(text)
    if isinstance(stored, bytes):
        thing.attrs[name] = stored
        return
    # The low-level calls: h5py's own take three times as long, and there are many.
    made = h5py.h5a.create(thing.id, name.encode(), _TEXT_TYPE, _SCALAR)
    made.write(np.array(stored, _TEXT_DTYPE))


def make_groups(file: h5py.File, header: Header) -> tuple[h5py.Group, h5py.Group]:
    """Make the group of the results, which viewers plot, and that of the tables.

    Viewers go by ``default`` from the root to an NXentry, and from there to NXdata. In
    the older versions both groups are the same.
    """
    name = header.group.removeprefix("/")
    group = file.create_group(header.group)
    if header.aside == header.group:
        file.attrs["default"] = np.bytes_(name.encode(errors="surrogateescape"))
        return group, group
    put_text(file, "NX_class", "NXroot")
    put_text(file, "default", header.aside[1:])
    aside = file.create_group(header.aside)
    put_text(aside, "NX_class", "NXentry")
    put_text(aside, "default", name)
    aside[name] = h5py.SoftLink(header.group)
    return group, aside


def place_of_source(path: str, dataset: str, folder: Path) -> str:
    """Write down a source as text, relative where it lies in the folder or below.

    Not as a link: netCDF follows links, and reads no file in which one leads nowhere.
    """
    target = Path(path).resolve()
    with contextlib.suppress(ValueError):
        target = target.relative_to(folder.resolve())
    return f"{target}::{dataset}"


def _describe(
    group: h5py.Group,
    aside: h5py.Group,
    made: Mapping[str, h5py.Dataset],
    spec: RunFileSpec,
    coordinates: Coordinates,
    folder: Path,
) -> None:
    """Add what people and viewers read: texts, dimension scales, NXdata."""
    for name, text in spec.provenance.items():
        put_text(group, name, text)
    put_text(group, "identity_sha256", spec.identity)
    if coordinates.link is not None:
        put_text(group, "source", place_of_source(*coordinates.link, folder))
    for name, text in (
        ("identity", canonical(spec.document)),
        ("source_text", spec.source_text),
        ("identity_code", canonical(spec.trace)),
    ):
        if text:
            # Of fixed length: it may be long, and is read as it is.
            encoded = text.encode(errors="surrogateescape")
            aside.create_dataset(name, data=np.bytes_(encoded))
    if spec.arrays:
        _keep_arrays(aside.create_group("arrays"), spec.arrays)
    axes = _add_scales(group, made, spec.outputs, coordinates)
    maps = [name for name, output in spec.outputs.items() if output.per == "position"]
    plain = [name for name in maps if not spec.outputs[name].ragged]
    # Texts and compounds cannot be plotted.
    shown = [name for name in plain if spec.outputs[name].dtype.kind in "biufc"]
    if plain:
        signal = (shown or plain)[0]
        put_text(group, "NX_class", "NXdata")
        put_text(group, "signal", signal)
        # Viewers refuse a group with others of another shape.
        shape = spec.outputs[signal].shape
        others = [n for n in shown if n != signal and spec.outputs[n].shape == shape]
        if others:
            group.attrs["auxiliary_signals"] = others
        group.attrs["axes"] = axes[signal]
    else:
        # Viewers can plot ragged rows when the file is packed.
        put_text(group, "NX_class", "NXentry")
        put_text(group, "default", maps[0])
    if coordinates.usid:
        _add_usid(group, spec.outputs, coordinates.usid)


def _add_scales(
    group: h5py.Group,
    datasets: Mapping[str, h5py.Dataset],
    outputs: Mapping[str, Output],
    coordinates: Coordinates,
) -> dict[str, list[str]]:
    """Give every axis of what there is per position a scale.

    netCDF reads no file in which some axes of a dataset have one. Returns the names of
    the axes of each output, and "." for an axis of which only the length is known.
    """
    map_shape, spectrum_shape = coordinates.map_shape, coordinates.spectrum_shape
    lead = []
    for number, length in enumerate(map_shape):
        known = coordinates.scales.get(number, Scale())
        if known.values is None and length <= _LONGEST_INDEX:
            known = known._replace(values=np.arange(length))
        plain = "position" if len(map_shape) == 1 else f"position_{number}"
        lead.append(_add_scale(group, known, length, plain))
    of_spectrum: list[h5py.Dataset] = []
    names: dict[str, list[str]] = {}
    for name, output in outputs.items():
        if output.per == "run":
            continue
        own: list[h5py.Dataset] = []
        if output.labels:
            made = free_name(group, f"{name}_labels")
            own.append(group.create_dataset(made, data=list(map(_text, output.labels))))
            own[0].make_scale(made)
        if output.ragged:
            own = []
        elif output.shape == spectrum_shape and not own:
            if not of_spectrum:
                for number, length in enumerate(spectrum_shape):
                    known = coordinates.spectrum_scales.get(number, Scale())
                    plain = f"spectrum_{number}"
                    of_spectrum.append(_add_scale(group, known, length, plain))
            own = of_spectrum
        else:
            own = [
                _add_scale(group, Scale(), length, f"{name}_{number}")
                for number, length in enumerate(output.shape[: -1 if own else None])
            ] + own
        dims = datasets[name].dims
        for dimension, scale in zip(dims, (*lead, *own), strict=True):
            dimension.attach_scale(scale)
        names[name] = [_plotted(scale) for scale in (*lead, *own)]
    status = lead[0]
    if len(map_shape) > 1:
        status = _add_scale(group, Scale(), math.prod(map_shape), "positions")
    for name in STATUS:
        datasets[name].dims[0].attach_scale(status)
    return names


def _add_scale(
    group: h5py.Group, known: Scale, length: int, plain: str
) -> h5py.Dataset:
    """Make a dimension scale; without values it says how long an axis is, as netCDF's.

    It takes the name `plain` where it has none, or one that is taken.
    """
    name = known.name if known.name and known.name not in group else plain
    name = free_name(group, name)
    if known.values is None:
        scale = create_contiguous(group, name, (length,), ">f4", early=False)
        scale.make_scale(f"{NO_VARIABLE}. {length:9d}")
        return scale
    scale = group.create_dataset(name, data=known.values)
    scale.make_scale(name)
    for key, value in known.attributes.items():
        if isinstance(value, str):
            put_text(scale, key, value)
        else:
            scale.attrs[key] = value
    return scale


def _plotted(scale: h5py.Dataset) -> str:
    """Return the name of an axis for viewers of NeXus, which plot numbers alone."""
    values = scale.dtype.kind in "iuf" and scale.id.get_storage_size()
    return str(scale.name).rpartition("/")[2] if values else "."


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
        main = group[name]
        for ancillary, dtype in zip(USID_SPECTROSCOPIC, ("u4", "f4"), strict=True):
            values = np.arange(output.shape[0], dtype=dtype).reshape(1, -1)
            made_name = free_name(group, f"{name}_{ancillary}")
            made = group.create_dataset(made_name, data=values)
            made.attrs["labels"], made.attrs["units"] = [name], ["a.u."]
            main.attrs[ancillary] = made.ref
        for ancillary in USID_ANCILLARIES:
            main.attrs[ancillary] = group[ancillary].ref
        main.attrs["quantity"] = name
        main.attrs["units"] = _text(output.units or "a.u.")
