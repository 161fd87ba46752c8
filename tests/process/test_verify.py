"""verify(): every kind of damage is noticed, and what is sound passes."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import param
import pytest
from click.testing import CliRunner
from helpers import data_of

import resumable as rs
from resumable.cli.commands import main
from resumable.process.loading import find_class
from resumable.runfile.file import RunFile
from resumable.runfile.header import FAILURE_DTYPE, SESSION_DTYPE
from resumable.runfile.lock import RunLock

pytestmark = pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")


KIND = np.dtype({"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8]})
LOW = {"low": rs.Output()}
UNIT = {"low": rs.Output(), "pair": rs.Output(2, "f4", fill_value=-1)}
BLOCK = {"sum": rs.Output(), "count": rs.Output(dtype="i8")}
SUMMED = {"mean": rs.Output(), "total": rs.Output(per="run")}
PADDED = {"both": rs.Output(3, KIND), "text": rs.Output(dtype="S4")}


class Unit(rs.Process):
    """Two outputs; fails where ``bad`` is."""

    version = 1
    outputs = UNIT
    gain = param.Number(1.0)
    bad = param.List([])

    def unit_computation(self, spectrum):
        if self.position in self.bad:
            msg = f"bad spectrum at {self.position}"
            raise ValueError(msg)
        return {
            "low": spectrum.min() * self.gain,
            "pair": spectrum[:2].astype("f4"),
        }


class Block(rs.Process):
    """A sum that BLAS may do in another order; fails where ``bad`` is."""

    version = 1
    outputs = BLOCK
    bad = param.List([])

    def block_computation(self, spectra):
        if set(np.ravel(self.position).tolist()) & set(self.bad):
            msg = f"bad block {self.position}"
            raise ValueError(msg)
        return {
            "sum": spectra @ np.linspace(0, 1, spectra.shape[1]),
            "count": 10**9 + (spectra > 0).sum(axis=1),
        }


def check(found, name):
    """Return the one check of this name."""
    (one,) = [check for check in found.checks if check.name == name]
    return one


def whole(results, process=None, **more):
    """Verify all rows."""
    return rs.verify(results, process, sample="all", **more)


def offset(path, name, position=0):
    """Where the row of a position lies in the file."""
    header = RunFile(path).header
    per = {"failures": FAILURE_DTYPE.itemsize, "sessions": SESSION_DTYPE.itemsize}
    for output in header.outputs:
        per[output] = header.outputs[output].row_bytes
    return header.offsets[name] + position * per.get(name, 1)


def put(path, place, data):
    """Write bytes into a file as a broken disk would."""
    with Path(path).open("r+b") as file:
        file.seek(place)
        file.write(data)


def flip(path, place, bit=1):
    """Turn one bit of a file."""
    put(path, place, bytes([Path(path).read_bytes()[place] ^ bit]))


# What is sound.


@pytest.mark.parametrize("cls", [Unit, Block])
@pytest.mark.parametrize(
    "options", [{"engine": "serial"}, {"engine": "local", "workers": 2}], ids=str
)
def test_a_run_is_sound_whoever_computed_it(scan, cls, options):
    """All rows come out again, failed positions fail again."""
    results = cls(scan, bad=[3, 40]).compute(**options)

    found = whole(results, cls)

    assert found.passed, found
    assert {c.name for c in found.checks} >= {"structure", "status", "source", "rows"}
    assert all(c.passed for c in found.checks)
    assert "60 of 60 positions computed again" in check(found, "rows").words
    assert "2 failed again" in check(found, "rows").words


def test_a_map_with_inputs_and_summary(make_file):
    """Rows are compared in the map's order, and finish is said not to run."""

    class Signal(rs.Process):
        version = 1
        outputs = SUMMED

        def unit_computation(self, spectrum, back, dark):
            return spectrum.mean() - back * dark

        def finish(self, results):
            return results["mean"][...].sum()

    rng = np.random.default_rng(3)
    path = make_file(data=rng.random((8, 4, 5)), back=rng.random((4, 5)))
    other = make_file("dark.h5", dark=rng.random((5, 4)))
    process = Signal(
        f"{path}::/data",
        inputs={"back": "::/back", "dark": (f"{other}::/dark", (1, 0))},
        position_axes=(1, 2),
    )
    results = process.compute(engine="serial")

    found = whole(results, Signal)

    assert found.passed, found
    assert check(found, "rows").passed
    assert "20 of 20" in check(found, "rows").words
    assert "finish() is not run again: total not compared" in str(found)
    assert "of 2 inputs" in check(found, "source").words
    assert process.verify(sample="all").passed


