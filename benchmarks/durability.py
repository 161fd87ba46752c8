"""Measure what durability costs: ours against ours with a single sync at the end.

    python benchmarks/durability.py
    python benchmarks/durability.py --rounds 9 --folder on-a-real-disk

Both write the same rows in the same order; interleaved, each in a process of its own.
The rate at which the disk writes is printed, too: workload (c) writes as much as it
reads, so a disk that is slower than the computation decides its time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import rounds
from rounds import Candidate
from workloads import WORKLOADS

CANDIDATES = (Candidate("ours", "ours"), Candidate("one sync", "ours_one_sync"))
WORKLOAD_KEYS = ("b", "c")
MEGABYTES = 256


def main() -> int:
    """Measure both workloads and print one line for each.

    Returns
    -------
    int
        Exit code: 1 if a candidate failed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="on a real disk")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="resumable-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"the disk takes {_disk_rate(folder):.0f} MB/s, fdatasync included")
        for key in WORKLOAD_KEYS:
            material = rounds.prepare(WORKLOADS[key], options.scale, folder)
            measured = rounds.run(material, CANDIDATES, options.rounds)
            ours, one = (rounds.median(measured[c.name]) for c in CANDIDATES)
            pairs = sorted(
                a.seconds / b.seconds
                for a, b in zip(*(measured[c.name] for c in CANDIDATES), strict=True)
            )
            print(
                f"({key}) {ours:.3f} s, {one:.3f} s with one sync at the end: "
                f"{ours / one:.3f} times by the medians, "
                f"{pairs[len(pairs) // 2]:.3f} by pairs",
                flush=True,
            )
            for name, measurements in measured.items():
                for problem in rounds.problems(measurements):
                    print(f"    {name}: {problem}")
                    failed = True
    return int(failed)


def _disk_rate(folder: Path) -> float:
    """Write to a new file and sync it; return MB/s."""
    block = os.urandom(1 << 20)
    path = folder / "rate.partial"
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(MEGABYTES):
            file.write(block)
        file.flush()
        os.fdatasync(file.fileno())
    took = time.perf_counter() - began
    path.unlink()
    return MEGABYTES / took


if __name__ == "__main__":
    sys.exit(main())
