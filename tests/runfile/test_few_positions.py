"""Run files of few positions, which are small."""

import gzip

import h5py
import numpy as np
import pytest
from helpers import DATA, compute
from processes import process_of

import resumable as rs
from resumable.runfile import RunFile
from resumable.runfile.header import FEW_POSITIONS

#: What is reported of 20 numbers: everything fits.
MOST_BYTES = 64 << 10


def deep(depth):
    if depth:
        return deep(depth - 1) + 0.0
    msg = "no peak " * 100
    raise ValueError(msg)


def odd_fails(self, position):
    return deep(30) if position % 2 else float(position)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*positions failed")
def test_a_run_of_20_numbers_is_small_and_says_all_of_20_failures(folder):
    process = process_of(lambda self, position: deep(30))(20, target=folder)
    with pytest.raises(rs.UnitFailed):
        compute(process)
    results = compute(process, on_error="record")

    found = results.path.stat()
    assert max(found.st_size, found.st_blocks * 512) <= MOST_BYTES
    assert [failure.position for failure in results.failures] == list(range(20))
    for failure in results.failures:
        assert failure.message == ("no peak " * 100)[:500]
        assert failure.traceback.endswith(f"ValueError: {'no peak ' * 100}\n"[-400:])
    assert rs.verify(results.path, process).passed
    with h5py.File(results.path) as file:
        assert sorted(file["run/failures"]["position"]) == list(range(20))


def test_a_few_more_positions_have_the_tables_of_before(folder):
    made = [process_of(lambda self, n: n * 2.0)(n, target=folder) for n in (32, 33)]
    few, more = [RunFile(compute(process).path).header for process in made]

    assert few.tables["failures"].itemsize < more.tables["failures"].itemsize
    assert few.size == FEW_POSITIONS
    assert more.rows["sessions"] == 1000


@pytest.mark.filterwarnings("ignore:.*positions failed")
def test_a_small_file_is_packed_unpacked_and_computed_further(folder):
    process = process_of(odd_fails)(20, target=folder)
    results = compute(process)
    plain = RunFile(results.path).header.rows

    results.pack()
    again = compute(process, retry_failed=True)

    assert RunFile(again.path).header.rows == plain
    assert again["mean"][::2].tolist() == list(range(0, 20, 2))
    assert [f.position for f in again.failures] == list(range(1, 20, 2))
    assert len(again.sessions) == 2


@pytest.mark.filterwarnings("ignore:.*positions failed")
def test_the_failures_of_a_small_file_go_on_in_a_larger_one(folder):
    """And what a table of failures says, by the names of its columns."""
    with h5py.File("grows.h5", "w") as file:
        file.create_dataset("data", data=np.arange(20.0), maxshape=(None,), chunks=4)
    process = process_of(odd_fails)("grows.h5::/data")
    before = compute(process)
    with h5py.File("grows.h5", "r+") as file:
        file["data"].resize(40, axis=0)
        file["data"][20:] = np.arange(20.0, 40.0)

    results = compute(process_of(odd_fails)("grows.h5::/data"))

    assert (before.status.positions, results.status.positions) == (20, 40)
    assert RunFile(results.path).header.rows["sessions"] == 1000
    assert list(results.failures)[:10] == list(before.failures)
    assert [f.position for f in results.failures] == list(range(1, 40, 2))


@pytest.mark.filterwarnings("ignore:.*(positions failed|was edited since)")
@pytest.mark.filterwarnings("ignore:.*is continued with another")
def test_a_run_of_few_positions_of_version_2_goes_on(folder):
    """Made before there was version 3: of 10 positions, 4 are done and 2 failed."""
    with h5py.File("few.h5", "w") as file:
        file["data"] = np.arange(40.0).reshape(10, 4)
    path = folder / "few-data-Few-6a646f8f.h5"
    path.write_bytes(gzip.decompress((DATA / "format_2_few.h5.gz").read_bytes()))

    def mean(self, spectrum):
        return spectrum.mean()

    process = process_of(mean, {"mean": rs.Output()}, name="Few")("few.h5::/data")
    results = compute(process)

    assert results.path.name == path.name
    assert RunFile(path).header.format == 2
    assert [f.message[:8] for f in results.failures] == ["odd odd ", "odd odd "]
    assert results.completed_mask.sum() == 8
    tried = compute(process, retry_failed=True)
    np.testing.assert_array_equal(tried["mean"][...], np.arange(1.5, 40, 4))
    tried.pack()
    assert rs.verify(path, process, sample="all").passed
