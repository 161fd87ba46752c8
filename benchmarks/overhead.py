"""Measure the time that resumable adds per position to a Python loop.

    python benchmarks/overhead.py

The computation returns the first number of 8, on a million positions, in one process
(the serial engine). The loop reads the source, calls the function for every row and
writes the results with h5py. The fixed time of a run (creation of the run file, syncs)
is measured with 1,000 positions and printed separately.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import rounds
from rounds import Candidate, Measurement
from workloads import TRIVIAL

CANDIDATES = (Candidate("ours", "ours_serial"), Candidate("loop", "plain"))
"""Ours and what it is compared with."""

FEW = 0.001
"""Scale of the source that shows what is paid once."""

ALLOWED_US = 0.5
"""Microseconds that ours may take more than the loop, per position."""


def main() -> int:
    """Measure and print.

    Returns
    -------
    int
        Exit code: 1 if a run failed or computed something else than numpy.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=15, help="runs of each (default: 15)"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies the number of positions"
    )
    parser.add_argument(
        "--folder", type=Path, help="parent of the temporary folder, on a real disk"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="resumable-", dir=options.folder) as folder:
        many = rounds.prepare(TRIVIAL, options.scale, Path(folder))
        few = rounds.prepare(TRIVIAL, FEW, Path(folder))
        measured = rounds.run(many, CANDIDATES, options.rounds)
        measured_few = rounds.run(few, CANDIDATES, options.rounds)
    positions = many.workload.rows
    print(_table(positions, measured))
    print(_table(few.workload.rows, measured_few))
    extra, once = _difference(measured), _difference(measured_few)
    whole = extra / positions * 1e6
    slope = (extra - once) / (positions - few.workload.rows) * 1e6
    verdict = "reached" if whole <= ALLOWED_US else "NOT reached"
    print(f"once                      {once * 1e3:8.1f} ms")
    print(f"per position              {slope:8.3f} us")
    print(f"per position, with once   {whole:8.3f} us")
    print(f"ours may take {ALLOWED_US} us per position: {verdict}")
    return int(any(map(rounds.problems, [*measured.values(), *measured_few.values()])))


def _table(positions: int, measured: dict[str, list[Measurement]]) -> str:
    """Return medians and extremes as text."""
    lines = [f"{positions:<12,}{'median':>10}{'min':>10}{'max':>10}"]
    for name, measurements in measured.items():
        seconds = [measurement.seconds for measurement in measurements]
        numbers = (rounds.median(measurements), min(seconds), max(seconds))
        lines.append(f"{name:12}" + "".join(f"{number:8.4f} s" for number in numbers))
        lines += [f"{'':12}{text}" for text in rounds.problems(measurements)]
    return "\n".join([*lines, ""])


def _difference(measured: dict[str, list[Measurement]]) -> float:
    """Return how much longer ours takes than the loop, in seconds."""
    return rounds.median(measured["ours"]) - rounds.median(measured["loop"])


if __name__ == "__main__":
    sys.exit(main())
