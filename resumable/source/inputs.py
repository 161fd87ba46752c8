"""Inputs: further sources with the positions of the source, opened with it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.errors import SourceError
from resumable.source.live import LOOK_AGAIN_S, file_state, stamp_of, state_of_open
from resumable.source.reader import open_reader
from resumable.source.reference import SourceRef, named_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from resumable.model import Geometry
    from resumable.source.reader import Reader

_STRUCTURE_S = 1.0


class MeasuredSource(NamedTuple):
    """A source, and what was found when it was opened."""

    ref: SourceRef
    """The source, with its axes counted from the front."""
    geometry: Geometry
    """How the positions lie in it."""
    dtype: np.dtype[Any]
    """Of one element."""


def measure_source(
    source: Any, position_axes: int | tuple[int, ...] = 0, *, same_file: str = ""
) -> MeasuredSource:
    """Open a source that may be written meanwhile, without a lock, and measure it.

    The arguments are those of :func:`named_source`; SourceError if it cannot be used.
    What is measured does not change while a program writes, but makes no sense where it
    is written in part: then it is measured again, for a second.
    """
    named = named_source(source, position_axes, same_file=same_file)
    path = named.path
    deadline = time.monotonic() + _STRUCTURE_S
    while True:
        before = stamp_of(path)
        try:
            with open_reader(dataclasses.replace(named, live=True)) as reader:
                ref = dataclasses.replace(reader.ref, live=False)
                found = MeasuredSource(ref, reader.geometry, reader.dtype)
                if reader.dataset is None:
                    return found
                state = state_of_open(reader.dataset.file, path, before)
        except SourceError:
            now = file_state(path)
            quiet = named.ragged or (now.stamp == before and not now.open)
            if quiet or time.monotonic() >= deadline:
                raise
        else:
            # HDF5 itself opens no file that is marked, but by SWMR.
            unchanged = state.swmr or (before == stamp_of(path) and not state.open)
            if unchanged or time.monotonic() >= deadline:
                return found
        time.sleep(LOOK_AGAIN_S)


def align_input(
    name: str, value: Any, source: SourceRef, map_shape: tuple[int, ...]
) -> SourceRef:
    """Return a reference to an input, checked to have the positions of the source.

    `value` is what the user gave as the input called `name`, or a pair of that and its
    position axes; `map_shape` holds the lengths of the position axes of the source.
    SourceError where the input cannot be used, or has other positions.
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
            seen = measure_source(value, candidate, same_file=source.path)
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
        if found == map_shape:
            return seen.ref
        if not source.path:
            shapes.append(found)
            continue
        # Both may have grown, the source after it was measured.
        now = measure_source(str(source), axes).geometry.map_shape
        if map_shape[1:] == found[1:] == now[1:] and map_shape[0] <= found[0] <= now[0]:
            return seen.ref
        shapes.append(found)
    msg = (
        f"the input {name!r} has positions of shape {shapes[0]}, the source of "
        f"shape {map_shape}; they must agree (give (source, axes) "
        "when its positions are on other axes)"
    )
    raise SourceError(msg)


@contextlib.contextmanager
def open_sources(
    source: SourceRef,
    inputs: Mapping[str, SourceRef],
    *,
    live: bool = False,
    length: int = 0,
) -> Iterator[tuple[Reader, dict[str, Reader]]]:
    """Open a source and the inputs, as they are now.

    Where they may be written meanwhile (`live`), they are read without locks, and the
    caller checks that nobody has written. `length` positions of the first position axis
    count; 0: all there are. SourceError where one cannot be read, or an input is
    shorter than the source.
    """
    if source.path:
        source = dataclasses.replace(source, live=live, length=length)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_reader(source))
        if live:
            # As much of every input as there is of the source.
            wanted = reader.geometry.map_shape
            whole = {
                n: dataclasses.replace(ref, live=True) for n, ref in inputs.items()
            }
            for name, ref in whole.items():
                with open_reader(ref) as found:
                    there = found.geometry.map_shape
                if there[0] < wanted[0] or there[1:] != wanted[1:]:
                    msg = (
                        f"the input {name!r} has positions of shape {there}, the "
                        f"source of shape {wanted}"
                    )
                    raise SourceError(msg)
            inputs = {
                name: dataclasses.replace(ref, length=wanted[0])
                for name, ref in whole.items()
            }
        opened = {
            name: stack.enter_context(open_reader(ref)) for name, ref in inputs.items()
        }
        yield reader, opened
