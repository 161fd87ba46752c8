"""Bad input gets a clear error, and nothing is lost; odd input works."""

import importlib
import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import DATA, compute
from processes import Same, process_of
from run_files import MEAN, Mean

import resumable as rs


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def odd(tmp_path):
    """A file with everything that is not a source."""
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["group/spectra"] = np.ones((4, 3))
        file["scalar"] = 1.5
        file["none"] = h5py.Empty("f8")
        file["no_positions"] = np.ones((0, 3))
        file["no_data"] = np.ones((3, 0))
        file["text"] = ["a", "bc"]
        file.create_dataset("ragged", (3,), h5py.vlen_dtype("f8"))
        file.create_dataset(
            "mixed", (3,), np.dtype([("a", "f4"), ("b", h5py.string_dtype())])
        )
        file.create_dataset("references", (2,), h5py.ref_dtype)
        file["broken"] = h5py.SoftLink("/nowhere")
        file["away"] = h5py.ExternalLink("missing.h5", "/data")
        file["type"] = np.dtype("f8")
        layout = h5py.VirtualLayout((4, 3), "f8")
        layout[:] = h5py.VirtualSource("part_missing.h5", "data", (4, 3))
        file.create_virtual_dataset("virtual", layout)
        layout[:] = h5py.VirtualSource(".", "gone", (4, 3))
        file.create_virtual_dataset("hollow", layout)
        file.create_dataset("arrays", (4,), np.dtype(("f8", (3,))))
    h5py.File(tmp_path / "empty.h5", "w").close()
    (tmp_path / "no bytes.h5").touch()
    (tmp_path / "link.h5").symlink_to("gone.h5")
    (tmp_path / "notes.txt").write_text("not hdf5")
    return tmp_path


SOURCES = {
    "missing file": ("od.h5::/scalar", r"there is no file .*od\.h5; did you mean 'odd"),
    "link to nothing": ("link.h5::/x", r"link\.h5 is a link to gone\.h5, which is m"),
    "missing folder": ("nowhere/odd.h5::/x", r"there is no file .*nowhere/odd\.h5"),
    "missing dataset": (
        "odd.h5::/group/spectre",
        r"has no dataset /group/spectre; did you mean '/group/spectra'",
    ),
    "nothing like it": (
        "odd.h5::/zzz",
        r"has no dataset /zzz; it has /group/spectra \(4 x 3 float64\)$",
    ),
    "no dataset named": ("odd.h5", r"names no dataset; write '.*odd\.h5::/dataset'"),
    "empty name": ("odd.h5::/", "names no dataset"),
    "not hdf5": ("notes.txt::/data", "cannot be read as HDF5"),
    "a folder": (".::/data", "is a folder"),
    "a group": ("odd.h5::/group", "is a group, not a dataset; it has /group/sp"),
    "the root": ("odd.h5::", "names no dataset"),
    "a named type": ("odd.h5::/type", "is a datatype, not a dataset"),
    "a broken link": ("odd.h5::/broken", "is a link to /nowhere, which is missing"),
    "a link to nothing": (
        "odd.h5::/away",
        r"link to missing\.h5::/data, which is missing: there is no file .*missing\.h5",
    ),
    "scalar": ("odd.h5::/scalar", "is a single value; a source needs an axis"),
    "null": ("odd.h5::/none", r"has no elements \(a null dataspace, float64\)"),
    "0 positions": ("odd.h5::/no_positions", r"\(0, 3\): there is nothing to compute"),
    "0 values": ("odd.h5::/no_data", r"\(3, 0\): there is nothing to compute"),
    "text": ("odd.h5::/text", r"entries of variable length \(text\)"),
    "variable length": ("odd.h5::/ragged", "entries of variable length"),
    "variable length inside": (
        "odd.h5::/mixed",
        r"of no fixed size \(b\).*; one column can be: ::/TABLE/a",
    ),
    "references": ("odd.h5::/references", "has references to objects as entries"),
    "a missing part": (
        "odd.h5::/virtual",
        r"is virtual and its part .*part_missing\.h5",
    ),
    "a part without data": ("odd.h5::/hollow", r"is virtual and its part .*gone"),
    "array type": ("odd.h5::/arrays", r"has arrays as entries \(\('<f8', \(3,\)\)\)"),
    "no datasets": ("empty.h5::/data", "no dataset /data; it has no datasets that"),
    "no bytes": ("no bytes.h5::/data", r"no bytes\.h5 cannot be read as HDF5"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_that_cannot_be_used_is_refused_at_construction(odd, kind):
    """What is wrong, where, and the nearest name; no file changes."""
    source, words = SOURCES[kind]
    before = snapshot(odd)
    with pytest.raises(rs.SourceError, match=words):
        Mean(f"{odd}/{source}")

    assert snapshot(odd) == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (0, "at least 1 position, not 0"),
        (-5, "at least 1 position, not -5"),
        (True, "not a bool"),
        (2.0, "not a float"),
        (None, "no source"),
        (["scan.h5::/data"], r"a source is 'file\.h5::/dataset', .* not a"),
        (b"x", "not a"),
        ({}, "not a"),
        ("::/data", "names no file"),
        ("", "names no file"),
    ],
    ids=str,
)
def test_what_is_no_source_is_refused(tmp_path, source, words):
    with pytest.raises(rs.SourceError, match=words):
        Mean(source, tmp_path)


