"""Sources that are written while they are computed, by real programs of every kind."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import h5py
import numpy as np
import pytest
from helpers import data_of, until
from nursery import Nursery

import resumable as rs
from resumable.errors import PlanError, SourceError
from resumable.model.positions import PositionSet
from resumable.results.pack import unpack_locked
from resumable.runfile.file import RunFile
from resumable.runfile.lock import RunLock, run_folder_of
from resumable.runfile.ragged import ragged_files_of
from resumable.session import following
from resumable.session.wanted import RequestedPositions
from resumable.source import live
from resumable.source.live import file_state
from resumable.source.reader import Reader
from resumable.source.reference import SourceRef

pytestmark = pytest.mark.timeout(100, method="signal")
MEAN = {"mean": rs.Output()}
NUMBER = {"number": rs.Output(dtype="i8")}

# Appends rows, one every `pause` seconds. `kind`: "swmr"; "reopen", which opens the
# file for every row; "keep", which keeps it open and flushes. It says when the file is
# there; begins, goes on after `rest` rows and closes when it is told so; and says that.
WRITER = """
import sys, time
import h5py
import numpy as np

kind, path, count, pause, most, rest, version = sys.argv[1:]
count, pause, most = int(count), float(pause), int(most) or None
options = {"libver": version} if version else {}
rows = np.random.default_rng(5).normal(size=(count, 8))
file = h5py.File(path, "w", **options)
file.create_dataset("data", (0, 8), "f8", maxshape=(most, 8), chunks=(16, 8))
file.flush()
if kind == "swmr":
    file.swmr_mode = True
if kind == "reopen":
    file.close()
print("there", flush=True)
sys.stdin.readline()
for number, row in enumerate(rows):
    time.sleep(pause)
    if number == int(rest):
        sys.stdin.readline()
    if kind == "reopen":
        file = h5py.File(path, "a", **options)
    data = file["data"]
    data.resize(number + 1, axis=0)
    data[number] = row
    if kind == "reopen":
        file.close()
    else:
        data.flush() if kind == "swmr" else file.flush()
if sys.stdin.readline() != "stay open\\n":
    file.close()
