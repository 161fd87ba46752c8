"""How the work is cut: memory into rows, time into batches."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.errors import PlanError
from resumable.model import plan as module
from resumable.model.plan import (
    SERVER_BYTES,
    TRIALS,
    WORKER_BYTES,
    Footprint,
    Geometry,
    Plan,
    Schedule,
    fit_memory,
)
from resumable.model.positions import PositionSet
from resumable.model.units import parse_bytes

MB = 1_000_000


def make_plan(**changes):
    """Return a plan of two workers, changed where a test says so."""
    plan = Plan(
        action="compute",
        reason="no run matches",
        path="scan-data-Mean-0123abcd.h5",
        positions=10_000,
        pending=10_000,
        engine="local",
        workers=2,
        memory_bytes=2_000 * MB,
        share_bytes=900 * MB,
        block=1000,
        block_bytes=4 * MB,
        quantum=1,
        read_amplification=1.0,
        output_bytes=80_000,
        checkpoint_s=10.0,
    )
    return dataclasses.replace(plan, **changes)


def make_geometry(size=10_000, **changes):
    """Return a contiguous source of rows of 1000 bytes."""
    plain = Geometry((size,), (1000,), 1000, (1,), 1000, False, True)
    return plain._replace(**changes)


def footprint(per_row=1000, scratch=lambda rows: 0):
    """Return a footprint of so many bytes per row."""
    return Footprint(per_row, 0, scratch)


def walk(schedule, seconds=lambda batch: 1e-3 * batch.count):
    """Take every batch of a schedule, each of which takes `seconds`."""
    batches = []
    while (batch := schedule.next()) is not None:
        batches.append(batch)
        schedule.note(batch.count, seconds(batch))
        schedule.proven = True
    return batches


# Batches.


@settings(max_examples=30)
@given(
    size=st.integers(1, 400),
    quantum=st.integers(1, 50),
    workers=st.integers(1, 4),
    checkpoint=st.floats(0.01, 100),
    proven=st.booleans(),
    data=st.data(),
)
def test_every_pending_position_is_handed_out_exactly_once(
    size, quantum, workers, checkpoint, proven, data
):
    """Whatever times are reported, limits given, and batches given back."""
    pattern = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    pending = PositionSet.of(size, np.flatnonzero(pattern))
    plan = make_plan(
        workers=workers,
        quantum=quantum,
        checkpoint_s=checkpoint,
        read_amplification=data.draw(st.sampled_from([1.0, 4.0])),
        block=data.draw(st.integers(1, 100)),
    )
    seen: collections.Counter[int] = collections.Counter()
    left = sum(pattern)
    with mock.patch.object(module, "WINDOW", 64):
        schedule = Schedule(pending, plan, proven=proven)
        limit = data.draw(st.sampled_from([None, 0.01, 5.0]))
        while (batch := schedule.next(limit)) is not None:
            positions = batch.positions().tolist()
            assert len(positions) == batch.count > 0
            assert batch.start <= positions[0] < positions[-1] + 1 <= batch.stop <= size
            event = data.draw(st.sampled_from(["done", "done", "done", "back"]))
            if event == "back":
                schedule.give_back(batch)
                assert schedule.remaining == left
                batch = schedule.next(limit)
                assert batch.positions().tolist() == positions
            left -= batch.count
            assert schedule.remaining == left
            seen.update(positions)
            schedule.note(batch.count, data.draw(st.floats(0, 1000)))
            if batch.trial:
                schedule.trial_ended()
            schedule.proven |= data.draw(st.booleans())

    assert seen == collections.Counter(np.flatnonzero(pattern).tolist())


def test_the_first_batches_are_single_positions_spread_over_the_run():
    """Before anything has succeeded, twenty positions are tried one by one."""
    pending = PositionSet.full(1000)
    expected = pending.spread(TRIALS)

    schedule = Schedule(pending, make_plan())
    batches = [schedule.next() for _ in range(TRIALS)]

    assert [batch.positions().tolist() for batch in batches] == [[i] for i in expected]
    assert all(batch.trial for batch in batches)
    assert max(expected) > 900


def test_no_more_is_tried_once_a_position_has_succeeded():
    """The trials that are left are handed out as ordinary positions."""
    schedule = Schedule(PositionSet.full(1000), make_plan())
    schedule.next()

    batches = walk(schedule)

    assert schedule.next() is None
    assert batches[0].trial
    assert not any(batch.trial for batch in batches[1:])


def test_a_run_that_has_succeeded_before_is_not_tried_again():
    """Going on after an interruption begins with ordinary batches."""
    schedule = Schedule(PositionSet.full(1000), make_plan(), proven=True)

    assert not any(batch.trial for batch in walk(schedule))


@given(
    size=st.integers(1, 500),
    quantum=st.integers(1, 60),
    rate=st.floats(1e-4, 1),
)
def test_batches_end_at_chunk_boundaries(size, quantum, rate):
    """No batch but one that lies inside a single chunk ends in the middle of one."""
    schedule = Schedule(PositionSet.full(size), make_plan(quantum=quantum), proven=True)

    batches = walk(schedule, lambda batch: rate * batch.count)

    for batch in batches:
        in_one_chunk = batch.start // quantum == (batch.stop - 1) // quantum
        assert batch.stop % quantum == 0 or in_one_chunk


def test_a_batch_that_was_given_back_is_handed_out_next():
    """What a stopping worker did not compute is not forgotten."""
    schedule = Schedule(PositionSet.full(100), make_plan(), proven=True)
    first, second = schedule.next(), schedule.next()

    schedule.give_back(first)
    schedule.give_back(second)

    assert [schedule.next(), schedule.next()] == [first, second]


@pytest.mark.parametrize("rate", [1e-5, 1e-3, 0.1, 1.0])
def test_a_batch_takes_a_fraction_of_the_checkpoint_interval(rate):
    """Slow positions come in small batches and fast ones in large ones."""
    plan = make_plan(checkpoint_s=10.0)
    schedule = Schedule(PositionSet.full(10_000_000), plan, proven=True)
    for _ in range(12):
        batch = schedule.next()
        schedule.note(batch.count, rate * batch.count)

    largest = schedule.next().count

    assert largest == pytest.approx(2.5 / rate, rel=0.02, abs=1)


def test_batches_become_smaller_when_positions_become_slower():
    """The time of the last batches counts, not that of the first."""
    schedule = Schedule(PositionSet.full(10**7), make_plan(), proven=True)
    for _ in range(12):
        batch = schedule.next()
        schedule.note(batch.count, 1e-4 * batch.count)
    before = schedule.next().count

    for _ in range(12):
        schedule.note(before, 1e-2 * before)

    assert schedule.next().count < 0.05 * before


def test_one_fast_batch_does_not_make_the_next_one_huge():
    """Sizes grow step by step, because the first times are guesses."""
    schedule = Schedule(PositionSet.full(10**7), make_plan(), proven=True)
    batch = schedule.next()
    assert batch.count == 1

    schedule.note(1, 1e-9)

    assert 1 < schedule.next().count <= module.GROWTH


def test_a_batch_fits_into_the_time_that_is_left():
    """Near a time limit batches are cut to what can still be finished."""
    schedule = Schedule(PositionSet.full(10**6), make_plan(), proven=True)
    for _ in range(12):
        batch = schedule.next()
        schedule.note(batch.count, 1e-3 * batch.count)

    batch = schedule.next(seconds=0.1)

    assert batch.count <= 101


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("quantum", [1, 32])
def test_each_worker_gets_at_least_four_batches_where_there_is_enough_work(
    workers, quantum
):
    """Ten seconds of work in one batch would leave the other workers idle."""
    plan = make_plan(workers=workers, quantum=quantum, checkpoint_s=1000.0)
    schedule = Schedule(PositionSet.full(10_000), plan, proven=True)

    batches = walk(schedule)

    assert len(batches) >= 4 * workers
    assert max(batch.count for batch in batches) <= 10_000 / (4 * workers)


def test_batches_shrink_to_the_end():
    """All workers end at about the same time."""
    plan = make_plan(workers=2, checkpoint_s=1000.0)
    schedule = Schedule(PositionSet.full(100_000), plan, proven=True)

    counts = [batch.count for batch in walk(schedule)]

    peak = counts.index(max(counts))
    assert all(a >= b for a, b in zip(counts[peak:], counts[peak + 1 :], strict=False))
    assert counts[-1] <= 0.01 * max(counts)


def test_short_batches_are_not_cut_below_what_a_hand_out_costs():
    """Microsecond positions are not handed out a few at a time at the end."""
    schedule = Schedule(PositionSet.full(1_000_000), make_plan(), proven=True)

    batches = walk(schedule, lambda batch: 1e-6 * batch.count)

    full = [batch.count for batch in batches[6:-1]]
    assert min(full) >= module.SHORTEST_BATCH_S / 1e-6 * 0.99


def test_a_batch_is_worth_the_chunks_that_are_read_for_it():
    """Reading all of a stack for one position does not make the next batch small."""
    plan = make_plan(quantum=10_000, block=5000, checkpoint_s=1.0)
    schedule = Schedule(PositionSet.full(10_000), plan, proven=True)

    first = schedule.next()
    schedule.note(first.count, 1e-3, read_seconds=3.0)
    second = schedule.next()
    schedule.note(second.count, 1e-3 * second.count, read_seconds=0.1)
    third = schedule.next()

    assert first.count == 1
    assert second.count == 5000
    assert third.count == 400


def test_the_time_left_is_the_work_of_one_worker():
    """Nothing is known before the first batch, everything is done after the last."""
    schedule = Schedule(PositionSet.full(100), make_plan(), proven=True)
    unknown = schedule.seconds_left
    schedule.note(schedule.next().count, 0.5)

    assert unknown is None
    assert schedule.seconds_left == pytest.approx(0.5 * 99)


def test_a_measured_peak_above_the_budget_makes_blocks_smaller():
    """The worker's real memory counts, not the declared one."""
    plan = make_plan(share_bytes=100 * MB, block=1000, block_bytes=1 * MB)
    schedule = Schedule(PositionSet.full(10_000), plan)

    schedule.note_memory(WORKER_BYTES + 10 * MB, 100)
    schedule.note_memory(WORKER_BYTES + 400 * MB, 1000)

    per_row = (400 - 10) * MB / 900
    assert 1 <= schedule.block * per_row <= 100 * MB


