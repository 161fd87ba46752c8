"""Sets of positions, held against plain Python sets."""

import dataclasses
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resumable.errors import PlanError
from resumable.model import positions as module
from resumable.model.batch import Batch, stretches
from resumable.model.positions import (
    WINDOW,
    PositionSet,
    flat_positions,
)

SIZES = st.integers(0, 200)


@st.composite
def size_and_members(draw, least=0):
    size = draw(st.integers(least, 200))
    chosen = st.integers(0, max(0, size - 1))
    return size, draw(st.sets(chosen, max_size=size) if size else st.just(set()))


def small_windows():
    """Have windows of 16 positions."""
    none, whole = np.zeros(2, np.uint8), np.full(2, 255, np.uint8)
    return mock.patch.multiple(module, WINDOW=16, _BITS=2, _NONE=none, _ALL=whole)


def set_of(size, members):
    return PositionSet.of(size, np.array(sorted(members), np.int64))


def plain(positions):
    """Turn a PositionSet into a plain set, one position at a time."""
    return {i for i in range(positions.size) if i in positions}


@given(size_and_members())
def test_a_set_holds_what_it_was_made_of(case):
    size, members = case

    made = set_of(size, members)

    assert (plain(made), len(made)) == (members, len(members))


@given(size_and_members())
def test_a_position_given_twice_is_held_once(case):
    size, members = case

    made = PositionSet.of(size, np.array(sorted(members) * 2, np.int64))

    assert len(made) == len(members)


@given(SIZES)
def test_a_full_set_holds_every_position_and_no_more(size):
    full = PositionSet.full(size)

    assert (plain(full), len(full)) == (set(range(size)), size)


@given(SIZES)
def test_a_new_set_is_empty(size):
    assert len(PositionSet(size)) == 0


@given(size_and_members(), st.data())
def test_a_window_shows_the_membership_between_its_bounds(case, data):
    size, members = case
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))

    window = set_of(size, members).window(start, stop)

    assert window.dtype == bool
    assert window.tolist() == [i in members for i in range(start, stop)]


