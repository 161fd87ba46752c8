"""An array as a source: computed, kept in the run file, found again."""

import json

import h5py
import numpy as np
import pytest
from helpers import compute
from numpy._core._rational_tests import rational
from processes import MEAN, Mean, listing, process_of
from programs import invoke

import resumable as rs
from resumable.session.computation import Options

DATA = np.random.default_rng(3).normal(size=(4, 5, 6))


class Total(rs.Process):
    version = 1
    outputs = MEAN

    def unit_computation(self, spectrum, weight=1.0):
        return (spectrum * weight).sum()


@pytest.mark.parametrize("axes", [0, (0, 1), (1, 0), (-1,), (2, 0)], ids=str)
@pytest.mark.parametrize("layout", ["C", "F", "strided", "big-endian"])
def test_an_array_gives_what_a_file_of_it_gives(tmp_path, make_file, axes, layout):
    array = {
        "C": DATA,
        "F": np.asfortranarray(DATA),
        "strided": np.repeat(DATA, 2, axis=1)[:, ::2],
        "big-endian": DATA.astype(">f8"),
    }[layout]
    process = Total(array, tmp_path, position_axes=axes)
    results = compute(process)
    path = make_file(data=DATA)
    of_file = compute(Total(f"{path}::/data", position_axes=axes))

    assert results["mean"].shape == of_file["mean"].shape
    np.testing.assert_array_equal(results["mean"], of_file["mean"])
    assert results.path.name.startswith("array-data-Total-")
    assert Total(DATA, tmp_path, position_axes=axes).results == results


def test_numbers_that_are_not_numpys_own_arrive_as_floats(tmp_path):
    """As bfloat16 and float8 do; two such types with the same bytes are two sources."""
    array = DATA.round(1).astype(int).astype(np.dtype(rational))
    results = compute(Total(array, tmp_path))

    assert results.document["source"]["array"]["dtype"] == "<f8"
    np.testing.assert_array_equal(results["mean"], array.astype(int).sum(axis=(1, 2)))
    with pytest.raises(rs.SourceError, match="the dtype rational is not one of numpy"):
        Total(np.zeros(3, [("a", rational), ("b", "f4")]), tmp_path)


def test_the_contents_are_the_identity_and_a_copy_is_computed(tmp_path):
    array = DATA.copy()
    process = Total(array, tmp_path)
    array[0] = 0
    results = compute(process)

    assert results["mean"][0] == DATA[0].sum()
    assert results.document["source"] == {
        "array": {
            "dtype": "<f8",
            "shape": [4, 5, 6],
            "sha256": results.document["source"]["array"]["sha256"],
        }
    }
    other = Total(array, tmp_path)
    assert other.results is None
    (old,) = other.explain().candidates
    assert old.reasons[0].startswith("source.array.sha256")
    assert (process.test(0).outputs["mean"], other.test(0).outputs["mean"]) == (
        DATA[0].sum(),
        0,
    )


def test_ranks_with_other_arrays_do_not_ask_for_the_same(tmp_path):
    """All ranks of MPI must ask alike: each has an array of its own."""
    asked = [
        Total(data, tmp_path, shared={"weight": weight})._request().document(Options())
        for data, weight in ((DATA, 1), (DATA.copy(), 1), (DATA + 1, 1), (DATA, 2))
    ]

    assert asked[0] == asked[1]
    assert asked[0] != asked[2]
    assert asked[0] != asked[3]


def test_a_run_is_verified_loaded_and_shown_without_the_array(tmp_path, home):
    (home / "totals.py").write_text(
        "import resumable as rs\n"
        "class Total(rs.Process):\n"
        "    version = 1\n"
        "    outputs = {'mean': rs.Output()}\n"
        "    def unit_computation(self, spectrum, weight=1.0):\n"
        "        return (spectrum * weight).sum()\n"
    )
    weight = np.arange(20).reshape(5, 4)
    process = Total(
        DATA, tmp_path, position_axes=(0, 1), inputs={"weight": (weight, (1, 0))}
    )
    results = compute(process, positions=slice(0, 12))

    for again in (
        rs.load(results, Total),
        rs.load(json.loads(json.dumps(process.state())), Total),
    ):
        assert again.results == results
        assert again.identity == process.identity
    found = rs.verify(results.path, Total, sample="all")
    assert found.passed, found
    assert found.checks[-1].passed
    assert rs.verify(results.path).passed
    assert "array of shape (4, 5, 6)" in invoke("show", str(results.path))
    text = invoke("verify", str(results.path), "--class", "totals.py:Total")
    assert "12 the same bit for bit" in text
    with h5py.File(results.path) as file:
        arrays = file["run/arrays"]
        np.testing.assert_array_equal(arrays["source"], DATA)
        np.testing.assert_array_equal(arrays["weight"], weight)
    np.testing.assert_allclose(
        compute(again)["mean"], DATA.sum(axis=2) * weight.T, 1e-13
    )


