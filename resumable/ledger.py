"""What only the driver writes into a run file: sessions, failures, completion."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.disk import open_regular, sync, try_lock, write_at
from resumable.errors import RunBusy
from resumable.header import FAILURE_DTYPE, SESSION_DTYPE
from resumable.runfile import open_elsewhere

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
        self._fd = open_regular(run.path, os.O_RDWR)
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
