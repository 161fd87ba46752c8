"""Libraries use one thread where a worker computes, and all of theirs afterwards."""

import os
import subprocess
import sys
import textwrap
import threading
import types

import pytest
from helpers import ROOT

from resumable.system import OneThread, usable_cores

pytestmark = pytest.mark.timeout(60, method="signal")

IMPORTS_LATE = """
    import os

    import h5py
    import numpy as np
    import threadpoolctl
    import resumable as rs

    def threads():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]

    class Late(rs.Process):
        version = 1
        outputs = {"most": rs.Output(dtype="i8"), "number": rs.Output(dtype="i8")}

        def unit_computation(self, spectrum):
            from scipy import linalg

            linalg.inv(np.eye(3))
            return {"most": max(threads()), "number": len(threads())}

    with h5py.File("late.h5", "w") as file:
        file["data"] = np.ones((3, 2))
    before = threads()
    results = Late("late.h5::/data").compute(engine="serial")
    most, number = results["most"][...].tolist(), set(results["number"][...].tolist())
    print(before, most, number, threads(), os.environ.get("OMP_NUM_THREADS"))
"""


def test_a_library_that_the_unit_loads_has_one_thread_from_its_first_call(tmp_path):
    """In a new Python, in which nothing has loaded numpy before with other threads."""
    (tmp_path / "late.py").write_text(textwrap.dedent(IMPORTS_LATE))
    cores = usable_cores()
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    ended = subprocess.run(
        [sys.executable, "late.py"],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )

    assert ended.stdout.strip() == f"[{cores}] [1, 1, 1] {{2}} [{cores}, {cores}] None"


def test_numba_uses_one_thread_and_then_what_it_did():
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()
    with OneThread():
        inside = numba.get_num_threads()

    assert inside == 1
    assert numba.get_num_threads() == before


def test_pytorch_uses_one_thread_and_then_what_it_did(monkeypatch):
    """A stand-in: PyTorch is too large for the machines that run these tests."""
    count = [5]
    torch = types.SimpleNamespace(
        get_num_threads=lambda: count[0],
        set_num_threads=lambda number: count.__setitem__(0, number),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    with OneThread():
        inside = count[0]

    assert (inside, count[0]) == (1, 5)


def test_the_environment_is_as_before_when_the_last_thread_leaves(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    told = []
    entered, leave = threading.Event(), threading.Event()

    def other():
        with OneThread():
            entered.set()
            leave.wait()

    with OneThread():
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait()
    told.append([os.environ.get(name) for name in names])
    leave.set()
    thread.join()

    assert told == [["1", "1"]]
    assert [os.environ.get(name) for name in names] == ["4", None]
