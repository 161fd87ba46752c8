"""The table of sessions."""

import time

import pytest
from helpers import compute
from processes import Hooked

from resumable.runfile import RunFile


class Watched(Hooked):
    version = 1

    def unit_computation(self, spectrum):
        if self.position == 3:
            self.watch()
        return spectrum.mean()


@pytest.mark.parametrize("by_s", [-86400, 86400])
def test_a_session_lasts_as_long_as_it_took_where_the_clock_is_set(
    scan, monkeypatch, by_s
):
    process, real = Watched(scan), time.time
    process.watch = lambda: monkeypatch.setattr(time, "time", lambda: real() + by_s)
    began = real()
    results = compute(process)
    (session,) = RunFile(results.path).sessions()

    assert began <= session.start < session.end <= real()