@pytest.mark.parametrize("mode", ["r+", "a"])
def test_a_dataset_of_a_file_open_for_writing_is_refused(scan, mode):
    path, _, name = scan.partition("::")
    with (
        h5py.File(path, mode) as file,
        pytest.raises(rs.SourceError, match="reopen it with mode 'r'"),
    ):
        Mean(file[name])


def test_a_file_open_for_writing_elsewhere_is_refused(scan, script):
    path = scan.partition("::")[0]
    other = script(
        """
        import sys, time, h5py
        file = h5py.File(sys.argv[1], "r+")
        print("open", flush=True)
        time.sleep(60)
        """,
        path,
    )
    assert other.stdout.readline() == "open\n"
    with pytest.raises(rs.SourceError, match="open for writing, in another program"):
        Mean(scan).compute()


def test_a_dataset_of_a_closed_file_is_refused(scan):
    path, _, name = scan.partition("::")
    with h5py.File(path) as file:
        dataset = file[name]
    with pytest.raises(rs.SourceError, match="file is closed; give 'file"):
        Mean(dataset)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (2, r"position_axes=\(2,\) do not exist in .* of shape \(60, 32\)"),
        (-3, "do not exist"),
        ((0, 5), "do not exist"),
        ((0, 0), "names an axis twice"),
        ((0, -2), "names an axis twice"),
        ((), "do not exist"),
        ("x", "must be a whole number or a tuple of them"),
        (0.5, "must be a whole number"),
        ((0, None), "must be a whole number"),
        ((0.5,), "must be a whole number"),
    ],
    ids=str,
)
def test_axes_that_do_not_exist_are_refused(scan, axes, words):
    with pytest.raises(rs.SourceError, match=words):
        Mean(scan, position_axes=axes)


def declared(**body):
    """A Process class with this body and nothing else."""
    return type("Declared", (rs.Process,), {"version": 1, **body})


def unit(self, spectrum):
    return 1.0


