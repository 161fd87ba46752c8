"""Record everything that a run does to a folder, in all of its processes.

The functions of :mod:`os` that change the disk are wrapped. Each call is one
record, appended to one log with ``O_APPEND``, so that the records of several
processes stand in their true order:

* a write, a change of size or a name is recorded after the call, so what is on
  record has happened;
* a sync is recorded before the call and after it. What was on record before it
  began is durable when it has ended, whoever wrote it. Anything else may be lost.

What HDF5 writes is not seen by this: it calls the system by itself, and only while
a file has a temporary name. So the contents of a file with such a name are recorded
before it is synced, linked or renamed, as one write of everything.
"""

import contextlib
import dataclasses
import json
import os
import struct
from pathlib import Path

#: Environment variable that names the log; importing ``scenarios`` starts then.
LOG = "RESUMABLE_TEST_RECORD"
_HEAD = struct.Struct("<II")
_CHANGES = os.O_CREAT | os.O_RDWR | os.O_WRONLY


@dataclasses.dataclass(frozen=True)
class Event:
    """One record.

    ``kind`` is one of open, write, contents, size, begin, sync, link, rename and
    unlink. ``file`` tells one file from another as long as both exist.
    """

    kind: str
    file: str = ""
    name: str = ""
    other: str = ""
    number: int = 0
    pid: int = 0
    data: bytes = b""


def read_log(path):
    text = Path(path).read_bytes()
    events, at = [], 0
    while at < len(text):
        head, size = _HEAD.unpack_from(text, at)
        at += _HEAD.size
        plain = json.loads(text[at : at + head])
        at += head
        events.append(Event(**plain, data=text[at : at + size]))
        at += size
    return events


def file_key(stat):
    """Return what tells a file from others that exist at the same time."""
    return f"{stat.st_dev}:{stat.st_ino}"


class _Recorder:
    """The wrapped calls; one per process."""

    def __init__(self, log):
        self.real = {
            name: getattr(os, name)
            for name in (
                "open",
                "pwrite",
                "ftruncate",
                "posix_fallocate",
                "fsync",
                "fdatasync",
                "link",
                "rename",
                "replace",
                "unlink",
            )
        }
        self._log = self.real["open"](
            log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        )
        self._names = {}
        self._syncs = 0

    def close(self):
        os.close(self._log)

    def _note(self, kind, data=b"", **more):
        head = json.dumps({"kind": kind, "pid": os.getpid(), **more}).encode()
        record = _HEAD.pack(len(head), len(data)) + head + bytes(data)
        # One write: records of several processes and threads are never mixed.
        if os.write(self._log, record) != len(record):
            raise OSError("the log cannot be written")

    def _contents(self, name):
        """Record what HDF5 has written to a file with a temporary name."""
        if Path(name).name.startswith("."):
            file = file_key(Path(name).stat())
            full = str(Path(name).absolute())
            self._note("contents", Path(name).read_bytes(), file=file, name=full)

    def open(self, path, flags, *arguments, **options):
        fd = self.real["open"](path, flags, *arguments, **options)
        self._names[fd] = str(path)
        if flags & _CHANGES:
            file = file_key(os.fstat(fd))
            self._note("open", file=file, name=str(Path(path).absolute()))
            self._contents(path)
        return fd

    def pwrite(self, fd, data, offset):
        written = self.real["pwrite"](fd, data, offset)
        done = memoryview(data).cast("B")[:written]
        self._note("write", done, file=file_key(os.fstat(fd)), number=offset)
        return written

    def ftruncate(self, fd, size):
        self.real["ftruncate"](fd, size)
        self._note("size", file=file_key(os.fstat(fd)), number=size)

    def posix_fallocate(self, fd, offset, size):
        before = os.fstat(fd).st_size
        self.real["posix_fallocate"](fd, offset, size)
        if offset + size > before:
            self._note("size", file=file_key(os.fstat(fd)), number=offset + size)

    def fsync(self, fd):
        self._sync(fd, "fsync")

    def fdatasync(self, fd):
        self._sync(fd, "fdatasync")

    def _sync(self, fd, name):
        file = file_key(os.fstat(fd))
        if fd in self._names:
            self._contents(self._names[fd])
        self._syncs += 1
        number = self._syncs
        self._note("begin", file=file, number=number)
        self.real[name](fd)
        self._note("sync", file=file, number=number)

    def link(self, old, new, **options):
        self._contents(old)
        self.real["link"](old, new, **options)
        self._name("link", old, new)

    def rename(self, old, new, **options):
        self._contents(old)
        self.real["rename"](old, new, **options)
        self._name("rename", old, new)

    def replace(self, old, new, **options):
        self._contents(old)
        self.real["replace"](old, new, **options)
        self._name("rename", old, new)

    def unlink(self, path, **options):
        self.real["unlink"](path, **options)
        self._note("unlink", name=str(Path(path).absolute()))

    def _name(self, kind, old, new):
        names = {"other": str(Path(old).absolute()), "name": str(Path(new).absolute())}
        self._note(kind, **names, file=file_key(Path(new).stat()))


@contextlib.contextmanager
def recording(log):
    """Record what this process does in a block of code, to the end of `log`."""
    recorder = _Recorder(log)
    for name in recorder.real:
        setattr(os, name, getattr(recorder, name))
    try:
        yield
    finally:
        for name, call in recorder.real.items():
            setattr(os, name, call)
        recorder.close()


def record_from_here():
    """Record all that this process does until it ends, where the log is named."""
    if LOG in os.environ and not isinstance(
        getattr(os.pwrite, "__self__", None), _Recorder
    ):
        recorder = _Recorder(os.environ[LOG])
        for name in recorder.real:
            setattr(os, name, getattr(recorder, name))
