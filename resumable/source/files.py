"""HDF5 files of others, opened for reading only, and never waiting for a pipe."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from resumable.errors import (
    RunBusy,
    SourceError,
    TargetError,
    no_such_file,
    shortened,
)
from resumable.runfile import mend_user_file, user_file_needs_mending
from resumable.source.live import file_state

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Choices of file locks, the first wanted most: HDF5 opens a file that this process has
#: open already with the choice of then only.
LOCKS = (None, False, True)
#: Without a lock, which would stop the program that writes.
LIVE_LOCKS = (False, None, True)
#: What h5py calls the ordinary driver of HDF5, the second on Windows.
ORDINARY_DRIVERS = ("sec2", "windows")
#: Variables of the environment with folders where HDF5 looks first.
FOLDERS_OF_LINKS = "HDF5_EXT_PREFIX"
FOLDERS_OF_PARTS = "HDF5_VDS_PREFIX"
FOLDERS_OF_RAW_DATA = "HDF5_EXTFILE_PREFIX"
#: First bytes of a file, what it is, and what to do.
_KINDS = (
    (b"\x1f\x8b", "is compressed with gzip", "unpack it with gunzip"),
    (b"BZh", "is compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "is compressed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it with unzstd"),
    (b"PK\x03\x04", "is a zip archive", "unpack it; numpy.load reads a .npz"),
    (b"\x93NUMPY", "is an array of numpy", "read it with numpy.load"),
    (b"CDF\x01", "is netCDF-3", "nccopy -k nc4 OLD NEW makes HDF5 of it"),
    (b"CDF\x02", "is netCDF-3", "nccopy -k nc4 OLD NEW makes HDF5 of it"),
    (b"CDF\x05", "is netCDF-3", "nccopy -k nc4 OLD NEW makes HDF5 of it"),
    (b"\x0e\x03\x13\x01", "is HDF4", "h4toh5 makes HDF5 of it"),
    (b"MATLAB 5.0", "is a MATLAB 5 file", "save it in MATLAB with -v7.3, as HDF5"),
    (b"II*\x00", "is a TIFF image", "write its images into a dataset of an HDF5 file"),
    (b"MM\x00*", "is a TIFF image", "write its images into a dataset of an HDF5 file"),
    (b"version https://git-lfs", "is a pointer of Git LFS", "run git lfs pull"),
)
_HEAD_BYTES = 512


class OtherLocks(SourceError):
    """A file is open in this process with another choice of file locks."""


def open_file(path: str, locks: Sequence[Any] = LOCKS) -> h5py.File:
    """Open an HDF5 file for reading, with the first choice of locks that HDF5 takes.

    SourceError where it is missing, not HDF5, or open for writing in another program.
    """
    where = Path(path)
    if not where.exists():
        raise SourceError(no_such_file(where))
    if not where.is_file():
        # To open a pipe waits for ever, and a device has no end.
        kind = "is a folder" if where.is_dir() else "is not a regular file"
        msg = f"{path} {kind}; a source is an HDF5 file"
        raise SourceError(msg)
    if user_file_needs_mending(path):
        # Results were being published into it when that was killed, and it may be
        # written in part only. To finish or undo what its journal says is what the
        # user had asked for.
        try:
            mend_user_file(path)
        except (RunBusy, TargetError) as error:
            msg = (
                f"results are being published into {path}, or were when that was "
                f"killed: {error}. 'resumable repair {path}' mends the file"
            )
            raise SourceError(msg) from error
    try:
        return _opened(path, locks)
    except BlockingIOError as error:
        msg = (
            f"{path} is open for writing, in another program or in this one; close it "
            "there first, or follow what is written with {option('follow')}"
        )
        raise SourceError(msg) from error
    except OSError as error:
        if "already open for write" in str(error):
            msg = (
                f"{path} is open for writing, in another program or in this one, or a "
                "program that wrote it was killed and has left its mark: then run "
                f"h5clear -s {path}, which is a part of HDF5"
            )
            raise SourceError(msg) from error
        lengths = re.search(r"eof = (\d+), .*stored_eof = (\d+)", str(error))
        if lengths:
            there, whole = map(int, lengths.groups())
            msg = (
                f"{path} is truncated: it has {there:,} bytes of {whole:,}; copy it "
                "again"
            )
            raise SourceError(msg) from error
        msg = f"{path} cannot be read as HDF5{_kind_of(where) or f' ({error})'}"
        raise SourceError(msg) from error


def _opened(path: str, locks: Sequence[Any]) -> h5py.File:
    # No chunk cache: blocks are read once, and an uncompressed chunk that is not
    # cached is read only as far as it is needed.
    options: dict[str, Any] = {"rdcc_nbytes": 0}
    for choice in locks:
        try:
            return h5py.File(path, "r", locking=choice, **options)
        except OSError as error:
            if file_state(path).swmr:
                options.update(swmr=True, libver="latest", locking=False)
                return h5py.File(path, "r", **options)
            if "flag values don't match" not in str(error):
                raise
    msg = f"{path} is open in this process with another choice of file locks; close it"
    raise OtherLocks(msg)


def locks_of(file: h5py.File) -> Any:
    """Return the choice of file locks that an open file was opened with."""
    used, best_effort = file.id.get_access_plist().get_file_locking()
    return "best-effort" if used and best_effort else bool(used)


def _kind_of(path: Path) -> str:
    """Say what a file is that is not HDF5; empty where it cannot be told."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if h5py.is_hdf5(path):
            return ""
    except OSError:
        return ""
    if not head:
        return ": it is empty (0 bytes)"
    for begin, what, advice in _KINDS:
        if head.startswith(begin):
            return f": it {what}; {advice}"
    with contextlib.suppress(UnicodeDecodeError):
        # The last character may be cut.
        text = head.decode() if len(head) < _HEAD_BYTES else head[:-4].decode()
        if all(c.isprintable() or c.isspace() for c in text):
            return f": it is a text file that begins with {shortened(repr(text), 40)}"
    return (
        f": it begins with the bytes {head[:8].hex(' ')}, which are not those of HDF5"
    )


def folders_of(path: str, variable: str) -> list[Path]:
    """Return the folders where HDF5 looks for files that the file at `path` names.

    `variable` is that of the environment which can name more of them.
    """
    here = Path(path).parent
    named = os.environ.get(variable, "").replace("${ORIGIN}", str(here))
    first = [Path(folder) for folder in named.split(os.pathsep) if folder]
    # Where the file is a symbolic link, also the folder that it leads to.
    real = Path(os.path.realpath(path)).parent
    return list(dict.fromkeys([*first, here, Path(), real]))


def lying_at(name: str, path: str, variable: str) -> list[Path]:
    """Return what exists where HDF5 looks for a file that the file at `path` names."""
    # An absolute name that is not there counts by its last part.
    names = [name, Path(name).name] if Path(name).is_absolute() else [name]
    folders = folders_of(path, variable)
    places = dict.fromkeys(folder / each for each in names for folder in folders)
    return [place for place in places if place.exists()]
