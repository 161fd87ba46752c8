"""Names of files are those of the folder in which they were given."""

import os
import shutil
import time
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import param
import pytest
from helpers import compute
from processes import MEAN, Mean, process_of

import resumable as rs

DATA = np.random.default_rng(0).random((40, 8))
TABLE = {"here": "2.0", "there": "3.0"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Go to the first of two folders that have files of the same names."""
    for number, name in enumerate(("here", "there")):
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        (folder / "results").mkdir()
        (folder / "table.txt").write_text(TABLE[name])
        for where in (folder, folder / "data"):
            with h5py.File(where / "scan.h5", "w") as file:
                file["data"], file["weight"] = DATA + number, np.arange(40.0) + number
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


class Weighted(rs.Process):
    version = 1
    outputs: ClassVar = {
        "sum": rs.Output(),
        "high": rs.Output(ragged=True),
    }

    def unit_computation(self, spectrum, weight):
        return {"sum": spectrum.sum() * weight, "high": spectrum[spectrum > 0.5]}


class Slow(rs.Process):
    version = 1
    outputs = MEAN

    def unit_computation(self, spectrum):
        time.sleep(0.005)
        return spectrum.mean()


@pytest.fixture
def Tabled(here):
    """Reads files that its parameters name, where it computes."""

    class Tabled(rs.Process):
        version = 1
        outputs = MEAN
        default = param.Filename("table.txt")  # which param looks for at once
        given = param.Filename(None, allow_None=True)
        path = param.ClassSelector(class_=Path, default=Path("table.txt"))
        fixed = param.Parameter(Path("table.txt"), constant=True)
        several = param.List([])
        chosen = param.Selector(objects=[Path("a"), Path("b")])

        def setup(self):
            names = [self.default, self.given, self.path, self.fixed, *self.several]
            self.factor = sum(float(Path(name).read_text()) for name in names)

        def unit_computation(self, spectrum):
            return spectrum.mean() * self.factor

    return Tabled


def tabled(cls, folder=""):
    """Make a Process, of files in a folder, whose parameters are given in all ways."""
    process = cls(
        f"{folder}scan.h5::/data",
        given=f"{folder}table.txt",
        several=[Path(f"{folder}table.txt")],
    )
    process.path = Path(f"{folder}table.txt")
    return process


@pytest.mark.parametrize("engine", ["serial", "local", "auto"])
def test_a_process_computes_what_was_where_it_was_made(here, engine):
    names = ["here", "there"]
    made = []
    for name in names:
        os.chdir(here.parent / name)
        made.append(Mean("scan.h5::/data"))
    os.chdir("/")
    computed = [
        process.compute(engine=engine, workers=2, progress=False) for process in made
    ]

    for number, (name, results) in enumerate(zip(names, computed, strict=True)):
        assert results.path.parent == here.parent / name
        expected = (DATA + number).mean(axis=1)
        np.testing.assert_array_equal(results["mean"], expected)


def test_results_are_read_after_the_folder_was_changed(here):
    given = {"inputs": {"weight": "data/scan.h5::/weight"}}
    process = Weighted("scan.h5::/data", "results", **given)
    results = compute(process)
    opened = rs.open(results.path.relative_to(here))
    os.chdir(here.parent / "there")

    assert results.path.parent == here / "results"
    for one in (results, opened, process.results, *process.duplicates):
        np.testing.assert_array_equal(one["sum"], DATA.sum(axis=1) * np.arange(40.0))
        np.testing.assert_array_equal(one["high"][3], DATA[3][DATA[3] > 0.5])
        assert one.status.finished
    assert process.verify().passed
    assert rs.verify(opened, Weighted).passed
    # As of an output, and as of a state.
    again = rs.load(process.state(), Weighted)
    assert again.results == results
    assert compute(Mean(opened["sum"])).path.parent == here / "results"


def test_a_run_in_the_background_survives_a_change_of_the_folder(here):
    run = Slow("scan.h5::/data").start(engine="local", workers=2)
    os.chdir(here.parent / "there")
    results = run.wait()

    np.testing.assert_array_equal(results["mean"], DATA.mean(axis=1))
    assert results.path.parent == here
    assert list((here.parent / "there").glob("*Slow*")) == []


def test_a_chain_stays_where_it_was_made(here):
    Second = process_of(lambda self, mean: mean + 1, {"x": rs.Output()}, name="Second")
    chain = rs.Chain(Mean("scan.h5::/data"), Second(), keep=["mean", "x"])
    os.chdir(here.parent / "there")

    results = compute(chain)
    os.chdir("/")

    np.testing.assert_array_equal(results["x"], DATA.mean(axis=1) + 1)
    assert {one.path.parent for one in results.stages.values()} == {here}


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_parameters_that_are_paths_stay_where_they_were_given(here, Tabled, engine):
    process = tabled(Tabled)
    os.chdir(here.parent / "there")
    results = process.compute(engine=engine, workers=2, progress=False)

    np.testing.assert_array_equal(results["mean"], DATA.mean(axis=1) * 10)
    assert process.path == process.fixed == here / "table.txt"
    assert process.default == process.given == str(here / "table.txt")
    assert process.chosen == Path("a")


def test_the_identity_is_that_of_the_absolute_names(here, Tabled):
    """And that of any folder with the same files."""
    relative = tabled(Tabled)
    absolute = tabled(Tabled, f"{here}/")
    copy = here.parent / "copy"
    shutil.copytree(here, copy)
    results = compute(relative)
    os.chdir(copy)

    assert relative.identity == absolute.identity == tabled(Tabled).identity
    assert absolute.results == results


def test_runs_from_before_helpers_counted_know_paths_as_they_were_typed(here, Tabled):
    """Of documents of schema 1; what param resolves was absolute then, too."""
    document = tabled(Tabled)._earlier_document()["parameters"]

    assert document["path"] == {"path": "table.txt"}
    assert document["fixed"] == {"path": "table.txt"}
    assert document["several"] == [{"path": "table.txt"}]
    assert document["default"] == document["given"] == str(here / "table.txt")


def test_a_function_gets_paths_that_hold_everywhere(here):
    def scaled(spectrum, table):
        if not table.is_absolute():
            raise ValueError(table)
        return spectrum.mean() * float(table.read_text())

    first = rs.map(scaled, "scan.h5::/data", table=Path("table.txt"))
    again = rs.map(scaled, "scan.h5::/data", table=here / "table.txt")

    assert first == again
    np.testing.assert_array_equal(first["result"], DATA.mean(axis=1) * 2)


def test_a_folder_that_was_moved_still_has_its_runs(here):
    """Source, input and target lie beside each other, and are moved together."""
    given = {"inputs": {"weight": "scan.h5::/weight"}}
    results = compute(Weighted("data/scan.h5::/data", "results", **given))
    moved = here.parent / "elsewhere" / "moved"
    shutil.copytree(here, moved)
    shutil.rmtree(here)
    os.chdir("/")
    path = moved / "results" / results.path.name
    found = rs.load(path, Weighted)

    assert found.results == rs.open(path)
    assert found.results.status.finished
    for name, where in (("data", "data/scan.h5"), ("weight", "scan.h5")):
        state = found.state()
        places = {"data": state["source"], "weight": state["inputs"]["weight"][0]}
        file, _, dataset = places[name].partition("::")
        assert (Path(file).resolve(), dataset) == (moved / where, f"/{name}")
    assert rs.verify(path, Weighted).passed


def test_a_dataset_of_a_file_in_another_folder_is_refused(here):
    """HDF5 knows the file by the name that it was opened with."""
    with h5py.File("scan.h5") as file:
        assert Mean(file["data"]).state()["source"] == f"{here}/scan.h5::/data"
        os.chdir(here.parent / "there")
        with pytest.raises(rs.SourceError, match=r"opened as 'scan\.h5'.*absolute"):
            Mean(file["data"])
        os.chdir("/")
        with pytest.raises(rs.SourceError, match=r"opened as 'scan\.h5'"):
            Mean(file["data"])
    with h5py.File(here / "scan.h5") as file:
        assert Mean(file["data"]).map_shape == (40,)


def test_a_default_that_is_not_there_is_a_parameter_error(here, Tabled):
    os.chdir("/")
    with pytest.raises(rs.ParameterError, match=r"table\.txt.*not found"):
        Tabled(str(here / "scan.h5") + "::/data")


def test_names_in_errors_are_seen_from_the_current_folder(here):
    for folder, name in (
        (here, "scan.h5"),
        (here.parent, "here/scan.h5"),
        ("/", f"{here}/scan.h5"),
    ):
        os.chdir(folder)
        with pytest.raises(rs.SourceError) as caught:
            Mean(f"{name}::/date")
        assert str(caught.value).startswith(f"{name} has no dataset /date")
