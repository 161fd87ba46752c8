"""Positioned writes, locks and syncs: the platforms' differences in one place.

Nothing here knows HDF5. Everything that changes a byte of a run file after its
birth goes through :func:`write_at`, everything that makes bytes durable through
:func:`sync` and :func:`sync_folder`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Any

from resumable import forks
from resumable.errors import RunBusy, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

fcntl: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, experimental
    fcntl = None


def write_at(fd: int, data: Any, offset: int) -> None:
    """Write all of `data`, bytes or a contiguous array, at `offset`.

    Raises
    ------
    OSError
        As the system says, for example ENOSPC.
    """
    view = memoryview(data).cast("B")
    while view.nbytes:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Read `size` bytes at `offset`; shorter only at the end of the file."""
    parts = []
    while size > 0:
        part = os.pread(fd, size, offset)
        if not part:
            break
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts)


def sync(fd: int) -> None:
    """Return when the data written to `fd` have reached the disk."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    elif fcntl is not None and hasattr(fcntl, "F_FULLFSYNC"):  # pragma: no cover
        # macOS: fsync alone leaves the data in the drive's own cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:  # pragma: no cover
        os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, so that a new file survives."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def reserve(fd: int, offset: int, size: int) -> None:
    """Reserve disk space for a byte range of a file; its bytes do not change.

    Raises
    ------
    OSError
        ENOSPC when the disk is too full; nothing is lost then.
    """
    if size <= 0:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, size)
    # macOS has no call that reserves a range inside a file; a disk that fills
    # up shows as an error at the write, and the run goes on once there is room.


def free_bytes(folder: Path) -> int:
    """Bytes a user without privileges can still write in `folder`."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def link_new(temporary: Path, path: Path) -> bool:
    """Give a finished temporary file its name, never replacing one.

    Returns
    -------
    bool
        False when `path` exists already (it is left as it is).
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        # No hard links here (exFAT, some network mounts). The caller holds the
        # claim on the name, so nobody of ours can come between these two lines.
        if path.exists():
            return False
        temporary.rename(path)
    sync_folder(path.parent)
    return True


def replace(temporary: Path, path: Path) -> None:
    """Put a finished temporary file, which is durable, in the place of another."""
    # Through pathlib this could not be told from a plain rename by a test of kills.
    os.replace(temporary, path)  # noqa: PTH105
    sync_folder(path.parent)


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Take a lock on an open file at once, or say that somebody holds it.

    Raises
    ------
    TargetError
        The file system offers no locks.
    """
    if fcntl is None:  # pragma: no cover - Windows, experimental
        return True
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        msg = (
            f"the file system of the target folder offers no file locks ({error}); "
            "give target= a folder on another file system"
        )
        raise TargetError(msg) from error
    return True


def wait_until(condition: Callable[[], bool], patience: float) -> bool:
    """Ask again and again, for `patience` seconds; return whether it became true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


class LockFile:
    """A small file that exists to be locked, gone when nobody needs it.

    The lock is what counts (a dead process holds none); the text inside is only
    for the message that names the holder.

    Parameters
    ----------
    path : Path
        Where it lies; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, *, exclusive: bool, patience: float = 0.0) -> bool:
        """Take the lock; False when it stays taken for `patience` seconds."""
        return wait_until(lambda: self._try(exclusive), patience)

    def _try(self, exclusive: bool) -> bool:
        if self._fd is not None:
            return try_lock(self._fd, exclusive=exclusive)
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if not try_lock(fd, exclusive=exclusive):
                    return False
                if self._is_current(fd):
                    self._fd, fd = fd, -1
                    forks.let_go_in_copies(self)
                    return True
                # The last holder removed the name between our open and lock.
            finally:
                if fd >= 0:
                    os.close(fd)

    def _is_current(self, fd: int) -> bool:
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == _place(fd)

    def write_text(self, text: str) -> None:
        """Say in the file who holds it."""
        if self._fd is None:
            msg = "the lock is not held"
            raise RuntimeError(msg)
        os.ftruncate(self._fd, 0)
        write_at(self._fd, text.encode(), 0)

    def read_text(self) -> str:
        """Return what the holder wrote, or nothing."""
        try:
            return self.path.read_text(errors="replace")
        except OSError:
            return ""

    def abandon(self) -> None:
        """Close the file in a copy of this process; the lock stays the original's."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; `remove` the file, which needs it held exclusively."""
        if self._fd is None:
            return
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._fd)
        self._fd = None


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file descriptor for the time of a block."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


class OpenFile:
    """A file open for positioned writes, which go to this file and no other.

    Other HDF5 readers get in beside its shared lock, HDF5 writers do not.

    Parameters
    ----------
    path : Path
        Of an existing file.

    Raises
    ------
    RunBusy
        Another program has it open for writing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._place = _place(self._fd)
        if not try_lock(self._fd, exclusive=False):
            self.close()
            msg = f"{path} is open for writing in another program; close it there first"
            raise RunBusy(msg)
        forks.let_go_in_copies(self)

    def write_at(self, data: Any, offset: int) -> None:
        """Write all of `data` at `offset`."""
        self._check()
        write_at(self._fd, data, offset)

    def read_at(self, size: int, offset: int) -> bytes:
        """Read `size` bytes at `offset`; shorter only at the end of the file."""
        return read_at(self._fd, size, offset)

    def sync(self) -> None:
        """Return when everything written has reached the disk."""
        self._check()
        sync(self._fd)

    def _check(self) -> None:
        """Refuse to write into another file that has come to our descriptor."""
        with contextlib.suppress(OSError):
            if _place(self._fd) == self._place:
                return
        msg = (
            "the computation has closed file descriptors that are not its own; "
            f"nothing more is written to {self._path}"
        )
        raise OSError(errno.EBADF, msg)

    def close(self) -> None:
        """Close the file; once."""
        self.abandon()

    def abandon(self) -> None:
        """Close the file in a copy of this process; the lock stays the original's."""
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            if fd >= 0 and _place(fd) == self._place:
                os.close(fd)


def _place(fd: int) -> tuple[int, int]:
    """Tell which file a descriptor is of."""
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino
