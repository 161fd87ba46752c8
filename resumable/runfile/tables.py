"""The tables of a run file: sessions, failures and log lines.

Everybody reads them. Only the driver writes them, and the byte ``finished``.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.system import OpenFile, disk, machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.runfile.file import RunFile

    Array = np.ndarray[Any, np.dtype[Any]]

logger = logging.getLogger("resumable")

#: Times are before the year 6325: later ones, and those that are not finite, come
#: from damage.
_LATEST = float(1 << 37)


class Failure(NamedTuple):
    """A position that failed: it raised, or ended its worker."""

    position: int
    """Flat position."""
    exception: str
    """Type of the exception, or what ended the worker."""
    message: str
    """Its message, cut at 500 bytes."""
    traceback: str
    """Its traceback, the last 3,000 bytes; of a run of few positions 500."""


class SessionRow(NamedTuple):
    """One call of compute that worked on this run."""

    start: float
    """Seconds since 1970."""
    end: float
    """Seconds since 1970; 0 while it works, or when it was killed."""
    host: str
    pid: int
    """Process number of the driver."""
    engine: str
    workers: int
    """How many at once."""
    computed: int
    """Positions done by it."""
    failed: int
    """Positions that failed in it."""
    reading: float = 0.0
    """Seconds that its workers were reading, all together."""
    computing: float = 0.0
    """Seconds that they were computing."""
    writing: float = 0.0
    """Seconds that they were handing rows to the system."""
    waiting: float = 0.0
    """Seconds that they were there and did nothing of this."""
    environment: Mapping[str, str] = {}
    """What it was computed with, by name: versions of distributions, with the first
    digits of a digest of the list of their files; Python, CPU, BLAS."""


class LogLine(NamedTuple):
    """What was logged while a session worked."""

    time: float
    """Seconds since 1970."""
    level: str
    logger: str
    pid: int
    """Process that has logged it: the driver or a worker."""
    message: str
    """Its text, cut at 400 bytes."""


def is_time(seconds: Any) -> Any:
    """Return where times are such that a calendar can show; others are damage."""
    return (seconds > 0) & (seconds < _LATEST)


def texts_of(row: Any, *names: str) -> list[str]:
    """Return the texts of some fields of a row."""
    return [row[name].decode(errors="replace") for name in names]


def _encoded(text: str) -> bytes:
    # Messages hold whatever a library put there, lone surrogates included.
    return text.encode(errors="backslashreplace")


def fitted_rows(rows: Array, dtype: np.dtype[Any], most: int) -> Array:
    """Return the first rows of a table as another version of the format has them."""
    made = np.zeros(min(len(rows), most), dtype)
    for name in dtype.names or ():
        if name in (rows.dtype.names or ()):
            values = rows[name][: len(made)]
            if name == "traceback":  # its end tells more than its beginning
                values = np.array([text[-dtype[name].itemsize :] for text in values])
            made[name] = values
    return made


class SessionTables(OpenFile):
    """What only the driver writes, under the lock: tables and the byte ``finished``.

    RunBusy: another program has the file open for writing.
    """

    def __init__(self, run: RunFile) -> None:
        super().__init__(run.path)
        self._run, self._dtypes = run, run.header.tables
        self._session = 0
        #: What the session's row holds, and when it began by a clock that nobody sets.
        self._row: dict[str, Any] = {}
        self._began_s = 0.0
        self._told_of_full_disk = False

    # Tables of megabytes, which hardly any session enters anything into.

    @functools.cached_property
    def _logged(self) -> itertools.count[int]:
        """Number of the next log line."""
        return itertools.count(len(self._run.log()))

    @functools.cached_property
    def _failure_rows(self) -> tuple[dict[int, int], list[int]]:
        """Rows of the failures: position -> index, and those that are free.

        A row is free again when its position is settled.
        """
        table = np.array(self._run.array("failures"))
        current = {failure.position for failure in self._run.failures()}
        taken: dict[int, int] = {}
        free: list[int] = []
        for index in reversed(range(len(table))):
            position = int(table[index]["position"])
            if table[index]["used"] and position in current:
                taken[position] = index
            else:
                free.append(index)
        return taken, free

    def begin(
        self,
        *,
        host: str,
        pid: int,
        engine: str,
        workers: int,
        environment: Mapping[str, str],
    ) -> None:
        """Enter a new session, and its environment where that is another."""
        offset, size = self._run.header.extents()["sessions"]
        table = np.frombuffer(
            disk.read_at(self.fileno(), size, offset), self._dtypes["sessions"]
        )
        used = int(np.count_nonzero(is_time(table["start"])))
        self._session = min(used, len(table) - 1)
        self._began_s = machine.elapsing_s()
        self._row = {
            "start": time.time(),
            "host": host.encode(),
            "pid": pid,
            "engine": engine.encode(),
            "workers": workers,
        }
        # Before: a session that is there has its environment.
        self._record_environment(environment)
        self._put("sessions", self._session, **self._row)

    def _record_environment(self, environment: Mapping[str, str]) -> None:
        if "environments" not in self._dtypes:
            return
        text, kept, most = b"", {}, self._dtypes["environments"]["text"].itemsize
        for name, version in environment.items():
            line = _encoded(f"{name} {version}\n")
            if len(text) + len(line) <= most:
                text, kept[name] = text + line, version
        known = self._run.environments()
        if known and known[max(known)] == kept:
            return
        # A session of this number may have been killed before it was entered.
        before = [number for number in known if number < self._session]
        rows = self._run.header.rows["environments"]
        self._put_where_room_is(
            "environments",
            min(len(before), rows - 1),
            used=1,
            session=self._session,
            text=text,
        )

    def go_on(self, old: SessionTables) -> None:
        """Go on with the entry of a session that has begun in the file copied here."""
        self._session, self._row = old._session, old._row
        self._began_s = old._began_s

    def end(self, **values: float) -> None:
        """Close the session's entry; fields unknown to an older file are left out.

        Durable on return.
        """
        if self._row:
            names = self._dtypes["sessions"].names or ()
            later = {name: value for name, value in values.items() if name in names}
            # The time of day may have been set since.
            end = self._row["start"] + machine.elapsing_s() - self._began_s
            self._put("sessions", self._session, **self._row | later, end=end)
        self.sync()

    def log(self, line: LogLine) -> None:
        """Enter a log line; when half the table is full, the rest goes round."""
        if "log_lines" not in self._dtypes:
            return
        half = self._run.header.rows["log_lines"] // 2
        index = next(self._logged)
        if index >= 2 * half:
            index = half + (index - half) % half
        self._put_where_room_is(
            "log_lines",
            index,
            time=line.time,
            level=_encoded(line.level),
            logger=_encoded(line.logger),
            pid=line.pid,
            message=_encoded(line.message),
        )

    def record(self, failures: list[Failure]) -> None:
        """Enter failures: messages and tracebacks."""
        for failure in failures:
            taken, free = self._failure_rows
            if failure.position not in taken:
                if not free:
                    continue  # the status still counts them all
                taken[failure.position] = free.pop()
            # The end of a traceback tells more than its beginning.
            most = self._dtypes["failures"]["traceback"].itemsize
            trace = _encoded(failure.traceback)[-most:]
            self._put_where_room_is(
                "failures",
                taken[failure.position],
                used=1,
                position=failure.position,
                exception=_encoded(failure.exception),
                message=_encoded(failure.message),
                traceback=trace,
            )

    def set_finished(self, outputs: Mapping[str, Array]) -> None:
        """Write the outputs per run, and then that the run is complete.

        Rows that are done are durable already. Their status need not be, where a
        session was killed that had marked the last of them, and neither are
        failures. They are so before the byte is written; the byte is after
        :meth:`end`.
        """
        offsets = self._run.header.offsets
        for name, value in outputs.items():
            self.write_at(np.ascontiguousarray(value), offsets[name])
        self.sync()
        self.write_at(b"\1", offsets["finished"])

    def reopen(self) -> None:
        """Say that the run is not complete any more; durable on return."""
        self.write_at(b"\0", self._run.header.offsets["finished"])
        self.sync()

    def set_mixed(self) -> None:
        """Say that rows of two computations may be mixed; durable on return."""
        self.write_at(b"\2", self._run.header.offsets["finished"])
        self.sync()

    def _put_where_room_is(self, table: str, index: int, **values: Any) -> None:
        """Write a row that can be done without: no space is reserved for it.

        Megabytes of every run would be, and hardly any has so many failures. The
        status, which has its space, still counts them.
        """
        try:
            self._put(table, index, **values)
        except OSError as error:
            if error.errno not in disk.FULL:
                raise
            if not self._told_of_full_disk:
                self._told_of_full_disk = True
                logger.warning("messages of failed positions are lost: %s", error)

    def _put(self, table: str, index: int, **values: Any) -> None:
        """Write a row of a table; what is not given is 0 or empty."""
        dtype = self._dtypes[table]
        row = np.zeros((), dtype)
        for name, value in values.items():
            row[name] = value
        place = self._run.header.offsets[table] + index * dtype.itemsize
        self.write_at(row.tobytes(), place)
