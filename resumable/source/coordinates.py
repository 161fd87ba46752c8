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
    from resumable.source.reader import Reader

    Array = np.ndarray[Any, np.dtype[Any]]
    from resumable.source.reference import SourceRef

#: Larger coordinates of an axis are not copied into the run file.
LARGEST_SCALE_BYTES = 64 << 20
#: Larger ancillary datasets of a USID source are not copied.
_LARGEST_ANCILLARY = 1 << 30
_MOST_SCALES = 100
#: Texts that say what the numbers of a scale mean, and how long they may be.
_TEXTS = ("units", "calendar", "long_name", "standard_name", "positive", "axis")


def coordinates_of(reader: Reader) -> Coordinates:
    """Return the coordinates of an open source, to be copied into a new run file."""
    ref, name = reader.ref, reader.ref.dataset
    if isinstance(reader.dataset, Column):
        # A link leads to a table, and not to its column.
        name = name.removesuffix("/" + "/".join(reader.dataset.names))
    return Coordinates(
        map_shape=reader.geometry.map_shape,
        spectrum_shape=reader.geometry.spectrum_shape,
        name=ref.name,
        link=(ref.path, name) if ref.path else None,
        scales=scales_of(reader),
        spectrum_scales={},
        usid=_usid_positions(reader),
    )


def scales_of(reader: Reader) -> dict[int, Scale]:
    """Return what dimension scales say of the position axes, by number of the axis.

    Those that cannot be read, or are larger than 64 MB, are left out: results do not
    depend on them.
    """
    found: dict[int, Scale] = {}
    if reader.dataset is None:
        return found
    for number, axis in enumerate(reader.ref.position_axes):
        with (
            contextlib.suppress(SourceError),
            hdf5_errors_as(SourceError, f"{reader.ref} cannot be read"),
        ):
            scales = reader.dataset.dims[axis].values()
            for scale in itertools.islice(scales, _MOST_SCALES):
                # The first one that has a number for each position.
                if (
                    scale.shape != (reader.dataset.shape[axis],)
                    or scale.dtype.kind not in "iuf"
                    or scale.nbytes > LARGEST_SCALE_BYTES
                ):
                    continue
                name = str(scale.name or "").rsplit("/", 1)[-1]
                if short_text_of(scale, "NAME").startswith(NO_VARIABLE):
                    found[number] = Scale(name)
                    continue
                check_storage(scale, scale.file.filename, str(scale.name))
                values = _unpacked(scale, scale[: reader.shape[axis]])
                texts = {key: short_text_of(scale, key) for key in _TEXTS}
                found[number] = Scale(
                    name, values, {k: v for k, v in texts.items() if v}
                )
                break
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
                plot = default_plot(stack, top) or top
                for _, key, signal in signals_of(stack, plot):
                    if key == key_of(dataset):
                        group = plot.name
                        names = _names_of_axes(plot.item, signal, dataset.ndim)
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
