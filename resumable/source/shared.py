"""What all positions share: a dataset that is read whole, an array or a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable import identity
from resumable.errors import SourceError, hdf5_errors_as
from resumable.model import format_bytes
from resumable.source.live import file_state, read_unchanged
from resumable.source.opening import open_dataset
from resumable.source.reference import fixed_array, named_source
from resumable.system import machine

if TYPE_CHECKING:
    from resumable.source.reference import SourceRef

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
