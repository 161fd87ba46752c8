"""Reading, writing and syncing files: the platforms' differences in one place.

Nothing here knows HDF5. All bytes of a run file that change after it was created are
written by :func:`write_at`; :func:`sync` and :func:`sync_folder` make bytes durable.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resumable.errors import TargetError, option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

fcntl: Any
resource: Any
try:
    import fcntl
    import resource
except ImportError:  # pragma: no cover - Windows
    fcntl = resource = None

windows: Any = None
if sys.platform == "win32":
    from resumable.system import windows

#: Files that are expected to be open at once, besides those that were before.
_expected_files = 0
#: Files that a process opens for itself: libraries, pipes to workers, the run file.
_OTHER_FILES = 128
#: File systems on which a host may not see at once what another one has changed. On
#: macOS there are others, and NFS and SMB are called nfs and smbfs.
_INCOHERENT_MACOS = ("afpfs", "macfuse", "webdav")
_INCOHERENT = ("9p", "cifs", "fuse", "nfs", "smb", "virtiofs", *_INCOHERENT_MACOS)
#: Most that one call reads or writes: more than 2 GB is an error on macOS.
_MOST_BYTES = 1 << 30
#: How a blank and the like are written in the list of mounts.
_ESCAPED = re.compile(r"\\([0-7]{3})")
#: A file that is open cannot be removed, where whoever opened it says so.
NAMES_STAY = windows is not None
#: How long a rename waits for a program that has just opened the file, in seconds: on
#: Windows, scanners for viruses and indexers open what is new.
_SCANNED_S = 2.0
_PAUSE_S = 0.02
# Windows has none of these.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


@contextlib.contextmanager
def room_for_files(count: int) -> Iterator[None]:
    """Let this process have `count` more files open for the time of a block.

    The limit of the process is raised where that is allowed, and stays so; else it is
    an OSError.
    """
    global _expected_files
    _expected_files += count
    try:
        if count and resource is not None:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            wanted = (
                len(list(Path("/dev/fd").iterdir())) + _expected_files + _OTHER_FILES
            )
            unlimited = resource.RLIM_INFINITY
            if hard != unlimited and wanted > hard:
                msg = (
                    f"{wanted:,} files would be open, and this process may have "
                    f"{hard:,} (ulimit -n, and ulimit -Hn)"
                )
                raise OSError(msg)
            if soft != unlimited and wanted > soft:
                try:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                except (OSError, ValueError) as error:
                    # macOS allows fewer than its hard limit says, which is infinite.
                    msg = (
                        f"{wanted:,} files would be open, this process may have "
                        f"{soft:,} (ulimit -n), and the system allows no more ({error})"
                    )
                    raise OSError(msg) from error
        yield
    finally:
        _expected_files -= count


def write_at(fd: int, data: Any, offset: int) -> None:
    """Write all of `data`, bytes or a contiguous array, at `offset`."""
    view = memoryview(data).cast("B")
    write_some = os.pwrite if windows is None else windows.write_some
    while view.nbytes:
        written = write_some(fd, view[:_MOST_BYTES], offset)
        view = view[written:]
        offset += written


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Read `size` bytes at `offset`; fewer only at the end of the file."""
    if windows is not None:
        buffer = bytearray(max(0, min(size, os.fstat(fd).st_size - offset)))
        whole = read_into(fd, memoryview(buffer), offset)
        return bytes(buffer) if whole else b""
    parts = []
    while size > 0:
        part = os.pread(fd, min(size, _MOST_BYTES), offset)
        if not part:
            break
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts)


def read_into(fd: int, view: memoryview, offset: int) -> bool:
    """Fill a view of bytes with those at `offset`; False where the file ends."""
    while view.nbytes:
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [view[:_MOST_BYTES]], offset)
        elif windows is not None:
            count = windows.read_some(fd, view[:_MOST_BYTES], offset)
        else:  # macOS before version 11
            part = os.pread(fd, min(view.nbytes, _MOST_BYTES), offset)
            count = len(part)
            view[:count] = part
        if not count:
            return False
        view = view[count:]
        offset += count
    return True


