"""What is left, divided by numbers: every position once, whoever takes what."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.engines.counter import InterleavedCounter
from resumable.model.positions import WINDOW, PositionSet
from resumable.model.schedule import Remainder


def of_mask(mask):
    return PositionSet.of(len(mask), np.flatnonzero(mask))


def positions(remainder, first, last):
    found = [b.positions() for b in remainder.batches(first, last, block=4)]
    return np.concatenate([*found, np.empty(0, np.int64)]).tolist()


@given(
    st.lists(st.booleans(), min_size=1, max_size=80),
    st.lists(st.integers(1, 9), min_size=100, max_size=100),
    st.integers(1, 12),
    st.sets(st.integers(0, 79), max_size=4),
)
def test_portions_hold_every_position_once_and_in_order(mask, cuts, quantum, excluded):
    excluded = [p for p in excluded if p < len(mask)]
    mask = np.array(mask)
    mask[excluded] = False
    remainder = Remainder(of_mask(mask), quantum, excluded)
    bounds = np.cumsum([0, *cuts])
    batches = [
        batch
        for first, last in itertools.pairwise(bounds)
        if first < remainder.total
        for batch in remainder.batches(int(first), int(last), block=4)
    ]
    found = [p for batch in batches for p in batch.positions().tolist()]

    assert remainder.total == mask.sum()
    assert found == np.flatnonzero(mask).tolist()
    for batch in batches:
        assert batch.count == len(batch.positions())
        assert not any(batch.start <= p < batch.stop for p in excluded)


@given(st.integers(1, 10), st.integers(1, 10), st.integers(1, 20))
def test_portions_end_at_multiples_of_the_quantum(first, more, quantum):
    size = 200
    remainder = Remainder(PositionSet.full(size), quantum)
    found = positions(remainder, first, first + more)

    assert found == [] or found[0] % quantum == 0
    assert found == [] or (found[-1] + 1) % quantum == 0 or found[-1] == size - 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_portions_may_span_several_windows(share):
    size = 2 * WINDOW + 77
    mask = np.random.default_rng(1).random(size) < share
    mask[WINDOW : WINDOW + 5] = mask[-1] = True
    remainder = Remainder(of_mask(mask))
    wanted = np.flatnonzero(mask)
    step = max(1, remainder.total // 7)
    found = [
        position
        for first in range(0, remainder.total, step)
        for position in positions(remainder, first, first + step)
    ]

    assert found == wanted.tolist()


def test_no_batch_is_longer_than_a_window():
    mask = np.zeros(3 * WINDOW, bool)
    mask[[0, WINDOW, 3 * WINDOW - 1]] = True
    remainder = Remainder(of_mask(mask))

    batches = list(remainder.batches(0, 3, block=1))

    assert [b.positions().tolist() for b in batches] == [
        [0],
        [WINDOW],
        [3 * WINDOW - 1],
    ]


def test_what_is_left_of_very_many_positions_is_few_bytes():
    fresh = PositionSet.full(10**8)
    resumed = PositionSet.full(10**8)
    for position in range(0, 10**8, 10**4):
        resumed.discard(position)

    assert len(pickle.dumps(Remainder(fresh))) < 10_000
    assert len(pickle.dumps(Remainder(resumed))) < 1_000_000


@pytest.mark.parametrize("share", [0.001, 0.5])
def test_bitmaps_too_large_to_be_sent_are_lent(share):
    size = 20 * WINDOW
    mask = np.random.default_rng(1).random(size) < share
    mask[:WINDOW], mask[5 * WINDOW : 6 * WINDOW] = True, False
    told, remainder = Remainder(of_mask(mask)), Remainder(of_mask(mask))
    lent = remainder.lend()
    message = pickle.dumps(remainder)
    heard = pickle.loads(message)
    heard.read = lambda offset, length: lent[offset : offset + length]
    step = told.total // 5 + 1

    assert len(message) < 2000
    for first in range(0, told.total, step):
        expected = positions(told, first, first + step)
        assert positions(heard, first, first + step) == expected


def test_room_is_reserved_only_where_bitmaps_must_be_lent():
    size = 20 * WINDOW
    pending = of_mask(np.random.default_rng(1).random(size) < 0.5)
    room = Remainder.room(pending, 20)
    for position in pending.spread(20):
        pending.discard(position)
    few = PositionSet.full(10**8)
    for position in range(0, 10**8, 10**4):
        few.discard(position)

    assert len(Remainder(pending).lend()) <= room
    assert Remainder.room(few, 20) == 0
    assert Remainder.room(PositionSet.full(10**8), 20) == 0
    assert Remainder.room(PositionSet(size), 20) == 0


@given(st.integers(1, 5), st.integers(0, 3000))
def test_numbers_dealt_out_in_turn_are_all_dealt_out_once(workers, total):
    dealt = []
    for worker in range(workers):
        counter = InterleavedCounter(worker, workers)
        counter.begin(Remainder(PositionSet.full(total)))
        while (portion := counter.take(3)).first < total:
            dealt += range(portion.first, min(portion.last, total))

    assert sorted(dealt) == list(range(total))
