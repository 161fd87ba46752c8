"""Rows read when indexed: as numpy would, little of the file, and never by a map."""

import contextlib
import os

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import Mean, process_of

import resumable as rs
from resumable.runfile import rows as plain
from resumable.runfile.rows import UnpackedRows
from resumable.system import disk

RECORD = np.dtype([("x", "<f4"), ("n", "<i8", (2,)), ("s", "S3")], align=True)
OFFSET = 7


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "rows"

    def store(array, repeated=()):
        path.write_bytes(bytes(OFFSET) + array.tobytes())
        with path.open("rb") as file:
            return UnpackedRows(
                path, file.fileno(), OFFSET, array.dtype, array.shape, repeated
            )

    return store


SMALL = {"_GAP_BYTES": 16, "_PIECE_BYTES": 48}
STEPS = pytest.mark.parametrize("sizes", [{}, SMALL], ids=["large", "small"])


@contextlib.contextmanager
def steps(sizes):
    """Have what is small be read in one go, or in all the ways there are."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(plain, name, size)
        yield


def numbers(shape, dtype="i4"):
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def same(found, wanted):
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


@st.composite
def keys(draw, shape):
    """Draw what numpy takes: slices, numbers, arrays, masks, all of them mixed."""
    if draw(st.integers(0, 4)) == 0:
        count = draw(st.integers(1, len(shape)))
        return draw(npst.arrays(bool, shape[:count]))
    lengths = draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
    parts = []
    for n in shape:
        kind = draw(st.sampled_from(["slice", "slice", "number", "array", "end"]))
        if kind == "end":
            break
        if kind == "slice":
            parts.append(draw(st.slices(n)))
        else:
            count = () if kind == "number" else lengths
            indices = st.integers(-n, n - 1)
            parts.append(draw(npst.arrays(np.int64, count, elements=indices)))
    # Before axes that are left out, an ellipsis would move the indices to them.
    first = 0 if len(parts) == len(shape) else len(parts)
    if draw(st.booleans()):
        parts.insert(draw(st.integers(first, len(parts))), Ellipsis)
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return tuple(parts)


@STEPS
@given(data=st.data())
def test_indexing_is_numpys(stored, sizes, data):
    shape = data.draw(npst.array_shapes(max_dims=4, max_side=7))
    array = numbers(shape)
    key = data.draw(keys(shape))

    with steps(sizes):
        same(np.asarray(stored(array)[key]), np.asarray(array[key]))


@given(data=st.data())
def test_repeated_axes_are_indexed_like_others(stored, data):
    shape = data.draw(npst.array_shapes(max_dims=2, max_side=6))
    further = data.draw(npst.array_shapes(max_dims=2, max_side=4))
    array = numbers(shape, "u1")
    whole = np.broadcast_to(array.reshape(*shape, *[1] * len(further)), shape + further)
    key = data.draw(keys(shape + further))

    same(np.asarray(stored(array, further)[key]), np.asarray(whole[key]))


@STEPS
@pytest.mark.parametrize("key", ["x", "n", ["x"], ["s", "x"]])
def test_fields_are_numpys(stored, sizes, key):
    array = np.zeros((5, 3), RECORD)
    array["x"], array["s"] = numbers((5, 3)), b"ab"
    array["n"] = numbers((5, 3, 2))
    with steps(sizes):
        found = stored(array)[key]

    np.testing.assert_array_equal(found, array[key])
    assert found.dtype == array[key].dtype


@pytest.mark.parametrize(
    "key", [7, -8, (0, 3), "x", ["x"], (0, 0, 0), 1.5, [0, 9], (slice(None), 5)]
)
def test_a_wrong_key_is_numpys_error(stored, key):
    array = numbers((7, 3))
    with pytest.raises(IndexError) as wanted:
        array[key]
    with pytest.raises(IndexError) as found:
        stored(array)[key]

    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("dtype", ["M8[s]", "S5", "?", "c16", "V3", ">f4"])
def test_every_fixed_dtype_can_be_read(stored, dtype):
    """Those without a buffer of their own, too; a single value as well."""
    array = np.frombuffer(bytes(range(1, 97))[: 6 * np.dtype(dtype).itemsize], dtype)
    if dtype == "?":
        array = np.array([True, False] * 3)

    same(stored(array)[...], array)
    same(stored(array.reshape(2, 3))[1, ::2], array.reshape(2, 3)[1, ::2])
    same(stored(array[:1].reshape(()))[...], array[:1].reshape(()))


class Counted:
    def __init__(self, monkeypatch):
        self.bytes = 0
        read = disk.read_into

        def counting(fd, view, offset):
            self.bytes += view.nbytes
            return read(fd, view, offset)

        monkeypatch.setattr(disk, "read_into", counting)


@pytest.mark.parametrize(
    ("key", "least"),
    [
        (slice(10, 20), 10 * 320_000),
        ((slice(None), 5), 100 * 320),
        ((slice(None), [0, 999]), 200 * 320),
        (([1, 50, 99], [3, 999, 7]), 3 * 320),
        ((Ellipsis, 3), 32_000_000),
        ((3, 4, 2), 8),
    ],
    ids=str,
)
def test_no_more_is_read_than_is_near_to_what_is_needed(
    tmp_path, monkeypatch, key, least
):
    """Of 32 MB, few as the positions may be and wherever they lie."""
    path = tmp_path / "rows"
    path.touch()
    os.truncate(path, 32_000_000)
    counted = Counted(monkeypatch)
    with path.open("rb") as file:
        UnpackedRows(path, file.fileno(), 0, np.dtype("f8"), (100, 1000, 40))[key]

    assert least <= counted.bytes <= 2 * least


def test_a_file_that_was_replaced_is_still_read(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(bytes([1, 2, 3]))
    with path.open("rb") as file:
        rows = UnpackedRows(path, file.fileno(), 0, np.dtype("u1"), (3,))
    path.unlink()

    assert rows[1:].tolist() == [2, 3]


CUT = """
    import os, sys
    import numpy as np
    import resumable as rs

    results = rs.open(sys.argv[1])
    rows, marks = results["mean"], results._run.marks()
    kept = results._run.array("mean")
    os.truncate(sys.argv[1], 4096)
    for look in (
        lambda: rows[...], lambda: rows[5], lambda: np.asarray(rows), lambda: kept[3],
        lambda: marks[...], lambda: results.status, lambda: results.completed_mask,
        lambda: results.failed_mask, lambda: results.failures, lambda: results.sessions,
        lambda: results.log, lambda: next(iter(rows)), lambda: repr(results),
    ):
        try:
            look()
        except rs.RunFileError as error:
            assert "was moved or cut since it was opened" in str(error), error
        else:
            sys.exit("no error")
    print("all told")
