"""What differs on macOS, on a system from which the calls that macOS lacks are taken.

No machine with macOS has run these tests. What only macOS has (F_FULLFSYNC, kqueue) is
stood in for by the call of Linux that does the same.
"""

import ctypes
import errno
import fcntl
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import ROOT, SUPPORT, until
from processes import Mean

import resumable as rs
from resumable.engines.local import LocalEngine
from resumable.system import disk, forks, machine, threads

#: A Mac's: more than 2 GB at once are refused, also where the file is shorter.
INT_MAX = (1 << 31) - 1


@pytest.fixture
def _no_proc(monkeypatch):
    """Hide what Linux tells in files; psutil sees them, and has other ways on macOS."""
    real = Path.open

    def hiding(path, *args, **options):
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", hiding)
    monkeypatch.setattr(Path, "read_text", lambda p, **k: hiding(p, "r", **k).read())
    monkeypatch.delattr(os, "sched_getaffinity")


@pytest.mark.parametrize("refusal", [None, errno.ENOTSUP, errno.ENOTTY, errno.EIO])
def test_the_cache_of_the_drive_is_flushed_where_the_file_system_can(
    tmp_path, monkeypatch, refusal
):
    """Of files and of folders; a share cannot, and fsync is all that there is."""
    called = []

    def flush(fd, command):
        called.append(command)
        if refusal is not None:
            raise OSError(refusal, os.strerror(refusal))
        real(fd)

    real = os.fsync
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", flush)
    monkeypatch.setattr(os, "fsync", lambda fd: called.append("fsync") or real(fd))
    path = tmp_path / "file"
    path.touch()

    def sync_both():
        with disk.opened(path, os.O_RDWR) as fd:
            disk.sync(fd)
        disk.sync_folder(tmp_path)

    if refusal == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            sync_both()
        assert called == [51]
    else:
        sync_both()
        assert called == [51, *["fsync"] * bool(refusal)] * 2


@pytest.mark.parametrize("preadv", [True, False])
def test_no_call_reads_or_writes_more_than_macos_takes(monkeypatch, preadv):
    """Memory that nothing touches takes none; nothing is written."""
    written = []

    def write(fd, view, offset):
        assert view.nbytes <= INT_MAX
        written.append((offset, view.nbytes))
        return view.nbytes

    def read(fd, size, offset):
        assert size <= INT_MAX
        return b""

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "pread", read)
    if preadv:
        monkeypatch.setattr(
            os, "preadv", lambda f, v, at: len(read(f, v[0].nbytes, at))
        )
    else:
        monkeypatch.delattr(os, "preadv")
    large = np.empty(3 * INT_MAX, np.uint8)

    disk.write_at(-1, large, 7)

    ends = [offset + size for offset, size in written]
    assert [offset for offset, _ in written] == [7, *ends[:-1]]
    assert ends[-1] == 7 + large.nbytes
    assert disk.read_at(-1, large.nbytes, 0) == b""
    assert disk.read_into(-1, memoryview(large), 0) is False


def test_more_files_than_the_system_allows_are_told(monkeypatch):
    """Of macOS the hard limit is infinite, and the system's own is not in it."""
    limits = (256, resource.RLIM_INFINITY)

    def refuse(kind, values):
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    with (
        pytest.raises(OSError, match=r"may have 256 \(ulimit -n\), and the system"),
        disk.room_for_files(100_000),
    ):
        pass


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch):
    """There is no CLOCK_BOOTTIME; CLOCK_MONOTONIC of macOS counts sleep, too."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    before = time.clock_gettime(time.CLOCK_MONOTONIC)

    assert before <= machine.elapsing_s() <= time.clock_gettime(time.CLOCK_MONOTONIC)


def test_libraries_are_counted_by_the_loader_of_macos(monkeypatch):
    """So that those which are loaded late are held to one thread, too."""
    loader = types.SimpleNamespace(_dyld_image_count=lambda: 321)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: loader)

    assert threads._counter()() == 321


@pytest.mark.usefixtures("_no_proc")
def test_cores_and_memory_are_known_without_proc_and_cgroups():
    free = psutil.virtual_memory().available

    assert machine.usable_cores() == os.cpu_count()
    assert 0 < machine.host_memory().amount < 1.5 * free
    assert 0 < machine.available_memory() < 1.5 * free
    assert machine.resident_memory() > 1 << 20
    assert machine.proportional_memory() > 1 << 20
    assert machine.kernel() == os.uname().nodename


def test_the_file_system_is_known_without_proc(tmp_path, request):
    """So that a share is known as one, where rows are written by the driver alone."""
    known = disk.file_system(tmp_path), disk.file_system(Path("/proc"))
    request.getfixturevalue("_no_proc")

    assert (disk.file_system(tmp_path), disk.file_system(Path("/proc"))) == known


def test_the_number_of_a_device_does_not_tell_a_share(tmp_path, monkeypatch):
    """Of Linux alone it does; macOS numbers shares as it numbers disks."""
    asked = []
    monkeypatch.setattr(disk, "incoherent", lambda path: asked.append(path) or "nfs")
    monkeypatch.setattr(os, "major", lambda device: 53)
    monkeypatch.setattr(disk, "sys", types.SimpleNamespace(platform="darwin"))
    path = tmp_path / "file"
    path.touch()

    with disk.opened(path, os.O_RDONLY) as fd:
        disk.refresh(fd, path)

    assert asked == [tmp_path]


def test_workers_are_not_forked_on_macos(monkeypatch):
    assert forks.start_method() == "forkserver"
    monkeypatch.setattr(forks, "sys", types.SimpleNamespace(platform="darwin"))

    with rs.Pool(1) as pool:
        (parent,) = pool.imap(eval, ["__import__('os').getppid()"])
        assert "'spawn'" in psutil.Process(parent).cmdline()[-1]


def test_arrays_are_shared_without_files_in_memory(scan, monkeypatch):
    """By a file without a name in the temporary folder."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "posix_fallocate")
    table = rs.shared_array(np.arange(1000.0))

    with rs.Pool(2) as pool:
        assert list(pool.imap(np.sum, [table, table[10:20]])) == [499500.0, 145.0]
    results = Mean(scan).compute(engine=LocalEngine(2), progress=False)
    assert results.status.done == 60