@given(size_and_members(), st.data())
def test_a_set_window_replaces_what_was_there_and_nothing_else(case, data):
    size, members = case
    start = 8 * data.draw(st.integers(0, size // 8))
    stop = min(size, start + 8 * data.draw(st.integers(0, size // 8 + 1)))
    span = stop - start
    new = data.draw(st.lists(st.booleans(), min_size=span, max_size=span))
    changed = set_of(size, members)

    changed.set_window(start, np.array(new, bool))

    inside = {start + i for i, member in enumerate(new) if member}
    kept = {i for i in members if not start <= i < stop}
    assert plain(changed) == inside | kept


@given(size_and_members(least=1), st.data())
def test_a_discarded_position_is_out_and_the_others_stay(case, data):
    size, members = case
    position = data.draw(st.integers(0, size - 1))
    changed = set_of(size, members)

    changed.discard(position)

    assert plain(changed) == members - {position}


@given(size_and_members(least=1), st.data())
def test_a_batch_is_added_and_removed_whole(case, data):
    size, members = case
    start = data.draw(st.integers(0, size - 1))
    span = data.draw(st.integers(1, size - start))
    inside = data.draw(st.lists(st.booleans(), min_size=span, max_size=span))
    batch = Batch.of(start, np.array(inside, bool))
    more, fewer = set_of(size, members), set_of(size, members)

    more.add(batch)
    fewer.remove(batch)

    assert plain(more) == members | set(batch.positions().tolist())
    assert plain(fewer) == members - set(batch.positions().tolist())


@given(st.integers(0, 100))
def test_windows_cover_every_position_once_from_whole_bytes(size):
    with small_windows():
        windows = list(PositionSet(size).windows())

    assert [i for window in windows for i in range(*window)] == list(range(size))
    assert all(start % 8 == 0 and stop > start for start, stop in windows)


@given(size_and_members(), st.integers(1, 30))
def test_spread_members_are_different_and_begin_with_the_first(case, count):
    size, members = case
    with small_windows():
        found = set_of(size, members).spread(count)

    assert len(found) == min(count, len(members))
    assert found == sorted(set(found) & members)
    assert found[:1] == sorted(members)[:1]


@given(size_and_members(least=1), st.integers(1, 30))
def test_spread_members_lie_evenly(case, count):
    size, members = case
    ordered = sorted(members)

    found = set_of(size, members).spread(count)

    ranks = [ordered.index(position) for position in found] + [len(ordered)]
    gaps = np.diff(ranks)
    step = len(ordered) / max(1, len(found))
    assert all(gap <= np.ceil(2 * step) for gap in gaps)


def test_spread_members_reach_over_all_windows():
    size = 3 * module.WINDOW + 5
    everything = PositionSet.full(size)

    found = everything.spread(4)

    assert found[0] == 0
    assert found[-1] >= size // 2
    assert len(found) == 4


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 1000))
def test_a_batch_knows_its_members_and_their_positions(members, start):
    batch = Batch.of(start, np.array(members, bool), block=7)

    assert batch.members().tolist() == members
    expected = [start + i for i, member in enumerate(members) if member]
    assert batch.positions().tolist() == expected
    assert (batch.count, batch.block) == (len(expected), 7)
    assert (batch.start, batch.stop) == (start, start + len(members))


def test_a_batch_of_a_whole_span_carries_no_bitmap():
    assert Batch.of(5, np.ones(1_000_000, bool)).bits is None


@given(st.lists(st.booleans(), max_size=60))
@example([])
@example([True])
def test_runs_are_the_longest_stretches_of_members(members):
    found = stretches(np.array(members, bool))

    assert found.shape == (len(found), 2)
    inside = [i for start, stop in found.tolist() for i in range(start, stop)]
    assert inside == [i for i, member in enumerate(members) if member]
    assert all(start < stop for start, stop in found.tolist())
    assert all(found[1:, 0] > found[:-1, 1])


MAP = (3, 4)
MASK = np.arange(12).reshape(MAP) % 5 == 0


@pytest.mark.parametrize(
    ("chosen", "map_shape", "expected"),
    [
        (5, (12,), [5]),
        (0, (12,), [0]),
        (-1, (12,), [11]),
        (np.int32(5), (12,), [5]),
        (np.array(5), (12,), [5]),
        ((5,), (12,), [5]),
        (5, MAP, [5]),
        ((1, 2), MAP, [6]),
        ((-1, -4), MAP, [8]),
        ((np.int64(1), 2), MAP, [6]),
        ([5, 1], MAP, [1, 5]),
        ([5, 1, 5, -7], (12,), [1, 5]),
        ([(1, 2), (0, 3), (1, 2)], MAP, [3, 6]),
        ([[1, 2], [-3, 3]], MAP, [3, 6]),
        (np.array([7, 3], np.uint8), (12,), [3, 7]),
        (range(2, 5), (12,), [2, 3, 4]),
        (slice(None), (4,), [0, 1, 2, 3]),
        (slice(2, 9, 3), MAP, [2, 5, 8]),
        (slice(-2, None), (12,), [10, 11]),
        (slice(None, None, -5), (12,), [1, 6, 11]),
        (slice(5, 500), (7,), [5, 6]),
        (MASK, MAP, [0, 5, 10]),
        (MASK.ravel(), MAP, [0, 5, 10]),
        (MASK.ravel().tolist(), (12,), [0, 5, 10]),
        (np.zeros(12, bool), (12,), []),
        (np.s_[1:3, 2:4], MAP, [6, 7, 10, 11]),
        (np.s_[1:, 0], MAP, [4, 8]),
        (np.s_[..., -1], MAP, [3, 7, 11]),
        (np.s_[-1:, ::2], MAP, [8, 10]),
        (np.s_[2:9,], MAP, [8, 9, 10, 11]),
        (np.s_[3:1, :], MAP, []),
        (np.s_[::-1, 1], MAP, [1, 5, 9]),
        (np.nonzero(MASK), MAP, [0, 5, 10]),
        (np.nonzero(MASK.ravel()), (12,), [0, 5, 10]),
        (np.nonzero(np.zeros(MAP)), MAP, []),
        (np.ix_([2, 0], [1]), MAP, [1, 9]),
        ((MASK.any(axis=1), slice(0, 1)), MAP, [0, 4, 8]),
        (np.ma.array(MASK, mask=[[1, 0, 0, 0]] * 3), MAP, [5, 10]),
        (np.ma.masked_less([-9, 5, 1], 0), (12,), [1, 5]),
        (np.ma.masked_less([[-9, 1], [1, 2]], 0), MAP, [6]),
        (np.ma.masked_less([5, 6], 0)[0], MAP, [5]),
        ((np.ma.array([1, 2], mask=[0, 1]), np.array([2, 1])), MAP, [6]),
        ((np.array([2, 1]), np.ma.array([1, 3], mask=[1, 0])), MAP, [7]),
        ((np.ma.array([[0], [2]], mask=[[1], [0]]), np.array([1, 2])), MAP, [9, 10]),
        ((np.ma.array([0, 2], mask=[1, 0]), slice(1, 3)), MAP, [9, 10]),
        ((np.ma.array([0, 2], mask=[1, 0]), 3), MAP, [11]),
        ((np.ma.array([1, 1, 0], mask=[1, 0, 0], dtype=bool), 0), MAP, [4]),
        ((np.ma.array([1, 2], mask=[1, 1]), np.array([2, 1])), MAP, []),
        ([0, 1], (2,), [0, 1]),
        ([1, 0], (2,), [0, 1]),
        (0, (1,), [0]),
        ([0], (1,), [0]),
        ([2, 1, 0], (3,), [0, 1, 2]),
        ([], (12,), []),
        (np.array([], np.int64), MAP, []),
    ],
)
def test_positions_of_every_kind_become_flat_sorted_and_unique(
    chosen, map_shape, expected
):
    flat = flat_positions(chosen, map_shape)

    assert flat.tolist() == expected
    assert flat.dtype == np.int64

    assert plain(PositionSet.chosen(chosen, map_shape)) == set(expected)


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.none() | st.integers(-150, 150),
    st.none() | st.integers(-150, 150),
    st.none() | st.integers(-40, 40).filter(bool),
)
def test_a_chosen_slice_is_that_of_a_list(map_shape, start, stop, step):
    with small_windows():
        chosen = plain(PositionSet.chosen(slice(start, stop, step), map_shape))

    everything = list(range(map_shape[0] * map_shape[1]))
    assert chosen == set(everything[start:stop:step])


@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.booleans(), st.data())
def test_a_chosen_mask_holds_its_true_positions(map_shape, turned, data):
    count = map_shape[0] * map_shape[1]
    flat = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    mask = np.array(flat).reshape(map_shape)
    mask = np.asfortranarray(mask) if turned else mask

    with small_windows():
        chosen = plain(PositionSet.chosen(mask, map_shape))

    assert chosen == {i for i, member in enumerate(flat) if member}


@pytest.mark.parametrize(
    ("chosen", "map_shape", "message"),
    [
        (12, (12,), "position 12 does not exist: positions go from 0 to 11"),
        (-13, (12,), "position -13 does not exist"),
        ([3, 99], (12,), "position 99 does not exist"),
        ((1, 4), MAP, "position 4 does not exist: positions on axis 1 go from 0 to 3"),
        ((-4, 0), MAP, "position -4 does not exist: positions on axis 0"),
        ([(0, 0), (3, 0)], MAP, "position 3 does not exist: positions on axis 0"),
        ((1, 2, 3), MAP, r"does not name a position on 2 axes of shape \(3, 4\)"),
        ((1,), MAP, "does not name a position on 2 axes"),
        ((1, 2), (12,), "on 1 axis .*a list for several positions"),
        ((1.0, 2.0), MAP, "does not name a position"),
        ((slice(2), 1, 2), MAP, "no part of a map .* numpy says: too many indices"),
        ((slice(2), 4), MAP, "index 4 is out of bounds for axis 1 with size 4"),
        ((slice(2), 1), (12,), "no part of a map"),
        ((slice("a"), 1), MAP, "no part of a map"),
        ((np.array([0.0]), np.array([1.0])), MAP, "no part of a map"),
        ((np.array([0]), np.array([4])), MAP, "index 4 is out of bounds for axis 1"),
        (((0, 1), (2, 3)), MAP, "does not name a position"),
        (MASK.astype("u1"), MAP, "only 0 and 1: .* give mask.astype.bool"),
        (MASK.astype("u1").ravel(), MAP, "for each of the 12 positions"),
        (MASK.astype("i8").ravel().tolist(), (12,), "only 0 and 1"),
        (MASK.astype("f4").ravel(), (12,), "only 0.0 and 1.0: a mask is of bools"),
        (255 * MASK.astype("u1").ravel(), (12,), "only 0 and 255"),
        (np.zeros(12, "u1"), (12,), "only 0: a mask"),
        (np.ma.array(MASK.astype("u1"), mask=MASK), MAP, "only 0 and 1"),
        ([[1, 0], [0, 1], [1, 1]], (3, 2), "only 0 and 1"),
        ([[1, 0], [0, 1]], (2, 2), "only 0 and 1"),
        ([0, 0], (2,), "only 0"),
        ([(0, 0, 0)], MAP, "does not name a position on 2 axes"),
        (np.zeros(11, bool), (12,), r"mask has shape \(11,\), .* shape \(12,\)"),
        (np.zeros((4, 3), bool), MAP, r"mask has shape \(4, 3\), .* \(3, 4\)"),
        (True, (12,), "mask has shape"),
        (2.0, (12,), "2.0 is not a position; give a whole number"),
        ([1.5], (12,), "is not a position"),
        ("3", (12,), "is not a position"),
        (None, (12,), "is not a position"),
        ([[1, 2]], (12,), r"not an array of shape \(1, 2\)"),
        (np.zeros((1, 1, 2), int), MAP, r"not an array of shape \(1, 1, 2\)"),
        (slice("a", "b"), (12,), "is not a slice of positions"),
        (slice(0, 5, 0), (12,), "is not a slice of positions"),
        ([[1, 2], [3]], MAP, "is not a position"),
        ((1, [2, 3]), MAP, "is not a position"),
        (2**63, (12,), "position 9223372036854775808 does not exist"),
        (2**64 - 1, (12,), "position 18446744073709551615 does not exist"),
        (2**70, (12,), "position"),
    ],
    ids=repr,
)
def test_what_names_no_position_is_refused(chosen, map_shape, message):
    with pytest.raises(PlanError, match=message):
        flat_positions(chosen, map_shape)

    with pytest.raises(PlanError, match=message):
        PositionSet.chosen(chosen, map_shape)


@given(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), st.data())
def test_a_tuple_on_a_map_counts_in_c_order(map_shape, data):
    index = tuple(data.draw(st.integers(-n, n - 1)) for n in map_shape)
    flat = np.arange(np.prod(map_shape)).reshape(map_shape)

    assert flat_positions(index, map_shape).tolist() == [flat[index]]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_a_split_batch_has_the_same_positions_in_order(count):
    members = np.array([True, False, True, True, False, False, True])
    batch = dataclasses.replace(Batch.of(10, members, 5), probe=True)
    parts = [part for part in batch.split(count) if part is not None]

    assert [p for part in parts for p in part.positions()] == [10, 12, 13, 16]
    assert parts[0].count == (min(count, 4) or 4)
    assert all((part.block, part.probe) == (5, True) for part in parts)


