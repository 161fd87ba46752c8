"""Runs of schema 1, made before helpers counted: returned, adopted or left."""

import gzip

import golden
import pytest
from golden import Doubles, Sums, growing
from helpers import DATA, compute

import resumable as rs
from resumable.runfile.file import RunFile


@pytest.fixture(params=["schema_1.h5", "schema_1_part.h5"])
def path(request, tmp_path):
    """Return a run of schema 1 in a folder of its own; the finished and the other."""
    path = tmp_path / "5-positions-Doubles-bfa14848.h5"
    path.write_bytes(gzip.decompress((DATA / f"{request.param}.gz").read_bytes()))
    return path


finished = pytest.mark.parametrize("path", ["schema_1.h5"], indirect=True)
part = pytest.mark.parametrize("path", ["schema_1_part.h5"], indirect=True)


@finished
def test_a_finished_run_is_returned_with_one_warning(path):
    before = path.read_bytes()
    process = Doubles(5, path.parent)
    with pytest.warns(rs.ResumableWarning) as caught:
        results = process.compute(engine="serial", progress=False)

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert str(caught[0].message).startswith(f"{path.name} was made before edits of ")
    assert "verify() tells, override=True computes anew" in str(caught[0].message)
    assert results.path == path
    assert results["double"][...].tolist() == [0, 2, 4, 6, 8]
    assert path.read_bytes() == before
    assert process.plan().action == "return"
    assert process.duplicates == [results]
    assert "matches\n    complete: 5 of 5" in str(process.explain())


@finished
def test_override_computes_anew_beside_it(path):
    results = compute(Doubles(5, path.parent), override=True)

    assert results.path != path
    assert results.document["schema"] == 2
    assert compute(Doubles(5, path.parent)) == results


@part
def test_an_unfinished_run_is_left_and_a_new_one_begins(path, caplog):
    before = path.read_bytes()
    process = Doubles(5, path.parent)
    explained, planned = str(process.explain()), process.plan()
    with caplog.at_level("WARNING", "resumable"):
        results = compute(process)

    assert planned.action == "compute"
    assert "unfinished, can be continued: 2 of 5 positions done" in explained
    assert "adopt=True continues it, else a new run begins" in explained
    assert caplog.text.count(f"{path.name} was made before edits of helper") == 1
    assert results.path != path
    assert results.sessions[-1].computed == 5
    assert path.read_bytes() == before


@part
def test_an_unfinished_run_that_is_adopted_goes_on(path):
    process = Doubles(5, path.parent)
    with pytest.warns(rs.ResumableWarning, match="was made before") as caught:
        results = compute(process, adopt=True)

    assert len(caught) == 1
    assert results.path == path
    assert results.sessions[-1].computed == 3
    assert results["total"][()] == 20
    assert RunFile(path).header.document["schema"] == 1


def test_a_source_that_has_grown_goes_on_only_where_adopted(tmp_path):
    """What is computed further may be of other helpers than the rows that are there."""
    path = tmp_path / "scan-data-Sums-f75f57f5.h5"
    text = (DATA / "schema_1_growing.h5.gz").read_bytes()
    path.write_bytes(gzip.decompress(text))
    with pytest.warns(rs.ResumableWarning, match="was made before"):
        same = compute(Sums(growing(tmp_path, 5)))
    process = Sums(growing(tmp_path, 8))
    alone = process.plan()
    with pytest.warns(rs.ResumableWarning, match="was made before"):
        longer = compute(process, adopt=True)

    assert same.path == path
    assert (alone.action, alone.pending) == ("compute", 8)
    assert longer.sessions[-1].computed == 3
    assert longer["sum"][...].tolist() == [12 + 32 * n for n in range(8)]


@pytest.mark.parametrize(("times", "right"), [(2.0, True), (3.0, False)])
def test_verify_tells_whether_a_helper_was_edited_since(
    path, monkeypatch, times, right
):
    """The document of schema 1 says nothing of the helper; its rows do."""
    monkeypatch.setattr(golden, "doubled", lambda number: times * number)
    report = rs.verify(path, Doubles)
    checks = {check.name: check.passed for check in report.checks}

    assert report.passed is right
    assert checks["computation"] is True
    assert checks["rows"] is right


@pytest.mark.parametrize(("source", "seed"), [(5, 1), (6, 0)])
def test_a_run_of_other_parameters_or_sources_is_another(path, source, seed):
    results = compute(Doubles(source, path.parent, seed=seed), adopt=True)

    assert results.path != path
    assert results.status.finished


def test_a_class_of_another_text_is_another(path):
    class Doubles(rs.Process):
        outputs = golden.Doubles.outputs

        def unit_computation(self, position):
            return golden.doubled(position)

        def finish(self, results):
            return results["double"][...].sum()

    process = Doubles(5, path.parent)
    explained = str(process.explain())
    results = compute(process, adopt=True)

    assert "differs\n    made before helpers counted" in explained
    assert results.path != path
