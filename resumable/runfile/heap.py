"""Heaps: where the rows of ragged outputs lie while a run is computed.

A heap is a file beside the run file that only gets longer. A writer has one to
itself, by a lock, and appends to it; the run file has an entry per position that says
where its rows lie. Only what entries point to counts, so a heap that was torn by a
kill, or has more than was marked, does no harm: the next writer appends behind it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import RunBusy, RunFileError
from resumable.model import ENTRY_DTYPE, divided
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resumable.model import Output

    Array = np.ndarray[Any, np.dtype[Any]]

#: What follows the stem of the run file in the name of a heap.
_AFTER_STEM = re.compile(r"\.[0-9a-f]{16}\.heap")
#: A heap begins with a line that says what it is, and its number.
_LINE = "resumable heap {:016x}\n"
_LINE_BYTES = len(_LINE.format(0))


def heap_path(run: Path, number: int) -> Path:
    """Return where the heap of this number lies."""
    return run.with_name(f"{run.stem}.{number:016x}.heap")


def heaps_of(run: Path) -> list[Path]:
    """Return all heaps of a run file, whether entries point to them or not."""
    named = disk.files_in(run.parent, f"{run.stem}.", ".heap")
    return sorted(p for p in named if _AFTER_STEM.fullmatch(p.name, len(run.stem)))


def remove_heaps(run: Path) -> None:
    """Remove the heaps of a run that needs none any more; the claim is held."""
    for path in heaps_of(run):
        path.unlink(missing_ok=True)


def _number_of(path: Path) -> int:
    return int(path.suffixes[-2][1:], 16)


def _own_half() -> int:
    """Return the upper half of the numbers of heaps that are written here.

    A lock may be seen by the processes of one kernel only (some cluster file systems
    can be mounted so), and so heaps are not shared among kernels.
    """
    kernel = platform.node()
    with contextlib.suppress(OSError):
        kernel += Path("/proc/sys/kernel/random/boot_id").read_text()
    return int(hashlib.sha256(kernel.encode()).hexdigest()[:8], 16)


class Heap:
    """A heap to append to: one that nobody writes to, or a new one.

    Parameters
    ----------
    run : Path
        The run file. The caller may write to it.

    Raises
    ------
    OSError
        As the disk says.
    """

    def __init__(self, run: Path) -> None:
        self.number, self._file = _free_heap(run) or _new_heap(run)
        if self._file.size() < _LINE_BYTES:
            self._file.write_at(_LINE.format(self.number).encode(), 0)
        self._end = self._file.size()

    def add(self, parts: Sequence[Array] | Array, output: Output) -> Array:
        """Append the rows of some positions, an array each; return their entries.

        They are durable after :meth:`sync`.
        """
        entries = entries_without_rows(parts)
        counts = entries["count"]
        data = output.joined(parts).reshape(-1).view(np.uint8)
        self._file.write_at(data, self._end)
        entries["heap"] = self.number
        entries["offset"] = self._end + (np.cumsum(counts) - counts) * output.row_bytes
        entries[counts == 0] = np.zeros((), ENTRY_DTYPE)
        self._end += data.nbytes
        return entries

    def sync(self) -> None:
        """Return when all that was added has reached the disk."""
        self._file.sync()

    def close(self) -> None:
        """Close the file and let others append to it."""
        self._file.close()


def entries_without_rows(parts: Sequence[Array] | Array) -> Array:
    """Return entries that say how many rows positions have, and not where."""
    entries = np.zeros(len(parts), ENTRY_DTYPE)
    entries["count"] = [len(part) for part in parts]
    return entries


def _free_heap(run: Path) -> tuple[int, disk.OpenFile] | None:
    half = _own_half()
    for path in heaps_of(run):
        number = _number_of(path)
        if number >> 32 == half:
            # Taken by another worker, or by the worker of another thread.
            with contextlib.suppress(RunBusy):
                file = disk.OpenFile(path, exclusive=True)
                if file.size() < _LINE_BYTES or _begins(file, number):
                    # Its maker may have been killed before its name was durable.
                    disk.sync_folder(path.parent)
                    return number, file
                # A power cut took its first line, but not what came after.
                file.close()
    return None


def _begins(file: disk.OpenFile, number: int) -> bool:
    return file.read_at(_LINE_BYTES, 0) == _LINE.format(number).encode()


def _new_heap(run: Path) -> tuple[int, disk.OpenFile]:
    # Never a number that was used before: entries may still point to it.
    number = _own_half() << 32 | int.from_bytes(os.urandom(4), "little")
    path = heap_path(run, number)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    with disk.opened(path, flags):
        pass
    disk.sync_folder(path.parent)
    try:
        return number, disk.OpenFile(path, exclusive=True)
    except RunBusy:
        # Another worker that was looking for one has found it first.
        return _new_heap(run)


def read_rows(run: Path, entries: Array, output: Output) -> list[Array]:
    """Read the rows of some positions by their entries.

    Parameters
    ----------
    run : Path
        The run file.
    entries : ndarray of ENTRY_DTYPE
    output : Output
        Whose rows they are.

    Returns
    -------
    list of ndarray, shape (count, *shape)

    Raises
    ------
    RunFileError
        A heap is missing, or entries point to what is not in it.
    """
    parts = [np.empty((0, *output.shape), output.dtype)] * len(entries)
    filled = entries["count"] != 0
    for number in np.unique(entries["heap"][filled]).tolist():
        where = np.flatnonzero(filled & (entries["heap"] == number))
        _read_heap(heap_path(run, number), number, entries[where], output, where, parts)
    return parts


def _read_heap(
    path: Path,
    number: int,
    entries: Array,
    output: Output,
    where: Array,
    parts: list[Array],
) -> None:
    counts, offsets = entries["count"], entries["offset"]
    with _opened_heap(path, number) as (fd, size):
        _check_inside(path, size, entries, output)
        # Rows that were written together are read together.
        ends = offsets + counts * output.row_bytes
        apart = np.flatnonzero(offsets[1:] != ends[:-1]) + 1
        for first, last in zip([0, *apart], [*apart, len(where)], strict=True):
            begin, end = int(offsets[first]), int(ends[last - 1])
            data = bytearray(disk.read_at(fd, end - begin, begin))
            rows = np.frombuffer(data, output.dtype).reshape(-1, *output.shape)
            of_each = divided(rows, counts[first:last])
            for index, part in zip(where[first:last].tolist(), of_each, strict=True):
                parts[index] = part


def check_entries(run: Path, entries: Array, output: Output) -> None:
    """Check that the rows of some positions are where their entries say.

    Raises
    ------
    RunFileError
        A heap is missing, or entries point to what is not in it.
    """
    entries = entries[entries["count"] != 0]
    for number in np.unique(entries["heap"]).tolist():
        path = heap_path(run, number)
        with _opened_heap(path, number) as (_, size):
            _check_inside(path, size, entries[entries["heap"] == number], output)


def _check_inside(path: Path, size: int, entries: Array, output: Output) -> None:
    counts, offsets = entries["count"], entries["offset"]
    inside = (counts > 0) & (offsets >= _LINE_BYTES) & (offsets <= size)
    if not (inside & (counts <= (size - offsets) // output.row_bytes)).all():
        msg = (
            f"rows are missing at the end of {path}, which has {size:,} bytes: it was "
            "cut or replaced. Put the whole file back, or use override=True to compute "
            "into a new file"
        )
        raise RunFileError(msg)


@contextlib.contextmanager
def _opened_heap(path: Path, number: int) -> Iterator[tuple[int, int]]:
    try:
        with disk.opened(path, os.O_RDONLY) as fd:
            line = disk.read_at(fd, _LINE_BYTES, 0)
            if line != _LINE.format(number).encode():
                msg = f"{path} is not the heap that its name says"
                raise RunFileError(msg)
            yield fd, os.fstat(fd).st_size
    except FileNotFoundError as error:
        msg = (
            f"{path} is missing, in which there are rows of an unfinished run: put it "
            "back beside the run file, or use override=True to compute into a new file"
        )
        raise MissingHeapError(msg) from error


class MissingHeapError(RunFileError):
    """A heap is not there: it was lost, or the run has been packed meanwhile."""