def test_a_batch_without_all_its_positions_is_none():
    batch = Batch.of(3, np.array([True, False, True]))

    assert batch.without(np.ones(3, bool)) is None
    assert batch.without(np.array([True, True, False])) == Batch(5, 6, None, 1)


def test_members_are_found_by_their_ordinal_in_every_window():
    size = 4 * WINDOW + 13
    mask = np.random.default_rng(1).random(size) < 0.1
    mask[WINDOW : 2 * WINDOW] = False
    members = np.flatnonzero(mask)
    edge = int(np.searchsorted(members, WINDOW))
    ordinals = np.array([0, edge - 1, edge, len(members) - 1])

    found = PositionSet.of(size, members).members_at(ordinals)

    assert found == members[ordinals].tolist()


def test_parts_are_the_batch_and_name_the_suspect():
    members = np.array([True, False, True, True, True, False, True])
    batch = Batch.of(10, members, block=3)
    alone = batch.parts(13)
    halves = batch.parts(None)

    assert [part.positions().tolist() for part in alone] == [[10, 12], [13], [14, 16]]
    assert [part.suspect for part in alone] == [False, True, False]
    assert [part.positions().tolist() for part in halves] == [[10, 12], [13, 14, 16]]
    assert all(part.suspect and part.block == 3 for part in halves)
    assert Batch.of(4, np.ones(1, bool)).parts(None)[0].positions().tolist() == [4]


