"""What users of Windows do, with kills: run under wine by ``tests/windows/run``."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

import resumable as rs

FIT = """
    import os, time
    import numpy as np
    import resumable as rs

    class Fit(rs.Process):
        version = 1

        def outputs(self):
            return {
                "mean": rs.Output(),
                "above": rs.Output(ragged=True),
                "pid": rs.Output(dtype="i8"),
            }

        def unit_computation(self, spectrum):
            time.sleep(float(os.environ.get("SLOW", 0)))
            above = spectrum[spectrum > 0]
            return {"mean": spectrum.mean(), "above": above, "pid": os.getpid()}
"""
# Without a guard.
SCRIPT = (
    FIT
    + """
    import sys
    Fit("scan.h5::/raw").compute(engine=sys.argv[1], checkpoint=0.5)
"""
)
DATA = np.random.default_rng(1).normal(size=(120, 40))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with h5py.File("scan.h5", "w") as file:
        file["raw"] = DATA
    Path("fit.py").write_text(textwrap.dedent(FIT))
    Path("script.py").write_text(textwrap.dedent(SCRIPT))
    yield tmp_path
    sys.modules.pop("fit", None)


def start(*command, slow=0.0, **options):
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "SLOW": str(slow)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def ended(*command, **options):
    with start(*command, **options) as running:
        text = running.communicate(timeout=250)[0]
        return running.returncode, text


def run_of(folder):
    runs = list(folder.glob("scan-*.h5"))
    return rs.open(runs[0]) if runs else None


def wait_for_rows(folder, running, count=15):
    """Wait until rows are marked done; the run file is opened while it is written."""
    while running.poll() is None:
        run = run_of(folder)
        if run is not None and run.status.done >= count:
            return run
        time.sleep(0.1)
    raise AssertionError(running.communicate()[0])


def assert_right(results):
    assert results.status.finished
    np.testing.assert_array_equal(results["mean"][...], DATA.mean(axis=1))
    np.testing.assert_array_equal(results["above"][7], DATA[7][DATA[7] > 0])


@pytest.mark.parametrize("engine", ["serial", "auto"])
def test_a_run_is_refused_to_a_second_driver_killed_and_goes_on(folder, engine):
    with start("script.py", engine, slow=0.5) as running:
        wait_for_rows(folder, running)
        code, text = ended("script.py", engine)
        running.kill()
    assert code == 1
    assert f"is being computed by process {running.pid} on" in text
    before = run_of(folder)
    pids = before["pid"][...]
    done = before.status.done
    assert 15 <= done < 120
    code, text = ended("script.py", engine)
    assert code == 0, text

    assert_right(run_of(folder))
    assert np.count_nonzero(run_of(folder)["pid"][...] == pids) >= done
    assert not [p.name for p in folder.iterdir() if p.suffix in (".claim", ".writers")]


def test_ctrl_break_stops_and_loses_nothing(folder):
    """The signal; wine has no console whose keys could be pressed."""
    stopped = (
        Path("script.py")
        .read_text()
        .replace(
            "        above =",
            "        if self.position == 40: __import__('signal').raise_signal(21)\n"
            "        above =",
        )
    )
    Path("stopped.py").write_text(stopped)
    assert signal.SIGBREAK == 21
    code, text = ended("stopped.py", "serial", slow=0.05)
    assert code == 75, text
    assert "stopped by SIGBREAK" in text
    assert 40 < run_of(folder).status.done < 120
    assert ended("stopped.py", "serial")[0] == 0
    assert_right(run_of(folder))


def test_pools_of_the_standard_library(folder):
    from fit import Fit

    for number, pool in enumerate((ThreadPoolExecutor, ProcessPoolExecutor)):
        target = folder / str(number)
        target.mkdir()
        with pool(2) as executor:
            process = Fit(f"{folder}\\scan.h5::/raw", target=target)
            assert_right(process.compute(engine=executor))


def test_what_needs_a_fork_names_a_pool(folder):
    code, text = ended("script.py", "local")
    assert code == 1
    assert "give a concurrent.futures.ProcessPoolExecutor" in text
    with pytest.raises(rs.PlanError, match="workers=0"):
        rs.Pool(2)


def test_the_command(folder):
    def resumable(*words):
        code, text = ended("-m", "resumable", *words)
        assert code == 0, text
        return text

    source = f"{folder}\\scan.h5::/raw"
    assert "120 of 120" in resumable("run", "fit.py:Fit", source, "--engine", "serial")
    (run,) = map(str, folder.glob("scan-*.h5"))
    assert "120" in resumable("status", run)
    resumable("verify", run, "--sample", "5")
    with h5py.File(run, "r"):
        # Whoever reads keeps the file from being replaced, here and by a rename alone.
        code, text = ended("-m", "resumable", "pack", run)
        assert code == 1
        assert "that file is open, in this program or in another one" in text
    resumable("pack", run)
    resumable("publish", run, "scan.h5::/results/fit")
    resumable("publish", run, "new.h5::/fit")
    assert_right(rs.open(run))
    for name in ("scan.h5", "new.h5"):
        with h5py.File(name) as file:
            fit = file["results/fit" if name == "scan.h5" else "fit"]
            np.testing.assert_array_equal(fit["mean"][...], DATA.mean(axis=1))
    assert not list(folder.glob("*journal*"))


def test_nothing_is_published_into_a_file_that_is_open(folder, monkeypatch):
    from fit import Fit

    monkeypatch.setattr("resumable.runfile.journal.PATIENCE_S", 0.1)
    results = Fit("scan.h5::/raw").compute(engine="serial")
    before = Path("scan.h5").read_bytes()
    with h5py.File("scan.h5", "r"), pytest.raises(rs.RunBusy, match="is open, in this"):
        results.publish("scan.h5::/fit")
    assert Path("scan.h5").read_bytes() == before
    results.publish("scan.h5::/fit")


def test_a_run_of_another_system_goes_on(monkeypatch):
    """``FROM_LINUX`` is a folder with a run that was killed on Linux."""
    there = Path(os.environ["FROM_LINUX"])
    done, pids = run_of(there).status.done, run_of(there)["pid"][...]
    assert 0 < done < 120
    monkeypatch.chdir(there)
    code, text = ended(str(there / "script.py"), "serial")
    assert code == 0, text
    assert np.count_nonzero(run_of(there)["pid"][...] == pids) == done
    assert_right(run_of(there))
