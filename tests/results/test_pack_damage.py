"""Packing beside readers, what is refused, damage, and kills."""

import concurrent.futures
import fcntl
import stat
import sys
import threading
import time

import kill_pack
import numpy as np
import pytest
from forged_files import restructured
from helpers import compute
from packed_runs import Large, packed, same

import resumable as rs
from resumable.results.pack import pack_locked
from resumable.runfile.file import RunFile
from resumable.runfile.folder import RunLock, run_folder_of
from resumable.runfile.header import (
    CHUNKS,
    CHUNKS_DTYPE,
)
from resumable.system import disk

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*positions failed:resumable.ResumableWarning"
)


def test_open_results_read_the_same_after_packing(large):
    mapped = RunFile(large.path).array("row")
    group = large.group()
    wanted = large["row"][...]
    array = large["row"]
    large.pack("gzip")
    while_packed = array[...]
    large.pack("lzf")

    assert same(np.array(mapped), wanted)
    assert same(group["row"][...], wanted)
    assert same(while_packed, wanted)
    assert same(array[...], wanted)
    assert large.status.done == 200
    group.file.close()


def test_a_run_can_be_read_while_it_is_packed_again_and_again(large):
    wanted = large["row"][...]
    results = rs.open(large.path)
    over = threading.Event()

    def read():
        count = 0
        while not over.is_set():
            assert same(results["row"][...], wanted)
            assert results.status.done == 200
            count += 1
        return count

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        reads = threads.submit(read)
        for method in ("gzip", "lzf", None, "gzip"):
            large.pack(method)
        time.sleep(0.05)
        over.set()

    assert reads.result() > 0


def test_results_of_a_run_that_was_replaced_by_another_say_so(large, run):
    run.path.replace(large.path)
    with pytest.raises(rs.RunFileError, match="another run by now"):
        large["row"][...]


def test_permissions_stay(large):
    large.path.chmod(0o640)
    large.pack("gzip")

    assert stat.S_IMODE(large.path.stat().st_mode) == 0o640


def test_a_name_that_is_a_link_leads_to_the_packed_file(large, tmp_path):
    link = tmp_path / "link.h5"
    link.symlink_to(large.path.name)
    rs.open(link).pack("gzip")

    assert link.is_symlink()
    assert packed(large) == {"row": "gzip"}


def test_an_unfinished_run_is_not_packed(tmp_path):
    results = compute(Large(20, tmp_path), positions=slice(0, 10))
    before = results.path.read_bytes()
    with pytest.raises(rs.RunFileError, match="not finished; compute it before"):
        results.pack()

    assert results.path.read_bytes() == before


def test_a_method_that_is_not_there_is_named_with_the_nearest(large):
    with pytest.raises(rs.ParameterError, match=r"'gzipp'; did you mean 'gzip'\?"):
        large.pack("gzipp")
    with pytest.raises(rs.DeclarationError, match=r"'zst'; did you mean 'zstd'\?"):
        rs.Output(compression="zst")
    with pytest.raises(rs.DeclarationError, match="no compression 5"):
        rs.Output(compression=5)
    with pytest.raises(rs.DeclarationError, match="only outputs per position"):
        rs.Output(per="run", compression="gzip")


def test_what_needs_a_package_says_which(large, monkeypatch):
    large.pack("zstd")
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    needs = r"needs the package hdf5plugin.*resumable-hdf5\[filters\]"
    with pytest.raises(rs.DeclarationError, match=needs):
        rs.Output(compression="zstd")
    with pytest.raises(rs.RunFileError, match=needs):
        large["row"][0]
    rs.Output(compression="gzip")

    assert large.status.done == 200
    assert list(large.group().file)


def test_a_run_at_work_is_not_packed(large):
    with (
        RunLock(run_folder_of(RunFile(large.path))).held(),
        pytest.raises(rs.RunBusy, match="is being computed by process"),
    ):
        large.pack()
    with large.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(rs.RunBusy, match="open for writing in another program"):
            large.pack()

    assert packed(large) is None
    assert len(list(large.path.parent.iterdir())) == 1