def test_positions_without_data_and_random_numbers(tmp_path):
    """The generator of a position gives the same numbers again."""

    class Walk(rs.Process):
        version = 1
        outputs = LOW

        def unit_computation(self, index):
            return self.rng.normal() + index

    results = Walk(30, tmp_path, seed=5).compute(engine="serial")

    assert check(whole(results, Walk), "rows").passed


def test_an_output_of_another_run_as_source(scan):
    """A chained run is known by the identity of the one before."""
    first = Unit(scan).compute(engine="serial")
    second = Block(first["pair"]).compute(engine="serial")

    found = whole(second, Block)

    assert check(found, "rows").passed
    assert check(found, "source").passed
    assert check(rs.verify(second), "source").passed


def test_a_source_that_has_grown(make_file):
    """The shorter run is still sound, the longer one with its copied rows, too."""
    path = make_file(
        data={"data": np.ones((20, 4)), "maxshape": (None, 4), "chunks": (5, 4)}
    )
    process = Unit(f"{path}::/data", bad=[3, 25])
    short = process.compute(engine="serial")
    with h5py.File(path, "a") as file:
        file["data"].resize(30, axis=0)
        file["data"][20:] = 2
    long = process.compute(engine="serial")

    assert check(whole(short, Unit), "rows").passed
    assert check(whole(long, Unit), "rows").passed
    assert "30 of 30" in str(whole(long, Unit))

    with h5py.File(path, "a") as file:
        file["data"][3] = 7
    for found in (rs.verify(short), rs.verify(short, Unit)):
        assert not found.passed
        assert "source.contents" in check(found, "source").words


def test_a_function_that_was_mapped(scan):
    """Its parameters come from the run file, and its name must agree."""

    def level(spectrum, gain=2.0, power=1):
        return spectrum.mean() ** power * gain

    def other(spectrum):
        return 0.0

    results = rs.map(level, scan, power=2, options={"engine": "serial"})
    found = whole(results, level)

    assert check(found, "rows").passed
    assert "'level', and 'other' was given" in str(rs.verify(results, other))


def test_a_run_at_half_way_and_a_sample(scan):
    """Only settled positions are computed again, as many as asked for."""
    process = Unit(scan, bad=[3])
    results = process.compute(engine="serial", positions=slice(0, 30))

    found = process.verify(sample=7, seed=1)

    assert found.passed
    assert "29 done, 1 failed, 30 pending" in check(found, "status").words
    assert "7 of 30 positions computed again" in check(found, "rows").words
    assert "30 of 30 positions" in str(rs.verify(results, process, sample=1000))
    assert check(process.verify(sample=0), "rows").passed is None


def test_compounds_with_padding_and_text(make_file):
    """What pads a compound is nobody's number."""

    class Pair(rs.Process):
        version = 1
        outputs = PADDED

        def unit_computation(self, spectrum):
            if self.position == 2:
                raise ValueError
            both = np.frombuffer(os.urandom(3 * 16), "u1").view(KIND).copy()
            both["a"], both["b"] = 3, spectrum[0]
            return {"both": both, "text": "ab"}

    source = make_file(data=np.random.default_rng(0).random((9, 2))) + "::/data"
    results = Pair(source).compute(engine="serial")

    assert whole(results, Pair).passed
    put(results.path, offset(results.path, "both", 4) + 8, b"\0" * 8)
    found = whole(results, Pair)
    assert "another value of 'both' (4)" in check(found, "rows").words


def test_a_failed_position_that_succeeds_now_is_no_damage(scan, tmp_path):
    """A file server that is there again is a reason to retry, not to worry."""
    trouble = tmp_path / "trouble"
    trouble.touch()

    class Server(rs.Process):
        version = 1
        outputs = LOW

        def unit_computation(self, spectrum):
            if self.position == 7 and trouble.exists():
                msg = "the server is gone"
                raise OSError(msg)
            return spectrum.min()

    results = Server(scan).compute(engine="serial")
    trouble.unlink()
    found = whole(results, Server)

    assert found.passed
    assert "1 failed positions succeed now (7)" in check(found, "rows").words
    assert "retry_failed=True" in check(found, "rows").words


