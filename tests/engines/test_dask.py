"""The engine over dask, with a cluster of real processes."""

import asyncio
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import dask
import distributed
import numpy as np
import pytest
from engine_conformance import EngineConformance
from engine_processes import Logged, noted

import resumable as rs
from resumable.engines import remote_worker
from resumable.engines.dask import DaskEngine
from resumable.model.batch import Batch

# distributed's own threads and sockets, when a worker or a client is ended hard.
pytestmark = [
    pytest.mark.timeout(60, method="signal"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    # Workers import the tests' classes by name.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    # A worker that happens to be away so long after one of its ends is not started
    # again; tests here end them all the time.
    options = {"distributed.deploy.lost-worker-timeout": "1h"}
    # Not each of them imports dask anew.
    options["distributed.worker.multiprocessing-method"] = "forkserver"
    with (
        dask.config.set(options),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    """Return a client of the cluster that is not the default one of this process."""
    with distributed.Client(cluster, set_as_default=False) as client:
        yield client


class TestDask(EngineConformance):
    @pytest.fixture(autouse=True)
    def _client(self, client):
        self._the_client = client

    def engine(self):
        return self._the_client


def await_lines(log, count):
    deadline = time.monotonic() + 30
    while len(noted(log)) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def test_dask_by_name_is_the_default_client_of_the_process(cluster, scan, log):
    with distributed.Client(cluster):
        results = Logged(scan, log=log).compute(engine="dask")
        plan = Logged(scan, log=log).plan(engine="dask")

    assert rs.open(results.path).status.finished
    assert (plan.engine, plan.workers) == ("dask", 2)
    assert str(os.getpid()) not in noted(log + ".pid")


def test_without_a_client_the_error_says_what_to_do(scan, log):
    with pytest.raises(rs.PlanError, match=r"distributed.Client\(\)"):
        Logged(scan, log=log).plan(engine="dask")


def test_tasks_have_the_name_of_the_process(client, scan, log):
    Logged(scan, log=log).compute(engine=client)
    names = client.run_on_scheduler(
        lambda dask_scheduler: list(dask_scheduler.task_prefixes)
    )

    assert "Logged" in names


@pytest.mark.parametrize("writer", ["workers", "driver"])
def test_batches_of_a_lost_worker_are_computed_again(client, scan, log, writer):
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


def test_rows_committed_before_a_worker_died_stay(client, scan, log):
    class AnswersOnce(Logged):
        """Ends its process after it has committed, before the answer."""

        def setup(self):
            from resumable.engines import remote_worker

            whole = remote_worker._SessionWorkers.do

            def do(*args):
                report = whole(*args)
                if not Path(self.log + ".killed").exists() and report.done > 1:
                    Path(self.log + ".killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return report

            remote_worker._SessionWorkers.do = do

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
    def unit_computation(self, spectrum):
        if self.position == 33:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().unit_computation(spectrum)


@pytest.mark.usefixtures("_gives_up_at_once")
def test_a_position_that_ends_its_workers_is_an_error(client, scan, log):
    process = Deadly(scan, log=log)
    process.compute(engine=client, positions=[0])
    with pytest.raises(rs.WorkerDied, match=r"positions \d+ to \d+.*engine='local'"):
        process.compute(engine=client)
    done = process.results.completed_mask
    with pytest.warns(rs.ResumableWarning, match="1 of 60 positions failed"):
        results = process.compute(engine="local", workers=2)
    times = np.bincount(list(map(int, noted(log))), minlength=60)

    assert process.results.status.failed == 1
    assert [failure.position for failure in results.failures] == [33]
    assert 0 < done.sum() < 60
    assert set(times[done]) == {1}


def test_a_task_is_either_cancelled_or_waited_for(client):
    def order(number):
        batch = Batch(number, number + 1, None, 1)
        return remote_worker.Task("token", number, batch, 1.5, ("elsewhere", 1), 30)

    def done(number):
        future = client.submit(remote_worker.do, order(number), pure=False)
        return pickle.loads(future.result())

    begun = done(7)
    told = client.run(remote_worker.revoke, "token", [7, 8])
    revoked = done(8)
    client.run(remote_worker.release, "token")

    assert begun.needs_job
    assert sorted(map(list, told.values())) == [[], [7]]
    assert revoked == remote_worker.TaskResult()


@pytest.mark.parametrize("writer", ["workers", "driver"])
def test_a_closed_client_is_an_error_and_loses_no_row(cluster, scan, log, writer):
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


def test_workers_that_start_during_the_run_are_used(cluster, client):
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
    async def plan():
        address = cluster.scheduler_address
        async with distributed.Client(address, asynchronous=True) as client:
            Logged(scan).plan(engine=client)

    with pytest.raises(rs.PlanError, match="asynchronous"):
        asyncio.run(plan())
