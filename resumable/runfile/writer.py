"""What a worker writes: rows, then a sync, then their status. Nothing else.

::

    thread of the worker                    thread of the commits
    --------------------                    ---------------------
    write(start, done, failed, values)      waits until a commit is due
      | 1  pwrite rows (and entries)          | 3  fdatasync ragged file and run file
      v                                       v
    page cache                              rows are on the disk
      | 2  list the span as unmarked          | 4  pwrite status bytes of the spans
      v                                       v
    return: the worker computes on          marks are in the page cache
                                              | 5  fdatasync, where flush() waits for it
                                              v
                                            marks are on the disk

What is left when the worker is killed, or the power is cut, between two steps:

====== ==================================================================
before what is left
====== ==================================================================
1      The span is pending and is computed again.
2 to 4 Rows may be in the file, unmarked: they are computed again and
       written over.
in 4   Some positions are marked; the rows of all of them are on the disk.
5      All are marked. A kill keeps the marks; a power cut may lose marks,
       and those positions are computed again.
====== ==================================================================

So the status never says that a row is there which is not on the disk. A commit is due
at the checkpoint, after `COMMIT_BYTES`, and when no further rows come for a while; the
worker computes on meanwhile, so waiting for the disk costs next to nothing. Where the
driver writes all rows (``writer="driver"``), workers send them in a `RowBuffer`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import RunBusy
from resumable.model import stretches
from resumable.runfile.ragged import (
    RaggedFile,
    entries_without_rows,
    ragged_file_to_append,
)
from resumable.system import LockFile, OpenFile, disk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resumable.runfile.header import Header

    Array = np.ndarray[Any, np.dtype[Any]]

#: Rows are committed after this many bytes even before the checkpoint, so that the
#: disk works while the worker computes and the last commit is short.
COMMIT_BYTES = 32 << 20
#: Rows are committed after so many seconds without a further one: a worker at a long
#: position can then be ended without losing what came before. Each such commit is a
#: sync, so many workers wait longer: together they make no more than so many a second.
QUIET_S, QUIET_COMMITS_PER_S = 1.0, 100
#: Rows that do not lie together are written in pieces of this many bytes.
_PIECE_BYTES = 1 << 20
#: A piece with more runs of rows than this is read, changed and written whole.
_SCATTERED = 16


class WriteTarget(NamedTuple):
    """Where a worker writes; sent to the worker with its job."""

    path: Path
    header: Header
    lock: Path
    """File whose text names the session that may write."""
    writers: Path
    """File that every writer holds a shared lock on."""
    token: str
    """Names this session."""
    checkpoint_s: float
    """Seconds after which rows are committed."""
    workers: int = 1
    """How many write at once."""


class RowBuffer:
    """Keeps rows, to be sent to the driver, in place of a :class:`RowWriter`."""

    calls_written = calls_marked = 0

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def write(
        self, start: int, done: Array, failed: Array, values: Mapping[str, Array]
    ) -> None:
        """Keep the rows of a span of positions."""
        # Copies: a block computation may fill the same arrays again.
        kept = {name: rows.copy() for name, rows in values.items()}
        self._rows.append((start, done.copy(), failed.copy(), kept))

    def collect(self) -> tuple[tuple[Any, ...], ...]:
        """Return what was kept, the arguments of each write, and drop it."""
        rows, self._rows = self._rows, []
        return tuple(rows)

    def flush(self) -> None:
        """Do nothing: the driver commits."""

    def close(self) -> None:
        """Do nothing: nothing is open."""


class RowWriter:
    """Writes the rows and the status of one worker. A process has one per run.

    RunBusy: the session this worker belongs to is over.
    """

    def __init__(self, target: WriteTarget) -> None:
        self._target = target
        self._header = target.header
        self._lock_file = LockFile(target.writers)
        over = f"the session of this worker on {target.path} is over"
        # A new session takes this lock exclusively before it reads the status. So it
        # waits until this process has closed its writer or has ended.
        if not self._lock_file.acquire(exclusive=False, patience=10):
            raise RunBusy(over)
        with contextlib.ExitStack() as undo:
            undo.callback(self._lock_file.release)
            if target.token not in LockFile(target.lock).read_text():
                raise RunBusy(over)
            self._file = OpenFile(target.path)
            undo.pop_all()
        # Opened when there are ragged rows to write.
        self._ragged: RaggedFile | None = None
        #: Calls of :meth:`write`, and how many of them are marked by now.
        self.calls_written = self.calls_marked = 0
        #: Start, done and failed of spans that are written but not yet marked.
        self._marks: list[tuple[int, Array, Array]] = []
        self._bytes = 0
        self._oldest = self._newest = 0.0
        #: Seconds without a further row after which rows are committed.
        self._quiet_s = min(
            max(QUIET_S, target.workers / QUIET_COMMITS_PER_S), target.checkpoint_s
        )
        self._asked = self._closing = False
        self._durable = True
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._commit_loop, name="resumable-commit", daemon=True
        )
        self._thread.start()

    def write(
        self, start: int, done: Array, failed: Array, values: Mapping[str, Array]
    ) -> None:
        """Write the rows of a span of positions; the commit thread marks them later.

        `done` and `failed` are masks over the span. `values` has the rows of these
        positions in order, fill values for failed ones; a ragged output has an array
        for each. Raises OSError, also where an earlier commit failed.
        """
        if self._error is not None:
            raise self._error
        touched = done | failed
        if not touched.any():
            return
        # The span is cut to what was touched: rows between are written back as they
        # are, and rows behind may belong to another worker by now.
        first = int(touched.argmax())
        reached = slice(first, len(touched) - int(touched[::-1].argmax()))
        start, touched = start + first, touched[reached]
        written = 0
        for name, rows in values.items():
            output = self._header.outputs[name]
            if output.ragged:
                if not any(map(len, rows)):
                    rows = entries_without_rows(rows)
                else:
                    if self._ragged is None:
                        self._ragged = ragged_file_to_append(self._target.path)
                    rows = self._ragged.add(rows, output)
                written += int(rows["count"].sum()) * output.row_bytes
            written += rows.nbytes
            self._write_rows(name, start, touched, rows)
        with self._changed:
            self._newest = time.monotonic()
            if not self._marks:
                self._oldest = self._newest
                self._changed.notify_all()
            self._durable = False
            self.calls_written += 1
            self._marks.append((start, done[reached].copy(), failed[reached].copy()))
            self._bytes += written
            if self._bytes >= COMMIT_BYTES:
                self._changed.notify_all()

    def _write_rows(self, name: str, start: int, touched: Array, rows: Array) -> None:
        """Write the rows of the touched positions of a span, piece by piece."""
        size = self._header.outputs[name].stored.row_bytes
        data = rows.view(np.uint8).reshape(len(rows), size)
        offset = self._header.offsets[name] + start * size
        step = max(1, _PIECE_BYTES // size)
        taken = 0
        for first in range(0, len(touched), step):
            where, place = touched[first : first + step], offset + first * size
            bounds = stretches(where).tolist()
            if len(bounds) > _SCATTERED:
                # Read the piece, merge our rows, write once. Rows between are rewritten
                # unchanged, so a torn write cannot alter them.
                old = disk.read_at(self._file.fileno(), len(where) * size, place)
                merged = np.frombuffer(old, np.uint8).reshape(len(where), size).copy()
                count = int(np.count_nonzero(where))
                merged[where] = data[taken : taken + count]
                self._file.write_at(merged, place)
                taken += count
                continue
            for begin, end in bounds:
                part = data[taken : taken + end - begin]
                self._file.write_at(part, place + begin * size)
                taken += end - begin

    def flush(self) -> None:
        """Return when everything written is durable and marked durably."""
        with self._changed:
            if self._durable and not self._marks:
                return
            self._asked = True
            self._changed.notify_all()
            while self._asked and self._error is None:
                self._changed.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Commit what is written and close the file.

        OSError: the last commit failed; its rows are left pending.
        """
        try:
            if self._error is None:
                self.flush()
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join()
            if self._ragged is not None:
                self._ragged.close()
            self._file.close()
            self._lock_file.release()
        if self._error is not None:
            raise self._error

    def _commit_loop(self) -> None:
        while True:
            with self._changed:
                # Until a commit is due; while no row waits for it, for ever.
                while not (self._closing or self._asked or self._bytes >= COMMIT_BYTES):
                    wait_s = None
                    if self._marks:
                        due = self._oldest + self._target.checkpoint_s
                        due = min(due, self._newest + self._quiet_s)
                        wait_s = due - time.monotonic()
                        if wait_s <= 0:
                            break
                    self._changed.wait(wait_s)
                if self._closing:
                    return
                marks, self._marks, self._bytes = self._marks, [], 0
                asked = self._asked
            try:
                self._commit(marks, durable=asked)
            except Exception as error:
                # Never tried again: after a failed sync the system does not know which
                # pages were lost. Rows that were not marked are computed again.
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                if asked and not self._marks:
                    self._asked, self._durable = False, True
                self._changed.notify_all()

    def _commit(self, marks: list[tuple[int, Array, Array]], *, durable: bool) -> None:
        if marks:
            if self._ragged is not None:
                self._ragged.sync()
            self._file.sync()
            # First what is done, then what has failed: between the two writes, where
            # both are set, done counts. Bytes of other positions are written back as
            # they are: in a session a span belongs to one worker.
            for start, done, failed in marks:
                for name, where, value in (
                    ("completed_positions", done, done),
                    ("failed_positions", done | failed, failed),
                ):
                    if not where.any():
                        continue
                    offset = self._header.offsets[name] + start
                    if where.all():
                        status = np.empty(len(where), np.uint8)
                    else:
                        old = disk.read_at(self._file.fileno(), len(where), offset)
                        status = np.frombuffer(old, np.uint8).copy()
                    status[where] = value[where]
                    self._file.write_at(status, offset)
            self.calls_marked += len(marks)
        if durable:
            self._file.sync()
