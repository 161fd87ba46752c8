"""The engine over dask, with a cluster of real processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import dask
import distributed
import numpy as np
import param
import psutil
import pytest
from engine_conformance import EngineConformance, Logged, note, noted
from helpers import until
from kill_matrix import alive

import resumable as rs
from resumable.engines import apart, guest
from resumable.engines.dask import DaskEngine
from resumable.model.positions import Batch

# distributed's own threads and sockets, when a worker or a client is ended hard.
pytestmark = [
    pytest.mark.timeout(60, method="signal"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """Return a cluster of two worker processes on this machine."""
    # Workers import the tests' classes by name.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    # A worker that happens to be away so long after one of its ends is not started
    # again; tests here end them all the time.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    with (
        patient,
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    """Return a client of it, which is not the present one of this process."""
    with distributed.Client(cluster, set_as_default=False) as client:
        yield client


class TestDask(EngineConformance):
    """Workers of a cluster."""

    @pytest.fixture(autouse=True)
    def _client(self, client):
        self._the_client = client

    def engine(self):
        return self._the_client


@pytest.fixture
def log(tmp_path):
    """Return the name of the file where Logged notes positions."""
    return str(tmp_path / "log")


def await_lines(log, count):
    """Wait until so many positions were computed."""
    deadline = time.monotonic() + 30
    while len(noted(log)) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def test_the_present_client_is_found_by_name(cluster, scan, log):
    """engine="dask" is the client of this process."""
    with distributed.Client(cluster):
        results = Logged(scan, log=log).compute(engine="dask")
        plan = Logged(scan, log=log).plan(engine="dask")
    sessions = rs.open(results.path).status

    assert sessions.finished
    assert (plan.engine, plan.workers) == ("dask", 2)
    assert str(os.getpid()) not in noted(log + ".pid")


def test_without_a_client_the_error_says_what_to_do(scan, log):
    """It names the call that makes one."""
    with pytest.raises(rs.PlanError, match=r"distributed.Client\(\)"):
        Logged(scan, log=log).plan(engine="dask")


def test_tasks_have_the_name_of_the_process(client, scan, log):
    """The dashboard groups them by it."""
    Logged(scan, log=log).compute(engine=client)
    names = client.run_on_scheduler(
        lambda dask_scheduler: list(dask_scheduler.task_prefixes)
    )

    assert "Logged" in names


@pytest.mark.parametrize("writer", ["workers", "driver"])
def test_a_lost_worker_is_made_good(client, scan, log, writer):
    """Its batches are computed again, and nothing that was committed is."""
    process = Logged(scan, log=log, delay_s=0.03)
    done = []

    def kill():
        await_lines(log, 20)
        done.extend(np.flatnonzero(process.results.completed_mask))
        os.kill(int(noted(log + ".pid")[-1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    results = process.compute(engine=client, writer=writer)
    killer.join()
    times = np.bincount(list(map(int, noted(log))), minlength=60)

    assert results.status.finished
    assert times.min() == 1
    assert set(times[done]) <= {1}
    assert times.sum() <= 60 + 20
    client.wait_for_workers(2)


def test_rows_committed_by_a_worker_that_could_not_answer_stay(client, scan, log):
    """A batch that is done again begins where its worker was lost."""

    class AnswersOnce(Logged):
        """Ends its process after it has committed, before the answer."""

        def setup(self):
            from resumable.engines import guest

            whole = guest._Stay.do

            def do(*args):
                report = whole(*args)
                if not Path(self.log + ".killed").exists() and report.done > 1:
                    Path(self.log + ".killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return report

            guest._Stay.do = do

    results = AnswersOnce(scan, log=log, delay_s=0.005).compute(engine=client)
    client.wait_for_workers(2)

    assert Path(log + ".killed").exists()
    assert results.status.finished
    assert sorted(map(int, noted(log))) == list(range(60))


def allow(client, deaths):
    """Have dask give up a task after more deaths than these; return how it was."""

    def set_them(deaths, dask_scheduler):
        before = dask_scheduler.allowed_failures
        dask_scheduler.allowed_failures = deaths
        return before

    return client.run_on_scheduler(set_them, deaths)


@pytest.fixture
def _gives_up_at_once(client):
    """Have dask give up a task as soon as one worker has ended at it."""
    before = allow(client, 0)
    yield
    allow(client, before)
    client.wait_for_workers(2)


class Deadly(Logged):
    """Ends its process at a position, as often as it is told to."""

    deadly = param.List([33])
    deaths = param.Integer(1000)

    def unit_computation(self, spectrum):
        ends = f"{self.log}.{self.position}.ends"
        if self.position in self.deadly and len(noted(ends)) < self.deaths:
            note(ends, os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        return super().unit_computation(spectrum)


@pytest.mark.parametrize("writer", ["workers", "driver"])
@pytest.mark.usefixtures("_gives_up_at_once")
def test_a_position_that_ends_its_workers_is_found(client, scan, log, writer):
    """It alone is recorded as failed, with what ended it; all others are computed."""
    process = Deadly(scan, log=log)
    with pytest.warns(rs.ResumableWarning, match="1 of 60 positions failed"):
        results = process.compute(engine=client, writer=writer)
    (failure,) = results.failures

    assert (results.status.done, results.status.failed) == (59, 1)
    assert failure.position == 33
    assert failure.exception == "signal SIGKILL"
    assert results.status.finished
    # One worker of dask, then its children: with others, and alone.
    assert len(noted(log + ".33.ends")) <= 4


def test_dask_may_give_up_as_late_as_it_likes(client, scan, log):
    """With its own setting, and where nothing has succeeded before."""
    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = Deadly(scan, log=log).compute(engine=client, positions=[33])

    assert results.status.failed == 1
    client.wait_for_workers(2)


@pytest.mark.usefixtures("_gives_up_at_once")
def test_a_worker_that_ends_by_chance_marks_nothing(client, scan, log):
    """What it was at is computed elsewhere, however often dask gives it up."""
    process = Deadly(scan, log=log, deaths=1, deadly=[3, 17, 33, 59])
    results = process.compute(engine=client)

    assert (results.status.done, results.status.failed) == (60, 0)


@pytest.mark.usefixtures("_gives_up_at_once")
def test_of_a_block_only_the_guilty_position_is_lost(client, scan, log):
    """A block computation says of no position that it is at it."""

    class Blocks(rs.Process):
        version = 1
        outputs: ClassVar = {"mean": rs.Output()}

        def block_computation(self, spectra):
            if 33 in self.position:
                os.kill(os.getpid(), signal.SIGSEGV)
            return spectra.mean(axis=1)

    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = Blocks(scan).compute(engine=client)

    assert [failure.position for failure in results.failures] == [33]
    assert results.failures[0].exception == "signal SIGSEGV"
    assert results.status.done == 59


def test_positions_beside_one_that_ends_its_worker_are_computed(scan, log):
    """Two threads of one process end together; only one of them is to blame."""
    with contextlib.ExitStack() as stack:
        cluster = distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=True,
            dashboard_address=":0",
            silence_logs=50,
        )
        stack.enter_context(cluster)
        client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
        allow(client, 0)
        process = Deadly(scan, log=log, delay_s=0.02, deadly=[3, 33])
        with pytest.warns(rs.ResumableWarning, match="2 of 60"):
            results = process.compute(engine=client)

    assert [failure.position for failure in results.failures] == [3, 33]
    assert results.status.done == 58


@pytest.mark.usefixtures("_gives_up_at_once")
def test_on_error_raise_names_the_position_and_records_nothing(client, scan, log):
    """What was computed stays, and the position is left pending."""
    process = Deadly(scan, log=log)
    with pytest.raises(rs.UnitFailed, match="position 33: signal SIGKILL") as caught:
        process.compute(engine=client, on_error="raise")
    status = process.results.status

    assert caught.value.position == 33
    assert status.failed == 0
    assert 0 < status.done < 60
    assert not process.results.completed_mask[33]


@pytest.mark.usefixtures("_gives_up_at_once")
def test_a_position_that_ends_more_than_its_process_is_an_error(client, scan, log):
    """It is named, and not recorded: nobody can tell that it was the cause."""

    class EndsTheHost(Logged):
        def unit_computation(self, spectrum):
            here = psutil.Process()
            for process in (here, *here.parents()):
                if "spawn_main" in " ".join(process.cmdline()):
                    process.kill()
                    time.sleep(60)
            raise AssertionError("no process of dask")

    process = EndsTheHost(scan, log=log)
    with pytest.raises(rs.WorkerDied, match="positions 33 to 33"):
        process.compute(engine=client, positions=[33])

    assert (process.results.status.done, process.results.status.failed) == (0, 0)


@pytest.mark.usefixtures("_gives_up_at_once")
def test_a_set_up_that_ends_its_process_is_an_error(client, scan, log):
    """No position is to blame."""

    class SetsUp(Logged):
        def setup(self):
            os.kill(os.getpid(), signal.SIGKILL)

    process = SetsUp(scan, log=log)
    with pytest.raises(rs.WorkerDied, match="before its first position"):
        process.compute(engine=client)

    assert (process.results.status.done, process.results.status.failed) == (0, 0)


@pytest.mark.parametrize("do", [guest.do, apart.do])
def test_a_task_is_either_called_back_or_waited_for(client, do):
    """However long the client and the scheduler take to hear of it."""

    def order(number):
        batch = Batch(number, number + 1, None, 1, suspect=do is apart.do)
        return guest.Task("token", number, batch, 1.5, ("elsewhere", 1), 30)

    def done(number):
        return pickle.loads(client.submit(do, order(number), pure=False).result())

    begun = done(7)
    told = client.run(guest.revoke, "token", [7, 8])
    revoked = done(8)
    client.run(guest.release, "token")

    assert begun.needs_job
    assert sorted(map(list, told.values())) == [[], [7]]
    assert revoked == guest.TaskResult()


def test_no_position_is_to_blame_for_a_child_that_ends_as_it_starts(monkeypatch):
    """The system may have been out of memory before it had begun one."""
    place = apart.WorkerProcesses.place

    def killed_at_once(pool, worker, *args):
        os.kill(pool.pids[worker], signal.SIGKILL)
        until(lambda: not alive(pool.pids[worker]))
        place(pool, worker, *args)

    monkeypatch.setattr(apart.WorkerProcesses, "place", killed_at_once)
    batch = Batch(57, 58, None, 1, suspect=True)
    order = guest.Task("token", 1, batch, 1.5, ("elsewhere", 1), logging.WARNING)
    outcome = pickle.loads(apart.do(order))

    assert outcome.loss is None
    assert "before its first position" in str(outcome.error)


@pytest.mark.parametrize("writer", ["workers", "driver"])
def test_a_client_that_is_closed_loses_nothing(cluster, scan, log, writer):
    """A clear error; what was committed stays, and another client goes on."""
    process = Logged(scan, log=log, delay_s=0.03)

    def close():
        await_lines(log, 20)
        first.close()

    first = distributed.Client(cluster, set_as_default=False)
    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(rs.WorkerDied, match="make a new one and run again"):
        process.compute(engine=first, writer=writer)
    closer.join()
    before = process.results.completed_mask
    with distributed.Client(cluster, set_as_default=False) as second:
        results = process.compute(engine=second)
    times = np.bincount(list(map(int, noted(log))), minlength=60)

    assert 0 < before.sum() < 60
    assert results.status.finished
    assert set(times[before]) == {1}


def test_workers_that_come_later_are_used(cluster, client):
    """The number follows the cluster, unless one was asked for."""
    engine = DaskEngine(client, may_grow=True)
    fixed = DaskEngine(client, 2)
    cluster.scale(3)
    client.wait_for_workers(3)
    deadline = time.monotonic() + 30
    while engine.at_once(2) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    grown, kept = engine.at_once(2), fixed.at_once(2)
    cluster.scale(2)

    assert (grown, kept) == (3, 2)


def test_an_asynchronous_client_is_an_error(cluster, scan):
    """It cannot be waited for."""

    async def plan():
        address = cluster.scheduler_address
        async with distributed.Client(address, asynchronous=True) as client:
            Logged(scan).plan(engine=client)

    with pytest.raises(rs.PlanError, match="asynchronous"):
        asyncio.run(plan())
