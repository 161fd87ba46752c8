"""Engines, each held to the same conformance tests, and what is special to one."""

import contextlib
import os
import time
import types
from typing import ClassVar

import h5py
import numpy as np
import pytest
import threadpoolctl
from engine_conformance import EngineConformance
from engine_processes import FailsAt, Holder, Logged, Threads, blas_threads, noted

import resumable as rs
from resumable.engines.local import LocalEngine
from resumable.worker import work
from resumable.worker.work import Worker

pytestmark = pytest.mark.timeout(30, method="signal")


class TestSerial(EngineConformance):
    def engine(self):
        return "serial"

    most_setups = 1


class TestLocal(EngineConformance):
    def engine(self):
        return "local"


class TestAuto(EngineConformance):
    def engine(self):
        return "auto"

    most_setups = 3
    beside_workers = 1


@pytest.mark.torture  # each starts Python anew for every worker
class TestLocalSpawn(EngineConformance):
    def engine(self):
        return LocalEngine(2, "spawn")


class LateThreads(rs.Process):
    """Says the same of a BLAS that only the computation loads."""

    version = 1
    outputs: ClassVar = {"threads": rs.Output(dtype="i8")}

    def unit_computation(self, spectrum):
        import scipy.linalg

        scipy.linalg.inv(np.eye(3))
        return blas_threads()


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_blas_has_one_thread_while_units_run_and_all_after(scan, engine):
    with threadpoolctl.threadpool_limits(2):
        results = Threads(scan).compute(engine=engine, workers=2)
        after = blas_threads()

    assert set(results["threads"][...]) == {1}
    assert after == 2


def test_blas_gets_its_threads_back_after_an_error(scan, log):
    process = FailsAt(scan, log=log)
    with threadpoolctl.threadpool_limits(2):
        with pytest.raises(rs.UnitFailed):
            process.compute(engine="serial", on_error="raise")
        after = blas_threads()

    assert after == 2


@pytest.mark.parametrize("engine", ["local", LocalEngine(2, "spawn")])
def test_libraries_that_units_load_get_one_thread_in_workers(scan, engine):
    results = LateThreads(scan).compute(engine=engine, workers=2)

    assert set(results["threads"][...]) == {1}


class SlowAlone(Logged):
    """Slow until a second process computes, too."""

    def unit_computation(self, spectrum):
        result = super().unit_computation(spectrum)
        if len(set(noted(self.log + ".pid"))) < 2:
            time.sleep(0.03)
        return result


def test_auto_hands_over_to_workers_when_the_run_is_long(tmp_path, log):
    with h5py.File(tmp_path / "long.h5", "w") as file:
        file["data"] = np.zeros((800, 2))
    process = SlowAlone(f"{tmp_path}/long.h5::/data", log=log)

    assert process.compute(engine="auto", workers=2).status.finished
    assert len(set(noted(log + ".pid"))) >= 2
    assert sorted(map(int, noted(log))) == list(range(800))


def test_auto_starts_no_process_for_a_short_run(scan, log, monkeypatch):
    clock = types.SimpleNamespace(perf_counter=lambda: len(noted(log)) / 1000)
    monkeypatch.setattr(work, "time", clock)
    Logged(scan, log=log).compute(engine="auto", workers=2)

    assert set(noted(log + ".pid")) == {str(os.getpid())}


def test_auto_uses_workers_although_setup_ran_in_this_process(scan):
    results = Holder(scan, delay_s=0.03).compute(engine="auto", workers=2)

    assert results.status.finished


def test_an_engine_object_starts_as_many_workers_as_the_memory_allows(scan, log):
    process = Logged(scan, log=log, delay_s=0.02)
    options = {"engine": LocalEngine(4), "workers": 4, "memory": "150 MB"}
    planned = process.plan(**options).workers
    process.compute(**options)

    assert 1 <= planned < 4
    assert len(set(noted(log + ".pid"))) <= planned


def test_stopping_while_workers_start_leaves_nothing_behind(scan, log):
    process = Logged(scan, log=log, delay_s=0.01)
    with pytest.raises(rs.NotFinished):
        process.compute(engine=LocalEngine(2, "spawn"), time_limit=0.001)

    assert process.compute(engine="local", workers=2).status.finished
    assert sorted(map(int, noted(log))) == list(range(60))


class Forgetful:
    name = "forgetful"
    workers = 1
    own_processes = can_replace = False

    def run(self, job, driver, workers):
        with contextlib.closing(Worker(job, own_process=False)) as worker:
            while batch := driver.schedule.next():
                if 1 not in batch.positions():
                    driver.take(worker.do(batch, lambda: False))


def test_positions_that_an_engine_has_lost_are_an_error(scan, log):
    process = Logged(scan, log=log)
    with pytest.raises(rs.RunFileError, match=r"\d+ positions? .*pending.*Run again"):
        process.compute(engine=Forgetful())
    (partial,) = process.partials
    assert 0 < partial.status.pending < 60

    assert process.compute(engine="serial").status.finished


class Environment(rs.Process):
    version = 1
    outputs: ClassVar = {"value": rs.Output(dtype="i8")}

    def unit_computation(self, spectrum):
        return int(os.environ.get("RESUMABLE_TEST_VALUE", "-1"))


@pytest.mark.parametrize("engine", ["serial", "local", LocalEngine(2, "spawn")])
def test_units_see_the_environment_at_the_time_of_compute(scan, monkeypatch, engine):
    Environment(scan).compute(engine="local", workers=1, positions=[0])
    monkeypatch.setenv("RESUMABLE_TEST_VALUE", str(int(time.time())))
    results = Environment(scan).compute(engine=engine, workers=2, override=True)

    assert set(results["value"][...]) == {int(os.environ["RESUMABLE_TEST_VALUE"])}
