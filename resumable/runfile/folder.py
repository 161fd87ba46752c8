"""The run files of a computation, found by name, and the lock on computing them.

All runs of one identity share a stem: ``<source>-<dataset>-<process>-<first 8 of
the identity>``. The first is ``<stem>.h5``, the ones after it ``<stem>_001.h5`` and
on. Looking for them writes nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.errors import RunBusy, RunFileError, TargetError, option, shown, wrong
from resumable.runfile.create import target_errors
from resumable.runfile.file import RunFile, find_runs
from resumable.system import LockFile, disk, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names the folder for run files where ``target=`` is not given.
_TARGET_VARIABLE = "RESUMABLE_TARGET"
#: What follows the stem in the name of a run file, and the prefix.
_AFTER_STEM = re.compile(r"(?:_(\d{3,}))?\.h5")
_AFTER_PREFIX = re.compile(r"-[0-9a-f]{8}(_\d{3,})?\.h5")
#: How long a killed process may still hold its locks, in seconds.
_KILLED_S = 0.2
#: How long a new session waits for a worker of a dead one to end, in seconds.
ORPHAN_PATIENCE_S = 10.0


class RunFolder(NamedTuple):
    """The folder and the names of all runs of one identity. None of them need exist."""

    folder: Path
    """The target folder."""
    prefix: str
    """``<source>-<dataset>-<process>``, without the identity."""
    identity: str
    """sha256 of the identity document."""

    @property
    def stem(self) -> str:
        """The common part of the names of all runs of this identity."""
        return f"{self.prefix}-{self.identity[:8]}"

    def runs(self, files: contextlib.ExitStack | None = None) -> list[RunFile]:
        """Return the sound run files of this identity, the oldest first.

        They stay open until `files` is closed.
        """
        return [
            run
            for _, run in self.opened(files)
            if isinstance(run, RunFile) and run.header.identity == self.identity
        ]

    def opened(
        self, files: contextlib.ExitStack | None = None
    ) -> list[tuple[Path, RunFile | RunFileError]]:
        """Return the files of this identity's names, opened, or why they are not."""
        found: list[tuple[Path, RunFile | RunFileError]] = []
        for _, path in sorted(self._numbered()):
            try:
                found.append((path, RunFile(path, files)))
            except RunFileError as error:
                found.append((path, error))
        return found

    def _numbered(self) -> Iterator[tuple[int, Path]]:
        """Yield number and path of the files with names of this identity."""
        stem = self.stem
        for path in disk.files_in(self.folder, stem, ".h5"):
            match = _AFTER_STEM.fullmatch(path.name, len(stem))
            if match:
                yield int(match[1] or 0), path

    def others(self) -> list[RunFile]:
        """Return the sound runs of this process and dataset with other identities."""
        found = find_runs(
            path
            for path in disk.files_in(self.folder, self.prefix, ".h5")
            if _AFTER_PREFIX.fullmatch(path.name, len(self.prefix))
        )
        return [
            run
            for run in found
            if isinstance(run, RunFile) and run.header.identity != self.identity
        ]

    def new_path(self) -> Path:
        """Return the path of the next run: later runs have higher numbers."""
        number = max((number for number, _ in self._numbered()), default=-1) + 1
        suffix = f"_{number:03d}" if number else ""
        return self.folder / f"{self.stem}{suffix}.h5"

    def leftovers(self) -> list[Path]:
        """Return temporary files of this identity that a kill has left."""
        return disk.files_in(self.folder, f".{self.stem}", ".birth", ".part", ".pack")

    def copies(self) -> list[Path]:
        """Return copies of the source in position order, made for this identity."""
        return disk.files_in(self.folder, self.stem, ".rechunked.h5")


def run_folder_of(run: RunFile) -> RunFolder:
    """Return folder and names of the runs of this one's identity."""
    identity = run.header.identity
    stem = re.sub(r"_\d{3,}$", "", run.path.stem)
    return RunFolder(run.path.parent, stem.removesuffix(f"-{identity[:8]}"), identity)


def target_folder(target: str | Path | None, source_path: str) -> Path:
    """Return the folder for run files, absolute.

    It is given, of the environment, or of the source, whose path is absolute.
    """
    chosen: Any = target if target is not None else os.environ.get(_TARGET_VARIABLE)
    if chosen is None:
        if not source_path:
            msg = (
                "an array, or a number of positions, lies in no folder; give "
                f"{option('target')}, a folder for the results"
            )
            raise TargetError(msg)
        return Path(source_path).parent
    if not isinstance(chosen, (str, os.PathLike)):
        raise wrong(TargetError, "target", chosen, "a folder for the results")
    folder = Path(chosen).absolute()
    if not folder.is_dir():
        what = "does not exist; make it first"
        if folder.exists():
            what = f"is not a folder; give another as {option('target')}"
        msg = f"the target folder {folder} {what}"
        raise TargetError(msg)
    return folder


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

    @property
    def is_left(self) -> bool:
        """A session works, or was killed, or had a worker that had not ended."""
        return self._lock.is_in_use or self._writers.is_in_use

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
                advice = (
                    "look at it with 'resumable status', or stop that process and run "
                    "again"
                )
                if told:
                    who = f"process {told['pid']} on {told['host']}"
                    if (told["pid"], told["host"]) == (os.getpid(), platform.node()):
                        who += ", which is this one"
                        advice = "wait for that call, or cancel() what start() returned"
                    who += f", since {told['since']}"
                msg = f"{name} is being computed by {who}; {advice}"
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
