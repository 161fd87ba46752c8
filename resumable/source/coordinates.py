"""Coordinates of the positions, from the dimension scales of a source."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import SourceError, hdf5_errors_as
from resumable.runfile import USID_ANCILLARIES, USID_SPECTROSCOPIC, Coordinates
from resumable.source.places import Column, check_storage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.source.reader import Reader

    Array = np.ndarray[Any, np.dtype[Any]]

#: Larger coordinates of an axis are not copied into the run file.
LARGEST_SCALE_BYTES = 64 << 20
#: Larger ancillary datasets of a USID source are not copied.
_LARGEST_ANCILLARY = 1 << 30
_MOST_SCALES = 100
_LONGEST_UNIT = 1000


def coordinates_of(reader: Reader) -> Coordinates:
    """Return the coordinates of an open source, to be copied into a new run file."""
    ref, name = reader.ref, reader.ref.dataset
    if isinstance(reader.dataset, Column):
        # A link leads to a table, and not to its column.
        name = name.removesuffix("/" + "/".join(reader.dataset.names))
    return Coordinates(
        map_shape=reader.geometry.map_shape,
        name=ref.name,
        link=(ref.path, name) if ref.path else None,
        scales=scales_of(reader),
        usid=_usid_positions(reader),
    )


def scales_of(reader: Reader) -> Mapping[int, tuple[str, Array, str]]:
    """Return name, values and units by number of the position axis.

    From dimension scales. Those that cannot be read, or are larger than 64 MB, are left
    out: results do not depend on them.
    """
    found: dict[int, tuple[str, Array, str]] = {}
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
                    scale.shape == (reader.dataset.shape[axis],)
                    and scale.dtype.kind in "iuf"
                    and scale.nbytes <= LARGEST_SCALE_BYTES
                ):
                    check_storage(scale, reader.ref.path, str(scale.name))
                    name = str(scale.name or "").rsplit("/", 1)[-1]
                    values = scale[: reader.shape[axis]]
                    found[number] = (name, values, _units(scale))
                    break
    return found


def _units(scale: h5py.Dataset) -> str:
    """Return the unit of a scale, empty when it is not a short text."""
    if "units" not in scale.attrs:
        return ""
    if scale.attrs.get_id("units").get_storage_size() > _LONGEST_UNIT:
        return ""
    units = scale.attrs["units"]
    text = units.decode(errors="replace") if isinstance(units, bytes) else units
    return text if isinstance(text, str) and len(text) <= _LONGEST_UNIT else ""


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
            check_storage(ancillary, reader.ref.path, name)
        return positions
    return {}
