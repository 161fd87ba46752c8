"""What may be a source, and the messages about everything else."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import process_of
from sources import fingerprint, read_all

import resumable as rs
import resumable.source.fingerprint
from resumable.errors import SourceError
from resumable.source.reference import SourceRef, refer

# What may be a source.


def test_a_text_names_a_file_and_a_dataset(scan):
    path = scan.removesuffix("::/data")

    ref = refer(scan)

    assert ref == SourceRef(path, "/data", (0,))
    assert (str(ref), ref.name) == (scan, "data")


@pytest.mark.parametrize("text", ["{}::data", "{}::/data", "{}::/data/"])
def test_slashes_around_a_dataset_do_not_matter(scan, text):
    path = scan.removesuffix("::/data")

    assert refer(text.format(path)) == refer(scan)


def test_an_open_dataset_is_a_source(scan):
    with h5py.File(scan.removesuffix("::/data"), "r") as file:
        ref = refer(file["data"])

    assert ref == refer(scan)


def test_an_open_dataset_of_a_file_that_was_replaced_is_refused(make_file):
    path, new = make_file(data=np.zeros((6, 4))), make_file("new.h5", data=np.ones(6))
    with h5py.File(path, "r") as file:
        Path(new).replace(path)
        with pytest.raises(SourceError, match="another file or none: it was moved or"):
            refer(file["data"])
    with h5py.File(path, "r") as file:
        assert refer(file["data"]) == refer(f"{path}::/data")
        Path(path).unlink()
        with pytest.raises(SourceError, match="another file or none: it was moved or"):
            refer(file["data"])


def test_an_open_dataset_behind_links_is_the_one_that_was_opened(make_file):
    """HDF5 tells the file of it, and the name of a soft link in another file."""
    path, other = make_file(), make_file("master.h5")
    with h5py.File(path, "w") as file:
        file["raw/x"], file["raw/y"] = np.ones((6, 4)), np.zeros((6, 4))
        file["data"] = file["h/y"] = np.full((6, 4), 100.0)
    with h5py.File(other, "w") as file:
        file["one"] = h5py.ExternalLink(path, "/raw/x")
        file["group"] = h5py.ExternalLink(path, "/raw")
        file["data"], file["h"] = h5py.SoftLink("/one"), h5py.SoftLink("/group")
        file.create_group("entry")["data"] = h5py.SoftLink("/data")
    with h5py.File(other, "r") as file:
        for name in ("one", "data", "entry/data", "group/x", "h/x"):
            assert refer(file[name]) == SourceRef(str(path), "/raw/x", (0,))
        assert refer(file["h/y"]) == SourceRef(str(path), "/raw/y", (0,))
        process = process_of(lambda self, row, b, c: b.sum() + c.sum())(
            file["data"], inputs={"b": file["data"]}, shared={"c": file["data"]}
        )
        assert process.test(0)["mean"] == 4 + 24


def test_a_number_is_a_source_without_data():
    assert read_all(7).tolist() == list(range(7))
    assert fingerprint(np.int64(7)) == {"positions": 7}
    assert str(refer(7)) == "7 positions"


@pytest.fixture
def results(scan):
    Twice = process_of(lambda self, spectrum: 2 * spectrum, {"twice": rs.Output(32)})
    return Twice(scan).compute(engine="serial", progress=False)


def test_an_output_of_results_is_a_source(scan, results):
    expected = 2 * read_all(scan)

    rows = read_all(results["twice"])

    np.testing.assert_array_equal(rows, expected)


def test_an_output_of_results_is_known_by_the_identity_of_its_run(results):
    document = fingerprint(results["twice"])

    assert document["run"] == results.identity
    assert "contents" not in document


def test_a_dataset_without_a_file_is_one_of_the_same_file(scan):
    path = scan.removesuffix("::/data")

    assert refer("::/data", same_file=path) == refer(scan)


def test_a_soft_link_leads_to_its_dataset(make_file):
    path = make_file(data=np.arange(5), link=h5py.SoftLink("/data"))

    assert read_all(f"{path}::/link").tolist() == [0, 1, 2, 3, 4]


def test_an_external_link_leads_to_the_dataset_of_the_other_file(make_file):
    other = make_file("other.h5", data=np.arange(5))
    path = make_file(data=np.zeros(5, int), link=h5py.ExternalLink(other, "/data"))

    assert read_all(f"{path}::/link").tolist() == [0, 1, 2, 3, 4]


def test_a_source_without_data_has_one_axis():
    with pytest.raises(SourceError, match="give position_axes=0"):
        refer(5, (0, 1))


def test_axes_counted_from_the_end_are_the_same_axes(make_file):
    path = make_file(data=np.zeros((2, 3, 4)))

    assert refer(f"{path}::/data", (-1, 0)).position_axes == (2, 0)
