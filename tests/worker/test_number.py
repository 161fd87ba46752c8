"""The number of a worker: which it is, how long it stays, and what it is for."""

import os
from typing import ClassVar

import pytest
from engine_processes import Numbered, noted

import resumable as rs
from resumable.engines.local import LocalEngine

pytestmark = pytest.mark.timeout(60, method="signal")


class OnDevice(Numbered):
    """Computes on the device of its worker."""

    outputs: ClassVar = {"device": rs.Output(dtype="i8")}

    def setup(self):
        os.environ["CUDA_VISIBLE_DEVICES"] = ["5", "7"][self.worker]

    def unit_computation(self, spectrum):
        super().unit_computation(spectrum)
        return int(os.environ["CUDA_VISIBLE_DEVICES"])


def test_a_worker_that_takes_the_place_of_a_dead_one_has_its_number(source, log):
    results = Numbered(source, log=log, dies=True).compute(engine=LocalEngine(1))

    assert results.status.finished
    assert len(noted(log)) >= 2
    assert {line.partition("=")[2] for line in noted(log)} == {"0"}
    assert set(results["number"][...]) == {0}


def test_every_worker_has_the_device_of_its_number(source, log, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    results = OnDevice(source, log=log).compute(engine=LocalEngine(2))

    assert set(results["device"][...]) == {5, 7}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_what_computes_nothing_has_no_number(source, log):
    process = Numbered(source, log=log)
    with pytest.raises(AttributeError, match=r"exists only in setup\(\) and while"):
        _ = process.worker

    assert process.test(3).outputs["number"] == 0


def test_a_chain_gives_all_of_its_stages_the_number_of_the_worker(source, log):
    class Adds(rs.Process):
        version = 1
        outputs: ClassVar = {"sum": rs.Output(dtype="i8")}

        def unit_computation(self, number):
            return number + 10 * (self.worker + 1)

    results = rs.Chain(Numbered(source, log=log), Adds()).compute(engine="serial")

    assert set(results["sum"][...]) == {10}


def test_a_class_may_have_an_attribute_of_this_name(source):
    class Named(rs.Process):
        version = 1
        outputs: ClassVar = {"sum": rs.Output()}

        def setup(self):
            self.worker = 4

        def unit_computation(self, spectrum):
            return self.worker

    assert set(Named(source).compute(engine="serial")["sum"][...]) == {4}
