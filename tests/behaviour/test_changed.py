"""Source, class and run file, changed in every way: each has one answer.

======================================  ================================================
what changed                            answer, and where it is tested when not here
======================================  ================================================
source: bytes of the contents           starts anew, names the run it left
source beyond 64 MB, between samples    noticed with ``fingerprint="full"`` only
                                        (``source/test_fingerprint``)
source: another file, shape or dtype    starts anew
source: truncated                       refused; what was computed can be read
source: bytes appended to the file      the same run
source: grown along a resizable axis    goes on (``process/test_same_run``)
source: a longer dataset                starts anew
source: touched, moved with its runs,   the same run
copied, stored otherwise uncompressed
source: packed anew (compressed)        starts anew
source: renamed                         starts anew: runs are named after it
class: edited, no version               starts anew, names the run it left
class: edited, same version             the same run, a warning shows the lines
                                        (``session/test_explain``)
class: version, parameter, dtype        starts anew
class: labels, units                    the same run; it keeps the labels it has
run file: copied in its folder          the original answers
run file: renamed                       starts anew; it opens by its path
                                        (``runfile/test_lock``)
run file: moved to another folder       goes on there, with ``target``
run file: truncated, header or          refused, with what to do (``runfile``,
structure changed                       ``test_fuzz``)
run file: bytes appended                the same run
status: done to pending                 the position is computed again
status: pending to done, a row          only computing again can notice it
byte ``finished``                       what is pending is computed, ``finish`` is
                                        called again
failures, sessions                      the text is lost, no status
======================================  ================================================
"""

import importlib
import logging
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import param
import pytest
from helpers import data_of
from processes import with_an_edit

import resumable as rs
from resumable.runfile.file import RunFile


class Mean(rs.Process):
    """The mean of every spectrum; notes where it is computed."""

    version = 1
    outputs = {"mean": rs.Output(units="V", labels=None)}  # noqa: RUF012
    width = param.Number(0.1)
    calls = None
    finishes = None

    def unit_computation(self, spectrum):
        if self.calls is not None:
            self.calls.append(self.position)
        return np.mean(spectrum, dtype="f8")

    def finish(self, results):
        if self.finishes is not None:
            self.finishes.append(1)


def compute(source, target=None, cls=Mean, **options):
    """Compute, and return the results and the positions that were computed."""
    process = cls(source, target)
    process.calls = []
    results = process.compute(engine="serial", progress=False, **options)
    return results, sorted(process.calls)


def edited(place):
    """Return a function that changes one element in the file, as bytes on disk."""

    def edit(path):
        with h5py.File(path) as file:
            data = file["data"]
            offset, size = data.id.get_offset(), data.nbytes
        at = offset + {"first": 0, "middle": size // 2, "last": size - 1}[place]
        with path.open("r+b") as file:
            file.seek(at)
            old = file.read(1)[0]
            file.seek(at)
            file.write(bytes([old ^ 1]))

    return edit


def replaced(path, **how):
    data = how.pop("data", None)
    if data is None:
        with h5py.File(path) as file:
            data = file["data"][...]
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, **how)


def appended(path):
    with path.open("ab") as file:
        file.write(b"more" * 1000)


def copied_over(path):
    copy = path.with_name("copy.h5")
    shutil.copyfile(path, copy)
    copy.replace(path)


def with_attributes(path):
    with h5py.File(path, "r+") as file:
        file["data"].attrs["note"] = "later"
        file["other"] = np.arange(1000)


OTHER = np.random.default_rng(9).normal(size=(60, 32))

ANEW = {
    "first byte": edited("first"),
    "byte in the middle": edited("middle"),
    "last byte": edited("last"),
    "another file": lambda p: replaced(p, data=OTHER),
    "another shape": lambda p: replaced(p, data=OTHER[:, :16]),
    "fewer positions": lambda p: replaced(p, data=OTHER[:30]),
    "more positions": lambda p: replaced(p, data=np.r_[OTHER, OTHER]),
    "another dtype": lambda p: replaced(p, data=OTHER.astype("f4")),
    "another byte order": lambda p: replaced(p, data=OTHER.astype(">f8")),
    "packed": lambda p: replaced(p, chunks=(10, 32), compression="gzip"),
}
SAME = {
    "touched": lambda p: os.utime(p, (1, 1)),
    "bytes appended": appended,
    "copied over": copied_over,
    "stored in chunks": lambda p: replaced(p, chunks=(7, 5)),
    "attributes and neighbours": with_attributes,
}


