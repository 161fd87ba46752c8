"""Packing a finished run file: the same run, its rows compressed and checksummed.

And unpacking it, where rows are to be computed once more. Either way a whole new file
is made under a temporary name, read back and compared, and put in the place of the
old one. Who has that open reads on in it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import ParameterError, RunFileError
from resumable.model import ENTRY_DTYPE, filter_problem
from resumable.results.copy import (
    attach_scales,
    copy_group,
    create_chunked,
    datasets,
    same_rows,
    same_values,
    used_rows,
    write_ragged,
)
from resumable.runfile import (
    ALIGNMENT,
    CHUNKS,
    CHUNKS_DTYPE,
    Header,
    RaggedRows,
    RunFile,
    RunLock,
    SafeFile,
    chunks_agree,
    copied_rows,
    create_contiguous,
    make_groups,
    offsets_in,
    packed_chunks,
    put_text,
    reading_group,
    remove_ragged_files,
    run_folder_of,
    structure_digest,
    table_rows,
    target_errors,
)
from resumable.system import OpenFile, begin_work, disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Array = np.ndarray[Any, np.dtype[Any]]

#: HDF5 lays out metadata in blocks of this size, so that chunks lie together.
_META_BLOCK_BYTES = 64 << 10


def pack(run: RunFile, compression: str | None = "gzip") -> None:
    """Replace a finished run file by a packed one, as :meth:`Results.pack` says."""
    begin_work("pack results")
    wrong = filter_problem(compression)
    if wrong:
        raise ParameterError(wrong)
    with RunLock(run_folder_of(run)).held():
        # Again: somebody may have packed it since it was opened.
        now = RunFile(run.path)
        pack_locked(now, dict.fromkeys(_rows_of(now.header), compression))


def pack_locked(run: RunFile, methods: Mapping[str, str | None]) -> None:
    """Pack a run whose lock is held, each output by its method."""
    run.check_finished("it is packed")
    if run.header.format < 2:
        msg = (
            f"{run.path} has the older format {run.header.format}, which is not packed"
        )
        raise RunFileError(msg)
    if run.header.packed != dict(methods) or not chunks_agree(run):
        _replace(run, dict(methods))


def unpack_locked(run: RunFile) -> RunFile:
    """Turn a packed run, whose lock is held, into a plain one, to be written to."""
    _replace(run, None)
    return RunFile(run.path)


def _rows_of(header: Header) -> list[str]:
    return [name for name, o in header.outputs.items() if o.per == "position"]


def remove_spare_ragged_files(run: RunFile) -> None:
    """Remove the ragged files of a packed run, whose lock is held: it needs none."""
    if run.header.packed is not None:
        remove_ragged_files(run.path)


def _replace(run: RunFile, methods: dict[str, str | None] | None) -> None:
    """Write the file anew, compare, and put it in the place of the old one."""
    # Where the name is a link, the file that it leads to is replaced.
    path = Path(os.path.realpath(run.path))
    temporary = path.with_name(f".{path.stem}.pack")
    # Refuses a file that another program has open for writing.
    writing = OpenFile(path)
    try:
        with target_errors(path.parent, run.header.rows_bytes):
            temporary.unlink(missing_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            with disk.opened(temporary, flags) as fd:
                disk.copy_mode(path, fd)
                header = _write(fd, path, run, methods)
                disk.write_at(fd, header.to_bytes(), 0)
                os.fsync(fd)
            wrong = next(_differing(run, RunFile(temporary), path), None)
            if wrong is not None:
                msg = (
                    f"{wrong} of {run.path} did not read back as it was written; the "
                    "file is left as it was. Check this machine's disk and memory"
                )
                raise RunFileError(msg)
            if disk.NAMES_STAY:
                # It could not be replaced, where the file system is not NTFS.
                writing.close()
            disk.replace(temporary, path)
            # Until here they are needed, or after a kill are removed by the next run.
            remove_spare_ragged_files(RunFile(path))
    finally:
        writing.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(
    fd: int, path: Path, run: RunFile, methods: dict[str, str | None] | None
) -> Header:
    """Write all but the user block, and return the header that goes there."""
    plain = table_rows(run.header.size, run.header.format)
    header = run.header._replace(
        packed=methods,
        # As long as they are used, or with room again.
        rows=(
            {n: plain[n] for n in run.header.tables}
            if methods is None
            else {n: used_rows(n, run.array(n)[...]) for n in run.header.tables}
        ),
        # The text gets longer by less than it says of every output anyway.
        user_block=1 << (2 * len(run.header.to_bytes()) + 4095).bit_length(),
    )
    safe = SafeFile(fd)
    options = ALIGNMENT
    if methods is not None:
        options = {"meta_block_size": _META_BLOCK_BYTES}
    with (
        safe.checked(),
        reading_group(run) as old,
        h5py.File(safe, "w", userblock_size=header.user_block, **options) as file,
    ):
        group, aside = make_groups(file, header)
        make = functools.partial(_make, group, header)
        copy_group(old, group, make, safe.check, skip=header.ragged)
        if aside != group:
            make = functools.partial(_make, aside, header)
            copy_group(old.file[header.aside], aside, make, safe.check)
        link = old.get("source", getlink=True)
        if isinstance(link, h5py.ExternalLink):  # of a version before 4
            group["source"] = link
        for name in header.ragged:
            header = _write_ragged(old, group, run, header, name, path, safe.check)
        if methods is not None:
            header = _list_chunks(file, aside, header)
    with disk.stream_of(fd) as stream, h5py.File(stream, "r") as file:
        names = [*header.outputs, "completed_positions", "failed_positions"]
        names += [*header.tables, "finished"]
        if methods is not None:
            names = [CHUNKS, *(name for name in names if name not in methods)]
        offsets = offsets_in(file, header, names)
    header = header._replace(offsets=offsets, file_bytes=os.fstat(fd).st_size)
    return header._replace(structure=structure_digest(fd, header))


def _make(
    group: h5py.Group, header: Header, name: str, old: h5py.Dataset
) -> h5py.Dataset | None:
    """Make the datasets that are stored in another way than before."""
    if header.group_of(name) != group.name:
        return None
    if name in header.tables:
        return create_contiguous(group, name, (header.rows[name],), old.dtype)
    if name not in _rows_of(header):
        return None
    output = header.outputs[name]
    place = (group, name, old.shape, output.dtype, output.fill_value)
    if header.packed is None:
        return create_contiguous(*place)
    return create_chunked(*place, header.packed[name])


def _write_ragged(
    old: h5py.Group,
    group: h5py.Group,
    run: RunFile,
    header: Header,
    name: str,
    path: Path,
    check: Callable[[], None],
) -> Header:
    """Write a ragged output: all rows in order, or their entries and a ragged file."""
    rows, output = RaggedRows(run, name), header.outputs[name]
    if header.packed is None:
        made = create_contiguous(group, name, header.map_shape, ENTRY_DTYPE)
        entries = np.concatenate(list(copied_rows(rows, path)))
        made[...] = entries.reshape(header.map_shape)
        scaled, units = made, made
    else:
        made = group.create_group(name)
        create = functools.partial(create_chunked, method=header.packed[name])
        write_ragged(made, rows, create, check)
        scaled, units = made["count"], made["values"]
        header = header._replace(rows={**header.rows, name: len(units)})
    if output.units:
        put_text(units, "units", output.units)
    found = old[name] if run.header.packed is None else old[name]["count"]
    attach_scales(found, scaled, old, group)
    check()
    return header


def _list_chunks(file: h5py.File, aside: h5py.Group, header: Header) -> Header:
    """Write down where the chunks lie, those that follow each other as one."""
    # Until then the last ones are in the cache and have no place.
    file.flush()
    table = packed_chunks(file, header)
    made = create_contiguous(aside, CHUNKS, table.shape, CHUNKS_DTYPE)
    made[...] = table
    return header._replace(rows={**header.rows, CHUNKS: len(table)})


def _differing(old: RunFile, new: RunFile, path: Path) -> Iterator[str]:
    """Read the new file, which will be `path`; yield what is not as in the old one."""
    ragged = old.header.ragged
    with reading_group(old) as left, reading_group(new) as right:
        groups = dict.fromkeys((old.header.group, old.header.aside))
        for name in (
            f"{group}/{name}" for group in groups for name in datasets(left.file[group])
        ):
            # Single values are the texts it was made with; both are in the digest.
            # What takes no space is the length of an axis.
            ours, plain = left.file[name], name.rpartition("/")[2] not in ragged
            sized = ours.shape and ours.id.get_storage_size()
            if plain and sized and not same_rows(ours, right.file[name]):
                yield name.rpartition("/")[2]
    for name in ragged:
        rows, written = RaggedRows(old, name), RaggedRows(new, name, path)
        same = np.array_equal(rows.counts(), written.counts()) and all(
            same_values(*parts)
            for parts in zip(rows.in_order(), written.in_order(), strict=True)
        )
        if not same:
            yield name
