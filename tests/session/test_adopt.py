"""Classes that were renamed, parameters that were added, runs that are adopted."""

import shutil
import sys
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import param
import pytest
from forged_files import rewritten
from helpers import compute, data_of
from processes import MEAN
from programs import invoke

import resumable as rs
from resumable.runfile import RunFile, RunLock, run_folder_of
from resumable.session import Finished


def means(scan):
    return data_of(scan).mean(axis=1)


class Named(rs.Process):
    """As the class was, before it got the name below."""

    outputs = MEAN
    scale = 1.0

    def unit_computation(self, spectrum):
        return self.of(spectrum) * self.scale

    def of(self, spectrum):
        return spectrum.mean()


class Renamed(rs.Process):
    """The same."""

    aliases = ("Named", "Older")
    outputs = MEAN
    scale = 1.0

    def unit_computation(self, spectrum):
        return self.of(spectrum) * self.scale

    def of(self, spectrum):
        return spectrum.mean()


#: What is written in the class above.
BODY = {
    name: value
    for name, value in vars(Renamed).items()
    if name in ("outputs", "scale", "unit_computation", "of")
}


class Edited(rs.Process):
    """Not the same."""

    aliases = ("Named",)
    outputs = MEAN
    scale = 2.0

    def unit_computation(self, spectrum):
        return self.of(spectrum) * self.scale

    def of(self, spectrum):
        return spectrum.mean()


class Below(Renamed):
    """Has never had the older names of its base class."""


class Scaled(rs.Process):
    """Before it had parameters."""

    version = 1
    outputs = MEAN

    def unit_computation(self, spectrum):
        return spectrum.mean() * 1.0


NARROW = Scaled


def with_parameters(added):
    """Return the class after two parameters were added."""

    class Scaled(rs.Process):
        version = 1
        added_parameters = added
        outputs = MEAN
        scale = param.Number(2.0)
        power = param.Integer(1)

        def unit_computation(self, spectrum):
            return spectrum.mean() ** self.power * self.scale

    return Scaled


# Renamed.


def test_a_renamed_class_goes_on_with_its_run(scan):
    before = compute(Named(scan), positions=slice(0, 25))
    process = Renamed(scan)

    assert process.plan().pending == 35
    assert "made under an older name" in str(process.explain())
    after = compute(process)

    assert after.path == before.path
    assert [session.computed for session in after.sessions] == [25, 35]
    np.testing.assert_array_equal(after["mean"][...], means(scan))
    assert process.verify(sample="all").passed
    assert rs.verify(after.path, Renamed, sample="all").passed
    assert rs.load(after.path, Renamed).results == after
    assert Renamed(scan).identity != Named(scan).identity
    # The old script finds it finished.
    assert Named(scan).plan().action == "return"


def test_an_edit_counts_under_the_new_name_too(scan):
    before = compute(Named(scan))

    assert Edited(scan).plan().action == "compute"
    results = compute(Edited(scan))
    assert results.path != before.path
    np.testing.assert_array_equal(results["mean"][...], 2 * means(scan))


def test_older_names_are_not_inherited(scan):
    compute(Named(scan))

    assert Renamed(scan).plan().action == "return"
    assert Below(scan).plan().action == "compute"


def test_a_run_of_the_older_name_is_copied_where_the_source_has_grown(make_file):
    data = np.arange(40.0).reshape(10, 4)
    path = make_file()
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data[:6], maxshape=(None, 4), chunks=(2, 4))
    before = compute(Named(f"{path}::/data"))
    with h5py.File(path, "r+") as file:
        file["data"].resize(10, axis=0)
        file["data"][...] = data

    process = Renamed(f"{path}::/data")
    assert process.plan().action == "copy and continue"
    results = compute(process)

    assert results.path.name.startswith("scan-data-Renamed-")
    assert results.sessions[-1].computed == 4
    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))
    assert compute(Named(f"{path}::/data"), positions=0).path != before.path