def stream_of(fd: int) -> IO[bytes]:
    """Open the file of a descriptor as a stream, for HDF5 to read by."""
    # On Windows every read moves the place of all duplicates of a descriptor.
    return os.fdopen(os.dup(fd) if windows is None else windows.reopened(fd), "rb")


def set_size(fd: int, size: int) -> None:
    """Cut a file, or lengthen it by bytes that read as 0."""
    if windows is None:
        os.ftruncate(fd, size)
    else:
        windows.set_size(fd, size)


#: Begin the types of file systems that tell the holes of files, also of files that were
#: written a moment ago.
_TELL_HOLES = ("btrfs", "ext", "overlay", "tmpfs", "xfs")


def tells_holes(path: Path) -> bool:
    """Return whether the file system of a path says where a file has no data."""
    return hasattr(os, "SEEK_DATA") and file_system(path).startswith(_TELL_HOLES)


def data_spans(fd: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the parts of a span that are not holes, which read as 0.

    Only where :func:`tells_holes`.
    """
    end = offset + size
    while offset < end:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # there are no data behind it
            raise
        if start >= end:
            return
        offset = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(offset, end)


#: Numbers of the errors for a call that a file system does not offer.
_NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY, errno.EOPNOTSUPP)

#: Numbers of the errors for a full disk and for a full quota.
FULL = (errno.ENOSPC, errno.EDQUOT)


def sync(fd: int) -> None:
    """Return when the data written to `fd` have reached the disk."""
    if not _flushed(fd):
        getattr(os, "fdatasync", os.fsync)(fd)


def _flushed(fd: int) -> bool:
    """Sync a file on macOS, where fsync leaves the data in the drive's own cache.

    False on other systems, and on file systems that do not offer it.
    """
    if not hasattr(fcntl, "F_FULLFSYNC"):
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    except OSError as error:
        if error.errno in _NOT_OFFERED:
            return False
        raise
    return True


def files_in(folder: Path, start: str, *ends: str) -> list[Path]:
    """Return the files of a folder whose names begin so, and end in one of these ways.

    Of a folder that is missing or cannot be listed: none. Where the file system takes
    a name in another case, or with accents composed otherwise, for the same name, it
    is returned as it is asked for. Compiling the pattern of `Path.glob` would take
    longer than listing the folder.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names, no paths
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    found = [n for n in names if n.startswith(start) and n.endswith(ends)]
    begin = _folded(start)
    for name in names:
        folded = "" if name.startswith(start) else _folded(name)
        if folded.startswith(begin) and folded.endswith(ends):
            asked = start + folded[len(begin) :]
            # It is another file where the file system tells the two apart.
            if asked not in found and (folder / asked).exists():
                found.append(asked)
    return [folder / name for name in found]


def _folded(name: str) -> str:
    """Return what names have in common that differ in case or composition only."""
    if not name.isascii():
        import unicodedata

        name = unicodedata.normalize("NFC", name)
    return name.casefold()


def time_of(path: Path) -> float:
    """Return when a file was changed; 0 where it is gone, or a link to nothing."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, so that a new file survives.

    On Windows it is asked for, and whether it was done is not known.
    """
    if windows is not None:
        windows.sync_folder(folder)
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        if not _flushed(fd):
            os.fsync(fd)
    finally:
        os.close(fd)


def reserve(fd: int, offset: int, size: int) -> None:
    """Reserve disk space for a byte range of a file; none of its bytes change."""
    if size <= 0:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, size)
    # macOS and Windows cannot reserve a range inside a file: there a full disk is an
    # error of a later write, and the run can be continued when there is room.


def free_bytes(folder: Path) -> int:
    """Bytes a user without privileges can still write in `folder`."""
    if windows is not None:
        import shutil  # its import takes as long as a short run

        return shutil.disk_usage(folder).free
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize


