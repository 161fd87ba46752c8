"""Lock files: which process may do something, until it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import time
from typing import TYPE_CHECKING

from resumable.system import disk, forks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Most that is read of the text of a lock file.
_TEXT_BYTES = 4096


def wait_until(condition: Callable[[], bool], patience: float) -> bool:
    """Ask every 20 ms, for `patience` seconds; return whether it became true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


@dataclasses.dataclass(eq=False)
class LockFile:
    """A small file that exists to be locked.

    Only the lock counts, which ends with the process that holds it. The text in the
    file is for the message that names the holder. Created when missing.
    """

    path: Path
    _fd: int | None = dataclasses.field(default=None, init=False)

    def acquire(self, *, exclusive: bool, patience: float = 0.0) -> bool:
        """Take the lock; False when it stays taken for `patience` seconds."""
        return wait_until(functools.partial(self._try, exclusive), patience)

    def _try(self, exclusive: bool) -> bool:
        with forks.lock:
            if self._fd is not None:
                return disk.try_lock(self._fd, exclusive=exclusive)
            while True:
                fd = disk.open_regular(self.path, os.O_RDWR | os.O_CREAT)
                try:
                    if os.fstat(fd).st_nlink > 1:
                        # Our lock files have one name: this is another file.
                        msg = (
                            f"{self.path.name} is another name of some file; remove it"
                        )
                        raise OSError(errno.EMLINK, msg)
                    if not disk.try_lock(fd, exclusive=exclusive):
                        return False
                    # Its holder may have removed the file between our open and lock.
                    with contextlib.suppress(FileNotFoundError):
                        named = self.path.stat()
                        if os.path.samestat(named, os.fstat(fd)):
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
        os.ftruncate(self._fd, 0)
        disk.write_at(self._fd, text.encode(), 0)

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
        """Release the lock; `remove` the file, which needs an exclusive lock."""
        if self._fd is None:
            return
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        with forks.lock:
            os.close(self._fd)
            self._fd = None
