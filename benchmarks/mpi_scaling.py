"""How much faster two ranks are than one: the fit, under a real ``mpiexec``.

Rounds of one job each with one rank and with two, in turn, into a fresh folder each
time. The time is that of the session, from its start to its end in the run file,
without the start of Python. Usage::

    python benchmarks/mpi_scaling.py [--scale 1] [--rounds 5] [--ranks 2]

The scale 1 takes about 20 s on one rank. ``mpiexec`` is the one beside this Python.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workloads import WORKLOADS

import resumable as rs

#: Of workload (b), so that one rank takes about 20 s.
SCALE = 4.0

_HERE = Path(__file__).resolve().parent
_SCRIPT = (
    "import sys, pathlib, ours\n"
    "from workloads import WORKLOADS\n"
    "fit = WORKLOADS['b'].scaled(float(sys.argv[3]))\n"
    "ours.compute(fit, pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]),"
    " engine='mpi')\n"
)


def seconds(ranks: int, source: Path, scale: float) -> tuple[float, float]:
    """Run one job; return the seconds of its session and of all of it."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        began = time.perf_counter()
        subprocess.run(
            [
                Path(sys.executable).with_name("mpiexec"),
                *("-n", str(ranks), sys.executable, "-c", _SCRIPT),
                *(source, folder, str(scale)),
            ],
            env={**os.environ, "PYTHONPATH": f"{_HERE}:{_HERE.parent}"},
            check=True,
        )
        whole = time.perf_counter() - began
        (run,) = Path(folder).glob("*.h5")
        session = rs.open(run).sessions[-1]
        return session.end - session.start, whole


def main() -> None:
    """Measure in turn; print medians and ratios of rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    given = parser.parse_args()
    fit = WORKLOADS["b"]
    scale = SCALE * given.scale
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.h5"
        fit.scaled(scale).create(source)
        ratios, wholes = [], []
        for _ in range(given.rounds):
            one, one_whole = seconds(1, source, scale)
            many, many_whole = seconds(given.ranks, source, scale)
            ratios.append(one / many)
            wholes.append(one_whole / many_whole)
            print(
                f"1 rank {one:6.2f} s  {given.ranks} ranks {many:6.2f} s  "
                f"ratio {one / many:.2f}  (with start-up {wholes[-1]:.2f})",
                flush=True,
            )
    print(
        f"median ratio {statistics.median(ratios):.2f}, "
        f"with start-up {statistics.median(wholes):.2f}"
    )


if __name__ == "__main__":
    main()
