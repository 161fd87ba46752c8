"""The structure of a run file: readable by any program, never changed."""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import compute
from processes import Hooked
from run_files import MEAN, Mean, digest

import resumable as rs
from resumable.runfile.file import RunFile

WIDE = {"wide": rs.Output(shape=8192)}


class Watched(Hooked):
    """Calls ``watch`` while a position is at work, and while it finishes."""

    version = 1

    def unit_computation(self, spectrum):
        self.watch(self.position)
        return spectrum.mean()

    def finish(self, results):
        self.watch("finish")


class Wide(Hooked):
    """Eight times as much as comes in: 64 kB per position."""

    version = 1
    outputs = WIDE

    def unit_computation(self, index):
        self.watch()
        return np.full(8192, float(index))


class Moody(rs.Process):
    """Fails until there is a file ``mended`` in the working folder."""

    version = 1
    outputs = MEAN

    def unit_computation(self, spectrum):
        if self.position % 3 == 1 and not Path("mended").exists():
            raise ValueError(f"no luck at {self.position}")
        return spectrum.mean()


def test_the_run_file_can_be_read_with_h5py_at_any_moment(scan):
    process = Watched(scan)
    path = process.plan().path
    seen = []

    def watch(position):
        with h5py.File(path, "r") as file:
            group = file["data-Watched_000"]
            status = group["completed_positions"][...]
            assert set(np.unique(status)) <= {0, 1}
            seen.append((position, group["mean"].shape, int(status.sum())))

    process.watch = watch
    results = compute(process, checkpoint=0.001)

    assert len(seen) == 61
    assert {shape for _, shape, _ in seen} == {(60,)}
    assert seen[0][2] == 0
    assert seen[-1] == ("finish", (60,), 60)
    assert results.status.done == 60


def test_another_process_reads_during_a_run_and_cannot_write(scan, monkeypatch):
    process = Watched(scan)
    path = process.plan().path
    code = (
        "import h5py, sys\n"
        "with h5py.File(sys.argv[1], 'r') as f:\n"
        "    print(f['data-Watched_000/mean'].shape)\n"
        "try:\n"
        "    h5py.File(sys.argv[1], 'r+')\n"
        "except BlockingIOError:\n"
        "    print('refused')\n"
    )
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    said = []

    def watch(position):
        if position == 30:
            said.append(subprocess.check_output([sys.executable, "-c", code, path]))

    process.watch = watch
    compute(process)

    assert said == [b"(60,)\nrefused\n"]


@pytest.mark.parametrize("moment", [0, 59, "finish"])
def test_the_run_file_cannot_be_opened_for_writing_during_a_run(scan, moment):
    process = Watched(scan)
    path = process.plan().path
    refused = []

    def watch(position):
        if position == moment:
            try:
                h5py.File(path, "r+").close()
            except BlockingIOError:
                refused.append(position)

    process.watch = watch
    compute(process)

    assert refused == [moment]


def test_a_run_does_not_write_beside_an_hdf5_writer(scan):
    path = compute(Mean(scan), positions=slice(0, 10)).path
    with h5py.File(path, "r+"), pytest.raises(rs.RunBusy, match="another program"):
        compute(Mean(scan))

    assert compute(Mean(scan)).status.done == 60


def test_a_run_respects_the_lock_of_an_hdf5_writer(scan):
    path = compute(Mean(scan), positions=slice(0, 10)).path
    before = digest(path)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(rs.ResumableError, match=path.name):
            compute(Mean(scan))

    assert digest(path) == before


def constant_bytes(path):
    """Digest of all bytes that lie outside of the extents that change."""
    header = RunFile(path).header
    data = bytearray(path.read_bytes())
    for offset, length in header.extents().values():
        data[offset : offset + length] = bytes(length)
    return len(data), hashlib.sha256(data).hexdigest()


