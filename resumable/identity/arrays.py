"""Arrays that values hold: an identity has a digest of each, run files keep them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.identity.roots import write_value
from resumable.model import added_dtypes, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Array = np.ndarray[Any, np.dtype[Any]]

#: Containers within each other that are looked into.
_DEEPEST = 10
#: Fields of a masked array that is written as a record.
_MASKED = ("_data", "_mask", "_fill_value")
#: Those of the pairs as which versions before kept it.
_PAIRS = ("_data", "_mask")


def arrays_in(values: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays in some values, by a name for people: ``axis``, ``table.x``."""
    found: dict[str, Array] = {}
    for name, value in values.items():
        for inner, array in _within(name, value, 0):
            unique = inner
            while unique in found:
                unique += "_"
            found[unique] = array
    return found


def _within(name: str, value: Any, depth: int) -> Iterator[tuple[str, Array]]:
    if type(value) in (np.ndarray, np.ma.MaskedArray):
        if not (value.dtype.hasobject or added_dtypes(value.dtype)):
            masked = isinstance(value, np.ma.MaskedArray)
            yield name, _as_record(value) if masked else value
    elif depth < _DEEPEST and isinstance(value, (list, tuple, dict)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _within(f"{name}.{key}", item, depth + 1)


def by_document(arrays: Iterable[Array]) -> dict[str, Array]:
    """Return arrays by the canonical JSON that stands for them in an identity."""
    found: list[Any] = list(arrays)
    of_pairs: Any = np.ma.fromflex
    for one in list(found):
        # Of another program, or a user, there may be arrays with such fields.
        with contextlib.suppress(TypeError, ValueError, np.ma.MAError):
            if one.dtype.names == _MASKED:
                found.append(_of_record(one))
            elif one.dtype.names == _PAIRS:
                found.append(of_pairs(one).copy())
    return {canonical(write_value(array)): array for array in found}


def _as_record(value: Any) -> Array:
    """Return a masked array as one record, in which values and mask lie together."""
    parts = value.data, np.ma.getmaskarray(value), np.asarray(value.fill_value)
    kinds = [(part.dtype, part.shape) for part in parts]
    record = np.zeros((), list(zip(_MASKED, kinds, strict=True)))
    for name, part in zip(_MASKED, parts, strict=True):
        record[name] = part
    return record


def _of_record(record: Any) -> Any:
    data, mask, fill = (record[name] for name in _MASKED)
    value: Any = np.ma.array(data, mask=mask)
    # The default one of short texts, "N/A", cannot be set: it is cut.
    if value.fill_value != fill[()]:
        value.fill_value = fill[()]
    return value
