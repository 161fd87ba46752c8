"""Which axes of a source count positions, where the file itself says so."""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py

from resumable.errors import HDF5_ERRORS, SourceError, shortened
from resumable.runfile import RunFile
from resumable.source.files import LIVE_LOCKS, open_file
from resumable.source.listing import (
    default_plot,
    key_of,
    short_text_of,
    signals_of,
    texts_of,
)
from resumable.source.places import Place, lead

if TYPE_CHECKING:
    from resumable.source.reference import SourceRef

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
