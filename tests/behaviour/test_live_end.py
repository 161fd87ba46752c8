"""When following a source ends, and what is read beside its writer."""

import os
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from helpers import SUPPORT, until
from live_sources import done_in, serial
from processes import Mean
from run_files import digest

import resumable as rs
from resumable.errors import PlanError, SourceError
from resumable.model.positions import PositionSet, RequestedPositions
from resumable.source import live
from resumable.source.live import file_state
from resumable.source.reader import Reader
from resumable.source.reference import SourceRef

pytestmark = pytest.mark.timeout(100, method="signal")


@pytest.mark.parametrize(
    ("kind", "version"), [("swmr", ""), ("keep", "latest"), ("keep", "")]
)
def test_a_writer_that_was_killed_is_an_error(writer, kind, version):
    """The error names the mark in the file and what to do; the file is unchanged."""
    program = writer(kind, count=5, pause=0, version=version)
    process = None
    if version != "latest":
        process = Mean(program.source)
    program.tell()
    program.tell("stay open")
    assert program.program.stdout.readline() == "closed\n"
    program.kill()
    before = digest(program.path)
    with pytest.raises(SourceError, match=r"killed|already open") as info:
        (process or Mean(program.source)).compute(follow=0.3)

    assert digest(program.path) == before
    assert file_state(str(program.path)).open
    if kind == "swmr":
        assert "5 of 5 positions done" in str(info.value)
        assert "h5clear -s" in str(info.value)
        assert Mean(program.source).compute().status.finished
    if version == "latest":
        assert "h5clear -s" in str(info.value)


def test_a_file_without_a_row_is_waited_for(writer):
    program = writer("swmr", count=3)
    process = Mean(program.source)

    with pytest.raises(SourceError, match="no positions yet; waited 200 ms"):
        process.compute(follow=0.2)
    with pytest.raises(SourceError, match="nothing to compute"):
        process.compute()


@pytest.mark.parametrize("kind", ["reopen", "swmr"])
def test_requested_positions_that_do_not_come_are_named(writer, kind):
    """Following ends after the time of `follow`, or when the writer has ended."""
    program = writer(kind, count=3, pause=0)
    program.tell()
    if kind == "reopen":
        program.tell()
        assert program.program.stdout.readline() == "closed\n"
    process = Mean(program.source)
    run = process.start(follow=60 if kind == "swmr" else 0.2, positions=slice(0, 5))
    until(lambda: run.status().done == 3)
    program.tell()
    told = "and the program that wrote" if kind == "swmr" else "after 200 ms"
    with pytest.raises(
        rs.NotFinished, match=f"position 3 has not come,? {told}"
    ) as info:
        run.wait(30)

    assert info.value.results.status.done == 3
    assert process.compute(follow=0.2, positions=[0, 2]) == info.value.results


def test_changed_rows_are_never_mixed_with_older_ones(tmp_path, script):
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (20, 8), "f8", maxshape=(None, 8), chunks=(16, 8))
        file["data"][...] = 1.0
    process = Mean(f"{path}::/data")
    run = process.start(follow=60, positions=slice(0, 30))
    until(lambda: run.status().done == 20)
    # Another process, as it must be: HDF5 opens a file only one way in each.
    change = script(
        """
        import sys, h5py
        with h5py.File(sys.argv[1], "a") as file:
            file["data"].resize(30, axis=0)
            file["data"][10:] = 2.0
        """,
        str(path),
    )
    assert change.wait(20) == 0
    results = run.wait(60)

    np.testing.assert_array_equal(results["mean"], serial(f"{path}::/data"))
    assert results.status.positions == 30


REWRITER = """
import sys, time
import h5py
path, pause = sys.argv[1], float(sys.argv[2])
for number in range(1, 1000):
    with h5py.File(path, "r+") as file:
        file["data"][...] = number
    print(number, flush=True)
    time.sleep(pause)
"""