"""


def test_a_file_that_is_cut_while_it_is_open_is_an_error(make_file, script):
    source = make_file(data=np.arange(20_000.0).reshape(10_000, 2)) + "::/data"
    process = script(CUT, str(Mean(source).compute(engine="serial").path))
    output, errors = process.communicate(timeout=50)

    assert process.returncode == 0, errors
    assert output.endswith("all told\n")


HOLES = """
    import sys
    import numpy as np
    import resumable as rs

    results = rs.open(sys.argv[1])
    assert np.isnan(results["wide"][...]).sum() == 999 * 1000
    assert results._run.rows("wide", np.arange(1000)).sum() == 0
    assert results.status.done == 1
    print("read")
"""


# 8 kB per position, so that the rows of few positions fit on the disk.
Wide = process_of(lambda self, index: np.zeros(1000), {"wide": rs.Output(1000)})


def test_rows_that_were_never_written_are_read_from_a_full_disk(small_disk, script):
    """No page has to be made for them, for which there is no room."""
    process = Wide(1000, target=str(small_disk))
    results = process.compute(positions=[0], engine="serial")
    with (
        contextlib.suppress(OSError),
        (small_disk / "filler").open("wb", buffering=0) as filler,
    ):
        while True:
            filler.write(bytes(4096))
    reader = script(HOLES, str(results.path))
    output, errors = reader.communicate(timeout=50)

    assert reader.returncode == 0, errors
    assert output == "read\n"
