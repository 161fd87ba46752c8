"""Positions for which memory is short, and workers that cannot go on."""

import os
from pathlib import Path

import numpy as np
import pytest
from deadly import MOST, POSITIONS, Leaks, check
from engine_processes import Logged, note, noted

import resumable as rs

pytestmark = [
    pytest.mark.timeout(60, method="signal"),
    pytest.mark.filterwarnings("ignore:.*positions failed:resumable.ResumableWarning"),
]


class LeakingUnit(Leaks):
    """Position by position."""

    def unit_computation(self, spectrum):
        return self.compute_one(self.position, spectrum)


class LeakingBlock(Leaks):
    """Block by block."""

    def block_computation(self, spectra):
        positions = np.asarray(self.position).tolist()
        return np.array(
            [self.compute_one(*one) for one in zip(positions, spectra, strict=True)]
        )


@pytest.mark.parametrize(
    ("how", "workers"),
    [("limit", 1), ("limit", 2), ("raise_memory_error", 2), ("killed", 2)],
)
def test_leaked_memory_fails_no_position(source, rows, log, how, workers):
    process = LeakingUnit(source, how=how, log=log)
    results = process.compute(engine="local", workers=workers)

    check(results, rows, [])
    assert sum(session.computed for session in results.sessions) == POSITIONS
    assert len(noted(log)) >= POSITIONS / MOST


@pytest.mark.parametrize(
    ("engine", "workers"), [("local", 1), ("local", 2), ("auto", 2), ("serial", 1)]
)
@pytest.mark.parametrize("cls", [LeakingUnit, LeakingBlock])
def test_a_position_that_lacks_memory_even_alone_has_failed(
    source, rows, log, engine, workers, cls
):
    """Only that position has failed, whatever the ones before it leak."""
    # A block that leaks has to be halved down to one position every time.
    most = MOST if cls is LeakingUnit else POSITIONS
    if engine == "serial":
        most = 100 * POSITIONS  # in one process nothing that leaks is given back
    bad = [0, 77, 78, 199]
    process = cls(source, how="raise_memory_error", log=log, bad=bad, most=most)
    results = process.compute(engine=engine, workers=workers)

    check(results, rows, [0, 77, 78, 199])
    assert {failure.exception for failure in results.failures} == {
        "numpy._core._exceptions._ArrayMemoryError"
    }


def test_with_retry_failed_a_position_that_lacks_memory_fails_again(source, rows, log):
    """Each is tried once, in however many workers."""
    process = LeakingUnit(source, how="raise_memory_error", log=log, bad=[3, 5])
    process.compute(engine="local", workers=2)
    results = process.compute(engine="local", workers=2, retry_failed=True)

    check(results, rows, [3, 5])
    assert (results.sessions[1].computed, results.sessions[1].failed) == (0, 2)


def test_a_position_that_stops_the_run_is_tried_alone_first(source, log):
    process = LeakingUnit(source, how="raise_memory_error", log=log, bad=[77])
    with pytest.raises(rs.UnitFailed, match=r"position 77 raised numpy\._core.*Memory"):
        process.compute(engine="local", workers=2, on_error="raise")

    assert process.results.status.failed == 0


def test_a_computation_that_never_has_memory_is_told_from_bad_data(source, log):
    everywhere = list(range(POSITIONS))
    process = LeakingUnit(source, how="raise_memory_error", log=log, bad=everywhere)
    with pytest.raises(rs.UnitFailed, match=r"first 20 positions.*MemoryError"):
        process.compute(engine="local", workers=2)
    status = process.results.status

    assert (status.done, status.failed) == (0, 0)


class DiesInSync(Logged):
    """Ends its worker in the first sync after the last position, once."""

    def unit_computation(self, spectrum):
        if self.position == 199 and not Path(self.log + ".died").exists():

            def die(fd):
                note(self.log + ".died", os.getpid())
                os._exit(5)

            os.fdatasync = die
        return super().unit_computation(spectrum)


def test_rows_of_a_worker_that_dies_while_it_commits_are_computed_again(
    source, rows, tmp_path
):
    log = str(tmp_path / "log")
    process = DiesInSync(source, log=log, delay_s=0.001)
    results = process.compute(engine="local", workers=2, checkpoint=100)

    assert noted(log + ".died")
    check(results, rows, [])
    assert sum(session.computed for session in results.sessions) == POSITIONS
