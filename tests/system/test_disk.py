"""Positioned writes, names and locks, seen from other processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from resumable.system import disk

# Without our library, so that the locks are seen as any other program sees them.
_HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX if sys.argv[2] == "exclusive" else fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""
_ASKER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(fd, fcntl.LOCK_NB | (
        fcntl.LOCK_EX if sys.argv[2] == "exclusive" else fcntl.LOCK_SH))
    print("taken")
except BlockingIOError:
    print("refused")
"""


@pytest.fixture
def holder(tmp_path):
    """Return a function that starts a process which holds a lock on a file."""
    started = []

    def hold(path, kind):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _HOLDER, str(path), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def ask(path, kind):
    """Try to lock a file in another process: ``"taken"`` or ``"refused"``."""
    command = [sys.executable, "-I", "-S", "-c", _ASKER, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def fd(tmp_path):
    """Return a descriptor of a file of ten bytes, ``0123456789``."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with disk.opened(path, os.O_RDWR) as descriptor:
        yield descriptor


@pytest.mark.parametrize(
    "data",
    [
        b"abc",
        bytearray(b"abc"),
        np.array([1.5, -2.5]),
        np.array([1.5, -2.5], ">f4"),
        np.array([[1, 2], [3, 4]], "i2"),
        np.array([1 + 2j]),
        np.array([True, False]),
        np.array([(1, 2.5)], [("a", "i1"), ("b", "f8")]),
        np.array([b"ab", b"c"]),
        np.array(3.5),
    ],
    ids=lambda data: str(getattr(data, "dtype", type(data).__name__)),
)
def test_all_bytes_of_any_fixed_size_data_are_written_at_the_offset(fd, data):
    """What lies before and behind stays as it was."""
    plain = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
    os.ftruncate(fd, 64)
    before = disk.read_at(fd, 64, 0)

    disk.write_at(fd, data, 5)

    assert disk.read_at(fd, 64, 0) == before[:5] + plain + before[5 + len(plain) :]


def test_a_write_that_the_system_cuts_short_goes_on(fd, monkeypatch):
    """The system may write less than it was given; the rest must follow."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda f, data, at: real(f, data[:3], at))

    disk.write_at(fd, b"abcdefgh", 1)

    assert disk.read_at(fd, 10, 0) == b"0abcdefgh9"


def test_a_read_that_the_system_cuts_short_goes_on(fd, monkeypatch):
    """The system may read less than was asked for before the end of the file."""
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda f, size, at: real(f, min(size, 3), at))

    read = disk.read_at(fd, 8, 1)

    assert read == b"12345678"


def test_a_read_is_shorter_only_at_the_end_of_the_file(fd):
    """Bytes that are not there are left out, not made up."""
    assert [disk.read_at(fd, 4, at) for at in (0, 8, 10)] == [b"0123", b"89", b""]


def test_reserved_space_is_taken_and_changes_no_byte(tmp_path):
    """After a reservation the blocks are there and the contents are as before."""
    path = tmp_path / "sparse"
    path.write_bytes(b"head")
    os.truncate(path, 1 << 20)
    assert path.stat().st_blocks * 512 < 1 << 20

    with disk.opened(path, os.O_RDWR) as fd:
        disk.reserve(fd, 0, 1 << 20)

    assert path.stat().st_blocks * 512 >= 1 << 20
    assert path.read_bytes() == b"head" + bytes((1 << 20) - 4)


def test_an_opened_descriptor_is_closed_after_an_error(tmp_path):
    """A block that raises leaves no descriptor behind."""
    path = tmp_path / "file"
    path.touch()

    with pytest.raises(KeyError), disk.opened(path, os.O_RDONLY) as fd:
        raise KeyError

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.fixture(params=["links", "no links"])
def _links(request, monkeypatch):
    """Run with hard links, and as on a file system that has none (exFAT)."""

    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links here")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("_links")
