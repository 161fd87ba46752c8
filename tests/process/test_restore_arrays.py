"""A Process that holds arrays: its run file and its state have them, up to 16 MB."""

import json

import h5py
import numpy as np
import param
import pytest

import resumable as rs

ARRAYS = [
    np.linspace(400, 700, 32),
    np.array([1, np.nan, -0.0], ">f4"),
    np.array(2.5),
    np.zeros((0, 3), "i2"),
    np.asfortranarray(np.arange(6).reshape(2, 3) > 2),
    np.array([1 + 2j, 3j], "c8"),
    np.array(["a", "däß"]),
    np.array([b"a", b"bc"]),
    np.array(["2024-01-02", "NaT"], "M8[ns]"),
    np.array([(1, 2.5)], np.dtype([("a", "u1"), ("b", ">f8")], align=True)),
]

ONES = np.ones(32)
#: The name that the group of arrays would have.
OUTPUTS = {"arrays": rs.Output()}


class Weighted(rs.Process):
    """Holds arrays in three ways."""

    version = 1
    outputs = OUTPUTS
    weights = param.Array()
    table = param.Parameter()
    window = param.List(default=[])

    def unit_computation(self, spectrum):
        return spectrum.mean()


def same(left, right):
    return (
        left.shape == right.shape
        and left.dtype == right.dtype
        and np.array_equal(left, right, equal_nan=left.dtype.kind in "fcM")
    )


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
def test_an_array_comes_back_from_the_run_file_and_from_the_state(scan, array):
    process = Weighted(scan, weights=array, table={"x": [array], "y/z": (1, "two")})
    results = process.compute(engine="serial")

    for again in (
        rs.load(results, Weighted),
        rs.load(json.loads(json.dumps(process.state())), Weighted),
    ):
        assert same(again.weights, array)
        assert same(again.table["x"][0], array)
        assert again.table["y/z"] == (1, "two")
        assert again.identity == process.identity
        assert again.results == results

    found = rs.verify(results.path, Weighted)
    assert (found.passed, found.checks[-1].passed) == (True, True)


def test_a_masked_array_comes_back_with_its_mask(scan):
    masked = np.ma.array(np.arange(6.0).reshape(2, 3), mask=np.eye(2, 3))
    process = Weighted(scan, weights=masked, window=[np.ma.array(["a", "b"])])
    results = process.compute(engine="serial")

    for again in (rs.load(results, Weighted), rs.load(process.state(), Weighted)):
        np.testing.assert_array_equal(again.weights.mask, masked.mask)
        np.testing.assert_array_equal(again.weights.data, masked.data)
        assert again.window[0].tolist() == ["a", "b"]
        assert again.results == results
    assert rs.verify(results.path, Weighted).checks[-1].passed


def test_the_arrays_of_a_run_are_datasets_for_everybody(scan):
    axis, low = np.linspace(400, 700, 32), np.arange(4)
    results = Weighted(
        scan, weights=axis, table={"low": low, "a/b": low + 1}, window=[low + 2]
    ).compute(engine="serial")
    results.pack()
    results.publish(scan.replace("::/data", "::/published"))

    for path, group in (
        (results.path, "data-Weighted_000"),
        (scan.partition("::")[0], "published"),
    ):
        with h5py.File(path) as file:
            kept = {k: v[...].tolist() for k, v in file[group]["arrays_"].items()}
            assert kept == {
                "table.a_b": [1, 2, 3, 4],
                "table.low": [0, 1, 2, 3],
                "weights": axis.tolist(),
                "window.0": [2, 3, 4, 5],
            }
    assert rs.verify(results.path, Weighted).checks[-1].passed


def test_an_array_that_is_too_large_is_said_to_be_and_the_run_is_sound(scan):
    large, small = np.zeros((2 << 20) - 3), np.arange(4)
    process = Weighted(scan, weights=large, window=[small])
    results = process.compute(engine="serial")

    with pytest.raises(rs.IdentityError, match=r"'weights' is an array .* 16 MB"):
        rs.load(results, Weighted)
    found = rs.verify(results.path, Weighted)
    assert found.passed
    assert [check.passed for check in found.checks] == [True, True, True, None, None]
    assert process.verify().checks[-1].passed
    with h5py.File(results.path) as file:
        # The smallest first.
        assert list(file["data-Weighted_000/arrays_"]) == ["window.0"]


def test_a_plain_function_finds_its_arrays_again(scan):
    def weighted(spectrum, weights=ONES, more=None):
        return (spectrum * weights).sum() + more["x"][0]

    more = {"x": np.arange(3.0)}
    results = rs.map(weighted, scan, weights=np.arange(32.0), more=more)

    found = rs.verify(results.path, weighted)
    assert found.checks[-1].passed, found


def test_a_run_file_in_which_an_array_was_replaced_is_damaged(scan):
    """The numbers are part of what is digested: no other ones are ever taken."""
    axis = np.linspace(400, 700, 32)
    results = Weighted(scan, weights=axis).compute(engine="serial")
    data = results.path.read_bytes()
    assert data.count(axis.tobytes()) == 1
    results.path.write_bytes(data.replace(axis.tobytes(), (axis + 1).tobytes()))

    with pytest.raises(rs.RunFileError, match="structure is not the one"):
        rs.load(results.path, Weighted)
