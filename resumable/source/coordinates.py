"""What a file says of positions: which axes count them, and their coordinates."""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable.errors import HDF5_ERRORS, SourceError, hdf5_errors_as, shortened
from resumable.runfile import (
    NO_VARIABLE,
    USID_ANCILLARIES,
    USID_SPECTROSCOPIC,
    Coordinates,
    RunFile,
    Scale,
)
from resumable.source.files import LIVE_LOCKS, open_file
from resumable.source.listing import (
    default_plot,
    key_of,
    short_text_of,
    signals_of,
    texts_of,
)
from resumable.source.places import Column, Place, check_storage, lead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.source.reader import Reader

    Array = np.ndarray[Any, np.dtype[Any]]
    from resumable.source.reference import SourceRef

#: Larger coordinates of an axis are not copied into the run file.
LARGEST_SCALE_BYTES = 64 << 20
#: Larger ancillary datasets of a USID source are not copied.
_LARGEST_ANCILLARY = 1 << 30
_MOST_SCALES = 100
_MOST_ATTRIBUTES = 100
_MOST_DIMENSIONS = 100
#: Attributes of a scale that are texts, or nothing.
_TEXTS = ("units", "calendar", "long_name", "standard_name", "positive", "axis")
#: Those that say how it is stored, and nothing of the numbers that it stands for.
_OF_STORAGE = frozenset(
    (
        *("CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "_Netcdf4Dimid"),
        *("_Netcdf4Coordinates", "scale_factor", "add_offset", "_Unsigned"),
        *("_FillValue", "missing_value", "valid_min", "valid_max", "valid_range"),
    )
)


def coordinates_of(reader: Reader) -> Coordinates:
    """Return the coordinates of an open source, to be copied into a new run file."""
    ref, name = reader.ref, reader.ref.dataset
    if isinstance(reader.dataset, Column):
        # A link leads to a table, and not to its column.
        name = name.removesuffix("/" + "/".join(reader.dataset.names))
    found, axes = _scales_by_axis(reader), reader.ref.position_axes
    inner = [axis for axis in range(len(reader.shape)) if axis not in axes]
    return Coordinates(
        map_shape=reader.geometry.map_shape,
        spectrum_shape=reader.geometry.spectrum_shape,
        name=ref.name,
        link=(ref.path, name) if ref.path else None,
        scales={n: found[a] for n, a in enumerate(axes) if a in found},
        spectrum_scales={n: found[a] for n, a in enumerate(inner) if a in found},
        usid=_usid_positions(reader),
    )


def scales_of(reader: Reader) -> dict[int, Scale]:
    """Return what is known of the position axes, by number of the position axis."""
    found = _scales_by_axis(reader)
    axes = enumerate(reader.ref.position_axes)
    return {number: found[axis] for number, axis in axes if axis in found}


def axes_of_source(reader: Reader) -> list[tuple[Scale, int]]:
    """Return coordinates of a source and their axes: of the map, then of a spectrum.

    Of a USID source, whose positions lie on one axis, there is one for each dimension
    of the map. An axis of which nothing is known counts from 0.
    """
    found, position_axes = _scales_by_axis(reader), reader.ref.position_axes
    inner = [a for a in range(len(reader.shape)) if a not in position_axes]
    known: list[tuple[Scale, int]] = []
    for axes, word in ((position_axes, "position"), (inner, "spectrum")):
        for number, axis in enumerate(axes):
            plain = word if len(axes) == 1 else f"{word}_{number}"
            scales = _usid_dimensions(reader, axis) or [found.get(axis, Scale())]
            for scale in scales:
                index = np.arange(reader.shape[axis])
                values = index if scale.values is None else scale.values
                named = scale._replace(name=scale.name or plain, values=values)
                known.append((named, axis))
    return known


def _scales_by_axis(reader: Reader) -> dict[int, Scale]:
    """Return what a file says of the axes of a source, by their numbers.

    By its dimension scales, NXdata or, where it has one dimension there, USID. What
    cannot be read, or is larger than 64 MB, is left out: results do not depend on it.
    """
    found: dict[int, Scale] = {}
    dataset = reader.dataset
    if dataset is None:
        return found
    for axis in range(len(dataset.dims)):
        with _what_can_be_read(reader):
            scales = dataset.dims[axis].values()
            for scale in itertools.islice(scales, _MOST_SCALES):
                # The first one that has a number for each position.
                if not _fits(scale, dataset.shape[axis]):
                    continue
                if short_text_of(scale, "NAME").startswith(NO_VARIABLE):
                    found[axis] = Scale(_name_of(scale))
                    continue
                found[axis] = _scale(scale, reader.shape[axis])
                break
    if len(found) < dataset.ndim:
        with _what_can_be_read(reader):
            found = _by_nexus(reader) | found
    for axis in range(dataset.ndim):
        if axis not in found:
            dimensions = _usid_dimensions(reader, axis)
            if len(dimensions) == 1:
                found[axis] = dimensions[0]
    return found


@contextlib.contextmanager
def _what_can_be_read(reader: Reader) -> Iterator[None]:
    """Leave out in a block what cannot be read."""
    with (
        contextlib.suppress(SourceError),
        hdf5_errors_as(SourceError, f"{reader.ref} cannot be read"),
    ):
        yield


def _fits(scale: Any, length: int) -> bool:
    """Return whether a dataset has a number for each element of an axis."""
    return (
        isinstance(scale, h5py.Dataset)
        and scale.shape == (length,)
        and scale.dtype.kind in "iuf"
        and scale.nbytes <= LARGEST_SCALE_BYTES
    )


def _name_of(scale: h5py.Dataset) -> str:
    return str(scale.name or "").rsplit("/", 1)[-1]


def _scale(scale: h5py.Dataset, length: int) -> Scale:
    """Read the coordinates of an axis, and the attributes that say what they mean."""
    check_storage(scale, scale.file.filename, str(scale.name))
    values = _unpacked(scale, scale[:length])
    return Scale(_name_of(scale), values, _meaning_of(scale))


def _meaning_of(scale: h5py.Dataset) -> dict[str, Any]:
    """Return the attributes of a scale that are short texts or numbers.

    But for those that say how HDF5 or netCDF stores it: the numbers are unpacked.
    """
    found: dict[str, Any] = {}
    for name in itertools.islice(scale.attrs, _MOST_ATTRIBUTES):
        if name in _OF_STORAGE:
            continue
        text = short_text_of(scale, name)
        if text:
            found[name] = text
            continue
        attribute = scale.attrs.get_id(name)
        numbers = attribute.shape is not None and attribute.dtype.kind in "iuf"
        if numbers and name not in _TEXTS and attribute.get_storage_size() <= 1000:
            found[name] = scale.attrs[name]
    return found


def _by_nexus(reader: Reader) -> dict[int, Scale]:
    """Return the coordinates that the NXdata group has of which this is a signal."""
    found: dict[int, Scale] = {}
    dataset, length = reader.dataset, len(reader.shape)
    group, _, name = reader.ref.dataset.rpartition("/")
    with contextlib.ExitStack() as stack:
        top = Place(dataset.file["/"], reader.ref.path, "")
        place = lead(stack, top, group, LIVE_LOCKS) if group else top
        if not _names_of_axes(place.item, name, length):
            # Named in the detector, say: the default plot may link to it.
            place, name = _plot_of(stack, top, dataset)
        for number, axis_name in enumerate(_names_of_axes(place.item, name, length)):
            axis = _index_of(place.item, axis_name, number)
            if axis_name in ("", ".") or not 0 <= axis < length or axis in found:
                continue
            with _what_can_be_read(reader):
                scale = lead(stack, place, axis_name, LIVE_LOCKS).item
                if _fits(scale, dataset.shape[axis]):
                    found[axis] = _scale(scale, reader.shape[axis])
    return found


def _plot_of(
    stack: contextlib.ExitStack, top: Place, dataset: Any
) -> tuple[Place, str]:
    """Return the group of the default plot, and what it calls a dataset, if it does."""
    plot = default_plot(stack, top) or top
    for _, key, signal in signals_of(stack, plot):
        if key == key_of(dataset):
            return plot, signal
    return plot, ""


def _index_of(group: h5py.Group, name: str, number: int) -> int:
    """Return which axis of the signal has a coordinate: -1 where there are several."""
    stated = f"{name}_indices"
    if stated not in group.attrs:
        return number
    index = _number_of(group, stated)
    return -1 if index is None else int(index)


def _usid_dimensions(reader: Reader, axis: int) -> list[Scale]:
    """Return the coordinates of a USID source along an axis, one per dimension."""
    source = reader.dataset
    if source is None or source.ndim != 2 or USID_ANCILLARIES[1] not in source.attrs:
        return []
    found: list[Scale] = []
    name = (USID_ANCILLARIES, USID_SPECTROSCOPIC)[axis][1]
    with _what_can_be_read(reader):
        if name not in source.attrs:
            return []
        kind = source.attrs.get_id(name).dtype
        if h5py.check_ref_dtype(kind) is not h5py.Reference:
            return []
        values = source.file[source.attrs[name]]
        if (
            not isinstance(values, h5py.Dataset)
            or values.ndim != 2
            or values.shape[axis] != source.shape[axis]
            or values.shape[1 - axis] > _MOST_DIMENSIONS
            or values.dtype.kind not in "iuf"
            or values.nbytes > LARGEST_SCALE_BYTES
        ):
            return []
        check_storage(values, values.file.filename, name)
        numbers = values[...] if axis else values[...].T
        labels, units = texts_of(values, "labels"), texts_of(values, "units")
        if len(labels) != len(numbers):
            return []
        units += [""] * len(labels)
        found += [
            Scale(label, row[: reader.shape[axis]], {"units": unit} if unit else {})
            for label, unit, row in zip(labels, units, numbers, strict=False)
        ]
    return found


def _unpacked(scale: h5py.Dataset, values: Array) -> Array:
    """Return the numbers that values stand for, by the conventions of netCDF."""
    factor, offset = _number_of(scale, "scale_factor"), _number_of(scale, "add_offset")
    marks = [_number_of(scale, name) for name in ("_FillValue", "missing_value")]
    missing = np.isin(values, [mark for mark in marks if mark is not None])
    if values.dtype.kind == "i" and short_text_of(scale, "_Unsigned") == "true":
        values = values.view(values.dtype.str.replace("i", "u"))
    if factor is not None or offset is not None:
        values = values * float(1 if factor is None else factor) + float(offset or 0)
    return np.where(missing, np.nan, values) if missing.any() else values


def _number_of(scale: h5py.Dataset, name: str) -> Any:
    """Return an attribute that is one number, None where it is not."""
    if name not in scale.attrs or scale.attrs.get_id(name).shape not in ((), (1,)):
        return None
    value = np.ravel(scale.attrs[name])[0]
    return value if isinstance(value, np.number) else None


def note_on_numbers(reader: Reader) -> str:
    """Say what the numbers of a source stand for, where netCDF stores others.

    They arrive as they are stored. Empty where they are what they stand for.
    """
    source = reader.dataset
    if source is None or source.dtype.kind not in "iuf":
        return ""
    with (
        contextlib.suppress(SourceError),
        hdf5_errors_as(SourceError, f"{reader.ref} cannot be read"),
    ):
        factor, offset = (
            _number_of(source, "scale_factor"),
            _number_of(source, "add_offset"),
        )
        missing = _number_of(source, "_FillValue")
        parts = []
        if factor is not None or offset is not None:
            parts.append(f"they stand for number * {factor or 1} + {offset or 0}")
        if missing is not None and not np.isnan(missing):
            parts.append(f"{missing} stands for no value")
        if parts:
            return (
                f"numbers of {reader.ref} arrive as netCDF stores them: "
                f"{' and '.join(parts)} (its attributes scale_factor, add_offset and "
                "_FillValue)"
            )
    return ""


def _usid_positions(reader: Reader) -> dict[str, h5py.Dataset]:
    """Return the ancillary datasets of a USID source, none of any other source."""
    source = reader.dataset
    if source is None or source.ndim != 2 or reader.ref.position_axes != (0,):
        return {}
    found = {}
    with (
        contextlib.suppress(SourceError),
        hdf5_errors_as(SourceError, f"{reader.ref} cannot be read"),
    ):
        for name in (*USID_ANCILLARIES, *USID_SPECTROSCOPIC):
            kind = source.attrs.get_id(name).dtype
            if h5py.check_ref_dtype(kind) is not h5py.Reference:
                return {}
            found[name] = source.file[source.attrs[name]]
        positions = {name: found[name] for name in USID_ANCILLARIES}
        for name, ancillary in positions.items():
            # They are copied whole, so their shape, type and size are checked.
            if (
                not isinstance(ancillary, h5py.Dataset)
                or ancillary.ndim != 2
                or len(ancillary) != reader.geometry.size
                or ancillary.dtype.kind not in "iuf"
                or ancillary.nbytes > _LARGEST_ANCILLARY
            ):
                return {}
            check_storage(ancillary, ancillary.file.filename, name)
        return positions
    return {}


#: By the attribute ``interpretation`` of NeXus: how many last axes belong together.
_INTERPRETED = {"scalar": 0, "spectrum": 1, "image": 2, "rgba-image": 3}
#: Names of axes of a map: x, samy, pos_z, "Y [mm]"; but not det_x, that of an image.
_OF_MAP = re.compile(
    r"(?!.*(det|pix|frame|cam))(.*[^a-z])?(sam|scan|stage|motor|piezo|pos|s|p)?[xyz]"
    r"([^a-z].*)?",
    re.IGNORECASE,
)


class KnownAxes(NamedTuple):
    """Axes that count positions, and who says so, in words."""

    axes: tuple[int, ...]
    words: str


def known_axes(ref: SourceRef, dataset: Any) -> KnownAxes | None:
    """Return the axes that count positions, where the file of a source says so.

    By the run that it is an output of. By NeXus: it has an ``interpretation``, or the
    NXdata group that the user names it in calls its first axes by names and its last
    ones by none, or the first ones x, y or z and the last ones something else; so does
    the default plot, where it links to it. By USID: it is a main dataset. None where
    nothing is known, or cannot be read.
    """
    with contextlib.suppress(SourceError, *HDF5_ERRORS):
        if ref.upstream:
            map_shape = RunFile(Path(ref.path)).header.map_shape
            return KnownAxes(tuple(range(len(map_shape))), "its run has this map")
        inner = _INTERPRETED.get(short_text_of(dataset, "interpretation"))
        if inner is not None and inner < dataset.ndim:
            how = short_text_of(dataset, "interpretation")
            axes = tuple(range(dataset.ndim - inner))
            return KnownAxes(axes, f"its attribute interpretation is {how!r}")
        if "Position_Indices" in dataset.attrs and dataset.ndim == 2:
            return KnownAxes((0,), "it is a main dataset of USID")
        if dataset.ndim < 3:
            return None  # one of the last axes is left for a spectrum
        group, _, name = ref.dataset.rpartition("/")
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_file(ref.path, LIVE_LOCKS))
            top = Place(file["/"], ref.path, "")
            place = lead(stack, top, group, LIVE_LOCKS) if group else top
            names = _names_of_axes(place.item, name, dataset.ndim)
            if not names:
                # Named in the detector, say: the default plot may link to it.
                plot, signal = _plot_of(stack, top, dataset)
                group, names = (
                    plot.name,
                    _names_of_axes(plot.item, signal, dataset.ndim),
                )
        count = _leading(names)
        if count:
            called = ", ".join(shortened(repr(each)) for each in names[:count])
            words = f"the NXdata group {group or '/'} calls them {called}"
            return KnownAxes(tuple(range(count)), words)
    return None


def _names_of_axes(group: h5py.Group, name: str, ndim: int) -> list[str]:
    """Return what an NXdata group calls the axes of a signal; none where it does not.

    An axis without a name is called ".".
    """
    if short_text_of(group, "NX_class") != "NXdata" or "axes" not in group.attrs:
        return []
    signals = [short_text_of(group, "signal"), *texts_of(group, "auxiliary_signals")]
    names = texts_of(group, "axes")
    if name not in signals or len(names) > ndim:
        return []
    return [*names, *["."] * (ndim - len(names))]


def _leading(names: list[str]) -> int:
    """Return how many of the first axes are of the map, by their names; else 0."""
    for of_map in (lambda each: each != ".", _OF_MAP.fullmatch):
        count = len(list(itertools.takewhile(of_map, names)))
        if 0 < count < len(names) and not any(map(of_map, names[count:])):
            return count
    return 0
