"""What a plan says, and how a memory budget is divided into workers and rows."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import MB, footprint, make_geometry, make_plan, walk

from resumable.errors import PlanError
from resumable.model.plan import BLOCK_BYTES, SERVER_BYTES, WORKER_BYTES, fit_memory
from resumable.model.positions import PositionSet
from resumable.model.schedule import Schedule
from resumable.model.units import parse_bytes


def test_a_printed_plan_says_what_will_be_done_and_why():
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
    plan = make_plan()

    assert (plan.seconds, plan.batches) == (None, None)


@given(
    per_row=st.integers(1, 200_000),
    scratch=st.integers(0, 200_000),
    memory=st.integers(1, 8 * MB) | st.integers(1, 2000 * MB),
    workers=st.integers(1, 16),
    local=st.booleans(),
    chunk=st.integers(1, 5000),
    indivisible=st.booleans(),
)
def test_what_is_planned_fits_the_budget_in_whole_chunks(
    per_row, scratch, memory, workers, local, chunk, indivisible
):
    """All workers and the server together stay below it, or it is refused."""
    needs = footprint(per_row, lambda rows: scratch * rows)
    geometry = make_geometry(
        20_000,
        row_bytes=per_row,
        chunk_map=(chunk,),
        chunk_bytes=chunk * per_row,
        indivisible=indivisible,
    )
    base, server = (WORKER_BYTES, SERVER_BYTES) if local else (0, 0)
    try:
        blocks = fit_memory(
            needs, geometry, memory=memory, workers=workers, local=local
        )
    except PlanError:
        assert needs(1) + base + server > memory
        return

    assert 1 <= blocks.workers <= workers
    assert 1 <= blocks.rows <= geometry.size
    assert blocks.workers * (needs(blocks.rows) + base) + server <= memory
    assert needs(blocks.rows) <= blocks.share_bytes
    if needs(chunk) <= blocks.share_bytes and blocks.rows < geometry.size:
        assert blocks.rows % chunk == 0


def test_a_generous_budget_keeps_all_workers_and_small_blocks():
    """Blocks beyond a few MB only cost cache misses."""
    blocks = fit_memory(
        footprint(), make_geometry(), memory=10_000 * MB, workers=8, local=True
    )

    assert blocks.workers == 8
    assert blocks.rows * 1000 <= BLOCK_BYTES


def test_a_small_budget_takes_fewer_workers():
    memory = SERVER_BYTES + 3 * (WORKER_BYTES + 5000) + 100

    blocks = fit_memory(
        footprint(5000), make_geometry(), memory=memory, workers=8, local=True
    )

    assert blocks.workers == 3


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("per_row", [700, 1001, 123_456, 7_654_321, 1_234_567_890])
def test_a_budget_too_small_names_the_least_and_the_least_works(local, per_row):
    needs, geometry = footprint(per_row), make_geometry()
    limit = {"workers": 4, "local": local}
    with pytest.raises(PlanError, match="more than the budget of") as caught:
        fit_memory(needs, geometry, memory=per_row // 2, **limit)
    named = re.search(r"memory='?([^'(]+)", str(caught.value)).group(1)

    blocks = fit_memory(needs, geometry, memory=parse_bytes(named), **limit)

    assert (blocks.workers, blocks.rows >= 1) == (1, True)


@pytest.mark.parametrize("local", [False, True])
def test_one_byte_below_the_least_is_refused(local):
    base = WORKER_BYTES + SERVER_BYTES if local else 0
    limit = {"workers": 1, "local": local}
    least = base + 1000

    assert fit_memory(footprint(), make_geometry(), memory=least, **limit).rows == 1
    with pytest.raises(PlanError):
        fit_memory(footprint(), make_geometry(), memory=least - 1, **limit)


def test_scratch_counts_for_the_budget():
    with_scratch = footprint(1000, lambda rows: 99_000 * rows)

    blocks = fit_memory(
        with_scratch, make_geometry(), memory=1 * MB, workers=1, local=False
    )

    assert blocks.rows == 10


@pytest.mark.parametrize(
    ("chunk", "memory", "rows"),
    [(100, 976_000, 900), (9000, 100 * MB, 9000), (9000, 8 * MB, 8000)],
    ids=["whole chunks", "one chunk", "a chunk does not fit"],
)
def test_blocks_are_whole_chunks_where_a_chunk_fits(chunk, memory, rows):
    geometry = make_geometry(chunk_map=(chunk,), indivisible=True)

    blocks = fit_memory(footprint(), geometry, memory=memory, workers=1, local=False)

    assert blocks.rows == rows


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(0, 10**8))
def test_rows_within_a_budget_fit_and_one_more_does_not(per_row, fixed, budget):
    """Found by bisection, because scratch may be any growing function."""
    needs = footprint(per_row, lambda rows: fixed + rows * rows)

    rows = needs.rows_within(budget)

    assert rows == 0 or needs(rows) <= budget
    assert needs(rows + 1) > budget
