"""The run file: checked before it is trusted; its status, failures and sessions."""

import contextlib
import errno
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from forged_files import rewritten
from helpers import compute
from processes import process_of
from run_files import MEAN, Mean, digest

import resumable as rs
from resumable.model import document_digest
from resumable.model.output import Output
from resumable.model.positions import PositionSet
from resumable.runfile.file import RunFile
from resumable.runfile.header import (
    FAILURE_ROWS,
    MAGIC,
    SESSION_DTYPE,
    SESSION_ROWS,
    Header,
)
from resumable.runfile.tables import SessionTables
from resumable.session.events import Started
from resumable.system import disk


class HalfFails(rs.Process):
    version = 1
    outputs = MEAN

    def unit_computation(self, index):
        if index % 2:
            raise ValueError(f"odd {index}")
        return index


def flipped(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def overlapping(plain):
    plain["offsets"]["completed_positions"] = plain["offsets"]["mean"] + 8


def outside(plain):
    plain["offsets"]["sessions"] = plain["file_bytes"] - 8


def negative(plain):
    plain["offsets"]["mean"] = -8


def structure_byte(path):
    """Offset of a byte behind the user block that is not in an extent."""
    header = RunFile(path).header
    changing = [range(o, o + n) for o, n in header.extents().values()]
    return next(
        i
        for i in range(header.user_block + 100, header.file_bytes)
        if not any(i in extent for extent in changing)
    )


DAMAGES = {
    "magic": (lambda p: flipped(p, 0), "is not a run file"),
    "empty": (lambda p: cut(p, 0), "is not a run file"),
    "checksum": (lambda p: flipped(p, len(MAGIC) + 80), "does not match its checksum"),
    "digest": (lambda p: flipped(p, len(MAGIC) + 5), "does not match its checksum"),
    "newer": (
        lambda p: rewritten(p, lambda plain: plain.update(format=99)),
        "has format 99, and this version reads up to 4",
    ),
    "header cut": (lambda p: cut(p, 300), "damaged"),
    "one byte short": (lambda p: cut(p, p.stat().st_size - 1), "is truncated: it has"),
    "half": (lambda p: cut(p, p.stat().st_size // 2), "is truncated: it has"),
    "structure": (lambda p: flipped(p, structure_byte(p)), "its structure is not"),
    "superblock": (
        lambda p: flipped(p, RunFile(p).header.user_block),
        "its structure is not",
    ),
    "overlap": (lambda p: rewritten(p, overlapping), "its structure is not"),
    "outside": (lambda p: rewritten(p, outside), "its structure is not"),
    "negative": (lambda p: rewritten(p, negative), "its structure is not"),
    "nonsense": (
        lambda p: rewritten(p, lambda plain: plain.pop("rows")),
        "makes no sense",
    ),
}


@pytest.fixture(params=DAMAGES)
def bad(request, scan):
    path = compute(Mean(scan)).path
    damage, words = DAMAGES[request.param]
    damage(path)
    return Mean(scan), path, words


def test_a_bad_run_file_is_refused_and_left_as_it_is(bad):
    process, path, words = bad
    before = digest(path)
    with pytest.raises(rs.RunFileError, match=words):
        rs.open(path)
    with pytest.raises(rs.RunFileError, match=words) as info:
        compute(process)

    advice = r"override=True|install a newer|resumable repair"
    assert re.search(advice, str(info.value))
    assert path.name in str(info.value)
    assert digest(path) == before
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(
        [path.name, "scan.h5"]
    )


def test_override_computes_beside_a_bad_run_file(bad):
    process, path, _ = bad
    before = digest(path)
    results = compute(process, override=True)

    assert results.path.name == f"{path.stem}_001.h5"
    assert results.status.finished
    assert digest(path) == before
    assert compute(process).path == results.path


def test_header_comes_back_as_it_was_written():
    compound = np.dtype([("a", "<f4"), ("b", ">i2", (3,)), ("c", "S5")])
    outputs = {
        "z": Output((2, 3), ">f4", units="µV", labels=("x", "y", "z"), fill_value=-1),
        "a": Output((), compound),
        "s": Output((), "i8", per="run"),
    }
    document = {
        "process": "Größe",
        "parameters": {"x": {"float": "nan"}},
        "outputs": {name: output.identity() for name, output in outputs.items()},
        "position_axes": [2, 0],
        "source": {"dataset": "/data", "shape": [4, 9, None]},
        "inputs": {},
    }
    header = Header(
        identity=document_digest(document),
        document=document,
        group="/data-Größe_000",
        map_shape=(3, 4),
        outputs=outputs,
        offsets={"z": 10_000, "a": 20_000, "s": 30_000}
        | {"completed_positions": 31_000, "failed_positions": 32_000}
        | {"failures": 40_000, "sessions": 150_000, "finished": 400_000}
        | {"log_lines": 450_000},
        rows={"failures": 12, "sessions": 1000, "log_lines": 10},
        file_bytes=500_000,
        structure="cd" * 32,
        user_block=8192,
        source={"source": "x::/y", "length": 3, "contents": None},
    )
    block = header.to_bytes().ljust(8192, b"\0")
    again = Header.from_bytes(block, Path("x.h5"))

    assert again.to_bytes() == header.to_bytes()
    assert list(again.outputs) == ["z", "a", "s"]
    assert again.outputs["z"] == header.outputs["z"]
    assert again.outputs["a"].dtype == compound
    assert again.map_shape == (3, 4)
    assert again.document == header.document
    assert again._replace(outputs={}) == header._replace(outputs={})


def test_a_header_longer_than_a_page_is_read_whole(make_file):
    names = [f"output_with_a_rather_long_name_{i:03d}" for i in range(50)]
    Many = process_of(
        lambda self, spectrum: dict.fromkeys(names, spectrum[0]),
        {name: rs.Output(units="long units") for name in names},
    )
    source = make_file(data=np.arange(6.0).reshape(3, 2)) + "::/data"
    results = compute(Many(source))

    assert RunFile(results.path).header.user_block > 4096
    assert list(rs.open(results.path)) == names
    np.testing.assert_array_equal(rs.open(results.path)[names[-1]], [0, 2, 4])


def with_status(results, done, failed):
    header = RunFile(results.path).header
    with results.path.open("r+b") as file:
        for name, values in (("completed", done), ("failed", failed)):
            file.seek(header.offsets[f"{name}_positions"])
            file.write(bytes(values))
    return RunFile(results.path)


def test_counts_scan_and_select_let_done_win_over_failed(make_file):
    source = make_file(data=np.ones((6, 2))) + "::/data"
    run = with_status(compute(Mean(source)), [1, 1, 0, 0, 2, 0], [0, 1, 1, 0, 0, 9])
    ((start, done, failed),) = run.scan()
    within = PositionSet.of(6, np.array([0, 2, 3]))

    def members(chosen):
        return np.flatnonzero(chosen.window(0, chosen.size)).tolist()

    assert run.progress()[:2] == (2, 1)
    assert start == 0
    assert done.tolist() == [True, True, False, False, False, False]
    assert failed.tolist() == [False, False, True, False, False, False]
    assert members(run.select(lambda done, failed: failed)) == [2]
    assert members(run.select(lambda done, failed: ~(done | failed))) == [3, 4, 5]
    assert members(run.snapshot(within).pending) == [3]
    assert members(run.snapshot(within, retry_failed=True).pending) == [2]
    grown = run.snapshot(size=8)
    assert members(grown.pending) == [3, 4, 5, 6, 7]
    assert (grown.done, grown.failed, grown.settled) == (2, 1, False)


def test_going_on_reads_the_status_once_and_so_does_the_end(make_file, monkeypatch):
    """To decide, and when all is computed: with 10^9 positions each time is 2 GB."""
    source = make_file(data=np.ones((6, 2))) + "::/data"
    Mean(source).compute(engine="serial", positions=[0, 1])
    scan, scans, at_start = RunFile._scan, [], []

    def counted(run, fd, header, *span):
        scans.append(span)
        return scan(run, fd, header, *span)

    def listen(event):
        if isinstance(event, Started):
            at_start.append(len(scans))

    monkeypatch.setattr(RunFile, "_scan", counted)
    Mean(source).compute(engine="serial", listener=listen)

    assert at_start == [1]
    assert len(scans) == 2


def test_first_thousand_failures_are_described_and_all_are_counted(tmp_path):
    with pytest.warns(rs.ResumableWarning, match="1,500 of 3,000 positions failed"):
        results = compute(HalfFails(3000, tmp_path))
    failures = results.failures
    with h5py.File(results.path) as file:
        rows = len(file["run/failures"])

    assert results.status.failed == 1500
    assert all(f.position % 2 and f.message == f"odd {f.position}" for f in failures)
    assert rows == FAILURE_ROWS
    assert len({f.position for f in failures}) == FAILURE_ROWS


DIES = """
import os, pathlib, signal, sys, time
import resumable as rs

class Dies(rs.Process):
    version = 1
    outputs = {"x": rs.Output()}
    def unit_computation(self, index):
        if index == 3:
            raise ValueError("bad three")
        if index == 190:
            (path,) = pathlib.Path(sys.argv[1]).glob("*.h5")
            deadline = time.monotonic() + 30
            while not rs.open(path).status.failed and time.monotonic() < deadline:
                time.sleep(0.01)
        if index == 195:
            os.kill(os.getpid(), signal.SIGKILL)
        return index

Dies(200, sys.argv[1]).compute(engine="serial", checkpoint=0.01, progress=False)
"""


def test_failures_of_a_killed_session_are_still_described(tmp_path, script):
    target = tmp_path / "target"
    target.mkdir()
    script(DIES, str(target)).wait(50)
    (path,) = target.glob("*.h5")
    results = rs.open(path)

    assert results.status.failed == 1
    assert [(f.position, f.message) for f in results.failures] == [(3, "bad three")]


def test_sessions_beyond_a_thousand_use_the_last_row_again(scan):
    run = RunFile(compute(Mean(scan)).path)
    full = np.zeros(SESSION_ROWS - 1, SESSION_DTYPE)
    full["start"] = full["pid"] = np.arange(1, SESSION_ROWS)
    with run.path.open("r+b") as file:
        file.seek(run.header.offsets["sessions"])
        file.write(full.tobytes())
    with contextlib.closing(SessionTables(run)) as tables:
        for number in (5001, 5002, 5003):
            tables.begin(
                host="h", pid=number, engine="serial", workers=1, environment={}
            )
            tables.end(computed=number, failed=0)
    sessions = run.sessions()

    assert len(sessions) == SESSION_ROWS
    assert [s.pid for s in sessions[:2]] == [1, 2]
    assert (sessions[-2].pid, sessions[-1].pid) == (999, 5003)
    assert sessions[-1].computed == 5003
    assert compute(Mean(scan)).status.finished


def test_a_session_says_who_computed_how_much(scan):
    compute(Mean(scan), positions=slice(0, 10))
    results = compute(Mean(scan))
    first, second = results.sessions

    assert (first.computed, second.computed) == (10, 50)
    assert first.start <= first.end <= second.start <= second.end
    assert {s.pid for s in results.sessions} == {os.getpid()}
    assert {(s.engine, s.workers, s.failed) for s in results.sessions} == {
        ("serial", 1, 0)
    }


def test_a_file_that_another_host_has_replaced_is_opened_again(scan, monkeypatch):
    """NFS says so of the old one when it is locked; FUSE never does."""
    old, new = compute(Mean(scan)).path, compute(Mean(scan), override=True).path
    calls = []

    def replaced(fd, path):
        calls.append(fd)
        new.replace(old)
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(disk, "refresh", replaced)
    there = new.stat().st_ino
    run = RunFile(old)
    with run.opened() as (fd, _):
        assert os.fstat(fd).st_ino == there
    assert len(calls) == 1
