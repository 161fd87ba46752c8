"""Sources: what may be one, how its rows are read, how a changed one is told."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar
from unittest import mock

import h5py
import numpy as np
import pytest
from helpers import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

import resumable as rs
import resumable.source.fingerprint
from resumable.errors import SourceError
from resumable.source import reader as reading
from resumable.source.contiguous import Contiguous
from resumable.source.coordinates import scales_of
from resumable.source.fingerprint import slabs
from resumable.source.reader import Reader
from resumable.source.reference import SourceRef, refer

PAIR = np.dtype([("x", "f4"), ("n", ">i2")])


def read_all(source, axes=0):
    """Read all positions of a source in order."""
    with Reader(refer(source, axes)) as reader:
        rows = reader.empty(reader.geometry.size)
        reader.read(0, np.ones(reader.geometry.size, bool), rows)
    return rows


def fingerprint(source, axes=0, *, full=False):
    """Return the fingerprint of a source."""
    with Reader(refer(source, axes)) as reader:
        return reader.fingerprint(full=full)


def by_position(data, axes):
    """Order data as positions by spectrum, with numpy alone."""
    front = np.moveaxis(data, axes, range(len(axes)))
    return front.reshape(-1, *front.shape[len(axes) :])


# What may be a source.


def test_a_text_names_a_file_and_a_dataset(scan):
    """As it was typed, with the dataset's absolute name."""
    path = scan.removesuffix("::/data")

    ref = refer(scan)

    assert ref == SourceRef(path, "/data", (0,))
    assert (str(ref), ref.name) == (scan, "data")


@pytest.mark.parametrize("text", ["{}::data", "{}::/data", "{}::/data/"])
def test_slashes_around_a_dataset_do_not_matter(scan, text):
    """The absolute name is the one that counts."""
    path = scan.removesuffix("::/data")

    assert refer(text.format(path)) == refer(scan)


def test_an_open_dataset_is_a_source(scan):
    """Of a file that is open for reading."""
    with h5py.File(scan.removesuffix("::/data"), "r") as file:
        ref = refer(file["data"])

    assert ref == refer(scan)


def test_a_number_is_a_source_without_data():
    """The data of a position are its index."""
    rows = read_all(7)

    assert rows.tolist() == list(range(7))
    assert fingerprint(np.int64(7)) == {"positions": 7}
    assert str(refer(7)) == "7 positions"


class Twice(rs.Process):
    """Return twice the data."""

    version = 1
    outputs: ClassVar = {"twice": rs.Output(shape=(32,))}

    def unit_computation(self, spectrum):
        return 2 * spectrum


@pytest.fixture
def results(scan):
    """Return finished results over the scan."""
    return Twice(scan).compute(engine="serial", progress=False)


def test_an_output_of_results_is_a_source(scan, results):
    """Its rows are read from the run file."""
    expected = 2 * read_all(scan)

    rows = read_all(results["twice"])

    np.testing.assert_array_equal(rows, expected)


def test_an_output_of_results_is_known_by_the_identity_of_its_run(results):
    """Its contents need not be read."""
    document = fingerprint(results["twice"])

    assert document["run"] == results.identity
    assert "contents" not in document


def test_a_dataset_without_a_file_is_one_of_the_same_file(scan):
    """For inputs that lie beside the source."""
    path = scan.removesuffix("::/data")

    assert refer("::/data", same_file=path) == refer(scan)


def test_a_user_block_before_the_file_does_not_matter(tmp_path):
    """Some programs put a header of their own there."""
    path = tmp_path / "user.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["data"] = np.arange(5)

    assert read_all(f"{path}::/data").tolist() == [0, 1, 2, 3, 4]


def test_a_soft_link_leads_to_its_dataset(make_file):
    """A measurement under a friendlier name."""
    path = make_file(data=np.arange(5), link=h5py.SoftLink("/data"))

    assert read_all(f"{path}::/link").tolist() == [0, 1, 2, 3, 4]


def test_an_external_link_leads_to_the_dataset_of_the_other_file(make_file):
    """Never to one that has the same name in this file."""
    other = make_file("other.h5", data=np.arange(5))
    path = make_file(data=np.zeros(5, int), link=h5py.ExternalLink(other, "/data"))

    assert read_all(f"{path}::/link").tolist() == [0, 1, 2, 3, 4]


# Bad input gets a clear error.


