"""verify(): every kind of damage is noticed."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import process_of
from verified_runs import LOW, Block, Unit, check, flip, offset, put, whole

import resumable as rs
from resumable.runfile.file import RunFile
from resumable.runfile.folder import RunLock

pytestmark = pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")


@pytest.mark.parametrize(
    ("name", "position", "data", "part", "words"),
    [
        ("completed_positions", 5, b"\2", "status", "neither 0 nor 1"),
        ("failed_positions", 5, b"\xff", "status", "neither 0 nor 1"),
        ("completed_positions", 5, b"\0", "status", "1 positions are pending"),
        ("low", 40, b"\0" * 8, "status", "not the fill value in their rows (40)"),
        ("pair", 3, b"\1", "status", "not the fill value in their rows (3)"),
        ("finished", 0, b"\7", "status", "'finished' is 7"),
        ("low", 8, b"\1\2\3", "rows", "hold another value of 'low' (8)"),
        ("pair", 59, b"\1", "rows", "hold another value of 'pair' (59)"),
        (
            "completed_positions",
            3,
            b"\1",
            "rows",
            "positions raise now (3): ValueError",
        ),
    ],
)
def test_damage_of_what_changes_is_noticed(run, name, position, data, part, words):
    process, path = run
    put(path, offset(path, name, position), data)

    found = process.verify(sample="all")

    assert not found.passed
    assert check(found, part).passed is False, found
    assert words in check(found, part).words


def test_one_bit_of_a_row_is_noticed_by_computing_it_again(run):
    process, path = run
    flip(path, offset(path, "low", 20))

    assert rs.verify(path).passed
    assert not process.verify(sample="all").passed
    verdicts = {process.verify(sample=20, seed=seed).passed for seed in range(12)}
    assert verdicts == {True, False}


def test_a_status_that_claims_a_pending_row_is_noticed(scan):
    process = Unit(scan)
    path = process.compute(engine="serial", positions=slice(0, 30)).path
    put(path, offset(path, "completed_positions", 44), b"\1")

    found = process.verify(sample="all")

    assert "hold another value of 'low' (44)" in check(found, "rows").words


def test_a_done_position_that_raises_when_computed_again_is_reported(scan):
    process = Block(scan, bad=[40, 45])
    path = process.compute(engine="serial").path
    put(path, offset(path, "completed_positions", 45), b"\1")

    words = check(process.verify(sample="all"), "rows").words

    assert "1 done positions raise now (45): ValueError: bad block [45]" in words


def test_a_name_in_a_file_is_opened_only_when_it_is_a_file(run, scan):
    """To open a pipe of that name would block for ever."""
    source = Path(scan.partition("::")[0])
    source.unlink()
    os.mkfifo(source)

    assert check(rs.verify(run[1]), "source").passed is None


def test_the_bits_of_a_nan_count(make_file):
    source = make_file(data=np.full((5, 2), np.nan)) + "::/data"
    process = Unit(source)
    path = process.compute(engine="serial").path

    assert process.verify().passed
    flip(path, offset(path, "low", 2), 2)
    assert "another value of 'low' (2)" in str(process.verify())


@pytest.mark.parametrize("where", ["user block", "structure", "tail", "end"])
def test_damage_of_what_never_changes_is_noticed(run, where):
    _, path = run
    size = path.stat().st_size
    if where == "tail":
        os.truncate(path, size - 1)
    elif where == "end":
        put(path, size, b"more")
    else:
        header = RunFile(path).header
        flip(path, 200 if where == "user block" else header.user_block + 40)

    found = rs.verify(path, Unit)

    assert not found.passed
    assert [c.name for c in found.checks] == ["structure"]
    assert str(path) in str(found)


def test_a_file_that_is_not_there_and_a_wrong_sample_are_errors(run, tmp_path):
    with pytest.raises(rs.RunFileError, match="there is no file"):
        rs.verify(tmp_path / "none.h5")
    with pytest.raises(rs.PlanError, match="sample must be 0 or more"):
        rs.verify(run[1], sample=-1)
    for sample in (2.5, "some"):
        with pytest.raises(rs.PlanError, match="whole number of positions or 'all'"):
            rs.verify(run[1], sample=sample)
    with pytest.raises(rs.RunFileError, match="no run of this"):
        Unit(run[0]._source.path + "::/data", gain=9).verify()


def test_a_run_that_is_being_computed_is_checked_as_it_is(run):
    process, path = run
    with RunLock(process._computation().run_folder).held():
        found = rs.verify(path)

    assert found.passed
    assert f"being computed by process {os.getpid()}" in check(found, "status").words


def test_an_edited_source_is_noticed_and_named(run, scan):
    """The fingerprint says which dataset; rows of other data are not compared."""
    _, path = run
    with h5py.File(scan.partition("::")[0], "a") as file:
        file["data"][7, 3] += 1

    for found in (rs.verify(path), rs.verify(path, Unit)):
        assert check(found, "source").passed is False
        assert "source.contents" in check(found, "source").words
        assert check(found, "rows").passed is None


Difference = process_of(lambda self, spectrum, back: spectrum.sum() - back, LOW)


def test_a_run_file_that_does_not_say_where_inputs_were(make_file):
    """One of an earlier version: inputs of the source's file are found."""

    path = make_file(data=np.ones((6, 2)), back=np.arange(6.0))
    process = Difference(f"{path}::/data", inputs={"back": "::/back"})
    results = process.compute(engine="serial")
    header = RunFile(results.path).header
    older = {key: value for key, value in header.source.items() if key != "inputs"}
    old = header._replace(source=older).to_bytes()
    put(results.path, 0, old.ljust(header.user_block, b"\0"))

    assert check(whole(results, Difference), "rows").passed
    assert check(rs.verify(results), "source").passed