CLASSES = {
    "no outputs": ({"unit_computation": unit}, "declares no outputs; add outputs ="),
    "not an Output": (
        {"unit_computation": unit, "outputs": {"x": "f8"}},
        "'x' in Declared.outputs must be an Output",
    ),
    "neither method": (
        {"outputs": MEAN},
        r"unit_computation \(one position\) or block_computation .* has neither",
    ),
    "both methods": (
        {"outputs": MEAN, "unit_computation": unit, "block_computation": unit},
        "has both",
    ),
    "no spectrum": (
        {"outputs": MEAN, "unit_computation": lambda self: 1},
        r"must take \(self, spectrum\)",
    ),
    "too many arguments": (
        {"outputs": MEAN, "unit_computation": lambda self, spectrum, more: 1},
        r"asks for 'more', .* give inputs=\{'more': source\}",
    ),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_that_is_wrongly_declared_is_refused_at_construction(scan, kind):
    body, words = CLASSES[kind]
    with pytest.raises(rs.DeclarationError, match=words):
        declared(**body)(scan)


def test_an_input_the_method_does_not_take_is_refused(scan):
    with pytest.raises(
        rs.DeclarationError, match=r"must take \(self, spectrum, guess\)"
    ):
        Mean(scan, inputs={"guess": scan})


@pytest.mark.parametrize(
    ("target", "words"),
    [("nowhere", "does not exist; make it first"), ("file", "is not a folder")],
)
def test_a_target_that_is_no_folder_is_refused_at_construction(
    scan, tmp_path, target, words
):
    (tmp_path / "file").touch()
    with pytest.raises(rs.TargetError, match=words):
        Mean(scan, tmp_path / target)


@pytest.fixture
def lockable():
    """A folder with a source, and a function after which nobody can write there."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    with h5py.File(folder / "scan.h5", "w") as file:
        file["data"] = np.ones((6, 4))
    root = os.geteuid() == 0

    def lock():
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        if root:
            os.seteuid(65534)

    yield folder, lock
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def locked(lockable):
    """A folder with a source that this process may read but not write."""
    folder, lock = lockable
    lock()
    return folder


def test_finished_results_can_be_had_where_nothing_can_be_written(lockable):
    folder, lock = lockable
    first = compute(Mean(f"{folder}/scan.h5::/data"))
    lock()
    process = Mean(f"{folder}/scan.h5::/data")

    assert process.results == first
    assert process.explain().candidates[0].matches
    assert compute(process)["mean"][...].tolist() == [1.0] * 6


def test_an_unfinished_run_where_nothing_can_be_written_says_so(lockable):
    folder, lock = lockable
    compute(Mean(f"{folder}/scan.h5::/data"), positions=[0])
    lock()
    before = snapshot(folder)
    with pytest.raises(rs.TargetError, match="cannot be written"):
        compute(Mean(f"{folder}/scan.h5::/data"))

    assert snapshot(folder) == before


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(locked):
    process = Mean(f"{locked}/scan.h5::/data")
    action = process.plan(engine="serial").action
    with pytest.raises(
        rs.TargetError, match=r"cannot be written .*give another folder as target="
    ):
        compute(process)

    assert action == "compute"
    assert [p.name for p in locked.iterdir()] == ["scan.h5"]


def test_results_of_a_folder_that_cannot_be_written_go_to_target(locked):
    with tempfile.TemporaryDirectory() as mine:
        results = compute(Mean(f"{locked}/scan.h5::/data", mine))
        done = results.status.done

    assert done == 6


def test_a_budget_too_small_names_the_least_that_works(make_file, tmp_path):
    """The number in the message is enough, taken as it is written there."""
    source = make_file(data=np.ones((4, 100_000))) + "::/data"
    before = snapshot(tmp_path)
    with pytest.raises(rs.PlanError, match="one position needs 800 kB") as info:
        compute(Mean(source), memory="100 kB")
    least = str(info.value).partition("memory='")[2].partition("'")[0]

    assert snapshot(tmp_path) == before
    assert compute(Mean(source), memory=least).status.finished


def test_a_missing_compression_plugin_names_what_to_install(tmp_path, monkeypatch):
    """hdf5plugin is an extra; without it a zstd source says so."""
    shutil.copy(DATA / "cytoshot-test-data.rtdc", tmp_path)
    source = f"{tmp_path}/cytoshot-test-data.rtdc::/events/image"
    real = importlib.import_module

    def without(name, *arguments):
        if name == "hdf5plugin":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", without)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 100)
    with pytest.raises(
        rs.SourceError,
        match=r"filter 32015 \(Zstand.* pip install hdf5plugin \(or resumable-hdf5\[",
    ):
        Mean(source)


def part_files(tmp_path, place):
    """A virtual dataset of two parts, and what it reads as."""
    data = np.random.default_rng(0).random((6, 4))
    layout = h5py.VirtualLayout((6, 4), "f8")
    for i in range(2):
        name = "whole.h5" if place == "inside" else f"part{i}.h5"
        with h5py.File(tmp_path / name, "a") as file:
            file[f"data{i}"] = data[3 * i : 3 * i + 3]
        where = {"absolute": str(tmp_path / name), "inside": "."}.get(place, name)
        layout[3 * i : 3 * i + 3] = h5py.VirtualSource(where, f"data{i}", (3, 4))
    with h5py.File(tmp_path / "whole.h5", "a") as file:
        file.create_virtual_dataset("data", layout)
    return f"{tmp_path}/whole.h5::/data", data


@pytest.mark.parametrize("place", ["relative", "absolute", "inside"])
def test_a_virtual_dataset_whose_parts_exist_works(tmp_path, place):
    source, data = part_files(tmp_path, place)

    np.testing.assert_array_equal(compute(Mean(source))["mean"], data.mean(axis=1))


def test_a_changed_part_of_a_virtual_dataset_is_noticed(tmp_path):
    source, _ = part_files(tmp_path, "relative")
    before = Mean(source).identity
    with h5py.File(tmp_path / "part1.h5", "r+") as file:
        file["data1"][0, 0] = 99

    assert Mean(source).identity != before


def test_a_source_with_a_user_block_works(tmp_path):
    with h5py.File(tmp_path / "u.h5", "w", userblock_size=1024) as file:
        file["data"] = np.arange(8.0).reshape(2, 4)
    with (tmp_path / "u.h5").open("r+b") as file:
        file.write(b"hello")

    np.testing.assert_array_equal(
        compute(Mean(f"{tmp_path}/u.h5::/data"))["mean"], [1.5, 5.5]
    )


KINDS = {
    "compound": np.dtype([("a", "<f4"), ("b", ">i2")]),
    "big-endian": np.dtype(">f8"),
    "big-endian integer": np.dtype(">u2"),
    "float16": np.dtype("f2"),
    "complex": np.dtype("c16"),
    "bool": np.dtype("?"),
    "bytes": np.dtype("S3"),
    "subarray": np.dtype([("v", "f4", (2,))]),
    "enum": h5py.enum_dtype({"RED": 0, "BLUE": 1}, "u1"),
}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sources_of_odd_dtypes_work(make_file, kind, chunked):
    dtype = KINDS[kind]
    raw = np.random.default_rng(0).integers(0, 2, (12, 5, dtype.itemsize), dtype="u1")
    data = raw.view(dtype)[..., 0]
    layout = {"chunks": (4, 5), "compression": "gzip"} if chunked else {}
    source = make_file(data={"data": data, **layout}) + "::/data"

    class Checked(Same):
        version = 1

        def unit_computation(self, spectrum):
            assert spectrum.dtype == dtype
            return spectrum

    results = compute(Checked(source))

    assert results["x"].dtype == dtype
    assert results["x"][...].tobytes() == data.tobytes()


def test_nan_and_infinity_pass_through(make_file):
    data = np.array([[np.nan, 1], [np.inf, 2], [-np.inf, 3], [0.0, -0.0]])
    First = process_of(lambda self, spectrum: spectrum[0])
    results = compute(First(make_file(data=data) + "::/data"))

    np.testing.assert_array_equal(results["mean"], data[:, 0])
    assert results.status.failed == 0


def test_one_position_of_one_number_works(make_file):
    results = compute(Mean(make_file(data=np.array([7.0])) + "::/data"))

    np.testing.assert_array_equal(results["mean"], [7.0])
