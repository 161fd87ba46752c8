"""Links, virtual datasets, filters and columns: where the data of a source lie."""

import os
import shutil

import h5py
import hdf5plugin
import numpy as np
import pytest
from helpers import compute
from processes import Mean
from run_files import named_source
from sources import fingerprint, read_all

import resumable as rs
from resumable.source import shared_value
from resumable.source.reference import refer

FRAMES = np.arange(120, dtype="u2").reshape(20, 3, 2)


def virtual(path, *parts, name="data"):
    """Write a virtual dataset that is put together of datasets of other files."""
    layout = h5py.VirtualLayout((20 * len(parts), 3, 2), "u2")
    for number, (other, dataset) in enumerate(parts):
        place = slice(20 * number, 20 * number + 20)
        layout[place] = h5py.VirtualSource(other, dataset, (20, 3, 2))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout)


# Filters.

FILTERED = """
import os, sys
import numpy as np
from processes import Mean
from sources import read_all, refer
from resumable.source.reader import Reader

frames = np.arange(120, dtype="u2").reshape(20, 3, 2)
with Reader(refer("late.h5::/data")) as reader:
    os.replace("part.h5", "plain.h5")
    rows = reader.empty(20)
    assert "hdf5plugin" not in sys.modules
    reader.read(0, np.ones(20, bool), rows)
    assert (rows == frames).all()
os.replace("plain.h5", "part.h5")
results = Mean("master.h5::/twice").compute(engine="local", workers=1)
assert (results["mean"][...] == frames.mean(axis=(1, 2))).all()
for name in ("link", "soft", "data", "twice"):
    assert (read_all(f"master.h5::/{name}") == frames).all()
"""


def test_filters_behind_links_and_virtual_datasets_are_loaded_in_workers(
    tmp_path, script
):
    """Also where a part that needs one comes after the source was opened."""
    with h5py.File(tmp_path / "part.h5", "w") as file:
        filters = hdf5plugin.Bitshuffle(cname="lz4")
        file.create_dataset("data", data=FRAMES, chunks=(1, 3, 2), **filters)
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.zeros_like(FRAMES)
    virtual(tmp_path / "late.h5", ("plain.h5", "data"))
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["link"] = h5py.ExternalLink("part.h5", "/data")
        file["soft"] = h5py.SoftLink("/link")
    virtual(tmp_path / "master.h5", ("part.h5", "data"))
    virtual(tmp_path / "master.h5", (".", "data"), name="twice")

    assert script(FILTERED).communicate(timeout=60) == ("", "")


@pytest.mark.parametrize("name", ["data", "link", "virtual"])
def test_a_filter_that_hdf5plugin_lacks_is_named_as_that(tmp_path, name):
    """VBZ, 32020, of nanopore data."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, 3, 2))
    properties.set_filter(32020, h5py.h5z.FLAG_OPTIONAL, (0, 2, 1, 1))
    space = h5py.h5s.create_simple((20, 3, 2))
    with h5py.File(tmp_path / "part.h5", "w") as file:
        kind = h5py.h5t.NATIVE_UINT16
        h5py.h5d.create(file.id, b"data", kind, space, dcpl=properties)
        file["link"] = h5py.SoftLink("/data")
    virtual(tmp_path / "part.h5", (".", "data"), name="virtual")
    words = rf"::/{name} is compressed with HDF5 filter 32020, which neither HDF5 nor"
    with pytest.raises(rs.SourceError, match=words + " hdf5plugin has"):
        Mean(f"{tmp_path}/part.h5::/{name}")


# Many files.

LIMITED = """
import resource
from processes import Mean
from resumable.errors import SourceError

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
for engine in ("serial", "local"):
    process = Mean("master.h5::/data")
    results = process.compute(engine=engine, workers=1, override=True)
    print(results["mean"][...].sum())
resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))
try:
    Mean("master.h5::/data")
except SourceError as error:
    print(error)
