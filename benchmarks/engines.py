"""Measure what engines cost per batch, and how much faster two workers are than one.

    python benchmarks/engines.py
    python benchmarks/engines.py --scale 0.05 --rounds 1    # only to try it out

Cost: 20,000 batches of one position that takes 1 ms, with two workers. Printed is the
time of a worker per batch beyond that 1 ms, with the commit of the row where the engine
commits every batch. Speed-up: the fit of `speed.py` with two and a half times as many
positions, one worker against two of the same engine (`mpi_scaling.py` has the ranks).
The start of a cluster or an executor, and a first run in which its processes import
modules, are not timed; the start of local workers is. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import ours
from computations import Array
from workloads import DATASET, WORKLOADS

import resumable as rs
from resumable.model.schedule import Schedule

BATCHES = 20_000
"""Batches of the first measurement."""

UNIT_S = 1e-3
"""What a position of it takes."""

FITS = 2.5
"""Scale of the workload of the second: 20 s for one worker, or a little less."""

WANTED = {"local": 1.85, "dask": 1.7}
"""Two workers should be so many times as fast as one."""


class Busy(rs.Process):
    """Keeps a core busy for a millisecond."""

    version = 1
    outputs: ClassVar = {"value": rs.Output()}

    def unit_computation(self, position: int) -> float:
        """Compute one position."""
        until = time.perf_counter() + UNIT_S
        while time.perf_counter() < until:
            pass
        return float(position)


@contextlib.contextmanager
def serial(workers: int) -> Iterator[Any]:
    """Offer this process."""
    yield "serial"


@contextlib.contextmanager
def local(workers: int) -> Iterator[Any]:
    """Offer the worker processes of the local engine."""
    yield "local"


@contextlib.contextmanager
def processes(workers: int) -> Iterator[Any]:
    """Offer the executor of the standard library."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as executor:
        yield executor


@contextlib.contextmanager
def loky(workers: int) -> Iterator[Any]:
    """Offer the executor of loky."""
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as executor:
        yield executor


@contextlib.contextmanager
def dask(workers: int) -> Iterator[Any]:
    """Offer a cluster of dask on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


ENGINES: dict[str, Callable[[int], contextlib.AbstractContextManager[Any]]] = {
    made.__name__: made for made in (serial, local, processes, loky, dask)
}
"""How each is made, for a number of workers."""


def timed(process: rs.Process, engine: Any, workers: int, **options: Any) -> float:
    """Return the seconds that a run takes."""
    before = time.perf_counter()
    process.compute(engine=engine, workers=workers, progress=False, **options)
    return time.perf_counter() - before


def cost(name: str, batches: int, writer: str, folder: str) -> float:
    """Return the seconds that a batch occupies a worker beyond its computation."""
    workers = 1 if name == "serial" else 2
    if name == "mpi":
        took = under_mpi(workers, batches, writer, folder)
    else:
        with ENGINES[name](workers) as engine:
            took = one_by_one(engine, workers, batches, writer, folder)
    return took * workers / batches - UNIT_S


def one_by_one(
    engine: Any, workers: int | None, batches: int, writer: str, folder: str
) -> float:
    """Return the seconds of a run whose batches are one position each."""
    timed(Busy(20, folder), engine, workers)
    as_it_is = Schedule.next_rows
    # No ordinary run has such batches.
    Schedule.next_rows = lambda self, seconds=None: 1  # type: ignore[method-assign]
    try:
        return timed(
            Busy(batches, folder), engine, workers, writer=writer, override=True
        )
    finally:
        Schedule.next_rows = as_it_is  # type: ignore[method-assign]


def under_mpi(ranks: int, batches: int, writer: str, folder: str) -> float:
    """Return the seconds of such a run on ranks, on the slowest of them."""
    script = (
        "import engines, sys\n"
        "took = engines.one_by_one('mpi', None, int(sys.argv[1]), *sys.argv[2:])\n"
        "print(f'{took}\\n', end='', flush=True)\n"
    )
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [
            Path(sys.executable).with_name("mpiexec"),
            *("-n", str(ranks), sys.executable, "-c", script),
            *(str(batches), writer, folder),
        ],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return max(map(float, done.stdout.split()))


def fit_seconds(name: str, workers: int, source: Path, expected: Array) -> float:
    """Return how long the fits take, checked."""
    address = f"{source}::/{DATASET}"
    with (
        ENGINES[name](workers) as engine,
        tempfile.TemporaryDirectory(dir=source.parent) as folder,
    ):
        few = ours.Fit(address, folder)
        few.compute(engine=engine, workers=workers, positions=slice(20), progress=False)
        fit = ours.Fit(address, folder, seed=1)
        seconds = timed(fit, engine, workers)
        results = fit.results
        right = results and np.allclose(results["result"][...], expected)
    if not right:
        msg = f"{name} computed something else"
        raise RuntimeError(msg)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    parser.add_argument("--scale", type=float, default=1.0, help="of both workloads")
    engines = [*ENGINES, "mpi"]
    parser.add_argument("--engines", nargs="+", default=engines, choices=engines)
    parser.add_argument(
        "--folder", type=Path, help="parent of the temporary folder, on a real disk"
    )
    options = parser.parse_args()
    batches = max(100, int(BATCHES * options.scale))
    # mpi_scaling.py has the ranks' speed-up.
    scaled = [name for name in options.engines if name not in ("serial", "mpi")]
    workload = WORKLOADS["b"].scaled(FITS * options.scale)
    costs: dict[tuple[str, str], list[float]] = {}
    fits: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="resumable-", dir=options.folder) as folder:
        source = Path(folder, "fit.h5")
        workload.create(source)
        expected = workload.expected(source)
        for _ in range(options.rounds):
            for name in options.engines:
                for writer in ("workers", "driver"):
                    costs.setdefault((name, writer), []).append(
                        cost(name, batches, writer, folder)
                    )
            for name in scaled:
                for workers in (1, 2):
                    fits.setdefault((name, workers), []).append(
                        fit_seconds(name, workers, source, expected)
                    )
    print(
        f"{batches:,} batches of 1 ms: us per batch beyond it, workers / driver write"
    )
    for name in options.engines:
        each = [statistics.median(costs[name, w]) * 1e6 for w in ("workers", "driver")]
        print(f"  {name:10} {each[0]:10.0f} {each[1]:10.0f}")
    print(f"{workload.rows:,} fits: two workers against one")
    for name in scaled:
        one, two = (statistics.median(fits[name, workers]) for workers in (1, 2))
        wanted = f"(wanted: {WANTED[name]})" if name in WANTED else ""
        print(f"  {name:10} {one / two:10.2f} times as fast {wanted}")


if __name__ == "__main__":
    main()
