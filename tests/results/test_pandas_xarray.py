"""Results in pandas and xarray: values, coordinates, units and states."""

import pickle
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from helpers import compute

import resumable as rs

pytestmark = pytest.mark.filterwarnings("ignore:1 of .* positions failed")

PAIR = np.dtype([("a", "f4"), ("b", "i2", (2,))])


class Kinds(rs.Process):
    version = 1
    outputs: ClassVar = {
        "fit": rs.Output(2, units="eV", labels=("centre", "width")),
        "count": rs.Output(dtype="i4", fill_value=-1),
        "text": rs.Output(dtype="S3"),
        "pair": rs.Output(dtype=PAIR),
        "line": rs.Output(3),
        "peaks": rs.Output(2, ragged=True, labels=("place", "height")),
        "total": rs.Output(2, per="run"),
    }

    def unit_computation(self, spectrum):
        row, column = self.position
        if self.position == (2, 3):
            raise ValueError("no")
        return {
            "fit": (row, column),
            "count": row,
            "text": b"abc",
            "pair": (row, (column, 1)),
            "line": np.full(3, row),
            "peaks": [(row, n) for n in range(column)],
        }

    def finish(self, results):
        return [1, 2]


@pytest.fixture
def results(source):
    return compute(Kinds(source, position_axes=(0, 1)))


def test_a_table_has_a_line_for_every_position(results):
    table = results.to_pandas()
    assert list(table.columns) == [
        *("height", "position_1", "status", "fit_centre", "fit_width", "count", "text"),
        *("pair_a", "pair_b_0", "pair_b_1", "peaks_count"),
    ]
    row, column = np.divmod(np.arange(40), 5)
    done = (row != 2) | (column != 3)
    assert table.index.name == "position"
    np.testing.assert_array_equal(table["height"], np.linspace(0, 1, 8)[row])
    np.testing.assert_array_equal(table["position_1"], column)
    assert list(table["status"]) == ["done" if each else "failed" for each in done]
    np.testing.assert_array_equal(table["fit_width"][done], column[done])
    np.testing.assert_array_equal(table["count"], np.where(done, row, -1))
    np.testing.assert_array_equal(table["pair_b_0"][done], column[done])
    np.testing.assert_array_equal(table["peaks_count"], np.where(done, column, 0))
    assert table["text"][0] == "abc"
    assert np.isnan(table["fit_centre"][13])


def test_a_table_of_the_rows_of_a_ragged_output(results):
    table = results.to_pandas("peaks")
    assert list(table.columns) == [
        *("height", "position_1", "peaks_place", "peaks_height")
    ]
    np.testing.assert_array_equal(table.index, results["peaks"].index)
    np.testing.assert_array_equal(table["peaks_place"], table.index // 5)
    np.testing.assert_array_equal(table.loc[4]["peaks_height"], range(4))
    with pytest.raises(rs.ParameterError, match="'count' is not ragged"):
        results.to_pandas("count")


@pytest.mark.parametrize("chunks", [None, 3])
def test_a_dataset_of_xarray(results, chunks):
    data = results.to_xarray(chunks)
    assert data["fit"].dims == ("height", "position_1", "fit_labels")
    assert data["fit"].attrs == {"units": "eV"}
    assert data["height"].attrs["units"] == "nm"
    assert (data["fit"].chunks is None) == (chunks is None)
    done = results.completed_mask
    widths = data["fit"].sel(fit_labels="width", height=1.0)
    np.testing.assert_array_equal(widths, range(5))
    np.testing.assert_array_equal(data["status"], np.where(done, 1, 2))
    np.testing.assert_array_equal(data["pair_b"], results["pair"]["b"])
    assert data["total"].dims == ("total_0",)
    assert data.attrs["identity_sha256"] == results.identity
    rows = data["peaks"][data["peaks_position"] == 4]
    np.testing.assert_array_equal(rows.sel(peaks_labels="height"), range(4))


def test_unfinished_and_packed_runs_have_the_same_tables(source):
    process = Kinds(source, position_axes=(0, 1))
    part = compute(process, positions=np.s_[:2, :])
    assert (part.to_pandas()["status"] == "pending").sum() == 30
    results = compute(process)
    before = results.to_pandas(), results.to_xarray()
    results.pack()
    pd.testing.assert_frame_equal(results.to_pandas(), before[0])
    assert results.to_xarray().identical(before[1])


def test_outputs_travel_to_workers_of_dask(results):
    again = pickle.loads(pickle.dumps(results["fit"]))
    np.testing.assert_array_equal(again[...], results["fit"][...])


def test_axes_of_one_name_that_differ_are_told_apart(tmp_path):
    class Two(rs.Process):
        version = 1
        outputs: ClassVar = {
            "a": rs.Output(2, labels=("x", "y")),
            "a_labels": rs.Output(3),
        }

        def unit_computation(self, number):
            return {"a": (1, 2), "a_labels": (1, 2, 3)}

    data = compute(Two(4, tmp_path)).to_xarray()
    assert list(data["a"].coords["a_labels_2"].values) == ["x", "y"]
