"""What only the driver writes into a run file: sessions, failures, completion."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.disk import OpenFile
from resumable.header import FAILURE_DTYPE, SESSION_DTYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.runfile import Failure, RunFile

    Array = np.ndarray[Any, np.dtype[Any]]


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
        self._file = OpenFile(run.path)
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
        self._file.close()

    def begin(self, *, host: str, pid: int, engine: str, workers: int) -> None:
        """Enter a new session."""
        used = len(self._run.sessions())
        self._session = min(used, self._run.header.rows["sessions"] - 1)
        row = (time.time(), 0.0, host.encode(), pid, engine.encode(), workers, 0, 0)
        self._put("sessions", SESSION_DTYPE, self._session, row)

    def go_on(self) -> None:
        """Go on with the last session's entry, which was copied from another file."""
        self._session = max(0, len(self._run.sessions()) - 1)

    def end(self, *, computed: int, failed: int) -> None:
        """Close the session's entry; durable on return."""
        row = np.array(self._run.array("sessions"))[self._session]
        row["end"], row["computed"], row["failed"] = time.time(), computed, failed
        self._put("sessions", SESSION_DTYPE, self._session, row)
        self._file.sync()

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

        Rows that are done are durable already. Their status need not be, where a
        session was killed that had marked the last of them, and neither are
        failures. They are so before the byte is written; the byte is after
        :meth:`end`.
        """
        offsets = self._run.header.offsets
        for name, value in outputs.items():
            self._file.write_at(np.ascontiguousarray(value), offsets[name])
        self._file.sync()
        self._file.write_at(b"\1", offsets["finished"])

    def reopen(self) -> None:
        """Say that the run is not complete any more; durable on return."""
        self._file.write_at(b"\0", self._run.header.offsets["finished"])
        self._file.sync()

    def _put(self, table: str, dtype: np.dtype[Any], index: int, row: Any) -> None:
        data = np.zeros((), dtype)
        data[()] = tuple(row) if isinstance(row, tuple) else row
        offset = self._run.header.offsets[table] + index * dtype.itemsize
        self._file.write_at(data.tobytes(), offset)