def link_new(temporary: Path, path: Path) -> bool:
    """Give a finished temporary file its name; False where the name is taken."""
    try:
        if windows is None:
            os.link(temporary, path)
        else:
            _renamed(os.rename, temporary, path)  # refuses where the name is taken
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, *_NOT_OFFERED):
            raise
        # No hard links here (exFAT, some network mounts). The caller holds the
        # lock on the name, so no process of ours can act between these two lines.
        if path.exists():
            return False
        temporary.rename(path)
    sync_folder(path.parent)
    return True


def replace(temporary: Path, path: Path) -> None:
    """Rename a finished and synced temporary file over another file.

    PermissionError: on Windows, another program has that file open.
    """
    # Not by pathlib: the tests of kills tell it from a plain rename by its name.
    if windows is None:
        os.replace(temporary, path)  # noqa: PTH105
    else:
        _renamed(windows.replace, temporary, path)
    sync_folder(path.parent)


def _renamed(rename: Callable[[Path, Path], None], old: Path, new: Path) -> None:
    """Rename on Windows, where a program may have opened one of the files just now."""
    deadline = time.monotonic() + _SCANNED_S
    while True:
        try:
            rename(old, new)
        except PermissionError as error:
            if time.monotonic() >= deadline:
                msg = (
                    f"{new.name} cannot be put in its place: that file is open, in "
                    "this program or in another one; close it there"
                )
                raise PermissionError(error.errno, msg) from error
            time.sleep(_PAUSE_S)
        else:
            return


