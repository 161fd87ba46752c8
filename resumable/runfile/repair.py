"""A run file that another program has open, has marked, changed or written anew.

Rows lie where the header says, and nothing else is trusted. A program that opens the
file for writing marks it; one that is killed leaves the mark. One that writes the file
anew, such as ``h5repack``, keeps the user block and moves the rows. None of these harms
a row: :func:`repair_run_file` removes the mark, and has the header say where the rows
are now.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import HDF5_ERRORS, RunFileError
from resumable.runfile.hdf5 import find_own, superblock_of
from resumable.runfile.header import (
    CHUNKS,
    CHUNKS_DTYPE,
    CLOSE,
    HEADER_LIMIT,
    MAGIC,
    REPAIR,
    Header,
    advice_anew,
    structure_digest,
)
from resumable.runfile.journal import (
    mend_user_file,
    user_file_locked,
    user_file_needs_mending,
    user_file_transaction,
)
from resumable.runfile.rows import packed_chunks
from resumable.system import disk

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.runfile.file import RunFile


def read_header(fd: int, path: Path) -> Header:
    """Read and check the header of an open run file."""
    block = disk.read_at(fd, 4096, 0)
    if block.startswith(MAGIC) and b"\n" not in block[len(MAGIC) + 65 :]:
        # A header longer than a page.
        block = disk.read_at(fd, min(os.fstat(fd).st_size, HEADER_LIMIT), 0)
    try:
        return Header.from_bytes(block, path)
    except RunFileError as error:
        if user_file_needs_mending(path):
            raise RunFileError(_unrepaired(path)) from error
        raise


def check_structure(fd: int, header: Header, path: Path) -> None:
    """Check that all but the rows is what the file was made with, a mark left out.

    RunFileError: it is truncated, changed or written anew; the message says which, and
    what to do.
    """
    size, block = os.fstat(fd).st_size, superblock_of(fd)
    if size >= header.file_bytes:
        if structure_digest(fd, header) == header.structure:
            return
        if block and block.open_for_writing and _same_but_for_mark(fd, header):
            return
    if user_file_needs_mending(path):
        raise RunFileError(_unrepaired(path))
    repair = f"{REPAIR}{path}' looks where its rows are, and mends it"
    if block is not None and block.open_for_writing:
        if not disk.try_lock(fd, exclusive=False):
            msg = (
                f"{path} is open for writing in another program, or in this one, which "
                "has changed it: "
                f"{CLOSE}, then run again"
            )
            raise RunFileError(msg)
        msg = (
            f"{path} is marked as open for writing and was changed: a program has it "
            f"open, or was killed. Close it there; if none has it open, {repair}"
        )
    elif block is not None and size < block.end:
        msg = (
            f"{path} is truncated: it has {size:,} bytes of "
            f"{max(block.end, header.file_bytes):,}. Copy it again from where it came; "
            f"else {advice_anew()}"
        )
    elif size != header.file_bytes:
        msg = (
            f"{path} was changed or written anew by another program: it has "
            f"{size:,} bytes, not {header.file_bytes:,}. {repair}"
        )
    else:
        msg = (
            f"{path} is damaged or was changed by another program, its structure is "
            f"not the one it was made with: {repair}"
        )
    raise RunFileError(msg)


def _unrepaired(path: Path) -> str:
    return f"{path} was being repaired when that was killed: {REPAIR}{path}'"


def open_elsewhere(path: Path) -> str:
    """Say that a run file is open for writing in another program, or marked so."""
    with disk.opened(path, os.O_RDONLY) as fd:
        block = superblock_of(fd)
        if block is None or not block.open_for_writing:
            return ""
        if not disk.try_lock(fd, exclusive=False):
            return "open for writing in another program"
    return (
        "marked as open for writing, by a program that has it open or was killed: "
        "its rows are whole; 'resumable repair' removes the mark"
    )


def _same_but_for_mark(fd: int, header: Header) -> bool:
    return structure_digest(fd, header, unmarked=True) == header.structure


def repair_run_file(path: Path) -> str:
    """Mend a run file that another program has marked, changed or moved rows in.

    Returns what was done, in words. A kill leaves the file as it was, or a journal by
    which the next call finishes. RunFileError where rows cannot be found, RunBusy where
    the file is open elsewhere, TargetError where it cannot be written.
    """
    done = mend_user_file(path)
    with user_file_locked(path) as (real, fd):
        if disk.read_at(fd, len(MAGIC), 0) != MAGIC:
            if superblock_of(fd) is None:
                msg = f"{path} is not a run file, nor HDF5; there is nothing to mend"
                raise RunFileError(msg)
            return done if done == "mended" else f"{done}; it is not a run file"
        header = read_header(fd, path)
        place = marks_at(fd)
        if place is not None:
            disk.write_at(fd, b"\0", place)
            disk.sync(fd)
            done = "the mark of a program that had it open was removed"
        size = os.fstat(fd).st_size
        same = size >= header.file_bytes
        if same and structure_digest(fd, header) == header.structure:
            return done
        block = superblock_of(fd)
        if block is None or size < block.end:
            check_structure(fd, header, path)
        now = _as_found(fd, header, path)._replace(file_bytes=size)
        now = now._replace(structure=structure_digest(fd, now))
        text = now.to_bytes()
        if len(text) > now.user_block:
            msg = f"{path} has no room for its header: {advice_anew()}"
            raise RunFileError(msg)
        with user_file_transaction(real, fd) as file:
            file.write(text.ljust(now.user_block, b"\0"))
        moved = sum(
            now.offsets[name] != place for name, place in header.offsets.items()
        )
        return f"its header says what the file is now; {moved} datasets had been moved"


def marks_at(fd: int) -> int | None:
    """Return the place of the marks where they are set and no checksum covers them."""
    block = superblock_of(fd)
    return block.marks_at if block and block.open_for_writing else None


def _as_found(fd: int, header: Header, path: Path) -> Header:
    """Return the header with the places where HDF5 finds the rows and tables."""
    offsets = {}
    try:
        with disk.stream_of(fd) as stream, h5py.File(stream, "r") as file:
            for name in header.offsets:
                found = find_own(file, header.group_of(name)[1:], name)
                offsets[name] = _offset_of(found, name, header, path)
            user_block = int(file.userblock_size)
            if header.packed is not None and _chunks_moved(
                fd, header._replace(offsets=offsets), file
            ):
                msg = (
                    f"{path} is packed and was written anew: its rows are whole, and "
                    "h5py reads them, but its table of chunks is not right any more; "
                    "put the file from before in its place"
                )
                raise RunFileError(msg)
    except HDF5_ERRORS as error:
        if isinstance(error, RunFileError):
            raise
        raise RunFileError(_unreadable(path, error)) from error
    return header._replace(offsets=offsets, user_block=user_block)


def chunks_agree(run: RunFile) -> bool:
    """Return whether the chunks of a packed run are where its table says, to HDF5.

    RunFileError: HDF5 cannot read the file.
    """
    with run.opened() as (fd, header):
        try:
            with os.fdopen(os.dup(fd), "rb") as stream, h5py.File(stream, "r") as file:
                return not _chunks_moved(fd, header, file)
        except HDF5_ERRORS as error:
            raise RunFileError(_unreadable(run.path, error)) from error


def _chunks_moved(fd: int, header: Header, file: h5py.File) -> bool:
    """Return whether chunks of a packed file are not where its table says."""
    offset, length = header.extents()[CHUNKS]
    table = np.frombuffer(disk.read_at(fd, length, offset), CHUNKS_DTYPE)
    return not np.array_equal(packed_chunks(file, header), table)


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path} is damaged, HDF5 cannot read it ({error}): {advice_anew()}"


def _offset_of(found: Any, name: str, header: Header, path: Path) -> int:
    """Return where a dataset lies, checked to be what the header declares."""
    output = header.outputs.get(name)
    dtype = header.tables.get(name, np.dtype(np.uint8))
    if output is not None:
        dtype = output.stored.dtype
    elif name == CHUNKS:
        dtype = CHUNKS_DTYPE
    length = header.extents()[name][1]
    if (
        not isinstance(found, h5py.Dataset)
        or found.dtype.itemsize != dtype.itemsize
        or found.nbytes != length
    ):
        msg = (
            f"{path} is damaged, its {name} is not what it was made with: "
            f"{advice_anew()}"
        )
        raise RunFileError(msg)
    place: int | None = found.id.get_offset()
    if place is None:
        msg = (
            f"{path} was written anew, with its {name} in chunks; its rows are whole. "
            "'h5repack -l CONTI -f NONE OLD NEW' writes them in one piece each; put "
            "NEW in its place and repair that"
        )
        raise RunFileError(msg)
    return place