@pytest.mark.parametrize(("holder", "other"), [(Named, Renamed), (Renamed, Named)])
def test_scripts_with_both_names_do_not_compute_at_once(scan, holder, other):
    compute(Named(scan), positions=slice(0, 5))

    def compute_by_the_other(event):
        if isinstance(event, Finished):
            return
        with pytest.raises(rs.RunBusy, match="is being computed by process"):
            compute(other(scan))

    results = compute(holder(scan), listener=compute_by_the_other)

    assert results.status.done == 60
    assert [session.computed for session in results.sessions] == [5, 55]


@pytest.mark.parametrize("wrong", ["Named", ("not a name",), (3,)])
def test_aliases_that_are_no_names_are_refused(scan, wrong):
    made = type("Made", (Renamed,), {"aliases": wrong})

    with pytest.raises(rs.DeclarationError, match="must be a tuple of older names"):
        made(scan)


# With further parameters.


@pytest.mark.parametrize(
    ("given", "action"),
    [
        ({"scale": 1.0}, "return"),
        ({}, "compute"),
        ({"scale": 1.0, "power": 2}, "compute"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*was edited since")
def test_a_run_without_a_parameter_is_one_with_its_old_value(scan, given, action):
    before = compute(NARROW(scan))
    made = with_parameters({"scale": 1.0, "power": 1})
    process = made(scan, **given)

    assert process.plan().action == action
    if action == "return":
        assert compute(process).path == before.path
        assert process.verify(sample="all").passed
        assert rs.load(before.path, made).scale == 1.0
        assert rs.verify(before.path, made, sample="all").passed


@pytest.mark.filterwarnings("ignore:.*was edited since")
def test_a_parameter_that_was_added_later_is_left_out_first(scan):
    first = type("Scaled", (NARROW,), {"scale": param.Number(2.0), "version": 1})
    between = compute(first(scan, scale=4.0))
    made = with_parameters({"scale": 1.0, "power": 1})

    assert made(scan, scale=4.0).results.path == between.path
    assert made(scan, scale=4.0, power=3).results is None
    assert made(scan, scale=1.0).results is None


@pytest.mark.parametrize(
    ("added", "given"), [(1.0, 1), (0.0, -0.0), (1, True), ((1, 2), [1, 2])]
)
@pytest.mark.filterwarnings("ignore:.*was edited since")
def test_the_value_of_an_added_parameter_counts_by_its_type_too(scan, added, given):
    compute(NARROW(scan))
    made = type(
        "Scaled",
        (NARROW,),
        {"version": 1, "gain": param.Parameter(), "added_parameters": {"gain": added}},
    )

    assert made(scan, gain=added).results is not None
    assert made(scan, gain=given).results is None


def test_added_parameters_that_are_no_dict_are_refused(scan):
    made = with_parameters(("scale",))

    with pytest.raises(rs.DeclarationError, match=r"must be a dict .*\('scale',\)"):
        made(scan)


def test_an_added_parameter_that_is_none_is_refused(scan):
    made = with_parameters({"scala": 1.0})

    with pytest.raises(rs.DeclarationError, match=r"'scala', which is no .*'scale'"):
        made(scan)


@pytest.mark.filterwarnings("ignore:.*was edited since")
def test_a_declared_parameter_of_another_value_is_told_with_both(scan, caplog):
    compute(NARROW(scan))
    process = with_parameters({"scale": 1.0, "power": 1})(scan, scale=0.5)

    explained = str(process.explain())
    compute(process)

    assert "parameters.scale: 1.0 there, 0.5 here" in explained
    assert "would match" not in explained
    assert "is not continued" not in caplog.text


# Adopted.


class Other(rs.Process):
    """Another name, and other code for the same numbers."""

    outputs = MEAN
    scale = param.Number(1.0)
    kept: ClassVar[list[int]] = []

    def unit_computation(self, spectrum):
        return self.scale * spectrum.mean()


def test_explain_says_what_name_is_in_the_way(scan, tmp_path):
    path = compute(Named(scan)).path
    shutil.copy(tmp_path / "scan.h5", tmp_path / "moved.h5")
    unnamed = type("Renamed", (rs.Process,), {**BODY, "aliases": ()})
    alone = str(Below(scan).explain())
    compute(NARROW(scan))

    def told(process):
        return str(process.explain()).partition("it would match but for ")[2]

    assert "would match" not in alone
    assert told(unnamed(scan)).startswith(
        "the name of the class, for which there is aliases = ('Named',)"
    )
    assert told(Named(tmp_path / "moved.h5::/data")).startswith(
        "the name of the source's file; or adopt it, with 'resumable adopt'"
    )
    assert told(with_parameters({})(scan)).startswith(
        "parameters that it lacks, for which there is added_parameters = {'scale': "
        "VALUE, 'power': VALUE}"
    )
    assert path.exists()


@pytest.mark.filterwarnings("ignore:.*was edited since")
def test_a_new_run_says_which_one_it_might_have_been(scan, caplog):
    compute(Named(scan), positions=0)
    compute(NARROW(scan), positions=0)
    compute(type("Renamed", (rs.Process,), {**BODY, "aliases": ()})(scan))
    compute(with_parameters({})(scan))
    compute(Edited(scan))

    told = [text for text in caplog.messages if "is not continued" in text]
    assert [text.partition("for which there is ")[2][:12] for text in told] == [
        "aliases = ('",
        "added_parame",
    ]


def test_a_new_run_of_a_moved_source_names_the_latest_run_of_it(tmp_path, caplog):
    first, second, moved = (tmp_path / f"{name}.h5" for name in ("a", "b", "c"))
    with h5py.File(first, "w") as file:
        file["d"] = np.random.default_rng(0).random((20, 8))
    compute(Renamed(f"{first}::/d"))
    shutil.copy(first, second)
    compute(Renamed(f"{second}::/d"))
    second.rename(moved)
    compute(Renamed(f"{moved}::/d"))
    with h5py.File(moved, "r+") as file:
        file.move("d", "e/f")
    compute(Renamed(f"{moved}::/e/f"))

    told = [text for text in caplog.messages if "is not continued" in text]
    assert [(text[:12], text.split("but for ")[1].split(";")[0]) for text in told] == [
        ("a-d-Renamed-", "the name of the source's file"),
        ("b-d-Renamed-", "the name of the source's file"),
        ("c-d-Renamed-", "the name of the dataset"),
    ]


def test_functions_that_are_mapped_have_no_older_names(scan, caplog):
    for function in (np.sum, np.prod):
        results = rs.map(function, scan, options={"engine": "serial"})
        np.testing.assert_array_equal(
            results["result"][...], [function(row) for row in data_of(scan)]
        )

    assert "is not continued" not in caplog.text


@pytest.mark.parametrize("document", [{}, {"process": 3}, {"source": 1}, {"inputs": 2}])
def test_a_document_of_another_program_is_in_nobodys_way(scan, document):
    path = compute(Named(scan)).path
    forged = path.rename(path.with_name("forged.h5"))
    rewritten(forged, lambda plain: plain.update(document=document))

    assert Renamed(scan).explain().candidates == ()
    with pytest.raises(rs.RunFileError, match="cannot be adopted: outputs"):
        Renamed(scan).adopt(forged)


def test_an_adopted_run_goes_on_and_says_so(scan):
    run = compute(Named(scan), positions=slice(0, 25))
    before = run.path.read_bytes()

    adopted = Other(scan).adopt(run, sample="all")

    assert adopted.status.done == 25
    assert run.path.read_bytes() == before
    assert [session.computed for session in adopted.sessions] == [25]
    note = RunFile(adopted.path).header.source["adopted"]
    assert note["run"] == run.path.name
    assert note["identity"] == run.identity
    assert note["rows"].startswith("25 of 25 positions computed again: 25 the same")
    shown = invoke("show", str(adopted.path))
    for words in ('process: "Named" there, "Other" here', "scale: missing there"):
        assert words in shown
    results = compute(Other(scan))
    assert results == adopted
    np.testing.assert_array_equal(results["mean"][...], means(scan))
    assert rs.verify(adopted.path, Other, sample="all").passed


class Weighted(rs.Process):
    version = 1
    outputs = MEAN

    def unit_computation(self, spectrum, weight):
        return weight * spectrum.mean()


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("changed", ["data", "weight"])
def test_a_run_of_other_contents_is_adopted_where_all_rows_are_compared(
    tmp_path, growing, changed
):
    more = {"maxshape": (None,), "chunks": (8,)} if growing else {}

    def weighted(name, **contents):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for each, values in {"data": np.ones(60), "weight": np.ones(60)}.items():
                file.create_dataset(each, data=contents.get(each, values), **more)
        inputs = {"weight": "::/weight"}
        return Weighted(f"{tmp_path}/{name}.h5::/data", inputs=inputs)

    run = compute(weighted("then"))
    other = np.ones(60)
    other[7] = 5
    process = weighted("now", **{changed: other})

    for sample in (1, 20):
        with pytest.raises(rs.RunFileError, match=r"had other contents.*sample=.all."):
            process.adopt(run, sample=sample)
    with pytest.raises(rs.RunFileError, match=r"60 of 60 .*: 59 the same"):
        process.adopt(run, sample="all")
    assert process.results is None
    assert weighted("moved").adopt(run, sample=1).status.done == 60
    packed = weighted("packed")
    with h5py.File(tmp_path / "packed.h5", "r+") as file:
        del file[changed]
        kept = {**more, "compression": "gzip"}
        file.create_dataset(changed, data=np.ones(60), **kept)
    assert packed.adopt(run, sample="all").status.done == 60


def failing(fill_value):
    class Failing(rs.Process):
        version = 1
        outputs: ClassVar = {
            "mean": rs.Output(fill_value=fill_value),
            "ends": rs.Output(2, fill_value=fill_value),
        }

        def unit_computation(self, spectrum):
            if self.position % 4 == 3:
                raise ValueError
            return {"mean": spectrum.mean(), "ends": spectrum[[0, -1]]}

    return Failing


def as_filled(results):
    """Return the rows of failed positions, as HDF5 and as Results have them."""
    failed = [failure.position for failure in results.failures]
    with h5py.File(results.path) as file:
        names = ("mean", "ends")
        there = [file[RunFile(results.path).header.group][name][...] for name in names]
    return [rows[failed] for rows in (*there, results["mean"], results["ends"])]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.filterwarnings("ignore:.*positions failed")
def test_failed_rows_get_the_fill_value_of_the_class_that_adopts(scan, packed):
    run = compute(failing(None)(scan))
    if packed:
        run.pack()
    other = type("Other", (failing(-5),), {})

    adopted = other(scan).adopt(run, sample="all")

    for rows in as_filled(adopted):
        np.testing.assert_array_equal(rows, np.full_like(rows, -5))
    assert rs.verify(adopted.path, other, sample="all").passed


@pytest.mark.filterwarnings("ignore:.*positions failed")
def test_failed_rows_of_a_source_that_has_grown_get_the_fill_value_of_now(make_file):
    path = make_file()
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.ones((6, 4)), maxshape=(None, 4))
    compute(failing(None)(f"{path}::/data"))
    with h5py.File(path, "r+") as file:
        file["data"].resize(10, axis=0)

    results = compute(failing(-5)(f"{path}::/data"))

    assert results.sessions[-1].computed == 3
    for rows in as_filled(results):
        np.testing.assert_array_equal(rows, np.full_like(rows, -5))
    assert rs.verify(results.path, failing(-5), sample="all").passed


@pytest.mark.filterwarnings("ignore:.*positions failed")
@pytest.mark.parametrize("engine", ["serial", "local"])
def test_a_run_that_goes_on_keeps_the_fill_value_of_its_file(scan, engine):
    compute(failing(-5)(scan), positions=slice(0, 20))

    failing(-7)(scan).compute(engine=engine, progress=False)
    results = failing(-9)(scan).compute(
        engine=engine, progress=False, retry_failed=True
    )

    assert results.status.failed == 15
    for rows in as_filled(results):
        np.testing.assert_array_equal(rows, np.full_like(rows, -5))
    assert rs.verify(results.path, failing(-7), sample="all").passed


def test_rows_of_another_computation_are_not_adopted(scan):
    run = compute(Named(scan))
    process = Other(scan, scale=3.0)

    with pytest.raises(rs.RunFileError, match="is not adopted: 20 of 60 positions"):
        process.adopt(run)

    assert process.results is None
    assert list(run.path.parent.glob(".*")) == []
    # It can be insisted on.
    assert process.adopt(run.path, sample=0).status.done == 60


def test_what_cannot_be_of_the_computation_is_refused(scan, make_file):
    run = compute(Other(scan))
    small = make_file("small.h5", data=np.ones((3, 4)))
    vector = type("Vector", (Other,), {"outputs": {"mean": rs.Output(shape=2)}})

    for process, words in (
        (Other(scan, scale=3.0), r"parameters.scale: 1.0 there, 3.0 here"),
        (Other(f"{small}::/data"), r"a map of \(60,\) there, of \(3,\) here"),
        (vector(scan), r"outputs.mean.shape"),
        (Other(scan), r"is a run of this computation already"),
    ):
        with pytest.raises(rs.RunFileError, match=words):
            process.adopt(run)


def test_a_packed_run_of_a_moved_source_is_adopted_by_the_command(
    scan, tmp_path, monkeypatch
):
    (tmp_path / "there").mkdir()
    shutil.copy(tmp_path / "scan.h5", tmp_path / "there" / "moved.h5")
    (tmp_path / "fit.py").write_text(
        Path(__file__).read_text().split("\n# Renamed.")[0]
    )
    run = compute(Named(scan))
    run.pack()
    monkeypatch.chdir(tmp_path)

    line = invoke("adopt", str(run.path), "fit.py:Renamed", "there/moved.h5::/data")
    again = invoke("run", "fit.py:Renamed", "there/moved.h5::/data")

    name, _, words = line.partition(": ")
    assert Path(name).match("there/moved-data-Renamed-*")
    assert words == again.partition(": ")[2] == "60 of 60 positions done\n"
    np.testing.assert_array_equal(rs.open(name)["mean"][...], means(scan))


def growing(path, data):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, maxshape=(None, 4), chunks=(2, 4))
    return f"{path}::/data"


def test_a_run_of_the_same_identity_is_adopted_or_refused_by_its_rows(make_file):
    data = np.arange(40.0).reshape(10, 4)
    source = growing(make_file(), data)
    run = compute(Scaled(source), positions=slice(0, 6))
    for row, error in ((8, None), (3, "rows of another computation")):
        data[row] = -1
        growing(source.partition("::")[0], data)
        process = Scaled(source)
        assert process.results is None
        if error is None:
            adopted = process.adopt(run, sample="all")
            assert adopted.path != run.path
            assert adopted.status.done == 6
            adopted.path.unlink()
            continue
        with pytest.raises(rs.RunFileError, match=error):
            process.adopt(run, sample="all")


def test_a_run_of_other_contents_is_no_run_but_for_a_name(make_file):
    data = np.arange(40.0).reshape(10, 4)
    run = compute(Scaled(growing(make_file(), data)))
    moved = growing(run.path.parent / "moved.h5", data)
    (one,) = Scaled(moved).explain().candidates
    assert one.reasons[-1].startswith("it would match but for the name of the source's")
    data[5] = 0  # the first position is as it was

    growing(run.path.parent / "moved.h5", data)
    assert Scaled(moved).explain().candidates == ()


def test_a_run_that_is_computed_is_not_adopted(scan):
    run = compute(Named(scan), positions=slice(0, 5))

    with (
        RunLock(run_folder_of(RunFile(run.path))).held(),
        pytest.raises(rs.RunBusy, match="is being computed by process"),
    ):
        Other(scan).adopt(run)


def test_rows_that_cannot_be_read_here_are_not_adopted(scan, monkeypatch):
    """Without their filter no row is compared."""
    pytest.importorskip("hdf5plugin")
    results = compute(Named(scan))
    results.pack("zstd")
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)

    with pytest.raises(rs.RunFileError, match=r"not adopted: cannot be checked here"):
        Edited(scan).adopt(results)
