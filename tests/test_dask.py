"""The engine over dask, with a cluster of real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

import distributed
import h5py
import numpy as np
import pytest
from engine_conformance import EngineConformance, Logged, noted

import resumable as rs
from resumable.engines.dask import DaskEngine

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
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=50,
    ) as cluster:
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
        done.extend(np.flatnonzero(process.results.completed))
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

            def do(stay, order):
                report = whole(stay, order)
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


def test_a_position_that_ends_its_workers_is_an_error(client, scan, log):
    """Where dask gives up the positions are named, and the rest is kept."""

    def allow(deaths, dask_scheduler):
        dask_scheduler.allowed_failures = deaths

    class Deadly(Logged):
        def unit_computation(self, spectrum):
            if self.position == 33:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().unit_computation(spectrum)

    process = Deadly(scan, log=log)
    client.run_on_scheduler(allow, 0)
    with pytest.raises(rs.WorkerDied, match=r"lost positions \d+ to \d+"):
        process.compute(engine=client)
    client.run_on_scheduler(allow, 3)
    client.wait_for_workers(2)

    assert 0 < process.results.status.done < 60
    assert not process.results.completed[33]


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
    before = process.results.completed
    with distributed.Client(cluster, set_as_default=False) as second:
        results = process.compute(engine=second)
    times = np.bincount(list(map(int, noted(log))), minlength=60)

    assert 0 < before.sum() < 60
    assert results.status.finished
    assert set(times[before]) == {1}


def test_workers_that_see_no_file_of_ours_are_served(client, tmp_path, monkeypatch):
    """On another host: rows come with the batch and go back with the report."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    data = np.random.default_rng(5).normal(size=(60, 32))
    with h5py.File("scan.h5", "w") as file:
        file["data"] = data
    log = str(tmp_path / "log")
    before = client.run(os.getcwd)
    client.run(os.chdir, tmp_path / "there")
    # Every process sees its own folder under this name.
    results = Logged("/proc/self/cwd/scan.h5::/data", log=log).compute(engine=client)
    client.run(os.chdir, next(iter(before.values())))

    assert results.status.finished
    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))
    assert list((tmp_path / "there").iterdir()) == []


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
