"""Settings of the script where it computes in other threads and processes."""

import sys
import warnings
from typing import ClassVar

import numpy as np
import pytest

import resumable as rs
from resumable.worker import WarningCounts, kept_filters, kept_settings, settings_here
from resumable.worker.warnings import count_warnings

pytestmark = pytest.mark.timeout(60, method="signal")


class Ratio(rs.Process):
    """Divides by zero; `setup` changes a setting of its own."""

    version = 1
    outputs: ClassVar = {"ratio": rs.Output()}

    def setup(self):
        np.set_printoptions(precision=1)

    def unit_computation(self, spectrum):
        return np.float64(1) / 0 + len(str(np.float64([1 / 3])))


@pytest.fixture
def raising():
    with kept_settings():
        np.seterr(divide="raise")
        yield


def test_a_run_in_the_background_has_the_settings_of_its_caller(source, raising):
    run = Ratio(source).start(engine="serial", on_error="raise")
    with pytest.raises(rs.UnitFailed, match="FloatingPointError"):
        run.wait()


def test_a_trial_leaves_the_settings_that_it_finds(source):
    before = settings_here()
    with np.errstate(divide="ignore"):
        Ratio(source).test()

    assert settings_here() == before


def test_filters_come_back_when_a_trial_and_a_computation_overlap():
    """As of a test while a run goes on in the background."""
    before, show = list(warnings.filters), warnings.showwarning
    for first_ends_first in (True, False):
        counts = WarningCounts()
        trial, computation = kept_filters(), count_warnings((), counts)
        trial.__enter__()
        warnings.simplefilter("ignore")
        computation.__enter__()
        ends = [trial, computation] if first_ends_first else [computation, trial]
        ends[0].__exit__(None, None, None)
        if first_ends_first:
            warnings.warn("odd", stacklevel=1)
        ends[1].__exit__(None, None, None)

        assert list(counts.counts.values()) == [1] * first_ends_first
        assert warnings.filters == before
        assert warnings.showwarning is show


def ratio_of(number):
    return str(np.float64([1.0]) / number)


def test_a_pool_has_the_settings_of_the_script_that_made_it():
    """Functions that numpy calls are sent, too."""
    told = []
    with kept_settings():
        np.seterr(divide="call")
        np.seterrcall(lambda kind, flag: sys.stdout.write(f"{kind} {flag}"))
        np.set_printoptions(formatter={"float": lambda value: f"<{value:g}>"})
        with rs.Pool(1) as pool:
            told += pool.imap(ratio_of, [2, 0])

    assert told == ["[<0.5>]", "[<inf>]"]


def test_a_host_without_the_locale_of_the_script_says_so():
    settings = settings_here()
    far = {**settings.locale, "LC_NUMERIC": "xx_YY.UTF-8"}
    with pytest.raises(RuntimeError, match="no locale 'xx_YY\\.UTF-8'"):
        settings._replace(locale=far).apply()
