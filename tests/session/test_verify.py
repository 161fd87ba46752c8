"""verify(): runs that are sound pass, and the command says what was checked."""

import os
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import process_of
from programs import invoke
from verified_runs import LOW, Block, Unit, check, flip, offset, put, whole

import resumable as rs
from resumable.process.restore import find_class
from resumable.runfile.header import SESSION_DTYPE

pytestmark = pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")


KIND = np.dtype({"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8]})
SUMMED = {"mean": rs.Output(), "total": rs.Output(per="run")}
PADDED = {"both": rs.Output(3, KIND), "text": rs.Output(dtype="S4")}


@pytest.mark.parametrize("cls", [Unit, Block])
@pytest.mark.parametrize(
    "options", [{"engine": "serial"}, {"engine": "local", "workers": 2}], ids=str
)
def test_a_run_of_every_kind_and_engine_is_sound(scan, cls, options):
    results = cls(scan, bad=[3, 40]).compute(**options)

    found = whole(results, cls)

    assert found.passed, found
    assert {c.name for c in found.checks} >= {"structure", "status", "source", "rows"}
    assert all(c.passed for c in found.checks)
    assert "60 of 60 positions computed again" in check(found, "rows").words
    assert "2 failed again" in check(found, "rows").words


def test_a_map_with_inputs_and_summary(make_file):
    """Rows are compared in the map's order; the report says that finish did not run."""
    Signal = process_of(
        lambda self, spectrum, back, dark: spectrum.mean() - back * dark,
        SUMMED,
        finish=lambda self, results: results["mean"][...].sum(),
    )
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
    Walk = process_of(lambda self, index: self.rng.normal() + index, LOW)
    results = Walk(30, tmp_path, seed=5).compute(engine="serial")

    assert check(whole(results, Walk), "rows").passed


def test_an_output_of_another_run_as_source(scan):
    first = Unit(scan).compute(engine="serial")
    second = Block(first["pair"]).compute(engine="serial")

    found = whole(second, Block)

    assert check(found, "rows").passed
    assert check(found, "source").passed
    assert check(rs.verify(second), "source").passed


def test_a_source_that_has_grown(make_file):
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
    def level(spectrum, gain=2.0, power=1):
        return spectrum.mean() ** power * gain

    def other(spectrum):
        return 0.0

    results = rs.map(level, scan, power=2, options={"engine": "serial"})
    found = whole(results, level)

    assert check(found, "rows").passed
    assert "'level', and 'other' was given" in str(rs.verify(results, other))


def test_a_sample_of_an_unfinished_run(scan):
    process = Unit(scan, bad=[3])
    results = process.compute(engine="serial", positions=slice(0, 30))

    found = process.verify(sample=7, seed=1)

    assert found.passed
    assert "29 done, 1 failed, 30 pending" in check(found, "status").words
    assert "7 of 30 positions computed again" in check(found, "rows").words
    assert "30 of 30 positions" in str(rs.verify(results, process, sample=1000))
    assert check(process.verify(sample=0), "rows").passed is None


def test_compounds_with_padding_and_text(make_file):
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
    trouble = tmp_path / "trouble"
    trouble.touch()

    class Server(rs.Process):
        version = 1
        outputs = LOW

        def unit_computation(self, spectrum):
            if self.position == 7 and trouble.exists():
                raise OSError("the server is gone")
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
    results = Unit(scan, bad=[3]).compute(engine="serial")

    def seen():
        return {
            p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()
        }

    before = seen()
    whole(results, Unit)

    assert seen() == before


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


def test_the_class_can_be_named_and_nothing_else_is_taken_for_one(fit):
    name, path = fit

    assert rs.verify(path, name, sample="all").passed
    for wrong in (int, 3):
        with pytest.raises(rs.DeclarationError, match="verify takes a Process, its cl"):
            rs.verify(path, wrong)


def test_the_command_checks_without_the_class_and_says_what_to_type(fit):
    """The class that a file names is not imported, its text not executed."""
    _, path = fit

    out = invoke("verify", path)

    assert "sound" in out
    assert "--class FILE.py:Scale" in out
    assert not Path("imported").exists()


def test_the_command_computes_rows_with_the_class(fit):
    cls, path = fit

    assert "20 of 60 positions" in invoke("verify", path, "--class", cls)
    out = invoke("verify", path, "--class", cls, "--sample", "all")
    assert "60 of 60 positions computed again: 59 the same bit for bit" in out
    assert "1 failed again" in out
    assert "5 of 60" in invoke("verify", path, "--class", cls, "--sample", "5")


def test_the_command_ends_with_1_when_a_file_is_not_sound(fit):
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
    cls, path = fit
    (tmp_path / "scan.h5").rename(tmp_path / "else.h5")

    out = invoke("verify", path, "--class", cls, code=1)
    assert "scan.h5" in out
    out = invoke("verify", path, "--class", cls, "--source", "else.h5::/data")
    assert "20 of 60" in out


def test_control_characters_of_a_file_are_shown_as_text(run):
    from resumable.session.verify import Check

    text = str(Check("source", False, "there is no file \x1b[2Jx\u202e.h5"))

    assert "\x1b" not in text
    assert "\\x1b[2Jx\\u202e.h5" in text