def test_a_retry_that_was_killed_leaves_a_sound_file(scan):
    """Rows are written before they are marked, so a failed row may hold a result."""
    results = Unit(scan, bad=[3]).compute(engine="serial")
    Unit(scan, bad=[3]).compute(engine="serial", retry_failed=True)
    path = results.path
    put(path, offset(path, "low", 3), np.float64(1.5).tobytes())

    assert not rs.verify(results).passed
    end = SESSION_DTYPE.fields["end"][1]
    put(path, offset(path, "sessions", 1) + end, bytes(8))
    found = rs.verify(results)
    assert found.passed
    assert "session that was killed" in check(found, "status").words


KILLED = """
    import time
    import resumable as rs

    class Slow(rs.Process):
        version = 1
        outputs = {"low": rs.Output()}

        def unit_computation(self, spectrum):
            time.sleep(0.02)
            if self.position % 7 == 3:
                raise ValueError("no fit")
            return spectrum.min()

    if __name__ == "__main__":
        Slow("scan.h5::/data").compute(
            engine="local", workers=2, checkpoint=0.05, progress=False
        )
"""


def test_a_run_that_was_killed_is_sound(scan, script, tmp_path):
    """What a kill leaves is not taken for damage, and every marked row is right."""
    started = script(KILLED, name="slow.py")
    deadline = time.monotonic() + 60
    done = 0
    while done < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
        for path in tmp_path.glob("scan-data-Slow-*.h5"):
            done = rs.open(path).status.done
    started.kill()
    started.wait()

    assert 10 <= done < 60
    found = rs.verify(path, find_class(f"{tmp_path / 'slow.py'}:Slow", rs.Process))
    sys.modules.pop("slow")
    assert found.passed, found
    assert check(found, "rows").passed


def test_nothing_is_written(scan, tmp_path):
    """Looking leaves every byte, name and time."""
    results = Unit(scan, bad=[3]).compute(engine="serial")

    def seen():
        return {
            p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()
        }

    before = seen()
    whole(results, Unit)

    assert seen() == before


# What is not.


@pytest.fixture
def run(scan):
    """Return a finished run with two failures and its path."""
    process = Unit(scan, bad=[3, 40])
    return process, process.compute(engine="serial").path


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
    """A wrong byte in the status or the rows fails its check."""
    process, path = run
    put(path, offset(path, name, position), data)

    found = process.verify(sample="all")

    assert not found.passed
    assert check(found, part).passed is False, found
    assert words in check(found, part).words


def test_one_bit_of_a_row_is_noticed_by_computing_it_again(run):
    """The last bit of a number, in all rows or in the sample that has it."""
    process, path = run
    flip(path, offset(path, "low", 20))

    assert rs.verify(path).passed
    assert not process.verify(sample="all").passed
    verdicts = {process.verify(sample=20, seed=seed).passed for seed in range(12)}
    assert verdicts == {True, False}


def test_a_status_that_claims_a_pending_row_is_noticed(scan):
    """Marked done, and never computed."""
    process = Unit(scan)
    path = process.compute(engine="serial", positions=slice(0, 30)).path
    put(path, offset(path, "completed_positions", 44), b"\1")

    found = process.verify(sample="all")

    assert "hold another value of 'low' (44)" in check(found, "rows").words


def test_the_failure_that_is_told_is_the_one_that_is_new(scan):
    """A position that failed before and fails again is not to blame."""
    process = Block(scan, bad=[40, 45])
    path = process.compute(engine="serial").path
    put(path, offset(path, "completed_positions", 45), b"\1")

    words = check(process.verify(sample="all"), "rows").words

    assert "1 done positions raise now (45): ValueError: bad block [45]" in words


def test_a_name_in_a_file_is_opened_only_when_it_is_a_file(run, scan):
    """A pipe of that name would be waited for, for ever."""
    source = Path(scan.partition("::")[0])
    source.unlink()
    os.mkfifo(source)

    assert check(rs.verify(run[1]), "source").passed is None