@given(size_and_members(), size_and_members())
def test_sets_of_many_windows_are_those_of_one(first, second):
    size = max(first[0], second[0])
    with small_windows():
        one, two = set_of(size, first[1]), set_of(size, second[1])
        longer = one.resized(size + 21)
        again = PositionSet.from_text(size, one.to_text())
        same = PositionSet.full(size) - (PositionSet.full(size) - one)
        inhabited = {start for start, _ in one.inhabited()}

        assert plain(one & two) == first[1] & second[1]
        assert plain(one - two) == first[1] - second[1]
        assert one.is_within(two) == (first[1] <= second[1])
        assert (plain(longer), longer.size) == (first[1], size + 21)
        assert plain(again) == first[1]
        assert inhabited == {i // 16 * 16 for i in first[1]}
        assert same.digest() == again.digest() == one.digest()
        assert (one.digest() == two.digest()) == (first[1] == second[1])


def test_a_few_positions_of_thousands_of_millions_take_little_memory():
    size = 2_000_000_000
    tracemalloc.start()
    few = PositionSet.chosen(slice(0, 10), (size,))
    others = PositionSet.full(size) - few
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (len(few), len(others)) == (10, size - 10)
    assert others.members_at(np.array([0, size - 11])) == [10, size - 1]
    assert peak < 10e6


def test_a_part_of_a_huge_map_takes_little_memory():
    shape = (40_000, 50_000)
    tracemalloc.start()
    few = PositionSet.chosen(np.s_[100:110, :600], shape)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(few) == 6000
    assert few.members_at(np.array([0, 600])) == [5_000_000, 5_050_000]
    assert peak < 10e6