print("closed", flush=True)
sys.stdin.readline()
"""


class Mean(rs.Process):
    """The mean of every spectrum; ``calls`` collects the positions computed here."""

    version = 1
    outputs = MEAN
    calls = None

    def unit_computation(self, spectrum):
        if self.calls is not None:
            self.calls.append(self.position)
        return spectrum.mean()


class Above(Mean):
    """The mean, and what is above it: any number of values."""

    version = 1
    outputs: ClassVar = {**MEAN, "above": rs.Output(ragged=True)}

    def unit_computation(self, spectrum):
        mean = super().unit_computation(spectrum)
        return {"mean": mean, "above": spectrum[spectrum > mean]}


class Awaited(Mean):
    """The mean of rows that are not NaN yet."""

    version = 1

    def ready(self, positions):
        with h5py.File(self._source.path, "r", locking=False) as file:
            return ~np.isnan(file["data"][:, 0][positions])


class Writer:
    """A program that writes, started and not yet writing."""

    def __init__(
        self, start, path, kind, *, count=40, pause=0.02, most=0, rest=-1, version=""
    ):
        version = version or ("latest" if kind == "swmr" else "")
        self.path = path
        self.source = f"{path}::/data"
        arguments = map(str, (kind, path, count, pause, most, rest, version))
        self.program = start(WRITER, *arguments, name="writer.py")
        assert self.program.stdout.readline() == "there\n"

    def tell(self, text="go on"):
        self.program.stdin.write(f"{text}\n")
        self.program.stdin.flush()

    def kill(self):
        self.program.kill()
        self.program.wait()

    def ended_well(self):
        """Nobody stood in its way."""
        self.tell()
        return self.program.wait(20) == 0


@pytest.fixture(scope="module")
def nursery():
    """Have programs start at once."""
    with Nursery(
        "h5py", "resumable.session.following", "resumable.session.background"
    ) as made:
        yield made


@pytest.fixture
def script(nursery, tmp_path, monkeypatch):
    """Return a function that starts a script in its folder."""
    monkeypatch.chdir(tmp_path)
    started = []

    def start(text, *arguments, name="script.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        started.append(nursery.start(path, *arguments))
        return started[-1]

    yield start
    for program in started:
        program.close()


@pytest.fixture
def writer(script, tmp_path):
    """Return a function that starts a writer of some kind."""
    return functools.partial(Writer, script, tmp_path / "live.h5")


def run_files(folder):
    """Return the names of what lies beside the source."""
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("live-"))


def serial(source):
    """Return what a plain loop gives."""
    return data_of(source).mean(axis=1)


def values_above(rows):
    """Return what is above the mean of every row, as a plain loop gives it."""
    return [row[row > row.mean()].tolist() for row in rows]


def lists(parts):
    """Return lists of the values of arrays."""
    return [part.tolist() for part in parts]


# Following, to the end.


@pytest.mark.parametrize(
    ("kind", "most", "options"),
    [
        ("swmr", 0, {}),
        ("swmr", 20, {"workers": 2, "engine": "local"}),
        ("reopen", 20, {}),
        ("keep", 0, {}),
    ],
)
def test_a_measurement_is_followed_to_its_end(
    writer, tmp_path, monkeypatch, kind, most, options
):
    """All rows, one file, one session; and the program that writes is not hurt."""
    # Who opens it must leave it at rest, who keeps it open be seen to do so.
    monkeypatch.setattr(live, "_KEPT_OPEN_S", 0.3)
    pause = {"swmr": 0.01, "reopen": 0.06, "keep": 0.1}[kind]
    rest = -1 if kind == "keep" else 1
    program = writer(kind, count=20, most=most, pause=pause, rest=rest)
    process = Above(program.source)
    process.calls, events = [], []
    program.tell()
    began = time.monotonic()
    run = process.start(follow=60, listener=events.append, **options)
    if kind != "keep":
        until(lambda: run.status().done == 1)
        program.tell()
    program.tell()
    results = run.wait()
    took = time.monotonic() - began
    rows = data_of(program.source)
    above = values_above(rows)

    assert program.program.stdout.readline() == "closed\n"
    assert program.ended_well()
    assert lists(results["above"]) == above
    np.testing.assert_array_equal(results["mean"], rows.mean(axis=1))
    assert len(results["mean"]) == 20
    assert results.status.finished
    assert took < 30  # far from the 60 s that it would wait for more
    assert [s.computed for s in results.sessions] == [20]
    if "engine" not in options:
        assert sorted(process.calls) == list(range(20))
    # Ragged rows are in it, too: of the heaps nothing is left.
    assert run_files(tmp_path) == [results.path.name]
    again = Above(program.source)
    assert again.plan().action == "return"
    assert again.duplicates == [results]
    assert [c.matches for c in again.explain().candidates] == [True]
    # Who listens reads on in a file that another one has taken the place of. (Of a
    # dataset that came to its full length the run has another name.)
    told = [e for e in events if hasattr(e, "positions")]
    assert kind == "keep" or len({id(event.results) for event in told}) > 1
    for event in told:
        if event.results.path == results.path:
            assert lists(event["above"]) == [above[p] for p in event.positions]
            assert lists(event.results["above"]) == above
            assert event.results["above"].count.tolist() == list(map(len, above))
            np.testing.assert_array_equal(event.results["mean"], results["mean"])


@pytest.mark.parametrize("kind", ["swmr", "reopen"])
def test_the_end_is_seen_at_once_where_it_is_known(writer, monkeypatch, kind):
    """When the last requested row is there all is computed, whenever a look is due."""
    monkeypatch.setattr(following, "_SPACING", 1e6)
    program = writer(kind, count=10, pause=0.05)
    program.tell()
    began = time.monotonic()
    process = Mean(program.source)
    results = process.compute(follow=60, positions=slice(0, 10), engine="serial")
    took = time.monotonic() - began
    program.tell()

    assert program.ended_well()
    assert results.status.finished
    np.testing.assert_array_equal(results["mean"], serial(program.source))
    assert took < 30


@pytest.mark.parametrize("there", ["in parts", "whole"])
def test_a_ragged_run_that_was_there_stays_while_it_is_followed(
    tmp_path, script, there
):
    """Its rows are copied, packed or not, and it is left as it was."""
    path = tmp_path / "live.h5"
    rows = np.random.default_rng(5).normal(size=(20, 8))
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=rows[:10], maxshape=(None, 8))
        file["all"] = rows
    part = slice(0, 5) if there == "in parts" else None
    first = Above(f"{path}::/data").compute(positions=part, engine="serial")
    before = lists(first["above"])
    process = Above(f"{path}::/data")
    process.calls = []
    run = process.start(follow=60, positions=slice(0, 20), engine="serial")
    grown = script(
        """
        import sys, time, h5py
        for length in (15, 20):
            with h5py.File(sys.argv[1], "a") as file:
                file["data"].resize(length, axis=0)
                file["data"][length - 5 :] = file["all"][length - 5 : length]
            time.sleep(0.3)
        """,
        str(path),
    )
    results = run.wait(30)

    assert grown.wait(20) == 0
    # What was pending in it can have been computed before there was more.
    assert lists(first["above"])[:5] == before[:5]
    assert lists(results["above"]) == values_above(rows)
    assert process.calls == list(range(5 if part else 10, 20))
    kept = {first.path.name, results.path.name}
    heaps = {name for name in run_files(tmp_path) if name.endswith(".heap")}
    assert set(run_files(tmp_path)) - heaps == kept
    assert all(name.startswith(f"{first.path.stem}.") for name in heaps)
    assert bool(heaps) is bool(part)


def test_a_run_that_was_killed_before_it_was_packed_is_packed(scan):
    """By one that follows, and finds nothing to compute."""
    results = Above(scan).compute(follow=60)
    with RunLock(run_folder_of(results._run)).held():
        unpack_locked(RunFile(results.path))
    heaps = ragged_files_of(results.path)
    again = Above(scan).compute(follow=60)

    assert len(heaps) == 1
    assert ragged_files_of(again.path) == []
    assert lists(again["above"]) == values_above(data_of(scan))


def test_rows_are_computed_while_it_is_written(writer):
    """Not only at the end: every row is there before the next one is asked for."""
    program = writer("swmr", count=4, pause=0)
    run = Mean(program.source).start(follow=60)
    program.tell()
    until(lambda: run.status().done == 4)
    state = run.status().state
    program.tell()
    results = run.wait(30)

    assert state == "computing"
    assert results.status.finished


def test_a_plain_compute_later_does_only_what_is_new(writer):
    """What was followed is a run like any other, and so is what comes after it."""
    program = writer("reopen", count=10, pause=0)
    program.tell()
    program.tell()
    assert program.program.stdout.readline() == "closed\n"
    followed = Mean(program.source).compute(follow=0.1)
    with h5py.File(program.path, "a") as file:
        file["data"].resize(15, axis=0)
        file["data"][10:] = 3.0
    process = Mean(program.source)
    process.calls = []
    results = process.compute(engine="serial")

    assert followed.status.positions == 10
    assert process.calls == list(range(10, 15))
    np.testing.assert_array_equal(results["mean"], serial(program.source))


def test_a_dataset_that_came_to_its_full_length_keeps_its_rows(make_file):
    """It cannot grow any more, so it has another identity; its rows are copied."""
    made = {"data": np.ones((30, 8)), "maxshape": (40, 8), "chunks": (16, 8)}
    path = make_file(data=made)
    first = Mean(f"{path}::/data").compute()
    with h5py.File(path, "a") as file:
        file["data"].resize(40, axis=0)
    process = Mean(f"{path}::/data")
    process.calls = []
    planned = process.plan().action
    results = process.compute(engine="serial")

    assert planned == "copy and continue"
    assert process.calls == list(range(30, 40))
    assert results.identity != first.identity
    assert process.plan().action == "return"
    assert process.duplicates == [results]


def test_what_is_at_rest_is_computed_without_waiting(scan):
    """All positions of a dataset of fixed size exist: there is nothing to wait for."""
    results = Mean(scan).compute(follow=3600)

    assert results.status.finished
    assert results == Mean(scan).compute()
    assert results == Mean(scan).compute(follow=3600)


# Waiting.


def test_waiting_costs_next_to_nothing(writer, script):
    """Processor time of the one who waits, and of all its children."""
    program = writer("swmr", count=5, pause=0)
    program.tell()
    follower = script(
        """
        import sys, time
        import psutil
        from resumable import Process, Output

        class Mean(Process):
            version = 1
            outputs = {"mean": Output()}
            def unit_computation(self, spectrum):
                return spectrum.mean()

        def used():
            me = psutil.Process()
            times = [p.cpu_times() for p in [me, *me.children(recursive=True)]]
            return sum(t.user + t.system for t in times)

        with Mean(sys.argv[1]).start(follow=60, engine="local", workers=2) as run:
            while run.status().done < 5:
                time.sleep(0.01)
            time.sleep(0.5)
            before = used()
            time.sleep(2)
            print(used() - before, len(psutil.Process().children()), flush=True)
            run.cancel()
        """,
        program.source,
    )

    seconds, children = follower.stdout.readline().split()
    assert float(seconds) < 0.3
    assert int(children) > 0


@pytest.mark.parametrize("how", ["time_limit", "cancel"])
def test_a_stop_comes_through_while_it_waits(writer, monkeypatch, how):
    """With what is there, and code 75; then the same call goes on."""
    passed_s = [0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s[-1])
    monkeypatch.setattr("resumable.system.stop.time", clock)
    program = writer("swmr", count=5, pause=0)
    program.tell()
    run = Mean(program.source).start(follow=60, time_limit=1000)
    until(lambda: run.status().done == 5)
    run.cancel() if how == "cancel" else passed_s.append(1000)
    with pytest.raises(rs.NotFinished, match="run the same again") as info:
        run.wait(30)
    process = Mean(program.source)
    process.calls = []
    run = process.start(follow=60)
    time.sleep(0.3)
    program.tell()
    results = run.wait(30)

    assert info.value.results.status.done == 5
    assert info.value.results.sessions[0].end > 0
    assert process.calls == []
    assert results.status.finished


def test_a_signal_stops_one_that_waits(writer, script):
    """SIGTERM, as a scheduler sends it."""
    program = writer("swmr", count=3, pause=0)
    program.tell()
    follower = follow(script, program.source)
    until(lambda: done_in(program.path.parent) == 3)
    follower.send_signal(signal.SIGTERM)

    assert follower.wait(20) == 75
    assert "stopped by SIGTERM" in follower.stderr.read()


def follow(script, source):
    """Start a program that follows a source."""
    return script(
        """
        import sys
        from resumable import Process, Output

        class Above(Process):
            version = 1
            outputs = {"mean": Output(), "above": Output(ragged=True)}
            def unit_computation(self, spectrum):
                mean = spectrum.mean()
                return {"mean": mean, "above": spectrum[spectrum > mean]}

        Above(sys.argv[1]).compute(follow=60)
        """,
        source,
    )


def done_in(folder):
    """Return how many positions are done in the furthest run file of a folder."""
    done = [0]
    for name in run_files(folder):
        if name.endswith(".h5"):
            with contextlib.suppress(rs.RunFileError):
                done.append(rs.open(folder / name).status.done)
    return max(done)


@pytest.mark.filterwarnings("ignore:Above was edited since:resumable.ResumableWarning")
@pytest.mark.parametrize("kind", ["swmr", "reopen"])
def test_kills_of_the_follower_lose_nothing(writer, script, tmp_path, kind):
    """At any moment, a replacement of the file too: one file, and the rest follows."""
    program = writer(kind, count=30, most=30, pause=0.06)
    program.tell()
    program.tell()
    pauses = np.random.default_rng(3).uniform(0.05, 0.3, 4)
    for pause in pauses:
        before = done_in(tmp_path)
        follower = follow(script, program.source)
        until(lambda: done_in(tmp_path) > min(before, 29))  # noqa: B023
        time.sleep(pause)
        follower.kill()
        follower.wait()
    reached = done_in(tmp_path)
    process = Above(program.source)
    process.calls = []
    results = process.compute(follow=60, engine="serial")

    assert program.program.stdout.readline() == "closed\n"
    rows = data_of(program.source)
    assert lists(results["above"]) == values_above(rows)
    np.testing.assert_array_equal(results["mean"], rows.mean(axis=1))
    assert results.status.finished
    assert reached > 0
    assert set(process.calls) <= set(range(30))
    assert len(process.calls) <= 30 - reached


# The end, and no end.


def digest(path):
    """Tell whether the bytes of a file have changed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("kind", "version"), [("swmr", ""), ("keep", "latest"), ("keep", "")]
)
def test_a_writer_that_was_killed_is_an_error(writer, kind, version):
    """Its mark is left in the file: it is named, with what to do, and not touched."""
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


