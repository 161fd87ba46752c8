"""Compare many short positions with two workers with pydidas's AppRunner.

    python benchmarks/runner.py

The sum of each of 20,000 rows of 32 float32, start-up included, three ways in turns,
each time in a fresh process:

``ours``
    ``compute(workers=2)``, which ends before its workers have started.
``ours+workers``
    ``compute(workers=2, engine="local")``, which waits for both workers.
``pydidas``
    An app in pydidas's ``AppRunner(app, n_workers=2)``.

The time is that from the making of the process or app to its results: those of
resumable are synced to disk, those of pydidas are in memory. The time until the workers
of pydidas have ended is printed, too. Imports in the calling process, and one read of
the source, are not timed. Values are compared with numpy's.

pydidas is installed into an environment of its own on first use, 2 GB. Its Qt needs
libraries of the system that servers do not have; on Debian::

    apt-get install libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0
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
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import rounds
from computations import Array
from measure import compare, warm
from workloads import DATASET, TRIVIAL, WORKERS

ALLOWED_RATIO = 10.0
"""pydidas should take this many times ours."""


def total(spectrum: Array) -> Any:
    """Return the sum of one spectrum."""
    return spectrum.sum()


SUMS = replace(
    TRIVIAL,
    key="sums",
    title="sum of every row, 20,000 x 32 float32",
    shape=(20_000, 32),
    unit=total,
)


def main() -> int:
    """Measure and print.

    Returns
    -------
    int
        Exit code: 1 if a value was wrong.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each (default: 5)"
    )
    parser.add_argument(
        "--folder", type=Path, help="parent of the temporary folder, on a real disk"
    )
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument(
        "--cache",
        type=Path,
        default=default / "resumable-benchmarks",
        help="folder that keeps pydidas's own environment (default: in the user's "
        "cache folder)",
    )
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, source, folder = options.measure
        measure(name, Path(source), Path(folder))
        return 0
    from environment import pydidas_python

    pythons = dict.fromkeys(CANDIDATES, Path(sys.executable))
    pythons["pydidas"] = pydidas_python(options.cache)
    load = os.getloadavg()[0]
    print(f"{platform.system()}, {os.cpu_count()} cores, load {load:.1f} before")
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in pythons}
    problems: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="resumable-", dir=options.folder) as folder:
        material = rounds.prepare(SUMS, 1.0, Path(folder))
        expected = np.load(material.expected)
        for turn in range(options.rounds):
            names = list(pythons)
            for name in names[turn % 3 :] + names[: turn % 3]:
                times, sums = run(name, pythons[name], material.source)
                taken[name].append(times)
                problem = compare(sums, expected)
                problems |= {f"{name}: {problem}"} if problem else set()
    report(taken)
    print("\n".join(sorted(problems)) or "all values right")
    return int(bool(problems))


def run(name: str, python: Path, source: Path) -> tuple[tuple[float, float], Array]:
    """Run a candidate in a fresh process and an empty folder, then remove it.

    Returns
    -------
    times : tuple of float
        Seconds until the results were available, and until all processes had ended.
    sums : numpy.ndarray
        The results.
    """
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        ended = subprocess.run(
            [python, __file__, "--measure", name, source, folder],
            stdout=subprocess.PIPE,
            check=True,
            env={
                **os.environ,
                **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
                "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
                # Qt needs no display then; and what pydidas writes into a home
                # folder does not go into the user's.
                "QT_QPA_PLATFORM": "offscreen",
                **({"HOME": str(python.parents[1])} if name == "pydidas" else {}),
            },
            timeout=rounds.TIMEOUT_S,
        )
        there, end = json.loads(ended.stdout)
        return (there, end), np.load(Path(folder, "sums.npy"))


def measure(name: str, source: Path, folder: Path) -> None:
    """Measure one candidate in this process; print both times as JSON."""
    # Everything a library prints goes to stderr: stdout is for the JSON alone.
    with contextlib.redirect_stdout(sys.stderr):
        compute = CANDIDATES[name]()
        warm(SUMS, source)
        before = time.perf_counter()
        read, there = compute(source, folder)
        end = time.perf_counter()
        np.save(folder / "sums.npy", read().astype(SUMS.output_dtype))
    json.dump([there - before, end - before], sys.stdout)


def report(taken: dict[str, list[tuple[float, float]]]) -> None:
    """Print medians and ratios."""
    print(f"{SUMS.title}, {WORKERS} workers; s, median and extremes; until all ended")
    medians = {}
    for name, times in taken.items():
        there, end = zip(*times, strict=True)
        medians[name] = statistics.median(there)
        print(
            f"  {name:14}{medians[name]:8.3f}{min(there):8.3f} to {max(there):6.3f}"
            f"{statistics.median(end):10.3f}"
        )
    for name in ("ours", "ours+workers"):
        ratio = medians["pydidas"] / medians[name]
        verdict = "reached" if ratio >= ALLOWED_RATIO else "NOT reached"
        print(f"  pydidas / {name} {ratio:.1f} (wanted: {ALLOWED_RATIO:g}): {verdict}")


Compute = Callable[[Path, Path], tuple[Callable[[], Array], float]]


def ours(engine: str = "auto") -> Compute:
    """Compute with resumable, with other options at their defaults."""
    import resumable as rs

    class Sums(rs.Process):
        """Sum of every spectrum."""

        version = 1
        outputs: ClassVar = {"sum": rs.Output(dtype="f4")}

        def unit_computation(self, spectrum: Array) -> Any:
            return spectrum.sum()

    def compute(source: Path, folder: Path) -> tuple[Callable[[], Array], float]:
        process = Sums(f"{source}::/{DATASET}", target=str(folder))
        results = process.compute(engine=engine, workers=WORKERS, progress=False)
        return lambda: results["sum"][...], time.perf_counter()

    return compute


def pydidas() -> Compute:
    """Compute with pydidas's runner, whose workers import the app."""
    import pydidas_app

    return pydidas_app.compute


CANDIDATES: dict[str, Callable[[], Compute]] = {
    "ours": ours,
    "ours+workers": functools.partial(ours, "local"),
    "pydidas": pydidas,
}

if __name__ == "__main__":
    sys.exit(main())