def test_damage_of_a_packed_file_is_noticed(run):
    run.pack("gzip")
    sound = run.path.read_bytes()
    rows = {name: np.array(run[name][...]) for name in run}
    header_end = sound.index(b"\n", sound.index(b"\n", 30) + 1)
    padding = range(header_end + 1, RunFile(run.path).header.user_block)
    chance = np.random.default_rng(1)
    outcomes = set()
    for place in [5, 40, 200, *chance.integers(0, len(sound), 150).tolist()]:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(chance.integers(8))
        run.path.write_bytes(damaged)
        try:
            results = rs.open(run.path)
        except rs.RunFileError:
            outcomes.add("refused")
            continue
        if place in padding:
            continue
        with pytest.raises(rs.RunFileError, match="cannot be unpacked"):
            [np.asarray(results[name]) for name in rows]
        outcomes.add("not unpacked")

    assert outcomes == {"refused", "not unpacked"}


def test_a_table_of_chunks_that_lie_elsewhere_is_refused(large):
    large.pack("gzip")
    header = RunFile(large.path).header
    sound = large.path.read_bytes()
    offset = header.offsets[CHUNKS]
    (first, size), *_ = np.frombuffer(sound, CHUNKS_DTYPE, 1, offset).tolist()
    status = header.offsets["completed_positions"]
    for row in ((status, 8), (first, len(sound)), (-4096, 8192), (first, -size)):
        forgery = bytearray(sound)
        forgery[offset : offset + 16] = np.array([row], CHUNKS_DTYPE).tobytes()
        large.path.write_bytes(forgery)
        with pytest.raises(rs.RunFileError, match=r"structure is not|cannot be read"):
            rs.open(large.path)


def test_a_table_of_chunks_that_is_not_that_of_hdf5_is_told_and_packed_anew(large):
    """As it was written with HDF5 below 1.14.4, which leaves out the user block."""
    wanted = large["row"][...]
    large.pack("gzip")
    header, sound = RunFile(large.path).header, large.path.read_bytes()
    offset, length = header.extents()[CHUNKS]
    table = np.frombuffer(sound[offset : offset + length], CHUNKS_DTYPE).copy()
    table["offset"] -= header.user_block // 2
    large.path.write_bytes(sound[:offset] + table.tobytes() + sound[offset + length :])
    restructured(large.path)

    told = rs.verify(large.path)
    large.pack("gzip")

    assert not told.passed
    assert "'resumable pack' writes it anew" in str(told)
    assert rs.verify(large.path).passed
    assert same(large["row"][...], wanted)


def test_a_copy_that_reads_back_otherwise_is_not_put_in_place(large, monkeypatch):
    write_at = disk.write_at

    def lying(fd, data, offset):
        data = bytearray(memoryview(data).cast("B"))
        if len(data) > 1000 and offset > 100_000:
            data[500] ^= 1
        write_at(fd, data, offset)

    before = large.path.read_bytes()
    monkeypatch.setattr(disk, "write_at", lying)
    with (
        RunLock(run_folder_of(RunFile(large.path))).held(),
        pytest.raises((rs.RunFileError, rs.TargetError)),
    ):
        pack_locked(RunFile(large.path), {"row": None})

    assert large.path.read_bytes() == before
    assert [p.name for p in large.path.parent.iterdir()] == [large.path.name]


@pytest.mark.parametrize(
    ("how", "what", "least"),
    [
        ("steps", "pack", 3),
        ("steps", "unpack", 6),
        pytest.param("every-step", "pack", 60, marks=pytest.mark.torture),
        pytest.param("every-step", "unpack", 60, marks=pytest.mark.torture),
    ],
)
def test_a_kill_before_any_step_leaves_one_whole_file(
    program_server, tmp_path, how, what, least
):
    tally = kill_pack.tally_of(program_server, how, what, tmp_path)

    assert tally.faults == []
    assert tally.kills >= least


LONG = [pytest.mark.torture, pytest.mark.timeout(3600, method="signal")]


@pytest.mark.parametrize(
    ("what", "kills"),
    [
        *((what, 10) for what in ["pack", "unpack"]),
        *(pytest.param(what, 500, marks=LONG) for what in ["pack", "unpack"]),
    ],
)
def test_kills_at_random_moments_leave_one_whole_file(
    program_server, tmp_path, what, kills
):
    tally = kill_pack.tally_of(program_server, "random", what, tmp_path, kills)

    assert tally.faults == []
    assert tally.kills == kills
