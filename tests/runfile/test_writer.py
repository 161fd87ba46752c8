"""Rows, then a sync, then the status: in this order, and nothing else."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from kill_matrix import wait_until
from written_runs import SIZE, Pair, values, write, writing

import resumable as rs
from resumable.model.positions import PositionSet
from resumable.model.schedule import Schedule
from resumable.runfile import writer
from resumable.runfile.writer import RowWriter
from resumable.system import disk

pytestmark = pytest.mark.timeout(30, method="signal")


@pytest.fixture
def events(monkeypatch):
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
    extents = run.header.extents()
    names = []
    for event in events:
        if event == "sync":
            names.append(event)
            continue
        (name,) = [n for n, (o, size) in extents.items() if o <= event < o + size]
        names.append("status" if name.endswith("_positions") else "rows")
    return names


def test_rows_are_there_at_once_and_marked_only_later(place):
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
    times = [0.0]
    clock = SimpleNamespace(monotonic=lambda: times[-1])
    monkeypatch.setattr(writer, "time", clock)
    return times


def test_rows_are_marked_at_the_checkpoint(locked, clock):
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

    with writing(target) as row_writer:
        assert row_writer._quiet_s == quiet_s


@pytest.mark.parametrize(("who", "count"), [("workers", 400), ("driver", None)])
def test_writers_know_how_many_they_are(tmp_path, who, count):
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
    row_writer = RowWriter(place.target)
    write(row_writer, 0, done=[0, 1])
    row_writer.close()

    assert place.status() == [[0, 1], []]


def test_flush_returns_with_nothing_to_do(place, events):
    with writing(place.target) as row_writer:
        row_writer.flush()
        write(row_writer, 0, done=[0])
        row_writer.flush()
        row_writer.flush()

    assert place.status() == [[0], []]


def test_flush_after_a_checkpoint_makes_the_marks_durable(locked, events):
    place = locked(checkpoint_s=0.05)
    events.clear()
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[0])
        assert wait_until(lambda: place.status() == [[0], []], 10)
        row_writer.flush()
        order = kinds(events, place.run)

    assert order.index("status") < len(order) - 1
    assert order[-1] == "sync"


def test_done_wins_over_failed(place):
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
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[5])
        write(row_writer, 0, failed=[5])

    assert place.run.progress()[:2] == (1, 0)


def test_scattered_spans_leave_their_neighbours_alone(place):
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
    """Row and mark of a slow probe are not lost to a batch that lies around it.

    The other worker writes just when this one has read what lies between its rows,
    to write it back with them.
    """
    monkeypatch.setattr(writer, "_SCATTERED", at_once, raising=False)
    schedule = Schedule(PositionSet.full(SIZE), Pair(SIZE, target=tmp_path).plan())
    first, probe = schedule.next(), schedule.next()
    schedule.proven = True
    schedule.note(1, 1e-6)
    read_at = disk.read_at
    late = [probe]

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

    assert probe.count == 1
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
    with writing(place.target) as row_writer:
        write(row_writer, 0, done=[0, SIZE - 1], failed=range(1, 4))
        row_writer.flush()

    assert set(kinds(events, place.run)) == {"rows", "status", "sync"}
    assert rs.open(place.run.path).status.done == 2