def test_a_missing_file_names_the_nearest(make_file, tmp_path):
    """A typing error in the name is the usual reason."""
    make_file("measurement.h5", data=np.arange(3))

    with pytest.raises(SourceError, match=r"no file .*did you mean 'measurement\.h5'"):
        refer(f"{tmp_path}/mesurement.h5::/data")


def test_a_missing_folder_is_a_missing_file(tmp_path):
    """There is nothing to name then."""
    with pytest.raises(SourceError, match=r"there is no file .*gone/scan\.h5$"):
        refer(f"{tmp_path}/gone/scan.h5::/data")


def test_a_missing_dataset_names_the_nearest(make_file):
    """Over all groups of the file."""
    path = make_file(**{"Channel_000/Raw_Data": np.arange(3)})

    with pytest.raises(SourceError, match=r"no dataset /Channel_000/Raw_Dat; did you"):
        refer(f"{path}::/Channel_000/Raw_Dat")


def test_a_missing_dataset_without_a_near_name_lists_what_is_there(make_file):
    """So that the next try is the right one."""
    path = make_file(alpha=np.arange(3), beta=np.arange(3))

    with pytest.raises(SourceError, match="no dataset /zzz; it has /alpha, /beta"):
        refer(f"{path}::/zzz")


def test_a_file_without_datasets_says_so(make_file):
    """There is no name to suggest."""
    with pytest.raises(SourceError, match="no dataset /data; it has no datasets"):
        refer(f"{make_file()}::/data")


def test_a_group_is_no_source_and_its_datasets_are_named(make_file):
    """One level too high is an easy mistake."""
    path = make_file(**{"Channel_000/Raw_Data": np.arange(3)})

    with pytest.raises(SourceError, match=r"is a group, .*/Channel_000/Raw_Data"):
        refer(f"{path}::/Channel_000")


def test_a_broken_link_is_a_missing_dataset(make_file):
    """A dataset that lies in a file that is gone."""
    path = make_file(link=h5py.ExternalLink("gone.h5", "/data"))

    with pytest.raises(SourceError, match="has no dataset /link"):
        refer(f"{path}::/link")


@pytest.mark.parametrize("text", ["{}", "{}::", "{}::/"])
def test_a_file_alone_is_no_source_and_its_datasets_are_named(make_file, text):
    """The message shows what to add."""
    path = make_file(data=np.arange(3))

    with pytest.raises(SourceError, match=r"names no dataset; .*there are /data"):
        refer(text.format(path))


def test_a_dataset_of_the_same_file_needs_a_file():
    """Only inputs have one."""
    with pytest.raises(SourceError, match="names no file"):
        refer("::/data")


@pytest.mark.parametrize("contents", [b"", b"a text, not a measurement" * 100])
def test_a_file_that_is_not_hdf5_says_so(tmp_path, contents):
    """With the reason of the HDF5 library."""
    path = tmp_path / "notes.h5"
    path.write_bytes(contents)

    with pytest.raises(SourceError, match=r"notes\.h5 cannot be read as HDF5"):
        refer(f"{path}::/data")