def test_an_array_that_is_not_kept_is_asked_for(tmp_path):
    large = np.ones((3, (2 << 20) // 3 + 1))
    results = compute(Total(large, tmp_path))

    with pytest.raises(
        rs.IdentityError, match=r"the source was an array of shape \(3, "
    ):
        rs.load(results, Total)
    found = rs.verify(results.path, Total)
    assert (found.passed, found.checks[-1].passed) == (True, None)
    assert rs.verify(results.path, Total, source=large).checks[-1].passed
    assert not rs.verify(results.path, Total, source=large + 1).passed


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (DATA.tolist(), "an array of numpy, or a number of positions, not a list"),
        (np.array([{}, 1]), "numbers, not objects"),
        (np.ma.array(DATA, mask=DATA > 0), r"not MaskedArray: .*\.filled\(np\.nan\)"),
        (np.float64(3.0), "not a float64"),
        (np.array(3.0), "an array of one value has no axis"),
        (np.empty((0, 3)), r"^an array of shape \(0, 3\), sha256 \w+ is empty: there"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_array_of_positions_is_refused(tmp_path, source, text):
    with pytest.raises(rs.SourceError, match=text):
        Total(source, tmp_path)
    assert list(listing(tmp_path)) == ["."]


def test_an_array_needs_a_target_and_inputs_of_its_shape(tmp_path):
    with pytest.raises(rs.TargetError, match=r"an array, .* give target="):
        Total(DATA)
    with pytest.raises(rs.TargetError, match=r"target must be a folder .*, not 3"):
        Total(DATA, 3)
    with pytest.raises(
        rs.SourceError, match=r"shape \(3,\), the source of shape \(4,\)"
    ):
        Total(DATA, tmp_path, inputs={"weight": np.ones(3)})
    with pytest.raises(rs.SourceError, match="names no file"):
        Total(DATA, tmp_path, shared={"weight": "::/weight"})


def test_chains_functions_and_options_take_an_array(tmp_path):
    Second = process_of(lambda self, mean: 2 * mean, {"twice": rs.Output()}, name="Two")
    chain = rs.Chain(Mean(DATA, tmp_path), Second())
    np.testing.assert_array_equal(
        chain.compute(engine="serial")["twice"], 2 * DATA.mean(axis=(1, 2))
    )

    def largest(spectrum):
        return spectrum.max()

    results = rs.map(largest, DATA, target=tmp_path, position_axes=(1,))
    np.testing.assert_array_equal(results["result"], DATA.max(axis=(0, 2)))
    assert rs.verify(results.path, largest).checks[-1].passed

    process = Total(DATA, tmp_path, position_axes=(2, 1), fingerprint="full")
    results = process.compute(engine="serial", rechunk=True)
    np.testing.assert_allclose(results["mean"], DATA.sum(axis=0).T, 1e-12)


def test_all_of_an_array_is_ready(tmp_path):
    class Waits(Total):
        def ready(self, positions):
            raise AssertionError("there is nothing to wait for")

    assert compute(Waits(DATA, tmp_path)).status.finished
    assert Total(DATA, tmp_path).compute(engine="serial", follow=60).status.finished


def test_an_array_is_an_input_of_a_source_that_grows(make_file):
    growing = {"data": np.ones((3, 2)), "maxshape": (None, 2), "chunks": (1, 2)}
    path = make_file(data=growing)
    process = Total(f"{path}::/data", inputs={"weight": np.arange(3.0)})
    np.testing.assert_array_equal(compute(process)["mean"], [0, 2, 4])
    with h5py.File(path, "r+") as file:
        file["data"].resize(5, axis=0)
    longer = Total(f"{path}::/data", inputs={"weight": np.arange(5.0)})
    np.testing.assert_array_equal(compute(longer)["mean"][:3], [0, 2, 4])