def test_a_measured_peak_within_the_budget_leaves_blocks_alone():
    """Blocks never become larger than planned, and not smaller without need."""
    plan = make_plan(share_bytes=100 * MB, block=1000, block_bytes=1 * MB)
    schedule = Schedule(PositionSet.full(10_000), plan)

    schedule.note_memory(WORKER_BYTES, 1)
    schedule.note_memory(WORKER_BYTES + 1 * MB, 1000)

    assert schedule.block == 1000


# Memory.


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
    assert blocks.rows * 1000 <= module.BLOCK_BYTES


def test_a_small_budget_takes_fewer_workers():
    """Rather than fail, as many work as fit."""
    memory = SERVER_BYTES + 3 * (WORKER_BYTES + 5000) + 100

    blocks = fit_memory(
        footprint(5000), make_geometry(), memory=memory, workers=8, local=True
    )

    assert blocks.workers == 3


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("per_row", [700, 1001, 123_456, 7_654_321, 1_234_567_890])
def test_a_budget_too_small_names_the_least_and_the_least_works(local, per_row):
    """Pasting the named budget into the call is all a user has to do."""
    needs, geometry = footprint(per_row), make_geometry()
    limit = {"workers": 4, "local": local}
    with pytest.raises(PlanError, match="more than the budget of") as caught:
        fit_memory(needs, geometry, memory=per_row // 2, **limit)
    named = re.search(r"memory='?([^'(]+)", str(caught.value)).group(1)

    blocks = fit_memory(needs, geometry, memory=parse_bytes(named), **limit)

    assert (blocks.workers, blocks.rows >= 1) == (1, True)


@pytest.mark.parametrize("local", [False, True])
def test_one_byte_below_the_least_is_refused(local):
    """The least is the least: what is named is not more than is needed."""
    base = WORKER_BYTES + SERVER_BYTES if local else 0
    limit = {"workers": 1, "local": local}
    least = base + 1000

    blocks = fit_memory(footprint(), make_geometry(), memory=least, **limit)

    assert blocks.rows == 1
    with pytest.raises(PlanError):
        fit_memory(footprint(), make_geometry(), memory=least - 1, **limit)


def test_scratch_counts_for_the_budget():
    """A computation that says what it needs gets blocks that leave room for it."""
    with_scratch = footprint(1000, lambda rows: 99_000 * rows)

    blocks = fit_memory(
        with_scratch, make_geometry(), memory=1 * MB, workers=1, local=False
    )

    assert blocks.rows == 10


def test_blocks_are_whole_chunks_under_a_small_budget_too():
    """A block of nine chunks and a part of the tenth reads that one twice."""
    geometry = make_geometry(chunk_map=(100,), indivisible=True)

    blocks = fit_memory(footprint(), geometry, memory=976_000, workers=1, local=False)

    assert blocks.rows == 900


def test_a_block_holds_at_least_one_chunk_where_it_fits():
    """Chunks above the usual size of a block are still read once."""
    geometry = make_geometry(chunk_map=(9000,), indivisible=True)

    blocks = fit_memory(footprint(), geometry, memory=100 * MB, workers=1, local=False)

    assert blocks.rows == 9000


def test_blocks_are_as_large_as_possible_where_a_chunk_does_not_fit():
    """The fewer and larger the blocks, the less of a chunk is read again."""
    geometry = make_geometry(chunk_map=(9000,), indivisible=True)

    blocks = fit_memory(footprint(), geometry, memory=8 * MB, workers=1, local=False)

    assert blocks.rows == 8000


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(0, 10**8))
def test_rows_within_a_budget_fit_and_one_more_does_not(per_row, fixed, budget):
    """Found by bisection, because scratch may be any growing function."""
    needs = footprint(per_row, lambda rows: fixed + rows * rows)

    rows = needs.rows_within(budget)

    assert rows == 0 or needs(rows) <= budget
    assert needs(rows + 1) > budget


