"""What positions get besides a row of the source: inputs, and what all share."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable import identity
from resumable.errors import SourceError, hdf5_errors_as, in_python, option, warn_user
from resumable.model import format_bytes
from resumable.source.coordinates import known_axes
from resumable.source.live import (
    LOOK_AGAIN_S,
    file_state,
    read_unchanged,
    stamp_of,
    state_of_open,
)
from resumable.source.opening import open_dataset
from resumable.source.reader import open_reader
from resumable.source.reference import SourceRef, fixed_array, named_source
from resumable.system import machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from resumable.model import Geometry
    from resumable.source.reader import Reader
    from resumable.source.reference import SourceRef

_STRUCTURE_S = 1.0
#: Why axes of an input are taken, where they are those of the source, and where not.
_WHY = {
    True: "as in the source, which has as many axes",
    False: "the first ones, in the order of the map",
}


class MeasuredSource(NamedTuple):
    """A source, and what was found when it was opened."""

    ref: SourceRef
    """The source, with its axes counted from the front."""
    geometry: Geometry
    """How the positions lie in it."""
    dtype: np.dtype[Any]
    """Of one element."""
    taken: str = ""
    """Why the file's position axes were taken, where none were given."""


def measure_source(
    source: Any, position_axes: int | tuple[int, ...] | None = 0, *, same_file: str = ""
) -> MeasuredSource:
    """Open a source that may be written meanwhile, without a lock, and measure it.

    The arguments are those of :func:`named_source`; SourceError if it cannot be used.
    Without `position_axes` they are those that the file calls so, else the first one.
    What is measured does not change while a program writes, but makes no sense where it
    is written in part: then it is measured again, for a second.
    """
    named = named_source(source, position_axes, same_file=same_file)
    path = named.path
    deadline = time.monotonic() + _STRUCTURE_S
    while True:
        before, known = stamp_of(path), None
        try:
            with open_reader(dataclasses.replace(named, live=True)) as reader:
                ref = dataclasses.replace(reader.ref, live=False)
                found = MeasuredSource(ref, reader.geometry, reader.dtype)
                if reader.dataset is None:
                    return found
                if position_axes is None:
                    known = known_axes(ref, reader.dataset)
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
                if known is None or known.axes == ref.position_axes:
                    return found
                taken = measure_source(source, known.axes, same_file=same_file)
                return taken._replace(taken=known.words)
        time.sleep(LOOK_AGAIN_S)


def align_input(
    name: str, value: Any, source: SourceRef, geometry: Geometry
) -> SourceRef:
    """Return a reference to an input, checked to have the positions of the source.

    `value` is what the user gave as the input called `name`, or a pair of that and its
    position axes; `geometry` says how the positions lie in the source. Without a pair,
    an input with as many axes as the source has its positions on the same ones; any
    other, and an output of a run, has them first, in the order of the map. So which
    axes are taken does not depend on their lengths; a warning says where the other ones
    fit, too. SourceError where the input cannot be used, or has other positions.
    """
    axes, map_shape = source.position_axes, geometry.map_shape
    first = tuple(range(len(axes)))
    stated = isinstance(value, tuple) and len(value) == 2
    value, taken = value if stated else (value, first)
    other = taken
    full_shape: tuple[Any, ...] = ()
    try:
        seen = measure_source(value, taken, same_file=source.path)
        if not stated and axes != first:
            # The first axes come first in it.
            full_shape = (*seen.geometry.map_shape, *seen.geometry.spectrum_shape)
            alike = len(full_shape) == len(map_shape) + len(geometry.spectrum_shape)
            taken, other = first, axes
            if alike and not hasattr(value, "as_source"):
                taken, other = axes, first
                seen = measure_source(value, taken, same_file=source.path)
    except SourceError as error:
        msg = (
            f"the input {name!r} has a row for every position: {error} (what all "
            f"positions share, such as an energy axis, is given by {option('shared')})"
        )
        raise SourceError(msg) from error
    fits_too = (
        not stated
        and other != taken
        and max(other) < len(full_shape)
        and tuple(full_shape[axis] for axis in other) == map_shape
    )
    found = seen.geometry.map_shape
    if found == map_shape:
        if fits_too:
            advice = _axes_given(name, taken)
            warn_user(
                f"the input {name!r} has as many positions as the source on its axes "
                f"{taken} and on its axes {other}; {taken} are taken, "
                f"{_WHY[taken == axes]}. {advice[0].upper()}{advice[1:]} to say so, or "
                f"(source, {other})"
            )
        return seen.ref
    if source.path:
        # Both may have grown, the source after it was measured.
        now = measure_source(str(source), axes).geometry.map_shape
        if map_shape[1:] == found[1:] == now[1:] and map_shape[0] <= found[0] <= now[0]:
            return seen.ref
    hint = f"on its axes {other} they do" if fits_too else "where others hold them"
    msg = (
        f"the input {name!r} has positions of shape {found}, the source of shape "
        f"{map_shape}; they must agree. Its axes {taken} were taken"
        f"{'' if stated else ', ' + _WHY[taken == axes]}; {hint}: "
        f"{_axes_given(name, other if fits_too else 'axes')}"
    )
    raise SourceError(msg)