def test_a_truncated_file_says_so(scan):
    """A copy that was interrupted."""
    path = scan.removesuffix("::/data")
    os.truncate(path, Path(path).stat().st_size // 2)

    with pytest.raises(SourceError, match="cannot be read as HDF5"):
        refer(scan)


def test_a_folder_is_not_taken_for_a_file(tmp_path):
    """The message says what it is."""
    with pytest.raises(SourceError, match="is a folder"):
        refer(f"{tmp_path}::/data")


@pytest.mark.parametrize("mode", ["r+", "a"])
def test_a_dataset_of_a_file_open_for_writing_is_refused(scan, mode):
    """Nothing of ours may come near a file that somebody can change."""
    with (
        h5py.File(scan.removesuffix("::/data"), mode) as file,
        pytest.raises(SourceError, match="reopen it with mode 'r'"),
    ):
        refer(file["data"])


def test_a_file_open_for_writing_in_another_program_says_so(scan):
    """HDF5 locks it; the message says what to close."""
    path = scan.removesuffix("::/data")
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdin.read()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        program.stdout.readline()

        with pytest.raises(SourceError, match="open for writing, in another program"):
            refer(scan)


def test_a_closed_dataset_is_refused(scan):
    """Its file and name are no longer known."""
    with h5py.File(scan.removesuffix("::/data"), "r") as file:
        dataset = file["data"]

    with pytest.raises(SourceError, match="file is closed"):
        refer(dataset)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float64(3), r"data is a single value; a source needs an axis"),
        (h5py.Empty("f8"), r"data is a single value"),
        (np.zeros((0, 5)), r"shape \(0, 5\): there is nothing to compute"),
        (np.zeros((5, 0)), r"shape \(5, 0\): there is nothing to compute"),
        (["a", "bcd"], r"entries of variable length \(text\)"),
        (
            {"shape": (2,), "dtype": h5py.vlen_dtype("i4")},
            "entries of variable length",
        ),
        (
            {"shape": (2,), "dtype": [("a", "f8"), ("t", h5py.string_dtype())]},
            "entries of variable length",
        ),
        ({"shape": (2,), "dtype": h5py.ref_dtype}, "only data of a fixed size"),
        ({"shape": (4,), "dtype": np.dtype(("f8", (3,)))}, "array"),
    ],
    ids=[
        "scalar",
        "null",
        "no positions",
        "no data",
        "text",
        "variable length",
        "text in a compound",
        "reference",
        "array type",
    ],
)
def test_a_dataset_that_cannot_be_computed_is_refused(make_file, value, message):
    """At once, not on the first worker."""
    path = make_file(data=value)

    with pytest.raises(SourceError, match=message):
        refer(f"{path}::/data")


@pytest.mark.parametrize("source", [None, 2.5, True, ["scan.h5::/data"], b"x", {}])
def test_what_is_no_source_is_refused(source):
    """The message lists the four forms."""
    with pytest.raises(
        SourceError, match=r"a source is 'file\.h5::/dataset', .* not a"
    ):
        refer(source)


@pytest.mark.parametrize("count", [0, -3])
def test_a_source_without_data_needs_a_position(count):
    """Nothing to count is nothing to compute."""
    with pytest.raises(SourceError, match=f"at least 1 position, not {count}"):
        refer(count)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (2, r"position_axes=\(2,\) do not exist in .*data of shape \(60, 32\)"),
        (-3, "do not exist"),
        ((0, 5), "do not exist"),
        ((), "do not exist"),
        ((0, 0), "names an axis twice"),
        ((1, -1), "names an axis twice"),
        (None, "must be a whole number or a tuple of them"),
        ("ab", "must be a whole number or a tuple of them"),
        (0.5, "must be a whole number or a tuple of them"),
        ((0.5,), "must be a whole number or a tuple of them"),
    ],
    ids=repr,
)
def test_position_axes_that_do_not_exist_are_refused(scan, axes, message):
    """The message tells the shape."""
    with pytest.raises(SourceError, match=message):
        refer(scan, axes)


def test_a_source_without_data_has_one_axis():
    """Another axis than the first is a mistake."""
    with pytest.raises(SourceError, match="leave position_axes at 0"):
        refer(5, (0, 1))


def test_axes_counted_from_the_end_are_the_same_axes(make_file):
    """In the user's order."""
    path = make_file(data=np.zeros((2, 3, 4)))

    assert refer(f"{path}::/data", (-1, 0)).position_axes == (2, 0)


# Virtual datasets.


def make_virtual(make_file, parts):
    """Make a virtual dataset of one row per part (file, dataset)."""
    layout = h5py.VirtualLayout((len(parts), 5), "f8")
    for row, (file, name) in enumerate(parts):
        layout[row] = h5py.VirtualSource(file, name, (5,))
    path = make_file("virtual.h5")
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("data", layout, fillvalue=-1)
    return f"{path}::/data"


def test_a_virtual_dataset_is_read_from_its_parts(make_file):
    """Parts that lie beside it are found from any working folder."""
    make_file("a.h5", data=np.arange(5.0))
    make_file("b.h5", data=np.arange(5.0) + 10)

    rows = read_all(make_virtual(make_file, [("a.h5", "data"), ("b.h5", "data")]))

    np.testing.assert_array_equal(rows, [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]])


@pytest.mark.parametrize("missing", [("gone.h5", "data"), ("a.h5", "gone")])
def test_a_virtual_dataset_with_a_missing_part_is_refused(make_file, missing):
    """HDF5 would show fill values there: wrong, without a word."""
    make_file("a.h5", data=np.arange(5.0))
    source = make_virtual(make_file, [("a.h5", "data"), missing])

    with pytest.raises(SourceError, match=r"is virtual and its part .*gone"):
        refer(source)


