"""An existing run file: opened, checked and read.

A run file is an HDF5 file whose structure never changes once it is made
(:mod:`resumable.runfile.create`). Its user block holds a :class:`Header` with the
offsets of everything that does change: those bytes are read and written at their
offsets, not through HDF5. ``docs/format.rst`` describes the format.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import ResumableError, RunFileError
from resumable.model import PositionSet, check_path, document_digest
from resumable.runfile.header import MAGIC, Header
from resumable.runfile.repair import check_structure, read_header
from resumable.runfile.rows import PackedRows, UnpackedRows, gone
from resumable.runfile.tables import Failure, LogLine, SessionRow, is_time, texts_of
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Array = np.ndarray[Any, np.dtype[Any]]


_BYTE = np.dtype(np.uint8)
#: The first line and the digest of the header, which tell files apart.
_BEGIN_BYTES = len(MAGIC) + 64
#: Status is read in windows that stay in the processor's cache.
_AT_ONCE = 1 << 18
#: Of a longer status, what was never written is not read.
_LONG_STATUS = 1 << 24


class Snapshot(NamedTuple):
    """What a run file says of its run, read in one go.

    With 10^9 positions the status is 2 GB: it is not read twice for one answer.
    """

    header: Header
    done: int
    """Positions that are done."""
    failed: int
    """Positions that have failed."""
    left: int
    """Requested positions that are left to compute."""
    settled: bool
    """No position is left, requested or not."""
    finished: bool
    """It is settled, and ``finish`` has run."""
    last_end: float | None
    """Seconds since 1970 when the last session ended; 0: it works, or was killed."""
    pending: PositionSet
    """The positions that are left."""
    sessions: bytes
    """The table of sessions, which every session changes when it begins and ends."""


def is_run_file(path: Path) -> bool:
    """Return whether a file begins as a run file; OSError: it cannot be read."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def run_path(given: Any) -> Path:
    """Return the path that a user gives of a run file; RunFileError: it is none."""
    check_path(RunFileError, "a run", given, "the name of a run file, or Results")
    return Path(given)


