"""Lock files: who is let in, and what a killed process or a child holds."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from lock_storm import storm

from resumable.system import LockFile, OpenFile, disk, locks

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
    command = [sys.executable, "-I", "-S", "-c", _ASKER, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def lock(tmp_path):
    lock = LockFile(tmp_path / "lock")
    yield lock
    lock.release()


KINDS = pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("exclusive", "exclusive", False),
        ("exclusive", "shared", False),
        ("shared", "exclusive", False),
        ("shared", "shared", True),
    ],
)


@KINDS
def test_a_held_lock_lets_in_only_what_it_may(lock, first, second, both):
    lock.acquire(exclusive=first == "exclusive")

    assert ask(lock.path, second) == ("taken" if both else "refused")


@KINDS
def test_a_lock_of_another_process_is_respected(lock, holder, first, second, both):
    holder(lock.path, first)

    assert lock.acquire(exclusive=second == "exclusive") is both


def test_a_killed_process_holds_no_lock(lock, holder):
    process = holder(lock.path, "exclusive")
    assert not lock.acquire(exclusive=True)

    process.kill()
    process.wait()

    assert lock.acquire(exclusive=True)


def test_a_released_lock_can_be_taken_by_another_process(lock):
    lock.acquire(exclusive=True)

    lock.release()

    assert ask(lock.path, "exclusive") == "taken"


def test_a_removed_lock_file_is_gone(lock):
    lock.acquire(exclusive=True)

    lock.release(remove=True)

    assert not lock.path.exists()


def test_a_lock_on_a_removed_name_does_not_count(lock, monkeypatch):
    """Between our open and our lock the holder before us may remove the name."""
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


def test_a_patient_lock_is_taken_when_the_holder_removes_its_file(tmp_path):
    first, second = (LockFile(tmp_path / "lock") for _ in range(2))
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


def test_a_lock_can_be_taken_again_after_it_was_given_back(lock):
    lock.acquire(exclusive=True)
    lock.release(remove=True)

    assert lock.acquire(exclusive=True)
    assert ask(lock.path, "shared") == "refused"


def test_the_text_of_the_holder_replaces_the_one_before(lock):
    lock.acquire(exclusive=True)
    lock.write_text("a rather long text of an earlier session")

    lock.write_text("pid 7")

    assert LockFile(lock.path).read_text() == "pid 7"


def test_a_text_is_only_written_under_the_lock(lock):
    with pytest.raises(RuntimeError, match="not held"):
        lock.write_text("me")


def test_a_lock_file_that_is_not_there_reads_as_nothing(lock, tmp_path):
    assert lock.read_text() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["file_id", "try_lock", "close_if_same"])
def test_a_child_process_that_another_thread_forks_holds_nothing(
    tmp_path, monkeypatch, moment
):
    """Not even where a file is just being opened or closed: its locks would stay."""
    path, within = tmp_path / "run.h5", threading.Event()
    path.touch()
    step = getattr(disk, moment)

    def slow(*args, **kwargs):
        if not within.is_set():
            within.set()
            time.sleep(0.2)
        return step(*args, **kwargs)

    def open_and_close():
        lock = LockFile(tmp_path / "writers")
        lock.acquire(exclusive=False)
        OpenFile(path).close()
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


def test_processes_of_one_host_never_hold_a_lock_at_once(tmp_path):
    assert storm([tmp_path] * 2, 25, tmp_path / "witness") == (0, 0)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOLCK])
@pytest.mark.parametrize("always", [False, True])
def test_a_server_that_gives_no_lock_is_asked_again_for_a_while(
    lock, monkeypatch, number, always
):
    """As NFS answers where the file was removed on another host, or without lockd."""
    real, calls = fcntl.flock, []

    def flock(fd, how):
        calls.append(fd)
        if always or len(calls) == 1:
            raise OSError(number, os.strerror(number))
        return real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "_SERVER_S", 0.1)
    if not always:
        assert lock.acquire(exclusive=True)
        return
    text = "rpc.statd" if number == errno.ENOLCK else "Stale file handle"
    with pytest.raises(OSError, match=text) as caught:
        lock.acquire(exclusive=True)

    assert caught.value.errno == number
    assert len(calls) > 1
