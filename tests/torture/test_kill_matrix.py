"""Killed a thousand times at random moments: the long form of ``test_kill.py``."""

import time

import kill_matrix
import pytest

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600, method="signal")]


@pytest.mark.parametrize("case", kill_matrix.CASES, ids="-".join)
def test_a_thousand_kills_do_no_harm(program_server, tmp_path, case):
    given = (program_server, tmp_path, *case, 300)
    tally = kill_matrix.matrix(*given, seed=int(time.time()))

    assert tally.faults == []
    assert tally.kills == 300
    assert tally.completed >= 1
