"""Spans and boxes cover what is wanted, once, and no more than is allowed."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.model.indexing import boxes, spans_of


@given(
    st.sets(st.integers(0, 200), min_size=1),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(1, 50),
)
def test_spans_cover_every_index_once_within_gap_and_step(wanted, gap, step):
    """And two neighbouring spans could not have been one."""
    indices = np.array(sorted(wanted))
    spans = list(spans_of(indices, gap=gap, step=step))

    assert [s[0] for s in spans] == [0, *(s[1] for s in spans[:-1])]
    assert spans[-1][1] == len(indices)
    for first, last, start, stop in spans:
        inside = indices[first:last]
        assert (start, stop) == (inside[0], inside[-1] + 1)
        assert gap is None or (np.diff(inside) <= gap + 1).all()
        assert step is None or start // step == (stop - 1) // step
    for (*_, stop), (*_, start, _) in itertools.pairwise(spans):
        wide = gap is not None and start - stop > gap
        assert wide or (step is not None and (stop - 1) // step < start // step)


@pytest.mark.parametrize("length", [1, 7, 10**12])
def test_a_range_is_divided_without_being_made_an_array(length):
    indices = range(3, 3 + length)
    spans = list(spans_of(indices, gap=0, step=max(4, length // 2)))

    assert spans[0][2] == 3
    assert spans[-1][3] == 3 + length
    assert sum(stop - start for *_, start, stop in spans) == length


def test_boxes_cover_an_array_once():
    covered = np.zeros((5, 7), int)
    for box in boxes(covered.shape, (2, 3)):
        covered[box] += 1

    assert (covered == 1).all()
