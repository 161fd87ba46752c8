"""The lock on the run files of a computation, held while one is computed."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import platform
from typing import TYPE_CHECKING, Any

from resumable.errors import RunBusy, shown
from resumable.runfile.create import target_errors
from resumable.runfile.folder import RunFolder, run_folder_of
from resumable.system import LockFile, disk, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.runfile.file import RunFile

#: How long a killed process may still hold its locks, in seconds.
_KILLED_S = 0.2
#: How long a new session waits for a worker of a dead one to end, in seconds.
ORPHAN_PATIENCE_S = 10.0


class RunLock:
    """The exclusive lock on computing an identity in a folder.

    The system releases it when the process ends, however that ends.
    """

    def __init__(self, run_folder: RunFolder) -> None:
        self.token = os.urandom(16).hex()
        self._run_folder = run_folder
        #: File that is locked exclusively by the driver.
        self.lock_path = run_folder.folder / f"{run_folder.stem}.claim"
        #: File that every writer holds a shared lock on.
        self.writers_path = self.lock_path.with_suffix(".writers")
        self._lock = LockFile(self.lock_path)
        self._writers = LockFile(self.writers_path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock in a ``with`` block.

        RunBusy: another process holds it. TargetError: the folder cannot be written, or
        offers no locks.
        """
        name = self._run_folder.stem
        with (
            contextlib.ExitStack() as undo,
            target_errors(self._run_folder.folder, 4096),
        ):
            # Also at Ctrl-C while it waits for workers of a dead session.
            undo.callback(self._lock.release, remove=True)
            undo.callback(self._writers.release)
            # The system releases the lock of a killed process a moment after the kill.
            if not self._lock.acquire(exclusive=True, patience=_KILLED_S):
                # Who has just taken the lock may not have written its name yet.
                wait_until(lambda: bool(self.holder(self._lock)), _KILLED_S)
                told, who = self.holder(self._lock), "another process"
                if told:
                    who = f"process {told['pid']} on {told['host']}"
                    who += f" since {told['since']}"
                msg = (
                    f"{name} is being computed by {who}; look at it with "
                    "'resumable status', or stop that process and run again"
                )
                raise RunBusy(msg)
            holder = {
                "token": self.token,
                "host": platform.node(),
                "pid": os.getpid(),
                "since": dt.datetime.now().astimezone().isoformat(" ", "seconds"),
            }
            # From here on a late worker of a dead session finds another token.
            self._lock.write_text(json.dumps(holder))
            if not self._writers.acquire(exclusive=True, patience=ORPHAN_PATIENCE_S):
                msg = (
                    f"a worker of an earlier session still writes to {name}; end "
                    "it and run again"
                )
                raise RunBusy(msg)
            self._writers.release()
            for path in self._run_folder.leftovers():
                path.unlink(missing_ok=True)
            undo.pop_all()
        try:
            yield
        finally:
            # A worker that still writes keeps the file; the next session removes it.
            if self._writers.acquire(exclusive=True):
                self._writers.release(remove=True)
            self._lock.release(remove=True)

    @staticmethod
    def holder(lock_file: LockFile) -> dict[str, Any]:
        """Return what the holder of a lock has written about itself; else empty."""
        with contextlib.suppress(ValueError, RecursionError):
            plain = json.loads(lock_file.read_text())
            if isinstance(plain, dict) and {"pid", "host", "since"} <= plain.keys():
                return {
                    n: v if isinstance(v, int) else shown(v) for n, v in plain.items()
                }
        return {}


def holder_of(run: RunFile) -> dict[str, Any]:
    """Return host, pid and since of the process that computes a run; else empty."""
    lock_file = LockFile(RunLock(run_folder_of(run)).lock_path)
    if not lock_file.path.exists():
        return {}
    # Opened for reading: looking must not make or change a file.
    with contextlib.suppress(OSError), disk.opened(lock_file.path, os.O_RDONLY) as fd:
        if disk.try_lock(fd, exclusive=False):
            return {}
    return RunLock.holder(lock_file)