def test_the_bits_of_a_nan_count(make_file):
    """NaNs of other payloads are other rows in a unit computation."""
    source = make_file(data=np.full((5, 2), np.nan)) + "::/data"
    process = Unit(source)
    path = process.compute(engine="serial").path

    assert process.verify().passed
    flip(path, offset(path, "low", 2), 2)
    assert "another value of 'low' (2)" in str(process.verify())


@pytest.mark.parametrize("where", ["user block", "structure", "tail", "end"])
def test_damage_of_what_never_changes_is_noticed(run, where):
    """Header, HDF5 structure and size are those the file was born with."""
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
    """Nothing to verify is not a verdict."""
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
    """Who computes it is said; nobody is disturbed."""
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


def test_a_run_file_that_does_not_say_where_inputs_were(make_file):
    """One of an earlier version: inputs of the source's file are found."""

    class Difference(rs.Process):
        version = 1
        outputs = LOW

        def unit_computation(self, spectrum, back):
            return spectrum.sum() - back

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
    """Inputs count as the source does."""

    class Difference(rs.Process):
        version = 1
        outputs = LOW

        def unit_computation(self, spectrum, back):
            return spectrum.sum() - back

    path = make_file(data=np.ones((6, 2)))
    other = make_file("back.h5", back=np.arange(6.0))
    inputs = {"back": f"{other}::/back"}
    results = Difference(f"{path}::/data", inputs=inputs).compute(engine="serial")
    with h5py.File(other, "a") as file:
        file["back"][1] = 9

    for found in (rs.verify(results), rs.verify(results, Difference)):
        assert "inputs.back.contents" in check(found, "source").words


def test_the_full_digest_sees_what_the_samples_miss(make_file):
    """A run made with fingerprint="full" is checked in full."""
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
    """What is wrong with the class comes before any row is compared."""
    _, path = run

    class Unit(rs.Process):  # of the same name
        version = 2
        outputs = LOW
        gain = param.Number(1.0)
        bad = param.List([])

        def unit_computation(self, spectrum):
            return 0.0

    later = check(rs.verify(path, Unit), "computation")
    assert later.passed is False
    assert "version: 1 there, 2 here" in later.words
    other = check(rs.verify(path, Block), "computation")
    assert "of the class 'Unit', and 'Block' was given" in other.words
    gained = rs.verify(path, globals()["Unit"](scan, bad=[3, 40], gain=2.0))
    assert "parameters.gain: 1.0 there, 2.0 here" in check(gained, "computation").words
    assert check(gained, "rows").passed is None


def test_a_parameter_that_cannot_be_read_back_is_named(scan):
    """Of an array only the digest is in the file."""

    class Kernel(rs.Process):
        version = 1
        outputs = LOW
        kernel = param.Array(np.ones(3))

        def unit_computation(self, spectrum):
            return spectrum.min() * self.kernel.sum()

    default = Kernel(scan).compute(engine="serial")
    process = Kernel(scan, kernel=np.zeros(3))
    other = process.compute(engine="serial")

    assert whole(default, Kernel).passed
    words = check(rs.verify(other, Kernel), "computation").words
    assert "the parameter 'kernel' is an array" in words
    assert check(whole(other, process), "rows").passed


def test_rows_of_a_block_within_rtol_pass_and_others_do_not(scan):
    """Other sums of the same numbers are sound; integers are exact."""
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
    """It only says how to compare."""

    class Loose(Block):
        rtol = 0.1

    Loose.__name__ = "Block"
    assert Loose(scan).identity == Block(scan).identity


def test_a_source_that_has_moved(run, scan, tmp_path):
    """Beside the run file it is found; elsewhere it must be named."""
    _, path = run
    away = tmp_path / "away"
    away.mkdir()
    moved = Path(scan.partition("::")[0]).rename(away / "other.h5")

    lost = rs.verify(path)
    assert lost.passed
    assert check(lost, "source").passed is None
    assert "--source" in check(lost, "source").words
    asked = rs.verify(path, Unit)
    assert not asked.passed
    assert "--source" in check(asked, "source").words
    assert check(rs.verify(path, Unit, source=f"{moved}::/data"), "rows").passed
    assert check(rs.verify(path, Unit, source=str(moved)), "rows").passed

    moved.rename(away / "scan.h5")
    both = path.rename(away / path.name)
    assert check(rs.verify(both, Unit), "rows").passed