def test_nothing_new_for_the_time_of_follow_is_the_end(writer):
    """Of a dataset that grows; what is there is returned."""
    program = writer("reopen", count=3, pause=0)
    program.tell()
    program.tell()
    assert program.program.stdout.readline() == "closed\n"
    results = Mean(program.source).compute(follow=0.2)

    assert results.status.finished
    assert results.status.done == 3


def test_a_file_without_a_row_is_waited_for(writer):
    """It can be named, and is an error when nothing comes."""
    program = writer("swmr", count=3)
    process = Mean(program.source)

    with pytest.raises(SourceError, match="no positions yet; waited 200 ms"):
        process.compute(follow=0.2)
    with pytest.raises(SourceError, match="nothing to compute"):
        process.compute()


@pytest.mark.parametrize("kind", ["reopen", "swmr"])
def test_requested_positions_that_do_not_come_are_named(writer, kind):
    """After the time of `follow`, or when the program that writes has gone."""
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
    """Somebody writes another content into the same rows: a new run begins."""
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


# Reading beside a writer.

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
    """A program writes another number into all rows again and again."""
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


def test_what_is_always_being_written_is_given_up(tmp_path, script, monkeypatch):
    """A worker does not wait for ever; the driver does, and can be stopped."""
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
    """Open, closed, and open for others to read, behind a user block too."""
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
    """They are errors where they are opened."""
    path = tmp_path / "live.h5"
    assert file_state(str(path)) == live.FileState()
    path.write_bytes(b"short")
    assert not file_state(str(path)).open


