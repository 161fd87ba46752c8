"""Copying finished results into an HDF5 file that is not ours."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from resumable.errors import (
    HDF5_ERRORS,
    ParameterError,
    ResumableError,
    TargetError,
    option,
)
from resumable.model import check_flag, filter_problem, format_bytes
from resumable.results.copy import (
    TABLES,
    copy_group,
    create_chunked,
    used_rows,
    write_ragged,
)
from resumable.runfile import (
    MAGIC,
    RaggedRows,
    create_contiguous,
    free_name,
    place_of_source,
    put_text,
    reading_group,
    superblock_of,
    user_file_locked,
    user_file_transaction,
)
from resumable.system import begin_work, disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resumable.runfile import RunFile, SafeFile

#: What a group that was published holds; no other is ever replaced. Versions before
#: 4 have all of it in one group.
_MARKS = (
    ("completed_positions", "run/identity", "run/sessions"),
    ("completed_positions", "identity", "sessions"),
)


def publish(
    run: RunFile, where: str, *, overwrite: bool = False, compression: str | None = None
) -> None:
    """Copy a finished run into another file, as :meth:`Results.publish` says."""
    begin_work("publish results")
    check_flag(ParameterError, "overwrite", overwrite)
    if problem := filter_problem(compression):
        raise ParameterError(problem)
    path, names = _place(where)
    run.check_finished("it is published")
    existed = path.exists()
    with user_file_locked(path, new=True) as (real, fd), contextlib.ExitStack() as undo:
        # An HDF5 file without objects.
        empty = io.BytesIO()
        h5py.File(empty, "w").close()
        image = empty.getvalue()
        found = disk.read_at(fd, len(image) + 1, 0)
        if image.startswith(found):
            # New, empty, or all that was written before a kill.
            if existed:
                undo.callback(disk.set_size, fd, len(found))
            else:
                undo.callback(real.unlink, missing_ok=True)
            disk.write_at(fd, image, 0)
            disk.sync(fd)
        _check_file(path, real, fd)
        with _told(path, run), user_file_transaction(real, fd) as safe:
            room = disk.free_bytes(real.parent)
            if compression is None and room < run.header.rows_bytes:
                # Found early; it would be found in any case.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with reading_group(run) as old, h5py.File(safe, "r+") as file:
                new = not len(file)
                parent = _parent(file, path, names, overwrite=overwrite)
                if new and names[:-1]:
                    _lead_viewers(file, names)
                # All that is new comes first: what a deleted group leaves free lies
                # in the middle of the file, where changes need memory.
                made = parent.create_group(free_name(parent, f"{names[-1]}-new"))
                _fill(made, old, run, compression, safe)
                _name_source(made, old, run.path, real)
                if names[-1] in parent:
                    del parent[names[-1]]
                parent.move(made.name, names[-1])
        undo.pop_all()


def _place(where: str) -> tuple[Path, list[str]]:
    """Take ``file.h5::/group`` apart."""
    text, separator, group = str(where).rpartition("::")
    names = [name for name in group.split("/") if name]
    if not separator or not text or not names or {".", ".."} & set(names):
        msg = f"{where!r} names no group in a file; write 'file.h5::/group'"
        raise ParameterError(msg)
    path = Path(text)
    if not path.parent.is_dir():
        msg = f"there is no folder {path.parent}; make it, or give another file"
        raise ParameterError(msg)
    return path, names


def _check_file(path: Path, real: Path, fd: int) -> None:
    """Refuse what cannot be changed in one transaction."""
    status = os.fstat(fd)
    if disk.read_at(fd, len(MAGIC), 0) == MAGIC:
        msg = f"{path} is a run file, which nobody writes to; give another file"
        raise TargetError(msg)
    superblock = superblock_of(fd)
    if superblock is None:
        msg = f"{path} is not an HDF5 file; give another file"
        raise TargetError(msg)
    if superblock.open_for_writing:
        msg = (
            f"{path} says that it is open for writing: a program writes to it, or was "
            f"killed when it did. Close that program; then 'h5clear -s {path}', which "
            "comes with HDF5, takes the mark away"
        )
        raise TargetError(msg)
    if superblock.end > status.st_size:
        msg = (
            f"{path} is truncated: it has {status.st_size:,} bytes of "
            f"{superblock.end:,}; restore it first"
        )
        raise TargetError(msg)
    if status.st_nlink > 1:
        msg = (
            f"{path} has {status.st_nlink} names (hard links), and all of them would "
            "change: a backup, perhaps. Publish into a copy of it"
        )
        raise TargetError(msg)
    if not os.access(real.parent, os.W_OK):
        msg = f"{real.parent} cannot be written, and a journal must lie beside {path}"
        raise TargetError(msg)


@contextlib.contextmanager
def _told(path: Path, run: RunFile) -> Iterator[None]:
    """Turn the errors of the system and of HDF5 into one that says what to do."""
    try:
        yield
    except ResumableError:
        raise
    except HDF5_ERRORS as error:
        if isinstance(error, OSError) and error.errno in disk.FULL:
            msg = (
                f"no room for the results of {run.path.name} in {path}: they are "
                f"{format_bytes(run.header.rows_bytes)} ({error.strerror}); nothing "
                "has changed in it. Make room, or compress them"
            )
        else:
            msg = (
                f"{run.path.name} cannot be published into {path} ({error}); nothing "
                "has changed in it"
            )
        raise TargetError(msg) from error


def _parent(
    file: h5py.File, path: Path, names: list[str], *, overwrite: bool
) -> h5py.Group:
    """Return the group to write into, made where it is missing.

    ParameterError: the name is taken, or leads through a link or a dataset.
    """
    group = file["/"]
    for name in names[:-1]:
        if name in group:
            _check_group(group, name, path)
        group = group.require_group(name)
    name = names[-1]
    if name not in group and group.get(name, getlink=True) is None:
        return group
    where = f"{path}::{group.name.rstrip('/')}/{name}"
    if not overwrite:
        msg = (
            f"{where} exists; give another name, or {option('overwrite', True)} to "
            "replace it"
        )
        raise ParameterError(msg)
    _check_group(group, name, path)
    if not any(all(mark in group[name] for mark in marks) for marks in _MARKS):
        msg = (
            f"{where} was not published by this library, and nothing else is "
            "replaced; give another name"
        )
        raise ParameterError(msg)
    return group


def _check_group(group: h5py.Group, name: str, path: Path) -> None:
    # A link might lead to another file, where there is no transaction.
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(group[name], h5py.Group):
        what = "a dataset" if isinstance(link, h5py.HardLink) else "a link"
        msg = (
            f"{path}::{group.name.rstrip('/')}/{name} is {what}, not a group; give "
            "another name"
        )
        raise ParameterError(msg)


def _lead_viewers(file: h5py.File, names: list[str]) -> None:
    """Have viewers of NeXus find the results in a file that has nothing else.

    They go by an entry: there is none where the group lies in the root.
    """
    group = file["/"]
    group.attrs["NX_class"] = "NXroot"
    for name in names[:-1]:
        group.attrs["default"] = name
        group = group[name]
        group.attrs["NX_class"] = "NXentry"
    group.attrs["default"] = names[-1]


def _fill(
    made: h5py.Group, old: h5py.Group, run: RunFile, method: str | None, safe: SafeFile
) -> None:
    header = run.header

    def make_in(
        group: h5py.Group, name: str, dataset: h5py.Dataset
    ) -> h5py.Dataset | None:
        if header.group_of(name) == header.aside and name in TABLES:
            shape = (used_rows(name, dataset[...]),)
            return create_contiguous(group, name, shape, dataset.dtype)
        output = header.outputs.get(name)
        if group != made or output is None or output.per == "run":
            return None
        return create(group, name, dataset.shape, output.dtype, output.fill_value)

    create: Callable[..., h5py.Dataset] = create_contiguous
    if method is not None:
        create = functools.partial(create_chunked, method=method)
    copy_group(
        old, made, functools.partial(make_in, made), safe.check, skip=header.ragged
    )
    if header.aside != header.group:
        aside = made.create_group(free_name(made, "run"))
        # Here it is no entry of which the group is the default plot.
        aside.attrs["NX_class"] = "NXcollection"
        copy_group(
            old.file[header.aside],
            aside,
            functools.partial(make_in, aside),
            safe.check,
        )
        del aside.attrs["default"]
    for name in header.ragged:
        inner = made.create_group(name)
        write_ragged(inner, RaggedRows(run, name), create, safe.check)


def _name_source(made: h5py.Group, old: h5py.Group, run_path: Path, real: Path) -> None:
    """Write down where the source is, seen from where the group is now."""
    link = old.get("source", getlink=True)
    if isinstance(link, h5py.ExternalLink):  # of a version before 4
        place, dataset = link.filename, link.path
    elif "source" in old.attrs:
        # Bytes where the name of the file is no text.
        place, _, dataset = os.fsdecode(old.attrs["source"]).rpartition("::")
    else:
        return
    source = os.path.realpath(run_path.resolve().parent / place)
    if "source" in made.attrs:
        del made.attrs["source"]
    put_text(made, "source", place_of_source(source, dataset, real.parent))
