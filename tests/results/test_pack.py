"""Packed runs: smaller, and in everything else what they were."""

from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import compute
from packed_runs import Large, Many, bits, packed, same
from processes import process_of
from sources import usid_source

import resumable as rs
from resumable.cli import commands
from resumable.model.indexing import read_like_array
from resumable.results.copy import TABLES
from resumable.results.pack import unpack_locked
from resumable.runfile import chunk_table
from resumable.runfile.file import RunFile
from resumable.runfile.folder import RunLock, run_folder_of
from resumable.runfile.header import (
    CHUNKS,
    table_rows,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*positions failed:resumable.ResumableWarning"
)


METHODS = ["gzip", "lzf", "zstd", "lz4", None]


def plain(attribute, file):
    """Make an attribute comparable: references by the names they lead to."""
    if isinstance(attribute, h5py.Reference):
        return file[attribute].name
    if isinstance(attribute, np.ndarray) and attribute.dtype.hasobject:
        return [
            plain(item, file) if not isinstance(item, np.void) else plain(item[0], file)
            for item in attribute.ravel()
        ]
    return np.asarray(attribute).tolist()


def sorted_where(name, value):
    """Sort what has no order: which datasets use a scale."""
    return sorted(value) if name == "REFERENCE_LIST" else value


def all_of(results, *, leave_out=(CHUNKS,)):
    group = results.group()
    found = {"": {k: plain(v, group.file) for k, v in group.attrs.items()}}
    for name in set(group) - set(leave_out):
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            found[name] = (link.filename, link.path)
            continue
        dataset = group[name]
        used = TABLES.get(name)
        values = dataset[dataset[used] > 0] if used else dataset[()]
        found[name] = (
            bits(values),
            dataset.dtype,
            () if used else dataset.shape,
            {
                k: sorted_where(k, plain(v, group.file))
                for k, v in dataset.attrs.items()
            },
            [[*d.keys(), d.label] for d in dataset.dims],
            np.asarray(dataset.fillvalue).tobytes() if not used else b"",
        )
    group.file.close()
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_packed_run_is_the_same_run(run, method):
    before = all_of(run)
    rows = {name: run[name][...] for name in run}
    told = (str(run.status), run.failures, run.sessions, run.identity, run.document)
    size = run.path.stat().st_size
    run.pack(method)
    again = rs.open(run.path)

    assert all_of(again) == before
    assert all(same(again[name][...], rows[name]) for name in rows)
    assert told == (
        str(again.status),
        again.failures,
        again.sessions,
        again.identity,
        again.document,
    )
    np.testing.assert_array_equal(again.failed_mask, run.failed_mask)
    assert run.path.stat().st_size < size / 3
    assert [p.name for p in run.path.parent.glob("*.pack")] == []


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_in_chunks_with_checksums_and_the_method(large, method):
    """As any HDF5 program sees them, and smaller where they are compressed."""
    large.pack(method)
    group = large.group()
    rows = group["row"]

    assert rows.chunks == (29, 1024)
    assert rows.fletcher32
    names = {"gzip": "gzip", "lzf": "lzf", "zstd": "32015", "lz4": "32004"}
    known = [names[method]] if method else []
    assert [name for name in rows._filters if name in names.values()] == known
    if method:
        assert large.path.stat().st_size < 200 * 8192 / 2
    group.file.close()


def test_references_of_usid_stay(tmp_path):
    Two = process_of(lambda self, spectrum: spectrum[:2], {"fit": rs.Output(2)})
    results = compute(Two(usid_source(tmp_path / "usid.h5")))
    before = all_of(results)
    results.pack()
    group = results.group()
    led = {
        name: group.file[group["fit"].attrs[name]].name.rsplit("/", 1)[-1]
        for name in ("Position_Indices", "Spectroscopic_Values")
    }
    group.file.close()

    assert all_of(results) == before
    assert led == {
        "Position_Indices": "Position_Indices",
        "Spectroscopic_Values": "fit_Spectroscopic_Values",
    }