# Positions that are not ready.


@pytest.fixture
def filled_in(tmp_path):
    """Return the path of a dataset of fixed size, 20 rows, of which none is there."""
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.full((20, 8), np.nan)
    return path


def fill(path, rows, value=None):
    """Measure some rows; HDF5 refuses while this process reads the file."""

    def filled():
        try:
            with h5py.File(path, "a") as file:
                for row in rows:
                    file["data"][row] = row if value is None else value
        except OSError:
            return False
        return True

    until(filled)


def test_a_dataset_that_is_filled_in_is_followed(filled_in, script, tmp_path):
    """In any order; it is the same run afterwards, also without waiting."""
    process = Awaited(f"{filled_in}::/data")
    process.calls = []
    program = script(
        """
        import sys, time
        import h5py
        for row in [3, 2, 19, *range(4, 19), 0, 1]:
            with h5py.File(sys.argv[1], "a") as file:
                file["data"][row] = row
            time.sleep(0.03)
        """,
        str(filled_in),
        name="filler.py",
    )
    results = process.compute(follow=60, engine="serial")

    assert program.wait(20) == 0
    np.testing.assert_array_equal(results["mean"], np.arange(20.0))
    assert sorted(process.calls) == list(range(20))
    assert run_files(tmp_path) == [results.path.name]
    again = Awaited(f"{filled_in}::/data")
    assert again.duplicates == [results]
    assert [c.matches for c in again.explain().candidates] == [True]
    assert again.compute() == results
    assert rs.verify(results.path, Awaited).passed