@pytest.mark.parametrize("done", [60, 20], ids=["finished", "unfinished"])
@pytest.mark.parametrize("kind", ANEW)
def test_a_changed_source_starts_anew(scan, kind, done, caplog):
    """All positions are computed, none is taken over, the left run keeps its bytes
    and is named with the reason."""
    left, _ = compute(scan, positions=slice(0, done))
    before = left.path.read_bytes()
    ANEW[kind](Path(scan.partition("::")[0]))
    with caplog.at_level(logging.WARNING, "resumable"):
        results, calls = compute(scan)

    data = data_of(scan)
    assert results.path != left.path
    assert calls == list(range(len(data)))
    np.testing.assert_array_equal(results["mean"], np.mean(data, axis=1, dtype="f8"))
    assert left.path.read_bytes() == before
    assert f"changed since {left.path.name} was computed" in caplog.text
    assert "source." in caplog.text


def assert_goes_on(source, path, target=None):
    """All that is computed now is what the run at this path lacked."""
    results, calls = compute(source, target)

    assert results.path == path
    assert calls == list(range(20, 60))


@pytest.mark.parametrize("kind", SAME)
def test_a_source_with_the_same_contents_goes_on(scan, kind, caplog):
    first, _ = compute(scan, positions=slice(0, 20))
    SAME[kind](Path(scan.partition("::")[0]))
    with caplog.at_level(logging.WARNING, "resumable"):
        assert_goes_on(scan, first.path)

    assert caplog.text == ""


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: os.truncate(p, p.stat().st_size // 2), "is truncated: it has"),
        (Path.unlink, "there is no file"),
    ],
    ids=["truncated", "gone"],
)
def test_a_lost_source_is_refused_and_its_results_stay(scan, harm, words):
    results, _ = compute(scan)
    harm(Path(scan.partition("::")[0]))
    with pytest.raises(rs.SourceError, match=words):
        compute(scan)

    assert rs.open(results.path).status.finished
    assert rs.open(results.path)["mean"][...].shape == (60,)


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("how", [shutil.move, shutil.copy])
def test_a_source_moved_or_copied_with_its_run_goes_on(scan, elsewhere, how):
    """Path and mount are not part of the identity."""
    first, _ = compute(scan, positions=slice(0, 20))
    how(first.path, elsewhere)
    how(scan.partition("::")[0], elsewhere)

    assert_goes_on(f"{elsewhere}/scan.h5::/data", elsewhere / first.path.name)


def test_a_moved_source_goes_on_in_the_old_target(scan, tmp_path, elsewhere):
    first, _ = compute(scan, positions=slice(0, 20))
    shutil.move(scan.partition("::")[0], elsewhere)

    assert_goes_on(f"{elsewhere}/scan.h5::/data", first.path, target=tmp_path)


def test_a_renamed_source_starts_anew_under_its_new_name(scan, tmp_path):
    """Runs are looked up by the name of the source; the old run opens by its path."""
    first, _ = compute(scan)
    Path(scan.partition("::")[0]).rename(tmp_path / "other.h5")
    results, calls = compute(f"{tmp_path}/other.h5::/data")

    assert results.path.name.startswith("other-data-Mean-")
    assert results.identity == first.identity
    assert calls == list(range(60))
    assert rs.open(first.path).status.finished


def later(name="Mean", **body):
    return type(name, (Mean,), {"version": 1, **body})


def test_an_edited_class_without_a_version_starts_anew(scan, caplog):
    """Old numbers are never taken for those of the new text; the log says so."""
    left, _ = compute(scan, cls=with_an_edit(edit=False))
    with caplog.at_level(logging.WARNING, "resumable"):
        results, calls = compute(scan, cls=with_an_edit(edit=True))

    assert calls == list(range(60))
    np.testing.assert_array_equal(results["mean"], 2 * left["mean"][...])
    assert f"Edited was edited since {left.path.name}" in caplog.text


