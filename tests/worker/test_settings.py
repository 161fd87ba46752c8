"""Settings of the script where it computes in other threads and processes."""

import sys
from typing import ClassVar

import numpy as np
import pytest

import resumable as rs
from resumable.worker import kept_settings, settings_here

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
