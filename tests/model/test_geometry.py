"""How positions lie in chunks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import make_geometry


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
    assert geometry.amplification(1) == 1.0
