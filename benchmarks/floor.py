"""The floor: the time without a status and without syncs.

Forked processes take contiguous blocks of positions and put the results into shared
memory; one write at the end. A kill loses the whole run; an exception at one position
ends it.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import output
from computations import Array
from workloads import DATASET, WORKERS, Workload


def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
    """Compute in forked processes and write once, without a sync."""
    count = int(np.prod(workload.result_shape))
    memory = mmap.mmap(-1, count * np.dtype(workload.output_dtype).itemsize)
    results = np.frombuffer(memory, workload.output_dtype)
    results = results.reshape(workload.result_shape)
    fork = multiprocessing.get_context("fork")
    workers = [
        fork.Process(target=_work, args=(workload, source, results, start, stop))
        for start, stop in workload.batches(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            message = f"a worker ended with exit code {worker.exitcode}"
            raise RuntimeError(message)
    path = folder / "floor.h5"
    with h5py.File(path, "w") as file:
        output.create(file, workload)[...] = results
    return output.reader(path, workload)


def sync(path: Path) -> None:
    """Bring the contents of a file to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _work(
    workload: Workload, source: Path, results: Array, start: int, stop: int
) -> None:
    """Compute one contiguous block, in pieces that stay in the cache."""
    with h5py.File(source, "r") as file:
        dataset = file[DATASET]
        for first in range(start, stop, workload.piece):
            last = min(first + workload.piece, stop)
            spectra = workload.read(dataset, first, last)
            results[first:last] = workload.compute(spectra)
