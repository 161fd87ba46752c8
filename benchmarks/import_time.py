"""Compare ``import resumable`` with the import of its requirements.

Fresh interpreters, in turn: nothing, h5py and param, and resumable. The time of
the start of Python is subtracted. Usage: ``python benchmarks/import_time.py [rounds]``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CANDIDATES = {
    "nothing": "pass",
    "h5py, param": "import h5py, param",
    "resumable": "import resumable",
}


def seconds(code: str) -> float:
    """Time one fresh interpreter."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure in turn and print medians and the ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    times: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for _ in range(rounds):
        for name, code in CANDIDATES.items():
            times[name].append(seconds(code))
    medians = {name: statistics.median(values) for name, values in times.items()}
    start = medians.pop("nothing")
    for name, median in medians.items():
        print(f"{name:12}  {median - start:.3f} s")
    ratio = (medians["resumable"] - start) / (medians["h5py, param"] - start)
    print(f"ratio         {ratio:.2f}")


if __name__ == "__main__":
    main()
