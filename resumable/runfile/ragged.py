"""Rows of a ragged output: the files they are appended to, and reading them.

While a run is computed, its ragged rows lie in ragged files (``.heap``) beside the run
file. A ragged file only gets longer. A writer locks the one that it appends to
exclusively; the run file has an entry per position that says where the rows lie. Only
rows that entries point to count: what a kill leaves in a ragged file is ignored, and
the next writer appends behind it. Packing moves all rows into the run file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import RunBusy, RunFileError, option
from resumable.model import ENTRY_DTYPE, divided_rows, divided_where
from resumable.system import OpenFile, disk, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resumable.model import Output
    from resumable.runfile.file import RunFile

    Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes of rows that are copied at once.
_AT_ONCE = 4 << 20
#: What follows the stem of the run file in the name of a ragged file.
_AFTER_STEM = re.compile(r"\.[0-9a-f]{16}\.heap")
#: The first line of a ragged file, with its number.
_LINE = "resumable heap {:016x}\n"
_LINE_BYTES = len(_LINE.format(0))


class MissingRaggedFileError(RunFileError):
    """A ragged file is missing: it was lost, or the run has been packed meanwhile."""


def ragged_path(run: Path, number: int) -> Path:
    """Return the path of the ragged file of this number."""
    return run.with_name(f"{run.stem}.{number:016x}.heap")


def ragged_files_of(run: Path) -> list[Path]:
    """Return all ragged files of a run file, whether entries point to them or not."""
    named = disk.files_in(run.parent, f"{run.stem}.", ".heap")
    return sorted(p for p in named if _AFTER_STEM.fullmatch(p.name, len(run.stem)))


def remove_ragged_files(run: Path) -> None:
    """Remove the ragged files of a run that needs none; the caller holds the lock."""
    for path in ragged_files_of(run):
        path.unlink(missing_ok=True)


def _own_half() -> int:
    """Return the upper half of the numbers of ragged files written by this kernel.

    Some cluster file systems can be mounted so that only the processes of one kernel
    see a lock. So no ragged file is written by two kernels.
    """
    return int(hashlib.sha256(machine.kernel().encode()).hexdigest()[:8], 16)


class RaggedFile(OpenFile):
    """A ragged file to append to, which no other writer can open meanwhile."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, exclusive=True)
        self.number = int(path.suffixes[-2][1:], 16)
        if self.size() < _LINE_BYTES:
            self.write_at(_LINE.format(self.number).encode(), 0)
        self._end = self.size()

    def add(self, parts: Sequence[Array] | Array, output: Output) -> Array:
        """Append the rows of some positions, an array each; return their entries.

        They are durable after :meth:`sync`.
        """
        entries = entries_without_rows(parts)
        counts = entries["count"]
        data = output.joined(parts).reshape(-1).view(np.uint8)
        self.write_at(data, self._end)
        entries["heap"] = self.number
        entries["offset"] = self._end + (np.cumsum(counts) - counts) * output.row_bytes
        entries[counts == 0] = np.zeros((), ENTRY_DTYPE)
        self._end += data.nbytes
        return entries


def entries_without_rows(parts: Sequence[Array] | Array) -> Array:
    """Return entries that say how many rows positions have, and not where."""
    entries = np.zeros(len(parts), ENTRY_DTYPE)
    entries["count"] = [len(part) for part in parts]
    return entries


def ragged_file_to_append(run: Path) -> RaggedFile:
    """Open a ragged file of a run that no other writer has locked, or a new one."""
    half = _own_half()
    for path in ragged_files_of(run):
        if int(path.suffixes[-2][1:], 16) >> 32 == half:
            # Taken by another worker, or by the worker of another thread.
            with contextlib.suppress(RunBusy):
                file = RaggedFile(path)
                line = disk.read_at(file.fileno(), _LINE_BYTES, 0)
                if line == _LINE.format(file.number).encode():
                    # Its maker may have been killed before its name was durable.
                    disk.sync_folder(path.parent)
                    return file
                # A power cut took its first line, but not what came after.
                file.close()
    while True:
        # Never a number that was used before: entries may still point to it.
        path = ragged_path(run, half << 32 | int.from_bytes(os.urandom(4), "little"))
        with disk.opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL):
            pass
        disk.sync_folder(path.parent)
        # Another worker that was looking for one may find it first.
        with contextlib.suppress(RunBusy):
            return RaggedFile(path)


def read_rows(run: Path, entries: Array, output: Output) -> list[Array]:
    """Read the rows of some positions by their entries."""
    parts = [np.empty((0, *output.shape), output.dtype)] * len(entries)
    for fd, where in _opened_files(run, entries, output):
        counts, offsets = entries["count"][where], entries["offset"][where]
        # Rows that were written together are read together.
        ends = offsets + counts * output.row_bytes
        for first, last in divided_where(offsets[1:] != ends[:-1]):
            begin, end = int(offsets[first]), int(ends[last - 1])
            data = bytearray(disk.read_at(fd, end - begin, begin))
            rows = np.frombuffer(data, output.dtype).reshape(-1, *output.shape)
            of_each = divided_rows(rows, counts[first:last])
            for index, part in zip(where[first:last].tolist(), of_each, strict=True):
                parts[index] = part
    return parts