def test_rows_of_one_read_are_of_one_content(tmp_path, script):
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((1000, 500))
    ref = SourceRef(str(path), "/data", (0,), live=True)
    out = np.empty((1000, 500))
    seen = set()
    with Reader(ref) as reader:
        program = script(REWRITER, str(path), "0.05", name="rewriter.py")
        assert program.stdout.readline() == "1\n"
        while len(seen) < 5:
            reader.read(0, np.ones(1000, bool), out)
            assert out.min() == out.max()
            seen.add(out[0, 0])

    assert program.poll() is None  # it was never refused


def test_reading_a_file_that_is_always_being_written_ends_with_an_error(
    tmp_path, script, monkeypatch
):
    """A worker waits for a limited time; the driver waits until it is stopped."""
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((1000, 2000))
    monkeypatch.setattr("resumable.source.reader._PATIENCE_S", 0.2)
    ref = SourceRef(str(path), "/data", (0,), live=True)
    with Reader(ref) as reader:
        program = script(REWRITER, str(path), "0", name="rewriter.py")
        assert program.stdout.readline() == "1\n"
        rows, out = np.ones(1000, bool), np.empty((1000, 2000))
        with pytest.raises(SourceError, match=r"open for writing|being written"):
            [reader.read(0, rows, out) for _ in range(50)]


@pytest.mark.parametrize("version", ["earliest", "v110", "latest"])
def test_the_marks_of_hdf5_are_read_in_every_version(tmp_path, version):
    """A file is open, closed, or open in SWMR mode, also behind a user block."""
    path = tmp_path / "live.h5"
    block = {"userblock_size": 1024} if version == "v110" else {}
    with h5py.File(path, "w", libver=version, **block) as file:
        file.create_dataset("data", (2,), "f8", maxshape=(None,))
        opened = file_state(str(path))
        swmr = opened
        if version != "earliest":
            file.swmr_mode = True
            swmr = file_state(str(path))
    closed = file_state(str(path))

    assert (opened.open, opened.swmr, opened.readable) == (True, False, False)
    assert swmr.swmr is (version != "earliest")
    assert (closed.open, closed.swmr) == (False, False)
    until(lambda: file_state(str(path)).readable)


