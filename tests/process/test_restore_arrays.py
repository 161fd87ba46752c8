"""A Process that holds arrays: its run file and its state have them, up to 16 MB."""

import json
from typing import ClassVar

import h5py
import numpy as np
import param
import pytest
from numpy._core._rational_tests import rational

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


@pytest.mark.parametrize(
    "masked",
    [
        np.ma.array(np.arange(6.0).reshape(2, 3), mask=np.eye(2, 3), fill_value=5),
        np.ma.array([1, 2, 3], mask=[0, 1, 0], fill_value=-1),
        np.ma.array(["ab", "c"], mask=[0, 1], fill_value="x"),
        np.ma.array(2.5, mask=True, fill_value=7),
        np.ma.array(np.zeros((0, 3)), fill_value=7),
        np.ma.array([(1, 2.5)], [("a", "i4"), ("b", "f8")], mask=[(0, 1)]),
    ],
    ids=lambda array: f"{array.dtype.kind}{array.ndim}",
)
def test_a_masked_array_comes_back_with_its_fill_value(scan, masked):
    process = Weighted(scan, weights=ONES, table=[masked])
    results = process.compute(engine="serial")

    for again in (rs.load(results, Weighted), rs.load(process.state(), Weighted)):
        assert again.table[0].shape == masked.shape
        assert again.table[0].fill_value == masked.fill_value
        assert again.table[0].filled().tolist() == masked.filled().tolist()
        assert again.results == results
    assert rs.verify(results.path, Weighted).checks[-1].passed


def test_what_is_masked_as_a_whole_is_known_by_its_type(scan):
    one, number = (
        Weighted(scan, weights=ONES, table=value)
        for value in (np.ma.masked, np.ma.array(0.0, mask=True))
    )

    assert one.identity != number.identity
    assert one.compute(engine="serial").status.done == 60
    assert one.results is not None
    with pytest.raises(rs.IdentityError, match="only a digest is written down"):
        rs.load(one.results, Weighted)


def test_dtypes_that_numpy_does_not_have_count_and_are_not_read_back(scan):
    """As bfloat16 and float8, of which numpy says no more than the size."""
    for value in (rational(1, 2), np.array([rational(1, 2)]), np.dtype(rational)):
        process = Weighted(scan, weights=ONES, table=value)
        results = process.compute(engine="serial")

        assert '"rational"' in json.dumps(results.document["parameters"]["table"])
        assert process.verify().checks[-1].passed
        with pytest.raises(rs.IdentityError, match="numpy"):
            rs.load(results, Weighted)
        found = rs.verify(results.path, Weighted)
        assert [c.passed for c in found.checks] == [True, True, True, None, None]


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_dtypes_of_ml_dtypes_are_read_back(scan, dtype):
    """Arrays in either order, in lists, numbers and the dtype itself."""
    kind = np.dtype(getattr(pytest.importorskip("ml_dtypes"), dtype))
    array = np.arange(6).reshape(2, 3).astype(kind)
    table = [array, np.asfortranarray(array), array[1, 2], kind]
    process = Weighted(scan, weights=ONES, table=table)
    results = process.compute(engine="serial")

    for again in (rs.load(results, Weighted), rs.load(process.state(), Weighted)):
        assert again.results == results
        for before, after in zip(table[:3], again.table, strict=False):
            assert after.dtype == kind
            np.testing.assert_array_equal(before, after)
        assert again.table[1].flags.f_contiguous
        assert again.table[3] == kind
    assert rs.verify(results.path, Weighted).checks[-1].passed


class Summed(rs.Process):
    """Adds up numbers in the order in which they lie in memory."""

    version = 1
    outputs: ClassVar = {"sum": rs.Output(), "product": rs.Output()}
    table = param.Array()
    more = param.Parameter()

    def unit_computation(self, spectrum):
        table = self.table if self.more is None else self.more["T"]
        product = table @ np.resize(spectrum, table.shape[-1])
        return {"sum": table.sum(), "product": product.sum()}


SQUARE = np.random.default_rng(0).normal(size=(402, 666))


@pytest.mark.parametrize(
    ("how", "order"),
    [
        (np.asfortranarray, "F"),
        (lambda square: square[::2, ::2], "C"),
        (lambda square: square[::-1], "C"),
        (lambda square: np.asfortranarray(square)[:, ::2][:201], "C"),
        (lambda square: np.moveaxis(square.reshape(2, 201, 666), 0, 1), "C"),
    ],
    ids=["Fortran", "gaps", "backwards", "Fortran with gaps", "turned"],
)
def test_an_array_comes_back_as_it_lay_in_memory_so_sums_are_the_same(scan, how, order):
    square = how(SQUARE)
    for given in ({"table": square}, {"more": {"T": square}}):
        process = Summed(scan, **given)
        results = process.compute(engine="serial", positions=slice(0, 3))

        for again in (rs.load(results, Summed), rs.load(process.state(), Summed)):
            table = again.table if again.more is None else again.more["T"]
            assert table.flags[f"{order}_CONTIGUOUS"]
            np.testing.assert_array_equal(table, square)
            assert again.results == results
        found = rs.verify(results.path, Summed, sample="all")
        assert found.checks[-1].passed, found


def test_workers_add_up_an_array_with_gaps_as_the_process_itself_does(scan):
    def both(**parameters):
        for options in ({"engine": "serial"}, {"engine": "local", "workers": 1}):
            made = Summed(scan, **parameters)
            yield made.compute(**options, positions=slice(0, 2), override=True)

    serial, local = both(table=SQUARE[::2, ::2])
    for name in ("sum", "product"):
        assert serial[name][:2].tolist() == local[name][:2].tolist()


def test_the_arrays_of_a_run_are_datasets_for_everybody(scan):
    axis, low = np.linspace(400, 700, 32), np.arange(4)
    fortran = np.arange(6).reshape(3, 2).T
    table = {"low": low, "a/b": low + 1, "npy": low, "T": low, "turned": fortran}
    results = Weighted(scan, weights=axis, table=table, window=[low + 2]).compute(
        engine="serial"
    )
    results.pack()
    results.publish(scan.replace("::/data", "::/published"))

    for path, group in (
        (results.path, "run"),
        (scan.partition("::")[0], "published/run"),
    ):
        with h5py.File(path) as file:
            kept = {k: v[...].tolist() for k, v in file[group]["arrays"].items()}
            assert kept == {
                "table.a_b": [1, 2, 3, 4],
                "table.low": [0, 1, 2, 3],
                "table.npy_": [0, 1, 2, 3],
                "table.T_": [0, 1, 2, 3],
                "table.turned.T": [[0, 1], [2, 3], [4, 5]],
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
        assert list(file["run/arrays"]) == ["window.0"]


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
