"""Two mounts of one folder, each with a cache, as two hosts have them on NFS.

Each mount is served by a process over ``/dev/fuse``. The kernel keeps names and
attributes of a mount for `CACHED_S` seconds, and asks nobody meanwhile; opens, reads,
writes and locks go to the folder. A file that was removed there is still opened under
the name that is in the cache, or is an ESTALE, as on NFS version 3. Each mount makes up
inodes of its own, as sshfs does.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import traceback
from pathlib import Path

from helpers import ROOT, SUPPORT

CACHED_S = 60
#: The mounts are seen by this process and its children only, and end with them.
UNSHARED = ("unshare", "--user", "--map-root-user", "--mount", "--fork", "--kill-child")
_LIBC = ctypes.CDLL(None, use_errno=True)
_WRITE_BYTES = 1 << 17
# Of linux/fuse.h.
_SETS_SIZE, _FLOCK, _FLOCKS, _BIG_WRITES = 8, 1, 1 << 10, 1 << 5
_LOCK_KINDS = {0: fcntl.LOCK_SH, 1: fcntl.LOCK_EX, 2: fcntl.LOCK_UN}


def can_mount():
    """Return whether this system lets us serve a mount."""
    asked = [*UNSHARED, "sh", "-c", "true <>/dev/fuse"]
    try:
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run_in_mounts(script, folder, *, stale=False):
    """Run a script with `a` and `b`, two mounts of a folder made in `folder`."""
    preamble = (
        "from pathlib import Path\n"
        "from cached_mount import two_mounts\n"
        f"with two_mounts(Path({str(folder)!r}), stale={stale}) as (server, a, b):\n"
    )
    text = preamble + "".join(f"    {line}\n" for line in script.splitlines())
    return subprocess.run(
        [*UNSHARED, sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@contextlib.contextmanager
def two_mounts(folder, *, stale):
    """Make a folder and mount it twice; yields the three paths."""
    paths = [folder / name for name in ("server", "a", "b")]
    for path in paths:
        path.mkdir()
    servers = [_mount(paths[0], point, stale) for point in paths[1:]]
    try:
        yield paths
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _mount(folder, point, stale):
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other"
    where = str(point).encode()
    if _LIBC.mount(b"cached", where, b"fuse.cached", 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    pid = os.fork()
    if not pid:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        try:
            _Server(fd, folder, stale=stale).serve()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(fd)
    return pid


class _Server:
    """Answers the kernel's requests of one mount, one after the other."""

    def __init__(self, fd, folder, *, stale):
        self._fd, self._stale = fd, stale
        # Number of a node -> descriptor of the file, never closed: as a file handle of
        # NFS it is of one file for ever.
        self._nodes = {1: os.open(folder, os.O_PATH)}
        self._numbers = {}

    def serve(self):
        handlers = {
            1: self._lookup,
            3: self._getattr,
            4: self._setattr,
            10: self._unlink,
            12: lambda *of: self._rename(*of, 8),
            13: self._link,
            14: self._open,
            15: self._read,
            16: self._write,
            17: self._statfs,
            18: self._release,
            20: self._fsync,
            25: lambda *_: b"",  # FLUSH
            26: self._init,
            27: self._open,  # a folder
            28: self._readdir,
            29: self._release,
            30: self._fsync,
            32: self._lock,
            33: self._lock,
            35: self._create,
            43: self._allocate,
            45: lambda *of: self._rename(*of, 16),
        }
        while True:
            request = os.read(self._fd, _WRITE_BYTES + 4096)
            _, code, unique, node = struct.unpack_from("<IIQQ", request)
            if code in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET
                continue
            error, answer = -errno.ENOSYS, b""
            if code in handlers:
                try:
                    error, answer = 0, handlers[code](node, request[40:])
                except OSError as failed:
                    error = -failed.errno
            head = struct.pack("<IiQ", 16 + len(answer), error, unique)
            os.write(self._fd, head + answer)

    def _path(self, node, name=None):
        """Return a path to a node, or to a name in it."""
        fd = self._nodes[node]
        if self._stale and not os.fstat(fd).st_nlink:
            raise OSError(errno.ESTALE, "")
        path = Path("/proc/self/fd") / str(fd)
        return path if name is None else path / os.fsdecode(name)

    def _entry(self, path):
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        stat = os.fstat(fd)
        key = (stat.st_dev, stat.st_ino)
        if key in self._numbers:
            os.close(fd)
        else:
            self._numbers[key] = len(self._nodes) + 1
            self._nodes[self._numbers[key]] = fd
        number = self._numbers[key]
        times = struct.pack("<QQQQII", number, 0, CACHED_S, CACHED_S, 0, 0)
        return times + self._attributes(number)

    def _init(self, node, body):
        _, _, ahead, offered = struct.unpack_from("<IIII", body)
        flags = offered & (_FLOCKS | _BIG_WRITES)
        return struct.pack(
            "<IIIIHHIIHHI28x", 7, 31, ahead, flags, 8, 8, _WRITE_BYTES, 1, 0, 0, 0
        )

    def _lookup(self, node, body):
        return self._entry(self._path(node, body[:-1]))

    def _getattr(self, node, body):
        self._path(node)
        times = struct.pack("<QII", CACHED_S, 0, 0)
        return times + self._attributes(node)

    def _setattr(self, node, body):
        (valid,), (size,) = (
            struct.unpack_from(kind, body, at) for kind, at in (("<I", 0), ("<Q", 16))
        )
        if valid & _SETS_SIZE:
            os.truncate(self._path(node), size)
        return self._getattr(node, body)

    def _unlink(self, node, body):
        self._path(node, body[:-1]).unlink()
        return b""

    def _rename(self, node, body, names_at):
        (folder,) = struct.unpack_from("<Q", body)
        old, new = body[names_at:-1].split(b"\0")
        self._path(node, old).replace(self._path(folder, new))
        return b""

    def _link(self, node, body):
        (old,) = struct.unpack_from("<Q", body)
        new = self._path(node, body[8:-1])
        # With a folder it is a link to the file, and not to the link in /proc.
        os.link(self._path(old), new, src_dir_fd=self._nodes[1], follow_symlinks=True)
        return self._entry(new)

    def _open(self, node, body):
        flags = struct.unpack_from("<I", body)[0] & ~(os.O_NOFOLLOW | os.O_CREAT)
        return struct.pack("<QII", os.open(self._path(node), flags), 0, 0)

    def _create(self, node, body):
        flags, mode = struct.unpack_from("<II", body)
        path = self._path(node, body[16:-1])
        fd = os.open(path, flags | os.O_CREAT, mode)
        return self._entry(path) + struct.pack("<QII", fd, 0, 0)

    def _release(self, node, body):
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def _read(self, node, body):
        fd, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(fd, size, offset)

    def _write(self, node, body):
        fd, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(fd, body[40 : 40 + size], offset), 0)

    def _fsync(self, node, body):
        os.fsync(struct.unpack_from("<Q", body)[0])
        return b""

    def _allocate(self, node, body):
        fd, offset, size = struct.unpack_from("<QQQ", body)
        os.posix_fallocate(fd, offset, size)
        return b""

    def _statfs(self, node, body):
        found = os.statvfs(self._path(node))
        counts = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files)
        return struct.pack("<QQQQQIII28x", *counts, found.f_ffree, 4096, 255, 4096)

    def _readdir(self, node, body):
        fd, offset, size = struct.unpack_from("<QQI", body)
        answer = b""
        for number, name in enumerate(sorted(os.listdir(fd))):  # noqa: PTH208
            raw = os.fsencode(name)
            entry = struct.pack("<QQII", 1, number + 1, len(raw), 0) + raw
            entry += bytes(-len(entry) % 8)
            if number >= offset and len(answer) + len(entry) <= size:
                answer += entry
        return answer

    def _lock(self, node, body):
        fd, _, _, _, kind, _, flags = struct.unpack_from("<QQQQIII", body)
        if not flags & _FLOCK:
            raise OSError(errno.ENOSYS, "")
        self._path(node)
        fcntl.flock(fd, _LOCK_KINDS[kind] | fcntl.LOCK_NB)
        return b""

    def _attributes(self, node):
        stat = os.fstat(self._nodes[node])
        times = (stat.st_atime_ns, stat.st_mtime_ns, stat.st_ctime_ns)
        seconds, rest = zip(*(divmod(time, 10**9) for time in times), strict=True)
        inode = os.getpid() << 32 | node
        return struct.pack(
            "<QQQQQQIIIIIIIIII",
            *(inode, stat.st_size, stat.st_blocks, *seconds, *rest),
            *(stat.st_mode, stat.st_nlink, 0, 0, 0, 4096, 0),
        )
