"""Edits are told with file, function and lines, and so is what is not followed."""

import importlib.util
import logging
import sys

import pytest
from helpers import compute

import resumable as rs

FIT = """
import resumable as rs

SCALE = 2.0

def helper(spectrum):
    level = spectrum.mean()
    return SCALE * level

class Fit(rs.Process):
    outputs = {"value": rs.Output()}

    def unit_computation(self, spectrum):
        return helper(spectrum)

class Versioned(Fit):
    version = 1

def mapped(spectrum):
    return helper(spectrum)
"""
EDITS = {
    "helper": ("spectrum.mean()", "spectrum.max()"),
    "constant": ("SCALE = 2.0", "SCALE = 3.0"),
    "method": (
        "return helper(spectrum)\n\nclass",
        "return 1 + helper(spectrum)\n\nclass",
    ),
}
TOLD = {
    "helper": (
        "helper (m.py:6):",
        "-    level = spectrum.mean()",
        "+    level = spectrum.max()",
    ),
    "constant": ("SCALE (m.py): 2.0 there, 3.0 here",),
    "method": (
        "Fit.unit_computation (m.py:13):",
        "-    return helper(spectrum)",
        "+    return 1 + helper(spectrum)",
    ),
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that imports the text of a module, edited or not."""

    def module(edit=None, text=FIT):
        if edit is not None:
            old, new = EDITS[edit]
            assert text.count(old) == 1
            text = text.replace(old, new)
        path = tmp_path / str(edit) / "m.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("m", path)
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "m", made)
        spec.loader.exec_module(made)
        return made

    return module


def lines_of(text):
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize("edit", EDITS)
def test_without_a_version_explain_tells_what_was_edited(module, scan, edit):
    compute(module().Fit(scan))
    (candidate,) = module(edit).Fit(scan).explain().candidates
    (told,) = candidate.reasons

    assert not candidate.matches
    assert told.startswith("code: ")
    assert tuple(lines_of(told.removeprefix("code: "))) == TOLD[edit]


@pytest.mark.parametrize("edit", EDITS)
def test_with_a_version_compute_plan_and_explain_warn_alike(module, scan, edit):
    compute(module().Versioned(scan), positions=slice(0, 20))
    process = module(edit).Versioned(scan)
    (candidate,) = process.explain().candidates
    _, told = candidate.reasons
    (note,) = process.plan().notes
    with pytest.warns(rs.ResumableWarning) as warned:
        compute(process, positions=slice(0, 30))
    with pytest.warns(rs.ResumableWarning) as again:
        compute(process)

    assert candidate.matches
    assert "version is still 1" in told
    assert tuple(lines_of(told)[1:]) == TOLD[edit]
    assert [note] == [str(w.message) for w in warned] == [str(w.message) for w in again]
    assert note == told
    assert set(TOLD[edit]) <= set(lines_of(str(process.plan())))
    assert set(TOLD[edit]) <= set(lines_of(str(process.explain())))


def test_with_a_version_a_run_without_rows_is_not_told(module, scan):
    compute(module().Versioned(scan), positions=[])
    process = module("helper").Versioned(scan)

    assert process.plan().notes == ()
    assert len(process.explain().candidates[0].reasons) == 1


def test_a_new_run_of_an_edited_function_names_what_was_edited(module, scan, caplog):
    options = {"engine": "serial", "progress": False}
    rs.map(module().mapped, scan, options=options)
    with caplog.at_level(logging.WARNING, "resumable"):
        rs.map(module("helper").mapped, scan, options=options)

    assert "mapped was edited since" in caplog.text
    assert set(TOLD["helper"]) <= set(lines_of(caplog.text))


def test_plan_and_explain_list_what_is_not_followed(module, scan):
    """The promise is that all else counts."""
    text = FIT.replace(
        "    level = spectrum.mean()\n",
        "    level = spectrum.mean() + getattr(spectrum, spectrum.dtype.name, 0)\n",
    )
    process = module(text=text).Fit(scan)
    note = "getattr by a name that is computed at m.py:7"
    before = process.explain()
    compute(process)
    after = process.explain()

    assert f"not followed: {note}" in process.plan().notes
    assert f"note          not followed: {note}" in str(process.plan())
    assert before.not_followed == after.not_followed == (note,)
    assert str(before).endswith(f"not followed: {note}")
    assert str(after).endswith(f"not followed: {note}")


READS = """
from pathlib import Path
import param
import resumable as rs


class Fit(rs.Process):
    outputs = {"mean": rs.Output()}
    table = param.Filename("table.txt")
    other = "table.txt"

    def setup(self):
        where = self.table
        with open(where) as file:
            self.k = float(file.read())
        self.k += float(Path(self.table).read_text())

    def unit_computation(self, spectrum):
        return spectrum.mean() + self.k
"""


@pytest.mark.parametrize("also", [(), ("open(self.other)",)], ids=str)
def test_a_file_that_is_a_parameter_is_followed(
    module, scan, tmp_path, monkeypatch, also
):
    """Whatever name it has in the method that reads it; of another, it is said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.txt").write_text("3")
    more = [f"\n    def finish(self, results):\n        {one}\n" for one in also]
    text = "".join([READS, *more])
    told = module(text=text).Fit(scan).explain().not_followed

    assert told == tuple("reads files: open at m.py:22" for _ in also)


def test_a_chain_names_the_stage_that_was_edited(module, scan):
    first = rs.Chain(module().Fit(scan))
    first.compute(engine="serial", progress=False)
    after = rs.Chain(module("helper").Fit(scan), keep="Fit")
    (candidate,) = after["Fit"].explain().candidates

    assert "helper (m.py:6)" in candidate.reasons[0]