def test_what_is_not_ready_in_time_is_not_finished(filled_in):
    """The position and the seconds are named; what is ready is done, and kept."""
    fill(filled_in, [0, 1, 5])
    process = Awaited(f"{filled_in}::/data")
    with pytest.raises(rs.NotFinished, match=r"position 2 .* after 200 ms") as info:
        process.compute(follow=0.2)
    with pytest.raises(rs.NotFinished, match="position 2 is not ready"):
        process.compute()
    wanted = process.compute(positions=[0, 1, 5])

    assert info.value.code == 75
    assert info.value.results.status.done == 3
    assert wanted.path == info.value.results.path
    fill(filled_in, range(2, 20))
    process.calls = []
    results = process.compute(engine="serial")
    assert results.status.finished
    assert sorted(process.calls) == sorted({*range(20)} - {0, 1, 5})


def test_rows_that_changed_after_they_were_ready_are_computed_again(filled_in):
    """What was computed counts while the source holds it."""
    fill(filled_in, [0, 1, 2])
    with pytest.raises(rs.NotFinished):
        Awaited(f"{filled_in}::/data").compute(follow=0.1)
    with h5py.File(filled_in, "a") as file:
        file["data"][1] = 77.0
        file["data"][3:] = 1.0
    results = Awaited(f"{filled_in}::/data").compute()

    np.testing.assert_array_equal(results["mean"], serial(f"{filled_in}::/data"))


