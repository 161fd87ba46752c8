"""Lock files, which say what a process may do until it ends, and files open locked."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import time
from typing import TYPE_CHECKING, Any

from resumable.errors import RunBusy
from resumable.system import disk, forks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: For so many seconds a lock is asked for again where the file was removed, here or on
#: another host, since it was opened, and where a server grants no lock.
_SERVER_S = 2.0
_PAUSE_S = 0.02
#: Most that is read of the text of a lock file.
_TEXT_BYTES = 4096


def wait_until(condition: Callable[[], bool], patience: float) -> bool:
    """Ask every 20 ms, for `patience` seconds; return whether it became true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


@dataclasses.dataclass(eq=False)
class LockFile:
    """A small file that exists to be locked.

    Only the lock counts, which ends with the process that holds it. The text in the
    file is for the message that names the holder. Created when missing.
    """

    path: Path
    _fd: int | None = dataclasses.field(default=None, init=False)

    @functools.cached_property
    def _stays(self) -> bool:
        """The file is emptied when it is released, and not removed.

        A host that has the removed file open, or its name in a cache, could lock that
        one while another host locks a new file of the name.
        """
        return bool(disk.incoherent(self.path.parent))

    @property
    def is_in_use(self) -> bool:
        """The file is not as a release leaves it; its holder may have been killed."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return False
        return size > 0 or not self._stays

    def acquire(self, *, exclusive: bool, patience: float = 0.0) -> bool:
        """Take the lock; False when it stays taken for `patience` seconds."""
        deadline = time.monotonic() + _SERVER_S
        while True:
            try:
                return wait_until(functools.partial(self._try, exclusive), patience)
            except OSError as error:
                again = error.errno in (errno.ESTALE, errno.ENOLCK)
                # On Windows, it is being removed at this moment.
                again |= disk.NAMES_STAY and error.errno == errno.EACCES
                if not again or time.monotonic() >= deadline:
                    raise
            time.sleep(_PAUSE_S)

    def _try(self, exclusive: bool) -> bool:
        with forks.lock:
            if self._fd is not None:
                return disk.try_lock(self._fd, exclusive=exclusive)
            flags = os.O_RDWR | os.O_CREAT
            fd = disk.open_regular(self.path, flags, keeps_name=True)
            try:
                names = os.fstat(fd).st_nlink
                if names > 1:
                    # Our lock files have one name: this is another file.
                    msg = f"{self.path.name} is another name of some file; remove it"
                    raise OSError(errno.EMLINK, msg)
                if not disk.try_lock(fd, exclusive=exclusive):
                    return False
                # Its holder may have removed the file between our open and lock. Of a
                # file removed on another host a cache may still know the name, but
                # taking the lock has asked the server how many names there are.
                locked = os.fstat(fd)
                try:
                    named = os.path.samestat(self.path.stat(), locked)
                except FileNotFoundError:
                    named = False
                if not named or locked.st_nlink < names:
                    msg = f"{self.path.name} was removed each time it was to be locked"
                    raise OSError(errno.ESTALE, msg)
                self._fd, fd = fd, -1
                forks.holders.add(self)
                return True
            finally:
                if fd >= 0:
                    os.close(fd)

    def write_text(self, text: str) -> None:
        """Write into the file who holds it, which needs the lock."""
        if self._fd is None:
            msg = "the lock is not held"
            raise RuntimeError(msg)
        disk.set_size(self._fd, 0)
        disk.write_at(self._fd, text.encode(), 0)
        if self._stays:
            # Else other hosts would not see it before the file is closed.
            disk.sync(self._fd)

    def read_text(self) -> str:
        """Return what the holder wrote; empty where the file is missing."""
        try:
            with disk.opened(self.path, os.O_RDONLY) as fd:
                return disk.read_at(fd, _TEXT_BYTES, 0).decode(errors="replace")
        except OSError:
            return ""

    def close_in_child(self) -> None:
        """Close the file in a child process; the parent keeps the lock."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None

    def release(self, *, remove: bool = False) -> None:
        """Release the lock; `remove` the file, which needs an exclusive lock.

        Where another host may not see at once that it is removed it is only emptied.
        """
        if self._fd is None:
            return
        if remove:
            with contextlib.suppress(OSError):
                if self._stays:
                    disk.set_size(self._fd, 0)
                elif not disk.NAMES_STAY:
                    self.path.unlink()
        with forks.lock:
            os.close(self._fd)
            self._fd = None
        if remove and disk.NAMES_STAY and not self._stays:
            # Refused where another process has it open by now, perhaps locked.
            with contextlib.suppress(OSError):
                self.path.unlink()


def open_alone(path: Path, flags: int, patience: float) -> int | None:
    """Open a file that no other program has open, as far as the system tells.

    None: it stays open elsewhere for `patience` seconds. On Windows no program can open
    it meanwhile; on other systems it is locked, which HDF5 heeds.
    """
    opened: list[int] = []

    def taken() -> bool:
        if not opened:
            try:
                opened.append(disk.open_regular(path, flags, alone=True))
            except PermissionError:
                if disk.NAMES_STAY and path.exists():
                    return False
                raise
        return disk.try_lock(opened[0], exclusive=True)

    is_taken = False
    try:
        is_taken = wait_until(taken, patience)
    finally:
        if opened and not is_taken:
            os.close(opened[0])
    return opened[0] if is_taken else None


class OpenFile:
    """A file open for positioned writes.

    It holds a shared lock, beside which HDF5 readers can open the file and HDF5 writers
    cannot. A computation may have closed the descriptor, whose number another file may
    have by now: before every write the device and inode of the descriptor are checked,
    and OSError is raised where they differ. `exclusive`: no other process of ours can
    open the file for writing. RunBusy: another program has it open for writing.
    """

    def __init__(self, path: Path, *, exclusive: bool = False) -> None:
        self._path = path
        with forks.lock:
            self._fd = disk.open_regular(path, os.O_RDWR)
            self._identity = disk.file_id(self._fd)
            forks.holders.add(self)
        if not disk.try_lock(self._fd, exclusive=exclusive):
            self.close()
            msg = f"{path} is open for writing in another program; close it there first"
            raise RunBusy(msg)

    def write_at(self, data: Any, offset: int) -> None:
        """Write all of `data` at `offset`."""
        fd = self.fileno()
        try:
            disk.write_at(fd, data, offset)
        except OSError as error:
            raise self._with_advice(error) from error

    def fileno(self) -> int:
        """Return the descriptor; OSError where it is of another file by now."""
        if not disk.is_same_file(self._fd, self._identity):
            msg = f"{disk.DESCRIPTOR_CLOSED}; nothing more is written to {self._path}"
            raise OSError(errno.EBADF, msg)
        return self._fd

    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._fd).st_size

    def sync(self) -> None:
        """Return when everything written has reached the disk."""
        fd = self.fileno()
        try:
            disk.sync(fd)
        except OSError as error:
            raise self._with_advice(error) from error

    def _with_advice(self, error: OSError) -> OSError:
        msg = (
            f"{error.strerror}, at writing to {self._path}. What is committed stays; "
            "when the disk is in order and has room, run the same again"
        )
        return OSError(error.errno, msg)

    def close(self) -> None:
        """Close the file; once. In a child process the parent keeps the lock."""
        with forks.lock:
            fd, self._fd = self._fd, -1
            disk.close_if_same(fd, self._identity)

    close_in_child = close
