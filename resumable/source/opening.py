"""HDF5 files of others, opened for reading only, and never waiting for a pipe.

But for one that a killed ``publish`` has left half changed: that is mended first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from resumable.errors import (
    RunBusy,
    SourceError,
    TargetError,
    hdf5_errors_as,
    near_miss,
    shortened,
)
from resumable.runfile import mend_user_file, user_file_needs_mending
from resumable.source.live import file_state

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

#: Links, or virtual datasets within each other, that are followed to a dataset:
#: beyond a cycle HDF5 ends with the whole process.
MOST_STEPS = 16


def open_file(path: str, *, live: bool = False) -> h5py.File:
    """Open an HDF5 file for reading; `live` without a lock, which would stop a writer.

    SourceError where it is missing, not HDF5, or open for writing in another program.
    """
    where = Path(path)
    if not where.exists():
        near = [p.name for p in where.parent.iterdir()] if where.parent.is_dir() else []
        msg = f"there is no file {path}" + near_miss(where.name, near)
        raise SourceError(msg)
    if not where.is_file():
        # To open a pipe waits for ever, and a device has no end.
        kind = "is a folder" if where.is_dir() else "is not a regular file"
        msg = f"{path} {kind}; a source is an HDF5 file"
        raise SourceError(msg)
    _mend(path)
    # No chunk cache: blocks are read once, and an uncompressed chunk that is not
    # cached is read only as far as it is needed.
    options: dict[str, Any] = {"rdcc_nbytes": 0}
    if live:
        options["locking"] = False
    try:
        try:
            return h5py.File(path, "r", **options)
        except OSError as error:
            if file_state(path).swmr:
                options.update(swmr=True, libver="latest", locking=False)
            elif "locking flag" not in str(error):
                raise
            # It is open in this process already, with a lock or without: HDF5 takes
            # no other choice.
            elif options.pop("locking", None) is None:
                options["locking"] = False
            return h5py.File(path, "r", **options)
    except BlockingIOError as error:
        msg = (
            f"{path} is open for writing, in another program or in this one; close it "
            "there first, or follow what is written with follow="
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
        msg = f"{path} cannot be read as HDF5 ({error})"
        raise SourceError(msg) from error


def readable(where: str) -> AbstractContextManager[None]:
    """Raise what h5py raises about a damaged or odd file as a :class:`SourceError`."""
    return hdf5_errors_as(SourceError, f"{where} cannot be read")


def find_dataset(file: h5py.File, path: str, name: str) -> h5py.Dataset:
    """Return a dataset of an open file, or an error that names the nearest."""
    with readable(f"{path}::{name}"):
        check_links(file, path, name)
    try:
        found = file[name]
    except (KeyError, ValueError, RuntimeError) as error:
        names = names_of(file)
        hint = near_miss(name, names) or (
            f"; it has {listed(names)}" if names else "; it has no datasets"
        )
        msg = f"{path} has no dataset {name}{hint}"
        raise SourceError(msg) from error
    if not isinstance(found, h5py.Dataset):
        inside = [n for n in names_of(file) if n.startswith(name.rstrip("/") + "/")]
        hint = f"; inside it are {listed(inside)}" if inside else ""
        msg = f"{path}::{name} is a {type(found).__name__.lower()}, not a dataset{hint}"
        raise SourceError(msg)
    return found


def names_of(file: h5py.File) -> list[str]:
    """Return the names of the datasets in a file, at most the first thousand."""
    names: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(f"/{name}")
        return True if len(names) >= 1000 else None

    file.visititems(visit)
    return names


def listed(names: list[str]) -> str:
    """Name the first five, each shortened."""
    return ", ".join(shortened(name, 80) for name in names[:5])


def check_links(file: h5py.File, path: str, name: str, steps: int = MOST_STEPS) -> None:
    """Check that HDF5 can follow the links to a dataset.

    HDF5 opens whatever an external link names, and waits for ever for a pipe.
    """
    if not steps:
        msg = f"{path} has no dataset {name}: it leads over too many links"
        raise SourceError(msg)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    group: Any = file
    for number, part in enumerate(parts):
        link = isinstance(group, h5py.Group) and group.get(part, getlink=True)
        if not link:
            return
        rest = "/".join(parts[number + 1 :])
        if isinstance(link, h5py.SoftLink):
            # Its path is relative to the group that holds the link.
            here = "" if link.path.startswith("/") else "/".join(parts[:number])
            check_links(file, path, f"{here}/{link.path}/{rest}", steps - 1)
            return
        if isinstance(link, h5py.ExternalLink):
            for other in lying_at(link.filename, Path(path).parent)[:1]:
                with open_file(str(other)) as linked:
                    inside = f"{link.path}/{rest}"
                    check_links(linked, str(other), inside, steps - 1)
            return
        group = group[part]


def lying_at(name: str, folder: Path) -> list[Path]:
    """Return what exists where HDF5 looks for a file that another file names."""
    places = [
        folder / name,
        Path(name),
        folder / Path(name).name,
        Path(Path(name).name),
    ]
    return [place for place in dict.fromkeys(places) if place.exists()]


def _mend(path: str) -> None:
    """Repair a file if results were being published into it when that was killed.

    A file with a journal may be written in part only. To finish or undo what the
    journal says is what the user had asked for.
    """
    if user_file_needs_mending(path):
        try:
            mend_user_file(path)
        except (RunBusy, TargetError) as error:
            msg = (
                f"results are being published into {path}, or were when that was "
                f"killed: {error}. 'resumable repair {path}' mends the file"
            )
            raise SourceError(msg) from error
