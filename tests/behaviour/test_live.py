"""Sources that are followed while real programs of every kind write them."""

import signal
import time
from types import SimpleNamespace
from typing import ClassVar

import h5py
import numpy as np
import pytest
from helpers import data_of, until
from live_sources import done_in, run_files, serial
from processes import MEAN, Mean

import resumable as rs
from resumable.results.pack import unpack_locked
from resumable.runfile.file import RunFile
from resumable.runfile.folder import RunLock, run_folder_of
from resumable.runfile.ragged import ragged_files_of
from resumable.session import follow as following
from resumable.source import live

pytestmark = pytest.mark.timeout(100, method="signal")


class Above(Mean):
    """The mean, and what is above it: any number of values."""

    version = 1
    outputs: ClassVar = {**MEAN, "above": rs.Output(ragged=True)}

    def unit_computation(self, spectrum):
        mean = super().unit_computation(spectrum)
        return {"mean": mean, "above": spectrum[spectrum > mean]}


def values_above(rows):
    """Return what is above the mean of every row, as a plain loop gives it."""
    return [row[row > row.mean()].tolist() for row in rows]


def lists(parts):
    return [part.tolist() for part in parts]


@pytest.mark.parametrize(
    ("kind", "most", "options"),
    [
        ("swmr", 0, {"engine": "serial"}),
        ("swmr", 20, {"workers": 2, "engine": "local"}),
        ("reopen", 20, {"engine": "serial"}),
        ("keep", 0, {}),
    ],
)
def test_a_measurement_is_followed_to_its_end(
    writer, tmp_path, monkeypatch, kind, most, options
):
    # A writer that keeps the file open is recognised after 0.3 s instead of 2 s.
    monkeypatch.setattr(live, "_KEPT_OPEN_S", 0.3)
    pause = {"swmr": 0.01, "reopen": 0.06, "keep": 0.05}[kind]
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
    if options.get("engine") == "serial":
        assert sorted(process.calls) == list(range(20))
    # Ragged rows are in it, too: no file of ragged rows is left.
    assert run_files(tmp_path) == [results.path.name]
    again = Above(program.source)
    assert again.plan().action == "return"
    assert again.duplicates == [results]
    assert [c.matches for c in again.explain().candidates] == [True]
    # Results of events read the file that has replaced theirs. (Of a dataset that came
    # to its full length the run has another name.)
    done = [e for e in events if hasattr(e, "positions")]
    assert kind == "keep" or len({id(event.results) for event in done}) > 1
    for event in done:
        if event.results.path == results.path:
            assert lists(event["above"]) == [above[p] for p in event.positions]
            assert lists(event.results["above"]) == above
            assert event.results["above"].count.tolist() == list(map(len, above))
            np.testing.assert_array_equal(event.results["mean"], results["mean"])


@pytest.mark.parametrize("kind", ["swmr", "reopen"])
def test_the_end_is_seen_at_once_where_it_is_known(writer, monkeypatch, kind):
    """When the last requested row has come, without waiting for the next look."""
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
def test_an_older_ragged_run_is_left_as_it_was(tmp_path, script, there):
    """Its rows are copied into the run of the longer source, packed or not."""
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
    ragged = {name for name in run_files(tmp_path) if name.endswith(".heap")}
    assert set(run_files(tmp_path)) - ragged == kept
    assert all(name.startswith(f"{first.path.stem}.") for name in ragged)
    assert bool(ragged) is bool(part)


def test_a_run_that_was_killed_before_it_was_packed_is_packed(scan):
    results = Above(scan).compute(follow=60)
    with RunLock(run_folder_of(RunFile(results.path))).held():
        unpack_locked(RunFile(results.path))
    ragged = ragged_files_of(results.path)
    again = Above(scan).compute(follow=60)

    assert len(ragged) == 1
    assert ragged_files_of(again.path) == []
    assert lists(again["above"]) == values_above(data_of(scan))


def test_rows_are_computed_while_it_is_written(writer):
    """Every row is computed before the writer is told to write the next one."""
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

    assert followed.status.positions == followed.status.done == 10
    assert followed.status.finished
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


@pytest.mark.parametrize("chunks", [(1, 8), (16, 8)], ids=str)
def test_a_compressed_dataset_of_full_length_is_the_same_run_followed_or_not(
    make_file, chunks
):
    made = {"data": np.ones((40, 8)), "maxshape": (40, 8), "chunks": chunks}
    path = make_file(data={**made, "compression": "gzip"})
    followed = Mean(f"{path}::/data").compute(follow=3600)

    assert Mean(f"{path}::/data").compute() == followed


def test_waiting_costs_next_to_nothing(writer, script):
    program = writer("swmr", count=5, pause=0)
    program.tell()
    follower = script(
        """
        import sys, time
        import psutil
        from processes import Mean

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
    """Computed rows are kept, the code is 75, and the same call goes on."""
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


def test_a_signal_stops_a_waiting_run(writer, script):
    program = writer("swmr", count=3, pause=0)
    program.tell()
    follower = follow(script, program.source)
    until(lambda: done_in(program.path.parent) == 3)
    follower.send_signal(signal.SIGTERM)

    assert follower.wait(20) == 75
    assert "stopped by SIGTERM" in follower.stderr.read()


def follow(script, source):
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


@pytest.mark.filterwarnings("ignore:Above was edited since:resumable.ResumableWarning")
@pytest.mark.parametrize("kind", ["swmr", "reopen"])
def test_kills_of_the_follower_lose_nothing(writer, script, tmp_path, kind):
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
