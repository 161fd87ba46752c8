"""Run files that another program has open, marked, changed or written anew."""

import re
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import compute
from run_files import Mean, digest

import resumable as rs
from resumable.cli import commands
from resumable.runfile import RunFile

#: Opens a file for writing, does something, and waits.
OTHER = """
import sys, h5py
file = h5py.File({path!r}, "a")
{code}
file.flush()
print("open", flush=True)
sys.stdin.readline()
file.close()
"""
CHANGE = "file.attrs['seen'] = list(range(100)); file.create_group('notes')"


class Other:
    """Another program, which has a file open for writing."""

    def __init__(self, path, code=""):
        text = OTHER.format(path=str(path), code=code)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(
            [sys.executable, "-c", text], text=True, **pipes
        )
        assert self.process.stdout.readline() == "open\n"

    def close(self):
        self.process.communicate("\n")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def part(scan):
    """Return a run of which the first 20 positions are done."""
    return compute(Mean(scan), positions=slice(0, 20))


def invoke(*arguments):
    return CliRunner().invoke(commands.main, list(map(str, arguments)))


def assert_goes_on(scan, path):
    """No row that was there is computed again."""
    results = compute(Mean(scan))
    assert results.path == path
    assert results.sessions[0].computed == 20
    assert results.sessions[-1].computed == results.status.positions - 20
    with h5py.File(scan.partition("::")[0]) as file:
        data = file[scan.partition("::")[2]][...]
    np.testing.assert_array_equal(results["mean"], data.mean(axis=1))


def test_a_run_that_is_open_in_another_program_is_read_and_goes_on_when_closed(
    scan, part
):
    before = digest(part.path)
    other = Other(part.path)
    with pytest.raises(rs.RunBusy, match="open for writing in another program; close"):
        compute(Mean(scan))
    status = invoke("status", part.path).output
    done = rs.open(part.path).status.done
    other.close()

    assert done == 20
    assert "20 of" in status
    assert "open for writing in another program" in status
    assert digest(part.path) == before
    assert_goes_on(scan, part.path)


def test_a_run_with_the_mark_of_a_program_that_was_killed_goes_on(scan, part):
    Other(part.path).kill()
    status = invoke("status", part.path).output

    assert "marked as open for writing" in status
    assert "'resumable repair' removes the mark" in status
    assert_goes_on(scan, part.path)


def test_the_mark_of_a_program_that_was_killed_can_be_removed(part):
    before = digest(part.path)
    Other(part.path).kill()
    marked = digest(part.path)
    mended = invoke("repair", part.path)
    again = invoke("repair", part.path)

    assert marked != before == digest(part.path)
    assert "the mark of a program that had it open was removed" in mended.output
    assert "nothing to mend" in again.output


@pytest.mark.parametrize(
    ("contents", "words"), [(b"", "run file, it is empty:"), (b"a text", "run file:")]
)
def test_what_is_no_run_file_is_not_mended(scan, part, contents, words):
    part.path.write_bytes(contents)

    mended = invoke("repair", part.path)
    with pytest.raises(rs.RunFileError) as refused:
        compute(Mean(scan))

    assert mended.exit_code == 1
    assert "is not a run file, nor HDF5; there is nothing to mend" in mended.output
    assert str(refused.value).endswith(
        f"is not a {words} it is left as it is; use override=True to "
        "compute into a new file"
    )


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_another_program_has_changed_is_mended(scan, part, killed):
    other = Other(part.path, CHANGE)
    with pytest.raises(rs.RunFileError, match="has changed it: close it there"):
        compute(Mean(scan))
    (other.kill if killed else other.close)()
    with pytest.raises(rs.RunFileError, match=r"'resumable repair .*mends it") as info:
        compute(Mean(scan))
    listed = invoke("list", part.path.parent).output
    status = invoke("status", part.path.parent)
    mended = invoke("repair", part.path)

    assert "override" not in str(info.value)
    assert "(not usable)" in listed
    assert "resumable repair" in status.output
    assert "its header says what the file is now; 0 datasets had been" in mended.output
    assert_goes_on(scan, part.path)
    with h5py.File(part.path) as file:
        assert "notes" in file


def repacked(path, **options):
    """Write a file anew, as h5repack does: with its user block, datasets elsewhere."""
    new = path.with_name("new.h5")
    with h5py.File(path) as old:
        size = old.userblock_size
        with h5py.File(new, "w", userblock_size=size) as file:
            for group in old.values():
                made = file.create_group(group.name)
                for name in reversed(sorted(group)):
                    if isinstance(group.get(name, getlink=True), h5py.SoftLink):
                        continue
                    dataset = group[name]
                    if dataset.shape and options:
                        made.create_dataset(name, data=dataset[...], **options)
                    else:
                        group.copy(name, made)
    with path.open("rb") as old, new.open("r+b") as file:
        file.write(old.read(size))
    shutil.move(new, path)


def test_a_run_that_was_written_anew_is_mended(scan, part):
    repacked(part.path)
    with pytest.raises(
        rs.RunFileError, match="changed or written anew by another program"
    ) as info:
        compute(Mean(scan))
    mended = invoke("repair", part.path)

    assert "resumable repair" in str(info.value)
    assert re.search(r"; [1-9]\d* datasets had been moved", mended.output)
    assert RunFile(part.path).header.identity == part.identity
    assert_goes_on(scan, part.path)


def test_of_rows_that_were_written_anew_in_chunks_it_is_said_how_to_join_them(
    scan, part
):
    repacked(part.path, compression="gzip")
    before = digest(part.path)
    with pytest.raises(rs.RunFileError, match="resumable repair"):
        compute(Mean(scan))
    told = invoke("repair", part.path)

    assert told.exit_code == 1
    assert "its rows are whole. 'h5repack -l CONTI -f NONE" in told.output
    assert digest(part.path) == before


def test_a_truncated_run_is_told_from_one_that_was_written_anew(scan, part):
    with part.path.open("r+b") as file:
        file.truncate(part.path.stat().st_size - 5)
    with pytest.raises(rs.RunFileError, match=r"is truncated: .* Copy it again"):
        compute(Mean(scan))
    told = invoke("repair", part.path)

    assert told.exit_code == 1
    assert "is truncated" in told.output


def test_what_is_no_run_any_more_is_not_repaired(part):
    """A dataset of another length has its place."""
    with h5py.File(part.path, "r+") as file:
        group = next(iter(file.values()))
        del group["completed_positions"]
        group["completed_positions"] = np.zeros(5, "u1")
    told = invoke("repair", part.path)

    assert told.exit_code == 1
    assert "completed_positions is not what it was made with" in told.output


def test_a_packed_run_that_another_program_has_changed_is_mended(scan):
    results = compute(Mean(scan))
    results.pack()
    before = results["mean"][...]
    with h5py.File(results.path, "r+") as file:
        file.attrs["seen"] = list(range(100))
    with pytest.raises(rs.RunFileError, match="resumable repair"):
        rs.open(results.path)
    mended = invoke("repair", results.path)

    assert mended.exit_code == 0, mended.output
    np.testing.assert_array_equal(rs.open(results.path)["mean"][...], before)
    assert compute(Mean(scan)) == results


def test_a_packed_run_that_was_written_anew_is_not_said_to_be_lost(scan):
    results = compute(Mean(scan))
    results.pack()
    repacked(results.path)
    told = invoke("repair", results.path)

    assert told.exit_code == 1
    assert "its rows are whole, and h5py reads them" in told.output
    assert "override" not in told.output