# Filters.


@pytest.mark.skipif(not find_spec("hdf5plugin"), reason="needs hdf5plugin")
def test_a_filter_of_hdf5plugin_is_loaded_when_it_is_needed():
    """Images of a cytometer, compressed with zstd, read without an import."""
    code = (
        "import sys\n"
        "from test_reference import read_all\n"
        "assert 'hdf5plugin' not in sys.modules\n"
        "rows = read_all(sys.argv[1])\n"
        "print(rows.shape, rows.dtype, rows.std() > 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, f"{DATA}/cytoshot-test-data.rtdc::/events/image"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "(40, 80, 400) uint8 True\n"


def test_a_missing_filter_says_what_to_install():
    """Rather than fail on the first worker with a message about plugins."""
    code = (
        "import sys; sys.modules['hdf5plugin'] = None\n"
        "from resumable.errors import SourceError\n"
        "from resumable.source.reference import refer\n"
        "try:\n    refer(sys.argv[1])\n"
        "except SourceError as error:\n    print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "HDF5_PLUGIN_PATH"}
    path = f"{DATA}/cytoshot-test-data.rtdc"

    done = subprocess.run(
        [sys.executable, "-c", code, f"{path}::/events/image"],
        env={**environment, "PYTHONPATH": str(Path(rs.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )

    assert f"{path}::/events/image is compressed with HDF5 filter 32015" in done.stdout
    assert "pip install hdf5plugin (or resumable-hdf5[filters])" in done.stdout


# Reading by position.

LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "compressed": {"chunks": (2, 3, 2), "compression": "gzip"},
    "filtered": {"chunks": (3, 1, 4), "shuffle": True, "fletcher32": True},
    "growable": {"chunks": (2, 2, 2), "maxshape": (None, None, None)},
}
DTYPES = ["f8", ">f8", "f2", "i1", ">u4", bool, "c8", "S3", PAIR, "i8"]


def fill(dtype, shape):
    """Make an array of any dtype in which no two neighbours are equal."""
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
def test_every_dtype_and_layout_is_read_as_numpy_would(tmp_path, layout, dtype):
    """Bytes as they are in the file, big-endian and half precision included."""
    data = fill(dtype, (4, 3, 5))
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, **LAYOUTS[layout])

    rows = read_all(f"{path}::/data", (2, 0))

    assert rows.dtype == data.dtype
    np.testing.assert_array_equal(rows, by_position(data, (2, 0)))


def test_what_is_not_finite_passes_through(make_file):
    """NaN and infinity are data."""
    data = np.array([[np.nan, np.inf], [-np.inf, -0.0]])
    path = make_file(data=data)

    rows = read_all(f"{path}::/data")

    assert rows.tobytes() == data.tobytes()


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """Return the path of one cube in every layout, and the cube."""
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
    """Joined reads, gaps and the ends of spans included."""
    path, cube = cubes
    expected = by_position(cube, axes)
    start = data.draw(st.integers(0, len(expected) - 1))
    stop = data.draw(st.integers(start + 1, len(expected)))
    span = stop - start
    members = data.draw(st.lists(st.booleans(), min_size=span, max_size=span))
    members[data.draw(st.integers(0, span - 1))] = True
    with (
        mock.patch.object(reading, "_GAP_BYTES", gap),
        mock.patch.object(reading, "_SEGMENT_BYTES", 2 * gap),
        Reader(refer(f"{path}::/{layout}", axes)) as reader,
    ):
        rows = reader.empty(sum(members))
        reader.read(start, np.array(members), rows)

    np.testing.assert_array_equal(rows, expected[start:stop][np.array(members)])


@pytest.mark.parametrize("members", [[True], [True, False, True, True, False]])
def test_a_source_without_data_reads_the_indices(members):
    """Scattered ones, too."""
    with Reader(refer(100)) as reader:
        rows = reader.empty(sum(members))
        reader.read(40, np.array(members), rows)

    assert rows.tolist() == [40 + i for i, member in enumerate(members) if member]
    assert not reader.has_data


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), st.data())
def test_slabs_are_boxes_that_make_up_a_flat_range_in_order(shape, data):
    """Each position of the range once."""
    flat = np.arange(np.prod(shape)).reshape(shape)
    start = data.draw(st.integers(0, flat.size))
    stop = data.draw(st.integers(start, flat.size))

    boxes = list(slabs(start, stop, shape))

    found = [flat[box].ravel() for box in boxes]
    assert np.concatenate([[], *found]).tolist() == list(range(start, stop))
    assert len(boxes) <= 2 * len(shape) - 1


@pytest.mark.parametrize("axes", AXES)
def test_the_geometry_tells_map_spectrum_and_chunks(cubes, axes):
    """In the user's order of the axes."""
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
    """Plain chunks are read only as far as they are needed."""
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
    """With their names and units, where the source has them."""
    path = make_file(data=np.zeros((3, 4)), bias=np.linspace(-1, 1, 4))
    with h5py.File(path, "a") as file:
        file["bias"].make_scale("bias")
        file["bias"].attrs["units"] = "V"
        file["data"].dims[1].attach_scale(file["bias"])

    with Reader(refer(f"{path}::/data", (0, 1))) as reader:
        scales = scales_of(reader)

    assert list(scales) == [1]
    assert (scales[1][0], scales[1][2]) == ("bias", "V")
    np.testing.assert_array_equal(scales[1][1], np.linspace(-1, 1, 4))


# Fingerprints.


@pytest.mark.parametrize(
    ("layout", "position"),
    [(layout, at) for layout in LAYOUTS for at in (0, 1, 59) if layout != "growable"]
    # What lies behind the first position of a growable one may still be written.
    + [("growable", 0)],
)
def test_one_changed_element_changes_the_fingerprint(tmp_path, layout, position):
    """Anywhere in a source of up to 64 MB; of one that can grow, at the start."""
    data = np.zeros((60, 3, 4))
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, **LAYOUTS[layout])
    before = fingerprint(f"{path}::/data")

    with h5py.File(path, "r+") as file:
        file["data"][position, 2, 3] = 1e-300

    assert fingerprint(f"{path}::/data") != before