def test_rows_that_were_ready_later_count_while_they_are_as_they_were(filled_in):
    """Whatever was computed, after a stop too, is covered by a digest."""
    source = f"{filled_in}::/data"
    fill(filled_in, [0])
    run = Awaited(source).start(follow=60)
    until(lambda: run.status().done == 1)
    fill(filled_in, [1, 2])
    until(lambda: run.status().done == 3)
    run.cancel()
    with pytest.raises(rs.NotFinished):
        run.wait(30)
    fill(filled_in, [2], 77.0)
    fill(filled_in, range(3, 20))
    results = Awaited(source).compute()

    np.testing.assert_array_equal(results["mean"], serial(source))


def test_only_the_driver_asks(filled_in, tmp_path):
    """Workers compute what they are given."""
    fill(filled_in, range(20))
    log = tmp_path / "asked"

    class Asked(rs.Process):
        version = 1
        outputs = NUMBER

        def ready(self, positions):
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            return True

        def unit_computation(self, spectrum):
            return os.getpid()

    results = Asked(f"{filled_in}::/data").compute(engine="local", workers=2)

    assert set(log.read_text().split()) == {str(os.getpid())}
    assert os.getpid() not in results["number"][...]


def test_positions_without_data_can_be_waited_for(tmp_path):
    """A file that appears for each of them, for example."""

    class OfFiles(rs.Process):
        version = 1
        outputs = NUMBER

        def ready(self, positions):
            return np.array([(tmp_path / f"{n}.raw").exists() for n in positions])

        def unit_computation(self, index):
            return len((tmp_path / f"{index}.raw").read_bytes())

    (tmp_path / "0.raw").write_bytes(b"xx")
    run = OfFiles(3, tmp_path).start(follow=60)
    until(lambda: run.status().done == 1)
    for number in (2, 1):
        (tmp_path / "part").write_bytes(b"x" * number)
        (tmp_path / "part").rename(tmp_path / f"{number}.raw")
    results = run.wait(30)

    assert results["number"][...].tolist() == [2, 1, 2]
    assert results.status.finished
    assert OfFiles(3, tmp_path).compute() == results


@pytest.mark.parametrize("answer", [1, np.ones(3, bool), np.ones(20), None])
def test_another_answer_than_a_bool_is_refused(filled_in, answer):
    """One for all, or one for each."""
    process = type(
        "Wrong", (Mean,), {"ready": lambda self, positions: answer, "version": 1}
    )(f"{filled_in}::/data")

    with pytest.raises(rs.DeclarationError, match="ready must return a bool, or one"):
        process.compute()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_failed_positions_are_tried_again_once(filled_in, compression):
    """Not for as long as there are any; a packed run is unpacked for it."""

    class Fails(Awaited):
        version = 1
        outputs: ClassVar = {"mean": rs.Output(compression=compression)}

        def unit_computation(self, spectrum):
            self.calls.append(self.position)
            if self.position == 3:
                raise ValueError("3")
            return spectrum.mean()

    fill(filled_in, range(20))
    process = Fails(f"{filled_in}::/data")
    process.calls = []
    with pytest.warns(rs.ResumableWarning, match="1 of 20 positions failed"):
        process.compute(engine="serial")
    process.calls.clear()
    with pytest.warns(rs.ResumableWarning, match="1 of 20 positions failed"):
        results = process.compute(engine="serial", retry_failed=True)

    assert process.calls == [3]
    assert (RunFile(results.path).header.packed is not None) is bool(compression)


