"""Rows of a source by position: layouts, filters, virtual datasets, geometry."""

import dataclasses
import os
import subprocess
import sys
from importlib.util import find_spec
from unittest import mock

import h5py
import numpy as np
import pytest
from helpers import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import LAYOUTS, read_all

from resumable.errors import SourceError
from resumable.source import reader as reading
from resumable.source.coordinates import scales_of
from resumable.source.fingerprint import slabs
from resumable.source.reader import Reader
from resumable.source.reference import refer

PAIR = np.dtype([("x", "f4"), ("n", ">i2")])


def by_position(data, axes):
    front = np.moveaxis(data, axes, range(len(axes)))
    return front.reshape(-1, *front.shape[len(axes) :])


@pytest.mark.skipif(not find_spec("hdf5plugin"), reason="needs hdf5plugin")
def test_a_filter_of_hdf5plugin_is_loaded_when_it_is_needed():
    code = (
        "import sys\n"
        "from sources import read_all\n"
        "assert 'hdf5plugin' not in sys.modules\n"
        "rows = read_all(sys.argv[1])\n"
        "print(rows.shape, rows.dtype, rows.std() > 0)"
    )

    output = subprocess.check_output(
        [sys.executable, "-c", code, f"{DATA}/cytoshot-test-data.rtdc::/events/image"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )

    assert output == b"(40, 80, 400) uint8 True\n"


DTYPES = ["f8", ">f8", "f2", "i1", ">u4", bool, "c8", "S3", PAIR, "i8"]


def fill(dtype, shape):
    count = np.arange(np.prod(shape))
    data = np.zeros(shape, dtype)
    if data.dtype.names:
        data["x"], data["n"] = (count / 2).reshape(shape), count.reshape(shape)
    elif data.dtype.kind == "S":
        data[...] = np.char.mod("%d", count).astype("S3").reshape(shape)
    elif data.dtype.kind == "b":
        data[...] = (count % 3 == 0).reshape(shape)
    else:
        data[...] = (count % 100).reshape(shape)
    return data


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_layout_is_read_as_numpy_would(make_file, layout, dtype):
    data = fill(dtype, (4, 3, 5))
    path = make_file(data={"data": data, **LAYOUTS[layout]})

    rows = read_all(f"{path}::/data", (2, 0))

    assert rows.dtype == data.dtype
    np.testing.assert_array_equal(rows, by_position(data, (2, 0)))


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    path = tmp_path_factory.mktemp("cubes") / "cubes.h5"
    cube = np.arange(4 * 5 * 6, dtype="f4").reshape(4, 5, 6)
    with h5py.File(path, "w") as file:
        for name, options in LAYOUTS.items():
            file.create_dataset(name, data=cube, **options)
    return path, cube


AXES = [(0,), (1,), (2,), (0, 1), (1, 0), (1, 2), (2, 0), (0, 1, 2), (2, 0, 1)]


@settings(max_examples=80)
@given(
    layout=st.sampled_from(list(LAYOUTS)),
    axes=st.sampled_from(AXES),
    gap=st.sampled_from([1, 100, 10_000]),
    data=st.data(),
)
def test_scattered_positions_on_any_axes_are_read_in_order(
    cubes, layout, axes, gap, data
):
    path, cube = cubes
    expected = by_position(cube, axes)
    start = data.draw(st.integers(0, len(expected) - 1))
    stop = data.draw(st.integers(start + 1, len(expected)))
    span = stop - start
    members = data.draw(st.lists(st.booleans(), min_size=span, max_size=span))
    members[data.draw(st.integers(0, span - 1))] = True
    with (
        mock.patch.object(reading, "_GAP_BYTES", gap),
        mock.patch.object(reading, "_SPAN_BYTES", 2 * gap),
        Reader(refer(f"{path}::/{layout}", axes)) as reader,
    ):
        rows = reader.empty(sum(members))
        reader.read(start, np.array(members), rows)

    np.testing.assert_array_equal(rows, expected[start:stop][np.array(members)])


@pytest.mark.parametrize("members", [[True], [True, False, True, True, False]])
def test_a_source_without_data_reads_the_indices(members):
    with Reader(refer(100)) as reader:
        rows = reader.empty(sum(members))
        reader.read(40, np.array(members), rows)

    assert rows.tolist() == [40 + i for i, member in enumerate(members) if member]
    assert not reader.has_data


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), st.data())
def test_slabs_are_boxes_that_make_up_a_flat_range_in_order(shape, data):
    flat = np.arange(np.prod(shape)).reshape(shape)
    start = data.draw(st.integers(0, flat.size))
    stop = data.draw(st.integers(start, flat.size))

    boxes = list(slabs(start, stop, shape))

    found = [flat[box].ravel() for box in boxes]
    assert np.concatenate([[], *found]).tolist() == list(range(start, stop))
    assert len(boxes) <= 2 * len(shape) - 1


@pytest.mark.parametrize("axes", AXES)
def test_the_geometry_tells_map_spectrum_and_chunks(cubes, axes):
    path, cube = cubes
    with Reader(refer(f"{path}::/compressed", axes)) as reader:
        geometry = reader.geometry

    rows = by_position(cube, axes)
    assert geometry.map_shape == tuple(cube.shape[axis] for axis in axes)
    assert geometry.spectrum_shape == rows.shape[1:]
    assert geometry.row_bytes == rows[0].nbytes
    assert geometry.chunk_map == tuple((2, 3, 2)[axis] for axis in axes)
    assert geometry.indivisible
    assert geometry.size == len(rows)


def test_only_filtered_chunks_are_indivisible(cubes):
    found = {}
    for layout in LAYOUTS:
        with Reader(refer(f"{cubes[0]}::/{layout}")) as reader:
            found[layout] = reader.geometry.indivisible

    assert found == {
        "contiguous": False,
        "chunked": False,
        "compressed": True,
        "filtered": True,
        "growable": False,
    }


def test_dimension_scales_give_the_coordinates_of_position_axes(make_file):
    path = make_file(data=np.zeros((3, 4)), bias=np.linspace(-1, 1, 4))
    with h5py.File(path, "a") as file:
        file["bias"].make_scale("bias")
        file["bias"].attrs["units"] = "V"
        file["data"].dims[1].attach_scale(file["bias"])

    with Reader(refer(f"{path}::/data", (0, 1))) as reader:
        scales = scales_of(reader)

    assert list(scales) == [1]
    assert (scales[1].name, scales[1].attributes) == ("bias", {"units": "V"})
    np.testing.assert_array_equal(scales[1][1], np.linspace(-1, 1, 4))


def test_a_source_replaced_by_another_shape_is_refused_at_every_read(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("resumable.source.reader._PATIENCE_S", 0.3)
    path = tmp_path / "live.h5"

    def write(shape):
        with h5py.File(tmp_path / "new.h5", "w") as file:
            file["data"] = np.zeros(shape)
        os.utime(tmp_path / "new.h5", (1e9, 1e9))
        (tmp_path / "new.h5").replace(path)

    write((4, 5, 3))
    ref = dataclasses.replace(refer(f"{path}::/data", (0, 1)), live=True)
    with Reader(ref) as reader:
        rows = reader.empty(20)
        reader.read(0, np.ones(20, bool), rows)
        write((5, 4, 3))
        for _ in range(2):
            with pytest.raises(SourceError, match="another shape"):
                reader.read(0, np.ones(20, bool), rows)
