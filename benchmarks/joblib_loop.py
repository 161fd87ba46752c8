"""A loop with joblib: batches are sent to workers, results written to HDF5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import joblib  # type: ignore[import-untyped]
import output
from computations import Array
from workloads import DATASET, WORKERS, Workload

BATCHES = 16
"""Enough for the writing to overlap the computing, few enough to cost nothing."""


def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
    """Compute batches with loky; the driver writes each as it comes."""
    path = folder / "joblib.h5"
    batches = workload.batches(BATCHES)
    parallel = joblib.Parallel(
        n_jobs=WORKERS, backend="loky", return_as="generator", batch_size=1
    )
    results = parallel(
        joblib.delayed(_work)(workload, source, start, stop) for start, stop in batches
    )
    with h5py.File(path, "w") as file:
        dataset = output.create(file, workload)
        for (start, stop), rows in zip(batches, results, strict=True):
            dataset[start:stop] = rows
    return output.reader(path, workload)


def _work(workload: Workload, source: Path, start: int, stop: int) -> Array:
    """Read and compute one batch, in a worker."""
    with h5py.File(source, "r") as file:
        spectra = workload.read(file[DATASET], start, stop)
    return workload.compute(spectra)