def test_threads_of_an_executor_follow(writer):
    """An engine is an engine."""
    program = writer("swmr", count=20, most=20)
    program.tell()
    with ThreadPoolExecutor(2) as threads:
        results = Mean(program.source).compute(follow=60, engine=threads)

    program.tell()
    assert program.program.stdout.readline() == "closed\n"
    np.testing.assert_array_equal(results["mean"], serial(program.source))


MAPS = """
import sys, time
import h5py
import numpy as np
path, kind = sys.argv[1:]
rng = np.random.default_rng(7)
file = h5py.File(path, "w", libver="latest")
for name, rest in (("data", (3, 8)), ("gain", (3, 2))):
    file.create_dataset(name, (1, *rest), maxshape=(None, *rest), chunks=(1, *rest))
    file[name][0] = rng.normal(size=rest)
if kind == "swmr":
    file.swmr_mode = True
else:
    file.close()
print("there", flush=True)
for number in range(1, 15):
    time.sleep(0.03)
    if kind != "swmr":
        file = h5py.File(path, "a", libver="latest")
    for name in ("gain", "data"):
        file[name].resize(number + 1, axis=0)
        file[name][number] = rng.normal(size=file[name].shape[1:])
        file[name].flush()
        time.sleep(0.01)
    if kind != "swmr":
        file.close()
file.close()
"""


@pytest.mark.parametrize("kind", ["swmr", "reopen"])
def test_a_map_and_its_input_grow_together(tmp_path, script, kind):
    """One is longer for a moment; positions are those that both have."""

    class Product(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum, gain):
            return spectrum.sum() * gain.sum()

    path = tmp_path / "live.h5"
    program = script(MAPS, str(path), kind, name="maps.py")
    assert program.stdout.readline() == "there\n"
    process = Product(
        f"{path}::/data", inputs={"gain": "::/gain"}, position_axes=(0, 1)
    )
    results = process.compute(follow=60, positions=slice(0, 45))
    with h5py.File(path) as file:
        wanted = file["data"][...].sum(axis=2) * file["gain"][...].sum(axis=2)

    assert program.wait(20) == 0
    assert results["mean"].shape == (15, 3)
    np.testing.assert_allclose(results["mean"], wanted, rtol=1e-6)
    assert process.compute() == results


