"""Pending positions cut into batches."""

import collections
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import MB, make_plan, walk

from resumable.model import schedule as module
from resumable.model.plan import WORKER_BYTES
from resumable.model.positions import PositionSet
from resumable.model.schedule import PROBES, Schedule


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
            if batch.probe:
                schedule.probing -= 1
            schedule.proven |= data.draw(st.booleans())

    assert seen == collections.Counter(np.flatnonzero(pattern).tolist())


def test_the_first_batches_are_single_positions_spread_over_the_run():
    pending = PositionSet.full(1000)
    expected = pending.spread(PROBES)

    schedule = Schedule(pending, make_plan())
    batches = [schedule.next() for _ in range(PROBES)]

    assert [batch.positions().tolist() for batch in batches] == [[i] for i in expected]
    assert all(batch.probe for batch in batches)
    assert max(expected) > 900


def test_no_more_is_tried_once_a_position_has_succeeded():
    schedule = Schedule(PositionSet.full(1000), make_plan())
    schedule.next()

    batches = walk(schedule)

    assert schedule.next() is None
    assert batches[0].probe
    assert not any(batch.probe for batch in batches[1:])


def test_a_run_that_has_succeeded_before_is_not_tried_again():
    schedule = Schedule(PositionSet.full(1000), make_plan(), proven=True)

    assert not any(batch.probe for batch in walk(schedule))


@given(size=st.integers(1, 500), quantum=st.integers(1, 60), rate=st.floats(1e-4, 1))
def test_batches_end_at_chunk_boundaries(size, quantum, rate):
    schedule = Schedule(PositionSet.full(size), make_plan(quantum=quantum), proven=True)

    batches = walk(schedule, lambda batch: rate * batch.count)

    for batch in batches:
        in_one_chunk = batch.start // quantum == (batch.stop - 1) // quantum
        assert batch.stop % quantum == 0 or in_one_chunk


def test_a_batch_that_was_given_back_is_handed_out_next():
    schedule = Schedule(PositionSet.full(100), make_plan(), proven=True)
    first, second = schedule.next(), schedule.next()

    schedule.give_back(first)
    schedule.give_back(second)

    assert [schedule.next(), schedule.next()] == [first, second]


def settle(schedule, rate):
    for _ in range(12):
        batch = schedule.next()
        schedule.note(batch.count, rate * batch.count)


@pytest.mark.parametrize("rate", [1e-5, 1e-3, 0.1, 1.0])
def test_a_batch_takes_a_fraction_of_the_checkpoint_interval(rate):
    plan = make_plan(checkpoint_s=10.0)
    schedule = Schedule(PositionSet.full(10_000_000), plan, proven=True)
    settle(schedule, rate)

    assert schedule.next().count == pytest.approx(2.5 / rate, rel=0.02, abs=1)


def test_batches_become_smaller_when_positions_become_slower():
    schedule = Schedule(PositionSet.full(10**7), make_plan(), proven=True)
    settle(schedule, 1e-4)
    before = schedule.next().count

    for _ in range(12):
        schedule.note(before, 1e-2 * before)

    assert schedule.next().count < 0.05 * before


def test_one_fast_batch_does_not_make_the_next_one_huge():
    schedule = Schedule(PositionSet.full(10**7), make_plan(), proven=True)
    batch = schedule.next()
    assert batch.count == 1

    schedule.note(1, 1e-9)

    assert 1 < schedule.next().count <= module.GROWTH


def test_a_batch_fits_into_the_time_that_is_left():
    schedule = Schedule(PositionSet.full(10**6), make_plan(), proven=True)
    settle(schedule, 1e-3)

    assert schedule.next(seconds=0.1).count <= 101


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("quantum", [1, 32])
def test_each_worker_gets_at_least_four_batches_where_there_is_enough_work(
    workers, quantum
):
    plan = make_plan(workers=workers, quantum=quantum, checkpoint_s=1000.0)
    schedule = Schedule(PositionSet.full(10_000), plan, proven=True)

    batches = walk(schedule)

    assert len(batches) >= 4 * workers
    assert max(batch.count for batch in batches) <= 10_000 / (4 * workers)


def test_batches_shrink_to_the_end():
    plan = make_plan(workers=2, checkpoint_s=1000.0)
    schedule = Schedule(PositionSet.full(100_000), plan, proven=True)

    counts = [batch.count for batch in walk(schedule)]

    peak = counts.index(max(counts))
    assert all(a >= b for a, b in zip(counts[peak:], counts[peak + 1 :], strict=False))
    assert counts[-1] <= 0.01 * max(counts)


def test_short_batches_are_not_cut_below_what_a_hand_out_costs():
    schedule = Schedule(PositionSet.full(1_000_000), make_plan(), proven=True)

    batches = walk(schedule, lambda batch: 1e-6 * batch.count)

    full = [batch.count for batch in batches[6:-1]]
    assert min(full) >= module.SHORTEST_BATCH_S / 1e-6 * 0.99


def test_a_batch_is_worth_the_chunks_that_are_read_for_it():
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
    schedule = Schedule(PositionSet.full(100), make_plan(), proven=True)
    unknown = schedule.seconds_left
    schedule.note(schedule.next().count, 0.5)

    assert unknown is None
    assert schedule.seconds_left == pytest.approx(0.5 * 99)


def test_a_measured_peak_above_the_budget_makes_blocks_smaller():
    plan = make_plan(share_bytes=100 * MB, block=1000, block_bytes=1 * MB)
    schedule = Schedule(PositionSet.full(10_000), plan)

    schedule.note_memory(WORKER_BYTES + 10 * MB, 100)
    schedule.note_memory(WORKER_BYTES + 400 * MB, 1000)

    per_row = (400 - 10) * MB / 900
    assert 1 <= schedule.block * per_row <= 100 * MB


def test_a_measured_peak_within_the_budget_leaves_blocks_alone():
    plan = make_plan(share_bytes=100 * MB, block=1000, block_bytes=1 * MB)
    schedule = Schedule(PositionSet.full(10_000), plan)

    schedule.note_memory(WORKER_BYTES, 1)
    schedule.note_memory(WORKER_BYTES + 1 * MB, 1000)

    assert schedule.block == 1000


_LARGE = """
import re
import numpy as np
from resumable.model.schedule import Schedule
from resumable.model.positions import PositionSet
from plans import make_plan

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
    output = subprocess.check_output(
        [sys.executable, "-c", _LARGE.format(build=build)],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    count, peak = map(int, output.split())

    assert count == 50_000_000
    assert peak < 500 * MB
