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
    if type(value) is np.ndarray:
        if not value.dtype.hasobject:
            yield name, value
    elif depth < _DEEPEST and isinstance(value, (list, tuple, dict)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _within(f"{name}.{key}", item, depth + 1)


def by_document(arrays: Iterable[Array]) -> dict[str, Array]:
    """Return arrays by the canonical JSON that stands for them in an identity."""
    return {canonical(write_value(array)): array for array in arrays}
