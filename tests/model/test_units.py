"""Sizes and durations as people write them."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resumable.errors import PlanError
from resumable.model.units import (
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 GB", 2_000_000_000),
        ("2GB", 2_000_000_000),
        ("2gb", 2_000_000_000),
        ("2 G", 2_000_000_000),
        ("512 MiB", 512 << 20),
        ("1 kiB", 1024),
        ("1.5 kB", 1500),
        (".5 MB", 500_000),
        ("1e3 MB", 10**9),
        ("3 TB", 3 * 10**12),
        ("1 TiB", 1 << 40),
        ("4096", 4096),
        ("4096 B", 4096),
        (4096, 4096),
        (2e9, 2_000_000_000),
        (np.int64(7), 7),
        (np.float64(1.5e9), 1_500_000_000),
    ],
)
def test_a_size_is_read_as_bytes(text, expected):
    size = parse_bytes(text)

    assert (size, type(size)) == (expected, int)


@pytest.mark.parametrize(
    "text", ["", "GB", "two GB", "2 XB", "-2 GB", "2 GB/s", "nan", "inf", None, True]
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(PlanError, match="is not a size; write for example '2 GB'"):
        parse_bytes(text)


@pytest.mark.parametrize("size", [0, "0 GB", 0.5, "0.4 B"])
def test_a_size_below_one_byte_is_refused(size):
    with pytest.raises(PlanError, match="must be positive"):
        parse_bytes(size)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3h50m", 13_800.0),
        ("3 h 50 m", 13_800.0),
        ("90 s", 90.0),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        ("1d2h3m4s", 93_784.0),
        ("90", 90.0),
        (90, 90.0),
        (0.25, 0.25),
        (1e-7, 1e-7),
        ("2.5e2", 250.0),
        ("3:50:00", 13_800.0),
        ("120:00:30", 432_030.0),
        ("1-12:00:00", 129_600.0),
    ],
)
def test_a_duration_is_read_as_seconds(text, expected):
    assert parse_seconds(text) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "soon", "3x", "h", "-5", "3h50", "nan", 0, "0s", "3:50", "0:61:00"]
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(PlanError, match="is not a duration; write for example '3h50m'"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1536, "1.54 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (2_000_000_000, "2 GB"),
        (1_250_000_000_000, "1.25 TB"),
    ],
)
def test_bytes_are_written_with_three_digits(size, expected):
    assert format_bytes(size) == expected


@given(st.integers(1, 10**14))
@example(512)
@example(999_700)
def test_a_written_size_reads_back_within_its_three_digits(size):
    read = parse_bytes(format_bytes(size))

    assert abs(read - size) <= 0.005 * size


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 us"),
        (2.5e-6, "2.5 us"),
        (0.25, "250 ms"),
        (1, "1 s"),
        (59.4, "59.4 s"),
        (60, "1 min"),
        (3_570, "1 h 0 min"),
        (13_800, "3 h 50 min"),
        (172_800, "2 days"),
    ],
)
def test_a_duration_is_written_for_people(seconds, expected):
    assert format_seconds(seconds) == expected


@given(st.floats(1e-6, 5e7))
@example(0.9999)
@example(0.0009999)
def test_a_written_duration_never_has_an_exponent(seconds):
    assert "e+" not in format_seconds(seconds)


def test_one_byte_is_one():
    assert [format_bytes(n) for n in (0, 1, 2)] == ["0 bytes", "1 byte", "2 bytes"]
