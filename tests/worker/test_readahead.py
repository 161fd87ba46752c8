"""The next block is read while the present one is computed, where it can be."""

import threading
import weakref
from pathlib import Path
from typing import ClassVar
from unittest import mock

import h5py
import numpy as np
import param
import pytest
from helpers import close_all_hdf5_files
from processes import process_of

import resumable as rs
from resumable.source.reader import Contiguous, Reader
from resumable.source.reference import refer
from resumable.worker.compute import ReadAhead

COUNT, WIDTH = 60, 4
ROWS = np.arange(COUNT * WIDTH, dtype="f8").reshape(COUNT, WIDTH)
ROW_BYTES = ROWS[0].nbytes
SUMS = ROWS.sum(axis=1)


class Sums(rs.Process):
    """Sum of every row, three rows at once: so much memory each of them takes."""

    version = 1
    scratch = 2_500_000
    outputs: ClassVar = {"sum": rs.Output()}
    bad = param.List([])

    def block_computation(self, rows):
        first = rows[:, 0] // WIDTH
        rows[:, 0] += 1  # as if in place: what is read for others must not change
        if set(first) & set(self.bad):
            raise ValueError("a bad row")
        return rows.sum(axis=1) - 1


@pytest.fixture
def source(make_file):
    return f"{make_file(data=ROWS)}::/data"


def members(count):
    return np.ones(count, bool)