class Queue:
    """A kqueue by way of epoll: events of a change are reported once."""

    controls = 0

    def __init__(self):
        self._epoll = select.epoll()

    def control(self, changes, most):
        for fd, kind, flags in changes:
            assert (kind, flags) == ("read", 1 | 32)
            self._epoll.register(
                fd, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP
            )
        Queue.controls += 1
        found = self._epoll.poll(-1, most)
        ended = select.EPOLLHUP | select.EPOLLRDHUP
        return [types.SimpleNamespace(flags=0x8000 * bool(e & ended)) for _, e in found]

    def close(self):
        self._epoll.close()


def test_a_worker_notices_that_its_driver_has_ended(monkeypatch):
    """A message that it has not read is no end, and stays."""
    monkeypatch.setattr(select, "kqueue", Queue, raising=False)
    monkeypatch.setattr(select, "kevent", lambda *given: given, raising=False)
    for name, value in {
        "KQ_EV_ADD": 1,
        "KQ_EV_CLEAR": 32,
        "KQ_EV_EOF": 0x8000,
        "KQ_FILTER_READ": "read",
    }.items():
        monkeypatch.setattr(select, name, value, raising=False)
    ours, theirs = socket.socketpair()
    with ours:
        waiting = threading.Thread(target=forks.await_hangup, args=(ours.fileno(),))
        waiting.start()
        theirs.send(b"message")
        until(lambda: Queue.controls == 2)
        assert waiting.is_alive()
        theirs.close()
        waiting.join()
        assert ours.recv(100) == b"message"


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [
        ("scan-data-Mean-0", "SCAN-data-Mean-0", True),
        ("o\u0308l-data-Mean-0", "\u00f6l-data-Mean-0", True),
        ("\u00d6l-data-Mean-0", "o\u0308l-data-Mean-0", True),
        ("scan-data-Mean-0", "scan-data-Mean-1", False),
    ],
)
def test_a_name_in_another_case_is_the_same_name(
    tmp_path, monkeypatch, asked, there, found
):
    """As APFS has it: the folder lists the name as it was made, and both open it."""
    for end in (".h5", "_001.h5", ".h5.r0"):
        (tmp_path / f"{asked}{end}").touch()
    names = [f"{there}{end}" for end in (".h5", "_001.h5", ".h5.r0")]
    monkeypatch.setattr(os, "listdir", lambda folder: names)

    expected = [tmp_path / f"{asked}{end}" for end in (".h5", "_001.h5")]
    assert disk.files_in(tmp_path, asked, ".h5") == (expected if found else [])


def test_names_that_the_file_system_tells_apart_are_two(tmp_path):
    for name in ("scan.h5", "SCAN.h5", "SCAN_001.h5"):
        (tmp_path / name).touch()

    assert disk.files_in(tmp_path, "scan", ".h5") == [tmp_path / "scan.h5"]


#: Run by each interpreter before all else, also by workers.
WITHOUT_LINUX = """
import fcntl, os, pathlib
for name in ("memfd_create", "posix_fallocate", "posix_fadvise", "fdatasync",
             "sched_getaffinity", "preadv", "SEEK_DATA", "SEEK_HOLE"):
    delattr(os, name)
fcntl.F_FULLFSYNC = 51
real_fcntl, real_open = fcntl.fcntl, pathlib.Path.open
fcntl.fcntl = lambda fd, command, *rest: (
    os.fsync(fd) if command == 51 else real_fcntl(fd, command, *rest))
def hiding(path, *args, **options):
    if str(path).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "there is no such folder", str(path))
    return real_open(path, *args, **options)
pathlib.Path.open = hiding
"""
PROGRAM = """
import h5py, numpy as np, resumable as rs
from resumable.engines.local import LocalEngine
with h5py.File("scan.h5", "w") as file:
    file["data"] = np.arange(400.0).reshape(100, 4)
class Parts(rs.Process):
    version = 1
    outputs = {"mean": rs.Output(), "above": rs.Output(ragged=True)}
    def unit_computation(self, spectrum):
        return {"mean": spectrum.mean(), "above": spectrum[spectrum > 200]}
process = Parts("scan.h5::/data")
process.compute(engine="serial", positions=slice(0, 30))
results = process.compute(engine=LocalEngine(2, "spawn"))
print(results.status, results["mean"][...].sum(), len(results["above"][99]))
results.pack()
print(process.verify(sample="all").passed, process.compute().status)
"""


def test_a_whole_run_without_the_calls_of_linux(tmp_path):
    """Two engines, ragged rows, packed, verified."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LINUX)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}:{SUPPORT}"},
        capture_output=True,
        text=True,
    )

    assert done.stderr == ""
    assert done.stdout == (
        "100 of 100 positions done 19950.0 4\nTrue 100 of 100 positions done\n"
    )
