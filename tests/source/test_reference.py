"""What may be a source, and the messages about everything else."""

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