def test_indexing_is_that_of_numpy(tmp_path):
    chance = np.random.default_rng(0)

    def part(length):
        kinds = (
            lambda: int(chance.integers(-length, length)),
            lambda: slice(
                *(int(v) for v in chance.integers(-length - 2, length + 2, 2)),
                [1, 2, -1, -3][chance.integers(4)],
            ),
            lambda: chance.integers(-length, length, 3),
            lambda: chance.integers(-length, length, 3).tolist(),
            lambda: chance.random(length) < 0.4,
            lambda: slice(None),
        )
        return kinds[chance.integers(len(kinds))]()

    compared = refused = 0
    for shape, chunks in (((37,), (5,)), ((20, 7), (3, 7)), ((6, 9, 4), (1, 4, 4))):
        values = chance.integers(0, 1000, shape)
        with h5py.File(tmp_path / "index.h5", "w") as file:
            dataset = file.create_dataset("values", data=values, chunks=chunks)
            keys = [values > 500, True, [], (..., 0), None, (None, 1), values[:, None]]
            for _ in range(250):
                key = [part(n) for n in shape[: chance.integers(1, len(shape) + 1)]]
                for extra in (None, ...):
                    if chance.random() < 0.3:
                        key.insert(chance.integers(len(key) + 1), extra)
                keys.append(tuple(key))
            for key in keys:
                try:
                    wanted = values[key]
                except (IndexError, DeprecationWarning) as error:  # numpy 2.0 warns
                    refused += 1
                    with pytest.raises(type(error)):
                        read_like_array(dataset, key)
                    continue
                found = read_like_array(dataset, key)
                assert np.shape(found) == np.shape(wanted), key
                np.testing.assert_array_equal(found, wanted)
                compared += 1

    assert compared > 500
    assert refused > 5


def test_reading_a_part_reads_only_its_chunks(large):
    large.pack("gzip")
    with h5py.File(large.path) as file:
        chunks = chunk_table(next(iter(file.values()))["row"])
    with large.path.open("r+b") as file:
        for first, _, _, place, _ in chunks.tolist():
            if first != 58:
                file.seek(place + 10)
                file.write(b"\xff\x00\xff")
    results = rs.open(large.path)

    np.testing.assert_array_equal(results["row"][60:80, 0], np.arange(60, 80))
    np.testing.assert_array_equal(results["row"][[86, 58], 3], [89, 61])
    for key in (..., 57, slice(60, 90)):
        with pytest.raises(rs.RunFileError, match="a part of row cannot be unpacked"):
            results["row"][key]


def test_iterating_gives_every_row(large):
    large.pack("lzf")
    firsts = [row[0] for row in large["row"]]

    assert firsts == list(range(200))


def test_fields_of_compounds_are_read_by_name(run):
    whole, one, two = run["pair"][...], run["pair"]["n"], run["pair"][["x"]]
    run.pack("gzip")

    assert same(run["pair"]["n"], one)
    assert same(run["pair"][["x"]], two)
    assert same(run["pair"][...], whole)


class Declared(Large):
    """Large, and packed when it is complete; fails until there is a file ``mended``."""

    outputs: ClassVar = {
        "row": rs.Output(1024, "i8", fill_value=-1, compression="zstd"),
        "other": rs.Output(fill_value=-1),
    }

    def unit_computation(self, index):
        if index == 7 and not Path("mended").exists():
            raise ValueError("no luck")
        return {"row": index + np.arange(1024), "other": float(index)}


class Undeclared(Declared):
    """The same without."""

    outputs: ClassVar = {"row": rs.Output(1024, "i8"), "other": rs.Output()}