def test_a_change_of_content_that_a_growable_source_hides_changes_its_contents(
    tmp_path,
):
    """What the fingerprint leaves out is compared when the run is found."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.zeros((6, 4)), maxshape=(None, 4))
    with Reader(refer(f"{path}::/data")) as reader:
        before = reader.contents()

    with h5py.File(path, "r+") as file:
        file["data"][5, 3] = 1

    with Reader(refer(f"{path}::/data")) as reader:
        assert reader.contents() != before


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((5, 12)),
        np.zeros((10, 6)),
        np.zeros((60, 1)),
        np.zeros(60),
        np.zeros((6, 10), "f4"),
        np.zeros((6, 10), "i8"),
        np.zeros((6, 10), [("x", "f8")]),
    ],
    ids=["shape", "transposed", "length", "axes", "width", "kind", "compound"],
)
def test_shape_and_dtype_are_part_of_the_fingerprint(make_file, other):
    """Even where all bytes are zero."""
    first = make_file("first.h5", data=np.zeros((6, 10)))
    second = make_file("second.h5", data=other)

    assert fingerprint(f"{first}::/data") != fingerprint(f"{second}::/data")


def test_the_name_inside_the_file_is_part_of_the_fingerprint(make_file):
    """Raw_Data is not Raw_Data_B, whatever is in them."""
    path = make_file(data=np.zeros(5), data_b=np.zeros(5))

    assert fingerprint(f"{path}::/data") != fingerprint(f"{path}::/data_b")


def test_what_cannot_change_results_is_not_in_the_fingerprint(make_file):
    """A copy of the file, another attribute, chunks."""
    data = np.arange(60.0).reshape(6, 10)
    first = make_file("first.h5", data=data)
    second = make_file("a copy.h5", data={"data": data, "chunks": (2, 3)})
    with h5py.File(second, "a") as file:
        file["data"].attrs["comment"] = "looks good"
        file["more"] = 5

    assert fingerprint(f"{first}::/data") == fingerprint(f"{second}::/data")


def test_chunks_that_were_never_written_have_a_fingerprint(tmp_path):
    """They read as the fill value, and writing one is a change."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (6, 4), "f8", chunks=(2, 4), compression="gzip")
    before = fingerprint(f"{path}::/data")

    with h5py.File(path, "r+") as file:
        file["data"][4] = 1

    assert fingerprint(f"{path}::/data") != before


