"""Positions that end their worker or hang: the run goes on with other workers."""

import collections
import concurrent.futures
import contextlib
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
from deadly import POSITIONS, Deadly, DeadlyBlock, check
from engine_processes import note, noted
from helpers import until

import resumable as rs
from resumable.engines import local
from resumable.model.batch import Batch
from resumable.model.schedule import PROBES
from resumable.worker.job import Loss
from resumable.worker.processes import WorkerProcesses
from resumable.worker.work import Worker

pytestmark = [
    pytest.mark.timeout(60, method="signal"),
    pytest.mark.filterwarnings("ignore:.*positions failed:resumable.ResumableWarning"),
]


@pytest.mark.parametrize("engine", ["local", "auto"])
def test_a_position_that_ends_its_worker_is_found_and_recorded(source, rows, engine):
    bad = {"30": "segfault", "31": "left", "150": "killed"}
    process = Deadly(source, bad=bad)
    process.compute(positions=[0])
    results = process.compute(engine=engine, workers=2, position_timeout=50)
    causes = [failure.exception for failure in results.failures]

    check(results, rows, [30, 31, 150])
    assert causes == ["signal SIGSEGV", "exit code 3", "signal SIGKILL"]
    assert "memory" in results.failures[2].message


def test_positions_that_ended_their_worker_can_be_tried_again(source, rows, tmp_path):
    process = Deadly(source, bad={"7": "segfault"}, mended=str(tmp_path / "mended"))
    process.compute(positions=[0])
    process.compute(engine="local", workers=2)
    again = process.compute(engine="local", workers=2, retry_failed=True)
    check(again, rows, [7])
    (tmp_path / "mended").touch()
    results = process.compute(engine="local", workers=2, retry_failed=True)

    check(results, rows, [])


def test_block_computations_are_halved_until_the_position_is_alone(source, rows):
    process = DeadlyBlock(source, bad={"77": "segfault"})
    process.compute(positions=[0])
    results = process.compute(engine="local", workers=2)

    check(results, rows, [77])


def test_a_run_that_killed_its_driver_continues_in_workers(source, rows, script):
    """With engine="auto" a segmentation fault ends the driver at most once."""
    body = f"""
        from deadly import Deadly
        Deadly({source!r}, bad={{"150": "segfault"}}).compute(workers=1)
    """
    first, second = script(body), None
    first.wait(30)
    second = script(body)
    _, errors = second.communicate(timeout=30)

    assert first.returncode == -signal.SIGSEGV
    assert second.returncode == 0, errors
    check(Deadly(source, bad={"150": "segfault"}).results, rows, [150])


def test_a_computation_that_always_dies_is_told_from_bad_data(source):
    """20 positions spread over the run die alike: an error, nothing recorded."""
    process = Deadly(source, bad=dict.fromkeys(map(str, range(POSITIONS)), "segfault"))
    with pytest.raises(rs.UnitFailed, match=r"first 20 positions.*signal SIGSEGV"):
        process.compute(engine="local", workers=2)
    status = process.results.status

    assert (status.done, status.failed) == (0, 0)


def test_deaths_everywhere_stop_the_run(source):
    """After them nothing more is recorded as failed: the machine is at fault."""
    late = dict.fromkeys(map(str, range(100, POSITIONS)), "left")
    process = Deadly(source, bad=late)
    process.compute(positions=slice(0, 100))
    with pytest.raises(rs.WorkerDied, match=r"last 20 positions.*exit code 3"):
        process.compute(engine="local", workers=2)

    assert process.results.status.failed == 20
    assert process.results.status.done == 100


class Dying:
    """An engine whose workers die all at once, one more than it takes to stop."""

    name = "dying"
    workers = 1
    own_processes = can_replace = True

    def run(self, job, driver, workers):
        errors = []
        for position in range(100, 101 + PROBES):
            alone = Batch(position, position + 1, None, 1, suspect=True)
            try:
                driver.lost(Loss(alone, position, False, "exit code 3", ""))
            except rs.WorkerDied as error:
                errors.append(error)
        raise errors[0]


def test_a_death_beside_the_last_allowed_one_is_not_recorded(source):
    process = Deadly(source)
    process.compute(positions=slice(0, 100))
    with pytest.raises(rs.WorkerDied, match="last 20 positions"):
        process.compute(engine=Dying())

    assert process.results.status.failed == 20
    assert process.results.status.done == 100


class Halfway:
    """An engine whose worker ends in a batch when its first part is committed."""

    name = "halfway"
    workers = 1
    own_processes = can_replace = True

    def __init__(self, tell):
        self.tell = tell

    def run(self, job, driver, workers):
        while batch := driver.schedule.next():
            with contextlib.closing(Worker(job, own_process=False)) as worker:
                if batch.count < 8 or self.tell is None:
                    driver.take(worker.do(batch, lambda: False))
                    continue
                worker.do(batch, lambda: True)
            self.tell, tell = None, self.tell
            tell(driver, batch)