def test_what_was_just_written_is_not_at_rest(tmp_path, monkeypatch):
    """A second change within a tick of the clock would not show."""
    path = tmp_path / "live.h5"
    path.write_bytes(b"x" * 100)
    now = 1_800_000_000_123_456_789
    monkeypatch.setattr(
        "resumable.source.live.time", SimpleNamespace(time_ns=lambda: now)
    )
    for age, at_rest in [(0, False), (5_000_000, False), (10**9 + 1, True)]:
        os.utime(path, ns=(now - age, now - age))
        assert file_state(str(path)).at_rest is at_rest
    os.utime(path, ns=(now // 10**9 * 10**9 - 10**9,) * 2)
    assert not file_state(str(path)).at_rest


def test_no_file_and_no_hdf5_file_have_no_mark(tmp_path):
    path = tmp_path / "live.h5"
    assert file_state(str(path)) == live.FileState()
    path.write_bytes(b"short")
    assert not file_state(str(path)).open


def test_options_that_make_no_sense_are_refused(scan):
    process = Mean(scan)
    for option in ("rechunk", "retry_failed"):
        with pytest.raises(PlanError, match=f"{option}=True is for what is there"):
            process.compute(follow=1, **{option: True})
    with pytest.raises(PlanError, match="is not a duration"):
        process.compute(follow="soon")


def test_a_dataset_in_several_files_is_not_followed(make_file, tmp_path):
    part = make_file("part.h5", data=np.ones((5, 3)))
    layout = h5py.VirtualLayout((5, 3), "f8")
    layout[...] = h5py.VirtualSource(part, "data", (5, 3))
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    process = Mean(f"{tmp_path}/whole.h5::/data")

    with pytest.raises(PlanError, match="its data in other files"):
        process.compute(follow=1)
    assert process.compute().status.finished


def test_outputs_that_depend_on_the_length_are_refused(writer):
    class Depends(Mean):
        version = 1

        def outputs(self):
            length = max(1, self.map_shape[0])
            return {"all": rs.Output((length,), per="run"), "mean": rs.Output()}

    program = writer("swmr", count=2000)
    process = Depends(program.source)
    program.tell()
    with pytest.raises(PlanError, match="depend on the number of positions"):
        process.compute(follow=20)


@pytest.mark.parametrize(
    ("chosen", "end", "of_6", "of_12"),
    [
        (None, None, None, None),
        (slice(2, 9), 9, [2, 3, 4, 5], [2, 3, 4, 5, 6, 7, 8]),
        (slice(None, None, 5), None, [0, 5], [0, 5, 10]),
        ([1, 8], 9, [1], [1, 8]),
        ((3, 1), 8, [], [7]),
        (np.array([[False] * 2, [True, False]]), 3, [2], [2]),
        (np.s_[1:5, -1], 10, [3, 5], [3, 5, 7, 9]),
        (np.s_[::2, :], None, [0, 1, 4, 5], [0, 1, 4, 5, 8, 9]),
        (np.s_[..., 1], None, [1, 3, 5], [1, 3, 5, 7, 9, 11]),
        ((np.array([2, 4]), np.array([1, 0])), 9, [5], [5, 8]),
        (np.s_[0:0, 1], 0, [], []),
        (np.ma.array([1, 8], mask=[0, 1]), 2, [1], [1]),
    ],
)
def test_positions_that_are_requested_come_by_and_by(chosen, end, of_6, of_12):
    """Flat positions on a map of rows of two, as far as they exist."""
    wanted = RequestedPositions(chosen, (3, 2))

    def among(rows):
        found = wanted.among((rows, 2), growable=True)
        return None if found is None else found.members_at(np.arange(len(found)))

    assert wanted.end == end
    assert (among(3), among(6)) == (of_6, of_12)


@pytest.mark.parametrize(
    ("chosen", "first"),
    [
        (None, None),
        (slice(4, None), None),
        (slice(0, 6), None),
        (slice(0, 9), 6),
        (slice(8, 20), 8),
        (slice(0, 7, 5), None),
        (slice(0, 9, 4), 8),
        ([1, 5], None),
        ([1, 7, 30], 7),
    ],
)
def test_the_first_that_is_to_come_is_known(chosen, first):
    assert RequestedPositions(chosen, (6,)).first_from(6) == first


@pytest.mark.parametrize(
    "chosen", [-1, [2, -3], slice(-5, None), slice(0, -1), np.s_[-5:,], np.s_[:-1, ...]]
)
def test_positions_that_count_from_the_end_are_refused(chosen):
    with pytest.raises(PlanError, match="count from the end"):
        RequestedPositions(chosen, (10,))


def test_a_mask_of_numbers_is_refused_before_all_of_it_is_there():
    with pytest.raises(PlanError, match=r"astype\(bool\)"):
        RequestedPositions((np.arange(10) > 4).astype("u1"), (10,))


def test_a_set_of_positions_as_text_comes_back(tmp_path):
    """A text that is no set of positions, or of another size, is refused."""
    positions = PositionSet.of(1000, np.array([0, 5, 999]))
    text = positions.to_text()

    back = PositionSet.from_text(1000, text)
    assert back.members_at(np.arange(3)) == [0, 5, 999]
    assert (back & positions).is_within(positions)
    assert not PositionSet.full(1000).is_within(positions)
    for size, wrong in [(2000, text), (100, text), (1000, "!"), (1000, "AAAA")]:
        with pytest.raises(ValueError, match=r"positions|base64|padding|data"):
            PositionSet.from_text(size, wrong)


def test_the_command_follows(writer, script):
    program = writer("swmr", count=5)
    program.tell()
    folder = Path(program.path).parent
    words = ("run", f"{SUPPORT}/processes.py:Mean", program.source, "--follow", "1m")
    command = script("from resumable.cli.commands import main; main()", *words)
    until(lambda: done_in(folder) == 5)
    program.tell()
    out, _ = command.communicate(timeout=60)

    assert command.returncode == 0
    assert "5 of 5 positions done" in out