def _axes_given(name: str, axes: Any) -> str:
    """Say how the axes of an input are given, for which there is no option."""
    given = f"give inputs={{{name!r}: (source, {axes})}}"
    return in_python(given) or f"in a script, {given}"


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


_NUMBERS = (bool, int, float, complex, np.number, np.bool_)
#: For so long it is tried again to read a file that is being written.
_PATIENCE_S = 0.5


class SharedValue(NamedTuple):
    """A value that all positions share; it does not change any more."""

    value: Any
    """A number, a text, or an array that cannot be written to."""
    document: Any
    """What stands for it in the identity, as plain JSON: its contents."""
    place: str
    """The dataset that it was read from, or empty."""


def shared_value(name: str, given: Any, *, same_file: str = "") -> SharedValue:
    """Read, or copy, what a user gives under a name for all positions.

    It is a dataset, as :func:`named_source` takes it, an array, a number, or a
    SharedValue, which is taken as it is; all else, and what is larger than half of the
    memory, is a SourceError.
    """
    if isinstance(given, SharedValue):
        return given
    where, place = f"what all positions share as {name!r}", ""
    value: Any = given
    if isinstance(given, (list, tuple)):
        try:
            given = np.array(given)
        except ValueError as error:
            msg = f"{where} is no array: {error}"
            raise SourceError(msg) from error
    if isinstance(given, np.ndarray):
        if given.dtype.hasobject or isinstance(given, np.ma.MaskedArray):
            kind = "masked" if isinstance(given, np.ma.MaskedArray) else "of objects"
            advice = "give array.filled(VALUE)" if kind == "masked" else "give numbers"
            msg = f"{where} is an array that is {kind}; {advice}, or a parameter"
            raise SourceError(msg)
        value = fixed_array(given)
    elif not isinstance(given, _NUMBERS):
        try:
            value, place = whole_dataset(given, same_file=same_file)
        except SourceError as error:
            msg = f"{where}: {error} (an array or a number can be given instead)"
            raise SourceError(msg) from error
    return SharedValue(value, identity.write_value(value, where), place)


def whole_dataset(given: Any, *, same_file: str = "") -> tuple[Any, str]:
    """Read all of a dataset that :func:`named_source` takes; return it and its place.

    SourceError where it cannot be read, or is larger than half of the memory.
    """
    ref = named_source(given, same_file=same_file)
    return _read_whole(ref), str(ref)


def _read_whole(ref: SourceRef) -> Any:
    """Read a dataset between two moments in which nobody writes."""
    before = file_state(ref.path)
    if before.at_rest or not before.stamp:
        try:
            value = _read(ref)
        except SourceError:
            if file_state(ref.path) == before:
                raise
        else:
            if file_state(ref.path) == before:
                return value
    return read_unchanged(ref.path, lambda _: _read(ref), _PATIENCE_S)


def _read(ref: SourceRef) -> Any:
    """Read a whole dataset: an array, or a number, or text where it is one."""
    if ref.ragged:
        msg = f"{ref} is ragged: it is no array"
        raise SourceError(msg)
    with (
        open_dataset(ref.path, ref.dataset, live=True, whole=True) as dataset,
        hdf5_errors_as(SourceError, f"{ref} cannot be read"),
    ):
        available = machine.available_memory()
        if 2 * dataset.nbytes > available:
            msg = (
                f"{ref} has {format_bytes(dataset.nbytes)}, and is read whole: "
                f"{format_bytes(available)} of memory are available, twice that is "
                "needed"
            )
            raise SourceError(msg)
        value = dataset[()]
        if h5py.check_string_dtype(dataset.dtype):
            text = np.char.decode(np.asarray(value, bytes), "utf-8")
            return fixed_array(text) if text.ndim else str(text)
        return fixed_array(value) if isinstance(value, np.ndarray) else value
