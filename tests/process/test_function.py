"""map: a plain function over all positions, resumable like a Process."""

import functools
import importlib.util
import math
import sys

import h5py
import numpy as np
import pytest
from helpers import data_of

import resumable as rs

SERIAL = {"engine": "serial", "progress": False}


def run(function, source, outputs=None, **arguments):
    return rs.map(function, source, outputs, options=SERIAL, **arguments)


def mean(spectrum):
    """The mean of a spectrum."""
    return spectrum.mean()


def scaled(spectrum, factor=2.0, *, offset=0.0):
    return spectrum[0] * factor + offset


def test_a_function_is_run_over_all_positions(scan):
    results = run(mean, scan)

    np.testing.assert_array_equal(results["result"], data_of(scan).mean(axis=1))
    assert list(results) == ["result"]
    assert results.path.name.startswith("scan-data-mean-")
    assert results.status.finished


def test_outputs_may_be_one_or_several(scan):
    def both(spectrum):
        return {"low": spectrum.min(), "ends": spectrum[[0, -1]]}

    def ends(spectrum):
        return spectrum[[0, -1]]

    one = run(ends, scan, rs.Output(2))
    several = run(both, scan, {"low": rs.Output(), "ends": rs.Output(2)})

    np.testing.assert_array_equal(one["result"], data_of(scan)[:, [0, -1]])
    np.testing.assert_array_equal(several["ends"], one["result"])
    np.testing.assert_array_equal(several["low"], data_of(scan).min(axis=1))


def test_parameters_and_defaults_are_part_of_the_identity(scan):
    first = data_of(scan)[:, 0]
    default = run(scaled, scan)
    spelled = run(scaled, scan, offset=0.0, factor=2.0)
    other = run(scaled, scan, factor=3.0)
    moved = run(scaled, scan, offset=1.0)

    assert default == spelled
    assert len({default.path, other.path, moved.path}) == 3
    np.testing.assert_allclose(default["result"], first * 2)
    np.testing.assert_allclose(other["result"], first * 3)
    np.testing.assert_allclose(moved["result"], first * 2 + 1)
    assert default.document["parameters"] == {"factor": 2.0, "offset": 0.0}


def test_inputs_are_passed_by_name(make_file):
    def weighted(spectrum, weight, power=1):
        return (spectrum * weight**power).sum()

    rng = np.random.default_rng(0)
    data, weight = rng.random((20, 4)), rng.random((20, 4))
    source = make_file(data=data, weight=weight) + "::/data"
    results = run(weighted, source, inputs={"weight": "::/weight"}, power=2)

    np.testing.assert_allclose(results["result"], (data * weight**2).sum(axis=1))
    assert results.document["parameters"] == {"power": 2}


def test_further_keywords_reach_a_function_that_takes_any(scan):
    def anything(spectrum, **parameters):
        return sum(parameters.values())

    results = run(anything, scan, a=1, b=2)

    assert (results["result"][...] == 3).all()
    assert results.document["parameters"] == {"a": 1, "b": 2}


def test_position_axes_and_target_are_as_for_a_process(make_file, tmp_path):
    cube = np.random.default_rng(0).random((5, 3, 4))
    source = make_file(cube=cube) + "::/cube"
    target = tmp_path / "target"
    target.mkdir()
    results = run(mean, source, target=target, position_axes=(2, 1))

    np.testing.assert_allclose(results["result"], cube.mean(axis=0).T)
    assert results.path.parent == target


def load(path, text, monkeypatch):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("theirs", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "theirs", module)
    spec.loader.exec_module(module)
    return module


