"""Positioned writes, locks and syncs: the platforms' differences in one place.

Nothing here knows HDF5. Everything that changes a byte of a run file after its
birth goes through :func:`write_at`, everything that makes bytes durable through
:func:`sync` and :func:`sync_folder`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator

fcntl: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, experimental
    fcntl = None

#: How a blank and the like are written in the list of mounts.
_ESCAPED = re.compile(r"\\([0-7]{3})")


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


def file_system(path: Path) -> str:
    """Return the type of the file system a path is on, for example ``"nfs4"``.

    ``"unknown"`` where the system does not tell (elsewhere than on Linux).
    """
    try:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return "unknown"
    return type_of_mount(table, path.resolve())


def type_of_mount(table: str, path: Path) -> str:
    """Find the file system type of an absolute path in the text of a mountinfo."""
    found, depth = "unknown", 0
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda m: chr(int(m[1], 8)), mount.split(" ")[4]))
        # Of several on one point the last one is seen.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = source.split(" ")[0], len(point.parts)
    return found


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
        deadline = time.monotonic() + patience
        while not self._try(exclusive):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

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
        ours = os.fstat(fd)
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

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
