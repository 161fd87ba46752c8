"""Rows, then a sync, then the status: in this order, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import h5py
import numpy as np
import pytest
from kill_matrix import wait_until

import resumable as rs
from resumable.model.positions import PositionSet
from resumable.model.schedule import Schedule
from resumable.runfile import create, lock, writer
from resumable.runfile.writer import RowWriter, WriteTarget
from resumable.source.coordinates import coordinates_of
from resumable.system import disk

pytestmark = pytest.mark.timeout(30, method="signal")

SIZE = 40


class Pair(rs.Process):
    """Two outputs of a row, for a run file that is only written here."""

    version = 1
    outputs: ClassVar = {"pair": rs.Output(2, "i4"), "one": rs.Output(dtype="f8")}

    def unit_computation(self, position):
        return {"pair": np.array([position, -position], "i4"), "one": position / 2}


@dataclasses.dataclass
class Place:
    """A run file, locked, and what a worker needs to write into it."""

    run: object
    lock: object
    run_folder: object
    target: WriteTarget

    def status(self):
        """Read the done and the failed positions, past all caches of ours."""
        found = []
        for name in ("completed_positions", "failed_positions"):
            offset = self.run.header.offsets[name]
            with disk.opened(self.run.path, os.O_RDONLY) as fd:
                data = np.frombuffer(disk.read_at(fd, SIZE, offset), "u1")
            found.append(np.flatnonzero(data).tolist())
        return found

    def rows(self, name):
        """Read the rows of an output."""
        with h5py.File(self.run.path, "r") as file:
            return file[self.run.header.group][name][...]


@pytest.fixture
def locked(tmp_path):
    """Return a function that makes a run file, or claims it anew."""
    with contextlib.ExitStack() as stack:

        def take(checkpoint_s=3600.0):
            computation = Pair(SIZE, target=tmp_path)._computation()
            found = computation.run_folder.runs()
            held = lock.RunLock(computation.run_folder)
            stack.enter_context(held.held())
            if found:
                run = found[0]
            else:
                with computation.open_reader() as reader:
                    run = create.create_run_file(
                        computation.run_folder.new_path(),
                        computation.spec,
                        coordinates_of(reader),
                        PositionSet.full(SIZE),
                    )
            target = WriteTarget(
                run.path,
                run.header,
                held.lock_path,
                held.writers_path,
                held.token,
                checkpoint_s,
            )
            return Place(run, held, computation.run_folder, target)

        yield take


@pytest.fixture
def place(locked):
    """Return a place whose checkpoint never comes by itself."""
    return locked()


def values(positions):
    """Return the rows of some positions."""
    positions = np.asarray(positions)
    return {
        "pair": np.stack([positions, -positions], axis=1).astype("i4"),
        "one": positions / 2,
    }


def write(row_writer, start, done=(), failed=(), stop=None):
    """Write rows of positions, in a span that begins at `start`."""
    chosen = sorted([*done, *failed])
    stop = stop or max(chosen) + 1
    masks = [np.isin(np.arange(start, stop), which) for which in (done, failed)]
    row_writer.write(start, *masks, values(chosen))


@contextlib.contextmanager
def writing(target):
    """Write into a target; close without a complaint about a broken disk."""
    row_writer = RowWriter(target)
    try:
        yield row_writer
    finally:
        with contextlib.suppress(OSError):
            row_writer.close()


@pytest.fixture
def events(monkeypatch):
    """Return the list of writes and syncs, by what is written."""
    seen = []
    write_at, sync = disk.write_at, disk.sync

    def noted_write(fd, data, offset):
        seen.append(offset)
        write_at(fd, data, offset)

    def noted_sync(fd):
        seen.append("sync")
        sync(fd)

    monkeypatch.setattr(disk, "write_at", noted_write)
    monkeypatch.setattr(disk, "sync", noted_sync)
    return seen


def kinds(events, run):
    """Name what lies at the offsets."""
    extents = run.header.extents()
    names = []
    for event in events:
        if event == "sync":
            names.append(event)
            continue
        (name,) = [n for n, (o, size) in extents.items() if o <= event < o + size]
        names.append("status" if name.endswith("_positions") else "rows")
    return names


# The order of things.


def test_rows_are_there_at_once_and_marked_only_later(place):
    """Before a commit the rows are in the file and no position is marked."""
    with writing(place.target) as row_writer:
        write(row_writer, 5, done=range(5, 15), failed=[20])
        before = place.status()
        rows = place.rows("pair")
        row_writer.flush()
        after = place.status()

    assert before == [[], []]
    np.testing.assert_array_equal(rows[5:15], values(range(5, 15))["pair"])
    assert after == [list(range(5, 15)), [20]]


def test_status_is_written_after_a_sync_of_the_rows(place, events):
    """Rows, sync, status, sync: never otherwise."""
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[0, 1, 2])
        write(row_writer, 10, done=[10, 12], failed=[11])
        row_writer.flush()
        order = kinds(events, place.run)
    last_rows = len(order) - 1 - order[::-1].index("rows")
    first_status = order.index("status")

    assert "sync" in order[last_rows:first_status]
    assert order[-1] == "sync"
    assert "rows" not in order[first_status:]


def test_nothing_is_marked_while_the_disk_still_syncs(place, monkeypatch):
    """Stopped inside the sync, the world sees no position done."""
    inside, go_on = threading.Event(), threading.Event()
    sync = disk.sync

    def slow_sync(fd):
        inside.set()
        assert go_on.wait(10)
        sync(fd)

    monkeypatch.setattr(disk, "sync", slow_sync)
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=range(8))
        flush = threading.Thread(target=row_writer.flush)
        flush.start()
        reached = inside.wait(10)
        during = place.status()
        write(row_writer, 8, done=range(8, 12))
        flushing = flush.is_alive()
        go_on.set()
        flush.join(10)
        after = place.status()

    assert reached
    assert flushing
    assert during == [[], []]
    assert after[0][:8] == list(range(8))


def test_rows_written_during_a_sync_wait_for_the_next(place, monkeypatch):
    """What came too late for a sync is not marked by it."""
    sync = disk.sync
    row_writers = []
    seen = []

    def sync_and_write(fd):
        sync(fd)
        if not seen:
            write(row_writers[0], 20, done=[20])
        else:
            seen.append(place.status()[0])
        seen.append(None)

    monkeypatch.setattr(disk, "sync", sync_and_write)
    with writing(place.target) as row_writer:
        row_writers.append(row_writer)
        write(row_writer, 0, done=[0])
        row_writer.flush()
        after = place.status()[0]

    assert seen[1] == [0]
    assert after == [0, 20]


@pytest.fixture
def clock(monkeypatch):
    """Return the times of a clock that writers look at: the last one is now."""
    times = [0.0]
    clock = SimpleNamespace(monotonic=lambda: times[-1])
    monkeypatch.setattr(writer, "time", clock)
    return times


def test_rows_are_marked_at_the_checkpoint(locked, clock):
    """Nobody need ask: after the checkpoint time the status follows."""
    place = locked(checkpoint_s=0.05)
    with writing(place.target) as row_writer:
        write(row_writer, 3, done=[3, 4])
        time.sleep(0.1)
        before = place.status()
        clock.append(0.05)
        marked = wait_until(lambda: place.status() == [[3, 4], []], 10)
        write(row_writer, 9, done=[9])
        clock.append(0.1)
        again = wait_until(lambda: place.status() == [[3, 4, 9], []], 10)

    assert before == [[], []]
    assert marked
    assert again


def test_rows_are_marked_when_no_more_come(locked, monkeypatch):
    """Long before the checkpoint, unless so many write that it would be too often."""
    monkeypatch.setattr(writer, "QUIET_S", 0.2)
    place = locked()
    with writing(place.target) as row_writer:
        write(row_writer, 3, done=[3])
        marked = wait_until(lambda: place.status() == [[3], []], 10)
    many = place.target._replace(workers=100_000)
    with writing(many) as row_writer:
        write(row_writer, 4, done=[4])
        time.sleep(0.6)
        later = place.status()

    assert marked
    assert later == [[3], []]


@pytest.mark.parametrize(
    ("workers", "checkpoint_s", "quiet_s"),
    [(1, 10, 1), (100, 10, 1), (400, 10, 4), (10_000, 10, 10), (1, 0.5, 0.5)],
)
def test_all_workers_together_commit_no_more_than_so_often(
    place, workers, checkpoint_s, quiet_s
):
    """100 times a second, or at the checkpoint where that is earlier."""
    target = place.target._replace(workers=workers, checkpoint_s=checkpoint_s)

    assert target.quiet_s == quiet_s


@pytest.mark.parametrize(("who", "count"), [("workers", 400), ("driver", None)])
def test_writers_know_how_many_they_are(tmp_path, who, count):
    """As many as compute, where each writes its own rows."""
    seen = []

    class Looking:
        name = "looking"
        own_processes = can_replace = False
        workers = 400

        def run(self, job, driver, workers):
            seen.append(job.target and job.target.workers)

    with pytest.raises(rs.RunFileError, match="pending"):
        Pair(SIZE, target=tmp_path).compute(engine=Looking(), writer=who)

    assert seen == [count]


def test_many_bytes_are_marked_before_the_checkpoint(place, clock, monkeypatch):
    """After so many bytes the commit begins, however long the checkpoint is."""
    monkeypatch.setattr(writer, "COMMIT_BYTES", 100)
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[0])
        time.sleep(0.1)
        few = place.status()
        write(row_writer, 1, done=range(1, 12))
        marked = wait_until(lambda: place.status()[0] == list(range(12)), 10)

    assert few == [[], []]
    assert marked


def test_closing_commits(place):
    """What was written is marked when the writer is closed."""
    row_writer = RowWriter(place.target)
    write(row_writer, 0, done=[0, 1])
    row_writer.close()

    assert place.status() == [[0, 1], []]


def test_flush_returns_with_nothing_to_do(place, events):
    """A flush of nothing, also twice, returns."""
    with writing(place.target) as row_writer:
        row_writer.flush()
        write(row_writer, 0, done=[0])
        row_writer.flush()
        row_writer.flush()

    assert place.status() == [[0], []]


def test_flush_after_a_checkpoint_makes_the_marks_durable(locked, events):
    """Marks of an earlier commit are synced by the next flush."""
    place = locked(checkpoint_s=0.05)
    events.clear()
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[0])
        assert wait_until(lambda: place.status() == [[0], []], 10)
        row_writer.flush()
        order = kinds(events, place.run)

    assert order.index("status") < len(order) - 1
    assert order[-1] == "sync"


# Which bytes.


def test_done_wins_over_failed(place):
    """A position that failed and then succeeded is done and not failed."""
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[0, 2], failed=[1, 3])
        row_writer.flush()
        before = place.status()
        write(row_writer, 1, done=[1])
        row_writer.flush()
        after = place.status()

    assert before == [[0, 2], [1, 3]]
    assert after == [[0, 1, 2], [3]]


def test_a_failure_does_not_undo_what_is_done(place):
    """Where both are marked, readers see it done."""
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[5])
        write(row_writer, 0, failed=[5])

    assert place.run.counts() == (1, 0)


def test_scattered_spans_leave_their_neighbours_alone(place):
    """Rows and status between the written positions keep every byte."""
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=range(0, SIZE, 3), failed=[1, 4])
        row_writer.flush()
        one, pair = place.rows("one"), place.rows("pair")
        write(row_writer, 2, done=[2, 8, 11, 38], failed=[5])
        row_writer.flush()
        new_one, new_pair = place.rows("one"), place.rows("pair")
        status = place.status()
    touched = [2, 5, 8, 11, 38]
    others = np.setdiff1d(np.arange(SIZE), touched)

    assert status[0] == sorted([*range(0, SIZE, 3), 2, 8, 11, 38])
    assert status[1] == [1, 4, 5]
    np.testing.assert_array_equal(new_one[others], one[others])
    np.testing.assert_array_equal(new_pair[others], pair[others])
    np.testing.assert_array_equal(new_pair[touched], values(touched)["pair"])


@pytest.mark.parametrize("at_once", [1, 0], ids=["few runs", "many runs"])
def test_a_trial_inside_the_span_of_another_worker_survives(
    place, monkeypatch, tmp_path, at_once
):
    """Row and mark of a slow trial are not lost to a batch that lies around it.

    The other worker writes just when this one has read what lies between its rows,
    to write it back with them.
    """
    monkeypatch.setattr(writer, "_SCATTERED", at_once, raising=False)
    schedule = Schedule(PositionSet.full(SIZE), Pair(SIZE, target=tmp_path).plan())
    first, trial = schedule.next(), schedule.next()
    schedule.proven = True
    schedule.note(1, 1e-6)
    read_at = disk.read_at
    late = [trial]

    def read_and_let_the_other_write(fd, size, offset):
        data = read_at(fd, size, offset)
        if late:
            do(other, late.pop())
            other.flush()
        return data

    def do(row_writer, batch):
        members = batch.members()
        rows = values(batch.positions())
        row_writer.write(batch.start, members, np.zeros_like(members), rows)

    with writing(place.target) as ours, writing(place.target) as other:
        do(ours, first)
        ours.flush()
        monkeypatch.setattr(disk, "read_at", read_and_let_the_other_write)
        while batch := schedule.next():
            do(ours, batch)
            ours.flush()
        monkeypatch.undo()
        if late:
            do(other, late.pop())
    everything = values(range(SIZE))

    assert trial.count == 1
    assert place.status()[0] == list(range(SIZE))
    np.testing.assert_array_equal(place.rows("pair"), everything["pair"])
    np.testing.assert_array_equal(place.rows("one"), everything["one"])


@pytest.mark.parametrize("at_once", [16, 0], ids=["few runs", "many runs"])
def test_what_was_not_reached_is_left_to_another_worker(place, monkeypatch, at_once):
    """Rows and marks behind the last row of a span are not lost to those before it.

    What a batch has not reached is handed out again when it had no memory for more,
    perhaps before its own rows are marked. The other worker writes just when this one
    has read what lies between its rows, to write it back with them.
    """
    monkeypatch.setattr(writer, "_SCATTERED", at_once)
    read_at = disk.read_at
    late = []

    def read_and_let_the_other_write(fd, size, offset):
        data = read_at(fd, size, offset)
        if late:
            write(other, *late.pop())
            other.flush()
        return data

    monkeypatch.setattr(disk, "read_at", read_and_let_the_other_write)
    with writing(place.target) as ours, writing(place.target) as other:
        late.append((0, range(10)))
        write(ours, 10, done=[10, 12, 14], stop=SIZE)
        late.append((15, range(15, 25)))
        write(ours, 10, done=[11, 13], stop=SIZE)
        late.append((25, range(25, SIZE)))
        ours.flush()
        assert place.status()[0] == list(range(SIZE)), late
    everything = values(range(SIZE))

    np.testing.assert_array_equal(place.rows("pair"), everything["pair"])
    np.testing.assert_array_equal(place.rows("one"), everything["one"])


def test_rows_of_a_run_never_leave_their_datasets(place, events):
    """Every byte that is written lies in a row or in the status."""
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[0, SIZE - 1], failed=range(1, 4))
        row_writer.flush()

    assert set(kinds(events, place.run)) == {"rows", "status", "sync"}
    assert rs.open(place.run.path).status.done == 2


# Sessions.


def test_a_worker_of_an_older_session_is_refused(locked):
    """Its token is not the one in the claim any more."""
    first = locked()
    late = first.target._replace(token="0" * 32)

    with pytest.raises(rs.RunBusy, match="session"):
        RowWriter(late)
    assert first.status() == [[], []]


def test_a_worker_is_refused_after_its_session(tmp_path):
    """A worker that starts when its session is over writes nothing."""
    computation = Pair(SIZE, target=tmp_path)._computation()
    results = Pair(SIZE, target=tmp_path).compute(engine="serial", positions=[0])
    held = lock.RunLock(computation.run_folder)
    run = computation.run_folder.runs()[0]
    with held.held():
        target = WriteTarget(
            run.path,
            run.header,
            held.lock_path,
            held.writers_path,
            held.token,
            1.0,
        )
    with lock.RunLock(computation.run_folder).held(), pytest.raises(rs.RunBusy):
        RowWriter(target)

    assert results.status.done == 1


def test_a_new_session_waits_for_writers_of_the_old_one(tmp_path, place, monkeypatch):
    """While a worker of a dead session writes, nobody else begins."""
    monkeypatch.setattr(lock, "ORPHAN_PATIENCE_S", 0.2)
    run_folder = place.run_folder
    with writing(place.target) as row_writer:
        # As the death of the driver would: the claim is free, the writer lives.
        place.lock._lock.release()
        with (
            pytest.raises(rs.RunBusy, match="worker of an earlier session"),
            lock.RunLock(run_folder).held(),
        ):
            pass
        write(row_writer, 0, done=[0])
    with lock.RunLock(run_folder).held():
        status = place.status()

    assert status == [[0], []]


def test_hdf5_writers_are_kept_out_and_readers_let_in(place):
    """While it is written, a run file opens for reading, not for writing."""
    with writing(place.target):
        with h5py.File(place.run.path, "r") as file:
            names = list(file)
        with pytest.raises(OSError, match="lock"):
            h5py.File(place.run.path, "r+")

    assert names == [place.run.header.group.strip("/")]


# A disk that fails.


def broken(fd):
    """Fail as a dying disk does."""
    raise OSError(errno.EIO, "Input/output error")


def test_a_failed_sync_is_told_and_marks_nothing(place, monkeypatch):
    """Flush and the next write say it; no position is marked, then or later."""
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
    """A background commit that fails is never swallowed."""
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
    """Also an error that is not the disk's ends the wait of flush."""

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
    """An idle worker's failed commit is an error; the next run goes on."""
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
                # After birth: rows beyond 400,000 bytes cannot be written.
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
    """EFBIG surfaces, nothing beyond is marked, and with room it completes."""
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
    """A writer leaves no open file and no thread behind."""

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


def test_an_output_may_be_called_position(tmp_path):
    """Names of outputs do not collide with the scales we add, or are refused."""

    class Named(rs.Process):
        version = 1
        outputs: ClassVar = {
            "position": rs.Output(),
            "x": rs.Output(),
            "x_labels": rs.Output(),
        }

        def unit_computation(self, position):
            return dict.fromkeys(self.outputs, float(position))

    try:
        results = Named(3, target=tmp_path).compute(engine="serial")
    except rs.DeclarationError:
        # Refused with a clear error would be as good.
        return
    values = [results[name][2] for name in Named.outputs]

    assert values == [2.0, 2.0, 2.0]
