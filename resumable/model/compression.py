"""How rows can be compressed, and what that needs."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from resumable.errors import near_miss

#: Method -> HDF5's number of the filter, and its options.
FILTERS: dict[str, tuple[int, tuple[int, ...]]] = {
    "gzip": (1, (4,)),
    "lz4": (32004, (0,)),
    "lzf": (32000, ()),
    "zstd": (32015, (3,)),
}
#: HDF5 or h5py bring these along, hdf5plugin the others.
_BUILT_IN = frozenset({"gzip", "lzf"})


def problem(method: Any) -> str:
    """Say why a method of compression cannot be used here; empty when it can.

    Examples
    --------
    >>> problem("gzip")
    ''
    >>> problem("gzp")
    "there is no compression 'gzp'; did you mean 'gzip'? (there are gzip, lz4, lzf, \
zstd)"
    """
    if method is None:
        return ""
    if not isinstance(method, str) or method not in FILTERS:
        there = ", ".join(FILTERS)
        return (
            f"there is no compression {method!r}{near_miss(str(method), FILTERS)} "
            f"(there are {there})"
        )
    if method not in _BUILT_IN and importlib.util.find_spec("hdf5plugin") is None:
        return (
            f"the compression {method!r} needs the package hdf5plugin, which is not "
            "installed; pip install hdf5plugin (or resumable-hdf5[filters]), or use "
            "'gzip'"
        )
    return ""


def load(method: str | None) -> None:
    """Make a method, which has no :func:`problem`, known to HDF5."""
    if method is not None and method not in _BUILT_IN:
        importlib.import_module("hdf5plugin")