def test_a_block_is_read_in_a_thread_before_it_is_asked_for(source):
    read = threading.Event()
    seen = []
    plain = Contiguous.read

    def noted(contents, start, out):
        seen.append((start // ROW_BYTES, threading.current_thread().name))
        plain(contents, start, out)
        read.set()

    ahead = ReadAhead()
    with mock.patch.object(Contiguous, "read", noted), Reader(refer(source)) as reader:
        ahead.begin(reader, (10, members(5)))
        assert read.wait(60)
        rows = ahead.read(reader, (10, members(5)))
        again = ahead.read(reader, (10, members(5)))
        ahead.close()

    np.testing.assert_array_equal(rows, ROWS[10:15])
    np.testing.assert_array_equal(again, ROWS[10:15])
    assert [start for start, _ in seen] == [10, 10]
    assert seen[0][1].startswith("resumable-read")
    assert seen[1][1] == "MainThread"


def test_another_block_than_the_one_begun_is_read_as_asked(source):
    ahead = ReadAhead()
    with Reader(refer(source)) as reader:
        ahead.begin(reader, (10, members(5)))
        other = ahead.read(reader, (10, np.array([True, False, True])))
        rows = ahead.read(reader, (10, members(5)))
        ahead.begin(reader, (20, members(5)))
        ahead.close()

    np.testing.assert_array_equal(other, ROWS[[10, 12]])
    np.testing.assert_array_equal(rows, ROWS[10:15])


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [(Reader, "empty", MemoryError), (threading.Thread, "start", RuntimeError)],
)
def test_without_memory_or_thread_a_block_is_read_when_asked_for(
    source, owner, name, error
):
    """The one that is computed at present is not to blame."""
    ahead = ReadAhead()
    with Reader(refer(source)) as reader:
        with mock.patch.object(owner, name, side_effect=error):
            ahead.begin(reader, (10, members(5)))
        rows = ahead.read(reader, (10, members(5)))
        ahead.close()

    np.testing.assert_array_equal(rows, ROWS[10:15])


@pytest.mark.parametrize("layout", [{"chunks": (4, 4)}, {}])
def test_with_hdf5_nothing_is_read_ahead(make_file, layout):
    """In a copy of the process its lock would be held for ever."""
    axes = 0 if layout else 1
    path = make_file(data={"data": ROWS, **layout})
    with Reader(refer(f"{path}::/data", axes)) as reader:
        assert not reader.reads_ahead


def test_where_one_position_is_a_block_it_is_not_read_ahead(source):
    """A volume that just fits into the memory must not be held twice."""
    threads = set()
    plain = Contiguous.read

    def noted(contents, start, out):
        threads.add(threading.current_thread().name)
        plain(contents, start, out)

    class Large(Sums):
        scratch = 8 << 20

    process = Large(source)
    with mock.patch.object(Contiguous, "read", noted):
        results = process.compute(engine="serial")

    assert process.plan(override=True).block == 1
    assert not any(name.startswith("resumable-read") for name in threads)
    np.testing.assert_array_equal(results["sum"], SUMS)


def test_the_next_block_counts_in_the_memory_of_a_block(source):
    footprint = Sums(source)._computation().footprint

    assert footprint(1) == ROW_BYTES + 2 * 8 + Sums.scratch
    assert footprint(3) == 3 * (2 * ROW_BYTES + 2 * 8 + Sums.scratch)


def test_the_next_block_is_begun_while_one_is_computed(source):
    begun = [threading.Event() for _ in range(COUNT)]
    met = []
    plain = Contiguous.read

    def noted(contents, start, out):
        begun[start // ROW_BYTES].set()
        plain(contents, start, out)

    class Waits(Sums):
        def block_computation(self, rows):
            following = int(rows[-1, 0]) // WIDTH + 1
            if len(rows) > 1 and following < COUNT:
                met.append(begun[following].wait(0.1))
            return super().block_computation(rows)

    with mock.patch.object(Contiguous, "read", noted):
        results = Waits(source).compute(engine="serial")

    np.testing.assert_array_equal(results["sum"], SUMS)
    assert sum(met) > 3


def test_a_computation_that_closes_all_files_leaves_no_blocks_behind(source):
    """Each block opens the source again, and what was read ahead before is dropped."""
    rooms = []
    plain = Reader.empty

    def noted(reader, rows):
        room = plain(reader, rows)
        rooms.append(weakref.ref(room))
        return room

    class ClosesAll(Sums):
        most = 0

        def block_computation(self, rows):
            close_all_hdf5_files()
            type(self).most = max(self.most, sum(room() is not None for room in rooms))
            return super().block_computation(rows)

    with mock.patch.object(Reader, "empty", noted):
        results = ClosesAll(source).compute(engine="serial")

    np.testing.assert_array_equal(results["sum"], SUMS)
    assert len(rooms) > 20
    assert ClosesAll.most <= 3


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_positions_that_fail_are_found_though_the_next_block_is_read(source, engine):
    bad = [7, 20, 21, 22, 59]
    with pytest.warns(rs.ResumableWarning, match="5 of 60"):
        results = Sums(source, bad=bad).compute(engine=engine, workers=2)

    good = np.setdiff1d(np.arange(COUNT), bad)
    assert sorted(f.position for f in results.failures) == bad
    np.testing.assert_array_equal(results["sum"][good], SUMS[good])


def test_scattered_positions_of_source_and_input(make_file):
    Differences = process_of(
        block=lambda self, rows, other: (rows - other).sum(axis=1),
        outputs={"difference": rs.Output()},
        scratch=2_500_000,
    )
    path = make_file(data=ROWS, other=ROWS[::-1])
    chosen = np.r_[1:50:7, 20:40]
    process = Differences(f"{path}::/data", inputs={"other": "::/other"})
    results = process.compute(engine="serial", positions=chosen)

    expected = (ROWS - ROWS[::-1]).sum(axis=1)
    np.testing.assert_array_equal(results["difference"][chosen], expected[chosen])


def test_a_source_cut_short_loses_nothing_that_was_computed(source):
    path = source.partition("::")[0]

    class Cuts(Sums):
        def block_computation(self, rows):
            if 30 in rows[:, 0] // WIDTH:
                with h5py.File(path, "r") as file:
                    offset = file["data"].id.get_offset()
                with Path(path).open("r+b") as file:
                    file.truncate(offset + 40 * ROW_BYTES)
            return super().block_computation(rows)

    process = Cuts(source)
    with pytest.raises(rs.SourceError, match="cannot be read"):
        process.compute(engine="serial")

    (run,) = Path(path).parent.glob("scan-data-Cuts-*.h5")
    results = rs.open(run)
    done = np.flatnonzero(results.completed_mask)
    assert 10 < len(done) <= 40
    np.testing.assert_array_equal(results["sum"][done], SUMS[done])
