"""Compare the speed of resumable with other ways to compute the same.

    python benchmarks/speed.py
    python benchmarks/speed.py --workloads a b --rounds 3 --without pyusid

Every candidate runs the same function on the same source, with two workers, in a
process of its own; rounds are interleaved, so that other work of the machine disturbs
all of them alike. The time is that of the call, with the start of workers and the
making of files. The start of Python, imports, and one read of the source, which brings
it into the page cache, are not timed. Every result is checked against numpy. Use a
folder on a real disk: on a memory file system a sync costs nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
from pathlib import Path

import rounds
from environment import pyusid_python
from rounds import Candidate, Measurement
from workloads import WORKERS, WORKLOADS, Workload

CANDIDATES = {
    "ours": "ours",
    "floor": "floor",
    "floor+sync": "floor_sync",
    "numpy": "plain",
    "joblib": "joblib_loop",
    "dask": "dask_blocks",
    "pyusid": "pyusid_process",
}
"""Modules in this folder by the candidates' names; numpy is for blocks only."""

ALLOWED_RATIO = 1.1
"""Ours may take this many times the floor ..."""

ALLOWED_START_S = 0.25
"""... and this many seconds more."""

ALLOWED_BLOCK_RATIO = 1.3
"""As a block computation, ours may take this many times one numpy call."""


def main() -> int:
    """Measure what the command line asks for and print the tables.

    Returns
    -------
    int
        Exit code: 1 if a candidate failed or computed something else than numpy.
    """
    options = _parser().parse_args()
    candidates = [
        Candidate(name, module)
        for name, module in CANDIDATES.items()
        if name not in {*options.without, "pyusid"}
    ]
    if "pyusid" not in options.without:
        python = pyusid_python(options.cache)
        candidates.append(Candidate("pyusid", CANDIDATES["pyusid"], python))
    print(_machine(), flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="resumable-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for key in options.workloads:
            material = rounds.prepare(WORKLOADS[key], options.scale, folder)
            fitting = [
                candidate
                for candidate in candidates
                if candidate.name != "numpy" or material.workload.block
            ]
            measured = rounds.run(material, fitting, options.rounds)
            print(_table(material.workload, measured), flush=True)
            failed = failed or any(map(rounds.problems, measured.values()))
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workloads",
        nargs="+",
        choices=WORKLOADS,
        default=list(WORKLOADS),
        help="which to run (default: all)",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        choices=[name for name in CANDIDATES if name != "floor"],
        default=[],
        help="candidates to leave out",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="runs of each candidate (default: 5)"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="multiplies the number of positions; 0.1 tries the script out",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder for sources (kept, about 1.5 GB) and outputs (removed); "
        "default: a temporary one",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache / "resumable-benchmarks",
        help="folder that keeps pyUSID's own environment (default: in the user's "
        "cache folder)",
    )
    return parser


def _table(workload: Workload, measured: dict[str, list[Measurement]]) -> str:
    """Return the table of one workload as text."""
    medians = {name: rounds.median(rows) for name, rows in measured.items()}
    against = [name for name in ("floor", "floor+sync", "numpy") if name in medians]
    lines = [
        f"({workload.key}) {workload.title}",
        f"{'':12}{'median':>9}{'min':>9}{'max':>9}"
        + "".join(f"{'/ ' + name:>14}" for name in against),
    ]
    for name, measurements in measured.items():
        seconds = [measurement.seconds for measurement in measurements]
        numbers = (medians[name], min(seconds), max(seconds))
        ratios = (medians[name] / medians[other] for other in against)
        line = f"{name:12}" + "".join(f"{number:7.3f} s" for number in numbers)
        lines.append(line + "".join(f"{ratio:14.2f}" for ratio in ratios))
        lines += [f"{'':12}{text}" for text in rounds.problems(measurements)]
    if workload.shape != WORKLOADS[workload.key].shape:
        lines.append(f"scaled to {workload.shape}: too short to conclude anything from")
    elif "ours" in measured:
        minima = {
            name: min(measurement.seconds for measurement in measurements)
            for name, measurements in measured.items()
        }
        lines += _verdict(workload, "medians", medians)
        lines += _verdict(workload, "minima", minima)
    return "\n".join([*lines, ""])


def _verdict(workload: Workload, what: str, seconds: dict[str, float]) -> list[str]:
    """Say whether ours was fast enough, in one line or none.

    Minima are compared, too: on a shared machine the medians are too good where the
    reference was disturbed more than ours.
    """
    limit = _limit(workload, seconds)
    if limit is None:
        return []
    reached = "reached" if seconds["ours"] <= limit else "NOT reached"
    return [f"by the {what} ours may take {limit:.3f} s: {reached}"]


def _limit(workload: Workload, seconds: dict[str, float]) -> float | None:
    """Return how long ours may take in seconds, or None where there is no limit."""
    if workload.block is not None:
        numpy = seconds.get("numpy")
        return None if numpy is None else ALLOWED_BLOCK_RATIO * numpy
    if workload.position_axes[0]:
        return None
    return ALLOWED_RATIO * seconds["floor"] + ALLOWED_START_S


def _machine() -> str:
    """Return cores, load and versions, on which the numbers depend, but no names."""
    versions = [f"Python {platform.python_version()}"]
    for package in ("numpy", "h5py", "scipy", "joblib", "dask"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return (
        f"{platform.system()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} before, {WORKERS} workers; {', '.join(versions)}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