class RunFile:
    """An existing run file, checked. It stays open with `files`.

    Reading waits for no lock.
    RunFileError: it is missing, truncated, damaged, of a newer format or no run file.
    """

    header: Header
    """As it was when the file was opened last."""
    _file_id: tuple[int, int]

    def __init__(self, path: Path, files: contextlib.ExitStack | None = None) -> None:
        # Absolute: rows may be read when the current folder is another one.
        self.path = Path(path).absolute()
        self._kept: int | None = None
        self._begin: bytes | None = None
        try:
            with self.opened() as (fd, _):
                if files is not None:
                    self._kept = os.dup(fd)
                    files.callback(self._close)
        except OSError as error:
            if isinstance(error, RunFileError):
                raise
            msg = f"{path} cannot be read: {error.strerror or error}"
            raise RunFileError(msg) from error

    def _close(self) -> None:
        if self._kept is not None:
            disk.close_if_same(self._kept, self._file_id)
            self._kept = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[int, Header]]:
        """Open the file, with its header as it is now: it may have been packed since.

        A file that is kept open is used as it is. RunFileError: another run has taken
        its place, it is damaged or gone. Another OSError: it cannot be opened.
        """
        if self._kept is not None:
            if disk.is_same_file(self._kept, self._file_id):
                yield self._kept, self.header
                return
            # The computation has closed descriptors that are not its own.
            self._kept = None
        first = self._begin is None
        now = (
            disk.opened_now(self.path) if first else disk.opened(self.path, os.O_RDONLY)
        )
        with contextlib.ExitStack() as stack:
            try:
                fd = stack.enter_context(now)
            except FileNotFoundError as error:
                if first:
                    raise
                msg = (
                    f"{self.path} was removed or renamed since it was opened; put it "
                    "back, or compute again"
                )
                raise RunFileError(msg) from error
            begin = disk.read_at(fd, _BEGIN_BYTES, 0)
            if begin != self._begin:
                header = read_header(fd, self.path)
                check_structure(fd, header, self.path)
                if self._begin and header.identity != self.header.identity:
                    msg = f"{self.path} is another run by now; open it anew"
                    raise RunFileError(msg)
                self.header, self._begin = header, begin
                self._file_id = disk.file_id(fd)
            yield fd, self.header

    def array(self, name: str) -> Any:
        """Return a dataset of the file, in the map's shape, indexed like an array.

        Indexing reads, and unpacks where the file is packed. Of a ragged output that
        is not packed the entries are returned.
        """
        with self._reading() as (fd, header):
            output = header.outputs.get(name)
            if output is None:
                dtype = header.tables.get(name, _BYTE)
                place, length = header.extents()[name]
                length //= dtype.itemsize
                return UnpackedRows(self.path, fd, place, dtype, (length,))
            lead = header.map_shape if output.per == "position" else ()
            if header.packed is None or output.per == "run":
                stored = output.stored
                place, shape = header.offsets[name], (*lead, *stored.shape)
                return UnpackedRows(self.path, fd, place, stored.dtype, shape)
            shape = (*lead, *output.shape)
            return PackedRows(self, name, output.dtype, shape)

    def rows_known_by(self, *, in_chain: bool = False) -> str:
        """Return what stands for the rows where others are computed from them.

        Not in the identity are the contents of a source that can grow or is awaited,
        and which positions have failed, which may be tried again. A chain compares
        its source itself, and knows of failures.
        """
        source = self.header.source
        recorded = ("input_contents",) if in_chain else ("contents", "input_contents")
        parts = {name: source[name] for name in recorded if source.get(name)}
        if not in_chain and self.progress()[1]:
            failed = hashlib.sha256()
            for start, _, marks in self.scan():
                failed.update((start + np.flatnonzero(marks)).astype("<i8").tobytes())
            parts["failed"] = failed.hexdigest()
        if not parts:
            return self.header.identity
        return document_digest({"run": self.header.identity, **parts})

    def marks(
        self, further: tuple[int, ...] = (), *, failed: bool = False
    ) -> UnpackedRows:
        """Return which positions are done, or have failed, in the map's shape.

        They are repeated along `further` axes, to be indexed like an output.
        """
        name = "failed_positions" if failed else "completed_positions"
        with self._reading() as (fd, header):
            place = header.offsets[name]
            return UnpackedRows(self.path, fd, place, _BYTE, header.map_shape, further)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[tuple[int, Header]]:
        """Open the file as :meth:`opened`; one that is gone is a RunFileError."""
        try:
            with self.opened() as found:
                yield found
        except RunFileError:
            raise
        except OSError as error:
            raise RunFileError(gone(self.path, error)) from error

    def rows(self, name: str, positions: Array) -> Array:
        """Read what is stored of an output at some flat positions."""
        index = np.unravel_index(positions, self.header.map_shape)
        return np.asarray(self.array(name)[index])

    def packed_part(self, name: str, part: str) -> PackedRows:
        """Return ``values``, ``count`` or ``index`` of a packed ragged output."""
        header, number = self.header, np.dtype("<i8")
        output, total = header.outputs[name], header.rows[name]
        shape, dtype = {
            "values": ((total, *output.shape), output.dtype),
            "count": (header.map_shape, number),
            "index": ((total,), number),
        }[part]
        return PackedRows(self, f"{name}/{part}", dtype, shape)

    @property
    def finished(self) -> bool:
        """Every position is done or failed and ``finish`` has run."""
        return self.marked_finished and self.progress()[2]

    @property
    def marked_finished(self) -> bool:
        """The byte ``finished`` is set; it counts only where no position is pending."""
        with self.opened() as (fd, header):
            return disk.read_at(fd, 1, header.offsets["finished"]) == b"\1"

    @property
    def mixed(self) -> bool:
        """Its source or its values were changed while it was computed."""
        with self.opened() as (fd, header):
            return disk.read_at(fd, 1, header.offsets["finished"]) == b"\2"

    def check_finished(
        self, use: str, error: type[ResumableError] = RunFileError
    ) -> None:
        """Raise an error where the run is not finished; `use` says what for."""
        if self.finished:
            return
        msg = f"{self.path} is not finished; compute it before {use}"
        if self.mixed:
            msg = (
                f"{self.path} is mixed: its source or values were changed while it was "
                f"computed, and it is never finished; run again for a new one before "
                f"{use}"
            )
        raise error(msg)

    def scan(self) -> Iterator[tuple[int, Array, Array]]:
        """Yield start, done and failed of the windows of the status that were written.

        Where both are set, done wins.
        """
        with self.opened() as (fd, header):
            for start, done, _, failed in self._scan(fd, header, 0, header.size):
                none = np.zeros(len(done), bool)
                yield start, done, none if failed is None else failed

    def status_of(self, start: int, stop: int) -> tuple[Array, Array]:
        """Return which positions of a span are done, and which have failed."""
        with self.opened() as (fd, header):
            window = self._scan(fd, header, start, stop, stop - start)
            _, done, _, failed = next(window)
        return done, np.zeros(len(done), bool) if failed is None else failed

    def _scan(
        self, fd: int, header: Header, start: int, stop: int, step: int = _AT_ONCE
    ) -> Iterator[tuple[int, Array, int, Array | None]]:
        """Read the status of a span; beyond the end of the run nothing is done.

        Yields of every window of `step` positions that was written the first one, which
        are done, how many, and which have failed, None where none has. The arrays are
        used again for the next window.
        """
        size = header.size
        done_at = header.offsets["completed_positions"]
        failed_at = header.offsets["failed_positions"]
        buffers = np.empty((3, min(stop - start, step)), np.uint8)
        for first in self._written(fd, header, start, stop, step):
            raw, failed, done = buffers[:, : min(step, stop - first)]
            inside = max(0, min(len(raw), size - first))
            raw[inside:] = 0
            whole = disk.read_into(fd, raw[:inside].data, done_at + first)
            done = np.equal(raw, 1, out=done.view(bool))
            count = int(np.count_nonzero(done))
            some_failed = False
            if count < len(done):  # done wins
                failed[inside:] = 0
                whole &= disk.read_into(fd, failed[:inside].data, failed_at + first)
                some_failed = bool(failed.max())
            if not whole:
                raise RunFileError(gone(self.path, "it ends within the status"))
            yield first, done, count, (failed == 1) & ~done if some_failed else None

    def _written(
        self, fd: int, header: Header, start: int, stop: int, step: int
    ) -> Iterable[int]:
        """Return the first positions of windows, without those that were never written.

        With 10^9 positions the status has 2 GB, whatever is done.
        """
        names, end = ("completed_positions", "failed_positions"), min(stop, header.size)
        whole = os.fstat(fd).st_size >= max(header.offsets[n] + end for n in names)
        if stop - start <= max(step, _LONG_STATUS) or not whole:
            return range(start, stop, step)
        if not disk.tells_holes(self.path):
            return range(start, stop, step)
        found: set[int] = set()
        for name in names:
            place = header.offsets[name] + start
            for first, last in disk.data_spans(fd, place, end - start):
                found.update(range((first - place) // step, -((place - last) // step)))
        return [start + number * step for number in sorted(found)]

    def written(self) -> Iterator[tuple[int, int]]:
        """Yield bounds of windows that have all positions which are not pending."""
        with self.opened() as (fd, header):
            for first in self._written(fd, header, 0, header.size, _AT_ONCE):
                yield first, min(first + _AT_ONCE, header.size)

    def snapshot(
        self,
        requested: PositionSet | None = None,
        *,
        retry_failed: bool = False,
        size: int | None = None,
    ) -> Snapshot:
        """Read what the file says of its run, the status once.

        Of the `requested` positions, default all, those are left to compute that are
        neither done nor failed; with `retry_failed` those that have failed. `size` is
        the number of positions that the source has by now.
        """
        count_all = size or self.header.size
        if retry_failed:
            pending = PositionSet(count_all)
        elif requested is None:
            pending = PositionSet.full(count_all)
        else:
            pending = requested.copy()
        done_count = failed_count = 0
        with self.opened() as (fd, header):
            offset, length = header.extents()["sessions"]
            sessions = disk.read_at(fd, length, offset)
            marked = disk.read_at(fd, 1, header.offsets["finished"]) == b"\1"
            for first, done, count, failed in self._scan(fd, header, 0, count_all):
                done_count += count
                if failed is not None:
                    failed_count += int(np.count_nonzero(failed))
                    members = failed if retry_failed else ~(done | failed)
                elif retry_failed or not count:
                    continue
                else:
                    members = np.logical_not(done, out=done)
                if requested is not None:
                    members &= requested.window(first, first + len(done))
                pending.set_window(first, members)
        table = np.frombuffer(sessions, header.tables["sessions"])
        ends = table["end"][is_time(table["start"])]
        last_end = None
        if len(ends):
            last_end = float(ends[-1]) if is_time(ends[-1]) else 0.0
        settled = done_count + failed_count == header.size
        return Snapshot(
            header,
            done_count,
            failed_count,
            len(pending),
            settled,
            settled and marked,
            last_end,
            pending,
            sessions,
        )

    def sessions_since(self, snapshot: Snapshot) -> bool:
        """Return whether a session may have worked on the run since a snapshot.

        Its file may have been replaced, too. Whatever changes the status, the rows or
        the byte ``finished`` is a session; one that was killed may have left workers.
        """
        if snapshot.last_end == 0:
            return True
        try:
            with self.opened() as (fd, header):
                disk.refresh(fd, self.path)
                if not os.path.samestat(self.path.stat(), os.fstat(fd)):
                    return True
                offset, length = header.extents()["sessions"]
                return disk.read_at(fd, length, offset) != snapshot.sessions
        except OSError:
            return True

    def select(self, keep: Callable[[Array, Array], Array]) -> PositionSet:
        """Return the positions, of those not pending, for which ``keep`` holds.

        It is called with which are done and which have failed.
        """
        chosen = PositionSet(self.header.size)
        for start, done, failed in self.scan():
            chosen.set_window(start, keep(done, failed))
        return chosen

    def progress(self) -> tuple[int, int, bool]:
        """Return how many positions are done, how many failed, and if it is complete.

        The byte ``finished`` alone could be an accident: the status must agree.
        """
        done_count = failed_count = 0
        with self.opened() as (fd, header):
            marked = disk.read_at(fd, 1, header.offsets["finished"]) == b"\1"
            for _, _, count, failed in self._scan(fd, header, 0, header.size):
                done_count += count
                if failed is not None:
                    failed_count += int(np.count_nonzero(failed))
            finished = marked and done_count + failed_count == header.size
        return done_count, failed_count, finished

    def failures(self) -> list[Failure]:
        """Return what is recorded of the positions that are failed now, by position."""
        table = np.array(self.array("failures"))
        known = (table["position"] >= 0) & (table["position"] < self.header.size)
        rows = table[(table["used"] == 1) & known]
        failed = self.array("failed_positions")[rows["position"]] == 1
        done = self.array("completed_positions")[rows["position"]] == 1
        latest = {
            int(row["position"]): Failure(
                int(row["position"]),
                *texts_of(row, "exception", "message", "traceback"),
            )
            for row in rows[failed & ~done]
        }
        return [latest[position] for position in sorted(latest)]

    def sessions(self) -> list[SessionRow]:
        """Return the sessions that worked on this run, the oldest first."""
        table = np.array(self.array("sessions"))
        found = []
        environments = self.environments()
        for index in np.flatnonzero(is_time(table["start"])):
            row = table[index]
            # A row of an older format has fewer fields.
            values = {name: row[name].item() for name in row.dtype.names}
            values["host"], values["engine"] = texts_of(row, "host", "engine")
            if not is_time(values["end"]):
                values["end"] = 0.0
            began = [first for first in environments if first <= index]
            environment = environments[max(began)] if began else {}
            found.append(SessionRow(**values, environment=environment))
        return found

    def environments(self) -> dict[int, dict[str, str]]:
        """Return what was computed with: the first session with it -> name -> version.

        In the order of the sessions; empty for a file that has none recorded.
        """
        if "environments" not in self.header.tables:
            return {}
        table = np.array(self.array("environments"))
        found = {}
        for row in np.sort(table[table["used"] == 1], order="session", kind="stable"):
            lines = texts_of(row, "text")[0].splitlines()
            pairs = [line.split(" ", 1) for line in lines if " " in line]
            found[int(row["session"])] = {name: version for name, version in pairs}
        return found

    def log(self) -> list[LogLine]:
        """Return the log lines of all sessions, the oldest first."""
        if "log_lines" not in self.header.tables:
            return []
        table = np.array(self.array("log_lines"))
        rows = table[is_time(table["time"])]
        found = []
        for row in rows[np.argsort(rows["time"], kind="stable")]:
            level, name, message = texts_of(row, "level", "logger", "message")
            found.append(
                LogLine(float(row["time"]), level, name, int(row["pid"]), message)
            )
        return found


def find_runs(paths: Iterable[Path]) -> list[RunFile | RunFileError]:
    """Open those of some files that are run files, by name; the bad ones as errors."""
    found: list[RunFile | RunFileError] = []
    for path in sorted(paths):
        with contextlib.suppress(OSError), disk.opened(path, os.O_RDONLY) as fd:
            if disk.read_at(fd, len(MAGIC), 0) == MAGIC:
                try:
                    found.append(RunFile(path))
                except RunFileError as error:
                    found.append(error)
    return found
