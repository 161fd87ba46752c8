"""What failures mean, by those that came before."""

from typing import ClassVar

import numpy as np
import pytest

import resumable as rs
from resumable.model.plan import Geometry
from resumable.model.schedule import PROBES
from resumable.runfile.file import Failure
from resumable.session.failures import FailurePolicy

MAP = Geometry((10, 10), (4,), 32, (1, 1), 32, indivisible=False, position_first=True)


def failure(position, exception="ValueError"):
    return Failure(position, exception, "no fit", "in unit_computation\n")


class Hopeless(rs.Process):
    """Fails everywhere."""

    version = 1
    outputs: ClassVar = {"x": rs.Output()}

    def unit_computation(self, position):
        raise TypeError("always")


def test_alike_failures_of_all_that_are_tried_are_the_functions():
    """The last of them is an error that names the first, and none is recorded."""
    blame = FailurePolicy()
    for position in range(11, 10 + PROBES):
        assert not blame.probed([failure(position)], 0, MAP)

    with pytest.raises(
        rs.UnitFailed, match=r"no fit\n(.*\n)*.*test\(\(1, 1\)\)"
    ) as info:
        blame.probed([failure(90)], 0, MAP)

    assert info.value.position == 11
    assert blame.released(proven=False) == []


@pytest.mark.parametrize(
    ("failures", "done"), [([], 1), ([failure(2, "TypeError")], 0)]
)
def test_a_success_or_another_failure_proves_the_function(failures, done):
    """What was held back until then is the data's, and is released once."""
    blame = FailurePolicy()
    assert not blame.probed([failure(1)], 0, MAP)

    assert blame.probed(failures, done, MAP)

    assert blame.released(proven=True) == [failure(1), *failures]
    assert blame.released(proven=True) == []


def test_a_run_of_fewer_positions_is_no_trial():
    """Too few to tell: their failures are recorded when none is left."""
    blame = FailurePolicy()
    for position in range(PROBES - 1):
        assert not blame.probed([failure(position)], 0, MAP)

    assert len(blame.released(proven=False)) == PROBES - 1


def test_nothing_is_recorded_where_all_of_a_run_was_tried_in_vain(tmp_path):
    """As in a longer run, though nothing is left that could prove the function."""
    process = Hopeless(PROBES, tmp_path)

    with pytest.raises(rs.UnitFailed, match="Nothing was recorded"):
        process.compute(engine="serial", progress=False)

    assert process.results.status.failed == 0


class Mended(rs.Process):
    """Fails everywhere, or in two ways, until it is mended."""

    version = 1
    outputs: ClassVar = {"x": rs.Output()}
    fails: ClassVar = [TypeError]

    def unit_computation(self, position):
        if self.fails:
            raise self.fails[position % len(self.fails)]("always")
        return position


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (None, "all 6 positions that were computed raised TypeError: always"),
        ([2, 4], "all 2 positions that were computed raised TypeError"),
        ([3], "position 3, the only one, raised TypeError: always"),
    ],
    ids=str,
)
def test_a_few_that_fail_alike_are_an_error_and_the_run_goes_on(
    tmp_path, monkeypatch, positions, words
):
    """Mended under the same version it needs no further word."""
    process, other = Mended(6, tmp_path), tmp_path / "other"
    other.mkdir()
    how = {"engine": "serial", "progress": False, "positions": positions}
    with pytest.raises(rs.UnitFailed, match=words) as info:
        process.compute(**how)
    assert "on_error='record'" in str(info.value)
    assert process.results.status.pending == 6
    with pytest.warns(rs.ResumableWarning, match="of 6 positions failed"):
        insisted = Mended(6, other).compute(**how, on_error="record")
    assert insisted.status.failed == (6 if positions is None else len(positions))

    monkeypatch.setattr(Mended, "fails", [])
    again = process.compute(engine="serial", progress=False)
    assert again.status.done == 6
    assert len(again.sessions) == 2


def test_a_few_of_a_followed_source_are_recorded(make_file):
    """More may come, which succeed."""

    class Followed(rs.Process):
        version = 1
        outputs: ClassVar = {"x": rs.Output()}

        def unit_computation(self, spectrum):
            raise TypeError("always")

    process = Followed(make_file(data=np.ones((6, 2))) + "::/data")
    with pytest.warns(rs.ResumableWarning, match="6 of 6 positions failed"):
        assert process.compute(engine="serial", follow=0.1).status.finished


def test_a_few_that_fail_in_two_ways_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(Mended, "fails", [TypeError, ValueError])
    with pytest.warns(rs.ResumableWarning, match="6 of 6 positions failed"):
        assert Mended(6, tmp_path).compute(engine="serial").status.finished


def test_a_success_between_deaths_shows_that_the_machine_is_in_order():
    """Only so many in a row that have ended their worker stop a session."""
    blame = FailurePolicy()
    for position in range(PROBES - 1):
        blame.died_alone(failure(position, "signal SIGSEGV"), MAP)
    blame.lone_deaths = 0
    for position in range(PROBES - 1):
        blame.died_alone(failure(position, "signal SIGSEGV"), MAP)

    with pytest.raises(rs.WorkerDied, match=r"last 20 positions.*\(4, 2\) with signal"):
        blame.died_alone(failure(42, "signal SIGSEGV"), MAP)