def test_an_output_with_compression_packs_the_run(tmp_path):
    """When it is complete and not before, each output by its own method."""
    process = Declared(50, tmp_path)
    first = compute(process, positions=slice(0, 30))
    before = packed(first)
    results = compute(process)

    assert before is None
    assert packed(results) == {"row": "zstd", "other": None}
    np.testing.assert_array_equal(results["row"][:, 0], [*range(7), -1, *range(8, 50)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [results.path.name]


def test_compression_is_not_part_of_the_identity(tmp_path):
    with_it, without = Declared(50, tmp_path), Undeclared(50, tmp_path)
    documents = [p._computation().document for p in (with_it, without)]
    documents[0]["process"] = documents[1]["process"]

    assert documents[0] == documents[1]


def test_a_run_that_was_killed_before_it_was_packed_is_packed_by_the_next(tmp_path):
    """It was complete, and only not packed: nothing is computed again."""
    process = Declared(20, tmp_path)
    results = compute(process)
    with RunLock(run_folder_of(RunFile(results.path))).held():
        unpack_locked(RunFile(results.path))
    assert packed(results) is None
    again = compute(process)

    assert packed(again) == {"row": "zstd", "other": None}
    assert len(again.sessions) == 1


def test_a_full_disk_at_the_end_leaves_a_complete_run(small_disk):
    """Of a run that is complete only the packing fails, and that is a warning."""

    # 2 MB of random rows, and the packed copy does not fit beside them.
    Noise = process_of(
        lambda self, index: self.rng.random(1 << 17),
        {"row": rs.Output(1 << 17, compression="gzip")},
    )
    with pytest.warns(rs.ResumableWarning, match="complete, but not packed: no room"):
        results = compute(Noise(2, small_disk))

    assert results.status.finished
    assert packed(results) is None
    assert np.asarray(results["row"]).shape == (2, 1 << 17)
    assert [p.name for p in small_disk.iterdir()] == [results.path.name]
    with pytest.raises(rs.TargetError, match="no room"):
        results.pack("gzip")
    assert [p.name for p in small_disk.iterdir()] == [results.path.name]


def test_a_packed_run_is_found_and_returned(run, source):
    process = Many(source, position_axes=(0, 1))
    run.pack("gzip")
    results = compute(process)

    assert results.path == run.path
    assert len(results.sessions) == 1
    assert process.duplicates == [run]
    assert process.partials == []
    assert "complete: 38 of 40" in str(process.explain())
    assert process.plan().action == "return"


def test_failed_positions_are_tried_again_after_unpacking(
    run, source, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    process = Many(source, position_axes=(0, 1))
    level = run["level"][...]
    run.pack("zstd")
    Path("mended").touch()
    results = compute(process, retry_failed=True)

    assert results.path == run.path
    assert packed(results) is None
    assert results.status.done == 40
    assert results["total"][0] == 40
    assert [s.computed for s in results.sessions] == [38, 2]
    kept = ~np.isnan(level)
    assert (results["level"][...][kept] == level[kept]).all()
    assert not np.isnan(results["level"][...]).any()
    # As a new one: it can be gone on with, and packed, as often as one likes.
    assert RunFile(results.path).header.rows == table_rows(40, 2)


def test_it_is_packed_again_where_an_output_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = Declared(50, tmp_path)
    compute(process)
    Path("mended").touch()
    results = compute(process, retry_failed=True)

    assert [s.computed for s in results.sessions] == [49, 1]
    assert packed(results) == {"row": "zstd", "other": None}
    assert results.status.done == 50
    np.testing.assert_array_equal(results["row"][:, 0], np.arange(50))


def test_override_leaves_the_packed_run_alone(run, source):
    run.pack("gzip")
    before = run.path.read_bytes()
    results = compute(Many(source, position_axes=(0, 1)), override=True)

    assert results.path != run.path
    assert run.path.read_bytes() == before


def test_a_source_that_has_grown_goes_on_from_a_packed_run(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=np.random.rand(30, 4), maxshape=(None, 4))
    Mean = process_of(
        lambda self, spectrum: spectrum.mean(), {"mean": rs.Output(compression="gzip")}
    )
    process = Mean(f"{tmp_path}/scan.h5::/data")
    first = compute(process)
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        file["data"].resize(40, axis=0)
        file["data"][30:] = 1
    results = compute(Mean(f"{tmp_path}/scan.h5::/data"))

    assert packed(first) == packed(results) == {"mean": "gzip"}
    assert results.sessions[-1].computed == 10
    with h5py.File(tmp_path / "scan.h5", "r") as file:
        wanted = [row.mean() for row in file["data"][...]]
    np.testing.assert_array_equal(results["mean"][...], wanted)


def test_an_output_of_a_packed_run_is_the_source_it_was(run):
    """What was computed from it is found; anew it gives the same."""

    Double = process_of(lambda self, level: 2 * level, {"double": rs.Output()})
    before = Double(run["level"], position_axes=(0, 1))
    identity = before.identity
    wanted = compute(before)["double"][...]
    run.pack("zstd")
    after = Double(rs.open(run.path)["level"], position_axes=(0, 1))
    anew = compute(after, override=True)

    assert after.identity == identity
    assert len(after.duplicates) == 2
    assert same(anew["double"][...], wanted)


def test_the_command_packs_shows_and_removes(run):
    def invoke(*words):
        result = CliRunner().invoke(commands.main, [*words])
        assert result.exit_code == 0, result.output
        return result.output

    path = str(run.path)
    assert "now" in invoke("pack", path, "--compression", "lzf")
    shown = invoke("show", path)
    listed = invoke("list", str(run.path.parent))

    assert "compressed  " in shown
    assert "level: lzf" in shown
    assert "no luck" in shown
    assert "38 of 40 positions done, 2 failed" in invoke("status", path)
    assert run.path.name in listed
    invoke("pack", path, "--compression", "none")
    assert "level: none" in invoke("show", path)
    invoke("remove", "--yes", path)
    assert not run.path.exists()
