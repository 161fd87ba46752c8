"""Two processes that want the same run at the same moment."""

import os
import signal
import sys
import time
import traceback
from typing import ClassVar

import h5py
import numpy as np
import pytest
from helpers import SUPPORT

import resumable as rs
from resumable.engines.local import LocalEngine

#: A pair mostly waits, so several are at work.
TOGETHER = 10
POSITIONS = 12


class Noted(rs.Process):
    """Notes every position it computes in a file that all processes share."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        fd = os.open(f"{self.folder}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{self.position}\n".encode())
        os.close(fd)
        # Longer in all than the other process waits for the lock.
        time.sleep(0.03)
        return spectrum.mean()


def forked(work):
    """Run a function in a copy of this process; return its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except rs.RunBusy as error:
        code = 9 if "is being computed by process" in str(error) else 8
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_two(folder):
    """Start the same computation twice at once; return the process numbers."""
    folder.mkdir()
    with h5py.File(folder / "scan.h5", "w") as file:
        file["data"] = np.arange(POSITIONS * 4.0).reshape(POSITIONS, 4)
    gate, opener = os.pipe()

    def compute():
        os.close(opener)
        process = Noted(f"{folder}/scan.h5::/data")
        process.folder = str(folder)
        # Ready; whoever holds the gate lets both go by closing it.
        os.read(gate, 1)
        process.compute(engine="serial", progress=False)

    pids = [forked(compute) for _ in range(2)]
    os.close(gate)
    os.close(opener)
    return pids


@pytest.mark.parametrize("starts", [20, pytest.param(400, marks=pytest.mark.torture)])
def test_of_two_starts_at_once_one_computes(tmp_path, starts):
    outcomes = []
    for first in range(0, starts, TOGETHER):
        folders = [tmp_path / str(first + number) for number in range(TOGETHER)]
        waiting = [start_two(folder) for folder in folders]
        outcomes += [tuple(map(exit_code, pids)) for pids in waiting]
        for folder in folders:
            runs = [path for path in folder.glob("*.h5") if path.name != "scan.h5"]
            assert len(runs) == 1
            assert rs.open(runs[0]).status.finished
            names = sorted(path.name for path in folder.iterdir())
            assert names == sorted(["log", "scan.h5", runs[0].name])
            computed = sorted(map(int, (folder / "log").read_text().split()))
            assert computed == list(range(POSITIONS))

    assert set(outcomes) <= {(0, 0), (0, 9), (9, 0)}
    # The moment is met often enough for the test to mean something.
    assert sum(9 in codes for codes in outcomes) > starts / 20


STUCK = """
import ctypes, os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import resumable as rs

class Stuck(rs.Process):
    version = 1
    outputs = {{"mean": rs.Output()}}
    def unit_computation(self, spectrum):
        if self.position == 150 and not Path("stuck").exists():
            # Neither the kernel nor its own watch ends this worker.
            ctypes.CDLL(None).prctl(1, 0)
            Path("stuck").write_text(str(os.getpid()))
            # Asleep in C, with the interpreter's lock.
            ctypes.PyDLL(None).usleep({sleep_us})
        return spectrum.mean()

if __name__ == "__main__":
    Stuck("scan.h5::/data").compute(engine="local", workers=2, checkpoint=0.02)
"""


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_an_orphan_stuck_in_c_cannot_write_over_a_new_session(
    tmp_path, script, start_method, monkeypatch
):
    from kill_matrix import alive, wait_until

    with h5py.File(tmp_path / "scan.h5", "w") as file:
        rows = np.random.default_rng(1).normal(size=(200, 8))
        file["data"] = rows
    text = STUCK.format(tests=str(SUPPORT), sleep_us=2_500_000)
    text = text.replace('engine="local"', f"engine=LocalEngine(2, {start_method!r})")
    text = "from resumable.engines.local import LocalEngine\n" + text
    process = script(text)
    assert wait_until((tmp_path / "stuck").exists, 30)
    process.send_signal(signal.SIGKILL)
    process.wait()
    orphan = int((tmp_path / "stuck").read_text())
    assert alive(orphan)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    stuck = importlib.import_module("script").Stuck
    process = stuck("scan.h5::/data")
    results = process.compute(engine=LocalEngine(2, start_method), workers=2)

    assert results.status.finished
    np.testing.assert_array_equal(results["mean"][...], [r.mean() for r in rows])
    assert not alive(orphan)
