"""explain: why an existing run does or does not match, in words."""

import h5py
import numpy as np
import param
import pytest
from helpers import compute
from processes import process_of, with_an_edit

import resumable as rs

Fit = process_of(
    lambda self, spectrum: spectrum.mean(),
    name="Fit",
    width=param.Number(0.5),
    options=param.Dict({}),
)


class Other(Fit):
    """Another process."""

    version = 1


def reasons(explanation):
    return {c.path.name: list(c.reasons) for c in explanation.candidates}


def test_without_runs_it_says_what_compute_would_make(scan, tmp_path):
    process = Fit(scan)
    explanation = process.explain()

    assert explanation.candidates == ()
    assert explanation.identity == process.identity
    assert explanation.folder == tmp_path
    assert "no run of this process on this dataset" in str(explanation)
    assert process.identity[:8] in str(explanation)


def test_a_matching_run_is_told_with_its_state(scan):
    process = Fit(scan)
    compute(process, positions=slice(0, 20))
    (part,) = process.explain().candidates
    path = compute(process).path
    (whole,) = process.explain().candidates

    assert (part.matches, part.finished) == (True, False)
    assert part.reasons == (
        "unfinished, would be continued: 20 of 60 positions done, 0 failed",
    )
    assert (whole.matches, whole.finished, whole.path) == (True, True, path)
    assert whole.reasons == ("complete: 60 of 60 positions done, 0 failed",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"width": 0.7}, "parameters.width: 0.7 there, 0.5 here"),
        ({"seed": 3}, "parameters.seed: 3 there, 0 here"),
        ({"options": {"a": 1}}, "parameters.options.a: 1 there, missing here"),
    ],
    ids=str,
)
def test_a_changed_parameter_is_named_with_both_values(scan, given, words):
    other = compute(Fit(scan, **given))
    explanation = Fit(scan).explain()

    assert reasons(explanation) == {other.path.name: [words]}
    assert not explanation.candidates[0].matches
    assert "differs" in str(explanation)
    assert words in str(explanation)


def test_changed_contents_outputs_axes_and_version_are_named(make_file, monkeypatch):
    path = make_file(data=np.arange(16.0).reshape(4, 4))
    source = f"{path}::/data"
    first = compute(Fit(source)).path.name
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "version", 2)
        version = reasons(Fit(source).explain())[first]
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "outputs", {"mean": rs.Output(dtype="f4")})
        outputs = reasons(Fit(source).explain())[first]
    axes = reasons(Fit(source, position_axes=1).explain())[first]
    with h5py.File(path, "r+") as file:
        file["data"][0, 0] = 9
    (contents,) = reasons(Fit(source).explain())[first]

    assert version == ["version: 1 there, 2 here"]
    assert outputs == ['outputs.mean.dtype: "<f8" there, "<f4" here']
    assert axes == ["position_axes[0]: 0 there, 1 here"]
    assert contents.startswith("source.contents: ")


def test_all_runs_are_told_the_matching_one_first(scan):
    paths = {width: compute(Fit(scan, width=width)).path for width in (1, 2, 3)}
    again = compute(Fit(scan, width=2), override=True).path
    explanation = Fit(scan, width=2).explain()
    matching = [c.path for c in explanation.candidates if c.matches]

    assert len(explanation.candidates) == 4
    assert matching == [paths[2], again]
    assert [c.matches for c in explanation.candidates] == [True, True, False, False]


def test_many_differences_are_cut_and_counted(scan):
    other = compute(Fit(scan, options={f"key{i}": i for i in range(9)})).path.name
    told = reasons(Fit(scan).explain())[other]

    assert len(told) == 6
    assert told[-1] == "and 4 more"


def test_runs_of_other_processes_and_datasets_are_not_told(make_file):
    path = make_file(
        **{
            "data": np.ones((4, 3)),
            "data2": np.ones((4, 3)) * 2,
            "data-Fit": np.ones((4, 3)) * 3,
        }
    )
    for process in (
        Other(f"{path}::/data"),
        Fit(f"{path}::/data2"),
        Other(f"{path}::/data-Fit"),
    ):
        compute(process)

    assert Fit(f"{path}::/data").explain().candidates == ()


def test_a_damaged_run_file_is_told_with_its_name(scan):
    path = compute(Fit(scan)).path
    path.write_bytes(path.read_bytes()[:-10])
    (candidate,) = Fit(scan).explain().candidates

    assert not candidate.matches
    assert "is truncated" in candidate.reasons[0]
    assert candidate.path == path


def test_an_edited_class_without_a_version_is_told_with_its_lines(scan):
    """Its code stands for the version, and its change is the difference."""
    process = with_an_edit(edit=False)(scan)
    process.calls = []
    old = compute(process).path.name
    (told,) = reasons(with_an_edit(edit=True)(scan).explain())[old]

    first, *lines = told.splitlines()

    assert first.startswith("code: ")
    assert [line.strip() for line in lines if "return" in line] == [
        "-    return spectrum.mean()",
        "+    return 2 * spectrum.mean()",
    ]
    assert "(processes.py:" in first
