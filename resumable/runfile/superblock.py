"""The first bytes of an HDF5 file: where it ends, and whether it was closed."""

from __future__ import annotations

import os
from typing import NamedTuple

from resumable.system import read_at

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: More than any version needs up to its third address, of 8 bytes.
_MOST_BYTES = 100
#: Signature, version, and in every version the byte of the marks.
_LEAST_BYTES = 24
_OPEN_FOR_WRITING, _SWMR = 1, 4


class Superblock(NamedTuple):
    """What HDF5 writes at the begin of a file.

    The layout is that of the HDF5 file format specification, versions 0 to 3.
    """

    end: int
    """Where the file ends, as HDF5 sees it; a shorter one has been truncated."""
    open_for_writing: bool
    """It says that somebody writes: so it is, or that program was killed."""
    swmr: bool
    """It says that who writes lets others read at the same time."""


def superblock_of(fd: int) -> Superblock | None:
    """Find the superblock, behind the user block; None when it is no HDF5 file."""
    size, offset = os.fstat(fd).st_size, 0
    while offset < size:
        raw = read_at(fd, _MOST_BYTES, offset)
        if raw.startswith(_SIGNATURE):
            return _read(raw)
        # Behind a user block of a power of two.
        offset = max(512, 2 * offset)
    return None


def _read(raw: bytes) -> Superblock | None:
    if len(raw) < _LEAST_BYTES:
        return None
    version = raw[8]
    if version in (0, 1):
        width, first, marks = raw[13], 24 if version == 0 else 28, raw[20]
    elif version in (2, 3):
        width, first, marks = raw[9], 12, raw[11]
    else:
        return None
    # The third of four addresses.
    end = int.from_bytes(raw[first + 2 * width : first + 3 * width], "little")
    return Superblock(end, bool(marks & _OPEN_FOR_WRITING), bool(marks & _SWMR))
