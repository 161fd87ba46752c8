"""Which run files a computation has, and the claim on them.

All runs of one identity share a stem: ``<source>-<dataset>-<process>-<first 8 of
the identity>``. The first is ``<stem>.h5``, the ones after it ``<stem>_001.h5`` and
on. Looking never writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import re
import socket
import uuid
from typing import TYPE_CHECKING, Any

from resumable import disk
from resumable.birth import target_error
from resumable.errors import RunBusy, RunFileError
from resumable.runfile import RunFile, find_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: How long a new session waits for a worker of a dead one to end, in seconds.
ORPHAN_PATIENCE_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Shelf:
    """Where the runs of one identity lie.

    Attributes are of the wanted run; nothing need exist.
    """

    folder: Path
    """The target folder."""
    prefix: str
    """``<source>-<dataset>-<process>``, without the identity."""
    identity: str
    """sha256 of the identity document."""

    @property
    def stem(self) -> str:
        """Common part of the names of all runs of this identity."""
        return f"{self.prefix}-{self.identity[:8]}"

    def runs(self) -> list[RunFile]:
        """Return the sound run files of this identity, the oldest first."""
        return [
            run
            for run in self._found()
            if isinstance(run, RunFile) and run.header.identity == self.identity
        ]

    def damaged(self) -> list[RunFileError]:
        """Return what is wrong with files that have this identity's names."""
        return [error for error in self._found() if isinstance(error, RunFileError)]

    def _found(self) -> list[RunFile | RunFileError]:
        pattern = re.compile(re.escape(self.stem) + r"(_\d{3,})?\.h5")
        found: list[RunFile | RunFileError] = []
        if not self.folder.is_dir():
            return found
        for path in sorted(self.folder.glob(glob_escape(self.stem) + "*.h5")):
            if pattern.fullmatch(path.name):
                try:
                    found.append(RunFile(path))
                except RunFileError as error:
                    found.append(error)
        return found

    def others(self) -> list[RunFile]:
        """Return the sound runs of this process and dataset with other identities."""
        found = find_runs(self.folder, glob_escape(self.prefix) + "-*.h5")
        return [
            run
            for run in found
            if isinstance(run, RunFile) and run.header.identity != self.identity
        ]

    def new_path(self) -> Path:
        """Return the first name no file has."""
        path = self.folder / f"{self.stem}.h5"
        number = 0
        while path.exists():
            number += 1
            path = self.folder / f"{self.stem}_{number:03d}.h5"
        return path


def glob_escape(text: str) -> str:
    """Make a text match itself in a glob pattern."""
    import glob

    return glob.escape(text)


class Claim:
    """The right to compute an identity in a folder: held locks, so none survives.

    Parameters
    ----------
    shelf : Shelf
        Which.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.token = uuid.uuid4().hex
        self._shelf = shelf
        self._claim = disk.LockFile(shelf.folder / f"{shelf.stem}.claim")
        self._writers = disk.LockFile(shelf.folder / f"{shelf.stem}.writers")

    @property
    def claim_path(self) -> Path:
        """File that is locked exclusively by the driver."""
        return self._claim.path

    @property
    def writers_path(self) -> Path:
        """File that every writer holds a shared lock on."""
        return self._writers.path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the claim for the time of a block.

        Raises
        ------
        RunBusy
            Another process holds it; who, is in the message.
        TargetError
            The folder cannot be written or offers no locks.
        """
        try:
            taken = self._claim.acquire(exclusive=True)
        except OSError as error:
            raise target_error(self._shelf.folder, error, 4096) from error
        if not taken:
            raise RunBusy(self._busy_message())
        try:
            self._claim.write_text(
                json.dumps(
                    {
                        "token": self.token,
                        "host": socket.gethostname(),
                        "pid": os.getpid(),
                        "since": dt.datetime.now()
                        .astimezone()
                        .isoformat(" ", "seconds"),
                    }
                )
            )
            # From here a late worker of a dead session finds another token.
            if not self._writers.acquire(exclusive=True, patience=ORPHAN_PATIENCE_S):
                msg = (
                    f"a worker of an earlier session still writes to "
                    f"{self._shelf.stem}; end it and run again"
                )
                raise RunBusy(msg)
            self._writers.release()
            yield
        finally:
            # Whoever still writes keeps the file; the next session removes it.
            if self._writers.acquire(exclusive=True):
                self._writers.release(remove=True)
            self._claim.release(remove=True)

    def _busy_message(self) -> str:
        holder = self.holder(self._claim)
        who = (
            f"process {holder['pid']} on {holder['host']} since {holder['since']}"
            if (holder)
            else "another process"
        )
        return (
            f"{self._shelf.stem} is being computed by {who}; look at it with "
            "'resumable status', or stop that process and run again"
        )

    @staticmethod
    def holder(lock_file: disk.LockFile) -> dict[str, Any]:
        """Who says that she holds a claim; empty when nobody does."""
        with contextlib.suppress(ValueError):
            plain = json.loads(lock_file.read_text())
            if isinstance(plain, dict) and {"pid", "host", "since"} <= plain.keys():
                return plain
        return {}


def busy(run: RunFile) -> dict[str, Any]:
    """Who computes a run at this moment: ``host``, ``pid``, ``since``; or empty."""
    stem = re.sub(r"_\d{3,}$", "", run.path.stem)
    lock_file = disk.LockFile(run.path.with_name(f"{stem}.claim"))
    if not lock_file.path.exists():
        return {}
    # Opened for reading only: looking must not make or change a file.
    with contextlib.suppress(OSError), disk.opened(lock_file.path, os.O_RDONLY) as fd:
        if disk.try_lock(fd, exclusive=False):
            return {}
    return Claim.holder(lock_file)