@pytest.mark.parametrize(
    "tell",
    [
        lambda driver, batch: driver.lost(Loss(batch, None, False, "exit code 1", "")),
        lambda driver, batch: driver.return_unfinished(batch),
    ],
    ids=["lost", "given back"],
)
def test_what_a_lost_batch_has_committed_is_counted(source, rows, log, tell):
    """Committed positions are not computed again; failures among them are described."""
    bad = dict.fromkeys(map(str, range(40, POSITIONS, 7)), "fail")
    process = Deadly(source, bad=bad, log=log)
    results = process.compute(engine=Halfway(tell))
    called = collections.Counter(map(int, noted(log)))
    (session,) = results.sessions

    check(results, rows, list(range(40, POSITIONS, 7)))
    assert session.computed == POSITIONS - len(bad)
    assert session.failed == len(bad)
    assert {p for p, times in called.items() if times > 1} <= set(map(int, bad))


class Late(Deadly):
    """Takes longer than its time at one position, once."""

    def unit_computation(self, spectrum):
        late = self.position == 105 and "105" not in noted(self.log)
        note(self.log, self.position)
        # Those after it take long enough to be met at work.
        time.sleep(0.5 if late else 0.02 if self.position > 105 else 0)
        return spectrum.mean()


def test_a_late_position_is_recorded_and_not_the_next_one(
    source, rows, log, monkeypatch
):
    """The late position had ended before its worker was killed."""
    real = WorkerProcesses.kill

    def kill(pool, worker):
        """End a worker as soon as it is at its next position."""
        monkeypatch.undo()
        before = pool.progress_words(worker)
        until(lambda: pool.progress_words(worker) != before)
        real(pool, worker)

    monkeypatch.setattr(WorkerProcesses, "kill", kill)
    process = Late(source, log=log)
    process.compute(positions=slice(0, 100))
    results = process.compute(engine="local", workers=1, position_timeout=0.3)

    assert noted(log).count("105") == 2
    check(results, rows, [])


def test_on_error_raise_names_the_position_and_leaves_it_pending(source):
    process = Deadly(source, bad={"120": "segfault"})
    process.compute(positions=[0])
    with pytest.raises(rs.UnitFailed, match="position 120: signal SIGSEGV") as caught:
        process.compute(engine="local", workers=2, on_error="raise")
    status = process.results.status

    assert caught.value.position == 120
    assert status.failed == 0
    assert status.done > 0
    assert not process.results.completed_mask[120]


def test_killed_workers_are_replaced_and_nothing_is_recorded(source, rows, tmp_path):
    log = tmp_path / "log"
    process = Deadly(source, log=str(log), delay_s=0.01)
    killed_pids = []

    def kill_workers():
        import psutil

        for count in (30, 80, 130):
            while len(noted(log)) < count:
                time.sleep(0.005)
            for child in psutil.Process().children(recursive=True):
                if child.ppid() != os.getpid() and not killed_pids.count(child.pid):
                    killed_pids.append(child.pid)
                    child.kill()
                    break

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        done = threads.submit(kill_workers)
        results = process.compute(engine="local", workers=2, checkpoint=0.05)
        done.result()

    assert len(killed_pids) == 3
    check(results, rows, [])
    assert len(results.sessions) == 1


@pytest.mark.parametrize("engine", ["local", "auto"])
def test_a_hanging_position_is_given_up(source, rows, engine):
    process = Deadly(source, bad={"50": "hang", "51": "hang"})
    results = process.compute(engine=engine, workers=2, position_timeout=0.5)

    check(results, rows, [50, 51])
    assert results.failures[0].exception == "position_timeout"
    assert "0.5 s" in results.failures[0].message


def test_the_first_position_may_hang(source, rows):
    process = Deadly(source, bad={"0": "hang"})
    results = process.compute(engine="local", workers=2, position_timeout=0.5)

    check(results, rows, [0])


def test_a_block_has_the_time_of_all_its_positions(source, rows):
    process = DeadlyBlock(source, bad={"77": "hang"})
    process.compute(positions=[0], engine="serial")
    process.compute(
        engine="local", workers=2, position_timeout=0.5, positions=slice(76, 80)
    )
    results = process.results

    assert np.flatnonzero(results.failed_mask).tolist() == [77]
    assert np.flatnonzero(results.completed_mask).tolist() == [0, 76, 78, 79]
    np.testing.assert_array_equal(results["mean"][76:79:2], rows[76:79:2].mean(axis=1))


def test_slow_positions_within_their_time_are_computed(source, rows):
    """The limit is for a position, not for a batch."""
    process = Deadly(source, delay_s=0.02)
    results = process.compute(engine="local", workers=2, position_timeout=0.5)

    check(results, rows, [])


def test_a_position_is_not_charged_for_time_when_the_driver_is_stopped(monkeypatch):
    """While the machine sleeps, the time of a position does not run."""
    times = iter([0, 0, 1, 5.5, 6, 7])
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: next(times)))
    pool = SimpleNamespace(progress_words=lambda worker: (7, 3))
    batch = Batch(0, 50, None, 50)
    clock = local._PositionClock(4.0)
    clock.begin(0, batch)

    assert [clock.overdue({0: batch}, pool) for _ in range(5)] == [[], [], [], [], [0]]


def test_a_timeout_needs_workers_that_can_be_ended(source):
    with pytest.raises(rs.PlanError, match="engine='local'"):
        Deadly(source).compute(engine="serial", position_timeout=1)
    with pytest.raises(rs.PlanError, match="not a duration"):
        Deadly(source).compute(position_timeout=0)