TEXT = '''
def theirs(spectrum, a=1):
    """Doc."""
    return spectrum.mean() * a  # times
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("mean", "max", False),
        ("* a ", "+ a ", False),
        ("# times", "# another remark", True),
        ("Doc.", "Another text.", True),
        ("spectrum.mean() * a", "(spectrum.mean() * a)", True),
    ],
)
def test_an_edited_function_is_another_run(tmp_path, monkeypatch, scan, old, new, same):
    assert old in TEXT
    one = run(load(tmp_path / "a" / "theirs.py", TEXT, monkeypatch).theirs, scan)
    text = TEXT.replace(old, new)
    two = run(load(tmp_path / "b" / "theirs.py", text, monkeypatch).theirs, scan)

    assert (one == two) is same


def test_with_a_version_the_text_does_not_count(tmp_path, monkeypatch, scan):
    one = load(tmp_path / "a" / "theirs.py", TEXT, monkeypatch).theirs
    first = run(one, scan, version=1)
    text = TEXT.replace("mean", "max")
    two = load(tmp_path / "b" / "theirs.py", text, monkeypatch).theirs

    with pytest.warns(rs.ResumableWarning, match="was edited"):
        again = run(two, scan, version=1)

    assert again == first
    assert run(two, scan, version=2) != first


def test_what_a_function_has_closed_over_counts(scan):
    def made(power):
        def inner(spectrum):
            return spectrum[0] ** power

        return inner

    square, cube, again = run(made(2), scan), run(made(3), scan), run(made(2), scan)

    assert square.path != cube.path
    assert again == square
    np.testing.assert_allclose(cube["result"], data_of(scan)[:, 0] ** 3)


def test_a_function_with_arguments_that_was_closed_over_counts(scan):
    def made(percent):
        helper = functools.partial(np.percentile, q=percent)

        def inner(spectrum):
            return helper(spectrum)

        return inner

    low, high, again = (run(made(percent), scan) for percent in (5, 95, 5))

    assert low.path != high.path
    assert again == low
    np.testing.assert_array_equal(
        high["result"], np.percentile(data_of(scan), 95, axis=1)
    )


def test_a_closure_that_cannot_be_identified_is_refused(scan, tmp_path):
    numbers = (number for number in range(60))

    def inner(spectrum):
        return next(numbers)

    with pytest.raises(
        rs.IdentityError, match=r"'numbers', used by .*inner from outside"
    ):
        run(inner, scan)
    assert len(list(tmp_path.iterdir())) == 1

    assert run(inner, scan, version=1).status.finished


def test_lambdas_are_told_apart_by_their_code(scan):
    largest = run(lambda spectrum: spectrum.max(), scan)
    again = run(lambda spectrum: spectrum.max(), scan)
    least = run(lambda spectrum: spectrum.min(), scan)

    assert again == largest
    assert least.path != largest.path
    np.testing.assert_array_equal(largest["result"], data_of(scan).max(axis=1))
    np.testing.assert_array_equal(least["result"], data_of(scan).min(axis=1))


def test_a_lambda_cannot_have_a_version(scan):
    """Every lambda has the same name: one would be given the rows of another."""
    with pytest.raises(rs.DeclarationError, match="use def, or no version"):
        run(lambda spectrum: spectrum.max(), scan, version=1)


def test_functions_without_source_text_are_told_apart_by_name(scan):
    """Built into an extension module, a function has its name and its library."""
    found = {each: run(each, scan) for each in (math.prod, math.fsum, len)}

    assert len({results.path for results in found.values()}) == 3
    for function, results in found.items():
        assert results["result"][3] == pytest.approx(function(data_of(scan)[3]))
    assert run(math.prod, scan) == found[math.prod]


@pytest.mark.parametrize(
    "function", [max, np.mean, np.max], ids=["max", "mean", "amax"]
)
def test_functions_of_python_and_numpy_can_be_mapped(scan, function):
    """With a version, what everybody has at hand works or is refused in our words."""
    expected = [function(row) for row in data_of(scan)]
    try:
        results = run(function, scan, version=1)
    except rs.ResumableError:
        return

    np.testing.assert_allclose(results["result"], expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"facter": 3}, "scaled cannot be called with these parameters: .*'facter'"),
        ({"inputs": {"weight": "::/data"}}, "scaled cannot be called .*'weight'"),
    ],
    ids=["parameter", "input"],
)
def test_parameters_the_function_does_not_take_are_refused(scan, given, words):
    with pytest.raises(rs.DeclarationError, match=words):
        run(scaled, scan, **given)


def test_a_missing_parameter_is_refused(scan):
    def needs(spectrum, width):
        return width

    with pytest.raises(rs.DeclarationError, match="'width'"):
        run(needs, scan)


def test_a_parameter_that_cannot_be_identified_is_refused(scan):
    with pytest.raises(rs.IdentityError, match="parameter 'factor'"):
        run(scaled, scan, factor=(n for n in range(3)))


def test_a_failed_run_goes_on_where_it_stopped(scan):
    calls, bad = [], [17]
    trouble = {"at": 17}

    def shaky(spectrum):
        calls.append(1)
        if bad and spectrum[0] == first:
            raise RuntimeError("not now")
        return spectrum.mean()

    first = data_of(scan)[trouble["at"], 0]
    options = {**SERIAL, "on_error": "raise"}
    with pytest.raises(rs.UnitFailed, match="position 17 raised RuntimeError"):
        rs.map(shaky, scan, version=1, options=options)
    before = len(calls)
    bad.clear()
    with pytest.warns(rs.ResumableWarning, match=r"bad \(.*\): \[17\] there"):
        results = rs.map(shaky, scan, version=1, options=options)

    assert results.status.done == 60
    assert len(calls) == before + 60 - (before - 1)
    np.testing.assert_array_equal(results["result"], data_of(scan).mean(axis=1))


def test_the_functions_text_is_kept_with_the_results(scan):
    with h5py.File(run(mean, scan).path) as file:
        group = file["data-mean_000"]
        text = file["run/source_text"][()].decode()

        assert group.attrs["description"] == "The mean of a spectrum."
    assert "return spectrum.mean()" in text
