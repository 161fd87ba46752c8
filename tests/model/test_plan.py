"""What a plan says."""

from __future__ import annotations

import pytest
from plans import make_plan, walk

from resumable.model.positions import PositionSet
from resumable.model.schedule import Schedule


def test_a_printed_plan_says_what_will_be_done_and_why():
    """Every number of it is there, in units for people."""
    text = str(make_plan(pending=9000, notes=("mind the gap",)))

    assert text.splitlines()[0] == "compute: no run matches"
    assert "scan-data-Mean-0123abcd.h5 (results 80 kB)" in text
    assert "9,000 of 10,000 to compute" in text
    assert "local, 2 at once" in text
    assert "2 GB in all, 900 MB for the rows of each worker" in text
    assert "1,000 positions at once, 4 MB" in text
    assert "committed every 10 s" in text
    assert "note          mind the gap" in text
    assert "reading" not in text
    assert "time   " not in text


def test_a_printed_plan_tells_the_read_amplification():
    """Chunks that run across positions are read more than once."""
    text = str(make_plan(read_amplification=4.04))

    assert "4.0 bytes for each byte used" in text


def test_a_plan_knows_time_and_batches_once_a_position_was_timed():
    """Two workers take half of the time; the batches are those of a schedule."""
    plan = make_plan(seconds_per_position=0.01)
    schedule = Schedule(PositionSet.full(10_000), plan, proven=True)

    batches = walk(schedule, lambda batch: 0.01 * batch.count)

    assert plan.seconds == pytest.approx(50.0)
    assert plan.batches == pytest.approx(len(batches), rel=0.2, abs=2)
    assert "about 50 s (10 ms per position)" in str(plan)
    assert f"about {plan.batches}" in str(plan)


def test_a_plan_that_was_not_timed_promises_no_time():
    """No number is better than a made-up one."""
    plan = make_plan()

    assert (plan.seconds, plan.batches) == (None, None)
