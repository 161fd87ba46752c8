"""Measure one candidate once, in a process of its own, and print it as JSON.

`rounds.py` starts this script; a candidate is a module beside it with a function
``compute(workload, source, folder)`` that does everything a user waits for and returns
a function that reads the result. The import of the module, and with it of everything
the candidate needs, is not timed; the start of workers and the making of files are. A
candidate that reads the source in another format also has ``prepare(workload,
source)``, which is not timed and returns the path of its copy.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import h5py
import numpy as np
from computations import Array
from workloads import DATASET, TRIVIAL, WORKLOADS, Workload


class Candidate(Protocol):
    """The function of a candidate's module."""

    def compute(
        self, workload: Workload, source: Path, folder: Path
    ) -> Callable[[], Array]:
        """Compute the workload into `folder`; return what reads the result."""


def main() -> None:
    """Measure what the command line names."""
    workloads = {**WORKLOADS, TRIVIAL.key: TRIVIAL}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("candidate", help="name of a module in this folder")
    parser.add_argument("workload", choices=workloads)
    parser.add_argument("scale", type=float)
    parser.add_argument("source", type=Path, help="the source file")
    parser.add_argument("expected", type=Path, help="numpy file of the right results")
    parser.add_argument("folder", type=Path, help="empty folder for output files")
    options = parser.parse_args()
    workload = workloads[options.workload].scaled(options.scale)
    # Everything a library prints goes to stderr: stdout is for the JSON alone.
    with contextlib.redirect_stdout(sys.stderr):
        module = importlib.import_module(options.candidate)
        source: Path = options.source
        if hasattr(module, "prepare"):
            source = module.prepare(workload, source)
        candidate = cast(Candidate, module)
        warm(workload, source)
        before = time.perf_counter()
        read = candidate.compute(workload, source, options.folder)
        seconds = time.perf_counter() - before
        results = read()
    problem = compare(results, np.load(options.expected, mmap_mode="r"))
    json.dump({"seconds": seconds, "problem": problem}, sys.stdout)


def warm(workload: Workload, source: Path) -> None:
    """Bring the source into the page cache, compute one position, sync all disks.

    Computing one position imports what the computation needs, scipy for example.
    Without the sync of the disks, the first sync of a candidate would also write what
    the candidate before has left unsynced.
    """
    with source.open("rb") as file:
        while file.read(2**24):
            pass
    with h5py.File(source, "r") as file:
        workload.unit(workload.read(file[DATASET], 0, 1)[0])
    os.sync()


def compare(results: Array, expected: Array) -> str | None:
    """Return how results differ from those of numpy as text, or None.

    Float32 sums in another order differ in the last digits, and a fit under another
    version of numpy in a few more.
    """
    if results.shape != expected.shape or results.dtype != expected.dtype:
        return (
            f"expected {expected.shape} {expected.dtype}, "
            f"got {results.shape} {results.dtype}"
        )
    wrong = ~np.isclose(results, expected, rtol=1e-4, atol=1e-5)
    if wrong.any():
        return f"{wrong.sum()} of {wrong.size} numbers are wrong"
    return None


if __name__ == "__main__":
    main()
