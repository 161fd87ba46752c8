"""Warnings of computations: counted, shown once, filtered as the user says."""

import importlib
import pickle
import sys
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import resumable as rs
from resumable.engines.local import LocalEngine
from resumable.worker.warnings import (
    Warned,
    WarningCounts,
    count_warnings,
    warning_filters,
)

pytestmark = [
    pytest.mark.timeout(60, method="signal"),
    pytest.mark.filterwarnings("ignore:.*positions failed:resumable.ResumableWarning"),
]


class OddWarning(UserWarning):
    """Of the user's own."""


class Loaded(rs.Process):
    """Tells whether scipy is loaded where it computes."""

    version = 1
    outputs: ClassVar = {"scipy": rs.Output(dtype="i8")}

    def unit_computation(self, spectrum):
        return "scipy.special" in sys.modules


class Warns(rs.Process):
    """Warns at every position, in two ways."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        warnings.warn("an odd spectrum", RuntimeWarning, stacklevel=1)
        np.log(np.array([-1.0]))
        return spectrum.mean()


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_warnings_of_units_are_shown_once_with_a_count(source, engine):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        Warns(source).compute(engine=engine, workers=2)
    told = [w for w in caught if "odd" in str(w.message)]
    numpys = [w for w in caught if "invalid value" in str(w.message)]

    assert len(told) == len(numpys) == 1
    assert str(told[0].message) == "an odd spectrum (given 200 times)"
    assert told[0].category is RuntimeWarning
    assert Path(told[0].filename).name == Path(__file__).name


def test_warnings_and_failures_of_code_that_is_sent_have_its_file_and_line(source):
    class Sent(rs.Process):  # which a worker cannot import
        outputs: ClassVar = {"mean": rs.Output()}

        def unit_computation(self, spectrum):
            warnings.warn("odd where sent", RuntimeWarning, stacklevel=1)
            if self.position == 7:
                raise ValueError
            return spectrum.mean()

    with pytest.warns(RuntimeWarning, match="odd where sent") as caught:
        results = Sent(source).compute(engine=LocalEngine(2, "spawn"))

    line = Sent.unit_computation.__code__.co_firstlineno + 1
    places = {(w.filename, w.lineno) for w in caught if "sent" in str(w.message)}
    assert places == {(__file__, line)}
    told = results.failures[0].traceback
    assert f'File "{__file__}", line {line + 2}, in unit_computation' in told
    assert "raise ValueError" in told


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_ignored_warnings_are_not_shown_and_errors_are_raised(source, engine):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        Warns(source).compute(engine=engine, workers=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="an odd")
        with pytest.raises(rs.UnitFailed, match="RuntimeWarning: an odd spectrum"):
            Warns(source).compute(engine=engine, workers=2, override=True)

    assert caught == []


def test_filters_by_name_know_derived_categories_and_load_nothing():
    """What a filter names need not be there, and its subclasses are meant, too."""
    derived = type("Derived", (OddWarning,), {})
    counts = WarningCounts()
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore", OddWarning)
        filters = pickle.loads(pickle.dumps(warning_filters()))
    far = ("error", None, "far.away.Warning", None, 0)
    with count_warnings((far, *filters), counts):
        warnings.warn("ignored", derived, stacklevel=1)
        warnings.warn("counted", UserWarning, stacklevel=1)

    assert [warned.text for warned in counts.counts] == ["counted"]


def test_filters_of_a_library_do_not_load_it_in_workers(source):
    """scipy.special has filters of its own; a unit that does not need it has none."""
    importlib.import_module("scipy.special")
    # The other server would have loaded it for all, because it is loaded here.
    results = Loaded(source).compute(engine=LocalEngine(2, "spawn"), workers=2)

    assert set(results["scipy"][...]) == {0}


def test_warnings_of_many_texts_are_counted_together():
    """Texts that hold the position do not fill the memory."""
    counts = WarningCounts()
    for number in range(1000):
        counts.add(Warned(UserWarning, f"at {number}", "a.py", 3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts.show()

    assert len(caught) == 101
    assert "900 further" in str(caught[-1].message)


class WarnsOfCaller(rs.Process):
    version = 1
    outputs: ClassVar = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        warnings.warn("an odd spectrum", RuntimeWarning, stacklevel=2)
        return spectrum.mean()


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_a_warning_about_the_caller_shows_the_users_code(source, engine):
    with pytest.warns(RuntimeWarning, match="odd") as caught:
        WarnsOfCaller(source).compute(engine=engine, workers=1)
    unit = WarnsOfCaller.unit_computation.__code__

    assert [w.filename for w in caught] == [__file__]
    assert [w.lineno for w in caught] == [unit.co_firstlineno]