# How positions lie in chunks.


@pytest.mark.parametrize(
    ("map_shape", "chunk_map", "quantum"),
    [
        ((1000,), (1,), 1),
        ((1000,), (64,), 64),
        ((10,), (64,), 10),
        ((20, 30), (1, 1), 1),
        ((20, 30), (4, 8), 120),
        ((20, 30), (1, 8), 30),
        ((20, 30), (64, 30), 600),
        ((4, 5, 6), (2, 5, 6), 60),
    ],
)
def test_the_quantum_is_a_band_of_whole_chunks(map_shape, chunk_map, quantum):
    """In flat order, so that a batch of that length ends where chunks end."""
    geometry = make_geometry(map_shape=map_shape, chunk_map=chunk_map)

    assert geometry.quantum == quantum


@given(st.data())
def test_amplification_is_the_bytes_of_the_touched_chunks_over_those_used(data):
    """Counted one by one for a block that begins where chunks begin."""
    shape = (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))
    chunk = tuple(data.draw(st.integers(1, n)) for n in shape)
    in_a_row = data.draw(st.integers(1, shape[1]))
    whole_rows = shape[1] * data.draw(st.integers(1, shape[0]))
    rows = data.draw(st.sampled_from([in_a_row, whole_rows]))
    geometry = make_geometry(
        map_shape=shape,
        chunk_map=chunk,
        chunk_bytes=1000 * math.prod(chunk),
        indivisible=True,
    )
    cells = {
        (flat // shape[1] // chunk[0], flat % shape[1] // chunk[1])
        for flat in range(rows)
    }

    amplification = geometry.amplification(rows)

    read = len(cells) * math.prod(chunk)
    assert amplification == pytest.approx(max(1.0, read / rows))


@pytest.mark.parametrize(
    "geometry",
    [
        make_geometry(chunk_map=(64,), chunk_bytes=64_000, indivisible=False),
        make_geometry(row_bytes=0, chunk_bytes=0, indivisible=True),
    ],
    ids=["not compressed", "no data"],
)
def test_nothing_is_read_twice_where_chunks_can_be_divided(geometry):
    """Only compressed chunks must be read whole."""
    assert geometry.amplification(1) == 1.0


# What a plan says.


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


# 10^8 positions.

_LARGE = """
import re
import numpy as np
from resumable.model.plan import Plan, Schedule
from resumable.model.positions import PositionSet
from test_plan import make_plan

size = 10**8
{build}
schedule = Schedule(pending, make_plan(positions=size, pending=size // 2, quantum=256))
count = 0
while (batch := schedule.next()) is not None:
    count += batch.count
    schedule.proven = True
    schedule.note(batch.count, 1e-6 * batch.count)
status = open("/proc/self/status").read()
print(count, int(re.search(r"VmHWM:\\s+(\\d+) kB", status).group(1)) * 1024)
"""
_FROM_STATUS = """
pending = PositionSet(size)
for start, stop in pending.windows():
    pending.set_window(start, np.arange(start, stop) % 2 == 0)
"""
_FROM_A_SLICE = "pending = PositionSet.chosen(slice(0, None, 2), (size,))"
_FROM_A_MASK = """
mask = np.zeros((10**4, 10**4), bool)
mask[:, ::2] = True
pending = PositionSet.chosen(mask, mask.shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "build",
    [_FROM_STATUS, _FROM_A_SLICE, _FROM_A_MASK],
    ids=["from the status", "from a slice", "from a mask"],
)
def test_a_hundred_million_scattered_positions_take_less_than_500_mb(build):
    """Every second one is pending: set and schedule stay small."""
    done = subprocess.run(
        [sys.executable, "-c", _LARGE.format(build=build)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    count, peak = map(int, done.stdout.split())

    assert count == 50_000_000
    assert peak < 500 * MB
