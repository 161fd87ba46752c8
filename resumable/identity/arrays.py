"""Arrays that values hold: an identity has a digest of each, run files keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.identity.roots import write_value
from resumable.model import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Array = np.ndarray[Any, np.dtype[Any]]

#: Containers within each other that are looked into.
_DEEPEST = 10
#: Fields of a masked array that is written as a plain one.
_WITH_MASK = ("_data", "_mask")


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
        if not value.dtype.hasobject:
            # With a mask: as an array of pairs of value and mask.
            yield (
                name,
                value.toflex() if isinstance(value, np.ma.MaskedArray) else value,
            )
    elif depth < _DEEPEST and isinstance(value, (list, tuple, dict)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _within(f"{name}.{key}", item, depth + 1)


def by_document(arrays: Iterable[Array]) -> dict[str, Array]:
    """Return arrays by the canonical JSON that stands for them in an identity."""
    found: list[Any] = list(arrays)
    of_flex: Any = np.ma.fromflex
    found += [of_flex(one) for one in found if one.dtype.names == _WITH_MASK]
    return {canonical(write_value(array)): array for array in found}
