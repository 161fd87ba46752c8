"""Faults of pyUSID's Process that must not come back."""

import h5py
import numpy as np
import pytest
from helpers import compute
from processes import Mean, Scaled, change

# The numbers are those of a list of faults 1 to 20.


def test_fault_8_names_are_not_matched_by_parts(make_file):
    """'Fit' does not take results of 'SHO_Fit', nor 'Raw_Data' of 'Raw_Data_B'."""
    path = make_file(Raw_Data=np.ones((5, 3)), Raw_Data_B=np.zeros((5, 3)))
    sho = type("SHO_Fit", (Mean,), {"version": 1, "__module__": __name__})
    fit = type("Fit", (Mean,), {"version": 1, "__module__": __name__})
    compute(sho(f"{path}::/Raw_Data"))
    compute(fit(f"{path}::/Raw_Data_B"))
    wanted = fit(f"{path}::/Raw_Data")

    assert wanted.duplicates == wanted.partials == []
    np.testing.assert_array_equal(compute(wanted)["mean"], np.ones(5))


def test_fault_9_a_name_that_begins_another_name_is_no_trouble(make_file):
    """'Fit' beside 'Fit_Guess' and a dataset whose name ends like a process."""
    path = make_file(**{"data": np.ones((5, 3)), "data-Fit": np.zeros((5, 3))})
    fit = type("Fit", (Mean,), {"version": 1, "__module__": __name__})
    guess = type("Fit_Guess", (Mean,), {"version": 1, "__module__": __name__})
    for _ in range(2):
        compute(guess(f"{path}::/data"))
        compute(fit(f"{path}::/data"), override=True)
        compute(fit(f"{path}::/data-Fit"))

    assert len(fit(f"{path}::/data").duplicates) == 2
    assert len(guess(f"{path}::/data").duplicates) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"anything": float("nan")},
        {"table": np.array([1.0, np.nan])},
        {"anything": [float("nan"), {"a": -float("nan")}]},
    ],
    ids=["scalar", "array", "nested"],
)
def test_fault_13_nan_finds_its_own_results(scan, given):
    first = compute(Scaled(scan, **given), positions=slice(0, 30))
    second = compute(Scaled(scan, **given))

    assert first == second
    assert len(Scaled(scan, **given).duplicates) == 1


def test_fault_17_another_source_of_the_same_name_does_not_match(make_file, tmp_path):
    """An overwritten source and another file with the same dataset name: new runs."""
    target = tmp_path / "target"
    target.mkdir()
    one = make_file(data=np.ones((5, 3)))
    first = compute(Mean(f"{one}::/data", target))
    other = tmp_path / "other"
    other.mkdir()
    with h5py.File(other / "scan.h5", "w") as file:
        file["data"] = np.full((5, 3), 2.0)
    second = compute(Mean(f"{other}/scan.h5::/data", target))
    change(one, "data", ..., 3.0)
    third = compute(Mean(f"{one}::/data", target))

    assert len({first.path, second.path, third.path}) == 3
    assert [r["mean"][0] for r in (first, second, third)] == [1, 2, 3]


def test_fault_20_cores_do_not_leak_and_nothing_is_looked_up_too_early(scan):
    """Workers are no parameter, and construction looks up no runs at all."""
    document = compute(Mean(scan), workers=1).document
    process = Scaled(scan, factor=3)
    process.factor = 4

    assert set(document["parameters"]) == {"seed"}
    assert set(document) == {
        "schema",
        "process",
        "version",
        "parameters",
        "outputs",
        "position_axes",
        "source",
        "inputs",
    }
    assert process.identity == Scaled(scan, factor=4).identity