def test_a_finished_file_gets_its_name(tmp_path):
    """Where the name is free, the file is found under it."""
    new, path = tmp_path / "new", tmp_path / "run.h5"
    new.write_text("new")

    linked = disk.link_new(new, path)

    assert linked is True
    assert path.read_text() == "new"


@pytest.mark.usefixtures("_links")
def test_a_name_that_is_taken_is_never_replaced(tmp_path):
    """The file that has the name and the one that wants it both stay."""
    new, path = tmp_path / "new", tmp_path / "run.h5"
    new.write_text("new")
    path.write_text("old")

    linked = disk.link_new(new, path)

    assert linked is False
    assert (path.read_text(), new.read_text()) == ("old", "new")


def test_an_error_other_than_missing_links_is_raised(tmp_path):
    """A folder that is gone is not taken for a file system without links."""
    new = tmp_path / "new"
    new.touch()

    with pytest.raises(FileNotFoundError):
        disk.link_new(new, tmp_path / "gone" / "run.h5")


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [
        ("exclusive", "exclusive", "refused"),
        ("exclusive", "shared", "refused"),
        ("shared", "exclusive", "refused"),
        ("shared", "shared", "taken"),
    ],
)
def test_a_held_lock_lets_in_only_what_it_may(tmp_path, ours, theirs, answer):
    """Shared locks go together; an exclusive one goes with none."""
    lock = disk.LockFile(tmp_path / "lock")
    lock.acquire(exclusive=ours == "exclusive")

    answered = ask(lock.path, theirs)

    assert answered == answer
    lock.release()


@pytest.mark.parametrize(
    ("theirs", "ours", "taken"),
    [
        ("exclusive", "exclusive", False),
        ("exclusive", "shared", False),
        ("shared", "exclusive", False),
        ("shared", "shared", True),
    ],
)
def test_a_lock_of_another_process_is_respected(tmp_path, holder, theirs, ours, taken):
    """What another process holds is not taken, whoever wrote its program."""
    lock = disk.LockFile(tmp_path / "lock")
    holder(lock.path, theirs)

    answer = lock.acquire(exclusive=ours == "exclusive")

    assert answer is taken
    lock.release()


def test_a_killed_process_holds_no_lock(tmp_path, holder):
    """The claim of a dead driver never has to be cleaned up by hand."""
    lock = disk.LockFile(tmp_path / "lock")
    process = holder(lock.path, "exclusive")
    assert not lock.acquire(exclusive=True)

    process.kill()
    process.wait()

    assert lock.acquire(exclusive=True)
    lock.release()


def test_a_released_lock_can_be_taken_by_another_process(tmp_path):
    """Giving back without removing leaves the file, and the lock free."""
    lock = disk.LockFile(tmp_path / "lock")
    lock.acquire(exclusive=True)

    lock.release()

    assert ask(lock.path, "exclusive") == "taken"


def test_a_removed_lock_file_is_gone(tmp_path):
    """A run that ends leaves no small file behind."""
    lock = disk.LockFile(tmp_path / "lock")
    lock.acquire(exclusive=True)

    lock.release(remove=True)

    assert not lock.path.exists()


def test_a_lock_on_a_removed_name_does_not_count(tmp_path, monkeypatch):
    """Between our open and our lock the holder before us may remove the name."""
    lock = disk.LockFile(tmp_path / "lock")
    real, calls = disk.try_lock, []

    def removed_meanwhile(fd, *, exclusive):
        if not calls:
            lock.path.unlink()
        calls.append(fd)
        return real(fd, exclusive=exclusive)

    monkeypatch.setattr(disk, "try_lock", removed_meanwhile)

    assert lock.acquire(exclusive=True)
    assert len(calls) == 2
    assert ask(lock.path, "exclusive") == "refused"
    lock.release()


def test_a_patient_lock_is_taken_when_the_holder_removes_its_file(tmp_path):
    """Waiting ends with a lock on the file that has the name now."""
    first, second = (disk.LockFile(tmp_path / "lock") for _ in range(2))
    first.acquire(exclusive=True)
    answers = []
    waiter = threading.Thread(
        target=lambda: answers.append(second.acquire(exclusive=True, patience=60))
    )
    waiter.start()

    first.release(remove=True)
    waiter.join()

    assert answers == [True]
    assert ask(second.path, "shared") == "refused"
    second.release()