def copy_mode(path: Path, fd: int) -> None:
    """Give an open file the permissions of another one; on Windows the folder does."""
    if windows is None:
        os.fchmod(fd, stat.S_IMODE(path.stat().st_mode))


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Lock an open file with flock; False where another process holds a lock.

    On Windows with LockFileEx, of which HDF5 does not know.

    TargetError: the file system offers no locks. OSError with ESTALE: the file was
    removed on another host; with ENOLCK: the server of the file system grants none.
    """
    if fcntl is None and windows is None:
        msg = (
            f"Python has no file locks on this system ({sys.platform}), and two "
            "programs could compute the same run at once; use another system"
        )
        raise TargetError(msg)
    try:
        if windows is not None:
            return bool(windows.try_lock(fd, exclusive=exclusive))
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise
        if error.errno == errno.ENOLCK:
            msg = (
                f"{error.strerror}: the server of this file system grants no file "
                "lock. NFS version 3 needs rpc.statd on this host and lockd on the "
                "server; vers=4.2 needs neither"
            )
            raise OSError(errno.ENOLCK, msg) from error
        msg = (
            f"the file system of the target folder offers no file locks ({error}); "
            f"give {option('target')} a folder on another file system"
        )
        raise TargetError(msg) from error
    return True


def refresh(fd: int, path: Path) -> None:
    """Have this host forget what a cache of its own says of an open file.

    On NFS it does so when it takes a lock, however the folder is mounted. OSError with
    ESTALE: the file was removed on another host; its name is looked up anew then.
    """
    device = os.fstat(fd).st_dev
    if fcntl is None or not _incoherent_device(device, path.parent):
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise


def file_system(path: Path) -> str:
    """Return the type of the file system a path is on, for example ``"nfs4"``.

    ``"unknown"`` where the system does not tell.
    """
    if windows is not None:
        return "smb" if windows.is_on_network(path.absolute()) else "unknown"
    try:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        import psutil  # not on Linux; its import takes as long as a short run

        mounts = [(m.mountpoint, m.fstype) for m in psutil.disk_partitions(all=True)]
        return type_of_mount(mounts, path.resolve())
    return type_of_mount(mounts_in(table), path.resolve())


def incoherent(path: Path) -> str:
    """Return the type of the file system of a path if it is one of `_INCOHERENT`."""
    kind = file_system(path)
    return kind if kind.startswith(_INCOHERENT) else ""


@functools.lru_cache(256)
def _incoherent_device(device: int, folder: Path) -> str:
    # On Linux, file systems on a device of their own are this host's.
    local = sys.platform == "linux" and os.major(device)
    return "" if local else incoherent(folder)


def mounts_in(table: str) -> Iterator[tuple[str, str]]:
    """Yield place and file system type of the mounts in the text of a mountinfo."""
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        point = _ESCAPED.sub(lambda m: chr(int(m[1], 8)), mount.split(" ")[4])
        yield point, source.split(" ")[0]


def type_of_mount(mounts: Iterable[tuple[str, str]], path: Path) -> str:
    """Find the file system type of an absolute path, by the places of all mounts."""
    found, depth, wanted = "unknown", 0, f"{path}/"
    for point, kind in mounts:
        # Of several on one point the last one is seen.
        if wanted.startswith(f"{point.rstrip('/')}/") and len(point) >= depth:
            found, depth = kind, len(point)
    return found


def open_regular(
    path: Path,
    flags: int,
    mode: int = 0o666,
    *,
    alone: bool = False,
    keeps_name: bool = False,
) -> int:
    """Open a regular file, and nothing else: opening a pipe could wait for ever.

    For writing no symbolic link is followed: it could lead out of the target folder.
    On Windows alone: PermissionError where a file that is to be open `alone` is open
    elsewhere, and nobody can remove a file that `keeps_name`.
    """
    if flags & (os.O_WRONLY | os.O_RDWR):
        flags |= _NO_LINK
    try:
        if windows is not None:
            fd: int = windows.open_file(path, flags, alone=alone, keeps_name=keeps_name)
        else:
            # With O_NONBLOCK a pipe opens at once, and is refused below.
            fd = os.open(path, flags | _NO_WAIT | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            where = path.readlink()
            msg = f"{path.name} is a link to {where}; nothing is written through links"
            raise OSError(errno.ELOOP, msg) from error
        if error.errno == errno.ENXIO:
            raise _irregular(path) from error
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise _irregular(path)


def _irregular(path: Path) -> OSError:
    return OSError(errno.EINVAL, f"{path.name} is not a regular file")


@contextlib.contextmanager
def opened(path: Path, flags: int, mode: int = 0o666) -> Iterator[int]:
    """Open a regular file, as :func:`open_regular`, for the time of a block."""
    fd = open_regular(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_now(path: Path) -> Iterator[int]:
    """Open a file for reading as it is now, not as a cache of this host has it."""
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(opened(path, os.O_RDONLY))
        try:
            refresh(fd, path)
        except OSError:
            # Not before a read has failed does the host look up the name anew.
            with contextlib.suppress(OSError):
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.pread(fd, 1, 0)
            fd = stack.enter_context(opened(path, os.O_RDONLY))
        yield fd


#: Message for a descriptor that is of another file than before.
DESCRIPTOR_CLOSED = "the computation has closed file descriptors that are not its own"


def file_id(fd: int) -> tuple[int, int]:
    """Return device and inode of the file of a descriptor."""
    file = os.fstat(fd)
    return file.st_dev, file.st_ino


def is_same_file(fd: int, identity: tuple[int, int]) -> bool:
    """Return whether a descriptor is of the file with this device and inode."""
    try:
        file = os.fstat(fd)
    except OSError:
        return False
    return (file.st_dev, file.st_ino) == identity


def is_read_only(fd: int) -> bool:
    """Return whether a descriptor is open for reading only.

    False on Windows: whoever reads by it there moves the place at which HDF5 reads.
    """
    if fcntl is None:
        return False
    flags: int = fcntl.fcntl(fd, fcntl.F_GETFL)
    return flags & os.O_ACCMODE == os.O_RDONLY


def duplicate_to_read(fd: int) -> int | None:
    """Return another descriptor of a file; None where it is open for writing."""
    if windows is not None:
        return windows.reopened(fd) if windows.is_read_only(fd) else None
    return os.dup(fd) if is_read_only(fd) else None


def close_if_same(fd: int, identity: tuple[int, int]) -> None:
    """Close a descriptor, unless it is of another file by now."""
    if is_same_file(fd, identity):
        with contextlib.suppress(OSError):
            os.close(fd)
