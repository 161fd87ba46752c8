"""Inputs: further sources that have the positions of the source."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from resumable.errors import SourceError
from resumable.source.live import read_structure
from resumable.source.reader import open_reader
from resumable.source.reference import SourceRef, refer

if TYPE_CHECKING:
    import numpy as np

    from resumable.model import Geometry


def look_at(ref: SourceRef) -> tuple[Geometry, np.dtype[Any]]:
    """Return the geometry and dtype of a source, which may be written meanwhile.

    Raises
    ------
    SourceError
        The source cannot be used.
    """

    def look() -> tuple[Geometry, np.dtype[Any]]:
        with open_reader(dataclasses.replace(ref, live=True)) as reader:
            return reader.geometry, reader.dtype

    return read_structure(ref.path, look)


def aligned(
    name: str, value: Any, source: SourceRef, map_shape: tuple[int, ...]
) -> SourceRef:
    """Refer to an input and check that it has the source's positions.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
        What the user gave, or a pair of it and its position axes.
    source : SourceRef
    map_shape : tuple of int
        Lengths of the position axes of the source.

    Raises
    ------
    SourceError
        It cannot be used, or has other positions.
    """
    axes = source.position_axes
    leading = tuple(range(len(axes)))
    if isinstance(value, tuple) and len(value) == 2:
        value, only = value
        candidates = [only]
    elif hasattr(value, "as_source"):
        candidates = [leading, axes]
    else:
        candidates = [axes, leading]
    shapes = []
    for candidate in candidates:
        try:
            ref = refer(value, candidate, same_file=source.path, live=True)
        except SourceError as error:
            if candidate == candidates[-1]:
                msg = (
                    f"the input {name!r} has a row for every position: {error}. What "
                    "all positions share, such as an energy axis, is a parameter "
                    "(param.Array)"
                )
                raise SourceError(msg) from error
            continue
        found = look_at(ref)[0].map_shape
        if found == map_shape or _have_grown(source, map_shape, found):
            return ref
        shapes.append(found)
    msg = (
        f"the input {name!r} has positions of shape {shapes[0]}, the source of "
        f"shape {map_shape}; they must agree (give (source, axes) "
        "when its positions are on other axes)"
    )
    raise SourceError(msg)


def _have_grown(
    source: SourceRef, before: tuple[int, ...], found: tuple[int, ...]
) -> bool:
    """Return whether both have grown, the source after it was measured."""
    now = look_at(source)[0].map_shape
    return before[1:] == found[1:] == now[1:] and before[0] <= found[0] <= now[0]
