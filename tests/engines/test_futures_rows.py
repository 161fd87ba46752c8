"""Workers that do not see the files, and rows that the driver writes."""

import concurrent.futures as cf
import importlib
import multiprocessing
import os
import platform
import sys
from typing import ClassVar

import h5py
import numpy as np
import param
import pytest
from engine_processes import Logged, Weighted, noted
from helpers import data_of

import resumable as rs
from resumable.model.positions import PositionSet
from resumable.model.schedule import Schedule
from resumable.system import disk

SPAWN = multiprocessing.get_context("spawn")

pytestmark = pytest.mark.timeout(60, method="signal")


# Workers on another host: every process sees its own folder under this name.

HERE = "/proc/self/cwd"


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """Return processes in another folder than this one, where a source lies."""
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    data = np.random.default_rng(5).normal(size=(60, 32))
    with h5py.File("scan.h5", "w") as file:
        file["data"] = data
        file["weight"] = np.arange(60.0)
    pool = cf.ProcessPoolExecutor(
        2, SPAWN, initializer=os.chdir, initargs=[tmp_path / "there"]
    )
    with pool as executor:
        yield executor, data


def test_a_relative_source_is_found_from_another_folder(apart, log):
    executor, data = apart
    results = Logged("scan.h5::/data", log=log).compute(
        engine=executor, writer="workers"
    )

    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))


@pytest.mark.parametrize("there", [None, 16], ids=["none", "another"])
def test_workers_that_do_not_see_the_source_are_an_error(apart, log, tmp_path, there):
    executor, _ = apart
    if there is not None:
        with h5py.File(tmp_path / "there" / "scan.h5", "w") as file:
            file["data"] = np.zeros((60, there))
    process = Logged(f"{HERE}/scan.h5::/data", log=log)
    with pytest.raises(rs.SourceError, match=f"{HERE}/scan.h5") as caught:
        process.compute(engine=executor)

    assert f"a worker on {platform.node()} " in str(caught.value)
    assert noted(log) == []
    assert process.compute(engine="serial").status.finished


def test_an_input_that_workers_do_not_see_is_an_error(apart, tmp_path):
    executor, data = apart
    with h5py.File(tmp_path / "seen.h5", "w") as file:
        file["data"] = data
    inputs = {"weight": f"{HERE}/scan.h5::/weight"}
    process = Weighted(f"{tmp_path}/seen.h5::/data", tmp_path, inputs=inputs)
    with pytest.raises(rs.SourceError, match=f"{HERE}/scan.h5"):
        process.compute(engine=executor)


def test_workers_that_do_not_see_the_run_file_send_their_rows(apart, log, tmp_path):
    executor, data = apart
    process = Logged("scan.h5::/data", HERE, log=log)
    process.compute(engine=executor, positions=[3, 4, 5, 20, 58])
    results = process.compute(engine=executor)

    assert results.status.finished
    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))
    assert sorted(map(int, noted(log))) == list(range(60))
    assert list((tmp_path / "there").iterdir()) == []


def test_workers_that_must_write_and_cannot_are_an_error(apart, log):
    executor, _ = apart
    with pytest.raises(rs.TargetError, match="writer='driver'"):
        Logged("scan.h5::/data", HERE, log=log).compute(
            engine=executor, writer="workers"
        )


MODULE = """
import resumable as rs

class Far(rs.Process):
    version = 1
    outputs = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        return spectrum.mean()
"""


@pytest.mark.parametrize("edited", [False, True])
def test_a_class_elsewhere_must_have_the_same_text(
    apart, tmp_path, monkeypatch, edited
):
    executor, data = apart
    (tmp_path / "here" / "far_away.py").write_text(MODULE)
    there = tmp_path / "there" / "far_away.py"
    there.write_text(MODULE.replace("mean()", "max()") if edited else MODULE)
    os.utime(there, (1e9, 1e9))
    monkeypatch.setattr(sys, "path", [HERE, *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "far_away", raising=False)
    process = importlib.import_module("far_away").Far("scan.h5::/data")
    if edited:
        with pytest.raises(rs.DeclarationError, match="is another one where"):
            process.compute(engine=executor)
        return
    results = process.compute(engine=executor)

    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))


class Elsewhere(cf.ThreadPoolExecutor):
    """An executor of which it is not known on which hosts it computes."""


@pytest.mark.parametrize(
    ("kind", "elsewhere", "writer"),
    [
        ("nfs4", True, "driver"),
        ("fuse.sshfs", True, "driver"),
        ("nfs4", False, "workers"),
        ("ext4", True, "workers"),
        ("unknown", True, "workers"),
    ],
)
def test_the_driver_writes_to_a_network_file_system_for_several_hosts(
    scan, log, monkeypatch, kind, elsewhere, writer
):
    monkeypatch.setattr(disk, "file_system", lambda path: kind)
    with (Elsewhere if elsewhere else cf.ThreadPoolExecutor)(2) as executor:
        plan = Logged(scan, log=log).plan(engine=executor)
        forced = Logged(scan, log=log).plan(engine=executor, writer="workers")
        results = Logged(scan, log=log).compute(engine=executor)

    assert plan.writer == writer
    assert (kind in str(plan)) == (writer == "driver")
    assert forced.writer == "workers"
    assert results.status.finished


def test_the_driver_gets_batches_of_few_rows(scan):
    class Wide(rs.Process):
        version = 1
        width = param.Integer(1 << 17)

        def outputs(self):
            return {"wide": rs.Output(self.width)}

        def unit_computation(self, spectrum):
            return np.zeros(self.width)

    plan = Wide(scan).plan(writer="driver")
    schedule = Schedule(PositionSet.full(60), plan, proven=True)
    schedule.next()
    schedule.note(60, 1e-6)

    assert plan.longest == schedule.next_rows() == 16
    assert Wide(scan, width=1 << 22).plan(writer="driver").longest == 1
    assert Wide(scan).plan(writer="workers").longest is None


def test_rows_of_worker_processes_come_back_to_the_driver(scan, log):
    results = Logged(scan, log=log, delay_s=0.002).compute(
        engine="local", workers=2, writer="driver"
    )

    assert results.status.finished
    assert sorted(map(int, noted(log))) == list(range(60))
    assert str(os.getpid()) not in noted(log + ".pid")


@pytest.mark.parametrize("engine", ["serial", "auto"])
def test_rows_are_copied_before_they_are_sent(scan, engine):
    class Same(rs.Process):
        version = 1
        outputs: ClassVar = {"first": rs.Output()}
        scratch = 2 << 20

        def setup(self):
            self.kept = np.empty(60)

        def block_computation(self, spectra):
            self.kept[: len(spectra)] = spectra[:, 0]
            return self.kept[: len(spectra)]

    results = Same(scan).compute(engine=engine, workers=2, writer="driver")

    np.testing.assert_array_equal(results["first"][...], data_of(scan)[:, 0])


def test_an_unknown_writer_is_an_error(scan):
    with pytest.raises(rs.PlanError, match="'auto', 'workers' or 'driver'"):
        Logged(scan).plan(writer="drivers")


def test_an_object_that_is_no_engine_is_an_error(scan):
    with pytest.raises(rs.PlanError, match="an Executor or a client of dask"):
        Logged(scan).plan(engine=object())
