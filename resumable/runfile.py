"""The run file: what is in it, and reading it without trusting it.

A run file is an HDF5 file whose structure never changes after its birth
(:mod:`resumable.birth` makes it). Its user block holds a :class:`Header` with the
offsets of everything that does change; after birth those bytes are read and
written at their offsets, never through HDF5. ``docs/format.rst`` describes the
format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.disk import opened, read_at, sync, try_lock, write_at
from resumable.errors import RunBusy, RunFileError
from resumable.identity import canonical, decode_dtype, encode_dtype
from resumable.output import Output
from resumable.positions import PositionSet, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Array = np.ndarray[Any, np.dtype[Any]]

#: Version of the format this library writes; it reads this and all older ones.
FORMAT = 1
#: First bytes of every run file.
MAGIC = b"resumable run file\n"
_HEADER_LIMIT = 1 << 24
#: What to do about a file that cannot be trusted.
_ADVICE = "it is left as it is; use override=True to compute into a new file"
_DIGEST_LENGTH = 64

#: Rows of the table of failures; further failures are only counted.
FAILURE_ROWS = 1000
FAILURE_DTYPE = np.dtype(
    [
        ("used", "u1"),
        ("position", "<i8"),
        ("exception", "S100"),
        ("message", "S500"),
        ("traceback", "S3000"),
    ]
)
#: Rows of the table of sessions; the last row is used again when it is full.
SESSION_ROWS = 1000
SESSION_DTYPE = np.dtype(
    [
        ("start", "<f8"),
        ("end", "<f8"),
        ("host", "S64"),
        ("pid", "<i8"),
        ("engine", "S32"),
        ("workers", "<i4"),
        ("computed", "<i8"),
        ("failed", "<i8"),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What the user block of a run file says. Everything else is found by it."""

    identity: str
    """sha256 of the identity document."""
    document: dict[str, Any]
    """The identity document."""
    group: str
    """Name of the results group."""
    map_shape: tuple[int, ...]
    """Lengths of the position axes."""
    outputs: dict[str, Output]
    """What is computed."""
    offsets: dict[str, int]
    """Byte offset in the file of every dataset that is written after birth."""
    rows: dict[str, int]
    """Rows of each of the tables ``failures`` and ``sessions``."""
    file_bytes: int
    """Size of the file at birth; a smaller one has been truncated."""
    structure: str
    """sha256 of all bytes behind the user block that never change."""
    user_block: int
    """Bytes before the HDF5 file proper: a power of two, 512 or more."""
    source: dict[str, Any]
    """Where the source was, its length and contents at birth, for people."""

    @property
    def size(self) -> int:
        """Number of positions."""
        return int(np.prod(self.map_shape, dtype=np.int64))

    def extents(self) -> dict[str, tuple[int, int]]:
        """Offset and length in bytes of everything that changes after birth."""
        lengths = {
            "completed_positions": self.size,
            "failed_positions": self.size,
            "finished": 1,
            "failures": self.rows["failures"] * FAILURE_DTYPE.itemsize,
            "sessions": self.rows["sessions"] * SESSION_DTYPE.itemsize,
        }
        for name, output in self.outputs.items():
            count = self.size if output.per == "position" else 1
            lengths[name] = count * output.row_bytes
        return {name: (self.offsets[name], length) for name, length in lengths.items()}

    def to_bytes(self) -> bytes:
        """Text of the user block, without padding."""
        plain = {
            "format": FORMAT,
            "identity": self.identity,
            "document": self.document,
            "group": self.group,
            "map_shape": list(self.map_shape),
            "outputs": {n: _output_to_json(o) for n, o in self.outputs.items()},
            # A list, because the order of outputs is the user's.
            "order": list(self.outputs),
            "offsets": self.offsets,
            "rows": self.rows,
            "file_bytes": self.file_bytes,
            "structure": self.structure,
            "user_block": self.user_block,
            "source": self.source,
        }
        body = canonical(plain).encode()
        return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"

    @classmethod
    def from_bytes(cls, block: bytes, path: Path) -> Header:
        """Read the user block, refusing what is damaged, newer or not ours.

        Raises
        ------
        RunFileError
            With what is wrong.
        """
        if not block.startswith(MAGIC):
            msg = f"{path} is not a run file: {_ADVICE}"
            raise RunFileError(msg)
        rest = block[len(MAGIC) :]
        claimed, body = rest[:_DIGEST_LENGTH], rest[_DIGEST_LENGTH + 1 :]
        body = body[: body.find(b"\n")]
        if hashlib.sha256(body).hexdigest().encode() != claimed:
            msg = (
                f"{path} is damaged, its header does not match its checksum: {_ADVICE}"
            )
            raise RunFileError(msg)
        try:
            plain = json.loads(body)
            if plain["format"] > FORMAT:
                msg = (
                    f"{path} has format {plain['format']}, and this version reads up "
                    f"to {FORMAT}: install a newer resumable-hdf5 to use it"
                )
                raise RunFileError(msg)
            header = cls(
                identity=plain["identity"],
                document=plain["document"],
                group=plain["group"],
                map_shape=tuple(plain["map_shape"]),
                outputs={
                    name: _output_from_json(plain["outputs"][name])
                    for name in plain["order"]
                },
                offsets=plain["offsets"],
                rows=plain["rows"],
                file_bytes=plain["file_bytes"],
                structure=plain["structure"],
                user_block=plain["user_block"],
                source=plain["source"],
            )
            header._check_extents(path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"{path} is damaged, its header makes no sense ({error!r}): {_ADVICE}"
            raise RunFileError(msg) from error
        return header

    def _check_extents(self, path: Path) -> None:
        previous = 0
        for offset, length in sorted(self.extents().values()):
            if offset < previous or offset + length > self.file_bytes:
                msg = (
                    f"{path} is damaged, its parts overlap or lie outside of it: "
                    f"{_ADVICE}"
                )
                raise RunFileError(msg)
            previous = offset + length


def _output_to_json(output: Output) -> dict[str, Any]:
    fill = np.asarray(output.fill, output.dtype)
    return {
        **output.identity(),
        "units": output.units,
        "labels": output.labels,
        "fill": fill.tobytes().hex(),
        "dtype": encode_dtype(output.dtype),
    }


def _output_from_json(plain: dict[str, Any]) -> Output:
    dtype = decode_dtype(plain["dtype"])
    fill = np.frombuffer(bytes.fromhex(plain["fill"]), dtype)[0]
    return Output(
        plain["shape"],
        dtype,
        units=plain["units"],
        labels=plain["labels"],
        fill=fill,
        per=plain["per"],
    )


def structure_digest(fd: int, header: Header) -> str:
    """sha256 of all bytes behind the user block that never change."""
    result = hashlib.sha256()
    position = header.user_block
    for offset, length in sorted(header.extents().values()):
        _digest_range(fd, position, offset, result)
        position = offset + length
    _digest_range(fd, position, header.file_bytes, result)
    return result.hexdigest()


def _digest_range(fd: int, start: int, stop: int, result: Any) -> None:
    while start < stop:
        part = read_at(fd, min(1 << 20, stop - start), start)
        if not part:
            return
        result.update(part)
        start += len(part)


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A position whose computation raised."""

    position: int
    """Flat position."""
    exception: str
    """Type of the exception, or what ended the worker."""
    message: str
    """Its message, cut at 500 bytes."""
    traceback: str
    """Its traceback, the last 3,000 bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """One call of compute that worked on this run."""

    start: float
    """Seconds since 1970."""
    end: float
    """Seconds since 1970; 0 while it works, or when it was killed."""
    host: str
    """Where."""
    pid: int
    """Process number of the driver."""
    engine: str
    """Which engine."""
    workers: int
    """How many at once."""
    computed: int
    """Positions done by it."""
    failed: int
    """Positions that failed in it."""


class RunFile:
    """An existing run file, checked; reads need no lock and disturb nobody.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    RunFileError
        It is missing, truncated, damaged, of a newer format or not a run file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with opened(path, os.O_RDONLY) as fd:
                self.header = self._checked(fd)
        except OSError as error:
            if isinstance(error, RunFileError):
                raise
            msg = f"{path} cannot be read: {error.strerror or error}"
            raise RunFileError(msg) from error

    def _checked(self, fd: int) -> Header:
        size = os.fstat(fd).st_size
        start = read_at(fd, 4096, 0)
        block = start
        if start.startswith(MAGIC) and b"\n" not in start[len(MAGIC) + 65 :]:
            # A long header: read on to its end, up to a limit that no honest
            # header reaches.
            block = read_at(fd, min(size, _HEADER_LIMIT), 0)
        header = Header.from_bytes(block, self.path)
        if size < header.file_bytes:
            msg = (
                f"{self.path} is truncated: it has {size:,} bytes of "
                f"{header.file_bytes:,}: {_ADVICE}"
            )
            raise RunFileError(msg)
        if structure_digest(fd, header) != header.structure:
            msg = (
                f"{self.path} is damaged or was changed by another program, its "
                f"structure is not the one it was made with: {_ADVICE}"
            )
            raise RunFileError(msg)
        return header

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.header.size

    def array(self, name: str) -> Array:
        """Map a dataset of the file read-only into memory, in the map's shape."""
        header = self.header
        if name in header.outputs:
            output = header.outputs[name]
            lead = header.map_shape if output.per == "position" else ()
            return self._map(name, output.dtype, (*lead, *output.shape))
        dtypes = {"failures": FAILURE_DTYPE, "sessions": SESSION_DTYPE}
        if name in dtypes:
            return self._map(name, dtypes[name], (header.rows[name],))
        return self._map(name, np.dtype(np.uint8), (header.extents()[name][1],))

    def _map(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        return np.memmap(
            self.path, dtype, "r", offset=self.header.offsets[name], shape=shape
        )

    @property
    def finished(self) -> bool:
        """Every position is done or failed and ``finish`` has run."""
        with opened(self.path, os.O_RDONLY) as fd:
            return read_at(fd, 1, self.header.offsets["finished"]) == b"\1"

    def scan(self, size: int | None = None) -> Iterator[tuple[int, Array, Array]]:
        """Go through the status window by window.

        Parameters
        ----------
        size : int, optional
            Go on as far, with positions that are neither done nor failed.

        Yields
        ------
        start : int
            First position of the window.
        done, failed : ndarray of bool
            Status of its positions; done wins.
        """
        offsets = self.header.offsets
        with opened(self.path, os.O_RDONLY) as fd:
            for start, stop in windows(size or self.size):
                count = max(0, min(stop, self.size) - start)
                done, failed = (
                    np.frombuffer(
                        read_at(fd, count, offsets[name] + start)
                        + bytes(stop - start - count),
                        np.uint8,
                    )
                    == 1
                    for name in ("completed_positions", "failed_positions")
                )
                yield start, done, failed & ~done

    def select(
        self,
        keep: Callable[[Array, Array], Array],
        within: PositionSet | None = None,
        size: int | None = None,
    ) -> PositionSet:
        """Return the positions for which ``keep(done, failed)`` holds.

        Parameters
        ----------
        keep : callable
            Takes and returns boolean arrays.
        within : PositionSet, optional
            Only among these.
        size : int, optional
            Positions of the source by now; those beyond this file are neither done
            nor failed.
        """
        result = PositionSet(size or self.size)
        for start, done, failed in self.scan(result.size):
            members = keep(done, failed)
            if within is not None:
                members = members & within.window(start, start + len(done))
            result.set_window(start, members)
        return result

    def counts(self) -> tuple[int, int]:
        """Return the numbers of done and of failed positions."""
        done_count = failed_count = 0
        for _, done, failed in self.scan():
            done_count += int(np.count_nonzero(done))
            failed_count += int(np.count_nonzero(failed))
        return done_count, failed_count

    def failures(self) -> list[Failure]:
        """Return what is recorded of the positions that are failed now."""
        table = np.array(self.array("failures"))
        failed = self.array("failed_positions")
        done = self.array("completed_positions")
        latest: dict[int, Failure] = {}
        for row in table[table["used"] == 1]:
            position = int(row["position"])
            if 0 <= position < self.size and failed[position] == 1 != done[position]:
                texts = (
                    row[name].decode(errors="replace")
                    for name in ("exception", "message", "traceback")
                )
                latest[position] = Failure(position, *texts)
        return [latest[position] for position in sorted(latest)]

    def sessions(self) -> list[Session]:
        """Return the sessions that worked on this run, the oldest first."""
        table = np.array(self.array("sessions"))
        return [_session(row.tolist()) for row in table[table["start"] > 0]]


def _session(row: tuple[Any, ...]) -> Session:
    start, end, host, pid, engine, workers, computed, failed = row
    names = [text.decode(errors="replace") for text in (host, engine)]
    return Session(start, end, names[0], pid, names[1], workers, computed, failed)


def _encoded(text: str) -> bytes:
    # Messages hold whatever a library put there, lone surrogates included.
    return text.encode(errors="backslashreplace")


class Ledger:
    """What only the driver writes: sessions, failures, the byte ``finished``.

    Parameters
    ----------
    run : RunFile
        Of which file. The caller holds its claim.

    Raises
    ------
    RunBusy
        Another program has the file open for writing.
    """

    def __init__(self, run: RunFile) -> None:
        self._run = run
        self._fd = os.open(run.path, os.O_RDWR | os.O_CLOEXEC)
        if not try_lock(self._fd, exclusive=False):
            os.close(self._fd)
            raise RunBusy(open_elsewhere(run.path))
        self._session = 0
        table = np.array(run.array("failures"))
        current = {failure.position for failure in run.failures()}
        self._taken: dict[int, int] = {}
        self._free: list[int] = []
        for index in reversed(range(len(table))):
            position = int(table[index]["position"])
            if table[index]["used"] and position in current:
                self._taken[position] = index
            else:
                self._free.append(index)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def begin(self, *, host: str, pid: int, engine: str, workers: int) -> None:
        """Enter a new session."""
        used = len(self._run.sessions())
        self._session = min(used, self._run.header.rows["sessions"] - 1)
        row = (time.time(), 0.0, host.encode(), pid, engine.encode(), workers, 0, 0)
        self._put("sessions", SESSION_DTYPE, self._session, row)

    def end(self, *, computed: int, failed: int) -> None:
        """Close the session's entry; durable on return."""
        row = np.array(self._run.array("sessions"))[self._session]
        row["end"], row["computed"], row["failed"] = time.time(), computed, failed
        self._put("sessions", SESSION_DTYPE, self._session, row)
        sync(self._fd)

    def record(self, failures: list[Failure]) -> None:
        """Enter failures, each over the row of one that is settled, or a free one."""
        for failure in failures:
            index = self._taken.get(failure.position)
            if index is None:
                if not self._free:
                    # The table is full; the status still counts them all.
                    continue
                index = self._taken[failure.position] = self._free.pop()
            # The end of a traceback tells more than its beginning.
            trace = _encoded(failure.traceback)[-FAILURE_DTYPE["traceback"].itemsize :]
            kind, message = _encoded(failure.exception), _encoded(failure.message)
            row = (1, failure.position, kind, message, trace)
            self._put("failures", FAILURE_DTYPE, index, row)

    def set_finished(self, outputs: Mapping[str, Array]) -> None:
        """Write the outputs per run, and then that the run is complete.

        All rows and their status are durable already; the byte is so after
        :meth:`end`.
        """
        offsets = self._run.header.offsets
        for name, value in outputs.items():
            write_at(self._fd, np.ascontiguousarray(value), offsets[name])
        if outputs:
            sync(self._fd)
        write_at(self._fd, b"\1", offsets["finished"])

    def reopen(self) -> None:
        """Say that the run is not complete any more; durable on return."""
        write_at(self._fd, b"\0", self._run.header.offsets["finished"])
        sync(self._fd)

    def _put(self, table: str, dtype: np.dtype[Any], index: int, row: Any) -> None:
        data = np.zeros((), dtype)
        data[()] = tuple(row) if isinstance(row, tuple) else row
        offset = self._run.header.offsets[table] + index * dtype.itemsize
        write_at(self._fd, data.tobytes(), offset)


def open_elsewhere(path: Path) -> str:
    """Say that another program writes to a run file, and what to do."""
    return f"{path} is open for writing in another program; close it there first"


def find_runs(folder: Path, pattern: str) -> list[RunFile | RunFileError]:
    """Open the run files of a folder, oldest name first; the bad ones as errors."""
    found: list[RunFile | RunFileError] = []
    for path in sorted(folder.glob(pattern)):
        try:
            found.append(RunFile(path))
        except RunFileError as error:
            with contextlib.suppress(OSError), path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    continue
            found.append(error)
    return found