def test_two_classes_of_one_name_are_two_computations(scan, tmp_path, monkeypatch):
    """A class that is defined again, or on two branches, has a text of its own."""
    text = """
import resumable as rs

class Twice(rs.Process):
    outputs = {"x": rs.Output()}
    def unit_computation(self, spectrum):
        return spectrum.min()

First = Twice

class Twice(rs.Process):
    outputs = {"x": rs.Output()}
    def unit_computation(self, spectrum):
        return spectrum.max()
"""
    (tmp_path / "twice_defined.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("twice_defined")

    assert module.First(scan).identity != module.Twice(scan).identity


CLASSES = {
    "version": (later(version=2), False),
    "dtype": (later(outputs={"mean": rs.Output(dtype="f4")}), False),
    "shape": (later(outputs={"mean": rs.Output(1)}), False),
    "another output": (
        later(outputs={"mean": rs.Output(), "n": rs.Output(dtype="i4", per="run")}),
        False,
    ),
    "default of a parameter": (later(width=param.Number(0.2)), False),
    "another parameter": (later(height=param.Number(0.2)), False),
    "name": (later("Average"), False),
    "units": (later(outputs={"mean": rs.Output(units="mV")}), True),
    "fill": (later(outputs={"mean": rs.Output(units="V", fill_value=-1)}), True),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_changed_declaration_has_its_answer(scan, kind):
    """A change of numbers starts anew; units and fill value stay as they were."""
    first, _ = compute(scan)
    cls, same = CLASSES[kind]
    process = cls(scan)

    found = process.results
    assert (found == first) if same else (found is None)
    if same:
        assert found["mean"].units == "V"


def test_other_labels_are_the_same_run(scan):
    """They do not change numbers: the run keeps those it was created with."""

    def labelled(*labels):
        outputs = {"ends": rs.Output(2, labels=labels)}

        def unit_computation(self, spectrum):
            return spectrum[[0, -1]]

        body = {"outputs": outputs, "unit_computation": unit_computation}
        return type("Ends", (rs.Process,), {"version": 1, **body})

    first = labelled("a", "b")(scan).compute(engine="serial", progress=False)
    again = labelled("x", "y")(scan).compute(engine="serial", progress=False)

    assert again == first
    assert again["ends"].labels == ("a", "b")


def test_a_copy_of_a_run_beside_it_is_not_in_the_way(scan):
    first, _ = compute(scan, positions=slice(0, 20))
    copy = Path(shutil.copy(first.path, first.path.with_name("backup.h5")))
    before = copy.read_bytes()

    assert_goes_on(scan, first.path)
    assert copy.read_bytes() == before
    assert rs.open(copy).status.done == 20


@pytest.mark.parametrize("how", [shutil.move, shutil.copy])
def test_a_run_moved_to_another_folder_goes_on_there(scan, elsewhere, how):
    first, _ = compute(scan, positions=slice(0, 20))
    how(first.path, elsewhere)

    assert_goes_on(scan, elsewhere / first.path.name, target=elsewhere)
    if how is shutil.copy:
        assert rs.open(first.path).status.done == 20


def put(results, name, index, new):
    """Change bytes in a part of a run file."""
    offset, _ = RunFile(results.path).header.extents()[name]
    with results.path.open("r+b") as file:
        file.seek(offset + index)
        file.write(new)


def test_bytes_behind_a_run_file_do_not_count(scan):
    first, _ = compute(scan, positions=slice(0, 20))
    appended(first.path)

    assert_goes_on(scan, first.path)


@pytest.mark.parametrize("value", [0, 2, 255])
def test_a_done_position_that_is_not_marked_is_computed_again(scan, value):
    """Anything but 1 is pending, and the result is right again."""
    results, _ = compute(scan)
    put(results, "completed_positions", 7, bytes([value]))
    put(results, "mean", 7 * 8, b"\xff" * 8)
    assert (results.status.done, results.status.finished) == (59, False)
    again, calls = compute(scan)

    assert calls == [7]
    np.testing.assert_array_equal(again["mean"], data_of(scan).mean(axis=1))


@pytest.mark.parametrize("what", ["status", "row"])
def test_a_wrong_status_is_noticed_only_by_computing_again(scan, what):
    """Status and rows carry no digest: another run says which positions differ."""
    results, _ = compute(scan, positions=slice(0, 20))
    if what == "status":
        put(results, "completed_positions", 30, b"\1")
        wrong = 30
    else:
        put(results, "mean", 5 * 8, b"\0" * 8)
        wrong = 5
    results, calls = compute(scan)
    assert wrong not in calls
    right, _ = compute(scan, override=True)

    assert np.flatnonzero(results["mean"][...] != right["mean"][...]).tolist() == [
        wrong
    ]


def test_a_run_marked_finished_with_pending_positions_goes_on(scan):
    results, _ = compute(scan, positions=slice(0, 20))
    put(results, "finished", 0, b"\1")
    process = Mean(scan)
    assert not results.status.finished
    assert process.duplicates == []
    with pytest.raises(rs.SourceError, match="is not finished"):
        results["mean"].as_source()
    again, calls = compute(scan)

    assert calls == list(range(20, 60))
    assert again.status.finished


def test_a_run_without_its_finished_mark_finishes_again(scan):
    results, _ = compute(scan)
    put(results, "finished", 0, b"\0")
    process = Mean(scan)
    process.calls, process.finishes = [], []
    again = process.compute(engine="serial", progress=False)

    assert (process.calls, process.finishes) == ([], [1])
    assert again.status.finished


@pytest.mark.parametrize("name", ["failures", "sessions"])
def test_damaged_tables_lose_their_text_and_no_status(scan, name):
    results, _ = compute(scan, positions=slice(0, 20))
    _, length = RunFile(results.path).header.extents()[name]
    put(results, name, 0, np.random.default_rng(0).bytes(length))
    assert results.status.done == 20
    assert results.failures == []
    again, calls = compute(scan)

    assert calls == list(range(20, 60))
    np.testing.assert_array_equal(again["mean"], data_of(scan).mean(axis=1))
    assert again.status.finished
