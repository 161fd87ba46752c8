"""Axes of outputs: their names, coordinates and units, as the run file has them."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable.errors import RunFileError, hdf5_errors_as
from resumable.results.arrays import open_group
from resumable.runfile import advice_anew, find_own

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.runfile import RunFile

    Array = np.ndarray[Any, np.dtype[Any]]

#: Attributes of a scale that say where it is attached, and not what it means.
_OF_HDF5 = ("CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST")


class Axis(NamedTuple):
    """One axis: its name, and the coordinate of each of its places."""

    name: str
    values: Array
    """1-D. Numbers from 0 where the source has no coordinates; labels are texts."""
    attributes: Mapping[str, Any]
    """What the source has beside them, such as ``units`` and ``long_name``."""

    @property
    def units(self) -> str:
        """Units of the values, or an empty text."""
        return str(self.attributes.get("units", ""))

    @property
    def title(self) -> str:
        """What to write at a drawn axis."""
        name = self.attributes.get("long_name") or self.name
        return f"{name} [{self.units}]" if self.units else name


def position_axes(run: RunFile) -> tuple[Axis, ...]:
    """Return the axes of the map of a run."""
    outputs = run.header.outputs.items()
    name = next(name for name, output in outputs if output.per == "position")
    return axes_of(run, name)[: len(run.header.map_shape)]


def axes_of(run: RunFile, name: str) -> tuple[Axis, ...]:
    """Return the axes of an output: of the map, then its own.

    Of a ragged output those of the map, and those of one of its rows.
    """
    output, map_shape = run.header.outputs[name], run.header.map_shape
    lead = map_shape if output.per == "position" else ()
    scales: list[Axis | None] = []
    what = f"the axes in {run.path} cannot be read"
    with (
        contextlib.closing(open_group(run).file) as file,
        hdf5_errors_as(RunFileError, what, f": {advice_anew()}"),
    ):
        found = find_own(file, run.header.group, name)
        if isinstance(found, h5py.Group):  # a ragged output of a packed run
            found = found["count"]
        if isinstance(found, h5py.Dataset):
            scales = [_scale(found, number) for number in range(found.ndim)]
    # The stored form of a ragged output has axes of its own.
    scales = scales[: len(lead)] if output.ragged else scales
    plain = [f"position_{number}" for number in range(len(lead))]
    plain = ["position"] if len(lead) == 1 else plain
    plain += [f"{name}_{number}" for number in range(len(output.shape))]
    axes = [
        scale
        if scale is not None and scale.values.shape == (length,)
        else Axis(default, np.arange(length), {})
        for scale, default, length in itertools.zip_longest(
            scales[: len(plain)], plain, (*lead, *output.shape)
        )
    ]
    if output.labels:
        axes[-1] = Axis(f"{name}_labels", np.array(output.labels), {})
    return tuple(axes)


def _scale(dataset: h5py.Dataset, number: int) -> Axis | None:
    """Return what the first scale of an axis says."""
    for scale in dataset.dims[number].values():
        texts = {
            key: text.decode(errors="replace") if isinstance(text, bytes) else text
            for key, text in scale.attrs.items()
            if key not in _OF_HDF5 and not isinstance(text, h5py.Empty)
        }
        name = str(scale.name).rsplit("/", 1)[-1]
        # One without values says how long the axis is, and reads as zeros.
        stored = scale.id.get_storage_size()
        return Axis(name, scale[...] if stored else np.arange(len(scale)), texts)
    return None
