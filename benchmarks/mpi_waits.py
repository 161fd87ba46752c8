"""How much of their time ranks compute where positions take long.

Each position sleeps for some time, or computes for it with ``--busy``, so that n ranks
could do n / seconds positions per second. Printed for each MPI: which share of that
they reach in a session, from its start to its end in the run file; for which share of
the time rank 0 uses a core, where nothing but MPI has to be done; and how many
positions each rank did, the fewest first. Usage::

    python benchmarks/mpi_waits.py [--seconds 0.3 1.0] [--ranks 4] [--time 30] [--busy]
        [MPIEXEC ...]

MPIEXEC is a command with the path of an ``mpiexec``, by default of the one beside this
Python. In a virtual environment the ranks use its Python, elsewhere this one.
``NAME=value`` before the path sets a variable, as in
``"MPIR_CVAR_NOLOCAL=1 /opt/mpich/bin/mpiexec"``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import param

import resumable as rs

_ROOT = Path(__file__).resolve().parents[1]


class Waits(rs.Process):
    """A position of known length; the result is which rank computed it."""

    seconds = param.Number(0.3)
    busy = param.Boolean(False)
    outputs: ClassVar = {"rank": rs.Output(dtype="i4")}

    def setup(self):
        from mpi4py import MPI

        self.number = MPI.COMM_WORLD.rank

    def unit_computation(self, spectrum):
        end = time.perf_counter() + self.seconds
        if not self.busy:
            time.sleep(self.seconds)
        while time.perf_counter() < end:
            pass
        return self.number


def compute(seconds: str, busy: str) -> None:
    """Be one rank of a job."""
    process = Waits("source.h5::/data", seconds=float(seconds), busy=busy == "True")
    began, used = time.perf_counter(), time.process_time()
    results = process.compute(engine="mpi")
    share = (time.process_time() - used) / (time.perf_counter() - began)

    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        session = results.sessions[-1]
        did = sorted(np.bincount(results["rank"][...], minlength=MPI.COMM_WORLD.size))
        reached = len(results["rank"]) * process.seconds / len(did)
        reached /= session.end - session.start
        print(f"{reached:5.3f}  {share:6.2%}  {' '.join(map(str, did))}", flush=True)


def measure(mpiexec: str, ranks: int, count: int, seconds: float, busy: bool) -> None:
    """Run one job, whose rank 0 prints the end of the line."""
    words, variables = shlex.split(mpiexec), {}
    while "=" in words[0]:
        name, _, variables[name] = words.pop(0).partition("=")
    environment = Path(words[0]).parents[1]
    own = (environment / "pyvenv.cfg").exists()
    python = environment / "bin" / "python" if own else sys.executable
    print(f"{mpiexec:50} {seconds:5g} s  ", end="", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        with h5py.File(Path(folder) / "source.h5", "w") as file:
            file["data"] = np.zeros((count, 8))
        job = [python, __file__, "rank", str(seconds), str(busy)]
        subprocess.run(
            [*words, "-n", str(ranks), *job],
            env={**os.environ, "PYTHONPATH": str(_ROOT), **variables},
            cwd=folder,
            check=True,
        )


def main() -> None:
    """Measure every MPI with every length."""
    if sys.argv[1:2] == ["rank"]:
        compute(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mpiexec", nargs="*", metavar="MPIEXEC")
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.3, 1.0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--time", type=float, default=30.0, help="of each rank, in s")
    parser.add_argument("--busy", action="store_true")
    given = parser.parse_args()
    for mpiexec in given.mpiexec or [str(Path(sys.executable).with_name("mpiexec"))]:
        for seconds in given.seconds:
            count = round(given.ranks * given.time / seconds)
            measure(mpiexec, given.ranks, count, seconds, given.busy)


if __name__ == "__main__":
    main()
