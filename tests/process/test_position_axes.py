"""Axes that count positions: given, declared by the class, or known from the file."""

import h5py
import numpy as np
import pytest
from helpers import compute
from processes import MEAN, Mean, process_of

import resumable as rs

DATA = np.random.default_rng(0).random((4, 5, 6))


@pytest.fixture
def source(make_file):
    """A map of spectra, of which nothing is known but its shape."""
    return make_file(data=DATA) + "::/data"


@pytest.fixture
def plotted(make_file):
    """The same map as the signal of an NXdata group."""
    path = make_file("nexus.h5", data=DATA)
    with h5py.File(path, "a") as file:
        file.attrs["NX_class"], file.attrs["signal"] = "NXdata", "data"
        file.attrs["axes"] = ["y", "x", "energy"]
    return path + "::/data"


def declaring(axes, **body):
    """Return a class that is Mean and declares its axes."""
    return type("Mean", (Mean,), {"version": 1, "position_axes": axes, **body})


def where(*, declared):
    """Return a class of all whose code counts, and which reads its axes."""
    if declared:

        class Where(rs.Process):
            outputs = MEAN
            position_axes = (0, 1)

            def unit_computation(self, spectrum):
                return spectrum.mean() + 10 * len(self.position_axes)

    else:

        class Where(rs.Process):
            outputs = MEAN

            def unit_computation(self, spectrum):
                return spectrum.mean() + 10 * len(self.position_axes)

    return Where


def test_given_declared_and_known_axes_are_one_run(plotted):
    given = declaring(None)(plotted, position_axes=(0, 1))
    declared = declaring((0, 1))(plotted)
    with pytest.warns(rs.ResumableWarning, match=r"\(0, 1\) are taken") as caught:
        known = declaring(None)(plotted)
    results = compute(known)

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "the NXdata group / calls them 'y', 'x'" in str(caught[0].message)
    assert "Give position_axes=(0, 1), or declare it" in str(caught[0].message)
    assert given.identity == declared.identity == known.identity
    assert compute(declared) == compute(given) == results
    assert results["mean"].shape == (4, 5)
    np.testing.assert_array_equal(results["mean"], DATA.mean(axis=2))
    assert {p.position_axes for p in (given, declared, known)} == {(0, 1)}


def test_a_computation_that_reads_its_axes_is_one_run_however_it_has_them(plotted):
    plain, declaring = where(declared=False), where(declared=True)
    with pytest.warns(rs.ResumableWarning):
        known = plain(plotted)
    others = [plain(plotted, position_axes=(0, 1)), declaring(plotted)]
    results = known.compute(engine="local", workers=2, progress=False)

    np.testing.assert_array_equal(results["mean"], DATA.mean(axis=2) + 20)
    assert {other.identity for other in others} == {known.identity}
    assert [compute(other) for other in others] == [results] * 2


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        (None, None, (0,)),
        (1, None, (1,)),
        (-1, None, (2,)),
        ((1, 0), None, (1, 0)),
        ((1, 0), 0, (0,)),
        ((1, 0), (0, 1), (0, 1)),
        (None, (2,), (2,)),
    ],
)
def test_what_is_given_counts_more_than_what_is_declared(
    source, declared, given, expected
):
    process = declaring(declared)(source, position_axes=given)

    assert process.state()["axes"] == list(expected)
    assert process.position_axes == expected
    assert process.map_shape == tuple(DATA.shape[axis] for axis in expected)
    again = rs.load(process.state(), type(process))
    assert again.identity == process.identity


@pytest.mark.parametrize("axes", [np.array([0, 1]), [0, np.int8(1)]], ids=repr)
def test_axes_come_as_an_array_or_a_list(plotted, tmp_path, axes):
    Pair = process_of(lambda self, s, again: (s * again).mean(), MEAN)
    process = Pair(plotted, position_axes=axes, inputs={"again": (plotted, axes)})

    assert process.position_axes == (0, 1)
    assert Mean(DATA, tmp_path, position_axes=axes).position_axes == (0, 1)
    assert Mean(plotted, position_axes=np.array(1)).position_axes == (1,)
    for wrong in (True, "01", [None], 1.0):
        with pytest.raises(rs.SourceError, match="must be a whole number or a tuple"):
            Mean(plotted, position_axes=wrong)


def test_the_first_axis_can_be_stated_where_the_file_says_more(plotted):
    assert Mean(plotted, position_axes=0).map_shape == (4,)
    assert declaring(0)(plotted).map_shape == (4,)


def test_a_declaration_that_does_not_fit_is_an_error(source, tmp_path):
    with pytest.raises(rs.SourceError, match=r"position_axes=\(0, 3\) do not exist"):
        declaring((0, 3))(source)
    with pytest.raises(rs.SourceError, match="must be a whole number or a tuple"):
        declaring("yx")(source)
    with pytest.raises(rs.SourceError, match="one axis; give position_axes=0"):
        declaring((0, 1))(10, tmp_path)

    assert declaring((0, 1))(10, tmp_path, position_axes=0).map_shape == (10,)


def test_the_command_and_map_take_what_is_declared_or_known(source, plotted, capsys):
    with pytest.raises(SystemExit) as ended:
        rs.main(declaring((0, 1)), [source, "--engine", "serial"])

    assert ended.value.code == 0, capsys.readouterr()
    assert Mean(source, position_axes=(0, 1)).results.status.finished
    with pytest.warns(rs.ResumableWarning, match=r"\(0, 1\) are taken"):
        results = rs.map(np.mean, plotted, options={"engine": "serial"})
    assert results["result"].shape == (4, 5)


def test_an_output_of_a_run_has_the_map_of_the_run(source):
    scalar = compute(Mean(source, position_axes=(1, 0)))["mean"]
    Two = process_of(lambda self, x: x + 1, {"x": rs.Output()})
    with pytest.warns(rs.ResumableWarning, match="its run has this map"):
        results = compute(Two(scalar))

    np.testing.assert_array_equal(results["x"], DATA.mean(axis=2).T + 1)
    assert compute(Two(scalar, position_axes=(0, 1))) == results
    Ragged = process_of(lambda self, x: x[x > 0.5], {"x": rs.Output(ragged=True)})
    Count = process_of(lambda self, x: len(x), MEAN)
    ragged = compute(Ragged(source, position_axes=(0, 1)))["x"]
    counts = compute(Count(ragged))["mean"]
    np.testing.assert_array_equal(counts, (DATA > 0.5).sum(axis=2))


def test_a_later_stage_of_a_chain_has_the_axes_of_the_first(plotted):
    Second = process_of(
        lambda self, mean: mean + len(self.position_axes), {"x": rs.Output()}
    )
    Second.position_axes = 2
    chain = rs.Chain(declaring((0, 1))(plotted), Second())

    np.testing.assert_array_equal(compute(chain)["x"], DATA.mean(axis=2) + 2)
