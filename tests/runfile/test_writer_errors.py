"""Writers of older sessions, disks that fail, and descriptors that are closed."""

import contextlib
import errno
import os
import threading
import time
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
from kill_matrix import wait_until
from written_runs import SIZE, Pair, write, writing

import resumable as rs
from resumable.runfile import folder
from resumable.runfile.writer import RowWriter, WriteTarget
from resumable.system import disk

pytestmark = pytest.mark.timeout(30, method="signal")


def test_a_worker_of_an_older_session_is_refused(locked):
    """Its token is not the one in the lock file any more."""
    first = locked()
    late = first.target._replace(token="0" * 32)

    with pytest.raises(rs.RunBusy, match="session"):
        RowWriter(late)
    assert first.status() == [[], []]


def test_a_worker_is_refused_after_its_session(tmp_path):
    computation = Pair(SIZE, target=tmp_path)._computation()
    results = Pair(SIZE, target=tmp_path).compute(engine="serial", positions=[0])
    held = folder.RunLock(computation.run_folder)
    run = computation.run_folder.runs()[0]
    with held.held():
        target = WriteTarget(
            run.path, run.header, held.lock_path, held.writers_path, held.token, 1.0
        )
    with folder.RunLock(computation.run_folder).held(), pytest.raises(rs.RunBusy):
        RowWriter(target)

    assert results.status.done == 1


def test_a_new_session_waits_for_writers_of_the_old_one(tmp_path, place, monkeypatch):
    monkeypatch.setattr(folder, "ORPHAN_PATIENCE_S", 0.2)
    run_folder = place.run_folder
    with writing(place.target) as row_writer:
        # As the death of the driver would: the lock is free, the writer lives.
        place.lock._lock.release()
        with (
            pytest.raises(rs.RunBusy, match="worker of an earlier session"),
            folder.RunLock(run_folder).held(),
        ):
            pass
        write(row_writer, 0, done=[0])
    with folder.RunLock(run_folder).held():
        status = place.status()

    assert status == [[0], []]


def test_hdf5_writers_are_kept_out_and_readers_let_in(place):
    with writing(place.target):
        with h5py.File(place.run.path, "r") as file:
            names = list(file)
        with pytest.raises(OSError, match="lock"):
            h5py.File(place.run.path, "r+")

    assert names == [place.run.header.group.strip("/"), "run"]


def broken(fd):
    raise OSError(errno.EIO, "Input/output error")


def test_a_failed_sync_is_told_and_marks_nothing(place, monkeypatch):
    row_writer = RowWriter(place.target)
    write(row_writer, 0, done=[0, 1])
    monkeypatch.setattr(disk, "sync", broken)
    with pytest.raises(OSError, match="Input/output"):
        row_writer.flush()
    monkeypatch.undo()
    with pytest.raises(OSError, match="Input/output"):
        write(row_writer, 2, done=[2])
    with contextlib.suppress(OSError):
        row_writer.close()

    assert place.status() == [[], []]


def test_a_commit_that_failed_unseen_is_told_at_the_latest_by_close(
    locked, monkeypatch
):
    place = locked(checkpoint_s=0.01)
    failed = threading.Event()

    def fail(fd):
        failed.set()
        broken(fd)

    monkeypatch.setattr(disk, "sync", fail)
    row_writer = RowWriter(place.target)
    write(row_writer, 0, done=[0, 1])
    assert failed.wait(10)
    time.sleep(0.1)
    with pytest.raises(OSError, match="Input/output"):
        row_writer.close()

    assert place.status() == [[], []]


def test_an_unexpected_error_of_the_commit_does_not_hang(place, monkeypatch):
    def fail(fd):
        raise MemoryError("no memory to mark with")

    monkeypatch.setattr(disk, "sync", fail)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    row_writer = RowWriter(place.target)
    write(row_writer, 0, done=[0])
    with pytest.raises(MemoryError):
        row_writer.flush()

    with contextlib.suppress(MemoryError):
        row_writer.close()
    assert place.status() == [[], []]


class Breaks(rs.Process):
    """Its disk breaks in the worker that computed position 0, which then idles."""

    version = 1
    outputs: ClassVar = {"one": rs.Output()}

    def unit_computation(self, position):
        mended = Path(os.environ["RESUMABLE_TEST_MENDED"])
        if mended.exists():
            return float(position)
        other = mended.with_name("other")
        if position == 0:
            disk.sync = broken
            # In a process of its own the other position is at work meanwhile.
            wait_until(other.exists, 5 if "spawn" in mended.name else 0)
        else:
            other.touch()
            time.sleep(0.5)
        return float(position)


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_compute_never_returns_when_a_commit_failed(tmp_path, monkeypatch, engine):
    from resumable.engines.local import LocalEngine

    mended = tmp_path / ("mended-spawn" if engine == "local" else "mended")
    monkeypatch.setenv("RESUMABLE_TEST_MENDED", str(mended))
    monkeypatch.setattr(disk, "sync", disk.sync)
    if engine == "local":
        engine = LocalEngine(2, "spawn")
    process = Breaks(2, target=tmp_path)
    with pytest.raises(OSError, match="Input/output"):
        process.compute(engine=engine, workers=2, checkpoint=0.05)
    monkeypatch.undo()
    monkeypatch.setenv("RESUMABLE_TEST_MENDED", str(mended))
    status = process.results.status
    mended.touch()
    results = process.compute(engine="serial")

    assert not status.finished
    assert results["one"][...].tolist() == [0.0, 1.0]
    assert results.status.finished


LIMITED = """
    import os, resource, sys, time
    os.environ["MODE"] = sys.argv[2]
    import numpy as np
    import resumable as rs

    class Wide(rs.Process):
        version = 1
        outputs = {"wide": rs.Output(1000)}
        def unit_computation(self, position):
            if position == 0 and os.environ["MODE"] == "limit":
                # After creation: rows beyond 400,000 bytes cannot be written.
                resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, -1))
            time.sleep(0.005)
            return np.full(1000, float(position))

    wide = Wide(200, target=".")
    try:
        wide.compute(engine=sys.argv[1], workers=2, positions=slice(0, 200))
    except OSError as error:
        print("OSError", error.errno)
    done = wide.results.completed_mask.nonzero()[0]
    print(wide.results.status.done, done.max(initial=-1))
"""


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_a_limit_of_the_file_size_is_an_error_and_the_run_goes_on(
    script, engine, tmp_path
):
    limited = script(LIMITED, engine, "limit")
    first, errors = limited.communicate(timeout=30)
    second, _ = script(LIMITED, engine, "free").communicate(timeout=30)
    (path,) = tmp_path.glob("*.h5")
    results = rs.open(path)

    assert first.split()[:2] == ["OSError", str(errno.EFBIG)], errors
    assert int(first.split()[2]) < 200
    assert engine == "local" or int(first.split()[3]) < 60
    assert second.split() == ["200", "199"]
    np.testing.assert_array_equal(results["wide"][:, 7], np.arange(200.0))


def test_descriptors_are_closed_with_the_writer(place):
    def held():
        """Return our descriptors; other tests may have left some that end now."""
        folder = str(Path(place.target.path).parent)
        names = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                names.append(str(link.readlink()))
        return sorted(name for name in names if name.startswith(folder))

    before, threads = held(), set(threading.enumerate())
    for _ in range(5):
        with writing(place.target) as row_writer:
            write(row_writer, 0, done=[0])
            assert held() != before
            assert set(threading.enumerate()) > threads

    assert held() == before
    assert set(threading.enumerate()) <= threads