def _opened_files(
    run: Path, entries: Array, output: Output
) -> Iterator[tuple[int, Array]]:
    """Open the ragged files that entries point to; yield each, and which entries do.

    RunFileError: one is missing, or entries point to what is not in it.
    """
    filled = entries["count"] != 0
    for number in np.unique(entries["heap"][filled]).tolist():
        path = ragged_path(run, number)
        where = np.flatnonzero(filled & (entries["heap"] == number))
        counts, offsets = entries["count"][where], entries["offset"][where]
        with contextlib.ExitStack() as stack:
            try:
                fd = stack.enter_context(disk.opened(path, os.O_RDONLY))
            except FileNotFoundError as error:
                msg = (
                    f"{path} is missing, in which there are rows of an unfinished run: "
                    "put it back beside the run file, or use "
                    f"{option('override', True)} to compute into a new file"
                )
                raise MissingRaggedFileError(msg) from error
            if disk.read_at(fd, _LINE_BYTES, 0) != _LINE.format(number).encode():
                msg = f"{path} is not the file of ragged rows that its name says"
                raise RunFileError(msg)
            size = os.fstat(fd).st_size
            inside = (counts > 0) & (offsets >= _LINE_BYTES) & (offsets <= size)
            if not (inside & (counts <= (size - offsets) // output.row_bytes)).all():
                msg = (
                    f"rows are missing at the end of {path}, which has {size:,} bytes: "
                    "it was cut or replaced. Put the whole file back, or use "
                    f"{option('override', True)} to compute into a new file"
                )
                raise RunFileError(msg)
            yield fd, where


class RaggedRows:
    """The rows of every position; their ragged files belong to the run file `home`."""

    def __init__(self, run: RunFile, name: str, home: Path | None = None) -> None:
        self._run, self._name = run, name
        self._home = home or Path(os.path.realpath(run.path))
        self.output: Output = run.header.outputs[name]
        self.map_shape = run.header.map_shape
        self._packed_counts: Array | None = None

    def counts(self) -> Array:
        """Return how many rows each position has, int64."""
        if self._packed():
            return self._counts_of_packed()
        # The status first: of what is marked then, the entries are there. They may be
        # of a longer run that has taken the place of this one meanwhile.
        done = self._run.array("completed_positions")[...] == 1
        counts = self._run.array(self._name)["count"].reshape(-1)[: len(done)]
        return np.where(done, counts, 0)

    def read(self, positions: Array, *, marked: bool = True) -> list[Array]:
        """Return the rows of some flat positions, an array each.

        Where `marked`, positions that are not marked as done have no rows.
        RunFileError: the rows are not where they should be.
        """
        if self._packed():
            return self._read_packed(positions)
        # Again the status first.
        done = self._run.array("completed_positions")[positions] == 1
        entries = self._run.rows(self._name, positions)
        if marked:
            entries[~done] = np.zeros((), ENTRY_DTYPE)
        try:
            return read_rows(self._home, entries, self.output)
        except MissingRaggedFileError:
            # Gone because the run has been packed since we looked?
            if self._packed():
                return self._read_packed(positions)
            raise

    def check(self) -> None:
        """Check that all rows are where they should be; reads none of them."""
        if self._packed():
            # HDF5 compares the checksums of both.
            for part in ("count", "index"):
                np.asarray(self._run.packed_part(self._name, part))
            return
        entries = self._run.array(self._name)[...].reshape(-1)
        done = self._run.array("completed_positions")[...] == 1
        for _ in _opened_files(self._home, entries[done], self.output):
            pass

    def _packed(self) -> bool:
        with self._run.opened() as (_, header):
            return header.packed is not None

    def _counts_of_packed(self) -> Array:
        if self._packed_counts is None:
            counts = self._run.packed_part(self._name, "count")
            self._packed_counts = np.asarray(counts).reshape(-1)
        return self._packed_counts

    def _read_packed(self, positions: Array) -> list[Array]:
        counts = self._counts_of_packed()
        ends = np.cumsum(counts)
        values = self._run.packed_part(self._name, "values")
        parts: list[Array] = []
        # Positions that follow each other are read in one go.
        for a, b in divided_where(np.diff(positions) != 1) if len(positions) else ():
            some = positions[a:b]
            first = int(ends[some[0]] - counts[some[0]])
            rows = values[first : int(ends[some[-1]])]
            parts += divided_rows(rows, counts[some])
        return parts

    def in_order(self) -> Iterator[Array]:
        """Go through the rows of all positions, span by span."""
        for start, stop in self.spans():
            yield self.output.joined(self.read(np.arange(start, stop)))

    def spans(self) -> Iterator[tuple[int, int]]:
        """Divide the positions into spans whose rows are read in one go."""
        taken = self.counts() * self.output.row_bytes + ENTRY_DTYPE.itemsize
        groups = np.cumsum(taken) // _AT_ONCE
        yield from divided_where(np.diff(groups) > 0)


def copied_rows(rows: RaggedRows, path: Path) -> Iterator[Array]:
    """Copy all rows into a ragged file of `path`, durable at the end; yield entries."""
    with contextlib.closing(ragged_file_to_append(path)) as file:
        for start, stop in rows.spans():
            parts = rows.read(np.arange(start, stop))
            yield file.add(parts, rows.output)
        file.sync()
