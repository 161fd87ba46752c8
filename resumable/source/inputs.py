"""Inputs: further sources that have the positions of the source."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.errors import SourceError
from resumable.source.live import read_structure
from resumable.source.reader import open_reader
from resumable.source.reference import SourceRef, named_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from resumable.model import Geometry
    from resumable.source.live import FileState
    from resumable.source.reader import Reader


class Seen(NamedTuple):
    """What a source is like."""

    ref: SourceRef
    """Where it is."""
    geometry: Geometry
    """How the positions lie in it."""
    dtype: np.dtype[Any]
    """Of one element."""


def look_at(
    source: Any, position_axes: int | tuple[int, ...] = 0, *, same_file: str = ""
) -> Seen:
    """Return what a source is like, which may be written meanwhile; takes no lock.

    The arguments are those of :func:`named_source`.

    Raises
    ------
    SourceError
        The source cannot be used.
    """
    named = named_source(source, position_axes, same_file=same_file)

    def look() -> tuple[Seen, FileState]:
        with open_reader(dataclasses.replace(named, live=True)) as reader:
            ref = dataclasses.replace(reader.ref, live=False)
            return Seen(ref, reader.geometry, reader.dtype), reader.state_now()

    if not named.path or named.ragged:
        return look()[0]
    return read_structure(named.path, look)


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
            seen = look_at(value, candidate, same_file=source.path)
        except SourceError as error:
            if candidate == candidates[-1]:
                msg = (
                    f"the input {name!r} has a row for every position: {error}. What "
                    "all positions share, such as an energy axis, is a parameter "
                    "(param.Array)"
                )
                raise SourceError(msg) from error
            continue
        found = seen.geometry.map_shape
        if found == map_shape or _have_grown(source, map_shape, found):
            return seen.ref
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
    now = look_at(str(source), source.position_axes).geometry.map_shape
    return before[1:] == found[1:] == now[1:] and before[0] <= found[0] <= now[0]


@contextlib.contextmanager
def open_sources(
    source: SourceRef,
    inputs: Mapping[str, SourceRef],
    *,
    live: bool = False,
    length: int = 0,
) -> Iterator[tuple[Reader, dict[str, Reader]]]:
    """Open a source and the inputs, as they are now.

    Parameters
    ----------
    source : SourceRef
    inputs : dict of SourceRef
        By argument name.
    live : bool
        They may be written meanwhile: they are read without locks, and whoever calls
        this sees to it that what was read can be trusted.
    length : int
        Of the first position axis, as far as it counts; 0: all there is.

    Raises
    ------
    SourceError
        One of them cannot be read, or an input is shorter than the source.
    """
    if source.path:
        source = dataclasses.replace(source, live=live, length=length)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_reader(source))
        if live:
            map_shape = reader.geometry.map_shape
            inputs = {name: _cut(name, ref, map_shape) for name, ref in inputs.items()}
        opened = {
            name: stack.enter_context(open_reader(ref)) for name, ref in inputs.items()
        }
        yield reader, opened


def _cut(name: str, ref: SourceRef, map_shape: tuple[int, ...]) -> SourceRef:
    """Refer to an input that is written meanwhile, cut to the length of the source."""
    ref = dataclasses.replace(ref, live=True)
    with open_reader(ref) as reader:
        there = reader.geometry.map_shape
    if there[0] < map_shape[0] or there[1:] != map_shape[1:]:
        msg = (
            f"the input {name!r} has positions of shape {there}, the source of shape "
            f"{map_shape}"
        )
        raise SourceError(msg)
    return dataclasses.replace(ref, length=map_shape[0])
