"""How pyUSID's Process and ours scale under MPI: the fit, with one rank and with two.

    python benchmarks/pyusid_mpi.py --python ENV/bin/python --mpiexec /usr/bin/mpiexec

Both compute the same fits of the same source, in turns, so that other work of the
machine disturbs both alike. Timed is the call on the slowest rank: opening and
making files, computing, writing and closing; ours is synced then, pyUSID's is not. Not
timed are the start of Python and MPI, imports, and one read of the source. Results are
compared with a plain loop's.

pyUSID needs parallel HDF5 and an older numpy, so it has an environment of its own, and
ours runs with this Python and the ``mpiexec`` beside it. The time of a fit in a
loop, measured on every rank just before, is printed, too. On Debian 12, as root::

    apt-get install libhdf5-openmpi-dev openmpi-bin
    python3 -m venv ENV
    ENV/bin/pip install "pyUSID==0.0.12" "sidpy==0.12.3" "numpy<2" scipy mpi4py
    HDF5_MPI=ON CC=mpicc CFLAGS=-O1 HDF5_DIR=/usr/lib/x86_64-linux-gnu/hdf5/openmpi \\
        ENV/bin/pip install --no-binary h5py --no-deps --force-reinstall h5py

where the wheel of mpi4py finds Debian's Open MPI. To run as root, Open MPI asks for
OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import rounds
from computations import Array
from measure import compare, warm
from rounds import Material, Measurement
from workloads import DATASET, WORKLOADS, Workload

SCALE = 4.0
"""Of workload (b), so that one rank takes about 20 s."""

RANKS = (1, 2)
"""Sizes of the jobs."""

LOOPED = 500
"""Positions that each rank computes in a loop before."""

Compute = Callable[[Workload, Path, Path], Callable[[], Array]]


@dataclass(frozen=True)
class Job(Measurement):
    """Times and results of one job."""

    fit_s: float = float("nan")
    """What a fit took in a loop, in seconds."""


def main() -> int:
    """Measure and print.

    Returns
    -------
    int
        Exit code: 1 if a candidate failed or computed something else than the loop.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", type=Path, help="of pyUSID's environment")
    parser.add_argument("--mpiexec", help="of the MPI of pyUSID's environment")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: 5)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the workload; 0.1 tries it out"
    )
    parser.add_argument(
        "--folder", type=Path, help="parent of the temporary folder, on a real disk"
    )
    parser.add_argument("--rank", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    workload = WORKLOADS["b"]
    if options.rank:
        name, scale, source, folder = options.rank
        compute_as_rank(name, workload.scaled(float(scale)), Path(source), Path(folder))
        return 0
    if not (options.python and options.mpiexec):
        parser.error("pyUSID's environment is needed: --python and --mpiexec")
    launchers = {
        "pyusid": (options.mpiexec, options.python),
        "ours": (Path(sys.executable).with_name("mpiexec"), sys.executable),
    }
    load = os.getloadavg()[0]
    print(f"{platform.system()}, {os.cpu_count()} cores, load {load:.1f} before")
    kinds = [(name, ranks) for ranks in RANKS for name in CANDIDATES]
    measured: dict[tuple[str, int], list[Job]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="resumable-", dir=options.folder) as folder:
        material = rounds.prepare(workload, SCALE * options.scale, Path(folder))
        for turn in range(options.rounds):
            shift = turn % len(kinds)
            for name, ranks in [*kinds[shift:], *kinds[:shift]]:
                job = run(name, ranks, *launchers[name], material)
                measured[name, ranks].append(job)
    report(material.workload, measured)
    return int(any(map(rounds.problems, measured.values())))


def run(name: str, ranks: int, mpiexec: str, python: str, material: Material) -> Job:
    """Run a job of one candidate into a folder that is empty, then remove it."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(dir=material.source.parent) as folder:
        arguments = (name, material.scale, material.source, folder)
        command = (mpiexec, "-n", ranks, python, __file__, "--rank", *arguments)
        ended = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            env={
                **os.environ,
                **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
                "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
                # mpiexec ends all ranks of a job that hangs.
                "MPIEXEC_TIMEOUT": f"{rounds.TIMEOUT_S:.0f}",
            },
            text=True,
        )
        if ended.returncode:
            sys.stderr.write(ended.stderr)
            return Job(float("nan"), f"failed with exit code {ended.returncode}")
        seconds, fit_s = json.loads(Path(folder, "seconds.json").read_text())
        results = np.load(Path(folder, "results.npy"))
    return Job(seconds, compare(results, np.load(material.expected)), fit_s)


def report(workload: Workload, measured: dict[tuple[str, int], list[Job]]) -> None:
    """Print medians, speed-ups and ratios."""
    print(f"{workload.rows:,} fits, s: median and extremes; us per fit in a loop")
    medians = {kind: rounds.median(jobs) for kind, jobs in measured.items()}
    minima = {kind: min(job.seconds for job in jobs) for kind, jobs in measured.items()}
    for (name, ranks), jobs in measured.items():
        slowest = max(job.seconds for job in jobs)
        print(
            f"  {name:8}{ranks} ranks {medians[name, ranks]:9.3f}"
            f"{minima[name, ranks]:9.3f} to {slowest:7.3f}"
            f"{statistics.median(job.fit_s for job in jobs) * 1e6:9.0f}"
        )
        for problem in rounds.problems(jobs):
            print(f"    {problem}")
    for name in CANDIDATES:
        # Round by round, so that a round that was disturbed does not count twice.
        pairs = zip(measured[name, 1], measured[name, 2], strict=True)
        ratios = [one.seconds / two.seconds for one, two in pairs]
        print(
            f"  {name:8}two ranks are {statistics.median(ratios):.2f} times as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{minima[name, 1] / minima[name, 2]:.2f} by the minima"
        )
    for ranks in RANKS:
        ratio = medians["pyusid", ranks] / medians["ours", ranks]
        least = minima["pyusid", ranks] / minima["ours", ranks]
        print(f"  pyusid / ours, {ranks} ranks: {ratio:.2f}, {least:.2f} by the minima")


def compute_as_rank(name: str, workload: Workload, source: Path, folder: Path) -> None:
    """Compute as one rank of a job; rank 0 writes down times and results."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    # The output of libraries is shown only when the job fails.
    with contextlib.redirect_stdout(sys.stderr):
        compute, source = CANDIDATES[name](workload, source)
        warm(workload, source)
        with h5py.File(source, "r") as file:
            spectra = file[DATASET][:LOOPED]
        world.Barrier()
        before = time.perf_counter()
        workload.compute(spectra)
        fit_s = (time.perf_counter() - before) / len(spectra)
        world.Barrier()
        before = time.perf_counter()
        read = compute(workload, source, folder)
        world.Barrier()
        seconds = time.perf_counter() - before
    if world.rank == 0:
        np.save(folder / "results.npy", read())
        Path(folder, "seconds.json").write_text(json.dumps([seconds, fit_s]))


def ours(workload: Workload, source: Path) -> tuple[Compute, Path]:
    """Compute with resumable, with other options at their defaults."""
    import ours as candidate

    return functools.partial(candidate.compute, engine="mpi"), source


def pyusid(workload: Workload, source: Path) -> tuple[Compute, Path]:
    """Compute with pyUSID's Process, one core per rank; it reads a copy of its own."""
    import output
    import pyusid_process
    from mpi4py import MPI

    world = MPI.COMM_WORLD

    def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
        path = folder / "pyusid.h5"
        with (
            h5py.File(source, "r", driver="mpio", comm=world) as file,
            h5py.File(path, "w", driver="mpio", comm=world) as target,
        ):
            process = pyusid_process.WorkloadProcess(file[DATASET], workload, target)
            # A single rank would start workers, as if there were no MPI.
            process._cores = 1
            group = process.compute()
            # At the end only rank 0 has changed this attribute. Parallel HDF5 requires
            # that all ranks change metadata alike; otherwise the file may never close.
            if world.rank:
                group.attrs["last_pixel"] = workload.rows
        return output.reader(path, workload)

    if world.rank == 0:
        pyusid_process.prepare(workload, source)
    world.Barrier()
    return compute, pyusid_process.prepare(workload, source)


CANDIDATES: dict[str, Callable[[Workload, Path], tuple[Compute, Path]]] = {
    "pyusid": pyusid,
    "ours": ours,
}

if __name__ == "__main__":
    sys.exit(main())