def test_metadata_bytes_never_change_after_creation(scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = Moody(scan)
    path = Path(process.plan().path)
    digests = []
    compute(process, positions=[0])
    digests.append(constant_bytes(path))
    with pytest.warns(rs.ResumableWarning, match="10 of 60"):
        compute(process, positions=slice(0, 30))
    digests.append(constant_bytes(path))
    with pytest.warns(rs.ResumableWarning, match="20 of 60"):
        compute(process)
    digests.append(constant_bytes(path))
    Path("mended").touch()
    results = compute(process, retry_failed=True)
    digests.append(constant_bytes(path))

    assert results.status.finished
    assert results.status.done == 60
    assert results.path == path
    assert len(results.sessions) == 4
    assert len(set(digests)) == 1


def test_all_datasets_are_contiguous_and_allocated_early(scan):
    path = compute(Mean(scan)).path
    header = RunFile(path).header
    with h5py.File(path) as file:
        found = {n: file[f"{header.group_of(n)}/{n}"] for n in header.extents()}
        layouts = {
            name: (
                d.id.get_create_plist().get_layout(),
                d.id.get_create_plist().get_alloc_time(),
                d.id.get_offset(),
                d.id.get_storage_size(),
            )
            for name, d in found.items()
        }

    assert layouts == {
        name: (h5py.h5d.CONTIGUOUS, h5py.h5d.ALLOC_TIME_EARLY, offset, length)
        for name, (offset, length) in header.extents().items()
    }


def test_space_for_all_rows_is_reserved_before_the_first_position(tmp_path):
    process = Wide(64, tmp_path)
    path = Path(process.plan().path)
    occupied = []
    process.watch = lambda: occupied.append(path.stat().st_blocks * 512)
    compute(process)

    assert occupied[0] >= 64 * 65536


def test_positions_reserve_space_only_for_what_is_asked(tmp_path):
    process = Wide(640, tmp_path)
    few = compute(process, positions=slice(100, 108)).path.stat()
    whole = compute(process, positions=slice(0, 320)).path.stat()

    assert few.st_size > 640 * 65536
    assert 8 * 65536 <= few.st_blocks * 512 < 3 << 20
    assert 320 * 65536 <= whole.st_blocks * 512 < (320 * 65536) + (3 << 20)


LIMITED = """
import resource, sys
import numpy as np
import resumable as rs

class Wide(rs.Process):
    version = 1
    outputs = {"wide": rs.Output(shape=8192)}
    def unit_computation(self, index):
        return np.zeros(8192)

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    Wide(64, sys.argv[1]).compute(engine="serial", progress=False)
except rs.TargetError as error:
    print(error)
"""


def test_a_file_size_limit_at_creation_is_an_error_with_numbers(tmp_path, script):
    target = tmp_path / "target"
    target.mkdir()
    process = script(LIMITED, str(target))
    output, errors = process.communicate(timeout=50)

    assert (process.returncode, errors) == (0, "")
    assert "they need 4.19 MB" in output
    assert "give another folder as target=" in output
    assert list(target.iterdir()) == []


def test_a_full_disk_at_creation_is_an_error_with_numbers(small_disk):
    process = Wide(64, small_disk)
    calls = []
    process.watch = lambda: calls.append(1)
    with pytest.raises(rs.TargetError, match=r"they need 4\.19 MB, [\d.]+ MB are free"):
        compute(process)

    assert calls == []
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_when_going_on_names_what_is_needed(small_disk):
    process = Wide(64, small_disk)
    compute(process, positions=slice(0, 8))
    with pytest.raises(rs.TargetError, match=r"they need (?!0 bytes)[\d.]+ MB"):
        compute(process)
    results = process.results

    assert results.status.done == 8
    np.testing.assert_array_equal(results["wide"][:8, 0], np.arange(8))


def test_the_next_run_removes_a_file_that_was_half_made(scan):
    process = Mean(scan)
    path = Path(process.plan().path)
    path.with_name(f".{path.stem}.birth").write_bytes(b"half a file")
    compute(process)

    assert sorted(p.name for p in path.parent.iterdir()) == sorted(
        [path.name, "scan.h5"]
    )


def test_the_next_run_removes_the_second_name_of_a_new_file(scan):
    """Killed between link and unlink, the file has two names; the next run ends it."""
    process = Mean(scan)
    path = compute(process, positions=slice(0, 5)).path
    os.link(path, path.with_name(f".{path.stem}.birth"))
    compute(process)

    assert path.stat().st_nlink == 1


def test_opening_what_is_not_there_or_not_a_file_says_so(tmp_path):
    with pytest.raises(rs.RunFileError, match=r"nothing\.h5 cannot be read: No such"):
        rs.open(tmp_path / "nothing.h5")
    with pytest.raises(rs.RunFileError, match="cannot be read: Is a directory"):
        rs.open(tmp_path)