HOLDER = """
import sys
import h5py
with h5py.File(sys.argv[1], "a", libver="latest"):
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("moment", [1, 2], ids=["first", "longer"])
def test_one_who_opens_it_when_the_run_file_is_made_is_waited_for(
    tmp_path, monkeypatch, moment
):
    """The source was looked at, and cannot be opened for its coordinates then."""
    path = tmp_path / "live.h5"

    def grow(rows):
        with h5py.File(path, "a", libver="latest") as file:
            if "data" not in file:
                file.create_dataset("data", (0, 4), "f4", maxshape=(None, 4))
            file["data"].resize(rows, axis=0)

    made = []

    class Late(following.Assignment):
        def run_file(self, run, *, succeeds=False):
            made.append(self)
            if len(made) != moment:
                longer = super().run_file(run, succeeds=succeeds)
                if len(made) == 1:
                    grow(20)
                return longer
            command = [sys.executable, "-c", HOLDER, str(path)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as holder:
                assert holder.stdout.readline() == "open\n"
                try:
                    return super().run_file(run, succeeds=succeeds)
                finally:
                    holder.communicate("\n")

    grow(10)
    monkeypatch.setattr(following, "Assignment", Late)
    requested = slice(0, 10 * moment)
    results = Mean(f"{path}::/data").compute(follow=60, positions=requested)

    assert len(made) == moment + 1
    assert results.completed_mask[requested].all()
    assert [session.computed for session in results.sessions] == [10 * moment]


def test_a_damaged_row_is_given_up(tmp_path, monkeypatch):
    """One that no digest meets; what can be read is kept."""
    monkeypatch.setattr("resumable.source.fingerprint.DIGEST_BYTES", 64 * 64)
    monkeypatch.setattr("resumable.source.fingerprint.SAMPLED_BYTES", 64 * 64)
    monkeypatch.setattr("resumable.source.reader._PATIENCE_S", 0.2)
    path = tmp_path / "live.h5"
    made = {"maxshape": (None, 8), "chunks": (1, 8), "compression": "gzip"}
    with h5py.File(path, "w") as file:
        rows = np.random.default_rng(1).random((999, 8))
        data = file.create_dataset("data", data=rows, **made)
        place = data.id.get_chunk_info_by_coord((505, 0)).byte_offset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(20))
    process = Mean(f"{path}::/data")

    with pytest.raises(SourceError, match=r"cannot be read .*\)\. \d+ of 999"):
        process.compute(follow=60)


# What is refused.


def test_options_that_make_no_sense_are_refused(scan):
    """With the reason."""
    process = Mean(scan)
    for option in ("rechunk", "retry_failed"):
        with pytest.raises(PlanError, match=f"{option}=True is for what is there"):
            process.compute(follow=1, **{option: True})
    with pytest.raises(PlanError, match="is not a duration"):
        process.compute(follow="soon")


def test_a_dataset_in_several_files_is_not_followed(make_file, tmp_path):
    """Nobody could tell when they are written."""
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
    """Every length would be another computation."""

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


# Requested positions.


@pytest.mark.parametrize(
    ("chosen", "end", "of_6", "of_12"),
    [
        (None, None, None, None),
        (slice(2, 9), 9, [2, 3, 4, 5], [2, 3, 4, 5, 6, 7, 8]),
        (slice(None, None, 5), None, [0, 5], [0, 5, 10]),
        ([1, 8], 9, [1], [1, 8]),
        ((3, 1), 10, [], [9 - 2]),
        (np.array([[False] * 2, [True, False]]), 3, [2], [2]),
    ],
)
def test_positions_that_are_requested_come_by_and_by(chosen, end, of_6, of_12):
    """Flat positions on a map of rows of two, as far as they exist."""
    if chosen == (3, 1) if isinstance(chosen, tuple) else False:
        end, of_6, of_12 = 8, [], [7]
    wanted = RequestedPositions(chosen, (3, 2))

    def among(rows):
        found = wanted.among((rows, 2), growable=True)
        return found and found.members_at(np.arange(len(found)))

    assert wanted.end == end
    assert (among(3) or of_6, among(6)) == (of_6, of_12)


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
    """Of what is requested beyond the six positions that exist."""
    assert RequestedPositions(chosen, (6,)).first_from(6) == first


@pytest.mark.parametrize("chosen", [-1, [2, -3], slice(-5, None), slice(0, -1)])
def test_positions_that_count_from_the_end_are_refused(chosen):
    """The end is not there yet."""
    with pytest.raises(PlanError, match="count from the end"):
        RequestedPositions(chosen, (10,))


def test_a_set_of_positions_as_text_comes_back(tmp_path):
    """And a text that is not one, or is larger than it says, is refused."""
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
    """``--follow`` is the same."""
    program = writer("swmr", count=5)
    program.tell()
    folder = Path(program.path).parent
    (folder / "mean.py").write_text(
        "import resumable as rs\n\n\n"
        "class Mean(rs.Process):\n"
        "    version = 1\n"
        "    outputs = {'mean': rs.Output()}\n\n"
        "    def unit_computation(self, spectrum):\n"
        "        return spectrum.mean()\n"
    )
    command = script(
        "from resumable.cli.commands import main; main()",
        "run",
        "mean.py:Mean",
        program.source,
        "--follow",
        "1m",
    )
    until(lambda: done_in(folder) == 5)
    program.tell()
    out, _ = command.communicate(timeout=60)

    assert command.returncode == 0
    assert "5 of 5 positions done" in out
