"""Runs of thousands of millions of positions, of which few are computed."""

import sys
import tracemalloc

import h5py
import numpy as np
import psutil
import pytest
from helpers import compute

import resumable as rs
import resumable.runfile.file
from resumable.cli.report import show_text, status_text
from resumable.model import PositionSet
from resumable.runfile import RunFile
from resumable.system import disk

MANY = 2_000_000_000


class Half(rs.Process):
    version = 1
    outputs = {"half": rs.Output()}  # noqa: RUF012

    def unit_computation(self, position):
        if position == 7:
            raise ValueError(position)
        return position / 2


class First(rs.Process):
    version = 1
    outputs = {"first": rs.Output(dtype="u1")}  # noqa: RUF012

    def unit_computation(self, row):
        return row[0]


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*positions failed"),
    pytest.mark.skipif(sys.platform != "linux", reason="holes of files are told there"),
]


def test_what_is_computed_of_a_huge_run_costs_what_it_touches(tmp_path):
    before = psutil.Process().io_counters().read_chars
    tracemalloc.start()
    process = Half(MANY, target=tmp_path)
    first = compute(process, positions=slice(0, 10))
    plan = process.plan()
    last = compute(process, positions=[5, MANY // 2, MANY - 1])
    again = compute(process, positions=[7], retry_failed=True)
    run = RunFile(last.path)
    told = status_text(run), show_text(run), str(process.explain()), repr(last)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    read = psutil.Process().io_counters().read_chars - before

    assert first == last == again
    assert plan.pending == MANY - 10
    assert (last.status.done, last.status.failed) == (11, 1)
    assert last["half"][MANY - 1] == (MANY - 1) / 2
    assert "11 of 2,000,000,000 positions done, 1 failed, 1,999,999,988" in told[0]
    assert last.path.stat().st_blocks * 512 < 30e6
    assert peak < 30e6
    assert read < 100e6


def test_a_long_status_reads_as_one_that_is_read_whole(tmp_path, monkeypatch):
    size = 6_000_000
    results = compute(Half(size, target=tmp_path), positions=slice(0, 10))
    run, random = RunFile(results.path), np.random.default_rng(2)
    with results.path.open("r+b") as file:
        for name in ("completed_positions", "failed_positions"):
            for place in random.integers(0, size - 3000, 4):
                some = random.integers(0, 2, random.integers(1, 3000), np.uint8)
                disk.write_at(
                    file.fileno(), some, run.header.offsets[name] + int(place)
                )
    asked = PositionSet.of(size, np.flatnonzero(random.integers(0, 2, size)))

    def seen():
        run = RunFile(results.path)
        found = [run.progress()]
        for requested in (None, asked):
            for retry in (False, True):
                snapshot = run.snapshot(requested, retry_failed=retry)
                found.append((*snapshot[1:5], snapshot.pending.digest()))
        return found

    whole = seen()
    monkeypatch.setattr(resumable.runfile.file, "_LONG_STATUS", 1000)
    monkeypatch.setattr(resumable.runfile.file, "_AT_ONCE", 1 << 12)
    windows = len(list(RunFile(results.path).written()))

    assert windows < 600 < size / (1 << 12)
    assert seen() == whole
    monkeypatch.setattr(disk, "_TELL_HOLES", ())
    assert seen() == whole


def test_a_huge_source_that_has_grown_goes_on_with_little_written(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        shape, most = (100_000_000, 2), (None, 2)
        data = file.create_dataset("d", shape, "u1", maxshape=most, chunks=(1 << 20, 2))
        data[:5] = 3
    first = compute(First(f"{path}::/d"), positions=[0, 4, 99_999_999])
    with h5py.File(path, "r+") as file:
        file["d"].resize(110_000_000, 0)
    longer = compute(First(f"{path}::/d"), positions=[1, 4, 109_999_999])

    assert longer.status.done == 5
    assert longer["first"][[0, 1, 4, 99_999_999]].tolist() == [3, 3, 3, 0]
    assert longer.sessions[-1].computed == 2
    assert longer.path.stat().st_blocks * 512 < 30e6
    assert first.status.positions == 100_000_000