def test_an_edited_input_is_noticed(make_file):
    path = make_file(data=np.ones((6, 2)))
    other = make_file("back.h5", back=np.arange(6.0))
    inputs = {"back": f"{other}::/back"}
    results = Difference(f"{path}::/data", inputs=inputs).compute(engine="serial")
    with h5py.File(other, "a") as file:
        file["back"][1] = 9

    for found in (rs.verify(results), rs.verify(results, Difference)):
        assert "inputs.back.contents" in check(found, "source").words


def test_the_full_digest_sees_what_the_samples_miss(make_file):
    data = np.zeros((10, 1 << 20))
    path = make_file(data=data)
    full, part = (
        Unit(f"{path}::/data", fingerprint=kind).compute(engine="serial")
        for kind in ("full", "sample")
    )
    assert rs.verify(full).passed
    with h5py.File(path, "a") as file:
        # Between two of 64 samples of 1 MB of 84 MB.
        row, column = divmod(131072 + 20000, 1 << 20)
        file["data"][row, column] = 1

    assert not rs.verify(full).passed
    assert rs.verify(part).passed


def test_another_class_or_other_parameters_are_named(run, scan):
    _, path = run
    of_same_name = type("Unit", (Unit,), {"version": 2, "outputs": LOW})

    later = check(rs.verify(path, of_same_name), "computation")
    assert later.passed is False
    assert "version: 1 there, 2 here" in later.words
    other = check(rs.verify(path, Block), "computation")
    assert "of the class 'Unit', and 'Block' was given" in other.words
    gained = rs.verify(path, Unit(scan, bad=[3, 40], gain=2.0))
    assert "parameters.gain: 1.0 there, 2.0 here" in check(gained, "computation").words
    assert check(gained, "rows").passed is None


def test_rows_of_a_block_within_rtol_pass_and_others_do_not(scan):
    process = Block(scan)
    path = process.compute(engine="serial").path
    value = rs.open(path)["sum"][5]
    put(path, offset(path, "sum", 5), np.float64(value * (1 + 1e-6)).tobytes())

    found = process.verify(sample="all")
    assert found.passed
    assert "within rtol=1e-05" in check(found, "rows").words
    assert ", 0 within" not in check(found, "rows").words

    class Strict(Block):
        rtol = 1e-9

    Strict.__name__ = "Block"
    assert not rs.verify(path, Strict, sample="all").passed
    flip(path, offset(path, "count", 6))
    assert "another value of 'count' (6)" in str(process.verify(sample="all"))


def test_rtol_is_not_part_of_the_identity(scan):
    class Loose(Block):
        rtol = 0.1

    Loose.__name__ = "Block"
    assert Loose(scan).identity == Block(scan).identity


def test_a_source_that_has_moved(run, scan, tmp_path):
    _, path = run
    away = tmp_path / "away"
    away.mkdir()
    moved = Path(scan.partition("::")[0]).rename(away / "other.h5")

    lost = rs.verify(path)
    assert lost.passed
    assert check(lost, "source").passed is None
    assert check(lost, "source").words.endswith("say where it is now: source=")
    asked = rs.verify(path, Unit)
    assert not asked.passed
    assert "source=" in check(asked, "source").words
    assert check(rs.verify(path, Unit, source=f"{moved}::/data"), "rows").passed
    assert check(rs.verify(path, Unit, source=str(moved)), "rows").passed

    moved.rename(away / "scan.h5")
    both = path.rename(away / path.name)
    assert check(rs.verify(both, Unit), "rows").passed


def test_what_setup_raises_is_in_the_report(run, scan):
    def setup(self):
        raise FileNotFoundError("no table")

    found = rs.verify(run[1], type("Unit", (Unit,), {"version": 1, "setup": setup}))

    assert "FileNotFoundError: no table" in check(found, "rows").words
    assert check(found, "status").passed


def test_everything_goes_block_by_block(make_file, monkeypatch):
    seen = []

    class Rows(rs.Process):
        version = 1
        outputs = LOW

        def block_computation(self, spectra):
            seen.append(len(spectra))
            return spectra.sum(axis=1)

    source = make_file(data=np.ones((200, 1 << 13))) + "::/data"
    process = Rows(source)
    process.compute(engine="serial")
    seen.clear()

    assert process.verify(sample="all").passed
    assert sum(seen) == 200
    assert max(seen) * (1 << 16) <= 1 << 23
