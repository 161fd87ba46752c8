"""Runs in the background: their state, their events, cancelling."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from engine_processes import FailsAt, Logged, noted
from helpers import data_of, until

import resumable as rs
from resumable.session.events import (
    BatchDone,
    Counts,
    Finished,
    PositionFailed,
    Started,
)

pytestmark = pytest.mark.timeout(60, method="signal")
ENGINES = pytest.mark.parametrize("engine", ["serial", "local", "auto"])


@pytest.fixture
def process(scan, tmp_path):
    """Return a Process of 60 positions of 10 ms."""
    return Logged(scan, log=str(tmp_path / "log"), delay_s=0.01)


class Held(Logged):
    """Computes ten positions, and more when the file ``<log>.go`` exists."""

    def unit_computation(self, spectrum):
        mean = super().unit_computation(spectrum)
        until(lambda: len(noted(self.log)) <= 10 or Path(self.log + ".go").exists())
        return mean


@pytest.fixture
def held(scan, tmp_path):
    """Return a Process that no run finishes before the test calls let_go."""
    return Held(scan, log=str(tmp_path / "log"), delay_s=0.01)


def let_go(held):
    Path(held.log + ".go").touch()


@ENGINES
def test_start_returns_at_once_and_wait_returns_the_results(held, scan, engine):
    run = held.start(engine=engine, workers=2)
    early = run.status()
    with pytest.raises(TimeoutError, match=r"0\.001 s"):
        run.wait(timeout=0.001)
    let_go(held)
    results = run.wait(timeout=30)

    assert early.state in ("starting", "computing")
    assert run.status().state == "finished"
    assert (run.status().done, run.status().pending) == (60, 0)
    np.testing.assert_array_equal(results["mean"][...], data_of(scan).mean(axis=1))


@ENGINES
def test_iteration_gives_every_batch_with_its_results(process, scan, engine):
    rows = data_of(scan).mean(axis=1)
    found = []
    for batch in process.start(engine=engine, workers=2):
        np.testing.assert_array_equal(batch["mean"], rows[batch.positions])
        found += batch.positions.tolist()

    assert sorted(found) == list(range(60))


def test_a_run_shows_its_state(process):
    with process.start(engine="serial") as run:
        run.wait(30)

    assert repr(run) == "<Run: finished: 60 done, 0 failed, 0 pending>"


def test_iterating_over_a_cancelled_run_raises_nothing(held):
    run = held.start(engine="local", workers=2)
    for _ in run:
        run.cancel()
        let_go(held)

    with pytest.raises(rs.NotFinished):
        run.wait(30)


class FailsOften(Logged):
    """Fails at two of three positions, at one where the file ``<log>.mended`` is."""

    def unit_computation(self, spectrum):
        mean = super().unit_computation(spectrum)
        if self.position % 3 == 0:
            return mean
        if self.position % 3 == 1 and Path(self.log + ".mended").exists():
            return mean
        raise ValueError(f"no mean at {self.position}")


@ENGINES
@pytest.mark.filterwarnings("ignore:.*positions failed:resumable.ResumableWarning")
def test_a_retry_tries_every_failed_position_once(scan, tmp_path, engine):
    log = tmp_path / "log"
    process = FailsOften(scan, log=str(log), delay_s=0.01)
    process.compute(engine="serial")
    log.unlink()
    (tmp_path / "log.mended").touch()
    counted = []

    def listen(event):
        if isinstance(event, BatchDone):
            counted.append(event.counts)

    options = {"engine": engine, "workers": 2, "retry_failed": True, "checkpoint": 100}
    results = process.start(listener=listen, **options).wait(30)

    assert sorted(map(int, noted(log))) == [p for p in range(60) if p % 3]
    assert counted[-1] == Counts(done=40, failed=20, pending=0)
    assert min(counts.pending for counts in counted) == 0
    assert (results.sessions[-1].computed, results.sessions[-1].failed) == (20, 20)
    assert (results.status.done, results.status.failed) == (40, 20)


@ENGINES
def test_a_cancelled_run_keeps_what_is_computed(held, engine):
    log = held.log
    run = held.start(engine=engine, workers=2)
    until(lambda: len(noted(log)) >= 10)
    run.cancel()
    let_go(held)
    with pytest.raises(rs.NotFinished, match="cancelled") as caught:
        run.wait(30)
    status = held.results.status
    held.compute()

    assert run.status().state == "stopped"
    assert caught.value.code == 75
    assert 10 <= status.done == run.status().done < 60
    assert sorted(map(int, noted(log))) == list(range(60))


def test_leaving_the_block_cancels(scan, tmp_path):
    process = Logged(scan, log=str(tmp_path / "log"), delay_s=0.1)
    with process.start(engine="serial") as run:
        until(lambda: len(noted(process.log)) >= 2)
    count = len(noted(tmp_path / "log"))
    time.sleep(0.1)

    assert run.status().state == "stopped"
    assert count == len(noted(process.log)) < 60


@ENGINES
def test_events_tell_what_happens(scan, tmp_path, engine):
    process = FailsAt(scan, log=str(tmp_path / "log"))
    heard = []
    with pytest.warns(rs.ResumableWarning, match="3 of 60"):
        process.compute(engine=engine, workers=2, listener=heard.append)
    batches = [event for event in heard if isinstance(event, BatchDone)]
    failed = [event for event in heard if isinstance(event, PositionFailed)]
    again = []
    with pytest.warns(rs.ResumableWarning):
        process.compute(listener=again.append)

    assert isinstance(heard[0], Started)
    assert heard[0].counts.pending == 60
    assert isinstance(heard[-1], Finished)
    assert sum(batch.done for batch in batches) == 57
    assert sorted(event.failure.position for event in failed) == [3, 30, 59]
    assert batches[-1].counts.pending == 0
    assert [type(event) for event in again] == [Finished]


def test_what_a_listener_raises_stops_the_run_and_loses_nothing(process):
    def object_to(event):
        if isinstance(event, BatchDone) and event.counts.done >= 10:
            raise ZeroDivisionError("enough")

    with pytest.raises(ZeroDivisionError, match="enough"):
        process.compute(engine="local", workers=2, listener=object_to)
    done = process.results.status.done

    assert 10 <= done < 60


def test_errors_come_out_of_wait_and_of_the_iteration(scan, tmp_path):
    process = FailsAt(scan, log=str(tmp_path / "log"), bad=list(range(60)))
    run = process.start(engine="serial")
    with pytest.raises(rs.UnitFailed):
        list(run)
    with pytest.raises(rs.UnitFailed):
        run.wait()
    with pytest.raises(rs.PlanError, match="nonsense"):
        process.start(nonsense=1)

    assert run.status().state == "failed"


def test_an_engine_of_all_ranks_is_refused(process):
    with pytest.raises(rs.PlanError, match=r"call compute\(\) on all of them"):
        process.start(engine="mpi")

    assert process.results is None


STARTS = 'from processes import Mean\nmean = Mean("scan.h5::/data")\n'


@pytest.mark.parametrize(
    "layout", [{}, {"maxshape": (None, 32)}], ids=["fixed", "growable"]
)
@pytest.mark.parametrize("before", ["", "mean.compute(positions=slice(9))\n"])
def test_a_script_that_does_not_wait_still_finishes(
    make_file, tmp_path, script, layout, before
):
    """At its end the interpreter waits for the thread of the run."""
    make_file(data={"data": np.ones((60, 32)), **layout})
    done = script(STARTS + before + 'mean.start(engine="serial")\n')
    done.wait(30)
    (run,) = [p for p in tmp_path.glob("*.h5") if p.name != "scan.h5"]

    assert done.returncode == 0
    assert rs.open(run).status.finished
    assert threading.active_count() < 10


def test_a_run_that_fails_after_the_end_of_the_script_says_so(scan, script):
    done = script(
        f"{STARTS}"
        "import threading\n"
        "def fail(event):\n"
        "    threading.main_thread().join()\n"
        "    raise RuntimeError('no room')\n"
        "mean.start(listener=fail, engine='serial')\n"
    )
    _, errors = done.communicate(timeout=30)

    assert "the run in the background has failed" in errors
    assert "RuntimeError: no room" in errors


def test_a_run_file_that_is_removed_while_it_is_computed_is_told(held):
    run = held.start(engine="serial")
    until(lambda: len(noted(held.log)) >= 10)
    with pytest.raises(rs.RunBusy, match=r"which is this one, .* or cancel\(\) what"):
        held.compute(engine="serial")
    next(Path(held.log).parent.glob("scan-*.h5")).unlink()
    let_go(held)

    with pytest.raises(rs.RunFileError, match="was removed or renamed since it was op"):
        run.wait(timeout=30)
