"""Read everything, compute in this process, write once: no workers, no status.

For a block computation that is one numpy call, for the others a bare Python loop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import output
from computations import Array
from workloads import DATASET, Workload


def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
    """Compute the whole source at once."""
    with h5py.File(source, "r") as file:
        spectra = workload.read(file[DATASET], 0, workload.rows)
    results = workload.compute(spectra)
    path = folder / "plain.h5"
    with h5py.File(path, "w") as file:
        output.create(file, workload)[...] = results
    return output.reader(path, workload)