"""


def test_more_parts_than_a_process_may_have_files_open_are_read_or_refused(
    tmp_path, script
):
    """HDF5 reads fill values from those that it cannot open."""
    with h5py.File(tmp_path / "0.h5", "w") as file:
        file["data"] = np.ones((1, 3), "u2")
    layout = h5py.VirtualLayout((70, 3), "u2")
    for number in range(70):
        if number:
            shutil.copy(tmp_path / "0.h5", tmp_path / f"{number}.h5")
        layout[number] = h5py.VirtualSource(f"{number}.h5", "data", (1, 3))[0]
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file.create_virtual_dataset("data", layout)

    output, errors = script(LIMITED).communicate(timeout=60)

    assert errors == ""
    assert output.splitlines()[:2] == ["70.0", "70.0"]
    assert "is virtual, of parts in 70 files: " in output
    assert "and this process may have 150 (ulimit -n" in output


# Links.


@pytest.fixture
def master(tmp_path):
    """A master file without some of its data files."""
    path = tmp_path / "master.h5"
    with h5py.File(path, "w") as file:
        file["entry/data_1"] = h5py.ExternalLink("run_data_1.h5", "/entry/data")
        file["entry/data_2"] = h5py.ExternalLink("run_data_2.h5", "/entry/data")
        file["entry/x"] = np.ones(3)
        file["soft"] = h5py.SoftLink("/gone")
        file["chain"] = h5py.SoftLink("/soft")
        file["group"] = h5py.SoftLink("/entry")
    with h5py.File(tmp_path / "run_data_2.h5", "w") as file:
        file["entry/dat"] = FRAMES
    virtual(path, ("run_data_1.h5", "entry/data"), name="lost")
    virtual(path, ("run_data_2.h5", "entry/data"), name="empty")
    virtual(path, (".", "entry/data_1"), name="linked")
    return path


BROKEN = {
    "entry/data_1": r"master\.h5::/entry/data_1 is a link to run_data_1\.h5::"
    r"/entry/data, which is missing: there is no file .*/run_data_1\.h5; did you mean "
    r"'run_data_2\.h5'\?$",
    "entry/data_2": r"is a link to run_data_2\.h5::/entry/data, which is missing; did "
    "you mean '/entry/dat'",
    "soft": r"::/soft is a link to /gone, which is missing; .*master\.h5 has /entry/x "
    r"\(3 float64\)$",
    "chain": "::/soft is a link to /gone, which is missing",
    "group/data_1": r"::/entry/data_1 is a link to run_data_1\.h5::/entry/data",
    "group/y": r"has no dataset /entry/y; it has /entry/x \(3 float64\)$",
    "lost": r"::/lost is virtual and its part .*/run_data_1\.h5 is missing",
    "empty": r"is virtual and its part .*run_data_2\.h5::/?entry/data is missing",
    "linked": r"::/linked is virtual .*entry/data_1 is missing: .* no file",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_missing_behind_a_link_is_named_and_no_name_is_its_own_hint(
    master, name
):
    with pytest.raises(rs.SourceError, match=BROKEN[name]) as info:
        Mean(f"{master}::/{name}")

    assert f"did you mean '/{name}'" not in str(info.value)


def test_relative_links_and_links_within_links_lead_on(tmp_path):
    with h5py.File(tmp_path / "far.h5", "w") as file:
        file["deep/data"] = FRAMES
        file["here"] = h5py.SoftLink("deep")
    with h5py.File(tmp_path / "near.h5", "w") as file:
        file["a/b/file"] = h5py.ExternalLink("far.h5", "/here")
        file["a/b/data"] = h5py.SoftLink("file/data")
        file["c"] = h5py.SoftLink("/a/b/./")

    rows = read_all(f"{tmp_path}/near.h5::/c/data")

    np.testing.assert_array_equal(rows, FRAMES)


@pytest.mark.parametrize("kind", ["link", "virtual"])
@pytest.mark.parametrize("locking", [None, True, False])
def test_a_data_file_that_the_user_holds_open_is_read(tmp_path, kind, locking):
    """HDF5 opens no file with another choice of locks than it has it open with."""
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["data"] = FRAMES
    path = tmp_path / "master.h5"
    virtual(path, ("part.h5", "data"), name="virtual")
    with h5py.File(path, "a") as file:
        file["link"] = h5py.ExternalLink("part.h5", "/data")
    with h5py.File(path, "r", locking=locking) as file:
        held = file["link"]
    results = compute(Mean(f"{path}::/{kind}"))

    assert held[0, 0, 0] == 0
    np.testing.assert_array_equal(results["mean"], FRAMES.mean(axis=(1, 2)))


def test_files_held_with_two_choices_of_locks_are_refused(tmp_path):
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["data"] = FRAMES
    virtual(tmp_path / "master.h5", ("part.h5", "data"))
    with (
        h5py.File(tmp_path / "part.h5", "r", locking=False),
        h5py.File(tmp_path / "master.h5", "r", locking=True),
        pytest.raises(
            rs.SourceError, match=r"part\.h5 is open in this process with an"
        ),
    ):
        Mean(f"{tmp_path}/master.h5::/data")


@pytest.mark.parametrize("name", ["data", "link"])
def test_the_data_files_of_a_symbolic_link_lie_where_it_leads(tmp_path, name):
    for folder in ("raw", "work"):
        (tmp_path / folder).mkdir()
    with h5py.File(tmp_path / "raw/part.h5", "w") as file:
        file["data"] = FRAMES
    virtual(tmp_path / "raw/master.h5", ("part.h5", "data"))
    with h5py.File(tmp_path / "raw/master.h5", "a") as file:
        file["link"] = h5py.ExternalLink("part.h5", "/data")
    (tmp_path / "work/master.h5").symlink_to(tmp_path / "raw/master.h5")

    rows = read_all(f"{tmp_path}/work/master.h5::/{name}")

    np.testing.assert_array_equal(rows, FRAMES)


@pytest.mark.parametrize("name", ["data", "link"])
def test_folders_of_data_files_may_be_named_in_the_environment(
    tmp_path, monkeypatch, name
):
    (tmp_path / "far").mkdir()
    with h5py.File(tmp_path / "far/part.h5", "w") as file:
        file["data"] = FRAMES
    virtual(tmp_path / "master.h5", ("part.h5", "data"))
    with h5py.File(tmp_path / "master.h5", "a") as file:
        file["link"] = h5py.ExternalLink("part.h5", "/data")
    folders = os.pathsep.join([str(tmp_path / "none"), str(tmp_path / "far")])
    monkeypatch.setenv("HDF5_EXT_PREFIX", folders)
    monkeypatch.setenv("HDF5_VDS_PREFIX", str(tmp_path / "far"))

    rows = read_all(f"{tmp_path}/master.h5::/{name}")

    np.testing.assert_array_equal(rows, FRAMES)


# Columns of tables.

PAIR = np.dtype([("x", "<f8"), ("n", "i2")])
TABLE = np.dtype(
    [
        ("id", ">i4"),
        ("flag", bool),
        ("name", "S4"),
        ("pair", PAIR),
        ("wave", "<f4", (5,)),
        ("per m/s", "<f4"),
    ]
)


@pytest.fixture
def table(tmp_path):
    """A table with text of no fixed size, which is no source as a whole."""
    rng = np.random.default_rng(3)
    rows = np.zeros(30, [*TABLE.descr, ("note", h5py.string_dtype())])
    rows["id"], rows["flag"] = rng.integers(0, 9, 30), rng.random(30) > 0.5
    rows["name"], rows["note"] = b"abc", "any text"
    rows["pair"]["x"], rows["pair"]["n"] = rng.random(30), np.arange(30)
    rows["wave"], rows["per m/s"] = rng.random((30, 5)), np.arange(30)
    path = tmp_path / "table.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("g/events", data=rows, chunks=(7,), compression="gzip")
        file["link"] = h5py.SoftLink("/g/events")
    return path, rows


@pytest.mark.parametrize("column", ["id", "flag", "name", "pair", "pair/n", "wave"])
@pytest.mark.parametrize("name", ["g/events", "link"])
def test_one_column_of_a_table_is_a_source(table, name, column):
    path, rows = table
    expected = rows
    for part in column.split("/"):
        expected = expected[part]

    found = read_all(f"{path}::/{name}/{column}")

    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_column_may_have_a_slash_in_its_name(table):
    path, rows = table
    found = read_all(f"{path}::/g/events/per m/s")

    np.testing.assert_array_equal(found, rows["per m/s"])


def test_axes_of_entries_of_a_column_follow_those_of_the_table(table):
    path, rows = table

    np.testing.assert_array_equal(read_all(f"{path}::/link/wave", 1), rows["wave"].T)
    both = read_all(f"{path}::/link/wave", (1, 0))
    np.testing.assert_array_equal(both, rows["wave"].T.ravel())


def test_a_run_over_a_column_goes_on_and_leads_to_the_table(table):
    path, rows = table
    part = compute(Mean(f"{path}::/g/events/wave"), positions=[3, 20])
    results = compute(Mean(f"{path}::/g/events/wave"))

    assert part.path == results.path
    np.testing.assert_array_equal(results["mean"], [r.mean() for r in rows["wave"]])
    assert named_source(results.path, "wave-Mean_000").shape == (30,)


def test_only_a_change_of_the_column_makes_another_source(table):
    path, _ = table
    before = fingerprint(f"{path}::/link/wave")
    with h5py.File(path, "r+") as file:
        file["link"]["id"] = 77
    between = fingerprint(f"{path}::/link/wave")
    with h5py.File(path, "r+") as file:
        rows = file["link"][...]
        rows["wave"][4, 4] += 1
        file["link"][...] = rows

    assert before == between
    assert fingerprint(f"{path}::/link/wave") != between


@pytest.mark.parametrize("column", ["id", "name", "note", "wave"])
def test_a_column_can_be_shared_by_all_positions(table, column):
    path, rows = table
    shared = shared_value("x", f"{path}::/link/{column}")
    expected = rows[column].astype(str) if column in ("name", "note") else rows[column]

    np.testing.assert_array_equal(shared.value, expected)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (
            "wav",
            r"is a table without a column wav; it has id, flag, name, pair, wave",
        ),
        ("pair/z", "without a column pair/z"),
        ("id/x", "without a column id/x"),
        ("note", r"entries of variable length \(text\)"),
        ("", r"of no fixed size \(note\).*; one column can be: ::/TABLE/id"),
    ],
)
def test_a_column_that_is_no_source_is_named(table, column, words):
    with pytest.raises(rs.SourceError, match=words):
        Mean(f"{table[0]}::/g/events/{column}")


# Names.


@pytest.mark.parametrize("text", ["/g//data", "g/data//", "/./g/data", "//g/./data/."])
def test_a_name_with_empty_parts_is_the_name_without_them(make_file, text):
    path = make_file(**{"g/data": np.arange(4.0)})

    assert refer(f"{path}::{text}") == refer(f"{path}::/g/data")


# Types.


@pytest.mark.parametrize(
    ("fields", "bias"),
    [((15, 7, 8, 0, 7), 127), ((7, 3, 4, 0, 3), 7), ((7, 2, 5, 0, 2), 15)],
    ids=["bfloat16", "float8_e4m3", "float8_e5m2"],
)
def test_short_floats_of_hdf5_arrive_as_floats_of_numpy(tmp_path, fields, bias):
    values = np.array([1, 2.5, -3, 0.5, 0, 14], "f4")
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(*fields)
    kind.set_ebias(bias)
    kind.set_size(1 if fields[0] == 7 else 2)
    kind.set_precision(fields[0] + 1)
    space = h5py.h5s.create_simple((6,))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        made = h5py.h5d.create(file.id, b"data", kind, space)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    results = compute(Mean(f"{tmp_path}/x.h5::/data"))

    assert read_all(f"{tmp_path}/x.h5::/data").dtype == np.float32
    # Runs from when float8 arrived as float16 are found.
    short = "<f4" if fields[0] == 15 else "<f2"
    assert results.document["source"]["dtype"] == short
    np.testing.assert_array_equal(results["mean"], values)