def test_a_lock_can_be_taken_again_after_it_was_given_back(tmp_path):
    """The same object serves for more than one session."""
    lock = disk.LockFile(tmp_path / "lock")
    lock.acquire(exclusive=True)
    lock.release(remove=True)

    again = lock.acquire(exclusive=True)

    assert again
    assert ask(lock.path, "shared") == "refused"
    lock.release()


def test_the_text_of_the_holder_replaces_the_one_before(tmp_path):
    """A shorter text leaves no tail of a longer one."""
    lock = disk.LockFile(tmp_path / "lock")
    lock.acquire(exclusive=True)
    lock.write_text("a rather long text of an earlier session")

    lock.write_text("pid 7")

    assert disk.LockFile(lock.path).read_text() == "pid 7"
    lock.release()


def test_a_text_is_only_written_under_the_lock(tmp_path):
    """Nobody signs for a lock that she does not hold."""
    lock = disk.LockFile(tmp_path / "lock")

    with pytest.raises(RuntimeError, match="not held"):
        lock.write_text("me")


def test_a_lock_file_that_is_not_there_reads_as_nothing(tmp_path):
    """Looking who holds it makes no file."""
    lock = disk.LockFile(tmp_path / "lock")

    text = lock.read_text()

    assert text == ""
    assert list(tmp_path.iterdir()) == []


def test_free_space_is_what_an_ordinary_user_may_still_write(tmp_path):
    """Blocks kept for root do not count."""
    stat = os.statvfs(tmp_path)

    free = disk.free_bytes(tmp_path)

    assert 0 < free <= stat.f_blocks * stat.f_frsize
    assert free <= stat.f_bfree * stat.f_frsize


MOUNTS = """\
22 27 0:21 / /proc rw - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:30 / /data rw shared:1 master:2 - nfs4 host:/export rw
31 30 0:31 / /data/my\\040scans rw - fuse.sshfs host: rw
32 27 0:32 / /mnt rw - ext4 /dev/vdb rw
33 32 0:33 / /mnt rw - cifs //host/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/data", "nfs4"),
        ("/data/a/b", "nfs4"),
        ("/database", "ext4"),
        ("/data/my scans/a", "fuse.sshfs"),
        ("/mnt/a", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_deepest_and_last_mount(path, kind):
    """Blanks in names, mounts in mounts and over mounts included."""
    assert disk.type_of_mount(MOUNTS, Path(path)) == kind


def test_the_file_system_of_a_folder_is_found(tmp_path):
    """As the system itself says, where it says it."""
    found = disk.file_system(tmp_path)

    assert (found == "unknown") == (not Path("/proc/self/mountinfo").exists())


@pytest.mark.parametrize("moment", ["file_id", "try_lock", "close_if_same"])
def test_a_copy_made_by_another_thread_holds_nothing(tmp_path, monkeypatch, moment):
    """Not even where a file is just being opened or closed: its locks would stay."""
    path, within = tmp_path / "run.h5", threading.Event()
    path.touch()
    step = getattr(disk, moment)

    def slow(*args, **kwargs):
        within.set()
        time.sleep(0.2)
        return step(*args, **kwargs)

    def open_and_close():
        lock = disk.LockFile(tmp_path / "writers")
        lock.acquire(exclusive=False)
        disk.OpenFile(path).close()
        lock.release()

    monkeypatch.setattr(disk, moment, slow)
    thread = threading.Thread(target=open_and_close)
    thread.start()
    within.wait(10)
    copy = os.fork()
    if copy == 0:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
        held = [link for link in links if link.readlink().is_relative_to(tmp_path)]
        os._exit(len(held))
    _, status = os.waitpid(copy, 0)
    thread.join()

    assert os.waitstatus_to_exitcode(status) == 0