def test_of_a_large_compressed_source_chunks_spread_over_it_are_digested(tmp_path):
    """The first and the last of them among these, and all with ``full``."""
    path = tmp_path / "scan.h5"
    noise = np.random.default_rng(3).integers(0, 255, (1200, 64 << 10), np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=noise, chunks=(1, 64 << 10), compression=1)
    parts = []
    real = resumable.source.fingerprint._sha256

    def counted(part):
        parts.append(part)
        return real(part)

    def corners():
        """Return the first rows of the chunks that were digested, in order."""
        places = [bytes(part) for part in parts if len(part) < 30]
        return sorted(ast.literal_eval(place.decode())[0][0] for place in places)

    with mock.patch("resumable.source.fingerprint._sha256", counted):
        fingerprint(f"{path}::/data")
        sampled, parts[:] = corners(), []
        fingerprint(f"{path}::/data", full=True)

    assert 8 << 20 < len(sampled) * (64 << 10) <= 17 << 20
    assert (sampled[0], sampled[-1]) == (0, 1199)
    assert max(np.diff(sampled)) < 6
    assert corners() == list(range(1200))


def test_a_source_that_only_grew_has_the_same_fingerprint(tmp_path):
    """The length of a position axis that can grow is left out."""
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.ones((6, 4)), maxshape=(None, 4))
    before = fingerprint(f"{path}::/data")

    with h5py.File(path, "r+") as file:
        file["data"].resize(9, axis=0)
        file["data"][6:] = 5

    assert fingerprint(f"{path}::/data") == before


def test_the_first_rows_of_a_source_that_grew_have_the_same_contents(tmp_path):
    """So that rows of another measurement are never taken for them."""
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.ones((6, 4)), maxshape=(None, 4))
    with Reader(refer(f"{path}::/data")) as reader:
        before = reader.contents()

    with h5py.File(path, "r+") as file:
        file["data"].resize(9, axis=0)

    with Reader(refer(f"{path}::/data")) as reader:
        assert reader.contents(6) == before
        assert reader.contents() != before


@pytest.mark.parametrize(
    ("maxshape", "axes", "growable"),
    [
        ((None, 4), (0,), True),
        ((9, 4), (0,), True),
        ((6, 4), (0,), False),
        ((6, None), (0,), False),
        ((6, None), (1,), True),
        ((None, 4), (1, 0), False),
    ],
)
def test_a_source_can_grow_along_its_first_position_axis(
    tmp_path, maxshape, axes, growable
):
    """Growing spectra, or growing within a row of the map, is another source."""
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (6, 4), "f8", maxshape=maxshape, chunks=(2, 2))

    with Reader(refer(f"{path}::/data", axes)) as reader:
        assert reader.growable is growable


SIZE = 80 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return the path of 80 MB of zeros that take no space, and its offset."""
    path = tmp_path_factory.mktemp("large") / "large.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (80, 1 << 20), "u1")
        data[0, 0] = 1
        offset = data.id.get_offset()
    os.truncate(path, offset + SIZE)
    return path, offset


def change(large, at, value):
    """Set one byte of the large source."""
    path, offset = large
    with path.open("r+b") as file:
        file.seek(offset + at)
        file.write(bytes([value]))


def test_beyond_64_mb_the_fingerprint_covers_samples_unless_full(large):
    """First and last bytes always count, every byte does with ``full``."""
    source = f"{large[0]}::/data"
    # The samples are 0.25 MB each and begin every 1.27 MB.
    between = 700_000
    before = fingerprint(source)
    whole = fingerprint(source, full=True)

    change(large, between, 1)
    unseen, seen = fingerprint(source), fingerprint(source, full=True)
    change(large, between, 0)
    change(large, SIZE - 1, 1)
    last = fingerprint(source)
    change(large, SIZE - 1, 0)

    assert unseen == before
    assert seen != whole
    assert last != before


def test_the_fingerprint_of_a_large_source_reads_at_most_16_mb(large):
    """The rest of a terabyte is left alone."""
    read = []
    real = Contiguous.read

    def counted(contents, start, out):
        read.append(out.nbytes)
        real(contents, start, out)

    with mock.patch.object(Contiguous, "read", counted):
        fingerprint(f"{large[0]}::/data")

    assert 8 << 20 < sum(read) <= 16 << 20