def test_what_setup_raises_is_told(run, scan):
    """The other checks are not lost with it."""

    class Unit(rs.Process):
        version = 1
        outputs = UNIT
        gain = param.Number(1.0)
        bad = param.List([])

        def setup(self):
            msg = "no table"
            raise FileNotFoundError(msg)

        def unit_computation(self, spectrum):
            return None

    found = rs.verify(run[1], Unit)

    assert "FileNotFoundError: no table" in check(found, "rows").words
    assert check(found, "status").passed


def test_everything_goes_block_by_block(make_file, monkeypatch):
    """Memory is bounded: no more rows at once than fit the budget."""
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


# The command.

FIT = """
    import param
    import resumable as rs

    open("imported", "a").close()

    class Scale(rs.Process):
        version = 1
        factor = param.Number(2.0)
        outputs = {"value": rs.Output()}

        def unit_computation(self, spectrum):
            if self.position == 3:
                raise ValueError("no fit")
            return spectrum.mean() * self.factor
"""


@pytest.fixture
def fit(tmp_path, monkeypatch, scan):
    """Run a user's file beside the scan; return its class as typed and the run."""
    (tmp_path / "fit.py").write_text(textwrap.dedent(FIT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    invoke("run", "fit.py:Scale", "scan.h5::/data", "--factor", "3")
    (path,) = Path().glob("scan-data-Scale-*.h5")
    Path("imported").unlink()
    sys.modules.pop("fit", None)
    yield "fit.py:Scale", str(path)
    sys.modules.pop("fit", None)


def invoke(*arguments, code=0):
    """Run the command in this process and return what it printed."""
    result = CliRunner().invoke(main, list(arguments))

    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_the_command_checks_without_the_class_and_says_what_to_type(fit):
    """The class that a file names is not imported, its text not executed."""
    _, path = fit

    out = invoke("verify", path)

    assert "sound" in out
    assert "--class FILE.py:Scale" in out
    assert not Path("imported").exists()


def test_the_command_computes_rows_with_the_class(fit):
    """Parameters come from the run file; ``--sample all`` takes every position."""
    cls, path = fit

    assert "20 of 60 positions" in invoke("verify", path, "--class", cls)
    out = invoke("verify", path, "--class", cls, "--sample", "all")
    assert "60 of 60 positions computed again: 59 the same bit for bit" in out
    assert "1 failed again" in out
    assert "5 of 60" in invoke("verify", path, "--class", cls, "--sample", "5")


def test_the_command_ends_with_1_when_a_file_is_not_sound(fit):
    """A script can tell, and a person can read why."""
    cls, path = fit
    flip(path, offset(path, "value", 5))

    out = invoke("verify", path, "--class", cls, "--sample", "all", code=1)

    assert "NOT SOUND" in out
    assert "1 done positions hold another value of 'value' (5)" in out
    assert "did you mean 'Scale'" in invoke(
        "verify", path, "--class", "fit.py:Scal", code=1
    )
    invoke("verify", "none.h5", code=2)


def test_the_command_takes_a_source_that_has_moved(fit, tmp_path):
    """--source says where it is now."""
    cls, path = fit
    (tmp_path / "scan.h5").rename(tmp_path / "else.h5")

    out = invoke("verify", path, "--class", cls, code=1)
    assert "scan.h5" in out
    out = invoke("verify", path, "--class", cls, "--source", "else.h5::/data")
    assert "20 of 60" in out


def test_names_in_a_file_do_not_command_the_terminal(run):
    """Control characters of a stranger's file are shown as text."""
    from resumable.session.verify import Check

    text = str(Check("source", False, "there is no file \x1b[2Jx\u202e.h5"))

    assert "\x1b" not in text
    assert "\\x1b[2Jx\\u202e.h5" in text


def test_data_are_those_of_the_scan(scan):
    """The tests above compare with what the source holds."""
    np.testing.assert_array_equal(
        Unit(scan).compute(engine="serial")["low"], data_of(scan).min(axis=1)
    )
