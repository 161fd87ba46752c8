"""What may be a source, and the messages about everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
from sources import fingerprint, read_all

import resumable as rs
import resumable.source.fingerprint
from resumable.errors import SourceError
from resumable.source.reference import SourceRef, refer

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
    """Its contents could change while they are computed."""
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
