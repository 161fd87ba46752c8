"""Values that a computation returns, and what it may do with its arguments."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from helpers import compute, data_of
from processes import MEAN, Mean, process_of

import resumable as rs

# Wrong outputs.


class Returns(rs.Process):
    """Returns what the function in ``value`` says."""

    version = 1
    value = staticmethod(lambda position: 0.0)
    declared = staticmethod(lambda: {"x": rs.Output(3), "y": rs.Output(dtype="i4")})

    def outputs(self):
        return self.declared()

    def unit_computation(self, spectrum):
        return self.value(self.position)


class ReturnsBlock(Returns):
    """The same as a block computation."""

    version = 1
    unit_computation = property()

    def block_computation(self, spectra):
        return self.value(self.position)


GOOD = {"x": np.zeros(3), "y": 1}
WRONG = {
    "shape": (GOOD | {"x": np.zeros(4)}, r"'x' .* shape \(3,\), .* shape \(4,\)"),
    "scalar for a row": (GOOD | {"x": 1.0}, r"'x' .* shape \(3,\), .* shape \(\)"),
    "row for a scalar": (GOOD | {"y": [1]}, r"'y' .* shape \(\), .* shape \(1,\)"),
    "dtype": (GOOD | {"y": 2.7}, "'y' is declared with dtype int32, .* float64"),
    "complex": (GOOD | {"x": np.zeros(3, "c16")}, "'x' .* float64, .* complex128"),
    "text": (GOOD | {"x": ["a", "b", "c"]}, "'x' .* dtype float64, .* returned <U1"),
    "too large": (GOOD | {"y": 2**40}, "'y': .*out of the range"),
    "none": (GOOD | {"x": None}, "'x'"),
    "ragged": (GOOD | {"x": [[1], [1, 2], 3]}, "'x': .* cannot be stored"),
    "missing": ({"x": np.zeros(3)}, "did not return the declared output 'y'"),
    "unknown": (GOOD | {"yy": 1}, "'yy', which is not declared; did you mean 'y'"),
    "no dict": (np.zeros(3), r"2 outputs are declared \(x, y\), .* not a ndarray"),
    "nothing": (None, "must return a dict of them, not a NoneType"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_output_everywhere_stops_the_run(scan, kind):
    """As an exception does: after 20 positions, and none is recorded."""
    value, words = WRONG[kind]
    process = Returns(scan)
    calls = []
    process.value = lambda p: calls.append(p) or value
    with pytest.raises(rs.OutputError, match=words) as info:
        compute(process)

    assert "first 20 positions tried" in str(info.value)
    assert "position 0" in str(info.value)
    assert "on_error='record'" in str(info.value)
    assert len(set(calls)) == len(calls) == 20
    assert (process.results.status.done, process.results.status.failed) == (0, 0)


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("where", [0, 41, 59])
def test_a_wrong_output_is_recorded_wherever_it_is(scan, kind, where):
    """The first position is one like all others."""
    value, words = WRONG[kind]
    process = Returns(scan)
    process.value = lambda p: value if p == where else GOOD
    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = compute(process)

    assert results.failures[0].position == where
    assert results.failures[0].exception.endswith("OutputError")
    assert np.isnan(results["x"][where]).all()
    assert results["y"][where] == 0
    with pytest.raises(rs.OutputError, match=words):
        raise rs.OutputError(results.failures[0].message)


def test_a_wrong_output_stops_the_run_where_that_is_asked_for(scan):
    process = Returns(scan)
    process.value = lambda p: None
    with pytest.raises(rs.OutputError, match=r"not a NoneType .at position 0"):
        compute(process, on_error="raise")

    assert process.results.status.pending == 60


@pytest.mark.parametrize("cls", [Returns, ReturnsBlock])
def test_a_scan_without_a_single_result_is_finished_by_who_insists(scan, cls):
    process = cls(scan)
    process.value = lambda p: None
    with pytest.warns(rs.ResumableWarning, match="60 of 60"):
        results = compute(process, on_error="record")

    assert results.status.finished
    assert results.failed_mask.all()
    assert np.isnan(results["x"]).all()
    assert process.duplicates == [results]


def test_a_block_of_the_wrong_length_stops_the_run(scan):
    Long = process_of(block=lambda self, spectra: np.zeros(len(spectra) + 1))
    with pytest.raises(rs.OutputError, match=r"shape \(1,\), .* shape \(2,\)"):
        compute(Long(scan))


def test_numbers_of_the_same_kind_are_converted(scan):
    """float64 into float32, int8 into int64, int into float; as same_kind allows."""

    class Kinds(rs.Process):
        version = 1
        outputs: ClassVar = {
            "f": rs.Output(dtype="f4"),
            "i": rs.Output(dtype="i8"),
            "g": rs.Output(2),
            "c": rs.Output(dtype="c16"),
            "u": rs.Output(dtype="u2"),
        }

        def unit_computation(self, spectrum):
            values = {"f": np.float64(1.5), "i": np.int8(-3), "g": [1, 2]}
            return values | {"c": 2.5, "u": 65535}

    results = compute(Kinds(scan))
    first = {name: array[0].tolist() for name, array in results.items()}

    assert first == {"f": 1.5, "i": -3, "g": [1.0, 2.0], "c": 2.5, "u": 65535}


def test_a_scalar_type_that_passed_once_is_checked_again(tmp_path):
    values = {0: 1, 1: 300, 2: 2.5, 3: True, 4: np.int64(7), 5: -1}
    Mixed = process_of(
        lambda self, index: values.get(index, 0), {"x": rs.Output(dtype="u1")}
    )
    with pytest.warns(rs.ResumableWarning):
        results = compute(Mixed(30, tmp_path))
    bad = [f.position for f in results.failures]

    assert {1, 2, 5} <= set(bad)
    assert results["x"][[0, 3]].tolist() == [1, 1]


def test_one_output_may_come_bare_or_in_a_dict(scan):
    Dict = process_of(lambda self, spectrum: {"mean": spectrum.mean()})
    np.testing.assert_array_equal(
        compute(Dict(scan))["mean"], data_of(scan).mean(axis=1)
    )


def test_self_position_is_an_index_or_a_tuple_of_ints(make_file):
    cube = np.zeros((3, 4, 2))
    source = make_file(cube=cube) + "::/cube"
    flat, mapped = Mean(source), Mean(source, position_axes=(0, 1))
    flat.calls, mapped.calls = [], []
    compute(flat)
    compute(mapped)
    Block = process_of(
        block=lambda self, spectra: np.stack(self.position, axis=1),
        outputs={"where": rs.Output(2, "i8")},
    )
    where = compute(Block(source, position_axes=(0, 1)))["where"][...]

    assert sorted(flat.calls) == [0, 1, 2]
    assert all(type(p) is int for p in flat.calls)
    assert sorted(mapped.calls) == list(np.ndindex(3, 4))
    assert all(type(i) is int for p in mapped.calls for i in p)
    np.testing.assert_array_equal(where.reshape(12, 2), list(np.ndindex(3, 4)))


def test_self_position_exists_only_at_a_position(scan):
    with pytest.raises(AttributeError, match="exist while a position is computed"):
        _ = Mean(scan).position


# In two draws.
Random = process_of(
    lambda self, spectrum: np.r_[self.rng.random(2), self.rng.random(2)],
    {"x": rs.Output(4)},
)


def test_self_rng_is_the_same_in_every_run_whatever_the_batches(scan, tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    whole = compute(Random(scan, folders[0]))["x"][...]
    for positions in ([59, 3], slice(10, 40), slice(None, None, 7), None):
        compute(Random(scan, folders[1]), positions=positions)
    pieces = Random(scan, folders[1]).results["x"][...]
    small = compute(Random(scan, folders[2]), memory="500 kB", checkpoint=0.001)
    tried = Random(scan).test([3, 17])["x"]

    np.testing.assert_array_equal(pieces, whole)
    np.testing.assert_array_equal(small["x"], whole)
    np.testing.assert_array_equal(tried, whole[[3, 17]])
    assert len(np.unique(whole)) == whole.size


def test_the_seed_is_a_parameter_and_part_of_the_identity(scan):
    one, two = compute(Random(scan)), compute(Random(scan, seed=1))

    assert one.identity != two.identity
    assert not np.intersect1d(one["x"], two["x"]).size


def test_self_rng_is_documented_numpy(scan):
    sequence = np.random.SeedSequence(0, spawn_key=(23,))
    expected = np.random.Generator(np.random.PCG64(sequence)).random(4)

    np.testing.assert_array_equal(compute(Random(scan))["x"][23], expected)


def test_changing_spectra_in_place_changes_no_other_result(make_file):
    data = np.random.default_rng(0).random((40, 5))

    class Rude(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum, other):
            value = spectrum.mean() + other.sum()
            spectrum[...] = other[...] = -1e9
            return value

    source = make_file(data=data) + "::/data"
    before = Path(source.partition("::")[0]).read_bytes()
    process = Rude(source, inputs={"other": "::/data"})
    tried = process.test([1, 2])
    results = compute(process)
    expected = data.mean(axis=1) + data.sum(axis=1)

    np.testing.assert_allclose(results["mean"], expected)
    np.testing.assert_allclose(tried["mean"], expected[1:3])
    np.testing.assert_array_equal(tried.spectra, data[1:3])
    assert Path(source.partition("::")[0]).read_bytes() == before


def test_a_failing_block_that_changed_its_spectra_gives_right_results(scan):
    """Rows are read again for the halves: what the block did to them is gone."""

    class Rude(rs.Process):
        version = 1
        outputs = MEAN

        def block_computation(self, spectra):
            means = spectra.mean(axis=1)
            spectra[...] = 1e9
            if 33 in self.position:
                raise ValueError("bad")
            return means

    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = compute(Rude(scan))
    expected = data_of(scan).mean(axis=1)
    expected[33] = np.nan

    np.testing.assert_array_equal(results["mean"], expected)


def test_a_returned_view_of_the_spectrum_is_copied(scan):
    buffer = np.zeros(32)

    class Reuses(rs.Process):
        version = 1
        outputs: ClassVar = {"x": rs.Output(32)}

        def unit_computation(self, spectrum):
            buffer[...] = spectrum
            return buffer

    np.testing.assert_array_equal(compute(Reuses(scan))["x"], data_of(scan))
